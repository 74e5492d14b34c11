//! `/v1/deliveries` and `/v1/dead-letters`: what became of each event at each endpoint, and what a person can do.

use std::str::FromStr;

use axum::Json as Body;
use axum::extract::State;
use postroom_domain::delivery::{AttemptError, DeadReason, DeliveryStatus};
use postroom_domain::{AttemptId, DeliveryId, EndpointId, EventId, Invalid, Timestamp};
use postroom_storage as storage;
use postroom_storage::api::{AttemptView, DeliveryFilter, DeliveryView};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::endpoints::Empty;
use super::events::{HeaderJson, headers_json};
use super::payload::{self, Encoding};
use crate::app::Shared;
use crate::extract::{DeadLetter, Id, InOrganization, JsonOrEmpty, List, PageParams, Paged};
use crate::problem::fields::Errors;
use crate::problem::{Answer, Code, Problem};

pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(retry))
        .routes(routes!(dead_letters))
        .routes(routes!(dead_letter))
        .routes(routes!(requeue))
        .routes(routes!(discard))
}

/// Where a delivery stands.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "only for the document: the domain's enum is what is written")]
pub(super) enum Status {
    Pending,
    Processing,
    Success,
    Failed,
    DeadLetter,
    Discarded,
}

/// Why a delivery became a dead letter.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "only for the document: the domain's enum is what is written")]
enum Reason {
    RetriesExhausted,
    EndpointGone,
    EndpointDisabled,
    EndpointDeleted,
    OrganizationInactive,
}

/// How the connection of an attempt failed.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "only for the document: the domain's enum is what is written")]
enum ErrorName {
    BlockedAddress,
    Dns,
    Connect,
    Tls,
    Timeout,
    Protocol,
    Configuration,
}

/// A delivery: one event for one endpoint.
#[derive(Serialize, ToSchema)]
pub(super) struct DeliveryJson {
    #[schema(value_type = String, example = "dlv_0198c1f2a7b37d3e9a4c5b6d7e8f9012000000010000")]
    pub id: DeliveryId,
    #[schema(value_type = String)]
    event_id: EventId,
    #[schema(example = "order.paid")]
    pub event_type: String,
    #[schema(value_type = String)]
    pub endpoint_id: EndpointId,
    #[schema(value_type = Status)]
    status: DeliveryStatus,
    /// Attempts so far.
    attempt_count: u32,
    /// HTTP status of the newest attempt.
    #[schema(required = true)]
    last_response_status: Option<u16>,
    /// How the connection of the newest attempt failed.
    #[schema(required = true, value_type = Option<ErrorName>)]
    last_error: Option<AttemptError>,
    #[schema(required = true, value_type = Option<String>, format = DateTime)]
    last_attempt_at: Option<Timestamp>,
    #[schema(required = true, value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Timestamp>,
    /// Why it is a dead letter.
    #[schema(required = true, value_type = Option<Reason>)]
    dead_letter_reason: Option<DeadReason>,
    /// Since when it is a dead letter.
    #[schema(required = true, value_type = Option<String>, format = DateTime)]
    dead_letter_at: Option<Timestamp>,
    /// When its event was accepted, or its replay was asked for.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Who asked for the replay: the id of an API key or a user, `super_admin` or `operator`; null of a delivery that came
    /// with its event.
    #[schema(required = true)]
    created_by: Option<String>,
}

impl From<DeliveryView> for DeliveryJson {
    fn from(view: DeliveryView) -> Self {
        Self {
            id: view.id,
            event_id: view.event,
            event_type: view.event_type,
            endpoint_id: view.endpoint,
            status: view.status,
            attempt_count: view.attempts,
            last_response_status: view.last_status,
            last_error: view.last_error,
            last_attempt_at: view.last_attempt_at,
            next_attempt_at: view.next_attempt_at,
            dead_letter_reason: view.dead_reason,
            dead_letter_at: view.dead_at,
            created_at: view.created_at,
            created_by: view.created_by,
        }
    }
}

/// One HTTP try of a delivery.
#[derive(Serialize, ToSchema)]
pub(super) struct AttemptJson {
    #[schema(value_type = String, example = "att_0198c1f2a7b37d3e9a4c5b6d7e8f9012")]
    id: AttemptId,
    /// 1 for the first.
    number: u32,
    /// Where it went.
    url: String,
    #[schema(required = true)]
    response_status: Option<u16>,
    response_headers: Vec<HeaderJson>,
    /// The first 16 KiB of the answer's body.
    #[schema(required = true)]
    response_body: Option<String>,
    #[schema(required = true)]
    response_body_encoding: Option<Encoding>,
    /// How the connection failed.
    #[schema(required = true, value_type = Option<ErrorName>)]
    error: Option<AttemptError>,
    /// From the look-up of the name to the last byte.
    duration_ms: u64,
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
}

