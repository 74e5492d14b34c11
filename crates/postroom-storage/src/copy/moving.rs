//! Moves an organization into a database of its own, or back into the one that all share, with the same machinery: copied,
//! compared, and then, in one transaction of the shared database, entered in the registry or taken out of it. What is left
//! behind is deleted after that. The embedded engine is locked meanwhile; on PostgreSQL servers run, and let go of the
//! organization first ([`Home::close`]).
//!
//! Until the registry has changed, what was copied is nobody's: a move that is given up leaves the organization where it
//! was, and servers may be started in between. On its way out its database is filled by steps and can be gone on with; on
//! its way back it gets new numbers and is copied anew. What waits changes sides in the transaction of the registry, so
//! nothing is ever delivered from both.
//!
//! Who is who stays where it is, and so do the entries of the audit log, which are sealed with those before them: a new
//! database begins its own. What an organization brings back is added to what it had, as it is.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use postroom_domain::keyring::Keyring;
use postroom_domain::{OrganizationId, Secret, Timestamp};

use super::progress::{Finished, Progress, identity};
use super::side::{Batches, FINISHED, Meta, Side, UNFINISHED};
use super::table::{TABLES, Table, Value};
use super::view::{Numbers, View};
use super::{Error, Job, Report, Role, Told, must_be_empty};
use crate::platform::Isolation;
use crate::postgres::Part;
use crate::{postgres, sqlite};

/// An installation with all that is needed to make databases in it.
#[derive(Debug, Clone)]
pub enum Installation {
    /// The data directory of the embedded engine.
    Embedded(PathBuf),
    /// PostgreSQL.
    Postgres(Logins),
}

/// The ways to a PostgreSQL database.
#[derive(Debug, Clone)]
pub struct Logins {
    /// The login that owns it, and may make databases.
    pub owner: Secret,
    /// What servers are given.
    pub url: Secret,
    /// Logins of parts that have one of their own.
    pub part_urls: HashMap<Part, Secret>,
    /// How long servers are waited for to let go of an organization: [`PATIENCE`], but for tests.
    pub patience: Duration,
}

/// How long servers are waited for to let go of an organization: an attempt may last, and a lease has to end.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Stays in the shared database when an organization leaves it, as do its API keys and people.
const STAYS: &[&str] = &["audit_logs"];
/// Is not copied like the rest when an organization comes back: it is there already, or comes with the registry's change.
const COMES_LAST: &[&str] = &["organizations", "usage", "exceptions", "audit_logs"];

/// What a database keeps for its own audit log is not another one's.
pub(super) const OF_AUDIT: &str = "audit_";
/// But the keys of chains go along with them.
pub(super) const AUDIT_KEYS: &str = "audit_key_";

/// Give numbers that are others in the shared database.
pub(super) const NUMBERED: &[&str] = &["sources", "source_secrets", "endpoints", "endpoint_secrets"];

/// Where the database of an organization is.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) url: String,
    pub(crate) database: String,
}

/// Where an organization is.
pub(crate) enum Placed {
    Shared,
    /// It is being made.
    Begun,
    Dedicated(Cell),
}

/// An organization.
pub(crate) struct Found {
    pub(crate) org: i64,
    pub(crate) id: OrganizationId,
    pub(crate) placed: Placed,
}

/// What comes into the shared database together with the registry's change.
pub(crate) struct Arrival {
    pub(crate) org: i64,
    /// The last number that was given to an endpoint.
    pub(crate) endpoint_number: i64,
    /// Small or bounded tables, each with its rows.
    pub(crate) tables: Vec<(&'static Table, Batches)>,
    /// The keys that its audit entries are sealed with.
    pub(crate) meta: Meta,
}

/// A shared database, from which an organization goes or to which it comes.
#[async_trait]
pub(crate) trait Home: Side {
    /// An organization by slug or id, which nobody else moves as long as this lives.
    async fn find(&self, name: &str) -> Result<Found, Error>;

    /// Where a database for this organization would be.
    fn place(&self, id: OrganizationId) -> Result<Cell, Error>;

    /// Its database. As a target it is made if it is not there.
    async fn cell(&self, cell: &Cell, role: Role) -> Result<Box<dyn Side>, Error>;

    /// From here on nobody works on the organization, and every delivery of it that nobody knows the outcome of is due.
    async fn close(&self, found: &Found, now: Timestamp) -> Result<(), Error>;

    /// It was not moved: whoever worked on it may do so again.
    async fn reopen(&self, found: &Found) -> Result<(), Error>;

    /// Deletes a database that is nobody's.
    async fn remove(&self, cell: &Cell) -> Result<(), Error>;

