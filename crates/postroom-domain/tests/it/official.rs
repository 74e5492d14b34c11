//! Requests signed by others: the values of the providers' documentation and of their libraries' own tests.

use base64::Engine as _;
use postroom_domain::verify::{Outcome, Request, Verifier};
use postroom_domain::{Secret, Timestamp, provider};
use serde_json::{Map, Value};

use crate::support;

#[test]
fn every_official_vector_comes_to_what_its_maker_says() {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("../vectors/official.json")).unwrap();
    assert!(!vectors.is_empty());
    for vector in &vectors {
        let text = |name: &str| vector[name].as_str().unwrap();
        let body = base64::engine::general_purpose::STANDARD.decode(text("body_base64")).unwrap();
        let pairs: Vec<(&str, &str)> =
            vector["headers"].as_object().unwrap().iter().map(|(k, v)| (k.as_str(), v.as_str().unwrap())).collect();
        let headers = support::headers(&pairs);
        let request = Request { method: text("method"), url: text("url"), headers: &headers, body: &body };
        assert!(provider::find(text("provider")).is_some(), "{}", text("id"));
        let secrets = [Secret::from(text("secret"))];
        let verifier = Verifier::compile(text("provider"), &Map::new(), &secrets).unwrap();
        let now = Timestamp::from_seconds(vector["timestamp"].as_i64().unwrap());
        let valid = matches!(verifier.verify(&request, now), Outcome::Verified(_) | Outcome::Handshake(_));
        assert_eq!(if valid { "valid" } else { "invalid" }, text("expected"), "{}: {}", text("id"), text("why"));
    }
}
