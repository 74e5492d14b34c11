//! `/v1/api-keys`: how an organization's code proves who it is.

use axum::Json as Body;
use axum::extract::State;
use http::StatusCode;
use postroom_domain::api_key::{self, KeyScope};
use postroom_domain::{ApiKeyId, Invalid, Secret, Timestamp, organization};
use postroom_storage::api::{ApiKeyView, NewApiKey};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::Shared;
use crate::extract::{Id, InOrganization, Json, List, PageParams, Paged};
use crate::problem::Answer;
use crate::problem::fields::Errors;

pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get, revoke))
}

/// What a key may do.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only for the document: the domain's enum is what is read and written")]
enum ScopeName {
    /// Send events.
    #[schema(rename = "events:write")]
    EventsWrite,
    /// Read everything but secrets.
    #[schema(rename = "read")]
    Read,
    /// Everything, configuration included.
    #[schema(rename = "admin")]
    Admin,
}

/// An API key, without the key itself.
#[derive(Serialize, ToSchema)]
struct ApiKeyJson {
    #[schema(value_type = String, example = "key_0198c1f2a7b37d3e9a4c5b6d7e8f9012")]
    id: ApiKeyId,
    name: String,
    #[schema(value_type = Vec<ScopeName>)]
    scopes: Vec<KeyScope>,
    /// The last four characters of the key.
    last_four: String,
    #[schema(required = true, value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    #[schema(required = true, value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Timestamp>,
    /// To the minute.
    #[schema(required = true, value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// Who made it: the id of a user or an API key, `super_admin` or `operator`; null when that is not known.
    #[schema(required = true)]
    created_by: Option<String>,
}

impl From<ApiKeyView> for ApiKeyJson {
    fn from(view: ApiKeyView) -> Self {
        Self {
            id: view.id,
            name: view.name,
            scopes: view.scopes,
            last_four: view.last_four,
            expires_at: view.expires_at,
            revoked_at: view.revoked_at,
            last_used_at: view.last_used_at,
            created_at: view.created_at,
            created_by: view.created_by,
        }
    }
}

/// An API key with the key itself, which is shown this once.
#[derive(Serialize, ToSchema)]
struct ApiKeyWithSecret {
    #[serde(flatten)]
    api_key: ApiKeyJson,
    /// The key. It is not stored and can not be shown again.
    #[schema(example = "prk_...")]
    secret: String,
}

/// An API key to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateApiKey {
    /// For people: where the key is used.
    #[schema(example = "billing service", max_length = 100)]
    name: String,
    /// What it may do.
    #[schema(value_type = Vec<ScopeName>, min_items = 1, example = json!(["events:write"]))]
    scopes: Vec<String>,
    /// When it ends by itself (RFC 3339). Left out: never.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<String>,
}

impl CreateApiKey {
    fn check(self, now: Timestamp) -> Answer<(Secret, NewApiKey)> {
        let mut errors = Errors::default();
        let name = errors.take("name", organization::name(&self.name));
        let scopes = scopes(&mut errors, &self.scopes);
        let expires_at = self.expires_at.and_then(|text| errors.take("expires_at", expiry(&text, now)));
        let name = errors.finish(name)?;
        let (secret, new) = fresh(name, scopes);
        Ok((secret, NewApiKey { expires_at, ..new }))
    }
}

/// A fresh key and what is stored of it.
pub(super) fn fresh(name: String, scopes: Vec<KeyScope>) -> (Secret, NewApiKey) {
    let (secret, hash) = api_key::generate();
    let text = secret.expose_str().unwrap_or_default();
    let last_four = text[text.len().saturating_sub(4)..].to_owned();
    (secret, NewApiKey { name, scopes, expires_at: None, hash, last_four })
}

fn scopes(errors: &mut Errors, given: &[String]) -> Vec<KeyScope> {
    let mut scopes = Vec::new();
    for (index, text) in given.iter().enumerate() {
        let known = KeyScope::ALL.into_iter().find(|scope| scope.as_str() == text);
        let known = known.ok_or_else(|| Invalid::new("unknown_value", "one of events:write, read, admin"));
        scopes.extend(errors.take(&format!("scopes[{index}]"), known));
    }
    if given.is_empty() {
        errors.push("scopes", "required", "give one or more of events:write, read, admin");
    }
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

fn expiry(text: &str, now: Timestamp) -> Result<Timestamp, Invalid> {
    match text.parse::<Timestamp>() {
        Ok(at) if at > now => Ok(at),
        Ok(_) => Err(Invalid::new("out_of_range", "a moment in the future")),
        Err(error) => Err(Invalid::new("invalid_time", error.to_string())),
    }
}

/// List API keys, newest first, revoked ones too.
#[utoipa::path(get, path = "/v1/api-keys", tag = "API keys", params(PageParams),
    responses((status = 200, body = List<ApiKeyJson>)))]
async fn list(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    page: Paged,
) -> Answer<Body<List<ApiKeyJson>>> {
    let (_, page, seal) = page.split();
    Ok(seal.list(state.app.storage.api.api_key_list(&scope, page).await?, ApiKeyJson::from))
}

/// Make an API key. The key is shown in this answer and never again.
#[utoipa::path(post, path = "/v1/api-keys", tag = "API keys", request_body = CreateApiKey,
    responses((status = 201, body = ApiKeyWithSecret)))]
async fn create(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Json(new): Json<CreateApiKey>,
) -> Answer<(StatusCode, Body<ApiKeyWithSecret>)> {
    let now = state.now();
    let (secret, new) = new.check(now)?;
    let api_key = state.app.storage.api.api_key_create(&scope, new, now).await?.into();
    let secret = secret.expose_str().unwrap_or_default().to_owned();
    Ok((StatusCode::CREATED, Body(ApiKeyWithSecret { api_key, secret })))
}

/// One API key.
#[utoipa::path(get, path = "/v1/api-keys/{id}", tag = "API keys", responses((status = 200, body = ApiKeyJson)))]
async fn get(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<ApiKeyId>,
) -> Answer<Body<ApiKeyJson>> {
    Ok(Body(state.app.storage.api.api_key_get(&scope, id).await?.into()))
}

/// Revoke an API key. It is refused from now on; revoking it twice is no error.
#[utoipa::path(delete, path = "/v1/api-keys/{id}", tag = "API keys", responses((status = 200, body = ApiKeyJson)))]
async fn revoke(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<ApiKeyId>,
) -> Answer<Body<ApiKeyJson>> {
    Ok(Body(state.app.storage.api.api_key_revoke(&scope, id, state.now()).await?.into()))
}
