//! Verifying rejected requests again after their source was mended: one, or all that wait, in order of arrival.
//!
//! A request is judged at the time of its arrival, so it does not matter how long the mending took. What verifies is
//! recorded like any other event, once: its provider's id tells repetitions, and where there is none the rejection's.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use axum::Json as Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use postroom_domain::event::ExternalId;
use postroom_domain::verify::{self, Outcome, Verified};
use postroom_domain::{EventId, RejectionId, SourceId, Timestamp};
use postroom_storage::Scope;
use postroom_storage::api::{PageRequest, RejectedRequest, RejectionView};
use postroom_storage::receiver::{NewEvent, Source};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::header_map;
use crate::api::deliveries::id_filter;
use crate::api::endpoints::Empty;
use crate::api::publish::BatchError;
use crate::app::{Shared, State as Web};
use crate::extract::{Id, InOrganization, JsonOrEmpty};
use crate::ingest;
use crate::problem::fields::Errors;
use crate::problem::{Answer, Code, Problem};

/// The most requests that one call looks at: as many as are kept of an organization.
const LIMIT_MAX: usize = 1000;
/// How many are read at once.
const PAGE: usize = 250;

pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(reverify)).routes(routes!(reverify_many))
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
    Ok(Body(again(&state, &scope, id, &mut Sources::default()).await?))
}

/// Which rejected requests to verify again. An empty object is all of them.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReverifyMany {
    /// Those of this source only.
    #[serde(default)]
    source_id: Option<String>,
    /// At most so many, those that arrived first. Default and most: 1000, which is as many as are kept.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1000, default = 1000)]
    limit: Option<u64>,
}

/// One result for each request that was verified again, in order of arrival.
#[derive(Serialize, ToSchema)]
struct ReverifiedMany {
    data: Vec<ReverifyResult>,
    /// How many became events, duplicates among them.
    verified: usize,
    /// How many still fail. They stay, and can be verified again later.
    still_invalid: usize,
    /// Whether some were not looked at, for the limit or because this server could not go on: call again.
    has_more: bool,
}

/// What became of one rejected request.
#[derive(Serialize, ToSchema)]
struct ReverifyResult {
    /// The rejection.
    #[schema(value_type = String)]
    id: RejectionId,
    /// The HTTP status that it alone would have been answered with.
    #[schema(example = 200)]
    status: u16,
    /// The event it became.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    event_id: Option<EventId>,
    /// Whether the provider had sent the same event again meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate: Option<bool>,
    /// Why it did not become one.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<BatchError>,
}

/// Verify all rejected requests again, or those of one source, after the secret or options were mended.
///
/// They become events in order of arrival, each judged at its time of arrival; those that became events before are left
/// out. 200 when all of them verify, 207 when some do not: every request has a result of its own. With an
/// `Idempotency-Key` the answer is stored only when all verify; doing it again makes no event twice.
#[utoipa::path(post, path = "/v1/rejections/reverify", tag = "rejections", request_body = ReverifyMany,
    responses((status = 200, description = "All of them verify", body = ReverifiedMany),
              (status = 207, description = "Some still fail", body = ReverifiedMany)))]
async fn reverify_many(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    JsonOrEmpty(which): JsonOrEmpty<ReverifyMany>,
) -> Answer<Response> {
    let mut errors = Errors::default();
    let source = id_filter(&mut errors, "source_id", which.source_id);
    let limit = usize::try_from(which.limit.unwrap_or(LIMIT_MAX as u64)).unwrap_or(usize::MAX);
    if !(1..=LIMIT_MAX).contains(&limit) {
        errors.push("limit", "out_of_range", "a whole number from 1 to 1000");
    }
    errors.check()?;
    let waiting = waiting(&state, &scope, source).await?;
    let mut data = Vec::new();
    let mut sources = Sources::default();
    for id in waiting.iter().copied().take(limit) {
        let result = again(&state, &scope, id, &mut sources).await;
        // What was forgotten meanwhile is no result; where one finds no room the next finds none either.
        let code = result.as_ref().err().map(Problem::code);
        if code == Some(Code::RejectionNotFound) {
            continue;
        }
        data.push(ReverifyResult::of(id, result));
        if code.is_some_and(|code| code != Code::RejectionStillInvalid && code != Code::SourceDisabled) {
            break;
        }
    }
    let verified = data.iter().filter(|result| result.event_id.is_some()).count();
    let done = data.last().and_then(|last| waiting.iter().position(|id| *id == last.id)).map_or(0, |at| at + 1);
    let has_more = !data.is_empty() && done < waiting.len();
    let status = if verified == data.len() { StatusCode::OK } else { StatusCode::MULTI_STATUS };
    let still_invalid = data.len() - verified;
    Ok((status, Body(ReverifiedMany { data, verified, still_invalid, has_more })).into_response())
}

