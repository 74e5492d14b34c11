//! Turns at reading, so many for each organization, so that one that searches its payloads all day takes nobody else's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Error, Result};

/// How long somebody waits for a turn.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many reads of one organization run at once.
pub(crate) const SHARE: usize = 2;

/// The turns of organizations that read or wait.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shares(Arc<Mutex<HashMap<i64, Arc<Semaphore>>>>);

/// A turn; the next one has it when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
    _share: Share,
}

impl Shares {
    /// Waits for a turn of the organization.
    pub(crate) async fn turn(&self, org: i64) -> Result<Turn> {
        let share = self.take(org);
        let permit = tokio::time::timeout(PATIENCE, share.turns.clone().acquire_owned());
        let permit = permit.await.map_err(|_| Error::Overloaded)?;
        Ok(Turn { _permit: permit.map_err(|closed| Error::Unavailable(closed.into()))?, _share: share })
    }

    fn take(&self, org: i64) -> Share {
        let turns = self.0.lock().entry(org).or_insert_with(|| Arc::new(Semaphore::new(SHARE))).clone();
        Share { shares: self.clone(), org, turns }
    }

    /// Whether nobody reads or waits.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.0.lock().is_empty()
    }
}

/// An organization's turns, kept as long as somebody reads or waits for it.
#[derive(Debug)]
struct Share {
    shares: Shares,
    org: i64,
    turns: Arc<Semaphore>,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut shares = self.shares.0.lock();
        // The map and this one: nobody else has or wants a turn.
        if Arc::strong_count(&self.turns) == 2 {
            shares.remove(&self.org);
        }
    }
}
