//! Organizations.

use postroom_domain::organization::PlanLimits;
use postroom_domain::{OrganizationId, Secret, SourceId, Timestamp};
use rusqlite::params;

use super::taken;
use crate::audit::Action;
use crate::cells::registry::OrganizationCopy;
use crate::engine::audit::{self, Act};
use crate::engine::configured::MANDRILL;
use crate::engine::vault::Vault;
use crate::platform::{NewOrganization, Organization, OrganizationChange};
use crate::sqlite::audit::write;
use crate::sqlite::connection::Connection;
use crate::sqlite::convert::broken;
use crate::sqlite::grants::Part;
use crate::sqlite::rows::{self, OrganizationRow, select_organization};
use crate::sqlite::{tenants, usage};
use crate::{Result, Scope, SuperAdmin};

/// Unique indexes on id, slug and mandrill_fingerprint decide.
const INSERT: &str = "insert into organization \
     (id, slug, name, plan, webhook_limit, is_active, mandrill_secret, mandrill_fingerprint, created_at, updated_at, \
     created_by) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9, ?10)";

/// By the unique index on id.
const BY_ID: &str = select_organization!("where id = ?1");

/// By primary key.
const BY_KEY: &str = select_organization!("where org = ?1");

/// By primary key, from the place the page before ended, found by the unique index on id.
const PAGE: &str = select_organization!(
    "where ?1 is null or org < (select org from organization where id = ?1) order by org desc limit ?2"
);

/// By primary key.
const UPDATE: &str = "update organization set slug = ?2, name = ?3, plan = ?4, webhook_limit = ?5, is_active = ?6, \
     updated_at = ?7 where org = ?1";

/// By primary key.
const SET_MANDRILL: &str = "update organization set mandrill_secret = ?2, mandrill_fingerprint = ?3 where org = ?1";

/// Index: source_implied.
const IMPLY_SOURCE: &str = "insert into source \
     (org, id, name, provider, options, is_active, is_implied, created_at, updated_at) \
     values (?1, ?2, ?3, ?3, '{}', 1, 1, ?4, ?4) \
     on conflict (org) where is_implied = 1 do update set deleted_at = null, updated_at = excluded.updated_at";

/// Index: source_implied.
const FORGET_SOURCE: &str = "update source set deleted_at = ?2 where org = ?1 and is_implied = 1";

/// By primary key.
const FINGERPRINT: &str = "select mandrill_fingerprint from organization where org = ?1";

/// By primary key. What the receiver may see.
const MANDRILL_SECRET: &str = "select mandrill_secret from organization where org = ?1";

/// In a database of one organization: that one.
const ALL_THERE: &str = "select org, id from organization limit 2";

/// A copy, with the number and the id of the original.
const INSERT_COPY: &str = "insert into organization (org, slug, name, plan, webhook_limit, is_active, mandrill_secret, \
     mandrill_fingerprint, updated_at, id, created_at) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";

/// By primary key. A copy that was read before the one that is there does not replace it.
const UPDATE_COPY: &str = "update organization set slug = ?2, name = ?3, plan = ?4, webhook_limit = ?5, is_active = ?6, \
     mandrill_secret = ?7, mandrill_fingerprint = ?8, updated_at = ?9 \
     where org = ?1 and id = ?10 and created_at = ?11 and updated_at <= ?9";

