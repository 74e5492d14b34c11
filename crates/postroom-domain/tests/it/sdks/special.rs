//! What does not fit the table: signatures inside bodies, several headers, two families of headers, secrets of two forms.

use postroom_domain::provider::sample;
use postroom_domain::verify::Outcome;
use postroom_testkit::sdks::{self, Webhook};
use serde_json::Value;

use super::cases::{header, outcome, unsigned};
use super::{ROW, Row};
use crate::support::{Source, at};

/// The providers that are checked here alone.
pub const PROVIDERS: [&str; 2] = ["mailgun", "none"];

fn accepted(webhook: &Webhook) -> bool {
    !matches!(outcome(webhook), Outcome::Refused(_))
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
        assert!(!accepted(&changed(path, value.clone())), "{path} = {value}");
    }
    // Its own advice is to set no tight limit: a token is accepted once.
    assert!(accepted(&Webhook { now: right.now + 3_600_000, ..right.clone() }));
    assert!(!accepted(&Webhook { secret: Source::of("mailgun").other_secret().to_owned(), ..right.clone() }));
    for body in ["", "{}", "[]", "null", "\u{1f4e6}"] {
        assert!(!accepted(&Webhook { body: body.into(), ..right.clone() }), "{body}");
    }
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
