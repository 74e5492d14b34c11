//! The embedded engine: one SQLite file, one writer thread, no server.
//!
//! Events and attempts are only appended; a delivery gets a row of its own only when it is not on the straight way
//! ([`exceptions`]). Everything that writes goes through one queue to one thread, which puts all that waits into one
//! transaction with one flush to the disk ([`writer`]). What every request asks for is answered from memory
//! ([`directory`]). One server has the directory at a time; commands change configuration beside it.

mod api;
mod audit;
mod authorizer;
mod configuration;
mod connection;
mod convert;
pub(crate) mod copy;
mod directory;
mod exceptions;
mod grants;
mod health;
mod keeper;
mod links;
mod mails;
pub mod migrate;
mod moves;
mod open;
mod platform;
mod reads;
mod receiver;
mod rejections;
mod retention;
mod rotate;
mod rows;
mod sign_in;
mod super_admins;
mod tenants;
mod usage;
mod vault;
mod worker;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postroom_domain::keyring::Keyring;
use postroom_domain::organization::PlanLimits;
use postroom_domain::{Clock, EventId, Timestamp};
use tracing::info;

use self::connection::Connection;
use self::directory::{Directory, Entry};
use self::grants::Part;
use self::health::Health;
use self::keeper::{Keeper, Wal};
pub use self::open::OpenError;
use self::reads::activity::{Hub, Mark};
use self::reads::{People, Readers};
pub use self::rotate::rotate_keys;
use self::vault::open_vault;
use self::writer::{Effects, Writer};
use crate::engine::metrics::Metrics;
use crate::engine::vault::Vault;
use crate::worker::EndpointKey;
use crate::{Error, Handoff, Result, Storage, cells};

/// After how long a delivery that is still in memory gets a row of its own.
const SLOW_AFTER: Duration = Duration::from_secs(10);

/// How to open a database.
#[derive(Clone)]
pub struct Options {
    /// Where the files are; made if it is not there.
    pub data_dir: PathBuf,
    /// Opens and seals secrets.
    pub keyring: Keyring,
    /// Says what time it is.
    pub clock: Clock,
    /// Takes fresh deliveries.
    pub handoff: Arc<dyn Handoff>,
    /// How long an external id is recognised.
    pub dedupe_window: Duration,
    /// How long events are kept.
    pub retention: Duration,
    /// How many events a month each plan has.
    pub plans: PlanLimits,
    /// How long an attempt takes at most at an endpoint that says nothing else.
    pub default_attempt_timeout: Duration,
    /// Server or command.
    pub mode: Mode,
}

/// Who opens a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The server: alone on its directory, migrates, recovers, delivers.
    Serve,
    /// A command: changes configuration, also while a server is running, which sees it within a second or two.
    Beside,
}

/// An open database.
#[derive(Clone)]
struct Sqlite(Arc<Engine>);

struct Engine {
    /// Dropped first: it still uses the rest.
    writer: Writer,
    keeper: Mutex<Keeper>,
    wal: Arc<Wal>,
    readers: Readers,
    people: People,
    directory: Arc<Directory>,
    vault: Arc<Vault>,
    clock: Clock,
    handoff: Arc<dyn Handoff>,
    health: Arc<Health>,
    hub: Arc<Hub>,
    rejection_rate: crate::engine::rejections::Rate,
    retention: Duration,
    plans: PlanLimits,
    /// Where the walk over old events goes on.
    retention_after: Mutex<Option<EventId>>,
    mode: Mode,
    /// Given up last.
    lock: Mutex<Option<open::Lock>>,
}

/// How much is kept at hand.
#[derive(Debug, Clone, Copy)]
enum Footprint {
    /// For all organizations.
    Large,
    /// For one of many databases: each has one organization.
    Small,
}

impl Footprint {
    /// How many reads of the engine itself run at once: due deliveries, configuration.
    fn readers(self) -> usize {
        match self {
            Self::Large => 2,
            Self::Small => 1,
        }
    }

    /// How many of people's reads run at once.
    fn people(self) -> usize {
        match self {
            Self::Large => 4,
            Self::Small => 2,
        }
    }

    /// How many KiB of pages the writer remembers: it alone comes back to the same ones all the time.
    fn writer_cache(self) -> u32 {
        match self {
            Self::Large => 16 * 1024,
            Self::Small => 4 * 1024,
        }
    }
}

/// Opens the database of a data directory: takes the lock, migrates, checks the keys, recovers what a crash left open,
/// and starts the writer. Inside a Tokio runtime: organizations' own databases are opened in the background.
///
/// # Errors
/// Each text says what to do. What is wrong with one organization's own database is no error here.
pub fn open(options: Options) -> Result<Storage, OpenError> {
    let template = tenants::Template::of(&options);
    let (data_dir, handoff, clock) = (options.data_dir.clone(), options.handoff.clone(), options.clock.clone());
    let delivers = options.mode == Mode::Serve;
    let engine = open_files(options, Footprint::Large)?;
    let registry = tenants::read(&*open::connect_reader(&data_dir)?.snapshot()?, None)?;
    let shared = engine.storage();
    Ok(cells::open(cells::Settings {
        shared,
        registry: Arc::new(tenants::Embedded { engine, template }),
        tenants: registry.unwrap_or_default(),
        handoff,
        clock,
        delivers,
    }))
}

