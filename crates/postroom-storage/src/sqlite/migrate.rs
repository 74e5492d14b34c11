//! Migrations: embedded SQL files, one transaction each, forward and back.
//!
//! The version is SQLite's own `user_version`, moved in the transaction of the migration, so a kill at any moment leaves
//! the schema before or after a step and never between. Two processes at once are safe: each step takes the write lock
//! first and looks at the version again behind it. Shipped files never change.

use std::path::{Path, PathBuf};

use postroom_domain::OrganizationId;
use rusqlite::{Connection, TransactionBehavior};

use super::open::{self, OpenError};

/// One step of the schema.
struct Migration {
    name: &'static str,
    up: &'static str,
    down: &'static str,
}

macro_rules! migrations {
    ($($name:literal),* $(,)?) => {
        [$(Migration {
            name: $name,
            up: include_str!(concat!("../../migrations/sqlite/", $name, ".up.sql")),
            down: include_str!(concat!("../../migrations/sqlite/", $name, ".down.sql")),
        }),*]
    };
}

const MIGRATIONS: &[Migration] =
    &migrations!["0001_configuration", "0002_log", "0003_tenants", "0004_people", "0005_audit"];

/// By primary keys.
const REGISTERED: &str = "select organization.id, organization.slug, url, initialize from tenants \
     join organization on organization.org = tenants.org_id order by cell";

/// The version this program works with: the number of its migrations.
pub(super) const NEWEST: usize = MIGRATIONS.len();

/// The migration that makes the registry of tenants.
const TENANTS: usize = 2;

/// One migration, as `postroom migrate status` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Number and name, for example `0001_configuration`.
    pub name: &'static str,
    /// Whether the database has it.
    pub applied: bool,
}

/// Which migrations the database in `data_dir` has. A directory without a database has none.
///
/// # Errors
/// When the database cannot be read, or is newer than this program.
pub fn status(data_dir: &Path) -> Result<Vec<Step>, OpenError> {
    let applied = match open::connect_existing(data_dir)? {
        Some(connection) => version(&connection)?,
        None => 0,
    };
    Ok(MIGRATIONS.iter().enumerate().map(|(at, step)| Step { name: step.name, applied: at < applied }).collect())
}

/// Brings the database in `data_dir` to this program's version, making it if there is none. Returns the names of the
/// migrations that were applied.
///
/// # Errors
/// When a server has the directory open, or the database cannot be written, or is newer than this program.
pub fn up(data_dir: &Path) -> Result<Vec<&'static str>, OpenError> {
    open::prepare_directory(data_dir)?;
    let _lock = open::Lock::take(data_dir)?;
    to_newest(&mut open::connect(data_dir)?)
}

/// Takes the newest migration back, with what it holds. Returns its name, or `None` when there is nothing to take back.
///
/// # Errors
/// As [`up`].
pub fn down(data_dir: &Path) -> Result<Option<&'static str>, OpenError> {
    let _lock = open::Lock::take(data_dir)?;
    let Some(mut connection) = open::connect_existing(data_dir)? else { return Ok(None) };
    step_down(&mut connection)
}

/// Takes one migration back.
fn step_down(connection: &mut Connection) -> Result<Option<&'static str>, OpenError> {
    let Some(step) = version(connection)?.checked_sub(1) else { return Ok(None) };
    if step == TENANTS {
        let tenants = connection.query_row("select count(*) from tenants", [], |row| row.get(0))?;
        if tenants > 0 {
            return Err(OpenError::HasTenants(tenants));
        }
    }
    move_to(connection, step + 1, step, MIGRATIONS[step].down)?;
    Ok(Some(MIGRATIONS[step].name))
}

/// One database of an installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// Whose it is; `None` is the one that all share.
    pub organization: Option<OrganizationId>,
    /// The slug of that organization.
    pub slug: Option<String>,
    /// The directory it is in.
    pub directory: PathBuf,
    /// Whether it has to be there: one that is still being made need not.
    is_complete: bool,
}

impl Database {
    /// The error as one of this database.
    pub(super) fn wrap(&self, error: OpenError) -> OpenError {
        match self.organization {
            None => error,
            Some(organization) => OpenError::Tenant { organization, cause: Box::new(error) },
        }
    }

    /// Whether it is there.
    ///
    /// # Errors
    /// When it is not, though it has to be.
    pub(super) fn is_there(&self) -> Result<bool, OpenError> {
        let file = self.directory.join(open::DATABASE_FILE);
        match file.exists() {
            false if self.is_complete && self.organization.is_some() => Err(OpenError::Missing(file)),
            is_there => Ok(is_there),
        }
    }

    fn steps(&self) -> Result<Vec<Step>, OpenError> {
        self.is_there().and_then(|_| status(&self.directory)).map_err(|error| self.wrap(error))
    }
}

