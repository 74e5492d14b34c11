//! Tells the node that makes an endpoint's waiting deliveries that there is one to be made now.
//!
//! Delivery walks over all that waits every few seconds. So that what a person moves, what found no place in memory and
//! what is to be tried again at once does not wait for that on another node, whoever wrote it pokes the other one: a row
//! in a table, written after the rows it is about, for many endpoints at once and nothing for those of this node. That
//! there are some is seen by the look for changes of configuration; who delivers there takes them. A poke that is lost
//! costs the time until the walk and nothing else.

use std::time::{Duration, SystemTime};

use super::Node;
use crate::Result;
use crate::postgres::convert::{at, get};
use crate::postgres::pool::bind;
use crate::worker::EndpointKey;

/// What is due later than this is found by the walk in time.
const SOON: Duration = Duration::from_secs(10);
/// How often they are written down at most.
const WRITE_EVERY: Duration = Duration::from_millis(100);
/// How many endpoints are remembered; for more there is the walk.
const MOST: usize = 10_000;

/// By primary key, in its order. What is there has not been looked at since it was written.
const ADD: &str = "insert into pokes (endpoint) select unnest($1) on conflict do nothing";

/// The whole table, in which there is only what nobody has taken yet.
const TAKE: &str = "delete from pokes where endpoint % 64 = any($1) returning endpoint";

impl Node {
    /// A delivery of this endpoint waits and is due then: whoever makes it looks at the endpoint.
    pub(in crate::postgres) fn wake(&self, endpoint: EndpointKey, due_at: SystemTime) {
        self.settings.handoff.wake(endpoint);
        if due_at > at(self.settings.clock.now() + SOON) {
            return;
        }
        let mut state = self.state.lock();
        let is_here = state.is_alive() && state.shards.holds(endpoint);
        if !is_here && state.identity.is_some() && state.pokes.len() < MOST {
            state.pokes.insert(endpoint);
            self.pokes.notify_one();
        }
    }

    /// Pokes others, and looks where others poke.
    pub(super) async fn poke(&self) {
        loop {
            let done = tokio::select! {
                () = self.pokes.notified() => self.poke_others().await,
                () = self.settings.poked.notified() => self.take_pokes().await,
            };
            if let Err(error) = done {
                tracing::debug!(%error, "nodes could not poke each other; what waits is found by the walk");
            }
            tokio::time::sleep(WRITE_EVERY).await;
        }
    }

    /// Writes down what is for others.
    pub(super) async fn poke_others(&self) -> Result<()> {
        let endpoints: Vec<i64> = std::mem::take(&mut self.state.lock().pokes).iter().map(|key| key.0).collect();
        if !endpoints.is_empty() {
            self.settings.worker.connection().await?.execute(ADD, bind![endpoints]).await?;
        }
        Ok(())
    }

    /// Takes what is for this node.
    async fn take_pokes(&self) -> Result<()> {
        let shards = self.shards();
        if shards.is_empty() {
            return Ok(());
        }
        for row in self.settings.worker.connection().await?.query(TAKE, bind![shards]).await? {
            self.settings.handoff.wake(EndpointKey(get(&row, 0)?));
        }
        Ok(())
    }
}
