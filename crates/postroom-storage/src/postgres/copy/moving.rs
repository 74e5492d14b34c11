//! What moving an organization asks of the shared database beside copying it.

use async_trait::async_trait;
use postroom_domain::{OrganizationId, Secret, TenantId, Timestamp};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

use super::super::DatabaseUrl;
use super::super::cells::{self, Place, quoted};
use super::super::convert::{get, id, uuid};
use super::super::migrate::{self, AppLogin, Owner};
use super::super::open::OpenError;
use super::super::pool::bind;
use super::{Database, PATIENT, connect, fence, said, sql, write};
use crate::copy::side::Side;
use crate::copy::table::{Row, TABLES, Table, Value};
use crate::copy::{Arrival, Cell, Dedicated, Error, Found, Home, Logins, Placed, Role};
use crate::engine::packed::broken;

/// The most rows that are deleted in one transaction.
const ROWS: i64 = 5_000;

/// How often it is tried to drop a database that was left.
const TRIES: usize = 3;

/// By unique indexes.
const FIND: &str = "select org, organizations.id, initialize, tenants.url, database from organizations \
     left join tenants on org_id = org where slug = $1 or organizations.id = $2";

/// The whole registry.
const CELLS: &str = "select org, organizations.id, initialize, tenants.url, database from tenants \
     join organizations on org = org_id";

/// The whole registry.
const LIST: &str = "select organizations.id, slug, url, initialize from tenants \
     join organizations on org = org_id order by cell";

/// It is complete, and something may wait there. Unique indexes on org_id and url decide.
const ENTER: &str = "insert into tenants \
     (id, org_id, initialize, name, url, database, username, migration_version, awake, wakes, created_at) \
     select $2, org, true, slug, $3, $4, $5, $6, true, 1, clock_timestamp() from organizations where org = $1";

/// By the unique index on org_id.
const TAKE_OUT: &str = "delete from tenants where org_id = $1";

/// The primary key, from the organization on.
const WAITING: &str = "delete from exceptions where org = $1";

/// By primary key.
const ENDPOINT_NUMBER: &str =
    "update organizations set endpoint_number = greatest(endpoint_number, $2::int8::int4) where org = $1";

/// By primary key. What is here is as old as when its database was last awake.
const COUNTED: &str = "insert into usage as usage (org, month, count) \
     values ($1, to_timestamp($2::int8 / 1000), $3) \
     on conflict (org, month) do update set count = greatest(usage.count, excluded.count)";

/// What an organization has here when it is elsewhere, each behind what refers to it: the tables, and what their rows are
/// known by.
const OWNED: [&str; 10] = [
    "attempts",
    "replays",
    "duplicate_guard",
    "events",
    "rejections",
    "idempotency_keys",
    "source_secrets",
    "sources",
    "endpoint_secrets",
    "endpoints",
];

/// Whoever is in the registry.
pub(super) async fn cells(client: &Client) -> Result<Vec<Found>, Error> {
    client.query_typed(CELLS, &[]).await.map_err(said)?.iter().map(found).collect()
}

fn found(row: &tokio_postgres::Row) -> Result<Found, Error> {
    let placed = match get::<Option<bool>>(row, 2)? {
        None => Placed::Shared,
        Some(false) => Placed::Begun,
        Some(true) => Placed::Dedicated(Cell { url: get(row, 3)?, database: get(row, 4)? }),
    };
    Ok(Found { org: get(row, 0)?, id: OrganizationId::from_bytes(id(row, 1)?), placed })
}

impl Database {
    /// The shared database, beside servers or without any.
    pub(crate) async fn home(logins: &Logins) -> Result<Self, Error> {
        let fence = Owner::connect(&logins.owner).await?;
        let found = fence.version().await?;
        if found < migrate::NEWEST {
            return Err(OpenError::Older { found, known: migrate::NEWEST }.into());
        }
        fence.client.batch_execute(PATIENT).await.map_err(OpenError::from)?;
        fence::beside(&fence.client).await?;
        let home = Self::with(fence, &logins.owner, Role::Shared).await?;
        Ok(Self { logins: Some(logins.clone()), ..home })
    }