    /// From here on the organization is there and not here: what waits here would be made twice.
    async fn leave(&self, found: &Found, cell: &Cell) -> Result<(), Error>;

    /// Deletes in steps what an organization has here that is elsewhere.
    async fn forget(&self, org: i64) -> Result<(), Error>;

    /// The first of `count` numbers of a table that nobody has.
    async fn free(&self, table: &'static Table, count: i64) -> Result<i64, Error>;

    /// From here on the organization is here.
    async fn arrive(&self, arrival: Arrival) -> Result<(), Error>;
}

async fn home(installation: &Installation, now: Timestamp) -> Result<Box<dyn Home>, Error> {
    Ok(match installation {
        Installation::Embedded(data_dir) => Box::new(sqlite::copy::Embedded::home(data_dir, now).await?),
        Installation::Postgres(logins) => Box::new(postgres::copy::Database::home(logins).await?),
    })
}

/// Moves an organization, by slug or id. One that is there already only loses what an interrupted move left behind.
///
/// # Errors
/// Each says what to do.
pub async fn move_to(
    installation: &Installation,
    organization: &str,
    to: Isolation,
    keyring: &Keyring,
    now: Timestamp,
    told: Told<'_>,
) -> Result<Report, Error> {
    let home = home(installation, now).await?;
    let found = home.find(organization).await?;
    let mut kept = home.meta().await?;
    kept.retain(|name, _| !name.starts_with(OF_AUDIT));
    let identity = identity(&kept, keyring)?;
    let shared: &dyn Home = &*home;
    let moving = Moving { shared, found: &found, kept, identity, keyring, now };
    match (&found.placed, to) {
        (Placed::Begun, _) => Err(Error::BeingMade),
        (Placed::Shared, Isolation::Dedicated) | (Placed::Dedicated(_), Isolation::Shared) => moving.goes(told).await,
        (Placed::Dedicated(_), Isolation::Dedicated) => home.forget(found.org).await.map(|()| already()),
        (Placed::Shared, Isolation::Shared) => Ok(already()),
    }
}

fn already() -> Report {
    Report { was_finished: true, is_compared: false, tables: Vec::new(), differences: Vec::new() }
}

/// An organization that is moved, and what is known of the installation.
struct Moving<'a> {
    shared: &'a dyn Home,
    found: &'a Found,
    kept: Meta,
    identity: Vec<u8>,
    keyring: &'a Keyring,
    now: Timestamp,
}

impl Moving<'_> {
    async fn goes(&self, told: Told<'_>) -> Result<Report, Error> {
        let gone = async {
            self.shared.close(self.found, self.now).await?;
            match &self.found.placed {
                Placed::Dedicated(cell) => self.comes(cell, told).await,
                Placed::Shared | Placed::Begun => self.leaves(told).await,
            }
        };
        let gone = gone.await;
        if !gone.as_ref().is_ok_and(|report| report.differences.is_empty()) {
            // Of one that is there already this changes nothing. If it fails, servers do it.
            let _taken_back_by_others = self.shared.reopen(self.found).await;
        }
        gone
    }

    /// Into a database of its own.
    async fn leaves(&self, told: Told<'_>) -> Result<Report, Error> {
        let cell = self.shared.place(self.found.id)?;
        let report = self.copied(&cell, told).await?;
        if report.differences.is_empty() {
            self.shared.leave(self.found, &cell).await?;
            self.shared.forget(self.found.org).await?;
        }
        Ok(report)
    }

    /// Copies it into a database that is nobody's yet.
    async fn copied(&self, cell: &Cell, told: Told<'_>) -> Result<Report, Error> {
        let stamp = self.shared.stamp().await?;
        let mut target = self.shared.cell(cell, Role::Target).await?;
        let begun = match self.begun(&target.meta().await?, &stamp) {
            None if matches!(must_be_empty(&*target).await, Err(Error::NotEmpty { .. })) => {
                // An earlier move that was given up: the organization has gone on since.
                drop(target);
                self.shared.remove(cell).await?;
                target = self.shared.cell(cell, Role::Target).await?;
                None
            }
            begun => begun,
        };
        let source = self.view(self.shared, STAYS, true, Numbers::default());
        let job = |due| Job { source: &source, target: &*target, keyring: self.keyring, due };
        match begun {
            Some(Begun::Finished(finished)) => job(finished.due()).compare(told).await,
            Some(Begun::Unfinished(progress)) => job(progress.due()).run(progress, told).await,
            None => {
                let progress = Progress::new(self.identity.clone(), stamp, self.now);
                let mut meta = self.kept.clone();
                meta.remove(FINISHED);
                meta.insert(UNFINISHED.to_owned(), progress.seal(self.keyring));
                target.begin(meta).await?;
                job(progress.due()).run(progress, told).await
            }
        }
    }

