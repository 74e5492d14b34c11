//! A server as its own process on either engine, a receiver, and plain HTTP over a socket.

mod told;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use postroom_domain::Secret;
use postroom_domain::keyring::Keyring;
use postroom_storage::postgres::migrate;
use postroom_testkit::postgres::{self, APP_ROLE, Database};
use postroom_testkit::secrets::Secrets;
use serde_json::{Value, json};

pub const ADMIN_TOKEN: &str = "k3J9sQ7xV2mZ8pL4wN6tR1yB5cF0hGdA";
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The file of what the servers of a place have logged.
const LOG: &str = "log";

/// The binary, in a surrounding without any of our settings.
pub fn postroom() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postroom"));
    let ours = std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("POSTROOM_"));
    for name in ours {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG").current_dir(std::env::temp_dir()).stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(arguments: &[&str]) -> Output {
    postroom().args(arguments).output().expect("the binary starts")
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// What a command said of itself, which no secret belongs in.
pub fn stderr(output: &Output) -> String {
    assert_eq!(told::anybodys_secret_in(&output.stderr), None, "a command has told a secret");
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// Waits until something is so.
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What stores.
#[derive(Clone, Copy)]
pub enum Engine {
    Embedded,
    Postgres,
}

/// A working directory, and a database that goes with its test.
pub struct Place {
    pub dir: tempfile::TempDir,
    environment: Vec<(String, String)>,
    /// On PostgreSQL.
    pub database: Option<Database>,
    is_on_own_server: bool,
    /// What its servers may not tell.
    secrets: Arc<Secrets>,
    /// How many servers were started.
    starts: AtomicUsize,
}

impl Place {
    pub fn new(engine: Engine) -> Self {
        match engine {
            Engine::Embedded => Self::with(Vec::new(), None),
            Engine::Postgres => Self::on(wait_for(Database::from_template(&migrate::schema(), migrated))),
        }
    }

    /// On a server of the test's own.
    pub fn on_own(server: &postgres::Server) -> Self {
        let mut place = Self::on(wait_for(async {
            let database = Database::on(&server.admin_url()).await;
            migrated(&database.owner_url()).await;
            database
        }));
        place.is_on_own_server = true;
        place
    }

    /// With this PostgreSQL database, and encryption keys for it.
    pub fn on(database: Database) -> Self {
        let keys = Keyring::generate().expose_str().expect("keys are text").to_owned();
        let environment = vec![
            ("POSTROOM_DATABASE_URL".to_owned(), database.app_url()),
            ("POSTROOM_ENCRYPTION_KEYS".to_owned(), keys),
        ];
        Self::with(environment, Some(database.taking("select database from tenants")))
    }

    fn with(environment: Vec<(String, String)>, database: Option<Database>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let secrets = told::nothing_yet();
        Self { dir, environment, database, is_on_own_server: false, secrets, starts: AtomicUsize::new(0) }
    }

    /// The database, of a test that is of PostgreSQL alone.
    pub fn database(&self) -> &Database {
        self.database.as_ref().expect("this place is on PostgreSQL")
    }

    /// The value of one of its settings.
    pub fn setting(&self, name: &str) -> String {
        self.environment.iter().find(|(known, _)| known == name).expect("a setting of this place").1.clone()
    }

    /// A command with this place's settings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = postroom();
        command.args(arguments).envs(self.environment.iter().cloned()).current_dir(self.dir.path());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary starts")
    }

    /// Starts a server, at its loudest unless the test says otherwise, and keeps all that it prints.
    fn spawn(&self, environment: &[(&str, &str)]) -> (Child, String) {
        let settings = self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in settings.chain(environment.iter().copied()) {
            told::learn_setting(&self.secrets, name, value);
        }
        let file = |name: &str| {
            let path = self.dir.path().join(name);
            (std::fs::File::options().create(true).append(true).open(&path).expect("a file"), path)
        };
        let (output, said) = file(&format!("output.{}", self.starts.fetch_add(1, Ordering::Relaxed)));
        let mut child = self
            .command(&["serve"])
            .env("RUST_LOG", "trace")
            .env("POSTROOM_LISTEN", "127.0.0.1:0")
            .env("POSTROOM_ADMIN_TOKEN", ADMIN_TOKEN)
            .env("POSTROOM_ALLOW_PRIVATE_NETWORKS", "127.0.0.0/8")
            .envs(environment.iter().copied())
            .stdout(output)
            .stderr(file(LOG).0)
            .spawn()
            .expect("the binary starts");
        let line = wait_until("a server", || {
            let ended = child.try_wait().expect("it is our child").is_some();
            let text = std::fs::read_to_string(&said).expect("its output");
            (ended || text.ends_with('\n')).then_some(text)
        });
        let ready: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("no server: {}", std::fs::read_to_string(self.log()).unwrap_or_default()));
        let url = ready["url"].as_str().expect("a URL").to_owned();
        told::listens_at(&url, &self.secrets);
        (child, url)
    }

    /// What the servers of this place have logged.
    pub fn log(&self) -> PathBuf {
        self.dir.path().join(LOG)
    }

    /// Whether a server has printed this.
    fn is_printed(&self, file: &Path) -> bool {
        file == self.log() || file.file_stem().is_some_and(|name| name == "output")
    }
}

