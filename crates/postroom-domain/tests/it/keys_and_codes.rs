//! Providers whose scheme is code or a public key: what they accept, and everything they refuse.

mod certificates;
mod handshakes;
mod postback;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use postroom_domain::provider::{self, Payload, sample};
use postroom_domain::verify::{KeyRequest, Outcome, PublicSide, Request, SignedRequest, Verifier, public_side, sign};
use postroom_domain::{Secret, Timestamp};
use serde_json::{Map, Value, json};

use crate::support::{
    EC_KEY, PAYPAL_CERTIFICATE, ROOT, RSA_KEY, SNS_CERTIFICATE, Source, URL, at, headers, jwk, options, verdict,
};

const INVALID: &str = "signature_invalid signature";
const CERTIFICATE: &str = "signature_invalid certificate";
const CERTIFICATE_URL: &str = "signature_invalid certificate_url";

fn with(signed: &SignedRequest, name: &str, value: &str) -> SignedRequest {
    let mut changed = signed.clone();
    let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
    changed.headers.insert(name, HeaderValue::from_str(value).unwrap());
    changed
}

fn without(signed: &SignedRequest, name: &str) -> SignedRequest {
    let mut changed = signed.clone();
    changed.headers.remove(name);
    changed
}

/// The signed JSON body with one member set; null takes it away.
fn body_with(signed: &SignedRequest, member: &str, value: Value) -> SignedRequest {
    let mut body: Value = serde_json::from_slice(&signed.body).unwrap();
    body[member] = value;
    SignedRequest { body: body.to_string().into_bytes(), ..signed.clone() }
}

fn request(signed: &SignedRequest) -> Request<'_> {
    Request { method: signed.method.as_str(), url: &signed.url, headers: &signed.headers, body: &signed.body }
}

fn needed(verifier: &Verifier, signed: &SignedRequest) -> KeyRequest {
    match verifier.verify(&request(signed), at(0)) {
        Outcome::NeedsKey(needed) => *needed,
        other => panic!("{other:?}"),
    }
}

fn compiled(provider: &str, settings: Value) -> Verifier {
    Verifier::compile(provider, &options(settings), &[]).unwrap()
}

mod twilio {
    use super::*;

    fn signed(url: &str, body: &str) -> SignedRequest {
        let token = Secret::from("12345");
        sign("twilio", &Map::new(), Some(&token), &Payload::of_body(body), url, at(0)).unwrap()
    }

    fn told(signed: &SignedRequest) -> String {
        let verifier = Verifier::compile("twilio", &Map::new(), &[Secret::from("12345")]).unwrap();
        verdict(&verifier, signed, at(0))
    }

    #[test]
    fn a_form_is_signed_with_its_url_in_any_spelling_of_the_port() {
        let sent = signed("https://a.example/x?y=1", "To=%2B1&From=%2B2&Body=caf%C3%A9+%26");
        assert_eq!(told(&sent), "ok");
        for url in ["https://a.example:443/x?y=1", "https://a.example:8443/x?y=1"] {
            assert_eq!(told(&SignedRequest { url: url.to_owned(), ..sent.clone() }), "ok", "{url}");
        }
        for url in
            ["http://a.example/x?y=1", "https://a.example/x", "https://b.example/x?y=1", "https://a.example/x?y=2"]
        {
            assert_eq!(told(&SignedRequest { url: url.to_owned(), ..sent.clone() }), INVALID, "{url}");
        }
        for body in ["To=%2B1&From=%2B2", "", "To=%2B1&From=%2B2&Body=caf%C3%A9+%26&More=1"] {
            assert_eq!(told(&SignedRequest { body: body.into(), ..sent.clone() }), INVALID, "{body}");
        }
        let shuffled = "Body=caf%C3%A9+%26&To=%2B1&From=%2B2&To=%2B1";
        assert_eq!(told(&SignedRequest { body: shuffled.into(), ..sent }), "ok", "names are sorted, values said once");
        assert_eq!(told(&signed("https://a.example/x", "")), "ok");
    }