/// Makes an organization; answers with the way into it, too.
pub(in crate::sqlite) fn create(
    connection: &Connection,
    vault: &Vault,
    plans: PlanLimits,
    by: &SuperAdmin,
    new: &NewOrganization,
    now: Timestamp,
) -> Result<(Scope, Organization)> {
    let id = OrganizationId::new(now);
    let sealed = new.mandrill_webhook_secret.as_ref().map(|secret| vault.seal_mandrill(id, secret));
    let (sealed, fingerprint) = sealed.unzip();
    connection
        .prepare_cached(INSERT)?
        .execute(params![
            id.to_bytes(),
            new.slug,
            new.name,
            new.plan.as_str(),
            new.webhook_limit,
            new.is_active,
            sealed,
            fingerprint,
            now.as_millis(),
            by.0.to_string(),
        ])
        .map_err(taken)?;
    // With `returning`, SQLite would look for rows of every table that points here.
    let org = connection.last_insert_rowid();
    if new.mandrill_webhook_secret.is_some() {
        imply_source(connection, org, now)?;
    }
    let organization = get(connection, plans, id, now)?;
    let act = Act::on(Action::OrganizationCreated, id).to(audit::of_organization(&organization));
    write(connection, vault, by.acting_in(org), act, now)?;
    let slug = organization.slug.as_str().into();
    let scope = Scope { organization: id, org, slug, actor: by.0, origin: by.1.clone(), is_dedicated: false };
    Ok((scope, organization))
}

/// One organization.
pub(in crate::sqlite) fn get(
    connection: &Connection,
    plans: PlanLimits,
    id: OrganizationId,
    now: Timestamp,
) -> Result<Organization> {
    let row = rows::expect("organization", connection, BY_ID, &[&id.to_bytes()], OrganizationRow::read)?;
    view(connection, plans, row, now)
}

/// The organization of a scope.
pub(in crate::sqlite) fn of_scope(
    connection: &Connection,
    plans: PlanLimits,
    scope: &Scope,
    now: Timestamp,
) -> Result<Organization> {
    let row = rows::expect("organization", connection, BY_KEY, &[&scope.org], OrganizationRow::read)?;
    view(connection, plans, row, now)
}

/// The organizations after a place, newest first.
pub(in crate::sqlite) fn list(
    connection: &Connection,
    plans: PlanLimits,
    after: Option<[u8; 16]>,
    limit: i64,
    now: Timestamp,
) -> Result<Vec<Organization>> {
    let rows = rows::all(connection, PAGE, &[&after, &limit], OrganizationRow::read)?;
    rows.into_iter().map(|row| view(connection, plans, row, now)).collect()
}

/// Changes what is `Some`; answers with its key, too.
pub(in crate::sqlite) fn update(
    connection: &Connection,
    vault: &Vault,
    plans: PlanLimits,
    by: &SuperAdmin,
    id: OrganizationId,
    change: OrganizationChange,
    now: Timestamp,
) -> Result<(i64, Organization)> {
    let row = rows::expect("organization", connection, BY_ID, &[&id.to_bytes()], OrganizationRow::read)?;
    let before = audit::of_organization(&get(connection, plans, id, now)?);
    connection
        .prepare_cached(UPDATE)?
        .execute(params![
            row.org,
            change.slug.unwrap_or(row.slug),
            change.name.unwrap_or(row.name),
            change.plan.unwrap_or(row.plan).as_str(),
            change.webhook_limit.unwrap_or(row.webhook_limit),
            change.is_active.unwrap_or(row.is_active),
            now.as_millis(),
        ])
        .map_err(taken)?;
    let is_secret_set = matches!(&change.mandrill_webhook_secret, Some(Some(_)));
    if let Some(secret) = change.mandrill_webhook_secret {
        set_mandrill(connection, vault, row.org, id, secret.as_ref(), now)?;
    }
    // If it has a database of its own, that has to know.
    tenants::changed(connection)?;
    let organization = get(connection, plans, id, now)?;
    let act = Act::on(Action::OrganizationUpdated, id)
        .from(before)
        .to(audit::of_organization(&organization))
        .with_secret("mandrill_webhook_secret", is_secret_set);
    write(connection, vault, by.acting_in(row.org), act, now)?;
    Ok((row.org, organization))
}

