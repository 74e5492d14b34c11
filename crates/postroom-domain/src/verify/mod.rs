//! Proves who sent a webhook, before anything else is done with it.
//!
//! [`Verifier::compile`] makes a checker of a provider's row, a source's options and its active secrets;
//! [`Verifier::verify`] runs it on the raw bytes of a request, with every secret, comparing in constant time. Nothing
//! of a body is believed before that. The same checks can tell their steps: [`Verifier::explain`].
//!
//! Rules that hold for every provider:
//! - a source without a secret refuses everything (but for the provider `none`, which is chosen openly);
//! - an empty header is a missing one, and a signature header that stands in the request twice is refused;
//! - labels that a scheme does not know are skipped, and any one matching signature is enough;
//! - at most 16 comparisons of a signature with a secret are made per request;
//! - a signed time is ASCII digits (or RFC 3339 where the provider writes it so), and signed text is never re-formatted;
//! - a signature has one spelling: other letter case or padding does not match.
//!
//! Nothing is fetched here. Where a request only names its key, checking stops with [`Outcome::NeedsKey`], and goes on
//! with [`Verifier::verify_with_key`] once the caller has it.

mod batch;
mod candidate;
mod certificate;
mod changed;
pub mod check;
mod code;
mod compile;
mod diagnose;
mod explain;
mod fetch;
mod form;
mod handshake;
mod hmac;
mod identity;
mod json;
mod jwk;
mod jwt;
mod key;
mod outcome;
mod private;
mod sign;
mod template;
mod time;
mod token;
mod trace;

use http::{HeaderMap, HeaderName};

pub(crate) use changed::compacted;
pub use explain::{Explanation, Verdict};
pub use fetch::{KeyRequest, Post};
pub(crate) use json::looks_like_json;
pub use outcome::{Answer, Confirm, Outcome, Part, Refusal, Verified};
pub use sign::{PublicSide, SignedRequest, private_key, public_side, sign};
pub use trace::Step;

pub use crate::provider::FieldError;

use crate::event::EventType;
use crate::provider::Provider;
use crate::{Secret, Timestamp};
use fetch::Stop;
use identity::{Choice, Fields, Values};
use trace::Trace;

/// The most active secrets of a source.
pub const MAX_SECRETS: usize = 8;

/// A request as it came in.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The HTTP method, in upper case.
    pub method: &'a str,
    /// The public URL as the provider knows it, with the query as received. From configuration, never from `Host`.
    pub url: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The raw body.
    pub body: &'a [u8],
}

/// A provider's scheme with a source's options and secrets, ready to check requests. Made once per change of the
/// source's configuration.
#[derive(Debug)]
pub struct Verifier {
    provider: &'static Provider,
    scheme: Scheme,
    /// The source's own `public_url`, in place of the request's.
    public_url: Option<String>,
    fields: Fields,
    event_type: Choice,
    event_id: Choice,
    handshakes: Vec<handshake::Rule>,
    batch: Option<batch::Batch>,
    /// Headers that are passed on.
    forwards: Vec<String>,
}

/// The compiled scheme with its keys.
#[derive(Debug)]
enum Scheme {
    Open,
    /// `keys` per check; the secrets as text and as key bytes are for the explainer.
    Hmac {
        checks: Vec<hmac::Check>,
        keys: Vec<Vec<hmac::Key>>,
        secrets: Vec<Secret>,
        bytes: Vec<Secret>,
    },
    Token {
        check: token::Check,
        secrets: Vec<Secret>,
    },
    Jwt(Box<jwt::Check>),
    Code {
        check: Box<code::Check>,
        /// As the bytes that their form makes of them.
        secrets: Vec<Secret>,
    },
}

/// Which check of a keyed-hash scheme passed, with which key.
type Matched = Option<(usize, usize)>;

impl Verifier {
    /// Checks a request: proved, a handshake to answer, or refused. Never panics, whatever the bytes are.
    #[must_use]
    pub fn verify(&self, request: &Request<'_>, now: Timestamp) -> Outcome {
        self.run(request, None, now, &mut ())
    }

