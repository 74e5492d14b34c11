//! What does not fit the table: signatures inside bodies, several headers, two families of headers, secrets of two forms.

use postroom_domain::provider::sample;
use postroom_domain::verify::Outcome;
use postroom_testkit::sdks::{self, Webhook};
use serde_json::{Value, json};

use super::cases::{header, outcome, unsigned};
use super::kinds::{Kind, Seen};
use super::{ROW, Row};
use crate::support::{Source, at};

/// The providers that are checked here alone.
pub const PROVIDERS: [&str; 5] = ["adyen", "aws-sns", "azure-event-grid", "mailgun", "none"];

pub fn accepted(webhook: &Webhook) -> bool {
    matches!(outcome(webhook), Outcome::Verified(_) | Outcome::Handshake(_) | Outcome::Confirm(_))
}

fn without(webhook: &Webhook, name: &str) -> Webhook {
    let mut changed = webhook.clone();
    changed.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
    changed
}

fn with(webhook: &Webhook, name: &str, value: &str) -> Webhook {
    let mut changed = without(webhook, name);
    changed.headers.push((name.to_owned(), value.to_owned()));
    changed
}

fn signed(provider: &'static str, body: &str) -> Webhook {
    sdks::sign(&unsigned(&Row { provider, ..ROW }, body, at(0))).expect("it signs")
}

