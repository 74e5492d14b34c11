//! The engine for many nodes: one PostgreSQL database, any number of identical processes.
//!
//! Events and attempts are only appended, in one statement for all that waits ([`lanes`]). A node that accepted an event
//! delivers it from memory under its lease; what it leaves behind when it dies is found by its watermark ([`node`]).
//! Waiting deliveries belong to the node that leases the shard of their endpoint. Every part of the process has
//! connections of its own role ([`pool`]), and what every request asks for is answered from memory ([`directory`]),
//! which follows the database within a second.

mod address;
mod api;
mod audit;
mod authorizer;
mod budget;
mod cells;
mod configuration;
mod convert;
pub(crate) mod copy;
mod database_url;
mod directory;
mod door;
mod footprint;
#[cfg(test)]
mod grants;
mod lanes;
mod links;
mod mails;
mod meter;
pub mod migrate;
mod moves;
mod node;
mod open;
mod platform;
mod pool;
mod pooler;
mod probe;
mod reads;
mod receiver;
mod retention;
mod rotate;
mod rows;
mod sign_in;
mod super_admins;
#[cfg(test)]
mod tests;
mod tls;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postroom_domain::keyring::Keyring;
use postroom_domain::organization::PlanLimits;
use postroom_domain::{Clock, Secret, Timestamp};
use tokio_util::sync::CancellationToken;

use self::budget::Budget;
pub use self::database_url::DatabaseUrl;
use self::directory::Directories;
use self::lanes::Lanes;
pub use self::meter::Meter;
use self::node::Node;
pub use self::open::OpenError;
pub use self::pool::Part;
use self::pool::Pool;
use self::probe::Probe;
use self::reads::activity::Hub;
use self::reads::gauges::Counted;
use self::retention::Upkeep;
pub use self::rotate::rotate_keys;
use crate::cells as router;
use crate::cells::registry::Registry as _;
use crate::engine::ids::Ids;
use crate::engine::rejections::Rate;
use crate::engine::shares::Shares;
use crate::engine::vault::Vault;
use crate::{Handoff, Storage};

/// How to open a database.
#[derive(Clone)]
pub struct Options {
    /// A login that may become every part's role: `postgres://user:password@host:port/database`.
    pub url: Secret,
    /// Logins of their own for some parts, which are that part already.
    pub part_urls: HashMap<Part, Secret>,
    /// The login that owns the database, where organizations get databases of their own or those are to be migrated here.
    pub migrate_url: Option<Secret>,
    /// Opens and seals secrets.
    pub keyring: Keyring,
    /// Says what time it is. Leases go by the database's clock.
    pub clock: Clock,
    /// Takes fresh deliveries.
    pub handoff: Arc<dyn Handoff>,
    /// How long an external id is recognised.
    pub dedupe_window: Duration,
    /// How long events are kept.
    pub retention: Duration,
    /// How many events a month each plan has: the same on every node, or each node goes by its own.
    pub plans: PlanLimits,
    /// How long an attempt takes at most at an endpoint that says nothing else.
    pub default_attempt_timeout: Duration,
    /// Whether this process makes deliveries: if not, it takes none that wait.
    pub delivers: bool,
    /// How long this node is thought alive without a sign of life.
    pub lease: Duration,
    /// Server or command.
    pub mode: Mode,
}

/// Who opens a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A server: a node that accepts, recovers, delivers.
    Serve,
    /// A command: changes configuration, also while servers are running, which see it within a second.
    Beside,
}

/// An open database.
#[derive(Clone)]
struct Postgres(Arc<Engine>);

struct Engine {
    options: Options,
    pools: Pools,
    vault: Arc<Vault>,
    directories: Arc<Directories>,
    lanes: Lanes,
    node: Arc<Node>,
    hub: Arc<Hub>,
    shares: Shares,
    counted: Counted,
    rejection_rate: Rate,
    /// Lists of rejections are in the order of their ids.
    rejection_ids: Mutex<Ids>,
    upkeep: Upkeep,
    probe: Probe,
    /// What databases of single organizations may take together.
    budget: Arc<Budget>,
    /// Ends what runs in the background.
    stop: CancellationToken,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One for each part.
struct Pools {
    authorizer: Pool,
    receiver: Pool,
    worker: Pool,
    api: Pool,
    dead_letter: Pool,
    platform: Pool,
}

impl Pools {
    fn all(&self) -> [(Part, &Pool); 6] {
        [
            (Part::Authorizer, &self.authorizer),
            (Part::Receiver, &self.receiver),
            (Part::Worker, &self.worker),
            (Part::Api, &self.api),
            (Part::DeadLetter, &self.dead_letter),
            (Part::Platform, &self.platform),
        ]
    }
}

/// Connects, checks that the database is what it has to be, and begins to live as a node. Databases of single
/// organizations in which something may wait are opened in the background.
///
/// # Errors
/// Each text says what to do.
pub async fn open(options: Options) -> Result<Storage, OpenError> {
    let (handoff, clock) = (options.handoff.clone(), options.clock.clone());
    let delivers = options.mode == Mode::Serve && options.delivers;
    let engine = open::open(options, open::Target::Shared).await?;
    if engine.0.options.mode == Mode::Serve {
        let (shared, budget) = (footprint::connections().shared, &engine.0.budget);
        let (cells, awake) = (budget.limit(), budget.awake());
        tracing::info!(
            shared,
            cells,
            "up to {shared} connections to the database, and up to {cells} to those that organizations have to \
             themselves, of which about {awake} can be awake at once"
        );
    }
    let tenants = engine.tenants(None).await?.unwrap_or_default();
    cells::warn_of_other_servers(&tenants.rows, &engine.0.options.url);
    let (shared, registry) = (engine.storage(), Arc::new(engine));
    Ok(router::open(router::Settings { shared, registry, tenants, handoff, clock, delivers }))
}

impl Postgres {
    fn storage(&self) -> Storage {
        let engine = Arc::new(self.clone());
        Storage {
            authorizer: engine.clone(),
            receiver: engine.clone(),
            worker: engine.clone(),
            api: engine.clone(),
            platform: engine,
        }
    }

    fn now(&self) -> Timestamp {
        self.0.options.clock.now()
    }
}
