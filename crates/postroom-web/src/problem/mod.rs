//! Every error answer. The one place that knows which status code an error of another crate becomes.
//!
//! A [`Problem`] carries no request id: handlers do not know it. It travels in the response's extensions, and
//! `crate::observe` writes the body when the request id is known.

mod code;
pub(crate) mod fields;

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use postroom_domain::Timestamp;
use postroom_storage::{self as storage, TenantUnavailable};
use serde::Serialize;
use serde_json::Value;

pub use code::{Code, catalogue_markdown};
pub use fields::FieldProblem;

/// What handlers answer with.
pub type Answer<T> = Result<T, Problem>;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An error answer under way.
#[derive(Debug)]
pub struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    code: Code,
    detail: Cow<'static, str>,
    errors: Vec<FieldProblem>,
    member: Option<(&'static str, Value)>,
    headers: HeaderMap,
    cause: Option<BoxError>,
}

impl Problem {
    /// A problem with one sentence for people, about this occurrence.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let detail = detail.into();
        Self(Box::new(Inner { code, detail, errors: Vec::new(), member: None, headers: HeaderMap::new(), cause: None }))
    }

    /// A problem about which the catalogue says what to do.
    #[must_use]
    pub fn of(code: Code) -> Self {
        Self::new(code, code.advice().trim_end_matches('.'))
    }

    /// A problem whose cause is for the log and never for the caller.
    pub fn caused(code: Code, cause: impl Into<BoxError>) -> Self {
        let mut problem = Self::of(code);
        problem.0.cause = Some(cause.into());
        problem
    }

    /// A 422 over these fields.
    #[must_use]
    pub fn invalid(errors: Vec<FieldProblem>) -> Self {
        let detail = match errors.as_slice() {
            [one] => format!("{}: {}", one.field, one.detail),
            many => format!("{} fields are not valid", many.len()),
        };
        let mut problem = Self::new(Code::ValidationFailed, detail);
        problem.0.errors = errors;
        problem
    }

    /// The cursor does not belong to the list it was sent to.
    #[must_use]
    pub fn invalid_cursor() -> Self {
        let mut problem = Self::of(Code::InvalidCursor);
        problem.0.errors = vec![FieldProblem::new("cursor", "invalid_cursor", "take next_cursor of the page before")];
        problem
    }

    /// Adds `Retry-After`, in whole seconds, at least one.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        self.header(header::RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)))
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// Adds one member of this problem's own to the document.
    #[must_use]
    pub fn member(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.member = Some((name, value.into()));
        self
    }

    /// Which problem it is.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The sentence about this occurrence.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// What is for the log only.
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as _)
    }

    /// What is for the caller, without the problem.
    pub(crate) fn into_detail(self) -> (String, Vec<FieldProblem>) {
        (self.0.detail.into_owned(), self.0.errors)
    }

    /// Tells the operator what he should know of it. What callers did wrong is their business, and is told to them.
    pub(crate) fn report(&self, request_id: Option<&str>) {
        let code = self.code().as_str();
        match self.cause().map(chain) {
            Some(chain) if self.code() == Code::InternalError => {
                tracing::error!(code, request_id, cause = %chain, "the request failed inside: {chain}");
            }
            // It is one organization's, and the operator is told once a minute.
            Some(chain) if self.cause().is_some_and(<dyn std::error::Error>::is::<TenantUnavailable>) => {
                tracing::debug!(code, request_id, cause = %chain, "the request was put off: {chain}");
            }
            Some(chain) if PUT_OFF.is_time() => {
                tracing::warn!(code, request_id, cause = %chain, "requests are put off, this is one of them: {chain}");
            }
            Some(chain) => tracing::debug!(code, request_id, cause = %chain, "the request was put off: {chain}"),
            None if self.code() == Code::InternalError => {
                tracing::error!(code, request_id, "the request failed inside; the line before says how");
            }
            None if self.code().status().is_server_error() && PUT_OFF.is_time() => {
                tracing::warn!(code, request_id, "requests are put off, this is one of them");
            }
            None => tracing::debug!(code, request_id, "the request was refused"),
        }
    }

    /// The document.
    pub(crate) fn document(&self, public_url: &str, request_id: &str) -> Bytes {
        #[derive(Serialize)]
        struct Document<'a> {
            r#type: String,
            title: &'static str,
            status: u16,
            detail: &'a str,
            code: &'static str,
            request_id: &'a str,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            errors: &'a [FieldProblem],
            #[serde(flatten)]
            member: Option<std::collections::BTreeMap<&'static str, &'a Value>>,
        }
        let inner = &*self.0;
        let document = Document {
            r#type: format!("{public_url}/problems/{}", inner.code.as_str()),
            title: inner.code.title(),
            status: inner.code.status().as_u16(),
            detail: &inner.detail,
            code: inner.code.as_str(),
            request_id,
            errors: &inner.errors,
            member: inner.member.as_ref().map(|(name, value)| [(*name, value)].into()),
        };
        // Texts and numbers only: this cannot fail, and an empty body is the least bad answer if it did.
        serde_json::to_vec(&document).unwrap_or_default().into()
    }
}