    /// Those with a database of their own.
    pub(crate) async fn list(owner_url: &Secret) -> Result<Vec<Dedicated>, Error> {
        let owner = Owner::connect(owner_url).await?;
        let found = owner.version().await?;
        if found < migrate::NEWEST {
            return Err(OpenError::Older { found, known: migrate::NEWEST }.into());
        }
        let rows = connect(owner_url).await?.client.query_typed(LIST, &[]).await.map_err(said)?;
        let dedicated = |row: &tokio_postgres::Row| {
            let organization = OrganizationId::from_bytes(id(row, 0)?);
            Ok(Dedicated { organization, slug: get(row, 1)?, url: get(row, 2)?, is_complete: get(row, 3)? })
        };
        rows.iter().map(dedicated).collect()
    }

    pub(super) fn logins(&self) -> Result<&Logins, Error> {
        Ok(self.logins.as_ref().ok_or_else(|| broken("there are no logins to move with"))?)
    }

    fn way(&self, cell: &Cell) -> Result<Secret, Error> {
        let logins = self.logins()?;
        Ok(Place::read(&cell.url, &cell.database)?.way(&logins.owner, &logins.url)?)
    }

    /// Deletes rows of a table in steps.
    async fn forget_of(&self, table: &'static Table, org: i64) -> Result<(), Error> {
        let key = table.order.iter().map(|column| format!("{}.{column}", table.name)).collect::<Vec<_>>().join(", ");
        let delete = format!(
            "delete from {name} where org = $1 and ({key}) in (select {key} from {name} where org = $1 limit $2)",
            name = table.name
        );
        loop {
            let done = self.work.lock().await.client.execute_typed(&delete, bind![org, ROWS]).await.map_err(said)?;
            if done < ROWS.unsigned_abs() {
                return Ok(());
            }
        }
    }
}

#[async_trait]
impl Home for Database {
    async fn find(&self, name: &str) -> Result<Found, Error> {
        let known = name.parse::<OrganizationId>().ok().map(|id| uuid(id.to_bytes()));
        let find = async || {
            let rows = self.work.lock().await.client.query_typed(FIND, bind![name, known]).await.map_err(said)?;
            found(rows.first().ok_or_else(|| Error::NoOrganization(name.to_owned()))?)
        };
        fence::take(&self.fence.client, find().await?.org).await?;
        // Now it stays where it is.
        find().await
    }

    async fn close(&self, found: &Found, now: Timestamp) -> Result<(), Error> {
        if matches!(found.placed, Placed::Shared) {
            cells::may_create(&self.logins()?.owner).await?;
        }
        self.seal(found.org, now).await
    }

    async fn reopen(&self, found: &Found) -> Result<(), Error> {
        if let Placed::Dedicated(cell) = &found.placed {
            fence::open_own(&connect(&self.way(cell)?).await?.client).await?;
        }
        self.take_back().await
    }

    fn place(&self, id: OrganizationId) -> Result<Cell, Error> {
        let place = Place::beside(&self.logins()?.url, TenantId::from_bytes(id.to_bytes()))?;
        Ok(Cell { url: place.url(), database: place.database().to_owned() })
    }

    async fn cell(&self, cell: &Cell, role: Role) -> Result<Box<dyn Side>, Error> {
        let (logins, way) = (self.logins()?, self.way(cell)?);
        if role == Role::Target {
            cells::may_create(&logins.owner).await?;
            cells::create(&logins.owner, &cell.database).await?;
        }
        let done = migrate::up(&way, &AppLogin::of_urls(&logins.url, &logins.part_urls)?).await?;
        for advice in done.advice {
            tracing::warn!(database = %cell.database, "{advice}");
        }
        if role == Role::Source {
            fence::own(&way, logins.patience).await
        } else {
            Ok(Box::new(Self::open(&way, role).await?))
        }
    }

