//! The configurable scheme: every parameter does what it says, and nonsense is refused by name.

use aws_lc_rs::hmac;
use base64::Engine as _;
use postroom_domain::Secret;
use postroom_domain::provider::Payload;
use postroom_domain::verify::{FieldError, Outcome, Request, Verifier, sign};
use serde_json::{Value, json};

use crate::support::{URL, at, headers, options};

const SECRET: &str = "6f7264696e617279207365637265742121";
const BODY: &str = r#"{"type":"order.paid","sent":1767225600}"#;

fn mac(algorithm: hmac::Algorithm, key: &[u8], message: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, key), message.as_bytes()).as_ref().to_vec()
}

fn verifies(settings: Value, secret: &str, pairs: &[(&str, &str)]) -> bool {
    let verifier = Verifier::compile("hmac", &options(settings), &[Secret::from(secret)]).unwrap();
    let headers = headers(pairs);
    let request = Request { method: "POST", url: URL, headers: &headers, body: BODY.as_bytes() };
    matches!(verifier.verify(&request, at(0)), Outcome::Verified(_))
}

#[test]
fn every_parameter_of_the_scheme_is_used() {
    let base64 = base64::engine::general_purpose::STANDARD;
    let url_safe = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let (sha1, sha256, sha512) = (hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, hmac::HMAC_SHA256, hmac::HMAC_SHA512);
    let text = SECRET.as_bytes();
    let plain = hex::encode(mac(sha256, text, BODY));
    assert!(verifies(json!({"signature_header": "X-Sig"}), SECRET, &[("x-sig", &plain)]));

    let prefixed = format!("sha1={}", hex::encode(mac(sha1, text, BODY)));
    let scheme = json!({"signature_header": "X-Sig", "algorithm": "sha1", "signature_prefix": "sha1="});
    assert!(verifies(scheme, SECRET, &[("x-sig", &prefixed)]));

    let long = base64.encode(mac(sha512, &hex::decode(SECRET).unwrap(), BODY));
    let scheme = json!({
        "signature_header": "X-Sig", "algorithm": "sha512", "signature_encoding": "base64", "secret_encoding": "hex"
    });
    assert!(verifies(scheme, SECRET, &[("x-sig", &long)]));

    let key = base64.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let safe = url_safe.encode(mac(sha256, &key, BODY));
    for form in ["base64", "whsec"] {
        let scheme = json!({"signature_header": "X-Sig", "signature_encoding": "base64url", "secret_encoding": form});
        let secret =
            if form == "whsec" { "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" } else { "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" };
        assert!(verifies(scheme, secret, &[("x-sig", &safe)]), "{form}");
    }

    let upper = hex::encode_upper(mac(sha256, text, BODY));
    assert!(verifies(
        json!({"signature_header": "X-Sig", "signature_encoding": "hex_upper"}),
        SECRET,
        &[("x-sig", &upper)]
    ));
    assert!(!verifies(json!({"signature_header": "X-Sig"}), SECRET, &[("x-sig", &upper)]));
}

#[test]
fn pairs_lists_times_and_templates_are_used() {
    let sign = |message: &str| hex::encode(mac(hmac::HMAC_SHA256, SECRET.as_bytes(), message));
    let pairs = json!({
        "signature_header": "X-Sig", "signature_style": "pairs", "signature_label": "h1", "signature_separator": "semicolon",
        "timestamp_label": "ts", "signed_content": "{timestamp}:{body}"
    });
    let signed = sign(&format!("1767225600:{BODY}"));
    assert!(verifies(pairs.clone(), SECRET, &[("x-sig", &format!("ts=1767225600; h1={signed}"))]));
    assert!(!verifies(pairs, SECRET, &[("x-sig", &format!("ts=1767225601; h1={signed}"))]));

    let list = json!({
        "signature_header": "X-Sig", "signature_style": "list", "signature_label": "v1=", "signature_separator": "comma"
    });
    let value = format!("v2=00,v1=00,v1={}", sign(BODY));
    assert!(verifies(list, SECRET, &[("x-sig", &value)]));

    let all = json!({
        "signature_header": "X-Sig", "timestamp_header": "X-Time", "timestamp_unit": "rfc3339", "tolerance_seconds": 10,
        "signed_content": "{{{method} {url} {header:X-Id} {json:type} {timestamp} {body}}}", "public_url": "https://p.example/"
    });
    let time = |second: &str| format!("2026-01-01T00:00:{second}.123456789Z");
    let message = |second| format!("{{POST https://p.example/ id-1 order.paid {} {BODY}}}", time(second));
    for (second, passes) in [("00", true), ("09", true), ("11", false)] {
        let pairs = [("x-sig", sign(&message(second))), ("x-time", time(second)), ("x-id", "id-1".to_owned())];
        let pairs = pairs.each_ref().map(|(name, value)| (*name, value.as_str()));
        assert_eq!(verifies(all.clone(), SECRET, &pairs), passes, "{second}");
        assert!(!verifies(all.clone(), SECRET, &pairs[..2]), "a signed header is missing");
    }

    let inside = json!({"signature_header": "X-Sig", "timestamp_path": "sent", "tolerance_seconds": 5});
    assert!(verifies(inside, SECRET, &[("x-sig", &sign(BODY))]));
    let absent = json!({"signature_header": "X-Sig", "timestamp_path": "nowhere"});
    assert!(!verifies(absent, SECRET, &[("x-sig", &sign(BODY))]));
}

