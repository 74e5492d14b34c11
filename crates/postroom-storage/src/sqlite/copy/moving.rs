//! What moving an organization asks of the shared database beside copying it.

use std::fs::File;
use std::path::Path;

use async_trait::async_trait;
use postroom_domain::{OrganizationId, TenantId, Timestamp};
use rusqlite::OptionalExtension as _;

use super::super::connection::Connection;
use super::super::grants::Part;
use super::super::open::{self, DATABASE_FILE, OpenError};
use super::super::writer::{catch_up, recover};
use super::super::{migrate, retention};
use super::{Embedded, sql, write};
use crate::copy::side::{Batches, Side};
use crate::copy::table::{Row, Table};
use crate::copy::{Arrival, Cell, Dedicated, Error, Found, Home, Placed, Role};

/// By unique indexes.
const FIND: &str = "select organization.org, organization.id, initialize, url, database from organization \
     left join tenants on tenants.org_id = organization.org where slug = ?1 or organization.id = ?2";

/// The whole registry.
const CELLS: &str = "select organization.org, organization.id, initialize, url, database from tenants \
     join organization on organization.org = tenants.org_id";

/// The whole registry.
const LIST: &str = "select organization.id, slug, url, initialize from tenants \
     join organization on organization.org = tenants.org_id order by cell";

/// It is complete, and something may wait there.
const ENTER: &str = "insert into tenants (id, org_id, initialize, name, url, database, migration_version, begun, awake, wakes) \
     select ?2, org, 1, name, ?3, ?4, ?5, 1, 1, 1 from organization where org = ?1";

/// By the unique index on org_id.
const TAKE_OUT: &str = "delete from tenants where org_id = ?1";

/// By primary key.
const ENDPOINT_NUMBER: &str = "update organization set endpoint_number = max(endpoint_number, ?2) where org = ?1";

/// By primary key. What is here is as old as when its database was last awake.
const COUNTED: &str = "insert into usage (org, month, count) values (?1, ?2, ?3) \
     on conflict (org, month) do update set count = max(count, excluded.count)";

/// The one row.
const MOVED: &str = "update revision set tenants = tenants + 1";

/// Index: exception_by_org.
const WAITING: &str = "delete from exception where org = ?1";

/// What is not of events, each behind what refers to it. By primary keys and indexes by organization, but for small tables.
const REST: [&str; 6] = [
    "delete from rejection where org = ?1",
    "delete from idempotency where org = ?1",
    "delete from source_secret where org = ?1",
    "delete from source where org = ?1",
    "delete from endpoint_secret where org = ?1",
    "delete from endpoint where org = ?1",
];

/// Whoever is in the registry.
pub(super) fn cells(connection: &mut Connection) -> rusqlite::Result<Vec<Found>> {
    connection.prepare_cached(CELLS)?.query_map([], found)?.collect()
}

fn found(row: &rusqlite::Row<'_>) -> rusqlite::Result<Found> {
    let placed = match row.get::<_, Option<bool>>(2)? {
        None => Placed::Shared,
        Some(false) => Placed::Begun,
        Some(true) => Placed::Dedicated(Cell { url: row.get(3)?, database: row.get(4)? }),
    };
    Ok(Found { org: row.get(0)?, id: OrganizationId::from_bytes(row.get(1)?), placed })
}

impl Embedded {
    /// Takes the shared database of a directory for itself. Every delivery that nobody knows the outcome of becomes due,
    /// and the search tables learn all that they lack, as a start and a stop would do it.
    pub(crate) async fn home(data_dir: &Path, now: Timestamp) -> Result<Self, Error> {
        let home = Self::open(data_dir, Role::Shared)?;
        home.run(move |connection| {
            let settled = recover(connection, now).and_then(|_| catch_up(connection));
            connection.act_as(Part::Copier);
            settled
        })
        .await?;
        Ok(home)
    }

