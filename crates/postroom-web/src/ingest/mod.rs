//! Receiving: `/in/{organization_slug}/{source_name}`.
//!
//! The body is read whole and verified as the raw bytes that arrived, before anything looks into it; it is answered only
//! when storage says that it is durable. This is the one path that has to carry everybody's load at once, so nothing is
//! parsed, copied or logged here that need not be.

mod answer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use hyper::body::Incoming;
use postroom_domain::verify::{self, Outcome, Refusal, Verifier, check};
use postroom_domain::{RejectionId, Timestamp};
use postroom_storage as storage;
use postroom_storage::receiver::{NewEvent, NewRejection, Recorded, Source};

use crate::app::{Shared, State as Web};
use crate::extract::body;
use crate::keys::NoKey;
use crate::observe::{Seen, around};
use crate::pages;
use crate::problem::{Answer, Code, Problem};

/// How long a provider should wait with a source whose stored secret can not be read: a person has to mend it.
const UNUSABLE_WAIT: Duration = Duration::from_secs(60);

/// How long it should wait when the key of its request can not be fetched.
const KEY_WAIT: Duration = Duration::from_secs(15);

/// The one route of this module.
pub(crate) const ROUTE: &str = "/in/{organization_slug}/{source_name}";

/// Whether a path is of [`ROUTE`].
pub(crate) fn is_for(path: &str) -> bool {
    let parts = path.strip_prefix("/in/").and_then(|rest| rest.split_once('/'));
    parts.is_some_and(|(slug, name)| !slug.is_empty() && !name.is_empty() && !name.contains('/'))
}

/// Answers a request to a path of [`ROUTE`].
pub(crate) async fn serve(state: &Shared, request: Request<Incoming>) -> Response {
    let (seen, is_head) = (Seen::of(state, &request, ROUTE), request.method() == Method::HEAD);
    let mut response = around(state, seen, async { receive(state, request).await.into_response() }).await;
    if is_head {
        *response.body_mut() = Body::empty();
    }
    response
}

/// How long accepting takes, from the request's headers to the answer. Storage counts the events themselves.
pub(crate) struct AcceptDuration(metrics::Histogram);

impl AcceptDuration {
    pub fn new() -> Self {
        let name = "postroom_accept_duration_seconds";
        metrics::describe_histogram!(name, "From a request's headers to the answer that its event is kept");
        metrics::describe_counter!("postroom_rejections_total", "Requests that failed verification, by code");
        Self(metrics::histogram!(name))
    }

    pub fn since(&self, began: Instant) {
        self.0.record(began.elapsed().as_secs_f64());
    }
}

async fn receive(state: &Shared, request: Request<Incoming>) -> Answer<Response> {
    let began = Instant::now();
    // The time of arrival: what a signed time is compared with, however slowly the body comes.
    let received_at = state.now();
    let (parts, body) = request.into_parts();
    let source = find(state, parts.uri.path()).await?;
    tracing::Span::current().record("organization.id", tracing::field::display(source.scope().organization()));
    let verifier = usable(&source)?;
    if parts.method != Method::POST && !verifier.provider().methods().contains(&parts.method.as_str()) {
        return other_method(&parts.method, verifier);
    }
    let whole = body::read(state, &parts.headers, body).await?;
    let mut arrived = Arrived { parts, body: whole.bytes.clone(), received_at, key: None };
    match arrived.outcome(state, verifier).await? {
        Outcome::Verified(_) if arrived.parts.method != Method::POST => other_method(&arrived.parts.method, verifier),
        Outcome::Verified(verified) => {
            let headers = forwarded(verifier, &arrived.parts.headers);
            let wanted = verified.answer().cloned();
            let events = NewEvent::all_received(&source, verified, headers, arrived.body, received_at);
            let recorded = record(state, events).await?;
            state.accept_duration.since(began);
            Ok(wanted.map_or_else(|| answer::recorded(&recorded), answer::wanted))
        }
        Outcome::Handshake(answer) => Ok(answer::wanted(answer)),
        Outcome::Learned { secret, answer } => {
            if state.app.storage.receiver.source_learn(&source, secret, state.now()).await? {
                return Ok(answer::wanted(answer));
            }
            let refusal = Refusal::SignatureInvalid { check: check::HANDSHAKE_SECRET };
            Err(arrived.refuse(state, source.clone(), refusal).await)
        }
        Outcome::Confirm(confirm) => match state.keys.visit(&confirm.url).await {
            Ok(()) => Ok(answer::wanted(confirm.answer())),
            Err(why) => Err(unreachable_provider(&format!("a subscription could not be confirmed: {why}"))),
        },
        // With the key in hand no other one is asked for.
        Outcome::NeedsKey(_) => Err(unreachable_provider("the key of a request could not be had")),
        Outcome::Refused(refusal) => Err(arrived.refuse(state, source.clone(), refusal).await),
    }
}

