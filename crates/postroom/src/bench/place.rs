//! Where the servers under test store: a directory of their own that goes with the bench, or the PostgreSQL database
//! of the settings in force, where organizations of the bench's own are made and switched off at its end.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use postroom_domain::Secret;
use tempfile::TempDir;

use super::child::Process;
use super::setup::Prepared;
use super::{BenchArgs, random_hex, setup};
use crate::cli::client::Client;
use crate::cli::output;
use crate::config::{Database, Flags, Loaded};

/// After so long every server knows what was configured through one: a second, and a margin for a busy machine.
const KNOWN_TO_ALL: Duration = Duration::from_secs(2);

/// How often it is tried to switch an organization off.
const LEAVE_TRIES: usize = 3;

/// See the [module](self).
pub struct Place {
    flags: Flags,
    admin_token: String,
    data: Option<TempDir>,
    /// The database, when it is PostgreSQL.
    pub database_url: Option<Secret>,
    organizations: Vec<String>,
}

impl Place {
    /// The place that the settings in force say.
    pub fn new(args: &BenchArgs) -> anyhow::Result<Self> {
        let config = Loaded::read(&args.flags).config?;
        let (data, database_url) = match config.database {
            Database::Embedded(data_dir) => {
                anyhow::ensure!(args.nodes == 1, "several nodes need PostgreSQL: set POSTROOM_DATABASE_URL");
                (Some(directory(&data_dir)?), None)
            }
            Database::Postgres(database) => {
                let place = output::plain(&database.place()?);
                output::note(format!("on PostgreSQL {place}: what is sent stays there until retention deletes it"));
                (None, Some(database.url))
            }
        };
        Ok(Self { flags: args.flags.clone(), admin_token: random_hex(24), data, database_url, organizations: vec![] })
    }

    /// One more server at this place, with `more` in its environment.
    pub async fn server(&self, more: &[(&str, &str)]) -> anyhow::Result<Process> {
        Process::server(&self.flags, self.data.as_ref().map(TempDir::path), &self.admin_token, more).await
    }

    /// So many servers at this place.
    pub async fn servers(&self, count: u16, more: &[(&str, &str)]) -> anyhow::Result<Vec<Process>> {
        let mut servers = Vec::new();
        for _ in 0..count {
            servers.push(self.server(more).await?);
        }
        Ok(servers)
    }

    /// Makes the organizations of a run, through the first of its servers.
    pub async fn prepare(
        &mut self,
        servers: &[Process],
        run: &str,
        secret: &str,
        shape: &super::Shape,
        receiver: SocketAddr,
    ) -> anyhow::Result<Prepared> {
        let server = servers.first().context("there is a server")?.address;
        let prepared = setup::prepare(server, &self.admin_token, run, secret, shape, receiver).await?;
        self.organizations.clone_from(&prepared.organizations);
        if servers.len() > 1 {
            // An event goes to the endpoints that its node knows, and a new one is known to all within a second.
            tokio::time::sleep(KNOWN_TO_ALL).await;
        }
        Ok(prepared)
    }

    /// Switches off what was made where it outlives the bench.
    pub async fn leave(&self, server: SocketAddr) -> anyhow::Result<()> {
        if self.database_url.is_none() {
            return Ok(());
        }
        let admin = Client::new(&format!("http://{server}"), &Secret::from(self.admin_token.as_str()), None)?;
        for id in &self.organizations {
            let mut tries = 0;
            // A server whose database was replaced under it may find out only now that a connection leads nowhere.
            while let Err(error) = admin.json(http::Method::DELETE, &format!("/v1/organizations/{id}"), None).await {
                tries += 1;
                anyhow::ensure!(tries < LEAVE_TRIES, error);
            }
        }
        Ok(())
    }
}

/// A directory on the disk that the configured one would use.
fn directory(configured: &Path) -> anyhow::Result<TempDir> {
    let parent = configured.parent().filter(|parent| parent.is_dir());
    let parent = parent.unwrap_or(Path::new("."));
    tempfile::Builder::new()
        .prefix("postroom-bench-")
        .tempdir_in(parent)
        .with_context(|| format!("no directory for the bench can be made in {}", parent.display()))
}
