//! Walks over the log, newest first: by which index candidates for a page are found. Partitions are touched newest
//! first, and only as far as a walk goes.

use std::time::Duration;

use postroom_domain::{EventId, Timestamp};
use uuid::Uuid;

use super::Desk;
use super::log::{key, read, select_event};
use crate::Result;
use crate::engine::log::{EventRow, ExceptionState};
use crate::postgres::convert::get;
use crate::postgres::pool::bind;
use crate::worker::EventKey;

/// The most rows read at once.
pub(super) const CHUNK: i64 = 500;

/// By primary key, from its newest end.
pub(super) const BY_ORG: &str = select_event!("where org = $1 and id between $2 and $3 order by id desc limit $4");

/// Index: events_by_type, from its newest end.
pub(super) const BY_TYPE: &str =
    select_event!("where org = $1 and id between $2 and $3 and type = $5 order by id desc limit $4");

/// Index: exceptions_by_state, from its newest end.
pub(super) const BY_EXCEPTION: &str = "select distinct event from exceptions \
     where org = $1 and event between $2 and $3 and state = $5 order by event desc limit $4";

/// How far back, in days, the parts of a walk go that are looked at one after the other; the last one is the rest. A
/// statement is planned for each partition that it may touch, and most walks end in the newest ones.
const DAYS: [u64; 2] = [1, 8];
/// How old an event may be, in days by the clock of the node that accepted it, and still be in that node's memory.
const DAYS_IN_MEMORY: u64 = 8;

/// A few rows.
const WATERMARK: &str = "select min(watermark) from nodes where state <> 'recovered'";

/// Index: events_by_tx. Not sorted until it is read: the few newest rows are not looked for from the oldest on.
const FIRST_UNSETTLED: &str = "select id from \
     (select id from events where org = $1 and tx >= $2 and id >= $3 offset 0) as unsettled order by id limit 1";

/// Where a moment begins.
fn floor(at: Timestamp) -> EventKey {
    key(EventId::floor(at))
}

fn days_long(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 3600)
}

/// A part of the log, both ends included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    from: EventKey,
    upto: EventKey,
}

impl Span {
    /// Events accepted between two moments, by the clock of the node that accepted them.
    pub(super) fn of(after: Option<Timestamp>, before: Option<Timestamp>) -> Self {
        let upto = before.map_or(u128::MAX, |before| floor(before).0.saturating_sub(1));
        Self { from: after.map_or(EventKey(0), floor), upto: EventKey(upto) }
    }

    /// The part from an event on.
    pub(super) fn from(self, event: EventKey) -> Self {
        Self { from: self.from.max(event), ..self }
    }

    /// The part up to an event.
    pub(super) fn upto(self, event: EventKey) -> Self {
        Self { upto: self.upto.min(event), ..self }
    }

    /// The part before an event.
    pub(super) fn before(self, event: EventKey) -> Self {
        self.upto(EventKey(event.0.saturating_sub(1)))
    }

    /// The same in parts, newest first.
    pub(super) fn parts(self, now: Timestamp) -> impl Iterator<Item = Self> {
        let newest = EventId::from_bytes(self.upto.uuid().into_bytes()).created_at().min(now);
        let floors = DAYS.into_iter().map(move |days| floor(newest - days_long(days)));
        let mut left = self;
        floors.chain([EventKey(0)]).filter_map(move |floor| {
            let part = left.from(floor);
            left = left.before(part.from);
            (!part.is_empty()).then_some(part)
        })
    }

    pub(super) fn is_empty(self) -> bool {
        self.from > self.upto
    }

    /// Both ends, for columns.
    pub(super) fn ends(self) -> (Uuid, Uuid) {
        (self.from.uuid(), self.upto.uuid())
    }
}

/// By which index candidates are found.
#[derive(Debug, Clone, Copy)]
pub(super) enum By<'a> {
    /// All events of the organization.
    Organization,
    /// Events of one type.
    Type(&'a str),
    /// Events with a delivery that has an exception in this state.
    Exception(ExceptionState),
}

impl Desk {
    /// The newest events in a part of the log, and what is left of it.
    pub(super) async fn newest(&self, span: Span, by: By<'_>, most: i64) -> Result<(Vec<EventRow>, Option<Span>)> {
        if span.is_empty() {
            return Ok((Vec::new(), None));
        }
        let (from, upto) = span.ends();
        let left = |last: Option<EventKey>, rows: usize| {
            let is_full = i64::try_from(rows).is_ok_and(|rows| rows >= most);
            last.filter(|_| is_full).map(|last| span.before(last)).filter(|left| !left.is_empty())
        };
        let rows = match by {
            By::Organization => self.transaction.query(BY_ORG, bind![self.org, from, upto, most]).await?,
            By::Type(of) => self.transaction.query(BY_TYPE, bind![self.org, from, upto, most, of]).await?,
            By::Exception(state) => {
                let rows =
                    self.transaction.query(BY_EXCEPTION, bind![self.org, from, upto, most, state.as_str()]).await?;
                let keys: Vec<EventKey> =
                    rows.iter().map(|row| get(row, 0).map(EventKey::from_uuid)).collect::<Result<_>>()?;
                // Retention may have taken an event first.
                let mut found = self.events_at(&keys).await?;
                let events = keys.iter().filter_map(|key| found.remove(key)).collect();
                return Ok((events, left(keys.last().copied(), keys.len())));
            }
        };
        let events: Vec<EventRow> = rows.iter().map(read).collect::<Result<_>>()?;
        let left = left(events.last().map(|event| event.key), events.len());
        Ok((events, left))
    }

    /// The first event that may have a delivery in the memory of a node: whatever is not settled before it waits as an
    /// exception. The end of the log, if there is none.
    pub(super) async fn first_unsettled(&self) -> Result<EventKey> {
        let watermark = self.transaction.query_one(WATERMARK, bind![]).await?;
        let watermark = watermark.map(|row| get::<Option<i64>>(&row, 0)).transpose()?.flatten();
        let Some(watermark) = watermark else { return Ok(EventKey(u128::MAX)) };
        let oldest = floor(self.now - days_long(DAYS_IN_MEMORY)).uuid();
        let first = self.transaction.query_one(FIRST_UNSETTLED, bind![self.org, watermark, oldest]).await?;
        Ok(first.map(|row| get(&row, 0).map(EventKey::from_uuid)).transpose()?.unwrap_or(EventKey(u128::MAX)))
    }
}
