//! `/api/auth/...`: asking for a link, using it, and ending a session.

use axum::Json as Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode, header};
use postroom_domain::{Email, OrganizationId, Role, SignInToken, Timestamp, UserId};
use postroom_storage::audit::Refused;
use postroom_storage::authorizer::SignedIn;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::token::Shown;
use crate::app::Shared;
use crate::client::ClientAddress;
use crate::extract::Json;
use crate::extract::auth::signed_in;
use crate::extract::credential::credential;
use crate::origin::CameFrom;
use crate::problem::fields::Errors;
use crate::problem::{Answer, Code, Problem};
use crate::refusals;

pub(crate) fn router() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(request_link)).routes(routes!(verify_link)).routes(routes!(logout))
}

/// Who wants to sign in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RequestLink {
    #[schema(example = "ada@example.com", max_length = 254)]
    email: String,
}

/// The same for every address.
#[derive(Serialize, ToSchema)]
struct LinkRequested {
    /// For people.
    #[schema(value_type = String, example = "if this address may sign in, a link is on its way to it")]
    detail: &'static str,
}

/// What a link carries.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct VerifyLink {
    /// The text behind `#token=` of the link.
    token: String,
}

/// A new session.
#[derive(Serialize, ToSchema)]
struct SessionJson {
    /// For `Authorization: Bearer`. Browsers get it in a cookie as well.
    token: String,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    user: SignedInUser,
}

/// Who signed in.
#[derive(Serialize, ToSchema)]
struct SignedInUser {
    #[schema(value_type = String, example = "usr_0198c1f2a7b37d3e9a4c5b6d7e8f9012")]
    id: UserId,
    email: String,
    /// `member`, `admin` or `super_admin`.
    #[schema(value_type = String, example = "admin")]
    role: &'static str,
    /// Null for a super admin, who belongs to none.
    #[schema(required = true, value_type = Option<String>, example = "org_0198c1f2a7b37d3e9a4c5b6d7e8f9012")]
    organization_id: Option<OrganizationId>,
}

/// Ask for a link to sign in with. The answer is the same for every address and comes at the same time, whether or not
/// somebody has it; at most 5 links an hour are sent to one address, and 20 requests an hour from one client are looked
/// at. The link is good for 15 minutes and for one use.
#[utoipa::path(post, path = "/api/auth/request-magic-link", tag = "signing in", request_body = RequestLink,
    responses((status = 202, body = LinkRequested)))]
async fn request_link(
    State(state): State<Shared>,
    address: ClientAddress,
    CameFrom(origin): CameFrom,
    headers: HeaderMap,
    Json(request): Json<RequestLink>,
) -> Answer<(StatusCode, Body<LinkRequested>)> {
    state.site.check_page(&headers)?;
    let mut errors = Errors::default();
    let email = errors.take("email", Email::parse(&request.email));
    let email = errors.finish(email)?;
    // Whoever asks too often is not told so: it looks the same, and nothing is sent.
    if state.rates.sign_in(address, state.now()).is_ok() {
        state.sign_in_requests.take(&state, email, origin);
    }
    let detail = "if this address may sign in, a link is on its way to it";
    Ok((StatusCode::ACCEPTED, Body(LinkRequested { detail })))
}

/// Use a link: this makes the session, and the link is used up. A browser gets the session as a cookie, too, that its
/// scripts can not read.
#[utoipa::path(post, path = "/api/auth/verify-magic-link", tag = "signing in", request_body = VerifyLink,
    responses((status = 200, body = SessionJson)))]
async fn verify_link(
    State(state): State<Shared>,
    address: ClientAddress,
    CameFrom(origin): CameFrom,
    headers: HeaderMap,
    Json(link): Json<VerifyLink>,
) -> Answer<Response> {
    state.site.check_page(&headers)?;
    let now = state.now();
    let invalid = || state.rates.wrong_credential(address, now, Problem::of(Code::SignInLinkInvalid));
    let signed_in = match SignInToken::parse(&link.token) {
        Some(token) => {
            state.app.storage.authorizer.sign_in(&token.hash(), &origin, user_agent(&headers), now).await.map(Some)
        }
        None => Ok(None),
    };
    let session = match signed_in {
        Ok(Some(session)) => session,
        Ok(None) | Err(postroom_storage::Error::NotFound { .. }) => {
            let problem = invalid();
            let route = "POST /api/auth/verify-magic-link".to_owned();
            refusals::note(&state, Refused::Nobody(origin), route, &problem).await;
            return Err(problem);
        }
        Err(error) => return Err(error.into()),
    };
    answer(&state, session, now)
}

/// The session as a token in the body, and as a cookie.
fn answer(state: &Shared, made: SignedIn, now: Timestamp) -> Answer<Response> {
    let shown = Shown { user: made.user, session: made.session };
    let token = state.app.session_keys.sign(shown, now, made.expires_at);
    let token = token.map_err(|error| Problem::caused(Code::InternalError, error))?;
    let cookie = state.site.cookie(&token, now, made.expires_at);
    let user = SignedInUser {
        id: made.user,
        email: made.email.to_string(),
        role: made.role.map_or("super_admin", Role::as_str),
        organization_id: made.organization,
    };
    let token = token.expose_str().unwrap_or_default().to_owned();
    let session = SessionJson { token, expires_at: made.expires_at, user };
    Ok(([(header::SET_COOKIE, cookie)], Body(session)).into_response())
}

/// What the browser calls itself.
fn user_agent(headers: &HeaderMap) -> &str {
    headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// End the session that the request shows, at once and everywhere. The browser's cookie is taken away.
#[utoipa::path(post, path = "/api/auth/logout", tag = "signing in",
    responses((status = 204, description = "The session has ended")))]
async fn logout(
    State(state): State<Shared>,
    CameFrom(origin): CameFrom,
    method: Method,
    headers: HeaderMap,
) -> Answer<Response> {
    let person = signed_in(&state, credential(&state.site, &method, &headers)?).await?;
    state.app.storage.authorizer.session_end(person.session, &origin, state.now()).await?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, state.site.no_cookie())]).into_response())
}
