//! The search tables and the duplicate guard: filled behind the acknowledgement.
//!
//! SQLite writes whole pages. One event touches one page of the log, but a page of its own in each tree whose order is
//! another: by organization, by type, by endpoint, by hash. So an acknowledged event is only in the log at first, and
//! what those trees still lack is kept here, collected over thousands of events, sorted by key, and written in slices
//! beside later events, when neighbours share a page. `progress` says how far the tables reach; readers look through
//! the log above it, and the guard asks here first. After a restart what is lacking is read from the log.

use std::time::{Duration, Instant};

use foldhash::HashMap;
use rusqlite::Row;

use super::batch::Turn;
use crate::engine::guard::guard_hash;
use crate::engine::record::Record;
use crate::sqlite::connection::Connection;
use crate::sqlite::convert::targets;
use crate::sqlite::grants::Part;
use crate::sqlite::rows;

/// How many rows of search tables are collected before they are sorted in.
const SEARCH_ROWS: usize = 24_000;
/// How long they are collected at most.
const SEARCH_TIME: Duration = Duration::from_secs(1);
/// How many hashes are collected before they are sorted in. Hashes have no neighbours, so only numbers help.
const GUARD_ROWS: usize = 32_000;
/// How long they are collected at most.
const GUARD_TIME: Duration = Duration::from_secs(5);
/// How many rows go into one transaction, beside twice as many as it has new ones: so what is lacking never grows.
const SLICE: usize = 512;

/// By primary key.
const BY_ORG: &str = "insert or ignore into event_by_org (org, seq) values (?1, ?2)";

/// By primary key.
const BY_TYPE: &str = "insert or ignore into event_by_type (org, type, seq) values (?1, ?2, ?3)";

/// By primary key.
const BY_ENDPOINT: &str = "insert or ignore into delivery_by_endpoint (endpoint, event, run) values (?1, ?2, 0)";

/// By primary key.
const GUARD_FIND: &str = "select event from duplicate_guard where hash = ?1";

/// By primary key. An event older than the window gives way to the newer one with its id.
const GUARD_PUT: &str = "insert into duplicate_guard (hash, event) values (?1, ?2) \
     on conflict (hash) do update set event = excluded.event where excluded.event > event";

/// The one row.
const INDEXED_UPTO: &str = "update progress set indexed_upto = ?1 where one = 1";

/// The one row.
const GUARDED_UPTO: &str = "update progress set guarded_upto = ?1 where one = 1";

/// The one row.
const PROGRESS: &str = "select indexed_upto, guarded_upto from progress";

/// By primary key, its end.
const NEWEST: &str = "select coalesce(max(seq), 0) from event";

/// By primary key, from where the tables end. Headers and bodies are not touched.
const LACKING: &str = "select seq, org, type, targets, source, external_id from event where seq > ?1 order by seq";

/// A row that a search table lacks. In the order they are written: table by table, each by its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SearchRow {
    /// `event_by_org`: organization, place.
    Organization(i64, i64),
    /// `event_by_type`: organization, type, place.
    Type(i64, Box<str>, i64),
    /// `delivery_by_endpoint`: endpoint, place.
    Endpoint(i64, i64),
}

impl SearchRow {
    fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        let written = match self {
            Self::Organization(org, seq) => connection.prepare_cached(BY_ORG)?.execute((org, seq)),
            Self::Type(org, event_type, seq) => connection.prepare_cached(BY_TYPE)?.execute((org, event_type, seq)),
            Self::Endpoint(endpoint, seq) => connection.prepare_cached(BY_ENDPOINT)?.execute((endpoint, seq)),
        };
        written.map(drop)
    }

    /// What the tables lack of one event.
    fn of(org: i64, event_type: &str, endpoints: impl Iterator<Item = i64>, seq: i64, lacking: &mut Vec<Self>) {
        lacking.push(Self::Organization(org, seq));
        lacking.push(Self::Type(org, event_type.into(), seq));
        lacking.extend(endpoints.map(|endpoint| Self::Endpoint(endpoint, seq)));
    }
}

/// Rows on their way into a table, sorted, and how far they have come.
#[derive(Debug)]
struct Round<T> {
    rows: Vec<T>,
    written: usize,
    /// The table reaches up to here when all are written.
    upto: i64,
}

