//! `/v1/events`: what was accepted, and sending it again.

use axum::Json as Body;
use axum::extract::State;
use http::StatusCode;
use postroom_domain::delivery::DeliveryStatus;
use postroom_domain::event::{Direction, EventTypePattern, ExternalId};
use postroom_domain::{EndpointId, EventId, Invalid, SourceId, Timestamp};
use postroom_storage::api::{DeliveryFilter, EventFilter, EventView};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::deliveries::{DeliveryJson, Status, id_filter, period, status_filter};
use super::payload::{self, Encoding};
use crate::app::Shared;
use crate::extract::{Id, InOrganization, JsonOrEmpty, List, PageParams, Paged, Query};
use crate::problem::fields::Errors;
use crate::problem::{Answer, FieldProblem, Problem};

/// The most endpoints of one replay.
const ENDPOINTS_MAX: usize = 1000;
/// The longest text that is looked for in payloads, in bytes.
const TEXT_MAX: usize = 200;

pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get)).routes(routes!(deliveries)).routes(routes!(replay))
}

/// An event.
#[derive(Serialize, ToSchema)]
pub(super) struct EventJson {
    #[schema(value_type = String, example = "evt_0198c1f2a7b37d3e9a4c5b6d7e8f9012")]
    pub id: EventId,
    #[serde(rename = "type")]
    #[schema(example = "order.paid")]
    pub event_type: String,
    /// `inbound`: a third party sent it to a source; `outbound`: the organization's own code did.
    #[schema(value_type = DirectionName)]
    direction: Direction,
    /// The source it came to.
    #[schema(required = true, value_type = Option<String>)]
    pub source_id: Option<SourceId>,
    /// The sender's own id of it.
    #[schema(required = true)]
    external_id: Option<String>,
    /// The worst status of its deliveries; null when it went to no endpoint.
    #[schema(required = true, value_type = Option<Status>)]
    status: Option<DeliveryStatus>,
    /// How many endpoints it went to at first.
    delivery_count: u32,
    payload_bytes: u64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Who sent it: the id of an API key or a user, `super_admin` or `operator`; null of what a third party sent.
    #[schema(required = true)]
    created_by: Option<String>,
}

/// Which way an event came.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "only for the document: the domain's enum is what is written")]
pub(super) enum DirectionName {
    Inbound,
    Outbound,
}

impl From<EventView> for EventJson {
    fn from(view: EventView) -> Self {
        Self {
            id: view.id,
            event_type: view.event_type,
            direction: view.direction,
            source_id: view.source,
            external_id: view.external_id,
            status: view.status,
            delivery_count: view.deliveries,
            payload_bytes: view.payload_bytes,
            created_at: view.created_at,
            created_by: view.created_by,
        }
    }
}

/// An event with what it carries.
#[derive(Serialize, ToSchema)]
struct EventWithPayload {
    #[serde(flatten)]
    event: EventJson,
    /// Headers that endpoints get with it, as name and value.
    headers: Vec<HeaderJson>,
    /// How the payload is shown.
    payload_encoding: Encoding,
    /// What endpoints get.
    #[schema(value_type = Value)]
    payload: Box<RawValue>,
}

/// One header.
#[derive(Serialize, ToSchema)]
pub(super) struct HeaderJson {
    name: String,
    value: String,
}

/// Headers as a list: a name may be there more than once.
pub(super) fn headers_json(headers: Vec<(String, String)>) -> Vec<HeaderJson> {
    headers.into_iter().map(|(name, value)| HeaderJson { name, value }).collect()
}

/// Conditions that must all hold.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListEvents {
    /// Exactly this type, or a word and all below it: `order.*`.
    #[serde(rename = "type")]
    event_type: Option<String>,
    /// Of this source.
    source_id: Option<String>,
    /// Whose worst delivery stands so.
    #[param(value_type = Option<Status>)]
    status: Option<String>,
    /// Which way it came.
    #[param(value_type = Option<DirectionName>)]
    direction: Option<String>,
    /// At or after this moment (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    created_after: Option<String>,
    /// Before this moment (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    created_before: Option<String>,
    /// With this id of its sender.
    external_id: Option<String>,
    /// With this text in the payload, letter for letter. A page looks at a bounded number of events, so it may be short
    /// or empty and still have a next one.
    q: Option<String>,
}

impl ListEvents {
    fn check(self) -> Answer<EventFilter> {
        let mut errors = Errors::default();
        let e = &mut errors;
        let (created_after, created_before) = period(e, self.created_after, self.created_before);
        let filter = EventFilter {
            event_type: self.event_type.and_then(|text| e.take("type", EventTypePattern::parse(&text))),
            source: id_filter(e, "source_id", self.source_id),
            status: status_filter(e, self.status),
            direction: self.direction.and_then(|text| e.take("direction", direction(&text))),
            created_after,
            created_before,
            external_id: self.external_id.inspect(|text| {
                e.take("external_id", ExternalId::parse(text));
            }),
            text: self.q.inspect(|text| {
                e.take("q", search_text(text));
            }),
        };
        errors.finish(Some(filter))
    }
}

