//! What every keyed-hash scheme of the catalogue refuses, and with which code.

use http::{HeaderName, HeaderValue};
use postroom_domain::Secret;
use postroom_domain::provider::{self, Payload, Provider, SecretForm, sample};
use postroom_domain::verify::{SignedRequest, Verifier, sign};

use crate::support::{Source, URL, at, verdict};

/// All whose signature stands in a header and covers the bytes of the body; the others have tests of their own.
fn hmac_providers() -> impl Iterator<Item = &'static Provider> {
    let special = |row: &&Provider| ["adyen", "mailgun", "twilio"].contains(&row.name);
    provider::all().iter().filter(move |row| ["hmac", "public_key"].contains(&row.scheme_kind()) && !special(row))
}

/// The signature header of a signed request.
fn signature_header(row: &Provider) -> HeaderName {
    let names = row.describe().signature_headers;
    let name = names.first().copied().unwrap_or("x-signature").to_ascii_lowercase();
    HeaderName::from_bytes(name.as_bytes()).unwrap()
}

fn changed(signed: &SignedRequest, name: &HeaderName, value: &[u8]) -> SignedRequest {
    let mut changed = signed.clone();
    changed.headers.insert(name.clone(), HeaderValue::from_bytes(value).unwrap());
    changed
}

#[test]
fn another_secret_and_a_changed_body_are_signature_invalid() {
    for row in hmac_providers() {
        let source = Source::of(row.name);
        let signed = source.signed_sample(1, at(0));
        assert_eq!(verdict(&source.verifier(), &signed, at(0)), "ok", "{}", row.name);
        let other = Verifier::compile(row.name, &source.options, &[Secret::from(source.other_secret())]).unwrap();
        assert_eq!(verdict(&other, &signed, at(0)), "signature_invalid signature", "{}", row.name);
        let mut tampered = signed.clone();
        tampered.body.push(b' ');
        assert_eq!(verdict(&source.verifier(), &tampered, at(0)), "signature_invalid signature", "{}", row.name);
    }
}

#[test]
fn a_signature_that_is_missing_empty_doubled_or_misshapen_is_refused() {
    for row in hmac_providers() {
        let source = Source::of(row.name);
        let verifier = source.verifier();
        let signed = source.signed_sample(1, at(0));
        let name = signature_header(row);
        let right = signed.headers[&name].as_bytes().to_vec();

        let mut missing = signed.clone();
        missing.headers.remove(&name);
        assert_eq!(verdict(&verifier, &missing, at(0)), "signature_missing signature_header", "{}", row.name);
        let empty = changed(&signed, &name, b"");
        assert_eq!(verdict(&verifier, &empty, at(0)), "signature_missing signature_header", "{}", row.name);
        let mut doubled = signed.clone();
        doubled.headers.append(name.clone(), HeaderValue::from_bytes(&right).unwrap());
        assert_eq!(verdict(&verifier, &doubled, at(0)), "signature_invalid signature_header_twice", "{}", row.name);

        let cut = &right[..right.len() - 1];
        let longer = [&right, b"0".as_slice()].concat();
        let upper = right.to_ascii_uppercase();
        for shape in [cut, &longer, &upper, b"nonsense", b"=", b",", b"t=,v1=", b"v1,", b"sha256=", b"\xff\xfe"] {
            let told = verdict(&verifier, &changed(&signed, &name, shape), at(0));
            assert!(
                [
                    "signature_invalid signature_format",
                    "signature_invalid signature",
                    "signature_missing timestamp_missing"
                ]
                .contains(&told.as_str()),
                "{} {:?}: {told}",
                row.name,
                shape.escape_ascii().to_string()
            );
        }
    }
}

#[test]
fn any_active_secret_is_enough_and_none_refuses_everything() {
    for row in hmac_providers() {
        let source = Source::of(row.name);
        let signed = source.signed_sample(1, at(0));
        let (old, new) = (Secret::from(source.secret.unwrap()), Secret::from(source.other_secret()));
        let rotating = Verifier::compile(row.name, &source.options, &[new, old]).unwrap();
        assert_eq!(verdict(&rotating, &signed, at(0)), "ok", "{}", row.name);
        let bare = Verifier::compile(row.name, &source.options, &[]).unwrap();
        assert_eq!(verdict(&bare, &signed, at(0)), "signature_invalid secret", "{}", row.name);
    }
}

#[test]
fn an_empty_key_signs_nothing_that_verifies() {
    for row in hmac_providers() {
        let source = Source::of(row.name);
        for nothing in ["", " ", "\n", "whsec_"] {
            let error = Verifier::compile(row.name, &source.options, &[Secret::from(nothing)]);
            let text = provider::find(row.name).unwrap().secret_form() == SecretForm::Text;
            if nothing == "whsec_" && text {
                continue; // A text like any other where the secret is text.
            }
            assert_eq!(error.unwrap_err()[0].field, "secret", "{} {nothing:?}", row.name);
        }
    }
}

