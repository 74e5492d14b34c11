//! Organizations, and the installation's own upkeep.

use async_trait::async_trait;
use postroom_domain::{Email, MailId, OrganizationId, Timestamp};

use super::configuration::idempotency;
use super::{Mode, Postgres, audit};
use crate::api::{Idempotency, IdempotencyClaim, Page, PageRequest, StoredAnswer};
use crate::audit::{AuditEntry, AuditFilter, ChainReport, Refusal, Refused};
use crate::engine::audit::{By, refused};
use crate::engine::idempotency::NOBODY;
use crate::platform::{
    Gauge, NewOrganization, NewTenant, Organization, OrganizationChange, OutgoingMail, SuperAdminLink, SuperAdminView,
    Tenant,
};
use crate::{Error, Platform, Result, Scope, SuperAdmin};

#[async_trait]
impl Platform for Postgres {
    async fn tenant_create(&self, by: SuperAdmin, new: NewTenant, now: Timestamp) -> Result<Tenant> {
        self.make_tenant(by, new, now).await
    }

    async fn organization_create(&self, by: SuperAdmin, new: NewOrganization, now: Timestamp) -> Result<Organization> {
        self.make_organization(by, new, now).await
    }

    async fn organization_list(&self, _by: SuperAdmin, page: PageRequest) -> Result<Page<Organization>> {
        self.organizations(page).await
    }

    async fn organization_get(&self, _by: SuperAdmin, id: OrganizationId) -> Result<Organization> {
        self.organization(id).await
    }

    async fn organization_update(
        &self,
        by: SuperAdmin,
        id: OrganizationId,
        change: OrganizationChange,
        now: Timestamp,
    ) -> Result<Organization> {
        self.change_organization(&by, id, change, now).await
    }

    async fn organization_of(&self, scope: &Scope) -> Result<Organization> {
        self.own_organization(scope).await
    }

    async fn organization_rename(&self, scope: &Scope, name: String, now: Timestamp) -> Result<Organization> {
        self.rename_organization(scope, name, now).await
    }

    async fn audit_list(&self, _by: SuperAdmin, filter: AuditFilter, page: PageRequest) -> Result<Page<AuditEntry>> {
        self.audit_list_of_all(filter, page).await
    }

    async fn access_refused(&self, who: Refused, refusal: Refusal, now: Timestamp) -> Result<()> {
        let transaction = self.0.pools.platform.begin_unscoped().await?;
        let noted = audit::write(&transaction, &self.0.vault, By::from(&who), refused(&refusal), now).await;
        transaction.finish(noted).await
    }

    async fn audit_verify(&self, _by: SuperAdmin, organization: Option<OrganizationId>) -> Result<Vec<ChainReport>> {
        self.audit_check(organization).await
    }

    async fn idempotency_begin(&self, _by: SuperAdmin, claim: IdempotencyClaim, now: Timestamp) -> Result<Idempotency> {
        let desk = self.desk(NOBODY.org).await?;
        let begun = idempotency::begin(&desk.transaction, &self.0.vault, NOBODY, &claim, now).await;
        desk.end(begun).await
    }

    async fn idempotency_finish(
        &self,
        _by: SuperAdmin,
        claim: IdempotencyClaim,
        answer: Option<StoredAnswer>,
        _now: Timestamp,
    ) -> Result<()> {
        let desk = self.desk(NOBODY.org).await?;
        let finished = idempotency::finish(&desk.transaction, &self.0.vault, NOBODY, &claim, answer.as_ref()).await;
        desk.end(finished).await
    }

    async fn super_admin_create(&self, by: SuperAdmin, email: &Email, now: Timestamp) -> Result<SuperAdminLink> {
        self.make_super_admin(&by, email, now).await
    }

    async fn super_admin_list(&self, _by: SuperAdmin, page: PageRequest) -> Result<Page<SuperAdminView>> {
        self.super_admins(page).await
    }

    async fn super_admin_set_active(
        &self,
        by: SuperAdmin,
        email: &Email,
        is_active: bool,
        now: Timestamp,
    ) -> Result<SuperAdminView> {
        self.switch_super_admin(&by, email, is_active, now).await
    }

    async fn mail_take(&self, now: Timestamp, limit: usize) -> Result<Vec<OutgoingMail>> {
        self.take_mails(now, limit).await
    }

    async fn mail_done(&self, id: MailId) -> Result<()> {
        self.forget_mail(id).await
    }

    async fn mail_failed(&self, id: MailId, retry_at: Timestamp) -> Result<()> {
        self.put_mail_off(id, retry_at).await
    }

    async fn health(&self) -> Result<()> {
        self.0.probe.ask().await?;
        if self.0.options.mode == Mode::Serve && self.0.node.identity().is_none() {
            return Err(Error::Unavailable("this node has lost touch with the database".into()));
        }
        Ok(())
    }

    async fn gauges(&self) -> Result<Vec<Gauge>> {
        self.figures().await
    }

    async fn upkeep(&self, now: Timestamp) -> Result<bool> {
        self.0.upkeep.step(now).await
    }

    async fn close(&self) -> Result<()> {
        self.0.lanes.close().await;
        let noted = self.0.directories.callers.note_uses().await;
        let left = self.0.node.close().await;
        self.0.stop.cancel();
        self.0.hub.close();
        for (_, pool) in self.0.pools.all() {
            pool.close();
        }
        self.0.probe.close().await;
        left.and(noted)
    }
}
