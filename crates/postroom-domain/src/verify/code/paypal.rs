//! PayPal: a signature by a certificate that a header names, over the transmission's id and time, the webhook's id and
//! the CRC32 of the body. The webhook's id is never sent: it is an option of the source. A source may also ask PayPal
//! itself about each request: [`postback`](super::postback).
//!
//! A CRC32 is no digest: other bodies with the same one are easily found by who knows a signed request. That is
//! PayPal's scheme.

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::super::certificate::Trust;
use super::super::fetch::{self, KeyRequest, Stop};
use super::super::sign::{fresh_uuid, rsa_signature};
use super::super::time;
use super::super::trace::{Trace, show};
use super::super::{Refusal, check, required};
use super::postback::Postback;
use super::{Given, Incoming, Signer, certified_key, missing, refused, trust};
use crate::provider::scheme::Unit;
use crate::provider::{FieldError, Options};
use crate::{Secret, Timestamp};

const ID: HeaderName = HeaderName::from_static("paypal-transmission-id");
const TIME: HeaderName = HeaderName::from_static("paypal-transmission-time");
const SIGNATURE: HeaderName = HeaderName::from_static("paypal-transmission-sig");
const CERT_URL: HeaderName = HeaderName::from_static("paypal-cert-url");
const ALGORITHM: HeaderName = HeaderName::from_static("paypal-auth-algo");

/// The only path below which certificates are fetched.
const CERT_PATH: &str = "/v1/notifications/certs/";

/// Where the certificate of a signed sample is said to be.
const SAMPLE_CERT_URL: &str = "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-postroom-sample";

/// A source's options.
#[derive(Debug)]
pub(in crate::verify) struct Check {
    webhook_id: String,
    cert_url: Option<String>,
    given: Given,
    trust: Trust,
    tolerance: Option<time::Window>,
    /// PayPal itself is asked, in place of its certificate.
    postback: Option<Postback>,
}

/// The headers with which PayPal proves a request.
pub(super) struct Proof<'r> {
    pub id: &'r [u8],
    pub sent: &'r [u8],
    pub signature: &'r [u8],
    pub cert_url: &'r [u8],
    pub algorithm: &'r [u8],
}

impl Check {
    pub fn compile(options: &Options<'_>) -> Result<Self, FieldError> {
        let (given, trust) = trust(options, fetch::is_paypal, true)?;
        let cert_url = options.text("cert_url").map(str::to_owned);
        if cert_url.as_ref().is_some_and(|url| fetch::on_host(url, fetch::is_paypal).is_none()) {
            return Err(FieldError::new("cert_url", "invalid_url", "https and a host below paypal.com"));
        }
        let tolerance = options.number("tolerance_seconds").map(|seconds| time::Window {
            unit: Unit::Rfc3339,
            past_seconds: Some(seconds),
            future_seconds: Some(seconds),
        });
        let webhook_id = options.text("webhook_id").unwrap_or_default().to_owned();
        Ok(Self { webhook_id, cert_url, given, trust, tolerance, postback: Postback::compile(options)? })
    }

    /// Whether PayPal is asked about each request, which takes the secret of an app.
    pub fn asks(&self) -> bool {
        self.postback.is_some()
    }

