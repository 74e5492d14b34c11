//! What is old goes, in steps of at most 500 rows inside the writer's transactions, so that nobody waits for it.
//!
//! An event goes with its attempts, replays, dead letters and what finds it. One that still has a waiting delivery
//! stays until that has ended, however old it is: a delivery ends as a success or where a person can see it.

use std::time::Duration;

use postroom_domain::{EventId, Timestamp};
use rusqlite::Row;

use super::connection::Connection;
use super::convert::targets;
use super::exceptions;
use super::rows;
use super::writer::{Effects, stored_hash};
use crate::Result;
use crate::engine::log::ExceptionState;
use crate::engine::people;
use crate::worker::{DeliveryKey, EndpointKey, EventKey};

/// The most rows one step deletes, but for an event with more deliveries than that.
const ROWS: usize = 500;
/// The most events one step looks at.
const LOOKED_AT: i64 = 200;
/// How long rejected requests are kept.
const REJECTIONS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long answers to repeated requests are kept.
const ANSWERS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// By the unique index on id: what an organization brought along that has moved here is older than its place in the log.
/// Nothing goes that a table behind the log has yet to learn of.
const OLDEST: &str = "select seq, org, type, targets, source, external_id, id from event \
     where id > ?1 and seq <= (select min(watermark, indexed_upto, guarded_upto) from progress) \
     order by id limit ?2";

/// By primary key: a walk over the log.
const ALL_OF: &str = "select seq, org, type, targets, source, external_id, id from event \
     where org = ?1 and seq > ?2 order by seq limit ?3";

/// By primary key.
const REPLAYS: &str = "select endpoint, run from replay where event = ?1";

/// Index: attempt_by_event.
const ATTEMPTS: &str = "delete from attempt where attempt in \
     (select attempt from attempt indexed by attempt_by_event where event = ?1)";

/// By primary keys.
const PIECES: [&str; 4] = [
    "delete from event where seq = ?1",
    "delete from replay where event = ?1",
    "delete from event_by_org where org = ?2 and seq = ?1",
    "delete from event_by_type where org = ?2 and type = ?3 and seq = ?1",
];

/// By primary key.
const LISTED: &str = "delete from delivery_by_endpoint where endpoint = ?1 and event = ?2";

/// By primary key. A newer event with the same id keeps its own.
const GUARD: &str = "delete from duplicate_guard where hash = ?1 and event = ?2";

/// By primary key, its oldest end: the order of arrival is that of time, as near as it matters.
const REJECTIONS: &str = "delete from rejection where received_at < ?1 and seq in \
     (select seq from rejection order by seq limit ?2)";

/// Index: idempotency_by_age.
const ANSWERS: &str = "delete from idempotency where (org, key) in \
     (select org, key from idempotency indexed by idempotency_by_age where claimed_at < ?1 limit ?2)";

/// Indexes: sign_in_token_by_end, session_by_end, mail_by_end.
const OF_PEOPLE: [&str; 3] = [
    "delete from sign_in_token where hash in (select hash from sign_in_token where expires_at <= ?1 limit ?2)",
    "delete from session where id in (select id from session where expires_at <= ?1 limit ?2)",
    "delete from mail where mail in (select mail from mail where expires_at <= ?1 limit ?2)",
];

/// Index: source_secret_by_end.
const SOURCE_SECRETS: &str = "update source_secret set value = null \
     where expires_at <= ?1 and expires_at is not null and value is not null";

/// Index: endpoint_secret_by_end.
const ENDPOINT_SECRETS: &str = "update endpoint_secret set value = null \
     where expires_at <= ?1 and expires_at is not null and value is not null";

/// How far a walk over old events has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// The last event looked at; none when the walk begins anew.
    pub(super) after: Option<EventId>,
    /// Whether there is more to do now.
    pub(super) more: bool,
}

