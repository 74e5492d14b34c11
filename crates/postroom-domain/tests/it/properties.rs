//! Properties of all schemes: bytes that anybody can send never panic, and any changed byte is noticed.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use postroom_domain::Secret;
use postroom_domain::provider;
use postroom_domain::verify::{Outcome, Request, SignedRequest, Verifier};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::support::{Source, at, options, verdict};

/// Their secret comes along in a header or in the URL, or only a part of the body is signed, or (Twilio) its fields with
/// nothing between them.
const BODY_NOT_SIGNED: [&str; 13] = [
    "adyen",
    "aws-sns",
    "azure-event-grid",
    "basic-auth",
    "gitlab-token",
    "jwt",
    "mailgun",
    "monday",
    "okta",
    "postmark-basic-auth",
    "telegram",
    "token",
    "twilio",
];

/// Their proof stands in the body or in the URL.
const NO_PROVING_HEADER: [&str; 4] = ["adyen", "aws-sns", "azure-event-grid", "mailgun"];

/// Every provider whose requests are proved by something.
fn proving_providers() -> impl Iterator<Item = &'static provider::Provider> {
    provider::all().iter().filter(|row| row.name != "none")
}

/// Bytes that can stand in a header.
fn header_bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'\t'), 0x20_u8..=0x7e, 0x80_u8..=0xff];
    let pieces = prop_oneof![
        Just(b"t=".to_vec()),
        Just(b"v1=".to_vec()),
        Just(b"v1,".to_vec()),
        Just(b"v0=".to_vec()),
        Just(b"sha256=".to_vec()),
        Just(b",".to_vec()),
        Just(b" ".to_vec()),
        Just(b"1767225600".to_vec()),
        Just(b"ab".repeat(32)),
        proptest::collection::vec(byte, 0..40),
    ];
    proptest::collection::vec(pieces, 0..20).prop_map(|pieces| pieces.concat())
}

/// What stands between commas and spaces.
fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| matches!(byte, b',' | b' ' | b'\t')).filter(|member| !member.is_empty())
}

fn request<'a>(signed: &'a SignedRequest) -> Request<'a> {
    Request { method: signed.method.as_str(), url: &signed.url, headers: &signed.headers, body: &signed.body }
}

