//! Who may do what: one table, one row for each route under `/v1`. A route without a row is refused to everybody.

use http::Method;
use postroom_domain::api_key::KeyScope;

/// What one route needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// HTTP method; `HEAD` needs what `GET` needs.
    pub method: Method,
    /// The route as the router writes it.
    pub path: &'static str,
    /// The scope that an API key needs; `None`: no API key may.
    pub key: Option<KeyScope>,
    /// Whether a super admin may.
    pub super_admin: SuperAdminMay,
}

/// Whether a super admin may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuperAdminMay {
    /// No: it shows a secret of an organization.
    Never,
    /// For the organization named by the header `Postroom-Organization`.
    InOrganization,
    /// Without naming an organization by header.
    Anywhere,
}

const EVENTS_WRITE: Option<KeyScope> = Some(KeyScope::EventsWrite);
const READ: Option<KeyScope> = Some(KeyScope::Read);
const ADMIN: Option<KeyScope> = Some(KeyScope::Admin);
const NO_KEY: Option<KeyScope> = None;

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const PATCH: Method = Method::PATCH;
const DELETE: Method = Method::DELETE;

const fn row(method: Method, path: &'static str, key: Option<KeyScope>, super_admin: SuperAdminMay) -> Permission {
    Permission { method, path, key, super_admin }
}

use SuperAdminMay::{Anywhere, InOrganization, Never};

/// The table.
pub static PERMISSIONS: &[Permission] = &[
    row(POST, "/v1/tenants", NO_KEY, Anywhere),
    row(GET, "/v1/organizations", NO_KEY, Anywhere),
    row(POST, "/v1/organizations", NO_KEY, Anywhere),
    row(GET, "/v1/organizations/{id}", READ, Anywhere),
    row(PUT, "/v1/organizations/{id}", NO_KEY, Anywhere),
    row(PATCH, "/v1/organizations/{id}", ADMIN, Anywhere),
    row(DELETE, "/v1/organizations/{id}", NO_KEY, Anywhere),
    row(GET, "/v1/providers", READ, Anywhere),
    row(GET, "/v1/providers/{name}", READ, Anywhere),
    row(GET, "/v1/sources", READ, InOrganization),
    row(POST, "/v1/sources", ADMIN, InOrganization),
    row(GET, "/v1/sources/{id}", READ, InOrganization),
    row(PATCH, "/v1/sources/{id}", ADMIN, InOrganization),
    row(DELETE, "/v1/sources/{id}", ADMIN, InOrganization),
    row(POST, "/v1/sources/{id}/rotate-secret", ADMIN, InOrganization),
    row(GET, "/v1/endpoints", READ, InOrganization),
    row(POST, "/v1/endpoints", ADMIN, InOrganization),
    row(GET, "/v1/endpoints/{id}", READ, InOrganization),
    row(PATCH, "/v1/endpoints/{id}", ADMIN, InOrganization),
    row(DELETE, "/v1/endpoints/{id}", ADMIN, InOrganization),
    row(GET, "/v1/endpoints/{id}/secret", ADMIN, Never),
    row(POST, "/v1/endpoints/{id}/rotate-secret", ADMIN, InOrganization),
    row(POST, "/v1/endpoints/{id}/test", ADMIN, InOrganization),
    row(POST, "/v1/endpoints/{id}/enable", ADMIN, InOrganization),
    row(POST, "/v1/endpoints/{id}/disable", ADMIN, InOrganization),
    row(GET, "/v1/events", READ, InOrganization),
    row(POST, "/v1/events", EVENTS_WRITE, InOrganization),
    row(POST, "/v1/events/batch", EVENTS_WRITE, InOrganization),
    row(GET, "/v1/events/{id}", READ, InOrganization),
    row(GET, "/v1/events/{id}/deliveries", READ, InOrganization),
    row(POST, "/v1/events/{id}/replay", ADMIN, InOrganization),
    row(GET, "/v1/rejections", READ, InOrganization),
    row(GET, "/v1/rejections/{id}", READ, InOrganization),
    row(POST, "/v1/rejections/reverify", ADMIN, InOrganization),
    row(POST, "/v1/rejections/{id}/reverify", ADMIN, InOrganization),
    row(GET, "/v1/deliveries", READ, InOrganization),
    row(GET, "/v1/deliveries/{id}", READ, InOrganization),
    row(POST, "/v1/deliveries/{id}/retry", ADMIN, InOrganization),
    row(GET, "/v1/dead-letters", READ, InOrganization),
    row(GET, "/v1/dead-letters/{id}", READ, InOrganization),
    row(POST, "/v1/dead-letters/{id}/requeue", ADMIN, InOrganization),
    row(POST, "/v1/dead-letters/{id}/discard", ADMIN, InOrganization),
    row(GET, "/v1/api-keys", ADMIN, InOrganization),
    row(POST, "/v1/api-keys", ADMIN, InOrganization),
    row(GET, "/v1/api-keys/{id}", ADMIN, InOrganization),
    row(DELETE, "/v1/api-keys/{id}", ADMIN, InOrganization),
    row(GET, "/v1/stream", READ, InOrganization),
];

/// The row of a route.
#[must_use]
pub fn permission(method: &Method, path: &str) -> Option<&'static Permission> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    PERMISSIONS.iter().find(|row| row.method == method && row.path == path)
}

/// The methods of a path as the header `Allow` lists them, if the path is in the table.
pub(crate) fn allowed_methods(path: &str) -> Option<String> {
    let mut methods: Vec<&str> = Vec::new();
    for row in PERMISSIONS.iter().filter(|row| row.path == path) {
        methods.push(row.method.as_str());
        if row.method == Method::GET {
            methods.push("HEAD");
        }
    }
    methods.push("OPTIONS");
    (methods.len() > 1).then(|| methods.join(", "))
}
