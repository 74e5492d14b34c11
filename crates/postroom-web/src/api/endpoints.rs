//! `/v1/endpoints`: where events go.

use axum::Json as Body;
use axum::extract::State;
use http::StatusCode;
use postroom_domain::endpoint::SignatureScheme;
use postroom_domain::event::EventType;
use postroom_domain::{EndpointId, Secret, SourceId, Timestamp, signing};
use postroom_storage as storage;
use postroom_storage::Scope;
use postroom_storage::api::{EndpointView, Rotation, SecretPeriod, TestEvent};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::endpoint_input::{ChangeEndpoint, NewEndpoint, Signature};
use super::events::EventJson;
use crate::app::{Shared, State as Web};
use crate::extract::{Id, IfMatch, InOrganization, Json, JsonOrEmpty, List, PageParams, Paged, Tagged};
use crate::problem::{Answer, Code, FieldProblem, Problem};

/// How often a change is applied again to what others have made of the endpoint meanwhile.
const CHANGE_TRIES_MAX: u32 = 64;
/// The longest time that an old secret signs beside the new one.
const GRACE_SECONDS_MAX: u64 = 24 * 3600;

pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, change, delete))
        .routes(routes!(rotate_secret))
        .routes(routes!(reveal_secret))
        .routes(routes!(test))
        .routes(routes!(enable))
        .routes(routes!(disable))
}

/// An endpoint.
#[derive(Serialize, ToSchema)]
pub(super) struct EndpointJson {
    #[schema(value_type = String, example = "ep_0198c1f2a7b37d3e9a4c5b6d7e8f9012")]
    id: EndpointId,
    /// Where attempts go.
    url: String,
    /// For people.
    description: String,
    /// Which event types it wants; empty is all.
    event_types: Vec<String>,
    /// Which sources it wants events of; empty is all, and the organization's own events.
    #[schema(value_type = Vec<String>)]
    source_ids: Vec<SourceId>,
    /// A condition on the payload.
    #[schema(required = true)]
    filter: Option<serde_json::Value>,
    /// Seconds between attempts; null is the installation's schedule.
    #[schema(required = true)]
    retry_schedule: Option<Vec<u64>>,
    /// Deadline of one attempt in milliseconds; null is the installation's.
    #[schema(required = true)]
    timeout_ms: Option<u32>,
    /// Attempts a second at most; null is no limit.
    #[schema(required = true)]
    rate_limit: Option<u32>,
    /// The names of its own headers. Their values are never shown.
    header_names: Vec<String>,
    /// How attempts are signed.
    #[schema(value_type = Signature)]
    signature: SignatureScheme,
    /// Whether events go to it.
    is_enabled: bool,
    /// Why not: `gone` (it answered 410) or `disabled` (by a person).
    #[schema(required = true)]
    disabled_reason: Option<&'static str>,
    #[schema(required = true, value_type = Option<String>, format = DateTime)]
    disabled_at: Option<Timestamp>,
    /// Its secrets, newest first: since when they sign, and until when.
    secret_history: Vec<SecretPeriodJson>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// Who made it: the id of a user or an API key, `super_admin` or `operator`; null when that is not known.
    #[schema(required = true)]
    created_by: Option<String>,
}

/// How long one secret of an endpoint signs.
#[derive(Serialize, ToSchema)]
struct SecretPeriodJson {
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Until when; null for the newest.
    #[schema(required = true, value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

impl From<SecretPeriod> for SecretPeriodJson {
    fn from(period: SecretPeriod) -> Self {
        Self { created_at: period.created_at, expires_at: period.expires_at }
    }
}

impl From<EndpointView> for EndpointJson {
    fn from(view: EndpointView) -> Self {
        let settings = view.settings;
        let mut header_names: Vec<String> = settings.headers.iter().map(|header| header.name().to_owned()).collect();
        header_names.sort_unstable();
        Self {
            id: view.id,
            url: settings.url.to_string(),
            description: settings.description,
            event_types: settings.event_types.into_iter().map(String::from).collect(),
            source_ids: settings.source_ids,
            filter: settings.filter.map(serde_json::Value::from),
            retry_schedule: settings.retry_schedule.map(Vec::from),
            timeout_ms: settings.timeout_ms,
            rate_limit: settings.rate_limit,
            header_names,
            signature: settings.signature,
            is_enabled: view.is_enabled,
            disabled_reason: view.disabled_reason,
            disabled_at: view.disabled_at,
            secret_history: view.secrets.into_iter().map(SecretPeriodJson::from).collect(),
            created_at: view.created_at,
            created_by: view.created_by,
            updated_at: view.updated_at,
        }
    }
}

impl From<EndpointView> for Tagged<EndpointJson> {
    fn from(view: EndpointView) -> Self {
        Self { version: view.version, body: view.into() }
    }
}

/// What the receiver verifies with: one of the two, by the endpoint's signature.
#[derive(Serialize, ToSchema)]
pub(super) struct KeyJson {
    /// The shared secret of `hmac_sha256`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    pub secret: Option<String>,
    /// The public key of `ed25519`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=")]
    pub public_key: Option<String>,
}

impl KeyJson {
    /// The private key of an Ed25519 pair never leaves this server.
    pub fn of(secret: &Secret) -> Self {
        match signing::public_key(secret) {
            Some(public_key) => Self { secret: None, public_key: Some(public_key) },
            None => Self { secret: secret.expose_str().map(str::to_owned), public_key: None },
        }
    }
}

/// An endpoint with the key that is shown this once.
#[derive(Serialize, ToSchema)]
struct EndpointWithKey {
    #[serde(flatten)]
    endpoint: EndpointJson,
    #[serde(flatten)]
    key: KeyJson,
}

/// List endpoints, newest first.
#[utoipa::path(get, path = "/v1/endpoints", tag = "endpoints", params(PageParams),
    responses((status = 200, body = List<EndpointJson>)))]
