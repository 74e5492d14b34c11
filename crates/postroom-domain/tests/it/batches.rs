//! Requests that carry several events are split, each part in the shape of a request that carried one.

use postroom_domain::provider::Payload;
use postroom_domain::verify::{Outcome, Request, SignedRequest, Verified};

use crate::support::{Source, at};

fn verified(source: &Source, signed: &SignedRequest) -> Verified {
    let request =
        Request { method: signed.method.as_str(), url: &signed.url, headers: &signed.headers, body: &signed.body };
    match source.verifier().verify(&request, at(0)) {
        Outcome::Verified(verified) => verified,
        other => panic!("{} {other:?}", source.provider),
    }
}

/// Type, id and body of every part.
fn parts(provider: &'static str, body: &str) -> Vec<(String, String, String)> {
    let source = Source::of(provider);
    let verified = verified(&source, &source.sign(&Payload::of_body(body), at(0)));
    let text = |part: &postroom_domain::verify::Part| {
        let id = part.external_id.clone().unwrap_or_else(|| "-".to_owned());
        (part.event_type.to_string(), id, String::from_utf8(part.body.clone()).unwrap())
    };
    verified.parts().iter().map(text).collect()
}

#[test]
fn a_part_is_the_request_without_the_other_items() {
    let found = parts(
        "line",
        "{\"destination\": \"U1\", \"events\": [ {\"type\":\"message\",\"webhookEventId\":\"a\", \"n\":1.0},\n {\"type\":\"follow\",\"webhookEventId\":\"b\"} ] }",
    );
    let around = |item: &str| format!("{{\"destination\": \"U1\", \"events\": [ {item} ] }}");
    assert_eq!(
        found,
        [
            ("message".into(), "a".into(), around(r#"{"type":"message","webhookEventId":"a", "n":1.0}"#)),
            ("follow".into(), "b".into(), around(r#"{"type":"follow","webhookEventId":"b"}"#)),
        ]
    );
}

#[test]
fn an_item_of_a_form_is_a_form_of_one_item() {
    let found = parts("mandrill", r#"[{"event":"open","_id":"1"},{"event":"click","_id":"1","é":"&="}]"#);
    assert_eq!(found.iter().map(|part| part.0.as_str()).collect::<Vec<_>>(), ["open", "click"]);
    assert_ne!(found[0].1, found[1].1, "the id of the message names both");
    assert_eq!(found[0].2, "mandrill_events=%5B%7B%22event%22%3A%22open%22%2C%22_id%22%3A%221%22%7D%5D");
    let (name, value) = url::form_urlencoded::parse(found[1].2.as_bytes()).next().unwrap();
    assert_eq!((name.as_ref(), value.as_ref()), ("mandrill_events", r#"[{"event":"click","_id":"1","é":"&="}]"#));
}

#[test]
fn an_event_has_the_same_id_alone_and_among_others() {
    for (provider, one, two) in [
        ("mandrill", r#"{"event":"open","_id":"1"}"#, r#"{"event":"open","_id":"2"}"#),
        ("line", r#"{"type":"message","webhookEventId":"a"}"#, r#"{"type":"message","webhookEventId":"b"}"#),
        (
            "hubspot",
            r#"{"eventId":1,"subscriptionId":2,"objectId":3,"occurredAt":4,"subscriptionType":"contact.creation"}"#,
            r#"{"eventId":1,"subscriptionId":2,"objectId":5,"occurredAt":4,"subscriptionType":"contact.creation"}"#,
        ),
    ] {
        let source = Source::of(provider);
        let list = |items: &str| match provider {
            "line" => format!(r#"{{"events":[{items}]}}"#),
            _ => format!("[{items}]"),
        };
        let alone = verified(&source, &source.sign(&Payload::of_body(list(one)), at(0)));
        assert!(alone.parts().is_empty(), "{provider}: it is delivered as it came");
        let both = parts(provider, &list(&format!("{one},{two}")));
        assert_eq!(both[0].1, alone.external_id().unwrap(), "{provider}");
        assert_eq!(both[0].0, alone.event_type().as_str());
        assert_ne!(both[0].1, both[1].1);
    }
}

#[test]
fn what_can_not_be_split_within_bounds_stays_one_event() {
    let item = r#"{"type":"a","webhookEventId":"b"}"#;
    let many = |count: usize| vec![item; count].join(",");
    assert_eq!(parts("line", &format!(r#"{{"events":[{}]}}"#, many(1000))).len(), 1000);
    let long = "x".repeat(5000);
    for body in [
        format!(r#"{{"events":[{}]}}"#, many(1001)),
        format!(r#"{{"around":"{long}","events":[{}]}}"#, many(2)),
        format!(r#"{{"events":{item}}}"#),
        "not json".to_owned(),
    ] {
        assert!(parts("line", &body).is_empty());
    }
    assert!(parts("stripe", "[{},{}]").is_empty(), "a provider that sends one event a request");
}
