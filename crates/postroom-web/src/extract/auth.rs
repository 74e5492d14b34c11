//! Who calls: a person, an API key or the admin token, and for which organization. Runs before every route under `/v1`.

use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method};
use postroom_domain::api_key::{KeyHash, KeyScope};
use postroom_domain::{OrganizationId, Role, SessionId};
use postroom_storage::audit::Refused;
use postroom_storage::scope::{KeyCaller, PersonCaller, PersonIs};
use postroom_storage::{Origin, Scope, SuperAdmin};

use super::credential::{Credential, credential, invalid};
use crate::app::{AdminToken, Shared, State};
use crate::client::ClientAddress;
use crate::pages;
use crate::permission::{self, Permission, SuperAdminMay, permission};
use crate::problem::{Answer, Code, Problem};
use crate::{origin, refusals};

/// The header by which a super admin names an organization.
pub(crate) const ORGANIZATION: HeaderName = HeaderName::from_static("postroom-organization");

/// A proven caller that may use the route.
#[derive(Debug, Clone)]
pub(crate) enum Caller {
    /// An API key of an organization that is switched on; with its hash, to look again later.
    Key(KeyCaller, KeyHash),
    /// A person of an organization that is switched on.
    Person(Person),
    /// A super admin, in an organization if one was named; signed in, or with the admin token.
    SuperAdmin(SuperAdmin, Option<Scope>, Option<SessionId>),
}

/// A person who is signed in.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    scope: Scope,
    role: Role,
    session: SessionId,
}

/// Where a caller acts.
pub(crate) enum Acts<'a> {
    /// For one organization.
    In(&'a Scope),
    /// Outside of every organization.
    OnPlatform(SuperAdmin),
}

impl Caller {
    /// The same, acting from there.
    fn from(self, origin: &Origin) -> Self {
        let from = || origin.clone();
        match self {
            Self::Key(key, hash) => Self::Key(KeyCaller { scope: key.scope.from(from()), ..key }, hash),
            Self::Person(person) => Self::Person(Person { scope: person.scope.from(from()), ..person }),
            Self::SuperAdmin(proof, scope, session) => {
                Self::SuperAdmin(proof.from(from()), scope.map(|scope| scope.from(from())), session)
            }
        }
    }

    pub fn acts(&self) -> Acts<'_> {
        match self {
            Self::Key(KeyCaller { scope, .. }, _)
            | Self::Person(Person { scope, .. })
            | Self::SuperAdmin(_, Some(scope), _) => Acts::In(scope),
            Self::SuperAdmin(proof, None, _) => Acts::OnPlatform(proof.clone()),
        }
    }

    /// The way into the organization acted for.
    pub fn scope(&self) -> Option<&Scope> {
        match self.acts() {
            Acts::In(scope) => Some(scope),
            Acts::OnPlatform(_) => None,
        }
    }

    pub fn organization(&self) -> Option<OrganizationId> {
        self.scope().map(Scope::organization)
    }

    /// Whether the caller is still who it was: a key can be revoked and a session ended while its request lasts.
    pub async fn is_still_valid(&self, state: &State) -> bool {
        let (authorizer, now) = (&state.app.storage.authorizer, state.now());
        let found = match self {
            Self::Key(_, hash) => authorizer
                .key_find(hash, now)
                .await
                .map(|found| found.is_some_and(|key| key.organization_active && key.may(KeyScope::Read))),
            Self::Person(Person { session, .. }) | Self::SuperAdmin(_, _, Some(session)) => {
                authorizer.session_find(*session, now).await.map(|found| found.is_some_and(|person| is_active(&person)))
            }
            Self::SuperAdmin(_, _, None) => return true,
        };
        // Storage that does not answer now is no reason to believe that the credential was taken away.
        found.unwrap_or(true)
    }

    /// Whether the caller may see and change what only a super admin may.
    pub fn super_admin(&self) -> Option<SuperAdmin> {
        match self {
            Self::Key(..) | Self::Person(_) => None,
            Self::SuperAdmin(proof, ..) => Some(proof.clone()),
        }
    }
}

fn is_active(person: &PersonCaller) -> bool {
    match person.who {
        PersonIs::Of { organization_active, .. } => organization_active,
        PersonIs::SuperAdmin(_) => true,
    }
}

