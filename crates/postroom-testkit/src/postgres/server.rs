//! A server of a test's own: one that it may stop, kill, freeze, or give a standby.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio_postgres::NoTls;
use uuid::Uuid;

use super::machine::{self, Guardian, wait_until};
use super::{connect, told};

/// As in production where it matters for what survives; small where it does not.
const SETTINGS: [(&str, &str); 9] = [
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_directories", ""),
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    ("max_connections", "200"),
    ("shared_buffers", "32MB"),
    ("max_wal_size", "1GB"),
    // A standby that was away for a while finds what it missed.
    ("wal_keep_size", "256MB"),
];

/// The folder of the data in the server's folder.
const DATA: &str = "data";

/// How often a first start looks for another port when somebody took the one that was free.
const PORTS_MAX: usize = 5;

/// A throw-away PostgreSQL that only this test uses, on a port of the loopback address. It is gone, with its folder, when
/// this value is, and also when the test process is killed.
///
/// For a database with the roles of the kit: [`Database::on`](super::Database::on) with [`Server::admin_url`].
#[derive(Debug)]
pub struct Server {
    folder: TempDir,
    port: u16,
    password: String,
    running: Option<Child>,
    /// Goes after the folder, which it then need not remove.
    _guardian: Guardian,
}

impl Server {
    /// A server that runs and takes connections.
    ///
    /// # Panics
    ///
    /// When PostgreSQL is not installed or does not start; its log is in the text.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A server with some settings of its `postgresql.conf` changed.
    ///
    /// # Panics
    ///
    /// As [`Server::start`].
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::new(Uuid::new_v4().simple().to_string());
        let password = server.folder.path().join("password");
        std::fs::write(&password, &server.password).expect("a file in our folder");
        machine::give_away(&password);
        let mut initdb = server.program("initdb");
        initdb.args(["--pgdata", DATA, "--pwfile"]).arg(password);
        initdb.args([
            "--username",
            "postgres",
            "--auth",
            "scram-sha-256",
            "--encoding",
            "UTF8",
            "--locale",
            "C",
            "--no-sync",
        ]);
        server.finish(initdb).await;
        let configuration = File::options().append(true).open(server.data().join("postgresql.conf"));
        let mut configuration = configuration.expect("initdb made it");
        for (name, value) in SETTINGS.iter().chain(settings) {
            writeln!(configuration, "{name} = '{}'", value.replace('\'', "''")).expect("a file in our folder");
        }
        server.start_somewhere().await;
        server
    }

    fn new(password: String) -> Self {
        let folder = tempfile::Builder::new().prefix("postroom-pg-").tempdir().expect("a temporary folder");
        machine::give_away(folder.path());
        let guardian = Guardian::of(folder.path());
        Self { folder, port: machine::free_port(), password, running: None, _guardian: guardian }
    }

    async fn start_somewhere(&mut self) {
        for _ in 1..PORTS_MAX {
            match self.try_start().await {
                Err(log) if log.contains("could not bind") => self.port = machine::free_port(),
                Err(log) => panic!("PostgreSQL does not start: {log}"),
                Ok(()) => return,
            }
        }
        self.restart().await;
    }

    /// Starts it again, on the same port and with the same data, after [`Server::stop_fast`] or [`Server::kill_nine`]. It
    /// takes connections when this returns.
    ///
    /// # Panics
    ///
    /// When it runs, or does not start.
    pub async fn restart(&mut self) {
        assert!(self.running.is_none(), "the server still runs: stop or kill it first");
        if let Err(log) = self.try_start().await {
            panic!("PostgreSQL does not start again: {log}");
        }
    }

    /// The log, if it ended instead of taking connections.
    async fn try_start(&mut self) -> Result<(), String> {
        let mut postgres = self.program("postgres");
        postgres.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        let mut child = postgres.spawn().expect("PostgreSQL's program");
        let url = self.admin_url();
        let ended = wait_until("that PostgreSQL takes connections", async || {
            if tokio_postgres::connect(&url, NoTls).await.is_ok() {
                return Some(false);
            }
            child.try_wait().expect("it is our child").map(|_| true)
        });
        if ended.await {
            return Err(self.log());
        }
        self.running = Some(child);
        Ok(())
    }

    /// Stops it as an operator does (`pg_ctl stop -m fast`): sessions are ended, everything is written down.
    ///
    /// # Panics
    ///
    /// When it does not run, or does not stop.
    pub async fn stop_fast(&mut self) {
        let mut child = self.running.take().expect("the server runs");
        machine::signal(child.id(), Signal::INT);
        wait_until("the end of PostgreSQL", async || child.try_wait().expect("it is our child")).await;
    }

    /// `kill -9` of all of its processes at once, so that none of them can still write or answer anything.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub async fn kill_nine(&mut self) {
        assert!(self.running.is_some(), "the server runs");
        let sessions = self.kill();
        wait_until("the end of the sessions", async || {
            sessions.iter().all(|session| !machine::runs(*session)).then_some(())
        })
        .await;
    }

    /// Its processes other than the first, which may need a moment to be gone.
    fn kill(&mut self) -> Vec<u32> {
        let Some(mut child) = self.running.take() else { return Vec::new() };
        // Stopped first, so that it starts no further ones meanwhile.
        machine::signal(child.id(), Signal::STOP);
        let sessions = machine::children(child.id());
        for process in sessions.iter().copied().chain([child.id()]) {
            machine::signal(process, Signal::KILL);
        }
        child.wait().expect("it is our child");
        sessions
    }

    /// SIGSTOP for all of its processes: the kernel goes on taking connections and bytes, and nobody ever answers.
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn freeze(&self) {
        let server = self.id();
        machine::signal(server, Signal::STOP);
        machine::children(server).into_iter().for_each(|session| machine::signal(session, Signal::STOP));
    }

    /// Ends [`Server::freeze`].
    ///
    /// # Panics
    ///
    /// When it does not run.
    pub fn thaw(&self) {
        let server = self.id();
        machine::children(server)
            .into_iter()
            .chain([server])
            .for_each(|process| machine::signal(process, Signal::CONT));
    }

    /// A second server that follows this one by streaming replication and takes questions. Settings made with
    /// [`Server::set`] before come along, so name a synchronous standby after this.
    ///
    /// # Panics
    ///
    /// When one of the two does not play along.
    pub async fn standby(&self) -> Self {
        let mut standby = Self::new(self.password.clone());
        let mut backup = standby.program("pg_basebackup");
        backup.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres", "-w", "-D", DATA]);
        backup.args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"]);
        backup.env("PGPASSWORD", &self.password);
        standby.finish(backup).await;
        standby.start_somewhere().await;
        standby
    }

    /// Waits until this standby shows everything that the other server has committed by now.
    ///
    /// # Panics
    ///
    /// When it does not follow, or one of the two is out of reach.
    pub async fn catch_up_with(&self, primary: &Self) {
        let written = "SELECT pg_current_wal_insert_lsn()::text";
        let written: String =
            connect(&primary.admin_url()).await.query_one(written, &[]).await.expect("a primary").get(0);
        let client = connect(&self.admin_url()).await;
        let replayed = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{written}', false)");
        wait_until("that the standby follows", async || {
            client.query_one(&replayed, &[]).await.expect("a standby").get::<_, bool>(0).then_some(())
        })
        .await;
    }

    /// Makes this standby a server that takes writes, as a failover does. It does so when this returns.
    ///
    /// # Panics
    ///
    /// When it is no standby.
    pub async fn promote(&self) {
        let client = connect(&self.admin_url()).await;
        let promoted = client.query_one("SELECT pg_promote(true, 60)", &[]).await;
        assert!(
            promoted.unwrap_or_else(|error| panic!("no promotion: {}", told(&error))).get::<_, bool>(0),
            "no promotion"
        );
    }

    /// Changes a setting that needs no restart, for this and all later starts.
    ///
    /// # Panics
    ///
    /// When the server does not take it.
    pub async fn set(&self, name: &str, value: &str) {
        let client = connect(&self.admin_url()).await;
        let loaded = "SELECT pg_conf_load_time()::text";
        let before: String = client.query_one(loaded, &[]).await.expect("a server").get(0);
        let value = value.replace('\'', "''");
        let changed = client.batch_execute(&format!("ALTER SYSTEM SET {name} = '{value}'")).await;
        changed.unwrap_or_else(|error| panic!("{name}: {}", told(&error)));
        client.batch_execute("SELECT pg_reload_conf()").await.expect("a superuser may");
        wait_until("that the server has read the setting", async || {
            // A session knows what its server knew when it began.
            let now: String = connect(&self.admin_url()).await.query_one(loaded, &[]).await.expect("a server").get(0);
            (now != before).then_some(())
        })
        .await;
    }

    /// A superuser's URL. The port stays the same over restarts.
    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/postgres", self.password, self.port)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        machine::local(self.port)
    }

    fn id(&self) -> u32 {
        self.running.as_ref().expect("the server runs").id()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join(DATA)
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What the server said last.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// One of PostgreSQL's programs, in the server's folder; what it says goes into the log. Where the folder is gone, it cannot
    /// make it anew.
    fn program(&self, name: &str) -> Command {
        let log = File::options().create(true).append(true).open(self.log_file()).expect("a file in our folder");
        let mut command = machine::command(&machine::postgres_folder().join(name), self.folder.path());
        command.stdout(log.try_clone().expect("a file")).stderr(log);
        command
    }

    /// Runs a program to its good end.
    async fn finish(&mut self, mut command: Command) {
        let mut child = command.spawn().expect("PostgreSQL's program");
        let ended = wait_until("the end of PostgreSQL's program", async || child.try_wait().expect("it is our child"));
        assert!(ended.await.success(), "PostgreSQL's program failed: {}", self.log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
