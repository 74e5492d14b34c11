//! Opens the database that the settings name, for a server or for a command.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use postroom_storage::postgres::{self, OpenError};
use postroom_storage::worker::{DeliveryKey, EndpointKey, OrganizationKey, StoredEvent};
use postroom_storage::{Handoff, Storage, sqlite};
use tokio::net::lookup_host;
use tokio::time::{Instant, sleep, timeout};

use crate::config::{Config, Database, Postgres};
use crate::{keys, process};

/// How long a server that starts waits for a database that does not answer.
pub const START_PATIENCE: Duration = Duration::from_secs(20);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the name of a server may take to be resolved.
const RESOLVE: Duration = Duration::from_secs(2);
/// How long a node is thought alive without a sign of life; as long wait the deliveries of one that died.
pub const LEASE: Duration = Duration::from_secs(15);

/// Opens the database as a server. Deliveries of accepted events go to `handoff`, or to other nodes if there is none.
///
/// # Errors
/// A sentence that says what to do.
pub async fn serve(config: &Config, handoff: Option<Arc<dyn Handoff>>) -> anyhow::Result<Storage> {
    let delivers = handoff.is_some();
    let handoff = handoff.unwrap_or_else(|| Arc::new(Elsewhere));
    match &config.database {
        Database::Embedded(_) => embedded(config, handoff, sqlite::Mode::Serve).await,
        Database::Postgres(database) => {
            if database.migrate_url.is_some() {
                let logins = database.logins()?;
                let migrate = async || Ok(postgres::migrate::up(database.owning_url(), &logins).await?);
                let migrated = patiently(migrate).await?;
                migrated.applied.iter().for_each(|name| tracing::info!(name, "applied {name}"));
                migrated.advice.iter().for_each(|advice| tracing::warn!("{advice}"));
            }
            let mode = postgres::Mode::Serve;
            let open = async || Ok(postgres::open(options(config, database, handoff.clone(), delivers, mode)?).await?);
            patiently(open).await
        }
    }
}

/// Opens the database for a command, also beside running servers.
///
/// # Errors
/// A sentence that says what to do.
pub async fn beside(config: &Config) -> anyhow::Result<Storage> {
    let handoff: Arc<dyn Handoff> = Arc::new(Elsewhere);
    match &config.database {
        Database::Embedded(_) => embedded(config, handoff, sqlite::Mode::Beside).await,
        Database::Postgres(database) => {
            Ok(postgres::open(options(config, database, handoff, false, postgres::Mode::Beside)?).await?)
        }
    }
}

/// Where the database's servers listen, as far as their names can be resolved now: deliveries never go there.
pub async fn addresses(database: &Database) -> anyhow::Result<Vec<SocketAddr>> {
    let Database::Postgres(database) = database else { return Ok(Vec::new()) };
    let mut addresses = Vec::new();
    for (host, port) in database.servers()? {
        if let Ok(Ok(found)) = timeout(RESOLVE, lookup_host((host, port))).await {
            addresses.extend(found);
        }
    }
    Ok(addresses)
}

async fn embedded(config: &Config, handoff: Arc<dyn Handoff>, mode: sqlite::Mode) -> anyhow::Result<Storage> {
    let Database::Embedded(data_dir) = &config.database else { anyhow::bail!("the database is not the embedded one") };
    let options = sqlite::Options {
        data_dir: data_dir.clone(),
        keyring: keys::open(config)?.keyring,
        clock: process::clock(),
        handoff,
        dedupe_window: config.dedupe_window,
        retention: config.retention,
        plans: config.plans,
        default_attempt_timeout: config.delivery_timeout,
        mode,
    };
    Ok(tokio::task::spawn_blocking(|| sqlite::open(options)).await??)
}

fn options(
    config: &Config,
    database: &Postgres,
    handoff: Arc<dyn Handoff>,
    delivers: bool,
    mode: postgres::Mode,
) -> anyhow::Result<postgres::Options> {
    Ok(postgres::Options {
        url: database.url.clone(),
        part_urls: database.part_urls.clone(),
        migrate_url: database.migrate_url.clone(),
        keyring: keys::open(config)?.keyring,
        clock: process::clock(),
        handoff,
        delivers,
        dedupe_window: config.dedupe_window,
        retention: config.retention,
        plans: config.plans,
        default_attempt_timeout: config.delivery_timeout,
        lease: LEASE,
        mode,
    })
}

/// Tries again for a while what a database refuses that is not there yet.
async fn patiently<T>(attempt: impl AsyncFn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let deadline = Instant::now() + START_PATIENCE;
    let mut told = false;
    loop {
        let may_pass = |error: &anyhow::Error| error.downcast_ref().is_some_and(OpenError::may_pass);
        let error = match attempt().await {
            Err(error) if may_pass(&error) && Instant::now() < deadline => error,
            ended => return ended,
        };
        if !std::mem::replace(&mut told, true) {
            tracing::warn!("{error}; trying again for {} s", START_PATIENCE.as_secs());
        }
        sleep(PAUSE).await;
    }
}

/// Who delivers nothing keeps nothing in memory: what is recorded here waits in storage for a process that delivers.
struct Elsewhere;

impl Handoff for Elsewhere {
    fn reserve(&self, _: EndpointKey, _: usize) -> bool {
        false
    }
    fn deliver(&self, _: Arc<StoredEvent>, _: Vec<EndpointKey>) {}
    fn release(&self, _: EndpointKey, _: usize) {}
    fn wake(&self, _: EndpointKey) {}
    fn is_processing(&self, _: DeliveryKey) -> bool {
        false
    }
    fn is_busy(&self, _: OrganizationKey) -> bool {
        false
    }
}
