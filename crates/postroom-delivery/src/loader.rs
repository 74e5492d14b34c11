//! Brings waiting rows back from storage when their time comes: retries, overflow, requeued dead letters, replays.
//!
//! Storage is the truth and reading takes nothing from it. What is kept here is only when to look at which endpoint:
//! from a walk over all endpoints that have waiting rows (at start, then every few seconds), from rows this process
//! wrote, and from storage's calls that something was moved. An endpoint with a million waiting rows is one entry.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use postroom_domain::{Clock, Timestamp};
use postroom_storage::worker::EndpointKey;
use postroom_storage::{Result, Worker};
use tokio_util::sync::CancellationToken;

use crate::lanes::{Job, Lanes, News};

/// Rows are read when they are due within this time.
const HORIZON: Duration = Duration::from_secs(10);
/// How often all endpoints with waiting rows are walked over; less often if that took long.
const WALK_EVERY: Duration = Duration::from_secs(5);
/// At most this part of the time is spent walking.
const WALK_SHARE: u32 = 20;
const WALK_PAGE: usize = 1000;
/// An endpoint that has enough to do is not looked at more often than this, whatever happens to its rows.
const LOOK_BUSY_EVERY: Duration = Duration::from_secs(1);
/// Any other not more often than this: many rows may be written one after the other.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// After storage failed.
const FAILED_WAIT: Duration = Duration::from_secs(2);
/// Endpoints read at the same time, and before looking up from it.
const LOADS_AT_ONCE: usize = 4;
const LOADS_IN_A_ROW: usize = 64;

pub(crate) struct Loader {
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) worker: Arc<dyn Worker>,
    pub(crate) clock: Clock,
}

impl Loader {
    /// Works until `stop`. What it was reading then is not waited for.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.work() => {}
        }
    }

    async fn work(&self) {
        let mut agenda = Agenda::default();
        let mut postponed = Agenda::default();
        let mut walk_at = Instant::now();
        loop {
            if Instant::now() >= walk_at {
                let start = Instant::now();
                self.walk(&mut agenda).await;
                self.lanes.sweep();
                walk_at = Instant::now() + WALK_EVERY.max(start.elapsed() * WALK_SHARE);
            }
            let now = self.clock.now();
            self.take_news(&mut agenda, &mut postponed, now);
            for endpoint in postponed.take_due(Instant::now(), usize::MAX) {
                agenda.look(endpoint, now);
            }
            for (endpoint, wait) in self.load_all(agenda.take_due(now, LOADS_IN_A_ROW)).await {
                postponed.look(endpoint, Instant::now() + wait);
            }
            let until_look = agenda.next().map(|at| at.since(self.clock.now()));
            let until =
                postponed.next().map_or(walk_at, |at| at.min(walk_at)).saturating_duration_since(Instant::now());
            tokio::select! {
                () = self.lanes.recheck.notified() => walk_at = Instant::now(),
                () = self.lanes.load.notified() => {}
                () = tokio::time::sleep(until_look.map_or(until, |look| look.min(until))) => {}
            }
        }
    }

    async fn walk(&self, agenda: &mut Agenda<Timestamp>) {
        let mut after = None;
        loop {
            let heads = match self.worker.pending_heads(after, WALK_PAGE).await {
                Ok(heads) => heads,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "waiting deliveries could not be looked up, trying again");
                    return;
                }
            };
            for (endpoint, due) in &heads {
                agenda.look(*endpoint, *due - HORIZON);
            }
            after = heads.last().map(|(endpoint, _)| *endpoint);
            if heads.len() < WALK_PAGE {
                return;
            }
        }
    }

    /// Puts what has come up on the agenda, or off if it was just looked at.
    fn take_news(&self, agenda: &mut Agenda<Timestamp>, postponed: &mut Agenda<Instant>, now: Timestamp) {
        let News { mut woken, hungry, noted } = self.lanes.news();
        for endpoint in hungry {
            agenda.look(endpoint, now);
        }
        for (endpoint, due) in noted {
            if due - HORIZON > now {
                agenda.look(endpoint, due - HORIZON);
            } else {
                woken.insert(endpoint);
            }
        }
        for endpoint in woken {
            let wait = |is_busy| if is_busy { LOOK_BUSY_EVERY } else { LOOK_EVERY };
            let until = self.lanes.loaded(endpoint).map(|(at, is_busy)| at + wait(is_busy));
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => postponed.look(endpoint, until),
                None => agenda.look(endpoint, now),
            }
        }
    }

    /// Reads the waiting rows of these endpoints; returns which to look at again, and after how long.
    async fn load_all(&self, endpoints: Vec<EndpointKey>) -> Vec<(EndpointKey, Duration)> {
        futures_util::stream::iter(endpoints)
            .map(|endpoint| async move { self.load(endpoint).await.map(|wait| (endpoint, wait)) })
            .buffer_unordered(LOADS_AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await
    }

    async fn load(&self, endpoint: EndpointKey) -> Option<Duration> {
        let busy = self.lanes.loaded(endpoint).filter(|(_, is_busy)| *is_busy);
        if let Some(wait) = busy.and_then(|(at, _)| LOOK_BUSY_EVERY.checked_sub(at.elapsed())) {
            return Some(wait);
        }
        let Some((limit, max_bytes)) = self.lanes.load_begin(endpoint) else { return Some(LOOK_BUSY_EVERY) };
        match self.read(endpoint, limit, max_bytes).await {
            Ok((rows, more)) => {
                self.lanes.load_end(endpoint, rows, more, self.clock.now());
                None
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "waiting deliveries could not be read, trying again");
                self.lanes.load_failed(endpoint);
                Some(FAILED_WAIT)
            }
        }
    }

    async fn read(
        &self,
        endpoint: EndpointKey,
        limit: usize,
        max_bytes: usize,
    ) -> Result<(Vec<(Timestamp, Job)>, bool)> {
        let rows = self.worker.pending_due(endpoint, self.clock.now() + HORIZON, limit, max_bytes).await?;
        let bytes: usize = rows.iter().map(|row| row.event.body.len()).sum();
        let more = rows.len() >= limit || bytes >= max_bytes;
        Ok((rows.into_iter().map(|row| (row.due_at, Job::from(row))).collect(), more))
    }
}

