//! One transaction of the writer: everything that waits goes into it, one flush to the disk serves all, and only then
//! is anybody answered.
//!
//! What the transaction changes in memory is staged here and takes effect after the commit. When the commit fails,
//! nobody is acknowledged, reservations are given back, and the writer goes on with the next one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use foldhash::HashMap;
use postroom_domain::Timestamp;

use super::behind::BehindBatch;
use super::effects::Effects;
use super::queue::{Command, Job, JobEnd, Reply};
use super::state::State;
use super::{PATIENCE, Settings, Thread};
use crate::engine::places::Place;
use crate::receiver::Recorded;
use crate::sqlite::connection::Connection;
use crate::sqlite::grants::Part;
use crate::sqlite::reads::activity::Happened;
use crate::sqlite::{convert, usage};
use crate::worker::{EndpointKey, StoredEvent};
use crate::{Error, Result};

/// The one row.
const PROGRESS: &str = "update progress set watermark = ?1 where one = 1";

/// Says to readers in other processes that configuration was changed. The one row.
const REVISION: &str = "update revision set value = value + 1 where one = 1";

/// What is staged.
#[derive(Default)]
pub(super) struct Batch {
    events: Vec<(Reply<Recorded>, Option<Result<Recorded>>, Place)>,
    settlements: Vec<Reply<()>>,
    permits: Vec<tokio::sync::OwnedSemaphorePermit>,
    jobs: Vec<(Box<dyn Job>, JobEnd)>,
    /// Appended events.
    pub(super) fresh: Vec<Fresh>,
    /// The place of the next event.
    pub(super) next_seq: i64,
    /// Deliveries taken out of [`State::outstanding`].
    pub(super) settled: Vec<(i64, EndpointKey)>,
    /// New counts by organization and month.
    pub(super) usage: HashMap<(i64, i64), u64>,
    pub(super) effects: Effects,
    pub(super) behind: BehindBatch,
    /// What is appended to the log, with whose it is, in order.
    pub(super) happened: Vec<(i64, Happened)>,
    watermark: i64,
    /// Whether the watermark is written: not in every transaction, because it is one more page.
    marks: bool,
}

/// An appended event and its deliveries that have a place in memory.
pub(super) struct Fresh {
    pub(super) event: Arc<StoredEvent>,
    pub(super) org: i64,
    pub(super) inbound: bool,
    pub(super) memory: Vec<EndpointKey>,
}

/// A transaction under way.
pub(super) struct Turn<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) state: &'a mut State,
    pub(super) settings: &'a Settings,
    pub(super) batch: &'a mut Batch,
    pub(super) now: Timestamp,
}

impl Batch {
    fn answer(&mut self, at: usize, answer: Result<Recorded>) {
        if let Some((_, slot, _)) = self.events.get_mut(at) {
            *slot = Some(answer);
        }
    }
}

impl Turn<'_> {
    fn transact(&mut self, commands: &mut VecDeque<Command>) -> rusqlite::Result<()> {
        self.connection.prepare_cached("begin immediate")?.execute([])?;
        while let Some(command) = commands.pop_front() {
            self.stage(command)?;
        }
        self.connection.act_as(Part::Worker);
        self.park_slow()?;
        if self.batch.marks {
            self.connection.prepare_cached(PROGRESS)?.execute([self.batch.watermark])?;
        }
        self.connection.act_as(Part::Receiver);
        for (&(org, month), &count) in &self.batch.usage {
            usage::store(self.connection, org, month, count)?;
        }
        self.catch_up()?;
        self.connection.prepare_cached("commit")?.execute([]).map(drop)
    }

    /// Done as the part that asks for it. Every reply is in the batch before anything can fail.
    fn stage(&mut self, command: Command) -> rusqlite::Result<()> {
        match command {
            Command::Record((record, reply, place)) => {
                let at = self.batch.events.len();
                self.batch.events.push((reply, None, place));
                self.connection.act_as(Part::Receiver);
                let answer = self.record(*record)?;
                self.batch.answer(at, answer);
                Ok(())
            }
            Command::RecordAll(all) => {
                let at = self.batch.events.len();
                let mut records = Vec::with_capacity(all.len());
                for (record, reply, place) in all {
                    self.batch.events.push((reply, None, place));
                    records.push(*record);
                }
                self.connection.act_as(Part::Receiver);
                for (nth, answer) in self.record_all(records)?.into_iter().enumerate() {
                    self.batch.answer(at + nth, answer);
                }
                Ok(())
            }
            Command::Settle { settle, reply, _permit: permit } => {
                self.batch.settlements.push(reply);
                self.batch.permits.push(permit);
                self.connection.act_as(Part::Worker);
                self.settle(&settle)
            }
            Command::Job { part, job, _permit: permit } => {
                self.batch.permits.extend(permit);
                self.connection.act_as(part);
                self.job(job)
            }
            // Handled where commands are gathered.
            Command::Close(_) => Ok(()),
        }
    }

    /// A job is a transaction inside the transaction.
    fn job(&mut self, job: Box<dyn Job>) -> rusqlite::Result<()> {
        self.batch.jobs.push((job, JobEnd::Undo));
        let mark = self.batch.effects.mark();
        self.connection.prepare_cached("savepoint job")?.execute([])?;
        let Some((job, end)) = self.batch.jobs.last_mut() else { return Ok(()) };
        *end = job.run(self.connection, &mut self.batch.effects);
        if self.connection.is_autocommit() {
            return Err(undone());
        }
        match end {
            JobEnd::Keep if self.settings.beside => {
                self.connection.act_as(Part::Platform);
                self.connection.prepare_cached(REVISION)?.execute([])?;
            }
            JobEnd::Keep => {}
            JobEnd::Undo => {
                self.connection.prepare_cached("rollback to job")?.execute([])?;
                self.batch.effects.undo(mark);
            }
        }
        self.connection.prepare_cached("release job")?.execute([]).map(drop)
    }
}