fn set_mandrill(
    connection: &Connection,
    vault: &Vault,
    org: i64,
    id: OrganizationId,
    secret: Option<&Secret>,
    now: Timestamp,
) -> Result<()> {
    let (sealed, fingerprint) = secret.map(|secret| vault.seal_mandrill(id, secret)).unzip();
    connection.prepare_cached(SET_MANDRILL)?.execute((org, sealed, fingerprint)).map_err(taken)?;
    if secret.is_some() {
        return imply_source(connection, org, now);
    }
    connection.prepare_cached(FORGET_SOURCE)?.execute((org, now.as_millis()))?;
    Ok(())
}

/// All of an organization, for a database of its own. Acts for two parts: what is sealed is not the platform's.
pub(in crate::sqlite) fn copy(connection: &mut Connection, org: i64) -> Result<OrganizationCopy> {
    connection.act_as(Part::Platform);
    let snapshot = &mut connection.snapshot()?;
    let row = rows::expect("organization", snapshot, BY_KEY, &[&org], OrganizationRow::read)?;
    let mandrill_fingerprint = rows::expect("organization", snapshot, FINGERPRINT, &[&org], |row| row.get(0))?;
    snapshot.act_as(Part::Receiver);
    let mandrill_secret = rows::expect("organization", snapshot, MANDRILL_SECRET, &[&org], |row| row.get(0))?;
    Ok(OrganizationCopy {
        org: row.org,
        id: row.id,
        slug: row.slug,
        name: row.name,
        plan: row.plan,
        webhook_limit: row.webhook_limit,
        is_active: row.is_active,
        mandrill_secret,
        mandrill_fingerprint,
        created_at: row.created_at,
        updated_at: row.updated_at,
    })
}

/// Makes or replaces the copy in a database of the organization's own.
pub(in crate::sqlite) fn put(connection: &Connection, copy: &OrganizationCopy) -> Result<()> {
    let there =
        rows::all(connection, ALL_THERE, &[], |row| Ok((row.get(0)?, OrganizationId::from_bytes(row.get(1)?))))?;
    if there.iter().any(|row| *row != (copy.org, copy.id)) {
        return Err(broken("it is the database of another organization: put the right file in its place"));
    }
    let sql = if there.is_empty() { INSERT_COPY } else { UPDATE_COPY };
    let put = connection.prepare_cached(sql)?.execute(params![
        copy.org,
        copy.slug,
        copy.name,
        copy.plan.as_str(),
        copy.webhook_limit,
        copy.is_active,
        copy.mandrill_secret,
        copy.mandrill_fingerprint,
        copy.updated_at.as_millis(),
        copy.id.to_bytes(),
        copy.created_at.as_millis(),
    ])?;
    match (put, &copy.mandrill_secret) {
        (0, _) => Ok(()),
        (_, Some(_)) => imply_source(connection, copy.org, copy.updated_at),
        (_, None) => {
            connection.prepare_cached(FORGET_SOURCE)?.execute((copy.org, copy.updated_at.as_millis()))?;
            Ok(())
        }
    }
}

/// `/in/{slug}/mandrill` works with the organization's own secret; events that come that way have a source like others.
fn imply_source(connection: &Connection, org: i64, now: Timestamp) -> Result<()> {
    let id = SourceId::new(now).to_bytes();
    connection.prepare_cached(IMPLY_SOURCE)?.execute((org, id, MANDRILL, now.as_millis()))?;
    Ok(())
}

fn view(connection: &Connection, plans: PlanLimits, row: OrganizationRow, now: Timestamp) -> Result<Organization> {
    let (month, _) = now.month();
    Ok(Organization {
        id: row.id,
        webhook_limit: plans.of(row.plan, row.webhook_limit),
        webhook_count: usage::stored(connection, row.org, month.as_millis())?,
        name: row.name,
        slug: row.slug,
        plan: row.plan,
        is_active: row.is_active,
        has_mandrill_webhook_secret: row.has_mandrill_secret,
        created_at: row.created_at,
        updated_at: row.updated_at,
        created_by: row.created_by,
    })
}