#[test]
fn mailgun_signs_time_and_token_inside_the_body_and_nothing_else() {
    let body = sample("mailgun", None, 1, at(0)).expect("a sample").body;
    let right = signed("mailgun", std::str::from_utf8(&body).expect("text"));
    assert!(accepted(&right));
    assert_eq!(sdks::verify(&right), Ok(()));
    let changed = |path: &str, value: Value| {
        let mut body: Value = serde_json::from_slice(&right.body).expect("JSON");
        *body.pointer_mut(path).expect("a member") = value;
        Webhook { body: body.to_string().into_bytes(), ..right.clone() }
    };
    assert!(accepted(&changed("/event-data/event", "opened".into())), "the event itself is not signed");
    for (path, value) in [
        ("/signature/timestamp", Value::from("1767225601")),
        ("/signature/token", "00".repeat(25).into()),
        ("/signature/signature", "00".repeat(32).into()),
        ("/signature/signature", "".into()),
        ("/signature/signature", Value::Null),
        ("/signature/token", Value::Null),
        ("/signature/timestamp", Value::Null),
        ("/signature", Value::Null),
    ] {
        let changed = changed(path, value.clone());
        assert!(!accepted(&changed), "{path} = {value}");
        assert!(sdks::verify(&changed).is_err(), "{path} = {value}: its library");
    }
    // Its own advice is to set no tight limit: a token is accepted once.
    assert!(accepted(&Webhook { now: right.now + 3_600_000, ..right.clone() }));
    assert!(!accepted(&Webhook { secret: Source::of("mailgun").other_secret().to_owned(), ..right.clone() }));
    for body in ["", "{}", "[]", "null", "\u{1f4e6}"] {
        assert!(!accepted(&Webhook { body: body.into(), ..right.clone() }), "{body}");
    }
    let other = Webhook { secret: Source::of("mailgun").other_secret().to_owned(), ..right.clone() };
    assert!(sdks::verify(&other).is_err());
    let unicode = signed("mailgun", r#"{"event-data":{"event":"opened","subject":"Zo\u00eb \u1f4e6"}}"#);
    assert!(accepted(&unicode));
}

#[test]
fn docusign_signs_once_for_each_key_in_headers_with_numbers() {
    let right = signed("docusign", "{}");
    let first = "X-DocuSign-Signature-1";
    let signature = header(&right, first);
    for number in [2, 3, 10, 16] {
        let moved = with(&without(&right, first), &format!("X-DocuSign-Signature-{number}"), &signature);
        assert!(accepted(&moved), "{number}");
        assert!(accepted(&with(&moved, first, "AAAA")), "another key's signature stands first");
    }
    for name in ["X-DocuSign-Signature", "X-DocuSign-Signature-0", "X-DocuSign-Signature-17", "X-DocuSign-Signature-a"]
    {
        assert!(!accepted(&with(&without(&right, first), name, &signature)), "{name}");
    }
}

#[test]
fn svix_and_the_family_of_standard_names_are_one_and_clerk_has_only_its_own() {
    let right = signed("svix", "{}");
    let mut standard = right.clone();
    for (name, _) in &mut standard.headers {
        *name = name.replace("svix-", "webhook-");
    }
    assert!(accepted(&standard));
    assert_eq!(sdks::verify(&standard), Ok(()));
    for (webhook, valid) in [(&right, true), (&standard, false)] {
        let clerk = Webhook { provider: "clerk".to_owned(), ..webhook.clone() };
        assert_eq!(accepted(&clerk), valid);
        assert_eq!(sdks::verify(&clerk).is_ok(), valid);
    }
    // A good second family does not save a forged first one, here or there.
    let both = Webhook {
        headers: [with(&right, "svix-signature", "v1,AAAA").headers, standard.headers.clone()].concat(),
        ..right
    };
    assert!(!accepted(&both));
    assert!(sdks::verify(&both).is_err());
}

#[test]
fn shopify_may_leave_out_the_prefix_of_its_headers() {
    let row = &super::rows::commerce::SHOPIFY;
    let right = sdks::sign(&unsigned(row, "{}", at(0))).expect("it signs");
    let mut bare = right.clone();
    for (name, _) in &mut bare.headers {
        *name = name.replace("X-Shopify-", "Shopify-");
    }
    for webhook in [&right, &bare] {
        assert!(accepted(webhook));
        assert_eq!(sdks::verify(webhook), Ok(()));
        let forged = Webhook { body: b"[]".to_vec(), ..webhook.clone() };
        assert!(!accepted(&forged));
        assert!(sdks::verify(&forged).is_err());
    }
}

#[test]
fn a_signed_header_is_there_once_and_unchanged() {
    for (provider, name) in [
        ("standard-webhooks", "webhook-id"),
        ("standard-webhooks", "webhook-timestamp"),
        ("svix", "svix-id"),
        ("clerk", "svix-timestamp"),
        ("resend", "svix-id"),
        ("openai", "webhook-id"),
        ("gitlab-signing", "webhook-id"),
        ("slack", "x-slack-request-timestamp"),
        ("zoom", "x-zm-request-timestamp"),
        ("hubspot", "x-hubspot-request-timestamp"),
        ("zendesk", "x-zendesk-webhook-signature-timestamp"),
        ("twitch", "twitch-eventsub-message-id"),
        ("twitch", "twitch-eventsub-message-timestamp"),
    ] {
        let right = signed(provider, "{}");
        let value = header(&right, name);
        for wrong in [without(&right, name), with(&right, name, ""), with(&right, name, &format!("{value}0"))] {
            assert!(!accepted(&wrong), "{provider} {name}");
            if sdks::verified_by(provider).is_some() {
                assert!(sdks::verify(&wrong).is_err(), "{provider} {name}: its library");
            }
        }
        let mut twice = right.clone();
        twice.headers.push((name.to_owned(), value));
        assert!(!accepted(&twice), "{provider} {name} twice");
    }
}

#[test]
fn openai_takes_a_secret_that_is_plain_text_and_ours_is_read_in_the_same_way() {
    let row = Row { provider: "openai", ..ROW };
    let plain = Webhook { secret: "not base64 at all".to_owned(), ..unsigned(&row, "{}", at(0)) };
    let source = Source { secret: Some("not base64 at all"), ..Source::of("openai") };
    let made = source.signed_sample(1, at(0));
    let pairs = made.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()));
    let ours = Webhook { headers: pairs.collect(), body: made.body, ..plain };
    assert!(accepted(&ours));
    assert_eq!(sdks::verify(&ours), Ok(()));
}

