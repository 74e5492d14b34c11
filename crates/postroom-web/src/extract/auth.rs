//! Who calls: API key or admin token, and for which organization. Runs before every route under `/v1`.

use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use postroom_domain::OrganizationId;
use postroom_domain::api_key::{KeyHash, KeyScope};
use postroom_storage::scope::KeyCaller;
use postroom_storage::{Scope, SuperAdmin};

use crate::app::{Shared, State};
use crate::pages;
use crate::permission::{self, Permission, SuperAdminMay, permission};
use crate::problem::{Answer, Code, Problem};

/// The header by which a super admin names an organization.
pub(crate) const ORGANIZATION: HeaderName = HeaderName::from_static("postroom-organization");

/// A proven caller that may use the route.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// An API key of an organization that is switched on; with its hash, to look again later.
    Key(KeyCaller, KeyHash),
    /// A super admin, in an organization if one was named.
    SuperAdmin(SuperAdmin, Option<Scope>),
}

impl Caller {
    /// The way into the organization acted for.
    pub fn scope(&self) -> Option<&Scope> {
        match self {
            Self::Key(caller, _) => Some(&caller.scope),
            Self::SuperAdmin(_, scope) => scope.as_ref(),
        }
    }

    pub fn organization(&self) -> Option<OrganizationId> {
        self.scope().map(Scope::organization)
    }

    /// Whether the caller is still who it was: a key can be revoked while its request lasts.
    pub async fn is_still_valid(&self, state: &State) -> bool {
        let Self::Key(_, hash) = self else { return true };
        match state.app.storage.authorizer.key_find(hash, state.now()).await {
            Ok(found) => found.is_some_and(|caller| caller.organization_active && caller.may(KeyScope::Read)),
            // Storage that does not answer now is no reason to believe that the key was revoked.
            Err(_) => true,
        }
    }

    /// Whether the caller may see and change what only a super admin may.
    pub fn super_admin(&self) -> Option<SuperAdmin> {
        match self {
            Self::Key(..) => None,
            Self::SuperAdmin(proof, _) => Some(*proof),
        }
    }
}

/// The organization acted for.
pub(crate) struct InOrganization(pub Scope);

impl FromRequestParts<Shared> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Answer<Self> {
        parts.extensions.get::<Self>().cloned().ok_or_else(unproven)
    }
}

impl FromRequestParts<Shared> for InOrganization {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Answer<Self> {
        let caller = parts.extensions.get::<Caller>().ok_or_else(unproven)?;
        caller.scope().cloned().map(Self).ok_or_else(organization_required)
    }
}

fn unproven() -> Problem {
    Problem::caused(Code::InternalError, "a handler asked who calls on a route that does not ask for credentials")
}

fn organization_required() -> Problem {
    Problem::of(Code::OrganizationRequired)
}