    #[test]
    fn a_digest_in_the_url_holds_the_body_whatever_media_type_it_claims() {
        let body = r#"{"property": "value", "boolean": true}"#;
        let url = "https://mycompany.com/myapp.php?foo=1&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620";
        let sent = signed(url, body);
        assert_eq!(told(&sent), "ok");
        for changed in ["", "{}", "a=1"] {
            let moved = SignedRequest { body: changed.into(), ..sent.clone() };
            let form = with(&moved, "content-type", "application/x-www-form-urlencoded");
            for request in [moved, form] {
                assert_eq!(told(&request), "signature_invalid body_digest", "{changed}");
            }
        }
        let plain = SignedRequest { url: "https://mycompany.com/myapp.php?foo=1".to_owned(), ..sent };
        assert_eq!(told(&plain), INVALID);
    }

    #[test]
    fn a_shared_key_names_its_algorithm_and_an_unknown_one_fails() {
        let sent = signed(URL, "a=1");
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"12345");
        let tag = STANDARD.encode(aws_lc_rs::hmac::sign(&key, format!("{URL}a1").as_bytes()));
        let settings = "x-twilio-webhooks-signature-settings";
        let shared = with(&with(&sent, "x-twilio-signature", &tag), settings, "key=k1,algorithm=HMAC_SHA256");
        assert_eq!(told(&shared), "ok");
        assert_eq!(told(&without(&shared, settings)), "signature_invalid signature_format");
        for (value, expected) in [
            ("key=k1,algorithm=HMAC_SHA512", "signature_invalid signature_format"),
            ("key=k1,algorithm=HMAC_SHA1", "ok"),
            ("key=k1", "ok"),
            ("", "ok"),
        ] {
            assert_eq!(told(&with(&sent, settings, value)), expected, "{value}");
        }
    }

    #[test]
    fn a_signature_that_is_missing_doubled_or_misshapen_is_refused() {
        let sent = signed(URL, "a=1");
        assert_eq!(told(&without(&sent, "x-twilio-signature")), "signature_missing signature_header");
        assert_eq!(told(&with(&sent, "x-twilio-signature", "")), "signature_missing signature_header");
        for bad in ["AAAA", "not base64", "sha1=x"] {
            assert_eq!(told(&with(&sent, "x-twilio-signature", bad)), "signature_invalid signature_format");
        }
        let mut twice = sent.clone();
        twice.headers.append("x-twilio-signature", HeaderValue::from_static("x"));
        assert_eq!(told(&twice), "signature_invalid signature_header_twice");
        let bare = Verifier::compile("twilio", &Map::new(), &[]).unwrap();
        assert_eq!(verdict(&bare, &sent, at(0)), "signature_invalid secret");
        let both = [Secret::from("another"), Secret::from("12345")];
        assert_eq!(verdict(&Verifier::compile("twilio", &Map::new(), &both).unwrap(), &sent, at(0)), "ok");
    }

    #[test]
    fn a_status_is_an_event_of_its_own_and_a_call_without_a_number_has_no_id() {
        for (body, kind, id) in [
            ("MessageSid=SM1&MessageStatus=sent", "message.sent", Some("SM1:sent")),
            ("MessageSid=SM1&SmsStatus=received&Body=hi", "message.received", Some("SM1:received")),
            ("CallSid=CA1&CallStatus=completed&SequenceNumber=3", "call.completed", Some("CA1:completed:3")),
            ("CallSid=CA1&CallStatus=in-progress&Digits=1", "call.in-progress", None),
            ("x=1", "twilio", None),
        ] {
            let verifier = Verifier::compile("twilio", &Map::new(), &[Secret::from("12345")]).unwrap();
            let signed = without(&signed(URL, body), "i-twilio-idempotency-token");
            let Outcome::Verified(verified) = verifier.verify(&request(&signed), at(0)) else { panic!("{body}") };
            assert_eq!((verified.event_type().as_str(), verified.external_id()), (kind, id), "{body}");
            assert_eq!(verified.answer().map(|answer| answer.body.len()), Some(0));
        }
    }
}

mod adyen {
    use super::*;

    fn item(reference: &str) -> Value {
        json!({ "NotificationRequestItem": {
            "pspReference": reference, "eventCode": "CAPTURE", "success": "true", "merchantAccountCode": "a:b\\c",
            "amount": { "value": 1000, "currency": "EUR" }, "reason": "caf\u{e9}"
        } })
    }

