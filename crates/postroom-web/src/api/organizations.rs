//! `/v1/organizations`: the customers of the installation, for super admins; its own, for an organization's keys.

use axum::Json as Body;
use axum::extract::State;
use http::StatusCode;
use postroom_domain::organization::{self, Plan, WEBHOOK_LIMIT_MAX};
use postroom_domain::{Invalid, OrganizationId, Secret, Timestamp};
use postroom_storage::platform::{NewOrganization, Organization, OrganizationChange};
use postroom_storage::{Scope, SuperAdmin};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::{Shared, State as Web};
use crate::extract::{Caller, Id, Json, List, PageParams, Paged, double_option, given};
use crate::problem::fields::Errors;
use crate::problem::{Answer, Code, Problem};

/// The longest Mandrill secret, in bytes.
const SECRET_MAX: usize = 255;

pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get, replace, change, deactivate))
}

/// An organization.
#[derive(Serialize, ToSchema)]
pub(super) struct OrganizationJson {
    #[schema(value_type = String, example = "org_0198c1f2a7b37d3e9a4c5b6d7e8f9012")]
    id: OrganizationId,
    #[schema(example = "Acme Corp.")]
    name: String,
    /// Stands in URLs.
    #[schema(example = "acme-corp")]
    slug: String,
    #[schema(value_type = PlanName)]
    plan: Plan,
    /// Events a calendar month (UTC), the plan's or its own; null is unlimited.
    #[schema(required = true)]
    webhook_limit: Option<u64>,
    /// Events accepted in the current calendar month.
    webhook_count: u64,
    is_active: bool,
    has_mandrill_webhook_secret: bool,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// Who made it: the id of a user or an API key, `super_admin` or `operator`; null when that is not known.
    #[schema(required = true)]
    created_by: Option<String>,
}

/// Decides how many events a month an organization may have accepted.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "only for the document: the domain's enum is what is read and written")]
pub(super) enum PlanName {
    /// 1,000, if the settings say nothing else.
    Free,
    /// 50,000, if they say nothing else.
    Starter,
    /// No limit, if they say nothing else.
    Premium,
}

impl From<Organization> for OrganizationJson {
    fn from(view: Organization) -> Self {
        Self {
            id: view.id,
            name: view.name,
            slug: view.slug,
            plan: view.plan,
            webhook_limit: view.webhook_limit,
            webhook_count: view.webhook_count,
            is_active: view.is_active,
            has_mandrill_webhook_secret: view.has_mandrill_webhook_secret,
            created_at: view.created_at,
            created_by: view.created_by,
            updated_at: view.updated_at,
        }
    }
}

/// An organization to make, or all of one that is to be replaced.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WriteOrganization {
    #[schema(example = "Acme Corp.", max_length = 100)]
    name: String,
    /// Stands in URLs: lower-case letters, digits and hyphens. Default: made from the name.
    #[serde(default)]
    #[schema(example = "acme-corp", max_length = 63)]
    slug: Option<String>,
    /// Default: `free`.
    #[serde(default)]
    #[schema(value_type = Option<PlanName>)]
    plan: Option<String>,
    /// Events a calendar month. Left out: the plan's.
    #[serde(default)]
    webhook_limit: Option<u64>,
    /// Default: true.
    #[serde(default)]
    is_active: Option<bool>,
    /// The webhook key that Mandrill shows for `/in/{slug}/mandrill`. Write-only, and unique in the installation. Left out
    /// when replacing: the one before stays.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 255)]
    mandrill_webhook_secret: Option<Secret>,
}

/// What to change of an organization. What is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeOrganization {
    #[serde(default, deserialize_with = "given")]
    #[schema(max_length = 100)]
    name: Option<String>,
    /// A new slug: inbound URLs change with it.
    #[serde(default, deserialize_with = "given")]
    #[schema(max_length = 63)]
    slug: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<PlanName>)]
    plan: Option<String>,
    /// Events a calendar month; null is the plan's limit again.
    #[serde(default, deserialize_with = "double_option")]
    #[schema(value_type = Option<u64>)]
    webhook_limit: Option<Option<u64>>,
    #[serde(default, deserialize_with = "given")]
    is_active: Option<bool>,
    /// Write-only; null takes it away.
    #[serde(default, deserialize_with = "double_option")]
    #[schema(value_type = Option<String>, max_length = 255)]
    mandrill_webhook_secret: Option<Option<Secret>>,
}

