//! `/v1/sources`: where third parties send.

use axum::Json as Body;
use axum::extract::State;
use http::StatusCode;
use postroom_domain::source::{self, SourceSettings};
use postroom_domain::verify::Verifier;
use postroom_domain::{Secret, SourceId, Timestamp};
use postroom_storage::Scope;
use postroom_storage::api::{NewSource, Rotation, SourceChange, SourceView};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::endpoints::grace;
use crate::app::{Shared, State as Web};
use crate::extract::{Id, InOrganization, Json, List, PageParams, Paged, given};
use crate::problem::{Answer, FieldProblem};

/// The longest time that an old secret verifies beside the new one: a provider's own rotation may take days.
const GRACE_SECONDS_MAX: u64 = 30 * 24 * 3600;
/// How long it does when nothing is said.
const GRACE_SECONDS_DEFAULT: u64 = 24 * 3600;

pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, change, delete))
        .routes(routes!(rotate_secret))
}

/// A source. Its secrets are never shown.
#[derive(Serialize, ToSchema)]
struct SourceJson {
    #[schema(value_type = String, example = "src_0198c1f2a7b37d3e9a4c5b6d7e8f9012")]
    id: SourceId,
    /// Stands in the URL.
    #[schema(example = "stripe")]
    name: String,
    /// Who signs, by the name in `/v1/providers`.
    #[schema(example = "stripe")]
    provider: String,
    /// Options of the provider's scheme.
    #[schema(value_type = std::collections::BTreeMap<String, Value>)]
    options: Map<String, Value>,
    /// The URL to register with the provider.
    #[schema(example = "https://hooks.example/in/acme-corp/stripe")]
    url: String,
    /// A source that is switched off answers 403.
    is_active: bool,
    /// How many secrets are valid now. With none, a source that needs one refuses everything.
    active_secret_count: usize,
    #[schema(required = true, value_type = Option<String>, format = DateTime)]
    secret_updated_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// Who made it: the id of a user or an API key, `super_admin` or `operator`; null when that is not known.
    #[schema(required = true)]
    created_by: Option<String>,
}

impl SourceJson {
    fn new(state: &Web, scope: &Scope, view: SourceView) -> Self {
        Self {
            id: view.id,
            url: format!("{}/in/{}/{}", state.app.public_url, scope.slug(), view.settings.name),
            name: view.settings.name,
            provider: view.settings.provider,
            options: view.settings.options,
            is_active: view.is_active,
            active_secret_count: view.active_secrets,
            secret_updated_at: view.secret_updated_at,
            created_at: view.created_at,
            created_by: view.created_by,
            updated_at: view.updated_at,
        }
    }
}

/// A source to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateSource {
    /// Who signs, by the name in `/v1/providers`.
    #[schema(example = "stripe")]
    provider: String,
    /// Stands in the URL; unique in the organization. Default: the provider.
    #[serde(default)]
    #[schema(example = "stripe", max_length = 63)]
    name: Option<String>,
    /// The secret that the provider shows for this webhook. It can also be set later.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    secret: Option<Secret>,
    /// Options of the provider's scheme: `/v1/providers` lists them.
    #[serde(default)]
    #[schema(value_type = Option<std::collections::BTreeMap<String, Value>>)]
    options: Option<Map<String, Value>>,
}

/// What to change of a source. What is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeSource {
    /// A new name: the URL changes with it.
    #[serde(default, deserialize_with = "given")]
    #[schema(max_length = 63)]
    name: Option<String>,
    /// Replaces every secret at once. To keep the old one for a while, rotate.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    secret: Option<Secret>,
    /// Replaces all options.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, Value>>)]
    options: Option<Map<String, Value>>,
    /// Switches it on or off.
    #[serde(default, deserialize_with = "given")]
    is_active: Option<bool>,
}

/// A new secret for a source.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RotateSourceSecret {
    /// The new secret, as the provider shows it.
    #[schema(value_type = String)]
    secret: Secret,
    /// How long the old ones verify beside it, in seconds. Default: 24 hours.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 2592000, default = 86400)]
    grace_seconds: Option<u64>,
}

/// List sources, newest first.
#[utoipa::path(get, path = "/v1/sources", tag = "sources", params(PageParams),
    responses((status = 200, body = List<SourceJson>)))]
async fn list(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    page: Paged,
) -> Answer<Body<List<SourceJson>>> {
    let (_, page, seal) = page.split();
    let found = state.app.storage.api.source_list(&scope, page).await?;
    Ok(seal.list(found, |view| SourceJson::new(&state, &scope, view)))
}

