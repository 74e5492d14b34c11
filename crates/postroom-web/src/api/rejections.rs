//! `/v1/rejections`: requests that failed verification, for their owner to see and to verify again.

use axum::Json as Body;
use axum::extract::State;
use http::{HeaderMap, HeaderName, HeaderValue};
use postroom_domain::verify::{self, Outcome, Verified};
use postroom_domain::{EventId, RejectionId, SourceId, Timestamp};
use postroom_storage as storage;
use postroom_storage::Scope;
use postroom_storage::api::{RejectedRequest, RejectionView};
use postroom_storage::receiver::{NewEvent, Source};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::deliveries::id_filter;
use super::endpoints::Empty;
use super::events::{HeaderJson, headers_json};
use super::payload::{self, Encoding};
use crate::app::{Shared, State as Web};
use crate::extract::{Id, InOrganization, JsonOrEmpty, List, PageParams, Paged};
use crate::ingest;
use crate::problem::fields::Errors;
use crate::problem::{Answer, Code, Problem};

pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get)).routes(routes!(reverify))
}

/// A request that failed verification.
#[derive(Serialize, ToSchema)]
struct RejectionJson {
    #[schema(value_type = String, example = "rej_0198c1f2a7b37d3e9a4c5b6d7e8f9012")]
    id: RejectionId,
    /// Where it was sent to.
    #[schema(value_type = String)]
    source_id: SourceId,
    /// What its sender was answered.
    #[schema(example = "signature_invalid")]
    code: String,
    /// Which check failed.
    #[schema(example = "signature_matches")]
    failed_check: String,
    #[schema(value_type = String, format = DateTime)]
    received_at: Timestamp,
    /// The event it became when it was verified again.
    #[schema(required = true, value_type = Option<String>)]
    event_id: Option<EventId>,
}

impl From<RejectionView> for RejectionJson {
    fn from(view: RejectionView) -> Self {
        Self {
            id: view.id,
            source_id: view.source,
            code: view.code,
            failed_check: view.check,
            received_at: view.received_at,
            event_id: view.event,
        }
    }
}

/// A rejected request with all it carried.
#[derive(Serialize, ToSchema)]
struct RejectionWithRequest {
    #[serde(flatten)]
    rejection: RejectionJson,
    method: String,
    /// Path and query.
    path: String,
    headers: Vec<HeaderJson>,
    body_encoding: Encoding,
    #[schema(value_type = Value)]
    body: Box<RawValue>,
}

/// Conditions that must all hold.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListRejections {
    /// At this source.
    source_id: Option<String>,
}

/// List rejected requests, newest first.
#[utoipa::path(get, path = "/v1/rejections", tag = "rejections", params(PageParams, ListRejections),
    responses((status = 200, body = List<RejectionJson>)))]
async fn list(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    page: Paged<ListRejections>,
) -> Answer<Body<List<RejectionJson>>> {
    let (filter, page, seal) = page.split();
    let mut errors = Errors::default();
    let source = id_filter(&mut errors, "source_id", filter.source_id);
    errors.check()?;
    Ok(seal.list(state.app.storage.api.rejection_list(&scope, source, page).await?, RejectionJson::from))
}

/// One rejected request, with headers and body.
#[utoipa::path(get, path = "/v1/rejections/{id}", tag = "rejections",
    responses((status = 200, body = RejectionWithRequest)))]
async fn get(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<RejectionId>,
) -> Answer<Body<RejectionWithRequest>> {
    let (view, request) = state.app.storage.api.rejection_get(&scope, id).await?;
    let (body_encoding, body) = payload::show(&request.body);
    let RejectedRequest { method, path, headers, .. } = request;
    let headers = headers_json(headers);
    Ok(Body(RejectionWithRequest { rejection: view.into(), method, path, headers, body_encoding, body }))
}

/// What became of a rejected request that verifies now.
#[derive(Serialize, ToSchema)]
struct Reverified {
    /// The event it became.
    #[schema(value_type = String)]
    event_id: EventId,
    /// Whether the provider had sent the same event again meanwhile.
    duplicate: bool,
}

/// Verify a rejected request again, after its source's secret or options were mended.
///
/// It is compared with the time of its arrival. If it verifies it is recorded and delivered like any other event. Doing it
/// twice answers the same event.
#[utoipa::path(post, path = "/v1/rejections/{id}/reverify", tag = "rejections",
    responses((status = 200, body = Reverified)))]
async fn reverify(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<RejectionId>,
    JsonOrEmpty(Empty {}): JsonOrEmpty<Empty>,
) -> Answer<Body<Reverified>> {
    let (view, request) = state.app.storage.api.rejection_get(&scope, id).await?;
    if let Some(event_id) = view.event {
        return Ok(Body(Reverified { event_id, duplicate: true }));
    }
    let source = source(&state, &scope, view.source).await?;
    let headers = header_map(&request.headers);
    let verified = verify_again(&state, &source, &request, &headers, view.received_at)?;
    let forwarded = source.verifier.as_ref().map(|verifier| ingest::forwarded(verifier, &headers)).unwrap_or_default();
    let event = NewEvent::received(source, verified, forwarded, request.body, state.now());
    let recorded = state.app.storage.receiver.event_record(event).await;
    let recorded = recorded.map_err(|error| Problem::from_storage(error, state.now()))?;
    state.app.storage.api.rejection_resolve(&scope, id, recorded.id).await?;
    Ok(Body(Reverified { event_id: recorded.id, duplicate: recorded.duplicate }))
}

/// The source as the receiver sees it now.
async fn source(state: &Web, scope: &Scope, id: SourceId) -> Answer<Arc<Source>> {
    let gone = || Problem::of(Code::SourceDisabled);
    let view = state.app.storage.api.source_get(scope, id).await.map_err(|error| match error {
        storage::Error::NotFound { .. } => gone(),
        other => other.into(),
    })?;
    let found = state.app.storage.receiver.source_find(scope.slug(), &view.settings.name).await?;
    found.filter(|source| source.is_active && source.id == id).ok_or_else(gone)
}

fn verify_again(
    state: &Web,
    source: &Source,
    request: &RejectedRequest,
    headers: &HeaderMap,
    received_at: Timestamp,
) -> Answer<Verified> {
    let still = |detail: String| Problem::new(Code::RejectionStillInvalid, detail);
    let verifier = source
        .verifier
        .as_ref()
        .map_err(|errors| still(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
    let url = format!("{}{}", state.app.public_url, request.path);
    let request = verify::Request { method: &request.method, url: &url, headers, body: &request.body };
    match verifier.verify(&request, received_at) {
        Outcome::Verified(verified) => Ok(verified),
        Outcome::Refused(refusal) => Err(still(format!("the check {} still fails", refusal.check()))),
        Outcome::Handshake(_) => Err(still("the request was a provider's handshake, which is no event".to_owned())),
    }
}

fn header_map(headers: &[(String, String)]) -> HeaderMap {
    let pairs = headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(value.as_bytes()).ok()?))
    });
    pairs.fold(HeaderMap::new(), |mut map, (name, value)| {
        map.append(name, value);
        map
    })
}
