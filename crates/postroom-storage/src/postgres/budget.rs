//! How many connections a process may have to databases of single organizations, all of them together.
//!
//! Each of those databases needs few connections, but there may be hundreds of databases on one server, whose
//! connections are counted together. So a connection to one of them has to be afforded: when there are as many as there
//! may be, the one that was not used for longest is given back, and whoever wants one waits until there is one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::convert::get;
use super::footprint::{self, Connections};
use super::pool::Pool;
use crate::Result;

/// How many the server has for logins like ours.
const SLOTS: &str = "select current_setting('max_connections')::bigint \
     - current_setting('superuser_reserved_connections')::bigint \
     - coalesce(current_setting('reserved_connections', true), '0')::bigint";

/// What a database takes when nothing happens in it, and as many again for when something does.
const AWAKE: usize = 6;
/// How often somebody who waits has one given back.
const RECLAIM_EVERY: Duration = Duration::from_millis(20);
/// A connection that nobody uses is given back after this.
const IDLE: Duration = Duration::from_secs(10);
/// After this, when there are no more.
const IDLE_WHEN_SHORT: Duration = Duration::from_secs(1);

/// See the [module](self).
pub(super) struct Budget {
    limit: usize,
    permits: Arc<Semaphore>,
    /// The pools of every open database.
    pools: Mutex<HashMap<u64, Vec<Pool>>>,
    next: AtomicU64,
}

/// The right to one connection.
pub(super) type Afforded = OwnedSemaphorePermit;

impl Budget {
    /// As many connections as make half of what the server has, with those to the shared database: two processes get by
    /// with any server, and nobody takes its last one. At least as many as two busy databases need.
    pub(super) async fn of_server(shared: &Pool) -> Result<Arc<Self>> {
        let row = shared.connection().await?.query_one(SLOTS, &[]).await?;
        let slots = row.map(|row| get::<i64>(&row, 0)).transpose()?.unwrap_or(0);
        let Connections { shared, cell } = footprint::connections();
        let half = usize::try_from(slots).unwrap_or(0) / 2;
        Ok(Self::new(half.saturating_sub(shared).max(2 * cell)))
    }

    pub(super) fn new(limit: usize) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(limit));
        Arc::new(Self { limit, permits, pools: Mutex::default(), next: AtomicU64::new(0) })
    }

    /// How many connections there may be.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// How many databases can be awake without taking each other's connections.
    pub(super) fn awake(&self) -> usize {
        self.limit / AWAKE
    }

    /// Waits until a connection can be made. In the order in which they ask.
    pub(super) async fn afford(&self) -> Option<Afforded> {
        let permit = self.permits.clone().acquire_owned();
        tokio::pin!(permit);
        loop {
            match tokio::time::timeout(RECLAIM_EVERY, &mut permit).await {
                // Nobody closes it.
                Ok(permit) => return permit.ok(),
                Err(_none_is_free) => self.reclaim(),
            }
        }
    }

    /// Whether a connection that was not used for so long is to be given back.
    pub(super) fn is_over(&self, unused: Duration) -> bool {
        unused >= IDLE || unused >= IDLE_WHEN_SHORT && self.permits.available_permits() == 0
    }

    /// Gives back the one that was not used for longest, of any database.
    fn reclaim(&self) {
        let pools = self.pools.lock();
        let longest = pools.values().flatten().filter_map(|pool| Some((pool.longest_idle()?, pool)));
        if let Some((idle, pool)) = longest.max_by_key(|(idle, _)| *idle) {
            pool.close_idle(idle);
        }
    }

    /// Has an open database's connections given back when nobody uses them, until `stop`.
    pub(super) fn watch(self: &Arc<Self>, pools: Vec<Pool>, stop: CancellationToken) {
        let (budget, number) = (self.clone(), self.next.fetch_add(1, Ordering::Relaxed));
        self.pools.lock().insert(number, pools.clone());
        tokio::spawn(async move {
            let tend = async {
                loop {
                    tokio::time::sleep(IDLE / 2).await;
                    pools.iter().for_each(|pool| pool.close_idle(IDLE));
                }
            };
            let _ended = stop.run_until_cancelled(tend).await;
            budget.pools.lock().remove(&number);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn there_are_never_more_connections_than_there_may_be() {
        let budget = Budget::new(2);
        let (first, second) = (budget.afford().await.unwrap(), budget.afford().await.unwrap());
        assert!(tokio::time::timeout(Duration::from_millis(50), budget.afford()).await.is_err());
        assert!(budget.is_over(IDLE_WHEN_SHORT) && !budget.is_over(Duration::ZERO));
        drop(first);
        let _third = budget.afford().await.unwrap();
        drop(second);
        assert!(!budget.is_over(IDLE_WHEN_SHORT) && budget.is_over(IDLE));
    }
}
