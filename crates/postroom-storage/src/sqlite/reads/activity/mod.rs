//! The live stream of an organization: events and attempts as they are committed, and what a reader missed before.

mod hub;
mod replay;

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream;
use rusqlite::OptionalExtension;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tracing::warn;

pub(in crate::sqlite) use hub::{Happened, Hub};

use super::attempt::{self, select_attempt};
use super::delivery::{self, Viewer};
use super::{People, event};
use crate::api::{Activity, ActivityId, ActivityStream};
use crate::sqlite::connection::Connection;
use crate::sqlite::grants::Part;
use crate::worker::{DeliveryKey, EventKey};
use crate::{Handoff, Result};

/// How many items are read from the database at once.
const AT_ONCE: usize = 64;

/// By primary key.
const ATTEMPT: &str = select_attempt!("from attempt where attempt = ?1 and org = ?2");

/// By primary key, from its end.
const NEWEST_EVENT: &str = "select seq from event order by seq desc limit 1";

/// By primary key, from its end.
const NEWEST_ATTEMPT: &str = "select attempt from attempt order by attempt desc limit 1";

/// How far a stream has come: everything up to these two rows was shown, or is somebody else's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::sqlite) struct Mark {
    pub(in crate::sqlite) event: i64,
    pub(in crate::sqlite) attempt: i64,
}

impl Mark {
    /// Where the log ends now.
    pub(in crate::sqlite) fn newest(connection: &Connection) -> rusqlite::Result<Self> {
        let newest = |sql: &'static str| {
            connection.query_row(sql, [], |row| row.get(0)).optional().map(Option::unwrap_or_default)
        };
        Ok(Self { event: newest(NEWEST_EVENT)?, attempt: newest(NEWEST_ATTEMPT)? })
    }

    /// Comes to a row; false if it was passed before.
    fn pass(&mut self, row: Happened) -> bool {
        let (mark, row) = match row {
            Happened::Event(row) => (&mut self.event, row),
            Happened::Attempt(row) => (&mut self.attempt, row),
        };
        let is_new = row > *mark;
        *mark = row.max(*mark);
        is_new
    }
}

impl From<ActivityId> for Mark {
    fn from(id: ActivityId) -> Self {
        let number = u128::from_be_bytes(id.0);
        let half = |number: u128| i64::try_from(number & u128::from(u64::MAX)).unwrap_or(i64::MAX);
        Self { event: half(number >> 64), attempt: half(number) }
    }
}

impl From<Mark> for ActivityId {
    fn from(mark: Mark) -> Self {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&mark.event.to_be_bytes());
        id[8..].copy_from_slice(&mark.attempt.to_be_bytes());
        Self(id)
    }
}

/// What a stream reads with. It does not keep the database open: closing ends the stream.
#[derive(Clone)]
pub(in crate::sqlite) struct Desk {
    pub(in crate::sqlite) people: People,
    pub(in crate::sqlite) handoff: Arc<dyn Handoff>,
    pub(in crate::sqlite) org: i64,
}

/// What happens in an organization: from now on, or behind `after`.
pub(in crate::sqlite) fn stream(desk: Desk, hub: &Hub, after: Option<ActivityId>) -> ActivityStream {
    // First the ear, then the look at what was before: nothing can fall between.
    let (live, newest) = hub.listen(desk.org);
    let (mark, behind) = match after.map(Mark::from) {
        Some(mark) => (mark, Some(replay::Behind::new(mark, newest))),
        None => (newest, None),
    };
    let walk = Walk { desk, live, mark, behind, ready: VecDeque::new() };
    Box::pin(stream::unfold(walk, |mut walk| async move { walk.next().await.map(|item| (item, walk)) }))
}

struct Walk {
    desk: Desk,
    live: broadcast::Receiver<Happened>,
    mark: Mark,
    /// What is still to be read from the log, before the live part.
    behind: Option<replay::Behind>,
    ready: VecDeque<(ActivityId, Activity)>,
}

