//! Migrations: embedded SQL files, one transaction each, forward and back.
//!
//! The version is SQLite's own `user_version`, moved in the transaction of the migration, so a kill at any moment leaves
//! the schema before or after a step and never between. Two processes at once are safe: each step takes the write lock
//! first and looks at the version again behind it. Shipped files never change.

use std::path::Path;

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

const MIGRATIONS: &[Migration] = &migrations!["0001_configuration", "0002_log"];

/// The version this program works with: the number of its migrations.
pub(super) const NEWEST: usize = MIGRATIONS.len();

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
    let Some(step) = version(&connection)?.checked_sub(1) else { return Ok(None) };
    move_to(&mut connection, step + 1, step, MIGRATIONS[step].down)?;
    Ok(Some(MIGRATIONS[step].name))
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