/// What one table, or one set of tables, lacks.
#[derive(Debug)]
struct Lacking<T> {
    collected: Vec<T>,
    since: Instant,
    round: Option<Round<T>>,
    /// The place of the last event the table has everything of.
    reaches: i64,
}

impl<T: Ord> Lacking<T> {
    fn new(reaches: i64) -> Self {
        Self { collected: Vec::new(), since: Instant::now(), round: None, reaches }
    }

    /// Begins a round, up to the newest event, when enough is collected or the time is up. A round may be empty: the
    /// table still reaches further after it.
    fn begin(&mut self, most: usize, longest: Duration, newest: i64) -> bool {
        let enough = self.collected.len() >= most || self.since.elapsed() >= longest;
        let begins = self.round.is_none() && enough && newest > self.reaches;
        if begins {
            let mut rows = std::mem::take(&mut self.collected);
            rows.sort_unstable();
            self.round = Some(Round { rows, written: 0, upto: newest });
            self.since = Instant::now();
        }
        begins
    }

    /// The next rows of the round, and how far the table reaches when they were its last.
    fn slice(&self, limit: usize) -> Option<(&[T], Option<i64>)> {
        let round = self.round.as_ref()?;
        let rest = round.rows.get(round.written..).unwrap_or_default();
        let slice = rest.get(..limit).unwrap_or(rest);
        Some((slice, (slice.len() == rest.len()).then_some(round.upto)))
    }

    /// A slice was committed; says whether it was the last of its round.
    fn advance(&mut self, slice: Option<(usize, Option<i64>)>) -> bool {
        match (slice, &mut self.round) {
            (Some((_, Some(upto))), round) => {
                *round = None;
                self.reaches = upto;
                true
            }
            (Some((written, None)), Some(round)) => {
                round.written += written;
                false
            }
            _ => false,
        }
    }

    fn is_complete(&self, newest: i64) -> bool {
        self.round.is_none() && self.reaches >= newest
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Behind {
    search: Lacking<SearchRow>,
    guard: Lacking<([u8; 16], i64)>,
    /// The hashes that [`Self::guard`] lacks, to be asked: those collected, and those of the round.
    collected: HashMap<[u8; 16], i64>,
    in_round: HashMap<[u8; 16], i64>,
    /// At the end nothing is collected any longer.
    pub(super) closing: bool,
}

/// What a transaction adds and takes.
#[derive(Debug, Default)]
pub(super) struct BehindBatch {
    search: Vec<SearchRow>,
    guard: Vec<([u8; 16], i64)>,
    guards: HashMap<[u8; 16], i64>,
    /// Rows written, and how far the table reaches by them.
    search_slice: Option<(usize, Option<i64>)>,
    guard_slice: Option<(usize, Option<i64>)>,
}

impl Behind {
    /// Reads from the log what the tables lack.
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let (indexed, guarded): (i64, i64) =
            connection.query_row(PROGRESS, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut behind = Self {
            search: Lacking::new(indexed),
            guard: Lacking::new(guarded),
            collected: HashMap::default(),
            in_round: HashMap::default(),
            closing: false,
        };
        let mut statement = connection.prepare(LACKING)?;
        let mut rows = statement.query([indexed.min(guarded)])?;
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(0)?;
            if seq > indexed {
                let event_type = row.get_ref(2)?.as_str()?;
                SearchRow::of(row.get(1)?, event_type, targets(row, 3)?.into_iter(), seq, &mut behind.search.collected);
            }
            if seq > guarded {
                behind.hold(stored_hash(row)?.map(|hash| (hash, seq)));
            }
        }
        Ok(behind)
    }

    fn hold(&mut self, hashes: impl IntoIterator<Item = ([u8; 16], i64)>) {
        for (hash, seq) in hashes {
            self.guard.collected.push((hash, seq));
            self.collected.insert(hash, seq);
        }
    }

    /// Begins rounds that are due. `newest`: the place of the newest committed event.
    pub(super) fn begin(&mut self, newest: i64) {
        let (search, guard) = if self.closing { (1, 1) } else { (SEARCH_ROWS, GUARD_ROWS) };
        self.search.begin(search, SEARCH_TIME, newest);
        if self.guard.begin(guard, GUARD_TIME, newest) {
            self.in_round = std::mem::take(&mut self.collected);
        }
    }

    /// Whether the tables reach as far as the log.
    pub(super) fn is_complete(&self, newest: i64) -> bool {
        self.search.is_complete(newest) && self.guard.is_complete(newest)
    }

    /// Whether rows are on their way now.
    pub(super) fn is_under_way(&self) -> bool {
        self.search.round.is_some() || self.guard.round.is_some()
    }

    /// Takes over what was committed.
    pub(super) fn committed(&mut self, batch: BehindBatch) {
        self.search.collected.extend(batch.search);
        self.search.advance(batch.search_slice);
        if self.guard.advance(batch.guard_slice) {
            self.in_round = HashMap::default();
        }
        self.hold(batch.guard);
    }

    fn slice(&self, new: usize) -> usize {
        if self.closing { usize::MAX } else { SLICE + 2 * new }
    }
}

impl Turn<'_> {
    /// Where the event with this hash is in the log: in this transaction, in what the table lacks, or in the table.
    pub(super) fn guard_find(&self, hash: &[u8; 16]) -> rusqlite::Result<Option<i64>> {
        let behind = &self.state.behind;
        let held = [&self.batch.behind.guards, &behind.collected, &behind.in_round];
        match held.into_iter().find_map(|hashes| hashes.get(hash)) {
            Some(seq) => Ok(Some(*seq)),
            None => guard_find(self.connection, hash),
        }
    }