/// Records the events of one request, all or none; what is answered is that of the first.
pub(crate) async fn record(state: &Web, mut events: Vec<NewEvent>) -> Answer<Recorded> {
    let receiver = &state.app.storage.receiver;
    let recorded = match (events.len(), events.pop()) {
        (1, Some(only)) => receiver.event_record(only).await,
        (_, last) => {
            events.extend(last);
            let all = receiver.event_record_all(events).await;
            all.and_then(|all| all.into_iter().next().ok_or(storage::Error::NotFound { kind: "event" }))
        }
    };
    recorded.map_err(|error| Problem::from_storage(error, state.now()))
}

/// The provider should send again: what it keeps for its requests can not be had now.
fn unreachable_provider(cause: &str) -> Problem {
    Problem::caused(Code::SourceUnusable, cause.to_owned()).retry_after(KEY_WAIT)
}

/// A request that is whole.
struct Arrived {
    parts: Parts,
    body: Bytes,
    received_at: Timestamp,
    /// The key that it names, as it was fetched.
    key: Option<Bytes>,
}

impl Arrived {
    fn path(&self) -> &str {
        self.parts.uri.path_and_query().map_or("/", |path| path.as_str())
    }

    /// What checking comes to, with the key that the request names if it names one.
    async fn outcome(&mut self, state: &Web, verifier: &Verifier) -> Answer<Outcome> {
        let url = [&*state.app.public_url, self.path()].concat();
        let Parts { method, headers, .. } = &self.parts;
        let request = verify::Request { method: method.as_str(), url: &url, headers, body: &self.body };
        match state.keys.verify(verifier, &request, self.received_at, || state.now()).await {
            Ok((outcome, key)) => {
                self.key = key;
                Ok(outcome)
            }
            Err(NoKey::Absent(_)) => Ok(Outcome::Refused(Refusal::SignatureInvalid { check: check::KEY })),
            Err(NoKey::Unavailable(why)) => Err(unreachable_provider(&format!("the key of a request: {why}"))),
        }
    }