    fn view<'v>(
        &self,
        side: &'v dyn Side,
        left_out: &'static [&'static str],
        has_meta: bool,
        numbers: Numbers,
    ) -> View<'v> {
        View { side, org: self.found.org, left_out, has_meta, numbers }
    }

    /// How far an earlier run has come, of the installation as it is now.
    fn begun(&self, found: &Meta, stamp: &str) -> Option<Begun> {
        if let Some(sealed) = found.get(FINISHED) {
            let finished = Finished::open(sealed, self.keyring).ok()?;
            return finished.is_of(&self.identity, stamp).ok().map(|()| Begun::Finished(finished));
        }
        let progress = Progress::open(found.get(UNFINISHED)?, self.keyring).ok()?;
        progress.of(&self.identity, stamp).ok().map(Begun::Unfinished)
    }

    /// Back into the database that all share.
    async fn comes(&self, cell: &Cell, told: Told<'_>) -> Result<Report, Error> {
        let (shared, org) = (self.shared, self.found.org);
        // What an earlier move left behind, on its way there or back.
        shared.forget(org).await?;
        let own = shared.cell(cell, Role::Source).await?;
        let numbers = free_numbers(&*own, |table, count| shared.free(table, count)).await?;
        let there = self.view(&*own, COMES_LAST, false, numbers.clone());
        let here = self.view(shared, COMES_LAST, false, Numbers::default());
        let job = Job { source: &there, target: &here, keyring: self.keyring, due: self.now };
        let mut progress = Progress::new(self.identity.clone(), own.stamp().await?, self.now);
        let mut report = job.fill(&mut progress, told).await?;
        report.differences.iter_mut().for_each(|difference| difference.organization = Some(self.found.id));
        if !report.differences.is_empty() {
            return Ok(report);
        }
        let last = self.view(&*own, &[], false, numbers);
        let tables = TABLES.iter().filter(|table| ["usage", "exceptions", "audit_logs"].contains(&table.name));
        let tables = tables.map(|table| (table, last.read(table, None, None, self.now))).collect();
        let endpoint_number = endpoint_number(&last).await?;
        let mut meta = own.meta().await?;
        meta.retain(|name, _| name.starts_with(AUDIT_KEYS));
        shared.arrive(Arrival { org, endpoint_number, tables, meta }).await?;
        drop(own);
        if let Err(error) = shared.remove(cell).await {
            // The move is done. A server that is stopped may hold connections to it.
            tracing::warn!("the database that it had could not be deleted, and is nobody's any more: {error}");
        }
        Ok(report)
    }
}

/// New numbers for everything in a database, in the same order, from the first that is free on.
async fn free_numbers<F>(own: &dyn Side, free: impl Fn(&'static Table, i64) -> F) -> Result<Numbers, Error>
where
    F: Future<Output = Result<i64, Error>>,
{
    let mut numbers = HashMap::new();
    for table in TABLES.iter().filter(|table| NUMBERED.contains(&table.name)) {
        if let Some((first, last)) = own.ends(table).await? {
            numbers.insert(table.name, free(table, last - first + 1).await? - first);
        }
    }
    Ok(Numbers(numbers))
}

/// The last number that a database gave to an endpoint of its organization.
pub(super) async fn endpoint_number(own: &dyn Side) -> Result<i64, Error> {
    let table = &TABLES[0];
    let mut rows = own.read(table, None, None, Timestamp::from_millis(0));
    let row = rows.next().await?.and_then(|batch| batch.rows.into_iter().next()).ok_or(Error::Nothing)?;
    let number = table.at("endpoint_number").and_then(|at| row.get(at)).and_then(Value::integer);
    Ok(number.unwrap_or(0))
}

/// How far an earlier run has come.
enum Begun {
    Unfinished(Progress),
    Finished(Finished),
}

/// An organization with a database of its own, or that is about to have one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dedicated {
    /// Which organization.
    pub organization: OrganizationId,
    /// Its slug.
    pub slug: String,
    /// Where its database is: the directory below the data directory, or the URL without a login.
    pub url: String,
    /// Whether its making was finished.
    pub is_complete: bool,
}

/// The organizations of an installation that have a database of their own.
///
/// # Errors
/// When there is no database, or it cannot be read.
pub async fn dedicated(installation: &Installation) -> Result<Vec<Dedicated>, Error> {
    match installation {
        Installation::Embedded(data_dir) => sqlite::copy::Embedded::list(data_dir),
        Installation::Postgres(logins) => postgres::copy::Database::list(&logins.owner).await,
    }
}
