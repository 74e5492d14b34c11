//! Rows of configuration as this engine's tables keep them. Shared by the directory and by what people read.

use postroom_domain::endpoint::{EndpointSettings, EndpointUrl};
use postroom_domain::source::SourceSettings;
use postroom_domain::{ApiKeyId, EndpointId, OrganizationId, SourceId, UserId};
use rusqlite::{OptionalExtension, Row, ToSql};

use super::connection::Connection;
use super::convert::{email, json, json_or_none, moment, moment_or_none, word};
use crate::api::SecretPeriod;
use crate::engine::people::UserRow;
pub(super) use crate::engine::rows::{Disabled, EndpointRow, KeyRow, OrganizationRow, SecretRow, SecretsOf, SourceRow};
use crate::{Error, Result};

/// The columns of [`OrganizationRow`].
macro_rules! select_organization {
    ($where:literal) => {
        concat!(
            "select org, id, slug, name, plan, webhook_limit, is_active, mandrill_fingerprint is not null, created_at, \
             updated_at, created_by from organization ",
            $where
        )
    };
}
pub(super) use select_organization;

impl OrganizationRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            org: row.get(0)?,
            id: OrganizationId::from_bytes(row.get(1)?),
            slug: row.get(2)?,
            name: row.get(3)?,
            plan: word(row, 4)?,
            webhook_limit: row.get(5)?,
            is_active: row.get(6)?,
            has_mandrill_secret: row.get(7)?,
            created_at: moment(row, 8)?,
            updated_at: moment(row, 9)?,
            created_by: row.get(10)?,
        })
    }
}

/// The columns of [`KeyRow`].
macro_rules! select_key {
    ($where:literal) => {
        concat!(
            "select id, name, scopes, last_four, expires_at, revoked_at, last_used_at, created_at, created_by \
             from api_key ",
            $where
        )
    };
}
pub(super) use select_key;

impl KeyRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: ApiKeyId::from_bytes(row.get(0)?),
            name: row.get(1)?,
            scopes: json(row, 2)?,
            last_four: row.get(3)?,
            expires_at: moment_or_none(row, 4)?,
            revoked_at: moment_or_none(row, 5)?,
            last_used_at: moment_or_none(row, 6)?,
            created_at: moment(row, 7)?,
            created_by: row.get(8)?,
        })
    }
}

/// The columns of [`UserRow`].
macro_rules! select_user {
    ($where:literal) => {
        concat!(
            "select usr, id, email, role, is_active, invited_until, last_login_at, created_at, updated_at, created_by \
             from user ",
            $where
        )
    };
}
pub(super) use select_user;

impl UserRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            usr: row.get(0)?,
            id: UserId::from_bytes(row.get(1)?),
            email: email(row, 2)?,
            role: word(row, 3)?,
            is_active: row.get(4)?,
            invited_until: moment_or_none(row, 5)?,
            last_login_at: moment_or_none(row, 6)?,
            created_at: moment(row, 7)?,
            updated_at: moment(row, 8)?,
            created_by: row.get(9)?,
        })
    }
}

/// The columns of [`SourceRow`].
macro_rules! select_source {
    ($where:literal) => {
        concat!(
            "select source, id, name, provider, options, is_active, is_implied, created_at, updated_at, created_by \
             from source ",
            $where
        )
    };
}
pub(super) use select_source;

impl SourceRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            source: row.get(0)?,
            id: SourceId::from_bytes(row.get(1)?),
            settings: SourceSettings { name: row.get(2)?, provider: row.get(3)?, options: json(row, 4)? },
            is_active: row.get(5)?,
            is_implied: row.get(6)?,
            created_at: moment(row, 7)?,
            updated_at: moment(row, 8)?,
            created_by: row.get(9)?,
        })
    }
}

/// The columns of [`EndpointRow`].
macro_rules! select_endpoint {
    ($where:literal) => {
        concat!(
            "select endpoint, id, number, url, description, event_types, source_ids, filter, retry_schedule, timeout_ms, \
             rate_limit, headers, signature, disabled_reason, disabled_at, created_at, updated_at, deleted_at, \
             version, created_by from endpoint ",
            $where
        )
    };
}
pub(super) use select_endpoint;

impl EndpointRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let url: String = row.get(3)?;
        let url = EndpointUrl::parse(&url).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, Box::new(error))
        })?;
        Ok(Self {
            endpoint: row.get(0)?,
            id: EndpointId::from_bytes(row.get(1)?),
            number: row.get(2)?,
            settings: EndpointSettings {
                url,
                description: row.get(4)?,
                event_types: json(row, 5)?,
                source_ids: json(row, 6)?,
                filter: json_or_none(row, 7)?,
                retry_schedule: json_or_none(row, 8)?,
                timeout_ms: row.get(9)?,
                rate_limit: row.get(10)?,
                headers: Vec::new(),
                signature: word(row, 12)?,
            },
            sealed_headers: row.get(11)?,
            version: row.get(18)?,
            disabled: row.get_ref(13)?.as_str_or_null()?.map(Disabled::parse),
            disabled_at: moment_or_none(row, 14)?,
            created_at: moment(row, 15)?,
            updated_at: moment(row, 16)?,
            is_deleted: row.get::<_, Option<i64>>(17)?.is_some(),
            created_by: row.get(19)?,
        })
    }
}

impl SecretsOf {
    /// Newest first. Indexes: source_secret_by_source, endpoint_secret_by_endpoint.
    fn select(self) -> &'static str {
        match self {
            Self::Source => {
                "select id, value, created_at, expires_at from source_secret where source = ?1 order by secret desc \
                 limit 20"
            }
            Self::Endpoint => {
                "select id, value, created_at, expires_at from endpoint_secret where endpoint = ?1 order by secret \
                 desc limit 20"
            }
        }
    }
}

impl SecretRow {
    /// The newest 20 secrets of a source or an endpoint, newest first, erased ones too.
    pub(super) fn all(connection: &Connection, of: SecretsOf, owner: i64) -> rusqlite::Result<Vec<Self>> {
        let mut statement = connection.prepare_cached(of.select())?;
        let rows = statement.query_map([owner], |row| {
            Ok(Self {
                id: row.get(0)?,
                value: row.get(1)?,
                period: SecretPeriod { created_at: moment(row, 2)?, expires_at: moment_or_none(row, 3)? },
            })
        })?;
        rows.collect()
    }
}

/// One row by a unique value.
pub(super) fn one<T>(
    connection: &Connection,
    sql: &'static str,
    values: &[&dyn ToSql],
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    connection.prepare_cached(sql)?.query_row(values, read).optional()
}

/// One row by a unique value, or [`Error::NotFound`].
pub(super) fn expect<T>(
    kind: &'static str,
    connection: &Connection,
    sql: &'static str,
    values: &[&dyn ToSql],
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<T> {
    one(connection, sql, values, read)?.ok_or(Error::NotFound { kind })
}

/// Rows of a query.
pub(super) fn all<T>(
    connection: &Connection,
    sql: &'static str,
    values: &[&dyn ToSql],
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare_cached(sql)?.query_map(values, read)?.collect()
}