/// One step over events older than `kept`, from where the step before ended.
pub(super) fn events(
    connection: &Connection,
    effects: &mut Effects,
    after: Option<EventId>,
    kept: Duration,
    now: Timestamp,
) -> Result<Step> {
    let end = EventId::floor(now - kept);
    let from = after.map_or([0; 16], EventId::to_bytes);
    let old = rows::all(connection, OLDEST, &[&from, &LOOKED_AT], Old::read)?;
    let (mut deleted, mut last) = (0, after);
    for event in &old {
        if event.id >= end {
            return Ok(Step { after: None, more: false });
        }
        if deleted >= ROWS {
            return Ok(Step { after: last, more: true });
        }
        last = Some(event.id);
        deleted += event.delete(connection, effects)?;
    }
    // A whole page was old: there may be more of it. Less than one: the log ends here.
    let more = i64::try_from(old.len()).unwrap_or(0) == LOOKED_AT;
    Ok(Step { after: last.filter(|_| more), more })
}

/// One step over all events of an organization that lives elsewhere now, and has nothing here that waits. Returns where
/// the next one begins.
pub(super) fn forget(connection: &Connection, org: i64, after: i64) -> rusqlite::Result<Option<i64>> {
    let events = rows::all(connection, ALL_OF, &[&org, &after, &LOOKED_AT], Old::read)?;
    for event in &events {
        // Nobody counts and nobody listens.
        event.delete(connection, &mut Effects::default())?;
    }
    Ok(events.last().map(|event| event.seq))
}

/// One step over everything else of which rows are kept for a time. Returns whether there is more to do.
pub(super) fn rest(connection: &Connection, now: Timestamp) -> Result<bool> {
    let limit = i64::try_from(ROWS).unwrap_or(i64::MAX);
    let before = |kept: Duration| (now - kept).as_millis();
    let rejections = connection.prepare_cached(REJECTIONS)?.execute((before(REJECTIONS_KEPT), limit))?;
    let answers = connection.prepare_cached(ANSWERS)?.execute((before(ANSWERS_KEPT), limit))?;
    let mut more = rejections >= ROWS || answers >= ROWS;
    for sql in OF_PEOPLE {
        more |= connection.prepare_cached(sql)?.execute((before(people::KEPT), limit))? >= ROWS;
    }
    Ok(more)
}

/// Erases secrets that have ended.
pub(super) fn secrets(connection: &Connection, now: Timestamp) -> Result<()> {
    connection.prepare_cached(SOURCE_SECRETS)?.execute([now.as_millis()])?;
    connection.prepare_cached(ENDPOINT_SECRETS)?.execute([now.as_millis()])?;
    Ok(())
}

/// An event whose time may have come.
struct Old {
    seq: i64,
    id: EventId,
    org: i64,
    event_type: String,
    targets: Vec<i64>,
    hash: Option<[u8; 16]>,
}

impl Old {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: row.get(0)?,
            id: EventId::from_bytes(row.get(6)?),
            org: row.get(1)?,
            event_type: row.get(2)?,
            targets: targets(row, 3)?,
            hash: stored_hash(row)?,
        })
    }

    /// Deletes the event and all that is of it, unless a delivery waits. Returns how many rows went.
    fn delete(&self, connection: &Connection, effects: &mut Effects) -> rusqlite::Result<usize> {
        let runs = rows::all(connection, REPLAYS, &[&self.seq], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let originals = self.targets.iter().map(|endpoint| (*endpoint, 0));
        let mut found = Vec::new();
        for (endpoint, run) in originals.chain(runs) {
            let delivery = DeliveryKey { event: EventKey::from_seq(self.seq), endpoint: EndpointKey(endpoint), run };
            match exceptions::find(connection, delivery)? {
                Some(waiting) if waiting.state == ExceptionState::Waiting => return Ok(0),
                exception => found.push((delivery, exception)),
            }
        }
        let mut deleted = connection.prepare_cached(ATTEMPTS)?.execute([self.seq])?;
        for (delivery, exception) in found {
            if let Some(exception) = exception {
                exceptions::delete(connection, effects, delivery, &exception)?;
                deleted += 1;
            }
            deleted += connection.prepare_cached(LISTED)?.execute((delivery.endpoint.0, self.seq))?;
        }
        let values: [&dyn rusqlite::ToSql; 3] = [&self.seq, &self.org, &self.event_type];
        for sql in PIECES {
            let mut statement = connection.prepare_cached(sql)?;
            let used = statement.parameter_count();
            deleted += statement.execute(values.get(..used).unwrap_or(&values))?;
        }
        if let Some(hash) = &self.hash {
            deleted += connection.prepare_cached(GUARD)?.execute((hash, self.seq))?;
        }
        Ok(deleted)
    }
}
