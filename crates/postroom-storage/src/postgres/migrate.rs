//! Migrations: embedded SQL files, one transaction each, forward and back.
//!
//! They run as the login that owns the database, which no server uses. A session lock of the database lets one migrate
//! at a time: whoever waits for it finds nothing left to do. The version moves in the transaction of the migration, so a
//! kill at any moment leaves the schema before or after a step and never between. Roles belong to the whole server and
//! not to the database, so what is done to them can be done by another database's migration at the same moment, and is
//! tried again then. Shipped files never change.

pub(super) mod all;
mod logins;

use std::time::Duration;

use postroom_domain::Secret;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

pub use self::all::{Database, down_all, status_all, up_all};
pub use self::logins::AppLogin;
pub(super) use self::logins::{COPY, KEYS};
use super::address::Address;
use super::convert::get;
use super::open::OpenError;
use super::pool::bind;

/// One step of the schema.
struct Migration {
    name: &'static str,
    up: &'static str,
    down: &'static str,
    /// The lowest version of the program that may work on the schema after this step.
    compatible_from: i32,
}

macro_rules! migrations {
    ($($name:literal compatible from $version:literal),* $(,)?) => {
        [$(Migration {
            name: $name,
            up: include_str!(concat!("../../migrations/postgres/", $name, ".up.sql")),
            down: include_str!(concat!("../../migrations/postgres/", $name, ".down.sql")),
            compatible_from: $version,
        }),*]
    };
}

const MIGRATIONS: &[Migration] = &migrations![
    "0001_configuration" compatible from 1,
    "0002_log" compatible from 2,
    "0003_parts" compatible from 3,
    "0004_pokes" compatible from 3,
    "0005_copy" compatible from 3,
    "0006_people" compatible from 3,
    "0007_audit" compatible from 7,
    "0008_moving" compatible from 7,
    "0009_guard" compatible from 7,
    "0010_moves" compatible from 10,
    "0011_worker" compatible from 10,
];

/// The version this program works with: the number of its migrations.
pub(super) const NEWEST: usize = MIGRATIONS.len();

/// Which lock of the database migrations take: "postroom" in ASCII.
const LOCK: &str = "select pg_advisory_lock(8101820253219323757)";

/// Names without a schema are ours, and a statement that waits for a busy table does not hold up those behind it for
/// long. Said after the lock is held, which may take as long as another's migration does.
const SETTINGS: &str = "set search_path = public; set lock_timeout = '5s'";

/// What tells which migrations a database has, also to a server that finds an older schema.
const REGISTER: &str = "create table if not exists migrations (version integer primary key, name text not null, \
       compatible_from integer not null, applied_at timestamptz not null default clock_timestamp()); \
     grant select on migrations to postroom_platform";

/// By primary key.
const APPLIED: &str = "insert into migrations (version, name, compatible_from) values ($1, $2, $3)";

/// By primary key.
const TAKEN_BACK: &str = "delete from migrations where version = $1";

/// Whether [`REGISTER`] has run.
pub(super) const REGISTERED: &str = "select to_regclass('public.migrations') is not null";

/// The version of the schema, and the lowest version of a program that may work on it.
pub(super) const VERSION: &str =
    "select coalesce(max(version), 0), coalesce(max(compatible_from), 0) from public.migrations";

/// Servers that are running. The table is made by the second migration.
pub(super) const RUNNING: &str = "select count(*) from nodes where state = 'live' and lease_until > clock_timestamp()";

/// One migration, as `postroom migrate status` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Number and name, for example `0001_configuration`.
    pub name: &'static str,
    /// Whether the database has it.
    pub applied: bool,
}

/// What [`up`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The names of the migrations that were applied.
    pub applied: Vec<&'static str>,
    /// What the owning login was not allowed to do and somebody has to, one sentence each.
    pub advice: Vec<String>,
}

/// Which migrations a database has.
///
/// # Errors
/// When the database cannot be read, or is newer than this program.
pub async fn status(owner_url: &Secret) -> Result<Vec<Step>, OpenError> {
    let owner = Owner::connect(owner_url).await?;
    let applied = owner.version().await?;
    owner.close().await;
    Ok(MIGRATIONS.iter().enumerate().map(|(at, step)| Step { name: step.name, applied: at < applied }).collect())
}

/// Brings a database to this program's version, makes the roles of the parts and grants them to the logins that servers
/// use.
///
/// # Errors
/// When the database cannot be written, is newer than this program, or a login is not there.
pub async fn up(owner_url: &Secret, logins: &[AppLogin]) -> Result<Migrated, OpenError> {
    let mut owner = Owner::connect(owner_url).await?;
    owner.lock().await?;
    owner.version().await?;
    logins::check(&owner.client, logins).await?;
    logins::make_roles(&owner.client).await?;
    owner.client.batch_execute(REGISTER).await?;
    let mut applied = Vec::new();
    loop {
        let at = owner.version().await?;
        let Some(step) = MIGRATIONS.get(at) else { break };
        owner.forward(at + 1, step).await?;
        applied.push(step.name);
    }
    let advice = logins::grant(&owner.client, logins).await?;
    owner.close().await;
    Ok(Migrated { applied, advice })
}

