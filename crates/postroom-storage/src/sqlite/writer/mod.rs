//! The one thread that writes.
//!
//! It takes everything that waits (no timer), writes it in one transaction with one flush to the disk, and answers. At a
//! low load a transaction holds one event and the acknowledgement takes one flush; under load transactions grow by
//! themselves.

mod batch;
mod behind;
mod effects;
mod outstanding;
mod queue;
mod record;
mod recover;
mod settle;
mod state;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use postroom_domain::Clock;
use tokio::sync::oneshot;

pub(in crate::sqlite) use behind::{catch_up, guard_find, stored_hash};
pub(in crate::sqlite) use effects::Effects;
pub(in crate::sqlite) use queue::Queue;
pub(in crate::sqlite) use recover::recover;
use state::State;

use self::queue::Command;
use super::directory::Directory;
use super::health::Health;
use super::keeper::Wal;
use super::open::OpenError;
use super::reads::activity::Hub;
use crate::Handoff;
use crate::engine::metrics::Metrics;
use crate::sqlite::connection::Connection;
use crate::worker::EndpointKey;

/// The most events in one transaction.
const BATCH_EVENTS: usize = 256;
/// The most bytes of events and answers in one transaction; the last one may exceed it.
const BATCH_BYTES: usize = 1 << 20;
/// The most commands of any kind in one transaction.
const BATCH_COMMANDS: usize = 1_024;
/// How long the writer waits for commands while something is still to be written down.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long it waits when there is nothing else to do.
const IDLE: Duration = Duration::from_secs(3600);

/// What the writer works with.
pub(in crate::sqlite) struct Settings {
    pub(in crate::sqlite) clock: Clock,
    pub(in crate::sqlite) handoff: Arc<dyn Handoff>,
    pub(in crate::sqlite) directory: Arc<Directory>,
    pub(in crate::sqlite) wal: Arc<Wal>,
    pub(in crate::sqlite) metrics: Arc<Metrics>,
    pub(in crate::sqlite) health: Arc<Health>,
    pub(in crate::sqlite) hub: Arc<Hub>,
    pub(in crate::sqlite) dedupe_window: Duration,
    /// After how long a delivery in memory gets a row.
    pub(in crate::sqlite) slow_after: Duration,
    pub(in crate::sqlite) default_attempt_timeout: Duration,
    /// Another process is the server: it has to be told about changes.
    pub(in crate::sqlite) beside: bool,
}

impl Settings {
    /// How long an attempt at an endpoint takes at most.
    fn attempt_timeout(&self, endpoint: EndpointKey) -> Duration {
        let own = self.directory.endpoint(endpoint).and_then(|(endpoint, _)| endpoint.settings.timeout_ms);
        own.map_or(self.default_attempt_timeout, |millis| Duration::from_millis(u64::from(millis)))
    }

    /// Shows figures that only the writer knows.
    fn publish(&self, state: &mut State) {
        let (waiting, dead) = state.exceptions.total();
        self.health.settled(state.is_settled());
        self.health.exceptions(waiting, dead);
    }
}

/// The thread's own.
struct Thread {
    connection: Connection,
    inbox: Receiver<Command>,
    settings: Settings,
    state: State,
    /// When the watermark was last written.
    marked_at: Instant,
}

/// The writer as its callers hold it. Dropping it ends the thread and waits for that.
pub(in crate::sqlite) struct Writer {
    /// The way in.
    pub(in crate::sqlite) queue: Queue,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread on a connection that is up to date and recovered.
    pub(in crate::sqlite) fn start(mut connection: Connection, settings: Settings) -> Result<Self, OpenError> {
        let mut state = State::load(&mut connection)?;
        settings.publish(&mut state);
        let (sender, inbox) = mpsc::channel();
        let thread = Thread { connection, inbox, settings, state, marked_at: Instant::now() };
        let thread = std::thread::Builder::new()
            .name("postroom-writer".to_owned())
            .spawn(move || thread.run())
            .map_err(OpenError::Thread)?;
        Ok(Self { queue: Queue::new(sender), thread: Some(thread) })
    }
}

impl Writer {
    /// Whether the thread has ended: the database was closed, or the thread panicked.
    pub(in crate::sqlite) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.close_now();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Thread {
    fn run(mut self) {
        loop {
            let (commands, closing) = self.gather();
            if !commands.is_empty() || self.has_chores() {
                self.turn(commands);
            }
            self.settings.wal.finish(&mut self.connection);
            if let Some(done) = closing {
                self.end();
                // The connection goes first: whoever waits may open the files again.
                drop(self);
                let _caller_gone = done.send(());
                return;
            }
        }
    }

    /// Everything that waits, up to the size of one transaction; waits for the first command.
    fn gather(&mut self) -> (VecDeque<Command>, Option<oneshot::Sender<()>>) {
        let mut commands = VecDeque::new();
        let (mut events, mut bytes) = (0, 0);
        let patience = self.patience();
        let mut next = match self.inbox.recv_timeout(patience) {
            Ok(command) => Some(command),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return (commands, Some(oneshot::channel().0)),
        };
        while let Some(command) = next {
            match &command {
                Command::Close(_) => {
                    let Command::Close(done) = command else { break };
                    return (commands, Some(done));
                }
                Command::Record((record, ..)) => {
                    events += 1;
                    bytes += record.body.len();
                }
                Command::RecordAll(all) => {
                    events += all.len();
                    bytes += all.iter().map(|(record, ..)| record.body.len()).sum::<usize>();
                }
                Command::Settle { settle, .. } => bytes += settle.bytes(),
                Command::Job { .. } => {}
            }
            commands.push_back(command);
            let full = events >= BATCH_EVENTS || bytes >= BATCH_BYTES || commands.len() >= BATCH_COMMANDS;
            next = if full { None } else { self.inbox.try_recv().ok() };
        }
        (commands, None)
    }

    /// Whether a transaction without commands has something to do now.
    fn has_chores(&mut self) -> bool {
        if self.settings.health.is_failing() {
            // Somebody has to find out when it passes: nothing may be asked of a database that is said to be away.
            return self.marked_at.elapsed() >= PATIENCE;
        }
        self.state.behind.begin(self.state.next_seq - 1);
        let lagging = self.state.outstanding.watermark() != self.state.watermark || !self.state.outstanding.is_empty();
        self.state.behind.is_under_way() || (lagging && self.marked_at.elapsed() >= PATIENCE)
    }

    /// How long to wait for commands.
    fn patience(&mut self) -> Duration {
        if self.settings.health.is_failing() {
            PATIENCE
        } else if self.state.behind.is_under_way() {
            Duration::ZERO
        } else if self.state.is_settled() {
            IDLE
        } else {
            PATIENCE
        }
    }

    /// Writes down what would otherwise have to be found out at the next start.
    fn end(&mut self) {
        self.marked_at = Instant::now().checked_sub(PATIENCE).unwrap_or(self.marked_at);
        self.state.behind.closing = true;
        // The round under way, one more for what was collected meanwhile, and no more: the disk may be full.
        for _ in 0..2 {
            if self.has_chores() {
                self.turn(VecDeque::new());
            }
        }
    }
}
