//! Whether the database can be written, without asking it: the writer says after each transaction.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::Mutex;
use tracing::{error, info};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Health {
    failing: AtomicBool,
    reason: Mutex<String>,
    settled: AtomicBool,
    waiting: AtomicI64,
    dead: AtomicI64,
}

impl Health {
    /// A transaction was committed.
    pub(super) fn wrote(&self) {
        if self.failing.swap(false, Ordering::Relaxed) {
            info!("the database can be written again");
        }
    }

    /// A transaction failed.
    pub(super) fn failed(&self, reason: &rusqlite::Error) {
        *self.reason.lock() = reason.to_string();
        if !self.failing.swap(true, Ordering::Relaxed) {
            error!(error = %reason, "the database cannot be written; nothing is acknowledged until it can");
        }
    }

    /// Whether the last transaction failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Why the last transaction failed, if it did.
    pub(super) fn failure(&self) -> Option<String> {
        self.failing.load(Ordering::Relaxed).then(|| self.reason.lock().clone())
    }

    /// How many deliveries wait and how many are dead letters.
    pub(super) fn exceptions(&self, waiting: i64, dead: i64) {
        self.waiting.store(waiting, Ordering::Relaxed);
        self.dead.store(dead, Ordering::Relaxed);
    }

    /// Whether nothing is left to be written down later.
    pub(super) fn settled(&self, is_settled: bool) {
        self.settled.store(is_settled, Ordering::Relaxed);
    }

    /// Whether nothing is under way and nothing waits, as of the last transaction.
    pub(super) fn is_at_rest(&self) -> bool {
        self.settled.load(Ordering::Relaxed) && self.waiting() <= 0 && !self.is_failing()
    }

    /// Waiting deliveries.
    pub(super) fn waiting(&self) -> i64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Dead letters.
    pub(super) fn dead(&self) -> i64 {
        self.dead.load(Ordering::Relaxed)
    }
}