impl Thread {
    /// One transaction with all of `commands`.
    pub(super) fn turn(&mut self, mut commands: VecDeque<Command>) {
        let started = Instant::now();
        let watermark = self.state.outstanding.watermark();
        self.state.behind.begin(self.state.next_seq - 1);
        let moved = watermark != self.state.watermark || self.settings.health.is_failing();
        let marks = moved && self.marked_at.elapsed() >= PATIENCE;
        let mut batch = Batch { next_seq: self.state.next_seq, watermark, marks, ..Batch::default() };
        let mut turn = Turn {
            connection: &mut self.connection,
            now: self.settings.clock.now(),
            state: &mut self.state,
            settings: &self.settings,
            batch: &mut batch,
        };
        let now = turn.now;
        match turn.transact(&mut commands) {
            Ok(()) => {
                self.settings.metrics.commit_seconds.record(started.elapsed().as_secs_f64());
                self.committed(batch, now);
            }
            Err(error) => self.failed(batch, commands, &error),
        }
    }

    fn committed(&mut self, mut batch: Batch, now: Timestamp) {
        self.settings.health.wrote();
        self.settings.metrics.batch_events.record(f64::from(u32::try_from(batch.fresh.len()).unwrap_or(u32::MAX)));
        self.state.next_seq = batch.next_seq;
        if batch.marks {
            self.state.watermark = batch.watermark;
            self.marked_at = Instant::now();
        }
        for (&(org, month), &count) in &batch.usage {
            self.state.usage.set(org, month, count);
        }
        self.state.behind.committed(std::mem::take(&mut batch.behind));
        for (org, state, by) in batch.effects.counts() {
            self.state.exceptions.add(*org, *state, *by);
        }
        for fresh in &batch.fresh {
            let memory = fresh.memory.clone();
            self.state.outstanding.push(fresh.event.key.seq(), fresh.org, now.as_millis(), memory);
        }
        // Handed over before anybody is answered: who was acknowledged finds the delivery under way.
        for fresh in batch.fresh {
            self.settings.metrics.accepted(fresh.inbound);
            if !fresh.memory.is_empty() {
                self.settings.handoff.deliver(fresh.event, fresh.memory);
            }
        }
        for endpoint in batch.effects.wakes() {
            self.settings.handoff.wake(endpoint);
        }
        self.settings.publish(&mut self.state);
        // Before anybody is answered: a stream that begins after an answer does not show what was before it.
        self.settings.hub.publish(batch.happened);
        for (reply, answer, place) in batch.events {
            self.settings.metrics.answered(answer.as_ref());
            drop(place);
            let _caller_gone = reply.send(answer.unwrap_or_else(|| Err(convert::broken("an event was not staged"))));
        }
        for reply in batch.settlements {
            let _caller_gone = reply.send(Ok(()));
        }
        for (job, _) in batch.jobs {
            job.committed();
        }
    }

    /// Nothing was stored as far as anybody may rely on; a commit whose flush failed may still be found after a crash.
    fn failed(&mut self, batch: Batch, unstaged: VecDeque<Command>, error: &rusqlite::Error) {
        self.settings.health.failed(error);
        self.marked_at = Instant::now();
        // When this fails too, the next `begin` does, and says so.
        let _ = self.connection.roll_back();
        for (seq, endpoint) in batch.settled {
            self.state.outstanding.unsettle(seq, endpoint);
        }
        for fresh in &batch.fresh {
            for endpoint in &fresh.memory {
                self.settings.handoff.release(*endpoint, fresh.event.body.len());
            }
        }
        let refusal = || refusal(error);
        batch.events.into_iter().for_each(|(reply, _, _)| drop(reply.send(Err(refusal()))));
        batch.settlements.into_iter().for_each(|reply| drop(reply.send(Err(refusal()))));
        batch.jobs.into_iter().for_each(|(job, _)| job.failed(refusal()));
        for command in unstaged {
            match command {
                Command::Record((_, reply, _)) => drop(reply.send(Err(refusal()))),
                Command::RecordAll(all) => all.into_iter().for_each(|(_, reply, _)| drop(reply.send(Err(refusal())))),
                Command::Settle { reply, .. } => drop(reply.send(Err(refusal()))),
                Command::Job { job, .. } => job.failed(refusal()),
                Command::Close(done) => drop(done.send(())),
            }
        }
    }
}

/// A full disk, for one, makes SQLite undo the whole transaction, whatever a job makes of its own error.
fn undone() -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
    rusqlite::Error::SqliteFailure(code, Some("the database has undone the transaction".to_owned()))
}

/// What everybody of a failed transaction is told.
fn refusal(error: &rusqlite::Error) -> Error {
    let text = error.to_string();
    if convert::passes_by_itself(error) { Error::Unavailable(text.into()) } else { Error::Internal(text.into()) }
}