/// A server that has no room would only have less if it wrote a line for everybody it turns away.
static PUT_OFF: OnceASecond = OnceASecond(parking_lot::Mutex::new(None));

struct OnceASecond(parking_lot::Mutex<Option<std::time::Instant>>);

impl OnceASecond {
    fn is_time(&self) -> bool {
        let mut last = self.0.lock();
        let is_time = last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1));
        if is_time {
            *last = Some(std::time::Instant::now());
        }
        is_time
    }
}

/// A cause and the causes behind it, escaped: it may quote what came from outside.
fn chain(cause: &(dyn std::error::Error + 'static)) -> String {
    let mut text = cause.to_string();
    let mut next = cause.source();
    while let Some(error) = next {
        text += &format!(": {error}");
        next = error.source();
    }
    text.escape_debug().to_string()
}

/// Where a problem waits for its request id.
#[derive(Debug, Clone)]
pub(crate) struct Pending(pub std::sync::Arc<Problem>);

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        let mut response = Response::new(axum::body::Body::empty());
        *response.status_mut() = self.0.code.status();
        *response.headers_mut() = std::mem::take(&mut self.0.headers);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response.extensions_mut().insert(Pending(std::sync::Arc::new(self)));
        response
    }
}

impl From<Vec<FieldProblem>> for Problem {
    fn from(errors: Vec<FieldProblem>) -> Self {
        Self::invalid(errors)
    }
}

/// How long a sender should wait when a bound was reached.
const OVERLOADED_WAIT: Duration = Duration::from_secs(1);
/// How long a sender should wait when the database does not answer.
const UNAVAILABLE_WAIT: Duration = Duration::from_secs(5);

impl Problem {
    /// The bodies being read, or another bound of this process.
    #[must_use]
    pub fn overloaded() -> Self {
        Self::of(Code::Overloaded).retry_after(OVERLOADED_WAIT)
    }

    /// What an error of storage becomes. `now` is needed for `Retry-After`.
    #[must_use]
    pub fn from_storage(error: storage::Error, now: Timestamp) -> Self {
        match error {
            storage::Error::NotFound { kind } => Self::of(not_found(kind)),
            storage::Error::Taken { field } => match field {
                storage::error::Unique::OrganizationSlug => Self::of(Code::SlugTaken),
                storage::error::Unique::SourceName => Self::of(Code::SourceNameTaken),
                storage::error::Unique::MandrillWebhookSecret => Self::of(Code::WebhookSecretInUse),
                storage::error::Unique::UserEmail => Self::of(Code::EmailTaken),
            },
            storage::Error::Conflict { code, detail } => conflict(code, detail),
            storage::Error::Stale => {
                Self::new(Code::Conflict, "others are changing it at the same time: send the request again")
            }
            storage::Error::LimitReached { limit, resets_at } => {
                let detail =
                    format!("the limit of {limit} events a month is reached; counting starts again at {resets_at}");
                Self::new(Code::WebhookLimitReached, detail).retry_after(resets_at.since(now))
            }
            storage::Error::BadPosition => Self::invalid_cursor(),
            storage::Error::Overloaded => Self::overloaded(),
            storage::Error::Unavailable(cause) => {
                Self::caused(Code::StorageUnavailable, cause).retry_after(UNAVAILABLE_WAIT)
            }
            storage::Error::Internal(cause) => Self::caused(Code::InternalError, cause),
        }
    }
}

impl From<storage::Error> for Problem {
    /// For calls that cannot run into the monthly limit; those that can use [`Problem::from_storage`].
    fn from(error: storage::Error) -> Self {
        let now = match &error {
            storage::Error::LimitReached { resets_at, .. } => *resets_at,
            _ => Timestamp::ZERO,
        };
        Self::from_storage(error, now)
    }
}

fn not_found(kind: &str) -> Code {
    match kind {
        "organization" => Code::OrganizationNotFound,
        "source" => Code::SourceNotFound,
        "endpoint" | "endpoint secret" => Code::EndpointNotFound,
        "event" => Code::EventNotFound,
        "delivery" => Code::DeliveryNotFound,
        "dead letter" => Code::DeadLetterNotFound,
        "rejection" => Code::RejectionNotFound,
        "API key" => Code::ApiKeyNotFound,
        "user" => Code::UserNotFound,
        _ => Code::RouteNotFound,
    }
}

/// Storage names the conflict; the catalogue knows it, or it is shown as a plain conflict with the same detail.
fn conflict(code: &str, detail: String) -> Problem {
    let known = Code::parse(code).filter(|code| code.status() == http::StatusCode::CONFLICT);
    debug_assert!(known.is_some(), "storage answers with a conflict that the catalogue does not know: {code}");
    Problem::new(known.unwrap_or(Code::Conflict), detail)
}

#[cfg(test)]
mod tests;