impl ReverifyResult {
    fn of(id: RejectionId, result: Answer<Reverified>) -> Self {
        match result {
            Ok(Reverified { event_id, duplicate }) => Self {
                id,
                status: StatusCode::OK.as_u16(),
                event_id: Some(event_id),
                duplicate: Some(duplicate),
                error: None,
            },
            Err(problem) => {
                let status = problem.code().status().as_u16();
                Self { id, status, event_id: None, duplicate: None, error: Some(BatchError::of(problem)) }
            }
        }
    }
}

/// Rejected requests that became no event yet, those that arrived first in front.
async fn waiting(state: &Web, scope: &Scope, source: Option<SourceId>) -> Answer<Vec<RejectionId>> {
    let mut found: Vec<RejectionView> = Vec::new();
    let mut after = None;
    // One page more than are kept: others may be added meanwhile.
    for _ in 0..=LIMIT_MAX / PAGE {
        let page = PageRequest { limit: PAGE, after };
        let page = state.app.storage.api.rejection_list(scope, source, page).await?;
        found.extend(page.data);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    found.reverse();
    // The order of the list is that of recording; a slow body is recorded after one that arrived later.
    found.sort_by_key(|view| view.received_at);
    Ok(found.into_iter().filter(|view| view.event.is_none()).map(|view| view.id).collect())
}

/// Sources that were looked up for this call.
type Sources = HashMap<SourceId, Arc<Source>>;

/// Verifies one request again and records it.
async fn again(state: &Web, scope: &Scope, id: RejectionId, sources: &mut Sources) -> Answer<Reverified> {
    let (view, request) = state.app.storage.api.rejection_get(scope, id).await?;
    if let Some(event_id) = view.event {
        return Ok(Reverified { event_id, duplicate: true });
    }
    let source = match sources.entry(view.source) {
        Entry::Occupied(known) => known.get().clone(),
        Entry::Vacant(place) => {
            let found = super::source(state, scope, view.source).await?.filter(|source| source.is_active);
            place.insert(found.ok_or_else(|| Problem::of(Code::SourceDisabled))?).clone()
        }
    };
    let headers = header_map(&request.headers);
    let verified = verify_again(state, &source, &request, &headers, view.received_at).await?;
    let forwarded = source.verifier.as_ref().map(|verifier| ingest::forwarded(verifier, &headers)).unwrap_or_default();
    let events = NewEvent::all_received(&source, verified, forwarded, request.body, state.now());
    let known = |(place, event): (usize, NewEvent)| {
        let own = if place == 0 { id.to_string() } else { format!("{id}:{place}") };
        match ExternalId::parse(&own) {
            Ok(own) => event.or_known_as(own),
            Err(_) => event,
        }
    };
    let recorded = ingest::record(state, events.into_iter().enumerate().map(known).collect()).await?;
    state.app.storage.api.rejection_resolve(scope, id, recorded.id, state.now()).await?;
    Ok(Reverified { event_id: recorded.id, duplicate: recorded.duplicate })
}

async fn verify_again(
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
    let outcome = state.keys.verify(verifier, &request, received_at, || state.now()).await;
    match outcome.map_err(|why| still(format!("the key that the request names can not be had: {why}")))?.0 {
        Outcome::Verified(verified) => Ok(verified),
        Outcome::Refused(refusal) => Err(still(format!("the check {} still fails", refusal.check()))),
        Outcome::NeedsKey(_) => Err(still("the request needs a key".to_owned())),
        Outcome::Handshake(_) | Outcome::Learned { .. } | Outcome::Confirm(_) => {
            Err(still("the request was a provider's handshake, which is no event".to_owned()))
        }
    }
}
