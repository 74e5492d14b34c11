//! The live stream of an organization: events and attempts of all nodes in the order of their transactions, and what a
//! reader missed before.
//!
//! Every row carries the transaction that wrote it. Transactions below the oldest one that is still running will not
//! become more, so what lies between two such horizons is complete: one poller per process reads it for all streams
//! ([`poller`]), and nothing is shown twice or left out. Within a transaction events come before attempts, each by id.

mod poller;
mod replay;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use futures_util::stream;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tracing::warn;
use uuid::Uuid;

pub(in crate::postgres) use self::poller::Hub;
use self::poller::Snapshot;
use self::replay::Behind;
use super::Desk;
use super::attempts::{self, select_attempt};
use super::log::key;
use crate::api::{Activity, ActivityId, ActivityStream, AttemptView, EventView};
use crate::engine::log::{EventRow, Run};
use crate::postgres::convert::get;
use crate::postgres::pool::bind;
use crate::postgres::{Engine, Postgres};
use crate::worker::{DeliveryKey, EventKey};
use crate::{Result, Scope};

/// How many items are read from the database at once.
const AT_ONCE: usize = 64;

/// By primary key.
const ATTEMPTS: &str = select_attempt!(
    "from unnest($2, $3, $4, $5) as wanted (endpoint, event, run, id) \
     join attempts on attempts.org = $1 and attempts.endpoint = wanted.endpoint and attempts.event = wanted.event \
       and attempts.run = wanted.run and attempts.id = wanted.id"
);

/// A place in the stream: a transaction, and a row's number among those that it wrote for the organization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Mark {
    tx: i64,
    number: u64,
}

impl Mark {
    /// Behind everything that was written before a transaction.
    fn before(tx: i64) -> Self {
        Self { tx: tx.saturating_sub(1), number: u64::MAX }
    }
}

impl From<ActivityId> for Mark {
    fn from(id: ActivityId) -> Self {
        let number = u128::from_be_bytes(id.0);
        let half = |number: u128| u64::try_from(number & u128::from(u64::MAX)).unwrap_or(u64::MAX);
        Self { tx: i64::try_from(half(number >> 64)).unwrap_or(i64::MAX), number: half(number) }
    }
}

impl From<Mark> for ActivityId {
    fn from(mark: Mark) -> Self {
        Self((u128::from(mark.tx.cast_unsigned()) << 64 | u128::from(mark.number)).to_be_bytes())
    }
}

/// A row that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happened {
    Event(EventKey),
    Attempt(Uuid, DeliveryKey),
    /// More than a stream shows: who moves a log from one database to another writes so much at once.
    Flood,
}

/// A row, and where it stands.
type Item = (Mark, Happened);

/// Rows of one organization, each with its place.
fn placed(mut rows: Vec<(i64, Happened)>) -> Vec<Item> {
    /// Attempts are counted from here on, so that their numbers do not change when events go.
    const ATTEMPTS: u64 = 1 << 32;
    rows.sort_unstable();
    let mut counted = (i64::MIN, 0, ATTEMPTS);
    let place = |(tx, row)| {
        if counted.0 != tx {
            counted = (tx, 0, ATTEMPTS);
        }
        let count = match row {
            Happened::Event(_) => &mut counted.1,
            Happened::Attempt(..) => &mut counted.2,
            Happened::Flood => return (Mark { tx, number: u64::MAX }, row),
        };
        *count += 1;
        (Mark { tx, number: *count }, row)
    };
    rows.into_iter().map(place).collect()
}

impl Postgres {
    pub(in crate::postgres) async fn activity(
        &self,
        scope: &Scope,
        after: Option<ActivityId>,
    ) -> Result<ActivityStream> {
        let hub = &self.0.hub;
        // First the ear, then the look at what was before: nothing can fall between.
        let live = hub.listen(scope.org);
        let began = Snapshot::take(&self.0.pools.api).await?;
        if hub.begin(began.horizon) {
            poller::start(hub.clone(), Arc::downgrade(&self.0), self.0.stop.clone());
        }
        let mut walk = Walk::new(Arc::downgrade(&self.0), scope.org, live, began);
        if let Some(after) = after {
            walk.go_back(self, after.into()).await?;
        }
        Ok(Box::pin(stream::unfold(walk, |mut walk| async move { walk.next().await.map(|item| (item, walk)) })))
    }
}

