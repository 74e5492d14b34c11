//! A running server on either engine with a clock set by hand, and a client that sends exactly the bytes it is told to.

mod chunked;
mod owned;
mod told;

use bytes::Bytes;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use postroom_domain::egress::Policy;
use postroom_domain::keyring::Keyring;
use postroom_domain::organization::PlanLimits;
use postroom_domain::{AttemptId, Clock, DeliveryId, Secret, Timestamp};
use postroom_storage::worker::{
    Attempt, DeliveryKey, EndpointKey, OrganizationKey, Response, Settlement, StoredEvent, Transition,
};
use postroom_storage::{Handoff, Storage, postgres, sqlite};
use postroom_testkit::postgres::{APP_ROLE, Database, connect};
use postroom_web::{AdminToken, App, KeyFetcher, Limits, Quota, Roles, ServerLimits, SessionKeys};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use owned::Owned;

pub const ADMIN: &str = "the-admin-token-of-these-tests-is-long-enough";
/// How long a test waits for what must happen before it says that it does not.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// 2026-11-22T10:00:00Z.
const BEGIN: i64 = 1_795_341_600_000;

/// A moment at which the server's clock breaks.
const BROKEN: i64 = i64::MIN;

fn breakable(now: Arc<AtomicI64>) -> Clock {
    Clock::new(move || match now.load(Ordering::SeqCst) {
        BROKEN => panic!("the clock is broken, secret-in-a-panic"),
        millis => Timestamp::from_millis(millis),
    })
}

/// What stores.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Embedded,
    /// With a database of its own for each organization that is set up as a tenant.
    EmbeddedDedicated,
    Postgres,
    /// The same on PostgreSQL.
    PostgresDedicated,
}

impl Engine {
    /// As `POST /v1/tenants` is asked for it.
    pub fn isolation(self) -> &'static str {
        match self {
            Self::Embedded | Self::Postgres => "shared",
            Self::EmbeddedDedicated | Self::PostgresDedicated => "dedicated",
        }
    }
}

/// A database that goes with its test.
enum Place {
    Embedded(tempfile::TempDir),
    Postgres(Database),
}

impl Place {
    async fn new(engine: Engine) -> Self {
        match engine {
            Engine::Embedded | Engine::EmbeddedDedicated => Self::Embedded(tempfile::tempdir().unwrap()),
            Engine::Postgres | Engine::PostgresDedicated => {
                let migrate = async |owner_url: &str| {
                    let logins = [postgres::migrate::AppLogin::of_all_parts(APP_ROLE)];
                    postgres::migrate::up(&Secret::from(owner_url), &logins).await.unwrap();
                };
                let database = Database::from_template(&postgres::migrate::schema(), migrate).await;
                Self::Postgres(database.taking("select database from tenants"))
            }
        }
    }

    async fn open(&self, keys: &Secret, clock: Clock, handoff: Arc<dyn Handoff>) -> Storage {
        let keyring = Keyring::parse(keys).unwrap();
        let (dedupe_window, retention) = (Duration::from_secs(7 * 24 * 3600), Duration::from_secs(30 * 24 * 3600));
        let default_attempt_timeout = Duration::from_secs(15);
        match self {
            Self::Embedded(directory) => sqlite::open(sqlite::Options {
                data_dir: directory.path().to_owned(),
                keyring,
                clock,
                handoff,
                dedupe_window,
                retention,
                plans: PlanLimits::default(),
                default_attempt_timeout,
                mode: sqlite::Mode::Serve,
            })
            .unwrap(),
            Self::Postgres(database) => {
                let options = postgres::Options {
                    url: Secret::from(database.app_url().as_str()),
                    part_urls: HashMap::new(),
                    migrate_url: Some(Secret::from(database.owner_url().as_str())),
                    keyring,
                    clock,
                    handoff,
                    delivers: true,
                    dedupe_window,
                    retention,
                    plans: PlanLimits::default(),
                    default_attempt_timeout,
                    lease: Duration::from_secs(15),
                    mode: postgres::Mode::Serve,
                };
                postgres::open(options).await.unwrap()
            }
        }
    }
}

