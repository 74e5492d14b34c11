//! What the tests of verification share.

use http::{HeaderMap, HeaderName, HeaderValue};
use postroom_domain::provider::{Payload, sample};
use postroom_domain::verify::{Outcome, Request, SignedRequest, Verifier, sign};
use postroom_domain::{Secret, Timestamp};
use serde_json::{Map, Value};

/// 2026-01-01T00:00:00Z and so many seconds.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_767_225_600 + seconds)
}

pub const URL: &str = "https://hooks.example.com/in/acme/source?x=1";

/// The options of a source, from a JSON object.
pub fn options(json: Value) -> Map<String, Value> {
    match json {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Whether the provider's secret is that of Standard Webhooks.
fn is_whsec(provider: &str) -> bool {
    ["standard-webhooks", "svix", "clerk", "resend", "openai", "gitlab-signing"].contains(&provider)
}

/// A provider with options and a secret that fit it.
pub struct Source {
    pub provider: &'static str,
    pub options: Map<String, Value>,
    pub secret: Option<&'static str>,
}

impl Source {
    pub fn of(provider: &'static str) -> Self {
        let secret = match provider {
            "none" => None,
            "stripe" => Some("whsec_9f8c6d1b2a3e4f5061728394a5b6c7d8"),
            "adyen-platform" => Some("44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"),
            "postmark-basic-auth" | "basic-auth" => Some("postroom:correct horse battery staple"),
            _ if is_whsec(provider) => Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            _ => Some("It's a Secret to Everybody"),
        };
        let options = match provider {
            "hmac" => options(serde_json::json!({ "signature_header": "X-Signature", "signature_prefix": "sha256=" })),
            "token" => options(serde_json::json!({ "header": "X-Secret-Token" })),
            _ => Map::new(),
        };
        Self { provider, options, secret }
    }

    /// A secret of the same form that is not this source's.
    pub fn other_secret(&self) -> &'static str {
        match self.provider {
            "adyen-platform" => "74F490DD33F7327BAECC88B2947C011FC02D014A473AAA33A8EC93E4DC069174",
            "postmark-basic-auth" | "basic-auth" => "postroom:another password",
            provider if is_whsec(provider) => "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            _ => "another secret altogether",
        }
    }

    pub fn secrets(&self) -> Vec<Secret> {
        self.secret.map(Secret::from).into_iter().collect()
    }

    pub fn verifier(&self) -> Verifier {
        Verifier::compile(self.provider, &self.options, &self.secrets()).unwrap()
    }

    pub fn sign(&self, payload: &Payload, now: Timestamp) -> SignedRequest {
        sign(self.provider, &self.options, self.secrets().first(), payload, URL, now).unwrap()
    }

    pub fn signed_sample(&self, n: u64, now: Timestamp) -> SignedRequest {
        self.sign(&sample(self.provider, None, n, now).unwrap(), now)
    }
}

/// A verdict short enough to stand in a table: `ok`, `handshake`, or code and failing check.
pub fn verdict(verifier: &Verifier, signed: &SignedRequest, now: Timestamp) -> String {
    let request =
        Request { method: signed.method.as_str(), url: &signed.url, headers: &signed.headers, body: &signed.body };
    match verifier.verify(&request, now) {
        Outcome::Verified(_) => "ok".to_owned(),
        Outcome::Handshake(_) => "handshake".to_owned(),
        Outcome::Refused(refusal) => format!("{} {}", refusal.code(), refusal.check()),
    }
}

pub fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    map
}
