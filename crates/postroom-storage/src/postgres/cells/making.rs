//! How an organization gets a database of its own, in steps that can each be done again: row, database, migrations, and
//! at the end the key with which somebody gets in.

use postroom_domain::{Secret, TenantId, Timestamp};
use tokio_postgres::error::SqlState;

use super::place::{Place, quoted};
use super::registry::{BY_ORG, BY_SLUG, tenant};
use crate::api::ApiKeyView;
use crate::cells::registry::TenantRow;
use crate::error::Unique;
use crate::platform::{NewTenant, Organization, OrganizationChange};
use crate::postgres::configuration::{keys, organizations};
use crate::postgres::convert::{at, get, uuid};
use crate::postgres::migrate::{NEWEST, Owner};
use crate::postgres::open::OpenError;
use crate::postgres::pool::{Transaction, bind};
use crate::postgres::{DatabaseUrl, Engine, Options, Postgres};
use crate::{Error, Result, Scope, SuperAdmin};

const MAY_CREATE: &str = "select rolname::text, rolcreatedb or rolsuper from pg_roles where rolname = current_user";

const EXISTS: &str = "select 1 from pg_database where datname = $1";

/// Unique indexes on org_id and url decide.
const INSERT: &str = "insert into tenants (id, org_id, name, url, database, username, created_at) \
     values ($1, $2, $3, $4, $5, $6, $7)";

/// By primary key. Whoever began before cannot finish any more.
const AGAIN: &str = "update tenants set begun = begun + 1 where cell = $1";

/// By primary key. Awake: whoever makes it has it open.
const FINISH: &str = "update tenants set initialize = true, awake = true, wakes = wakes + 1, migration_version = $3 \
     where cell = $1 and begun = $2 and not initialize";

fn taken() -> Error {
    Error::Taken { field: Unique::OrganizationSlug }
}

impl Postgres {
    pub(super) async fn begin_tenant(&self, by: &SuperAdmin, new: &NewTenant, now: Timestamp) -> Result<TenantRow> {
        match self.may_create().await {
            Ok(()) => {}
            Err(error @ (OpenError::NoOwner | OpenError::MayNotCreate { .. })) => {
                return Err(Error::Conflict { code: "dedicated_not_available", detail: error.to_string() });
            }
            Err(error) => return Err(super::unavailable(error)),
        }
        match self.insert_tenant(by, new, now).await {
            Err(Error::Taken { field: Unique::OrganizationSlug }) => self.begin_again(by, new, now).await,
            begun => begun,
        }
    }

    async fn may_create(&self) -> Result<(), OpenError> {
        may_create(self.0.options.migrate_url.as_ref().ok_or(OpenError::NoOwner)?).await
    }

    async fn insert_tenant(&self, by: &SuperAdmin, new: &NewTenant, now: Timestamp) -> Result<TenantRow> {
        let Options { url, .. } = &self.0.options;
        let id = TenantId::new(now);
        let place = Place::beside(url, id).map_err(super::unavailable)?;
        let login = DatabaseUrl::parse(url).map_err(super::unavailable)?.user().to_owned();
        let transaction = self.0.pools.platform.begin_unscoped().await?;
        let inserted = async {
            let made = organizations::create(
                &transaction,
                &self.0.vault,
                self.0.options.plans,
                by,
                new.organization.clone(),
                now,
            )
            .await?;
            let (org, slug) = (made.0.org, new.organization.slug.as_str());
            let (id, url, now) = (uuid(id.to_bytes()), place.url(), at(now));
            transaction.execute(INSERT, bind![id, org, slug, url, place.database(), login, now]).await?;
            tenant(&transaction.expect("tenant", BY_ORG, bind![org]).await?)
        }
        .await;
        self.shown(transaction.finish(inserted).await).await
    }

