//! The files: the data directory, its lock, connections, and what is refused at the door.
//!
//! One server has a data directory at a time: it holds an advisory lock on `postroom.lock` as long as it lives, and
//! writes into it which encryption keys it knows. Commands open the database beside it without the lock.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use postroom_domain::OrganizationId;
use postroom_domain::keyring::{KeyId, Keyring, KeyringError};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::grants::Part;
use super::{connection, migrate};

/// The database inside the data directory; SQLite puts `-wal` and `-shm` beside it.
pub(super) const DATABASE_FILE: &str = "postroom.db";
const LOCK_FILE: &str = "postroom.lock";

/// Statements kept prepared on each connection.
const STATEMENTS: usize = 128;

/// How long a statement waits for another process's write lock.
const BUSY: Duration = Duration::from_secs(2);

/// Why a data directory is refused. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A server has it open.
    #[error(
        "another Postroom server is using the data directory {}; stop it, or give this one a directory of its own",
        .0.display()
    )]
    Locked(PathBuf),
    /// The directory or a file in it cannot be used.
    #[error("{} cannot be used: {source}; make it a directory that this user may read and write", path.display())]
    Directory {
        /// Which path.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The file is not a sound database.
    #[error(
        "the database file {DATABASE_FILE} is damaged: {0}; nothing was changed. Restore {DATABASE_FILE} from a backup, \
         without {DATABASE_FILE}-wal and {DATABASE_FILE}-shm if the backup has none, or move all three away to begin \
         with an empty database"
    )]
    Damaged(String),
    /// An organization's own database is not where it was.
    #[error("the database file {} is missing; restore it from a backup", .0.display())]
    Missing(PathBuf),
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
    /// A newer program has written it.
    #[error(
        "the database has schema version {found} and this program knows {known}: use the version of Postroom that wrote \
         it or a newer one"
    )]
    Newer {
        /// In the file.
        found: i64,
        /// In this program.
        known: usize,
    },
    /// An older server is running on it.
    #[error(
        "the database has schema version {found} and this program needs {known}, but a server of the older version is \
         running: stop it and run `postroom migrate up`, or use the server's own version of this command"
    )]
    Older {
        /// In the file.
        found: usize,
        /// In this program.
        known: usize,
    },
    /// The encryption keys given are not those of this database.
    #[error("the encryption keys given do not open this database: {0}; give the keys it was written with")]
    WrongKey(#[source] KeyringError),
    /// The running server could not read what would be written.
    #[error(
        "the running server does not encrypt with the newest of these keys: restart it with that key first in its \
         list, then rotate again"
    )]
    ServerLacksKey,
    /// `postroom copy` has not come to its end here.
    #[error(
        "the database holds a copy that is not finished: run the `postroom copy` command again that began it, and start \
         servers when it says that it is done"
    )]
    Unfinished,
    /// A thread cannot be started.
    #[error("a thread cannot be started: {0}")]
    Thread(#[source] std::io::Error),
    /// What is stored cannot be read as what it should be.
    #[error("the stored configuration cannot be read: {0}")]
    Configuration(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Anything else the database says.
    #[error("the database cannot be opened: {0}")]
    Database(#[source] rusqlite::Error),
}

impl OpenError {
    /// What a failed read of stored configuration means.
    pub(super) fn unreadable(error: crate::Error) -> Self {
        match error {
            crate::Error::Internal(source) | crate::Error::Unavailable(source) => {
                match source.downcast::<rusqlite::Error>() {
                    Ok(error) => (*error).into(),
                    Err(source) => Self::Configuration(source),
                }
            }
            other => Self::Configuration(other.into()),
        }
    }
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error.to_string()),
            _ => Self::Database(error),
        }
    }
}

/// Makes the data directory (readable by its owner only) if it is not there.
pub(super) fn prepare_directory(data_dir: &Path) -> Result<(), OpenError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(|source| OpenError::Directory { path: data_dir.to_owned(), source })
}

/// Held by the one server of a data directory, and by `migrate`.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes the lock or says who has it.
    pub(super) fn take(data_dir: &Path) -> Result<Self, OpenError> {
        let path = data_dir.join(LOCK_FILE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|source| OpenError::Directory { path: path.clone(), source })?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked(data_dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(OpenError::Directory { path, source }),
        }
    }

    /// Tells commands which keys this server can read.
    pub(super) fn announce(&mut self, keyring: &Keyring) -> std::io::Result<()> {
        let ids: Vec<String> = keyring.ids().map(|id| id.to_string()).collect();
        self.0.set_len(0)?;
        self.0.write_all(ids.join("\n").as_bytes())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file would do, but for a child that was forked at this moment and has not become its program yet.
        let _closing_does_it_too = self.0.unlock();
    }
}

