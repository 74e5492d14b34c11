//! Twilio: a keyed hash over the public URL and the sorted form, or over the URL alone when its query holds a digest
//! of the body. The names and values of a form stand side by side with nothing between: that is Twilio's scheme.
//!
//! Twilio itself is not consistent about the port in the URL, so it is tried as given, without its port, and with it;
//! and with the query written as its Node library used to write it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use subtle::ConstantTimeEq;

use super::super::trace::Trace;
use super::super::{Refusal, check, form, required, single};
use super::{Incoming, Signer, refused};
use crate::Secret;
use crate::provider::FieldError;

const SIGNATURE: HeaderName = HeaderName::from_static("x-twilio-signature");
/// Names the algorithm where a shared key takes the place of the account's token.
const SETTINGS: HeaderName = HeaderName::from_static("x-twilio-webhooks-signature-settings");
const BODY_DIGEST: &str = "bodySHA256";

/// Checks a request.
pub(super) fn run<T: Trace>(secrets: &[Secret], incoming: &Incoming<'_>, trace: &mut T) -> Result<(), Refusal> {
    let request = incoming.request;
    let text = required(request.headers, &SIGNATURE, trace)?;
    let Some(algorithm) = algorithm(request.headers) else {
        return Err(refused(check::SIGNATURE_FORMAT, "the signature is made in a way that is not known here", trace));
    };
    let length = algorithm.digest_algorithm().output_len;
    let Some(given) = STANDARD.decode(text).ok().filter(|bytes| bytes.len() == length) else {
        return Err(refused(check::SIGNATURE_FORMAT, format!("the signature is not {length} bytes in base64"), trace));
    };
    let query = incoming.url.split_once('?').map_or("", |(_, query)| query);
    let form = match form::field(query.as_bytes(), BODY_DIGEST) {
        // With a digest in the signed URL the body is held to it, whatever media type it claims.
        Some(claimed) => {
            let right = hex::encode(digest(&SHA256, request.body));
            if !bool::from(right.as_bytes().ct_eq(&claimed)) {
                return Err(refused(check::BODY_DIGEST, "the body is not the one whose digest the URL holds", trace));
            }
            Vec::new()
        }
        None => sorted(request.body),
    };
    for secret in secrets {
        let key = hmac::Key::new(algorithm, secret.expose());
        for url in spellings(incoming.url) {
            let message = [url.as_bytes(), &form].concat();
            if hmac::verify(&key, &message, &given).is_ok() {
                trace.passed(check::SIGNATURE, || format!("matches for the URL {}", url.escape_default()));
                return Ok(());
            }
        }
    }
    Err(refused(check::SIGNATURE, "no spelling of the public URL gives this signature with any secret", trace))
}

/// The algorithm that a request names; `None` if it is unknown.
fn algorithm(headers: &HeaderMap) -> Option<hmac::Algorithm> {
    if !headers.contains_key(SETTINGS) {
        return Some(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY);
    }
    let settings = std::str::from_utf8(single(headers, &SETTINGS)?).ok()?;
    let named = settings.split(',').find_map(|part| match part.split_once('=') {
        Some((name, value)) if name.trim() == "algorithm" && !value.trim().is_empty() => Some(value.trim()),
        _ => None,
    });
    match named.map(str::to_ascii_uppercase).as_deref() {
        None | Some("HMAC_SHA1") => Some(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        Some("HMAC_SHA256") => Some(hmac::HMAC_SHA256),
        Some(_) => None,
    }
}

/// Every distinct name with every distinct value, both sorted by their bytes.
fn sorted(body: &[u8]) -> Vec<u8> {
    let mut fields: Vec<_> = form::pairs(body).collect();
    fields.sort();
    fields.dedup();
    let mut all = Vec::with_capacity(body.len());
    for (name, value) in fields {
        all.extend_from_slice(&name);
        all.extend_from_slice(&value);
    }
    all
}

/// The ways in which Twilio may have written a URL.
fn spellings(url: &str) -> Vec<Cow<'_, str>> {
    let mut all = vec![Cow::Borrowed(url)];
    if let Some((scheme, rest)) = url.split_once("://") {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let host = authority.rfind('@').map_or(0, |at| at + 1);
        let other = match authority[host..].rfind(':').filter(|_| !authority.ends_with(']')) {
            Some(port) => authority[..host + port].to_owned(),
            None => format!("{authority}:{}", if scheme == "https" { 443 } else { 80 }),
        };
        all.push(Cow::Owned(format!("{scheme}://{other}{path}")));
    }
    let rewritten: Vec<_> = all.iter().filter_map(|url| with_query_rewritten(url)).map(Cow::Owned).collect();
    all.extend(rewritten);
    all
}

/// The URL with its query read and written again as Node's `querystring` does; `None` if that changes nothing.
fn with_query_rewritten(url: &str) -> Option<String> {
    let (path, query) = url.split_once('?')?;
    let mut order: Vec<Cow<'_, [u8]>> = Vec::new();
    let mut values: BTreeMap<Cow<'_, [u8]>, Vec<Cow<'_, [u8]>>> = BTreeMap::new();
    for (name, value) in form::pairs(query.as_bytes()) {
        if !values.contains_key(&name) {
            order.push(name.clone());
        }
        values.entry(name).or_default().push(value);
    }
    let pairs = order.iter().flat_map(|name| values[name].iter().map(move |value| (name, value)));
    let query: Vec<String> = pairs.map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
    let rewritten = format!("{path}?{}", query.join("&"));
    (rewritten != url).then_some(rewritten)
}

fn escaped(text: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte);
    text.iter().map(|byte| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Signs a body; one that is no form has to be named by `bodySHA256` in the query of the URL.
pub(super) fn sign(signer: &Signer<'_>, headers: &mut HeaderMap, body: &[u8]) -> Result<(), FieldError> {
    let query = signer.url.split_once('?').map_or("", |(_, query)| query);
    let has_digest = form::field(query.as_bytes(), BODY_DIGEST).is_some();
    let form = if has_digest { Vec::new() } else { sorted(body) };
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, signer.secret.expose());
    let tag = hmac::sign(&key, &[signer.url.as_bytes(), &form].concat());
    let value = HeaderValue::from_str(&STANDARD.encode(tag))
        .map_err(|_| FieldError::new("signature", "invalid_character", "it can not stand in an HTTP header"))?;
    headers.insert(SIGNATURE, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_tried_with_and_without_its_port() {
        for (url, others) in [
            ("https://a.example/x?y=1", ["https://a.example:443/x?y=1"].as_slice()),
            ("http://u:p@a.example:8080/x", &["http://u:p@a.example/x"]),
            ("https://[::1]/x", &["https://[::1]:443/x"]),
            ("https://a.example/?a=b c&d='", &["https://a.example:443/?a=b c&d='", "https://a.example/?a=b%20c&d='"]),
            ("nonsense", &[]),
        ] {
            let found = spellings(url);
            assert_eq!(found[0], url);
            assert!(others.iter().all(|other| found.contains(&Cow::Borrowed(*other))), "{url}: {found:?}");
        }
    }

    #[test]
    fn names_and_values_are_sorted_and_said_once() {
        assert_eq!(
            sorted(b"Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234&Digits=1234"),
            b"Digits1234Digits5678SidCA123SidAccountAC123"
        );
        assert_eq!(sorted(b""), b"");
    }
}
