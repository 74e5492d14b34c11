//! Every database of an installation: the shared one, and those of organizations that have their own, for the commands
//! that the owning login runs in each.
//!
//! What is wrong with one of those is told in its place and stops none of the others.

use futures_util::StreamExt as _;
use postroom_domain::{OrganizationId, Secret};

use super::super::cells::Place;
use super::{AppLogin, MIGRATIONS, Migrated, NEWEST, Owner, Step, bind, down_from, get, status, up};
use crate::postgres::convert::id;
use crate::postgres::open::OpenError;

/// How many databases are worked on at once.
const AT_ONCE: usize = 8;

/// Whether there is a registry, and whether the role for it is to be become: without the grants of the third migration
/// it lies open to its owner.
const REGISTRY: &str = "select to_regclass('public.tenants') is not null, coalesce((select relrowsecurity from pg_class \
     where oid = to_regclass('public.tenants')), false)";

/// The whole registry.
const TENANTS: &str = "select cell, tenants.name, organizations.id, url, database, initialize \
     from tenants join organizations on org = org_id order by cell";

/// By primary key.
const NOTE: &str = "update tenants set migration_version = $2 where cell = $1";

/// A database of the installation, as its owner goes there.
#[derive(Clone)]
pub struct Database {
    /// Whose it is; `None` is the one that all share.
    pub organization: Option<OrganizationId>,
    /// The slug that this organization was made with.
    pub slug: Option<String>,
    cell: i64,
    owner_url: Secret,
    /// One that is still being made need not be there.
    is_complete: bool,
}

impl Database {
    fn shared(owner_url: &Secret) -> Self {
        Self { organization: None, slug: None, cell: 0, owner_url: owner_url.clone(), is_complete: true }
    }

    /// The way there for the owning login.
    pub(in crate::postgres) fn owner_url(&self) -> &Secret {
        &self.owner_url
    }

    /// Does something in this database; `nothing` comes of it where the database is still to be made.
    pub(in crate::postgres) async fn run<T>(
        &self,
        nothing: T,
        run: impl Future<Output = Result<T, OpenError>>,
    ) -> Result<T, OpenError> {
        match run.await {
            Err(error) if !self.is_complete && error.is_of_no_database() => Ok(nothing),
            done => done.map_err(|error| self.wrap(error)),
        }
    }

    /// The error as one of this database.
    fn wrap(&self, error: OpenError) -> OpenError {
        match self.organization {
            None => error,
            Some(organization) => OpenError::Tenant { organization, cause: Box::new(error) },
        }
    }
}

/// The databases of organizations that have their own, in the order they were made. `url` is what servers are given.
pub(in crate::postgres) async fn tenants(
    owner: &Owner,
    owner_url: &Secret,
    url: &Secret,
) -> Result<Vec<Database>, OpenError> {
    let rows = owner.client.query_typed(REGISTRY, &[]).await?;
    let row = rows.first().ok_or_else(|| OpenError::Database("an expression has no row".into()))?;
    if !get::<bool>(row, 0)? {
        return Ok(Vec::new());
    }
    let as_keys = get::<bool>(row, 1)?;
    if as_keys {
        owner.become_keys().await?;
    }
    let mut found = Vec::new();
    for row in owner.client.query_typed(TENANTS, &[]).await? {
        let (place, database): (String, String) = (get(&row, 3)?, get(&row, 4)?);
        found.push(Database {
            cell: get(&row, 0)?,
            slug: Some(get(&row, 1)?),
            organization: Some(OrganizationId::from_bytes(id(&row, 2)?)),
            owner_url: Place::read(&place, &database)?.way(owner_url, url)?,
            is_complete: get(&row, 5)?,
        });
    }
    if as_keys {
        owner.client.batch_execute("reset role").await?;
    }
    Ok(found)
}

async fn all_tenants(owner_url: &Secret, url: &Secret) -> Result<Vec<Database>, OpenError> {
    let owner = Owner::connect(owner_url).await?;
    let found = tenants(&owner, owner_url, url).await?;
    owner.close().await;
    Ok(found)
}

