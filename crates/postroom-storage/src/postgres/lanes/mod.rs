//! The ways into the log: one for events, one for what became of deliveries.
//!
//! Each is one task with one connection of its own. It takes everything that waits, writes it in one statement, and answers.
//! At a low load a statement holds one event, and the acknowledgement takes one flush; under load they grow by themselves.

mod batch;
mod counted;
mod doubt;
mod ingest;
mod line;
mod outcome;

use std::sync::Arc;
use std::time::Duration;

use postroom_domain::Clock;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use self::ingest::Ingest;
use self::outcome::Outcome;
use super::budget::Budget;
use super::directory::Directories;
use super::door::Login;
use super::node::Node;
use crate::engine::metrics::Metrics;
use crate::engine::record::{Record, Settle};
use crate::receiver::Recorded;
use crate::worker::EndpointKey;
use crate::{Error, Handoff, Result};

/// The most events in one statement.
const BATCH_EVENTS: usize = 256;
/// The most bytes of events or answers in one statement; the last one may exceed it.
const BATCH_BYTES: usize = 1 << 20;
/// How long a lane without a connection waits before it tries to get one again.
const RECONNECT: Duration = Duration::from_millis(200);
/// How often a statement is sent again that had to end for the sake of another one.
const TRIES: usize = 3;

/// Where an answer goes.
type Reply<T> = oneshot::Sender<Result<T>>;

/// What the lanes work with.
pub(super) struct Settings {
    pub(super) clock: Clock,
    pub(super) handoff: Arc<dyn Handoff>,
    pub(super) node: Arc<Node>,
    pub(super) directories: Arc<Directories>,
    pub(super) dedupe_window: Duration,
    pub(super) default_attempt_timeout: Duration,
    /// What the lanes' connections are counted in, and given back to.
    pub(super) budget: Option<Arc<Budget>>,
}

impl Settings {
    /// How long an attempt at an endpoint takes at most.
    fn attempt_timeout(&self, endpoint: EndpointKey) -> Duration {
        let own = self.directories.outbound.endpoint(endpoint).and_then(|endpoint| endpoint.settings.timeout_ms);
        own.map_or(self.default_attempt_timeout, |millis| Duration::from_millis(u64::from(millis)))
    }
}

/// See the [module](self).
pub(super) struct Lanes {
    ingest: Ingest,
    outcome: Outcome,
}

impl Lanes {
    /// Starts both. They end with `stop`, at once and as if the process had been killed.
    pub(super) fn start(receiver: Login, worker: Login, settings: Settings, stop: &CancellationToken) -> Self {
        let settings = Arc::new(settings);
        let metrics = Metrics::new();
        Self {
            ingest: ingest::start(receiver, settings.clone(), metrics, stop.clone()),
            outcome: outcome::start(worker, settings, stop.clone()),
        }
    }

    /// Lanes that take nothing: a command records no events.
    pub(super) fn closed() -> Self {
        Self { ingest: Ingest::closed(), outcome: Outcome::closed() }
    }

    /// Events waiting now.
    pub(super) fn events(&self) -> usize {
        self.ingest.waiting()
    }

    /// Settlements waiting now, the large ones counted more than once.
    pub(super) fn settlements(&self) -> usize {
        self.outcome.waiting()
    }

    /// Appends an event; resolves when it is durable.
    pub(super) async fn record(&self, record: Record) -> Result<Recorded> {
        self.ingest.record(record).await
    }

    /// Appends several events or none; resolves when they are durable.
    pub(super) async fn record_all(&self, records: Vec<Record>) -> Result<Vec<Recorded>> {
        self.ingest.record_all(records).await
    }

    /// Appends an attempt or moves a delivery; resolves when it is durable.
    pub(super) async fn settle(&self, settle: Settle) -> Result<()> {
        self.outcome.settle(settle).await
    }

    /// Whether nothing of an organization that is away is open here. Of all events that came before it is known then what
    /// became of them.
    pub(super) async fn is_without(&self, org: i64) -> Result<bool> {
        self.ingest.flush().await?;
        self.outcome.is_without(org).await
    }

    /// Finishes what is queued and ends both.
    pub(super) async fn close(&self) {
        self.ingest.close().await;
        self.outcome.close().await;
    }
}

/// The lane is gone: the database was closed.
fn gone(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Unavailable(error.into())
}