/// The databases of organizations that have their own, as the shared one knows them.
pub(super) fn tenants(data_dir: &Path, shared: &Connection) -> Result<Vec<Database>, OpenError> {
    if version(shared)? <= TENANTS {
        return Ok(Vec::new());
    }
    let mut statement = shared.prepare(REGISTERED)?;
    let rows = statement.query_map([], |row| {
        Ok(Database {
            organization: Some(OrganizationId::from_bytes(row.get(0)?)),
            slug: row.get(1)?,
            directory: data_dir.join(row.get::<_, String>(2)?),
            is_complete: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn shared(data_dir: &Path) -> Database {
    Database { organization: None, slug: None, directory: data_dir.to_owned(), is_complete: true }
}

/// [`status`] of every database of the installation: the shared one first, then those of organizations. What is wrong
/// with one of those is told in its place. What [`up_all`] would apply is what is not applied here.
///
/// # Errors
/// When the shared database cannot be read, or is newer than this program.
pub fn status_all(
    data_dir: &Path,
    mut told: impl FnMut(&Database, Result<Vec<Step>, OpenError>),
) -> Result<(), OpenError> {
    told(&shared(data_dir), Ok(status(data_dir)?));
    if let Some(connection) = open::connect_existing(data_dir)? {
        for database in tenants(data_dir, &connection)? {
            told(&database, database.steps());
        }
    }
    Ok(())
}

/// [`up`] for every database of the installation, the shared one first. `told` hears of each what was applied; one that
/// fails does not stop the others.
///
/// # Errors
/// As [`up`], of the shared database.
pub fn up_all(
    data_dir: &Path,
    mut told: impl FnMut(&Database, Result<Vec<&'static str>, OpenError>),
) -> Result<(), OpenError> {
    open::prepare_directory(data_dir)?;
    let _lock = open::Lock::take(data_dir)?;
    let mut connection = open::connect(data_dir)?;
    let applied = to_newest(&mut connection)?;
    told(&shared(data_dir), Ok(applied));
    for database in tenants(data_dir, &connection)? {
        let applied = match database.is_there() {
            // One that is still being made gets its migrations then.
            Ok(false) => Ok(Vec::new()),
            Ok(true) => up(&database.directory).map_err(|error| database.wrap(error)),
            Err(error) => Err(database.wrap(error)),
        };
        told(&database, applied);
    }
    Ok(())
}

/// [`down`] for every database of the installation that has the newest migration of the shared one: that goes last, and
/// only if all others went. `told` hears of each what was taken back.
///
/// # Errors
/// As [`down`], of the shared database.
pub fn down_all(
    data_dir: &Path,
    mut told: impl FnMut(&Database, Result<Option<&'static str>, OpenError>),
) -> Result<(), OpenError> {
    let _lock = open::Lock::take(data_dir)?;
    let Some(mut connection) = open::connect_existing(data_dir)? else { return Ok(()) };
    let (newest, tenants) = (version(&connection)?, tenants(data_dir, &connection)?);
    if newest == TENANTS + 1 && !tenants.is_empty() {
        return Err(OpenError::HasTenants(tenants.len()));
    }
    let mut all_went = true;
    for database in tenants {
        let taken_back = down_from(&database, newest).map_err(|error| database.wrap(error));
        all_went &= taken_back.is_ok();
        told(&database, taken_back);
    }
    if all_went {
        told(&shared(data_dir), step_down(&mut connection));
    }
    Ok(())
}

/// Takes one migration back where the database has so many.
fn down_from(database: &Database, newest: usize) -> Result<Option<&'static str>, OpenError> {
    if !database.is_there()? {
        return Ok(None);
    }
    let _lock = open::Lock::take(&database.directory)?;
    let mut connection = open::connect(&database.directory)?;
    if version(&connection)? < newest { Ok(None) } else { step_down(&mut connection) }
}

/// Applies what is missing.
pub(super) fn to_newest(connection: &mut Connection) -> Result<Vec<&'static str>, OpenError> {
    let mut applied = Vec::new();
    loop {
        let at = version(connection)?;
        let Some(step) = MIGRATIONS.get(at) else { break };
        if move_to(connection, at, at + 1, step.up)? {
            applied.push(step.name);
        }
    }
    Ok(applied)
}

/// The number of migrations the database has.
pub(super) fn version(connection: &Connection) -> Result<usize, OpenError> {
    let version: i64 = connection.query_row("pragma user_version", [], |row| row.get(0))?;
    match usize::try_from(version) {
        Ok(known) if known <= NEWEST => Ok(known),
        _ => Err(OpenError::Newer { found: version, known: NEWEST }),
    }
}

/// One step in one transaction; false when another process was faster.
fn move_to(connection: &mut Connection, from: usize, to: usize, sql: &str) -> Result<bool, OpenError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if version(&transaction)? != from {
        return Ok(false);
    }
    transaction.execute_batch(sql)?;
    // A pragma takes no bound value; the number is ours.
    transaction.pragma_update(None, "user_version", i64::try_from(to).unwrap_or(i64::MAX))?;
    transaction.commit()?;
    Ok(true)
}
