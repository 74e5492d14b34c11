//! Deliveries as their owner sees them: not stored, but computed from event, exception, newest attempt, and from what
//! is under way right now.

use std::collections::HashMap;

use postroom_domain::delivery::{AttemptError, DeliveryStatus};
use postroom_domain::{AttemptId, DeliveryId, EndpointId, Timestamp};
use rusqlite::Row;

use super::event::{self, EventRow};
use crate::api::DeliveryView;
use crate::sqlite::connection::Connection;
use crate::sqlite::convert::{broken, moment, word_or_none};
use crate::sqlite::exceptions::{self, Exception};
use crate::sqlite::rows;
use crate::sqlite::writer::ExceptionState;
use crate::worker::{DeliveryKey, EndpointKey, EventKey};
use crate::{Error, Handoff, Result};

/// Index: attempt_by_event.
const NEWEST: &str = "select id, number, succeeded, status, error from attempt indexed by attempt_by_event \
     where event = ?1 and endpoint = ?2 and run = ?3 order by attempt desc limit 1";

/// By the unique index on (org, number).
const BY_NUMBER: &str = "select endpoint from endpoint where org = ?1 and number = ?2";

/// By primary key.
const ENDPOINT: &str = "select id, number from endpoint where endpoint = ?1";

/// By primary key.
const REPLAY: &str = "select created_at from replay where event = ?1 and endpoint = ?2 and run = ?3";

/// By primary key.
const REPLAYS: &str = "select endpoint, run, created_at from replay where event = ?1";

/// One run of an event's delivery to an endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) key: DeliveryKey,
    /// When its event was accepted, or the replay was asked for.
    pub(super) created_at: Timestamp,
}

/// All runs of an event, in the order of lists: the highest endpoint first, of one endpoint the newest run first.
pub(super) fn runs(connection: &Connection, event: &EventRow) -> Result<Vec<Run>> {
    let key =
        |endpoint, run| DeliveryKey { event: EventKey::from_seq(event.seq), endpoint: EndpointKey(endpoint), run };
    let mut runs = rows::all(connection, REPLAYS, &[&event.seq], |row| {
        Ok(Run { key: key(row.get(0)?, row.get(1)?), created_at: moment(row, 2)? })
    })?;
    let created_at = event.id.created_at();
    runs.extend(event.targets.iter().map(|endpoint| Run { key: key(*endpoint, 0), created_at }));
    runs.sort_unstable_by_key(|run| std::cmp::Reverse((run.key.endpoint, run.key.run)));
    Ok(runs)
}

/// One run of an event, if there is such a one.
pub(super) fn run(connection: &Connection, event: &EventRow, endpoint: i64, run: u16) -> Result<Option<Run>> {
    let created_at = if run > 0 {
        rows::one(connection, REPLAY, &[&event.seq, &endpoint, &run], |row| moment(row, 0))?
    } else {
        event.targets.contains(&endpoint).then(|| event.id.created_at())
    };
    let key = DeliveryKey { event: EventKey::from_seq(event.seq), endpoint: EndpointKey(endpoint), run };
    Ok(created_at.map(|created_at| Run { key, created_at }))
}

/// A delivery of the organization, taken apart.
pub(super) fn find(connection: &Connection, org: i64, id: DeliveryId) -> Result<(EventRow, Run)> {
    const UNKNOWN: Error = Error::NotFound { kind: "delivery" };
    let event = event::find(connection, org, id.event).map_err(|error| match error {
        Error::NotFound { .. } => UNKNOWN,
        other => other,
    })?;
    let read = |row: &Row<'_>| row.get::<_, i64>(0);
    let endpoint = rows::one(connection, BY_NUMBER, &[&org, &id.endpoint_number], read)?.ok_or(UNKNOWN)?;
    let run = run(connection, &event, endpoint, id.run)?.ok_or(UNKNOWN)?;
    Ok((event, run))
}

/// The key of a delivery of the organization.
pub(in crate::sqlite) fn key(connection: &Connection, org: i64, id: DeliveryId) -> Result<DeliveryKey> {
    find(connection, org, id).map(|(_, run)| run.key)
}

/// One delivery of the organization.
pub(in crate::sqlite) fn view(
    connection: &Connection,
    handoff: &dyn Handoff,
    org: i64,
    id: DeliveryId,
) -> Result<DeliveryView> {
    let (event, run) = find(connection, org, id)?;
    Viewer::new(connection, handoff).view(&event, run)
}

