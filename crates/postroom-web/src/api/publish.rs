//! `POST /v1/events` and `/v1/events/batch`: the organization's own events.

use std::borrow::Cow;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::join_all;
use http::StatusCode;
use postroom_domain::event::{EventType, ExternalId};
use postroom_domain::{EventId, Timestamp};
use postroom_storage::Scope;
use postroom_storage::receiver::NewEvent;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::{Shared, State as Web};
use crate::extract::{InOrganization, JsonBytes, read_json};
use crate::problem::fields::Errors;
use crate::problem::{Answer, FieldProblem, Problem};

/// The most events of one batch.
const BATCH_MAX: usize = 500;

pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(send)).routes(routes!(send_batch))
}

/// An event to send.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SendEvent<'a> {
    /// What kind of event it is: letters, digits, `_ - : /` and single dots between words; at most 128 characters.
    #[serde(rename = "type", borrow)]
    #[schema(value_type = String, example = "order.paid", max_length = 128)]
    event_type: Cow<'a, str>,
    /// Any JSON. Endpoints get its bytes as they are here.
    #[serde(borrow)]
    #[schema(value_type = Value, example = json!({"order": 42}))]
    data: &'a RawValue,
    /// Your own id of the event: sent again within `POSTROOM_DEDUPE_DAYS` it is recognised and not sent twice.
    #[serde(default, borrow)]
    #[schema(value_type = Option<String>, example = "order-42-paid", max_length = 255)]
    id: Option<Cow<'a, str>>,
}

/// What became of an event.
#[derive(Serialize, ToSchema)]
struct SentEvent {
    /// The event's id; of the first one if it is a duplicate.
    #[schema(value_type = String, example = "evt_0198c1f2a7b37d3e9a4c5b6d7e8f9012")]
    id: EventId,
    /// Whether an event with the same `id` of yours was accepted before.
    duplicate: bool,
    /// How many endpoints it goes to.
    deliveries: u32,
}

/// Send an event.
///
/// It is answered when the event and its deliveries are durable. Endpoints get
/// `{"type": ..., "timestamp": ..., "data": ...}`.
#[utoipa::path(post, path = "/v1/events", tag = "events", request_body = SendEvent<'_>,
    responses((status = 202, description = "The event is kept and on its way", body = SentEvent)))]
async fn send(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    JsonBytes(body): JsonBytes,
) -> Answer<(StatusCode, Json<SentEvent>)> {
    let began = Instant::now();
    let sent = record(&state, &scope, read_json(&body.bytes)?, began).await?;
    Ok((StatusCode::ACCEPTED, Json(sent)))
}

/// Checks and records one event.
async fn record(state: &Web, scope: &Scope, event: SendEvent<'_>, began: Instant) -> Answer<SentEvent> {
    let mut errors = Errors::default();
    let event_type = errors.take("type", EventType::parse(&event.event_type));
    let id = event.id.and_then(|id| errors.take("id", ExternalId::parse(&id)));
    let event_type = errors.finish(event_type)?;
    let now = state.now();
    let body = envelope(&event_type, now, event.data);
    let event = NewEvent::sent(scope.clone(), event_type, id, body, now);
    let recorded = state.app.storage.receiver.event_record(event).await;
    let recorded = recorded.map_err(|error| Problem::from_storage(error, now))?;
    state.accept_duration.since(began);
    Ok(SentEvent { id: recorded.id, duplicate: recorded.duplicate, deliveries: recorded.deliveries })
}

/// What endpoints get. An event type needs no escaping: it has no letter that JSON would escape.
pub(super) fn envelope(event_type: &EventType, now: Timestamp, data: &RawValue) -> Bytes {
    format!(r#"{{"type":"{event_type}","timestamp":"{now}","data":{}}}"#, data.get()).into()
}

/// Events to send in one request.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SendBatch<'a> {
    /// 1 to 500 events.
    #[serde(borrow)]
    #[schema(value_type = Vec<SendEvent<'_>>, min_items = 1, max_items = 500)]
    events: Vec<&'a RawValue>,
}

