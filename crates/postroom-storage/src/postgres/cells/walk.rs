//! All databases of single organizations, for the commands that the owning login runs in each.

use postroom_domain::{OrganizationId, Secret};

use super::place::Place;
use crate::postgres::convert::{get, id};
use crate::postgres::migrate::Owner;
use crate::postgres::open::OpenError;
use crate::postgres::pool::bind;

/// Whether there is a registry, which the owning login may read.
const REGISTERED: &str = "select to_regclass('public.tenants') is not null and to_regrole('postroom_keys') is not null \
     and has_any_column_privilege(to_regrole('postroom_keys'), to_regclass('public.tenants'), 'select')";

/// The whole registry.
const ALL: &str = "select cell, tenants.name, organizations.id, url, database, initialize, migration_version \
     from tenants join organizations on org = org_id order by cell";

/// By primary key.
const VERSION: &str = "update tenants set migration_version = $2 where cell = $1";

/// A database of one organization, as its owner goes there.
pub struct Dedicated {
    cell: i64,
    /// The slug that its organization was made with.
    pub name: String,
    /// Whose it is.
    pub organization: OrganizationId,
    /// Its name on its server.
    pub database: String,
    /// The way there for the owning login.
    pub owner_url: Secret,
    /// Whether its making was finished. If not, it may not even be there.
    pub is_complete: bool,
    /// As last noted.
    pub migrations: usize,
}

/// All of them, in the order they were made. `url` is what the servers are given.
///
/// # Errors
/// When the shared database cannot be read.
pub async fn dedicated(owner_url: &Secret, url: &Secret) -> Result<Vec<Dedicated>, OpenError> {
    let owner = Owner::connect(owner_url).await?;
    let rows = owner.client.query_typed(REGISTERED, &[]).await?;
    let is_there = rows.first().map(|row| get::<bool>(row, 0)).transpose()? == Some(true);
    if !is_there {
        return Ok(Vec::new());
    }
    owner.become_keys().await?;
    let mut found = Vec::new();
    for row in owner.client.query_typed(ALL, &[]).await? {
        let (url_there, database): (String, String) = (get(&row, 3)?, get(&row, 4)?);
        found.push(Dedicated {
            cell: get(&row, 0)?,
            name: get(&row, 1)?,
            organization: OrganizationId::from_bytes(id(&row, 2)?),
            owner_url: Place::read(&url_there, &database)?.way(owner_url, url)?,
            database,
            is_complete: get(&row, 5)?,
            migrations: usize::try_from(get::<i64>(&row, 6)?).unwrap_or(0),
        });
    }
    owner.close().await;
    Ok(found)
}

impl Dedicated {
    /// Notes in the registry how many migrations it has now.
    ///
    /// # Errors
    /// When the shared database cannot be written.
    pub async fn note(&self, owner_url: &Secret, migrations: usize) -> Result<(), OpenError> {
        let owner = Owner::connect(owner_url).await?;
        owner.become_keys().await?;
        let migrations = i64::try_from(migrations).unwrap_or(i64::MAX);
        owner.client.execute_typed(VERSION, bind![self.cell, migrations]).await?;
        owner.close().await;
        Ok(())
    }
}
