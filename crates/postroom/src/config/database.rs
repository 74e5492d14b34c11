//! Where everything is stored, which parts run, and what must go together.

use std::collections::HashMap;
use std::path::PathBuf;

use postroom_domain::Secret;
use postroom_storage::postgres::migrate::AppLogin;
use postroom_storage::postgres::{DatabaseUrl, OpenError, Part};

use super::layers::{Layers, Problem};
use super::{Config, parse};

/// Where everything is stored.
#[derive(Debug, Clone)]
pub enum Database {
    /// Files in this directory, and the keys made there.
    Embedded(PathBuf),
    /// A PostgreSQL database.
    Postgres(Postgres),
}

/// The logins of a PostgreSQL database.
#[derive(Debug, Clone)]
pub struct Postgres {
    /// For every part without a login of its own.
    pub url: Secret,
    /// Logins of their own.
    pub part_urls: HashMap<Part, Secret>,
    /// The login that owns the schema, if it was given.
    pub migrate_url: Option<Secret>,
}

/// Which parts a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// `/in/...`
    pub receiver: bool,
    /// `/v1/...`
    pub api: bool,
    /// Deliveries and upkeep.
    pub worker: bool,
}

impl Postgres {
    /// The login that `postroom migrate` uses.
    #[must_use]
    pub fn owning_url(&self) -> &Secret {
        self.migrate_url.as_ref().unwrap_or(&self.url)
    }

    /// The database, for people.
    ///
    /// # Errors
    /// Never for a URL of checked settings.
    pub fn place(&self) -> Result<String, OpenError> {
        Ok(DatabaseUrl::parse(&self.url)?.to_string())
    }

    /// The servers of all URLs, with their ports.
    ///
    /// # Errors
    /// Never for URLs of checked settings.
    pub fn servers(&self) -> Result<Vec<(String, u16)>, OpenError> {
        let mut servers = Vec::new();
        for url in self.part_urls.values().chain([&self.url]).chain(&self.migrate_url) {
            servers.extend_from_slice(DatabaseUrl::parse(url)?.hosts());
        }
        Ok(servers)
    }

    /// The logins that a migration grants the parts' roles to.
    ///
    /// # Errors
    /// Never for URLs of checked settings.
    pub fn logins(&self) -> Result<Vec<AppLogin>, OpenError> {
        AppLogin::of_urls(&self.url, &self.part_urls)
    }
}

impl Roles {
    /// All parts.
    pub const ALL: Self = Self { receiver: true, api: true, worker: true };
}

const PARTS: [(&str, Part); 6] = [
    ("database_url_authorizer", Part::Authorizer),
    ("database_url_receiver", Part::Receiver),
    ("database_url_worker", Part::Worker),
    ("database_url_api", Part::Api),
    ("database_url_dead_letter", Part::DeadLetter),
    ("database_url_platform", Part::Platform),
];

pub(super) fn take(layers: &mut Layers, data_dir: PathBuf) -> Database {
    let mut url = |key| super::take_optional(layers, key, parse::database_url);
    let common = url("database_url");
    let part_urls = PARTS.into_iter().filter_map(|(key, part)| Some((part, url(key)?))).collect();
    let migrate_url = url("migrate_database_url");
    match common {
        Some(url) => Database::Postgres(Postgres { url, part_urls, migrate_url }),
        None => Database::Embedded(data_dir),
    }
}

/// What is right alone and wrong together.
pub(super) fn check(layers: &mut Layers, config: &Config, needs_keys: bool) {
    let on_postgres = layers.values.contains_key("database_url");
    let keys = PARTS.iter().map(|(key, _)| *key).chain(["migrate_database_url"]);
    for key in keys.filter(|_| !on_postgres) {
        problem(layers, key, "means nothing without database_url: set that too, or unset this");
    }
    if !on_postgres && config.roles != Roles::ALL {
        let text = "on the embedded engine one process runs all parts: unset it, or set database_url to share the parts \
                    out among processes";
        problem(layers, "roles", text);
    }
    if needs_keys && on_postgres && !layers.values.contains_key("encryption_keys") {
        let text = "must be set on PostgreSQL, where every process needs the same keys: `postroom keys generate` prints \
                    one";
        layers.problems.push(Problem { key: "encryption_keys".to_owned(), origin: None, text: text.to_owned() });
    }
}

/// A problem of a setting that somebody set.
fn problem(layers: &mut Layers, key: &'static str, text: &str) {
    let Some(given) = layers.values.get(key) else { return };
    let origin = Some(given.origin.clone());
    layers.problems.push(Problem { key: key.to_owned(), origin, text: text.to_owned() });
}