#[test]
fn nobody_signs_for_the_provider_none_and_everything_passes() {
    assert!(accepted(&unsigned(&Row { provider: "none", ..ROW }, "{}", at(0))));
}

fn text_of_sample(provider: &str) -> String {
    let body = sample(provider, None, 1, at(0)).expect("a sample").body;
    String::from_utf8(body).expect("text")
}

/// The same webhook with a member of its JSON changed.
fn member(webhook: &Webhook, path: &str, value: Value) -> Webhook {
    let mut body: Value = serde_json::from_slice(&webhook.body).expect("JSON");
    *body.pointer_mut(path).unwrap_or_else(|| panic!("no {path}")) = value;
    Webhook { body: body.to_string().into_bytes(), ..webhook.clone() }
}

#[test]
fn adyen_signs_eight_fields_of_each_item_and_each_item_has_to_be_right() {
    let right = signed("adyen", &text_of_sample("adyen"));
    let item = "/notificationItems/0/NotificationRequestItem";
    assert!(accepted(&right));
    assert_eq!(sdks::verify(&right), Ok(()));
    for (path, value) in [
        ("/pspReference", "other"),
        ("/merchantAccountCode", "other"),
        ("/merchantReference", "\u{1f4e6}"),
        ("/amount/value", "4300"),
        ("/amount/currency", "USD"),
        ("/eventCode", "REFUND"),
        ("/success", "false"),
        ("/additionalData/hmacSignature", "AAAA"),
    ] {
        let changed = member(&right, &format!("{item}{path}"), value.into());
        assert!(!accepted(&changed), "{path}");
        assert!(sdks::verify(&changed).is_err(), "{path}: its library");
    }
    let unsigned_field = member(&right, &format!("{item}/reason"), "other".into());
    assert!(accepted(&unsigned_field));
    assert_eq!(sdks::verify(&unsigned_field), Ok(()));
    // Its library looks at the first item alone.
    let mut two: Value = serde_json::from_slice(&right.body).expect("JSON");
    let mut forged = two["notificationItems"][0].clone();
    forged["NotificationRequestItem"]["amount"]["value"] = 1.into();
    two["notificationItems"].as_array_mut().expect("a list").push(forged);
    let two = Webhook { body: two.to_string().into_bytes(), ..right.clone() };
    assert!(!accepted(&two));
    assert_eq!(sdks::verify(&two), Ok(()));
    let other = Webhook { secret: Source::of("adyen").other_secret().to_owned(), ..right.clone() };
    assert!(!accepted(&other));
    assert!(sdks::verify(&other).is_err());
    for body in ["", "{}", r#"{"notificationItems":[]}"#, r#"{"notificationItems":[{}]}"#, "[]"] {
        assert!(!accepted(&Webhook { body: body.into(), ..right.clone() }), "{body}");
    }
    let mut ours = unsigned(&Row { provider: "adyen", ..ROW }, "", at(0));
    ours.body = Source::of("adyen").signed_sample(3, at(0)).body;
    assert_eq!(sdks::verify(&ours), Ok(()), "what we sign");
}

