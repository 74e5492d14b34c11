//! What verifying a request of 1 KiB costs beyond the keyed hash itself, for every provider of the catalogue that signs with
//! one, and for those that send a token, where there is no hash to take off. Where a public key checks, its
//! arithmetic alone is many times the goal.
//!
//! ```sh
//! cargo bench -p postroom-domain --bench verify
//! ```
//!
//! Both are measured in turn within one run, and the fastest of many rounds counts: what else the machine does then
//! weighs on both alike. The goal is less than 5 microseconds beyond the hash.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use postroom_domain::provider::{self, Payload};
use postroom_domain::verify::{Outcome, Request, Verifier, sign};
use postroom_domain::{Secret, Timestamp};
use serde_json::{Map, Value, json};

const ROUNDS: u32 = 200;
const CALLS: u32 = 200;
const GOAL: Duration = Duration::from_micros(5);

fn main() {
    println!("{:<22}{:>14}{:>14}{:>14}", "provider", "hash", "verify", "beyond");
    let mut above = Vec::new();
    for row in provider::all().iter().filter(|row| matches!(row.scheme_kind(), "hmac" | "token")) {
        let (hash, verify) = measure(row.name);
        let hash = if row.scheme_kind() == "hmac" { hash } else { Duration::ZERO };
        let beyond = verify.saturating_sub(hash);
        println!("{:<22}{:>11} ns{:>11} ns{:>11} ns", row.name, hash.as_nanos(), verify.as_nanos(), beyond.as_nanos());
        if beyond >= GOAL {
            above.push(row.name);
        }
    }
    let above = if above.is_empty() { "none".to_owned() } else { above.join(", ") };
    println!("\n{} us or more beyond the hash: {above}", GOAL.as_micros());
}

/// A call of the bare keyed hash and one of the verifier, each at its fastest.
fn measure(name: &str) -> (Duration, Duration) {
    let secret = Secret::from(secret_of(name));
    let options = match name {
        "hmac" => json!({ "signature_header": "X-Signature" }),
        "token" => json!({ "header": "X-Token" }),
        _ => json!({}),
    };
    let Value::Object(options) = options else { unreachable!("an object") };
    let now = Timestamp::from_seconds(1_767_225_600);
    let verifier = compiled(name, &options, &secret);
    let signed = sign(name, &options, Some(&secret), &payload(name, now), "https://hooks.example.com/in/a/b", now);
    let signed = signed.unwrap_or_else(|errors| panic!("{name}: {errors:?}"));
    let request =
        Request { method: signed.method.as_str(), url: &signed.url, headers: &signed.headers, body: &signed.body };
    assert!(matches!(verifier.verify(&request, now), Outcome::Verified(_)), "{name}");
    let key = hmac::Key::new(algorithm(name), secret.expose());
    let (mut hash, mut verify) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        hash = hash.min(time(|| _ = black_box(hmac::sign(&key, black_box(&signed.body)))));
        verify = verify.min(time(|| _ = black_box(verifier.verify(black_box(&request), now))));
    }
    (hash, verify)
}

fn compiled(name: &str, options: &Map<String, Value>, secret: &Secret) -> Verifier {
    Verifier::compile(name, options, std::slice::from_ref(secret)).unwrap_or_else(|errors| panic!("{name}: {errors:?}"))
}

fn time(mut call: impl FnMut()) -> Duration {
    let began = Instant::now();
    for _ in 0..CALLS {
        call();
    }
    began.elapsed() / CALLS
}

/// 1 KiB, with the members that some providers need.
fn payload(name: &str, now: Timestamp) -> Payload {
    let event = |filler: String| {
        let event = json!({
            "id": "evt_1", "type": "order.paid", "event": "order.paid", "webhookTimestamp": now.as_millis(),
            "filler": filler
        });
        match name {
            "mandrill" => json!([event]).to_string(),
            "adyen" => json!({ "notificationItems": [{ "NotificationRequestItem": event }] }).to_string(),
            "twilio" => format!("MessageSid=SM1&MessageStatus=sent&Body={filler}"),
            _ => event.to_string(),
        }
    };
    let empty = event(String::new()).len();
    Payload::of_body(event("x".repeat(1024 - empty)))
}

fn algorithm(name: &str) -> hmac::Algorithm {
    match name {
        "intercom" | "mandrill" | "trello" | "twilio" | "vercel" => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        _ => hmac::HMAC_SHA256,
    }
}

fn secret_of(name: &str) -> &'static str {
    match name {
        "adyen" | "adyen-platform" => "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
        "basic-auth" | "postmark-basic-auth" => "postroom:an-example-password",
        _ => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    }
}
