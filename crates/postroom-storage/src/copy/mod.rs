//! Copies everything of one installation into another, empty one, of whatever engine: table by table, in batches, each in
//! one transaction with how far it has come. A copy that was killed goes on there. At the end both sides are read again
//! and compared by table and organization.
//!
//! Nothing is opened or sealed anew: sealed values are bound to places that both engines name alike, so they are copied as
//! they are, and the keys have to be the same. Nobody writes on either side meanwhile: the embedded engine is locked, and
//! on PostgreSQL no server can start, but for the move of a single organization, which only that one waits for. It does not merge installations, and it empties nothing.

mod compare;
mod moving;
mod progress;
pub(crate) mod side;
pub(crate) mod table;
mod view;
mod whole;

use std::path::PathBuf;

use postroom_domain::keyring::{KeyId, Keyring, KeyringError};
use postroom_domain::{Secret, Timestamp};

pub use self::compare::Difference;
pub(crate) use self::moving::{Arrival, Cell, Found, Home, Placed};
pub use self::moving::{Dedicated, Installation, Logins, PATIENCE, dedicated, move_to};
use self::progress::{Finished, Progress, identity};
use self::side::{FINISHED, Side, UNFINISHED};
use self::table::{TABLES, Table, Value};
use crate::{postgres, sqlite};

/// Where an installation is.
#[derive(Debug, Clone)]
pub enum Place {
    /// The data directory of the embedded engine.
    Embedded(PathBuf),
    /// A PostgreSQL database, with the login that owns it.
    Postgres(Secret),
}

/// Why nothing, or not everything, was copied. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The embedded engine refuses its directory.
    #[error(transparent)]
    Embedded(#[from] sqlite::OpenError),
    /// PostgreSQL refuses, or its database cannot be used.
    #[error(transparent)]
    Postgres(#[from] postgres::OpenError),
    /// A directory without a database.
    #[error("there is no Postroom database in {}: name the data directory of the installation to copy", .0.display())]
    NoDatabase(PathBuf),
    /// No server has ever started there.
    #[error("there is nothing to copy: no server has ever started on the source")]
    Nothing,
    /// Servers work on it.
    #[error(
        "{servers} servers are running on {place}: stop them and run the command again (one that was killed counts for \
         15 seconds more)"
    )]
    Running {
        /// `the source` or `the target`.
        place: &'static str,
        /// How many.
        servers: i64,
    },
    /// The keys of the source are not among those given.
    #[error(
        "the encryption keys given do not open the source: {0}; give the keys that its servers use, in \
         POSTROOM_ENCRYPTION_KEYS; the servers of the target need the same ones"
    )]
    WrongKeys(#[source] KeyringError),
    /// There is something there already.
    #[error("the target is not empty: it has rows in {table}; give an empty database or a new directory")]
    NotEmpty {
        /// The first table with rows.
        table: &'static str,
    },
    /// It belongs to another copy.
    #[error("the target holds a copy of another installation; give an empty database or a new directory")]
    OfAnother,
    /// Both are the same.
    #[error("the source and the target are the same installation; give an empty database or a new directory")]
    Same,
    /// A server or a command has written to the source.
    #[error(
        "the source was written to after the copy was begun, so the copy is neither what it was nor what it is: stop what \
         writes there, empty the target (drop and make the database, or remove the directory), and copy again"
    )]
    Changed,
    /// A command was interrupted by the end of what it waited for.
    #[error("reading ended before its time")]
    Interrupted,
    /// There is no such organization.
    #[error("there is no organization {0:?} in this database; give its slug or its id")]
    NoOrganization(String),
    /// `POST /v1/tenants` has not come to its end.
    #[error("the organization is still being made: send the request that makes it (`POST /v1/tenants`) again first")]
    BeingMade,
    /// Another command moves it.
    #[error("the organization is being moved already, by another command: wait until that has ended")]
    UnderWay,
    /// What works on all that is stored works alone.
    #[error(
        "keys are being rotated, an installation is being copied, or an organization is being moved: run the command \
         again when that is done"
    )]
    Busy,
    /// Nodes that are alive have not let go of the organization.
    #[error(
        "of the running servers, nodes {} have not let go of the organization in {seconds} s, so it was not moved and goes \
         on where it is: see what they log, and run the command again",
        numbers(nodes)
    )]
    NotLetGo {
        /// Their numbers.
        nodes: Vec<i32>,
        /// How long they were waited for.
        seconds: u64,
    },
    /// The connection that kept it was lost.
    #[error("the move was taken back, because this command lost its connection: run it again")]
    TakenBack,
    /// A comparison before there is anything to compare.
    #[error("the target holds no finished copy: run the command without --verify")]
    NotFinished,
    /// The database.
    #[error(transparent)]
    Storage(#[from] crate::Error),
}

