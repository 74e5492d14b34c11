//! `/v1/audit-logs`: who did what to which thing, for an organization's admins; for a super admin who names no organization,
//! what was done outside of every organization.

use axum::Json as Body;
use axum::extract::State;
use postroom_domain::{AuditEntryId, Invalid, Timestamp};
use postroom_storage::audit::{Action, AuditEntry, AuditFilter};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::deliveries::period;
use crate::app::Shared;
use crate::extract::auth::Acts;
use crate::extract::{Caller, List, PageParams, Paged};
use crate::problem::Answer;
use crate::problem::fields::Errors;

/// The longest text of a condition, in bytes.
const TEXT_MAX: usize = 100;

pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list))
}

/// One entry of the audit log.
#[derive(Serialize, ToSchema)]
struct AuditEntryJson {
    #[schema(value_type = String, example = "aud_0198c1f2a7b37d3e9a4c5b6d7e8f9012")]
    id: AuditEntryId,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// The id of a user or an API key, or `super_admin` (the admin token), `operator` (a command on the server), `sender`
    /// (a provider's handshake), `nobody` (no credential that is good).
    #[schema(example = "key_0198c1f2a7b37d3e9a4c5b6d7e8f9012")]
    actor: String,
    #[schema(example = "endpoint.updated")]
    action: String,
    #[schema(example = "endpoint")]
    resource_type: String,
    #[schema(required = true, example = "ep_0198c1f2a7b37d3e9a4c5b6d7e8f9012")]
    resource_id: Option<String>,
    /// What was changed, as it was before.
    #[schema(required = true, value_type = Option<std::collections::BTreeMap<String, Value>>)]
    old_values: Option<Map<String, Value>>,
    /// The same, as it is after it. Of a secret only that it was `changed`.
    #[schema(required = true, value_type = Option<std::collections::BTreeMap<String, Value>>)]
    new_values: Option<Map<String, Value>>,
    /// The client's address.
    #[schema(required = true)]
    address: Option<String>,
    /// The id of the request, as its answer had it.
    #[schema(required = true)]
    request_id: Option<String>,
}

impl From<AuditEntry> for AuditEntryJson {
    fn from(entry: AuditEntry) -> Self {
        Self {
            id: entry.id,
            created_at: entry.at,
            actor: entry.actor,
            action: entry.action,
            resource_type: entry.resource_type,
            resource_id: entry.resource_id,
            old_values: entry.old_values,
            new_values: entry.new_values,
            address: entry.address,
            request_id: entry.request_id,
        }
    }
}

/// Conditions that must all hold.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListEntries {
    /// Done by this user, API key, or other actor.
    actor: Option<String>,
    /// This was done: `endpoint.updated`.
    action: Option<String>,
    /// Done to things of this kind: `endpoint`.
    resource_type: Option<String>,
    /// Done to this thing.
    resource_id: Option<String>,
    /// At this moment or later (RFC 3339).
    created_after: Option<String>,
    /// Before this moment (RFC 3339).
    created_before: Option<String>,
}

impl ListEntries {
    fn check(self) -> Answer<AuditFilter> {
        let mut errors = Errors::default();
        let mut text = |field, value: Option<String>, known: Option<Vec<&str>>| {
            value.and_then(|value| errors.take(field, checked(value, known)))
        };
        let actions = Action::ALL.iter().map(|(action, _)| action.as_str()).collect();
        let mut kinds: Vec<&str> = Action::ALL.iter().map(|(action, _)| action.resource_type()).collect();
        kinds.dedup();
        let (actor, action) = (text("actor", self.actor, None), text("action", self.action, Some(actions)));
        let resource_type = text("resource_type", self.resource_type, Some(kinds));
        let resource_id = text("resource_id", self.resource_id, None);
        let (created_after, created_before) = period(&mut errors, self.created_after, self.created_before);
        errors.finish(Some(AuditFilter { actor, action, resource_type, resource_id, created_after, created_before }))
    }
}

/// A mistyped word must not look like nothing having been done.
fn checked(text: String, known: Option<Vec<&str>>) -> Result<String, Invalid> {
    match known {
        _ if text.is_empty() => Err(Invalid::new("required", "leave it out, or say which")),
        _ if text.len() > TEXT_MAX => Err(Invalid::new("too_long", format!("at most {TEXT_MAX} bytes"))),
        Some(known) if !known.contains(&text.as_str()) => {
            Err(Invalid::new("unknown_value", format!("one of {}", known.join(", "))))
        }
        _ => Ok(text),
    }
}

/// List what was done, newest first. A page looks at a bounded number of entries, so that it may be short or empty and still
/// have a next one.
#[utoipa::path(get, path = "/v1/audit-logs", tag = "audit log", params(PageParams, ListEntries),
    responses((status = 200, body = List<AuditEntryJson>)))]
async fn list(
    State(state): State<Shared>,
    caller: Caller,
    page: Paged<ListEntries>,
) -> Answer<Body<List<AuditEntryJson>>> {
    let (filter, page, seal) = page.split();
    let (filter, storage) = (filter.check()?, &state.app.storage);
    let found = match caller.acts() {
        Acts::In(scope) => storage.api.audit_list(scope, filter, page).await?,
        Acts::OnPlatform(proof) => storage.platform.audit_list(proof, filter, page).await?,
    };
    Ok(seal.list(found, AuditEntryJson::from))
}