    fn signed(items: &[Value]) -> SignedRequest {
        let body = json!({ "live": "false", "notificationItems": items }).to_string();
        Source::of("adyen").sign(&Payload::of_body(body), at(0))
    }

    #[test]
    fn every_item_has_to_be_signed_and_each_is_an_event() {
        let verifier = Source::of("adyen").verifier();
        let sent = signed(&[item("A"), item("B")]);
        let Outcome::Verified(verified) = verifier.verify(&request(&sent), at(0)) else { panic!() };
        let ids: Vec<_> = verified.parts().iter().map(|part| part.external_id.as_deref().unwrap()).collect();
        assert_eq!(ids, ["A:CAPTURE:true", "B:CAPTURE:true"]);
        assert_eq!(verified.answer().unwrap().body, b"[accepted]");
        for part in verified.parts() {
            let alone = SignedRequest { body: part.body.clone(), ..sent.clone() };
            assert_eq!(verdict(&verifier, &alone, at(0)), "ok", "a part still proves itself");
        }
        let mut body: Value = serde_json::from_slice(&sent.body).unwrap();
        body["notificationItems"][1]["NotificationRequestItem"]["amount"]["value"] = 1.into();
        let forged = SignedRequest { body: body.to_string().into_bytes(), ..sent };
        assert_eq!(verdict(&verifier, &forged, at(0)), INVALID, "not only the first is looked at");
    }

    #[test]
    fn what_is_signed_is_held_and_what_is_not_is_not() {
        let verifier = Source::of("adyen").verifier();
        let sent = signed(&[item("A")]);
        for (member, value, expected) in [
            ("pspReference", json!("B"), INVALID),
            ("success", json!("false"), INVALID),
            ("success", json!(true), "ok"),
            ("originalReference", json!("x"), INVALID),
            ("originalReference", json!(null), "ok"),
            ("reason", json!("another"), "ok"),
            ("additionalData", json!({}), "signature_missing signature_header"),
            ("additionalData", json!({ "hmacSignature": "AAAA" }), "signature_invalid signature_format"),
        ] {
            let mut body: Value = serde_json::from_slice(&sent.body).unwrap();
            body["notificationItems"][0]["NotificationRequestItem"][member] = value.clone();
            let changed = SignedRequest { body: body.to_string().into_bytes(), ..sent.clone() };
            assert_eq!(verdict(&verifier, &changed, at(0)), expected, "{member} {value}");
        }
        for body in ["", "{}", "[]", "not json", r#"{"notificationItems":[]}"#] {
            let bare = SignedRequest { body: body.into(), ..sent.clone() };
            assert_eq!(verdict(&verifier, &bare, at(0)), "signature_missing signature_header", "{body}");
        }
        let source = Source::of("adyen");
        let (new, old) = (Secret::from(source.other_secret()), Secret::from(source.secret.unwrap()));
        let rotating = Verifier::compile("adyen", &Map::new(), &[new.clone(), old]).unwrap();
        assert_eq!(verdict(&rotating, &sent, at(0)), "ok");
        let other = Verifier::compile("adyen", &Map::new(), &[new]).unwrap();
        assert_eq!(verdict(&other, &sent, at(0)), INVALID);
    }
}

mod tokens {
    use super::*;