#[test]
fn sns_signs_the_fields_of_each_kind_of_message_with_either_hash() {
    let notification = r#"{"Type":"Notification","MessageId":"22b80b92","TopicArn":"arn:aws:sns:eu-west-1:1:a",
        "Subject":"Zo\u00eb \ud83d\udce6","Message":"{\"a\": 1}\n","Timestamp":"2026-01-01T00:00:00.000Z"}"#;
    let confirmation = r#"{"Type":"SubscriptionConfirmation","MessageId":"165545c9","TopicArn":"arn:aws:sns:eu-west-1:1:a",
        "Token":"2336412f37","Message":"You have chosen to subscribe","Timestamp":"2026-01-01T00:00:00.000Z",
        "SubscribeURL":"https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=2336412f37"}"#;
    let first = |body: &str| body.replacen('{', "{\"SignatureVersion\":\"1\",", 1);
    let bare = notification.replace("\"Subject\":\"Zo\\u00eb \\ud83d\\udce6\",", "");
    assert_ne!(bare, notification);
    for body in [notification, &bare, confirmation, &first(notification), &first(confirmation)] {
        let right = signed("aws-sns", body);
        assert!(accepted(&right), "{body}: {:?}", outcome(&right));
        assert_eq!(sdks::verify(&right), Ok(()), "{body}");
        for (path, value) in [
            ("/Message", "other"),
            ("/MessageId", "other"),
            ("/TopicArn", "arn:aws:sns:eu-west-1:2:b"),
            ("/Timestamp", "2026-01-01T00:00:01.000Z"),
            ("/Type", "UnsubscribeConfirmation"),
            ("/Signature", "AAAA"),
            ("/Signature", ""),
            ("/SignatureVersion", "3"),
            ("/SigningCertURL", "https://sns.eu-west-1.amazonaws.com.evil.example/x.pem"),
            ("/SigningCertURL", "http://sns.eu-west-1.amazonaws.com/x.pem"),
        ] {
            let changed = member(&right, path, value.into());
            assert!(!accepted(&changed), "{path} of {body}");
            assert!(sdks::verify(&changed).is_err(), "{path} of {body}: its library");
        }
    }
    let mut ours = unsigned(&Row { provider: "aws-sns", ..ROW }, "", at(0));
    ours.body = Source::of("aws-sns").signed_sample(3, at(0)).body;
    assert_eq!(sdks::verify(&ours), Ok(()), "what we sign");
    for body in ["", "{}", "[]", "null", "\u{1f4e6}"] {
        assert!(!accepted(&Webhook { body: body.into(), ..ours.clone() }), "{body}");
    }
}

#[test]
fn azure_event_grid_sends_its_secret_in_the_query_and_validates_the_url_with_it() {
    let right = signed("azure-event-grid", &text_of_sample("azure-event-grid"));
    assert!(accepted(&right));
    let source = Source::of("azure-event-grid");
    for url in [
        crate::support::URL.to_owned(),
        format!("{}&code=", crate::support::URL),
        format!("{}0", right.url),
        format!("{}&code={}", right.url, source.other_secret().replace(' ', "+")),
    ] {
        assert!(!accepted(&Webhook { url, ..right.clone() }));
    }
    assert!(!accepted(&Webhook { secret: source.other_secret().to_owned(), ..right }));

    let body = r#"[{"id":"1","eventType":"Microsoft.EventGrid.SubscriptionValidationEvent",
        "data":{"validationCode":"512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}}]"#;
    let mut asked = signed("azure-event-grid", body);
    asked.headers.push(("aeg-event-type".to_owned(), "SubscriptionValidation".to_owned()));
    let Outcome::Handshake(answer) = outcome(&asked) else { panic!("{:?}", outcome(&asked)) };
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body, br#"{"validationResponse":"512d38b6-c7b8-40c8-89fe-f46f9e9622b6"}"#);
    assert!(!accepted(&Webhook { url: crate::support::URL.to_owned(), ..asked }), "no open echo");
}

#[test]
fn twilio_signs_a_digest_of_the_body_in_the_url_and_ports_and_shared_keys_count() {
    let json = r#"[{"specversion":"1.0","type":"com.twilio.messaging.message.delivered","id":"EZ1"}]"#;
    let right = |url: &str, body: &str| {
        let unsigned = unsigned(&Row { provider: "twilio", ..ROW }, body, at(0));
        sdks::sign(&Webhook { url: url.to_owned(), ..unsigned }).expect("it signs")
    };
    let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, json.as_bytes());
    let url = format!("https://hooks.example.com/in/a/b?bodySHA256={}", hex::encode(sha256));
    let signed = right(&url, json);
    for (webhook, valid) in [
        (signed.clone(), true),
        (Webhook { body: b"[]".to_vec(), ..signed.clone() }, false),
        (Webhook { url: url.replace("/b?", "/c?"), ..signed.clone() }, false),
        (Webhook { url: url.replace("example.com", "example.com:443"), ..signed.clone() }, true),
        (right(&url.replace("example.com", "example.com:443"), json), true),
        (with(&signed, "X-Twilio-Webhooks-Signature-Settings", "key=k,algorithm=HMAC_SHA1"), true),
        (with(&signed, "X-Twilio-Webhooks-Signature-Settings", "key=k,algorithm=HMAC_SHA256"), false),
        (with(&signed, "X-Twilio-Webhooks-Signature-Settings", "key=k,algorithm=NEW"), false),
    ] {
        assert_eq!(accepted(&webhook), valid, "{} {:?}", webhook.url, webhook.headers);
        assert_eq!(sdks::verify(&webhook).is_ok(), valid, "{} {:?}: its library", webhook.url, webhook.headers);
    }
    let form = right(crate::support::URL, "B=2&A=1&A=1&A=0&C=&Body=Zo%C3%AB+%F0%9F%93%A6");
    assert!(accepted(&form));
    assert_eq!(sdks::verify(&form), Ok(()));
}

