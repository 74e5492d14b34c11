//! The schemes that no row can say, a file for each.

mod adyen;
mod paypal;
mod postback;
mod sns;
mod twilio;

use http::HeaderMap;

use super::certificate::{self, Trust};
use super::fetch::Stop;
use super::trace::Trace;
use super::{Refusal, Request, check};
use crate::provider::scheme::Code;
use crate::provider::{FieldError, Options};
use crate::{Invalid, Secret, Timestamp};

/// A compiled scheme.
#[derive(Debug)]
pub(super) enum Check {
    Adyen(adyen::Check),
    AwsSns(sns::Check),
    PayPal(paypal::Check),
    Twilio,
}

/// A request with all that a scheme may need besides.
#[derive(Debug, Clone, Copy)]
pub(super) struct Incoming<'r> {
    pub request: &'r Request<'r>,
    /// The public URL as the provider knows it.
    pub url: &'r str,
    /// The answer to the request for a key that an earlier run came to.
    pub fetched: Option<&'r [u8]>,
    pub now: Timestamp,
}

/// What `sign` puts into a request.
pub(super) struct Signer<'s> {
    /// The secret, or the private key.
    pub secret: &'s Secret,
    pub options: &'s Options<'s>,
    pub url: &'s str,
    pub now: Timestamp,
}

impl Check {
    /// Compiles the scheme with a source's options and secrets.
    pub fn compile(code: Code, options: &Options<'_>, secrets: &[Secret]) -> Result<Self, FieldError> {
        Ok(match code {
            Code::Adyen => Self::Adyen(adyen::Check::compile(secrets)),
            Code::AwsSns => Self::AwsSns(sns::Check::compile(options)?),
            Code::PayPal => Self::PayPal(paypal::Check::compile(options)?),
            Code::Twilio => Self::Twilio,
        })
    }

    /// Whether a shared secret proves requests.
    pub fn needs_secret(&self) -> bool {
        match self {
            Self::Adyen(_) | Self::Twilio => true,
            Self::PayPal(check) => check.asks(),
            Self::AwsSns(_) => false,
        }
    }

    /// Checks a request.
    pub fn run<T: Trace>(&self, secrets: &[Secret], incoming: &Incoming<'_>, trace: &mut T) -> Result<(), Stop> {
        match self {
            Self::Adyen(check) => Ok(check.run(incoming.request, trace)?),
            Self::AwsSns(check) => check.run(incoming, trace),
            Self::PayPal(check) => check.run(secrets, incoming, trace),
            Self::Twilio => Ok(twilio::run(secrets, incoming, trace)?),
        }
    }

    /// Signs a body as the provider would: its headers, and the body where the signature is a part of it.
    pub fn sign(&self, signer: &Signer<'_>, headers: &mut HeaderMap, body: &mut Vec<u8>) -> Result<(), FieldError> {
        match self {
            Self::Adyen(_) => adyen::sign(signer, body),
            Self::AwsSns(_) => sns::sign(signer, headers, body),
            Self::PayPal(check) => paypal::sign(check, signer, headers, body),
            Self::Twilio => twilio::sign(signer, headers, body),
        }
    }
}

/// The certificate that the source's options give, and what a certificate has to be.
fn trust(options: &Options<'_>, names: fn(&str) -> bool, checks_given: bool) -> Result<(Given, Trust), FieldError> {
    let read = |name: &str| match options.text(name) {
        None => Ok(Vec::new()),
        Some(pem) => certificate::read(pem.as_bytes())
            .map_err(|why| FieldError { field: name.to_owned(), invalid: Invalid::new("invalid_certificate", why) }),
    };
    let (given, roots) = (read("cert_pem")?, read("trust_root_pem")?);
    let trust = Trust { names, roots, is_given: !given.is_empty(), checks_given };
    Ok((given, trust))
}

type Given = Vec<rustls_pki_types::CertificateDer<'static>>;

/// The public key that a request is signed with: of the given certificate, or of the one that was fetched; `None` if
/// there is neither.
fn certified_key<T: Trace>(
    given: &Given,
    trust: &Trust,
    incoming: &Incoming<'_>,
    trace: &mut T,
) -> Result<Option<Vec<u8>>, Refusal> {
    let fetched;
    let certificates = match incoming.fetched {
        _ if !given.is_empty() => given,
        None => return Ok(None),
        Some(pem) => {
            fetched = certificate::read(pem).unwrap_or_default();
            &fetched
        }
    };
    match certificate::public_key(certificates, trust, incoming.now) {
        Ok(key) => {
            trace.passed(check::CERTIFICATE, || "the certificate is one of the provider".to_owned());
            Ok(Some(key))
        }
        Err(why) => {
            trace.failed(check::CERTIFICATE, || why.to_owned());
            Err(Refusal::SignatureInvalid { check: check::CERTIFICATE })
        }
    }
}

fn refused<T: Trace>(check: &'static str, why: impl Into<String>, trace: &mut T) -> Refusal {
    trace.failed(check, || why.into());
    Refusal::SignatureInvalid { check }
}

fn missing<T: Trace>(check: &'static str, why: impl Into<String>, trace: &mut T) -> Refusal {
    trace.failed(check, || why.into());
    Refusal::SignatureMissing { check }
}
