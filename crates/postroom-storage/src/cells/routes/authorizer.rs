//! Who is who is in the shared database, for all.

use async_trait::async_trait;
use postroom_domain::api_key::KeyHash;
use postroom_domain::{Email, SessionId, Timestamp, TokenHash};

use crate::authorizer::SignedIn;
use crate::cells::Router;
use crate::scope::{KeyCaller, Origin, PersonCaller};
use crate::{Authorizer, Result, Scope, SuperAdmin};

#[async_trait]
impl Authorizer for Router {
    async fn key_find(&self, hash: &KeyHash, now: Timestamp) -> Result<Option<KeyCaller>> {
        self.shared.authorizer.key_find(hash, now).await
    }

    async fn organization_enter(&self, by: SuperAdmin, id_or_slug: &str) -> Result<Option<Scope>> {
        self.shared.authorizer.organization_enter(by, id_or_slug).await
    }

    async fn session_find(&self, session: SessionId, now: Timestamp) -> Result<Option<PersonCaller>> {
        self.shared.authorizer.session_find(session, now).await
    }

    async fn sign_in_request(&self, email: &Email, from: &Origin, now: Timestamp) -> Result<bool> {
        self.shared.authorizer.sign_in_request(email, from, now).await
    }

    async fn sign_in(&self, token: &TokenHash, from: &Origin, user_agent: &str, now: Timestamp) -> Result<SignedIn> {
        self.shared.authorizer.sign_in(token, from, user_agent, now).await
    }

    async fn session_end(&self, session: SessionId, from: &Origin, now: Timestamp) -> Result<()> {
        self.shared.authorizer.session_end(session, from, now).await
    }
}
