//! Organizations are the shared database's; figures and upkeep are everybody's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::iter;
use postroom_domain::{Email, MailId, OrganizationId, Timestamp};
use tracing::{debug, warn};

use crate::api::{Idempotency, IdempotencyClaim, Page, PageRequest, StoredAnswer};
use crate::audit::{AuditEntry, AuditFilter, ChainReport, Refusal, Refused};
use crate::cells::place::{Place, Standing};
use crate::cells::{AT_ONCE, Router};
use crate::platform::{
    Gauge, Isolation, NewOrganization, NewTenant, Organization, OrganizationChange, OutgoingMail, SuperAdminLink,
    SuperAdminView, Tenant,
};
use crate::{Platform, Result, Scope, SuperAdmin};

/// How long a figure waits for one cell.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many open cells are asked at the same time.
const ASKED: usize = 16;

/// How cells stand, as figures name it.
const STATES: [&str; 4] = [ASLEEP, OPENING, OPEN, UNAVAILABLE];
const ASLEEP: &str = "asleep";
const OPENING: &str = "opening";
const OPEN: &str = "open";
const UNAVAILABLE: &str = "unavailable";

#[async_trait]
impl Platform for Router {
    async fn tenant_create(&self, by: SuperAdmin, new: NewTenant, now: Timestamp) -> Result<Tenant> {
        match new.isolation {
            Isolation::Shared => self.shared.platform.tenant_create(by, new, now).await,
            Isolation::Dedicated => self.make(by, new, now).await,
        }
    }

    async fn organization_create(&self, by: SuperAdmin, new: NewOrganization, now: Timestamp) -> Result<Organization> {
        self.shared.platform.organization_create(by, new, now).await
    }

    async fn organization_list(&self, by: SuperAdmin, page: PageRequest) -> Result<Page<Organization>> {
        let mut page = self.shared.platform.organization_list(by, page).await?;
        iter(&mut page.data).for_each_concurrent(ASKED, |organization| self.counted(organization)).await;
        Ok(page)
    }

    async fn organization_get(&self, by: SuperAdmin, id: OrganizationId) -> Result<Organization> {
        let mut organization = self.shared.platform.organization_get(by, id).await?;
        self.counted(&mut organization).await;
        Ok(organization)
    }

    async fn organization_update(
        &self,
        by: SuperAdmin,
        id: OrganizationId,
        change: OrganizationChange,
        now: Timestamp,
    ) -> Result<Organization> {
        self.stays(id)?;
        let organization = self.shared.platform.organization_update(by, id, change, now).await?;
        self.changed(organization).await
    }

    async fn organization_of(&self, scope: &Scope) -> Result<Organization> {
        let mut organization = self.shared.platform.organization_of(scope).await?;
        self.counted(&mut organization).await;
        Ok(organization)
    }

    async fn organization_rename(&self, scope: &Scope, name: String, now: Timestamp) -> Result<Organization> {
        self.stays(scope.organization)?;
        let organization = self.shared.platform.organization_rename(scope, name, now).await?;
        self.changed(organization).await
    }

    async fn audit_list(&self, by: SuperAdmin, filter: AuditFilter, page: PageRequest) -> Result<Page<AuditEntry>> {
        self.shared.platform.audit_list(by, filter, page).await
    }

    async fn access_refused(&self, who: Refused, refusal: Refusal, now: Timestamp) -> Result<()> {
        self.shared.platform.access_refused(who, refusal, now).await
    }

    async fn audit_verify(&self, by: SuperAdmin, organization: Option<OrganizationId>) -> Result<Vec<ChainReport>> {
        let mut reports = self.shared.platform.audit_verify(by.clone(), organization).await?;
        let (map, by) = (self.cells.map(), &by);
        let is_asked = |id| organization.is_none_or(|only| only == id);
        let places = map.all().filter(|place| place.row().initialize && is_asked(place.organization));
        // More would wait for their turn to be opened, and could not be told from those that do not open.
        let checked = ask(places, AT_ONCE, |place| async move {
            let checked = async { place.enter(&self.cells).await?.platform.audit_verify(by.clone(), None).await };
            match checked.await {
                Ok(cell) => cell.into_iter().map(|report| ChainReport { dedicated: true, ..report }).collect(),
                // The others are looked at all the same.
                Err(error) => {
                    let id = place.organization;
                    warn!(organization.id = %id, error = %error.chain(), "the audit log in the database of {id} cannot be checked");
                    vec![ChainReport::unread(id)]
                }
            }
        });
        reports.extend(checked.await.into_iter().flatten());
        Ok(reports)
    }

    async fn idempotency_begin(&self, by: SuperAdmin, claim: IdempotencyClaim, now: Timestamp) -> Result<Idempotency> {
        self.shared.platform.idempotency_begin(by, claim, now).await
    }

    async fn idempotency_finish(
        &self,
        by: SuperAdmin,
        claim: IdempotencyClaim,
        answer: Option<StoredAnswer>,
        now: Timestamp,
    ) -> Result<()> {
        self.shared.platform.idempotency_finish(by, claim, answer, now).await
    }

    async fn super_admin_create(&self, by: SuperAdmin, email: &Email, now: Timestamp) -> Result<SuperAdminLink> {
        self.shared.platform.super_admin_create(by, email, now).await
    }

    async fn super_admin_list(&self, by: SuperAdmin, page: PageRequest) -> Result<Page<SuperAdminView>> {
        self.shared.platform.super_admin_list(by, page).await
    }

    async fn super_admin_set_active(
        &self,
        by: SuperAdmin,
        email: &Email,
        is_active: bool,
        now: Timestamp,
    ) -> Result<SuperAdminView> {
        self.shared.platform.super_admin_set_active(by, email, is_active, now).await
    }

