//! Sources.

use std::time::Duration;

use postroom_domain::source::SourceSettings;
use postroom_domain::{Secret, SourceId, Timestamp};
use rusqlite::params;

use super::{SecretOwner, room_for_one_more, taken};
use crate::api::{NewSource, Rotation, SourceChange, SourceView};
use crate::audit::Action;
use crate::engine::audit::{self, Act};
use crate::engine::vault::Vault;
use crate::engine::views;
use crate::sqlite::audit::write;
use crate::sqlite::connection::Connection;
use crate::sqlite::convert::to_json;
use crate::sqlite::rows::{self, SecretRow, SecretsOf, SourceRow, select_source};
use crate::{Result, Scope};

/// Index source_name decides.
const INSERT: &str = "insert into source (org, id, name, provider, options, is_active, created_at, updated_at, created_by) \
     values (?1, ?2, ?3, ?4, ?5, 1, ?6, ?6, ?7) returning source";

/// Index: the unique one on (org, source), at most as many entries as the bound.
const COUNT: &str = "select count(*) from (select 1 from source where org = ?1 and deleted_at is null limit ?2)";

/// By the unique index on id.
const BY_ID: &str = select_source!("where id = ?2 and org = ?1 and deleted_at is null");

/// Index: the unique one on (org, source), from the place the page before ended.
const PAGE: &str = select_source!(
    "where org = ?1 and deleted_at is null \
     and (?2 is null or source < (select source from source where id = ?2 and org = ?1)) \
     order by source desc limit ?3"
);

/// By primary key; index source_name decides.
const UPDATE: &str = "update source set name = ?2, options = ?3, is_active = ?4, updated_at = ?5 where source = ?1";

/// By primary key.
const DELETE: &str = "update source set deleted_at = ?2, updated_at = ?2 where source = ?1";

/// By primary key.
const TOUCH: &str = "update source set updated_at = ?2 where source = ?1";

pub(in crate::sqlite) fn create(
    connection: &Connection,
    vault: &Vault,
    scope: &Scope,
    new: &NewSource,
    now: Timestamp,
) -> Result<SourceView> {
    room_for_one_more(connection, COUNT, scope.org, "sources")?;
    let id = SourceId::new(now);
    let NewSource { settings, secret } = new;
    let options = to_json(&settings.options);
    let source = connection
        .prepare_cached(INSERT)?
        .query_row(
            params![
                scope.org,
                id.to_bytes(),
                settings.name,
                settings.provider,
                options,
                now.as_millis(),
                scope.actor.to_string()
            ],
            |row| row.get(0),
        )
        .map_err(taken)?;
    if let Some(secret) = secret {
        secrets(scope, source).add(connection, vault, secret, now)?;
    }
    let act =
        Act::on(Action::SourceCreated, id).to(audit::of_source(settings, true)).with_secret("secret", secret.is_some());
    write(connection, vault, scope.into(), act, now)?;
    get(connection, scope, id, now)
}

pub(in crate::sqlite) fn get(
    connection: &Connection,
    scope: &Scope,
    id: SourceId,
    now: Timestamp,
) -> Result<SourceView> {
    view(connection, find(connection, scope, id)?, now)
}

pub(in crate::sqlite) fn list(
    connection: &Connection,
    scope: &Scope,
    after: Option<[u8; 16]>,
    limit: i64,
    now: Timestamp,
) -> Result<Vec<SourceView>> {
    let rows = rows::all(connection, PAGE, &[&scope.org, &after, &limit], SourceRow::read)?;
    rows.into_iter().map(|row| view(connection, row, now)).collect()
}