fn numbers(nodes: &[i32]) -> String {
    nodes.iter().map(i32::to_string).collect::<Vec<_>>().join(", ")
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// Rows are copied.
    Copying,
    /// Both sides are read and compared.
    Comparing,
}

/// How far a table has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// With what.
    pub doing: Doing,
    /// Its name on PostgreSQL.
    pub table: &'static str,
    /// Rows so far.
    pub rows: u64,
    /// Rows that the source has, about.
    pub of: u64,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whether the target was a finished copy before: then nothing was changed.
    pub was_finished: bool,
    /// Whether both sides were compared.
    pub is_compared: bool,
    /// Each table and its rows; none for a copy that was finished before and is not compared.
    pub tables: Vec<(&'static str, u64)>,
    /// Where the two sides are not the same. The target is not finished then.
    pub differences: Vec<Difference>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Copy, or go on with it, and compare.
    Copy,
    /// Compare a finished copy and change nothing.
    Verify,
}

/// Told of each step.
pub type Told<'a> = &'a mut (dyn FnMut(Step) + Send);

/// Copies `from` to `to`, or goes on with it. `keyring` has the keys of the source. `now` is when deliveries are due that
/// nobody knows the outcome of.
///
/// # Errors
/// Each says what to do. Nothing was written but for [`Error::Changed`] and what the databases say.
pub async fn copy(
    from: &Place,
    to: &Place,
    keyring: &Keyring,
    now: Timestamp,
    mode: Mode,
    told: Told<'_>,
) -> Result<Report, Error> {
    if is_same(from, to) {
        return Err(Error::Same);
    }
    let source = whole::of(open(from, Role::Source).await?).await?;
    let kept = source.meta().await?;
    let identity = identity(&kept, keyring)?;
    check_keys(source.as_ref(), keyring, now).await?;
    let target = open(to, if mode == Mode::Copy { Role::Target } else { Role::Copy }).await?;
    let stamp = source.stamp().await?;
    let found = target.meta().await?;
    if kept.contains_key(UNFINISHED) {
        return Err(postgres::OpenError::Unfinished.into());
    }
    if let Some(sealed) = found.get(FINISHED) {
        let finished = Finished::open(sealed, keyring)?;
        finished.is_of(&identity, &stamp)?;
        let job = Job { source: &*source, target: &*target, keyring, due: finished.due() };
        return job.finished(mode, told).await;
    }
    if mode == Mode::Verify {
        return Err(Error::NotFinished);
    }
    let progress = match found.get(UNFINISHED) {
        Some(sealed) => Progress::open(sealed, keyring)?.of(&identity, &stamp)?,
        None => {
            must_be_empty(target.as_ref()).await?;
            let progress = Progress::new(identity, stamp, now);
            let mut meta = kept.clone();
            meta.remove(FINISHED);
            meta.insert(UNFINISHED.to_owned(), progress.seal(keyring));
            target.begin(meta).await?;
            progress
        }
    };
    let job = Job { source: &*source, target: &*target, keyring, due: progress.due() };
    job.run(progress, told).await
}

/// What a place is in a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It is read.
    Source,
    /// It is filled, and may be new.
    Target,
    /// It was filled, and is read.
    Copy,
    /// It is read, and an organization leaves it.
    Shared,
}