    async fn mail_take(&self, now: Timestamp, limit: usize) -> Result<Vec<OutgoingMail>> {
        self.shared.platform.mail_take(now, limit).await
    }

    async fn mail_done(&self, id: MailId) -> Result<()> {
        self.shared.platform.mail_done(id).await
    }

    async fn mail_failed(&self, id: MailId, retry_at: Timestamp) -> Result<()> {
        self.shared.platform.mail_failed(id, retry_at).await
    }

    async fn health(&self) -> Result<()> {
        self.shared.platform.health().await
    }

    async fn gauges(&self) -> Result<Vec<Gauge>> {
        let mut sums = Sums::default();
        sums.add(self.shared.platform.gauges().await?);
        let map = self.cells.map();
        if map.is_empty() {
            return Ok(sums.0);
        }
        // A figure that was shown once stays until it is set again.
        let mut standing = BTreeMap::from(STATES.map(|state| (state, 0_u32)));
        let found = ask(map.all(), ASKED, |place| async move { figures(&place).await }).await;
        for ((now, gauges), place) in found.into_iter().zip(map.all()) {
            sums.add(gauges);
            *standing.entry(now).or_default() += 1;
            let is_unavailable = now == UNAVAILABLE;
            if place.was_unavailable.fetch_or(is_unavailable, Ordering::Relaxed) || is_unavailable {
                let labels = vec![("organization", place.organization.to_string())];
                let value = f64::from(u8::from(is_unavailable));
                sums.add([Gauge { name: "postroom_tenant_unavailable", labels, value }]);
            }
        }
        sums.add(standing.into_iter().map(|(state, count)| {
            let labels = vec![("state", state.to_owned())];
            Gauge { name: "postroom_tenant_databases", labels, value: f64::from(count) }
        }));
        Ok(sums.0)
    }

    async fn upkeep(&self, now: Timestamp) -> Result<bool> {
        let more = self.shared.platform.upkeep(now).await?;
        let map = self.cells.map();
        let more_of_cells = ask(map.all(), ASKED, |place| async move {
            let Some(open) = place.opened() else { return false };
            self.cells.count(&place, &open).await;
            open.platform.upkeep(now).await.unwrap_or_else(|error| {
                let organization = place.organization;
                warn!(organization.id = %organization, error = %error.chain(), "what is old could not be deleted from the database of {organization}; it is tried again");
                false
            })
        });
        Ok(more_of_cells.await.contains(&true) | more)
    }

    async fn close(&self) -> Result<()> {
        let cells = self.cells.end().await;
        self.shared.platform.close().await?;
        cells
    }
}

impl Router {
    /// The figure of this month, from its cell if that is awake. What the shared database shows else is of when the cell
    /// was last awake.
    async fn counted(&self, organization: &mut Organization) {
        let Some(open) = self.cells.of(organization.id).and_then(|place| place.opened()) else { return };
        let asked = open.platform.organization_get(SuperAdmin::by_operator(), organization.id);
        if let Ok(Ok(found)) = tokio::time::timeout(PATIENCE, asked).await {
            organization.webhook_count = found.webhook_count;
        }
    }

    /// After a change of an organization: its cell knows of it, too, or will when it can be reached.
    async fn changed(&self, mut organization: Organization) -> Result<Organization> {
        let Some(place) = self.cells.of(organization.id) else { return Ok(organization) };
        if let Err(error) = self.cells.refresh().await {
            debug!(error = %error.chain(), "the registry could not be read after a change, it will be");
        }
        if let Some(open) = place.opened() {
            if let Err(error) = self.cells.copy_organization(&open, place.org).await {
                let id = organization.id;
                warn!(organization.id = %id, error = %error.chain(), "the database of {id} could not be told what was changed of it, it will be");
            }
            self.counted(&mut organization).await;
        }
        Ok(organization)
    }
}

/// Asks cells, so many at the same time: one that is slow does not hold up the others. The answers are in their order, as
/// if they had been asked one after the other.
async fn ask<'a, T, F: Future<Output = T>>(
    places: impl Iterator<Item = &'a Arc<Place>>,
    at_once: usize,
    asked: impl Fn(Arc<Place>) -> F,
) -> Vec<T> {
    let asked: Vec<_> = places.cloned().map(asked).enumerate().collect();
    let asked = iter(asked).map(async |(at, asked)| (at, asked.await));
    let mut answers: Vec<_> = asked.buffer_unordered(at_once).collect().await;
    answers.sort_unstable_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// How one cell stands, and its figures.
async fn figures(place: &Place) -> (&'static str, Vec<Gauge>) {
    let none = |standing| (standing, Vec::new());
    match place.standing() {
        Standing::Asleep => return none(ASLEEP),
        Standing::Moving => return none(OPENING),
        Standing::Unavailable => return none(UNAVAILABLE),
        Standing::Open => {}
    }
    let Some(open) = place.opened() else { return none(ASLEEP) };
    let asked = async {
        open.platform.health().await?;
        open.platform.gauges().await
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(gauges)) => (OPEN, gauges),
        _ => none(UNAVAILABLE),
    }
}

/// Figures of the same name and labels are one.
#[derive(Default)]
struct Sums(Vec<Gauge>);

impl Sums {
    fn add(&mut self, gauges: impl IntoIterator<Item = Gauge>) {
        for gauge in gauges {
            let known = self.0.iter_mut().find(|known| (known.name, &known.labels) == (gauge.name, &gauge.labels));
            match known {
                Some(known) => known.value += gauge.value,
                None => self.0.push(gauge),
            }
        }
    }
}
