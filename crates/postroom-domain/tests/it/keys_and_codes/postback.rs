//! PayPal itself is asked about a request, where the source chose so.

use super::*;

const APP: &str = "EGnHDxD_qRPdaLdZz8iCr8N7_MzF-YHPTkjs6NKYQvQSBngp4PTTVWkPZRbL";

fn settings() -> Value {
    json!({ "webhook_id": "4JH86294D6297924G", "verify_by": "postback", "client_id": "AQcN-e", "environment": "sandbox" })
}

fn asking() -> Verifier {
    Verifier::compile("paypal", &options(settings()), &[Secret::from(APP)]).unwrap()
}

fn answered(signed: &SignedRequest, answer: &str) -> String {
    match asking().verify_with_key(&request(signed), answer.as_bytes(), at(0)) {
        Outcome::Verified(verified) => verified.event_type().to_string(),
        Outcome::Refused(refusal) => format!("{} {}", refusal.code(), refusal.check()),
        Outcome::NeedsKey(_) => "asked again".to_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn paypal_is_asked_with_the_headers_and_the_very_bytes_of_the_body() {
    let body = r#"{"id":"WH-1", "event_type":"PAYMENT.CAPTURE.COMPLETED","amount":1.50,"name":"Zo\u00eb \/"}"#;
    let signed = Source::of("paypal").sign(&Payload::of_body(body), at(0));
    let asked = needed(&asking(), &signed);
    assert_eq!(asked.url.as_str(), "https://api-m.sandbox.paypal.com/v1/notifications/verify-webhook-signature");
    let post = asked.post.as_ref().unwrap();
    let text = post.body.expose_str().unwrap();
    assert!(text.ends_with(&format!(r#""webhook_id":"4JH86294D6297924G","webhook_event":{body}}}"#)), "{text}");
    let question: Value = serde_json::from_str(text).unwrap();
    for (member, header) in [
        ("auth_algo", "paypal-auth-algo"),
        ("cert_url", "paypal-cert-url"),
        ("transmission_id", "paypal-transmission-id"),
        ("transmission_sig", "paypal-transmission-sig"),
        ("transmission_time", "paypal-transmission-time"),
    ] {
        assert_eq!(question[member], signed.headers[header].to_str().unwrap(), "{member}");
    }
    assert!(post.authorization.is_none(), "that comes with the token");
    let token = asked.token.as_ref().unwrap();
    assert_eq!(token.url.as_str(), "https://api-m.sandbox.paypal.com/v1/oauth2/token");
    let granting = token.post.as_ref().unwrap();
    assert_eq!(granting.body.expose(), b"grant_type=client_credentials");
    let basic = format!("Basic {}", STANDARD.encode(format!("AQcN-e:{APP}")));
    assert_eq!(granting.authorization.as_ref().and_then(Secret::expose_str), Some(basic.as_str()));
    assert!(!format!("{asked:?}").contains(APP) && !token.name.contains(APP));

    let mut live = settings();
    live["environment"] = "production".into();
    let live = Verifier::compile("paypal", &options(live), &[Secret::from(APP)]).unwrap();
    assert_eq!(needed(&live, &signed).url.host_str(), Some("api-m.paypal.com"));
    let other = Verifier::compile("paypal", &options(settings()), &[Secret::from("another")]).unwrap();
    let other = needed(&other, &signed).token.unwrap();
    assert_ne!(other.name, token.name, "who has another secret does not get this one's token");
}

#[test]
fn only_paypals_yes_is_a_yes() {
    let signed = Source::of("paypal").signed_sample(1, at(0));
    let kind = match asking().verify_with_key(&request(&signed), br#"{"verification_status":"SUCCESS"}"#, at(0)) {
        Outcome::Verified(verified) => verified.event_type().to_string(),
        other => panic!("{other:?}"),
    };
    for (answer, expected) in [
        (r#"{"verification_status":"SUCCESS","links":[]}"#, kind.as_str()),
        (r#"{"verification_status":"FAILURE"}"#, INVALID),
        (r#"{"verification_status":"success"}"#, "asked again"),
        (r#"{"verification_status":true}"#, "asked again"),
        (r#"{"verification_status":null}"#, "asked again"),
        (r#"["SUCCESS"]"#, "asked again"),
        (r#"{"links":[{"verification_status":"SUCCESS"}]}"#, "asked again"),
        ("SUCCESS", "asked again"),
        ("{}", "asked again"),
        ("<html>", "asked again"),
        ("", "asked again"),
    ] {
        assert_eq!(answered(&signed, answer), expected, "{answer}");
    }
    let told = asking().explain_with_key(&request(&signed), Some(br#"{"verification_status":"FAILURE"}"#), at(0));
    assert_eq!(told.failed_check, Some("signature"));
    let told = asking().explain(&request(&signed), at(0));
    assert_eq!(told.failed_check, Some("key"));
    assert!(told.likely_causes[0].contains("client_id"), "{:?}", told.likely_causes);
}

#[test]
fn paypal_is_not_asked_about_what_it_can_not_have_sent() {
    let signed = Source::of("paypal").signed_sample(1, at(0));
    let verifier = asking();
    let told = |signed: &SignedRequest| verdict(&verifier, signed, at(0));
    assert!(told(&signed).starts_with("needs https://api-m.sandbox.paypal.com/"));
    for body in
        ["", "[]", "null", "x", "{", "{} {}", r#"{},"webhook_id":"MINE","webhook_event":{}"#, "{\"a\":\"\u{0}\"}"]
    {
        let changed = SignedRequest { body: body.into(), ..signed.clone() };
        assert_eq!(told(&changed), "signature_invalid signature_format", "{body}");
    }
    let (long_id, long_signature) = ("x".repeat(51), STANDARD.encode([0; 400]));
    for (name, value, expected) in [
        ("paypal-transmission-id", "", "signature_missing signed_part"),
        ("paypal-transmission-id", &long_id, "signature_invalid signature_format"),
        ("paypal-transmission-sig", &long_signature, "signature_invalid signature_format"),
        ("paypal-transmission-sig", "", "signature_missing signature_header"),
        ("paypal-transmission-sig", "%", "signature_invalid signature_format"),
        ("paypal-transmission-time", "yesterday", "signature_invalid timestamp_format"),
        ("paypal-auth-algo", "SHA1withRSA", "signature_invalid signature_format"),
        ("paypal-cert-url", "https://evil.example/cert.pem", CERTIFICATE_URL),
    ] {
        assert_eq!(told(&with(&signed, name, value)), expected, "{name} {value}");
    }
    let bare = Verifier::compile("paypal", &options(settings()), &[]).unwrap();
    assert_eq!(verdict(&bare, &signed, at(0)), "signature_invalid secret");
}

#[test]
fn the_options_of_one_way_are_no_options_of_the_other() {
    for (member, value, field, code) in [
        ("client_id", Value::Null, "client_id", "required"),
        ("client_id", json!("a:b"), "client_id", "invalid_character"),
        ("client_id", json!("a b"), "client_id", "invalid_character"),
        ("environment", json!("https://evil.example"), "environment", "unknown_value"),
        ("verify_by", json!("asking"), "verify_by", "unknown_value"),
        ("verify_by", json!("certificate"), "client_id", "conflict"),
        ("verify_by", Value::Null, "client_id", "conflict"),
        ("cert_pem", json!(PAYPAL_CERTIFICATE), "cert_pem", "conflict"),
        ("cert_url", json!("https://api.paypal.com/v1/notifications/certs/x"), "cert_url", "conflict"),
        ("trust_root_pem", json!(ROOT), "trust_root_pem", "conflict"),
    ] {
        let mut settings = options(settings());
        settings.insert(member.to_owned(), value.clone());
        settings.retain(|_, value| !value.is_null());
        let errors = Verifier::compile("paypal", &settings, &[Secret::from(APP)]).unwrap_err();
        assert_eq!((errors[0].field.as_str(), errors[0].invalid.code), (field, code), "{member} {value}");
    }
    let id = options(json!({ "webhook_id": "x" }));
    let errors = Verifier::compile("paypal", &id, &[Secret::from(APP)]).unwrap_err();
    assert_eq!((errors[0].field.as_str(), errors[0].invalid.code), ("secret", "not_needed"));
}
