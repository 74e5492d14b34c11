//! Delivery at work: the real engine on a temporary place, real lanes, a real client, and a clock set by hand.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use postroom_delivery::{Client, Drained, LaneLimits, Lanes, Lookup, Settings};
use postroom_domain::api_key::{self, KeyScope};
use postroom_domain::delivery::RetrySchedule;
use postroom_domain::egress::Policy;
use postroom_domain::endpoint::{EndpointSettings, EndpointUrl, SignatureScheme};
use postroom_domain::event::{EventType, EventTypePattern};
use postroom_domain::keyring::Keyring;
use postroom_domain::organization::{Plan, PlanLimits};
use postroom_domain::{Clock, EndpointId, EventId, OrganizationId, Secret, Timestamp, signing};
use postroom_storage::api::{NewApiKey, NewEndpoint};
use postroom_storage::platform::{Isolation, NewOrganization, NewTenant};
use postroom_storage::receiver::NewEvent;
use postroom_storage::sqlite::{Mode, Options, open};
use postroom_storage::{Scope, Storage, SuperAdmin};
use tokio_util::sync::CancellationToken;

use crate::watched::{Recorded, Seen, Watched};

/// Everything a test needs, and what it chooses.
pub struct Room {
    pub lanes: Arc<Lanes>,
    pub storage: Storage,
    pub watched: Arc<Watched>,
    pub settings: Settings,
    /// The organization of everything that names no other.
    pub acme: Scope,
    time: Time,
    /// How many endpoints each organization has.
    numbers: Mutex<HashMap<OrganizationId, u32>>,
    secret: Secret,
    keys: Secret,
    limits: LaneLimits,
    directory: tempfile::TempDir,
    stop: CancellationToken,
    running: Option<tokio::task::JoinHandle<Drained>>,
}

/// A clock that stands still until it is moved, or is let run.
#[derive(Clone)]
struct Time {
    /// Milliseconds.
    hands: Arc<AtomicI64>,
    runs_since: Option<Instant>,
}

impl Time {
    fn now(&self) -> Timestamp {
        let since = self.runs_since.map(|start| start.elapsed()).unwrap_or_default();
        Timestamp::from_millis(self.hands.load(Ordering::SeqCst)) + since
    }

    fn clock(&self) -> Clock {
        let time = self.clone();
        Clock::new(move || time.now())
    }
}

/// An endpoint of a test.
#[derive(Debug, Clone)]
pub struct Target {
    pub id: EndpointId,
    /// Its number in its organization.
    pub number: u32,
    scope: Scope,
}

impl Room {
    pub async fn new() -> Self {
        Self::with(LaneLimits::default()).await
    }

    pub async fn started() -> Self {
        let mut room = Self::new().await;
        room.start();
        room
    }

    pub async fn with(limits: LaneLimits) -> Self {
        // The reference library for signatures asks the wall clock.
        #[allow(clippy::disallowed_methods)]
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let hands = Arc::new(AtomicI64::new(i64::try_from(now.as_millis()).unwrap()));
        let time = Time { hands, runs_since: None };
        let (directory, keys) = (tempfile::tempdir().unwrap(), Keyring::generate());
        let (lanes, storage) = opened(directory.path(), &keys, limits, &time);
        let acme = organization(&storage, "acme", Isolation::Shared, time.now()).await;
        Self {
            watched: Watched::new(storage.worker.clone()),
            settings: settings(),
            secret: signing::generate(SignatureScheme::HmacSha256),
            stop: CancellationToken::new(),
            running: None,
            numbers: Mutex::default(),
            lanes,
            storage,
            acme,
            time,
            keys,
            limits,
            directory,
        }
    }

    /// Names in the place of the system's resolver.
    pub fn names(&mut self, lookup: impl Fn(&str) -> std::io::Result<Vec<IpAddr>> + Send + Sync + 'static) {
        let lookup: Lookup = Arc::new(lookup);
        self.settings.client = self.settings.client.clone().with_lookup(lookup);
    }

    pub fn start(&mut self) {
        let run = postroom_delivery::run(
            self.lanes.clone(),
            self.watched.clone(),
            self.settings.clone(),
            self.time.clock(),
            self.stop.clone(),
        );
        self.running = Some(tokio::spawn(run));
    }

