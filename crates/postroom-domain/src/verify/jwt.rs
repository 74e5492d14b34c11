//! A signed JSON Web Token in a header (RFC 7515, 7519): one algorithm, an exact key, then the claims.
//!
//! What the token says of itself is believed only after its signature is right; its `alg` and `kid` are compared with
//! what is expected and choose nothing. Unless a claim holds a digest of it, the body is not covered.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderName;
use serde::Deserialize;
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;

use super::fetch::{KeyRequest, Stop};
use super::trace::Trace;
use super::{Refusal, Request, check, jwk};
use crate::provider::scheme::JwtAlgorithm;
use crate::{Secret, Timestamp};

/// The longest token that is looked at, in bytes.
const MAX_BYTES: usize = 8192;

/// How far clocks may differ where a token names its own beginning, in seconds.
const LEEWAY_SECONDS: i64 = 60;

/// A compiled token scheme.
#[derive(Debug)]
pub(super) struct Check {
    pub header: HeaderName,
    pub algorithm: JwtAlgorithm,
    pub keys: Keys,
    pub body_claim: Option<String>,
    pub max_age_seconds: Option<u32>,
    pub needs_expiry: bool,
    pub audience: Option<String>,
    pub issuer: Option<String>,
}

/// What tokens are checked with.
#[derive(Debug)]
pub(super) enum Keys {
    Shared(Vec<Secret>),
    Public(Vec<jwk::Key>),
    /// Plaid tells a key when asked for its id, with the credentials of its customer.
    Plaid {
        host: &'static str,
        client_id: String,
        secret: Secret,
    },
    /// Nothing to check with.
    None,
}

/// What a token says about its signature.
#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood: there are none that we know.
    crit: Option<Value>,
}

/// The parts of a token that can be read.
struct Token<'t> {
    head: Head,
    signed: &'t [u8],
    claims: Vec<u8>,
    signature: Vec<u8>,
}

impl Check {
    /// Checks a request. `fetched` is the answer to the [`KeyRequest`] that an earlier run came to.
    pub fn run<T: Trace>(
        &self,
        request: &Request<'_>,
        fetched: Option<&[u8]>,
        now: Timestamp,
        trace: &mut T,
    ) -> Result<(), Stop> {
        let text = super::required(request.headers, &self.header, trace)?;
        let text = match text.get(..7) {
            Some(scheme) if scheme.eq_ignore_ascii_case(b"bearer ") => &text[7..],
            _ => text,
        };
        let Some(token) = Token::read(text, self.algorithm) else {
            return Err(misshapen(self, trace));
        };
        trace.passed(check::SIGNATURE_FORMAT, || format!("a token signed with {}", self.algorithm.name()));
        self.authenticate(&token, fetched, now, trace)?;
        self.claims(&token, request, now, trace)?;
        Ok(())
    }

    fn authenticate<T: Trace>(
        &self,
        token: &Token<'_>,
        fetched: Option<&[u8]>,
        now: Timestamp,
        trace: &mut T,
    ) -> Result<(), Stop> {
        let downloaded;
        let matched = match &self.keys {
            Keys::None => false,
            Keys::Shared(secrets) => secrets.iter().any(|secret| self.is_keyed_hash(secret, token)),
            Keys::Public(keys) => is_of_any(keys, token, now),
            Keys::Plaid { host, client_id, secret } => {
                let kid = token.head.kid.as_deref().unwrap_or_default();
                let Some(document) = fetched else {
                    let request = KeyRequest::plaid(host, client_id, secret, kid);
                    return Err(request.map_or_else(|| misshapen(self, trace), |request| Stop::Key(Box::new(request))));
                };
                downloaded = jwk::read(document, self.algorithm).unwrap_or_default();
                // Its id was asked for, and is asked of the answer too.
                downloaded.iter().all(|key| key.kid.as_deref() == Some(kid)) && is_of_any(&downloaded, token, now)
            }
        };
        if matched {
            trace.passed(check::SIGNATURE, || "the token is signed with a key that is known here".to_owned());
            return Ok(());
        }
        trace.failed(check::SIGNATURE, || "the token is signed with none of the keys known here".to_owned());
        Err(Refusal::SignatureInvalid { check: check::SIGNATURE }.into())
    }

