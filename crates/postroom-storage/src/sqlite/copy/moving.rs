//! What moving an organization asks of the shared database beside copying it.

use std::fs::File;
use std::path::Path;

use postroom_domain::{OrganizationId, TenantId, Timestamp};
use rusqlite::OptionalExtension as _;

use super::super::connection::Connection;
use super::super::grants::Part;
use super::super::open::{self, DATABASE_FILE, OpenError};
use super::super::writer::recover;
use super::super::{migrate, retention};
use super::Embedded;
use crate::copy::{Dedicated, Error};

/// By unique indexes.
const FIND: &str = "select organization.org, organization.id, initialize from organization \
     left join tenants on tenants.org_id = organization.org where slug = ?1 or organization.id = ?2";

/// The whole registry.
const LIST: &str = "select organization.id, slug, url, initialize from tenants \
     join organization on organization.org = tenants.org_id order by cell";

/// It is complete, and something may wait there.
const ENTER: &str = "insert into tenants (id, org_id, initialize, name, url, database, migration_version, begun, awake, wakes) \
     select ?2, org, 1, name, ?3, ?4, ?5, 1, 1, 1 from organization where org = ?1";

/// The one row.
const MOVED: &str = "update revision set tenants = tenants + 1";

/// Index: exception_by_org.
const WAITING: &str = "delete from exception where org = ?1";

/// What is not of events, each behind what refers to it. The audit log stays in both: nobody deletes of it, and what is done
/// to API keys goes on here. By primary keys and indexes by organization, but for small tables.
const REST: [&str; 6] = [
    "delete from rejection where org = ?1",
    "delete from idempotency where org = ?1",
    "delete from source_secret where org = ?1",
    "delete from source where org = ?1",
    "delete from endpoint_secret where org = ?1",
    "delete from endpoint where org = ?1",
];

/// Where an organization is.
pub(crate) enum Placed {
    Shared,
    /// It is being made.
    Begun,
    Dedicated,
}

/// An organization.
pub(crate) struct Found {
    pub(crate) org: i64,
    pub(crate) id: OrganizationId,
    pub(crate) placed: Placed,
}

impl Embedded {
    /// An organization by slug or id.
    pub(crate) async fn find(&self, name: &str) -> Result<Found, Error> {
        let id = name.parse::<OrganizationId>().ok().map(|id| id.to_bytes());
        let slug = name.to_owned();
        let found = self
            .run(move |connection| {
                let mut statement = connection.prepare_cached(FIND)?;
                let found = statement.query_row((slug, id), |row| {
                    let placed = match row.get::<_, Option<bool>>(2)? {
                        None => Placed::Shared,
                        Some(false) => Placed::Begun,
                        Some(true) => Placed::Dedicated,
                    };
                    Ok(Found { org: row.get(0)?, id: OrganizationId::from_bytes(row.get(1)?), placed })
                });
                found.optional()
            })
            .await?;
        found.ok_or_else(|| Error::NoOrganization(name.to_owned()))
    }

    /// Those with a database of their own.
    pub(crate) async fn list(data_dir: &Path) -> Result<Vec<Dedicated>, Error> {
        if !data_dir.join(DATABASE_FILE).exists() {
            return Err(Error::NoDatabase(data_dir.to_owned()));
        }
        let file = open::connect(data_dir)?;
        let found = migrate::version(&file)?;
        if found < migrate::NEWEST {
            return Err(OpenError::Older { found, known: migrate::NEWEST }.into());
        }
        let connection = Connection::new(file, Part::Copier).map_err(OpenError::from)?;
        let mut statement = connection.prepare(LIST).map_err(OpenError::from)?;
        let rows = statement.query_map([], |row| {
            let organization = OrganizationId::from_bytes(row.get(0)?);
            Ok(Dedicated { organization, slug: row.get(1)?, url: row.get(2)?, is_complete: row.get(3)? })
        });
        Ok(rows.and_then(Iterator::collect).map_err(OpenError::from)?)
    }

    /// Makes every delivery due that nobody knows the outcome of, as a start does.
    pub(crate) async fn settle(&self, now: Timestamp) -> Result<(), Error> {
        self.run(move |connection| {
            let recovered = recover(connection, now);
            connection.act_as(Part::Copier);
            recovered.map(drop)
        })
        .await
    }

    /// From here on the organization is there and not here: what waits here would be made twice.
    pub(crate) async fn enter(&self, org: i64, id: OrganizationId, url: String) -> Result<(), Error> {
        // A row that says it is complete must not outlive the directory in a power cut.
        for made in self.data_dir.join(&url).ancestors().take(3) {
            let synced = File::open(made).and_then(|made| made.sync_all());
            synced.map_err(|source| OpenError::Directory { path: made.to_owned(), source })?;
        }
        let newest = i64::try_from(migrate::NEWEST).unwrap_or(i64::MAX);
        self.run(move |connection| {
            let tenant = TenantId::from_bytes(id.to_bytes()).to_bytes();
            let transaction = connection.transaction()?;
            transaction.prepare_cached(ENTER)?.execute((org, tenant, url, DATABASE_FILE, newest))?;
            transaction.prepare_cached(WAITING)?.execute([org])?;
            transaction.prepare_cached(MOVED)?.execute([])?;
            transaction.commit()
        })
        .await
    }

    /// Deletes what the organization has left here, in steps.
    pub(crate) async fn forget(&self, org: i64) -> Result<(), Error> {
        let wal = self.wal.clone();
        self.run(move |connection| {
            let mut next = Some(0);
            while let Some(after) = next {
                connection.act_as(Part::Platform);
                let transaction = connection.transaction()?;
                next = retention::forget(&transaction, org, after)?;
                transaction.commit()?;
                wal.copy_alone(connection)?;
            }
            connection.act_as(Part::Copier);
            let transaction = connection.transaction()?;
            for sql in REST {
                transaction.prepare_cached(sql)?.execute([org])?;
            }
            transaction.commit()
        })
        .await
    }

    /// Removes a directory that is nobody's.
    pub(crate) fn remove(directory: &Path) -> Result<(), Error> {
        let removed = std::fs::remove_dir_all(directory);
        Ok(removed.map_err(|source| OpenError::Directory { path: directory.to_owned(), source })?)
    }
}
