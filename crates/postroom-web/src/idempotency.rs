//! `Idempotency-Key` on every `POST` under `/v1`: the same key with the same request within 24 hours gets the stored
//! answer, and nothing is done twice.
//!
//! Only whole success is stored. A request that was refused did nothing, so its key is given back and the same request may be
//! sent again, for instance after the limit was lifted.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use postroom_storage as storage;
use postroom_storage::api::{Idempotency, IdempotencyClaim, StoredAnswer};
use tracing::Instrument as _;

use crate::app::{Shared, sha256};
use crate::extract::auth::Acts;
use crate::extract::{Caller, body};
use crate::problem::{Answer, Code, Problem};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const KEY_CHARS_MAX: usize = 255;
/// A claim whose request never ended is given up after a minute.
const IN_USE_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// Middleware inside the one that proves the caller.
pub(crate) async fn idempotent(State(state): State<Shared>, request: Request, next: Next) -> Answer<Response> {
    if request.method() != Method::POST || !request.headers().contains_key(KEY) {
        return Ok(next.run(request).await);
    }
    let key = key(request.headers())?;
    let (parts, body) = request.into_parts();
    let caller = parts.extensions.get::<Caller>().cloned().ok_or_else(|| Problem::of(Code::InternalError))?;
    let whole = body::read(&state, &parts.headers, body).await?;
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let claim = IdempotencyClaim { key, request_hash: request_hash(target, &whole.bytes) };
    match begin(&state, &caller, &claim).await? {
        Idempotency::Answered(answer) => return Ok(replay(answer)),
        Idempotency::Reused => return Err(Problem::of(Code::IdempotencyKeyReused)),
        Idempotency::InProgress => return Err(Problem::of(Code::IdempotencyKeyInUse).retry_after(IN_USE_WAIT)),
        Idempotency::New => {}
    }
    // In a task of its own, which a stop waits for: when the caller hangs up the work still ends, and its answer is there
    // for the next try.
    let tasks = state.app.tasks.clone();
    let work = async move {
        let response = next.run(Request::from_parts(parts, Body::from(whole.bytes.clone()))).await;
        keep(&state, &caller, claim, response).await
    };
    let done = tasks.spawn(work.in_current_span()).await;
    done.unwrap_or_else(|_| Err(Problem::of(Code::InternalError)))
}

fn key(headers: &HeaderMap) -> Answer<String> {
    let mut all = headers.get_all(KEY).iter();
    let text = all.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let good = (1..=KEY_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, 0x21..=0x7e));
    if good && all.next().is_none() { Ok(text.to_owned()) } else { Err(Problem::of(Code::InvalidIdempotencyKey)) }
}

/// What makes two requests the same: method (always `POST`), path, query and body.
fn request_hash(target: &str, body: &[u8]) -> [u8; 32] {
    let mut text = Vec::with_capacity(target.len() + body.len() + 8);
    text.extend_from_slice(b"POST ");
    text.extend_from_slice(target.as_bytes());
    text.push(0);
    text.extend_from_slice(body);
    sha256(&text)
}

fn replay(answer: StoredAnswer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (REPLAYED, HeaderValue::from_static("true")),
    ];
    (status, headers, answer.body).into_response()
}

/// Claims a key. Keys belong to an organization, or to the super admin who acts outside of one.
async fn begin(state: &Shared, caller: &Caller, claim: &IdempotencyClaim) -> storage::Result<Idempotency> {
    let (storage, now) = (&state.app.storage, state.now());
    match caller.acts() {
        Acts::In(scope) => storage.api.idempotency_begin(scope, claim.clone(), now).await,
        Acts::OnPlatform(proof) => storage.platform.idempotency_begin(proof, claim.clone(), now).await,
    }
}

/// Stores the answer of a claimed key; `None` gives the claim back.
async fn finish(
    state: &Shared,
    caller: &Caller,
    claim: IdempotencyClaim,
    answer: Option<StoredAnswer>,
) -> storage::Result<()> {
    let (storage, now) = (&state.app.storage, state.now());
    match caller.acts() {
        Acts::In(scope) => storage.api.idempotency_finish(scope, claim, answer, now).await,
        Acts::OnPlatform(proof) => storage.platform.idempotency_finish(proof, claim, answer, now).await,
    }
}

/// Stores a success, gives the key back for anything else.
async fn keep(state: &Shared, caller: &Caller, claim: IdempotencyClaim, response: Response) -> Answer<Response> {
    // A batch of which a part was refused is 207: that part may be sent again.
    if !response.status().is_success() || response.status() == StatusCode::MULTI_STATUS {
        finish(state, caller, claim, None).await?;
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body: Bytes = body.collect().await.map_err(|error| Problem::caused(Code::InternalError, error))?.to_bytes();
    let answer = StoredAnswer { status: parts.status.as_u16(), body: body.clone() };
    if let Err(error) = finish(state, caller, claim, Some(answer)).await {
        // The work is done and must be said so: telling of a failure would make the caller do it again.
        tracing::warn!(error = %error, "the answer of an Idempotency-Key could not be stored");
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_1_to_255_visible_characters_sent_once() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(KEY, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            key(&headers).ok()
        };
        assert_eq!(read(&["order-42"]).as_deref(), Some("order-42"));
        assert!(read(&[&"k".repeat(255)]).is_some());
        for bad in [&[""][..], &["a b"], &["é"], &["a", "a"], &[&"k".repeat(256)]] {
            assert!(read(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn path_and_body_cannot_be_shifted_into_each_other() {
        assert_ne!(request_hash("/v1/events", b"x"), request_hash("/v1/eventsx", b""));
    }
}
