//! Endpoints.

use postroom_domain::endpoint::EndpointSettings;
use postroom_domain::{EndpointId, Secret, Timestamp};
use rusqlite::{Row, params};

use super::{SecretOwner, room_for_one_more};
use crate::api::{EndpointView, NewEndpoint, Rotation};
use crate::audit::Action;
use crate::engine::audit::{self, Act, By};
use crate::engine::vault::Vault;
use crate::engine::views::grace_of_endpoint;
use crate::sqlite::audit::write;
use crate::sqlite::connection::Connection;
use crate::sqlite::convert::{broken, to_json};
use crate::sqlite::rows::{self, Disabled, EndpointRow, SecretRow, SecretsOf, select_endpoint};
use crate::worker::EndpointKey;
use crate::{Error, Origin, Result, Scope};

/// By primary key: the next number of an endpoint in its organization.
const NUMBER: &str =
    "update organization set endpoint_number = endpoint_number + 1 where org = ?1 returning endpoint_number";

/// Appends.
const INSERT: &str = "insert into endpoint (org, id, number, url, description, event_types, source_ids, filter, \
     retry_schedule, timeout_ms, rate_limit, headers, signature, created_at, updated_at, created_by) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?14, ?15) returning endpoint";

/// Index: the unique one on (org, endpoint), at most as many entries as the bound.
const COUNT: &str = "select count(*) from (select 1 from endpoint where org = ?1 and deleted_at is null limit ?2)";

/// By the unique index on id.
const BY_ID: &str = select_endpoint!("where id = ?2 and org = ?1 and deleted_at is null");

/// Index: the unique one on (org, endpoint), from the place the page before ended.
const PAGE: &str = select_endpoint!(
    "where org = ?1 and deleted_at is null \
     and (?2 is null or endpoint < (select endpoint from endpoint where id = ?2 and org = ?1)) \
     order by endpoint desc limit ?3"
);

/// By primary key.
const UPDATE: &str = "update endpoint set url = ?2, description = ?3, event_types = ?4, source_ids = ?5, filter = ?6, \
     retry_schedule = ?7, timeout_ms = ?8, rate_limit = ?9, headers = ?10, signature = ?11, updated_at = ?12, \
     version = version + 1 \
     where endpoint = ?1";

/// By primary key.
const DELETE: &str = "update endpoint set deleted_at = ?2, updated_at = ?2, headers = null where endpoint = ?1";

/// By primary key.
const DISABLE: &str = "update endpoint set disabled_reason = ?2, disabled_at = ?3, updated_at = ?3, version = version + 1 \
     where endpoint = ?1 and disabled_reason is null and deleted_at is null";

/// By primary key.
const ENABLE: &str = "update endpoint set disabled_reason = null, disabled_at = null, updated_at = ?2, version = version + 1 \
     where endpoint = ?1";

/// By primary key.
const TOUCH: &str = "update endpoint set updated_at = ?2, version = version + 1 where endpoint = ?1";

/// By primary key.
const OWNER: &str = "select org, id from endpoint where endpoint = ?1";

/// Makes an endpoint.
pub(in crate::sqlite) fn create(
    connection: &Connection,
    vault: &Vault,
    scope: &Scope,
    new: &NewEndpoint,
    now: Timestamp,
) -> Result<EndpointView> {
    room_for_one_more(connection, COUNT, scope.org, "endpoints")?;
    let id = EndpointId::new(now);
    let number: u32 = connection.prepare_cached(NUMBER)?.query_row([scope.org], |row| row.get(0))?;
    let settings = &new.settings;
    let endpoint: i64 = connection.prepare_cached(INSERT)?.query_row(
        params![
            scope.org,
            id.to_bytes(),
            number,
            settings.url.as_str(),
            settings.description,
            to_json(&settings.event_types),
            to_json(&settings.source_ids),
            settings.filter.as_ref().map(to_json),
            settings.retry_schedule.as_ref().map(to_json),
            settings.timeout_ms,
            settings.rate_limit,
            vault.seal_headers(scope.organization, id, &settings.headers)?,
            settings.signature.as_str(),
            now.as_millis(),
            scope.actor.to_string(),
        ],
        |row| row.get(0),
    )?;
    secrets(scope, endpoint).add(connection, vault, &new.secret, now)?;
    let act = Act::on(Action::EndpointCreated, id).to(audit::of_endpoint(settings));
    write(connection, vault, scope.into(), act, now)?;
    get(connection, vault, scope, id)
}

pub(in crate::sqlite) fn get(
    connection: &Connection,
    vault: &Vault,
    scope: &Scope,
    id: EndpointId,
) -> Result<EndpointView> {
    view(connection, vault, scope, find(connection, scope, id)?)
}

pub(in crate::sqlite) fn list(
    connection: &Connection,
    vault: &Vault,
    scope: &Scope,
    after: Option<[u8; 16]>,
    limit: i64,
) -> Result<Vec<EndpointView>> {
    let rows = rows::all(connection, PAGE, &[&scope.org, &after, &limit], EndpointRow::read)?;
    rows.into_iter().map(|row| view(connection, vault, scope, row)).collect()
}

