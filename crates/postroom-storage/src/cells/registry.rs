//! The line between the router and the engines: what it asks of the engine that holds the registry, and of a cell.
//!
//! An engine knows nothing of cells but their rows. What is decided about them (where a call goes, when a cell is opened
//! and when it sleeps) is decided above this line, once for all engines.

use std::sync::Arc;

use async_trait::async_trait;
use postroom_domain::organization::Plan;
use postroom_domain::{OrganizationId, TenantId, Timestamp};
use uuid::Uuid;

use crate::api::ApiKeyView;
use crate::platform::{NewTenant, Organization};
use crate::{Handoff, Result, Scope, Storage, SuperAdmin};

/// What the router needs of the engine that holds the registry.
#[async_trait]
pub(crate) trait Registry: Send + Sync {
    /// The whole registry, each row with its organization; `None` when its revision is still the one `seen`. Asked
    /// several times a second: that it is unchanged must cost next to nothing.
    async fn tenants(&self, seen: Option<i64>) -> Result<Option<Tenants>>;

    /// How many cells can be open at once without taking each other's connections.
    fn awake_at_most(&self) -> usize {
        usize::MAX
    }

    /// First step of making one: the organization and its row, not initialized, in one transaction. For a slug whose row
    /// is not initialized, that row again, with the organization as asked for now: nobody holds a key of it yet. Counts
    /// `begun` up, so that of two that make the same one only the last can finish.
    ///
    /// # Errors
    /// [`Taken`](crate::Error::Taken) when the slug is an organization's that is complete;
    /// [`Conflict`](crate::Error::Conflict) when this installation cannot make databases, before anything is made.
    async fn tenant_begin(&self, by: &SuperAdmin, new: &NewTenant, now: Timestamp) -> Result<TenantRow>;

    /// Second step: the database is there, and has the newest migrations. Doing it again changes nothing.
    async fn tenant_build(&self, tenant: &TenantRow) -> Result<()>;

    /// Last step: the API key and `initialize`, in one transaction.
    ///
    /// # Errors
    /// [`Taken`](crate::Error::Taken) when another call has finished it, or has begun it again since (`begun` has moved on).
    async fn tenant_finish(
        &self,
        tenant: &TenantRow,
        scope: &Scope,
        new: &NewTenant,
        now: Timestamp,
    ) -> Result<(Organization, ApiKeyView)>;

    /// An organization as its cell has to have it.
    async fn organization_copy(&self, org: i64) -> Result<OrganizationCopy>;

    /// Opens a cell that is there. One that is missing, damaged, in use by another server, another organization's, or
    /// that may not be migrated here is [`Unavailable`](crate::Error::Unavailable), with a source that says what to do.
    async fn cell_open(&self, tenant: &TenantRow, handoff: Arc<dyn Handoff>) -> Result<Cell>;

    /// Before a cell is opened: `awake` is true, `wakes` one more; or an engine for many nodes does that as it opens it.
    async fn cell_wake(&self, cell: u32) -> Result<()>;

    /// After a cell with nothing waiting was closed: `awake` is false and `slept_at` is now, unless `wakes` has moved on
    /// from what was seen, or another node lives in it.
    async fn cell_sleep(&self, cell: u32, wakes: i64, now: Timestamp) -> Result<()>;

    /// This process works on nothing of an organization any more that is in its shared database, as it does not on what is
    /// in one of its own: whoever moves it hears of that. Until then, which is false, it is asked again.
    async fn let_go(&self, _moving: &Moving) -> Result<bool> {
        Ok(true)
    }

    /// Keeps how many events an organization had accepted this month where it can be shown while its cell sleeps.
    async fn usage_put(&self, org: i64, count: u64, now: Timestamp) -> Result<()>;
}

/// What a cell can do beside the five traits.
#[async_trait]
pub(crate) trait CellUpkeep: Send + Sync {
    /// Makes or replaces the copy of the cell's organization, unless the one there is newer, and the source that its
    /// Mandrill secret implies. What the cell decides itself (its endpoint numbers) is left. Configuration in memory
    /// shows it when this returns.
    ///
    /// # Errors
    /// [`Internal`](crate::Error::Internal) when it is another organization's cell.
    async fn organization_put(&self, copy: &OrganizationCopy) -> Result<()>;

    /// The organization is being moved: no delivery begins any more.
    fn let_go(&self, _org: i64) {}

    /// Whether nothing is under way and nothing waits: no delivery in memory or in storage, nothing still to be written.
    async fn is_idle(&self) -> Result<bool>;
}

/// An open cell.
pub(crate) struct Cell {
    pub(crate) storage: Storage,
    pub(crate) upkeep: Arc<dyn CellUpkeep>,
}

/// The registry as it was at one moment.
#[derive(Default)]
pub(crate) struct Tenants {
    /// Another one after every change of what [`TenantRow`] shows.
    pub(crate) revision: i64,
    pub(crate) rows: Vec<TenantRow>,
    /// Organizations that are being moved beside this process.
    pub(crate) moving: Vec<Moving>,
}

/// An organization that is being moved, from where it is.
#[derive(Debug, Clone)]
pub(crate) struct Moving {
    pub(crate) org: i64,
    pub(crate) organization: OrganizationId,
    pub(crate) slug: Arc<str>,
    /// Tells this move from others.
    pub(crate) id: Uuid,
}

/// A row of the registry, with what the router needs of its organization.
#[derive(Debug, Clone)]
pub(crate) struct TenantRow {
    /// The cell's number, 1 and up.
    pub(crate) cell: u32,
    pub(crate) id: TenantId,
    /// The organization's number in the shared database, and in its cell.
    pub(crate) org: i64,
    pub(crate) organization: OrganizationId,
    pub(crate) slug: Arc<str>,
    /// When the organization was last changed.
    pub(crate) updated_at: Timestamp,
    /// How often it was begun to make it.
    pub(crate) begun: i64,
    /// Whether it is complete.
    pub(crate) initialize: bool,
    /// How it is reached, without user and password. Embedded: the directory below the data directory.
    pub(crate) url: String,
    /// The name of the database.
    pub(crate) database: String,
    /// Migrations it had when it was last looked at.
    pub(crate) migration_version: i64,
    /// Whether something may wait in it.
    pub(crate) awake: bool,
    /// How often it was woken.
    pub(crate) wakes: i64,
    pub(crate) slept_at: Option<Timestamp>,
}

impl TenantRow {
    /// The way in for whoever makes it.
    pub(crate) fn scope(&self, by: &SuperAdmin) -> Scope {
        Scope {
            organization: self.organization,
            org: self.org,
            slug: self.slug.clone(),
            actor: by.0,
            origin: by.1.clone(),
            is_dedicated: true,
        }
    }
}

/// Everything an organization's cell has to know of it. Sealed values are as they are: the same keys open them.
#[derive(Debug, Clone)]
pub(crate) struct OrganizationCopy {
    pub(crate) org: i64,
    pub(crate) id: OrganizationId,
    pub(crate) slug: String,
    pub(crate) name: String,
    pub(crate) plan: Plan,
    pub(crate) webhook_limit: Option<u64>,
    pub(crate) is_active: bool,
    pub(crate) mandrill_secret: Option<Vec<u8>>,
    pub(crate) mandrill_fingerprint: Option<Vec<u8>>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}