    /// Checks a request that came to [`Outcome::NeedsKey`] again, with the answer to that [`KeyRequest`] as it came.
    #[must_use]
    pub fn verify_with_key(&self, request: &Request<'_>, key: &[u8], now: Timestamp) -> Outcome {
        self.run(request, Some(key), now, &mut ())
    }

    /// The provider this was compiled for.
    #[must_use]
    pub fn provider(&self) -> &'static Provider {
        self.provider
    }

    /// Whether a header of a received webhook is passed on to endpoints, so that the sender's own libraries can verify
    /// there again; knows the headers of schemes made of options too.
    #[must_use]
    pub fn forwards_header(&self, name: &str) -> bool {
        self.forwards.iter().any(|header| header.eq_ignore_ascii_case(name)) || self.provider.numbers_header(name)
    }

    fn run<T: Trace>(&self, request: &Request<'_>, fetched: Option<&[u8]>, now: Timestamp, trace: &mut T) -> Outcome {
        let values = self.fields.read(request);
        let unsigned = self.handshakes.iter().find_map(|rule| rule.before_verification(&values, request));
        if let Some(answer) = unsigned {
            return Outcome::Handshake(answer);
        }
        if let Some(learned) = self.learn(request, trace) {
            return learned;
        }
        let matched = match self.check(request, fetched, now, trace) {
            Ok(matched) => matched,
            Err(_) if self.is_signed_with_public_key(request, now) => return Outcome::Handshake(Answer::empty()),
            Err(Stop::Refused(refusal)) => return Outcome::Refused(refusal),
            Err(Stop::Key(request)) => return Outcome::NeedsKey(request),
        };
        if let Some(confirm) = self.handshakes.iter().find_map(|rule| rule.visit(&values)) {
            return match confirm {
                Some(confirm) => Outcome::Confirm(confirm),
                None => Outcome::Refused(Refusal::SignatureInvalid { check: check::CERTIFICATE_URL }),
            };
        }
        let key = self.key(matched);
        if let Some(answer) =
            self.handshakes.iter().find_map(|rule| rule.after_verification(&values, key).or_else(|| rule.echo(request)))
        {
            return Outcome::Handshake(answer);
        }
        Outcome::Verified(self.identify(request, &values))
    }

    /// A handshake that brings the source's secret: learned by a source without one, and repeated to one that knows it.
    fn learn<T: Trace>(&self, request: &Request<'_>, trace: &mut T) -> Option<Outcome> {
        let (secret, answer) = self.handshakes.iter().find_map(|rule| rule.learn(request))?;
        let known = self.secrets();
        if known.is_empty() {
            return Some(Outcome::Learned { secret, answer });
        }
        if known.contains(&secret) {
            return Some(Outcome::Handshake(answer));
        }
        trace.failed(check::HANDSHAKE_SECRET, || {
            "the source has a secret, and a handshake can not change it".to_owned()
        });
        Some(Outcome::Refused(Refusal::SignatureInvalid { check: check::HANDSHAKE_SECRET }))
    }

    /// The active secrets, as text or as the bytes that their form makes of them.
    fn secrets(&self) -> &[Secret] {
        match &self.scheme {
            Scheme::Hmac { secrets, .. } | Scheme::Token { secrets, .. } | Scheme::Code { secrets, .. } => secrets,
            Scheme::Open | Scheme::Jwt(_) => &[],
        }
    }

    /// Whether there is nothing that a request could be proved with.
    fn has_no_secret(&self) -> bool {
        match &self.scheme {
            Scheme::Open => false,
            Scheme::Hmac { .. } | Scheme::Token { .. } => self.secrets().is_empty(),
            Scheme::Jwt(check) => matches!(check.keys, jwt::Keys::None),
            Scheme::Code { check, secrets } => check.needs_secret() && secrets.is_empty(),
        }
    }

    fn check<T: Trace>(
        &self,
        request: &Request<'_>,
        fetched: Option<&[u8]>,
        now: Timestamp,
        trace: &mut T,
    ) -> Result<Matched, Stop> {
        let no_secret = self.has_no_secret();
        if no_secret {
            trace.failed(check::SECRET, || "the source has no secret, so it refuses everything".to_owned());
            return Err(Refusal::NoSecret.into());
        }
        match &self.scheme {
            Scheme::Open => Ok(None),
            Scheme::Token { check, secrets } => {
                Ok(check.run(secrets, request, self.url(request), trace).map(|()| None)?)
            }
            Scheme::Jwt(check) => check.run(request, fetched, now, trace).map(|()| None),
            Scheme::Code { check, secrets } => {
                let incoming = code::Incoming { request, url: self.url(request), fetched, now };
                check.run(secrets, &incoming, trace).map(|()| None)
            }
            Scheme::Hmac { checks, keys, .. } => {
                // The first form whose signature header is there decides alone: a request can not choose among
                // several by sending more than one.
                let form = checks.iter().position(|check| check.location.is_in(request.headers)).unwrap_or(0);
                let url = self.url(request);
                Ok(checks[form].run(&keys[form], request, url, now, trace).map(|key| Some((form, key)))?)
            }
        }
    }

    fn url<'r>(&'r self, request: &Request<'r>) -> &'r str {
        self.public_url.as_deref().unwrap_or(request.url)
    }

    fn key(&self, matched: Matched) -> Option<&hmac::Key> {
        match (&self.scheme, matched) {
            (Scheme::Hmac { keys, .. }, Some((form, key))) => keys.get(form)?.get(key),
            _ => None,
        }
    }

    fn is_signed_with_public_key(&self, request: &Request<'_>, now: Timestamp) -> bool {
        let Scheme::Hmac { checks, .. } = &self.scheme else { return false };
        let Some(key) = self.handshakes.iter().find_map(|rule| rule.public_key(request)) else { return false };
        let key = std::slice::from_ref(key);
        checks.first().is_some_and(|check| check.run(key, request, self.url(request), now, &mut ()).is_ok())
    }

    fn identify(&self, request: &Request<'_>, values: &Values<'_>) -> Verified {
        let event_type = || match self.event_type.of(values, ".", Some("batch")) {
            Some(text) => EventType::from_provider(&text),
            None if self.provider.general => EventType::from_provider("unknown"),
            None => EventType::from_provider(self.provider.name),
        };
        let parts = self.batch.as_ref().map(|batch| batch.parts(request, values, event_type)).unwrap_or_default();
        let answer = Answer::to_event(self.provider.answer);
        match <[Part; 1]>::try_from(parts) {
            Ok([only]) => Verified::new(only.event_type, only.external_id, answer),
            Err(parts) => Verified::new(event_type(), self.event_id.of(values, ":", None), answer).with_parts(parts),
        }
    }
}

/// The value of the header that proves a request: there, once, and not empty.
fn required<'r, T: Trace>(headers: &'r HeaderMap, name: &HeaderName, trace: &mut T) -> Result<&'r [u8], Refusal> {
    if let Some(value) = single(headers, name).filter(|value| !value.is_empty()) {
        trace.passed(check::SIGNATURE_HEADER, || format!("header {name} is there"));
        return Ok(value);
    }
    let twice = headers.get_all(name).iter().count() > 1;
    let check = if twice { check::SIGNATURE_HEADER_TWICE } else { check::SIGNATURE_HEADER };
    trace.failed(check, || {
        format!("header {name} {}", if twice { "stands in the request more than once" } else { "is missing or empty" })
    });
    Err(if twice { Refusal::SignatureInvalid { check } } else { Refusal::SignatureMissing { check } })
}

/// The value of a header that stands in the request exactly once.
fn single<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Option<&'r [u8]> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_some() { None } else { Some(first.as_bytes()) }
}
