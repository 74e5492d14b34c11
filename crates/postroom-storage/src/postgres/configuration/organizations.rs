//! Organizations.

use postroom_domain::organization::PlanLimits;
use postroom_domain::{OrganizationId, Secret, SourceId, Timestamp};
use tokio_postgres::Row;

use super::taken;
use crate::api::{Page, PageRequest};
use crate::audit::Action;
use crate::engine::audit::{self, Act};
use crate::engine::configured::MANDRILL;
use crate::engine::page;
use crate::engine::vault::Vault;
use crate::platform::{NewOrganization, NewTenant, Organization, OrganizationChange, Tenant};
use crate::postgres::Postgres;
use crate::postgres::audit::write;
use crate::postgres::convert::{at, get, id, moment, uuid, word};
use crate::postgres::pool::{Transaction, bind};
use crate::{Result, Scope, SuperAdmin};

/// The columns of [`Organization`], and before them its number. `$2` is the month to count; the secret itself is not
/// read. Usage by primary key.
macro_rules! select_organization {
    ($rest:literal) => {
        concat!(
            "select organizations.org, id, slug, name, plan, webhook_limit, is_active, \
                 mandrill_fingerprint is not null, created_at, updated_at, coalesce(usage.count, 0), created_by \
             from organizations left join usage on usage.org = organizations.org and usage.month = $2 ",
            $rest
        )
    };
}

/// Unique indexes on id, slug and mandrill_fingerprint decide.
const INSERT: &str = "insert into organizations \
     (id, slug, name, plan, webhook_limit, is_active, mandrill_secret, mandrill_fingerprint, created_at, updated_at, \
     created_by) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10) returning org";

/// By the unique index on id.
const BY_ID: &str = select_organization!("where organizations.id = $1");

/// By primary key.
const BY_NUMBER: &str = select_organization!("where organizations.org = $1");

/// By primary key, from the place the page before ended, found by the unique index on id.
const PAGE: &str = select_organization!(
    "where $1 is null or organizations.org < (select org from organizations where id = $1) \
     order by organizations.org desc limit $3"
);

/// By the unique index on id; nobody else changes it meanwhile.
const TO_CHANGE: &str =
    "select org, slug, name, plan, webhook_limit, is_active from organizations where id = $1 for no key update";

/// By primary key.
const UPDATE: &str = "update organizations set slug = $2, name = $3, plan = $4, webhook_limit = $5, is_active = $6, \
     updated_at = $7 where org = $1";

/// By primary key.
const RENAME: &str = "update organizations set name = $2, updated_at = $3 where org = $1";

/// By primary key.
const SET_MANDRILL: &str = "update organizations set mandrill_secret = $2, mandrill_fingerprint = $3 where org = $1";

/// Index: sources_implied.
const IMPLY_SOURCE: &str = "insert into sources \
     (org, id, name, provider, options, is_active, is_implied, created_at, updated_at) \
     values ($1, $2, $3, $3, '{}', true, true, $4, $4) \
     on conflict (org) where is_implied do update set deleted_at = null, updated_at = excluded.updated_at";

/// Index: sources_implied.
const FORGET_SOURCE: &str = "update sources set deleted_at = $2 where org = $1 and is_implied";

impl Postgres {
    pub(in crate::postgres) async fn make_tenant(
        &self,
        by: SuperAdmin,
        new: NewTenant,
        now: Timestamp,
    ) -> Result<Tenant> {
        let transaction = self.0.pools.platform.begin_unscoped().await?;
        let made = create_tenant(&transaction, &self.0.vault, self.0.options.plans, &by, new, now).await;
        self.shown(transaction.finish(made).await).await
    }

    pub(in crate::postgres) async fn make_organization(
        &self,
        by: SuperAdmin,
        new: NewOrganization,
        now: Timestamp,
    ) -> Result<Organization> {
        let transaction = self.0.pools.platform.begin_unscoped().await?;
        let made = create(&transaction, &self.0.vault, self.0.options.plans, &by, new, now).await;
        self.shown(transaction.finish(made.map(|(_, organization)| organization)).await).await
    }

    pub(in crate::postgres) async fn organizations(&self, request: PageRequest) -> Result<Page<Organization>> {
        let (after, most) = page::after_id(&request);
        let month = at(self.now().month().0);
        let connection = self.0.pools.platform.connection().await?;
        let rows = connection.query(PAGE, bind![after.map(uuid), month, most]).await?;
        let found = rows.iter().map(|row| view(row, self.0.options.plans)).collect::<Result<_>>()?;
        Ok(page::cut(&request, found, |organization: &Organization| organization.id.to_bytes()))
    }

