//! Walks over the log, newest first: in which order and by which index candidates for a page are looked at.
//!
//! Search tables are filled behind the acknowledgement. What lies above `progress.indexed_upto` is found in the log
//! itself, so that a list shows an event as soon as it is acknowledged; a walk reads both in one snapshot, and no row
//! is missed or seen twice when the border moves between two pages.

use postroom_domain::{EventId, Timestamp};
use rusqlite::{Row, ToSql};

use crate::Result;
use crate::engine::log::ExceptionState;
use crate::engine::pager::{Go, Place};
use crate::sqlite::connection::Connection;
use crate::sqlite::rows;
use crate::worker::EventKey;

/// The one row.
const PROGRESS: &str = "select watermark, indexed_upto, guarded_upto from progress";

/// By primary key of event_by_org, its ends.
const ENDS: &str = "select seq, (select seq from event_by_org where org = ?1 order by seq desc limit 1) \
     from event_by_org where org = ?1 order by seq limit 1";

/// By primary key of event_by_org, then of event.
const FROM: &str = "select event.seq, event.id from event_by_org as entry cross join event on event.seq = entry.seq \
     where entry.org = ?1 and entry.seq >= ?2 order by entry.seq limit 1";

/// The columns of [`super::event::read`]. Neither headers nor payload are read.
macro_rules! select_event {
    ($rest:literal) => {
        concat!(
            "select event.seq, event.org, event.id, event.source, event.type, event.external_id, event.targets ",
            $rest
        )
    };
}
pub(super) use select_event;

/// By primary key: rows of every organization, of which the walk shows its own.
const TAIL: &str = select_event!("from event where seq between ?1 and ?2 order by seq desc");

/// By primary key of event_by_org, then of event.
const BY_ORG: &str = select_event!(
    "from event_by_org as entry cross join event on event.seq = entry.seq \
     where entry.org = ?1 and entry.seq between ?2 and ?3 order by entry.seq desc"
);

/// By primary key of event_by_type, then of event.
const BY_TYPE: &str = select_event!(
    "from event_by_type as entry cross join event on event.seq = entry.seq \
     where entry.org = ?1 and entry.seq between ?2 and ?3 and entry.type = ?4 order by entry.seq desc"
);

/// Index exception_by_org, then primary key of event.
const BY_EXCEPTION: &str = select_event!(
    "from exception as entry indexed by exception_by_org cross join event on event.seq = entry.event \
     where entry.org = ?1 and entry.state = ?4 and entry.event between ?2 and ?3 \
     group by entry.event order by entry.event desc"
);

/// For the test that looks at how they are answered.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[ENDS, FROM, TAIL, BY_ORG, BY_TYPE, BY_EXCEPTION];

/// How far the log is settled and how far it is in the search tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    pub(super) watermark: i64,
    pub(super) indexed_upto: i64,
    pub(super) guarded_upto: i64,
}

impl Progress {
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        connection.prepare_cached(PROGRESS)?.query_row([], |row| {
            Ok(Self { watermark: row.get(0)?, indexed_upto: row.get(1)?, guarded_upto: row.get(2)? })
        })
    }
}

/// A part of the log, both ends included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) from: i64,
    pub(super) upto: i64,
}

impl Span {
    /// Where events of an organization are that were accepted between two moments, and not above a place: all of them,
    /// and of what is not in the search tables yet also others. Its own ids ascend with places, but for a clock that was
    /// set back by more than ten seconds: of the time that then happened twice only one part may be found. Those of others
    /// do not, when one of them has moved here with events that are older than their places.
    pub(super) fn of(
        connection: &Connection,
        org: i64,
        after: Option<Timestamp>,
        before: Option<Timestamp>,
        upto: i64,
    ) -> rusqlite::Result<Self> {
        let from = match after {
            Some(at) => {
                // What is missing in the search tables can stand before all that is in them.
                let indexed_upto = Progress::read(connection)?.indexed_upto;
                border(connection, org, at)?.map_or(indexed_upto, |(last_before, _)| last_before.min(indexed_upto)) + 1
            }
            None => 1,
        };
        let end = match before {
            Some(at) => border(connection, org, at)?.map_or(i64::MAX, |(_, first_from)| first_from - 1),
            None => i64::MAX,
        };
        Ok(Self { from, upto: upto.min(end) })
    }

