//! What holds for every provider of the catalogue.

use postroom_domain::provider::{self, Payload, sample, sample_kinds};
use postroom_domain::verify::{Outcome, Request, Verdict};
use serde_json::Value;

use crate::support::{Source, at, verdict};

#[test]
fn every_sample_that_we_sign_verifies_and_names_its_type() {
    for row in provider::all() {
        let source = Source::of(row.name);
        let verifier = source.verifier();
        assert!(sample_kinds(row.name).next().is_some(), "{} has samples", row.name);
        for kind in sample_kinds(row.name) {
            let signed = source.sign(&sample(row.name, Some(kind), 7, at(0)).unwrap(), at(0));
            let request = Request {
                method: signed.method.as_str(),
                url: &signed.url,
                headers: &signed.headers,
                body: &signed.body,
            };
            match verifier.verify(&request, at(0)) {
                Outcome::Verified(verified) => assert_eq!(verified.event_type().as_str(), kind, "{}", row.name),
                Outcome::Handshake(answer) => {
                    assert!(
                        ["ping", "url_verification", "endpoint.url_validation"].contains(&kind) && answer.status == 200,
                        "{} {kind}",
                        row.name
                    );
                }
                other => panic!("{} {kind}: {other:?}", row.name),
            }
            let told = verifier.explain(&request, at(0));
            assert_ne!(told.verdict, Verdict::Invalid);
            assert!(told.checks.iter().all(|step| step.passed));
        }
    }
}
#[test]
fn two_samples_are_two_events() {
    for row in provider::all() {
        let [one, two] = [1, 2].map(|n| sample(row.name, None, n, at(0)).unwrap());
        assert_ne!(one.body, two.body, "{}", row.name);
        assert!(
            ["mandrill", "twilio"].contains(&row.name) || serde_json::from_slice::<Value>(&one.body).is_ok(),
            "{}",
            row.name
        );
    }
}

#[test]
fn a_body_that_is_not_json_or_empty_verifies_too() {
    for row in provider::all().iter().filter(|row| !["adyen", "mandrill", "mailgun", "linear"].contains(&row.name)) {
        let source = Source::of(row.name);
        for body in ["", "{", "not json \u{1f4e6}", "a=1&b=2", "\u{feff}{}", "[]", "null"] {
            let signed = source.sign(&Payload::of_body(body), at(0));
            assert_eq!(verdict(&source.verifier(), &signed, at(0)), "ok", "{} {body:?}", row.name);
        }
    }
}
