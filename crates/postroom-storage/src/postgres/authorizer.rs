//! Proves callers, from memory, and lets people in.

use async_trait::async_trait;
use postroom_domain::api_key::KeyHash;
use postroom_domain::{Email, OrganizationId, SessionId, Timestamp, TokenHash};

use super::Postgres;
use crate::authorizer::SignedIn;
use crate::scope::{KeyCaller, Origin, PersonCaller};
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
        Ok(caller.map(|caller| caller.scope(by.0).from(by.1)))
    }

    async fn session_find(&self, session: SessionId, now: Timestamp) -> Result<Option<PersonCaller>> {
        let directories = &self.0.directories;
        let found = directories.callers.person(session, now);
        if found.is_none() {
            directories.catch_up().await?;
            return Ok(directories.callers.person(session, now));
        }
        Ok(found)
    }

    async fn sign_in_request(&self, email: &Email, from: &Origin, now: Timestamp) -> Result<bool> {
        self.request_link(email, from, now).await
    }

    async fn sign_in(&self, token: &TokenHash, from: &Origin, user_agent: &str, now: Timestamp) -> Result<SignedIn> {
        self.use_link(token, from, user_agent, now).await
    }

    async fn session_end(&self, session: SessionId, from: &Origin, now: Timestamp) -> Result<()> {
        self.end_session(session, from, now).await
    }
}
