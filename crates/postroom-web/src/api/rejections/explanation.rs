//! Why a rejected request does not verify, for the owner of its source. Its sender never learns any of this.

use std::sync::Arc;

use bytes::Bytes;
use postroom_domain::Timestamp;
use postroom_domain::verify::{Explanation, Outcome, Request, Verdict};
use postroom_storage::Scope;
use postroom_storage::api::{PageRequest, RejectedRequest, RejectionView};
use postroom_storage::receiver::Source;
use utoipa::ToSchema;

use super::header_map;
use crate::app::State as Web;
use crate::problem::{Answer, Code, Problem};

/// How many other sources are asked whether the request is theirs.
const SOURCES_MAX: usize = 250;

/// Every check of one request. `postroom verify --json` prints the same.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only for the document: the domain's explanation is what is written")]
pub(super) struct ExplanationJson {
    /// The source's provider.
    #[schema(example = "github")]
    provider: String,
    /// `invalid`, or how it stands now that the source was mended: `valid` (verify it again to make it an event) or
    /// `handshake` (it is no event).
    #[schema(example = "invalid")]
    verdict: String,
    /// With `invalid`: what its sender would be answered.
    #[schema(required = true, example = "signature_invalid")]
    code: Option<String>,
    /// With `invalid`: which check fails.
    #[schema(required = true, example = "signature")]
    failed_check: Option<String>,
    /// The checks in the order they are made; the first that fails is the last.
    checks: Vec<CheckJson>,
    /// With `invalid`: what is most probably wrong and what to do, the likeliest first.
    likely_causes: Vec<String>,
    /// With `valid`: the event's type.
    #[schema(required = true)]
    event_type: Option<String>,
    /// With `valid`: the sender's id of the event.
    #[schema(required = true)]
    external_id: Option<String>,
}

/// One check.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only for the document: the domain's step is what is written")]
pub(super) struct CheckJson {
    #[schema(example = "signature")]
    check: String,
    passed: bool,
    /// What was found.
    #[schema(example = "1 signature compared with 1 secret: none matches")]
    detail: String,
}

/// The key that a rejected request names, if it names one that can be had.
async fn key(state: &Web, source: &Source, request: &RejectedRequest, url: &str, at: Timestamp) -> Option<Bytes> {
    let verifier = source.verifier.as_ref().ok()?;
    let headers = header_map(&request.headers);
    let request = Request { method: &request.method, url, headers: &headers, body: &request.body };
    state.keys.verify(verifier, &request, at, || state.now()).await.ok()?.1
}

/// Explains a rejected request as its source is set up now, judged at the time of its arrival.
pub(super) async fn explain(
    state: &Web,
    scope: &Scope,
    view: &RejectionView,
    request: Arc<RejectedRequest>,
) -> Answer<Option<Explanation>> {
    let Some(source) = super::source(state, scope, view.source).await? else { return Ok(None) };
    let others = others(state, scope, &source).await?;
    let (url, at) = (format!("{}{}", state.app.public_url, request.path), view.received_at);
    let key = key(state, &source, &request, &url, at).await;
    // Trying what usually goes wrong computes a few hundred hashes of the body: not on a thread that carries others.
    let explain = move || {
        let headers = header_map(&request.headers);
        let request = Request { method: &request.method, url: &url, headers: &headers, body: &request.body };
        let mut told = source.verifier.as_ref().ok()?.explain_with_key(&request, key.as_deref(), at);
        let verifies = |other: &&Arc<Source>| {
            let verifier = other.verifier.as_ref().ok().filter(|verifier| verifier.provider().needs_secret());
            // A handshake proves nothing: several are not signed.
            verifier.is_some_and(|verifier| matches!(verifier.verify(&request, at), Outcome::Verified(_)))
        };
        if told.verdict == Verdict::Invalid
            && let Some(other) = others.iter().find(verifies)
        {
            let name = &other.settings.name;
            told.likely_causes.insert(
                0,
                format!(
                    "it verifies at the source {name}: it was sent to the URL of {}, or this source has the secret of \
                     another environment",
                    source.settings.name
                ),
            );
        }
        Some(told)
    };
    tokio::task::spawn_blocking(explain).await.map_err(|error| Problem::caused(Code::InternalError, error))
}

/// The organization's other sources.
async fn others(state: &Web, scope: &Scope, source: &Source) -> Answer<Vec<Arc<Source>>> {
    let page = PageRequest { limit: SOURCES_MAX, after: None };
    let mut others = Vec::new();
    for view in state.app.storage.api.source_list(scope, page).await?.data {
        let found = state.app.storage.receiver.source_find(scope.slug(), &view.settings.name).await?;
        others.extend(found.filter(|other| other.id != source.id));
    }
    Ok(others)
}