/// Make a source.
#[utoipa::path(post, path = "/v1/sources", tag = "sources", request_body = CreateSource,
    responses((status = 201, body = SourceJson)))]
async fn create(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Json(new): Json<CreateSource>,
) -> Answer<(StatusCode, Body<SourceJson>)> {
    let options = new.options.unwrap_or_default();
    let mut errors = misfits(&new.provider, &options, new.secret.as_ref());
    let name = source::name(new.name.as_deref().unwrap_or(&new.provider));
    // An unknown provider is told as such, and not also as a bad name.
    if new.name.is_some() || errors.is_empty() {
        errors.extend(name.as_ref().err().cloned().map(|invalid| FieldProblem::invalid("name", invalid)));
    }
    let Some(name) = name.ok().filter(|_| errors.is_empty()) else { return Err(errors.into()) };
    let settings = SourceSettings { name, provider: new.provider, options };
    let new = NewSource { settings, secret: new.secret };
    let view = state.app.storage.api.source_create(&scope, new, state.now()).await?;
    Ok((StatusCode::CREATED, Body(SourceJson::new(&state, &scope, view))))
}

/// One source.
#[utoipa::path(get, path = "/v1/sources/{id}", tag = "sources", responses((status = 200, body = SourceJson)))]
async fn get(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<SourceId>,
) -> Answer<Body<SourceJson>> {
    let view = state.app.storage.api.source_get(&scope, id).await?;
    Ok(Body(SourceJson::new(&state, &scope, view)))
}

/// Change a source.
#[utoipa::path(patch, path = "/v1/sources/{id}", tag = "sources", request_body = ChangeSource,
    responses((status = 200, body = SourceJson)))]
async fn change(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<SourceId>,
    Json(change): Json<ChangeSource>,
) -> Answer<Body<SourceJson>> {
    let api = &state.app.storage.api;
    let before = api.source_get(&scope, id).await?.settings;
    let options = change.options.as_ref().unwrap_or(&before.options);
    let mut errors = misfits(&before.provider, options, change.secret.as_ref());
    let name = change.name.as_deref().map(source::name).transpose();
    let name = name.map_err(|invalid| errors.push(FieldProblem::invalid("name", invalid))).unwrap_or_default();
    if !errors.is_empty() {
        return Err(errors.into());
    }
    let change = SourceChange { name, options: change.options, secret: change.secret, is_active: change.is_active };
    let view = api.source_update(&scope, id, change, state.now()).await?;
    Ok(Body(SourceJson::new(&state, &scope, view)))
}

/// Delete a source. Its events stay; its URL answers 404 from now on.
#[utoipa::path(delete, path = "/v1/sources/{id}", tag = "sources", responses((status = 204, description = "Deleted")))]
async fn delete(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<SourceId>,
) -> Answer<StatusCode> {
    state.app.storage.api.source_delete(&scope, id, state.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Add a new secret. The old ones verify beside it for a while.
#[utoipa::path(post, path = "/v1/sources/{id}/rotate-secret", tag = "sources", request_body = RotateSourceSecret,
    responses((status = 200, body = SourceJson)))]
async fn rotate_secret(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<SourceId>,
    Json(rotate): Json<RotateSourceSecret>,
) -> Answer<Body<SourceJson>> {
    let api = &state.app.storage.api;
    let grace_seconds = grace(rotate.grace_seconds.or(Some(GRACE_SECONDS_DEFAULT)), GRACE_SECONDS_MAX)?;
    let before = api.source_get(&scope, id).await?.settings;
    let errors = misfits(&before.provider, &before.options, Some(&rotate.secret));
    if !errors.is_empty() {
        return Err(errors.into());
    }
    let rotation = Rotation { secret: rotate.secret, grace_seconds };
    let view = api.source_rotate(&scope, id, rotation, state.now()).await?;
    Ok(Body(SourceJson::new(&state, &scope, view)))
}

/// What does not make a verifier, field by field.
fn misfits(provider: &str, options: &Map<String, Value>, secret: Option<&Secret>) -> Vec<FieldProblem> {
    let secrets: Vec<Secret> = secret.cloned().into_iter().collect();
    let errors = Verifier::compile(provider, options, &secrets).err().unwrap_or_default();
    let fields = errors.into_iter().map(|error| {
        let own = matches!(error.field.as_str(), "provider" | "secret");
        let field = if own { error.field } else { format!("options.{}", error.field) };
        FieldProblem::invalid(field, error.invalid)
    });
    fields.collect()
}
