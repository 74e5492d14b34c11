//! The part that proves callers. It sees hashes of API keys and of sign-in tokens, who people are, and whether an
//! organization is switched on, nothing else.

use async_trait::async_trait;
use postroom_domain::api_key::KeyHash;
use postroom_domain::{Email, OrganizationId, Role, SessionId, Timestamp, TokenHash, UserId};

use crate::scope::{KeyCaller, Origin, PersonCaller};
use crate::{Result, Scope, SuperAdmin};

/// See the [module](self).
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// The caller behind an API key that is neither revoked nor expired. Notes that the key was used (written at most
    /// once a minute, not by this call). Called once a request: answered from memory.
    async fn key_find(&self, hash: &KeyHash, now: Timestamp) -> Result<Option<KeyCaller>>;

    /// A super admin's way into one organization, by id (`org_…`) or slug, switched on or off.
    async fn organization_enter(&self, by: SuperAdmin, id_or_slug: &str) -> Result<Option<Scope>>;

    /// The person behind a session that has neither ended nor expired. A session that ended, a person who was switched
    /// off or changed in role, an organization that was switched off: seen on every node within a second. Called once a
    /// request: answered from memory.
    async fn session_find(&self, session: SessionId, now: Timestamp) -> Result<Option<PersonCaller>>;

    /// Makes a link to sign in with and the mail that brings it, if somebody has this address who may sign in: who is
    /// switched on, of an organization that is, and has accepted the invitation or still can. At most five an hour for
    /// a person. Returns whether anything was done, which must not be shown to whoever asked.
    async fn sign_in_request(&self, email: &Email, from: &Origin, now: Timestamp) -> Result<bool>;

    /// Uses a token up, once however many come with it at the same time: begins a session and accepts the invitation, if
    /// there is one. A person has at most 20 sessions: the oldest ends for one more.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound) for a token that never was, was used, has expired, or whose person may not
    /// sign in any more: which of these is not said.
    async fn sign_in(&self, token: &TokenHash, from: &Origin, user_agent: &str, now: Timestamp) -> Result<SignedIn>;

    /// Ends a session. One that has ended already is left as it is.
    async fn session_end(&self, session: SessionId, from: &Origin, now: Timestamp) -> Result<()>;
}

/// Somebody has signed in.
#[derive(Debug, Clone)]
pub struct SignedIn {
    /// The session that begins with it.
    pub session: SessionId,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// Who.
    pub user: UserId,
    /// Their address.
    pub email: Email,
    /// What they may do in their organization; none for a super admin.
    pub role: Option<Role>,
    /// Their organization; none for a super admin.
    pub organization: Option<OrganizationId>,
}