/// A running server.
pub struct Room {
    pub address: SocketAddr,
    pub storage: Storage,
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
    handed: Arc<Handed>,
    now: Arc<AtomicI64>,
    server: Option<JoinHandle<()>>,
    engine: Engine,
    keys: Secret,
    place: Arc<Place>,
    confided: told::Confided,
}

/// What nobody uses up.
const PLENTY: Quota = Quota { limit: 1_000_000, window: Duration::from_secs(1_000) };

/// What a test changes of the server before it starts.
pub struct Setup {
    pub limits: Limits,
    pub server: ServerLimits,
    pub roles: Roles,
    pub key_fetcher: Arc<dyn KeyFetcher>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            // The clock stands still in most tests, so no quota would ever be refilled.
            limits: Limits { requests: PLENTY, sign_ins: PLENTY, wrong_credentials: PLENTY, ..Limits::default() },
            server: ServerLimits::default(),
            roles: Roles::ALL,
            key_fetcher: Arc::new(crate::providers::Script::default()),
        }
    }
}

/// Accepts every delivery, and makes them when the test says how they end.
#[derive(Default)]
struct Handed(Mutex<Vec<(Arc<StoredEvent>, Vec<EndpointKey>)>>);

impl Handoff for Handed {
    fn reserve(&self, _: EndpointKey, _: usize) -> bool {
        true
    }
    fn deliver(&self, event: Arc<StoredEvent>, endpoints: Vec<EndpointKey>) {
        self.0.lock().unwrap().push((event, endpoints));
    }
    fn release(&self, _: EndpointKey, _: usize) {}
    fn wake(&self, _: EndpointKey) {}
    fn is_processing(&self, _: DeliveryKey) -> bool {
        false
    }
    fn is_busy(&self, _: OrganizationKey) -> bool {
        false
    }
}

impl Room {
    pub async fn start(engine: Engine) -> Self {
        Self::with(engine, |_| {}).await
    }

    pub async fn with(engine: Engine, change: impl FnOnce(&mut Setup)) -> Self {
        recorder();
        crate::logs::kept();
        let mut setup = Setup::default();
        change(&mut setup);
        let now = Arc::new(AtomicI64::new(BEGIN));
        let (place, keys) = (Arc::new(Place::new(engine).await), Keyring::generate());
        Self::serve(engine, place, keys, now, None, setup).await
    }

    /// Another server beside this one: on PostgreSQL another node on the same database, on the embedded engine a server
    /// with the same storage, which only one process can have.
    pub async fn beside(&self) -> Self {
        let setup = Setup::default();
        let storage = match self.engine {
            Engine::Embedded | Engine::EmbeddedDedicated => Some(self.storage.clone()),
            Engine::Postgres | Engine::PostgresDedicated => None,
        };
        Self::serve(self.engine, self.place.clone(), self.keys.clone(), self.now.clone(), storage, setup).await
    }

