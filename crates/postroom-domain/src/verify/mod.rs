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

mod batch;
mod candidate;
mod changed;
pub mod check;
mod compile;
mod diagnose;
mod explain;
mod form;
mod handshake;
mod hmac;
mod identity;
mod json;
mod key;
mod outcome;
mod sign;
mod template;
mod time;
mod token;
mod trace;

use http::{HeaderMap, HeaderName};

pub(crate) use changed::compacted;
pub use explain::{Explanation, Verdict};
pub(crate) use json::looks_like_json;
pub use outcome::{Answer, Outcome, Part, Refusal, Verified};
pub use sign::{SignedRequest, sign};
pub use trace::Step;

pub use crate::provider::FieldError;

use crate::event::EventType;
use crate::provider::Provider;
use crate::{Secret, Timestamp};
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
}

/// The compiled scheme with its keys.
#[derive(Debug)]
enum Scheme {
    Open,
    /// `keys` per check; the secrets as text and as key bytes are for the explainer.
    Hmac {
        checks: Vec<hmac::Check>,
        keys: Vec<Vec<aws_lc_rs::hmac::Key>>,
        secrets: Vec<Secret>,
        bytes: Vec<Secret>,
    },
    Token {
        check: token::Check,
        secrets: Vec<Secret>,
    },
}

/// Which check of a keyed-hash scheme passed, with which key.
type Matched = Option<(usize, usize)>;

impl Verifier {
    /// Checks a request: proved, a handshake to answer, or refused. Never panics, whatever the bytes are.
    #[must_use]
    pub fn verify(&self, request: &Request<'_>, now: Timestamp) -> Outcome {
        self.run(request, now, &mut ())
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
        if name.eq_ignore_ascii_case("authorization") {
            return false;
        }
        let same = |header: &HeaderName| header.as_str().eq_ignore_ascii_case(name);
        self.provider.forwards_header(name)
            || self.fields.reads_header(name)
            || match &self.scheme {
                Scheme::Open => false,
                // A token is a password for this server, not a signature: it stays here.
                Scheme::Token { .. } => false,
                Scheme::Hmac { checks, .. } => checks.iter().any(|check| check.headers().any(same)),
            }
    }

    fn run<T: Trace>(&self, request: &Request<'_>, now: Timestamp, trace: &mut T) -> Outcome {
        let values = self.fields.read(request);
        let unsigned = self.handshakes.iter().find_map(|rule| rule.before_verification(&values, request));
        if let Some(answer) = unsigned {
            return Outcome::Handshake(answer);
        }
        let matched = match self.check(request, now, trace) {
            Ok(matched) => matched,
            Err(_) if self.is_signed_with_public_key(request, now) => return Outcome::Handshake(Answer::empty()),
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let key = self.key(matched);
        if let Some(answer) = self.handshakes.iter().find_map(|rule| rule.after_verification(&values, key)) {
            return Outcome::Handshake(answer);
        }
        Outcome::Verified(self.identify(request, &values))
    }

    fn check<T: Trace>(&self, request: &Request<'_>, now: Timestamp, trace: &mut T) -> Result<Matched, Refusal> {
        let no_secret = match &self.scheme {
            Scheme::Open => false,
            Scheme::Hmac { secrets, .. } | Scheme::Token { secrets, .. } => secrets.is_empty(),
        };
        if no_secret {
            trace.failed(check::SECRET, || "the source has no secret, so it refuses everything".to_owned());
            return Err(Refusal::NoSecret);
        }
        match &self.scheme {
            Scheme::Open => Ok(None),
            Scheme::Token { check, secrets } => check.run(secrets, request, trace).map(|()| None),
            Scheme::Hmac { checks, keys, .. } => {
                // The first form whose signature header is there decides alone: a request can not choose among
                // several by sending more than one.
                let form = checks.iter().position(|check| check.location.is_in(request.headers)).unwrap_or(0);
                let url = self.url(request);
                checks[form].run(&keys[form], request, url, now, trace).map(|key| Some((form, key)))
            }
        }
    }

    fn url<'r>(&'r self, request: &Request<'r>) -> &'r str {
        self.public_url.as_deref().unwrap_or(request.url)
    }

    fn key(&self, matched: Matched) -> Option<&aws_lc_rs::hmac::Key> {
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
        let event_type = match self.event_type.of(values, ".", Some("batch")) {
            Some(text) => EventType::from_provider(&text),
            None if self.provider.general => EventType::from_provider("unknown"),
            None => EventType::from_provider(self.provider.name),
        };
        let parts = self.batch.as_ref().map(|batch| batch.parts(request, &event_type)).unwrap_or_default();
        let answer = Answer::to_event(self.provider.answer);
        match <[Part; 1]>::try_from(parts) {
            Ok([only]) => Verified::new(only.event_type, only.external_id, answer),
            Err(parts) => Verified::new(event_type, self.event_id.of(values, ":", None), answer).with_parts(parts),
        }
    }
}

/// The value of a header that stands in the request exactly once.
fn single<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Option<&'r [u8]> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_some() { None } else { Some(first.as_bytes()) }
}
