//! An organization's own resources, but for its API keys and its people: those are who is who.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use postroom_domain::endpoint::EndpointSettings;
use postroom_domain::{ApiKeyId, DeliveryId, EndpointId, EventId, RejectionId, Secret, SourceId, Timestamp, UserId};

use crate::api::{
    ActivityId, ActivityStream, Api, ApiKeyView, AttemptView, DeliveryFilter, DeliveryView, EndpointView, EventFilter,
    EventPayload, EventView, Idempotency, IdempotencyClaim, NewApiKey, NewEndpoint, NewSource, NewUser, Page,
    PageRequest, RejectedRequest, RejectionView, Rotation, SourceChange, SourceView, StoredAnswer, TestEvent,
    UserChange, UserView,
};
use crate::audit::{AuditEntry, AuditFilter};
use crate::cells::map::Map;
use crate::cells::{At, Router};
use crate::engine::page;
use crate::{Result, Scope};

#[async_trait]
impl Api for Router {
    async fn source_create(&self, scope: &Scope, new: NewSource, now: Timestamp) -> Result<SourceView> {
        self.of(scope).await?.api.source_create(scope, new, now).await
    }

    async fn source_list(&self, scope: &Scope, page: PageRequest) -> Result<Page<SourceView>> {
        self.of(scope).await?.api.source_list(scope, page).await
    }

    async fn source_get(&self, scope: &Scope, id: SourceId) -> Result<SourceView> {
        self.of(scope).await?.api.source_get(scope, id).await
    }

    async fn source_update(
        &self,
        scope: &Scope,
        id: SourceId,
        change: SourceChange,
        now: Timestamp,
    ) -> Result<SourceView> {
        self.of(scope).await?.api.source_update(scope, id, change, now).await
    }

    async fn source_delete(&self, scope: &Scope, id: SourceId, now: Timestamp) -> Result<()> {
        self.of(scope).await?.api.source_delete(scope, id, now).await
    }

    async fn source_rotate(
        &self,
        scope: &Scope,
        id: SourceId,
        rotation: Rotation,
        now: Timestamp,
    ) -> Result<SourceView> {
        self.of(scope).await?.api.source_rotate(scope, id, rotation, now).await
    }

    async fn endpoint_create(&self, scope: &Scope, new: NewEndpoint, now: Timestamp) -> Result<EndpointView> {
        self.of(scope).await?.api.endpoint_create(scope, new, now).await
    }

    async fn endpoint_list(&self, scope: &Scope, page: PageRequest) -> Result<Page<EndpointView>> {
        self.of(scope).await?.api.endpoint_list(scope, page).await
    }

    async fn endpoint_get(&self, scope: &Scope, id: EndpointId) -> Result<EndpointView> {
        self.of(scope).await?.api.endpoint_get(scope, id).await
    }

    async fn endpoint_update(
        &self,
        scope: &Scope,
        id: EndpointId,
        version: i64,
        settings: EndpointSettings,
        now: Timestamp,
    ) -> Result<EndpointView> {
        self.of(scope).await?.api.endpoint_update(scope, id, version, settings, now).await
    }

    async fn endpoint_delete(&self, scope: &Scope, id: EndpointId, now: Timestamp) -> Result<()> {
        self.of(scope).await?.api.endpoint_delete(scope, id, now).await
    }

    async fn endpoint_set_enabled(
        &self,
        scope: &Scope,
        id: EndpointId,
        enabled: bool,
        now: Timestamp,
    ) -> Result<EndpointView> {
        self.of(scope).await?.api.endpoint_set_enabled(scope, id, enabled, now).await
    }

    async fn endpoint_rotate(
        &self,
        scope: &Scope,
        id: EndpointId,
        rotation: Rotation,
        now: Timestamp,
    ) -> Result<EndpointView> {
        self.of(scope).await?.api.endpoint_rotate(scope, id, rotation, now).await
    }

    async fn endpoint_secret_reveal(&self, scope: &Scope, id: EndpointId, now: Timestamp) -> Result<Secret> {
        self.of(scope).await?.api.endpoint_secret_reveal(scope, id, now).await
    }

    async fn event_list(&self, scope: &Scope, filter: EventFilter, page: PageRequest) -> Result<Page<EventView>> {
        self.of(scope).await?.api.event_list(scope, filter, page).await
    }

    async fn event_get(&self, scope: &Scope, id: EventId) -> Result<EventView> {
        self.of(scope).await?.api.event_get(scope, id).await
    }

    async fn event_payload(&self, scope: &Scope, id: EventId) -> Result<EventPayload> {
        self.of(scope).await?.api.event_payload(scope, id).await
    }

    async fn event_replay(
        &self,
        scope: &Scope,
        id: EventId,
        endpoints: Option<Vec<EndpointId>>,
        now: Timestamp,
    ) -> Result<Vec<DeliveryView>> {
        self.of(scope).await?.api.event_replay(scope, id, endpoints, now).await
    }

    async fn endpoint_test(&self, scope: &Scope, id: EndpointId, test: TestEvent, now: Timestamp) -> Result<EventView> {
        self.of(scope).await?.api.endpoint_test(scope, id, test, now).await
    }

