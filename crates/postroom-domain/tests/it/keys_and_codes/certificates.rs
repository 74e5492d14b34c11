//! Requests that are signed with the key of a certificate, which they only name.

use super::*;

/// Options of PayPal with a certificate in place of the good one.
fn paypal(cert: &str, root: Option<&str>) -> Verifier {
    let mut settings = json!({ "webhook_id": "4JH86294D6297924G", "cert_pem": cert });
    if let Some(root) = root {
        settings["trust_root_pem"] = root.into();
    }
    compiled("paypal", settings)
}

#[test]
fn paypal_signs_id_time_webhook_and_the_crc_of_the_body() {
    let source = Source::of("paypal");
    let verifier = source.verifier();
    let signed = source.signed_sample(1, at(0));
    assert_eq!(verdict(&verifier, &signed, at(0)), "ok");
    let mut body = signed.body.clone();
    body.push(b' ');
    assert_eq!(verdict(&verifier, &SignedRequest { body, ..signed.clone() }, at(0)), INVALID);
    for (name, value, expected) in [
        ("paypal-transmission-id", "another", INVALID),
        ("paypal-transmission-time", "2026-01-01T00:00:01Z", INVALID),
        ("paypal-transmission-time", "yesterday", "signature_invalid timestamp_format"),
        ("paypal-transmission-sig", "AAAA", INVALID),
        ("paypal-transmission-sig", "%", "signature_invalid signature_format"),
        ("paypal-transmission-sig", "", "signature_missing signature_header"),
        ("paypal-auth-algo", "SHA1withRSA", "signature_invalid signature_format"),
        ("paypal-auth-algo", "", "signature_missing signed_part"),
        ("paypal-cert-url", "https://evil.example/cert.pem", CERTIFICATE_URL),
        ("paypal-cert-url", "http://api.paypal.com/v1/notifications/certs/x", CERTIFICATE_URL),
        ("paypal-cert-url", "https://api.paypal.com@evil.example/x", CERTIFICATE_URL),
        ("paypal-cert-url", "https://api.paypal.com/v1/notifications/certs/x", "ok"),
    ] {
        assert_eq!(verdict(&verifier, &with(&signed, name, value), at(0)), expected, "{name} {value}");
    }
    for name in ["id", "time", "sig"] {
        let told = verdict(&verifier, &without(&signed, &format!("paypal-transmission-{name}")), at(0));
        assert!(told.starts_with("signature_missing"), "{name} {told}");
    }
    let mut other = source.options.clone();
    other.insert("webhook_id".to_owned(), "WEBHOOK_ID".into());
    let simulator = Verifier::compile("paypal", &other, &[]).unwrap();
    assert_eq!(verdict(&simulator, &signed, at(0)), INVALID, "the id of the simulator is no secret");
    let missing = Verifier::compile("paypal", &Map::new(), &[]).unwrap_err();
    assert_eq!((missing[0].field.as_str(), missing[0].invalid.code), ("webhook_id", "required"));
}

#[test]
fn a_certificate_has_to_be_the_providers_in_date_and_of_its_root() {
    let signed = Source::of("paypal").signed_sample(1, at(0));
    let other_name = include_str!("../../keys/other_name.crt");
    let expired = include_str!("../../keys/expired.crt");
    let chained = format!("{PAYPAL_CERTIFICATE}{ROOT}");
    for (cert, root, expected) in [
        (PAYPAL_CERTIFICATE, Some(ROOT), "ok"),
        (PAYPAL_CERTIFICATE, None, "ok"),
        (PAYPAL_CERTIFICATE, Some(PAYPAL_CERTIFICATE), "ok"),
        (PAYPAL_CERTIFICATE, Some(SNS_CERTIFICATE), CERTIFICATE),
        (&chained, Some(ROOT), "ok"),
        (other_name, Some(ROOT), CERTIFICATE),
        (expired, Some(ROOT), CERTIFICATE),
        (expired, None, CERTIFICATE),
    ] {
        assert_eq!(verdict(&paypal(cert, root), &signed, at(0)), expected);
    }
    let early = Timestamp::from_seconds(1_000_000_000);
    assert_eq!(verdict(&paypal(PAYPAL_CERTIFICATE, None), &signed, early), CERTIFICATE, "not valid yet");
    for bad in ["x", RSA_KEY, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let settings = options(json!({ "webhook_id": "x", "cert_pem": bad }));
        let errors = Verifier::compile("paypal", &settings, &[]).unwrap_err();
        assert_eq!((errors[0].field.as_str(), errors[0].invalid.code), ("cert_pem", "invalid_certificate"));
    }
}

#[test]
fn a_certificate_is_asked_for_only_where_the_provider_keeps_its_own() {
    let verifier = compiled("paypal", json!({ "webhook_id": "4JH86294D6297924G" }));
    let signed = Source::of("paypal").signed_sample(1, at(0));
    let asked = needed(&verifier, &signed);
    assert_eq!(asked.url.as_str(), signed.headers["paypal-cert-url"].to_str().unwrap());
    assert!(asked.post.is_none() && asked.token.is_none());
    for (fetched, good) in [
        (PAYPAL_CERTIFICATE.to_owned(), true),
        (include_str!("../../keys/other_name.crt").to_owned(), false),
        (include_str!("../../keys/expired.crt").to_owned(), false),
        (format!("{PAYPAL_CERTIFICATE}{ROOT}"), false),
        ("<html>not found</html>".to_owned(), false),
    ] {
        let outcome = verifier.verify_with_key(&request(&signed), fetched.as_bytes(), at(0));
        assert_eq!(matches!(outcome, Outcome::Verified(_)), good, "a chain has to lead to a public root");
    }
    for url in ["https://www.paypal.com/uploads/x.pem", "https://api.paypal.com/v1/notifications/certs/x?y=1"] {
        assert_eq!(verdict(&verifier, &with(&signed, "paypal-cert-url", url), at(0)), CERTIFICATE_URL, "{url}");
    }
    let told = verifier.explain(&request(&signed), at(0));
    assert_eq!(told.failed_check, Some("key"));
    let told = verifier.explain_with_key(&request(&signed), Some(PAYPAL_CERTIFICATE.as_bytes()), at(0));
    assert_eq!(told.failed_check, None);
}