impl Walk {
    async fn next(&mut self) -> Option<(ActivityId, Activity)> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            if let Some(behind) = self.behind.take() {
                self.catch_up(behind).await?;
                continue;
            }
            match self.live.recv().await {
                Ok(first) => self.gather(first).await?,
                Err(RecvError::Lagged(missed)) => return Some((self.mark.into(), Activity::Gap(Some(missed)))),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// One step through what was before.
    async fn catch_up(&mut self, behind: replay::Behind) -> Option<()> {
        if behind.is_cut() {
            self.ready.push_back((self.mark.into(), Activity::Gap(None)));
        }
        let handoff = self.desk.handoff.clone();
        let (org, mut mark) = (self.desk.org, behind.from());
        let read = self.desk.people.read(Part::Api, org, move |connection| {
            let step = replay::step(connection, org, mark)?;
            let items = show(connection, &*handoff, org, &mut mark, &step.rows)?;
            Ok((items, step))
        });
        let (items, step) = self.survive(read.await)?;
        self.ready.extend(items);
        self.mark = step.upto;
        self.behind = (!step.is_last).then(|| replay::Behind::going_on(step.upto));
        Some(())
    }

    /// Reads what was published, with what else is there by now.
    async fn gather(&mut self, first: Happened) -> Option<()> {
        let mut rows = vec![first];
        let mut missed = None;
        while rows.len() < AT_ONCE {
            match self.live.try_recv() {
                Ok(row) => rows.push(row),
                Err(TryRecvError::Lagged(count)) => {
                    missed = Some(count);
                    break;
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let handoff = self.desk.handoff.clone();
        let (org, mut mark) = (self.desk.org, self.mark);
        let read = self.desk.people.read(Part::Api, org, move |connection| {
            let items = show(connection, &*handoff, org, &mut mark, &rows)?;
            Ok((items, mark))
        });
        let (items, mark) = self.survive(read.await)?;
        self.ready.extend(items);
        self.mark = mark;
        if missed.is_some() {
            self.ready.push_back((self.mark.into(), Activity::Gap(missed)));
        }
        Some(())
    }

    /// A stream whose rows cannot be read ends: its reader comes back and resumes where it was.
    fn survive<T>(&self, read: Result<T>) -> Option<T> {
        read.inspect_err(|error| warn!(%error, "a live stream ends because the database cannot be read")).ok()
    }
}

/// The rows as their owner sees them. Rows that were shown before are left out, and so are rows that are gone.
fn show(
    connection: &Connection,
    handoff: &dyn Handoff,
    org: i64,
    mark: &mut Mark,
    rows: &[Happened],
) -> Result<Vec<(ActivityId, Activity)>> {
    let mut items = Vec::with_capacity(rows.len());
    let mut events = event::Viewer::new(connection);
    let mut deliveries = Viewer::new(connection, handoff);
    for row in rows {
        if !mark.pass(*row) {
            continue;
        }
        let activity = match *row {
            Happened::Event(seq) => show_event(connection, handoff, org, seq, &mut events)?,
            Happened::Attempt(attempt) => show_attempt(connection, org, attempt, &mut deliveries)?,
        };
        items.extend(activity.map(|activity| (ActivityId::from(*mark), activity)));
    }
    Ok(items)
}

fn show_event(
    connection: &Connection,
    handoff: &dyn Handoff,
    org: i64,
    seq: i64,
    viewer: &mut event::Viewer<'_>,
) -> Result<Option<Activity>> {
    let Some(event) = event::at(connection, org, seq)? else { return Ok(None) };
    let status = event::status(connection, handoff, &event)?;
    viewer.view(event, status).map(|view| Some(Activity::Event(view)))
}

fn show_attempt(connection: &Connection, org: i64, row: i64, viewer: &mut Viewer<'_>) -> Result<Option<Activity>> {
    let found = crate::sqlite::rows::one(connection, ATTEMPT, &[&row, &org], |row| {
        let endpoint = crate::worker::EndpointKey(row.get(9)?);
        Ok((attempt::read(row)?, DeliveryKey { event: EventKey::from_seq(row.get(8)?), endpoint, run: row.get(10)? }))
    })?;
    let Some((attempt, key)) = found else { return Ok(None) };
    let Some(event) = event::at(connection, org, key.event.seq())? else { return Ok(None) };
    let Some(run) = delivery::run(connection, &event, key.endpoint.0, key.run)? else { return Ok(None) };
    let view = viewer.view(&event, run)?;
    Ok(Some(Activity::Attempt(Box::new(view), Box::new(attempt))))
}