    /// Notes what the tables will lack of an event.
    pub(super) fn lacks(&mut self, record: &Record, seq: i64) {
        let batch = &mut self.batch.behind;
        let endpoints = record.endpoints.iter().map(|endpoint| endpoint.0);
        SearchRow::of(record.org, record.event_type.as_str(), endpoints, seq, &mut batch.search);
        if let Some(hash) = record.guard {
            batch.guard.push((hash, seq));
            batch.guards.insert(hash, seq);
        }
    }

    /// Writes the next slices.
    pub(super) fn catch_up(&mut self) -> rusqlite::Result<()> {
        let (connection, behind, batch) = (&*self.connection, &self.state.behind, &mut self.batch.behind);
        if let Some((rows, reaches)) = behind.search.slice(behind.slice(batch.search.len())) {
            rows.iter().try_for_each(|row| row.write(connection))?;
            batch.search_slice = Some((rows.len(), reaches));
            if let Some(upto) = reaches {
                connection.prepare_cached(INDEXED_UPTO)?.execute([upto])?;
            }
        }
        if let Some((rows, reaches)) = behind.guard.slice(behind.slice(batch.guard.len())) {
            let mut put = connection.prepare_cached(GUARD_PUT)?;
            rows.iter().try_for_each(|(hash, seq)| put.execute((hash, seq)).map(drop))?;
            batch.guard_slice = Some((rows.len(), reaches));
            if let Some(upto) = reaches {
                connection.prepare_cached(GUARDED_UPTO)?.execute([upto])?;
            }
        }
        Ok(())
    }
}

/// Writes all that the tables lack, when no server does it.
pub(in crate::sqlite) fn catch_up(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.act_as(Part::Receiver);
    let transaction = connection.transaction()?;
    let Behind { search, guard, .. } = Behind::load(&transaction)?;
    search.collected.iter().try_for_each(|row| row.write(&transaction))?;
    let mut put = transaction.prepare_cached(GUARD_PUT)?;
    guard.collected.iter().try_for_each(|(hash, seq)| put.execute((hash, seq)).map(drop))?;
    drop(put);
    let newest: i64 = transaction.query_row(NEWEST, [], |row| row.get(0))?;
    transaction.prepare_cached(INDEXED_UPTO)?.execute([newest])?;
    transaction.prepare_cached(GUARDED_UPTO)?.execute([newest])?;
    transaction.commit()
}

/// Where the event with this hash is in the log, as far as the table reaches.
pub(in crate::sqlite) fn guard_find(connection: &Connection, hash: &[u8; 16]) -> rusqlite::Result<Option<i64>> {
    rows::one(connection, GUARD_FIND, &[hash], |row| row.get(0))
}

/// The hash of an event as it is stored, from the columns `seq, org, type, targets, source, external_id`.
pub(in crate::sqlite) fn stored_hash(row: &Row<'_>) -> rusqlite::Result<Option<[u8; 16]>> {
    let Some(external_id) = row.get_ref(5)?.as_str_or_null()? else { return Ok(None) };
    let owner = match row.get::<_, Option<i64>>(4)? {
        Some(source) => (b's', source),
        None => (b'o', row.get(1)?),
    };
    Ok(Some(guard_hash(owner, external_id)))
}
