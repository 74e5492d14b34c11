//! Who acts, and for which organization: proofs that only this crate can make.

use std::net::IpAddr;
use std::sync::Arc;

use postroom_domain::api_key::KeyScope;
use postroom_domain::{ApiKeyId, Email, OrganizationId, Role, SessionId, UserId};

/// Who did something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Actor {
    /// An API key of the organization.
    ApiKey(ApiKeyId),
    /// A person who has signed in: of the organization, or a super admin.
    User(UserId),
    /// A super admin, by the installation's admin token.
    SuperAdmin,
    /// The command line, on the machine that holds the data.
    Operator,
    /// Somebody who showed no credential that is good.
    Nobody,
    /// Whoever sends to a source: proved by a signature, not by a credential of ours.
    Sender,
    /// The program itself.
    System,
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ApiKey(id) => id.fmt(f),
            Self::User(id) => id.fmt(f),
            Self::SuperAdmin => f.write_str("super_admin"),
            Self::Operator => f.write_str("operator"),
            Self::Nobody => f.write_str("nobody"),
            Self::Sender => f.write_str("sender"),
            Self::System => f.write_str("system"),
        }
    }
}

/// Where an act comes from, for the audit log. Nothing is decided by it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The client's address; none for a command on the machine itself.
    pub address: Option<IpAddr>,
    /// The id of the request; at most 64 letters, digits, `_` and `-`.
    pub request: Option<Arc<str>>,
}

/// Proof that a caller may act for one organization. There is no public constructor.
#[derive(Debug, Clone)]
pub struct Scope {
    pub(crate) organization: OrganizationId,
    /// The surrogate key of the organization inside this engine.
    pub(crate) org: i64,
    pub(crate) slug: Arc<str>,
    pub(crate) actor: Actor,
    pub(crate) origin: Origin,
    /// Whether the registry has a row of the organization: its data is not in the shared database. Always false in a
    /// cell, which knows nothing of the registry.
    pub(crate) is_dedicated: bool,
}

impl Scope {
    /// The organization acted for.
    #[must_use]
    pub fn organization(&self) -> OrganizationId {
        self.organization
    }

    /// Its slug.
    #[must_use]
    pub fn slug(&self) -> &str {
        &self.slug
    }

    /// Who acts.
    #[must_use]
    pub fn actor(&self) -> Actor {
        self.actor
    }

    /// The same, acting from there.
    #[must_use]
    pub fn from(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }
}

/// Proof that the caller is a super admin: whoever holds one has checked the admin token, is the operator's own command
/// line, or got it with a session that was found ([`PersonIs::SuperAdmin`]). Its constructors are the places to look for
/// in review.
#[derive(Debug, Clone)]
pub struct SuperAdmin(pub(crate) Actor, pub(crate) Origin);

impl SuperAdmin {
    /// For the place that has just compared the admin token, in constant time.
    #[must_use]
    pub fn by_admin_token() -> Self {
        Self(Actor::SuperAdmin, Origin::default())
    }

    /// For a command that opened the data directory itself.
    #[must_use]
    pub fn by_operator() -> Self {
        Self(Actor::Operator, Origin::default())
    }

    /// Who acts.
    #[must_use]
    pub fn actor(&self) -> Actor {
        self.0
    }

    /// The same, acting from there.
    #[must_use]
    pub fn from(self, origin: Origin) -> Self {
        Self(self.0, origin)
    }
}

/// A caller that presented a known API key.
#[derive(Debug, Clone)]
pub struct KeyCaller {
    /// For which organization it may act.
    pub scope: Scope,
    /// What it may do there.
    pub scopes: Vec<KeyScope>,
    /// Whether its organization is switched on.
    pub organization_active: bool,
}

impl KeyCaller {
    /// Whether the key may do what needs `scope`. An `admin` key may do everything.
    #[must_use]
    pub fn may(&self, scope: KeyScope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&KeyScope::Admin)
    }
}

/// A person with a session that has not ended.
#[derive(Debug, Clone)]
pub struct PersonCaller {
    /// Who.
    pub user: UserId,
    /// Their address.
    pub email: Email,
    /// By which session.
    pub session: SessionId,
    /// For whom they may act.
    pub who: PersonIs,
}

/// For whom a person may act.
#[derive(Debug, Clone)]
pub enum PersonIs {
    /// Of one organization.
    Of {
        /// For which organization they may act.
        scope: Scope,
        /// What they may do there.
        role: Role,
        /// Whether the organization is switched on.
        organization_active: bool,
    },
    /// Of the platform.
    SuperAdmin(SuperAdmin),
}
