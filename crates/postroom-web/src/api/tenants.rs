//! `POST /v1/tenants`: everything a new customer needs, in one call; in one transaction, or in a database of its own in
//! steps that can be made again.

use axum::Json as Body;
use axum::extract::State;
use http::StatusCode;
use postroom_domain::api_key::KeyScope;
use postroom_domain::organization::{self, Plan};
use postroom_domain::{ApiKeyId, EndpointId, Invalid, signing};
use postroom_storage as storage;
use postroom_storage::platform::{Isolation, NewOrganization, NewTenant};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::api_keys;
use super::endpoint_input::NewEndpoint;
use super::organizations::{OrganizationJson, PlanName, plan, slug_or_made, super_admin};
use crate::app::Shared;
use crate::extract::{Caller, Json};
use crate::problem::Answer;
use crate::problem::fields::Errors;

pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(create))
}

/// A customer to set up.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateTenant {
    /// The organization's name.
    #[schema(example = "Acme Corp.", max_length = 100)]
    name: String,
    /// Default: made from the name.
    #[serde(default)]
    #[schema(example = "acme-corp", max_length = 63)]
    slug: Option<String>,
    /// Default: `free`.
    #[serde(default)]
    #[schema(value_type = Option<PlanName>)]
    plan: Option<String>,
    /// Where its events go. Left out: no endpoint is made.
    #[serde(default)]
    #[schema(example = "https://example.com/webhooks", max_length = 2048)]
    target_url: Option<String>,
    /// Which event types the endpoint wants. Left out: all.
    #[serde(default)]
    event_types: Option<Vec<String>>,
    /// In which database its data lives. Default: `shared`.
    #[serde(default)]
    #[schema(value_type = Option<IsolationName>)]
    isolation: Option<String>,
}

/// In which database an organization's data lives.
#[derive(ToSchema)]
#[schema(as = Isolation, rename_all = "snake_case")]
#[expect(dead_code, reason = "only for the document: it is read as a text")]
enum IsolationName {
    /// The one of all organizations that have none of their own.
    Shared,
    /// One of its own. When a request for it fails half way, the same request made again goes on from there.
    Dedicated,
}

impl CreateTenant {
    fn isolation(&self, errors: &mut Errors) -> Option<Isolation> {
        let checked = match self.isolation.as_deref() {
            None | Some("shared") => Ok(Isolation::Shared),
            Some("dedicated") => Ok(Isolation::Dedicated),
            Some(_) => Err(Invalid::new("unknown_value", "shared or dedicated")),
        };
        errors.take("isolation", checked)
    }

    fn organization(&self) -> Answer<(NewOrganization, Isolation)> {
        let mut errors = Errors::default();
        let e = &mut errors;
        let isolation = self.isolation(e);
        if self.event_types.is_some() && self.target_url.is_none() {
            e.push("target_url", "required", "event_types are the endpoint's: give its URL");
        }
        let slug = slug_or_made(e, self.slug.as_deref(), &self.name);
        let name = e.take("name", organization::name(&self.name));
        let plan = self.plan.as_deref().map_or(Some(Plan::Free), |text| plan(e, text));
        let all = name.zip(slug).zip(plan.zip(isolation));
        let ((name, slug), (plan, isolation)) = errors.finish(all)?;
        let (webhook_limit, mandrill_webhook_secret) = (None, None);
        let new = NewOrganization { name, slug, plan, webhook_limit, is_active: true, mandrill_webhook_secret };
        Ok((new, isolation))
    }
}

/// What was made. The secrets are shown this once.
#[derive(Serialize, ToSchema)]
struct TenantJson {
    organization: OrganizationJson,
    api_key: TenantKey,
    /// Null when no `target_url` was given.
    #[schema(required = true)]
    endpoint: Option<TenantEndpoint>,
}

/// The organization's first API key; it may do everything of the organization.
#[derive(Serialize, ToSchema)]
struct TenantKey {
    #[schema(value_type = String)]
    id: ApiKeyId,
    /// The key itself.
    #[schema(example = "prk_...")]
    secret: String,
}

/// The organization's first endpoint.
#[derive(Serialize, ToSchema)]
struct TenantEndpoint {
    #[schema(value_type = String)]
    id: EndpointId,
    url: String,
    /// Signs what is delivered there.
    #[schema(example = "whsec_...")]
    secret: String,
}

/// Set up a customer: organization, API key and endpoint.
#[utoipa::path(post, path = "/v1/tenants", tag = "organizations", request_body = CreateTenant,
    responses((status = 201, body = TenantJson)))]
async fn create(
    State(state): State<Shared>,
    caller: Caller,
    Json(new): Json<CreateTenant>,
) -> Answer<(StatusCode, Body<TenantJson>)> {
    let proof = super_admin(&caller)?;
    let (organization, isolation) = new.organization()?;
    let endpoint = new.target_url.map(|url| NewEndpoint::of_tenant(url, new.event_types));
    let settings = endpoint.map(|endpoint| endpoint.check_as(&state.app.egress, "target_url")).transpose()?;
    let endpoint = settings.map(|settings| {
        let secret = signing::generate(settings.signature);
        storage::api::NewEndpoint { settings, secret }
    });
    let endpoint_secret = endpoint.as_ref().map(|endpoint| endpoint.secret.clone());
    let (key, api_key) = api_keys::fresh("default".to_owned(), vec![KeyScope::Admin]);
    let new = NewTenant { organization, api_key, endpoint, isolation };
    let made = state.app.storage.platform.tenant_create(proof, new, state.now()).await?;
    let text = |secret: &postroom_domain::Secret| secret.expose_str().unwrap_or_default().to_owned();
    let endpoint = made.endpoint.zip(endpoint_secret).map(|(endpoint, secret)| TenantEndpoint {
        id: endpoint.id,
        url: endpoint.settings.url.to_string(),
        secret: text(&secret),
    });
    let api_key = TenantKey { id: made.api_key.id, secret: text(&key) };
    Ok((StatusCode::CREATED, Body(TenantJson { organization: made.organization.into(), api_key, endpoint })))
}