#[test]
fn type_and_id_stand_where_the_options_say() {
    let settings = options(json!({
        "signature_header": "X-Sig", "event_type_path": "meta.kind", "event_id_header": "X-Id"
    }));
    let payload = Payload::of_body(r#"{"meta":{"kind":"parcel.sent"}}"#);
    let mut signed = sign("hmac", &settings, Some(&Secret::from(SECRET)), &payload, URL, at(0)).unwrap();
    signed.headers.insert("x-id", "p-7".parse().unwrap());
    let verifier = Verifier::compile("hmac", &settings, &[Secret::from(SECRET)]).unwrap();
    let request = Request { method: "POST", url: URL, headers: &signed.headers, body: &signed.body };
    let Outcome::Verified(verified) = verifier.verify(&request, at(0)) else { panic!() };
    assert_eq!((verified.event_type().as_str(), verified.external_id()), ("parcel.sent", Some("p-7")));
}

#[test]
fn nonsense_is_refused_by_the_name_of_the_option() {
    for (settings, field, code) in [
        (json!({}), "signature_header", "required"),
        (json!({"signature_header": "X Sig"}), "signature_header", "invalid_header_name"),
        (json!({"signature_header": ""}), "signature_header", "required"),
        (json!({"signature_header": 7}), "signature_header", "invalid_type"),
        (json!({"signature_header": "X", "algoritm": "sha1"}), "algoritm", "unknown_option"),
        (json!({"signature_header": "X", "algorithm": "md5"}), "algorithm", "unknown_value"),
        (json!({"signature_header": "X", "signature_style": "pairs"}), "signature_label", "required"),
        (json!({"signature_header": "X", "signature_label": "v1"}), "signature_label", "not_with_this_style"),
        (
            json!({"signature_header": "X", "signature_style": "list", "signature_label": "v", "signature_prefix": "x"}),
            "signature_prefix",
            "not_with_this_style",
        ),
        (
            json!({"signature_header": "X", "timestamp_label": "t", "signed_content": "{timestamp}{body}"}),
            "timestamp_label",
            "not_with_this_style",
        ),
        (
            json!({"signature_header": "X", "signed_content": "{url}", "public_url": "https://x"}),
            "signed_content",
            "body_not_signed",
        ),
        (json!({"signature_header": "X", "timestamp_header": "T"}), "signed_content", "timestamp_not_signed"),
        (
            json!({"signature_header": "X", "signed_content": "{timestamp}{body}"}),
            "signed_content",
            "timestamp_not_signed",
        ),
        (
            json!({"signature_header": "X", "timestamp_header": "T", "timestamp_path": "t", "signed_content": "{timestamp}{body}"}),
            "timestamp_path",
            "conflict",
        ),
        (json!({"signature_header": "X", "tolerance_seconds": 60}), "tolerance_seconds", "no_timestamp"),
        (json!({"signature_header": "X", "timestamp_unit": "seconds"}), "timestamp_unit", "no_timestamp"),
        (
            json!({"signature_header": "X", "timestamp_path": "t", "tolerance_seconds": 0}),
            "tolerance_seconds",
            "out_of_range",
        ),
        (
            json!({"signature_header": "X", "timestamp_path": "t", "tolerance_seconds": "60"}),
            "tolerance_seconds",
            "out_of_range",
        ),
        (json!({"signature_header": "X", "public_url": "https://x"}), "public_url", "url_not_signed"),
        (json!({"signature_header": "X", "signed_content": "{body}{nope}"}), "signed_content", "invalid_template"),
        (json!({"signature_header": "X", "event_id_path": "a..b"}), "event_id_path", "invalid_path"),
        (json!({"signature_header": "X", "event_id_path": "a", "event_id_header": "b"}), "event_id_path", "conflict"),
        (json!({"signature_header": "X", "event_type_header": "a b"}), "event_type_header", "invalid_header_name"),
    ] {
        let errors = Verifier::compile("hmac", &options(settings.clone()), &[]).unwrap_err();
        let found: Vec<(&str, &str)> = errors.iter().map(|e| (e.field.as_str(), e.invalid.code)).collect();
        assert!(found.contains(&(field, code)), "{settings}: {found:?}");
    }
}

#[test]
fn everything_wrong_is_told_at_once() {
    let settings = options(json!({"algorithm": "md5", "nope": 1, "tolerance_seconds": -1}));
    let fields: Vec<String> = Verifier::compile("hmac", &settings, &[])
        .unwrap_err()
        .into_iter()
        .map(|FieldError { field, .. }| field)
        .collect();
    assert_eq!(fields, ["algorithm", "nope", "tolerance_seconds", "signature_header"]);
}

#[test]
fn fixed_providers_take_only_their_own_options() {
    let known = |provider: &str, settings: Value| Verifier::compile(provider, &options(settings), &[]).is_ok();
    assert!(known("stripe", json!({"tolerance_seconds": 600})));
    assert!(!known("github", json!({"tolerance_seconds": 600})));
    assert!(known("mandrill", json!({"public_url": "https://x"})));
    assert!(!known("stripe", json!({"public_url": "https://x"})));
    assert!(known("none", json!({"event_type_path": "kind", "event_id_header": "X-Id"})));
    let unknown = Verifier::compile("strip", &options(json!({})), &[]).unwrap_err();
    assert_eq!((unknown[0].field.as_str(), unknown[0].invalid.code), ("provider", "unknown_provider"));
    let needless = Verifier::compile("none", &options(json!({})), &[Secret::from("x")]).unwrap_err();
    assert_eq!((needless[0].field.as_str(), needless[0].invalid.code), ("secret", "not_needed"));
}
