//! Proves callers, from memory, and lets people in.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use postroom_domain::api_key::KeyHash;
use postroom_domain::{Email, OrganizationId, SessionId, Timestamp, TokenHash};

use super::directory::Key;
use super::grants::Part;
use super::{Changed, Sqlite, sign_in};
use crate::authorizer::SignedIn;
use crate::engine::people::PLATFORM;
use crate::scope::{KeyCaller, Origin, PersonCaller};
use crate::{Actor, Authorizer, Result, Scope, SuperAdmin};

/// By primary key.
const NOTE_USE: &str = "update api_key set last_used_at = ?2 where key = ?1";

/// How often the use of a key is written down at most.
const NOTE_EVERY_MS: i64 = 60_000;

#[async_trait]
impl Authorizer for Sqlite {
    async fn key_find(&self, hash: &KeyHash, now: Timestamp) -> Result<Option<KeyCaller>> {
        let mut found = self.0.directory.key(hash);
        if found.is_none() {
            self.catch_up().await?;
            found = self.0.directory.key(hash);
        }
        let Some((key, entry)) = found else { return Ok(None) };
        if key.expires_at.is_some_and(|end| end <= now) {
            return Ok(None);
        }
        self.note_use(&key, now);
        Ok(Some(KeyCaller {
            scope: entry.scope(Actor::ApiKey(key.id)),
            scopes: key.scopes.clone(),
            organization_active: entry.is_active,
        }))
    }

    async fn organization_enter(&self, by: SuperAdmin, id_or_slug: &str) -> Result<Option<Scope>> {
        let look = || match id_or_slug.parse::<OrganizationId>() {
            Ok(id) => self.0.directory.by_id(id),
            Err(_) => self.0.directory.by_slug(id_or_slug),
        };
        let mut entry = look();
        if entry.is_none() {
            self.catch_up().await?;
            entry = look();
        }
        Ok(entry.map(|entry| entry.scope(by.0).from(by.1)))
    }

    async fn session_find(&self, session: SessionId, now: Timestamp) -> Result<Option<PersonCaller>> {
        let found = self.0.directory.person(session, now);
        if found.is_none() {
            self.catch_up().await?;
            return Ok(self.0.directory.person(session, now));
        }
        Ok(found)
    }

    async fn sign_in_request(&self, email: &Email, from: &Origin, now: Timestamp) -> Result<bool> {
        let (vault, email, from) = (self.0.vault.clone(), email.clone(), from.clone());
        self.write(Part::Authorizer, move |connection, _| sign_in::request(connection, &vault, &email, &from, now))
            .await
    }

    async fn sign_in(&self, token: &TokenHash, from: &Origin, user_agent: &str, now: Timestamp) -> Result<SignedIn> {
        let vault = self.0.vault.clone();
        let (token, from, user_agent) = (*token, from.clone(), user_agent.to_owned());
        self.configure(Part::Authorizer, move |connection, _| {
            let (org, value) = sign_in::enter(connection, &vault, token, &from, &user_agent, now)?;
            Ok(Changed { org, wake: Vec::new(), value })
        })
        .await
    }

    async fn session_end(&self, session: SessionId, from: &Origin, now: Timestamp) -> Result<()> {
        let (vault, from) = (self.0.vault.clone(), from.clone());
        self.configure(Part::Authorizer, move |connection, _| {
            let org = sign_in::leave(connection, &vault, session, &from, now)?;
            // That of nobody is nobody's change.
            Ok(Changed { org: org.unwrap_or(PLATFORM), wake: Vec::new(), value: () })
        })
        .await
    }
}

impl Sqlite {
    /// Something is not known: sees what another process has written by now. A key that `postroom apikey create` made
    /// works in the next moment, not only when the keeper has looked; who asks too often waits for a tenth of a second.
    pub(super) async fn catch_up(&self) -> Result<()> {
        tokio::time::sleep(self.0.directory.catches_up_in()).await;
        if !self.0.directory.catches_up_in().is_zero() {
            return Ok(());
        }
        let (engine, now) = (self.0.clone(), self.now());
        self.0.readers.borrow(move |connection| engine.directory.catch_up(connection, &engine.vault, now)).await
    }

    /// Nobody waits for this to be written, and a full queue skips it.
    fn note_use(&self, key: &Key, now: Timestamp) {
        let (now, noted) = (now.as_millis(), key.noted_at.load(Ordering::Relaxed));
        let due = now.saturating_sub(noted) >= NOTE_EVERY_MS;
        if due && key.noted_at.compare_exchange(noted, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let row = key.key;
            self.0.writer.queue.post(Part::Authorizer, move |connection, _| {
                connection.prepare_cached(NOTE_USE)?.execute((row, now))?;
                Ok(())
            });
        }
    }
}