impl WriteOrganization {
    fn check(self) -> Answer<NewOrganization> {
        let mut errors = Errors::default();
        let e = &mut errors;
        let slug = slug_or_made(e, self.slug.as_deref(), &self.name);
        let name = e.take("name", organization::name(&self.name));
        let plan = self.plan.map_or(Some(Plan::Free), |text| plan(e, &text));
        let webhook_limit = self.webhook_limit.and_then(|limit| webhook_limit(e, limit));
        let secret = self.mandrill_webhook_secret.and_then(|secret| mandrill_secret(e, secret));
        let (name, slug, plan) =
            errors.finish(name.zip(slug).zip(plan).map(|((name, slug), plan)| (name, slug, plan)))?;
        let is_active = self.is_active.unwrap_or(true);
        Ok(NewOrganization { name, slug, plan, webhook_limit, is_active, mandrill_webhook_secret: secret })
    }
}

impl ChangeOrganization {
    fn check(self) -> Answer<OrganizationChange> {
        let mut errors = Errors::default();
        let e = &mut errors;
        let change = OrganizationChange {
            name: self.name.and_then(|text| e.take("name", organization::name(&text))),
            slug: self.slug.and_then(|text| e.take("slug", organization::slug(&text))),
            plan: self.plan.and_then(|text| plan(e, &text)),
            webhook_limit: self.webhook_limit.map(|limit| limit.and_then(|limit| webhook_limit(e, limit))),
            is_active: self.is_active,
            mandrill_webhook_secret: self
                .mandrill_webhook_secret
                .map(|secret| secret.and_then(|secret| mandrill_secret(e, secret))),
        };
        errors.finish(Some(change))
    }
}

/// The slug that is given, or the one that the name makes.
pub(super) fn slug_or_made(errors: &mut Errors, given: Option<&str>, name: &str) -> Option<String> {
    match given {
        Some(text) => errors.take("slug", organization::slug(text)),
        // What is wrong with the name is said of the name.
        None if organization::name(name).is_err() => None,
        None => {
            let made = organization::slug(&organization::slug_from(name));
            let why = "the name has no letter a-z or digit that could stand in a URL: give a slug";
            errors.take("slug", made.map_err(|_| Invalid::new("required", why)))
        }
    }
}

pub(super) fn plan(errors: &mut Errors, text: &str) -> Option<Plan> {
    errors.take("plan", Plan::parse(text).ok_or_else(|| Invalid::new("unknown_value", "free, starter or premium")))
}

fn webhook_limit(errors: &mut Errors, limit: u64) -> Option<u64> {
    let fits = (limit <= WEBHOOK_LIMIT_MAX).then_some(limit);
    errors.take("webhook_limit", fits.ok_or_else(|| Invalid::new("out_of_range", format!("0 to {WEBHOOK_LIMIT_MAX}"))))
}

fn mandrill_secret(errors: &mut Errors, secret: Secret) -> Option<Secret> {
    let text = secret.expose_str().unwrap_or_default();
    let fits = (1..=SECRET_MAX).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, 0x21..=0x7e));
    let why = "1 to 255 visible ASCII characters, as Mandrill shows the key";
    let checked = if fits { Ok(()) } else { Err(Invalid::new("invalid_secret", why)) };
    errors.take("mandrill_webhook_secret", checked).map(|()| secret)
}

/// The proof of the super admin whom the permission table let through.
pub(super) fn super_admin(caller: &Caller) -> Answer<SuperAdmin> {
    caller.super_admin().ok_or_else(|| Problem::of(Code::Forbidden))
}

/// An API key's own organization; any other is one that never was.
fn own(caller: &Caller, id: OrganizationId) -> Answer<&Scope> {
    caller.scope().filter(|scope| scope.organization() == id).ok_or_else(|| Problem::of(Code::OrganizationNotFound))
}

/// List organizations, newest first.
#[utoipa::path(get, path = "/v1/organizations", tag = "organizations", params(PageParams),
    responses((status = 200, body = List<OrganizationJson>)))]