    pub(in crate::postgres) async fn organization(&self, id: OrganizationId) -> Result<Organization> {
        let month = at(self.now().month().0);
        let connection = self.0.pools.platform.connection().await?;
        let row = connection.query_one(BY_ID, bind![uuid(id.to_bytes()), month]).await?;
        view(&row.ok_or(crate::Error::NotFound { kind: "organization" })?, self.0.options.plans)
    }

    pub(in crate::postgres) async fn change_organization(
        &self,
        by: &SuperAdmin,
        id: OrganizationId,
        change: OrganizationChange,
        now: Timestamp,
    ) -> Result<Organization> {
        let transaction = self.0.pools.platform.begin_unscoped().await?;
        let changed = update(&transaction, &self.0.vault, self.0.options.plans, by, id, change, now).await;
        self.shown(transaction.finish(changed).await).await
    }

    pub(in crate::postgres) async fn own_organization(&self, scope: &Scope) -> Result<Organization> {
        let desk = self.desk(scope.org).await?;
        let found = get_view(&desk.transaction, self.0.options.plans, scope.org, self.now()).await;
        desk.end(found).await
    }

    pub(in crate::postgres) async fn rename_organization(
        &self,
        scope: &Scope,
        name: String,
        now: Timestamp,
    ) -> Result<Organization> {
        let desk = self.desk(scope.org).await?;
        let renamed = rename(&desk.transaction, &self.0.vault, self.0.options.plans, scope, &name, now).await;
        desk.end(renamed).await
    }
}

async fn create_tenant(
    transaction: &Transaction,
    vault: &Vault,
    plans: PlanLimits,
    by: &SuperAdmin,
    new: NewTenant,
    now: Timestamp,
) -> Result<Tenant> {
    let (scope, organization) = create(transaction, vault, plans, by, new.organization, now).await?;
    let api_key = super::keys::create(transaction, vault, &scope, new.api_key, now).await?;
    let endpoint = match new.endpoint {
        Some(endpoint) => Some(super::endpoints::create(transaction, vault, &scope, endpoint, now).await?),
        None => None,
    };
    Ok(Tenant { organization, scope, api_key, endpoint })
}

/// Makes an organization; from here on the transaction is in it.
pub(in crate::postgres) async fn create(
    transaction: &Transaction,
    vault: &Vault,
    plans: PlanLimits,
    by: &SuperAdmin,
    new: NewOrganization,
    now: Timestamp,
) -> Result<(Scope, Organization)> {
    let id = OrganizationId::new(now);
    let secret = new.mandrill_webhook_secret.as_ref();
    let (sealed, fingerprint) = secret.map(|secret| vault.seal_mandrill(id, secret)).unzip();
    let row = transaction
        .expect(
            "organization",
            INSERT,
            bind![
                uuid(id.to_bytes()),
                new.slug,
                new.name,
                new.plan.as_str(),
                new.webhook_limit.map(u64::cast_signed),
                new.is_active,
                sealed,
                fingerprint,
                at(now),
                by.0.to_string(),
            ],
        )
        .await
        .map_err(taken)?;
    let org = get(&row, 0)?;
    transaction.enter(org).await?;
    if secret.is_some() {
        imply_source(transaction, org, now).await?;
    }
    let organization = get_view(transaction, plans, org, now).await?;
    let act = Act::on(Action::OrganizationCreated, id).to(audit::of_organization(&organization));
    write(transaction, vault, by.acting_in(org), act, now).await?;
    let slug = new.slug.as_str().into();
    let scope = Scope { organization: id, org, slug, actor: by.0, origin: by.1.clone(), is_dedicated: false };
    Ok((scope, organization))
}

