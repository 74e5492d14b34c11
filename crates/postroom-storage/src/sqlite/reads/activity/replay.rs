//! What a stream missed while its reader was away, from the log: in steps of rows, and not from further back than a
//! bound.

use postroom_domain::{EventId, Timestamp};

use super::{Happened, Mark};
use crate::Result;
use crate::sqlite::connection::Connection;
use crate::sqlite::convert::moment;
use crate::sqlite::rows;

/// How many rows of each kind, of all organizations, are looked at in one step.
const STEP: i64 = 200;
/// How many rows of each kind a stream goes back at most.
const BACK: i64 = 10_000;

/// By primary key. Bodies are not touched.
const EVENTS: &str = "select seq, org, id from event where seq > ?1 order by seq limit ?2";

/// By primary key. Answers are not touched.
const ATTEMPTS: &str = "select attempt, org, settled_at from attempt where attempt > ?1 order by attempt limit ?2";

/// What is still to be read.
pub(super) struct Behind {
    from: Mark,
    is_cut: bool,
}

impl Behind {
    /// From where a reader was last.
    pub(super) fn new(last: Mark, newest: Mark) -> Self {
        // A mark above the newest rows is from a database that was since replaced by an older one.
        let within = |last: i64, newest: i64| last.clamp(newest.saturating_sub(BACK), newest);
        let from = Mark { event: within(last.event, newest.event), attempt: within(last.attempt, newest.attempt) };
        Self { from, is_cut: from != last }
    }

    /// The next step.
    pub(super) fn going_on(from: Mark) -> Self {
        Self { from, is_cut: false }
    }

    /// Whether something further back is left out.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    pub(super) fn from(&self) -> Mark {
        self.from
    }
}

/// One step through the log.
pub(super) struct Step {
    /// Rows of the organization, in the order in which they were written as far as their times tell.
    pub(super) rows: Vec<Happened>,
    /// Where the next step begins.
    pub(super) upto: Mark,
    /// Whether the log ends here.
    pub(super) is_last: bool,
}

/// A row of whoever it is, and when it was written.
type Written = (Timestamp, i64, Happened);

/// Reads the next step behind `from`.
pub(super) fn step(connection: &Connection, org: i64, from: Mark) -> Result<Step> {
    let events: Vec<Written> = rows::all(connection, EVENTS, &[&from.event, &STEP], |row| {
        Ok((EventId::from_bytes(row.get(2)?).created_at(), row.get(1)?, Happened::Event(row.get(0)?)))
    })?;
    let attempts: Vec<Written> = rows::all(connection, ATTEMPTS, &[&from.attempt, &STEP], |row| {
        Ok((moment(row, 2)?, row.get(1)?, Happened::Attempt(row.get(0)?)))
    })?;
    let is_last = !is_full(&events) && !is_full(&attempts);
    let mut upto = from;
    let rows = merge(events, attempts).into_iter().inspect(|(_, _, row)| {
        upto.pass(*row);
    });
    let rows = rows.filter(|(_, owner, _)| *owner == org).map(|(_, _, row)| row).collect();
    Ok(Step { rows, upto, is_last })
}

fn is_full(rows: &[Written]) -> bool {
    i64::try_from(rows.len()).is_ok_and(|count| count >= STEP)
}

/// Both kinds by time. Where one kind was cut off at the bound, the other waits for its next step: else an attempt
/// could come before its event.
fn merge(events: Vec<Written>, attempts: Vec<Written>) -> Vec<Written> {
    let end = |rows: &[Written]| if is_full(rows) { rows.last().map(|row| row.0) } else { None };
    let end = [end(&events), end(&attempts)].into_iter().flatten().min();
    let (mut events, mut attempts) = (events.into_iter().peekable(), attempts.into_iter().peekable());
    let mut merged = Vec::new();
    loop {
        let next = match (events.peek(), attempts.peek()) {
            (Some(event), Some(attempt)) if attempt.0 < event.0 => attempts.next(),
            (Some(_), _) => events.next(),
            (None, _) => attempts.next(),
        };
        match next {
            Some(row) if end.is_none_or(|end| row.0 <= end) => merged.push(row),
            // With clocks that were set back no row may be before the end: then the first one makes the step.
            Some(row) if merged.is_empty() => merged.push(row),
            _ => return merged,
        }
    }
}
