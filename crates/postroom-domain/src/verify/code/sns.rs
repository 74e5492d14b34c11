//! Amazon SNS: a signature inside the JSON body, by a certificate that the body names, over a list of its fields.
//!
//! Any customer of AWS can have SNS sign a message of theirs, so the option `topic_arn` says whose messages these are.

use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA256, RsaParameters, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::super::certificate::Trust;
use super::super::check;
use super::super::fetch::{self, KeyRequest, Stop};
use super::super::json::Paths;
use super::super::sign::{fresh_uuid, rsa_signature};
use super::super::trace::{Trace, show};
use super::{Given, Incoming, Signer, certified_key, missing, refused, trust};
use crate::provider::{FieldError, Options};

const NOTIFICATION: &[&str] = &["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"];
const CONFIRMATION: &[&str] = &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"];

const SAMPLE_CERT_URL: &str = "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-postroom-sample.pem";
const SAMPLE_TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:postroom-sample";

/// A source's options.
#[derive(Debug)]
pub(in crate::verify) struct Check {
    topic_arn: Option<String>,
    cert_url: Option<String>,
    given: Given,
    trust: Trust,
}

/// The fields of one message.
struct Message {
    paths: Paths,
    values: Vec<Option<String>>,
}

impl Message {
    fn read(body: &[u8]) -> Self {
        let mut paths = Paths::default();
        for name in NOTIFICATION.iter().chain(CONFIRMATION).chain(&["Signature", "SignatureVersion", "SigningCertURL"])
        {
            paths.add(name);
        }
        let values = paths.read(body);
        Self { paths, values }
    }

    fn get(&mut self, name: &str) -> Option<&str> {
        let slot = self.paths.add(name);
        self.values.get(slot)?.as_deref()
    }

    /// What is signed of it; `None` if a field is missing.
    fn signed(&mut self) -> Option<String> {
        let fields = match self.get("Type")? {
            "Notification" => NOTIFICATION,
            "SubscriptionConfirmation" | "UnsubscribeConfirmation" => CONFIRMATION,
            _ => return None,
        };
        let mut text = String::new();
        for name in fields {
            match self.get(name) {
                Some(value) => text.push_str(&format!("{name}\n{value}\n")),
                None if *name == "Subject" => {}
                None => return None,
            }
        }
        Some(text)
    }
}

impl Check {
    pub fn compile(options: &Options<'_>) -> Result<Self, FieldError> {
        // A given certificate is believed as it is: SNS promises nothing about its names.
        let (given, trust) = trust(options, is_name, false)?;
        let cert_url = options.text("cert_url").map(str::to_owned);
        if cert_url.as_ref().is_some_and(|url| fetch::on_host(url, fetch::is_sns).is_none()) {
            let detail = "https and a host of SNS: sns.<region>.amazonaws.com";
            return Err(FieldError::new("cert_url", "invalid_url", detail));
        }
        Ok(Self { topic_arn: options.text("topic_arn").map(str::to_owned), cert_url, given, trust })
    }