    async fn delivery_list(
        &self,
        scope: &Scope,
        filter: DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<DeliveryView>> {
        self.of(scope).await?.api.delivery_list(scope, filter, page).await
    }

    async fn delivery_get(&self, scope: &Scope, id: DeliveryId) -> Result<DeliveryView> {
        self.of(scope).await?.api.delivery_get(scope, id).await
    }

    async fn attempt_list(&self, scope: &Scope, id: DeliveryId) -> Result<Vec<AttemptView>> {
        self.of(scope).await?.api.attempt_list(scope, id).await
    }

    async fn delivery_retry(&self, scope: &Scope, id: DeliveryId, now: Timestamp) -> Result<DeliveryView> {
        self.of(scope).await?.api.delivery_retry(scope, id, now).await
    }

    async fn dead_letter_list(
        &self,
        scope: &Scope,
        filter: DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<DeliveryView>> {
        self.of(scope).await?.api.dead_letter_list(scope, filter, page).await
    }

    async fn dead_letter_requeue(&self, scope: &Scope, id: DeliveryId, now: Timestamp) -> Result<DeliveryView> {
        self.of(scope).await?.api.dead_letter_requeue(scope, id, now).await
    }

    async fn dead_letter_discard(&self, scope: &Scope, id: DeliveryId, now: Timestamp) -> Result<DeliveryView> {
        self.of(scope).await?.api.dead_letter_discard(scope, id, now).await
    }

    async fn rejection_list(
        &self,
        scope: &Scope,
        source: Option<SourceId>,
        page: PageRequest,
    ) -> Result<Page<RejectionView>> {
        self.of(scope).await?.api.rejection_list(scope, source, page).await
    }

    async fn rejection_get(&self, scope: &Scope, id: RejectionId) -> Result<(RejectionView, RejectedRequest)> {
        self.of(scope).await?.api.rejection_get(scope, id).await
    }

    async fn rejection_resolve(&self, scope: &Scope, id: RejectionId, event: EventId, now: Timestamp) -> Result<()> {
        self.of(scope).await?.api.rejection_resolve(scope, id, event, now).await
    }

    async fn api_key_create(&self, scope: &Scope, new: NewApiKey, now: Timestamp) -> Result<ApiKeyView> {
        self.shared.api.api_key_create(scope, new, now).await
    }

    async fn api_key_list(&self, scope: &Scope, page: PageRequest) -> Result<Page<ApiKeyView>> {
        self.shared.api.api_key_list(scope, page).await
    }

    async fn api_key_get(&self, scope: &Scope, id: ApiKeyId) -> Result<ApiKeyView> {
        self.shared.api.api_key_get(scope, id).await
    }

    async fn api_key_revoke(&self, scope: &Scope, id: ApiKeyId, now: Timestamp) -> Result<ApiKeyView> {
        self.shared.api.api_key_revoke(scope, id, now).await
    }

    /// Of who is who, and of what is in a database of the organization's own: together in the order of time.
    async fn audit_list(&self, scope: &Scope, filter: AuditFilter, page: PageRequest) -> Result<Page<AuditEntry>> {
        let shared = self.shared.api.audit_list(scope, filter.clone(), page.clone()).await?;
        match self.of(scope).await?.at {
            At::Shared(_) => Ok(shared),
            At::Cell(open) => {
                let own = open.api.audit_list(scope, filter, page.clone()).await?;
                Ok(page::merge(&page, [shared, own], |entry| entry.id.to_bytes()))
            }
        }
    }

    async fn user_invite(&self, scope: &Scope, new: NewUser, now: Timestamp) -> Result<UserView> {
        self.shared.api.user_invite(scope, new, now).await
    }

    async fn user_invite_again(&self, scope: &Scope, id: UserId, now: Timestamp) -> Result<UserView> {
        self.shared.api.user_invite_again(scope, id, now).await
    }

    async fn user_list(&self, scope: &Scope, page: PageRequest) -> Result<Page<UserView>> {
        self.shared.api.user_list(scope, page).await
    }

    async fn user_get(&self, scope: &Scope, id: UserId) -> Result<UserView> {
        self.shared.api.user_get(scope, id).await
    }

    async fn user_update(&self, scope: &Scope, id: UserId, change: UserChange, now: Timestamp) -> Result<UserView> {
        self.shared.api.user_update(scope, id, change, now).await
    }

    async fn idempotency_begin(&self, scope: &Scope, claim: IdempotencyClaim, now: Timestamp) -> Result<Idempotency> {
        self.of(scope).await?.api.idempotency_begin(scope, claim, now).await
    }

    async fn idempotency_finish(
        &self,
        scope: &Scope,
        claim: IdempotencyClaim,
        answer: Option<StoredAnswer>,
        now: Timestamp,
    ) -> Result<()> {
        self.of(scope).await?.api.idempotency_finish(scope, claim, answer, now).await
    }

    async fn activity(&self, scope: &Scope, after: Option<ActivityId>) -> Result<ActivityStream> {
        let engine = self.of(scope).await?;
        let stream = engine.api.activity(scope, after).await?;
        let (cells, organization) = (Arc::downgrade(&self.cells), scope.organization);
        let is_there = move |cell: Option<u32>| {
            let map = cells.upgrade().map(|cells| cells.map());
            let stays = |map: Arc<Map>| {
                map.move_of(organization).is_none() && map.of(organization).map(|place| place.cell) == cell
            };
            map.is_some_and(stays)
        };
        let cell = self.cells.of(organization).map(|place| place.cell);
        // Whoever watches begins anew where the organization has moved to.
        let stream = stream.take_while(move |_| std::future::ready(is_there(cell))).boxed();
        let At::Cell(open) = engine.at else { return Ok(stream) };
        // A cell does not sleep while somebody watches it.
        Ok(stream
            .inspect(move |_| {
                let _awake = &open;
            })
            .boxed())
    }
}
