//! Databases of single organizations: the registry that says where they are, and how one is made, opened and left.
//!
//! A database of one organization is a whole database of this engine, with the same tables and the same roles, in which
//! only that organization's rows are. What goes where is decided by the router; see [`crate::cells`].

mod making;
mod place;
mod registry;
mod upkeep;

use std::sync::Arc;

use postroom_domain::Secret;

pub(super) use self::making::{create, may_create};
pub(super) use self::place::{Place, quoted};
use super::convert::{get, uuid};
use super::open::{self, OpenError, Target};
use super::pool::{Pool, bind};
use super::{Mode, Options, Postgres, migrate};
use crate::cells::registry::{Cell, TenantRow};
use crate::{Error, Handoff, Result};

/// The whole table: it has one row.
const OWNERS: &str = "select coalesce(bool_and(org = $1 and id = $2), true), count(*) from organizations";

/// Whatever is wrong with one organization's database is that organization's matter alone.
fn unavailable(error: OpenError) -> Error {
    Error::Unavailable(error.into())
}

/// Refuses a database that is not the organization's: one that was renamed, replaced or restored under a wrong name.
pub(super) async fn check_owner(platform: &Pool, tenant: &TenantRow) -> Result<(), OpenError> {
    let connection = platform.connection().await?;
    let row = connection.query_one(OWNERS, bind![tenant.org, uuid(tenant.organization.to_bytes())]).await?;
    let row = row.ok_or_else(|| OpenError::Database("an aggregate has no row".into()))?;
    let because = match (get(&row, 0)?, get::<i64>(&row, 1)?) {
        (true, 1..) => return Ok(()),
        // It is put there before anybody is let in.
        (true, 0) if !tenant.initialize => return Ok(()),
        (true, _) => "no organization is in it",
        (false, _) => "another organization is in it",
    };
    Err(OpenError::NotItsCell { database: tenant.database.clone(), organization: tenant.organization, because })
}

/// Says so where databases of organizations are on other servers than the shared one: they may have been put there, and a
/// restored registry names those of the installation that it is a copy of.
pub(super) fn warn_of_other_servers(tenants: &[TenantRow], shared: &Secret) {
    let is_elsewhere = |tenant: &&TenantRow| {
        let place = Place::read(&tenant.url, &tenant.database);
        place.and_then(|place| place.is_beside(shared)).is_ok_and(|is_beside| !is_beside)
    };
    let elsewhere = tenants.iter().filter(is_elsewhere).count();
    if elsewhere > 0 {
        tracing::warn!(
            elsewhere,
            "databases of {elsewhere} organizations are on other servers than POSTROOM_DATABASE_URL names: if this database \
             was restored from a backup or has moved, stop, and change tenants.url first (docs/postgresql.md, Backup and restore)"
        );
    }
}

impl Postgres {
    /// How a database of one organization is opened.
    fn cell_options(&self, tenant: &TenantRow, handoff: Arc<dyn Handoff>) -> Result<Options, OpenError> {
        let shared = &self.0.options;
        let place = Place::read(&tenant.url, &tenant.database)?;
        let way = |login: &Secret| place.way(login, &shared.url);
        let part_urls = shared.part_urls.iter().map(|(part, login)| Ok((*part, way(login)?)));
        Ok(Options {
            url: way(&shared.url)?,
            part_urls: part_urls.collect::<Result<_, OpenError>>()?,
            migrate_url: shared.migrate_url.as_ref().map(way).transpose()?,
            handoff,
            ..shared.clone()
        })
    }

    /// Opens it; one that is behind is migrated first, if this process has the owning login.
    async fn open_cell(&self, tenant: &TenantRow, handoff: Arc<dyn Handoff>) -> Result<Cell, OpenError> {
        let options = self.cell_options(tenant, handoff)?;
        let engine = match open::open(options.clone(), Target::Cell(tenant, &self.0.budget)).await {
            Err(OpenError::Older { .. }) if options.migrate_url.is_some() => {
                self.migrate_cell(tenant).await?;
                open::open(options, Target::Cell(tenant, &self.0.budget)).await?
            }
            opened => opened?,
        };
        // Only now, when this node can be seen in there: see [`Postgres::put_to_sleep`].
        if engine.0.options.mode == Mode::Serve
            && tenant.initialize
            && let Err(error) = self.rouse(tenant.cell).await
        {
            let _ = engine.storage().platform.close().await;
            return Err(error.into());
        }
        Ok(Cell { storage: engine.storage(), upkeep: Arc::new(engine) })
    }

    /// Brings it to this program's version, as its owner.
    async fn migrate_cell(&self, tenant: &TenantRow) -> Result<(), OpenError> {
        let Options { url, part_urls, migrate_url, .. } = &self.0.options;
        let owner = migrate_url.as_ref().ok_or(OpenError::NoOwner)?;
        let way = Place::read(&tenant.url, &tenant.database)?.way(owner, url)?;
        let done = migrate::up(&way, &migrate::AppLogin::of_urls(url, part_urls)?).await?;
        for advice in done.advice {
            tracing::warn!(database = %tenant.database, "{advice}");
        }
        Ok(self.note_version(tenant.cell).await?)
    }
}
