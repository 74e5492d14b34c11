//! Stages an event inside the writer's transaction: duplicate, limit, row, and where each of its deliveries waits.

use std::collections::HashSet;
use std::sync::Arc;

use postroom_domain::{EventId, Timestamp};
use rusqlite::{OptionalExtension, params};

use super::batch::{Fresh, Turn};
use crate::engine::log::Exception;
use crate::engine::record::{Counting, Record};
use crate::receiver::Recorded;
use crate::sqlite::convert::{pack_targets, targets};
use crate::sqlite::exceptions;
use crate::sqlite::reads::activity::Happened;
use crate::worker::{DeliveryKey, EventKey, OrganizationKey, StoredEvent};
use crate::{Error, Result};

/// Appends to the base table and to the unique index of ids.
const INSERT: &str = "insert into event (seq, id, org, source, type, external_id, targets, headers, body) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

/// By primary key. The body is not touched.
const FIRST: &str = "select id, targets from event where seq = ?1";

/// The most waiting deliveries of one organization: above, its events are refused and nobody else's.
const WAITING_PER_ORGANIZATION: i64 = 1_000_000;

impl Turn<'_> {
    /// Stages one event. The inner result is its own answer; the outer one fails the whole transaction.
    pub(super) fn record(&mut self, record: Record) -> rusqlite::Result<Result<Recorded>> {
        if let Some(first) = self.duplicate(&record)? {
            return Ok(Ok(first));
        }
        if self.state.exceptions.waiting(record.org) >= WAITING_PER_ORGANIZATION {
            return Ok(Err(Error::Overloaded));
        }
        if let Err(refused) = self.count(&record)? {
            return Ok(Err(refused));
        }
        self.append(record).map(Ok)
    }

    /// Stages several events, or none: what may be refused is found out before the first is staged.
    pub(super) fn record_all(&mut self, records: Vec<Record>) -> rusqlite::Result<Vec<Result<Recorded>>> {
        let mut seen = HashSet::new();
        let mut fresh = Vec::with_capacity(records.len());
        for record in &records {
            let is_first = record.guard.is_none_or(|hash| seen.insert(hash));
            if is_first && self.duplicate(record)?.is_none() {
                fresh.push(record);
            }
        }
        if let Err(refused) = self.room(&fresh)? {
            return Ok(records.iter().map(|_| Err(refused.again())).collect());
        }
        records.into_iter().map(|record| self.record(record)).collect()
    }

    /// Whether all of these can be recorded now.
    fn room(&mut self, records: &[&Record]) -> rusqlite::Result<Result<()>> {
        let Some(first) = records.first() else { return Ok(Ok(())) };
        if self.state.exceptions.waiting(first.org) >= WAITING_PER_ORGANIZATION {
            return Ok(Err(Error::Overloaded));
        }
        let Counting::Upto(Some(limit)) = first.count else { return Ok(Ok(())) };
        let (_, counted, resets_at) = self.counted(first)?;
        let all = counted.saturating_add(u64::try_from(records.len()).unwrap_or(u64::MAX));
        Ok(if all > limit { Err(Error::LimitReached { limit, resets_at }) } else { Ok(()) })
    }

    /// The first event with this external id, if it was recorded within the window.
    fn duplicate(&self, record: &Record) -> rusqlite::Result<Option<Recorded>> {
        let Some(hash) = &record.guard else { return Ok(None) };
        let Some(seq) = self.guard_find(hash)? else { return Ok(None) };
        let first = self
            .connection
            .prepare_cached(FIRST)?
            .query_row([seq], |row| Ok((EventId::from_bytes(row.get(0)?), targets(row, 1)?.len())))
            .optional()?;
        let window = self.settings.dedupe_window;
        Ok(first.filter(|(id, _)| record.received_at.since(id.created_at()) < window).map(|(id, deliveries)| {
            Recorded { id, duplicate: true, deliveries: u32::try_from(deliveries).unwrap_or(u32::MAX) }
        }))
    }

    /// Counts the event for its month, or refuses it.
    fn count(&mut self, record: &Record) -> rusqlite::Result<Result<()>> {
        let Counting::Upto(limit) = record.count else { return Ok(Ok(())) };
        let (key, counted, resets_at) = self.counted(record)?;
        if let Some(limit) = limit.filter(|limit| counted >= *limit) {
            return Ok(Err(Error::LimitReached { limit, resets_at }));
        }
        self.batch.usage.insert(key, counted + 1);
        Ok(Ok(()))
    }

    /// What the month of an event is counted under, how many it has so far, and when it ends.
    fn counted(&mut self, record: &Record) -> rusqlite::Result<((i64, i64), u64, Timestamp)> {
        let (month, resets_at) = self.state.usage.month(record.received_at);
        let key = (record.org, month.as_millis());
        let counted = match self.batch.usage.get(&key) {
            Some(counted) => *counted,
            None => self.state.usage.get(self.connection, key.0, key.1)?,
        };
        Ok((key, counted, resets_at))
    }

    fn append(&mut self, record: Record) -> rusqlite::Result<Recorded> {
        let (seq, id) = (self.batch.next_seq, self.state.ids.next(self.now));
        self.batch.next_seq += 1;
        self.connection.prepare_cached(INSERT)?.execute(params![
            seq,
            id.to_bytes(),
            record.org,
            record.source,
            record.event_type.as_str(),
            record.external_id.as_ref().map(|id| id.as_str()),
            pack_targets(record.endpoints.iter().map(|endpoint| endpoint.0)),
            record.packed_headers,
            &*record.body,
        ])?;
        self.lacks(&record, seq);
        let deliveries = u32::try_from(record.endpoints.len()).unwrap_or(u32::MAX);
        self.hand_over(record, seq, id)?;
        Ok(Recorded { id, duplicate: false, deliveries })
    }

    /// Each delivery gets a place in memory, or waits as an exception.
    fn hand_over(&mut self, record: Record, seq: i64, id: EventId) -> rusqlite::Result<()> {
        let event = StoredEvent {
            key: EventKey::from_seq(seq),
            organization: OrganizationKey(record.org),
            id,
            event_type: record.event_type.to_string(),
            headers: record.headers,
            body: record.body,
        };
        let bytes = event.body.len();
        // In the batch before the first reservation: whatever fails from here on gives them back.
        self.batch.happened.push((record.org, Happened::Event(seq)));
        self.batch.fresh.push(Fresh {
            event: Arc::new(event),
            org: record.org,
            inbound: record.source.is_some(),
            memory: Vec::with_capacity(record.endpoints.len()),
        });
        for endpoint in record.endpoints {
            if self.settings.handoff.reserve(endpoint, bytes) {
                if let Some(fresh) = self.batch.fresh.last_mut() {
                    fresh.memory.push(endpoint);
                }
            } else {
                let delivery = DeliveryKey { event: EventKey::from_seq(seq), endpoint, run: 0 };
                let waiting = Exception::untried(record.org, self.now, self.now);
                exceptions::add(self.connection, &mut self.batch.effects, delivery, &waiting)?;
                self.batch.effects.wake(endpoint);
            }
        }
        Ok(())
    }
}
