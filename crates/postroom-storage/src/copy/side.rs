//! What copying asks of an engine, as the place that is read or as the one that is filled.

use std::collections::BTreeMap;

use async_trait::async_trait;
use postroom_domain::Timestamp;
use tokio::sync::mpsc;

use super::Error;
use super::moving::{Cell, Found};
use super::table::{BATCH_BYTES, BATCH_ROWS, Batch, Position, Row, Table, Value};

/// The row of `meta` with the progress of a copy that is not finished. No server opens a database that has it.
pub(crate) const UNFINISHED: &str = "copy";
/// The row of `meta` of a copy that is finished.
pub(crate) const FINISHED: &str = "copied";

/// What the installation keeps for itself, by name.
pub(crate) type Meta = BTreeMap<String, Vec<u8>>;

/// A database that nobody else is at as long as this lives.
#[async_trait]
pub(crate) trait Side: Send + Sync {
    /// What stands in `meta`.
    async fn meta(&self) -> Result<Meta, Error>;

    /// Changes with everything that a server or a command writes.
    async fn stamp(&self) -> Result<String, Error>;

    /// The organizations that have a database of their own, or are about to.
    async fn cells(&self) -> Result<Vec<Found>, Error>;

    /// Such a database, to be read.
    async fn own(&self, cell: &Cell) -> Result<Box<dyn Side>, Error>;

    /// How many rows a table has.
    async fn count(&self, table: &'static Table) -> Result<u64, Error>;

    /// The first and the last of the numbers that a table has given, if it gives numbers and has rows.
    async fn ends(&self, table: &'static Table) -> Result<Option<(i64, i64)>, Error>;

    /// All rows of a table behind a position, in batches of bounded size. Deliveries that nobody knows the outcome of
    /// are read as exceptions due at `due`, as recovery at a start would make them. With an organization, at least all of
    /// its rows: an engine that finds them faster leaves out others.
    fn read(&self, table: &'static Table, of: Option<i64>, after: Option<Position>, due: Timestamp) -> Batches;

    /// Replaces `meta`, in a database that is otherwise empty.
    async fn begin(&self, meta: Meta) -> Result<(), Error>;

    /// Adds rows to a table, with the progress that is reached by it, in one transaction. A database that is in use has
    /// no progress: an organization that arrives there is copied anew.
    async fn write(&self, table: &'static Table, rows: Vec<Row>, progress: Vec<u8>) -> Result<(), Error>;

    /// All tables are filled: what the engine keeps beside them is made to fit.
    async fn complete(&self) -> Result<(), Error>;

    /// Puts the row of a finished copy in the place of that of its progress.
    async fn finish(&self, finished: Vec<u8>) -> Result<(), Error>;

    /// That still nobody else is at it.
    async fn is_alone(&self) -> Result<(), Error>;
}

/// Rows of a table as a reader finds them. Its end is said: a reader that dies is no end.
pub(crate) struct Batches(mpsc::Receiver<Result<Option<Batch>, Error>>);

/// The other end, for the reader.
pub(crate) struct Reading {
    sender: mpsc::Sender<Result<Option<Batch>, Error>>,
    rows: Vec<Row>,
    bytes: usize,
    last: Position,
}

impl Batches {
    /// Both ends.
    pub(crate) fn new() -> (Reading, Self) {
        // The next batch is read while one is written.
        let (sender, receiver) = mpsc::channel(1);
        (Reading { sender, rows: Vec::new(), bytes: 0, last: Position::new() }, Self(receiver))
    }

    /// The next rows; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Batch>, Error> {
        self.0.recv().await.unwrap_or(Err(Error::Interrupted))
    }

    /// The same, on a thread that may wait.
    pub(crate) fn next_blocking(&mut self) -> Result<Option<Batch>, Error> {
        self.0.blocking_recv().unwrap_or(Err(Error::Interrupted))
    }
}

impl Reading {
    /// Adds a row, which was read by these values. Returns what has to be sent now.
    #[must_use]
    pub(crate) fn add(&mut self, row: Row, position: Position) -> Option<Batch> {
        self.bytes += row.iter().map(Value::bytes).sum::<usize>();
        self.rows.push(row);
        self.last = position;
        (self.rows.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES).then(|| self.take())
    }

    fn take(&mut self) -> Batch {
        self.bytes = 0;
        Batch { rows: std::mem::take(&mut self.rows), position: self.last.clone() }
    }

    /// Sends a batch from a thread that may wait. False when nobody reads any more.
    pub(crate) fn send_blocking(&self, batch: Batch) -> bool {
        self.sender.blocking_send(Ok(Some(batch))).is_ok()
    }

    /// Sends a batch from a task. False when nobody reads any more.
    pub(crate) async fn send(&self, batch: Batch) -> bool {
        self.sender.send(Ok(Some(batch))).await.is_ok()
    }

    /// As [`Reading::end`], from a thread that may wait.
    pub(crate) fn end_blocking(mut self, read: Result<(), Error>) {
        for last in self.last_words(read) {
            // Nobody may read any more.
            let _ = self.sender.blocking_send(last);
        }
    }

    /// Sends what is left, and how it ended.
    pub(crate) async fn end(mut self, read: Result<(), Error>) {
        for last in self.last_words(read) {
            let _ = self.sender.send(last).await;
        }
    }

    fn last_words(&mut self, read: Result<(), Error>) -> Vec<Result<Option<Batch>, Error>> {
        let rest = if read.is_ok() && !self.rows.is_empty() { Some(Ok(Some(self.take()))) } else { None };
        rest.into_iter().chain([read.map(|()| None)]).collect()
    }
}
