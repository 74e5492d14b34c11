//! The way to the writer: three kinds of commands on one channel, each with a bound of its own.
//!
//! Events are refused at their bound ([`Error::Overloaded`]): their sender tries again. Settlements and jobs wait at
//! theirs: a worker that cannot record outcomes must not make more of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use bytes::Bytes;
use postroom_domain::Timestamp;
use postroom_domain::event::{EventType, ExternalId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::effects::Effects;
use crate::receiver::Recorded;
use crate::sqlite::connection::Connection;
use crate::sqlite::grants::Part;
use crate::worker::{Attempt, DeliveryKey, EndpointKey, Transition};
use crate::{Error, Result};

/// The most events waiting for the writer.
const EVENTS: usize = 8_192;
/// The most bytes of events waiting for the writer.
const EVENT_BYTES: usize = 32 << 20;
/// The most settlements waiting for the writer; a large one counts as one for each 4 KiB.
const SETTLEMENTS: usize = 10_000;
/// The most other jobs waiting for the writer.
const JOBS: usize = 1_024;

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T>>;

/// What the writer is asked to do.
pub(super) enum Command {
    /// Append an event.
    Record { record: Box<Record>, reply: Reply<Recorded>, _place: Place },
    /// Append an attempt, or move a delivery.
    Settle { settle: Box<Settle>, reply: Reply<()>, _permit: OwnedSemaphorePermit },
    /// Anything else that writes, as a part may.
    Job { part: Part, job: Box<dyn Job>, _permit: Option<OwnedSemaphorePermit> },
    /// Finish what is queued, and end.
    Close(oneshot::Sender<()>),
}

/// An event to record, its deliveries resolved.
pub(in crate::sqlite) struct Record {
    pub(in crate::sqlite) org: i64,
    pub(in crate::sqlite) source: Option<i64>,
    pub(in crate::sqlite) event_type: EventType,
    pub(in crate::sqlite) external_id: Option<ExternalId>,
    /// What the external id is recognised by.
    pub(in crate::sqlite) guard: Option<[u8; 16]>,
    pub(in crate::sqlite) headers: Vec<(String, String)>,
    /// The same, as stored.
    pub(in crate::sqlite) packed_headers: Vec<u8>,
    pub(in crate::sqlite) body: Bytes,
    pub(in crate::sqlite) endpoints: Vec<EndpointKey>,
    /// The limit of the calendar month, if the event counts for it.
    pub(in crate::sqlite) count: Counting,
    pub(in crate::sqlite) received_at: Timestamp,
}

/// Whether an event counts for its organization's calendar month.
#[derive(Debug, Clone, Copy)]
pub(in crate::sqlite) enum Counting {
    /// It does not: an endpoint's test.
    Free,
    /// It does, and is refused above the limit; none is unlimited.
    Upto(Option<u64>),
}

/// How a delivery went, or where it moves without an attempt.
pub(in crate::sqlite) struct Settle {
    pub(in crate::sqlite) delivery: DeliveryKey,
    pub(in crate::sqlite) org: i64,
    /// The attempt and its response headers as stored.
    pub(in crate::sqlite) attempt: Option<(Attempt, Option<Vec<u8>>)>,
    /// Attempts so far.
    pub(in crate::sqlite) attempts: u32,
    /// Attempts of the schedule so far; none leaves the number as it is.
    pub(in crate::sqlite) attempts_of_schedule: Option<u32>,
    pub(in crate::sqlite) next: Transition,
}

impl Settle {
    /// Bytes it keeps in memory, most of them.
    pub(super) fn bytes(&self) -> usize {
        self.attempt.as_ref().and_then(|(attempt, _)| attempt.response.as_ref()).map_or(0, |r| r.body.len())
    }

    fn weight(&self) -> u32 {
        1 + u32::try_from(self.bytes() / 4096).unwrap_or(u32::MAX).min(1_000)
    }
}

/// A transaction of its own inside the writer's: it is undone alone when it fails, and answered when all is committed.
pub(super) trait Job: Send {
    /// Does it. On an error that is the job's own, what it did is undone.
    fn run(&mut self, connection: &mut Connection, effects: &mut Effects) -> JobEnd;
    /// All is committed.
    fn committed(self: Box<Self>);
    /// Nothing of it is stored.
    fn failed(self: Box<Self>, error: Error);
}

/// How a job ended.
pub(super) enum JobEnd {
    /// Keep what it did.
    Keep,
    /// Undo it; the job answers by itself.
    Undo,
}

struct Call<F, T> {
    call: Option<F>,
    result: Option<Result<T>>,
    reply: Reply<T>,
}

impl<F, T> Job for Call<F, T>
where
    F: FnOnce(&mut Connection, &mut Effects) -> Result<T> + Send,
    T: Send,
{
    fn run(&mut self, connection: &mut Connection, effects: &mut Effects) -> JobEnd {
        let Some(call) = self.call.take() else { return JobEnd::Undo };
        // A fault in one request's transaction is that request's: it must not take the writer with it.
        let result = catch_unwind(AssertUnwindSafe(|| call(connection, effects)))
            .unwrap_or_else(|_| Err(Error::Internal("a transaction panicked".into())));
        let end = if result.is_ok() { JobEnd::Keep } else { JobEnd::Undo };
        self.result = Some(result);
        end
    }

    fn committed(self: Box<Self>) {
        if let Some(result) = self.result {
            let _caller_gone = self.reply.send(result);
        }
    }

    fn failed(self: Box<Self>, error: Error) {
        let _caller_gone = self.reply.send(Err(error));
    }
}

/// Counts what waits and keeps it below the bounds.
#[derive(Debug, Default)]
struct Waiting {
    events: AtomicUsize,
    bytes: AtomicUsize,
}

/// One event's place in the queue; given back when dropped.
pub(super) struct Place {
    waiting: Arc<Waiting>,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.events.fetch_sub(1, Ordering::Relaxed);
        self.waiting.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The callers' end of the queue.
pub(in crate::sqlite) struct Queue {
    sender: Sender<Command>,
    waiting: Arc<Waiting>,
    settlements: Arc<Semaphore>,
    jobs: Arc<Semaphore>,
}

impl Queue {
    pub(super) fn new(sender: Sender<Command>) -> Self {
        Self {
            sender,
            waiting: Arc::default(),
            settlements: Arc::new(Semaphore::new(SETTLEMENTS)),
            jobs: Arc::new(Semaphore::new(JOBS)),
        }
    }

    /// Events waiting now.
    pub(in crate::sqlite) fn events(&self) -> usize {
        self.waiting.events.load(Ordering::Relaxed)
    }

    /// Settlements waiting now, the large ones counted more than once.
    pub(in crate::sqlite) fn settlements(&self) -> usize {
        SETTLEMENTS.saturating_sub(self.settlements.available_permits())
    }

    fn place(&self, bytes: usize) -> Result<Place> {
        let place = Place { waiting: self.waiting.clone(), bytes };
        let events = self.waiting.events.fetch_add(1, Ordering::Relaxed);
        let waiting = self.waiting.bytes.fetch_add(bytes, Ordering::Relaxed);
        // One event always fits into an empty queue, whatever its size.
        let full = events >= EVENTS || (events > 0 && waiting + bytes > EVENT_BYTES);
        if full { Err(Error::Overloaded) } else { Ok(place) }
    }

    /// Appends an event; resolves when it is durable.
    pub(in crate::sqlite) async fn record(&self, record: Box<Record>) -> Result<Recorded> {
        let place = self.place(record.body.len() + record.packed_headers.len() + 512)?;
        let (reply, answer) = oneshot::channel();
        self.send(Command::Record { record, reply, _place: place })?;
        answer.await.map_err(gone)?
    }

    /// Appends an attempt or moves a delivery; resolves when it is durable.
    pub(in crate::sqlite) async fn settle(&self, settle: Box<Settle>) -> Result<()> {
        let permit = self.settlements.clone().acquire_many_owned(settle.weight()).await.map_err(gone)?;
        let (reply, answer) = oneshot::channel();
        self.send(Command::Settle { settle, reply, _permit: permit })?;
        answer.await.map_err(gone)?
    }

    /// Runs a job in the writer's next transaction; resolves when it is durable.
    pub(in crate::sqlite) async fn run<T, F>(&self, part: Part, call: F) -> Result<T>
    where
        F: FnOnce(&mut Connection, &mut Effects) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let permit = self.jobs.clone().acquire_owned().await.map_err(gone)?;
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Call { call: Some(call), result: None, reply });
        self.send(Command::Job { part, job, _permit: Some(permit) })?;
        answer.await.map_err(gone)?
    }

    /// Runs a job that nobody waits for, if there is room.
    pub(in crate::sqlite) fn post<F>(&self, part: Part, call: F)
    where
        F: FnOnce(&mut Connection, &mut Effects) -> Result<()> + Send + 'static,
    {
        let Ok(permit) = self.jobs.clone().try_acquire_owned() else { return };
        let (reply, _nobody) = oneshot::channel();
        let job = Box::new(Call { call: Some(call), result: None, reply });
        let _closing = self.send(Command::Job { part, job, _permit: Some(permit) });
    }

    /// Finishes what is queued and ends the writer.
    pub(in crate::sqlite) async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.send(Command::Close(reply)).is_ok() {
            let _ended_already = done.await;
        }
    }

    /// As [`Self::close`], for who cannot wait.
    pub(super) fn close_now(&self) {
        let _ended_already = self.send(Command::Close(oneshot::channel().0));
    }

    fn send(&self, command: Command) -> Result<()> {
        self.sender.send(command).map_err(|_| gone("the writer has ended"))
    }
}

/// The writer is gone: the database was closed.
fn gone(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Unavailable(error.into())
}
