//! A data directory as one side of a copy: locked, read in the order of its own keys, filled batch by batch.

mod moving;
mod read;
mod sql;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use postroom_domain::Timestamp;

use super::Footprint;
use super::connection::Connection;
use super::grants::Part;
use super::keeper::Wal;
use super::open::{self, DATABASE_FILE, OpenError};
use crate::copy::side::{Batches, Meta, Side};
use crate::copy::table::{Position, Row, Table};
use crate::copy::{Cell, Error, Found, Role};

/// See the [module](self).
pub(crate) struct Embedded {
    data_dir: PathBuf,
    role: Role,
    held: Arc<Held>,
    wal: Arc<Wal>,
}

/// The connection and the directory's lock: a statement that is under way when nobody waits for it any more keeps both
/// until it has ended.
struct Held {
    connection: Mutex<Connection>,
    /// Given up last.
    _lock: open::Lock,
}

impl Embedded {
    /// Takes the directory for itself. A target is made if it is not there.
    pub(crate) fn open(data_dir: &Path, role: Role) -> Result<Self, Error> {
        if role == Role::Target {
            open::prepare_directory(data_dir)?;
        } else if !data_dir.join(DATABASE_FILE).exists() {
            return Err(Error::NoDatabase(data_dir.to_owned()));
        }
        let lock = open::Lock::take(data_dir)?;
        let mut file = open::connect_writer(data_dir, Footprint::Large.writer_cache())?;
        open::check(&mut file)?;
        open::bring_up_to_date(&mut file, true)?;
        if role == Role::Source {
            file.pragma_update(None, "query_only", true).map_err(OpenError::from)?;
        }
        let wal = Arc::new(Wal::default());
        wal.watch(&mut file).map_err(OpenError::from)?;
        let connection = Mutex::new(Connection::new(file, Part::Copier).map_err(OpenError::from)?);
        Ok(Self { data_dir: data_dir.to_owned(), role, held: Arc::new(Held { connection, _lock: lock }), wal })
    }

    /// Does something with the database on a thread that may wait.
    async fn run<T, F>(&self, work: F) -> Result<T, Error>
    where
        F: FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let held = self.held.clone();
        let done = tokio::task::spawn_blocking(move || work(&mut held.connection.lock())).await;
        Ok(done.map_err(|_| Error::Interrupted)?.map_err(crate::Error::from)?)
    }
}

#[async_trait]
impl Side for Embedded {
    async fn meta(&self) -> Result<Meta, Error> {
        self.run(|connection| {
            let mut statement = connection.prepare_cached(sql::META)?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
        .await
    }

    async fn stamp(&self) -> Result<String, Error> {
        self.run(|connection| connection.query_row(sql::STAMP, [], |row| row.get(0))).await
    }

    async fn cells(&self) -> Result<Vec<Found>, Error> {
        self.run(moving::cells).await
    }

    async fn own(&self, cell: &Cell) -> Result<Box<dyn Side>, Error> {
        Ok(Box::new(Self::open(&self.data_dir.join(&cell.url), Role::Source)?))
    }

    async fn count(&self, table: &'static Table) -> Result<u64, Error> {
        self.run(move |connection| connection.query_row(&sql::of(table).count, [], |row| row.get(0))).await
    }

    async fn ends(&self, table: &'static Table) -> Result<Option<(i64, i64)>, Error> {
        let Some(sql) = &sql::of(table).ends else { return Ok(None) };
        let ends = self.run(move |connection| connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))));
        let (first, last): (Option<i64>, Option<i64>) = ends.await?;
        Ok(first.zip(last))
    }

    fn read(&self, table: &'static Table, _: Option<i64>, after: Option<Position>, due: Timestamp) -> Batches {
        let (mut reading, batches) = Batches::new();
        let data_dir = self.data_dir.clone();
        tokio::task::spawn_blocking(move || {
            let read = read::table(&data_dir, table, after.as_ref(), due, &mut reading);
            reading.end_blocking(read);
        });
        batches
    }

    async fn begin(&self, meta: Meta) -> Result<(), Error> {
        self.run(move |connection| {
            let transaction = connection.transaction()?;
            transaction.prepare_cached(sql::CLEAR_META)?.execute([])?;
            for row in &meta {
                transaction.prepare_cached(sql::PUT_META)?.execute(row)?;
            }
            transaction.commit()
        })
        .await
    }

    async fn write(&self, table: &'static Table, rows: Vec<Row>, progress: Vec<u8>) -> Result<(), Error> {
        let wal = self.wal.clone();
        let progress = (self.role != Role::Shared).then_some(progress);
        self.run(move |connection| {
            write::batch(connection, table, &rows, progress.as_deref())?;
            let copied = wal.copy_alone(connection);
            connection.act_as(Part::Copier);
            copied
        })
        .await
    }

    async fn complete(&self) -> Result<(), Error> {
        self.run(|connection| write::complete(connection)).await
    }

    async fn finish(&self, finished: Vec<u8>) -> Result<(), Error> {
        self.run(move |connection| write::finish(connection, &finished)).await
    }

    async fn is_alone(&self) -> Result<(), Error> {
        // The lock is held by this process for as long as it lives.
        Ok(())
    }
}
