//! How the engine is put together, and why a database is refused.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use postroom_domain::keyring::{Keyring, KeyringError};
use postroom_domain::{OrganizationId, Secret};
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;

use super::budget::Budget;
use super::convert::get;
use super::directory::Directories;
use super::door::{self, Login};
use super::footprint::Footprint;
use super::lanes::{self, Lanes};
use super::node::{self, Node};
use super::pool::{Part, Pool, bind};
use super::probe::Probe;
use super::reads::gauges::Counted;
use super::{Engine, Mode, Options, Pools, Postgres, cells, migrate, retention};
use crate::cells::registry::TenantRow;
use crate::copy::side::UNFINISHED;
use crate::engine::ids::Ids;
use crate::engine::rejections::Rate;
use crate::engine::shares::Shares;
use crate::engine::vault::{AuditKeys, SENTINEL, Vault, meta};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a database is refused. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not a URL of a PostgreSQL database.
    #[error("the database URL cannot be read: {0}; give postgres://user:password@host:port/database")]
    Url(String),
    /// The file that `sslrootcert` names.
    #[error(
        "{} cannot be used as certificate authorities of the database: {reason}; name a file of PEM certificates after \
         sslrootcert= in the database URL",
        path.display()
    )]
    Authorities {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS is used, and the server does not prove who it is.
    #[error(
        "the database server's certificate is not accepted: {0}; name the file with its certificate authority in the \
         database URL (sslrootcert=/path/ca.pem) and the host as the certificate does, or use sslmode=disable where \
         nobody can listen"
    )]
    Certificate(String),
    /// Older than any this program was tested with.
    #[error("the database server is PostgreSQL {major}: use version 15 or newer")]
    ServerTooOld {
        /// Its version.
        major: i32,
    },
    /// A standby, or a server that was told to write nothing.
    #[error(
        "the database server is read-only: it is a standby or default_transaction_read_only is on; give the URL of the \
         primary, or all hosts with commas between them, of which the primary is taken"
    )]
    ReadOnly,
    /// A commit could be lost there, or text changed.
    #[error(
        "the database server has {setting} = {value}, with which what was acknowledged can be lost or changed; {}",
        advice(setting)
    )]
    Unsafe {
        /// Which setting.
        setting: String,
        /// What it is now.
        value: String,
    },
    /// Nothing would keep organizations and parts apart.
    #[error(
        "the database login \"{login}\" {because}, so nothing would keep organizations apart; make a login for the \
         server alone (create role postroom_app login noinherit password '...'), put it into POSTROOM_DATABASE_URL and \
         run `postroom migrate up` with the owning one in POSTROOM_MIGRATE_DATABASE_URL"
    )]
    Unbound {
        /// Which login.
        login: String,
        /// What it is or may.
        because: String,
    },
    /// It has more rights than those of its part before it becomes anything.
    #[error(
        "the database login \"{login}\" has all rights of \"{role}\" at all times; run `postroom migrate up`, or as a \
         superuser: alter role \"{login}\" noinherit (from PostgreSQL 16 on: grant \"{role}\" to \"{login}\" with \
         inherit false, or revoke it)"
    )]
    Inherits {
        /// Which login.
        login: String,
        /// Whose rights.
        role: String,
    },
    /// It may not become a part.
    #[error(
        "the database login \"{login}\" may not become \"{role}\"; run `postroom migrate up`, or as a superuser: grant \
         {role} to \"{login}\""
    )]
    NotAPart {
        /// Which login.
        login: String,
        /// Which part's role.
        role: &'static str,
    },
    /// What it became in one transaction it would not be in the next.
    #[error(
        "the database login \"{login}\" comes through a pooler that gives every transaction another connection, so it \
         cannot become the parts it is used for; give each part a login of its own (POSTROOM_DATABASE_URL_WORKER and so \
         on, then `postroom migrate up`), or set the pooler to session mode, or name the server itself"
    )]
    Pooled {
        /// Which login.
        login: String,
    },
    /// There is nobody to grant to.
    #[error(
        "the database server has no login \"{login}\"; make it (create role \"{login}\" login noinherit password '...') \
         and run `postroom migrate up` again"
    )]
    NoLogin {
        /// Which login.
        login: String,
    },
    /// The login of a migration, a copy or a move lacks a right.
    #[error(
        "the login given lacks a right in this database: {0}; put the login that owns the database and may make roles \
         (alter database ... owner to ...; alter role ... createrole) into POSTROOM_MIGRATE_DATABASE_URL"
    )]
    NotAllowed(String),
    /// Somebody holds a lock for long.
    #[error("the database is busy: {0}; that step changed nothing, run the command again")]
    Busy(String),
    /// Servers would lose what they work with.
    #[error("{servers} servers are running on the database: stop them, then take the migration back")]
    Running {
        /// How many.
        servers: i64,
    },
    /// A newer program has migrated it.
    #[error(
        "the database has schema version {found}, which needs version {needed} of the program, and this is version \
         {known}: use the version of Postroom that migrated it or a newer one"
    )]
    Newer {
        /// In the database.
        found: i32,
        /// The migrations that this program has.
        known: usize,
        /// The migrations that a program has to have.
        needed: i32,
    },
    /// Migrations are missing.
    #[error(
        "the database has schema version {found} and this program needs {known}: run `postroom migrate up` with the \
         login that owns the database in POSTROOM_MIGRATE_DATABASE_URL"
    )]
    Older {
        /// In the database.
        found: usize,
        /// In this program.
        known: usize,
    },
    /// The encryption keys given are not those of this database.
    #[error("the encryption keys given do not open this database: {0}; give the keys it was written with")]
    WrongKey(#[source] KeyringError),
    /// Running servers could not read what would be written, or would go on writing what has to be rotated.
    #[error(
        "{servers} running servers do not encrypt with the newest of these keys: restart them with that key first in \
         their list, then rotate again"
    )]
    ServersLackKey {
        /// How many.
        servers: usize,
    },
    /// An organization could be missed.
    #[error("an organization is being moved, or an installation copied: run the command again when that is done")]
    Moving,
    /// `postroom copy` has not come to its end here.
    #[error(
        "the database holds a copy that is not finished: run the `postroom copy` command again that began it, and start \
         servers when it says that it is done"
    )]
    Unfinished,
    /// Databases for single organizations are to be made, and nobody who may.
    #[error(
        "no database can be made for an organization: put the login that owns the shared database and may make others \
         (alter role ... createdb) into POSTROOM_MIGRATE_DATABASE_URL of the servers"
    )]
    NoOwner,
    /// The owning login lacks a right.
    #[error(
        "no database can be made for an organization: the login \"{login}\" of POSTROOM_MIGRATE_DATABASE_URL may not; as \
         a superuser: alter role \"{login}\" createdb"
    )]
    MayNotCreate {
        /// Which login.
        login: String,
    },
    /// Something is wrong with one organization's own database.
    #[error("the database of {organization}: {cause}")]
    Tenant {
        /// Whose.
        organization: OrganizationId,
        /// What is wrong.
        cause: Box<OpenError>,
    },
    /// A migration cannot be taken back, because of what is there.
    #[error(
        "{0} organizations have databases of their own, and only this migration knows where they are: nothing was taken \
         back"
    )]
    HasTenants(usize),
    /// It was renamed, replaced, or restored under another name.
    #[error(
        "the database {database} is not that of organization {organization}: {because}; restore or rename the right one \
         to that name"
    )]
    NotItsCell {
        /// Which database.
        database: String,
        /// Whose it should be.
        organization: OrganizationId,
        /// What is in it.
        because: &'static str,
    },
    /// What is stored cannot be read as what it should be.
    #[error("the stored configuration cannot be read: {0}")]
    Configuration(#[source] BoxError),
    /// Anything else the database says, or that it says nothing.
    #[error("the database cannot be opened: {}", told(.0.as_ref()))]
    Database(BoxError),
}