    /// The slug is there: either the organization is complete, or nobody has a key of it yet.
    async fn begin_again(&self, by: &SuperAdmin, new: &NewTenant, now: Timestamp) -> Result<TenantRow> {
        let transaction = self.0.pools.platform.begin_unscoped().await?;
        let begun = async {
            let slug = new.organization.slug.as_str();
            let row = transaction.query_one(BY_SLUG, bind![slug]).await?.ok_or_else(taken)?;
            let found = tenant(&row)?;
            if found.initialize {
                return Err(taken());
            }
            transaction.execute(AGAIN, bind![i64::from(found.cell)]).await?;
            let change = as_asked(new);
            organizations::update(
                &transaction,
                &self.0.vault,
                self.0.options.plans,
                by,
                found.organization,
                change,
                now,
            )
            .await?;
            tenant(&transaction.expect("tenant", BY_ORG, bind![found.org]).await?)
        }
        .await;
        self.shown(transaction.finish(begun).await).await
    }

    /// The database, and all that is in a new one.
    pub(super) async fn build_tenant(&self, tenant: &TenantRow) -> Result<(), OpenError> {
        create(self.0.options.migrate_url.as_ref().ok_or(OpenError::NoOwner)?, &tenant.database).await?;
        // Takes it away from everybody and gives it to the logins of servers, too.
        self.migrate_cell(tenant).await
    }

    pub(super) async fn finish_tenant(
        &self,
        tenant: &TenantRow,
        scope: &Scope,
        new: &NewTenant,
        now: Timestamp,
    ) -> Result<(Organization, ApiKeyView)> {
        let transaction = self.0.pools.platform.begin_unscoped().await?;
        let finished = finish(&transaction, &self.0, tenant, scope, new, now).await;
        self.shown(transaction.finish(finished).await).await
    }
}

/// Refuses before anything is made.
pub(in crate::postgres) async fn may_create(owner_url: &Secret) -> Result<(), OpenError> {
    let owner = Owner::connect(owner_url).await?;
    let rows = owner.client.query_typed(MAY_CREATE, &[]).await?;
    let row = rows.first().ok_or_else(|| OpenError::Database("the login has gone".into()))?;
    let (login, may): (String, bool) = (get(row, 0)?, get(row, 1)?);
    if may { Ok(()) } else { Err(OpenError::MayNotCreate { login }) }
}

/// Makes a database, if it is not there.
pub(in crate::postgres) async fn create(owner_url: &Secret, database: &str) -> Result<(), OpenError> {
    let owner = Owner::connect(owner_url).await?;
    if owner.client.query_typed(EXISTS, bind![database]).await?.is_empty() {
        let create = format!("create database {} encoding 'UTF8' template template0", quoted(database));
        match owner.client.batch_execute(&create).await {
            // Another node was faster.
            Err(error)
                if [Some(&SqlState::DUPLICATE_DATABASE), Some(&SqlState::UNIQUE_VIOLATION)].contains(&error.code()) => {
            }
            created => created?,
        }
    }
    owner.close().await;
    Ok(())
}

async fn finish(
    transaction: &Transaction,
    engine: &Engine,
    tenant: &TenantRow,
    scope: &Scope,
    new: &NewTenant,
    now: Timestamp,
) -> Result<(Organization, ApiKeyView)> {
    let newest = i64::try_from(NEWEST).unwrap_or(i64::MAX);
    if transaction.execute(FINISH, bind![i64::from(tenant.cell), tenant.begun, newest]).await? == 0 {
        return Err(taken());
    }
    transaction.enter(tenant.org).await?;
    let key = keys::create(transaction, &engine.vault, scope, new.api_key.clone(), now).await?;
    Ok((organizations::get_view(transaction, engine.options.plans, tenant.org, now).await?, key))
}

/// The organization as it was asked for the last time.
fn as_asked(new: &NewTenant) -> OrganizationChange {
    let organization = new.organization.clone();
    OrganizationChange {
        name: Some(organization.name),
        slug: None,
        plan: Some(organization.plan),
        webhook_limit: Some(organization.webhook_limit),
        is_active: Some(organization.is_active),
        mandrill_webhook_secret: Some(organization.mandrill_webhook_secret),
    }
}