/// Middleware of every route under `/v1`: proves the caller, asks the table, and leaves a [`Caller`] for the handler.
pub(crate) async fn authorize(
    axum::extract::State(state): axum::extract::State<Shared>,
    mut request: Request,
    next: Next,
) -> Answer<Response> {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let Some(needed) = permission(request.method(), path) else { return other_method(request.method(), path) };
    let caller = permit(prove(&state, request.headers()).await?, needed)?;
    if let Some(organization) = caller.organization() {
        tracing::Span::current().record("organization.id", tracing::field::display(organization));
    }
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// A path of the table by a method that is not in it. A route that nobody wrote into the table at all is refused, not
/// open.
fn other_method(method: &Method, path: &str) -> Answer<Response> {
    let allow = permission::allowed_methods(path).ok_or_else(|| Problem::of(Code::Forbidden))?;
    pages::method_not_allowed(method, allow)
}

/// Whether a caller may use a route.
fn permit(caller: Caller, needed: &Permission) -> Answer<Caller> {
    match &caller {
        Caller::Key(key, _) => match needed.key {
            Some(scope) if key.may(scope) => Ok(caller),
            Some(scope) => Err(lacks(scope)),
            None => Err(Problem::new(Code::Forbidden, "only a super admin may do this")),
        },
        Caller::SuperAdmin(_, scope) => match needed.super_admin {
            SuperAdminMay::Anywhere => Ok(caller),
            SuperAdminMay::InOrganization if scope.is_some() => Ok(caller),
            SuperAdminMay::InOrganization => Err(organization_required()),
            SuperAdminMay::Never => {
                let detail =
                    "a super admin may not see an organization's secrets; use an admin key of the organization";
                Err(Problem::new(Code::Forbidden, detail))
            }
        },
    }
}

fn lacks(scope: KeyScope) -> Problem {
    Problem::new(Code::Forbidden, format!("this needs an API key with the scope `{}`", scope.as_str()))
}

/// Finds the caller behind the headers.
async fn prove(state: &Shared, headers: &HeaderMap) -> Answer<Caller> {
    let token = bearer(headers)?;
    let organization = named_organization(headers)?;
    if state.app.admin_token.as_ref().is_some_and(|admin| admin.is(token.as_bytes())) {
        return enter(state, organization).await;
    }
    let hash = KeyHash::of(token).ok_or_else(invalid)?;
    let found = state.app.storage.authorizer.key_find(&hash, state.now()).await?;
    let caller = found.ok_or_else(invalid)?;
    if organization.is_some_and(|named| !is_own(&caller.scope, named)) {
        return Err(Problem::of(Code::OrganizationNotFound));
    }
    if !caller.organization_active {
        return Err(Problem::of(Code::OrganizationInactive));
    }
    Ok(Caller::Key(caller, hash))
}

/// A super admin's way into the organization it names, if it names one.
async fn enter(state: &Shared, organization: Option<&str>) -> Answer<Caller> {
    let proof = SuperAdmin::by_admin_token();
    let Some(named) = organization else { return Ok(Caller::SuperAdmin(proof, None)) };
    let scope = state.app.storage.authorizer.organization_enter(proof, named).await?;
    let scope = scope.ok_or_else(|| Problem::of(Code::OrganizationNotFound))?;
    Ok(Caller::SuperAdmin(proof, Some(scope)))
}

fn is_own(scope: &Scope, named: &str) -> bool {
    named == scope.slug() || named.parse() == Ok(scope.organization())
}

/// The token of exactly one `Authorization: Bearer <token>`.
fn bearer(headers: &HeaderMap) -> Answer<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let one = all.next().ok_or_else(|| challenge(Problem::of(Code::CredentialsMissing), ""))?;
    let text = one.to_str().ok().filter(|_| all.next().is_none()).ok_or_else(invalid)?;
    let (scheme, token) = text.split_once(' ').ok_or_else(invalid)?;
    let plain = !token.is_empty() && token.bytes().all(|byte| matches!(byte, 0x21..=0x7e));
    if scheme.eq_ignore_ascii_case("bearer") && plain { Ok(token) } else { Err(invalid()) }
}

fn named_organization(headers: &HeaderMap) -> Answer<Option<&str>> {
    let mut all = headers.get_all(ORGANIZATION).iter();
    let Some(one) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(Problem::new(Code::InvalidRequest, "send the header Postroom-Organization once"));
    }
    one.to_str().map(Some).map_err(|_| Problem::of(Code::OrganizationNotFound))
}

fn invalid() -> Problem {
    challenge(Problem::of(Code::CredentialsInvalid), ", error=\"invalid_token\"")
}

fn challenge(problem: Problem, error: &str) -> Problem {
    let value = HeaderValue::try_from(format!("Bearer realm=\"postroom\"{error}"));
    problem.header(header::WWW_AUTHENTICATE, value.unwrap_or(HeaderValue::from_static("Bearer")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_read_from_one_header_written_in_one_way() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            }
            bearer(&headers).map(str::to_owned).map_err(|problem| problem.code())
        };
        assert_eq!(read(&["Bearer abc"]).as_deref(), Ok("abc"));
        assert_eq!(read(&["bearer abc"]).as_deref(), Ok("abc"));
        assert_eq!(read(&[]), Err(Code::CredentialsMissing));
        for bad in [
            &["Bearer abc", "Bearer abc"][..],
            &["Bearer  abc"],
            &["Bearer\tabc"],
            &["Bearer abc def"],
            &["Bearer"],
            &["Bearer "],
            &["Basic abc"],
            &["abc"],
            &[""],
        ] {
            assert_eq!(read(bad), Err(Code::CredentialsInvalid), "{bad:?}");
        }
    }
}