impl OpenError {
    /// Whether the same try may succeed a moment later: the server is not there yet, is starting, stopping, full, or is
    /// about to become the primary. What it refuses for good (a password, a name, a right) it refuses again.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        let refused = |error: &tokio_postgres::Error| match error.code() {
            // Connection exceptions, insufficient resources, operator intervention, locks.
            Some(code) => !["08", "53", "57", "55"].contains(&&code.code()[..2]),
            // No answer at all, unless it could not even be asked for.
            None => error.to_string().starts_with("invalid configuration"),
        };
        match self {
            Self::ReadOnly | Self::Busy(_) => true,
            Self::Database(error) => !causes(error.as_ref()).filter_map(|error| error.downcast_ref()).any(refused),
            _ => false,
        }
    }

    /// Whether there is no database of that name.
    pub(super) fn is_of_no_database(&self) -> bool {
        let code = |error: &tokio_postgres::Error| error.code() == Some(&SqlState::INVALID_CATALOG_NAME);
        match self {
            Self::Database(error) => causes(error.as_ref()).filter_map(|error| error.downcast_ref()).any(code),
            _ => false,
        }
    }

    /// Why there is no connection.
    pub(super) fn unreachable(error: tokio_postgres::Error) -> Self {
        let refused = causes(&error).find_map(certificate);
        refused.map_or_else(|| Self::Database(error.into()), Self::Certificate)
    }
}