#[test]
fn one_sources_signature_is_worth_nothing_at_another() {
    for (one, other) in [("github", "hmac"), ("stripe", "workos"), ("slack", "stripe")] {
        let signed = Source::of(one).signed_sample(1, at(0));
        assert_ne!(verdict(&Source::of(other).verifier(), &signed, at(0)), "ok", "{one} at {other}");
    }
}

#[test]
fn a_signed_time_is_held_to_the_providers_tolerance() {
    // Seconds by which the request is sent before (-) or after (+) our clock, and whether it still passes.
    for (name, sent, passes) in [
        ("stripe", -300, true),
        ("stripe", -301, false),
        ("stripe", 3600, true),
        ("slack", -300, true),
        ("slack", -301, false),
        ("slack", 300, true),
        ("slack", 301, false),
        ("standard-webhooks", -300, true),
        ("standard-webhooks", -301, false),
        ("standard-webhooks", 300, true),
        ("standard-webhooks", 301, false),
        ("workos", -180, true),
        ("workos", -181, false),
        ("workos", 180, true),
        ("workos", 181, false),
    ] {
        let source = Source::of(name);
        let signed = source.signed_sample(1, at(sent));
        let expected = if passes { "ok" } else { "timestamp_out_of_tolerance timestamp_tolerance" };
        assert_eq!(verdict(&source.verifier(), &signed, at(0)), expected, "{name} {sent}");
    }
}

#[test]
fn a_source_can_have_a_tolerance_of_its_own() {
    for row in hmac_providers().filter(|row| row.default_tolerance().is_some()) {
        let mut source = Source::of(row.name);
        source.options.insert("tolerance_seconds".to_owned(), 600.into());
        let verifier = source.verifier();
        assert_eq!(verdict(&verifier, &source.signed_sample(1, at(-600)), at(0)), "ok", "{}", row.name);
        let late = verdict(&verifier, &source.signed_sample(1, at(-601)), at(0));
        assert_eq!(late, "timestamp_out_of_tolerance timestamp_tolerance", "{}", row.name);
    }
}

#[test]
fn a_time_that_is_not_plain_digits_is_refused() {
    for (name, header) in [("slack", "x-slack-request-timestamp"), ("standard-webhooks", "webhook-timestamp")] {
        let source = Source::of(name);
        let signed = source.signed_sample(1, at(0));
        let header = HeaderName::from_static(header);
        for time in
            ["-1767225600", "+1767225600", "1767225600.0", "1.7e9", "0x6955", " 1767225600", "9".repeat(30).as_str()]
        {
            let told = verdict(&source.verifier(), &changed(&signed, &header, time.as_bytes()), at(0));
            assert_eq!(told, "signature_invalid timestamp_format", "{name} {time}");
        }
        let told = verdict(&source.verifier(), &changed(&signed, &header, b""), at(0));
        assert_eq!(told, "signature_missing timestamp_missing");
        let mut doubled = signed.clone();
        doubled.headers.append(header.clone(), HeaderValue::from_static("1767225600"));
        assert_eq!(verdict(&source.verifier(), &doubled, at(0)), "signature_missing timestamp_missing");
    }
    for (name, header) in [("stripe", "stripe-signature"), ("workos", "workos-signature")] {
        let source = Source::of(name);
        let signed = source.signed_sample(1, at(0));
        let header = HeaderName::from_static(header);
        let right = signed.headers[&header].to_str().unwrap().to_owned();
        for bad in [right.replacen("t=", "t=-", 1), right.replacen("t=", "t= ", 1), format!("t=1,{right}")] {
            let told = verdict(&source.verifier(), &changed(&signed, &header, bad.as_bytes()), at(0));
            assert_eq!(told, "signature_invalid timestamp_format", "{name} {bad}");
        }
        let bare = right.split("v1=").nth(1).unwrap();
        let told = verdict(&source.verifier(), &changed(&signed, &header, format!("v1={bare}").as_bytes()), at(0));
        assert_eq!(told, "signature_missing timestamp_missing", "{name}");
    }
}