    pub fn run<T: Trace>(&self, secrets: &[Secret], incoming: &Incoming<'_>, trace: &mut T) -> Result<(), Stop> {
        let headers = incoming.request.headers;
        let text = required(headers, &SIGNATURE, trace)?;
        let mut part = |name: &HeaderName| {
            let value = super::super::single(headers, name).filter(|value| !value.is_empty());
            value.ok_or_else(|| missing(check::SIGNED_PART, format!("header {name} is missing or doubled"), trace))
        };
        let (id, sent, cert_url, algorithm) = (part(&ID)?, part(&TIME)?, part(&CERT_URL)?, part(&ALGORITHM)?);
        let proof = Proof { id, sent, signature: text, cert_url, algorithm };
        if algorithm != b"SHA256withRSA" {
            let why = format!("signed by {}, where SHA256withRSA is expected", show(algorithm));
            return Err(refused(check::SIGNATURE_FORMAT, why, trace).into());
        }
        let Some(at) = time::read(Unit::Rfc3339, sent) else {
            return Err(refused(check::TIMESTAMP_FORMAT, format!("{} is not a time", show(sent)), trace).into());
        };
        let Some(signature) = STANDARD.decode(text).ok() else {
            return Err(refused(check::SIGNATURE_FORMAT, "the signature is not base64", trace).into());
        };
        if let Some(postback) = &self.postback {
            Self::on_paypal(cert_url, trace)?;
            postback.run(&proof, &self.webhook_id, secrets, incoming, trace)?;
        } else {
            let key = self.key(cert_url, incoming, trace)?;
            let message = message(id, sent, &self.webhook_id, incoming.request.body);
            if UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(&message, &signature).is_err() {
                let why = "the signature is not over this request and this webhook_id";
                return Err(refused(check::SIGNATURE, why, trace).into());
            }
            trace.passed(check::SIGNATURE, || "matches".to_owned());
        }
        match &self.tolerance {
            Some(window) => Ok(super::super::hmac::within(window, at, incoming.now, trace)?),
            None => Ok(()),
        }
    }

    /// The URL of the certificate, if it is one of PayPal.
    fn on_paypal<T: Trace>(url: &[u8], trace: &mut T) -> Result<Url, Refusal> {
        let text = std::str::from_utf8(url).unwrap_or_default();
        fetch::on_host(text, fetch::is_paypal).ok_or_else(|| {
            let why = format!("{CERT_URL} {} is not https on a host of PayPal", show(url));
            refused(check::CERTIFICATE_URL, why, trace)
        })
    }

    fn key<T: Trace>(&self, url: &[u8], incoming: &Incoming<'_>, trace: &mut T) -> Result<Vec<u8>, Stop> {
        let parsed = Self::on_paypal(url, trace)?;
        if self.cert_url.as_ref().is_some_and(|only| only.as_bytes() != url) {
            let why = format!("{CERT_URL} {} is not the cert_url of the source", show(url));
            return Err(refused(check::CERTIFICATE_URL, why, trace).into());
        }
        if let Some(key) = certified_key(&self.given, &self.trust, incoming, trace)? {
            return Ok(key);
        }
        if !parsed.path().starts_with(CERT_PATH) || parsed.query().is_some() {
            let why = format!("{CERT_URL} {} is not below {CERT_PATH}", show(url));
            return Err(refused(check::CERTIFICATE_URL, why, trace).into());
        }
        Err(Stop::Key(Box::new(KeyRequest::certificate(parsed))))
    }
}

fn message(id: &[u8], sent: &[u8], webhook_id: &str, body: &[u8]) -> Vec<u8> {
    let crc = crc32fast::hash(body).to_string();
    [id, sent, webhook_id.as_bytes(), crc.as_bytes()].join(b"|".as_slice())
}

/// Signs a body with an RSA private key.
pub(super) fn sign(check: &Check, signer: &Signer<'_>, headers: &mut HeaderMap, body: &[u8]) -> Result<(), FieldError> {
    let (id, sent) = (fresh_uuid(), rfc3339_seconds(signer.now));
    let message = message(id.as_bytes(), sent.as_bytes(), &check.webhook_id, body);
    let signature = STANDARD.encode(rsa_signature(signer.secret, &message)?);
    let url = check.cert_url.as_deref().unwrap_or(SAMPLE_CERT_URL);
    for (name, value) in
        [(ID, id.as_str()), (TIME, &sent), (SIGNATURE, &signature), (CERT_URL, url), (ALGORITHM, "SHA256withRSA")]
    {
        let value = HeaderValue::from_str(value)
            .map_err(|_| FieldError::new("cert_url", "invalid_character", "it can not stand in an HTTP header"))?;
        headers.insert(name, value);
    }
    Ok(())
}

/// The time without a fraction, as PayPal writes it.
fn rfc3339_seconds(at: Timestamp) -> String {
    let text = Timestamp::from_seconds(at.as_seconds()).to_string();
    text.replace(".000Z", "Z")
}
