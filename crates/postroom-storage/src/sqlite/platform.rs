//! Organizations, and the installation's own upkeep.

use async_trait::async_trait;
use postroom_domain::{Email, MailId, OrganizationId, Timestamp};

use super::configuration::{endpoints, keys, organizations};
use super::connection::Connection;
use super::grants::Part;
use super::reads::{gauges, idempotency};
use super::writer::Effects;
use super::{Changed, Sqlite, audit, mails, retention, super_admins};
use crate::api::{Idempotency, IdempotencyClaim, Page, PageRequest, StoredAnswer};
use crate::audit::{AuditEntry, AuditFilter, ChainReport, Refusal, Refused};
use crate::engine::audit::{By, INSTALLATION, refused};
use crate::engine::idempotency::NOBODY;
use crate::engine::page;
use crate::engine::people::PLATFORM;
use crate::platform::{
    Gauge, NewOrganization, NewTenant, Organization, OrganizationChange, OutgoingMail, SuperAdminLink, SuperAdminView,
    Tenant,
};
use crate::{Platform, Result, Scope, SuperAdmin};

/// Reads that are no organization's share one's turns.
const EVERYBODY: i64 = 0;

#[async_trait]
impl Platform for Sqlite {
    async fn tenant_create(&self, by: SuperAdmin, new: NewTenant, now: Timestamp) -> Result<Tenant> {
        let (vault, plans) = (self.0.vault.clone(), self.0.plans);
        self.configure(Part::Platform, move |connection, _| {
            let (scope, organization) = organizations::create(connection, &vault, plans, &by, &new.organization, now)?;
            // The organization is the super admin's; what is made inside of it is the organization's own.
            connection.act_as(Part::Api);
            let api_key = keys::create(connection, &vault, &scope, &new.api_key, now)?;
            let endpoint = match &new.endpoint {
                Some(endpoint) => Some(endpoints::create(connection, &vault, &scope, endpoint, now)?),
                None => None,
            };
            let org = scope.org;
            Ok(Changed { org, wake: Vec::new(), value: Tenant { organization, scope, api_key, endpoint } })
        })
        .await
    }

    async fn organization_create(&self, by: SuperAdmin, new: NewOrganization, now: Timestamp) -> Result<Organization> {
        let (vault, plans) = (self.0.vault.clone(), self.0.plans);
        self.configure(Part::Platform, move |connection, _| {
            let (scope, organization) = organizations::create(connection, &vault, plans, &by, &new, now)?;
            Ok(Changed { org: scope.org, wake: Vec::new(), value: organization })
        })
        .await
    }

    async fn organization_list(&self, _by: SuperAdmin, request: PageRequest) -> Result<Page<Organization>> {
        let (plans, now) = (self.0.plans, self.now());
        self.read(Part::Platform, EVERYBODY, move |connection| {
            page::by_id(
                &request,
                |after, limit| organizations::list(connection, plans, after, limit, now),
                |row| row.id.to_bytes(),
            )
        })
        .await
    }

    async fn organization_get(&self, _by: SuperAdmin, id: OrganizationId) -> Result<Organization> {
        let (plans, now) = (self.0.plans, self.now());
        self.read(Part::Platform, EVERYBODY, move |connection| organizations::get(connection, plans, id, now)).await
    }

    async fn organization_update(
        &self,
        by: SuperAdmin,
        id: OrganizationId,
        change: OrganizationChange,
        now: Timestamp,
    ) -> Result<Organization> {
        let (vault, plans) = (self.0.vault.clone(), self.0.plans);
        self.configure(Part::Platform, move |connection, _| {
            let (org, organization) = organizations::update(connection, &vault, plans, &by, id, change, now)?;
            Ok(Changed { org, wake: Vec::new(), value: organization })
        })
        .await
    }

    async fn organization_of(&self, scope: &Scope) -> Result<Organization> {
        let (plans, scope, now) = (self.0.plans, scope.clone(), self.now());
        self.read(Part::Platform, scope.org, move |connection| organizations::of_scope(connection, plans, &scope, now))
            .await
    }

    async fn organization_rename(&self, scope: &Scope, name: String, now: Timestamp) -> Result<Organization> {
        let change = OrganizationChange { name: Some(name), ..OrganizationChange::default() };
        let by = SuperAdmin(scope.actor, scope.origin.clone());
        self.organization_update(by, scope.organization, change, now).await
    }

    async fn audit_list(&self, _by: SuperAdmin, filter: AuditFilter, page: PageRequest) -> Result<Page<AuditEntry>> {
        self.audit_page(Part::Platform, INSTALLATION, filter, page).await
    }

    async fn access_refused(&self, who: Refused, refusal: Refusal, now: Timestamp) -> Result<()> {
        let vault = self.0.vault.clone();
        let note = move |connection: &mut Connection, _: &mut Effects| {
            audit::write(connection, &vault, By::from(&who), refused(&refusal), now)
        };
        self.write(Part::Platform, note).await
    }