/// Takes the newest migration back, with what it holds. Returns its name, or `None` when there is nothing to take back.
///
/// # Errors
/// As [`up`], and when servers are running on the database.
pub async fn down(owner_url: &Secret) -> Result<Option<&'static str>, OpenError> {
    down_from(owner_url, 0).await
}

/// As [`down`], where the database has at least so many migrations.
async fn down_from(owner_url: &Secret, at_least: usize) -> Result<Option<&'static str>, OpenError> {
    let mut owner = Owner::connect(owner_url).await?;
    owner.lock().await?;
    let version = owner.version().await?;
    if version < at_least {
        return Ok(None);
    }
    let Some(step) = version.checked_sub(1).and_then(|at| MIGRATIONS.get(at)) else { return Ok(None) };
    owner.back(version, step).await?;
    owner.close().await;
    Ok(Some(step.name))
}

/// The text of all forward migrations: what tells this schema from every other.
#[must_use]
pub fn schema() -> String {
    MIGRATIONS.iter().map(|step| step.up).collect()
}

/// Whether a program of this version may work on a database of another.
pub(super) fn accept(version: i32, compatible_from: i32) -> Result<(), OpenError> {
    let known = i32::try_from(NEWEST).unwrap_or(i32::MAX);
    match usize::try_from(version) {
        Ok(found) if version < known => Err(OpenError::Older { found, known: NEWEST }),
        _ if version > known && compatible_from > known => {
            Err(OpenError::Newer { found: version, known: NEWEST, needed: compatible_from })
        }
        _ => Ok(()),
    }
}

/// The owning login's connection.
pub(super) struct Owner {
    pub(super) client: Client,
    task: JoinHandle<()>,
}

impl Owner {
    pub(super) async fn connect(url: &Secret) -> Result<Self, OpenError> {
        let (client, task) = Address::parse(url)?.connect().await.map_err(OpenError::unreachable)?;
        Ok(Self { client, task })
    }

    /// Becomes the one that seals secrets anew: it sees what is sealed, and nothing else.
    pub(super) async fn become_keys(&self) -> Result<(), OpenError> {
        Ok(self.client.batch_execute(&format!("set role {KEYS}")).await?)
    }

    /// Waits until nobody else migrates, and makes sure that this server may be written.
    async fn lock(&self) -> Result<(), OpenError> {
        const STANDBY: &str = "select pg_is_in_recovery() or current_setting('transaction_read_only')::bool";
        if self.ask::<bool>(STANDBY).await? == Some(true) {
            return Err(OpenError::ReadOnly);
        }
        self.client.batch_execute(LOCK).await?;
        Ok(self.client.batch_execute(SETTINGS).await?)
    }

    /// The number of migrations the database has.
    pub(super) async fn version(&self) -> Result<usize, OpenError> {
        if self.ask::<bool>(REGISTERED).await? != Some(true) {
            return Ok(0);
        }
        let rows = self.client.query_typed(VERSION, &[]).await?;
        let row = rows.first().ok_or_else(|| OpenError::Database("a count has no row".into()))?;
        let (version, needed): (i32, i32) = (get(row, 0)?, get(row, 1)?);
        match usize::try_from(version) {
            Ok(known) if known <= NEWEST => Ok(known),
            _ => Err(OpenError::Newer { found: version, known: NEWEST, needed: needed.max(version) }),
        }
    }

    async fn forward(&mut self, version: usize, step: &Migration) -> Result<(), OpenError> {
        let number = i32::try_from(version).unwrap_or(i32::MAX);
        let transaction = self.client.transaction().await?;
        transaction.batch_execute(step.up).await?;
        transaction.execute_typed(APPLIED, bind![number, step.name, step.compatible_from]).await?;
        Ok(transaction.commit().await?)
    }

    async fn back(&mut self, version: usize, step: &Migration) -> Result<(), OpenError> {
        if self.ask::<bool>("select to_regclass('public.nodes') is not null").await? == Some(true) {
            match self.ask::<i64>(RUNNING).await? {
                Some(0) | None => {}
                Some(servers) => return Err(OpenError::Running { servers }),
            }
        }
        let number = i32::try_from(version).unwrap_or(i32::MAX);
        let transaction = self.client.transaction().await?;
        transaction.batch_execute(step.down).await?;
        transaction.batch_execute(REGISTER).await?;
        transaction.execute_typed(TAKEN_BACK, bind![number]).await?;
        Ok(transaction.commit().await?)
    }

    /// The first column of the first row.
    async fn ask<T: for<'a> tokio_postgres::types::FromSql<'a>>(&self, sql: &str) -> Result<Option<T>, OpenError> {
        let rows = self.client.query_typed(sql, &[]).await?;
        rows.first().map(|row| Ok(get(row, 0)?)).transpose()
    }

    /// Returns when the server knows that the connection has ended, and with it the lock.
    pub(super) async fn close(self) {
        drop(self.client);
        let _closed = tokio::time::timeout(Duration::from_secs(5), self.task).await;
    }
}

/// What the database says to a migration.
impl From<tokio_postgres::Error> for OpenError {
    fn from(error: tokio_postgres::Error) -> Self {
        let said =
            |error: &tokio_postgres::Error| error.as_db_error().map_or(String::new(), |it| it.message().to_owned());
        match error.code() {
            Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => Self::NotAllowed(said(&error)),
            Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE => Self::Busy(said(&error)),
            _ => Self::Database(error.into()),
        }
    }
}
