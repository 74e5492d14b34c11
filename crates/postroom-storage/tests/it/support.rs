//! A room to test in: an engine on a temporary place, a clock set by hand, and a delivery side that only remembers.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use postroom_domain::api_key::{self, KeyScope};
use postroom_domain::delivery::{AttemptError, DeadReason};
use postroom_domain::endpoint::{EndpointSettings, EndpointUrl, SignatureScheme};
use postroom_domain::event::{EventType, EventTypePattern, ExternalId};
use postroom_domain::keyring::Keyring;
use postroom_domain::organization::{Plan, PlanLimits};
use postroom_domain::source::SourceSettings;
use postroom_domain::{AttemptId, Clock, DeliveryId, EventId, Secret, Timestamp};
use postroom_storage::api::{EndpointView, NewApiKey, NewEndpoint, NewSource, PageRequest};
use postroom_storage::platform::{Gauge, Isolation, NewOrganization, NewTenant, Tenant};
use postroom_storage::postgres::{self, migrate::AppLogin};
use postroom_storage::receiver::{NewEvent, NewRejection, Recorded, Source};
use postroom_storage::worker::{
    Attempt, DeliveryKey, EndpointKey, OrganizationKey, Response, Settlement, StoredEvent, Transition,
};
use postroom_storage::{Error, Handoff, Result, Storage, SuperAdmin, sqlite};
use postroom_testkit::postgres::{APP_ROLE, Database, connect};

/// What the suite needs of an engine.
pub trait Harness: Send + Sync + 'static {
    /// In which database its organizations live.
    const ISOLATION: Isolation = Isolation::Shared;
    /// A new, empty place of its own.
    fn temporary() -> impl Future<Output = Self> + Send;
    /// Opens the database of this place as the server does.
    fn open(&self, opening: Opening) -> impl Future<Output = Storage> + Send;
    /// The place as it would be found if the process was killed now; the one that is open is not touched.
    fn crashed(&self) -> impl Future<Output = Self> + Send;
}

/// What an engine is opened with.
pub struct Opening {
    pub clock: Clock,
    pub handoff: Arc<dyn Handoff>,
    pub keyring: Keyring,
    pub dedupe_window: Duration,
    pub retention: Duration,
    pub plans: PlanLimits,
}

/// The embedded engine.
pub struct Sqlite(tempfile::TempDir);

impl Sqlite {
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Harness for Sqlite {
    async fn temporary() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn crashed(&self) -> Self {
        let copy = Self::temporary().await;
        copy_files(self.path(), copy.path());
        copy
    }

    async fn open(&self, opening: Opening) -> Storage {
        is_given_up(self.path()).await;
        let storage = sqlite::open(self.options(opening)).unwrap();
        awake(&storage).await;
        storage
    }
}

impl Sqlite {
    /// What a server is opened with.
    pub fn options(&self, opening: Opening) -> sqlite::Options {
        sqlite::Options {
            data_dir: self.path().to_owned(),
            keyring: opening.keyring,
            clock: opening.clock,
            handoff: opening.handoff,
            dedupe_window: opening.dedupe_window,
            retention: opening.retention,
            plans: opening.plans,
            default_attempt_timeout: Duration::from_secs(15),
            mode: sqlite::Mode::Serve,
        }
    }
}

/// The database files of a data directory as they are on the disk now, and those of the directories below.
fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (name, kind) = (entry.file_name(), entry.file_type().unwrap());
        if kind.is_dir() {
            std::fs::create_dir(to.join(&name)).unwrap();
            copy_files(&entry.path(), &to.join(&name));
        } else if name == "postroom.db" || name == "postroom.db-wal" {
            std::fs::copy(entry.path(), to.join(&name)).unwrap();
        }
    }
}

/// The embedded engine, with a database of its own for each organization.
pub struct SqliteDedicated(pub Sqlite);

impl Harness for SqliteDedicated {
    const ISOLATION: Isolation = Isolation::Dedicated;