async fn list(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    page: Paged,
) -> Answer<Body<List<EndpointJson>>> {
    let (_, page, seal) = page.split();
    Ok(seal.list(state.app.storage.api.endpoint_list(&scope, page).await?, EndpointJson::from))
}

/// Make an endpoint. Its signing secret is shown in this answer.
#[utoipa::path(post, path = "/v1/endpoints", tag = "endpoints", request_body = NewEndpoint,
    responses((status = 201, body = EndpointWithKey)))]
async fn create(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Json(new): Json<NewEndpoint>,
) -> Answer<(StatusCode, Body<EndpointWithKey>)> {
    let settings = new.check(&state.app.egress)?;
    own_sources(&state, &scope, &settings.source_ids).await?;
    let secret = signing::generate(settings.signature);
    let key = KeyJson::of(&secret);
    let new = storage::api::NewEndpoint { settings, secret };
    let endpoint = state.app.storage.api.endpoint_create(&scope, new, state.now()).await?.into();
    Ok((StatusCode::CREATED, Body(EndpointWithKey { endpoint, key })))
}

/// One endpoint.
#[utoipa::path(get, path = "/v1/endpoints/{id}", tag = "endpoints",
    responses((status = 200, body = EndpointJson, headers(("ETag" = String, description = "Another one after every change.")))))]
async fn get(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<EndpointId>,
) -> Answer<Tagged<EndpointJson>> {
    Ok(state.app.storage.api.endpoint_get(&scope, id).await?.into())
}

/// Change an endpoint. What is left out stays; attempts from now on use the new configuration.
///
/// Changes of different fields at the same time are all kept. With `If-Match` it is changed only if it still is what the caller
/// has seen; otherwise the answer is 412.
#[utoipa::path(patch, path = "/v1/endpoints/{id}", tag = "endpoints", request_body = ChangeEndpoint,
    params(("If-Match" = Option<String>, Header, description = "The `ETag` of what is to be changed, or several.")),
    responses((status = 200, body = EndpointJson, headers(("ETag" = String, description = "Of what it is now.")))))]
async fn change(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<EndpointId>,
    if_match: IfMatch,
    Json(change): Json<ChangeEndpoint>,
) -> Answer<Tagged<EndpointJson>> {
    let api = &state.app.storage.api;
    for _ in 0..CHANGE_TRIES_MAX {
        let EndpointView { settings: before, version, .. } = api.endpoint_get(&scope, id).await?;
        if_match.check(version)?;
        let sources_before = before.source_ids.clone();
        let settings = change.clone().check(&state.app.egress, before)?;
        if settings.source_ids != sources_before {
            own_sources(&state, &scope, &settings.source_ids).await?;
        }
        match api.endpoint_update(&scope, id, version, settings, state.now()).await {
            // Somebody else was here in between: the change is applied to what he has made of it.
            Err(storage::Error::Stale) => {}
            changed => return Ok(changed?.into()),
        }
    }
    Err(storage::Error::Stale.into())
}

/// Delete an endpoint. Its waiting deliveries become dead letters.
#[utoipa::path(delete, path = "/v1/endpoints/{id}", tag = "endpoints", responses((status = 204, description = "Deleted")))]
async fn delete(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<EndpointId>,
) -> Answer<StatusCode> {
    state.app.storage.api.endpoint_delete(&scope, id, state.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An endpoint can only be told to want events of the organization's own sources.
async fn own_sources(state: &Web, scope: &Scope, ids: &[SourceId]) -> Answer<()> {
    let mut unknown = Vec::new();
    for (index, id) in ids.iter().enumerate() {
        match state.app.storage.api.source_get(scope, *id).await {
            Ok(_) => {}
            Err(storage::Error::NotFound { .. }) => {
                let detail = "no source of the organization has this id";
                unknown.push(FieldProblem::new(format!("source_ids[{index}]"), "source_not_found", detail));
            }
            Err(error) => return Err(error.into()),
        }
    }
    if unknown.is_empty() { Ok(()) } else { Err(unknown.into()) }
}

/// How a secret is replaced.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RotateEndpointSecret {
    /// How long the old secret signs beside the new one, in seconds. Default: 24 hours.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 86400, default = 86400)]
    grace_seconds: Option<u64>,
}

/// Replace the signing secret. The new one is shown in this answer; the old one signs beside it meanwhile.
#[utoipa::path(post, path = "/v1/endpoints/{id}/rotate-secret", tag = "endpoints", request_body = RotateEndpointSecret,
    responses((status = 200, body = EndpointWithKey)))]
