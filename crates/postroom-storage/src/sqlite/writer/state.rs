//! What the writer remembers between transactions. All of it can be rebuilt from the database, and is, at start.

use foldhash::HashMap;
use postroom_domain::{EventId, Timestamp};
use rusqlite::OptionalExtension;

use super::behind::Behind;
use super::outstanding::Outstanding;
use crate::engine::ids::Ids;
use crate::engine::log::ExceptionState;
use crate::sqlite::connection::Connection;
use crate::sqlite::grants::Part;

/// By primary key.
const NEWEST_EVENT: &str = "select seq, id from event order by seq desc limit 1";

/// The one row.
const PROGRESS: &str = "select watermark from progress";

/// Index: exception_by_org, read to its end once at start.
const EXCEPTIONS: &str = "select org, state, count(*) from exception group by org, state";

/// The most organizations whose month is remembered; beyond, the table is asked again.
const USAGE_REMEMBERED: usize = 100_000;

/// See the [module](self).
pub(super) struct State {
    pub(super) ids: Ids,
    /// The place of the next event in the log. Places are never given twice, also when the newest rows are deleted.
    pub(super) next_seq: i64,
    pub(super) outstanding: Outstanding,
    pub(super) behind: Behind,
    pub(super) usage: Usage,
    pub(super) exceptions: ExceptionCounts,
    /// The watermark as it is stored.
    pub(super) watermark: i64,
}

impl State {
    /// As the database says.
    pub(super) fn load(connection: &mut Connection) -> rusqlite::Result<Self> {
        connection.act_as(Part::Worker);
        let exceptions = ExceptionCounts::load(connection)?;
        connection.act_as(Part::Receiver);
        let newest: Option<(i64, [u8; 16])> =
            connection.query_row(NEWEST_EVENT, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let watermark: i64 = connection.query_row(PROGRESS, [], |row| row.get(0))?;
        let next_seq = newest.map_or(0, |(seq, _)| seq).max(watermark) + 1;
        Ok(Self {
            ids: Ids::after(newest.map(|(_, id)| EventId::from_bytes(id))),
            next_seq,
            outstanding: Outstanding::new(next_seq),
            behind: Behind::load(connection)?,
            usage: Usage::default(),
            exceptions,
            watermark,
        })
    }

    /// Whether nothing is left to be written down later.
    pub(super) fn is_settled(&mut self) -> bool {
        self.behind.is_complete(self.next_seq - 1)
            && self.outstanding.is_empty()
            && self.outstanding.watermark() == self.watermark
    }
}

/// How many events an organization had accepted in a calendar month.
#[derive(Debug, Default)]
pub(super) struct Usage {
    counts: HashMap<(i64, i64), u64>,
    /// The month of the last question, its first millisecond and the next month's.
    month: Option<(Timestamp, Timestamp)>,
}

impl Usage {
    /// The first millisecond of the month and of the next one.
    pub(super) fn month(&mut self, at: Timestamp) -> (Timestamp, Timestamp) {
        match self.month {
            Some((start, end)) if start <= at && at < end => (start, end),
            _ => *self.month.insert(at.month()),
        }
    }

    /// What was counted, by primary key of the table if it is not remembered.
    pub(super) fn get(&mut self, connection: &Connection, org: i64, month: i64) -> rusqlite::Result<u64> {
        if let Some(count) = self.counts.get(&(org, month)) {
            return Ok(*count);
        }
        let count = super::super::usage::stored(connection, org, month)?;
        if self.counts.len() >= USAGE_REMEMBERED {
            self.counts.clear();
        }
        self.counts.insert((org, month), count);
        Ok(count)
    }

    /// What was committed.
    pub(super) fn set(&mut self, org: i64, month: i64, count: u64) {
        self.counts.insert((org, month), count);
    }
}

/// How many exceptions there are of each organization.
#[derive(Debug, Default)]
pub(super) struct ExceptionCounts {
    /// Waiting ones and dead letters.
    by_org: HashMap<i64, (i64, i64)>,
    total: (i64, i64),
}

impl ExceptionCounts {
    fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut counts = Self::default();
        let mut statement = connection.prepare(EXCEPTIONS)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            counts.add(row.get(0)?, crate::sqlite::convert::word(row, 1)?, row.get(2)?);
        }
        Ok(counts)
    }

    /// Counts exceptions that came into a state or left it.
    pub(super) fn add(&mut self, org: i64, state: ExceptionState, by: i64) {
        let (waiting, dead) = match state {
            ExceptionState::Waiting => (by, 0),
            ExceptionState::DeadLetter => (0, by),
            ExceptionState::Discarded => return,
        };
        let of_org = self.by_org.entry(org).or_default();
        *of_org = (of_org.0 + waiting, of_org.1 + dead);
        if *of_org == (0, 0) {
            self.by_org.remove(&org);
        }
        self.total = (self.total.0 + waiting, self.total.1 + dead);
    }

    /// Waiting deliveries of an organization.
    pub(super) fn waiting(&self, org: i64) -> i64 {
        self.by_org.get(&org).map_or(0, |(waiting, _)| *waiting)
    }

    /// Waiting deliveries and dead letters of all.
    pub(super) fn total(&self) -> (i64, i64) {
        self.total
    }
}