/// Changes what is `Some`.
pub(in crate::postgres) async fn update(
    transaction: &Transaction,
    vault: &Vault,
    plans: PlanLimits,
    by: &SuperAdmin,
    id: OrganizationId,
    change: OrganizationChange,
    now: Timestamp,
) -> Result<Organization> {
    let row = transaction.expect("organization", TO_CHANGE, bind![uuid(id.to_bytes())]).await?;
    let org: i64 = get(&row, 0)?;
    transaction.enter(org).await?;
    let before = audit::of_organization(&get_view(transaction, plans, org, now).await?);
    let slug = change.slug.map_or_else(|| get(&row, 1), Ok)?;
    let name = change.name.map_or_else(|| get(&row, 2), Ok)?;
    let plan = change.plan.map_or_else(|| word(&row, 3), Ok)?;
    let limit = match change.webhook_limit {
        Some(limit) => limit.map(u64::cast_signed),
        None => get(&row, 4)?,
    };
    let is_active = change.is_active.map_or_else(|| get(&row, 5), Ok)?;
    transaction
        .execute(UPDATE, bind![org, slug, name, plan.as_str(), limit, is_active, at(now)])
        .await
        .map_err(taken)?;
    let is_secret_set = matches!(&change.mandrill_webhook_secret, Some(Some(_)));
    if let Some(secret) = change.mandrill_webhook_secret {
        set_mandrill(transaction, vault, org, id, secret.as_ref(), now).await?;
    }
    let organization = get_view(transaction, plans, org, now).await?;
    let act = Act::on(Action::OrganizationUpdated, id)
        .from(before)
        .to(audit::of_organization(&organization))
        .with_secret("mandrill_webhook_secret", is_secret_set);
    write(transaction, vault, by.acting_in(org), act, now).await?;
    Ok(organization)
}

async fn rename(
    transaction: &Transaction,
    vault: &Vault,
    plans: PlanLimits,
    scope: &Scope,
    name: &str,
    now: Timestamp,
) -> Result<Organization> {
    let before = get_view(transaction, plans, scope.org, now).await?;
    transaction.execute(RENAME, bind![scope.org, name, at(now)]).await?;
    let organization = get_view(transaction, plans, scope.org, now).await?;
    let act = Act::on(Action::OrganizationUpdated, scope.organization)
        .from(audit::of_organization(&before))
        .to(audit::of_organization(&organization));
    write(transaction, vault, scope.into(), act, now).await?;
    Ok(organization)
}

async fn set_mandrill(
    transaction: &Transaction,
    vault: &Vault,
    org: i64,
    id: OrganizationId,
    secret: Option<&Secret>,
    now: Timestamp,
) -> Result<()> {
    let (sealed, fingerprint) = secret.map(|secret| vault.seal_mandrill(id, secret)).unzip();
    transaction.execute(SET_MANDRILL, bind![org, sealed, fingerprint]).await.map_err(taken)?;
    imply(transaction, org, secret.is_some(), now).await
}

/// The source that an organization's Mandrill secret stands for is there, or is not.
pub(in crate::postgres) async fn imply(
    transaction: &Transaction,
    org: i64,
    is_there: bool,
    now: Timestamp,
) -> Result<()> {
    if is_there {
        return imply_source(transaction, org, now).await;
    }
    transaction.execute(FORGET_SOURCE, bind![org, at(now)]).await?;
    Ok(())
}

/// `/in/{slug}/mandrill` works with the organization's own secret; events that come that way have a source like others.
async fn imply_source(transaction: &Transaction, org: i64, now: Timestamp) -> Result<()> {
    let id = uuid(SourceId::new(now).to_bytes());
    transaction.execute(IMPLY_SOURCE, bind![org, id, MANDRILL, at(now)]).await?;
    Ok(())
}

pub(in crate::postgres) async fn get_view(
    transaction: &Transaction,
    plans: PlanLimits,
    org: i64,
    now: Timestamp,
) -> Result<Organization> {
    let row = transaction.expect("organization", BY_NUMBER, bind![org, at(now.month().0)]).await?;
    view(&row, plans)
}

fn view(row: &Row, plans: PlanLimits) -> Result<Organization> {
    let plan = word(row, 4)?;
    let own: Option<i64> = get(row, 5)?;
    Ok(Organization {
        id: OrganizationId::from_bytes(id(row, 1)?),
        slug: get(row, 2)?,
        name: get(row, 3)?,
        plan,
        webhook_limit: plans.of(plan, own.map(i64::cast_unsigned)),
        webhook_count: get::<i64>(row, 10)?.cast_unsigned(),
        is_active: get(row, 6)?,
        has_mandrill_webhook_secret: get(row, 7)?,
        created_at: moment(row, 8)?,
        updated_at: moment(row, 9)?,
        created_by: get(row, 11)?,
    })
}
