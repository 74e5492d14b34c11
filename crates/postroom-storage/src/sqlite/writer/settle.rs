//! Stages how a delivery went: the attempt is appended, and what follows is written.

use postroom_domain::delivery::AttemptError;
use rusqlite::params;

use super::batch::Turn;
use crate::engine::log::{Exception, ExceptionState};
use crate::engine::record::Settle;
use crate::sqlite::exceptions;
use crate::sqlite::reads::activity::Happened;
use crate::worker::{Attempt, DeliveryKey, EventKey, Transition};

/// Appends to the base table and to index attempt_by_event, which ascends too.
const INSERT: &str = "insert into attempt (id, org, event, endpoint, run, number, succeeded, status, error, duration_ms, \
     settled_at, url, response_headers, response_body) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";

/// How many deliveries that are slow get a row of their own in one transaction.
const SLOW_AT_ONCE: usize = 500;

impl Turn<'_> {
    /// Stages one settlement. A fresh delivery that succeeded costs exactly the attempt's row.
    pub(super) fn settle(&mut self, settle: &Settle) -> rusqlite::Result<()> {
        if let Some((attempt, headers)) = &settle.attempt {
            self.append_attempt(settle, attempt, headers.as_deref())?;
        }
        let delivery = settle.delivery;
        let in_memory = delivery.run == 0 && self.state.outstanding.settle(delivery.event.seq(), delivery.endpoint);
        if in_memory {
            self.batch.settled.push((delivery.event.seq(), delivery.endpoint));
        }
        let before = if in_memory { None } else { exceptions::find(self.connection, delivery)? };
        let Some(after) = follow(settle, before.as_ref(), self.now) else {
            return match &before {
                Some(before) => exceptions::delete(self.connection, &mut self.batch.effects, delivery, before),
                None => Ok(()),
            };
        };
        let state = before.as_ref().map(|before| before.state);
        exceptions::put(self.connection, &mut self.batch.effects, delivery, state, &after)?;
        if after.state == ExceptionState::Waiting {
            self.batch.effects.wake(delivery.endpoint);
        }
        Ok(())
    }

    fn append_attempt(&mut self, settle: &Settle, attempt: &Attempt, headers: Option<&[u8]>) -> rusqlite::Result<()> {
        self.connection.prepare_cached(INSERT)?.execute(params![
            attempt.id.to_bytes(),
            settle.org,
            settle.delivery.event.seq(),
            settle.delivery.endpoint.0,
            settle.delivery.run,
            attempt.number,
            settle.next == Transition::Done,
            attempt.response.as_ref().map(|response| response.status),
            attempt.error.map(AttemptError::as_str),
            i64::try_from(attempt.duration.as_millis()).unwrap_or(i64::MAX),
            self.now.as_millis(),
            attempt.url,
            headers,
            attempt.response.as_ref().map(|response| &*response.body),
        ])?;
        self.batch.happened.push((settle.org, Happened::Attempt(self.connection.last_insert_rowid())));
        Ok(())
    }

    /// Deliveries that are in memory for too long get a row, so that the watermark moves. Whoever has them in memory
    /// goes on; the row is due only after an attempt that began now would have ended.
    pub(super) fn park_slow(&mut self) -> rusqlite::Result<()> {
        let before = self.now - self.settings.slow_after;
        let (before, now) = (before.as_millis(), self.now.as_millis());
        for (event, org, endpoint) in self.state.outstanding.older_than(before, now, SLOW_AT_ONCE) {
            let delivery = DeliveryKey { event: EventKey::from_seq(event), endpoint, run: 0 };
            let due_at = self.now + self.settings.attempt_timeout(endpoint);
            let waiting = Exception::untried(org, due_at, self.now);
            exceptions::put(self.connection, &mut self.batch.effects, delivery, None, &waiting)?;
            self.state.outstanding.settle(event, endpoint);
            self.batch.settled.push((event, endpoint));
            self.batch.effects.wake(endpoint);
        }
        Ok(())
    }
}

/// The exception a delivery has after a settlement; none when it needs none any more.
fn follow(settle: &Settle, before: Option<&Exception>, now: postroom_domain::Timestamp) -> Option<Exception> {
    let mut after = before.cloned().unwrap_or_else(|| Exception::untried(settle.org, now, now));
    after.attempts = after.attempts.max(settle.attempts);
    after.attempts_of_schedule = settle.attempts_of_schedule.unwrap_or(after.attempts_of_schedule);
    let ended = before.is_some_and(|before| before.state != ExceptionState::Waiting);
    match settle.next {
        // A success that comes late did happen, whatever was decided meanwhile.
        Transition::Done => return None,
        // A failure that comes late is logged, but brings nothing back that a person or a rule has ended.
        Transition::Wait(_) | Transition::Dead(_) if ended => {}
        Transition::Wait(due_at) => after.due_at = due_at,
        Transition::Dead(reason) => {
            after.state = ExceptionState::DeadLetter;
            after.reason = Some(reason);
            after.since = now;
        }
    }
    Some(after)
}
