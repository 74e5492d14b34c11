//! The thread that looks after the files: it copies the write-ahead log into the database, and notices when another
//! process changed configuration.
//!
//! SQLite's own checkpoints run inside a commit, so whoever waits for that commit pays for all. Here they run beside the
//! writer, on a connection of their own. The log begins anew only when every frame of it was copied, which a checkpoint
//! beside a busy writer never quite reaches: so the writer copies the last few frames itself, between two transactions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use postroom_domain::Clock;
use tracing::warn;

use super::connection::Connection;
use super::directory::Directory;
use super::grants::Part;
use super::open::OpenError;
use crate::engine::vault::Vault;

/// At how many frames (4 KiB each) the log is copied.
const FRAMES: u32 = 8_000;
/// How many frames the writer copies itself at most.
const FEW: u32 = 400;
/// How often a checkpoint tries to get so close behind the writer.
const TRIES: usize = 5;
/// How often another process's changes are looked for.
const LOOK: Duration = Duration::from_secs(1);

/// Copies what it can without waiting for anybody.
const CHECKPOINT: &str = "pragma wal_checkpoint(passive)";

/// The one row.
const REVISION: &str = "select value from revision";

/// The log as the writer and the keeper see it.
#[derive(Debug, Default)]
pub(super) struct Wal {
    /// Frames in the log, as the last commit said.
    frames: AtomicU32,
    /// The keeper is so close behind that the writer can finish.
    nearly_copied: AtomicBool,
    bell: Bell,
}

#[derive(Debug, Default)]
struct Bell {
    state: Mutex<Rung>,
    rang: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
struct Rung {
    copy: bool,
    stop: bool,
}

impl Wal {
    /// Counts the frames of a connection's commits, and calls the keeper when there are many.
    pub(super) fn watch(self: &Arc<Self>, connection: &mut rusqlite::Connection) -> rusqlite::Result<()> {
        let wal = self.clone();
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, frames: std::ffi::c_int| {
            let frames = u32::try_from(frames).unwrap_or(0);
            wal.frames.store(frames, Ordering::Relaxed);
            if frames >= FRAMES {
                wal.ring(|rung| rung.copy = true);
            }
            Ok(())
        }))
    }

    /// Between two transactions of the writer: copies the last frames, so that the log begins anew with the next one.
    pub(super) fn finish(&self, connection: &mut Connection) {
        if self.nearly_copied.swap(false, Ordering::Relaxed) {
            connection.act_as(Part::Platform);
            // If it does not succeed, the keeper is called again by the next commits.
            let _ = copy(connection);
        }
    }

    /// Copies a long log, for a writer that works alone and has no keeper.
    pub(super) fn copy_alone(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        if self.frames.load(Ordering::Relaxed) >= FRAMES {
            connection.act_as(Part::Platform);
            copy(connection)?;
        }
        Ok(())
    }

    /// Bytes of the log that are in use.
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.frames.load(Ordering::Relaxed)) * 4096
    }

    fn ring(&self, change: impl FnOnce(&mut Rung)) {
        change(&mut self.bell.state.lock());
        self.bell.rang.notify_one();
    }

    fn wait(&self) -> Rung {
        let mut rung = self.bell.state.lock();
        if !rung.copy && !rung.stop {
            self.bell.rang.wait_for(&mut rung, LOOK);
        }
        let now = *rung;
        rung.copy = false;
        now
    }
}

/// Frames in the log, and how many of them are copied.
fn copy(connection: &Connection) -> rusqlite::Result<(u32, u32)> {
    let frames = |value: i64| u32::try_from(value).unwrap_or(0);
    connection.prepare_cached(CHECKPOINT)?.query_row([], |row| Ok((frames(row.get(1)?), frames(row.get(2)?))))
}

/// See the [module](self). Dropping it ends the thread and waits for that.
pub(super) struct Keeper {
    wal: Arc<Wal>,
    thread: Option<JoinHandle<()>>,
}

/// What the keeper works with.
pub(super) struct Settings {
    pub(super) wal: Arc<Wal>,
    pub(super) directory: Arc<Directory>,
    pub(super) vault: Arc<Vault>,
    pub(super) clock: Clock,
}

impl Keeper {
    /// Starts the thread on a connection of its own.
    pub(super) fn start(mut connection: Connection, settings: Settings) -> Result<Self, OpenError> {
        let seen = revision(&mut connection)?;
        let wal = settings.wal.clone();
        let thread = std::thread::Builder::new()
            .name("postroom-keeper".to_owned())
            .spawn(move || settings.run(&mut connection, seen))
            .map_err(OpenError::Thread)?;
        Ok(Self { wal, thread: Some(thread) })
    }

    /// Ends the thread.
    pub(super) fn stop(&mut self) {
        self.wal.ring(|rung| rung.stop = true);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Settings {
    fn run(self, connection: &mut Connection, mut seen: i64) {
        loop {
            let rung = self.wal.wait();
            if rung.stop {
                return;
            }
            let result = if rung.copy { self.checkpoint(connection) } else { self.look(connection, &mut seen) };
            if let Err(error) = result {
                warn!(%error, "looking after the database files failed; it is tried again");
            }
        }
    }

    fn checkpoint(&self, connection: &Connection) -> crate::Result<()> {
        for _ in 0..TRIES {
            let (frames, copied) = copy(connection)?;
            if frames.saturating_sub(copied) <= FEW {
                break;
            }
        }
        // Also when it is not quite as close: a longer pause now is better than a log that only grows.
        self.wal.nearly_copied.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Another process says that it changed configuration by moving the revision.
    fn look(&self, connection: &mut Connection, seen: &mut i64) -> crate::Result<()> {
        let now = revision(connection)?;
        if now != *seen {
            self.directory.reload_all(connection, &self.vault, self.clock.now())?;
            *seen = now;
        }
        Ok(())
    }
}

fn revision(connection: &mut Connection) -> rusqlite::Result<i64> {
    // The directory was read as others.
    connection.act_as(Part::Platform);
    connection.prepare_cached(REVISION)?.query_row([], |row| row.get(0))
}