/// One result for each event of the batch, in the same order.
#[derive(Serialize, ToSchema)]
struct BatchAnswer {
    data: Vec<BatchResult>,
}

/// What became of one event of a batch.
#[derive(Serialize, ToSchema)]
struct BatchResult {
    /// The HTTP status that the event alone would have been answered with.
    #[schema(example = 202)]
    status: u16,
    /// The event's id, when it was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    id: Option<EventId>,
    /// Whether it had been accepted before.
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate: Option<bool>,
    /// How many endpoints it goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<u32>,
    /// Why not, when it was not accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<BatchError>,
}

/// Why one of many was not accepted.
#[derive(Serialize, ToSchema)]
pub(super) struct BatchError {
    /// The code of the problem.
    #[schema(example = "validation_failed")]
    code: &'static str,
    /// One sentence for people.
    detail: String,
    /// Refused fields.
    errors: Vec<FieldProblem>,
}

impl BatchError {
    /// What is told of a problem; what is not for the caller goes to the log.
    pub(super) fn of(problem: Problem) -> Self {
        problem.report(None);
        let code = problem.code().as_str();
        let (detail, errors) = problem.into_detail();
        Self { code, detail, errors }
    }
}

/// Send up to 500 events.
///
/// Every event has a result of its own. 202 when all were accepted, 207 when some were not: send only those again. With
/// an `Idempotency-Key` the answer is stored only when all were accepted.
#[utoipa::path(post, path = "/v1/events/batch", tag = "events", request_body = SendBatch<'_>,
    responses((status = 202, description = "All events are kept and on their way", body = BatchAnswer),
              (status = 207, description = "Some events were not accepted", body = BatchAnswer)))]
async fn send_batch(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    JsonBytes(body): JsonBytes,
) -> Answer<Response> {
    let began = Instant::now();
    let batch: SendBatch<'_> = read_json(&body.bytes)?;
    if !(1..=BATCH_MAX).contains(&batch.events.len()) {
        return Err(vec![FieldProblem::new("events", "out_of_range", "1 to 500 events")].into());
    }
    // All at once, so that they share a commit.
    let data = join_all(batch.events.iter().map(|event| one(&state, &scope, event, began))).await;
    let all = data.iter().all(|result| result.error.is_none());
    let status = if all { StatusCode::ACCEPTED } else { StatusCode::MULTI_STATUS };
    Ok((status, Json(BatchAnswer { data })).into_response())
}

async fn one(state: &Web, scope: &Scope, event: &RawValue, began: Instant) -> BatchResult {
    let recorded = match read_json(event.get().as_bytes()) {
        Ok(event) => record(state, scope, event, began).await,
        Err(problem) => Err(problem),
    };
    match recorded {
        Ok(SentEvent { id, duplicate, deliveries }) => BatchResult {
            status: StatusCode::ACCEPTED.as_u16(),
            id: Some(id),
            duplicate: Some(duplicate),
            deliveries: Some(deliveries),
            error: None,
        },
        Err(problem) => {
            let status = problem.code().status().as_u16();
            BatchResult { status, id: None, duplicate: None, deliveries: None, error: Some(BatchError::of(problem)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delivered_body_has_the_bytes_of_data_as_they_were_sent() {
        let data: &RawValue = serde_json::from_str("{ \"a\" : 1.50, \"a\":[ ] }").unwrap();
        let body = envelope(&EventType::parse("order.paid").unwrap(), Timestamp::ZERO, data);
        let expected =
            "{\"type\":\"order.paid\",\"timestamp\":\"1970-01-01T00:00:00.000Z\",\"data\":{ \"a\" : 1.50, \"a\":[ ] }}";
        assert_eq!(body, expected);
    }
}