/// What is stored of how a delivery goes.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) exception: Option<Exception>,
    newest: Option<Newest>,
}

/// The newest attempt of a delivery.
#[derive(Debug)]
struct Newest {
    id: AttemptId,
    number: u32,
    succeeded: bool,
    status: Option<u16>,
    error: Option<AttemptError>,
}

impl Standing {
    pub(super) fn read(connection: &Connection, key: DeliveryKey) -> Result<Self> {
        let newest = rows::one(connection, NEWEST, &[&key.event.seq(), &key.endpoint.0, &key.run], |row| {
            Ok(Newest {
                id: AttemptId::from_bytes(row.get(0)?),
                number: row.get(1)?,
                succeeded: row.get(2)?,
                status: row.get(3)?,
                error: word_or_none(row, 4)?,
            })
        })?;
        Ok(Self { exception: exceptions::find(connection, key)?, newest })
    }

    /// Where the delivery stands.
    ///
    /// An exception that waits is `failed` once an attempt of its schedule failed, and `pending` before: also a dead
    /// letter that was requeued, and one whose only attempt we broke off ourselves. A delivery that is slow has an
    /// exception while its attempt goes on: `processing` wins. What is in memory and was not begun is `pending`.
    pub(super) fn status(&self, handoff: &dyn Handoff, key: DeliveryKey) -> DeliveryStatus {
        let waiting = match &self.exception {
            Some(exception) => match exception.state {
                ExceptionState::DeadLetter => return DeliveryStatus::DeadLetter,
                ExceptionState::Discarded => return DeliveryStatus::Discarded,
                ExceptionState::Waiting if exception.attempts_of_schedule > 0 => DeliveryStatus::Failed,
                ExceptionState::Waiting => DeliveryStatus::Pending,
            },
            None if self.newest.as_ref().is_some_and(|newest| newest.succeeded) => return DeliveryStatus::Success,
            None => DeliveryStatus::Pending,
        };
        if handoff.is_processing(key) { DeliveryStatus::Processing } else { waiting }
    }
}

/// Makes views of deliveries; looks each endpoint up once.
pub(super) struct Viewer<'a> {
    connection: &'a Connection,
    handoff: &'a dyn Handoff,
    endpoints: HashMap<EndpointKey, (EndpointId, u32)>,
}

impl<'a> Viewer<'a> {
    pub(super) fn new(connection: &'a Connection, handoff: &'a dyn Handoff) -> Self {
        Self { connection, handoff, endpoints: HashMap::new() }
    }

    pub(super) fn view(&mut self, event: &EventRow, run: Run) -> Result<DeliveryView> {
        let standing = Standing::read(self.connection, run.key)?;
        let status = standing.status(self.handoff, run.key);
        let (endpoint, endpoint_number) = self.endpoint(run.key.endpoint)?;
        let exception = standing.exception.as_ref();
        let newest = standing.newest.as_ref();
        let waits = matches!(status, DeliveryStatus::Pending | DeliveryStatus::Failed);
        let is_dead = status == DeliveryStatus::DeadLetter;
        let attempts = exception.map_or(0, |exception| exception.attempts);
        Ok(DeliveryView {
            id: DeliveryId { event: event.id, endpoint_number, run: run.key.run },
            event: event.id,
            event_type: event.event_type.clone(),
            endpoint,
            status,
            attempts: newest.map_or(0, |newest| newest.number).max(attempts),
            last_status: newest.and_then(|newest| newest.status),
            last_error: newest.and_then(|newest| newest.error),
            last_attempt_at: newest.map(|newest| newest.id.created_at()),
            next_attempt_at: exception.filter(|_| waits).map(|exception| exception.due_at),
            dead_reason: exception.filter(|_| is_dead).and_then(|exception| exception.reason),
            dead_at: exception.filter(|_| is_dead).map(|exception| exception.since),
            created_at: run.created_at,
        })
    }

    fn endpoint(&mut self, key: EndpointKey) -> Result<(EndpointId, u32)> {
        if let Some(known) = self.endpoints.get(&key) {
            return Ok(*known);
        }
        let read = |row: &Row<'_>| Ok((EndpointId::from_bytes(row.get(0)?), row.get(1)?));
        let found = rows::one(self.connection, ENDPOINT, &[&key.0], read)?
            .ok_or_else(|| broken(format!("endpoint {} has deliveries and no row", key.0)))?;
        self.endpoints.insert(key, found);
        Ok(found)
    }
}
