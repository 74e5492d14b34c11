//! An organization's own resources.

use async_trait::async_trait;
use postroom_domain::endpoint::EndpointSettings;
use postroom_domain::{ApiKeyId, DeliveryId, EndpointId, EventId, RejectionId, Secret, SourceId, Timestamp, UserId};

use super::Postgres;
use crate::api::{
    ActivityId, ActivityStream, Api, ApiKeyView, AttemptView, DeliveryFilter, DeliveryView, EndpointView, EventFilter,
    EventPayload, EventView, Idempotency, IdempotencyClaim, NewApiKey, NewEndpoint, NewSource, NewUser, Page,
    PageRequest, RejectedRequest, RejectionView, Rotation, SourceChange, SourceView, StoredAnswer, TestEvent,
    UserChange, UserView,
};
use crate::audit::{AuditEntry, AuditFilter};
use crate::{Result, Scope};

#[async_trait]
impl Api for Postgres {
    async fn source_create(&self, scope: &Scope, new: NewSource, now: Timestamp) -> Result<SourceView> {
        Self::source_create(self, scope, new, now).await
    }

    async fn source_list(&self, scope: &Scope, page: PageRequest) -> Result<Page<SourceView>> {
        Self::source_list(self, scope, page).await
    }

    async fn source_get(&self, scope: &Scope, id: SourceId) -> Result<SourceView> {
        Self::source_get(self, scope, id).await
    }

    async fn source_update(
        &self,
        scope: &Scope,
        id: SourceId,
        change: SourceChange,
        now: Timestamp,
    ) -> Result<SourceView> {
        Self::source_update(self, scope, id, change, now).await
    }

    async fn source_delete(&self, scope: &Scope, id: SourceId, now: Timestamp) -> Result<()> {
        Self::source_delete(self, scope, id, now).await
    }

    async fn source_rotate(
        &self,
        scope: &Scope,
        id: SourceId,
        rotation: Rotation,
        now: Timestamp,
    ) -> Result<SourceView> {
        Self::source_rotate(self, scope, id, rotation, now).await
    }

    async fn endpoint_create(&self, scope: &Scope, new: NewEndpoint, now: Timestamp) -> Result<EndpointView> {
        Self::endpoint_create(self, scope, new, now).await
    }

    async fn endpoint_list(&self, scope: &Scope, page: PageRequest) -> Result<Page<EndpointView>> {
        Self::endpoint_list(self, scope, page).await
    }

    async fn endpoint_get(&self, scope: &Scope, id: EndpointId) -> Result<EndpointView> {
        Self::endpoint_get(self, scope, id).await
    }

    async fn endpoint_update(
        &self,
        scope: &Scope,
        id: EndpointId,
        version: i64,
        settings: EndpointSettings,
        now: Timestamp,
    ) -> Result<EndpointView> {
        Self::endpoint_update(self, scope, id, version, settings, now).await
    }

    async fn endpoint_delete(&self, scope: &Scope, id: EndpointId, now: Timestamp) -> Result<()> {
        Self::endpoint_delete(self, scope, id, now).await
    }

    async fn endpoint_set_enabled(
        &self,
        scope: &Scope,
        id: EndpointId,
        enabled: bool,
        now: Timestamp,
    ) -> Result<EndpointView> {
        Self::endpoint_set_enabled(self, scope, id, enabled, now).await
    }

    async fn endpoint_rotate(
        &self,
        scope: &Scope,
        id: EndpointId,
        rotation: Rotation,
        now: Timestamp,
    ) -> Result<EndpointView> {
        Self::endpoint_rotate(self, scope, id, rotation, now).await
    }

    async fn endpoint_secret_reveal(&self, scope: &Scope, id: EndpointId, now: Timestamp) -> Result<Secret> {
        Self::endpoint_secret_reveal(self, scope, id, now).await
    }

    async fn event_list(&self, scope: &Scope, filter: EventFilter, page: PageRequest) -> Result<Page<EventView>> {
        Self::event_list(self, scope, filter, page).await
    }

    async fn event_get(&self, scope: &Scope, id: EventId) -> Result<EventView> {
        Self::event_get(self, scope, id).await
    }

    async fn event_payload(&self, scope: &Scope, id: EventId) -> Result<EventPayload> {
        Self::event_payload(self, scope, id).await
    }

    async fn event_replay(
        &self,
        scope: &Scope,
        id: EventId,
        endpoints: Option<Vec<EndpointId>>,
        now: Timestamp,
    ) -> Result<Vec<DeliveryView>> {
        Self::event_replay(self, scope, id, endpoints, now).await
    }