    async fn serve(
        engine: Engine,
        place: Arc<Place>,
        keys: Secret,
        now: Arc<AtomicI64>,
        storage: Option<Storage>,
        setup: Setup,
    ) -> Self {
        let handed = Arc::new(Handed::default());
        let hands = now.clone();
        let clock = Clock::new(move || Timestamp::from_millis(hands.load(Ordering::SeqCst)));
        let storage = match storage {
            Some(storage) => storage,
            None => place.open(&keys, clock, handed.clone()).await,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let app = App {
            storage: storage.clone(),
            clock: breakable(now.clone()),
            egress: Arc::new(Policy::new(vec!["127.0.0.0/8".parse().unwrap()], vec![address])),
            key_fetcher: setup.key_fetcher,
            limits: setup.limits,
            admin_token: Some(AdminToken::new(&Secret::from(ADMIN)).unwrap()),
            public_url: "https://hooks.example".to_owned(),
            trusted_proxies: Vec::new(),
            mail_queued: Arc::default(),
            session_keys: SessionKeys::new(&Keyring::parse(&keys).unwrap()),
            tasks: tasks.clone(),
            cursor_key: Secret::random(32),
            render_metrics: Arc::new(|| recorder().render()),
            roles: setup.roles,
            stop: stop.clone(),
            version: "0.0.0-test",
        };
        let server = tokio::spawn(postroom_web::serve(listener, postroom_web::router(app), setup.server, stop.clone()));
        let confided = told::Confided::new(keys.expose_str().unwrap());
        Self { address, storage, stop, tasks, handed, now, server: Some(server), engine, keys, place, confided }
    }

    /// From now on every question for the time is a panic in the server: as good as any other mistake in a handler.
    pub fn break_clock(&self) {
        self.now.store(BROKEN, Ordering::SeqCst);
    }

    pub fn mend_clock(&self) {
        self.now.store(BEGIN, Ordering::SeqCst);
    }

    /// The encryption keys of the installation.
    pub fn keys(&self) -> &Secret {
        &self.keys
    }

    /// Where the embedded engine keeps its files.
    pub fn data_dir(&self) -> &std::path::Path {
        match &*self.place {
            Place::Embedded(directory) => directory.path(),
            Place::Postgres(_) => panic!("PostgreSQL has no data directory"),
        }
    }

    /// All that is in the database: the files of the embedded engine, every row of every table of PostgreSQL.
    pub async fn stored(&self) -> Vec<u8> {
        match &*self.place {
            Place::Embedded(directory) => {
                let entries = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
                entries.filter(|path| path.is_file()).flat_map(|path| std::fs::read(path).unwrap()).collect()
            }
            Place::Postgres(database) => {
                let client = connect(&database.admin_url()).await;
                client.query("select set_config('xmlbinary', 'hex', false)", &[]).await.unwrap();
                let all =
                    "select query_to_xml(format('select * from %I.%I', schemaname, tablename), true, false, '')::text
                    from pg_tables where schemaname not in ('pg_catalog', 'information_schema')";
                let rows = client.query(all, &[]).await.unwrap();
                rows.iter().flat_map(|row| row.get::<_, String>(0).into_bytes()).collect()
            }
        }
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now.load(Ordering::SeqCst))
    }

    pub fn forward(&self, by: Duration) {
        self.now.fetch_add(i64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Stops the server and waits for it.
    pub async fn stopped(&mut self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.server.take().unwrap()).await.expect("the server stops").unwrap();
    }

    pub fn call(&self, method: &str, path: &str) -> Call<'_> {
        Call { room: self, method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    pub fn get(&self, path: &str) -> Call<'_> {
        self.call("GET", path)
    }

    pub fn post(&self, path: &str) -> Call<'_> {
        self.call("POST", path)
    }

    /// A new organization with an admin key.
    pub async fn tenant(&self, name: &str) -> Tenant {
        let body = json!({"name": name, "plan": "premium", "isolation": self.engine.isolation()});
        let reply = self.post("/v1/tenants").bearer(ADMIN).json(&body).send().await;
        assert_eq!(reply.status, 201, "{reply:?}");
        let tenant = reply.json();
        Tenant {
            id: tenant["organization"]["id"].as_str().unwrap().to_owned(),
            slug: tenant["organization"]["slug"].as_str().unwrap().to_owned(),
            key: tenant["api_key"]["secret"].as_str().unwrap().to_owned(),
        }
    }

    /// Another key of an organization.
    pub async fn key(&self, tenant: &Tenant, scopes: &[&str]) -> String {
        let body = json!({"name": "test", "scopes": scopes});
        let reply = self.post("/v1/api-keys").bearer(&tenant.key).json(&body).send().await;
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.json()["secret"].as_str().unwrap().to_owned()
    }

    /// A source; returns its id.
    pub async fn source(&self, tenant: &Tenant, body: Value) -> String {
        let reply = self.post("/v1/sources").bearer(&tenant.key).json(&body).send().await;
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.json()["id"].as_str().unwrap().to_owned()
    }

    /// An endpoint that nothing listens at; returns its id.
    pub async fn endpoint(&self, tenant: &Tenant) -> String {
        let body = json!({"url": "http://127.0.0.1:9/hook"});
        let reply = self.post("/v1/endpoints").bearer(&tenant.key).json(&body).send().await;
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.json()["id"].as_str().unwrap().to_owned()
    }

