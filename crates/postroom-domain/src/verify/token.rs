//! The token scheme: a secret text in a header or in the URL's query, compared in constant time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use subtle::ConstantTimeEq;

use super::trace::{Trace, count};
use super::{Refusal, Request, check, form};
use crate::Secret;

/// A compiled token scheme.
#[derive(Debug)]
pub(super) struct Check {
    pub header: HeaderName,
    /// The value stands in the URL's query, under this name, and not in the header.
    pub query: Option<String>,
    /// The header is `Authorization: Basic` and the secret `user:password`.
    pub basic: bool,
}

impl Check {
    /// Checks a request.
    pub fn run<T: Trace>(
        &self,
        secrets: &[Secret],
        request: &Request<'_>,
        url: &str,
        trace: &mut T,
    ) -> Result<(), Refusal> {
        let in_query;
        let value = match &self.query {
            Some(name) => {
                in_query = self.in_query(url, name, trace)?;
                in_query.as_slice()
            }
            None => super::required(request.headers, &self.header, trace)?,
        };
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

    /// The value in the query: there, once, and not empty.
    fn in_query<T: Trace>(&self, url: &str, name: &str, trace: &mut T) -> Result<Vec<u8>, Refusal> {
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let value = form::field(query.as_bytes(), name).filter(|value| !value.is_empty());
        match value {
            Some(value) => {
                trace.passed(check::SIGNATURE_HEADER, || format!("the query parameter {name} is there"));
                Ok(value.into_owned())
            }
            None => {
                trace.failed(check::SIGNATURE_HEADER, || {
                    format!("the query parameter {name} is missing, empty or there twice")
                });
                Err(Refusal::SignatureMissing { check: check::SIGNATURE_HEADER })
            }
        }
    }
}

/// `user:password` of `Basic` and base64.
pub(super) fn basic(value: &[u8]) -> Option<Vec<u8>> {
    let text = value.get(..6).filter(|scheme| scheme.eq_ignore_ascii_case(b"basic ")).map(|_| &value[6..])?;
    STANDARD.decode(text).ok()
}
