//! `/v1/rejections`: requests that failed verification, for their owner to see why and to verify again.

mod explanation;
mod reverify;

use std::sync::Arc;

use axum::Json as Body;
use axum::extract::State;
use http::{HeaderMap, HeaderName, HeaderValue};
use postroom_domain::verify::Explanation;
use postroom_domain::{EventId, RejectionId, SourceId, Timestamp};
use postroom_storage as storage;
use postroom_storage::Scope;
use postroom_storage::api::RejectionView;
use postroom_storage::receiver::Source;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::deliveries::id_filter;
use super::events::{HeaderJson, headers_json};
use super::payload::{self, Encoding};
use crate::app::{Shared, State as Web};
use crate::extract::{Id, InOrganization, List, PageParams, Paged};
use crate::problem::Answer;
use crate::problem::fields::Errors;
use explanation::ExplanationJson;

pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get)).merge(reverify::router())
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
    /// Every check of it as the source is set up now, at the time of its arrival, and what is most probably wrong. Null
    /// when the source is deleted or its stored secret cannot be read.
    #[schema(required = true, value_type = Option<ExplanationJson>)]
    explanation: Option<Explanation>,
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

/// One rejected request, with headers and body, and why it was rejected.
#[utoipa::path(get, path = "/v1/rejections/{id}", tag = "rejections",
    responses((status = 200, body = RejectionWithRequest)))]
async fn get(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<RejectionId>,
) -> Answer<Body<RejectionWithRequest>> {
    let (view, request) = state.app.storage.api.rejection_get(&scope, id).await?;
    let request = Arc::new(request);
    let explanation = explanation::explain(&state, &scope, &view, request.clone()).await?;
    let (body_encoding, body) = payload::show(&request.body);
    let (method, path, headers) = (request.method.clone(), request.path.clone(), headers_json(request.headers.clone()));
    Ok(Body(RejectionWithRequest { rejection: view.into(), method, path, headers, body_encoding, body, explanation }))
}

/// The source as the receiver sees it now, unless it is deleted.
async fn source(state: &Web, scope: &Scope, id: SourceId) -> Answer<Option<Arc<Source>>> {
    let view = match state.app.storage.api.source_get(scope, id).await {
        Ok(view) => view,
        Err(storage::Error::NotFound { .. }) => return Ok(None),
        Err(other) => return Err(other.into()),
    };
    let found = state.app.storage.receiver.source_find(scope.slug(), &view.settings.name).await?;
    Ok(found.filter(|source| source.id == id))
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
