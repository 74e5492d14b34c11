//! What a provider asks before it sends events, and what must not be taken for what.

use super::*;

#[test]
fn asana_teaches_a_source_its_secret_once() {
    let secret = "b537207f20cbfa02357cf448134da559e8bd39d61597dcd5631b8012eae53e81";
    let hello = |secret: &str| SignedRequest {
        method: Method::POST,
        url: URL.into(),
        headers: headers(&[("x-hook-secret", secret)]),
        body: b"{}".into(),
    };
    let fresh = Verifier::compile("asana", &Map::new(), &[]).unwrap();
    let hi = hello(secret);
    let Outcome::Learned { secret: learned, answer } = fresh.verify(&request(&hi), at(0)) else { panic!() };
    assert_eq!(learned, Secret::from(secret));
    assert_eq!((answer.status, answer.headers), (200, vec![("x-hook-secret", secret.to_owned())]));
    for bad in ["", "short", "with a blank in it, and long"] {
        assert_eq!(verdict(&fresh, &hello(bad), at(0)), "signature_invalid secret", "{bad}");
    }
    let taught = Verifier::compile("asana", &Map::new(), &[learned]).unwrap();
    assert_eq!(verdict(&taught, &hello(secret), at(0)), "handshake", "repeated while the answer was on its way");
    let stranger = hello("0000000000000000000000000000000000000000");
    assert_eq!(verdict(&taught, &stranger, at(0)), "signature_invalid handshake_secret");
    let sample = sample("asana", None, 1, at(0)).unwrap();
    let signed = sign("asana", &Map::new(), Some(&Secret::from(secret)), &sample, URL, at(0)).unwrap();
    assert_eq!(verdict(&taught, &signed, at(0)), "ok");
    assert_eq!(verdict(&fresh, &signed, at(0)), "signature_invalid secret");
    let heartbeat = Payload::of_body(r#"{"events":[]}"#);
    let heartbeat = sign("asana", &Map::new(), Some(&Secret::from(secret)), &heartbeat, URL, at(0)).unwrap();
    assert_eq!(verdict(&taught, &heartbeat, at(0)), "handshake");
}

#[test]
fn event_grid_is_answered_in_both_of_its_schemas() {
    let source = Source::of("azure-event-grid");
    let verifier = source.verifier();
    let body = r#"[{"id":"1","eventType":"Microsoft.EventGrid.SubscriptionValidationEvent",
        "data":{"validationCode":"512d38b6-c7b8-40c8-89fe-f46f9e9622b6","validationUrl":"https://x"}}]"#;
    let signed = with(&source.sign(&Payload::of_body(body), at(0)), "aeg-event-type", "SubscriptionValidation");
    let Outcome::Handshake(answer) = verifier.verify(&request(&signed), at(0)) else { panic!() };
    assert_eq!(answer.body, br#"{"validationResponse":"512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}"#);
    let stranger = SignedRequest { url: URL.into(), ..signed.clone() };
    assert_eq!(verdict(&verifier, &stranger, at(0)), "signature_missing signature_header");
    let wrong = SignedRequest { url: format!("{URL}&code=wrong"), ..signed.clone() };
    assert_eq!(verdict(&verifier, &wrong, at(0)), "signature_invalid token");

    let origin = [("webhook-request-origin", "eventgrid.azure.net"), ("webhook-request-rate", "120")];
    let asked = SignedRequest { method: Method::OPTIONS, url: URL.into(), headers: headers(&origin), body: Vec::new() };
    let Outcome::Handshake(answer) = verifier.verify(&request(&asked), at(0)) else { panic!() };
    assert!(answer.headers.contains(&("webhook-allowed-origin", "eventgrid.azure.net".to_owned())));
    assert!(answer.headers.contains(&("webhook-allowed-rate", "*".to_owned())));
    assert_eq!(provider::find("azure-event-grid").unwrap().methods(), ["POST", "OPTIONS"]);

    let named = options(json!({ "header": "X-Grid-Secret" }));
    let by_header = Verifier::compile("azure-event-grid", &named, &source.secrets()).unwrap();
    assert_eq!(verdict(&by_header, &signed, at(0)), "signature_missing signature_header");
    let signed = with(&signed, "x-grid-secret", source.secret.unwrap());
    assert_eq!(verdict(&by_header, &signed, at(0)), "handshake");
}

#[test]
fn discord_asks_in_two_ways_and_its_events_are_answered_without_a_body() {
    let source = Source::of("discord");
    let answered =
        |body: &str| match source.verifier().verify(&request(&source.sign(&Payload::of_body(body), at(0))), at(0)) {
            Outcome::Handshake(answer) => (answer.status, answer.body),
            Outcome::Verified(verified) => {
                let answer = verified.answer().unwrap();
                assert!(verified.external_id().is_some());
                (answer.status, verified.event_type().as_str().as_bytes().to_vec())
            }
            other => panic!("{other:?}"),
        };
    assert_eq!(answered(r#"{"type":1}"#), (200, br#"{"type":1}"#.to_vec()));
    assert_eq!(answered(r#"{"id":"1","type":1,"token":"x"}"#), (200, br#"{"type":1}"#.to_vec()));
    assert_eq!(answered(r#"{"version":1,"application_id":"1","type":0}"#), (204, Vec::new()));
    assert_eq!(
        answered(r#"{"version":1,"type":1,"event":{"type":"APPLICATION_AUTHORIZED"}}"#).1,
        b"APPLICATION_AUTHORIZED"
    );
    assert_eq!(answered(r#"{"id":"2","type":2,"data":{"name":"blep"}}"#), (204, b"application_command".to_vec()));
}

#[test]
fn a_private_key_is_refused_where_a_public_one_belongs_and_the_other_way_round() {
    for (provider, wrong, code) in [
        (
            "standard-webhooks-v1a",
            "whsk_007FfCLg3ZqAjaYLU7H89BTPqGFinI5orBFFNVeOeAhPVj8FdF/uH57WCUjUw1O5HRXRWDc2k9qje6pEX1lbKQ==",
            "wrong_kind_of_secret",
        ),
        ("standard-webhooks-v1a", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "wrong_kind_of_secret"),
        ("standard-webhooks-v1a", "whpk_AAAA", "invalid_secret"),
        ("discord", "00ff", "invalid_secret"),
        ("sendgrid", "AAAA", "invalid_secret"),
        ("sendgrid", "SG.x", "wrong_kind_of_secret"),
        ("aws-sns", "anything", "not_needed"),
    ] {
        let error = Verifier::compile(provider, &Map::new(), &[Secret::from(wrong)]).unwrap_err();
        assert_eq!((error[0].field.as_str(), error[0].invalid.code), ("secret", code), "{provider}");
    }
    for provider in ["discord", "standard-webhooks-v1a", "sendgrid", "plaid", "paypal", "aws-sns"] {
        let public = Secret::from("a text that is no key");
        let settings = options(json!({ "webhook_id": "x" }));
        let settings = if provider == "paypal" { settings } else { Map::new() };
        let error = sign(provider, &settings, Some(&public), &Payload::of_body("{}"), URL, at(0)).unwrap_err();
        assert_eq!((error[0].field.as_str(), error[0].invalid.code), ("secret", "invalid_private_key"), "{provider}");
        assert!(!format!("{error:?}").contains("no key"));
    }
}