/// Brings a database to where a server works on it.
async fn migrated(owner_url: &str) {
    let logins = [migrate::AppLogin::of_all_parts(APP_ROLE)];
    migrate::up(&Secret::from(owner_url), &logins).await.expect("a migrated database");
}

/// Drives what only waits.
pub fn wait_for<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// A server, killed at the end of the test.
pub struct Server {
    pub url: String,
    child: Child,
    /// Goes after the server.
    pub place: Arc<Place>,
}

impl Server {
    pub fn start(engine: Engine) -> Self {
        Self::start_with(engine, &[])
    }

    pub fn start_with(engine: Engine, environment: &[(&str, &str)]) -> Self {
        Self::at(&Arc::new(Place::new(engine)), environment)
    }

    /// One more server at a place.
    pub fn at(place: &Arc<Place>, environment: &[(&str, &str)]) -> Self {
        let (child, url) = place.spawn(environment);
        Self { url, child, place: place.clone() }
    }

    /// The same data again, after [`Server::kill`] or [`Server::terminate`].
    pub fn restart(&mut self, environment: &[(&str, &str)]) {
        (self.child, self.url) = self.place.spawn(environment);
    }

    pub fn dir(&self) -> &Path {
        self.place.dir.path()
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), pid.as_str()]).status().expect("kill");
        assert!(status.success());
    }

    /// SIGTERM, and its exit code.
    pub fn terminate(&mut self) -> i32 {
        self.signal("TERM");
        self.exit_code()
    }

    pub fn exit_code(&mut self) -> i32 {
        wait_until("the end of the server", || self.child.try_wait().expect("it is our child")).code().unwrap_or(-1)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A command on the same data, with the server's address.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.command(arguments);
        command.env("POSTROOM_URL", &self.url);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary starts")
    }

    /// An organization of this name, with an API key and perhaps an endpoint.
    pub fn tenant(&self, name: &str, target: Option<&str>) -> Tenant {
        let mut body = json!({ "name": name, "plan": "premium" });
        if let Some(target) = target {
            body["target_url"] = target.into();
        }
        let (status, made) = post(&format!("{}/v1/tenants", self.url), ADMIN_TOKEN, &body);
        assert_eq!(status, 201, "{made}");
        Tenant { url: self.url.clone(), key: made["api_key"]["secret"].as_str().expect("a key").to_owned() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One organization's way in.
pub struct Tenant {
    pub url: String,
    pub key: String,
}

impl Tenant {
    pub fn get(&self, path: &str) -> Value {
        let (status, _, body) = request("GET", &format!("{}{path}", self.url), &bearer(&self.key), b"");
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("JSON")
    }

    /// The same by another server.
    pub fn at(&self, server: &Server) -> Self {
        Self { url: server.url.clone(), key: self.key.clone() }
    }

    pub fn get_status(&self, path: &str) -> u16 {
        request("GET", &format!("{}{path}", self.url), &bearer(&self.key), b"").0
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        post(&format!("{}{path}", self.url), &self.key, body)
    }

    pub fn source(&self, provider: &str, secret: &str) {
        let (status, made) = self.post("/v1/sources", &json!({ "provider": provider, "secret": secret }));
        assert_eq!(status, 201, "{made}");
    }
}

pub fn bearer(key: &str) -> Vec<(String, String)> {
    vec![
        ("authorization".to_owned(), format!("Bearer {key}")),
        ("content-type".to_owned(), "application/json".to_owned()),
    ]
}

pub fn post(url: &str, key: &str, body: &Value) -> (u16, Value) {
    let (status, _, answer) = request("POST", url, &bearer(key), body.to_string().as_bytes());
    (status, serde_json::from_slice(&answer).unwrap_or_default())
}

/// One request on a connection of its own.
pub fn request(method: &str, url: &str, headers: &[(String, String)], body: &[u8]) -> (u16, String, Vec<u8>) {
    let rest = url.strip_prefix("http://").expect("plain http");
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let mut stream = TcpStream::connect(host).expect("a server");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let path = if path.is_empty() { "/" } else { path };
    let secrets = told::learn_request(host, path, headers, body);
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).expect("it takes a request");
    stream.write_all(body).expect("it takes a body");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("the end of the headers");
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let body = &answer[end + 4..];
    let body = if head.contains("transfer-encoding: chunked") { dechunked(body) } else { body.to_vec() };
    if let Some(secrets) = secrets {
        told::check_answer(&secrets, &format!("{method} {path}"), status, &body);
    }
    (status, head, body)
}

fn dechunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).expect("ASCII").trim(), 16).expect("a size");
        if size == 0 {
            break;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
    body
}

