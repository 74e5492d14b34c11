//! Rows of configuration as this engine's tables keep them. Every list of columns begins with the organization, so that
//! one statement can read those of many.

use postroom_domain::api_key::KeyHash;
use postroom_domain::endpoint::{EndpointSettings, EndpointUrl};
use postroom_domain::source::SourceSettings;
use postroom_domain::{ApiKeyId, EndpointId, SourceId, UserId};
use tokio_postgres::Row;

use super::convert::{email, get, id, json, json_or_none, moment, moment_or_none, word};
use crate::api::SecretPeriod;
use crate::engine::packed::broken;
use crate::engine::people::UserRow;
use crate::engine::rows::{Disabled, EndpointRow, KeyRow, SecretRow, SourceRow};
use crate::{Error, Result};

/// The columns of [`KeyRow`].
macro_rules! select_key {
    ($rest:literal) => {
        concat!(
            "select org, id, name, scopes, last_four, expires_at, revoked_at, last_used_at, created_at, created_by \
             from api_keys ",
            $rest
        )
    };
}
pub(super) use select_key;

/// The columns of [`UserRow`].
macro_rules! select_user {
    ($rest:literal) => {
        concat!(
            "select org, usr, id, email, role, is_active, invited_until, last_login_at, created_at, updated_at, \
             created_by from users ",
            $rest
        )
    };
}
pub(super) use select_user;

/// The columns of [`SourceRow`].
macro_rules! select_source {
    ($rest:literal) => {
        concat!(
            "select org, source, id, name, provider, options, is_active, is_implied, created_at, updated_at, \
             created_by from sources ",
            $rest
        )
    };
}
pub(super) use select_source;

/// The columns of [`EndpointRow`].
macro_rules! select_endpoint {
    ($rest:literal) => {
        concat!(
            "select org, endpoint, id, number, url, description, event_types, source_ids, filter, retry_schedule, \
             timeout_ms, rate_limit, headers, signature, disabled_reason, disabled_at, created_at, updated_at, \
             deleted_at, version, created_by from endpoints ",
            $rest
        )
    };
}
pub(super) use select_endpoint;

/// Reads a row that begins with its organization.
pub(super) trait Read: Sized {
    /// From all of its columns.
    fn read(row: &Row) -> Result<Self>;

    /// From all rows of an answer.
    fn all(rows: &[Row]) -> Result<Vec<Self>> {
        rows.iter().map(Self::read).collect()
    }
}

impl Read for KeyRow {
    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            id: ApiKeyId::from_bytes(id(row, 1)?),
            name: get(row, 2)?,
            scopes: json(row, 3)?,
            last_four: get(row, 4)?,
            expires_at: moment_or_none(row, 5)?,
            revoked_at: moment_or_none(row, 6)?,
            last_used_at: moment_or_none(row, 7)?,
            created_at: moment(row, 8)?,
            created_by: get(row, 9)?,
        })
    }
}

impl Read for UserRow {
    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            usr: get(row, 1)?,
            id: UserId::from_bytes(id(row, 2)?),
            email: email(row, 3)?,
            role: word(row, 4)?,
            is_active: get(row, 5)?,
            invited_until: moment_or_none(row, 6)?,
            last_login_at: moment_or_none(row, 7)?,
            created_at: moment(row, 8)?,
            updated_at: moment(row, 9)?,
            created_by: get(row, 10)?,
        })
    }
}

impl Read for SourceRow {
    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            source: get(row, 1)?,
            id: SourceId::from_bytes(id(row, 2)?),
            settings: SourceSettings { name: get(row, 3)?, provider: get(row, 4)?, options: json(row, 5)? },
            is_active: get(row, 6)?,
            is_implied: get(row, 7)?,
            created_at: moment(row, 8)?,
            updated_at: moment(row, 9)?,
            created_by: get(row, 10)?,
        })
    }
}

impl Read for EndpointRow {
    fn read(row: &Row) -> Result<Self> {
        let url = EndpointUrl::parse(get(row, 4)?).map_err(|error| Error::Internal(error.into()))?;
        Ok(Self {
            endpoint: get(row, 1)?,
            id: EndpointId::from_bytes(id(row, 2)?),
            number: small(row, 3)?.unwrap_or(0),
            settings: EndpointSettings {
                url,
                description: get(row, 5)?,
                event_types: json(row, 6)?,
                source_ids: json(row, 7)?,
                filter: json_or_none(row, 8)?,
                retry_schedule: json_or_none(row, 9)?,
                timeout_ms: small(row, 10)?,
                rate_limit: small(row, 11)?,
                headers: Vec::new(),
                signature: word(row, 13)?,
            },
            sealed_headers: get(row, 12)?,
            version: get(row, 19)?,
            disabled: get::<Option<&str>>(row, 14)?.map(Disabled::parse),
            disabled_at: moment_or_none(row, 15)?,
            created_at: moment(row, 16)?,
            updated_at: moment(row, 17)?,
            is_deleted: moment_or_none(row, 18)?.is_some(),
            created_by: get(row, 20)?,
        })
    }
}

/// After the organization and the owner: id, value, created_at, expires_at.
impl Read for SecretRow {
    fn read(row: &Row) -> Result<Self> {
        Ok(Self {
            id: id(row, 2)?,
            value: get(row, 3)?,
            period: SecretPeriod { created_at: moment(row, 4)?, expires_at: moment_or_none(row, 5)? },
        })
    }
}

/// The hash of an API key.
pub(super) fn hash(row: &Row, index: usize) -> Result<KeyHash> {
    let bytes = <[u8; 32]>::try_from(get::<&[u8]>(row, index)?).map_err(|_| broken("a hash is not 32 bytes long"))?;
    Ok(KeyHash::from_bytes(bytes))
}

/// A number of the type `integer` that is never negative, or nothing.
pub(super) fn small(row: &Row, index: usize) -> Result<Option<u32>> {
    let number: Option<i32> = get(row, index)?;
    number.map(|number| u32::try_from(number).map_err(|_| broken("a number is out of its range"))).transpose()
}

/// A number for a column of the type `integer`. Everything that comes here is bounded far below.
pub(super) fn integer(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
