//! The token scheme: a secret text in a header, compared in constant time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use subtle::ConstantTimeEq;

use super::trace::{Trace, count};
use super::{Refusal, Request, check};
use crate::Secret;

/// A compiled token scheme.
#[derive(Debug)]
pub(super) struct Check {
    pub header: HeaderName,
    /// The header is `Authorization: Basic` and the secret `user:password`.
    pub basic: bool,
}

impl Check {
    /// Checks a request.
    pub fn run<T: Trace>(&self, secrets: &[Secret], request: &Request<'_>, trace: &mut T) -> Result<(), Refusal> {
        let Some(value) = super::single(request.headers, &self.header).filter(|value| !value.is_empty()) else {
            let twice = request.headers.get_all(&self.header).iter().count() > 1;
            let check = if twice { check::SIGNATURE_HEADER_TWICE } else { check::SIGNATURE_HEADER };
            trace.failed(check, || {
                let why = if twice { "stands in the request more than once" } else { "is missing or empty" };
                format!("header {} {why}", self.header)
            });
            return Err(if twice { Refusal::SignatureInvalid { check } } else { Refusal::SignatureMissing { check } });
        };
        trace.passed(check::SIGNATURE_HEADER, || format!("header {} is there", self.header));
        let decoded;
        let given = if self.basic {
            let Some(bytes) = basic(value) else {
                trace.failed(check::SIGNATURE_FORMAT, || {
                    "the header is not Basic and base64 of user:password".to_owned()
                });
                return Err(Refusal::SignatureInvalid { check: check::SIGNATURE_FORMAT });
            };
            decoded = Secret::new(bytes);
            decoded.expose()
        } else {
            value
        };
        // Every secret is compared, whichever matches.
        let matched =
            secrets.iter().fold(subtle::Choice::from(0), |found, secret| found | secret.expose().ct_eq(given));
        if matched.into() {
            trace.passed(check::TOKEN, || "is the configured one".to_owned());
            return Ok(());
        }
        trace.failed(check::TOKEN, || format!("compared with {}: it is another text", count(secrets.len(), "secret")));
        Err(Refusal::SignatureInvalid { check: check::TOKEN })
    }
}

/// `user:password` of `Basic` and base64.
pub(super) fn basic(value: &[u8]) -> Option<Vec<u8>> {
    let text = value.get(..6).filter(|scheme| scheme.eq_ignore_ascii_case(b"basic ")).map(|_| &value[6..])?;
    STANDARD.decode(text).ok()
}
