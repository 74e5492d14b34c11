//! A PostgreSQL database as one side of a copy. The login that owns it becomes a role that sees every organization and
//! adds rows; another connection keeps the table of nodes to itself meanwhile, so that no server can start or write. Where
//! an organization is moved, the shared database is open to others, and only that organization is kept ([`fence`]).

mod fence;
mod moving;
mod read;
mod sql;
mod write;

use std::sync::OnceLock;

use async_trait::async_trait;
use postroom_domain::{Secret, Timestamp};
use tokio::sync::Mutex;
use tokio_postgres::Client;
use uuid::Uuid;

use super::cells::Place;
use super::convert::{count, get};
use super::migrate::{self, COPY, Owner};
use super::open::OpenError;
use super::pool::bind;
use crate::copy::side::{Batches, FINISHED, Meta, Side, UNFINISHED};
use crate::copy::table::{Position, Row, TABLES, Table};
use crate::copy::{Cell, Error, Found, Logins, Role};

/// See the [module](self).
pub(crate) struct Database {
    url: Secret,
    role: Role,
    /// The ways to it and to databases beside it, where an organization is moved.
    logins: Option<Logins>,
    /// The organization that is moved, and which move it is.
    moving: OnceLock<(i64, Uuid)>,
    /// Keeps the locks: see [`fence`].
    fence: Owner,
    /// The one that reads what is small, and writes.
    work: Mutex<Owner>,
}

/// A statement of any length is waited for, and a lock is not waited for long.
const PATIENT: &str = "set search_path = public; set statement_timeout = 0; set lock_timeout = '5s'; \
     set idle_in_transaction_session_timeout = 0";

impl Database {
    /// Takes the database for itself.
    pub(crate) async fn open(url: &Secret, role: Role) -> Result<Self, Error> {
        let fence = Owner::connect(url).await?;
        let found = fence.version().await?;
        if found < migrate::NEWEST {
            return Err(OpenError::Older { found, known: migrate::NEWEST }.into());
        }
        nobody(&fence.client, role).await?;
        fence.client.batch_execute(PATIENT).await.map_err(OpenError::from)?;
        fence.client.batch_execute(sql::FENCE).await.map_err(OpenError::from)?;
        fence::alone(&fence.client).await?;
        nobody(&fence.client, role).await?;
        Self::with(fence, url, role).await
    }

    async fn with(fence: Owner, url: &Secret, role: Role) -> Result<Self, Error> {
        let work = Mutex::new(connect(url).await?);
        Ok(Self { url: url.clone(), role, logins: None, moving: OnceLock::new(), fence, work })
    }
}

/// That no server is running.
async fn nobody(owner: &Client, role: Role) -> Result<(), Error> {
    let rows = owner.query_typed(migrate::RUNNING, &[]).await.map_err(OpenError::from)?;
    match rows.first().map(|row| get::<i64>(row, 0)).transpose()? {
        Some(0) | None => Ok(()),
        Some(servers) => Err(Error::Running { place: role.name(), servers }),
    }
}

/// A connection of the owning login that has become the role of copies.
async fn connect(url: &Secret) -> Result<Owner, OpenError> {
    let owner = Owner::connect(url).await?;
    owner.client.batch_execute(&format!("{PATIENT}; set role {COPY}")).await?;
    Ok(owner)
}

/// What the database says to a copy.
fn said(error: tokio_postgres::Error) -> Error {
    crate::Error::from(error).into()
}

#[async_trait]
impl Side for Database {
    async fn meta(&self) -> Result<Meta, Error> {
        let rows = self.work.lock().await.client.query_typed(sql::META, &[]).await.map_err(said)?;
        rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
    }

    async fn stamp(&self) -> Result<String, Error> {
        if self.role == Role::Shared {
            return self.stands().await;
        }
        let rows = self.work.lock().await.client.query_typed(sql::STAMP, &[]).await.map_err(said)?;
        Ok(get(rows.first().ok_or(Error::Interrupted)?, 0)?)
    }

    async fn cells(&self) -> Result<Vec<Found>, Error> {
        moving::cells(&self.work.lock().await.client).await
    }

    async fn own(&self, cell: &Cell) -> Result<Box<dyn Side>, Error> {
        let way = Place::read(&cell.url, &cell.database)?.way(&self.url, &self.url)?;
        Ok(Box::new(Self::open(&way, Role::Source).await?))
    }

    async fn count(&self, table: &'static Table) -> Result<u64, Error> {
        let rows = self.work.lock().await.client.query_typed(&sql::of(table).count, &[]).await.map_err(said)?;
        Ok(count(rows.first().ok_or(Error::Interrupted)?, 0)?)
    }

    async fn ends(&self, table: &'static Table) -> Result<Option<(i64, i64)>, Error> {
        let Some(statement) = &sql::of(table).ends else { return Ok(None) };
        let rows = self.work.lock().await.client.query_typed(statement, &[]).await.map_err(said)?;
        let row = rows.first().ok_or(Error::Interrupted)?;
        Ok(get::<Option<i64>>(row, 0)?.zip(get::<Option<i64>>(row, 1)?))
    }

    fn read(&self, table: &'static Table, of: Option<i64>, after: Option<Position>, due: Timestamp) -> Batches {
        let (mut reading, batches) = Batches::new();
        let url = self.url.clone();
        tokio::spawn(async move {
            let read = read::table(&url, table, read::Which { of, after, due }, &mut reading).await;
            reading.end(read).await;
        });
        batches
    }

    async fn begin(&self, meta: Meta) -> Result<(), Error> {
        let mut owner = self.work.lock().await;
        let transaction = owner.client.transaction().await.map_err(said)?;
        transaction.execute_typed(sql::CLEAR_META, &[]).await.map_err(said)?;
        for (name, value) in meta {
            transaction.execute_typed(sql::PUT_META, bind![name, value]).await.map_err(said)?;
        }
        transaction.commit().await.map_err(said)
    }

    async fn write(&self, table: &'static Table, rows: Vec<Row>, progress: Vec<u8>) -> Result<(), Error> {
        let progress = (self.role != Role::Shared).then_some(progress);
        write::batch(&mut self.work.lock().await.client, table, rows, progress).await
    }

    async fn complete(&self) -> Result<(), Error> {
        for table in TABLES.iter().filter(|_| self.role != Role::Shared) {
            let newest = self.ends(table).await?.map(|(_, newest)| newest);
            if let (Some(newest), Some(column)) = (newest, table.numbered) {
                // Who owns the tables owns what numbers them.
                let values = bind![table.name, column, newest];
                self.fence.client.query_typed(sql::NUMBER, values).await.map_err(said)?;
            }
        }
        Ok(())
    }

    async fn finish(&self, finished: Vec<u8>) -> Result<(), Error> {
        let mut owner = self.work.lock().await;
        let transaction = owner.client.transaction().await.map_err(said)?;
        transaction.execute_typed(sql::FORGET_META, bind![UNFINISHED]).await.map_err(said)?;
        transaction.execute_typed(sql::PUT_META, bind![FINISHED, finished]).await.map_err(said)?;
        transaction.commit().await.map_err(said)
    }

    async fn is_alone(&self) -> Result<(), Error> {
        // The lock ends with its connection: as long as that answers, it is held.
        self.fence.client.query_typed(sql::ANSWER, &[]).await.map(drop).map_err(said)
    }
}
