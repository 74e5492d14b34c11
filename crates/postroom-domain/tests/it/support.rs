//! What the tests of verification share.

use http::{HeaderMap, HeaderName, HeaderValue};
use postroom_domain::provider::{Payload, sample};
use postroom_domain::verify::{Outcome, PublicSide, Request, SignedRequest, Verifier, public_side, sign};
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

/// Keys of nobody, made for these tests.
pub const RSA_KEY: &str = include_str!("../keys/rsa.pem");
pub const EC_KEY: &str = include_str!("../keys/ec.pem");
pub const ROOT: &str = include_str!("../keys/root.crt");
pub const PAYPAL_CERTIFICATE: &str = include_str!("../keys/paypal.crt");
pub const SNS_CERTIFICATE: &str = include_str!("../keys/sns.crt");
const SEED: &str = "d34ec57c22e0dd9a808da60b53b1fcf414cfa861629c8e68ac114535578e7808";
const WHSK: &str = "whsk_007FfCLg3ZqAjaYLU7H89BTPqGFinI5orBFFNVeOeAhPVj8FdF/uH57WCUjUw1O5HRXRWDc2k9qje6pEX1lbKQ==";

/// The private key with which `sign` plays a provider whose sources hold the public side only.
pub fn private_key(provider: &str) -> Option<&'static str> {
    match provider {
        "discord" => Some(SEED),
        "standard-webhooks-v1a" => Some(WHSK),
        "sendgrid" | "plaid" => Some(EC_KEY),
        "paypal" | "aws-sns" => Some(RSA_KEY),
        _ => None,
    }
}

/// The public key of `EC_KEY`, as Plaid tells its own.
pub fn jwk() -> String {
    match public_side("plaid", &Map::new(), &Secret::from(EC_KEY)).unwrap() {
        Some(PublicSide::Jwk(jwk)) => jwk,
        other => panic!("{other:?}"),
    }
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
            "none" | "paypal" | "aws-sns" | "plaid" => None,
            "discord" => Some("4f563f05745fee1f9ed60948d4c353b91d15d158373693daa37baa445f595b29"),
            "standard-webhooks-v1a" => Some("whpk_T1Y/BXRf7h+e1glI1MNTuR0V0Vg3NpPao3uqRF9ZWyk="),
            "sendgrid" => Some(
                "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEmwkvcKrWfoO9ZchcKitk6nLZo5ugeKpfZKfjoZQegDRYjVCQmOhaXFjnzujNdb4KFc+UNRMtTW9BEKWeIRvl0g==",
            ),
            "stripe" => Some("whsec_9f8c6d1b2a3e4f5061728394a5b6c7d8"),
            "adyen" | "adyen-platform" => Some("44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"),
            "postmark-basic-auth" | "basic-auth" => Some("postroom:correct horse battery staple"),
            _ if is_whsec(provider) => Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            _ => Some("It's a Secret to Everybody"),
        };
        let options = match provider {
            "hmac" => options(serde_json::json!({ "signature_header": "X-Signature", "signature_prefix": "sha256=" })),
            "paypal" => options(serde_json::json!({
                "webhook_id": "4JH86294D6297924G", "cert_pem": PAYPAL_CERTIFICATE, "trust_root_pem": ROOT
            })),
            "aws-sns" => options(serde_json::json!({ "cert_pem": SNS_CERTIFICATE, "trust_root_pem": ROOT })),
            "plaid" => options(serde_json::json!({ "jwk": jwk() })),
            "token" => options(serde_json::json!({ "header": "X-Secret-Token" })),
            _ => Map::new(),
        };
        Self { provider, options, secret }
    }

    /// A secret of the same form that is not this source's.
    pub fn other_secret(&self) -> &'static str {
        match self.provider {
            "discord" => "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "standard-webhooks-v1a" => "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
            "sendgrid" => {
                "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g=="
            }
            "adyen" | "adyen-platform" => "74F490DD33F7327BAECC88B2947C011FC02D014A473AAA33A8EC93E4DC069174",
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
        let secret = private_key(self.provider).or(self.secret).map(Secret::from);
        sign(self.provider, &self.options, secret.as_ref(), payload, URL, now).unwrap()
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
        Outcome::Learned { .. } => "learned".to_owned(),
        Outcome::Confirm(_) => "confirm".to_owned(),
        Outcome::NeedsKey(needed) => format!("needs {}", needed.name),
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