impl From<AttemptView> for AttemptJson {
    fn from(view: AttemptView) -> Self {
        let attempt = view.attempt;
        let response_status = attempt.response.as_ref().map(|response| response.status);
        let body = attempt.response.as_ref().map(|response| payload::show_as_text(&response.body));
        let (response_body_encoding, response_body) = body.unzip();
        Self {
            id: attempt.id,
            number: attempt.number,
            url: attempt.url,
            response_status,
            response_headers: headers_json(attempt.response.map(|response| response.headers).unwrap_or_default()),
            response_body,
            response_body_encoding,
            error: attempt.error,
            duration_ms: u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
            started_at: view.started_at,
        }
    }
}

/// A delivery with its attempts.
#[derive(Serialize, ToSchema)]
struct DeliveryWithAttempts {
    #[serde(flatten)]
    delivery: DeliveryJson,
    /// First to last, at most the newest 100.
    attempts: Vec<AttemptJson>,
}

/// A dead letter: a delivery that will not be tried again by itself.
#[derive(Serialize, ToSchema)]
struct DeadLetterJson {
    #[serde(flatten)]
    delivery: DeliveryJson,
    /// The same as `dead_letter_reason`.
    #[schema(required = true, value_type = Option<Reason>)]
    reason: Option<DeadReason>,
    /// For how long it has been a dead letter.
    age_seconds: u64,
}

impl DeadLetterJson {
    fn new(view: DeliveryView, now: Timestamp) -> Self {
        let age_seconds = view.dead_at.map_or(0, |at| now.since(at).as_secs());
        Self { reason: view.dead_reason, age_seconds, delivery: view.into() }
    }
}

/// Conditions that must all hold.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListDeliveries {
    /// Standing so.
    #[param(value_type = Option<Status>)]
    status: Option<String>,
    /// To this endpoint.
    endpoint_id: Option<String>,
    /// Of this event.
    event_id: Option<String>,
    /// Of events accepted at or after this moment (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    created_after: Option<String>,
    /// Of events accepted before this moment (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    created_before: Option<String>,
}

/// Conditions that must all hold.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListDeadLetters {
    /// To this endpoint.
    endpoint_id: Option<String>,
    /// Of this event.
    event_id: Option<String>,
    /// Of events accepted at or after this moment (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    created_after: Option<String>,
    /// Of events accepted before this moment (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    created_before: Option<String>,
}

impl ListDeliveries {
    fn check(self) -> Answer<DeliveryFilter> {
        let mut errors = Errors::default();
        let e = &mut errors;
        let (created_after, created_before) = period(e, self.created_after, self.created_before);
        let filter = DeliveryFilter {
            status: status_filter(e, self.status),
            endpoint: id_filter(e, "endpoint_id", self.endpoint_id),
            event: id_filter(e, "event_id", self.event_id),
            created_after,
            created_before,
        };
        errors.finish(Some(filter))
    }
}

impl ListDeadLetters {
    fn check(self) -> Answer<DeliveryFilter> {
        let Self { endpoint_id, event_id, created_after, created_before } = self;
        ListDeliveries { status: None, endpoint_id, event_id, created_after, created_before }.check()
    }
}

pub(super) fn status_filter(errors: &mut Errors, text: Option<String>) -> Option<DeliveryStatus> {
    let text = text?;
    let found = DeliveryStatus::ALL.into_iter().find(|status| status.as_str() == text);
    let known = || DeliveryStatus::ALL.map(DeliveryStatus::as_str).join(", ");
    errors.take("status", found.ok_or_else(|| Invalid::new("unknown_value", format!("one of {}", known()))))
}

/// An id to filter by. One of another organization filters like one that never was: nothing is found.
pub(super) fn id_filter<T: FromStr<Err: ToString>>(
    errors: &mut Errors,
    field: &str,
    text: Option<String>,
) -> Option<T> {
    let parsed = text?.parse::<T>().map_err(|error| Invalid::new("invalid_id", error.to_string()));
    errors.take(field, parsed)
}

/// `created_after` and `created_before`. A span of time that ends before it begins is a mistake, not an empty list.
pub(super) fn period(
    errors: &mut Errors,
    after: Option<String>,
    before: Option<String>,
) -> (Option<Timestamp>, Option<Timestamp>) {
    let mut moment = |field: &str, text: Option<String>| {
        let parsed = text?.parse::<Timestamp>().map_err(|error| Invalid::new("invalid_time", error.to_string()));
        errors.take(field, parsed)
    };
    let (after, before) = (moment("created_after", after), moment("created_before", before));
    if after.is_some_and(|after| before.is_some_and(|before| before <= after)) {
        errors.push("created_before", "out_of_range", "later than created_after");
    }
    (after, before)
}

