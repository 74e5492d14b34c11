//! From a provider's library to a provider's library: one signs, a running server receives and delivers, and one verifies
//! what arrived at the endpoint; that of Standard Webhooks verifies the server's own signature on it.

mod mail;

use std::time::{SystemTime, UNIX_EPOCH};

use postroom_domain::provider::{self, sample};
use postroom_domain::verify::{PublicSide, public_side};
use postroom_domain::{Secret, Timestamp};
use postroom_testkit::sdks::{self, Webhook};
use serde_json::{Map, Value, json};

use super::support::{Arrived, Engine, Receiver, Server, Tenant, request};

/// What their libraries need does not arrive: these use the headers of our own attempts, where ours stand then, and the
/// tokens of the others are for this server alone.
const OURS_ALONE: [&str; 5] = ["standard-webhooks", "openai", "gitlab-signing", "monday", "jwt"];

/// Keys of nobody, made for tests.
const EC_KEY: &str = include_str!("../../../postroom-domain/tests/keys/ec.pem");
const RSA_KEY: &str = include_str!("../../../postroom-domain/tests/keys/rsa.pem");
const SNS_CERTIFICATE: &str = include_str!("../../../postroom-domain/tests/keys/sns.crt");
const PAYPAL_CERTIFICATE: &str = include_str!("../../../postroom-domain/tests/keys/paypal.crt");
const ROOT: &str = include_str!("../../../postroom-domain/tests/keys/root.crt");

/// Where providers that sign the URL were told to send.
const PUBLIC_URL: &str = "https://hooks.example.com/from/provider?x=1";

/// Headers that a library wants besides those that are signed.
const SHOPIFY: [(&str, &str); 4] = [
    ("x-shopify-topic", "orders/create"),
    ("x-shopify-shop-domain", "postroom.myshopify.com"),
    ("x-shopify-api-version", "2026-01"),
    ("x-shopify-webhook-id", "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043"),
];

#[expect(clippy::disallowed_methods, reason = "the server under test reads the same clock")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_millis(since.as_millis().try_into().unwrap())
}

fn secret(provider: &str) -> Option<&'static str> {
    match provider {
        "adyen" | "adyen-platform" => Some("44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"),
        "discord" => Some("4f563f05745fee1f9ed60948d4c353b91d15d158373693daa37baa445f595b29"),
        "sendgrid" => Some(
            "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEmwkvcKrWfoO9ZchcKitk6nLZo5ugeKpfZKfjoZQegDRYjVCQmOhaXFjnzujNdb4KFc+UNRMtTW9BEKWeIRvl0g==",
        ),
        "aws-sns" | "paypal" | "plaid" => None,
        _ => Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    }
}

/// What its sender signs with, where the source has the public side of it alone.
fn private(provider: &str) -> &'static str {
    match provider {
        "discord" => "d34ec57c22e0dd9a808da60b53b1fcf414cfa861629c8e68ac114535578e7808",
        "sendgrid" | "plaid" => EC_KEY,
        "aws-sns" | "paypal" => RSA_KEY,
        _ => "",
    }
}

fn options(name: &str) -> Value {
    let mut options = json!({});
    let row = provider::find(name).expect("a provider");
    if name == "aws-sns" {
        options = json!({ "cert_pem": SNS_CERTIFICATE, "trust_root_pem": ROOT });
    }
    if name == "paypal" {
        options = json!({ "webhook_id": "4JH86294D6297924G", "cert_pem": PAYPAL_CERTIFICATE, "trust_root_pem": ROOT });
    }
    if name == "plaid" {
        let public = public_side("plaid", &Map::new(), &Secret::from(EC_KEY)).expect("a key");
        let Some(PublicSide::Jwk(jwk)) = public else { panic!("{public:?}") };
        options = json!({ "jwk": jwk });
    }
    if row.signs_url() {
        options["public_url"] = PUBLIC_URL.into();
    }
    if row.default_tolerance().is_some() {
        // A slow machine is no matter of this test.
        options["tolerance_seconds"] = 3600.into();
    }
    options
}

/// A sample of the provider, signed by its library.
fn signed(name: &str) -> Webhook {
    let now = now();
    let payload = sample(name, None, 1, now).expect("a sample");
    let mut headers = vec![("content-type".to_owned(), payload.content_type)];
    if name == "shopify" {
        headers.extend(SHOPIFY.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    let unsigned = Webhook {
        provider: name.to_owned(),
        secret: secret(name).unwrap_or_default().to_owned(),
        private: private(name).to_owned(),
        options: options(name),
        method: "POST".to_owned(),
        url: PUBLIC_URL.to_owned(),
        headers,
        body: payload.body,
        now: now.as_millis(),
    };
    sdks::sign(&unsigned).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What arrived, as the provider's library sees it at the moment of sending.
fn as_arrived(sent: &Webhook, arrived: &Arrived) -> Webhook {
    let headers = arrived.head.lines().filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Webhook { headers, body: arrived.body.clone(), ..sent.clone() }
}

fn source(tenant: &Tenant, name: &str) {
    let mut asked = json!({ "provider": name, "options": options(name) });
    if let Some(secret) = secret(name) {
        asked["secret"] = secret.into();
    }
    let (status, made) = tenant.post("/v1/sources", &asked);
    assert_eq!(status, 201, "{made}");
}

fn own_secret(tenant: &Tenant) -> String {
    let endpoint = tenant.get("/v1/endpoints")["data"][0]["id"].as_str().expect("an endpoint").to_owned();
    tenant.get(&format!("/v1/endpoints/{endpoint}/secret"))["secret"].as_str().expect("a secret").to_owned()
}

#[test]
fn what_a_library_signs_arrives_so_that_a_library_verifies_it_there_again() {
    let receiver = Receiver::answering(&[200]);
    let server = Server::start(Engine::Embedded);
    let tenant = server.tenant("Acme", Some(&receiver.url()));
    let own_secret = own_secret(&tenant);
    let known = |name: &String| provider::find(name).is_some() && sdks::verified_by(name).is_some();
    let names: Vec<String> = sdks::providers().into_iter().filter(known).collect();
    for name in ["stripe", "github", "shopify", "slack", "twilio", "svix", "standard-webhooks", "workos"] {
        assert!(names.iter().any(|known| known == name), "{name}");
    }
    for name in &names {
        source(&tenant, name);
        let sent = signed(name);
        let url = format!("{}/in/acme/{name}", server.url);
        let (status, _, answer) = request("POST", &url, &sent.headers, &sent.body);
        // Discord wants 204.
        assert_eq!(status / 100, 2, "{name}: {}", String::from_utf8_lossy(&answer));

        let arrived = receiver.next();
        assert_eq!(arrived.body, sent.body, "{name}");
        let again = as_arrived(&sent, &arrived);
        if !OURS_ALONE.contains(&name.as_str()) {
            assert_eq!(sdks::verify(&again), Ok(()), "{name}");
        }
        let own = Webhook {
            provider: "standard-webhooks".to_owned(),
            secret: own_secret.clone(),
            now: now().as_millis(),
            ..again
        };
        assert_eq!(sdks::verify(&own), Ok(()), "our own signature on what {name} sent");
        assert!(sdks::verify(&Webhook { body: b"{}".to_vec(), ..own }).is_err());
        let event: Value = serde_json::from_slice(&answer).unwrap_or_default();
        assert!(event["id"].is_null() || arrived.header("webhook-id") == event["id"].as_str().unwrap(), "{name}");
    }
    assert!(receiver.is_quiet());
}
