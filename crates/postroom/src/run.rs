//! The running server: how its parts are put together, and in which order they start and stop.
//!
//! Start: bind, open storage (which recovers what a crash left open), then serve. Stop: no new connections and no new
//! attempts, let what is under way end, flush, close. What did not end in time is done again after the next start.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use postroom_delivery::{LaneLimits, Lanes};
use postroom_domain::{Clock, egress};
use postroom_storage::{Handoff, Storage};
use postroom_web::{AdminToken, App, Limits, Roles, ServerLimits, SessionKeys};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::fetcher::Fetcher;
use crate::mail::Mailer;
use crate::threads::{Callers, Threads};
use crate::{database, keys, process, telemetry};

/// How long a stop may take in all.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// Requests and attempts under way may still take so long; the rest of [`STOP_TIMEOUT`] is for flushing and closing.
const DRAIN: Duration = Duration::from_secs(17);
/// Between steps of retention when there is nothing left to delete.
const UPKEEP_PAUSE: Duration = Duration::from_secs(60);
/// Between steps of retention while there is more: events come first.
const UPKEEP_STEP_PAUSE: Duration = Duration::from_millis(100);

/// A server that is ready to serve: storage is open and recovered, and the port is bound.
pub struct Server {
    storage: Storage,
    clock: Clock,
    /// Not there in a process without the worker's role.
    lanes: Option<Arc<Lanes>>,
    delivery: postroom_delivery::Settings,
    /// Not there in a process without the API's role.
    mailer: Option<Mailer>,
    app: App,
    callers: Callers,
    /// In the pool for callers.
    listener: TcpListener,
}

/// Opens and serves until `stop`.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: &Config, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
    Server::open(config, listener, stop.clone()).await?.serve(stop).await;
    Ok(())
}

/// The address people can reach a listener at: its own, or the loopback one when it listens everywhere.
///
/// # Errors
/// When the listener has no address.
pub fn local_url(listener: &TcpListener) -> anyhow::Result<String> {
    Ok(url_of(listener.local_addr()?))
}

/// How the outside reaches a server that listens there, as its settings say or as the address does.
pub fn public_url(config: &Config, listens: SocketAddr) -> String {
    config.public_url.as_ref().map_or_else(|| url_of(listens), ToString::to_string)
}

fn url_of(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}")
}

impl Server {
    /// Opens everything that serving needs.
    ///
    /// # Errors
    /// A sentence that says what to do: damaged file, wrong keys, another server on the same directory.
    pub async fn open(config: &Config, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<Self> {
        let keys = keys::open(config)?;
        if let Some(warning) = &keys.warning {
            tracing::warn!("{warning}");
        }
        let callers = Callers::start(Threads::of(config.roles))?;
        let listener = callers.bring(listener)?;
        let clock = process::clock();
        let lanes = config.roles.worker.then(|| Lanes::new(LaneLimits::default()));
        let handoff = lanes.clone().map(|lanes| -> Arc<dyn Handoff> { lanes });
        let storage = database::serve(config, handoff).await?;
        let mut own = database::addresses(&config.database).await?;
        own.push(listener.local_addr()?);
        let egress = Arc::new(egress::Policy::new(config.allow_private_networks.clone(), own));
        let user_agent = concat!("Postroom/", env!("CARGO_PKG_VERSION"));
        let client = postroom_delivery::Client::new(egress.clone(), user_agent, None)?;
        let delivery = postroom_delivery::Settings {
            client: client.clone(),
            retry_schedule: config.retry_schedule.clone(),
            timeout: config.delivery_timeout,
            drain: DRAIN,
        };
        let public_url = public_url(config, listener.local_addr()?);
        let mail_queued = Arc::default();
        let mailer = || {
            Mailer::new(&config.mail, &public_url, storage.platform.clone(), clock.clone(), Arc::clone(&mail_queued))
        };
        let mailer = config.roles.api.then(mailer).transpose()?;
        let admin_token = config.admin_token.as_ref().map(AdminToken::new).transpose();
        let app = App {
            storage: storage.clone(),
            clock: clock.clone(),
            egress,
            key_fetcher: Arc::new(Fetcher(client)),
            limits: Limits { body_bytes_max: config.max_body_bytes, ..Limits::default() },
            admin_token: admin_token
                .map_err(|invalid| anyhow::anyhow!("the admin token is refused: {}", invalid.detail))?,
            public_url,
            mail_queued: mail_queued.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
            session_keys: SessionKeys::new(&keys.keyring),
            tasks: TaskTracker::new(),
            cursor_key: keys.cursor_key,
            render_metrics: telemetry::renderer(),
            roles: Roles { receiver: config.roles.receiver, api: config.roles.api },
            stop,
            version: env!("CARGO_PKG_VERSION"),
        };
        Ok(Self { storage, clock, lanes, delivery, mailer, app, callers, listener })
    }

    /// Serves until `stop`, then lets what is under way end.
    pub async fn serve(self, stop: CancellationToken) {
        let limits = ServerLimits { drain: DRAIN, ..ServerLimits::default() };
        let tasks = self.app.tasks.clone();
        let serving = postroom_web::serve(self.listener, postroom_web::router(self.app), limits, stop.clone());
        let web = self.callers.run(async move {
            serving.await;
            tasks.close();
            tasks.wait().await;
        });
        let worker = self.storage.worker.clone();
        let upkeep = upkeep(self.lanes.is_some().then(|| self.storage.clone()), self.clock.clone(), stop.clone());
        let delivery = async {
            if let Some(lanes) = self.lanes {
                postroom_delivery::run(lanes, worker, self.delivery, self.clock, stop.clone()).await;
            }
        };
        let mail = async {
            if let Some(mailer) = self.mailer {
                mailer.run(stop.clone()).await;
            }
        };
        let parts = async { tokio::join!(web, delivery, mail, upkeep) };
        let deadline = async {
            stop.cancelled().await;
            tokio::time::sleep(STOP_TIMEOUT).await;
        };
        let closed = async {
            parts.await;
            self.storage.platform.close().await
        };
        tokio::select! {
            closed = closed => match closed {
                Ok(()) => tracing::info!("stopped; everything is on the disk"),
                Err(error) => tracing::error!(%error, "stopped, but storage did not close well"),
            },
            () = deadline => tracing::warn!("stopped after {} s with work under way: it is done after the next start", STOP_TIMEOUT.as_secs()),
        }
    }
}

/// Deletes what is older than it may be, in bounded steps, until `stop`; without a storage it only tends the figures.
async fn upkeep(storage: Option<Storage>, clock: Clock, stop: CancellationToken) {
    loop {
        telemetry::upkeep();
        let step = match &storage {
            Some(storage) => storage.platform.upkeep(clock.now()).await,
            None => Ok(false),
        };
        let pause = match step {
            Ok(true) => UPKEEP_STEP_PAUSE,
            Ok(false) => UPKEEP_PAUSE,
            Err(error) => {
                tracing::warn!(%error, "retention could not delete what is old; trying again in a minute");
                UPKEEP_PAUSE
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