    /// The part above a place.
    pub(super) fn above(self, place: i64) -> Self {
        Self { from: self.from.max(place.saturating_add(1)), ..self }
    }

    /// The part up to a place.
    pub(super) fn below(self, place: i64) -> Self {
        Self { upto: self.upto.min(place), ..self }
    }
}

/// Between which two of an organization's places in the search tables a moment lies: by halves. Above `indexed_upto` the
/// tables have gaps, so what is between the two may be from before it or not. None when all are from before it.
fn border(connection: &Connection, org: i64, at: Timestamp) -> rusqlite::Result<Option<(i64, i64)>> {
    let floor = EventId::floor(at).to_bytes();
    let ends = rows::one(connection, ENDS, &[&org], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    let Some((mut low, last)) = ends else { return Ok(None) };
    let (mut high, mut first_from) = (last + 1, None);
    while low < high {
        let middle = low + (high - low) / 2;
        let found = rows::one(connection, FROM, &[&org, &middle], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, [u8; 16]>(1)?))
        })?;
        match found {
            Some((place, id)) if id < floor => low = place + 1,
            found => {
                high = middle;
                first_from = found.map(|(place, _)| place).or(first_from);
            }
        }
    }
    Ok(first_from.map(|first_from| (low - 1, first_from)))
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

/// What a walk meets.
pub(super) enum Met<'a, 'row> {
    /// An event of the organization: the columns of [`select_event`].
    Own(&'a Row<'row>),
    /// An event of another one: it costs time and is nobody's business here.
    Foreign(Place),
}

/// Shows events of one organization in a part of the log, newest first, until it is told to stop.
pub(super) fn events(
    connection: &Connection,
    org: i64,
    span: Span,
    by: By<'_>,
    mut meet: impl FnMut(Met<'_, '_>) -> Result<Go>,
) -> Result<Go> {
    if let By::Exception(state) = by {
        return steps(connection, BY_EXCEPTION, &[&org, &span.from, &span.upto, &state.as_str()], &mut meet);
    }
    let indexed_upto = Progress::read(connection)?.indexed_upto;
    if tail(connection, org, span.above(indexed_upto), &mut meet)?.is_break() {
        return Ok(Go::Break(()));
    }
    let Span { from, upto } = span.below(indexed_upto);
    match by {
        By::Type(event_type) => steps(connection, BY_TYPE, &[&org, &from, &upto, &event_type], &mut meet),
        _ => steps(connection, BY_ORG, &[&org, &from, &upto], &mut meet),
    }
}

/// The part that is not in the search tables yet.
pub(super) fn tail(
    connection: &Connection,
    org: i64,
    span: Span,
    meet: &mut impl FnMut(Met<'_, '_>) -> Result<Go>,
) -> Result<Go> {
    steps(connection, TAIL, &[&span.from, &span.upto], &mut |met| match met {
        Met::Own(row) if row.get::<_, i64>(1)? != org => {
            meet(Met::Foreign(Place::event(EventKey::from_seq(row.get(0)?))))
        }
        met => meet(met),
    })
}

fn steps(
    connection: &Connection,
    sql: &'static str,
    values: &[&dyn ToSql],
    meet: &mut impl FnMut(Met<'_, '_>) -> Result<Go>,
) -> Result<Go> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    while let Some(row) = rows.next()? {
        if meet(Met::Own(row))?.is_break() {
            return Ok(Go::Break(()));
        }
    }
    Ok(Go::Continue(()))
}