struct Walk {
    /// Does not keep the database open: closing ends the stream.
    engine: Weak<Engine>,
    org: i64,
    live: broadcast::Receiver<Item>,
    /// The item shown last.
    mark: Mark,
    /// Where the live part begins.
    start: Mark,
    /// What could be seen when the stream began is not shown.
    began: Option<Snapshot>,
    /// What is still to be read from the log, before the live part.
    behind: Option<Behind>,
    /// Rows to read.
    known: VecDeque<Item>,
    /// Behind them something is missing: how much, if that is known.
    missed: Option<Option<u64>>,
    ready: VecDeque<(ActivityId, Activity)>,
}

impl Walk {
    fn new(engine: Weak<Engine>, org: i64, live: broadcast::Receiver<Item>, began: Snapshot) -> Self {
        let start = Mark::before(began.horizon);
        Self {
            engine,
            org,
            live,
            mark: start,
            start,
            began: Some(began),
            behind: None,
            known: VecDeque::new(),
            missed: None,
            ready: VecDeque::new(),
        }
    }

    /// Begins behind an item that was shown before.
    async fn go_back(&mut self, engine: &Postgres, after: Mark) -> Result<()> {
        if after > self.start {
            // It is from a database that was since replaced by an older one.
            self.missed = Some(None);
            return Ok(());
        }
        let Some(began) = self.began.take() else { return Ok(()) };
        let behind = Behind::new(engine, after, began.horizon).await?;
        self.mark = after;
        self.missed = behind.is_cut().then_some(None);
        self.behind = Some(behind);
        Ok(())
    }

    async fn next(&mut self) -> Option<(ActivityId, Activity)> {
        loop {
            if let Some((id, activity)) = self.ready.pop_front() {
                self.mark = id.into();
                return Some((id, activity));
            }
            if !self.known.is_empty() {
                self.show().await?;
            } else if let Some(missed) = self.missed.take() {
                return Some((self.mark.into(), Activity::Gap(missed)));
            } else if let Some(behind) = self.behind.take() {
                let step = behind.step(&self.engine()?, self.org).await;
                let (items, behind) = survive(step)?;
                items.into_iter().for_each(|item| self.take(item));
                self.behind = behind;
            } else {
                match self.live.recv().await {
                    Ok(first) => self.gather(first),
                    Err(RecvError::Lagged(missed)) => self.missed = Some(Some(missed)),
                    Err(RecvError::Closed) => return None,
                }
            }
        }
    }

    fn engine(&self) -> Option<Postgres> {
        self.engine.upgrade().map(Postgres)
    }

    fn take(&mut self, (mark, row): Item) {
        match row {
            Happened::Flood => self.missed = Some(None),
            _ => self.known.push_back((mark, row)),
        }
    }

    /// What was published, with what else is there by now.
    fn gather(&mut self, first: Item) {
        let mut next = Ok(first);
        while let Ok((mark, row)) = next {
            let last = self.known.back().map_or(self.mark, |(mark, _)| *mark).max(self.start);
            let was_there = self.began.as_ref().is_some_and(|began| began.sees(mark.tx));
            if mark > last && !was_there {
                self.take((mark, row));
            }
            if self.known.len() >= AT_ONCE || self.missed.is_some() {
                return;
            }
            next = self.live.try_recv();
        }
        if let Err(TryRecvError::Lagged(missed)) = next {
            self.missed = Some(Some(missed));
        }
    }

    /// Reads the first of the known rows.
    async fn show(&mut self) -> Option<()> {
        let rows: Vec<Item> = self.known.drain(..self.known.len().min(AT_ONCE)).collect();
        let shown = show(&self.engine()?, self.org, &rows).await;
        self.ready.extend(survive(shown)?);
        Some(())
    }
}

/// A stream whose rows cannot be read ends: its reader comes back and resumes where it was.
fn survive<T>(read: Result<T>) -> Option<T> {
    read.inspect_err(|error| warn!(%error, "a live stream ends because the database cannot be read")).ok()
}

