//! The way to the writer: three kinds of commands on one channel, each with a bound of its own.
//!
//! Events are refused at their bound ([`Error::Overloaded`]): their sender tries again. Settlements and jobs wait at
//! theirs: a worker that cannot record outcomes must not make more of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::effects::Effects;
use crate::engine::places::{Place, Places};
use crate::engine::record::{Record, SETTLEMENTS, Settle};
use crate::receiver::Recorded;
use crate::sqlite::connection::Connection;
use crate::sqlite::grants::Part;
use crate::{Error, Result};

/// The most other jobs waiting for the writer.
const JOBS: usize = 1_024;

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T>>;

/// An event, who waits for its answer, and its place among those that wait.
pub(super) type Waiting = (Box<Record>, Reply<Recorded>, Place);

/// What the writer is asked to do.
pub(super) enum Command {
    /// Append an event.
    Record(Waiting),
    /// Append several, or none.
    RecordAll(Vec<Waiting>),
    /// Append an attempt, or move a delivery.
    Settle { settle: Box<Settle>, reply: Reply<()>, _permit: OwnedSemaphorePermit },
    /// Anything else that writes, as a part may.
    Job { part: Part, job: Box<dyn Job>, _permit: Option<OwnedSemaphorePermit> },
    /// Finish what is queued, and end.
    Close(oneshot::Sender<()>),
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

/// The callers' end of the queue.
pub(in crate::sqlite) struct Queue {
    sender: Sender<Command>,
    places: Places,
    settlements: Arc<Semaphore>,
    jobs: Arc<Semaphore>,
}

impl Queue {
    pub(super) fn new(sender: Sender<Command>) -> Self {
        Self {
            sender,
            places: Places::default(),
            settlements: Arc::new(Semaphore::new(SETTLEMENTS)),
            jobs: Arc::new(Semaphore::new(JOBS)),
        }
    }

    /// Events waiting now.
    pub(in crate::sqlite) fn events(&self) -> usize {
        self.places.taken()
    }

    /// Settlements waiting now, the large ones counted more than once.
    pub(in crate::sqlite) fn settlements(&self) -> usize {
        SETTLEMENTS.saturating_sub(self.settlements.available_permits())
    }

    /// Appends an event; resolves when it is durable.
    pub(in crate::sqlite) async fn record(&self, record: Box<Record>) -> Result<Recorded> {
        let (waiting, answer) = self.waiting(record)?;
        self.send(Command::Record(waiting))?;
        answer.await.map_err(gone)?
    }

    /// Appends several events or none; resolves when they are durable.
    pub(in crate::sqlite) async fn record_all(&self, records: Vec<Record>) -> Result<Vec<Recorded>> {
        let waiting = records.into_iter().map(|record| self.waiting(Box::new(record)));
        let (waiting, answers): (Vec<_>, Vec<_>) = waiting.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        self.send(Command::RecordAll(waiting))?;
        let mut recorded = Vec::with_capacity(answers.len());
        for answer in answers {
            recorded.push(answer.await.map_err(gone)??);
        }
        Ok(recorded)
    }

    fn waiting(&self, record: Box<Record>) -> Result<(Waiting, oneshot::Receiver<Result<Recorded>>)> {
        let place = self.places.take(record.bytes())?;
        let (reply, answer) = oneshot::channel();
        Ok(((record, reply, place), answer))
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