    fn token(head: &Value, claims: &Value, key: &str) -> String {
        let unsigned = [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.as_bytes());
        let tag = aws_lc_rs::hmac::sign(&key, unsigned.as_bytes());
        format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    fn monday(value: &str) -> String {
        let pairs = [("authorization", value)];
        let signed = SignedRequest {
            method: Method::POST,
            url: URL.into(),
            headers: headers(&pairs),
            body: b"{\"event\":{}}".into(),
        };
        verdict(&Source::of("monday").verifier(), &signed, at(0))
    }

    #[test]
    fn a_token_of_monday_is_hs256_and_has_an_end() {
        let (head, secret) = (json!({ "alg": "HS256", "typ": "JWT" }), Source::of("monday").secret.unwrap());
        let now = at(0).as_seconds();
        let good = token(&head, &json!({ "exp": now + 300 }), secret);
        assert_eq!(monday(&good), "ok");
        assert_eq!(monday(&format!("Bearer {good}")), "ok");
        for (told, token) in [
            ("timestamp_out_of_tolerance timestamp_tolerance", token(&head, &json!({ "exp": now }), secret)),
            (
                "timestamp_out_of_tolerance timestamp_tolerance",
                token(&head, &json!({ "exp": now + 9, "nbf": now + 90 }), secret),
            ),
            ("signature_missing timestamp_missing", token(&head, &json!({ "iat": now }), secret)),
            ("signature_missing timestamp_missing", token(&head, &json!({ "exp": "soon" }), secret)),
            (INVALID, token(&head, &json!({ "exp": now + 300 }), "another")),
            ("signature_invalid claims", token(&head, &json!([]), secret)),
            (
                "signature_invalid signature_format",
                token(&json!({ "alg": "none" }), &json!({ "exp": now + 300 }), secret),
            ),
            (
                "signature_invalid signature_format",
                token(&json!({ "alg": "HS512" }), &json!({ "exp": now + 300 }), secret),
            ),
            ("signature_invalid signature_format", good[..good.rfind('.').unwrap()].to_owned()),
            (INVALID, good[..=good.rfind('.').unwrap()].to_owned()),
            ("signature_missing signature_header", String::new()),
        ] {
            assert_eq!(monday(&token), told, "{token}");
        }
    }

    #[test]
    fn the_challenge_of_monday_is_given_back_signed_or_not() {
        let source = Source::of("monday");
        let body = r#"{"challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}"#;
        let signed = source.sign(&Payload::of_body(body), at(0));
        for request_ in [signed.clone(), without(&signed, "authorization")] {
            let Outcome::Handshake(answer) = source.verifier().verify(&request(&request_), at(0)) else { panic!() };
            assert_eq!((answer.status, answer.body.as_slice()), (200, body.as_bytes()));
        }
        let forged = with(&signed, "authorization", "x");
        assert_eq!(verdict(&source.verifier(), &forged, at(0)), "signature_invalid signature_format");
        for body in [r#"{"challenge":"x","event":{}}"#, r#"{"challenge":1}"#, r#"["challenge"]"#, ""] {
            let bare = SignedRequest { body: body.into(), ..without(&signed, "authorization") };
            assert_eq!(verdict(&source.verifier(), &bare, at(0)), "signature_missing signature_header", "{body}");
        }
    }

    #[test]
    fn a_token_of_plaid_holds_the_digest_of_the_body_and_is_young() {
        let source = Source::of("plaid");
        let verifier = source.verifier();
        for (sent, expected) in [
            (-300, "ok"),
            (-301, "timestamp_out_of_tolerance timestamp_tolerance"),
            (300, "ok"),
            (301, "timestamp_out_of_tolerance timestamp_tolerance"),
        ] {
            assert_eq!(verdict(&verifier, &source.signed_sample(1, at(sent)), at(0)), expected, "{sent}");
        }
        let signed = source.signed_sample(1, at(0));
        let changed = SignedRequest { body: b"{}".into(), ..signed.clone() };
        assert_eq!(verdict(&verifier, &changed, at(0)), "signature_invalid body_digest");
        // A token made with the text of the public key as a shared secret.
        let head = json!({ "alg": "HS256", "kid": "postroom-sample" });
        let confused = token(&head, &json!({ "iat": at(0).as_seconds() }), &jwk());
        let forged = with(&signed, "plaid-verification", &confused);
        assert_eq!(verdict(&verifier, &forged, at(0)), "signature_invalid signature_format");
        let mut other: Value = serde_json::from_str(&jwk()).unwrap();
        other["kid"] = "another".into();
        let settings = json!({ "jwk": other.to_string() });
        assert_eq!(verdict(&compiled("plaid", settings), &signed, at(0)), INVALID);
        other["kid"] = "postroom-sample".into();
        other["expired_at"] = at(0).as_seconds().into();
        let settings = json!({ "jwk": other.to_string() });
        assert_eq!(verdict(&compiled("plaid", settings), &signed, at(0)), INVALID, "the key was withdrawn");
        assert_eq!(verdict(&compiled("plaid", json!({})), &signed, at(0)), "signature_invalid secret");
    }

    #[test]
    fn a_key_of_plaid_is_asked_for_by_its_id_with_the_credentials_of_the_source() {
        let settings = options(json!({ "client_id": "client-1", "environment": "sandbox" }));
        let verifier = Verifier::compile("plaid", &settings, &[Secret::from("hunter2")]).unwrap();
        let signed = Source::of("plaid").signed_sample(1, at(0));
        let needed = needed(&verifier, &signed);
        assert_eq!(needed.url.as_str(), "https://sandbox.plaid.com/webhook_verification_key/get");
        let asked: Value = serde_json::from_slice(needed.post.as_ref().unwrap().body.expose()).unwrap();
        assert_eq!(asked, json!({ "client_id": "client-1", "secret": "hunter2", "key_id": "postroom-sample" }));
        let answer = format!(r#"{{"key":{},"request_id":"x"}}"#, jwk());
        assert!(matches!(verifier.verify_with_key(&request(&signed), answer.as_bytes(), at(0)), Outcome::Verified(_)));
        let other = answer.replace("postroom-sample", "another");
        for bad in [other.as_str(), "", "{}", "null"] {
            let outcome = verifier.verify_with_key(&request(&signed), bad.as_bytes(), at(0));
            assert!(matches!(outcome, Outcome::Refused(_)), "{bad}");
        }
        // Another algorithm is refused before any key is asked for.
        let head = json!({ "alg": "HS256", "kid": "postroom-sample" });
        let forged = with(&signed, "plaid-verification", &token(&head, &json!({}), "x"));
        assert!(matches!(verifier.verify(&request(&forged), at(0)), Outcome::Refused(_)));
    }

    #[test]
    fn every_algorithm_of_the_provider_jwt_is_made_and_checked() {
        let ed25519 =
            aws_lc_rs::signature::Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
        let ed25519 = STANDARD.encode(ed25519);
        for (algorithm, private) in [
            ("HS256", "shared"),
            ("HS384", "shared"),
            ("HS512", "shared"),
            ("RS256", RSA_KEY),
            ("RS512", RSA_KEY),
            ("PS256", RSA_KEY),
            ("ES256", EC_KEY),
            ("EdDSA", &ed25519),
        ] {
            let mut settings = options(json!({
                "algorithm": algorithm, "header": "X-Token", "audience": "me", "issuer": "you", "body_claim": "hash"
            }));
            let secret = Secret::from(private);
            let secrets = match public_side("jwt", &settings, &secret).unwrap() {
                Some(PublicSide::Jwk(jwk)) => {
                    settings.insert("jwk".to_owned(), jwk.into());
                    vec![]
                }
                other => {
                    assert_eq!(other, None);
                    vec![secret.clone()]
                }
            };
            let payload = Payload::of_body(r#"{"type":"a"}"#);
            let signed = sign("jwt", &settings, Some(&secret), &payload, URL, at(0)).unwrap();
            let verifier = Verifier::compile("jwt", &settings, &secrets).unwrap();
            assert_eq!(verdict(&verifier, &signed, at(0)), "ok", "{algorithm}");
            let changed = SignedRequest { body: b"{}".into(), ..signed.clone() };
            assert_eq!(verdict(&verifier, &changed, at(0)), "signature_invalid body_digest", "{algorithm}");
            for (name, value) in [("audience", "other"), ("issuer", "other")] {
                let mut other = settings.clone();
                other.insert(name.to_owned(), value.into());
                let verifier = Verifier::compile("jwt", &other, &secrets).unwrap();
                assert_eq!(verdict(&verifier, &signed, at(0)), "signature_invalid claims", "{algorithm} {name}");
            }
            let bare = SignedRequest { headers: HeaderMap::new(), ..signed };
            assert_eq!(verdict(&verifier, &bare, at(0)), "signature_missing signature_header");
        }
        let confused = options(json!({ "jwk": jwk() }));
        assert_eq!(Verifier::compile("jwt", &confused, &[]).unwrap_err()[0].field, "jwk", "HS256 needs a secret");
    }
}