pub(in crate::sqlite) fn update(
    connection: &Connection,
    vault: &Vault,
    scope: &Scope,
    id: SourceId,
    change: SourceChange,
    now: Timestamp,
) -> Result<SourceView> {
    let row = changeable(connection, scope, id)?;
    let before = audit::of_source(&row.settings, row.is_active);
    let settings = SourceSettings {
        name: change.name.unwrap_or(row.settings.name),
        provider: row.settings.provider,
        options: change.options.unwrap_or(row.settings.options),
    };
    let is_active = change.is_active.unwrap_or(row.is_active);
    connection
        .prepare_cached(UPDATE)?
        .execute((row.source, &settings.name, to_json(&settings.options), is_active, now.as_millis()))
        .map_err(taken)?;
    if let Some(secret) = &change.secret {
        let owner = secrets(scope, row.source);
        owner.end_all(connection, now, now)?;
        owner.add(connection, vault, secret, now)?;
    }
    let act = Act::on(Action::SourceUpdated, id)
        .from(before)
        .to(audit::of_source(&settings, is_active))
        .with_secret("secret", change.secret.is_some());
    write(connection, vault, scope.into(), act, now)?;
    get(connection, scope, id, now)
}

/// The row stays, because its events point to it; its secrets and its name go.
pub(in crate::sqlite) fn delete(
    connection: &Connection,
    vault: &Vault,
    scope: &Scope,
    id: SourceId,
    now: Timestamp,
) -> Result<()> {
    let row = changeable(connection, scope, id)?;
    secrets(scope, row.source).end_all(connection, now, now)?;
    connection.prepare_cached(DELETE)?.execute((row.source, now.as_millis()))?;
    let act = Act::on(Action::SourceDeleted, id).from(audit::of_source(&row.settings, row.is_active));
    write(connection, vault, scope.into(), act, now)
}

pub(in crate::sqlite) fn rotate(
    connection: &Connection,
    vault: &Vault,
    scope: &Scope,
    id: SourceId,
    rotation: &Rotation,
    now: Timestamp,
) -> Result<SourceView> {
    let row = changeable(connection, scope, id)?;
    let owner = secrets(scope, row.source);
    owner.end_all(connection, now + Duration::from_secs(rotation.grace_seconds), now)?;
    owner.add(connection, vault, &rotation.secret, now)?;
    connection.prepare_cached(TOUCH)?.execute((row.source, now.as_millis()))?;
    write(connection, vault, scope.into(), Act::on(Action::SourceSecretRotated, id).rotated(rotation), now)?;
    get(connection, scope, id, now)
}

/// The first secret of a source that has none; false if it has one.
pub(in crate::sqlite) fn learn(
    connection: &Connection,
    vault: &Vault,
    scope: &Scope,
    id: SourceId,
    secret: &Secret,
    now: Timestamp,
) -> Result<bool> {
    let row = changeable(connection, scope, id)?;
    let known = SecretRow::all(connection, SecretsOf::Source, row.source)?;
    if known.iter().any(|secret| secret.is_active(now)) {
        return Ok(false);
    }
    secrets(scope, row.source).add(connection, vault, secret, now)?;
    connection.prepare_cached(TOUCH)?.execute((row.source, now.as_millis()))?;
    let act = Act::on(Action::SourceSecretLearned, id).with_secret("secret", true);
    write(connection, vault, scope.into(), act, now)?;
    Ok(true)
}

fn find(connection: &Connection, scope: &Scope, id: SourceId) -> Result<SourceRow> {
    rows::expect("source", connection, BY_ID, &[&scope.org, &id.to_bytes()], SourceRow::read)
}

fn changeable(connection: &Connection, scope: &Scope, id: SourceId) -> Result<SourceRow> {
    views::changeable(find(connection, scope, id)?)
}

fn secrets(scope: &Scope, source: i64) -> SecretOwner {
    SecretOwner { of: SecretsOf::Source, org: scope.org, organization: scope.organization, owner: source }
}

fn view(connection: &Connection, row: SourceRow, now: Timestamp) -> Result<SourceView> {
    let stored = SecretRow::all(connection, SecretsOf::Source, row.source)?;
    Ok(row.view(&stored, now))
}