/// Takes the lock, or makes sure that the running server seals with `key` itself: one that seals with an older key goes
/// on making work for a rotation, and one that does not have `key` could not read what is rotated.
pub(super) fn lock_or_agree(data_dir: &Path, key: KeyId) -> Result<Option<Lock>, OpenError> {
    match Lock::take(data_dir) {
        Ok(lock) => return Ok(Some(lock)),
        Err(OpenError::Locked(_)) => {}
        Err(error) => return Err(error),
    }
    let path = data_dir.join(LOCK_FILE);
    let mut text = String::new();
    File::open(&path)
        .and_then(|mut file| file.read_to_string(&mut text))
        .map_err(|source| OpenError::Directory { path, source })?;
    let agrees = text.lines().next().is_some_and(|newest| newest == key.to_string());
    if agrees { Ok(None) } else { Err(OpenError::ServerLacksKey) }
}

/// A connection for writing, to a database that may be new.
pub(super) fn connect(data_dir: &Path) -> Result<Connection, OpenError> {
    let path = data_dir.join(DATABASE_FILE);
    // Made here so that it is never readable by others; SQLite gives -wal and -shm the mode of the database. A file that is
    // there is not opened: whoever closes it takes away the locks that this process has on it through other connections,
    // and another program that reads the database and goes would then delete the log from under them.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(OpenError::Directory { path, source });
        }
        _ => {}
    }
    let connection =
        Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    configure(&connection)?;
    Ok(connection)
}

/// The writer's connection, with room for so many pages.
pub(super) fn connect_writer(data_dir: &Path, cache_kib: u32) -> Result<Connection, OpenError> {
    let connection = connect(data_dir)?;
    connection.pragma_update(None, "cache_size", -i64::from(cache_kib))?;
    Ok(connection)
}

/// A connection to a database that is there.
pub(super) fn connect_existing(data_dir: &Path) -> Result<Option<Connection>, OpenError> {
    if data_dir.join(DATABASE_FILE).exists() { connect(data_dir).map(Some) } else { Ok(None) }
}

/// A connection that cannot write, and acts for whoever it is lent to.
pub(super) fn connect_reader(data_dir: &Path) -> Result<connection::Connection, OpenError> {
    let connection = connect(data_dir)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection::Connection::new(connection, Part::Platform)?)
}

/// The settings of every connection. WAL with FULL: a commit is on the disk when it returns. Checkpoints are ours to
/// make ([`super::keeper`]): automatic ones run inside a commit and triple the slowest acknowledgements.
fn configure(connection: &Connection) -> Result<(), OpenError> {
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    let mode: String = connection.query_row("pragma journal_mode = wal", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(OpenError::Damaged(format!("its journal mode is {mode} and cannot be changed to wal")));
    }
    for (name, value) in [
        ("synchronous", "full"),
        ("wal_autocheckpoint", "0"),
        ("foreign_keys", "on"),
        ("trusted_schema", "off"),
        ("cell_size_check", "on"),
        ("temp_store", "memory"),
        ("cache_size", "-2048"),
    ] {
        connection.pragma_update(None, name, value)?;
    }
    Ok(())
}

/// How long a database is looked through before it is opened. A small one is looked through to its end; of a large one
/// configuration comes first.
const LOOK_THROUGH: Duration = Duration::from_secs(2);

/// Refuses a damaged file. Nothing is repaired: what a damaged file still gives may be wrong.
pub(super) fn check(connection: &mut Connection) -> Result<(), OpenError> {
    let started = Instant::now();
    connection.progress_handler(10_000, Some(move || started.elapsed() > LOOK_THROUGH))?;
    let found = connection.query_row("pragma quick_check(1)", [], |row| row.get::<_, String>(0));
    connection.progress_handler(0, None::<fn() -> bool>)?;
    match found {
        Ok(found) if found == "ok" => Ok(()),
        Ok(found) => Err(OpenError::Damaged(found)),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Migrates, or says why this program must not. `alone`: no server is running on this directory.
pub(super) fn bring_up_to_date(connection: &mut Connection, alone: bool) -> Result<(), OpenError> {
    let found = migrate::version(connection)?;
    if found < migrate::NEWEST && !alone {
        return Err(OpenError::Older { found, known: migrate::NEWEST });
    }
    migrate::to_newest(connection).map(drop)
}
