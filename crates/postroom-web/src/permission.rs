//! Who may do what: one table, one row for each route of the API. A route without a row is refused to everybody.
//!
//! The API's document, `docs/permissions.md` and the sentences of a 403 are made from it.

use http::Method;
use postroom_domain::Role;
use postroom_domain::api_key::KeyScope;

/// What one route needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// HTTP method; `HEAD` needs what `GET` needs.
    pub method: Method,
    /// The route as the router writes it.
    pub path: &'static str,
    /// Whether it asks for no credential: signing in begins without one. Nothing below counts then.
    pub is_open: bool,
    /// The least role of a person in their organization; `None`: no person but a super admin may.
    pub person: Option<Role>,
    /// The scope that an API key needs; `None`: no API key may.
    pub key: Option<KeyScope>,
    /// Whether a super admin may.
    pub super_admin: SuperAdminMay,
}

/// Whether a super admin, signed in or with the admin token, may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuperAdminMay {
    /// No: it shows a secret of an organization.
    Never,
    /// For the organization named by the header `Postroom-Organization`.
    InOrganization,
    /// Without naming an organization by header.
    Anywhere,
}

const MEMBER: Option<Role> = Some(Role::Member);
const ADMIN: Option<Role> = Some(Role::Admin);
const NOBODY: Option<Role> = None;

const KEY_EVENTS: Option<KeyScope> = Some(KeyScope::EventsWrite);
const KEY_READ: Option<KeyScope> = Some(KeyScope::Read);
const KEY_ADMIN: Option<KeyScope> = Some(KeyScope::Admin);
const NO_KEY: Option<KeyScope> = None;

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const PATCH: Method = Method::PATCH;
const DELETE: Method = Method::DELETE;

const fn row(
    method: Method,
    path: &'static str,
    person: Option<Role>,
    key: Option<KeyScope>,
    super_admin: SuperAdminMay,
) -> Permission {
    Permission { method, path, is_open: false, person, key, super_admin }
}

/// A route that proves its caller itself, or needs not know who calls.
const fn open(method: Method, path: &'static str) -> Permission {
    Permission { method, path, is_open: true, person: None, key: None, super_admin: Never }
}

use SuperAdminMay::{Anywhere, InOrganization, Never};

