//! PgBouncer between a test and its server.

use std::fs;
use std::net::SocketAddr;
use std::process::Child;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio_postgres::{Config, NoTls};

use super::at;
use super::machine::{self, Guardian, wait_until};

/// Connections to the server that it opens for each role and database, unless a test says otherwise.
const POOL: usize = 20;
/// In session mode: each connection of a client has one of the server for as long as it lives.
const SESSIONS: usize = 60;

/// PgBouncer, in transaction mode unless a test says otherwise: each transaction may run on another session of the server. It knows every role of the
/// server. It is gone when this value is.
///
/// Debian 12 has version 1.18, which does not know of prepared statements: one that was prepared in one transaction may not be
/// there in the next.
#[derive(Debug)]
pub struct PgBouncer {
    folder: TempDir,
    port: u16,
    process: Child,
    /// Goes after the folder, which it then need not remove.
    _guardian: Guardian,
}

impl PgBouncer {
    /// In front of the server of this superuser's URL, with all of its databases.
    ///
    /// # Panics
    ///
    /// When PgBouncer is not installed or does not start; its log is in the text.
    pub async fn start(admin_url: &str) -> Self {
        Self::start_with_pool(admin_url, POOL).await
    }

    /// With this many connections to the server for each role and database; 1 makes everybody share one session.
    ///
    /// # Panics
    ///
    /// As [`PgBouncer::start`].
    pub async fn start_with_pool(admin_url: &str, connections: usize) -> Self {
        Self::start_as("transaction", admin_url, connections).await
    }

    /// In session mode: as without it.
    ///
    /// # Panics
    ///
    /// As [`PgBouncer::start`].
    pub async fn start_in_session_mode(admin_url: &str) -> Self {
        Self::start_as("session", admin_url, SESSIONS).await
    }

    async fn start_as(mode: &str, admin_url: &str, connections: usize) -> Self {
        let folder = tempfile::Builder::new().prefix("postroom-pgbouncer-").tempdir().expect("a temporary folder");
        let port = machine::free_port();
        let users = folder.path().join("users");
        let configuration = folder.path().join("pgbouncer.ini");
        let (settings, passwords) = configuration_of(admin_url, port, (mode, connections), &users.to_string_lossy());
        for (file, text) in [(&users, passwords), (&configuration, settings)] {
            fs::write(file, text).expect("a file in our folder");
            machine::give_away(file);
        }
        machine::give_away(folder.path());

        let guardian = Guardian::of(folder.path());
        let log = fs::File::create(folder.path().join("log")).expect("a file in our folder");
        let mut command = machine::command(&machine::pgbouncer(), folder.path());
        let process = command.arg(&configuration).stderr(log).spawn().expect("PgBouncer's program");
        let mut pooler = Self { folder, port, process, _guardian: guardian };
        pooler.wait_until_ready(admin_url).await;
        pooler
    }

    async fn wait_until_ready(&mut self, admin_url: &str) {
        let url = self.url(admin_url);
        wait_until("that PgBouncer takes connections", async || {
            let ended = self.process.try_wait().expect("it is our child");
            assert!(ended.is_none(), "PgBouncer does not start: {}", self.log());
            tokio_postgres::connect(&url, NoTls).await.is_ok().then_some(())
        })
        .await;
    }

    /// The same URL, but through here.
    ///
    /// # Panics
    ///
    /// When it is no URL.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        at(url, self.address())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        machine::local(self.port)
    }

    /// What it said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        machine::signal(self.process.id(), Signal::KILL);
        self.process.wait().ok();
    }
}

/// `pgbouncer.ini` and its file of passwords. Of the superuser it has the password; with it, it looks up what the server knows
/// of the others, which is enough to let them in and to log in as they.
fn configuration_of(admin_url: &str, port: u16, (mode, connections): (&str, usize), users: &str) -> (String, String) {
    let config: Config = admin_url.parse().expect("the URL of a server");
    let admin = config.get_user().expect("a URL with a user");
    let [tokio_postgres::config::Host::Tcp(host)] = config.get_hosts() else { panic!("one host, by TCP") };
    let server_port = config.get_ports().first().copied().unwrap_or(5432);
    let password = config.get_password().map(|password| String::from_utf8_lossy(password).replace('"', "\"\""));
    let auth = if password.is_some() { "scram-sha-256" } else { "trust" };
    let settings = format!(
        "[databases]\n\
         * = host={host} port={server_port}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = {auth}\n\
         auth_file = {users}\n\
         auth_user = {admin}\n\
         pool_mode = {mode}\n\
         default_pool_size = {connections}\n\
         max_client_conn = 1000\n"
    );
    (settings, format!("\"{admin}\" \"{}\"\n", password.unwrap_or_default()))
}
