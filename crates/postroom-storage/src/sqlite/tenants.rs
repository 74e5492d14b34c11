//! The registry of organizations that have a database of their own, and those databases: each is a directory below the
//! data directory, `tenants/ten_...`, that this engine opens like any other.

mod cell;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use postroom_domain::keyring::Keyring;
use postroom_domain::organization::PlanLimits;
use postroom_domain::{Clock, OrganizationId, TenantId, Timestamp};
use rusqlite::Row;

use super::configuration::{keys, organizations};
use super::connection::Connection;
use super::convert::{moment, moment_or_none};
use super::grants::Part;
use super::open::{self, DATABASE_FILE, OpenError};
use super::{Changed, Footprint, Mode, Options, Sqlite, migrate, open_files, rows, usage};
use crate::api::ApiKeyView;
use crate::cells::registry::{Cell, OrganizationCopy, Registry, TenantRow, Tenants};
use crate::engine::vault::Vault;
use crate::error::Unique;
use crate::platform::{NewOrganization, NewTenant, Organization, OrganizationChange};
use crate::{Error, Handoff, Result, Scope, SuperAdmin};

/// Below the data directory.
const DIRECTORY: &str = "tenants";

/// How long a server waits for a command that has a cell open for a moment.
const LOCKED_WAIT: Duration = Duration::from_millis(200);
const LOCKED_TRIES: usize = 10;

/// The one row.
const REVISION: &str = "select tenants from revision";

/// The one row.
const MOVE_REVISION: &str = "update revision set tenants = tenants + 1";

/// The columns of [`TenantRow`].
macro_rules! select_tenant {
    ($where:literal) => {
        concat!(
            "select cell, tenants.id, tenants.org_id, organization.id, organization.slug, organization.updated_at, \
             begun, initialize, url, database, migration_version, awake, wakes, slept_at \
             from tenants join organization on organization.org = tenants.org_id ",
            $where
        )
    };
}

/// All, by primary keys.
const ALL: &str = select_tenant!("order by cell");

/// By primary key.
const BY_CELL: &str = select_tenant!("where cell = ?1");

/// By the unique index on slug.
const UNFINISHED: &str = select_tenant!("where organization.slug = ?1 and initialize = 0");

/// The unique indexes decide.
const INSERT: &str = "insert into tenants (id, org_id, name, url, database, begun) values (?1, ?2, ?3, ?4, ?5, 1)";

/// By primary key.
const BEGIN_AGAIN: &str = "update tenants set begun = begun + 1 where cell = ?1";

/// By primary key.
const FINISH: &str = "update tenants set initialize = 1 where cell = ?1 and begun = ?2 and initialize = 0";

/// By primary key.
const MIGRATED: &str = "update tenants set migration_version = ?2 where cell = ?1";

/// By primary key.
const WAKE: &str = "update tenants set awake = 1, wakes = wakes + 1 where cell = ?1";

/// By primary key.
const SLEEP: &str = "update tenants set awake = 0, slept_at = ?3 where cell = ?1 and wakes = ?2";

/// Says that what is known of tenants or of their organizations has changed.
pub(super) fn changed(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached(MOVE_REVISION)?.execute([]).map(drop)
}

/// The whole registry, unless its revision is the one seen before.
pub(super) fn read(connection: &Connection, seen: Option<i64>) -> rusqlite::Result<Option<Tenants>> {
    let revision = connection.prepare_cached(REVISION)?.query_row([], |row| row.get(0))?;
    if seen == Some(revision) {
        return Ok(None);
    }
    Ok(Some(Tenants { revision, rows: rows::all(connection, ALL, &[], TenantRow::read)?, moving: Vec::new() }))
}

impl TenantRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            cell: row.get(0)?,
            id: TenantId::from_bytes(row.get(1)?),
            org: row.get(2)?,
            organization: OrganizationId::from_bytes(row.get(3)?),
            slug: row.get::<_, String>(4)?.into(),
            updated_at: moment(row, 5)?,
            begun: row.get(6)?,
            initialize: row.get(7)?,
            url: row.get(8)?,
            database: row.get(9)?,
            migration_version: row.get(10)?,
            awake: row.get(11)?,
            wakes: row.get(12)?,
            slept_at: moment_or_none(row, 13)?,
        })
    }
}

/// The engine that holds the registry, and what it opens cells with.
pub(super) struct Embedded {
    pub(super) engine: Sqlite,
    pub(super) template: Template,
}