    async fn audit_verify(&self, _by: SuperAdmin, organization: Option<OrganizationId>) -> Result<Vec<ChainReport>> {
        self.audit_check(organization).await
    }

    async fn idempotency_begin(&self, _by: SuperAdmin, claim: IdempotencyClaim, now: Timestamp) -> Result<Idempotency> {
        let vault = self.0.vault.clone();
        self.write(Part::Platform, move |connection, _| idempotency::begin(connection, &vault, NOBODY, &claim, now))
            .await
    }

    async fn idempotency_finish(
        &self,
        _by: SuperAdmin,
        claim: IdempotencyClaim,
        answer: Option<StoredAnswer>,
        _now: Timestamp,
    ) -> Result<()> {
        let vault = self.0.vault.clone();
        self.write(Part::Platform, move |connection, _| {
            idempotency::finish(connection, &vault, NOBODY, &claim, answer.as_ref())
        })
        .await
    }

    async fn super_admin_create(&self, by: SuperAdmin, email: &Email, now: Timestamp) -> Result<SuperAdminLink> {
        let (vault, email) = (self.0.vault.clone(), email.clone());
        self.write(Part::Platform, move |connection, _| super_admins::create(connection, &vault, &by, &email, now))
            .await
    }

    async fn super_admin_list(&self, _by: SuperAdmin, request: PageRequest) -> Result<Page<SuperAdminView>> {
        self.read(Part::Platform, EVERYBODY, move |connection| {
            page::by_id(
                &request,
                |after, limit| super_admins::list(connection, after, limit),
                |view| view.id.to_bytes(),
            )
        })
        .await
    }

    async fn super_admin_set_active(
        &self,
        by: SuperAdmin,
        email: &Email,
        is_active: bool,
        now: Timestamp,
    ) -> Result<SuperAdminView> {
        let (vault, email) = (self.0.vault.clone(), email.clone());
        self.configure(Part::Platform, move |connection, _| {
            let value = super_admins::set_active(connection, &vault, &by, &email, is_active, now)?;
            Ok(Changed { org: PLATFORM, wake: Vec::new(), value })
        })
        .await
    }

    async fn mail_take(&self, now: Timestamp, limit: usize) -> Result<Vec<OutgoingMail>> {
        // Asked every few seconds, and mostly there is nothing: that does not wake the writer.
        if !self.0.readers.read(Part::Platform, move |connection| mails::is_due(connection, now)).await? {
            return Ok(Vec::new());
        }
        let vault = self.0.vault.clone();
        self.write(Part::Platform, move |connection, _| mails::take(connection, &vault, now, limit)).await
    }

    async fn mail_done(&self, id: MailId) -> Result<()> {
        self.write(Part::Platform, move |connection, _| mails::done(connection, id)).await
    }

    async fn mail_failed(&self, id: MailId, retry_at: Timestamp) -> Result<()> {
        self.write(Part::Platform, move |connection, _| mails::failed(connection, id, retry_at)).await
    }

    async fn health(&self) -> Result<()> {
        if self.0.writer.has_ended() {
            return Err(crate::Error::Unavailable("the writer has ended".into()));
        }
        if let Some(reason) = self.0.health.failure() {
            return Err(crate::Error::Unavailable(reason.into()));
        }
        self.0
            .readers
            .read(Part::Platform, |connection| {
                Ok(connection.query_row("select value from revision", [], |_| Ok(()))?)
            })
            .await
    }

    async fn gauges(&self) -> Result<Vec<Gauge>> {
        let (health, queue) = (&self.0.health, &self.0.writer.queue);
        let known = gauges::Known {
            waiting: health.waiting(),
            dead: health.dead(),
            events: queue.events(),
            settlements: queue.settlements(),
            wal_bytes: self.0.wal.bytes(),
        };
        self.0.readers.read(Part::Platform, move |connection| gauges::read(connection, known)).await
    }

    async fn upkeep(&self, now: Timestamp) -> Result<bool> {
        let (after, kept) = (*self.0.retention_after.lock(), self.0.retention);
        let step = move |connection: &mut Connection, effects: &mut Effects| {
            let step = retention::events(connection, effects, after, kept, now)?;
            let more = retention::rest(connection, now)?;
            connection.act_as(Part::Api);
            retention::secrets(connection, now)?;
            Ok(retention::Step { more: step.more || more, ..step })
        };
        let step = self.write(Part::Platform, step).await?;
        *self.0.retention_after.lock() = step.after;
        Ok(step.more)
    }

    async fn close(&self) -> Result<()> {
        self.0.writer.queue.close().await;
        self.0.hub.close();
        // The keeper may be in the middle of a checkpoint.
        let engine = self.0.clone();
        let stopped = tokio::task::spawn_blocking(move || engine.keeper.lock().stop()).await;
        stopped.map_err(|ended| crate::Error::Internal(ended.into()))?;
        self.0.people.close();
        self.0.readers.close();
        drop(self.0.lock.lock().take());
        Ok(())
    }
}
