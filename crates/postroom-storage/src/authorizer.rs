//! The part that proves callers. It sees hashes of API keys and whether an organization is switched on, nothing else.

use async_trait::async_trait;
use postroom_domain::Timestamp;
use postroom_domain::api_key::KeyHash;

use crate::scope::KeyCaller;
use crate::{Result, Scope, SuperAdmin};

/// See the [module](self).
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// The caller behind an API key that is neither revoked nor expired. Notes that the key was used (written at most
    /// once a minute, not by this call). Called once a request: answered from memory.
    async fn key_find(&self, hash: &KeyHash, now: Timestamp) -> Result<Option<KeyCaller>>;

    /// A super admin's way into one organization, by id (`org_…`) or slug, switched on or off.
    async fn organization_enter(&self, by: SuperAdmin, id_or_slug: &str) -> Result<Option<Scope>>;
}