    fn ask<T>(&self, public_url: &str, question: impl FnOnce(&verify::Request<'_>) -> T) -> T {
        let url = format!("{public_url}{}", self.path());
        let method = self.parts.method.as_str();
        question(&verify::Request { method, url: &url, headers: &self.parts.headers, body: &self.body })
    }

    /// Keeps the request for its owner to see, and says what was wrong with it, but not which check found out.
    async fn refuse(self, state: &Web, source: Arc<Source>, refusal: Refusal) -> Problem {
        let code = refusal_code(refusal);
        metrics::counter!("postroom_rejections_total", "code" => code.as_str()).increment(1);
        let rejection = NewRejection {
            source: source.clone(),
            code: code.as_str(),
            check: refusal.check().to_owned(),
            method: self.parts.method.as_str().to_owned(),
            path: self.path().to_owned(),
            headers: self.parts.headers.iter().map(owned).collect(),
            body: self.body.clone(),
            received_at: self.received_at,
        };
        match state.app.storage.receiver.rejection_record(rejection).await {
            Ok(Some(id)) => self.tell(state, source, id, refusal).await,
            Ok(None) => {}
            Err(error) => tracing::warn!(error = %error, "a rejected request could not be kept"),
        }
        Problem::of(code)
    }

    /// Writes into the log what is most probably wrong, for those that are kept: that many a minute, and no more.
    async fn tell(self, state: &Web, source: Arc<Source>, id: RejectionId, refusal: Refusal) {
        let (span, public_url) = (tracing::Span::current(), state.app.public_url.clone());
        let tell = move || {
            let Ok(verifier) = &source.verifier else { return };
            let told = self
                .ask(&public_url, |request| verifier.explain_with_key(request, self.key.as_deref(), self.received_at));
            let cause = without_urls(told.likely_causes.first().map_or("", String::as_str));
            let (code, check, source) = (refusal.code(), refusal.check(), source.id);
            tracing::info!(parent: &span, rejection.id = %id, source.id = %source, code, check,
                "a request to {source} is refused, the check {check} fails; likely cause: {cause}; see {id}");
        };
        // Finding the cause computes a few hundred hashes of the body: not on a thread that carries others.
        let _ = tokio::task::spawn_blocking(tell).await;
    }
}

/// A URL may hold a password or a token in its query: who may see it asks for the rejection.
fn without_urls(text: &str) -> String {
    let words = text.split(' ').map(|word| if word.contains("://") { "(the URL of the rejection)" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

pub(crate) fn refusal_code(refusal: Refusal) -> Code {
    match refusal {
        Refusal::SignatureMissing { .. } => Code::SignatureMissing,
        Refusal::SignatureInvalid { .. } | Refusal::NoSecret => Code::SignatureInvalid,
        Refusal::TimestampOutOfTolerance { .. } => Code::TimestampOutOfTolerance,
    }
}

async fn find(state: &Web, path: &str) -> Answer<Arc<Source>> {
    let missing = || Problem::of(Code::SourceNotFound);
    // Slugs and names have no letter that would be percent-encoded.
    let (slug, name) = path.strip_prefix("/in/").and_then(|rest| rest.split_once('/')).ok_or_else(missing)?;
    let source = state.app.storage.receiver.source_find(slug, name).await?.ok_or_else(missing)?;
    if source.is_active {
        return Ok(source);
    }
    Err(Problem::of(Code::ProviderDisabled).member("error", "Provider disabled"))
}

fn usable(source: &Source) -> Answer<&Verifier> {
    source.verifier.as_ref().map_err(|errors| {
        let why = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let cause = format!("{} does not make a verifier: {why}", source.id);
        Problem::caused(Code::SourceUnusable, cause).retry_after(UNUSABLE_WAIT)
    })
}

fn other_method(method: &Method, verifier: &Verifier) -> Answer<Response> {
    let mut allow = verifier.provider().methods();
    if !allow.contains(&"OPTIONS") {
        allow.push("OPTIONS");
    }
    pages::method_not_allowed(method, allow.join(", "))
}

/// The headers that go on to endpoints.
pub(crate) fn forwarded(verifier: &Verifier, headers: &HeaderMap) -> Vec<(String, String)> {
    let goes_on = |name: &HeaderName| name == header::CONTENT_TYPE || verifier.forwards_header(name.as_str());
    headers.iter().filter(|(name, _)| goes_on(name)).map(owned).collect()
}

fn owned((name, value): (&HeaderName, &HeaderValue)) -> (String, String) {
    // Nearly all are UTF-8, and that is soon seen; where one is not takes longer to find.
    let text = String::from_utf8(value.as_bytes().to_vec());
    let text = text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    (name.as_str().to_owned(), text)
}