/// Only if the endpoint still has the version that was read.
pub(in crate::sqlite) fn update(
    connection: &Connection,
    vault: &Vault,
    scope: &Scope,
    (id, version): (EndpointId, i64),
    settings: &EndpointSettings,
    now: Timestamp,
) -> Result<(EndpointKey, EndpointView)> {
    let row = find(connection, scope, id)?.at_version(version)?;
    // Headers that cannot be read are no reason not to replace them.
    let (before, _) = row.settings(scope.organization, vault);
    connection.prepare_cached(UPDATE)?.execute(params![
        row.endpoint,
        settings.url.as_str(),
        settings.description,
        to_json(&settings.event_types),
        to_json(&settings.source_ids),
        settings.filter.as_ref().map(to_json),
        settings.retry_schedule.as_ref().map(to_json),
        settings.timeout_ms,
        settings.rate_limit,
        vault.seal_headers(scope.organization, id, &settings.headers)?,
        settings.signature.as_str(),
        now.as_millis(),
    ])?;
    write(connection, vault, scope.into(), audit::endpoint_updated(id, &before, settings), now)?;
    Ok((EndpointKey(row.endpoint), get(connection, vault, scope, id)?))
}

/// The row stays, because deliveries point to it; its secrets and headers go.
pub(in crate::sqlite) fn delete(
    connection: &Connection,
    vault: &Vault,
    scope: &Scope,
    id: EndpointId,
    now: Timestamp,
) -> Result<EndpointKey> {
    let row = find(connection, scope, id)?;
    secrets(scope, row.endpoint).end_all(connection, now, now)?;
    connection.prepare_cached(DELETE)?.execute((row.endpoint, now.as_millis()))?;
    let (before, _) = row.settings(scope.organization, vault);
    let act = Act::on(Action::EndpointDeleted, id).from(audit::of_endpoint(&before));
    write(connection, vault, scope.into(), act, now)?;
    Ok(EndpointKey(row.endpoint))
}

pub(in crate::sqlite) fn set_enabled(
    connection: &Connection,
    vault: &Vault,
    scope: &Scope,
    id: EndpointId,
    enabled: bool,
    now: Timestamp,
) -> Result<(EndpointKey, EndpointView)> {
    let row = find(connection, scope, id)?;
    if enabled && row.disabled.is_some() {
        connection.prepare_cached(ENABLE)?.execute((row.endpoint, now.as_millis()))?;
    } else if !enabled {
        connection.prepare_cached(DISABLE)?.execute((row.endpoint, Disabled::ByPerson.as_str(), now.as_millis()))?;
    }
    let action = if enabled { Action::EndpointEnabled } else { Action::EndpointDisabled };
    write(connection, vault, scope.into(), Act::on(action, id), now)?;
    Ok((EndpointKey(row.endpoint), get(connection, vault, scope, id)?))
}

/// Disables an endpoint that answered 410; answers with its organization.
pub(in crate::sqlite) fn disable_gone(
    connection: &Connection,
    vault: &Vault,
    endpoint: EndpointKey,
    now: Timestamp,
) -> Result<i64> {
    let read = |row: &Row<'_>| Ok((row.get(0)?, EndpointId::from_bytes(row.get(1)?)));
    let (org, id) = rows::expect("endpoint", connection, OWNER, &[&endpoint.0], read)?;
    let values = (endpoint.0, Disabled::Gone.as_str(), now.as_millis());
    if connection.prepare_cached(DISABLE)?.execute(values)? > 0 {
        let act = Act::on(Action::EndpointDisabled, id).with("disabled_reason", Disabled::Gone.as_str());
        write(connection, vault, By::system(org, &Origin::default()), act, now)?;
    }
    Ok(org)
}

pub(in crate::sqlite) fn rotate(
    connection: &Connection,
    vault: &Vault,
    scope: &Scope,
    id: EndpointId,
    rotation: &Rotation,
    now: Timestamp,
) -> Result<(EndpointKey, EndpointView)> {
    let row = find(connection, scope, id)?;
    let secrets = secrets(scope, row.endpoint);
    secrets.end_all(connection, grace_of_endpoint(rotation, now), now)?;
    secrets.add(connection, vault, &rotation.secret, now)?;
    connection.prepare_cached(TOUCH)?.execute((row.endpoint, now.as_millis()))?;
    write(connection, vault, scope.into(), Act::on(Action::EndpointSecretRotated, id).rotated(rotation), now)?;
    Ok((EndpointKey(row.endpoint), get(connection, vault, scope, id)?))
}

/// The newest secret, and the entry in the audit log that says who saw it.
pub(in crate::sqlite) fn reveal(
    connection: &Connection,
    vault: &Vault,
    scope: &Scope,
    id: EndpointId,
    now: Timestamp,
) -> Result<Secret> {
    let row = find(connection, scope, id)?;
    let stored = SecretRow::all(connection, SecretsOf::Endpoint, row.endpoint)?;
    let newest = stored.first().ok_or(Error::NotFound { kind: "endpoint secret" })?;
    let secret = newest.open(SecretsOf::Endpoint, scope.organization, vault).map_err(broken)?;
    write(connection, vault, scope.into(), Act::on(Action::EndpointSecretViewed, id), now)?;
    Ok(secret)
}

fn find(connection: &Connection, scope: &Scope, id: EndpointId) -> Result<EndpointRow> {
    rows::expect("endpoint", connection, BY_ID, &[&scope.org, &id.to_bytes()], EndpointRow::read)
}

fn view(connection: &Connection, vault: &Vault, scope: &Scope, row: EndpointRow) -> Result<EndpointView> {
    let stored = SecretRow::all(connection, SecretsOf::Endpoint, row.endpoint)?;
    row.view(scope.organization, vault, stored)
}

fn secrets(scope: &Scope, endpoint: i64) -> SecretOwner {
    SecretOwner { of: SecretsOf::Endpoint, org: scope.org, organization: scope.organization, owner: endpoint }
}