#[test]
fn one_good_signature_among_several_is_enough_and_only_under_its_own_label() {
    // {0} is the right signature; the header is built around it.
    for (name, header, build, passes) in [
        ("stripe", "stripe-signature", "t=1767225600,v1=00,v1={0}", true),
        ("stripe", "stripe-signature", "t=1767225600,v0={0},v1={0}", true),
        ("stripe", "stripe-signature", "v1={0},scheme=x,t=1767225600", true),
        ("stripe", "stripe-signature", "t=1767225600,v0={0}", false),
        ("stripe", "stripe-signature", "t=1767225600,V1={0}", false),
        ("stripe", "stripe-signature", "t=1767225600, v1={0}", false),
        ("stripe", "stripe-signature", "t=1767225600;v1={0}", false),
        ("workos", "workos-signature", "t=1767225600000,v1={0}", true),
        ("workos", "workos-signature", "t=1767225600000, v1={0}", true),
        ("workos", "workos-signature", "t=1767225600000, v2={0}", false),
        ("standard-webhooks", "webhook-signature", "v1,AAAA v1,{0}", true),
        ("standard-webhooks", "webhook-signature", "v1a,{0} v1,{0} v2,x", true),
        ("standard-webhooks", "webhook-signature", "v1a,{0}", false),
        ("standard-webhooks", "webhook-signature", "v2,{0}", false),
        ("standard-webhooks", "webhook-signature", "{0}", false),
        ("standard-webhooks", "webhook-signature", "v1,{0},v1,{0}", false),
        ("slack", "x-slack-signature", "v0={0}", true),
        ("slack", "x-slack-signature", "v1={0}", false),
        ("slack", "x-slack-signature", "v0={0},v0={0}", false),
        ("github", "x-hub-signature-256", "sha1={0}", false),
        ("github", "x-hub-signature-256", "{0}", false),
        ("shopify", "x-shopify-hmac-sha256", "sha256={0}", false),
    ] {
        let source = Source::of(name);
        let signed = source.signed_sample(1, at(0));
        let header = HeaderName::from_static(header);
        let right = signed.headers[&header].to_str().unwrap();
        let right = right.rsplit_once("v1=").map_or(right, |(_, signature)| signature);
        let right = right.strip_prefix("v1,").unwrap_or(right);
        let right = right.strip_prefix("v0=").or(right.strip_prefix("sha256=")).unwrap_or(right);
        let told =
            verdict(&source.verifier(), &changed(&signed, &header, build.replace("{0}", right).as_bytes()), at(0));
        assert_eq!(told == "ok", passes, "{name} {build}: {told}");
    }
}

#[test]
fn at_most_sixteen_signatures_are_compared() {
    let source = Source::of("stripe");
    let signed = source.signed_sample(1, at(0));
    let header = HeaderName::from_static("stripe-signature");
    let right = signed.headers[&header].to_str().unwrap().rsplit_once("v1=").unwrap().1.to_owned();
    let wrong = format!("v1={},", "0".repeat(64));
    for (before, expected) in [(15, "ok"), (16, "signature_invalid signature"), (1000, "signature_invalid signature")] {
        let value = format!("t=1767225600,{}v1={right}", wrong.repeat(before));
        assert_eq!(
            verdict(&source.verifier(), &changed(&signed, &header, value.as_bytes()), at(0)),
            expected,
            "{before}"
        );
    }
}

#[test]
fn raw_bytes_are_what_is_signed() {
    // Each of these would come out differently after a trip through a JSON library or a text editor.
    let bodies: [&[u8]; 7] = [
        b"{\"a\":1,  \"a\":2}",
        b"{\"n\":1e2,\"big\":123456789012345678901234567890}",
        b"{\"t\":\"\\u00e9 \\/ \xc3\xa9\"}\r\n",
        b"\xef\xbb\xbf{}",
        b"{\"lone\":\"\\ud800\"}",
        b"\x00\xff\xfe\x80",
        "{\"box\":\"\u{1f4e6}\",\"rtl\":\"\u{202e}\"}".as_bytes(),
    ];
    for row in hmac_providers().filter(|row| !["mandrill", "linear"].contains(&row.name)) {
        let source = Source::of(row.name);
        for body in bodies {
            let signed = source.sign(&Payload::of_body(body), at(0));
            assert_eq!(signed.body, body);
            assert_eq!(verdict(&source.verifier(), &signed, at(0)), "ok", "{}", row.name);
        }
    }
}

#[test]
fn a_signed_url_is_the_configured_one() {
    for row in hmac_providers().filter(|row| row.signs_url()) {
        let source = Source::of(row.name);
        let signed = source.signed_sample(1, at(0));
        for other in ["https://hooks.example.com/in/acme/source", "http://hooks.example.com/in/acme/source?x=1", ""] {
            let moved = SignedRequest { url: other.to_owned(), ..signed.clone() };
            assert_eq!(
                verdict(&source.verifier(), &moved, at(0)),
                "signature_invalid signature",
                "{} {other}",
                row.name
            );
        }
        let mut options = source.options.clone();
        options.insert("public_url".to_owned(), "https://user:pass@public.example/x/?y=%20".into());
        let payload = sample(row.name, None, 1, at(0)).unwrap();
        let secret = Secret::from(source.secret.unwrap());
        let elsewhere = sign(row.name, &options, Some(&secret), &payload, URL, at(0)).unwrap();
        let verifier = Verifier::compile(row.name, &options, &[secret]).unwrap();
        assert_eq!(verdict(&verifier, &elsewhere, at(0)), "ok", "{}", row.name);
        assert_ne!(verdict(&source.verifier(), &elsewhere, at(0)), "ok", "{}", row.name);
    }
}