impl From<Caller> for Refused {
    fn from(caller: Caller) -> Self {
        match caller.acts() {
            Acts::In(scope) => Self::In(scope.clone()),
            Acts::OnPlatform(proof) => Self::SuperAdmin(proof),
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
    let (method, origin) = (request.method(), origin::origin(request.extensions()));
    let refused = async |who: Refused, problem: Problem| {
        refusals::note(&state, who, format!("{method} {path}"), &problem).await;
        problem
    };
    let address = ClientAddress::of_request(request.extensions());
    let caller = match prove(&state, address, method, request.headers()).await {
        Ok(caller) => caller.from(&origin),
        Err(Unproven { who, problem }) => {
            let counted = counted(&state, address, refused(who.from(origin.clone()), problem).await);
            let is_too_many = counted.code() == Code::RateLimited;
            let nobody = Refused::Nobody(origin.clone());
            return Err(if is_too_many { refused(nobody, counted).await } else { counted });
        }
    };
    if let Err(problem) = permit(&caller, needed) {
        return Err(refused(caller.into(), problem).await);
    }
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
fn permit(caller: &Caller, needed: &Permission) -> Answer<()> {
    match caller {
        Caller::Key(key, _) => match needed.key {
            Some(scope) if key.may(scope) => Ok(()),
            Some(scope) => Err(lacks(scope)),
            None => Err(only(needed)),
        },
        Caller::Person(person) if needed.person.is_some_and(|least| person.role >= least) => Ok(()),
        Caller::Person(_) => Err(only(needed)),
        Caller::SuperAdmin(_, scope, _) => match needed.super_admin {
            SuperAdminMay::Anywhere => Ok(()),
            SuperAdminMay::InOrganization if scope.is_some() => Ok(()),
            SuperAdminMay::InOrganization => Err(organization_required()),
            SuperAdminMay::Never => {
                let detail = "a super admin may not see an organization's secrets; ask an admin of the organization";
                Err(Problem::new(Code::Forbidden, detail))
            }
        },
    }
}

fn lacks(scope: KeyScope) -> Problem {
    Problem::new(Code::Forbidden, format!("this needs an API key with the scope `{}`", scope.as_str()))
}

/// A wrong credential counts against its address. A right one never does: what cannot be guessed is looked for however
/// many wrong ones came from there before.
fn counted(state: &Shared, address: ClientAddress, problem: Problem) -> Problem {
    match problem.code() {
        Code::CredentialsInvalid => state.rates.wrong_credential(address, state.now(), problem),
        _ => problem,
    }
}

fn only(needed: &Permission) -> Problem {
    Problem::new(Code::Forbidden, format!("this may be done by {}", needed.who()))
}

/// Nobody who may come in, or somebody whose credential is good, but not for this.
struct Unproven {
    who: Refused,
    problem: Problem,
}

impl From<Problem> for Unproven {
    fn from(problem: Problem) -> Self {
        Self { who: Refused::Nobody(Origin::default()), problem }
    }
}

impl From<postroom_storage::Error> for Unproven {
    fn from(error: postroom_storage::Error) -> Self {
        Problem::from(error).into()
    }
}

/// Finds the caller behind the headers.
async fn prove(
    state: &Shared,
    address: ClientAddress,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Caller, Unproven> {
    let credential = credential(&state.site, method, headers)?;
    let organization = named_organization(headers)?;
    if let Credential::Bearer(token) = credential {
        // The one credential that a person chose.
        let is_admin = |admin: &AdminToken| state.rates.may_guess(address, state.now()) && admin.is(token.as_bytes());
        if state.app.admin_token.as_ref().is_some_and(is_admin) {
            return enter(state, SuperAdmin::by_admin_token(), None, organization).await;
        }
        if let Some(hash) = KeyHash::of(token) {
            let caller = state.app.storage.authorizer.key_find(&hash, state.now()).await?.ok_or_else(invalid)?;
            check_organization(&caller.scope, caller.organization_active, organization)?;
            return Ok(Caller::Key(caller, hash));
        }
    }
    let found = signed_in(state, credential).await?;
    let session = found.session;
    match found.who {
        PersonIs::SuperAdmin(proof) => enter(state, proof, Some(session), organization).await,
        PersonIs::Of { scope, role, organization_active } => {
            check_organization(&scope, organization_active, organization)?;
            Ok(Caller::Person(Person { scope, role, session }))
        }
    }
}

/// The person whose session a credential shows. Everything about them is what storage says now, nothing what the token
/// said when it was made.
pub(crate) async fn signed_in(state: &Shared, credential: Credential<'_>) -> Answer<PersonCaller> {
    let (Credential::Bearer(token) | Credential::Cookie(token)) = credential;
    let now = state.now();
    let shown = state.app.session_keys.verify(token, now).ok_or_else(invalid)?;
    let found = state.app.storage.authorizer.session_find(shown.session, now).await?;
    found.filter(|person| person.user == shown.user).ok_or_else(invalid)
}

/// A super admin's way into the organization it names, if it names one.
async fn enter(
    state: &Shared,
    proof: SuperAdmin,
    session: Option<SessionId>,
    organization: Option<&str>,
) -> Result<Caller, Unproven> {
    let Some(named) = organization else { return Ok(Caller::SuperAdmin(proof, None, session)) };
    let scope = state.app.storage.authorizer.organization_enter(proof.clone(), named).await?;
    if scope.is_none() {
        return Err(Unproven { who: Refused::SuperAdmin(proof), problem: Problem::of(Code::OrganizationNotFound) });
    }
    Ok(Caller::SuperAdmin(proof, scope, session))
}

/// Whoever belongs to an organization names no other, and does nothing while it is switched off.
fn check_organization(scope: &Scope, is_active: bool, named: Option<&str>) -> Result<(), Unproven> {
    let is_own = |named: &str| named == scope.slug() || named.parse() == Ok(scope.organization());
    let code = match named {
        Some(named) if !is_own(named) => Code::OrganizationNotFound,
        _ if !is_active => Code::OrganizationInactive,
        _ => return Ok(()),
    };
    Err(Unproven { who: Refused::In(scope.clone()), problem: Problem::of(code) })
}

fn named_organization(headers: &HeaderMap) -> Answer<Option<&str>> {
    let mut all = headers.get_all(ORGANIZATION).iter();
    let Some(one) = all.next() else { return Ok(None) };
    if all.next().is_some() {
        return Err(Problem::new(Code::InvalidRequest, "send the header Postroom-Organization once"));
    }
    // What is no text is no organization's name, as is nothing: that is found out when it is known who asks.
    Ok(Some(one.to_str().unwrap_or_default()))
}