    async fn endpoint_test(&self, scope: &Scope, id: EndpointId, test: TestEvent, now: Timestamp) -> Result<EventView> {
        Self::endpoint_test(self, scope, id, test, now).await
    }

    async fn delivery_list(
        &self,
        scope: &Scope,
        filter: DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<DeliveryView>> {
        Self::delivery_list(self, scope, filter, page).await
    }

    async fn delivery_get(&self, scope: &Scope, id: DeliveryId) -> Result<DeliveryView> {
        Self::delivery_get(self, scope, id).await
    }

    async fn attempt_list(&self, scope: &Scope, id: DeliveryId) -> Result<Vec<AttemptView>> {
        Self::attempt_list(self, scope, id).await
    }

    async fn delivery_retry(&self, scope: &Scope, id: DeliveryId, now: Timestamp) -> Result<DeliveryView> {
        Self::delivery_retry(self, scope, id, now).await
    }

    async fn dead_letter_list(
        &self,
        scope: &Scope,
        filter: DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<DeliveryView>> {
        Self::dead_letter_list(self, scope, filter, page).await
    }

    async fn dead_letter_requeue(&self, scope: &Scope, id: DeliveryId, now: Timestamp) -> Result<DeliveryView> {
        Self::dead_letter_requeue(self, scope, id, now).await
    }

    async fn dead_letter_discard(&self, scope: &Scope, id: DeliveryId, now: Timestamp) -> Result<DeliveryView> {
        Self::dead_letter_discard(self, scope, id, now).await
    }

    async fn rejection_list(
        &self,
        scope: &Scope,
        source: Option<SourceId>,
        page: PageRequest,
    ) -> Result<Page<RejectionView>> {
        Self::rejection_list(self, scope, source, page).await
    }

    async fn rejection_get(&self, scope: &Scope, id: RejectionId) -> Result<(RejectionView, RejectedRequest)> {
        Self::rejection_get(self, scope, id).await
    }

    async fn rejection_resolve(&self, scope: &Scope, id: RejectionId, event: EventId, now: Timestamp) -> Result<()> {
        Self::rejection_resolve(self, scope, id, event, now).await
    }

    async fn api_key_create(&self, scope: &Scope, new: NewApiKey, now: Timestamp) -> Result<ApiKeyView> {
        Self::api_key_create(self, scope, new, now).await
    }

    async fn api_key_list(&self, scope: &Scope, page: PageRequest) -> Result<Page<ApiKeyView>> {
        Self::api_key_list(self, scope, page).await
    }

    async fn api_key_get(&self, scope: &Scope, id: ApiKeyId) -> Result<ApiKeyView> {
        Self::api_key_get(self, scope, id).await
    }

    async fn api_key_revoke(&self, scope: &Scope, id: ApiKeyId, now: Timestamp) -> Result<ApiKeyView> {
        Self::api_key_revoke(self, scope, id, now).await
    }

    async fn audit_list(&self, scope: &Scope, filter: AuditFilter, page: PageRequest) -> Result<Page<AuditEntry>> {
        Self::audit_list(self, scope, filter, page).await
    }

    async fn user_invite(&self, scope: &Scope, new: NewUser, now: Timestamp) -> Result<UserView> {
        Self::user_invite(self, scope, new, now).await
    }

    async fn user_invite_again(&self, scope: &Scope, id: UserId, now: Timestamp) -> Result<UserView> {
        Self::user_invite_again(self, scope, id, now).await
    }

    async fn user_list(&self, scope: &Scope, page: PageRequest) -> Result<Page<UserView>> {
        Self::user_list(self, scope, page).await
    }

    async fn user_get(&self, scope: &Scope, id: UserId) -> Result<UserView> {
        Self::user_get(self, scope, id).await
    }

    async fn user_update(&self, scope: &Scope, id: UserId, change: UserChange, now: Timestamp) -> Result<UserView> {
        Self::user_update(self, scope, id, change, now).await
    }

    async fn idempotency_begin(&self, scope: &Scope, claim: IdempotencyClaim, now: Timestamp) -> Result<Idempotency> {
        Self::idempotency_begin(self, scope, claim, now).await
    }

    async fn idempotency_finish(
        &self,
        scope: &Scope,
        claim: IdempotencyClaim,
        answer: Option<StoredAnswer>,
        now: Timestamp,
    ) -> Result<()> {
        Self::idempotency_finish(self, scope, claim, answer, now).await
    }

    async fn activity(&self, scope: &Scope, after: Option<ActivityId>) -> Result<ActivityStream> {
        Self::activity(self, scope, after).await
    }
}
