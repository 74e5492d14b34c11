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

/// Every cause that can be proved, or is likeliest: what went wrong, and what its owner reads first.
#[test]
fn each_cause_is_told_in_words_that_say_what_to_do() {
    let stripe = || Source::of("stripe");
    let github = || Source::of("github");
    let payload = |body: &str| Payload::of_body(body);
    let body = r#"{"id":"evt_1","type":"a","list":[1,{}],"text":"café x/y"}"#;
    let value: serde_json::Value = serde_json::from_str(body).unwrap();
    let pretty = serde_json::to_string_pretty(&value).unwrap();
    let php = r#"{"text":"caf\u00e9 x\/y"}"#;
    let with = |signed: SignedRequest, body: &str| SignedRequest { body: body.as_bytes().to_vec(), ..signed };
    let without = |mut signed: SignedRequest, name: &str| {
        signed.headers.remove(name);
        signed
    };
    let quoted = Verifier::compile("github", &Map::new(), &[Secret::from("\"It's a Secret to Everybody\"")]).unwrap();
    let bare = Verifier::compile("stripe", &Map::new(), &[]).unwrap();
    let custom = |more: serde_json::Value| {
        let mut all = options(serde_json::json!({ "signature_header": "x-signature" }));
        all.extend(options(more));
        (all.clone(), Verifier::compile("hmac", &all, &[Secret::from("c2VjcmV0IGtleSBvZiBvdXJz")]).unwrap())
    };
    let sent_by = |more: serde_json::Value| {
        let (options, _) = custom(more);
        sign("hmac", &options, Some(&Secret::from("c2VjcmV0IGtleSBvZiBvdXJz")), &payload(body), URL, at(0)).unwrap()
    };
    let timed = |unit: &str| serde_json::json!({ "timestamp_header": "x-time", "signed_content": "{timestamp}.{body}", "timestamp_unit": unit });
    // A sender whose secret ends in a line end, as `echo secret | tool` makes it: no secret like this compiles here.
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"It's a Secret to Everybody\n");
    let mut line_end = github().sign(&payload(body), at(0));
    let right = format!("sha256={}", hex::encode(aws_lc_rs::hmac::sign(&key, body.as_bytes())));
    line_end.headers.insert("x-hub-signature-256", HeaderValue::from_str(&right).unwrap());
    let cases: Vec<(&str, Verifier, SignedRequest, &str)> = vec![
        ("no secret", bare, stripe().signed_sample(1, at(0)), "give the source its secret"),
        ("another secret", stripe().verifier(), signed_with("stripe", "whsec_other"), "of test mode instead of live"),
        (
            "base64 taken as text",
            custom(serde_json::json!({})).1,
            sent_by(serde_json::json!({ "secret_encoding": "base64" })),
            "the sender uses the secret decoded as base64 as key, set secret_encoding",
        ),
        (
            "text taken as base64",
            custom(serde_json::json!({ "secret_encoding": "base64" })).1,
            sent_by(serde_json::json!({})),
            "the sender uses the secret's text as it is as key, set secret_encoding",
        ),
        ("quotation marks", quoted, github().signed_sample(1, at(0)), "but for the quotation marks around it"),
        ("a line end in the secret", github().verifier(), line_end, "has a line end behind it"),
        (
            "laid out again",
            stripe().verifier(),
            with(stripe().sign(&payload(&pretty), at(0)), &value.to_string()),
            "its white space was taken out",
        ),
        (
            "escapes",
            github().verifier(),
            with(github().sign(&payload(php), at(0)), "{\"text\":\"café x/y\"}"),
            "its escapes",
        ),
        (
            "byte order mark",
            github().verifier(),
            with(github().sign(&payload(body), at(0)), &format!("\u{feff}{body}")),
            "byte order",
        ),
        ("empty", github().verifier(), with(github().sign(&payload(body), at(0)), ""), "of another endpoint"),
        ("old", stripe().verifier(), stripe().signed_sample(1, at(-4000)), "held up for 4000 s"),
        (
            "ahead",
            Source::of("slack").verifier(),
            Source::of("slack").signed_sample(1, at(900)),
            "a clock is off by 900 s",
        ),
        ("milliseconds", custom(timed("seconds")).1, sent_by(timed("milliseconds")), "its time in milliseconds"),
        ("seconds", custom(timed("milliseconds")).1, sent_by(timed("seconds")), "its time in seconds"),
        (
            "not signed",
            github().verifier(),
            without(github().signed_sample(1, at(0)), "x-hub-signature-256"),
            "the webhook has no secret there yet",
        ),
        (
            "dropped",
            stripe().verifier(),
            without(stripe().signed_sample(1, at(0)), "stripe-signature"),
            "dropped the header",
        ),
        (
            "another hash",
            custom(serde_json::json!({})).1,
            sent_by(serde_json::json!({ "algorithm": "sha512" })),
            "set algorithm and signature_encoding",
        ),
    ];
    for (what, verifier, signed, expected) in cases {
        let told = explain(&verifier, &signed);
        assert_eq!(told.verdict, Verdict::Invalid, "{what}");
        assert!(told.likely_causes[0].contains(expected), "{what}: {:?}", told.likely_causes);
    }
}

#[test]
fn the_address_of_a_proxy_is_found_out_by_the_host_that_the_request_names() {
    let source = Source::of("mandrill");
    let payload = sample("mandrill", None, 1, at(0)).unwrap();
    let at_proxy = "https://edge.example.net/in/acme/source?x=1";
    let mut signed = sign("mandrill", &Map::new(), source.secrets().first(), &payload, at_proxy, at(0)).unwrap();
    signed.headers.insert("x-forwarded-host", HeaderValue::from_static("edge.example.net"));
    let told = cause(&source.verifier(), &SignedRequest { url: URL.to_owned(), ..signed });
    assert_eq!(told, format!("the provider signs another spelling of the URL; set public_url to {at_proxy}"));
}

#[test]
fn a_token_that_is_nearly_right_is_told_how_it_differs() {
    let plain =
        Verifier::compile("token", &options(serde_json::json!({ "header": "x-token" })), &[Secret::from("abcdef12")]);
    let plain = plain.unwrap();
    let basic = Verifier::compile("basic-auth", &Map::new(), &[Secret::from("postroom:right")]).unwrap();
    // postroom:wrong and someone:right
    let (wrong_password, wrong_user) = ("Basic cG9zdHJvb206d3Jvbmc=", "Basic c29tZW9uZTpyaWdodA==");
    for (verifier, header, value, expected) in [
        (&plain, "x-token", "Bearer abcdef12", "but for \"Bearer \" in front of it"),
        (&plain, "x-token", "\"abcdef12\"", "but for the quotation marks"),
        (&plain, "x-token", "another", "the secret is another one"),
        (&basic, "authorization", wrong_password, "the user name is right and the password another one"),
        (&basic, "authorization", wrong_user, "the user name is another one than here"),
    ] {
        let headers = crate::support::headers(&[(header, value)]);
        let told = verifier.explain(&Request { method: "POST", url: URL, headers: &headers, body: b"{}" }, at(0));
        assert!(told.likely_causes[0].contains(expected), "{value}: {:?}", told.likely_causes);
        assert!(!format!("{told:?}").contains("someone") && !format!("{told:?}").contains("abcdef12"), "{told:?}");
    }
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
