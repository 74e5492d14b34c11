//! The explainer names the likely cause, and gives nothing away.

use http::HeaderValue;
use postroom_domain::Secret;
use postroom_domain::provider::{Payload, sample};
use postroom_domain::verify::{Explanation, Request, SignedRequest, Verdict, Verifier, sign};
use serde_json::Map;

use crate::support::{Source, URL, at, options};

fn explain(verifier: &Verifier, signed: &SignedRequest) -> Explanation {
    let request =
        Request { method: signed.method.as_str(), url: &signed.url, headers: &signed.headers, body: &signed.body };
    verifier.explain(&request, at(0))
}

/// The first likely cause.
fn cause(verifier: &Verifier, signed: &SignedRequest) -> String {
    let told = explain(verifier, signed);
    assert_eq!(told.verdict, Verdict::Invalid);
    told.likely_causes[0].clone()
}

fn signed_with(provider: &str, secret: &str) -> SignedRequest {
    let payload = sample(provider, None, 1, at(0)).unwrap();
    sign(provider, &Map::new(), Some(&Secret::from(secret)), &payload, URL, at(0)).unwrap()
}

#[test]
fn the_steps_of_a_valid_request_are_told() {
    let source = Source::of("slack");
    let told = explain(&source.verifier(), &source.signed_sample(1, at(-10)));
    let steps: Vec<(&str, bool)> = told.checks.iter().map(|step| (step.check, step.passed)).collect();
    let expected =
        [("signature_header", true), ("timestamp_format", true), ("signature", true), ("timestamp_tolerance", true)];
    assert_eq!(steps, expected);
    assert_eq!(told.checks[3].detail, "10 s old");
    let json = serde_json::to_value(&told).unwrap();
    assert_eq!((json["verdict"].as_str(), json["event_type"].as_str()), (Some("valid"), Some("app_mention")));
}

#[test]
fn a_base64_secret_taken_as_text_is_found_out() {
    let source = Source::of("standard-webhooks");
    let text = source.secret.unwrap();
    // A sender that uses the text of the secret as its key, as Stripe does and Standard Webhooks does not.
    let settings = options(serde_json::json!({
        "signature_header": "webhook-signature", "signature_style": "list", "signature_label": "v1,",
        "signature_encoding": "base64", "timestamp_header": "webhook-timestamp",
        "signed_content": "{header:webhook-id}.{timestamp}.{body}"
    }));
    let signed = sign("hmac", &settings, Some(&Secret::from(text)), &Payload::of_body("{}"), URL, at(0)).unwrap();
    assert!(cause(&source.verifier(), &signed).contains("the secret's text as it is"));

    let stripe = Verifier::compile("stripe", &Map::new(), &[Secret::from(text)]).unwrap();
    let settings = options(serde_json::json!({
        "signature_header": "stripe-signature", "signature_style": "pairs", "signature_label": "v1",
        "timestamp_label": "t", "signed_content": "{timestamp}.{body}", "secret_encoding": "whsec"
    }));
    let mut signed = sign("hmac", &settings, Some(&Secret::from(text)), &Payload::of_body("{}"), URL, at(0)).unwrap();
    let value = signed.headers["stripe-signature"].to_str().unwrap().replace(", ", ",");
    signed.headers.insert("stripe-signature", HeaderValue::from_str(&value).unwrap());
    assert!(cause(&stripe, &signed).contains("decoded as base64"));
}

#[test]
fn a_body_changed_on_the_way_is_found_out() {
    let source = Source::of("github");
    let verifier = source.verifier();
    let body = br#"{"a":{"b":"c d"}}"#.to_vec();
    let signed = source.sign(&Payload::of_body(body.clone()), at(0));
    for (changed, expected) in [
        (b"{\n  \"a\": { \"b\": \"c d\" }\n}".to_vec(), "white space was added"),
        ([body.as_slice(), b"\n"].concat(), "white space was added"),
    ] {
        let told = cause(&verifier, &SignedRequest { body: changed, ..signed.clone() });
        assert!(told.contains(expected), "{told}");
    }
    let lines = source.sign(&Payload::of_body(b"a b\nc d\n".to_vec()), at(0));
    for (changed, expected) in
        [(b"a b\nc d".to_vec(), "was cut off"), (b"a b\r\nc d\r\n".to_vec(), "line ends were changed")]
    {
        let told = cause(&verifier, &SignedRequest { body: changed, ..lines.clone() });
        assert!(told.contains(expected), "{told}");
    }
    let padded =
        SignedRequest { body: b"a b\nc d\n\n".to_vec(), ..source.sign(&Payload::of_body(b"a b\nc d".to_vec()), at(0)) };
    assert!(cause(&verifier, &padded).contains("a line end was added"));
}

#[test]
fn another_spelling_of_the_url_is_found_out() {
    let source = Source::of("mandrill");
    for spelling in [
        "http://hooks.example.com/in/acme/source?x=1",
        "https://hooks.example.com/in/acme/source/?x=1",
        "https://hooks.example.com/in/acme/source",
    ] {
        let payload = sample("mandrill", None, 1, at(0)).unwrap();
        let signed = sign("mandrill", &Map::new(), source.secrets().first(), &payload, spelling, at(0)).unwrap();
        let told = cause(&source.verifier(), &SignedRequest { url: URL.to_owned(), ..signed });
        assert_eq!(told, format!("the provider signs another spelling of the URL; set public_url to {spelling}"));
    }
}

#[test]
fn a_webhook_of_another_provider_is_found_out() {
    let told = cause(&Source::of("github").verifier(), &Source::of("stripe").signed_sample(1, at(0)));
    assert!(told.contains("signature header of Stripe"), "{told}");
}

#[test]
fn a_clock_that_is_off_is_told_in_seconds() {
    let source = Source::of("stripe");
    let told = explain(&source.verifier(), &source.signed_sample(1, at(-4000)));
    assert_eq!(told.code, Some("timestamp_out_of_tolerance"));
    assert_eq!(told.checks.last().unwrap().detail, "4000 s old, at most 300 s are allowed");
}

#[test]
fn a_wrong_secret_remains_when_nothing_else_explains_it() {
    let told = cause(&Source::of("stripe").verifier(), &signed_with("stripe", "whsec_of_another_endpoint"));
    assert!(told.contains("the secret is another one") && told.contains("Developers, Webhooks"), "{told}");
    let bare = Verifier::compile("stripe", &Map::new(), &[]).unwrap();
    assert!(cause(&bare, &signed_with("stripe", "whsec_x")).contains("give the source its secret"));
}

#[test]
fn nothing_told_holds_a_secret_or_a_signature() {
    for row in postroom_domain::provider::all() {
        let source = Source::of(row.name);
        let signed = source.signed_sample(1, at(0));
        let secret = source.secret.unwrap_or("no secret at all");
        let right: Vec<&str> = signed
            .headers
            .iter()
            .filter(|(name, _)| !name.as_str().contains("timestamp"))
            .filter(|(name, _)| name.as_str().contains("signature") || name.as_str().contains("hmac"))
            .filter_map(|(_, value)| value.to_str().ok()?.rsplit(['=', ',']).find(|part| part.len() > 20))
            .collect();
        let mut tampered = signed.clone();
        tampered.body.insert(0, b' ');

        for request in [&signed, &tampered] {
            let told = serde_json::to_string(&explain(&source.verifier(), request)).unwrap();
            assert!(!told.contains(secret), "{}", row.name);
            for signature in &right {
                assert!(!told.contains(signature), "{} {told}", row.name);
            }
        }
        assert!(!format!("{:?}", source.verifier()).contains(secret), "{}", row.name);
    }
}