    /// Those with a database of their own.
    pub(crate) fn list(data_dir: &Path) -> Result<Vec<Dedicated>, Error> {
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
}

#[async_trait]
impl Home for Embedded {
    async fn find(&self, name: &str) -> Result<Found, Error> {
        let id = name.parse::<OrganizationId>().ok().map(|id| id.to_bytes());
        let slug = name.to_owned();
        let found = self
            .run(move |connection| {
                let mut statement = connection.prepare_cached(FIND)?;
                statement.query_row((slug, id), found).optional()
            })
            .await?;
        found.ok_or_else(|| Error::NoOrganization(name.to_owned()))
    }

    fn place(&self, id: OrganizationId) -> Result<Cell, Error> {
        let url = format!("tenants/{}", TenantId::from_bytes(id.to_bytes()));
        Ok(Cell { url, database: DATABASE_FILE.to_owned() })
    }

    async fn cell(&self, cell: &Cell, role: Role) -> Result<Box<dyn Side>, Error> {
        Ok(Box::new(Self::open(&self.data_dir.join(&cell.url), role)?))
    }

    async fn close(&self, _: &Found, _: Timestamp) -> Result<(), Error> {
        // The lock of the data directory is held, and what was left open is due since it was taken.
        Ok(())
    }

    async fn reopen(&self, _: &Found) -> Result<(), Error> {
        Ok(())
    }

    async fn remove(&self, cell: &Cell) -> Result<(), Error> {
        let directory = self.data_dir.join(&cell.url);
        let removed = std::fs::remove_dir_all(&directory);
        Ok(removed.map_err(|source| OpenError::Directory { path: directory, source })?)
    }

    async fn leave(&self, found: &Found, cell: &Cell) -> Result<(), Error> {
        // A row that says it is complete must not outlive the directory in a power cut.
        for made in self.data_dir.join(&cell.url).ancestors().take(3) {
            let synced = File::open(made).and_then(|made| made.sync_all());
            synced.map_err(|source| OpenError::Directory { path: made.to_owned(), source })?;
        }
        let newest = i64::try_from(migrate::NEWEST).unwrap_or(i64::MAX);
        let (org, id, url) = (found.org, found.id, cell.url.clone());
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

    async fn forget(&self, org: i64) -> Result<(), Error> {
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

    async fn free(&self, table: &'static Table, _: i64) -> Result<i64, Error> {
        // Nobody else gives any until all is copied.
        Ok(self.ends(table).await?.map_or(1, |(_, last)| last + 1))
    }

    async fn arrive(&self, arrival: Arrival) -> Result<(), Error> {
        let held = self.held.clone();
        let arrived = tokio::task::spawn_blocking(move || arrive(&mut held.connection.lock(), arrival)).await;
        arrived.map_err(|_| Error::Interrupted)?
    }
}

/// All of it in one transaction.
fn arrive(connection: &mut Connection, arrival: Arrival) -> Result<(), Error> {
    let Arrival { org, endpoint_number, tables, meta } = arrival;
    let said = |error: rusqlite::Error| Error::from(crate::Error::from(error));
    let transaction = connection.transaction().map_err(said)?;
    for (table, mut batches) in tables {
        add(&transaction, table, &mut batches)?;
    }
    let rest = || {
        for row in &meta {
            transaction.prepare_cached(sql::PUT_META)?.execute(row)?;
        }
        transaction.prepare_cached(ENDPOINT_NUMBER)?.execute((org, endpoint_number))?;
        transaction.prepare_cached(TAKE_OUT)?.execute([org])?;
        transaction.prepare_cached(MOVED)?.execute([]).map(drop)
    };
    rest().map_err(said)?;
    transaction.commit().map_err(said)
}

/// Adds all rows of a table that comes last.
fn add(connection: &Connection, table: &'static Table, batches: &mut Batches) -> Result<(), Error> {
    while let Some(batch) = batches.next_blocking()? {
        let count = |row: &Row| connection.prepare_cached(COUNTED)?.execute(rusqlite::params_from_iter(row)).map(drop);
        let added = match table.name {
            "usage" => batch.rows.iter().try_for_each(count),
            _ => write::add(connection, table, &batch.rows),
        };
        added.map_err(crate::Error::from)?;
    }
    Ok(())
}
