//! An organization's own resources.

use async_trait::async_trait;
use postroom_domain::delivery::DeliveryStatus;
use postroom_domain::endpoint::EndpointSettings;
use postroom_domain::{ApiKeyId, DeliveryId, EndpointId, EventId, RejectionId, Secret, SourceId, Timestamp, UserId};

use super::configuration::{endpoints, keys, sources, users};
use super::connection::Connection;
use super::grants::Part;
use super::moves::{self, Moves};
use super::reads::{activity, attempt, deliveries, delivery, event, events, idempotency, rejection};
use super::writer::Effects;
use super::{Changed, Sqlite, audit, rejections};
use crate::api::{
    ActivityId, ActivityStream, Api, ApiKeyView, AttemptView, DeliveryFilter, DeliveryView, EndpointView, EventFilter,
    EventPayload, EventView, Idempotency, IdempotencyClaim, NewApiKey, NewEndpoint, NewSource, NewUser, Page,
    PageRequest, RejectedRequest, RejectionView, Rotation, SourceChange, SourceView, StoredAnswer, TestEvent,
    UserChange, UserView,
};
use crate::audit::{Action, AuditEntry, AuditFilter};
use crate::engine::audit::Act;
use crate::engine::page;
use crate::{Result, Scope};

#[async_trait]
impl Api for Sqlite {
    async fn source_create(&self, scope: &Scope, new: NewSource, now: Timestamp) -> Result<SourceView> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.configure(Part::Api, move |connection, _| {
            let value = sources::create(connection, &vault, &scope, &new, now)?;
            Ok(Changed { org: scope.org, wake: Vec::new(), value })
        })
        .await
    }

    async fn source_list(&self, scope: &Scope, request: PageRequest) -> Result<Page<SourceView>> {
        let (scope, now) = (scope.clone(), self.now());
        self.read(Part::Api, scope.org, move |connection| {
            let rows = |after, limit| sources::list(connection, &scope, after, limit, now);
            page::by_id(&request, rows, |view| view.id.to_bytes())
        })
        .await
    }

    async fn source_get(&self, scope: &Scope, id: SourceId) -> Result<SourceView> {
        let (scope, now) = (scope.clone(), self.now());
        self.read(Part::Api, scope.org, move |connection| sources::get(connection, &scope, id, now)).await
    }

    async fn source_update(
        &self,
        scope: &Scope,
        id: SourceId,
        change: SourceChange,
        now: Timestamp,
    ) -> Result<SourceView> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.configure(Part::Api, move |connection, _| {
            let value = sources::update(connection, &vault, &scope, id, change, now)?;
            Ok(Changed { org: scope.org, wake: Vec::new(), value })
        })
        .await
    }

    async fn source_delete(&self, scope: &Scope, id: SourceId, now: Timestamp) -> Result<()> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.configure(Part::Api, move |connection, _| {
            sources::delete(connection, &vault, &scope, id, now)?;
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
        self.configure(Part::Api, move |connection, _| {
            let value = sources::rotate(connection, &vault, &scope, id, &rotation, now)?;
            Ok(Changed { org: scope.org, wake: Vec::new(), value })
        })
        .await
    }

    async fn endpoint_create(&self, scope: &Scope, new: NewEndpoint, now: Timestamp) -> Result<EndpointView> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.configure(Part::Api, move |connection, _| {
            let value = endpoints::create(connection, &vault, &scope, &new, now)?;
            Ok(Changed { org: scope.org, wake: Vec::new(), value })
        })
        .await
    }

    async fn endpoint_list(&self, scope: &Scope, request: PageRequest) -> Result<Page<EndpointView>> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.read(Part::Api, scope.org, move |connection| {
            let rows = |after, limit| endpoints::list(connection, &vault, &scope, after, limit);
            page::by_id(&request, rows, |view| view.id.to_bytes())
        })
        .await
    }

    async fn endpoint_get(&self, scope: &Scope, id: EndpointId) -> Result<EndpointView> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.read(Part::Api, scope.org, move |connection| endpoints::get(connection, &vault, &scope, id)).await
    }

    async fn endpoint_update(
        &self,
        scope: &Scope,
        id: EndpointId,
        version: i64,
        settings: EndpointSettings,
        now: Timestamp,
    ) -> Result<EndpointView> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.configure(Part::Api, move |connection, _| {
            let replacing = (id, version);
            let (key, value) = endpoints::update(connection, &vault, &scope, replacing, &settings, now)?;
            Ok(Changed { org: scope.org, wake: vec![key], value })
        })
        .await
    }

    async fn endpoint_delete(&self, scope: &Scope, id: EndpointId, now: Timestamp) -> Result<()> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.configure(Part::Api, move |connection, _| {
            let key = endpoints::delete(connection, &vault, &scope, id, now)?;
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
        self.configure(Part::Api, move |connection, _| {
            let (key, value) = endpoints::set_enabled(connection, &vault, &scope, id, enabled, now)?;
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
        self.configure(Part::Api, move |connection, _| {
            let (key, value) = endpoints::rotate(connection, &vault, &scope, id, &rotation, now)?;
            Ok(Changed { org: scope.org, wake: vec![key], value })
        })
        .await
    }

    async fn endpoint_secret_reveal(&self, scope: &Scope, id: EndpointId, now: Timestamp) -> Result<Secret> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.write(Part::Api, move |connection, _| endpoints::reveal(connection, &vault, &scope, id, now)).await
    }

    async fn api_key_create(&self, scope: &Scope, new: NewApiKey, now: Timestamp) -> Result<ApiKeyView> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.configure(Part::Api, move |connection, _| {
            let value = keys::create(connection, &vault, &scope, &new, now)?;
            Ok(Changed { org: scope.org, wake: Vec::new(), value })
        })
        .await
    }

    async fn api_key_list(&self, scope: &Scope, request: PageRequest) -> Result<Page<ApiKeyView>> {
        let org = scope.org;
        self.read(Part::Api, scope.org, move |connection| {
            page::by_id(&request, |after, limit| keys::list(connection, org, after, limit), |view| view.id.to_bytes())
        })
        .await
    }

    async fn api_key_get(&self, scope: &Scope, id: ApiKeyId) -> Result<ApiKeyView> {
        let org = scope.org;
        self.read(Part::Api, scope.org, move |connection| keys::get(connection, org, id)).await
    }

    async fn api_key_revoke(&self, scope: &Scope, id: ApiKeyId, now: Timestamp) -> Result<ApiKeyView> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.configure(Part::Api, move |connection, _| {
            let value = keys::revoke(connection, &vault, &scope, id, now)?;
            Ok(Changed { org: scope.org, wake: Vec::new(), value })
        })
        .await
    }

    async fn user_invite(&self, scope: &Scope, new: NewUser, now: Timestamp) -> Result<UserView> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.write(Part::Api, move |connection, _| users::invite(connection, &vault, &scope, &new, now)).await
    }

    async fn user_invite_again(&self, scope: &Scope, id: UserId, now: Timestamp) -> Result<UserView> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.write(Part::Api, move |connection, _| users::invite_again(connection, &vault, &scope, id, now)).await
    }

    async fn user_list(&self, scope: &Scope, request: PageRequest) -> Result<Page<UserView>> {
        let org = scope.org;
        self.read(Part::Api, org, move |connection| {
            page::by_id(&request, |after, limit| users::list(connection, org, after, limit), |view| view.id.to_bytes())
        })
        .await
    }

    async fn user_get(&self, scope: &Scope, id: UserId) -> Result<UserView> {
        let scope = scope.clone();
        self.read(Part::Api, scope.org, move |connection| users::get(connection, &scope, id)).await
    }

    async fn user_update(&self, scope: &Scope, id: UserId, change: UserChange, now: Timestamp) -> Result<UserView> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        self.configure(Part::Api, move |connection, _| {
            let value = users::update(connection, &vault, &scope, id, change, now)?;
            Ok(Changed { org: scope.org, wake: Vec::new(), value })
        })
        .await
    }

    async fn event_list(&self, scope: &Scope, filter: EventFilter, request: PageRequest) -> Result<Page<EventView>> {
        let (org, handoff) = (scope.org, self.0.handoff.clone());
        self.read(Part::Api, scope.org, move |connection| events::list(connection, &*handoff, org, filter, &request))
            .await
    }

    async fn event_get(&self, scope: &Scope, id: EventId) -> Result<EventView> {
        let (org, handoff) = (scope.org, self.0.handoff.clone());
        self.read(Part::Api, scope.org, move |connection| event::view(connection, &*handoff, org, id)).await
    }

    async fn event_payload(&self, scope: &Scope, id: EventId) -> Result<EventPayload> {
        let org = scope.org;
        self.read(Part::Api, scope.org, move |connection| event::payload(connection, org, id)).await
    }

    async fn event_replay(
        &self,
        scope: &Scope,
        id: EventId,
        endpoints: Option<Vec<EndpointId>>,
        now: Timestamp,
    ) -> Result<Vec<DeliveryView>> {
        self.act(scope, now, move |moves| moves.replay(id, endpoints)).await
    }
    async fn endpoint_test(&self, scope: &Scope, id: EndpointId, test: TestEvent, now: Timestamp) -> Result<EventView> {
        let (vault, acting) = (self.0.vault.clone(), scope.clone());
        // Written before it is done: an event is recorded with others, and by another part.
        let asked = move |connection: &mut Connection, _: &mut Effects| {
            let endpoint = moves::enabled_endpoint(connection, acting.org, id)?;
            audit::write(connection, &vault, (&acting).into(), Act::on(Action::EndpointTested, id), now)?;
            Ok(endpoint)
        };
        let endpoint = self.write(Part::Api, asked).await?;
        let recorded = self.record_test(scope, endpoint, test, now).await?;
        self.event_get(scope, recorded.id).await
    }
    async fn delivery_list(
        &self,
        scope: &Scope,
        filter: DeliveryFilter,
        request: PageRequest,
    ) -> Result<Page<DeliveryView>> {
        self.deliveries(Part::Api, scope, filter, request).await
    }

    async fn delivery_get(&self, scope: &Scope, id: DeliveryId) -> Result<DeliveryView> {
        let (org, handoff) = (scope.org, self.0.handoff.clone());
        self.read(Part::Api, scope.org, move |connection| delivery::view(connection, &*handoff, org, id)).await
    }

    async fn attempt_list(&self, scope: &Scope, id: DeliveryId) -> Result<Vec<AttemptView>> {
        let org = scope.org;
        self.read(Part::Api, scope.org, move |connection| attempt::list(connection, org, id)).await
    }

    async fn delivery_retry(&self, scope: &Scope, id: DeliveryId, now: Timestamp) -> Result<DeliveryView> {
        self.act(scope, now, move |moves| moves.retry(id)).await
    }
    async fn dead_letter_list(
        &self,
        scope: &Scope,
        filter: DeliveryFilter,
        request: PageRequest,
    ) -> Result<Page<DeliveryView>> {
        let filter = DeliveryFilter { status: Some(DeliveryStatus::DeadLetter), ..filter };
        self.deliveries(Part::DeadLetter, scope, filter, request).await
    }

    async fn dead_letter_requeue(&self, scope: &Scope, id: DeliveryId, now: Timestamp) -> Result<DeliveryView> {
        self.act(scope, now, move |moves| moves.requeue(id)).await
    }
    async fn dead_letter_discard(&self, scope: &Scope, id: DeliveryId, now: Timestamp) -> Result<DeliveryView> {
        self.act(scope, now, move |moves| moves.discard(id)).await
    }
    async fn rejection_list(
        &self,
        scope: &Scope,
        source: Option<SourceId>,
        request: PageRequest,
    ) -> Result<Page<RejectionView>> {
        let org = scope.org;
        self.read(Part::Api, scope.org, move |connection| rejection::list(connection, org, source, &request)).await
    }

    async fn rejection_get(&self, scope: &Scope, id: RejectionId) -> Result<(RejectionView, RejectedRequest)> {
        let org = scope.org;
        self.read(Part::Api, scope.org, move |connection| rejection::get(connection, org, id)).await
    }

    async fn rejection_resolve(&self, scope: &Scope, id: RejectionId, event: EventId, now: Timestamp) -> Result<()> {
        let (vault, scope) = (self.0.vault.clone(), scope.clone());
        let resolve = move |connection: &mut Connection, _: &mut Effects| {
            rejections::resolve(connection, &scope, id, event)?;
            let act = Act::on(Action::RejectionReverified, id).with("event", event.to_string());
            audit::write(connection, &vault, (&scope).into(), act, now)
        };
        self.write(Part::Api, resolve).await
    }
    async fn idempotency_begin(&self, scope: &Scope, claim: IdempotencyClaim, now: Timestamp) -> Result<Idempotency> {
        let (vault, owner) = (self.0.vault.clone(), scope.into());
        self.write(Part::Api, move |connection, _| idempotency::begin(connection, &vault, owner, &claim, now)).await
    }

    async fn idempotency_finish(
        &self,
        scope: &Scope,
        claim: IdempotencyClaim,
        answer: Option<StoredAnswer>,
        _now: Timestamp,
    ) -> Result<()> {
        let (vault, owner) = (self.0.vault.clone(), scope.into());
        self.write(Part::Api, move |connection, _| {
            idempotency::finish(connection, &vault, owner, &claim, answer.as_ref())
        })
        .await
    }

    async fn audit_list(&self, scope: &Scope, filter: AuditFilter, page: PageRequest) -> Result<Page<AuditEntry>> {
        self.audit_page(Part::Api, scope.org, filter, page).await
    }

    async fn activity(&self, scope: &Scope, after: Option<ActivityId>) -> Result<ActivityStream> {
        let (people, handoff) = (self.0.people.clone(), self.0.handoff.clone());
        Ok(activity::stream(activity::Desk { people, handoff, org: scope.org }, &self.0.hub, after))
    }
}

impl Sqlite {
    async fn deliveries(
        &self,
        part: Part,
        scope: &Scope,
        filter: DeliveryFilter,
        request: PageRequest,
    ) -> Result<Page<DeliveryView>> {
        let (org, handoff) = (scope.org, self.0.handoff.clone());
        self.read(part, org, move |connection| deliveries::list(connection, &*handoff, org, &filter, &request)).await
    }

    /// Changes deliveries of one organization.
    async fn act<T, F>(&self, scope: &Scope, now: Timestamp, act: F) -> Result<T>
    where
        F: FnOnce(&mut Moves<'_>) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let (vault, scope, handoff) = (self.0.vault.clone(), scope.clone(), self.0.handoff.clone());
        self.write(Part::DeadLetter, move |connection, effects| {
            act(&mut Moves { connection, effects, handoff: &*handoff, vault: &vault, scope: &scope, now })
        })
        .await
    }
}