/// An error and what is behind it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// When to look at which endpoint: by the clock for what is due, by the runtime's time for what is put off.
#[derive(Debug)]
struct Agenda<T> {
    by_time: BTreeSet<(T, EndpointKey)>,
    of: HashMap<EndpointKey, T>,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), of: HashMap::new() }
    }
}

impl<T: Ord + Copy> Agenda<T> {
    /// Looks at an endpoint at this time, or earlier if that was planned.
    fn look(&mut self, endpoint: EndpointKey, at: T) {
        if let Some(planned) = self.of.get(&endpoint).copied() {
            if planned <= at {
                return;
            }
            self.by_time.remove(&(planned, endpoint));
        }
        self.of.insert(endpoint, at);
        self.by_time.insert((at, endpoint));
    }

    /// The endpoints to look at now, those planned first before the others.
    fn take_due(&mut self, now: T, limit: usize) -> Vec<EndpointKey> {
        let mut due = Vec::new();
        while let Some((_, endpoint)) = self.by_time.first().copied().filter(|(at, _)| *at <= now && due.len() < limit)
        {
            self.by_time.pop_first();
            self.of.remove(&endpoint);
            due.push(endpoint);
        }
        due
    }

    fn next(&self) -> Option<T> {
        self.by_time.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_one_place_on_the_agenda_and_it_only_moves_forward() {
        let mut agenda = Agenda::default();
        let [a, b] = [1, 2].map(EndpointKey::new);
        let at = Timestamp::from_seconds;
        agenda.look(a, at(30));
        agenda.look(b, at(20));
        agenda.look(a, at(10));
        agenda.look(a, at(40));
        assert_eq!(agenda.next(), Some(at(10)));
        assert_eq!(agenda.take_due(at(9), 10), []);
        assert_eq!(agenda.take_due(at(25), 1), [a]);
        assert_eq!(agenda.take_due(at(25), 1), [b]);
        assert_eq!(agenda.next(), None);
    }
}
