//! What senders of webhooks are answered.

use std::fmt::Write as _;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode, header};
use postroom_domain::verify;
use postroom_storage::receiver::Recorded;

/// The ordinary answer to an event that is kept.
pub(super) fn recorded(recorded: &Recorded) -> Response {
    let mut text = String::with_capacity(80);
    let _ = write!(text, r#"{{"id":"{}","duplicate":{}}}"#, recorded.id, recorded.duplicate);
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer in the exact form that a provider expects.
pub(super) fn wanted(answer: verify::Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    if let Some(content_type) = answer.content_type {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    for (name, value) in answer.headers {
        // A value that was taken out of a request and cannot stand in a header is left out.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    response
}