/// The options of every cell, but for its directory and its hand-off.
pub(super) struct Template {
    data_dir: PathBuf,
    keyring: Keyring,
    clock: Clock,
    dedupe_window: Duration,
    retention: Duration,
    plans: PlanLimits,
    default_attempt_timeout: Duration,
    mode: Mode,
}

impl Template {
    pub(super) fn of(options: &Options) -> Self {
        Self {
            data_dir: options.data_dir.clone(),
            keyring: options.keyring.clone(),
            clock: options.clock.clone(),
            dedupe_window: options.dedupe_window,
            retention: options.retention,
            plans: options.plans,
            default_attempt_timeout: options.default_attempt_timeout,
            mode: options.mode,
        }
    }

    fn directory(&self, tenant: &TenantRow) -> PathBuf {
        self.data_dir.join(&tenant.url)
    }

    fn options(&self, tenant: &TenantRow, handoff: Arc<dyn Handoff>) -> Options {
        Options {
            data_dir: self.directory(tenant),
            keyring: self.keyring.clone(),
            clock: self.clock.clone(),
            handoff,
            dedupe_window: self.dedupe_window,
            retention: self.retention,
            plans: self.plans,
            default_attempt_timeout: self.default_attempt_timeout,
            mode: self.mode,
        }
    }
}

#[async_trait]
impl Registry for Embedded {
    async fn tenants(&self, seen: Option<i64>) -> Result<Option<Tenants>> {
        let read = move |connection: &Connection| Ok(read(connection, seen)?);
        self.engine.0.readers.read(Part::Platform, read).await
    }

    async fn tenant_begin(&self, by: &SuperAdmin, new: &NewTenant, now: Timestamp) -> Result<TenantRow> {
        let (vault, by, new) = (self.engine.0.vault.clone(), by.clone(), new.organization.clone());
        let plans = self.engine.0.plans;
        self.engine
            .configure(Part::Platform, move |connection, _| {
                let (org, cell) = begin(connection, &vault, plans, &by, new, now)?;
                let value = rows::expect("tenant", connection, BY_CELL, &[&cell], TenantRow::read)?;
                Ok(Changed { org, wake: Vec::new(), value })
            })
            .await
    }

    async fn tenant_build(&self, tenant: &TenantRow) -> Result<()> {
        let directory = self.template.directory(tenant);
        off_thread(move || build(&directory)).await??;
        self.migrated(tenant).await
    }

    async fn tenant_finish(
        &self,
        tenant: &TenantRow,
        scope: &Scope,
        new: &NewTenant,
        now: Timestamp,
    ) -> Result<(Organization, ApiKeyView)> {
        let (cell, begun, scope) = (tenant.cell, tenant.begun, scope.clone());
        let (vault, plans, api_key) = (self.engine.0.vault.clone(), self.engine.0.plans, new.api_key.clone());
        self.engine
            .configure(Part::Platform, move |connection, _| {
                if connection.prepare_cached(FINISH)?.execute((cell, begun))? == 0 {
                    return Err(Error::Taken { field: Unique::OrganizationSlug });
                }
                changed(connection)?;
                let organization = organizations::get(connection, plans, scope.organization, now)?;
                connection.act_as(Part::Api);
                let api_key = keys::create(connection, &vault, &scope, &api_key, now)?;
                Ok(Changed { org: scope.org, wake: Vec::new(), value: (organization, api_key) })
            })
            .await
    }

    async fn organization_copy(&self, org: i64) -> Result<OrganizationCopy> {
        self.engine.0.readers.borrow(move |connection| organizations::copy(connection, org)).await
    }

    async fn cell_open(&self, tenant: &TenantRow, handoff: Arc<dyn Handoff>) -> Result<Cell> {
        let (options, is_complete) = (self.template.options(tenant, handoff), tenant.initialize);
        let opened = off_thread(move || open_there(&options, is_complete)).await?;
        let cell = opened.map_err(|error| Error::Unavailable(error.into()))?;
        if is_complete && !cell.holds(tenant).await? {
            cell.storage().platform.close().await?;
            let file = self.template.directory(tenant).join(DATABASE_FILE);
            let organization = tenant.organization;
            let text = format!("{} is not the database of {organization}; restore it from a backup", file.display());
            return Err(Error::Unavailable(text.into()));
        }
        self.migrated(tenant).await?;
        Ok(Cell { storage: cell.storage(), upkeep: Arc::new(cell) })
    }