#[test]
fn a_fetched_file_of_nothing_but_the_certificate_is_held_to_the_roots_that_its_owner_names() {
    for (name, settings, certificate) in [
        ("paypal", json!({ "webhook_id": "4JH86294D6297924G" }), PAYPAL_CERTIFICATE),
        ("aws-sns", json!({}), SNS_CERTIFICATE),
    ] {
        let signed = Source::of(name).signed_sample(1, at(0));
        for (root, good) in [(None, true), (Some(ROOT), true), (Some(include_str!("../../keys/other_name.crt")), false)]
        {
            let mut settings = settings.clone();
            if let Some(root) = root {
                settings["trust_root_pem"] = root.into();
            }
            let verifier = compiled(name, settings);
            let outcome = verifier.verify_with_key(&request(&signed), certificate.as_bytes(), at(0));
            assert_eq!(matches!(outcome, Outcome::Verified(_)), good, "{name} {root:?}");
        }
    }
}

#[test]
fn sns_signs_the_fields_of_a_message() {
    let source = Source::of("aws-sns");
    let verifier = source.verifier();
    let signed = source.signed_sample(1, at(0));
    assert_eq!(verdict(&verifier, &signed, at(0)), "ok");
    for (member, value, expected) in [
        ("Message", json!("another"), INVALID),
        ("Subject", json!(null), INVALID),
        ("Timestamp", json!("2026-01-01T00:00:01.000Z"), INVALID),
        ("TopicArn", json!("arn:aws:sns:us-east-1:1:x"), INVALID),
        ("MessageId", json!(null), "signature_missing signed_part"),
        ("Type", json!("Other"), "signature_missing signed_part"),
        ("Signature", json!(null), "signature_missing signature_header"),
        ("Signature", json!("%"), "signature_invalid signature_format"),
        ("SignatureVersion", json!("1"), INVALID),
        ("SignatureVersion", json!("3"), "signature_invalid signature_format"),
        ("SigningCertURL", json!("https://evil.example/x.pem"), CERTIFICATE_URL),
        ("SigningCertURL", json!("http://sns.us-east-1.amazonaws.com/x.pem"), CERTIFICATE_URL),
        ("SigningCertURL", json!("https://sns.us-east-1.amazonaws.com/x.txt"), CERTIFICATE_URL),
        ("SigningCertURL", json!(null), CERTIFICATE_URL),
        ("UnsubscribeURL", json!("https://evil.example"), "ok"),
    ] {
        let told = verdict(&verifier, &body_with(&signed, member, value.clone()), at(0));
        assert_eq!(told, expected, "{member} {value}");
    }
    for body in ["", "[]", "not json", "{}"] {
        let bare = SignedRequest { body: body.into(), ..signed.clone() };
        assert_eq!(verdict(&verifier, &bare, at(0)), "signature_missing signature_header", "{body}");
    }
    let mut mine = source.options.clone();
    mine.insert("topic_arn".to_owned(), "arn:aws:sns:us-east-1:1:mine".into());
    let strict = Verifier::compile("aws-sns", &mine, &[]).unwrap();
    assert_eq!(verdict(&strict, &signed, at(0)), "signature_invalid topic");
    let fetching = compiled("aws-sns", json!({}));
    assert!(needed(&fetching, &signed).url.as_str().starts_with("https://sns.us-east-1.amazonaws.com/"));
    let fetched = fetching.verify_with_key(&request(&signed), SNS_CERTIFICATE.as_bytes(), at(0));
    assert!(matches!(fetched, Outcome::Verified(_)));
    let of_paypal = fetching.verify_with_key(&request(&signed), PAYPAL_CERTIFICATE.as_bytes(), at(0));
    assert!(matches!(of_paypal, Outcome::Refused(_)));
}

#[test]
fn a_subscription_is_confirmed_by_a_visit_to_a_host_of_sns_only() {
    let source = Source::of("aws-sns");
    let confirmation = |url: &str| {
        let body = json!({ "Type": "SubscriptionConfirmation", "Token": "t", "Message": "m", "SubscribeURL": url });
        source.sign(&Payload::of_body(body.to_string()), at(0))
    };
    let good = confirmation("https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&Token=t");
    let Outcome::Confirm(confirm) = source.verifier().verify(&request(&good), at(0)) else { panic!() };
    assert_eq!(confirm.url.host_str(), Some("sns.us-east-1.amazonaws.com"));
    assert_eq!(confirm.answer().status, 200);
    let evil = confirmation("https://evil.example/?Action=ConfirmSubscription");
    assert_eq!(verdict(&source.verifier(), &evil, at(0)), CERTIFICATE_URL);
    let forged = body_with(&good, "Token", json!("u"));
    assert_eq!(verdict(&source.verifier(), &forged, at(0)), INVALID);
    let goodbye = json!({ "Type": "UnsubscribeConfirmation", "Token": "t", "Message": "m",
        "SubscribeURL": "https://sns.us-east-1.amazonaws.com/" });
    let goodbye = source.sign(&Payload::of_body(goodbye.to_string()), at(0));
    assert_eq!(verdict(&source.verifier(), &goodbye, at(0)), "ok", "it is not visited, but is an event");
}