fn direction(text: &str) -> Result<Direction, Invalid> {
    match text {
        "inbound" => Ok(Direction::Inbound),
        "outbound" => Ok(Direction::Outbound),
        _ => Err(Invalid::new("unknown_value", "inbound or outbound")),
    }
}

fn search_text(text: &str) -> Result<(), Invalid> {
    match text.len() {
        0 => Err(Invalid::new("required", "leave it out, or give a text to look for")),
        1..=TEXT_MAX => Ok(()),
        _ => Err(Invalid::new("too_long", "at most 200 bytes")),
    }
}

/// List events, newest first.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(PageParams, ListEvents),
    responses((status = 200, body = List<EventJson>)))]
async fn list(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    page: Paged<ListEvents>,
) -> Answer<Body<List<EventJson>>> {
    let (filter, page, seal) = page.split();
    let found = state.app.storage.api.event_list(&scope, filter.check()?, page).await?;
    Ok(seal.list(found, EventJson::from))
}

/// How to show one event.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ShowEvent {
    /// `base64`: the payload's exact bytes, whatever they are. Left out: so that people can read it, which leaves out
    /// white space around JSON.
    #[param(inline)]
    payload_encoding: Option<Base64>,
}

/// The one encoding that can be asked for.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Base64 {
    Base64,
}

/// One event, with headers and payload.
#[utoipa::path(get, path = "/v1/events/{id}", tag = "events", params(ShowEvent),
    responses((status = 200, body = EventWithPayload)))]
async fn get(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<EventId>,
    Query(show): Query<ShowEvent>,
) -> Answer<Body<EventWithPayload>> {
    let event = state.app.storage.api.event_get(&scope, id).await?.into();
    let carried = state.app.storage.api.event_payload(&scope, id).await?;
    let (payload_encoding, payload) = match show.payload_encoding {
        Some(Base64::Base64) => payload::show_as_base64(&carried.body),
        None => payload::show(&carried.body),
    };
    Ok(Body(EventWithPayload { event, headers: headers_json(carried.headers), payload_encoding, payload }))
}

/// The deliveries of one event.
#[utoipa::path(get, path = "/v1/events/{id}/deliveries", tag = "events", params(PageParams),
    responses((status = 200, body = List<DeliveryJson>)))]
async fn deliveries(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<EventId>,
    page: Paged,
) -> Answer<Body<List<DeliveryJson>>> {
    let (_, page, seal) = page.split();
    state.app.storage.api.event_get(&scope, id).await?;
    let filter = DeliveryFilter { event: Some(id), ..DeliveryFilter::default() };
    Ok(seal.list(state.app.storage.api.delivery_list(&scope, filter, page).await?, DeliveryJson::from))
}

/// What to replay.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReplayEvent {
    /// To these endpoints, whatever they subscribe to. Left out: to all that the event went to.
    #[serde(default)]
    #[schema(min_items = 1, max_items = 1000)]
    endpoint_ids: Option<Vec<String>>,
}

/// The deliveries that a replay made.
#[derive(Serialize, ToSchema)]
struct Replayed {
    data: Vec<DeliveryJson>,
}

/// Send an event again.
///
/// Makes new deliveries of it, from the beginning of their schedule. `webhook-id` is the same as the first time.
#[utoipa::path(post, path = "/v1/events/{id}/replay", tag = "events", request_body = ReplayEvent,
    responses((status = 202, description = "New deliveries are on their way", body = Replayed)))]
async fn replay(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<EventId>,
    JsonOrEmpty(replay): JsonOrEmpty<ReplayEvent>,
) -> Answer<(StatusCode, Body<Replayed>)> {
    let endpoints = replay.endpoint_ids.map(endpoint_ids).transpose()?;
    let made = state.app.storage.api.event_replay(&scope, id, endpoints, state.now()).await?;
    let data: Vec<DeliveryJson> = made.into_iter().map(DeliveryJson::from).collect();
    Ok((StatusCode::ACCEPTED, Body(Replayed { data })))
}

fn endpoint_ids(ids: Vec<String>) -> Answer<Vec<EndpointId>> {
    if !(1..=ENDPOINTS_MAX).contains(&ids.len()) {
        return Err(vec![FieldProblem::new("endpoint_ids", "out_of_range", "1 to 1000 endpoints")].into());
    }
    // An id of another kind is like an id that never was.
    let missing = |_| Problem::of(crate::problem::Code::EndpointNotFound);
    let mut ids = ids.iter().map(|id| id.parse().map_err(missing)).collect::<Answer<Vec<EndpointId>>>()?;
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