    async fn remove(&self, cell: &Cell) -> Result<(), Error> {
        let drop = format!("drop database if exists {}", quoted(&cell.database));
        // Not in the transaction that keeps the table of nodes.
        let owner = Owner::connect(&self.logins()?.owner).await?;
        for _ in 1..TRIES {
            match owner.client.batch_execute(&drop).await {
                // The server waits five seconds for connections that have just ended, and ends what it does there itself.
                Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) => {}
                dropped => return Ok(dropped.map_err(OpenError::from)?),
            }
        }
        Ok(owner.client.batch_execute(&drop).await.map_err(OpenError::from)?)
    }

    async fn leave(&self, found: &Found, cell: &Cell) -> Result<(), Error> {
        let login = DatabaseUrl::parse(&self.logins()?.url)?.user().to_owned();
        let newest = i64::try_from(migrate::NEWEST).unwrap_or(i64::MAX);
        let tenant = uuid(TenantId::from_bytes(found.id.to_bytes()).to_bytes());
        let mut work = self.work.lock().await;
        let transaction = work.client.transaction().await.map_err(said)?;
        let values = bind![found.org, tenant, cell.url, cell.database, login, newest];
        transaction.execute_typed(ENTER, values).await.map_err(said)?;
        transaction.execute_typed(WAITING, bind![found.org]).await.map_err(said)?;
        fence::end(&transaction, self.moving()?, fence::GONE).await?;
        transaction.commit().await.map_err(said)
    }

    async fn forget(&self, org: i64) -> Result<(), Error> {
        for name in OWNED {
            for table in TABLES.iter().filter(|table| table.name == name) {
                self.forget_of(table, org).await?;
            }
        }
        Ok(())
    }

    async fn free(&self, table: &'static Table, count: i64) -> Result<i64, Error> {
        let column = table.numbered.unwrap_or_default();
        // Who owns the tables owns what numbers them. Whoever takes a number adds a row, and waits.
        let mut owner = Owner::connect(&self.logins()?.owner).await?;
        owner.client.batch_execute(PATIENT).await.map_err(OpenError::from)?;
        let transaction = owner.client.transaction().await.map_err(said)?;
        let lock = format!("lock table {} in share row exclusive mode", table.name);
        transaction.batch_execute(&lock).await.map_err(said)?;
        let rows = transaction.query_typed(sql::NEXT, bind![table.name, column]).await.map_err(said)?;
        let first: i64 = get(rows.first().ok_or(Error::Interrupted)?, 0)?;
        transaction.query_typed(sql::NUMBER, bind![table.name, column, first + count - 1]).await.map_err(said)?;
        transaction.commit().await.map_err(said)?;
        Ok(first)
    }

    async fn arrive(&self, arrival: Arrival) -> Result<(), Error> {
        let Arrival { org, endpoint_number, tables, meta } = arrival;
        let mut work = self.work.lock().await;
        let transaction = work.client.transaction().await.map_err(said)?;
        for (table, mut batches) in tables {
            while let Some(batch) = batches.next().await? {
                match table.name {
                    "usage" => count(&transaction, batch.rows).await?,
                    _ => write::add(&transaction, table, batch.rows).await?,
                }
            }
        }
        for (name, value) in meta {
            transaction.execute_typed(sql::PUT_META, bind![name, value]).await.map_err(said)?;
        }
        transaction.execute_typed(ENDPOINT_NUMBER, bind![org, endpoint_number]).await.map_err(said)?;
        transaction.execute_typed(TAKE_OUT, bind![org]).await.map_err(said)?;
        fence::end(&transaction, self.moving()?, fence::BACK).await?;
        transaction.commit().await.map_err(said)
    }
}

/// The months of an organization, as its own database has counted them.
async fn count(transaction: &Transaction<'_>, rows: Vec<Row>) -> Result<(), Error> {
    for row in rows {
        let number = |at: usize| row.get(at).and_then(Value::integer).unwrap_or(0);
        transaction.execute_typed(COUNTED, bind![number(0), number(1), number(2)]).await.map_err(said)?;
    }
    Ok(())
}
