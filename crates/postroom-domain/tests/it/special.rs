//! What single providers do differently from all others.

use aws_lc_rs::hmac;
use http::{HeaderName, HeaderValue, Method};
use postroom_domain::Secret;
use postroom_domain::provider::{self, Payload};
use postroom_domain::verify::{Answer, Outcome, Request, SignedRequest, Verifier};
use serde_json::{Map, Value, json};

use crate::support::{Source, at, headers, options, verdict};

fn outcome(verifier: &Verifier, signed: &SignedRequest) -> Outcome {
    let request =
        Request { method: signed.method.as_str(), url: &signed.url, headers: &signed.headers, body: &signed.body };
    verifier.verify(&request, at(0))
}

fn answer(verifier: &Verifier, signed: &SignedRequest) -> Answer {
    match outcome(verifier, signed) {
        Outcome::Handshake(answer) => answer,
        other => panic!("{other:?}"),
    }
}

fn get(url: &str, pairs: &[(&str, &str)]) -> SignedRequest {
    SignedRequest { method: Method::GET, url: url.to_owned(), headers: headers(pairs), body: vec![] }
}

fn json_of(answer: &Answer) -> Value {
    assert_eq!((answer.status, answer.content_type), (200, Some("application/json")));
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn zoom_gets_its_token_and_the_hash_of_it() {
    let source = Source::of("zoom");
    let body = r#"{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"},"event_ts":1}"#;
    let told = json_of(&answer(&source.verifier(), &source.sign(&Payload::of_body(body), at(0))));
    let key = hmac::Key::new(hmac::HMAC_SHA256, source.secret.unwrap().as_bytes());
    let hash = hex::encode(hmac::sign(&key, b"qgg8vlvZRS6UYooatFL8Aw"));
    assert_eq!(told, json!({"plainToken": "qgg8vlvZRS6UYooatFL8Aw", "encryptedToken": hash}));
    let stranger = Source { secret: Some("not the secret of zoom"), ..Source::of("zoom") };
    let forged = stranger.sign(&Payload::of_body(body), at(0));
    assert!(verdict(&source.verifier(), &forged, at(0)).starts_with("signature_invalid"), "no oracle for signatures");
}

#[test]
fn while_a_secret_rotates_zoom_gets_the_hash_by_the_secret_it_signed_with() {
    let source = Source::of("zoom");
    let (new, old) = (Secret::from("the newer one"), Secret::from(source.secret.unwrap()));
    let verifier = Verifier::compile("zoom", &Map::new(), &[new, old]).unwrap();
    let body = r#"{"event":"endpoint.url_validation","payload":{"plainToken":"abc"}}"#;
    let told = json_of(&answer(&verifier, &source.sign(&Payload::of_body(body), at(0))));
    let key = hmac::Key::new(hmac::HMAC_SHA256, source.secret.unwrap().as_bytes());
    assert_eq!(told["encryptedToken"], hex::encode(hmac::sign(&key, b"abc")));
}

#[test]
fn dropbox_gets_its_challenge_back_as_text_that_no_browser_runs() {
    let verifier = Source::of("dropbox").verifier();
    let told = answer(&verifier, &get("https://x.example/in?challenge=abc%2Bdef", &[]));
    assert_eq!(
        (told.status, told.content_type, told.body.as_slice()),
        (200, Some("text/plain"), b"abc+def".as_slice())
    );
    assert_eq!(told.headers, [("x-content-type-options", "nosniff".to_owned())]);
    for url in
        ["https://x.example/in", "https://x.example/in?challenge=", "https://x.example/in?challenge=a&challenge=b"]
    {
        assert!(matches!(outcome(&verifier, &get(url, &[])), Outcome::Refused(_)), "{url}");
    }
    let posted = SignedRequest { method: Method::POST, ..get("https://x.example/in?challenge=abc", &[]) };
    assert!(matches!(outcome(&verifier, &posted), Outcome::Refused(_)));
}

#[test]
fn meta_gets_its_challenge_only_for_the_right_token() {
    let settings = options(json!({"verify_token": "meatyhamhock"}));
    let verifier = Verifier::compile("meta", &settings, &Source::of("meta").secrets()).unwrap();
    let url = |token| format!("https://x/in?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token={token}");
    assert_eq!(answer(&verifier, &get(&url("meatyhamhock"), &[])).body, b"1158201444");
    for wrong in ["", "meaty", "meatyhamhock2"] {
        assert!(matches!(outcome(&verifier, &get(&url(wrong), &[])), Outcome::Refused(_)), "{wrong}");
    }
    let unset = Source::of("meta").verifier();
    assert!(matches!(outcome(&unset, &get(&url(""), &[])), Outcome::Refused(_)), "no token configured, no echo");
    let other = url("meatyhamhock").replace("subscribe", "unsubscribe");
    assert!(matches!(outcome(&verifier, &get(&other, &[])), Outcome::Refused(_)));
}

#[test]
fn twitch_gets_the_raw_challenge_and_its_revocation_is_an_event() {
    let source = Source::of("twitch");
    let verifier = source.verifier();
    let kind = |signed: &SignedRequest, kind: &'static str| {
        let mut signed = signed.clone();
        signed.headers.insert("twitch-eventsub-message-type", HeaderValue::from_static(kind));
        signed
    };
    let payload =
        Payload { event_type: Some("channel.follow".to_owned()), ..Payload::of_body(r#"{"challenge":"pogchamp-1"}"#) };
    let signed = source.sign(&payload, at(0));
    let told = answer(&verifier, &kind(&signed, "webhook_callback_verification"));
    assert_eq!((told.content_type, told.body.as_slice()), (Some("text/plain"), b"pogchamp-1".as_slice()));
    assert!(matches!(outcome(&verifier, &kind(&signed, "revocation")), Outcome::Verified(_)));
    // Nanoseconds are signed as they were sent.
    let mut changed = signed.clone();
    changed
        .headers
        .insert("twitch-eventsub-message-timestamp", HeaderValue::from_static("2026-01-01T00:00:00.000000001Z"));
    assert_eq!(verdict(&verifier, &changed, at(0)), "signature_invalid signature");
}

#[test]
fn okta_gets_its_challenge_as_json_by_get_with_its_token() {
    let source = Source::of("okta");
    let verifier = source.verifier();
    let token = source.secret.unwrap();
    let right = get("https://x/in", &[("authorization", token), ("x-okta-verification-challenge", "abc")]);
    assert_eq!(json_of(&answer(&verifier, &right)), json!({"verification": "abc"}));
    let without = get("https://x/in", &[("x-okta-verification-challenge", "abc")]);
    assert_eq!(verdict(&verifier, &without, at(0)), "signature_missing signature_header");
    assert_eq!(provider::find("okta").unwrap().methods(), ["POST", "GET"]);
    let named = Verifier::compile("okta", &options(json!({"header": "X-Okta-Secret"})), &source.secrets()).unwrap();
    let elsewhere = get("https://x/in", &[("x-okta-secret", token), ("x-okta-verification-challenge", "abc")]);
    assert_eq!(answer(&named, &elsewhere).status, 200);
    let event = source.sign(&Payload::of_body("{}"), at(0));
    let Outcome::Verified(verified) = outcome(&verifier, &event) else { panic!() };
    assert!(verified.answer().unwrap().body.is_empty());
}

#[test]
fn checks_of_the_console_are_answered_and_not_events() {
    for (provider, body) in [
        ("line", r#"{"destination":"U1","events":[]}"#),
        ("xero", r#"{"events":[],"firstEventSequence":0,"lastEventSequence":0,"entropy":"S0m3r4nd0m"}"#),
        ("intercom", r#"{"type":"notification_event","topic":"ping"}"#),
    ] {
        let source = Source::of(provider);
        let signed = source.sign(&Payload::of_body(body), at(0));
        let expected = Answer { status: 200, content_type: None, headers: vec![], body: vec![] };
        assert_eq!(answer(&source.verifier(), &signed), expected, "{provider}");
        let mut forged = signed;
        forged.body.push(b'\n');
        assert_eq!(verdict(&source.verifier(), &forged, at(0)), "signature_invalid signature", "{provider}");
    }
    let xero = Source::of("xero");
    let Outcome::Verified(verified) = outcome(&xero.verifier(), &xero.signed_sample(1, at(0))) else { panic!() };
    assert_eq!(verified.answer(), Some(&Answer { status: 200, content_type: None, headers: vec![], body: vec![] }));
    let head = SignedRequest { method: Method::HEAD, ..get("https://x/in", &[]) };
    assert_eq!(answer(&Source::of("trello").verifier(), &head).status, 200);
}

#[test]
fn several_items_of_one_request_share_a_type_only_if_they_agree() {
    let line = |events: &str| {
        let source = Source::of("line");
        let signed = source.sign(&Payload::of_body(format!(r#"{{"events":[{events}]}}"#)), at(0));
        let Outcome::Verified(verified) = outcome(&source.verifier(), &signed) else { panic!() };
        (verified.event_type().to_string(), verified.external_id().map(str::to_owned))
    };
    let one = r#"{"type":"message","webhookEventId":"a"}"#;
    let two = r#"{"type":"follow","webhookEventId":"b"}"#;
    assert_eq!(line(one), ("message".to_owned(), Some("a".to_owned())));
    assert_eq!(line(&format!("{one},{two}")), ("batch".to_owned(), None), "two ids are not one");
}

#[test]
fn mailgun_signs_time_and_token_and_the_token_is_the_id() {
    let source = Source::of("mailgun");
    let verifier = source.verifier();
    let signed = source.signed_sample(1, at(-1_000_000));
    let token = |signed: &SignedRequest| {
        let body: Value = serde_json::from_slice(&signed.body).unwrap();
        body["signature"]["token"].as_str().unwrap().to_owned()
    };
    let Outcome::Verified(verified) = outcome(&verifier, &signed) else { panic!("late is no reason to refuse") };
    assert_eq!(verified.external_id(), Some(token(&signed).as_str()));
    for member in ["timestamp", "token", "signature"] {
        let mut body: Value = serde_json::from_slice(&signed.body).unwrap();
        for wrong in [json!("1767225601"), json!(null), json!("")] {
            body["signature"][member] = wrong;
            let changed = SignedRequest { body: body.to_string().into_bytes(), ..signed.clone() };
            assert!(verdict(&verifier, &changed, at(0)).starts_with("signature_"), "{member}");
        }
    }
    for body in ["", "{}", "[]", "not json", r#"{"signature":"x"}"#] {
        let bare = SignedRequest { body: body.as_bytes().to_vec(), ..signed.clone() };
        assert_eq!(verdict(&verifier, &bare, at(0)), "signature_missing signature_header", "{body}");
    }
    let other = Verifier::compile("mailgun", &Map::new(), &[Secret::from("another")]).unwrap();
    assert_eq!(verdict(&other, &signed, at(0)), "signature_invalid signature");
}

#[test]
fn linear_is_held_to_the_time_inside_the_signed_body() {
    let source = Source::of("linear");
    let verifier = source.verifier();
    for (sent, expected) in [
        (-60, "ok"),
        (60, "ok"),
        (-61, "timestamp_out_of_tolerance timestamp_tolerance"),
        (61, "timestamp_out_of_tolerance timestamp_tolerance"),
    ] {
        assert_eq!(verdict(&verifier, &source.signed_sample(1, at(sent)), at(0)), expected, "{sent}");
    }
    let timeless = source.sign(&Payload::of_body(r#"{"type":"Issue"}"#), at(0));
    assert_eq!(verdict(&verifier, &timeless, at(0)), "signature_missing timestamp_missing");
    let forged = SignedRequest { body: b"{}".to_vec(), ..timeless };
    assert_eq!(verdict(&verifier, &forged, at(0)), "signature_invalid signature", "the body is proved first");
}

#[test]
fn any_of_the_numbered_headers_of_docusign_counts() {
    let source = Source::of("docusign");
    let verifier = source.verifier();
    let mut signed = source.signed_sample(1, at(0));
    let right = signed.headers.remove("x-docusign-signature-1").unwrap();
    for (name, expected) in [("2", "ok"), ("16", "ok"), ("17", "signature_missing signature_header")] {
        let mut moved = signed.clone();
        moved
            .headers
            .insert(HeaderName::from_bytes(format!("x-docusign-signature-{name}").as_bytes()).unwrap(), right.clone());
        assert_eq!(verdict(&verifier, &moved, at(0)), expected, "{name}");
    }
    let mut several = signed.clone();
    several.headers.insert("x-docusign-signature-1", HeaderValue::from_static("AAAA"));
    several.headers.insert("x-docusign-signature-2", right.clone());
    assert_eq!(verdict(&verifier, &several, at(0)), "ok");
    assert!(provider::find("docusign").unwrap().forwards_header("X-DocuSign-Signature-3"));
}

#[test]
fn the_hash_is_the_rows_and_not_the_senders_choice() {
    // Intercom's SHA-1 at Bitbucket's row and the other way round, both in X-Hub-Signature.
    for (one, other) in [("intercom", "bitbucket"), ("bitbucket", "intercom"), ("jira", "intercom")] {
        let signed = Source::of(one).sign(&Payload::of_body("{}"), at(0));
        assert!(
            verdict(&Source::of(other).verifier(), &signed, at(0)).starts_with("signature_invalid"),
            "{one} {other}"
        );
    }
}

#[test]
fn svix_has_two_families_of_header_names_and_clerk_one() {
    let standard = Source::of("standard-webhooks").sign(&Payload::of_body("{}"), at(0));
    let branded = Source::of("svix").sign(&Payload::of_body("{}"), at(0));
    assert!(branded.headers.contains_key("svix-signature"));
    let (svix, clerk) = (Source::of("svix").verifier(), Source::of("clerk").verifier());
    for (verifier, signed, expected) in [
        (&svix, &branded, "ok"),
        (&svix, &standard, "ok"),
        (&clerk, &branded, "ok"),
        (&clerk, &standard, "signature_missing signature_header"),
    ] {
        assert_eq!(verdict(verifier, signed, at(0)), expected);
    }
    // With both families there, the first alone decides: a good second one does not save a forged first.
    let mut both = standard.clone();
    both.headers.insert("svix-signature", HeaderValue::from_static("v1,AAAA"));
    assert_ne!(verdict(&svix, &both, at(0)), "ok");
}

#[test]
fn shopify_may_drop_the_prefix_of_its_headers() {
    let source = Source::of("shopify");
    let mut signed = source.signed_sample(1, at(0));
    let right = signed.headers.remove("x-shopify-hmac-sha256").unwrap();
    signed.headers.insert("shopify-hmac-sha256", right);
    assert_eq!(verdict(&source.verifier(), &signed, at(0)), "ok");
}

#[test]
fn openai_also_takes_a_secret_that_is_plain_text() {
    let plain = Source { secret: Some("not base64 at all"), ..Source::of("openai") };
    assert_eq!(verdict(&plain.verifier(), &plain.signed_sample(1, at(0)), at(0)), "ok");
    assert_ne!(verdict(&Source::of("openai").verifier(), &plain.signed_sample(1, at(0)), at(0)), "ok");
}

#[test]
fn a_token_is_compared_whole_and_in_one_header_only() {
    for (name, header) in [
        ("gitlab-token", "x-gitlab-token"),
        ("telegram", "x-telegram-bot-api-secret-token"),
        ("token", "x-secret-token"),
    ] {
        let source = Source::of(name);
        let verifier = source.verifier();
        let signed = source.signed_sample(1, at(0));
        let secret = source.secret.unwrap();
        let with = |value: &[u8]| {
            let mut changed = signed.clone();
            changed.headers.insert(HeaderName::from_static(header), HeaderValue::from_bytes(value).unwrap());
            verdict(&verifier, &changed, at(0))
        };
        assert_eq!(with(secret.as_bytes()), "ok");
        assert_eq!(with(b""), "signature_missing signature_header");
        for wrong in [&secret.as_bytes()[1..], &secret.as_bytes()[..3], b"\xff", secret.to_uppercase().as_bytes()] {
            assert_eq!(with(wrong), "signature_invalid token", "{name}");
        }
        let mut twice = signed.clone();
        twice.headers.append(HeaderName::from_static(header), HeaderValue::from_static("x"));
        assert_eq!(verdict(&verifier, &twice, at(0)), "signature_invalid signature_header_twice");
        let bare = Verifier::compile(name, &source.options, &[]).unwrap();
        assert_eq!(verdict(&bare, &signed, at(0)), "signature_invalid secret");
        assert!(!verifier.forwards_header(header), "a token stays here");
    }
}

#[test]
fn basic_authentication_is_user_and_password_in_base64() {
    let source = Source::of("basic-auth");
    let verifier = source.verifier();
    let with = |value: &str| verdict(&verifier, &get("https://x/in", &[("authorization", value)]), at(0));
    assert_eq!(with("Basic cG9zdHJvb206Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ=="), "ok");
    assert_eq!(with("basic cG9zdHJvb206Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ=="), "ok");
    assert_eq!(with("Basic cG9zdHJvb206eA=="), "signature_invalid token");
    for misshapen in ["Bearer x", "Basic", "Basic ", "Basic %%%", "Basi"] {
        let told = with(misshapen);
        assert!(
            told == "signature_invalid signature_format" || told == "signature_invalid token",
            "{misshapen} {told}"
        );
    }
}

#[test]
fn an_update_of_telegram_is_named_by_its_one_other_member() {
    let source = Source::of("telegram");
    for (body, kind) in [
        (r#"{"update_id":7,"callback_query":{"id":"1","data":"x"}}"#, "callback_query"),
        (r#"{"update_id":7,"edited_message":{"message_id":3}}"#, "edited_message"),
        (r#"{"update_id":7,"something_new":{"id":3}}"#, "telegram"),
    ] {
        let Outcome::Verified(verified) = outcome(&source.verifier(), &source.sign(&Payload::of_body(body), at(0)))
        else {
            panic!()
        };
        assert_eq!((verified.event_type().as_str(), verified.external_id()), (kind, Some("7")));
    }
}

#[test]
fn a_signed_method_is_the_one_it_was_sent_with() {
    let source = Source::of("hubspot");
    let signed = source.signed_sample(1, at(0));
    assert_eq!(verdict(&source.verifier(), &signed, at(0)), "ok");
    let put = SignedRequest { method: Method::PUT, ..signed };
    assert_eq!(verdict(&source.verifier(), &put, at(0)), "signature_invalid signature");
}