async fn list(State(state): State<Shared>, caller: Caller, page: Paged) -> Answer<Body<List<OrganizationJson>>> {
    let (_, page, seal) = page.split();
    let found = state.app.storage.platform.organization_list(super_admin(&caller)?, page).await?;
    Ok(seal.list(found, OrganizationJson::from))
}

/// Make an organization.
#[utoipa::path(post, path = "/v1/organizations", tag = "organizations", request_body = WriteOrganization,
    responses((status = 201, body = OrganizationJson)))]
async fn create(
    State(state): State<Shared>,
    caller: Caller,
    Json(new): Json<WriteOrganization>,
) -> Answer<(StatusCode, Body<OrganizationJson>)> {
    let proof = super_admin(&caller)?;
    let made = state.app.storage.platform.organization_create(proof, new.check()?, state.now()).await?;
    Ok((StatusCode::CREATED, Body(made.into())))
}

/// One organization. An API key sees its own.
#[utoipa::path(get, path = "/v1/organizations/{id}", tag = "organizations",
    responses((status = 200, body = OrganizationJson)))]
async fn get(
    State(state): State<Shared>,
    caller: Caller,
    Id(id, ..): Id<OrganizationId>,
) -> Answer<Body<OrganizationJson>> {
    let platform = &state.app.storage.platform;
    let found = match caller.super_admin() {
        Some(proof) => platform.organization_get(proof, id).await?,
        None => platform.organization_of(own(&caller, id)?).await?,
    };
    Ok(Body(found.into()))
}

/// Replace an organization.
#[utoipa::path(put, path = "/v1/organizations/{id}", tag = "organizations", request_body = WriteOrganization,
    responses((status = 200, body = OrganizationJson)))]
async fn replace(
    State(state): State<Shared>,
    caller: Caller,
    Id(id, ..): Id<OrganizationId>,
    Json(new): Json<WriteOrganization>,
) -> Answer<Body<OrganizationJson>> {
    let new = new.check()?;
    let change = OrganizationChange {
        name: Some(new.name),
        slug: Some(new.slug),
        plan: Some(new.plan),
        webhook_limit: Some(new.webhook_limit),
        is_active: Some(new.is_active),
        mandrill_webhook_secret: new.mandrill_webhook_secret.map(Some),
    };
    update(&state, &caller, id, change).await
}

/// Change an organization. An admin key may change the name of its own.
#[utoipa::path(patch, path = "/v1/organizations/{id}", tag = "organizations", request_body = ChangeOrganization,
    responses((status = 200, body = OrganizationJson)))]
async fn change(
    State(state): State<Shared>,
    caller: Caller,
    Id(id, ..): Id<OrganizationId>,
    Json(change): Json<ChangeOrganization>,
) -> Answer<Body<OrganizationJson>> {
    if caller.super_admin().is_some() {
        return update(&state, &caller, id, change.check()?).await;
    }
    let scope = own(&caller, id)?;
    let change = change.check()?;
    let platform = &state.app.storage.platform;
    let changed = match change {
        OrganizationChange {
            name,
            slug: None,
            plan: None,
            webhook_limit: None,
            is_active: None,
            mandrill_webhook_secret: None,
        } => match name {
            Some(name) => platform.organization_rename(scope, name, state.now()).await?,
            None => platform.organization_of(scope).await?,
        },
        _ => return Err(Problem::new(Code::Forbidden, "only a super admin may change more than the name")),
    };
    Ok(Body(changed.into()))
}

/// Deactivate an organization: its sources answer 403, its keys are refused, its data stays.
#[utoipa::path(delete, path = "/v1/organizations/{id}", tag = "organizations",
    responses((status = 200, body = OrganizationJson)))]
async fn deactivate(
    State(state): State<Shared>,
    caller: Caller,
    Id(id, ..): Id<OrganizationId>,
) -> Answer<Body<OrganizationJson>> {
    let change = OrganizationChange { is_active: Some(false), ..OrganizationChange::default() };
    update(&state, &caller, id, change).await
}

async fn update(
    state: &Web,
    caller: &Caller,
    id: OrganizationId,
    change: OrganizationChange,
) -> Answer<Body<OrganizationJson>> {
    let proof = super_admin(caller)?;
    Ok(Body(state.app.storage.platform.organization_update(proof, id, change, state.now()).await?.into()))
}