impl Role {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        if self == Self::Source { "the source" } else { "the target" }
    }
}

async fn open(place: &Place, role: Role) -> Result<Box<dyn Side>, Error> {
    Ok(match place {
        Place::Embedded(data_dir) => Box::new(sqlite::copy::Embedded::open(data_dir, role)?),
        Place::Postgres(url) => Box::new(postgres::copy::Database::open(url, role).await?),
    })
}

/// Whether both are the same as far as their names tell; that nobody else is at either says the rest.
fn is_same(from: &Place, to: &Place) -> bool {
    match (from, to) {
        (Place::Embedded(from), Place::Embedded(to)) => {
            let real = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
            real(from) == real(to)
        }
        (Place::Postgres(from), Place::Postgres(to)) => from == to,
        _ => false,
    }
}

/// Every key that anything is sealed with is among those given.
async fn check_keys(source: &dyn Side, keyring: &Keyring, now: Timestamp) -> Result<(), Error> {
    for table in &TABLES {
        let Some(column) = table.sealed.and_then(|name| table.at(name)) else { continue };
        let mut batches = source.read(table, None, None, now);
        while let Some(batch) = batches.next().await? {
            for row in batch.rows {
                let key = row.get(column).and_then(Value::as_bytes).and_then(KeyId::of_ciphertext);
                if let Some(key) = key.filter(|key| keyring.ids().all(|known| known != *key)) {
                    return Err(Error::WrongKeys(KeyringError::UnknownKey(key)));
                }
            }
        }
    }
    Ok(())
}

async fn must_be_empty(target: &dyn Side) -> Result<(), Error> {
    for table in &TABLES {
        if target.count(table).await? > 0 {
            return Err(Error::NotEmpty { table: table.name });
        }
    }
    Ok(())
}

/// Two sides and what is known of them.
struct Job<'a> {
    source: &'a dyn Side,
    target: &'a dyn Side,
    keyring: &'a Keyring,
    due: Timestamp,
}

impl Job<'_> {
    async fn run(&self, mut progress: Progress, told: Told<'_>) -> Result<Report, Error> {
        let report = self.fill(&mut progress, told).await?;
        if report.differences.is_empty() {
            self.target.finish(progress.finished().seal(self.keyring)).await?;
        }
        Ok(report)
    }

    /// Copies what is left, and compares.
    async fn fill(&self, progress: &mut Progress, told: Told<'_>) -> Result<Report, Error> {
        for (at, table) in TABLES.iter().enumerate().skip(progress.table) {
            if at > progress.table {
                progress.next(at);
            }
            self.table(table, progress, told).await?;
        }
        self.target.complete().await?;
        let report = self.compare(told).await?;
        self.source.is_alone().await?;
        self.target.is_alone().await?;
        progress.is_stamped(&self.source.stamp().await?)?;
        Ok(report)
    }

    /// Copies what is left of a table.
    async fn table(&self, table: &'static Table, progress: &mut Progress, told: Told<'_>) -> Result<(), Error> {
        let of = self.source.count(table).await?;
        let step = |rows| Step { doing: Doing::Copying, table: table.name, rows, of };
        told(step(progress.rows));
        let mut batches = self.source.read(table, None, progress.position.clone(), self.due);
        while let Some(batch) = batches.next().await? {
            progress.pass(batch.rows.len(), batch.position);
            self.target.write(table, batch.rows, progress.seal(self.keyring)).await?;
            told(step(progress.rows));
        }
        Ok(())
    }

    /// A copy that was finished before.
    async fn finished(&self, mode: Mode, told: Told<'_>) -> Result<Report, Error> {
        let report = match mode {
            Mode::Copy => {
                Report { was_finished: true, is_compared: false, tables: Vec::new(), differences: Vec::new() }
            }
            Mode::Verify => Report { was_finished: true, ..self.compare(told).await? },
        };
        Ok(report)
    }
}
