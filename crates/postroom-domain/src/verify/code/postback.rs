//! PayPal's postback: PayPal itself is asked whether it sent a request. Chosen by a source's option `verify_by`; with the
//! client id and the secret of the app that the webhook belongs to.
//!
//! The answer is about one request and is never kept. As long as there is none, nothing is known about the request.
//! <https://developer.paypal.com/api/webhooks/v1/verify-webhook-signature-post>

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use url::Url;

use super::super::check;
use super::super::fetch::{KeyRequest, Post, Stop};
use super::super::trace::Trace;
use super::paypal::Proof;
use super::{Incoming, refused};
use crate::Secret;
use crate::provider::{FieldError, Options};

/// The longest headers that PayPal takes back, in bytes.
const MAX_ID_BYTES: usize = 50;
const MAX_SIGNATURE_BYTES: usize = 500;

/// Options that only one of the two ways reads.
const OF_CERTIFICATES: [&str; 3] = ["cert_pem", "cert_url", "trust_root_pem"];
const OF_POSTBACK: [&str; 2] = ["client_id", "environment"];

/// A source's options.
#[derive(Debug)]
pub(super) struct Postback {
    host: &'static str,
    client_id: String,
}

/// What PayPal is asked; the field names are its own.
#[derive(Serialize)]
struct Question<'q> {
    auth_algo: &'q str,
    cert_url: &'q str,
    transmission_id: &'q str,
    transmission_sig: &'q str,
    transmission_time: &'q str,
    webhook_id: &'q str,
    /// The body as it came: PayPal computes its checksum.
    webhook_event: &'q RawValue,
}

impl Postback {
    /// The options, if the source chose this way.
    pub fn compile(options: &Options<'_>) -> Result<Option<Self>, FieldError> {
        let chosen = options.text("verify_by") == Some("postback");
        let (useless, with) =
            if chosen { (OF_CERTIFICATES.as_slice(), "certificate") } else { (OF_POSTBACK.as_slice(), "postback") };
        if let Some(name) = useless.iter().find(|name| options.text(name).is_some()) {
            return Err(FieldError::new(name, "conflict", format!("it is read with verify_by={with} only")));
        }
        if !chosen {
            return Ok(None);
        }
        let Some(client_id) = options.text("client_id") else {
            return Err(FieldError::new("client_id", "required", "the app's Client ID, with which PayPal is asked"));
        };
        if !client_id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') {
            return Err(FieldError::new("client_id", "invalid_character", "visible ASCII without a colon"));
        }
        let host = match options.text("environment") {
            Some("sandbox") => "api-m.sandbox.paypal.com",
            _ => "api-m.paypal.com",
        };
        Ok(Some(Self { host, client_id: client_id.to_owned() }))
    }

    /// Reads PayPal's answer, or stops with the question.
    pub fn run<T: Trace>(
        &self,
        proof: &Proof<'_>,
        webhook_id: &str,
        secrets: &[Secret],
        incoming: &Incoming<'_>,
        trace: &mut T,
    ) -> Result<(), Stop> {
        let answer: Option<Map<String, Value>> =
            incoming.fetched.and_then(|answer| serde_json::from_slice(answer).ok());
        match answer.as_ref().and_then(|answer| answer.get("verification_status")?.as_str()) {
            Some("SUCCESS") => {
                trace.passed(check::SIGNATURE, || "PayPal says that it sent this to this webhook_id".to_owned());
                Ok(())
            }
            Some("FAILURE") => {
                let why = "PayPal says that it did not send this to this webhook_id";
                Err(refused(check::SIGNATURE, why, trace).into())
            }
            // What PayPal never answers is no answer.
            _ => match self.question(proof, webhook_id, secrets, incoming.request.body) {
                Some(question) => Err(Stop::Key(Box::new(question))),
                None => {
                    let why = "headers or body are nothing that PayPal sends: it is not asked about them";
                    Err(refused(check::SIGNATURE_FORMAT, why, trace).into())
                }
            },
        }
    }

    /// None if these can not be the headers and the body of a webhook of PayPal.
    fn question(&self, proof: &Proof<'_>, webhook_id: &str, secrets: &[Secret], body: &[u8]) -> Option<KeyRequest> {
        let text = |bytes| std::str::from_utf8(bytes).ok();
        // Exactly one JSON object, so that nothing in the body can be read as another member of the question.
        let event: &RawValue =
            serde_json::from_slice(body).ok().filter(|event: &&RawValue| event.get().starts_with('{'))?;
        let fits = proof.id.len() <= MAX_ID_BYTES && proof.signature.len() <= MAX_SIGNATURE_BYTES;
        let question = Question {
            auth_algo: text(proof.algorithm)?,
            cert_url: text(proof.cert_url)?,
            transmission_id: text(proof.id).filter(|_| fits)?,
            transmission_sig: text(proof.signature)?,
            transmission_time: text(proof.sent)?,
            webhook_id,
            webhook_event: event,
        };
        let url = Url::parse(&format!("https://{}/v1/notifications/verify-webhook-signature", self.host)).ok()?;
        let post = Post::json(serde_json::to_string(&question).ok()?);
        let token = Box::new(self.token(secrets.first()?)?);
        Some(KeyRequest { name: url.as_str().to_owned(), url, post: Some(post), token: Some(token) })
    }

    /// The access token of the app. Its name holds a digest of the credentials: who has others does not get this one.
    fn token(&self, secret: &Secret) -> Option<KeyRequest> {
        let url = Url::parse(&format!("https://{}/v1/oauth2/token", self.host)).ok()?;
        let credentials = Secret::new([self.client_id.as_bytes(), b":", secret.expose()].concat());
        let name = format!("{} {}", self.host, hex::encode(digest(&SHA256, credentials.expose())));
        let post = Post {
            content_type: "application/x-www-form-urlencoded",
            authorization: Some(Secret::from(format!("Basic {}", STANDARD.encode(credentials.expose())))),
            body: Secret::from("grant_type=client_credentials"),
        };
        Some(KeyRequest { url, post: Some(post), name, token: None })
    }
}