impl From<crate::Error> for OpenError {
    fn from(error: crate::Error) -> Self {
        match error {
            crate::Error::Internal(source) | crate::Error::Unavailable(source) => Self::Database(source),
            other => Self::Database(other.into()),
        }
    }
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// What TLS has against a server. It comes inside of an input error.
fn certificate(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let inner = error.downcast_ref::<std::io::Error>()?.get_ref()?;
    inner.downcast_ref::<rustls::Error>().map(ToString::to_string)
}

/// All that is known of an error in one line: the client's own says little, what is behind it says why.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in causes(error) {
        let text = cause.to_string();
        if text != "db error" && texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
    }
    texts.join(": ")
}

/// What to do about a setting.
fn advice(setting: &str) -> String {
    match setting {
        "server_encoding" => {
            "make a database with encoding 'UTF8' (create database ... encoding 'UTF8' template template0)".to_owned()
        }
        "data_sync_retry" => "set it off in postgresql.conf and restart the server".to_owned(),
        other => format!("set {other} = on in postgresql.conf and nowhere off again, and reload the server"),
    }
}

/// A dump that was restored on another server brings numbers of transactions that are still to come here: a change of
/// configuration marked with one would look new at every question. By index revisions_by_tx.
const OWN_NUMBERS: &str = "update revisions set tx = txid_current() where tx > txid_current()";

/// What is opened.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    /// The database of all.
    Shared,
    /// That of one organization, with as many connections as can be afforded.
    Cell(&'a TenantRow, &'a Arc<Budget>),
}

pub(super) async fn open(options: Options, target: Target<'_>) -> Result<Postgres, OpenError> {
    let (footprint, within) = match target {
        Target::Shared => (Footprint::Shared, None),
        Target::Cell(_, budget) => (Footprint::Cell, Some(budget)),
    };
    let logins = door::admit(&options.url, &options.part_urls, within).await?;
    let pools = pools(&logins, footprint)?;
    check_version(&pools.platform).await?;
    if let Target::Cell(tenant, _) = target {
        cells::check_owner(&pools.platform, tenant).await?;
    }
    let budget = match within {
        Some(budget) => budget.clone(),
        None => Budget::of_server(&pools.platform).await?,
    };
    let vault = Arc::new(vault(&pools.platform, options.keyring.clone()).await?);
    retention::make_partitions(&pools.platform, options.clock.now()).await?;
    pools.platform.connection().await?.execute(OWN_NUMBERS, bind![]).await?;
    let directories = Directories::load(&pools, vault.clone(), &options).await?;
    let upkeep = retention::Upkeep::new(pools.platform.clone(), options.dedupe_window, options.retention);
    let stop = CancellationToken::new();
    // Whoever gives up in the middle leaves nothing running.
    let given_up = stop.clone().drop_guard();
    if options.mode == Mode::Serve {
        directories.follow(footprint.look_every(), stop.clone());
    }
    if let Some(budget) = within {
        budget.watch(pools.all().map(|(_, pool)| pool.clone()).to_vec(), stop.clone());
    }
    let node = Node::new(node::Settings {
        worker: pools.worker.clone(),
        clock: options.clock.clone(),
        handoff: options.handoff.clone(),
        poked: directories.poked.clone(),
        lease: options.lease,
        delivers: options.delivers,
        key: vault.keyring.newest(),
    });
    let lanes = if options.mode == Mode::Serve {
        node.begin(stop.clone()).await?;
        start_lanes(&options, &logins, within, node.clone(), directories.clone(), &stop)?
    } else {
        Lanes::closed()
    };
    let probe = Probe::new(login(&logins, Part::Platform)?, within.map(|_| pools.platform.clone()));
    let stop = given_up.disarm();
    Ok(Postgres(Arc::new(Engine {
        options,
        pools,
        vault,
        directories,
        lanes,
        node,
        hub: Arc::default(),
        shares: Shares::default(),
        counted: Counted::default(),
        rejection_rate: Rate::default(),
        rejection_ids: Mutex::new(Ids::after(None)),
        upkeep,
        probe,
        budget,
        stop,
    })))
}

