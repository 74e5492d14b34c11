//! What people decide: how organizations, API keys, people, sources and endpoints are made and changed. Every statement names
//! the organization, so another's row is not found here.

pub(super) mod endpoints;
pub(super) mod keys;
pub(super) mod organizations;
pub(super) mod sources;
pub(super) mod users;

use postroom_domain::{OrganizationId, Secret, Timestamp};

use super::rows::SecretsOf;
use crate::engine::vault::Vault;
use crate::engine::views;
use crate::error::Unique;
use crate::sqlite::connection::Connection;
use crate::{Error, Result};

/// Refuses one more row of a kind. `sql` counts up to the bound and no further.
fn room_for_one_more(connection: &Connection, sql: &'static str, org: i64, what: &str) -> Result<()> {
    let count = connection.prepare_cached(sql)?.query_row((org, views::MOST), |row| row.get(0))?;
    views::room_for_one_more(count, what)
}

/// What a violated unique constraint means to the caller. Nothing is looked up before: the constraint decides.
fn taken(error: rusqlite::Error) -> Error {
    let rusqlite::Error::SqliteFailure(_, Some(message)) = &error else { return error.into() };
    let fields = [
        ("organization.slug", Unique::OrganizationSlug),
        ("organization.mandrill_fingerprint", Unique::MandrillWebhookSecret),
        ("source.name", Unique::SourceName),
        ("user.email_key", Unique::UserEmail),
    ];
    match fields.into_iter().find(|(column, _)| message.contains(column)) {
        Some((_, field)) => Error::Taken { field },
        None => error.into(),
    }
}

/// Appends to source_secret.
const ADD_SOURCE_SECRET: &str =
    "insert into source_secret (org, source, id, value, created_at) values (?1, ?2, ?3, ?4, ?5)";

/// Appends to endpoint_secret.
const ADD_ENDPOINT_SECRET: &str =
    "insert into endpoint_secret (org, endpoint, id, value, created_at) values (?1, ?2, ?3, ?4, ?5)";

/// Index: source_secret_by_source.
const END_SOURCE_SECRETS: &str = "update source_secret set expires_at = min(coalesce(expires_at, ?2), ?2), \
     value = iif(?2 <= ?3, null, value) where source = ?1 and value is not null";

/// Index: endpoint_secret_by_endpoint.
const END_ENDPOINT_SECRETS: &str = "update endpoint_secret set expires_at = min(coalesce(expires_at, ?2), ?2), \
     value = iif(?2 <= ?3, null, value) where endpoint = ?1 and value is not null";

/// Index: source_secret_by_source.
const TRIM_SOURCE_SECRETS: &str = "delete from source_secret where source = ?1 and secret <= \
     (select secret from source_secret where source = ?1 order by secret desc limit 1 offset 20)";

/// Index: endpoint_secret_by_endpoint.
const TRIM_ENDPOINT_SECRETS: &str = "delete from endpoint_secret where endpoint = ?1 and secret <= \
     (select secret from endpoint_secret where endpoint = ?1 order by secret desc limit 1 offset 20)";

/// Whose secrets: table, organization inside and outside, owner.
#[derive(Clone, Copy)]
struct SecretOwner {
    of: SecretsOf,
    org: i64,
    organization: OrganizationId,
    owner: i64,
}

impl SecretOwner {
    /// Ends the secrets in force at `end` (erases them when that is now) and keeps the newest 20 rows as history.
    fn end_all(&self, connection: &Connection, end: Timestamp, now: Timestamp) -> Result<()> {
        let (end_sql, trim_sql) = match self.of {
            SecretsOf::Source => (END_SOURCE_SECRETS, TRIM_SOURCE_SECRETS),
            SecretsOf::Endpoint => (END_ENDPOINT_SECRETS, TRIM_ENDPOINT_SECRETS),
        };
        connection.prepare_cached(end_sql)?.execute((self.owner, end.as_millis(), now.as_millis()))?;
        connection.prepare_cached(trim_sql)?.execute([self.owner])?;
        Ok(())
    }

    /// Adds the newest secret.
    fn add(&self, connection: &Connection, vault: &Vault, secret: &Secret, now: Timestamp) -> Result<()> {
        let sql = match self.of {
            SecretsOf::Source => ADD_SOURCE_SECRET,
            SecretsOf::Endpoint => ADD_ENDPOINT_SECRET,
        };
        let (id, sealed) = vault.seal_new(self.of, self.organization, secret, now);
        connection.prepare_cached(sql)?.execute((self.org, self.owner, id, sealed, now.as_millis()))?;
        Ok(())
    }
}
