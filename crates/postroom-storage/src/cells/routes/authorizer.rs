//! Who is who is in the shared database, for all.

use async_trait::async_trait;
use postroom_domain::Timestamp;
use postroom_domain::api_key::KeyHash;

use crate::cells::Router;
use crate::scope::KeyCaller;
use crate::{Authorizer, Result, Scope, SuperAdmin};

#[async_trait]
impl Authorizer for Router {
    async fn key_find(&self, hash: &KeyHash, now: Timestamp) -> Result<Option<KeyCaller>> {
        self.shared.authorizer.key_find(hash, now).await
    }

    async fn organization_enter(&self, by: SuperAdmin, id_or_slug: &str) -> Result<Option<Scope>> {
        self.shared.authorizer.organization_enter(by, id_or_slug).await
    }
}