    fn is_keyed_hash(&self, secret: &Secret, token: &Token<'_>) -> bool {
        let key = hmac::Key::new(keyed_hash(self.algorithm), secret.expose());
        hmac::verify(&key, token.signed, &token.signature).is_ok()
    }

    /// What a proved token says about itself and the request.
    fn claims<T: Trace>(
        &self,
        token: &Token<'_>,
        request: &Request<'_>,
        now: Timestamp,
        trace: &mut T,
    ) -> Result<(), Refusal> {
        let Ok(claims) = serde_json::from_slice::<Map<String, Value>>(&token.claims) else {
            return Err(refuse(check::CLAIMS, "the token holds no claims", trace));
        };
        let same = |name: &str, expected: &Option<String>| match (expected, claims.get(name)) {
            (None, _) => true,
            (Some(expected), Some(Value::Array(any))) => any.iter().any(|one| one.as_str() == Some(expected)),
            (Some(expected), value) => value.and_then(Value::as_str) == Some(expected),
        };
        if !same("aud", &self.audience) {
            return Err(refuse(check::CLAIMS, "the token is for another audience (aud)", trace));
        }
        if !same("iss", &self.issuer) {
            return Err(refuse(check::CLAIMS, "the token is of another issuer (iss)", trace));
        }
        if let Some(name) = &self.body_claim {
            let claimed = claims.get(name).and_then(Value::as_str).unwrap_or_default();
            if !is_digest(claimed, request.body) {
                return Err(refuse(check::BODY_DIGEST, "the body is not the one that the token is about", trace));
            }
            trace.passed(check::BODY_DIGEST, || format!("{name} is the digest of the body"));
        }
        self.times(&claims, now, trace)
    }

    fn times<T: Trace>(&self, claims: &Map<String, Value>, now: Timestamp, trace: &mut T) -> Result<(), Refusal> {
        let now = now.as_seconds();
        // Whole seconds; a fraction is cut off.
        let time = |name: &str| {
            let value = claims.get(name)?;
            value.as_i64().or_else(|| value.as_f64().filter(|n| n.abs() < 1e12).map(|n| n as i64))
        };
        let misread = |name: &str| claims.contains_key(name) && time(name).is_none();
        let missing = if ["exp", "nbf", "iat"].into_iter().any(misread) {
            Some("a time in the token is not a number")
        } else if self.needs_expiry && time("exp").is_none() {
            Some("the token names no end (exp)")
        } else if self.max_age_seconds.is_some() && time("iat").is_none() {
            Some("the token does not say when it was made (iat)")
        } else {
            None
        };
        if let Some(why) = missing {
            trace.failed(check::TIMESTAMP_MISSING, || why.to_owned());
            return Err(Refusal::SignatureMissing { check: check::TIMESTAMP_MISSING });
        }
        let age = time("iat").map(|at| now.saturating_sub(at));
        let late = match self.max_age_seconds.map(i64::from) {
            Some(max) if age.is_some_and(|age| age > max) => Some("the token is too old (iat)"),
            Some(max) if age.is_some_and(|age| age < -max) => Some("the token is from the future (iat)"),
            // A token's end is exact, as in the libraries of its senders.
            _ if time("exp").is_some_and(|at| now >= at) => Some("the token has expired (exp)"),
            _ if time("nbf").is_some_and(|at| now < at.saturating_sub(LEEWAY_SECONDS)) => {
                Some("the token is not valid yet (nbf)")
            }
            _ => None,
        };
        let Some(why) = late else {
            trace.passed(check::TIMESTAMP_TOLERANCE, || "the token's times are near enough".to_owned());
            return Ok(());
        };
        trace.failed(check::TIMESTAMP_TOLERANCE, || why.to_owned());
        Err(Refusal::TimestampOutOfTolerance { check: check::TIMESTAMP_TOLERANCE })
    }
}

fn is_of_any(keys: &[jwk::Key], token: &Token<'_>, now: Timestamp) -> bool {
    // A key with an id is only for tokens that name it.
    let fits = |key: &&jwk::Key| key.kid.is_none() || key.kid == token.head.kid;
    keys.iter().filter(fits).any(|key| !key.is_expired(now) && key.made(token.signed, &token.signature))
}

