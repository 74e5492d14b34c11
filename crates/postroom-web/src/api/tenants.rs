//! `POST /v1/tenants`: everything a new customer needs, in one call and one transaction.

use axum::Json as Body;
use axum::extract::State;
use http::StatusCode;
use postroom_domain::api_key::KeyScope;
use postroom_domain::organization::{self, Plan};
use postroom_domain::{ApiKeyId, EndpointId, Invalid, signing};
use postroom_storage as storage;
use postroom_storage::platform::{NewOrganization, NewTenant};
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
    /// In which database its data lives. `shared` is what the embedded storage has.
    #[serde(default)]
    #[schema(value_type = Option<Isolation>)]
    isolation: Option<String>,
}

/// In which database an organization's data lives.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "only for the document: it is read as a text")]
enum Isolation {
    /// The one of all organizations.
    Shared,
}

impl CreateTenant {
    fn isolation(&self, errors: &mut Errors) {
        let checked = match self.isolation.as_deref() {
            None | Some("shared") => Ok(()),
            Some("dedicated") => Err(Invalid::new("not_available", "the embedded storage has shared only")),
            Some(_) => Err(Invalid::new("unknown_value", "shared")),
        };
        errors.take("isolation", checked);
    }

    fn organization(&self) -> Answer<NewOrganization> {
        let mut errors = Errors::default();
        let e = &mut errors;
        self.isolation(e);
        if self.event_types.is_some() && self.target_url.is_none() {
            e.push("target_url", "required", "event_types are the endpoint's: give its URL");
        }
        let slug = slug_or_made(e, self.slug.as_deref(), &self.name);
        let name = e.take("name", organization::name(&self.name));
        let plan = self.plan.as_deref().map_or(Some(Plan::Free), |text| plan(e, text));
        let (name, slug, plan) =
            errors.finish(name.zip(slug).zip(plan).map(|((name, slug), plan)| (name, slug, plan)))?;
        let (webhook_limit, mandrill_webhook_secret) = (None, None);
        Ok(NewOrganization { name, slug, plan, webhook_limit, is_active: true, mandrill_webhook_secret })
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
    let organization = new.organization()?;
    let endpoint = new.target_url.map(|url| NewEndpoint::of_tenant(url, new.event_types));
    let settings = endpoint.map(|endpoint| endpoint.check_as(&state.app.egress, "target_url")).transpose()?;
    let endpoint = settings.map(|settings| {
        let secret = signing::generate(settings.signature);
        storage::api::NewEndpoint { settings, secret }
    });
    let endpoint_secret = endpoint.as_ref().map(|endpoint| endpoint.secret.clone());
    let (key, api_key) = api_keys::fresh("default".to_owned(), vec![KeyScope::Admin]);
    let new = NewTenant { organization, api_key, endpoint, isolation: storage::platform::Isolation::Shared };
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
