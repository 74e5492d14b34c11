//! What the router needs from the rest of the program, and what it makes of it once.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use postroom_domain::egress::Policy;
use postroom_domain::{Clock, Invalid, OrganizationId, Secret, Timestamp};
use postroom_storage::Storage;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cursor::CursorKey;
use crate::extract::body::Budget;
use crate::keys::{KeyFetcher, Keys};
use crate::observe::{RequestIds, RouteMetrics};
use crate::places::Places;
use crate::rates::{Quota, Rates};
use crate::refusals::Refusals;
use crate::sign_in::{Requests, SessionKeys, Site};

/// Renders `/metrics` in the Prometheus text format.
pub type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// Everything the router is made of.
#[derive(Clone)]
pub struct App {
    /// An open database.
    pub storage: Storage,
    /// Says what time it is.
    pub clock: Clock,
    /// Which addresses endpoints may have.
    pub egress: Arc<Policy>,
    /// Asks providers for the keys that their requests name.
    pub key_fetcher: Arc<dyn KeyFetcher>,
    /// Bounds of one request and of all together.
    pub limits: Limits,
    /// The installation's admin token, if it has one.
    pub admin_token: Option<AdminToken>,
    /// Sign session tokens: the same on every node.
    pub session_keys: SessionKeys,
    /// Work that outlives its request. Wait for it before storage is closed.
    pub tasks: TaskTracker,
    /// How the outside reaches this server: scheme and host, perhaps a path, no slash at the end.
    pub public_url: String,
    /// Proxies of the operator's own, whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Told when a mail may have been queued, for the mailer of this process.
    pub mail_queued: Arc<Notify>,
    /// Encrypts cursors, so that they can neither be read nor altered; at least 16 bytes, the same on every node.
    pub cursor_key: Secret,
    /// Renders `/metrics`.
    pub render_metrics: RenderMetrics,
    /// Which parts this process serves.
    pub roles: Roles,
    /// Cancelled when the process begins to stop: readiness goes false and live streams end.
    pub stop: CancellationToken,
    /// The program's version, for `/` and the API's document.
    pub version: &'static str,
}

/// Which parts a process serves over HTTP. Health and metrics are always there, documents where callers come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// `/in/...`
    pub receiver: bool,
    /// `/v1/...`
    pub api: bool,
}

impl Roles {
    /// All parts.
    pub const ALL: Self = Self { receiver: true, api: true };
}

/// Bounds of one request and of all requests together.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest body taken, in bytes; larger is 413.
    pub body_bytes_max: usize,
    /// Bodies being read or handled at one moment, in bytes; more is 503.
    pub bodies_bytes_max: usize,
    /// How long one body may take to arrive; longer is 408.
    pub body_timeout: Duration,
    /// All headers of a request with their names, in bytes; more is 431.
    pub headers_bytes_max: usize,
    /// Requests to the API of one organization, but for those that send events.
    pub requests: Quota,
    /// Attempts to sign in from one address.
    pub sign_ins: Quota,
    /// Credentials from one address that are wrong.
    pub wrong_credentials: Quota,
    /// Live streams of one organization.
    pub streams_per_organization: usize,
    /// Live streams of all.
    pub streams: usize,
    /// How often an idle live stream says that it is alive.
    pub stream_heartbeat: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 1024 * 1024,
            bodies_bytes_max: 64 * 1024 * 1024,
            body_timeout: Duration::from_secs(30),
            headers_bytes_max: 16 * 1024,
            requests: Quota { limit: 6_000, window: Duration::from_secs(60) },
            sign_ins: Quota { limit: 20, window: Duration::from_secs(3600) },
            wrong_credentials: Quota { limit: 20, window: Duration::from_secs(60) },
            streams_per_organization: 100,
            streams: 1000,
            stream_heartbeat: Duration::from_secs(15),
        }
    }
}

/// The installation's admin token: only its SHA-256 is kept.
#[derive(Clone)]
pub struct AdminToken([u8; 32]);

impl AdminToken {
    /// The shortest token, in bytes.
    pub const MIN_BYTES: usize = 32;

    /// Accepts a token as the operator set it.
    ///
    /// # Errors
    /// When it is too short to be secret, or could not stand in a header.
    pub fn new(token: &Secret) -> Result<Self, Invalid> {
        if token.expose().len() < Self::MIN_BYTES {
            return Err(Invalid::new("too_short", "at least 32 characters; `openssl rand -hex 32` prints a good one"));
        }
        if !token.expose().iter().all(|byte| matches!(byte, 0x21..=0x7e)) {
            return Err(Invalid::new("invalid_character", "visible ASCII characters without spaces only"));
        }
        Ok(Self(sha256(token.expose())))
    }

    /// Whether this is the token, in constant time whatever the length.
    pub(crate) fn is(&self, presented: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &sha256(presented)).is_ok()
    }
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken(***)")
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// The state behind every handler.
pub(crate) struct State {
    pub app: App,
    pub bodies: Budget,
    pub cursors: CursorKey,
    pub keys: Keys,
    pub rates: Rates,
    pub refusals: Refusals,
    pub request_ids: RequestIds,
    pub routes: RouteMetrics,
    pub sign_in_requests: Requests,
    pub site: Site,
    pub streams: Places<OrganizationId>,
    pub accept_duration: crate::ingest::AcceptDuration,
}

pub(crate) type Shared = Arc<State>;

impl State {
    pub fn new(mut app: App) -> Shared {
        app.public_url.truncate(app.public_url.trim_end_matches('/').len());
        Arc::new(Self {
            // However large a single body may be, two of them must fit.
            bodies: Budget::new(app.limits.bodies_bytes_max.max(2 * app.limits.body_bytes_max)),
            cursors: CursorKey::new(&app.cursor_key),
            keys: Keys::new(app.key_fetcher.clone()),
            rates: Rates::new(&app.limits),
            refusals: Refusals::default(),
            request_ids: RequestIds::new(),
            routes: RouteMetrics::default(),
            sign_in_requests: Requests::new(app.tasks.clone()),
            site: Site::new(&app.public_url),
            streams: Places::new(app.limits.streams, app.limits.streams_per_organization),
            accept_duration: crate::ingest::AcceptDuration::new(),
            app,
        })
    }

    pub fn now(&self) -> Timestamp {
        self.app.clock.now()
    }
}