    pub fn run<T: Trace>(&self, incoming: &Incoming<'_>, trace: &mut T) -> Result<(), Stop> {
        let mut message = Message::read(incoming.request.body);
        let Some(text) = message.get("Signature").filter(|text| !text.is_empty()) else {
            let why = "the body has no Signature; raw message delivery is not signed and must be off";
            return Err(missing(check::SIGNATURE_HEADER, why, trace).into());
        };
        let Ok(signature) = STANDARD.decode(text) else {
            return Err(refused(check::SIGNATURE_FORMAT, "the Signature is not base64", trace).into());
        };
        let algorithm: &'static RsaParameters = match message.get("SignatureVersion") {
            Some("1") => &RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
            Some("2") => &RSA_PKCS1_2048_8192_SHA256,
            _ => {
                return Err(refused(check::SIGNATURE_FORMAT, "the SignatureVersion is neither 1 nor 2", trace).into());
            }
        };
        let Some(signed) = message.signed() else {
            let why = "the body is no notification or confirmation with all its fields";
            return Err(missing(check::SIGNED_PART, why, trace).into());
        };
        let url = message.get("SigningCertURL").unwrap_or_default().to_owned();
        let key = self.key(&url, incoming, trace)?;
        if UnparsedPublicKey::new(algorithm, key).verify(signed.as_bytes(), &signature).is_err() {
            return Err(refused(check::SIGNATURE, "the Signature is not over these fields", trace).into());
        }
        trace.passed(check::SIGNATURE, || "matches".to_owned());
        match &self.topic_arn {
            Some(topic) if message.get("TopicArn") != Some(topic) => {
                Err(refused(check::TOPIC, "the message is signed, but of another topic than topic_arn", trace).into())
            }
            _ => Ok(()),
        }
    }

    fn key<T: Trace>(&self, url: &str, incoming: &Incoming<'_>, trace: &mut T) -> Result<Vec<u8>, Stop> {
        let parsed = fetch::on_host(url, fetch::is_sns)
            .filter(|url| url.path().ends_with(".pem") && url.query().is_none())
            .filter(|_| self.cert_url.as_ref().is_none_or(|only| only == url));
        let Some(parsed) = parsed else {
            let why = format!("SigningCertURL {} is not a certificate on a host of SNS", show(url.as_bytes()));
            return Err(refused(check::CERTIFICATE_URL, why, trace).into());
        };
        match certified_key(&self.given, &self.trust, incoming, trace)? {
            Some(key) => Ok(key),
            None => Err(Stop::Key(Box::new(KeyRequest::certificate(parsed)))),
        }
    }
}

/// Whether a name in a certificate is one of SNS.
fn is_name(name: &str) -> bool {
    matches!(name, "sns.amazonaws.com" | "sns.amazonaws.com.cn") || fetch::is_sns(name)
}

/// Signs a body with an RSA private key: a message of SNS, or anything else as the text of a notification.
pub(super) fn sign(signer: &Signer<'_>, headers: &mut HeaderMap, body: &mut Vec<u8>) -> Result<(), FieldError> {
    let not_text = || FieldError::new("body", "invalid_text", "the message of a notification is UTF-8 text");
    let mut message = match serde_json::from_slice::<Map<String, Value>>(body) {
        Ok(message) if message.contains_key("Type") => message,
        _ => {
            let text = std::str::from_utf8(body).map_err(|_| not_text())?;
            [("Type".to_owned(), json!("Notification")), ("Message".to_owned(), json!(text))].into_iter().collect()
        }
    };
    let topic = signer.options.text("topic_arn").unwrap_or(SAMPLE_TOPIC);
    let url = signer.options.text("cert_url").unwrap_or(SAMPLE_CERT_URL);
    let defaults = [("MessageId", fresh_uuid()), ("TopicArn", topic.to_owned()), ("Timestamp", signer.now.to_string())];
    for (name, value) in defaults {
        message.entry(name).or_insert(value.into());
    }
    for (name, value) in [("SignatureVersion", "2"), ("SigningCertURL", url)] {
        message.insert(name.to_owned(), value.into());
    }
    let draft = Value::Object(message.clone()).to_string();
    let missing = || FieldError::new("body", "missing_value", "the body lacks a field that SNS signs");
    let signed = Message::read(draft.as_bytes()).signed().ok_or_else(missing)?;
    let signature = rsa_signature(signer.secret, signed.as_bytes())?;
    message.insert("Signature".to_owned(), STANDARD.encode(signature).into());
    let kind = message.get("Type").and_then(Value::as_str).and_then(|kind| HeaderValue::from_str(kind).ok());
    if let Some(kind) = kind {
        headers.insert(HeaderName::from_static("x-amz-sns-message-type"), kind);
    }
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    *body = Value::Object(message).to_string().into_bytes();
    Ok(())
}
