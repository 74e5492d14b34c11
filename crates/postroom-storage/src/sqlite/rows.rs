//! Rows of configuration: what each table's columns mean. Shared by the directory and by what people read.

use postroom_domain::api_key::{KeyHash, KeyScope};
use postroom_domain::delivery::DeadReason;
use postroom_domain::endpoint::{CustomHeader, EndpointSettings, EndpointUrl};
use postroom_domain::organization::Plan;
use postroom_domain::source::SourceSettings;
use postroom_domain::{ApiKeyId, EndpointId, OrganizationId, Secret, SourceId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, ToSql};

use super::convert::{json, json_or_none, moment, moment_or_none, word};
use super::vault::{self, Vault};
use crate::api::SecretPeriod;
use crate::{Error, Result};

/// The columns of [`OrganizationRow`].
macro_rules! select_organization {
    ($where:literal) => {
        concat!(
            "select org, id, slug, name, plan, webhook_limit, is_active, mandrill_secret, created_at, \
             updated_at from organization ",
            $where
        )
    };
}
pub(super) use select_organization;

/// An organization as it is stored.
pub(super) struct OrganizationRow {
    pub(super) org: i64,
    pub(super) id: OrganizationId,
    pub(super) slug: String,
    pub(super) name: String,
    pub(super) plan: Plan,
    pub(super) webhook_limit: Option<u64>,
    pub(super) is_active: bool,
    pub(super) mandrill_secret: Option<Vec<u8>>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

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
            mandrill_secret: row.get(7)?,
            created_at: moment(row, 8)?,
            updated_at: moment(row, 9)?,
        })
    }

    /// Events a calendar month: its own limit or its plan's.
    pub(super) fn limit(&self) -> Option<u64> {
        self.webhook_limit.or_else(|| self.plan.webhook_limit())
    }

    /// Its Mandrill secret, opened.
    pub(super) fn open_mandrill_secret(&self, vault: &Vault) -> Option<Result<Secret, String>> {
        let sealed = self.mandrill_secret.as_ref()?;
        let place = self.id.to_bytes();
        Some(vault.open_secret(vault::mandrill_secret(&place), sealed).map_err(|error| error.to_string()))
    }
}

/// The columns of [`KeyRow`].
macro_rules! select_key {
    ($where:literal) => {
        concat!(
            "select key, id, name, scopes, hash, last_four, expires_at, revoked_at, last_used_at, created_at from api_key ",
            $where
        )
    };
}
pub(super) use select_key;

/// An API key as it is stored.
pub(super) struct KeyRow {
    pub(super) key: i64,
    pub(super) id: ApiKeyId,
    pub(super) name: String,
    pub(super) scopes: Vec<KeyScope>,
    pub(super) hash: KeyHash,
    pub(super) last_four: String,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) revoked_at: Option<Timestamp>,
    pub(super) last_used_at: Option<Timestamp>,
    pub(super) created_at: Timestamp,
}

impl KeyRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            key: row.get(0)?,
            id: ApiKeyId::from_bytes(row.get(1)?),
            name: row.get(2)?,
            scopes: json(row, 3)?,
            hash: KeyHash::from_bytes(row.get(4)?),
            last_four: row.get(5)?,
            expires_at: moment_or_none(row, 6)?,
            revoked_at: moment_or_none(row, 7)?,
            last_used_at: moment_or_none(row, 8)?,
            created_at: moment(row, 9)?,
        })
    }
}

/// The columns of [`SourceRow`].
macro_rules! select_source {
    ($where:literal) => {
        concat!(
            "select source, id, name, provider, options, is_active, is_implied, created_at, updated_at from source ",
            $where
        )
    };
}
pub(super) use select_source;

/// A source as it is stored.
pub(super) struct SourceRow {
    pub(super) source: i64,
    pub(super) id: SourceId,
    pub(super) settings: SourceSettings,
    pub(super) is_active: bool,
    pub(super) is_implied: bool,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

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
        })
    }
}

/// The columns of [`EndpointRow`].
macro_rules! select_endpoint {
    ($where:literal) => {
        concat!(
            "select endpoint, id, number, url, description, event_types, source_ids, filter, retry_schedule, timeout_ms, \
             rate_limit, headers, signature, disabled_reason, disabled_at, created_at, updated_at, deleted_at from \
             endpoint ",
            $where
        )
    };
}
pub(super) use select_endpoint;

/// An endpoint as it is stored. Its custom headers are still sealed.
pub(super) struct EndpointRow {
    pub(super) endpoint: i64,
    pub(super) id: EndpointId,
    pub(super) number: u32,
    settings: EndpointSettings,
    sealed_headers: Option<Vec<u8>>,
    pub(super) disabled: Option<Disabled>,
    pub(super) disabled_at: Option<Timestamp>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) is_deleted: bool,
}