/// The same with the body written again by a JSON library.
fn respelled(webhook: &Webhook) -> Webhook {
    let body: Value = serde_json::from_slice(&webhook.body).expect("JSON");
    Webhook { body: serde_json::to_vec_pretty(&body).expect("JSON"), ..webhook.clone() }
}

fn of_another_secret(webhook: &Webhook, provider: &'static str) -> Webhook {
    Webhook { secret: Source::of(provider).other_secret().to_owned(), ..webhook.clone() }
}

fn with_body(webhook: &Webhook, body: &str) -> Webhook {
    Webhook { body: body.into(), ..webhook.clone() }
}

#[test]
fn those_outside_the_table_have_every_kind_of_case_too() {
    let seen = Seen::of("none");
    seen.accepted(Kind::Valid, [&unsigned(&Row { provider: "none", ..ROW }, "{}", at(0))]);
    seen.complete();

    let (seen, right) = (Seen::of("adyen"), signed("adyen", &text_of_sample("adyen")));
    let (item, data) = ("/notificationItems/0/NotificationRequestItem", "additionalData");
    let named = with(&member(&right, &format!("{item}/{data}"), json!({})), "HmacSignature", "AAAA");
    seen.accepted(Kind::Valid, [&right]);
    seen.refused(Kind::Tampered, [&member(&right, &format!("{item}/amount/value"), 1.into())]);
    seen.refused(Kind::WrongSecret, [&of_another_secret(&right, "adyen")]);
    seen.refused(Kind::Malformed, [&member(&right, &format!("{item}/{data}/hmacSignature"), "%".into())]);
    seen.refused(Kind::Missing, [&member(&right, &format!("{item}/{data}/hmacSignature"), Value::Null)]);
    let unicode =
        text_of_sample("adyen").replace("\"merchantReference\":\"", "\"merchantReference\":\"Zo\u{eb} \u{1f4e6} ");
    seen.accepted(Kind::Unicode, [&signed("adyen", &unicode)]);
    seen.refused(Kind::EmptyBody, [&with_body(&right, "")]);
    seen.accepted(Kind::Respelled, [&respelled(&right)]);
    seen.refused(Kind::Label, [&named]);
    seen.complete();

    let (seen, right) = (Seen::of("aws-sns"), signed("aws-sns", &text_of_sample("aws-sns")));
    let confirmation = r#"{"Type":"SubscriptionConfirmation","MessageId":"1","TopicArn":"arn:aws:sns:eu-west-1:1:a",
        "Token":"2336412f37","Message":"m","Timestamp":"2026-01-01T00:00:00.000Z",
        "SubscribeURL":"https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=2336412f37"}"#;
    let mut other = right.clone();
    other.options["cert_pem"] = crate::support::PAYPAL_CERTIFICATE.into();
    other.options["trust_root_pem"] = crate::support::SNS_CERTIFICATE.into();
    seen.accepted(Kind::Valid, [&right]);
    seen.refused(Kind::Tampered, [&member(&right, "/Message", "other".into())]);
    seen.refused(Kind::WrongSecret, [&other]);
    seen.refused(Kind::Malformed, [&member(&right, "/Signature", "%".into())]);
    seen.refused(Kind::Missing, [&member(&right, "/Signature", Value::Null)]);
    let unicode = json!({ "Type": "Notification", "MessageId": "1", "Message": "Zo\u{eb} \u{1f4e6}",
        "Timestamp": "2026-01-01T00:00:00.000Z" });
    seen.accepted(Kind::Unicode, [&signed("aws-sns", &unicode.to_string())]);
    seen.refused(Kind::EmptyBody, [&with_body(&right, "")]);
    seen.accepted(Kind::Respelled, [&respelled(&right)]);
    seen.refused(Kind::Label, [&member(&right, "/SignatureVersion", "1".into())]);
    seen.accepted(Kind::Handshake, [&signed("aws-sns", confirmation)]);
    seen.complete();

    let (seen, right) = (Seen::of("azure-event-grid"), signed("azure-event-grid", &text_of_sample("azure-event-grid")));
    let asked =
        r#"[{"id":"1","eventType":"Microsoft.EventGrid.SubscriptionValidationEvent","data":{"validationCode":"5"}}]"#;
    let validation = with(&signed("azure-event-grid", asked), "aeg-event-type", "SubscriptionValidation");
    seen.accepted(Kind::Valid, [&right]);
    // Nothing protects its body.
    seen.accepted(Kind::Tampered, [&with_body(&right, r#"[{"id":"2"}]"#)]);
    seen.refused(Kind::WrongSecret, [&of_another_secret(&right, "azure-event-grid")]);
    seen.refused(Kind::Malformed, [&Webhook { url: format!("{}0", right.url), ..right.clone() }]);
    seen.refused(Kind::Missing, [&Webhook { url: crate::support::URL.to_owned(), ..right.clone() }]);
    seen.accepted(Kind::Unicode, [&with_body(&right, "[{\"id\":\"Zo\u{eb} \u{1f4e6}\"}]")]);
    seen.accepted(Kind::EmptyBody, [&with_body(&right, "")]);
    seen.accepted(Kind::Respelled, [&respelled(&right)]);
    seen.refused(Kind::Label, [&Webhook { url: right.url.replace("&code=", "&token="), ..right.clone() }]);
    seen.accepted(Kind::Handshake, [&validation]);
    seen.complete();

    let (seen, right) = (Seen::of("mailgun"), signed("mailgun", &text_of_sample("mailgun")));
    seen.accepted(Kind::Valid, [&right]);
    seen.refused(Kind::Tampered, [&member(&right, "/signature/token", "00".repeat(25).into())]);
    seen.refused(Kind::WrongSecret, [&of_another_secret(&right, "mailgun")]);
    seen.refused(Kind::Malformed, [&member(&right, "/signature/signature", "%".into())]);
    seen.refused(Kind::Missing, [&member(&right, "/signature/signature", Value::Null)]);
    seen.accepted(Kind::Unicode, [&signed("mailgun", r#"{"event-data":{"event":"opened","subject":"Zo\u00eb"}}"#)]);
    seen.refused(Kind::EmptyBody, [&with_body(&right, "")]);
    seen.accepted(Kind::Respelled, [&respelled(&right)]);
    let signature: Value = serde_json::from_slice::<Value>(&right.body).expect("JSON")["signature"].clone();
    let parent = member(
        &right,
        "/signature",
        json!({ "timestamp": signature["timestamp"], "token": signature["token"],
        "parent-signature": signature["signature"] }),
    );
    seen.refused(Kind::Label, [&parent]);
    seen.complete();
}