fn misshapen<T: Trace>(check: &Check, trace: &mut T) -> Stop {
    trace.failed(check::SIGNATURE_FORMAT, || {
        format!("header {} holds no token signed with {}", check.header, check.algorithm.name())
    });
    Refusal::SignatureInvalid { check: check::SIGNATURE_FORMAT }.into()
}

fn refuse<T: Trace>(check: &'static str, why: &str, trace: &mut T) -> Refusal {
    trace.failed(check, || why.to_owned());
    Refusal::SignatureInvalid { check }
}

/// Whether a claim is the SHA-256 of the body, in lower-case hexadecimal or base64.
fn is_digest(claimed: &str, body: &[u8]) -> bool {
    let hash = digest(&SHA256, body);
    let spellings = [hex::encode(hash), STANDARD.encode(hash), URL_SAFE_NO_PAD.encode(hash)];
    spellings.iter().any(|text| text.as_bytes().ct_eq(claimed.as_bytes()).into())
}

impl<'t> Token<'t> {
    /// Takes a token apart; none if it is not one of this algorithm.
    fn read(text: &'t [u8], algorithm: JwtAlgorithm) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let mut dots = memchr::memchr_iter(b'.', text);
        let (first, second) = (dots.next()?, dots.next()?);
        if dots.next().is_some() {
            return None;
        }
        let part = |text: &[u8]| URL_SAFE_NO_PAD.decode(text).ok();
        let head: Head = serde_json::from_slice(&part(&text[..first])?).ok()?;
        if head.alg != algorithm.name() || head.crit.is_some() {
            return None;
        }
        let claims = part(&text[first + 1..second])?;
        Some(Self { head, signed: &text[..second], claims, signature: part(&text[second + 1..])? })
    }
}

/// The keyed hash of an algorithm with a shared secret.
pub(super) fn keyed_hash(algorithm: JwtAlgorithm) -> hmac::Algorithm {
    match algorithm {
        JwtAlgorithm::Hs384 => hmac::HMAC_SHA384,
        JwtAlgorithm::Hs512 => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    }
}

/// What a token of this scheme would say of itself, for `sign`.
pub(super) fn unsigned(check: &Check, kid: Option<&str>, body: &[u8], now: Timestamp) -> String {
    let mut head = serde_json::json!({ "alg": check.algorithm.name(), "typ": "JWT" });
    if let Some(kid) = kid {
        head["kid"] = kid.into();
    }
    let now = now.as_seconds();
    let mut claims = serde_json::json!({ "iat": now });
    if check.needs_expiry {
        claims["exp"] = (now + 300).into();
    }
    for (name, value) in [("aud", &check.audience), ("iss", &check.issuer)] {
        if let Some(value) = value {
            claims[name] = value.as_str().into();
        }
    }
    if let Some(name) = &check.body_claim {
        claims[name.as_str()] = hex::encode(digest(&SHA256, body)).into();
    }
    [head, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".")
}

/// The token with its signature.
pub(super) fn signed(unsigned: &str, signature: &[u8]) -> String {
    format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_three_parts_and_the_one_algorithm() {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let good = format!("{}.{}.{}", part(r#"{"alg":"HS256"}"#), part("{}"), part("x"));
        assert!(Token::read(good.as_bytes(), JwtAlgorithm::Hs256).is_some());
        for head in [r#"{"alg":"none"}"#, r#"{"alg":"hs256"}"#, r#"{"alg":"HS256","crit":["b64"]}"#, "{}", "HS256"] {
            let bad = format!("{}.{}.{}", part(head), part("{}"), part("x"));
            assert!(Token::read(bad.as_bytes(), JwtAlgorithm::Hs256).is_none(), "{head}");
        }
        for bad in ["", ".", "..", "a.b.c", &good[1..], &format!("{good}.x"), &format!("{good}="), &format!(" {good}")]
        {
            assert!(Token::read(bad.as_bytes(), JwtAlgorithm::Hs256).is_none(), "{bad}");
        }
    }
}