/// The rows as their owner sees them. Rows that are gone are left out.
async fn show(engine: &Postgres, org: i64, rows: &[Item]) -> Result<Vec<(ActivityId, Activity)>> {
    let desk = engine.read_at(&engine.0.pools.api, org).await?;
    let shown = desk.show(rows).await;
    desk.end(shown).await
}

impl Desk {
    async fn show(&self, rows: &[Item]) -> Result<Vec<(ActivityId, Activity)>> {
        let keys = rows.iter().filter_map(|(_, row)| match row {
            Happened::Event(key) => Some(*key),
            Happened::Attempt(_, delivery) => Some(delivery.event),
            Happened::Flood => None,
        });
        let events = self.events_at(&keys.collect::<Vec<_>>()).await?;
        let mut event_views = self.show_events(rows, &events).await?;
        let mut attempts = self.show_attempts(rows, &events).await?;
        let mut activity = |row: &Happened| match row {
            Happened::Event(key) => event_views.remove(key).map(Activity::Event),
            Happened::Attempt(id, _) => attempts.remove(id),
            Happened::Flood => None,
        };
        Ok(rows.iter().filter_map(|(mark, row)| Some(((*mark).into(), activity(row)?))).collect())
    }

    async fn show_events(
        &self,
        rows: &[Item],
        events: &HashMap<EventKey, EventRow>,
    ) -> Result<HashMap<EventKey, EventView>> {
        let shown = rows.iter().filter_map(|(_, row)| match row {
            Happened::Event(key) => events.get(key).cloned(),
            _ => None,
        });
        let shown: Vec<EventRow> = shown.collect();
        let statuses = self.statuses(&shown).await?;
        let views = self.event_views(shown.into_iter().zip(statuses).collect()).await?;
        Ok(views.into_iter().map(|view| (key(view.id), view)).collect())
    }

    /// Attempts by their ids, each with its delivery as it stands now.
    async fn show_attempts(
        &self,
        rows: &[Item],
        events: &HashMap<EventKey, EventRow>,
    ) -> Result<HashMap<Uuid, Activity>> {
        let of = |row: &Happened| match row {
            Happened::Attempt(id, delivery) => Some((*id, *delivery)),
            _ => None,
        };
        let wanted: Vec<(Uuid, DeliveryKey)> = rows.iter().filter_map(|(_, row)| of(row)).collect();
        if wanted.is_empty() {
            return Ok(HashMap::new());
        }
        let mut attempts = self.attempts_at(&wanted).await?;
        let runs = self.runs(events.values()).await?;
        let runs: HashMap<DeliveryKey, Run> = runs.into_iter().flatten().map(|run| (run.key, run)).collect();
        let known = |(id, key): &(Uuid, DeliveryKey)| {
            let of = (events.get(&key.event)?, runs.get(key)?.clone());
            attempts.remove(id).map(|attempt| (*id, of, attempt))
        };
        let known: Vec<_> = wanted.iter().filter_map(known).collect();
        let views = self.delivery_views(known.iter().map(|(_, of, _)| of.clone())).await?;
        let shown = known
            .into_iter()
            .zip(views)
            .map(|((id, _, attempt), view)| (id, Activity::Attempt(Box::new(view), Box::new(attempt))));
        Ok(shown.collect())
    }

    async fn attempts_at(&self, wanted: &[(Uuid, DeliveryKey)]) -> Result<HashMap<Uuid, AttemptView>> {
        let endpoints: Vec<i64> = wanted.iter().map(|(_, key)| key.endpoint.0).collect();
        let events: Vec<Uuid> = wanted.iter().map(|(_, key)| key.event.uuid()).collect();
        let runs: Vec<i32> = wanted.iter().map(|(_, key)| i32::from(key.run)).collect();
        let ids: Vec<Uuid> = wanted.iter().map(|(id, _)| *id).collect();
        let rows = self.transaction.query(ATTEMPTS, bind![self.org, endpoints, events, runs, ids]).await?;
        rows.iter().map(|row| Ok((get(row, 0)?, attempts::read(row)?))).collect()
    }
}