/// [`status`] of every database: the shared one first, then those of organizations. `told` hears of each.
///
/// # Errors
/// When the shared database cannot be read, or is newer than this program.
pub async fn status_all(
    owner_url: &Secret,
    url: &Secret,
    mut told: impl FnMut(&Database, Result<Vec<Step>, OpenError>),
) -> Result<(), OpenError> {
    told(&Database::shared(owner_url), Ok(status(owner_url).await?));
    let tenants = futures_util::stream::iter(all_tenants(owner_url, url).await?);
    let mut steps = tenants
        .map(async |database| {
            let found = database.run(unfinished(), status(&database.owner_url)).await;
            (database, found)
        })
        .buffered(AT_ONCE);
    while let Some((database, steps)) = steps.next().await {
        told(&database, steps);
    }
    Ok(())
}

/// One that is still being made gets its migrations then.
fn unfinished() -> Vec<Step> {
    MIGRATIONS.iter().map(|step| Step { name: step.name, applied: true }).collect()
}

/// [`up`] for every database, the shared one first. `told` hears of each what was done.
///
/// # Errors
/// As [`up`], of the shared database.
pub async fn up_all(
    owner_url: &Secret,
    url: &Secret,
    logins: &[AppLogin],
    mut told: impl FnMut(&Database, Result<Migrated, OpenError>),
) -> Result<(), OpenError> {
    told(&Database::shared(owner_url), Ok(up(owner_url, logins).await?));
    let tenants = futures_util::stream::iter(all_tenants(owner_url, url).await?);
    let mut done = tenants
        .map(async |database| {
            let nothing = Migrated { applied: Vec::new(), advice: Vec::new() };
            let done = database.run(nothing, async {
                let migrated = up(&database.owner_url, logins).await?;
                note(owner_url, database.cell, NEWEST).await?;
                Ok(migrated)
            });
            let done = done.await;
            (database, done)
        })
        .buffered(AT_ONCE);
    while let Some((database, done)) = done.next().await {
        told(&database, done);
    }
    Ok(())
}

/// Takes the newest migration of the shared database back, in every database that has it. The shared one goes last, and
/// only if all others went: it knows where they are. `told` hears of each what was taken back.
///
/// # Errors
/// As [`down`](super::down), of the shared database.
pub async fn down_all(
    owner_url: &Secret,
    url: &Secret,
    mut told: impl FnMut(&Database, Result<Option<&'static str>, OpenError>),
) -> Result<(), OpenError> {
    let owner = Owner::connect(owner_url).await?;
    let newest = owner.version().await?;
    let found = tenants(&owner, owner_url, url).await?;
    owner.close().await;
    if newest == 1 && !found.is_empty() {
        return Err(OpenError::HasTenants(found.len()));
    }
    let mut all_went = true;
    let mut done = futures_util::stream::iter(found)
        .map(async |database| {
            let done = database.run(None, async {
                let taken_back = down_from(&database.owner_url, newest).await?;
                note(owner_url, database.cell, newest.saturating_sub(1)).await?;
                Ok(taken_back)
            });
            let done = done.await;
            (database, done)
        })
        .buffered(AT_ONCE);
    while let Some((database, done)) = done.next().await {
        all_went &= done.is_ok();
        told(&database, done);
    }
    drop(done);
    if all_went {
        told(&Database::shared(owner_url), down_from(owner_url, newest).await);
    }
    Ok(())
}

/// Notes in the registry how many migrations a database has now.
async fn note(owner_url: &Secret, cell: i64, migrations: usize) -> Result<(), OpenError> {
    let owner = Owner::connect(owner_url).await?;
    let rows = owner.client.query_typed(REGISTRY, &[]).await?;
    if rows.first().map(|row| get::<bool>(row, 1)).transpose()? == Some(true) {
        owner.become_keys().await?;
    }
    let migrations = i64::try_from(migrations).unwrap_or(i64::MAX);
    owner.client.execute_typed(NOTE, bind![cell, migrations]).await?;
    owner.close().await;
    Ok(())
}
