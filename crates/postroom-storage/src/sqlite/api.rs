//! An organization's own resources.

use async_trait::async_trait;
use postroom_domain::endpoint::EndpointSettings;
use postroom_domain::{ApiKeyId, DeliveryId, EndpointId, EventId, RejectionId, Secret, SourceId, Timestamp};

use super::configuration::{endpoints, keys, sources};
use super::moves::{self, Moves};
use super::reads::{delivery, event, page};
use super::{Changed, Sqlite, rejections};
use crate::api::{
    Activity, ActivityId, ActivityStream, Api, ApiKeyView, AttemptView, DeliveryFilter, DeliveryView, EndpointView,
    EventFilter, EventPayload, EventView, Idempotency, IdempotencyClaim, NewApiKey, NewEndpoint, NewSource, Page,
    PageRequest, RejectedRequest, RejectionView, Rotation, SourceChange, SourceView, StoredAnswer, TestEvent,
};
use crate::{Result, Scope};

#[async_trait]
impl Api for Sqlite {
    async fn source_create(&self, scope: &Scope, new: NewSource, now: Timestamp) -> Result<SourceView> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.configure(move |connection, _| {
            let value = sources::create(connection, &vault, &scope, &new, now)?;
            Ok(Changed { org: scope.org, wake: Vec::new(), value })
        })
        .await
    }

    async fn source_list(&self, scope: &Scope, request: PageRequest) -> Result<Page<SourceView>> {
        let (scope, now) = (scope.clone(), self.now());
        self.read(move |connection| {
            let rows = |after, limit| sources::list(connection, &scope, after, limit, now);
            page::by_id(&request, rows, |view| view.id.to_bytes())
        })
        .await
    }

    async fn source_get(&self, scope: &Scope, id: SourceId) -> Result<SourceView> {
        let (scope, now) = (scope.clone(), self.now());
        self.read(move |connection| sources::get(connection, &scope, id, now)).await
    }

    async fn source_update(
        &self,
        scope: &Scope,
        id: SourceId,
        change: SourceChange,
        now: Timestamp,
    ) -> Result<SourceView> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.configure(move |connection, _| {
            let value = sources::update(connection, &vault, &scope, id, change, now)?;
            Ok(Changed { org: scope.org, wake: Vec::new(), value })
        })
        .await
    }

    async fn source_delete(&self, scope: &Scope, id: SourceId, now: Timestamp) -> Result<()> {
        let scope = scope.clone();
        self.configure(move |connection, _| {
            sources::delete(connection, &scope, id, now)?;
            Ok(Changed { org: scope.org, wake: Vec::new(), value: () })
        })
        .await
    }

    async fn source_rotate(
        &self,
        scope: &Scope,
        id: SourceId,
        rotation: Rotation,
        now: Timestamp,
    ) -> Result<SourceView> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.configure(move |connection, _| {
            let value = sources::rotate(connection, &vault, &scope, id, &rotation, now)?;
            Ok(Changed { org: scope.org, wake: Vec::new(), value })
        })
        .await
    }

    async fn endpoint_create(&self, scope: &Scope, new: NewEndpoint, now: Timestamp) -> Result<EndpointView> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.configure(move |connection, _| {
            let value = endpoints::create(connection, &vault, &(&scope).into(), &new, now)?;
            Ok(Changed { org: scope.org, wake: Vec::new(), value })
        })
        .await
    }

    async fn endpoint_list(&self, scope: &Scope, request: PageRequest) -> Result<Page<EndpointView>> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.read(move |connection| {
            let rows = |after, limit| endpoints::list(connection, &vault, &(&scope).into(), after, limit);
            page::by_id(&request, rows, |view| view.id.to_bytes())
        })
        .await
    }

    async fn endpoint_get(&self, scope: &Scope, id: EndpointId) -> Result<EndpointView> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.read(move |connection| endpoints::get(connection, &vault, &(&scope).into(), id)).await
    }

    async fn endpoint_update(
        &self,
        scope: &Scope,
        id: EndpointId,
        settings: EndpointSettings,
        now: Timestamp,
    ) -> Result<EndpointView> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.configure(move |connection, _| {
            let (key, value) = endpoints::update(connection, &vault, &(&scope).into(), id, &settings, now)?;
            Ok(Changed { org: scope.org, wake: vec![key], value })
        })
        .await
    }

    async fn endpoint_delete(&self, scope: &Scope, id: EndpointId, now: Timestamp) -> Result<()> {
        let scope = scope.clone();
        self.configure(move |connection, _| {
            let key = endpoints::delete(connection, &(&scope).into(), id, now)?;
            Ok(Changed { org: scope.org, wake: vec![key], value: () })
        })
        .await
    }

    async fn endpoint_set_enabled(
        &self,
        scope: &Scope,
        id: EndpointId,
        enabled: bool,
        now: Timestamp,
    ) -> Result<EndpointView> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.configure(move |connection, _| {
            let (key, value) = endpoints::set_enabled(connection, &vault, &(&scope).into(), id, enabled, now)?;
            Ok(Changed { org: scope.org, wake: vec![key], value })
        })
        .await
    }

    async fn endpoint_rotate(
        &self,
        scope: &Scope,
        id: EndpointId,
        rotation: Rotation,
        now: Timestamp,
    ) -> Result<EndpointView> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.configure(move |connection, _| {
            let (key, value) = endpoints::rotate(connection, &vault, &(&scope).into(), id, &rotation, now)?;
            Ok(Changed { org: scope.org, wake: vec![key], value })
        })
        .await
    }

    async fn endpoint_secret_reveal(&self, scope: &Scope, id: EndpointId, now: Timestamp) -> Result<Secret> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.write(move |connection, _| endpoints::reveal(connection, &vault, &scope, id, now)).await
    }

    async fn api_key_create(&self, scope: &Scope, new: NewApiKey, now: Timestamp) -> Result<ApiKeyView> {
        let org = scope.org;
        self.configure(move |connection, _| {
            Ok(Changed { org, wake: Vec::new(), value: keys::create(connection, org, &new, now)? })
        })
        .await
    }

    async fn api_key_list(&self, scope: &Scope, request: PageRequest) -> Result<Page<ApiKeyView>> {
        let org = scope.org;
        self.read(move |connection| {
            page::by_id(&request, |after, limit| keys::list(connection, org, after, limit), |view| view.id.to_bytes())
        })
        .await
    }

    async fn api_key_get(&self, scope: &Scope, id: ApiKeyId) -> Result<ApiKeyView> {
        let org = scope.org;
        self.read(move |connection| keys::get(connection, org, id)).await
    }

    async fn api_key_revoke(&self, scope: &Scope, id: ApiKeyId, now: Timestamp) -> Result<ApiKeyView> {
        let org = scope.org;
        self.configure(move |connection, _| {
            Ok(Changed { org, wake: Vec::new(), value: keys::revoke(connection, org, id, now)? })
        })
        .await
    }

    // TEMPORARY BELOW

    async fn event_list(&self, _: &Scope, _: EventFilter, _: PageRequest) -> Result<Page<EventView>> {
        Err(soon())
    }
    async fn event_get(&self, scope: &Scope, id: EventId) -> Result<EventView> {
        let (org, handoff) = (scope.org, self.0.handoff.clone());
        self.read(move |connection| event::view(connection, &*handoff, org, id)).await
    }
    async fn event_payload(&self, _: &Scope, _: EventId) -> Result<EventPayload> {
        Err(soon())
    }
    async fn event_replay(
        &self,
        scope: &Scope,
        id: EventId,
        endpoints: Option<Vec<EndpointId>>,
        now: Timestamp,
    ) -> Result<Vec<DeliveryView>> {
        let actor = scope.actor;
        self.act(scope, now, move |moves| moves.replay(id, endpoints, actor)).await
    }
    async fn endpoint_test(&self, scope: &Scope, id: EndpointId, test: TestEvent, now: Timestamp) -> Result<EventView> {
        let org = scope.org;
        let endpoint = self.read(move |connection| moves::enabled_endpoint(connection, org, id)).await?;
        let recorded = self.record_test(scope, endpoint, test, now).await?;
        self.event_get(scope, recorded.id).await
    }
    async fn delivery_list(&self, _: &Scope, _: DeliveryFilter, _: PageRequest) -> Result<Page<DeliveryView>> {
        Err(soon())
    }
    async fn delivery_get(&self, scope: &Scope, id: DeliveryId) -> Result<DeliveryView> {
        let (org, handoff) = (scope.org, self.0.handoff.clone());
        self.read(move |connection| delivery::view(connection, &*handoff, org, id)).await
    }
    async fn attempt_list(&self, _: &Scope, _: DeliveryId) -> Result<Vec<AttemptView>> {
        Err(soon())
    }
    async fn delivery_retry(&self, scope: &Scope, id: DeliveryId, now: Timestamp) -> Result<DeliveryView> {
        self.act(scope, now, move |moves| moves.retry(id)).await
    }
    async fn dead_letter_list(&self, _: &Scope, _: DeliveryFilter, _: PageRequest) -> Result<Page<DeliveryView>> {
        Err(soon())
    }
    async fn dead_letter_requeue(&self, scope: &Scope, id: DeliveryId, now: Timestamp) -> Result<DeliveryView> {
        self.act(scope, now, move |moves| moves.requeue(id)).await
    }
    async fn dead_letter_discard(&self, scope: &Scope, id: DeliveryId, now: Timestamp) -> Result<DeliveryView> {
        self.act(scope, now, move |moves| moves.discard(id)).await
    }
    async fn rejection_list(&self, _: &Scope, _: Option<SourceId>, _: PageRequest) -> Result<Page<RejectionView>> {
        Err(soon())
    }
    async fn rejection_get(&self, _: &Scope, _: RejectionId) -> Result<(RejectionView, RejectedRequest)> {
        Err(soon())
    }
    async fn rejection_resolve(&self, scope: &Scope, id: RejectionId, event: EventId) -> Result<()> {
        let scope = scope.clone();
        self.write(move |connection, _| rejections::resolve(connection, &scope, id, event)).await
    }
    async fn idempotency_begin(&self, _: &Scope, _: IdempotencyClaim, _: Timestamp) -> Result<Idempotency> {
        Err(soon())
    }
    async fn idempotency_finish(
        &self,
        _: &Scope,
        _: IdempotencyClaim,
        _: Option<StoredAnswer>,
        _: Timestamp,
    ) -> Result<()> {
        Err(soon())
    }
    fn activity(&self, _: &Scope) -> ActivityStream {
        Box::pin(futures_util::stream::empty())
    }
    async fn activity_since(&self, _: &Scope, _: ActivityId, _: usize) -> Result<Vec<Activity>> {
        Err(soon())
    }
}

fn soon() -> crate::Error {
    crate::Error::Unavailable("soon".into())
}

impl Sqlite {
    /// Changes deliveries of one organization.
    async fn act<T, F>(&self, scope: &Scope, now: Timestamp, act: F) -> Result<T>
    where
        F: FnOnce(&mut Moves<'_>) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (org, handoff) = (scope.org, self.0.handoff.clone());
        self.write(move |connection, effects| act(&mut Moves { connection, effects, handoff: &*handoff, org, now }))
            .await
    }
}