/// One delivery as it arrived.
pub struct Arrived {
    pub head: String,
    pub body: Vec<u8>,
}

impl Arrived {
    pub fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("{name} is missing in {}", self.head))
    }
}

/// An endpoint that answers as it is told, one answer after the other; the last one stays.
pub struct Receiver {
    pub address: SocketAddr,
    arrivals: mpsc::Receiver<Arrived>,
}

impl Receiver {
    pub fn answering(statuses: &[u16]) -> Self {
        Self::answering_after(statuses, Duration::ZERO)
    }

    /// Each answer takes so long.
    pub fn answering_after(statuses: &[u16], pause: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (tell, arrivals) = mpsc::channel();
        let statuses = std::sync::Arc::new(std::sync::Mutex::new(statuses.to_vec()));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tell, statuses) = (tell.clone(), statuses.clone());
                std::thread::spawn(move || serve(&stream, &tell, &statuses, pause));
            }
        });
        Self { address, arrivals }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub fn next(&self) -> Arrived {
        self.arrivals.recv_timeout(PATIENCE).expect("a delivery")
    }

    /// The same for what takes longer.
    pub fn next_within(&self, patience: Duration) -> Arrived {
        self.arrivals.recv_timeout(patience).expect("a delivery")
    }

    pub fn is_quiet(&self) -> bool {
        self.arrivals.try_recv().is_err()
    }
}

fn serve(stream: &TcpStream, tell: &mpsc::Sender<Arrived>, statuses: &std::sync::Mutex<Vec<u16>>, pause: Duration) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let lower = head.to_lowercase();
        let length =
            lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        // Header values keep their case, names are lower: signatures are base64.
        let head = head.lines().map(|line| {
            line.split_once(": ").map_or(line.to_owned(), |(name, value)| format!("{}: {value}", name.to_lowercase()))
        });
        let _ = tell.send(Arrived { head: head.collect::<Vec<_>>().join("\n"), body });
        std::thread::sleep(pause);
        let status = {
            let mut statuses = statuses.lock().expect("no panic");
            if statuses.len() > 1 { statuses.remove(0) } else { statuses[0] }
        };
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
        if (&*stream).write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A file in a directory.
pub fn write(dir: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).expect("a file");
    path
}