/// The table. A member sees everything of the organization but its secrets, keys and people, and may try again what
/// failed; an admin may do everything of the organization; a super admin everything of every organization but read its
/// secrets.
pub static PERMISSIONS: &[Permission] = &[
    open(POST, "/api/auth/request-magic-link"),
    open(POST, "/api/auth/verify-magic-link"),
    open(POST, "/api/auth/logout"),
    row(POST, "/v1/tenants", NOBODY, NO_KEY, Anywhere),
    row(GET, "/v1/organizations", NOBODY, NO_KEY, Anywhere),
    row(POST, "/v1/organizations", NOBODY, NO_KEY, Anywhere),
    row(GET, "/v1/organizations/{id}", MEMBER, KEY_READ, Anywhere),
    row(PUT, "/v1/organizations/{id}", NOBODY, NO_KEY, Anywhere),
    row(PATCH, "/v1/organizations/{id}", ADMIN, KEY_ADMIN, Anywhere),
    row(DELETE, "/v1/organizations/{id}", NOBODY, NO_KEY, Anywhere),
    row(GET, "/v1/providers", MEMBER, KEY_READ, Anywhere),
    row(GET, "/v1/providers/{name}", MEMBER, KEY_READ, Anywhere),
    row(GET, "/v1/sources", MEMBER, KEY_READ, InOrganization),
    row(POST, "/v1/sources", ADMIN, KEY_ADMIN, InOrganization),
    row(GET, "/v1/sources/{id}", MEMBER, KEY_READ, InOrganization),
    row(PATCH, "/v1/sources/{id}", ADMIN, KEY_ADMIN, InOrganization),
    row(DELETE, "/v1/sources/{id}", ADMIN, KEY_ADMIN, InOrganization),
    row(POST, "/v1/sources/{id}/rotate-secret", ADMIN, KEY_ADMIN, InOrganization),
    row(GET, "/v1/endpoints", MEMBER, KEY_READ, InOrganization),
    row(POST, "/v1/endpoints", ADMIN, KEY_ADMIN, InOrganization),
    row(GET, "/v1/endpoints/{id}", MEMBER, KEY_READ, InOrganization),
    row(PATCH, "/v1/endpoints/{id}", ADMIN, KEY_ADMIN, InOrganization),
    row(DELETE, "/v1/endpoints/{id}", ADMIN, KEY_ADMIN, InOrganization),
    row(GET, "/v1/endpoints/{id}/secret", ADMIN, KEY_ADMIN, Never),
    row(POST, "/v1/endpoints/{id}/rotate-secret", ADMIN, KEY_ADMIN, InOrganization),
    row(POST, "/v1/endpoints/{id}/test", ADMIN, KEY_ADMIN, InOrganization),
    row(POST, "/v1/endpoints/{id}/enable", ADMIN, KEY_ADMIN, InOrganization),
    row(POST, "/v1/endpoints/{id}/disable", ADMIN, KEY_ADMIN, InOrganization),
    row(GET, "/v1/events", MEMBER, KEY_READ, InOrganization),
    row(POST, "/v1/events", ADMIN, KEY_EVENTS, InOrganization),
    row(POST, "/v1/events/batch", ADMIN, KEY_EVENTS, InOrganization),
    row(GET, "/v1/events/{id}", MEMBER, KEY_READ, InOrganization),
    row(GET, "/v1/events/{id}/deliveries", MEMBER, KEY_READ, InOrganization),
    row(POST, "/v1/events/{id}/replay", MEMBER, KEY_ADMIN, InOrganization),
    row(GET, "/v1/rejections", MEMBER, KEY_READ, InOrganization),
    row(GET, "/v1/rejections/{id}", MEMBER, KEY_READ, InOrganization),
    row(POST, "/v1/rejections/reverify", MEMBER, KEY_ADMIN, InOrganization),
    row(POST, "/v1/rejections/{id}/reverify", MEMBER, KEY_ADMIN, InOrganization),
    row(GET, "/v1/deliveries", MEMBER, KEY_READ, InOrganization),
    row(GET, "/v1/deliveries/{id}", MEMBER, KEY_READ, InOrganization),
    row(POST, "/v1/deliveries/{id}/retry", MEMBER, KEY_ADMIN, InOrganization),
    row(GET, "/v1/dead-letters", MEMBER, KEY_READ, InOrganization),
    row(GET, "/v1/dead-letters/{id}", MEMBER, KEY_READ, InOrganization),
    row(POST, "/v1/dead-letters/{id}/requeue", MEMBER, KEY_ADMIN, InOrganization),
    row(POST, "/v1/dead-letters/{id}/discard", MEMBER, KEY_ADMIN, InOrganization),
    row(GET, "/v1/api-keys", ADMIN, KEY_ADMIN, InOrganization),
    row(POST, "/v1/api-keys", ADMIN, KEY_ADMIN, InOrganization),
    row(GET, "/v1/api-keys/{id}", ADMIN, KEY_ADMIN, InOrganization),
    row(DELETE, "/v1/api-keys/{id}", ADMIN, KEY_ADMIN, InOrganization),
    row(GET, "/v1/users", ADMIN, KEY_ADMIN, InOrganization),
    row(POST, "/v1/users", ADMIN, KEY_ADMIN, InOrganization),
    row(GET, "/v1/users/{id}", ADMIN, KEY_ADMIN, InOrganization),
    row(PATCH, "/v1/users/{id}", ADMIN, KEY_ADMIN, InOrganization),
    row(POST, "/v1/users/{id}/invite", ADMIN, KEY_ADMIN, InOrganization),
    row(GET, "/v1/audit-logs", ADMIN, KEY_ADMIN, Anywhere),
    row(GET, "/v1/stream", MEMBER, KEY_READ, InOrganization),
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

impl Permission {
    /// Who may use the route, as the rest of a sentence: "an admin of the organization, by ...".
    #[must_use]
    pub fn who(&self) -> String {
        if self.is_open {
            return "anybody".to_owned();
        }
        let person = self.person.map(|role| match role {
            Role::Member => "everybody in the organization",
            Role::Admin => "an admin of the organization",
        });
        let key = self.key.map(|scope| match scope {
            KeyScope::Admin => "an API key with the scope `admin`",
            KeyScope::Read => "an API key with the scope `read` or `admin`",
            KeyScope::EventsWrite => "an API key with the scope `events:write` or `admin`",
        });
        let super_admin = (self.super_admin != Never).then_some("a super admin");
        let who: Vec<&str> = [person, key, super_admin].into_iter().flatten().collect();
        who.join(", by ").replace(", by a super admin", ", or by a super admin")
    }
}

/// The table as `docs/permissions.md` shows it.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Who may do what\n\n\
         One table decides, and what is not in it is refused. A person acts with the role in the organization, an API key\n\
         with its scopes, a super admin (signed in, or with the admin token) for the organization that the header\n\
         `Postroom-Organization` names. A super admin reads no secret of an organization. What belongs to another\n\
         organization is answered like what never was, whoever asks.\n\n\
         This page is made from the code (`crates/postroom-web/src/permission.rs`) and held true by a test.\n\n\
         | Route | Person | API key | Super admin |\n|---|---|---|---|\n",
    );
    for row in PERMISSIONS {
        text +=
            &format!("| `{} {}` | {} | {} | {} |\n", row.method, row.path, row.person(), row.key(), row.super_admin());
    }
    text
}

impl Permission {
    fn person(&self) -> &'static str {
        match self.person {
            _ if self.is_open => "anybody",
            Some(Role::Member) => "member, admin",
            Some(Role::Admin) => "admin",
            None => "no",
        }
    }

    fn key(&self) -> &'static str {
        match self.key {
            _ if self.is_open => "anybody",
            Some(KeyScope::Read) => "`read`, `admin`",
            Some(KeyScope::EventsWrite) => "`events:write`, `admin`",
            Some(KeyScope::Admin) => "`admin`",
            None => "no",
        }
    }

    fn super_admin(&self) -> &'static str {
        match self.super_admin {
            _ if self.is_open => "anybody",
            Never => "no",
            InOrganization => "in an organization",
            Anywhere => "yes",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_table_is_the_one_in_the_code() {
        crate::committed::assert_current("docs/permissions.md", &markdown());
    }

    #[test]
    fn a_route_has_one_row_and_a_sentence_for_those_who_may() {
        for (index, row) in PERMISSIONS.iter().enumerate() {
            assert!(PERMISSIONS[..index].iter().all(|other| (&other.method, other.path) != (&row.method, row.path)));
        }
        let who = |method: Method, path: &str| permission(&method, path).unwrap().who();
        assert_eq!(who(POST, "/v1/tenants"), "a super admin");
        assert_eq!(
            who(GET, "/v1/events"),
            "everybody in the organization, by an API key with the scope `read` or `admin`, or by a super admin"
        );
        assert_eq!(
            who(GET, "/v1/endpoints/{id}/secret"),
            "an admin of the organization, by an API key with the scope `admin`"
        );
    }
}
