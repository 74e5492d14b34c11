//! Each provider's "are you there", answered exactly and recorded never.

use http::{HeaderMap, HeaderValue, Method};
use postroom_domain::provider::Payload;
use postroom_domain::verify::{Answer, Outcome, Request, SignedRequest, Verifier, sign};
use postroom_domain::{Secret, provider};
use serde_json::Map;

use crate::support::{Source, URL, at, headers, verdict};

fn answer(verifier: &Verifier, signed: &SignedRequest) -> Answer {
    let request =
        Request { method: signed.method.as_str(), url: &signed.url, headers: &signed.headers, body: &signed.body };
    match verifier.verify(&request, at(0)) {
        Outcome::Handshake(answer) => answer,
        other => panic!("{other:?}"),
    }
}

fn signed(provider: &'static str, event_type: Option<&str>, body: &str) -> SignedRequest {
    let payload = Payload { event_type: event_type.map(str::to_owned), ..Payload::of_body(body) };
    Source::of(provider).sign(&payload, at(0))
}

#[test]
fn slack_gets_its_challenge_back_as_plain_text_after_verification() {
    let verifier = Source::of("slack").verifier();
    let right = signed("slack", None, r#"{"token":"x","challenge":"3eZbrw1aBm2r","type":"url_verification"}"#);
    let answer = answer(&verifier, &right);
    assert_eq!((answer.status, answer.content_type), (200, Some("text/plain")));
    assert_eq!(answer.body, b"3eZbrw1aBm2r");
    assert!(answer.headers.contains(&("x-content-type-options", "nosniff".to_owned())));

    let mut forged = right;
    forged.headers.insert("x-slack-signature", HeaderValue::from_static("v0=00"));
    assert!(verdict(&verifier, &forged, at(0)).starts_with("signature_invalid"), "no open echo");
    let stale = Source::of("slack").sign(&Payload::of_body(r#"{"type":"url_verification","challenge":"x"}"#), at(-301));
    assert!(verdict(&verifier, &stale, at(0)).starts_with("timestamp_out_of_tolerance"));
}

#[test]
fn what_is_given_back_is_short_and_printable() {
    let verifier = Source::of("slack").verifier();
    for challenge in ["x".repeat(513), "a\\u0000b".to_owned(), "a\\r\\nb".to_owned(), String::new()] {
        let body = format!(r#"{{"type":"url_verification","challenge":"{challenge}"}}"#);
        assert_eq!(verdict(&verifier, &signed("slack", None, &body), at(0)), "ok", "an event like any other");
    }
}

#[test]
fn the_ping_of_github_is_answered_and_not_an_event() {
    let verifier = Source::of("github").verifier();
    let ping = signed("github", Some("ping"), r#"{"zen":"Design for failure.","hook_id":1}"#);
    assert_eq!(answer(&verifier, &ping), Answer { status: 200, content_type: None, headers: vec![], body: vec![] });
    let mut forged = ping;
    forged.body.push(b' ');
    assert!(verdict(&verifier, &forged, at(0)).starts_with("signature_invalid"));
}

#[test]
fn mandrill_is_answered_before_its_key_exists() {
    let no_key_yet = Verifier::compile("mandrill", &Map::new(), &[]).unwrap();
    for verifier in [&no_key_yet, &Source::of("mandrill").verifier()] {
        let head = SignedRequest { method: Method::HEAD, url: URL.to_owned(), headers: HeaderMap::new(), body: vec![] };
        assert_eq!(answer(verifier, &head).status, 200);
        let test_key = Secret::from("test-webhook");
        let test = sign("mandrill", &Map::new(), Some(&test_key), &Payload::of_body("[]"), URL, at(0)).unwrap();
        assert_eq!(test.body, b"mandrill_events=%5B%5D");
        assert_eq!(answer(verifier, &test), Answer { status: 200, content_type: None, headers: vec![], body: vec![] });
        // The test key is public: nothing but the empty list may be signed with it.
        let events = Payload::of_body(r#"[{"event":"open"}]"#);
        let forged = sign("mandrill", &Map::new(), Some(&test_key), &events, URL, at(0)).unwrap();
        assert!(verdict(verifier, &forged, at(0)).starts_with("signature_invalid"));
        let mut elsewhere = test;
        elsewhere.url = "https://hooks.example.com/in/acme/other".to_owned();
        assert!(verdict(verifier, &elsewhere, at(0)).starts_with("signature_invalid"));
    }
    let empty = signed("mandrill", None, "[]");
    assert_eq!(verdict(&Source::of("mandrill").verifier(), &empty, at(0)), "handshake");
}

#[test]
fn a_probe_by_another_method_is_no_way_in() {
    for row in provider::all().iter().filter(|row| row.needs_secret()) {
        let verifier = Source::of(row.name).verifier();
        for method in ["GET", "PUT", "OPTIONS", "head"] {
            let bare = headers(&[]);
            let request = Request { method, url: URL, headers: &bare, body: b"mandrill_events=[]" };
            let outcome = verifier.verify(&request, at(0));
            assert!(matches!(outcome, Outcome::Refused(_)), "{} {method}", row.name);
        }
    }
}

#[test]
fn only_providers_that_probe_say_so() {
    assert_eq!(provider::find("mandrill").unwrap().methods(), ["POST", "HEAD"]);
    assert_eq!(provider::find("stripe").unwrap().methods(), ["POST"]);
}