    async fn cell_wake(&self, cell: u32) -> Result<()> {
        self.engine
            .write(Part::Platform, move |connection, _| {
                connection.prepare_cached(WAKE)?.execute([cell])?;
                Ok(changed(connection)?)
            })
            .await
    }

    async fn cell_sleep(&self, cell: u32, wakes: i64, now: Timestamp) -> Result<()> {
        if self.template.mode == Mode::Beside {
            // A server may have it open.
            return Ok(());
        }
        self.engine
            .write(Part::Platform, move |connection, _| {
                connection.prepare_cached(SLEEP)?.execute((cell, wakes, now.as_millis()))?;
                Ok(changed(connection)?)
            })
            .await
    }

    async fn usage_put(&self, org: i64, count: u64, now: Timestamp) -> Result<()> {
        let month = now.month().0.as_millis();
        self.engine.write(Part::Platform, move |connection, _| Ok(usage::store(connection, org, month, count)?)).await
    }
}

/// The organization and its row; or those that are there and not complete, as they are asked for now.
fn begin(
    connection: &Connection,
    vault: &Vault,
    plans: PlanLimits,
    by: &SuperAdmin,
    new: NewOrganization,
    now: Timestamp,
) -> Result<(i64, u32)> {
    let unfinished = rows::one(connection, UNFINISHED, &[&new.slug], TenantRow::read)?;
    if let Some(tenant) = &unfinished {
        let change = OrganizationChange {
            name: Some(new.name),
            plan: Some(new.plan),
            webhook_limit: Some(new.webhook_limit),
            is_active: Some(new.is_active),
            mandrill_webhook_secret: Some(new.mandrill_webhook_secret),
            slug: None,
        };
        organizations::update(connection, vault, plans, by, tenant.organization, change, now)?;
        connection.prepare_cached(BEGIN_AGAIN)?.execute([tenant.cell])?;
        return Ok((tenant.org, tenant.cell));
    }
    let (Scope { org, .. }, _) = organizations::create(connection, vault, plans, by, &new, now)?;
    let id = TenantId::new(now);
    let url = format!("{DIRECTORY}/{id}");
    connection.prepare_cached(INSERT)?.execute((id.to_bytes(), org, new.name, url, DATABASE_FILE))?;
    let cell = u32::try_from(connection.last_insert_rowid()).map_err(|error| Error::Internal(error.into()))?;
    changed(connection)?;
    Ok((org, cell))
}

impl Embedded {
    /// Notes that a cell has all migrations.
    async fn migrated(&self, tenant: &TenantRow) -> Result<()> {
        let (cell, newest) = (tenant.cell, i64::try_from(migrate::NEWEST).unwrap_or(i64::MAX));
        if tenant.migration_version == newest {
            return Ok(());
        }
        self.engine
            .write(Part::Platform, move |connection, _| {
                connection.prepare_cached(MIGRATED)?.execute((cell, newest))?;
                Ok(changed(connection)?)
            })
            .await
    }
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|ended| Error::Internal(ended.into()))
}

/// Makes the directory and the database in it, on the disk, if that is not there.
fn build(directory: &Path) -> Result<()> {
    let unavailable = |error: OpenError| Error::Unavailable(error.into());
    open::prepare_directory(directory).map_err(unavailable)?;
    let is_there = |connection: rusqlite::Connection| Ok(migrate::version(&connection)? == migrate::NEWEST);
    // One that is there may be open in this process, which has its lock then.
    if open::connect_existing(directory).and_then(|found| found.map_or(Ok(false), is_there)).map_err(unavailable)? {
        return Ok(());
    }
    migrate::up(directory).map_err(unavailable)?;
    // A row that says it is complete must not outlive the file in a power cut.
    for made in directory.ancestors().take(3) {
        File::open(made)
            .and_then(|made| made.sync_all())
            .map_err(|source| unavailable(OpenError::Directory { path: made.to_owned(), source }))?;
    }
    Ok(())
}

/// Opens a cell. One that was complete is not made anew when its file has gone.
fn open_there(options: &Options, is_complete: bool) -> Result<Sqlite, OpenError> {
    let file = options.data_dir.join(DATABASE_FILE);
    if is_complete && !file.exists() {
        return Err(OpenError::Missing(file));
    }
    let mut tries = 0;
    loop {
        match open_files(options.clone(), Footprint::Small) {
            Err(OpenError::Locked(_)) if tries < LOCKED_TRIES => tries += 1,
            opened => return opened,
        }
        std::thread::sleep(LOCKED_WAIT);
    }
}