proptest! {
    #[test]
    fn no_request_panics(
        values in proptest::collection::vec(header_bytes(), 8),
        body in proptest::collection::vec(any::<u8>(), 0..200),
        url in ".{0,60}",
        method in prop_oneof!["GET", "HEAD", "POST", "PUT", "[A-Z]{1,10}"],
    ) {
        for row in provider::all() {
            let verifier = Source::of(row.name).verifier();
            let mut headers = HeaderMap::new();
            let names = ["x-signature", "webhook-id", "webhook-timestamp", "x-slack-request-timestamp", "x-github-event"];
            let names = row.describe().signature_headers.into_iter().chain(names);
            for (name, value) in names.zip(&values) {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                headers.append(name, HeaderValue::from_bytes(value).unwrap());
            }
            let request = Request { method: &method, url: &url, headers: &headers, body: &body };
            let outcome = verifier.verify(&request, at(0));
            let told = verifier.explain(&request, at(0));
            prop_assert_eq!(matches!(outcome, Outcome::Refused(_) | Outcome::NeedsKey(_)), told.code.is_some());
            prop_assert!(row.name == "none" || !matches!(outcome, Outcome::Verified(_)));
        }
    }

    #[test]
    fn what_sign_makes_verifies_until_one_byte_of_what_proves_it_changes(
        seed in any::<u64>(),
        place in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        for row in proving_providers() {
            let source = Source::of(row.name);
            let verifier = source.verifier();
            let signed = source.signed_sample(seed, at(0));
            prop_assert_eq!(verdict(&verifier, &signed, at(0)), "ok", "{}", row.name);
            let mut body = signed.body.clone();
            let index = place.index(body.len());
            body[index] ^= flip;
            // A form may write one byte in several ways (%7B, %7b), and what they decode to is what is signed.
            let same = is_form(&signed) && fields(&body) == fields(&signed.body);
            if !BODY_NOT_SIGNED.contains(&row.name) && !same {
                let told = verdict(&verifier, &SignedRequest { body, ..signed.clone() }, at(0));
                prop_assert!(told.starts_with("signature_"), "{} {index} ^ {flip}: {told}", row.name);
            }
            for name in proving(&verifier, &signed) {
                let mut value = signed.headers[&name].as_bytes().to_vec();
                let index = place.index(value.len());
                value[index] ^= flip;
                // The words Basic and Bearer have no case.
                let lower = value.to_ascii_lowercase();
                let same = index < 6 && (lower.starts_with(b"basic ") || lower.starts_with(b"bearer "));
                // And what separates the members of a list proves nothing: ", " may become ",,".
                let same = same || members(&value).eq(members(signed.headers[&name].as_bytes()));
                let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
                let told = verdict(&verifier, &with(&signed, &name, value), at(0));
                prop_assert!(same || told.starts_with("signature_"), "{} {name} {index} ^ {flip}: {told}", row.name);
            }
            if row.signs_url() {
                let mut url = signed.url.clone().into_bytes();
                let index = place.index(url.len());
                url[index] = if url[index] == b'x' { b'y' } else { b'x' };
                let moved = SignedRequest { url: String::from_utf8(url).unwrap(), ..signed };
                prop_assert_ne!(verdict(&verifier, &moved, at(0)), "ok", "{}", row.name);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_in_a_header_that_proves_never_panic_and_never_verify(value in header_bytes()) {
        for row in proving_providers() {
            let source = Source::of(row.name);
            let verifier = source.verifier();
            let signed = source.signed_sample(1, at(0));
            for name in proving(&verifier, &signed) {
                let changed = with(&signed, &name, HeaderValue::from_bytes(&value).unwrap());
                let told = verdict(&verifier, &changed, at(0));
                let same = changed.headers[&name] == signed.headers[&name];
                prop_assert!(same || !["ok", "handshake"].contains(&told.as_str()), "{} {name}: {told}", row.name);
                let _ = verifier.explain(&request(&changed), at(0));
            }
        }
    }

    #[test]
    fn no_options_panic(name in "[a-z_]{1,20}", text in ".{0,40}", template in "[{}a-z:_.]{0,40}", number in any::<i64>()) {
        for row in provider::all() {
            let mut options = Map::new();
            for (index, spec) in row.options().iter().enumerate() {
                let value = match index % 3 {
                    0 => Value::from(text.as_str()),
                    1 => Value::from(template.as_str()),
                    _ => Value::from(number),
                };
                options.insert(spec.name.to_owned(), value);
            }
            let _ = Verifier::compile(row.name, &options, &[]);
            options.insert("signed_content".to_owned(), Value::from(template.as_str()));
            options.insert(name.clone(), Value::from(text.as_str()));
            let _ = Verifier::compile(row.name, &options, &[text.as_str().into()]);
        }
    }

    #[test]
    fn no_answer_of_a_providers_server_panics_or_proves_by_chance(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        word in "[A-Za-z]{0,10}",
    ) {
        let postback = json!({ "webhook_id": "4JH86294D6297924G", "verify_by": "postback", "client_id": "AQcN" });
        let answers = [bytes, format!(r#"{{"verification_status":"{word}"}}"#).into_bytes()];
        for (name, settings, secret) in [
            ("paypal", json!({ "webhook_id": "4JH86294D6297924G" }), None),
            ("paypal", postback, Some("of-the-app")),
            ("aws-sns", json!({}), None),
            ("plaid", json!({ "client_id": "client" }), Some("of-the-dashboard")),
        ] {
            let secrets: Vec<Secret> = secret.map(Secret::from).into_iter().collect();
            let verifier = Verifier::compile(name, &options(settings), &secrets).unwrap();
            let signed = Source::of(name).signed_sample(1, at(0));
            prop_assert!(matches!(verifier.verify(&request(&signed), at(0)), Outcome::NeedsKey(_)), "{}", name);
            for answer in &answers {
                let outcome = verifier.verify_with_key(&request(&signed), answer, at(0));
                prop_assert!(!matches!(outcome, Outcome::Verified(_)) || word == "SUCCESS", "{}", name);
            }
        }
    }

    #[test]
    fn explaining_agrees_with_verifying(seed in any::<u64>(), late in -1000_i64..1000) {
        for row in provider::all() {
            let source = Source::of(row.name);
            let signed = source.signed_sample(seed, at(late));
            let verifier = source.verifier();
            let told = verifier.explain(&request(&signed), at(0));
            match verifier.verify(&request(&signed), at(0)) {
                Outcome::Refused(refusal) => {
                    prop_assert_eq!(told.code, Some(refusal.code()));
                    prop_assert_eq!(told.failed_check, Some(refusal.check()));
                    prop_assert!(!told.likely_causes.is_empty());
                }
                Outcome::Verified(verified) => prop_assert_eq!(told.external_id.as_deref(), verified.external_id()),
                Outcome::NeedsKey(_) => prop_assert!(told.code.is_some()),
                _ => prop_assert!(told.code.is_none()),
            }
        }
    }
}

/// What a form decodes to.
fn fields(body: &[u8]) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    url::form_urlencoded::parse(body).collect()
}

/// Without these headers the request is refused: the signature, and what is signed besides the body.
fn proving(verifier: &Verifier, signed: &SignedRequest) -> Vec<HeaderName> {
    let needed = |name: &&HeaderName| {
        let mut without = signed.clone();
        without.headers.remove(*name);
        // Where the certificate stands is not signed: what stands there is.
        *name != "paypal-cert-url" && verdict(verifier, &without, at(0)).starts_with("signature_")
    };
    let names: Vec<HeaderName> = signed.headers.keys().filter(needed).cloned().collect();
    assert!(
        !names.is_empty() || NO_PROVING_HEADER.contains(&verifier.provider().name),
        "{} needs no header",
        verifier.provider().name
    );
    names
}

fn with(signed: &SignedRequest, name: &HeaderName, value: HeaderValue) -> SignedRequest {
    let mut changed = signed.clone();
    changed.headers.insert(name.clone(), value);
    changed
}

fn is_form(signed: &SignedRequest) -> bool {
    signed.headers.get("content-type").is_some_and(|kind| kind == "application/x-www-form-urlencoded")
}