async fn rotate_secret(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<EndpointId>,
    JsonOrEmpty(rotate): JsonOrEmpty<RotateEndpointSecret>,
) -> Answer<(StatusCode, Body<EndpointWithKey>)> {
    let grace_seconds = grace(rotate.grace_seconds, GRACE_SECONDS_MAX)?;
    let signature = state.app.storage.api.endpoint_get(&scope, id).await?.settings.signature;
    let secret = signing::generate(signature);
    let key = KeyJson::of(&secret);
    let rotation = Rotation { secret, grace_seconds };
    let endpoint = state.app.storage.api.endpoint_rotate(&scope, id, rotation, state.now()).await?.into();
    Ok((StatusCode::OK, Body(EndpointWithKey { endpoint, key })))
}

/// A time of grace in its bounds; the longest when nothing is said.
pub(super) fn grace(given: Option<u64>, max: u64) -> Answer<u64> {
    match given.unwrap_or(max) {
        grace if grace <= max => Ok(grace),
        _ => Err(vec![FieldProblem::new("grace_seconds", "out_of_range", format!("0 to {max} seconds"))].into()),
    }
}

/// Show the newest signing secret. Every look is written into the audit log.
#[utoipa::path(get, path = "/v1/endpoints/{id}/secret", tag = "endpoints", responses((status = 200, body = KeyJson)))]
async fn reveal_secret(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<EndpointId>,
) -> Answer<Body<KeyJson>> {
    let secret = state.app.storage.api.endpoint_secret_reveal(&scope, id, state.now()).await?;
    Ok(Body(KeyJson::of(&secret)))
}

/// A test event.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TestEndpoint {
    /// Its type. Default: `postroom.test`.
    #[serde(rename = "type", default)]
    #[schema(default = "postroom.test")]
    event_type: Option<String>,
    /// Any JSON. Default: a short greeting.
    #[serde(default)]
    #[schema(value_type = Option<Value>)]
    data: Option<Box<RawValue>>,
}

/// Send a test event to this endpoint alone, whatever it subscribes to.
#[utoipa::path(post, path = "/v1/endpoints/{id}/test", tag = "endpoints", request_body = TestEndpoint,
    responses((status = 202, description = "The event is kept and on its way", body = EventJson)))]
async fn test(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<EndpointId>,
    JsonOrEmpty(test): JsonOrEmpty<TestEndpoint>,
) -> Answer<(StatusCode, Body<EventJson>)> {
    let event_type = EventType::parse(test.event_type.as_deref().unwrap_or("postroom.test"))
        .map_err(|invalid| vec![FieldProblem::invalid("type", invalid)])?;
    let greeting = || to_raw_value(&serde_json::json!({"message": "a test event of Postroom"}));
    let data = test.data.map_or_else(greeting, Ok).map_err(|error| Problem::caused(Code::InternalError, error))?;
    let now = state.now();
    let body = super::publish::envelope(&event_type, now, &data);
    let event = state.app.storage.api.endpoint_test(&scope, id, TestEvent { event_type, body }, now).await;
    Ok((StatusCode::ACCEPTED, Body(event.map_err(|error| Problem::from_storage(error, now))?.into())))
}

/// Switch an endpoint on.
#[utoipa::path(post, path = "/v1/endpoints/{id}/enable", tag = "endpoints", responses((status = 200, body = EndpointJson)))]
async fn enable(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<EndpointId>,
    JsonOrEmpty(Empty {}): JsonOrEmpty<Empty>,
) -> Answer<Body<EndpointJson>> {
    Ok(Body(state.app.storage.api.endpoint_set_enabled(&scope, id, true, state.now()).await?.into()))
}

/// Switch an endpoint off. Its waiting deliveries become dead letters, which can be requeued later.
#[utoipa::path(post, path = "/v1/endpoints/{id}/disable", tag = "endpoints", responses((status = 200, body = EndpointJson)))]
async fn disable(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<EndpointId>,
    JsonOrEmpty(Empty {}): JsonOrEmpty<Empty>,
) -> Answer<Body<EndpointJson>> {
    Ok(Body(state.app.storage.api.endpoint_set_enabled(&scope, id, false, state.now()).await?.into()))
}

/// The body of an action that takes nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Empty {}
