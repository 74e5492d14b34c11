//! Which event a verified request is, and of which type.

use http::{HeaderName, HeaderValue};
use postroom_domain::event::ExternalId;
use postroom_domain::provider::{self, Payload};
use postroom_domain::verify::{Outcome, Request, Verifier};

use crate::support::{Source, at};

/// Type and id of a signed body, with some unsigned headers replaced or added.
fn identity(provider: &'static str, content_type: &str, body: &str, headers: &[(&str, &str)]) -> (String, String) {
    let payload = Payload { content_type: content_type.to_owned(), ..Payload::of_body(body) };
    let source = Source::of(provider);
    let mut signed = source.sign(&payload, at(0));
    for name in ["x-github-delivery", "x-shopify-event-id"] {
        signed.headers.remove(name);
    }
    for (name, value) in headers {
        signed.headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let verifier = source.verifier();
    let request =
        Request { method: signed.method.as_str(), url: &signed.url, headers: &signed.headers, body: &signed.body };
    let Outcome::Verified(verified) = verifier.verify(&request, at(0)) else { panic!("{provider} {body}") };
    (verified.event_type().to_string(), verified.external_id().unwrap_or("-").to_owned())
}

#[test]
fn type_and_id_are_read_where_the_provider_writes_them() {
    const JSON: &str = "application/json";
    const FORM: &str = "application/x-www-form-urlencoded";
    let event = |name| [("x-github-event", name), ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958")];
    let delivery = "72d3162e-cc78-11e3-81ab-4c9367dc0958";
    for (provider, kind, body, headers, expected) in [
        ("stripe", JSON, r#"{"id":"evt_1","type":"invoice.paid"}"#, [].as_slice(), ("invoice.paid", "evt_1")),
        (
            "stripe",
            JSON,
            r#"{"id":"evt_2","object":"v2.core.event","type":"v1.billing.meter"}"#,
            &[],
            ("v1.billing.meter", "evt_2"),
        ),
        ("stripe", JSON, r#"{"object":"event"}"#, &[], ("stripe", "-")),
        ("github", JSON, r#"{"ref":"x"}"#, &event("push"), ("push", delivery)),
        ("github", JSON, r#"{"action":"opened"}"#, &event("pull_request"), ("pull_request.opened", delivery)),
        ("github", FORM, "payload=%7B%22action%22%3A%22closed%22%7D", &event("issues"), ("issues.closed", delivery)),
        ("github", JSON, "{}", &[], ("github", "-")),
        (
            "shopify",
            JSON,
            "{}",
            &[("x-shopify-topic", "orders/create"), ("x-shopify-event-id", "e1")],
            ("orders/create", "e1:orders/create"),
        ),
        (
            "shopify",
            JSON,
            "{}",
            &[("x-shopify-topic", "orders/create"), ("x-shopify-webhook-id", "w1")],
            ("orders/create", "w1"),
        ),
        (
            "shopify",
            JSON,
            "{}",
            &[("x-shopify-topic", "a/b"), ("x-shopify-event-id", "e1"), ("x-shopify-name", "second")],
            ("a/b", "e1:a/b:second"),
        ),
        (
            "slack",
            JSON,
            r#"{"type":"event_callback","event_id":"Ev1","event":{"type":"message"}}"#,
            &[],
            ("message", "Ev1"),
        ),
        ("slack", JSON, r#"{"type":"app_rate_limited"}"#, &[], ("app_rate_limited", "-")),
        ("slack", FORM, "token=x&command=%2Fweather&text=94070", &[], ("slash_command", "-")),
        ("slack", FORM, "payload=%7B%22type%22%3A%22block_actions%22%7D", &[], ("block_actions", "-")),
        ("workos", JSON, r#"{"id":"event_1","event":"dsync.user.created"}"#, &[], ("dsync.user.created", "event_1")),
        ("hmac", JSON, r#"{"type":"order.paid","id":"x"}"#, &[], ("order.paid", "-")),
        ("hmac", JSON, r#"{"kind":"order.paid"}"#, &[], ("unknown", "-")),
        ("none", JSON, r#"{"type":"a b\n"}"#, &[], ("a_b_", "-")),
        ("none", JSON, r#"{"type":7}"#, &[], ("7", "-")),
    ] {
        let (kind, id) = identity(provider, kind, body, headers);
        assert_eq!((kind.as_str(), id.as_str()), expected, "{provider} {body}");
    }
}

#[test]
fn a_standard_webhook_is_known_by_its_signed_id() {
    let source = Source::of("standard-webhooks");
    let payload = Payload { external_id: Some("msg_1".to_owned()), ..Payload::of_body(r#"{"type":"a.b"}"#) };
    let signed = source.sign(&payload, at(0));
    let request = Request { method: "POST", url: "", headers: &signed.headers, body: &signed.body };
    let Outcome::Verified(verified) = source.verifier().verify(&request, at(0)) else { panic!() };
    assert_eq!((verified.event_type().as_str(), verified.external_id()), ("a.b", Some("msg_1")));
}

#[test]
fn a_batch_of_mandrill_is_known_by_what_was_signed() {
    let one = identity("mandrill", "", r#"[{"event":"open","_id":"1"}]"#, &[]);
    let two = identity("mandrill", "", r#"[{"event":"open","_id":"2"}]"#, &[]);
    let mixed = identity("mandrill", "", r#"[{"event":"open"},{"event":"send"}]"#, &[]);
    let sync = identity("mandrill", "", r#"[{"type":"blacklist","action":"add"}]"#, &[]);
    assert_eq!([&one.0, &mixed.0, &sync.0], ["open", "batch", "blacklist"]);
    assert_ne!(one.1, two.1);
    assert!(one.1.starts_with("sha256:"));

    // %7B and %7b are one byte: who repeats a request in another spelling does not get a second event.
    let source = Source::of("mandrill");
    let mut signed = source.sign(&Payload::of_body(r#"[{"event":"open","_id":"1"}]"#), at(0));
    signed.body = String::from_utf8(signed.body).unwrap().replace("%7B", "%7b").into_bytes();
    let request = Request { method: "POST", url: &signed.url, headers: &signed.headers, body: &signed.body };
    let Outcome::Verified(verified) = source.verifier().verify(&request, at(0)) else { panic!() };
    assert_eq!(verified.external_id(), Some(one.1.as_str()));
}

#[test]
fn an_id_that_storage_would_refuse_is_stood_for_by_its_digest() {
    for id in ["x".repeat(256), "x".repeat(1_000_000), "a\\nb".to_owned()] {
        let (_, found) = identity("stripe", "application/json", &format!(r#"{{"id":"{id}","type":"a"}}"#), &[]);
        assert!(found.starts_with("sha256:") && ExternalId::parse(&found).is_ok());
    }
    for id in ["\"\"", "null", "1.5", "[1]", "{}"] {
        let (_, found) = identity("stripe", "application/json", &format!(r#"{{"id":{id},"type":"a"}}"#), &[]);
        assert_eq!(found, "-", "{id}");
    }
}

#[test]
fn a_doubled_header_names_nothing() {
    let twice = [
        ("x-github-event", "push"),
        ("x-github-event", "ping"),
        ("x-github-delivery", "1"),
        ("x-github-delivery", "2"),
    ];
    assert_eq!(identity("github", "application/json", "{}", &twice), ("github".to_owned(), "-".to_owned()));
}

#[test]
fn headers_that_the_providers_libraries_need_are_passed_on() {
    for (provider, passed, kept) in [
        ("stripe", ["stripe-signature"].as_slice(), ["authorization", "cookie", "host"].as_slice()),
        (
            "github",
            &["X-Hub-Signature-256", "x-github-event", "X-GitHub-Delivery", "x-hub-signature"],
            &["x-forwarded-for"],
        ),
        (
            "shopify",
            &["x-shopify-hmac-sha256", "shopify-hmac-sha256", "x-shopify-topic", "x-shopify-event-id"],
            &["x-real-ip"],
        ),
        ("slack", &["x-slack-signature", "x-slack-request-timestamp", "x-slack-retry-num"], &["authorization"]),
        ("mandrill", &["x-mandrill-signature"], &["content-length"]),
        ("workos", &["workos-signature"], &["cookie"]),
        ("standard-webhooks", &["webhook-id", "webhook-timestamp", "webhook-signature"], &["x-signature"]),
        ("none", &[], &["x-signature", "authorization"]),
    ] {
        let row = provider::find(provider).unwrap();
        let verifier = Source::of(provider).verifier();
        for name in passed {
            assert!(row.forwards_header(name) && verifier.forwards_header(name), "{provider} {name}");
        }
        for name in kept {
            assert!(!row.forwards_header(name) && !verifier.forwards_header(name), "{provider} {name}");
        }
    }
    let options = serde_json::json!({
        "signature_header": "X-Sig", "signed_content": "{header:X-Id}.{timestamp}.{body}", "timestamp_header": "X-Time",
        "event_type_header": "X-Type"
    });
    let verifier = Verifier::compile("hmac", &crate::support::options(options), &[]).unwrap();
    for name in ["x-sig", "x-id", "x-time", "x-type"] {
        assert!(verifier.forwards_header(name), "{name}");
    }
    assert!(!verifier.forwards_header("x-other"));
}