    pub async fn stop(&mut self) -> Drained {
        self.stop_now();
        self.stopped().await
    }

    pub fn stop_now(&self) {
        self.stop.cancel();
    }

    pub async fn stopped(&mut self) -> Drained {
        crate::soon(self.running.take().unwrap()).await.unwrap()
    }

    /// Another process on the same files, after this one was stopped, or fell over.
    pub async fn restarted(mut self) -> Self {
        if let Some(running) = self.running.take() {
            running.abort();
            let _cancelled = running.await;
        }
        let Self { settings, time, numbers, secret, keys, limits, directory, storage, acme, .. } = self;
        storage.platform.close().await.unwrap();
        drop((storage, self.watched, self.lanes));
        let (lanes, storage) = opened(directory.path(), &keys, limits, &time);
        let mut room = Self {
            watched: Watched::new(storage.worker.clone()),
            stop: CancellationToken::new(),
            running: None,
            numbers,
            settings,
            secret,
            lanes,
            storage,
            acme,
            time,
            keys,
            limits,
            directory,
        };
        room.start();
        room
    }

    pub fn now(&self) -> Timestamp {
        self.time.now()
    }

    /// Lets the clock run from now on. Before the start.
    pub fn let_time_run(&mut self) {
        self.time.runs_since = Some(Instant::now());
    }

    /// Moves the clock.
    pub fn pass(&self, time: Duration) {
        self.time.hands.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
        self.lanes.recheck();
    }

    pub async fn organization(&self, slug: &str) -> Scope {
        organization(&self.storage, slug, Isolation::Shared, self.now()).await
    }

    /// One with a database of its own.
    pub async fn dedicated(&self, slug: &str) -> Scope {
        organization(&self.storage, slug, Isolation::Dedicated, self.now()).await
    }

    /// An endpoint of acme.
    pub async fn endpoint(&self, url: &str) -> Target {
        self.endpoint_with(url, |_| {}).await
    }

    pub async fn endpoint_with(&self, url: &str, change: impl FnOnce(&mut EndpointSettings)) -> Target {
        self.endpoint_of(&self.acme, url, change).await
    }

    /// An endpoint that wants events `to` its number alone, and events to `all`.
    pub async fn endpoint_of(&self, scope: &Scope, url: &str, change: impl FnOnce(&mut EndpointSettings)) -> Target {
        let number = {
            let mut numbers = self.numbers.lock();
            let number = numbers.entry(scope.organization()).or_insert(0);
            *number += 1;
            *number
        };
        let pattern = |text: &str| EventTypePattern::parse(text).unwrap();
        let mut settings = EndpointSettings {
            url: EndpointUrl::parse(url).unwrap(),
            description: String::new(),
            event_types: vec![pattern(&format!("to.{number}")), pattern("all")],
            source_ids: Vec::new(),
            filter: None,
            retry_schedule: None,
            timeout_ms: None,
            rate_limit: None,
            headers: Vec::new(),
            signature: SignatureScheme::HmacSha256,
        };
        change(&mut settings);
        let new = NewEndpoint { settings, secret: self.secret.clone() };
        let id = self.storage.api.endpoint_create(scope, new, self.now()).await.unwrap().id;
        Target { id, number, scope: scope.clone() }
    }

    /// Records an event for this endpoint.
    pub async fn record(&self, target: &Target) -> EventId {
        self.record_body(target, "{\"order\":7}").await
    }

    pub async fn record_body(&self, target: &Target, body: impl Into<Bytes>) -> EventId {
        self.record_type(&target.scope, &format!("to.{}", target.number), body).await
    }

    /// Records so many events for this endpoint, all at once.
    pub async fn record_many(&self, target: &Target, count: usize) -> Vec<EventId> {
        join_all((0..count).map(|_| self.record(target))).await
    }

    /// Records so many events for all endpoints of acme, all at once.
    pub async fn record_for_all(&self, count: usize) -> Vec<EventId> {
        join_all((0..count).map(|_| self.record_type(&self.acme, "all", "{\"order\":7}"))).await
    }