/// Why no events go to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disabled {
    /// It answered 410.
    Gone,
    /// A person said so.
    ByPerson,
}

impl Disabled {
    /// As it is stored and shown.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::ByPerson => "disabled",
        }
    }

    fn parse(text: &str) -> Self {
        if text == Self::Gone.as_str() { Self::Gone } else { Self::ByPerson }
    }

    /// What becomes of deliveries that wait for the endpoint.
    pub(super) fn dead_reason(self) -> DeadReason {
        match self {
            Self::Gone => DeadReason::EndpointGone,
            Self::ByPerson => DeadReason::EndpointDisabled,
        }
    }
}

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
            disabled: row.get_ref(13)?.as_str_or_null()?.map(Disabled::parse),
            disabled_at: moment_or_none(row, 14)?,
            created_at: moment(row, 15)?,
            updated_at: moment(row, 16)?,
            is_deleted: row.get::<_, Option<i64>>(17)?.is_some(),
        })
    }

    /// The settings with their headers, or why the headers cannot be read; without them then.
    pub(super) fn settings(
        &self,
        organization: OrganizationId,
        vault: &Vault,
    ) -> (EndpointSettings, Result<(), String>) {
        let mut settings = self.settings.clone();
        let Some(sealed) = &self.sealed_headers else { return (settings, Ok(())) };
        match open_headers(organization, self.id, vault, sealed) {
            Ok(headers) => {
                settings.headers = headers;
                (settings, Ok(()))
            }
            Err(error) => (settings, Err(format!("its custom headers cannot be read: {error}"))),
        }
    }
}

fn open_headers(
    organization: OrganizationId,
    endpoint: EndpointId,
    vault: &Vault,
    sealed: &[u8],
) -> Result<Vec<CustomHeader>, String> {
    let (owner, row) = (organization.to_bytes(), endpoint.to_bytes());
    let plain = vault.open_secret(vault::endpoint_headers(&owner, &row), sealed).map_err(|error| error.to_string())?;
    let pairs: Vec<(String, Secret)> = serde_json::from_slice(plain.expose()).map_err(|_| "not a list".to_owned())?;
    pairs.into_iter().map(|(name, value)| CustomHeader::new(&name, value).map_err(|invalid| invalid.detail)).collect()
}

/// Which table keeps the secrets of what.
#[derive(Debug, Clone, Copy)]
pub(super) enum SecretsOf {
    /// `source_secret`.
    Source,
    /// `endpoint_secret`.
    Endpoint,
}

impl SecretsOf {
    /// The table, part of what a ciphertext is bound to.
    pub(super) fn table(self) -> &'static str {
        match self {
            Self::Source => "source_secret",
            Self::Endpoint => "endpoint_secret",
        }
    }

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

/// A secret as it is stored.
pub(super) struct SecretRow {
    id: [u8; 16],
    value: Option<Vec<u8>>,
    pub(super) period: SecretPeriod,
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

    /// Whether it is valid at a moment.
    pub(super) fn is_active(&self, now: Timestamp) -> bool {
        self.value.is_some() && self.period.expires_at.is_none_or(|end| end > now)
    }

    /// The secret itself.
    pub(super) fn open(&self, of: SecretsOf, organization: OrganizationId, vault: &Vault) -> Result<Secret, String> {
        let sealed = self.value.as_deref().ok_or("it was erased")?;
        let owner = organization.to_bytes();
        vault
            .open_secret(vault::secret_row(of.table(), &owner, &self.id), sealed)
            .map_err(|error| format!("its secret cannot be read: {error}"))
    }

    /// When the set of active secrets will next be a smaller one.
    pub(super) fn next_change(rows: &[Self], now: Timestamp) -> Option<Timestamp> {
        rows.iter().filter(|row| row.is_active(now)).filter_map(|row| row.period.expires_at).min()
    }
}

/// One row by a unique value.
pub(super) fn one<T>(
    connection: &Connection,
    sql: &str,
    values: &[&dyn ToSql],
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    connection.prepare_cached(sql)?.query_row(values, read).optional()
}

/// One row by a unique value, or [`Error::NotFound`].
pub(super) fn expect<T>(
    kind: &'static str,
    connection: &Connection,
    sql: &str,
    values: &[&dyn ToSql],
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<T> {
    one(connection, sql, values, read)?.ok_or(Error::NotFound { kind })
}

/// Rows of a query.
pub(super) fn all<T>(
    connection: &Connection,
    sql: &str,
    values: &[&dyn ToSql],
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    connection.prepare_cached(sql)?.query_map(values, read)?.collect()
}