fn start_lanes(
    options: &Options,
    logins: &HashMap<Part, Login>,
    within: Option<&Arc<Budget>>,
    node: Arc<Node>,
    directories: Arc<Directories>,
    stop: &CancellationToken,
) -> Result<Lanes, OpenError> {
    let settings = lanes::Settings {
        clock: options.clock.clone(),
        handoff: options.handoff.clone(),
        node,
        directories,
        dedupe_window: options.dedupe_window,
        default_attempt_timeout: options.default_attempt_timeout,
        budget: within.cloned(),
    };
    Ok(Lanes::start(login(logins, Part::Receiver)?, login(logins, Part::Worker)?, settings, stop))
}

/// The way in for a part.
fn login(logins: &HashMap<Part, Login>, part: Part) -> Result<Login, OpenError> {
    logins.get(&part).cloned().ok_or_else(|| OpenError::Url("a part of the process has none".to_owned()))
}

fn pools(logins: &HashMap<Part, Login>, footprint: Footprint) -> Result<Pools, OpenError> {
    let pool = |part: Part| Pool::new(&login(logins, part)?, footprint);
    Ok(Pools {
        authorizer: pool(Part::Authorizer)?,
        receiver: pool(Part::Receiver)?,
        worker: pool(Part::Worker)?,
        api: pool(Part::Api)?,
        dead_letter: pool(Part::DeadLetter)?,
        platform: pool(Part::Platform)?,
    })
}

/// Whether this program may work on the schema that is there.
async fn check_version(platform: &Pool) -> Result<(), OpenError> {
    let connection = platform.connection().await?;
    let registered = connection.query_one(migrate::REGISTERED, &[]).await?;
    if registered.map(|row| get(&row, 0)).transpose()? != Some(true) {
        return migrate::accept(0, 0);
    }
    let row = connection.query_one(migrate::VERSION, &[]).await?;
    let row = row.ok_or_else(|| OpenError::Database("a count has no row".into()))?;
    migrate::accept(get(&row, 0)?, get(&row, 1)?)
}

/// Checks that the keyring is the one of this database, and makes what a new database lacks.
async fn vault(platform: &Pool, keyring: Keyring) -> Result<Vault, OpenError> {
    const COPY: &str = "select 1 from meta where name = $1";
    if platform.connection().await?.query_one(COPY, bind![UNFINISHED]).await?.is_some() {
        return Err(OpenError::Unfinished);
    }
    let sentinel = kept(platform, &keyring, "sentinel", || Secret::from(SENTINEL)).await?;
    if sentinel != Secret::from(SENTINEL) {
        return Err(OpenError::WrongKey(KeyringError::Damaged));
    }
    let fingerprint_key = kept(platform, &keyring, "fingerprint_key", || Secret::random(32)).await?;
    let audit = audit_keys(platform, &keyring).await?;
    Ok(Vault::new(keyring, fingerprint_key, audit))
}

async fn audit_keys(platform: &Pool, keyring: &Keyring) -> Result<AuditKeys, OpenError> {
    const NAMES: &str = "select name from meta";
    let chain = kept(platform, keyring, AuditKeys::CHAIN, || Secret::random(16)).await?;
    let chain = chain.expose().try_into().map_err(|_| OpenError::WrongKey(KeyringError::Damaged))?;
    kept(platform, keyring, &AuditKeys::name(chain), || Secret::random(32)).await?;
    let mut all = Vec::new();
    for row in platform.connection().await?.query(NAMES, &[]).await? {
        let name: String = get(&row, 0)?;
        if let Some(chain) = AuditKeys::chain(&name) {
            all.push((chain, kept(platform, keyring, &name, || Secret::random(32)).await?));
        }
    }
    Ok(AuditKeys { chain, all })
}

/// A secret of the installation, made when it is not there. Of two nodes that make it at once, one wins.
async fn kept(
    platform: &Pool,
    keyring: &Keyring,
    name: &str,
    make: impl FnOnce() -> Secret,
) -> Result<Secret, OpenError> {
    const ADD: &str = "insert into meta (name, value) values ($1, $2) on conflict (name) do nothing";
    const READ: &str = "select value from meta where name = $1";
    let connection = platform.connection().await?;
    if connection.query_one(READ, bind![name]).await?.is_none() {
        connection.execute(ADD, bind![name, keyring.seal(meta(name), &make())]).await?;
    }
    let row =
        connection.query_one(READ, bind![name]).await?.ok_or_else(|| OpenError::Database("meta is empty".into()))?;
    let sealed: Vec<u8> = super::convert::get(&row, 0)?;
    keyring.open(meta(name), &sealed).map_err(OpenError::WrongKey)
}