    async fn record_type(&self, scope: &Scope, event_type: &str, body: impl Into<Bytes>) -> EventId {
        let event_type = EventType::parse(event_type).unwrap();
        let event = NewEvent::sent(scope.clone(), event_type, None, body.into(), self.now());
        self.storage.receiver.event_record(event).await.unwrap().id
    }

    /// Waits until delivery has told storage what `reached` looks for.
    pub async fn until<T>(&self, reached: impl Fn(&Seen) -> Option<T>) -> T {
        let mut changed = self.watched.changed.subscribe();
        let wait = async {
            loop {
                if let Some(found) = reached(&self.watched.seen.lock()) {
                    return found;
                }
                changed.changed().await.unwrap();
            }
        };
        crate::soon(wait).await
    }

    /// Waits until so many attempts are recorded; returns all that are.
    pub async fn attempts(&self, count: usize) -> Vec<Recorded> {
        self.until(|seen| (seen.attempts.len() >= count).then(|| seen.attempts.clone())).await
    }

    /// Attempts recorded so far.
    pub fn recorded(&self) -> usize {
        self.watched.seen.lock().attempts.len()
    }

    /// The next attempt at this endpoint that is recorded.
    pub async fn attempt_at(&self, target: &Target) -> Recorded {
        let before = self.recorded();
        self.record(target).await;
        self.attempts(before + 1).await.remove(before)
    }

    /// How many deliveries wait in storage, whenever they are due.
    pub async fn waiting(&self) -> usize {
        let worker = &self.storage.worker;
        let far = self.now() + Duration::from_secs(400 * 24 * 3600);
        let mut count = 0;
        for (endpoint, _) in worker.pending_heads(None, 1000).await.unwrap() {
            count += worker.pending_due(endpoint, far, 10_000, usize::MAX).await.unwrap().len();
        }
        count
    }

    /// The one secret that all endpoints sign with, as the reference library takes it.
    pub fn verifier(&self) -> standardwebhooks::Webhook {
        verifier(&self.secret)
    }
}

pub fn verifier(secret: &Secret) -> standardwebhooks::Webhook {
    standardwebhooks::Webhook::new(secret.expose_str().unwrap()).unwrap()
}

fn settings() -> Settings {
    let policy = Arc::new(Policy::new(vec!["127.0.0.0/8".parse().unwrap()], Vec::new()));
    Settings {
        client: Client::new(policy, "Postroom/1.2.3", None).unwrap(),
        retry_schedule: RetrySchedule::new(&[60, 300, 900]).unwrap(),
        timeout: Duration::from_secs(15),
        drain: Duration::from_secs(20),
    }
}

fn opened(directory: &std::path::Path, keys: &Secret, limits: LaneLimits, time: &Time) -> (Arc<Lanes>, Storage) {
    let lanes = Lanes::new(limits);
    let storage = open(Options {
        data_dir: directory.to_owned(),
        keyring: Keyring::parse(keys).unwrap(),
        clock: time.clock(),
        handoff: lanes.clone(),
        dedupe_window: Duration::from_secs(7 * 24 * 3600),
        retention: Duration::from_secs(30 * 24 * 3600),
        plans: PlanLimits::default(),
        default_attempt_timeout: Duration::from_secs(15),
        mode: Mode::Serve,
    });
    (lanes, storage.unwrap())
}

async fn organization(storage: &Storage, slug: &str, isolation: Isolation, now: Timestamp) -> Scope {
    let (_, hash) = api_key::generate();
    let new = NewTenant {
        organization: NewOrganization {
            name: slug.to_owned(),
            slug: slug.to_owned(),
            plan: Plan::Premium,
            webhook_limit: None,
            is_active: true,
            mandrill_webhook_secret: None,
        },
        api_key: NewApiKey {
            name: "test".to_owned(),
            scopes: vec![KeyScope::Admin],
            expires_at: None,
            hash,
            last_four: "abcd".to_owned(),
        },
        endpoint: None,
        isolation,
    };
    storage.platform.tenant_create(SuperAdmin::by_operator(), new, now).await.unwrap().scope
}