fn open_files(options: Options, footprint: Footprint) -> Result<Sqlite, OpenError> {
    open::prepare_directory(&options.data_dir)?;
    let lock = lock(&options)?;
    let mut file = open::connect_writer(&options.data_dir, footprint.writer_cache())?;
    if options.mode == Mode::Serve {
        open::check(&mut file)?;
    }
    open::bring_up_to_date(&mut file, lock.is_some())?;
    let vault = Arc::new(open_vault(&mut file, options.keyring)?);
    let wal = Arc::new(Wal::default());
    wal.watch(&mut file)?;
    // From here on nothing is done with the database but by a part, as far as it may.
    let mut connection = Connection::new(file, Part::Platform)?;
    let now = options.clock.now();
    let directory = Directory::load(&mut connection, &vault, options.plans, now).map_err(OpenError::unreadable)?;
    let directory = Arc::new(directory);
    if options.mode == Mode::Serve {
        let recovered = writer::recover(&mut connection, now)?;
        if recovered > 0 {
            info!(
                deliveries = recovered,
                "{recovered} deliveries of the last run have no known outcome and are made again"
            );
        }
    }
    connection.act_as(Part::Api);
    let hub = Arc::new(Hub::new(Mark::newest(&connection)?));
    let readers = Readers::open(&options.data_dir, footprint.readers())?;
    let people = People::open(&options.data_dir, footprint.people())?;
    let keeper = keeper::Settings {
        wal: wal.clone(),
        directory: directory.clone(),
        vault: vault.clone(),
        clock: options.clock.clone(),
    };
    let keeper = Keeper::start(Connection::new(open::connect(&options.data_dir)?, Part::Platform)?, keeper)?;
    let health = Arc::new(Health::default());
    let settings = writer::Settings {
        clock: options.clock.clone(),
        handoff: options.handoff.clone(),
        directory: directory.clone(),
        wal: wal.clone(),
        metrics: Arc::new(Metrics::new()),
        health: health.clone(),
        hub: hub.clone(),
        dedupe_window: options.dedupe_window,
        slow_after: SLOW_AFTER,
        default_attempt_timeout: options.default_attempt_timeout,
        beside: options.mode == Mode::Beside,
    };
    Ok(Sqlite(Arc::new(Engine {
        writer: Writer::start(connection, settings)?,
        keeper: Mutex::new(keeper),
        wal,
        readers,
        people,
        directory,
        vault,
        clock: options.clock,
        handoff: options.handoff,
        health,
        hub,
        rejection_rate: crate::engine::rejections::Rate::default(),
        retention: options.retention,
        plans: options.plans,
        retention_after: Mutex::default(),
        mode: options.mode,
        lock: Mutex::new(lock.filter(|_| options.mode == Mode::Serve)),
    })))
}

/// The server must have the lock; a command takes it while it looks after the schema, if no server has it.
fn lock(options: &Options) -> Result<Option<open::Lock>, OpenError> {
    match (open::Lock::take(&options.data_dir), options.mode) {
        (Ok(mut lock), Mode::Serve) => {
            lock.announce(&options.keyring)
                .map_err(|source| OpenError::Directory { path: options.data_dir.clone(), source })?;
            Ok(Some(lock))
        }
        (Err(OpenError::Locked(_)), Mode::Beside) => Ok(None),
        (taken, _) => taken.map(Some),
    }
}

/// What a change of configuration leaves to be done.
struct Changed<T> {
    /// Whose configuration was changed.
    org: i64,
    /// Endpoints that delivery has to look at again.
    wake: Vec<EndpointKey>,
    value: T,
}

impl Sqlite {
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

    /// Runs a transaction that is not configuration; resolves when it is durable.
    async fn write<T, F>(&self, part: Part, write: F) -> Result<T>
    where
        F: FnOnce(&mut Connection, &mut Effects) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.0.writer.queue.run(part, write).await
    }

    /// Changes configuration; resolves when it is durable and the directory shows it. A task of its own does it: a
    /// caller that goes away in between must not leave the directory behind the database.
    async fn configure<T, F>(&self, part: Part, change: F) -> Result<T>
    where
        F: FnOnce(&mut Connection, &mut Effects) -> Result<Changed<T>> + Send + 'static,
        T: Send + 'static,
    {
        let engine = self.clone();
        let task = tokio::spawn(async move {
            let changed = engine.write(part, change).await?;
            engine.reload(changed.org).await?;
            for endpoint in changed.wake {
                engine.0.handoff.wake(endpoint);
            }
            Ok(changed.value)
        });
        task.await.map_err(|ended| Error::Internal(ended.into()))?
    }

    /// Reads for an organization.
    async fn read<T, F>(&self, part: Part, org: i64, read: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        self.0.people.read(part, org, read).await
    }

    /// Reads one organization's configuration again.
    async fn reload(&self, org: i64) -> Result<()> {
        let engine = self.0.clone();
        self.0
            .readers
            .borrow(move |connection| engine.directory.reload(connection, &engine.vault, org, engine.clock.now()))
            .await
    }

    /// The entry as it is at this moment: secrets whose time has come are gone from it.
    async fn fresh(&self, entry: Arc<Entry>) -> Result<Arc<Entry>> {
        if !entry.is_stale(|| self.now()) {
            return Ok(entry);
        }
        self.reload(entry.org).await?;
        self.0.directory.entry(entry.org).ok_or(Error::NotFound { kind: "organization" })
    }

    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}