/// List deliveries, of the newest event first.
#[utoipa::path(get, path = "/v1/deliveries", tag = "deliveries", params(PageParams, ListDeliveries),
    responses((status = 200, body = List<DeliveryJson>)))]
async fn list(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    page: Paged<ListDeliveries>,
) -> Answer<Body<List<DeliveryJson>>> {
    let (filter, page, seal) = page.split();
    let found = state.app.storage.api.delivery_list(&scope, filter.check()?, page).await?;
    Ok(seal.list(found, DeliveryJson::from))
}

/// One delivery, with its attempts.
#[utoipa::path(get, path = "/v1/deliveries/{id}", tag = "deliveries",
    responses((status = 200, body = DeliveryWithAttempts)))]
async fn get(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<DeliveryId>,
) -> Answer<Body<DeliveryWithAttempts>> {
    let delivery = state.app.storage.api.delivery_get(&scope, id).await?.into();
    let attempts = state.app.storage.api.attempt_list(&scope, id).await?;
    Ok(Body(DeliveryWithAttempts { delivery, attempts: attempts.into_iter().map(AttemptJson::from).collect() }))
}

/// Try a failed delivery now, or a dead letter again from the beginning of its schedule.
#[utoipa::path(post, path = "/v1/deliveries/{id}/retry", tag = "deliveries",
    responses((status = 200, body = DeliveryJson)))]
async fn retry(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<DeliveryId>,
    JsonOrEmpty(Empty {}): JsonOrEmpty<Empty>,
) -> Answer<Body<DeliveryJson>> {
    Ok(Body(state.app.storage.api.delivery_retry(&scope, id, state.now()).await?.into()))
}

/// List dead letters, newest first.
#[utoipa::path(get, path = "/v1/dead-letters", tag = "dead letters", params(PageParams, ListDeadLetters),
    responses((status = 200, body = List<DeadLetterJson>)))]
async fn dead_letters(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    page: Paged<ListDeadLetters>,
) -> Answer<Body<List<DeadLetterJson>>> {
    let (filter, page, seal) = page.split();
    let found = state.app.storage.api.dead_letter_list(&scope, filter.check()?, page).await?;
    let now = state.now();
    Ok(seal.list(found, |view| DeadLetterJson::new(view, now)))
}

/// A dead letter with its attempts.
#[derive(Serialize, ToSchema)]
struct DeadLetterWithAttempts {
    #[serde(flatten)]
    dead_letter: DeadLetterJson,
    /// First to last, at most the newest 100.
    attempts: Vec<AttemptJson>,
}

/// One dead letter, with its attempts.
#[utoipa::path(get, path = "/v1/dead-letters/{id}", tag = "dead letters",
    responses((status = 200, body = DeadLetterWithAttempts)))]
async fn dead_letter(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<DeliveryId, DeadLetter>,
) -> Answer<Body<DeadLetterWithAttempts>> {
    let api = &state.app.storage.api;
    let view = api.delivery_get(&scope, id).await.map_err(missing)?;
    if view.status != DeliveryStatus::DeadLetter {
        return Err(Problem::of(Code::DeadLetterNotFound));
    }
    let attempts = api.attempt_list(&scope, id).await?.into_iter().map(AttemptJson::from).collect();
    Ok(Body(DeadLetterWithAttempts { dead_letter: DeadLetterJson::new(view, state.now()), attempts }))
}

/// A delivery that does not exist is a dead letter that does not exist.
fn missing(error: storage::Error) -> Problem {
    match error {
        storage::Error::NotFound { .. } => Problem::of(Code::DeadLetterNotFound),
        other => other.into(),
    }
}

/// Put a dead letter back to `pending`, from the beginning of its schedule.
#[utoipa::path(post, path = "/v1/dead-letters/{id}/requeue", tag = "dead letters",
    responses((status = 200, body = DeliveryJson)))]
async fn requeue(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<DeliveryId, DeadLetter>,
    JsonOrEmpty(Empty {}): JsonOrEmpty<Empty>,
) -> Answer<Body<DeliveryJson>> {
    Ok(Body(state.app.storage.api.dead_letter_requeue(&scope, id, state.now()).await.map_err(missing)?.into()))
}

/// Say that a dead letter is not needed any more.
#[utoipa::path(post, path = "/v1/dead-letters/{id}/discard", tag = "dead letters",
    responses((status = 200, body = DeliveryJson)))]
async fn discard(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<DeliveryId, DeadLetter>,
    JsonOrEmpty(Empty {}): JsonOrEmpty<Empty>,
) -> Answer<Body<DeliveryJson>> {
    Ok(Body(state.app.storage.api.dead_letter_discard(&scope, id, state.now()).await.map_err(missing)?.into()))
}