    /// Ends every delivery that waits in memory with one attempt.
    pub async fn settle(&self, status: u16, next: Transition) {
        let handed = std::mem::take(&mut *self.handed.0.lock().unwrap());
        for (event, endpoints) in handed {
            for key in endpoints {
                let endpoint = self.storage.worker.endpoint_find(key).await.unwrap().unwrap();
                let delivery = event.delivery(key);
                let response = Response {
                    status,
                    headers: vec![("x-answer".to_owned(), "1".to_owned())],
                    body: Bytes::from_static(b"answer"),
                };
                let attempt = Attempt {
                    id: AttemptId::new(self.now()),
                    number: 1,
                    url: endpoint.settings.url.to_string(),
                    response: Some(response),
                    error: None,
                    duration: Duration::from_millis(12),
                };
                let settlement = Settlement {
                    delivery,
                    delivery_id: DeliveryId { event: event.id, endpoint_number: endpoint.number, run: delivery.run },
                    attempt: Arc::new(attempt),
                    attempts_of_schedule: 1,
                    next,
                };
                self.storage.worker.attempt_settle(settlement).await.unwrap();
            }
        }
    }

    /// Sends bytes as they are, and reads until these come.
    pub async fn raw_until(&self, bytes: &[u8], end: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        while !answer.windows(end.len()).any(|window| window == end) {
            let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut answer)).await.expect("more of the answer");
            assert_ne!(read.unwrap(), 0, "it ended early: {}", String::from_utf8_lossy(&answer));
        }
        answer
    }

    /// Sends bytes as they are, and reads until the other side closes.
    pub async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The other side may have answered and closed before all was sent.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ =
            tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end of the connection");
        answer
    }
}

/// An organization and its admin key.
pub struct Tenant {
    pub id: String,
    pub slug: String,
    pub key: String,
}

/// A request under way.
pub struct Call<'a> {
    room: &'a Room,
    method: String,
    path: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Call<'_> {
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// The bytes of the request, on a connection of its own.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes =
            format!("{} {} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n", self.method, self.path).into_bytes();
        let mut headers = self.headers.clone();
        let length =
            self.headers.iter().any(|(name, _)| matches!(name.as_str(), "content-length" | "transfer-encoding"));
        if !length && (!self.body.is_empty() || self.method == "POST") {
            headers.push(("content-length".to_owned(), self.body.len().to_string().into_bytes()));
        }
        for (name, value) in headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(&value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    pub async fn send(&self) -> Reply {
        self.room.confided.asked(self);
        let reply = Reply::parse(&self.room.raw(&self.bytes()).await);
        self.room.confided.answered(&self.path, &reply);
        reply
    }
}

/// An answer.
#[derive(Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {}", self.status, self.headers, String::from_utf8_lossy(&self.body))
    }
}

impl Reply {
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let end =
            bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut body = bytes[end + 4..].to_vec();
        if headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked") {
            body = chunked::dechunk(&body);
        }
        Self { status, headers, body }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// The code of a problem, after checking that the answer is a whole one.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        let code = problem["code"].as_str().unwrap().to_owned();
        assert_eq!(problem["status"], self.status, "{self:?}");
        let page = problem["type"].as_str().unwrap();
        // What the parser refuses is refused before anybody knows the server's name.
        assert!(
            [format!("https://hooks.example/problems/{code}"), format!("/problems/{code}")].contains(&page.to_owned())
        );
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"));
        for member in ["title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        }
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"));
        code
    }

    /// `status code`, or `status` when it is no problem.
    pub fn verdict(&self) -> String {
        if self.status < 400 { self.status.to_string() } else { format!("{} {}", self.status, self.problem()) }
    }

    /// `field code` of every refused field.
    pub fn fields(&self) -> Vec<String> {
        let errors = self.json()["errors"].as_array().cloned().unwrap_or_default();
        errors.iter().map(|e| format!("{} {}", e["field"].as_str().unwrap(), e["code"].as_str().unwrap())).collect()
    }
}

/// One recorder of metrics for all tests of the process.
fn recorder() -> &'static PrometheusHandle {
    static RECORDER: LazyLock<PrometheusHandle> =
        LazyLock::new(|| PrometheusBuilder::new().install_recorder().expect("the first recorder of this process"));
    &RECORDER
}

/// Asks again and again until `probe` has an answer.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let asking = async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("in vain: {what}"))
}
