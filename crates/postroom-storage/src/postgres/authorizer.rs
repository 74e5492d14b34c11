//! Proves callers, from memory.

use async_trait::async_trait;
use postroom_domain::api_key::KeyHash;
use postroom_domain::{OrganizationId, Timestamp};

use super::Postgres;
use crate::scope::KeyCaller;
use crate::{Actor, Authorizer, Result, Scope, SuperAdmin};

#[async_trait]
impl Authorizer for Postgres {
    async fn key_find(&self, hash: &KeyHash, now: Timestamp) -> Result<Option<KeyCaller>> {
        let directories = &self.0.directories;
        let mut found = directories.callers.key(hash);
        if found.is_none() {
            // Another node may have made it a moment ago.
            directories.catch_up().await?;
            found = directories.callers.key(hash);
        }
        let Some((key, caller)) = found else { return Ok(None) };
        if key.expires_at.is_some_and(|end| end <= now) {
            return Ok(None);
        }
        directories.callers.note_use(&key, now);
        Ok(Some(KeyCaller {
            scope: caller.scope(Actor::ApiKey(key.id)),
            scopes: key.scopes.clone(),
            organization_active: caller.is_active,
        }))
    }

    async fn organization_enter(&self, by: SuperAdmin, id_or_slug: &str) -> Result<Option<Scope>> {
        let directories = &self.0.directories;
        let look = || match id_or_slug.parse::<OrganizationId>() {
            Ok(id) => directories.callers.by_id(id),
            Err(_) => directories.callers.by_slug(id_or_slug),
        };
        let mut caller = look();
        if caller.is_none() {
            directories.catch_up().await?;
            caller = look();
        }
        Ok(caller.map(|caller| caller.scope(by.0)))
    }
}
