//! `/v1/users`: the people of an organization, for its admins.

use axum::Json as Body;
use axum::extract::State;
use http::StatusCode;
use postroom_domain::user::UserStatus;
use postroom_domain::{Email, Invalid, Role, Timestamp, UserId};
use postroom_storage::api::{NewUser, UserChange, UserView};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::Shared;
use crate::extract::{Id, InOrganization, Json, List, PageParams, Paged, given};
use crate::problem::Answer;
use crate::problem::fields::Errors;

pub(super) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(list, invite)).routes(routes!(get, change)).routes(routes!(invite_again))
}

/// What a person may do.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "only for the document: the domain's enum is what is read and written")]
enum RoleName {
    /// Sees everything but secrets, keys and people; tries again what failed.
    Member,
    /// Everything of the organization.
    Admin,
}

/// How a person stands in the organization.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "only for the document: the domain's enum is what is read and written")]
enum StatusName {
    /// Has not accepted the invitation; `invited_until` says whether it is still good.
    Invited,
    /// Signs in with links.
    Active,
    /// Was switched off.
    Deactivated,
}

/// A person of the organization.
#[derive(Serialize, ToSchema)]
struct UserJson {
    #[schema(value_type = String, example = "usr_0198c1f2a7b37d3e9a4c5b6d7e8f9012")]
    id: UserId,
    #[schema(example = "ada@example.com")]
    email: String,
    #[schema(value_type = RoleName)]
    role: Role,
    #[schema(value_type = StatusName)]
    status: UserStatus,
    is_active: bool,
    /// Until when the invitation can be accepted; null when it was.
    #[schema(required = true, value_type = Option<String>, format = DateTime)]
    invited_until: Option<Timestamp>,
    #[schema(required = true, value_type = Option<String>, format = DateTime)]
    last_login_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// Who invited: the id of a user or an API key, `super_admin` or `operator`.
    created_by: String,
}

impl From<UserView> for UserJson {
    fn from(view: UserView) -> Self {
        Self {
            id: view.id,
            email: view.email.to_string(),
            role: view.role,
            status: view.status,
            is_active: view.status != UserStatus::Deactivated,
            invited_until: view.invited_until,
            last_login_at: view.last_login_at,
            created_at: view.created_at,
            updated_at: view.updated_at,
            created_by: view.created_by,
        }
    }
}

/// A person to invite.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct InviteUser {
    /// Where the invitation goes; whoever accepts it has this address. Unique in the installation, in capitals or not.
    #[schema(example = "ada@example.com", max_length = 254)]
    email: String,
    #[schema(value_type = RoleName)]
    role: String,
}

/// What to change of a person. What is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeUser {
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<RoleName>)]
    role: Option<String>,
    /// `false`: may not sign in any more, and every session ends at once.
    #[serde(default, deserialize_with = "given")]
    is_active: Option<bool>,
}

fn role(errors: &mut Errors, text: &str) -> Option<Role> {
    errors.take("role", Role::parse(text).ok_or_else(|| Invalid::new("unknown_value", "member or admin")))
}

/// List the people of the organization, newest first.
#[utoipa::path(get, path = "/v1/users", tag = "users", params(PageParams),
    responses((status = 200, body = List<UserJson>)))]
async fn list(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    page: Paged,
) -> Answer<Body<List<UserJson>>> {
    let (_, page, seal) = page.split();
    Ok(seal.list(state.app.storage.api.user_list(&scope, page).await?, UserJson::from))
}

/// Invite a person. A mail takes the invitation to the address; it is good for 7 days and for one use.
#[utoipa::path(post, path = "/v1/users", tag = "users", request_body = InviteUser,
    responses((status = 201, body = UserJson)))]
async fn invite(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Json(new): Json<InviteUser>,
) -> Answer<(StatusCode, Body<UserJson>)> {
    let mut errors = Errors::default();
    let email = errors.take("email", Email::parse(&new.email));
    let role = role(&mut errors, &new.role);
    let (email, role) = errors.finish(email.zip(role))?;
    let invited = state.app.storage.api.user_invite(&scope, NewUser { email, role }, state.now()).await?;
    state.app.mail_queued.notify_one();
    Ok((StatusCode::CREATED, Body(invited.into())))
}

/// One person.
#[utoipa::path(get, path = "/v1/users/{id}", tag = "users", responses((status = 200, body = UserJson)))]
async fn get(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<UserId>,
) -> Answer<Body<UserJson>> {
    Ok(Body(state.app.storage.api.user_get(&scope, id).await?.into()))
}

/// Change a person's role, or switch them off or on. Either ends their sessions at once. An organization keeps an active
/// admin: taking the last one away is 409.
#[utoipa::path(patch, path = "/v1/users/{id}", tag = "users", request_body = ChangeUser,
    responses((status = 200, body = UserJson)))]
async fn change(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<UserId>,
    Json(change): Json<ChangeUser>,
) -> Answer<Body<UserJson>> {
    let mut errors = Errors::default();
    let role = change.role.and_then(|text| role(&mut errors, &text));
    errors.check()?;
    let change = UserChange { role, is_active: change.is_active };
    Ok(Body(state.app.storage.api.user_update(&scope, id, change, state.now()).await?.into()))
}

/// Send the invitation again, with a new link; the old one is void.
#[utoipa::path(post, path = "/v1/users/{id}/invite", tag = "users", responses((status = 200, body = UserJson)))]
async fn invite_again(
    State(state): State<Shared>,
    InOrganization(scope): InOrganization,
    Id(id, ..): Id<UserId>,
) -> Answer<Body<UserJson>> {
    let invited = state.app.storage.api.user_invite_again(&scope, id, state.now()).await?;
    state.app.mail_queued.notify_one();
    Ok(Body(invited.into()))
}
