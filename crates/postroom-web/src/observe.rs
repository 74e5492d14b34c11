//! Around every request: its id, its span, its figures, the headers of every answer, and the last net for panics.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use foldhash::HashMap;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use metrics::{Counter, Histogram};
use parking_lot::RwLock;
use tracing::{Instrument as _, Level, Span};

use crate::app::Shared;
use crate::client::ClientAddress;
use crate::origin::RequestId;
use crate::problem::{Code, Pending, Problem};

/// In and out: by it one request is found in every log.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// The outermost layer of what the framework routes.
pub(crate) async fn observe(State(state): State<Shared>, mut request: Request, next: Next) -> Response {
    let client = ClientAddress::of(request.extensions(), request.headers(), &state.app.trusted_proxies);
    request.extensions_mut().insert(client);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let seen = Seen::of(&state, &request, route.as_ref().map_or("none", MatchedPath::as_str));
    request.extensions_mut().insert(RequestId(seen.id.clone()));
    around(&state, seen, next.run(request)).await
}

/// What is known of a request before it is handled.
pub(crate) struct Seen<'r> {
    began: Instant,
    route: &'r str,
    method: &'static str,
    id: HeaderValue,
    /// Whether its headers are more than a request may have.
    is_too_large: bool,
}

impl<'r> Seen<'r> {
    pub fn of<B>(state: &Shared, request: &http::Request<B>, route: &'r str) -> Self {
        Self {
            began: Instant::now(),
            route,
            method: method_name(request.method()),
            id: request_id(state, request.headers()),
            is_too_large: headers_bytes(request.headers()) > state.app.limits.headers_bytes_max,
        }
    }
}

/// Handles a request, with all that stands around it.
pub(crate) async fn around(state: &Shared, seen: Seen<'_>, handling: impl Future<Output = Response>) -> Response {
    let Seen { began, route, method, id, is_too_large } = seen;
    let span = span(method, route, &id);
    let mut response = if is_too_large {
        Problem::of(Code::HeadersTooLarge).into_response()
    } else {
        let running = AssertUnwindSafe(handling).catch_unwind().instrument(span.clone());
        // The panic itself was reported by the panic hook, where it happened.
        running.await.unwrap_or_else(|_| Problem::of(Code::InternalError).into_response())
    };
    let status = response.status();
    span.record("status", status.as_u16());
    if let Some(Pending(problem)) = response.extensions_mut().remove() {
        let _entered = span.enter();
        problem.report(id.to_str().ok());
        write(state, &mut response, &problem, &id);
    }
    tracing::debug!(parent: &span, "answered with {status}");
    finish(response.headers_mut(), id);
    state.routes.record(route, method, status, began);
    response
}

/// The span of a request. Where everybody's events come in it exists only when somebody debugs: a span that is kept for a
/// line that is hardly ever written would cost more there than checking a signature. What is logged of a problem carries
/// the request id by itself.
fn span(method: &'static str, route: &str, id: &HeaderValue) -> Span {
    macro_rules! request {
        ($level:expr) => {
            tracing::span!(
                $level,
                "request",
                method,
                route,
                request_id = id.to_str().unwrap_or_default(),
                status = tracing::field::Empty,
                organization.id = tracing::field::Empty,
            )
        };
    }
    let busy = route == crate::ingest::ROUTE || (route == "/v1/events" && method == "POST");
    if busy { request!(Level::DEBUG) } else { request!(Level::INFO) }
}

fn write(state: &Shared, response: &mut Response, problem: &Problem, id: &HeaderValue) {
    let document = problem.document(&state.app.public_url, id.to_str().unwrap_or_default());
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(document.len()));
    *response.body_mut() = Body::from(document);
}

fn finish(headers: &mut HeaderMap, id: HeaderValue) {
    headers.insert(REQUEST_ID, id);
    headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// Names and values, and the four bytes that separate and end each.
fn headers_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

fn request_id(state: &Shared, headers: &HeaderMap) -> HeaderValue {
    let good = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        (1..=64).contains(&bytes.len()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    headers.get(REQUEST_ID).filter(good).cloned().unwrap_or_else(|| state.request_ids.next())
}

/// Makes request ids: unique, cheap, and telling nothing about how many there were.
pub(crate) struct RequestIds {
    process: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub fn new() -> Self {
        let mut random = [0; 16];
        postroom_domain::secret::fill_random(&mut random);
        let [process, next] = [&random[..8], &random[8..]]
            .map(|half| u64::from_be_bytes(half.try_into().expect("half of sixteen is eight")));
        Self { process, next: AtomicU64::new(next) }
    }

    pub fn next(&self) -> HeaderValue {
        // The finalizer of SplitMix64 maps counting numbers one to one onto numbers without visible order.
        let mut mixed = self.next.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let mut text = *b"req_00000000000000000000000000000000";
        let _ = hex::encode_to_slice(self.process.to_be_bytes(), &mut text[4..20]);
        let _ = hex::encode_to_slice(mixed.to_be_bytes(), &mut text[20..36]);
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("req_0"))
    }
}

/// An id where no state is at hand.
pub(crate) fn fresh_request_id() -> HeaderValue {
    RequestIds::new().next()
}

/// Methods are text of the caller's choice: only those that mean something become a label.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// `postroom_http_requests_total` and `postroom_http_request_duration_seconds`, with their handles kept: finding a handle
/// by its labels costs more than counting.
#[derive(Default)]
pub(crate) struct RouteMetrics(RwLock<HashMap<String, Vec<Figures>>>);

struct Figures {
    method: &'static str,
    status: StatusCode,
    requests: Counter,
    duration: Histogram,
}

impl RouteMetrics {
    fn record(&self, route: &str, method: &'static str, status: StatusCode, began: Instant) {
        let seconds = began.elapsed().as_secs_f64();
        let count = |routes: &HashMap<String, Vec<Figures>>| {
            let known = routes.get(route)?.iter().find(|row| row.method == method && row.status == status)?;
            known.requests.increment(1);
            known.duration.record(seconds);
            Some(())
        };
        if count(&self.0.read()).is_none() {
            let mut routes = self.0.write();
            routes.entry(route.to_owned()).or_default().push(Figures::new(route, method, status));
            count(&routes);
        }
    }
}

impl Figures {
    fn new(route: &str, method: &'static str, status: StatusCode) -> Self {
        metrics::describe_counter!("postroom_http_requests_total", "Requests answered, by route, method and status");
        metrics::describe_histogram!(
            "postroom_http_request_duration_seconds",
            "From a request's headers to its answer"
        );
        let (route, code) = (route.to_owned(), status.as_str().to_owned());
        let requests = metrics::counter!(
            "postroom_http_requests_total", "route" => route.clone(), "method" => method, "status" => code
        );
        let duration =
            metrics::histogram!("postroom_http_request_duration_seconds", "route" => route, "method" => method);
        Self { method, status, requests, duration }
    }
}