    async fn temporary() -> Self {
        Self(Sqlite::temporary().await)
    }

    async fn crashed(&self) -> Self {
        Self(self.0.crashed().await)
    }

    async fn open(&self, opening: Opening) -> Storage {
        self.0.open(opening).await
    }
}

/// Waits until every database that was awake is open again: they are opened in the background.
pub async fn awake(storage: &Storage) {
    let opening = ("state", "opening".to_owned());
    let is_opening = |gauge: &Gauge| gauge.labels.contains(&opening) && gauge.value > 0.0;
    while storage.platform.gauges().await.unwrap().iter().any(is_opening) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The engine for many nodes, on a database of its own.
pub struct Postgres {
    pub database: Arc<Database>,
    /// Whether the node that had it open is to be thought dead.
    is_crashed: bool,
}

impl Postgres {
    /// What a node is opened with.
    pub fn options(&self, opening: Opening) -> postgres::Options {
        options_at(&self.database.app_url(), opening)
    }
}

/// What a node is opened with, on any database.
pub fn options_at(url: &str, opening: Opening) -> postgres::Options {
    postgres::Options {
        url: Secret::from(url),
        part_urls: HashMap::new(),
        migrate_url: None,
        keyring: opening.keyring,
        clock: opening.clock,
        handoff: opening.handoff,
        dedupe_window: opening.dedupe_window,
        retention: opening.retention,
        plans: opening.plans,
        default_attempt_timeout: Duration::from_secs(15),
        delivers: true,
        lease: Duration::from_secs(15),
        mode: postgres::Mode::Serve,
    }
}

impl Harness for Postgres {
    async fn temporary() -> Self {
        let migrate = async |owner_url: &str| {
            postgres::migrate::up(&Secret::from(owner_url), &[AppLogin::of_all_parts(APP_ROLE)]).await.unwrap();
        };
        let database = Database::from_template(&postgres::migrate::schema(), migrate).await;
        let database = database.taking("select database from tenants");
        Self { database: Arc::new(database), is_crashed: false }
    }

    async fn crashed(&self) -> Self {
        Self { database: self.database.clone(), is_crashed: true }
    }

    async fn open(&self, opening: Opening) -> Storage {
        if self.is_crashed {
            self.bury().await;
        }
        postgres::open(self.options(opening)).await.unwrap()
    }
}

impl Postgres {
    /// Instead of waiting until the leases of those who died are over.
    async fn bury(&self) {
        let url = self.database.admin_url();
        let admin = connect(&url).await;
        let mut databases = vec![self.database.name().to_owned()];
        databases.extend(admin.query("select database from tenants", &[]).await.unwrap().iter().map(|row| row.get(0)));
        for database in databases {
            let admin = connect(&url.replace(self.database.name(), &database)).await;
            admin.batch_execute("update nodes set lease_until = '-infinity'").await.unwrap();
        }
    }
}

/// The engine for many nodes, with a database of its own for each organization.
pub struct PostgresDedicated(pub Postgres);

impl PostgresDedicated {
    /// What a node is opened with that may make databases.
    pub fn options(&self, opening: Opening) -> postgres::Options {
        let migrate_url = Some(Secret::from(self.0.database.owner_url().as_str()));
        postgres::Options { migrate_url, ..self.0.options(opening) }
    }
}

impl Harness for PostgresDedicated {
    const ISOLATION: Isolation = Isolation::Dedicated;

    async fn temporary() -> Self {
        Self(Postgres::temporary().await)
    }

    async fn crashed(&self) -> Self {
        Self(self.0.crashed().await)
    }

    async fn open(&self, opening: Opening) -> Storage {
        if self.0.is_crashed {
            self.0.bury().await;
        }
        let storage = postgres::open(self.options(opening)).await.unwrap();
        awake(&storage).await;
        storage
    }
}

/// A clock set by hand.
#[derive(Clone)]
pub struct Hands(Arc<AtomicI64>);

impl Hands {
    /// 2026-11-22T10:00:00Z.
    pub fn new() -> Self {
        Self(Arc::new(AtomicI64::new(1_795_341_600_000)))
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }

    pub fn forward(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub fn clock(&self) -> Clock {
        let hands = self.clone();
        Clock::new(move || hands.now())
    }
}

/// A delivery side that makes no delivery, but remembers what it was given.
#[derive(Default)]
pub struct Lanes {
    /// At how many reservations it is full.
    pub room: AtomicI64,
    pub reserved: AtomicI64,
    pub delivered: Mutex<Vec<(Arc<StoredEvent>, Vec<EndpointKey>)>>,
    pub woken: Mutex<Vec<EndpointKey>>,
    pub processing: Mutex<Vec<DeliveryKey>>,
    /// Organizations of which attempts are under way.
    pub busy: Mutex<Vec<OrganizationKey>>,
}

impl Handoff for Lanes {
    fn reserve(&self, _: EndpointKey, _: usize) -> bool {
        if self.reserved.load(Ordering::SeqCst) >= self.room.load(Ordering::SeqCst) {
            return false;
        }
        self.reserved.fetch_add(1, Ordering::SeqCst);
        true
    }

    fn deliver(&self, event: Arc<StoredEvent>, endpoints: Vec<EndpointKey>) {
        self.delivered.lock().push((event, endpoints));
    }

    fn release(&self, _: EndpointKey, _: usize) {
        self.reserved.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake(&self, endpoint: EndpointKey) {
        self.woken.lock().push(endpoint);
    }

    fn is_processing(&self, delivery: DeliveryKey) -> bool {
        self.processing.lock().contains(&delivery)
    }

    fn is_busy(&self, organization: OrganizationKey) -> bool {
        self.busy.lock().contains(&organization)
    }
}

/// See the [module](self).
pub struct Room<H> {
    pub harness: H,
    pub hands: Hands,
    pub lanes: Arc<Lanes>,
    pub keys: Secret,
    pub storage: Storage,
}

impl<H: Harness> Room<H> {
    pub async fn new() -> Self {
        Self::on(H::temporary().await).await
    }

    /// On a place that was made before.
    pub async fn on(harness: H) -> Self {
        let (hands, keys) = (Hands::new(), Keyring::generate());
        let lanes = Arc::new(Lanes { room: AtomicI64::new(1_000_000), ..Lanes::default() });
        let storage = harness.open(opening(&hands, &lanes, &keys)).await;
        Self { harness, hands, lanes, keys, storage }
    }

    /// Opens the database as a crash at this moment would leave it, with a delivery side that has forgotten everything.
    pub async fn crash(self) -> Self {
        let crashed = self.harness.crashed().await;
        self.reopened(Some(crashed)).await
    }

    /// Closes the database with all that was still to be written down, and opens it again.
    pub async fn restart(self) -> Self {
        self.storage.platform.close().await.unwrap();
        self.reopened(None).await
    }

    async fn reopened(self, elsewhere: Option<H>) -> Self {
        let Self { harness, hands, lanes, keys, storage } = self;
        drop(storage);
        let harness = elsewhere.unwrap_or(harness);
        let fresh = Arc::new(Lanes { room: AtomicI64::new(lanes.room.load(Ordering::SeqCst)), ..Lanes::default() });
        let storage = harness.open(opening(&hands, &fresh, &keys)).await;
        Self { harness, hands, lanes: fresh, keys, storage }
    }

    pub fn now(&self) -> Timestamp {
        self.hands.now()
    }

    /// An organization with a key, and no limit.
    pub async fn organization(&self, slug: &str) -> Tenant {
        let api_key = new_key();
        let new = NewTenant { organization: new_organization(slug), api_key, endpoint: None, isolation: H::ISOLATION };
        self.storage.platform.tenant_create(SuperAdmin::by_operator(), new, self.now()).await.unwrap()
    }

    /// An endpoint that wants everything.
    pub async fn endpoint(&self, tenant: &Tenant) -> EndpointView {
        self.endpoint_of(tenant, |_| {}).await
    }

    /// An endpoint with settings of its own.
    pub async fn endpoint_of(&self, tenant: &Tenant, change: impl FnOnce(&mut EndpointSettings)) -> EndpointView {
        let mut settings = settings("https://example.com/hook");
        change(&mut settings);
        let new = NewEndpoint { settings, ..new_endpoint() };
        self.storage.api.endpoint_create(&tenant.scope, new, self.now()).await.unwrap()
    }

    /// Sends an event of the organization's own.
    pub async fn send(&self, tenant: &Tenant, event_type: &str) -> Recorded {
        self.try_send(tenant, event_type, None).await.unwrap()
    }

    /// Sends an event with an id of the sender's.
    pub async fn try_send(&self, tenant: &Tenant, event_type: &str, id: Option<&str>) -> Result<Recorded> {
        self.storage.receiver.event_record(new_event(tenant, event_type, id, self.now())).await
    }

    /// What the receiver finds at `/in/{slug}/{name}`.
    pub async fn source(&self, slug: &str, name: &str) -> Option<Arc<Source>> {
        self.storage.receiver.source_find(slug, name).await.unwrap()
    }

    /// [`until`]
    pub async fn until(&self, is_so: impl AsyncFn() -> bool) {
        until(is_so).await;
    }

    /// The deliveries that were handed over since the last question.
    pub fn handed_over(&self) -> Vec<(Arc<StoredEvent>, EndpointKey)> {
        let delivered = std::mem::take(&mut *self.lanes.delivered.lock());
        delivered.into_iter().flat_map(|(event, to)| to.into_iter().map(move |one| (event.clone(), one))).collect()
    }

    /// All waiting exceptions, of all endpoints, whenever they are due.
    pub async fn waiting(&self) -> Vec<postroom_storage::worker::Due> {
        let far = self.now() + Duration::from_secs(400 * 24 * 3600);
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let heads = self.storage.worker.pending_heads(after, 2).await.unwrap();
            let Some((last, _)) = heads.last() else { return all };
            after = Some(*last);
            for (endpoint, _) in heads {
                all.extend(self.storage.worker.pending_due(endpoint, far, 1000, usize::MAX).await.unwrap());
            }
        }
    }
}

/// Waits until whoever was killed or closed has let go of a directory: what writes and reads for him in this process has yet
/// to notice, and would have ended with a process of his own.
pub async fn is_given_up(dir: &Path) {
    let Ok(lock) = std::fs::File::open(dir.join("postroom.lock")) else { return };
    // Not `until`: where a storage is opened, its closure could not go from thread to thread.
    let deadline = Instant::now() + Duration::from_secs(30);
    while lock.try_lock().is_err() {
        assert!(Instant::now() < deadline, "{} is not given up", dir.display());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The same, and for those in it.
pub async fn are_given_up(dir: &Path) {
    is_given_up(dir).await;
    for tenant in std::fs::read_dir(dir.join("tenants")).into_iter().flatten() {
        is_given_up(&tenant.unwrap().path()).await;
    }
}

/// Waits until something is so, at most half a minute, and says after how long it was.
pub async fn until(is_so: impl AsyncFn() -> bool) -> Duration {
    let started = Instant::now();
    while !is_so().await {
        assert!(started.elapsed() < Duration::from_secs(30), "it did not come to be so");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    started.elapsed()
}

pub fn opening(hands: &Hands, lanes: &Arc<Lanes>, keys: &Secret) -> Opening {
    Opening {
        clock: hands.clock(),
        handoff: lanes.clone(),
        keyring: Keyring::parse(keys).unwrap(),
        dedupe_window: Duration::from_secs(7 * 24 * 3600),
        retention: Duration::from_secs(30 * 24 * 3600),
        plans: PlanLimits::default(),
    }
}

pub fn new_organization(slug: &str) -> NewOrganization {
    NewOrganization {
        name: slug.to_owned(),
        slug: slug.to_owned(),
        plan: Plan::Premium,
        webhook_limit: None,
        is_active: true,
        mandrill_webhook_secret: None,
    }
}

pub fn new_key() -> NewApiKey {
    let (_, hash) = api_key::generate();
    NewApiKey {
        name: "test".to_owned(),
        scopes: vec![KeyScope::Admin],
        expires_at: None,
        hash,
        last_four: "abcd".to_owned(),
    }
}

pub fn settings(url: &str) -> EndpointSettings {
    EndpointSettings {
        url: EndpointUrl::parse(url).unwrap(),
        description: String::new(),
        event_types: Vec::new(),
        source_ids: Vec::new(),
        filter: None,
        retry_schedule: None,
        timeout_ms: None,
        rate_limit: None,
        headers: Vec::new(),
        signature: SignatureScheme::HmacSha256,
    }
}

pub fn new_endpoint() -> NewEndpoint {
    let settings = settings("https://example.com/hook");
    NewEndpoint { settings, secret: Secret::from("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw") }
}

/// A source with a keyed hash of the body in the header `x-signature`.
pub fn new_source(name: &str, secret: &str) -> NewSource {
    let options = serde_json::json!({"signature_header": "x-signature"});
    NewSource {
        settings: SourceSettings {
            name: name.to_owned(),
            provider: "hmac".to_owned(),
            options: options.as_object().unwrap().clone(),
        },
        secret: Some(Secret::from(secret)),
    }
}

/// The signature of `{}` for such a source.
pub fn sign(secret: &str) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    hex::encode(aws_lc_rs::hmac::sign(&key, b"{}"))
}

pub fn new_rejection(source: &Arc<Source>, now: Timestamp) -> NewRejection {
    NewRejection {
        source: source.clone(),
        code: "signature_invalid",
        check: "signature".to_owned(),
        method: "POST".to_owned(),
        path: "/in/acme/custom".to_owned(),
        headers: vec![("x-signature".to_owned(), "00".to_owned())],
        body: Bytes::from_static(b"{}"),
        received_at: now,
    }
}

pub fn pattern(text: &str) -> EventTypePattern {
    EventTypePattern::parse(text).unwrap()
}

pub fn new_event(tenant: &Tenant, event_type: &str, id: Option<&str>, now: Timestamp) -> NewEvent {
    NewEvent::sent(
        tenant.scope.clone(),
        EventType::parse(event_type).unwrap(),
        id.map(|id| ExternalId::parse(id).unwrap()),
        Bytes::from(format!(r#"{{"type":"{event_type}","data":{{"total":7}}}}"#)),
        now,
    )
}

/// What the worker says after an attempt at a fresh delivery.
pub fn settlement(
    event: EventId,
    delivery: DeliveryKey,
    number: u32,
    status: u16,
    next: Transition,
    now: Timestamp,
) -> Settlement {
    Settlement {
        delivery,
        delivery_id: DeliveryId { event, endpoint_number: 1, run: delivery.run },
        attempt: Arc::new(Attempt {
            id: AttemptId::new(now),
            number,
            url: "https://example.com/hook".to_owned(),
            response: Some(Response {
                status,
                headers: vec![("x-answer".to_owned(), "1".to_owned())],
                body: Bytes::from_static(b"answer"),
            }),
            error: None::<AttemptError>,
            duration: Duration::from_millis(12),
        }),
        attempts_of_schedule: number,
        next,
    }
}

pub fn page(limit: usize) -> PageRequest {
    PageRequest { limit, after: None }
}

pub const EXHAUSTED: Transition = Transition::Dead(DeadReason::RetriesExhausted);

pub fn is_not_found<T: std::fmt::Debug>(result: Result<T>) -> bool {
    matches!(result, Err(Error::NotFound { .. }))
}
