//! Between Rust and columns: errors by what the caller can do, words of enums, lists of headers and of targets.

use postroom_domain::Timestamp;
use rusqlite::types::{FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{ErrorCode, Row};
use serde::de::DeserializeOwned;
use serde::de::value::{Error as WordError, StrDeserializer};

use crate::Error;
use crate::worker::EventKey;

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        if passes_by_itself(&error) { Self::Unavailable(error.into()) } else { Self::Internal(error.into()) }
    }
}

/// Whether trying again later can help: a full or failing disk, a lock, a database that went away.
pub(super) fn passes_by_itself(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationInterrupted
                | ErrorCode::FileLockingProtocolFailed
        )
    )
}

/// The stored data is not what it should be.
pub(super) fn broken(what: impl Into<String>) -> Error {
    Error::Internal(what.into().into())
}

/// A column that is not what the schema says.
fn bad_column(index: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error))
}

/// A moment.
pub(super) fn moment(row: &Row<'_>, index: usize) -> rusqlite::Result<Timestamp> {
    row.get(index).map(Timestamp::from_millis)
}

/// A moment that may be missing.
pub(super) fn moment_or_none(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(index)?.map(Timestamp::from_millis))
}

/// An enum stored as its word.
pub(super) fn word<T: DeserializeOwned>(row: &Row<'_>, index: usize) -> rusqlite::Result<T> {
    parse_word(row.get_ref(index)?.as_str()?).map_err(|error| bad_column(index, error))
}

/// An enum stored as its word, or nothing.
pub(super) fn word_or_none<T: DeserializeOwned>(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<T>> {
    let text = row.get_ref(index)?.as_str_or_null()?;
    text.map(|text| parse_word(text).map_err(|error| bad_column(index, error))).transpose()
}

fn parse_word<T: DeserializeOwned>(text: &str) -> Result<T, WordError> {
    T::deserialize(StrDeserializer::new(text))
}

/// A value stored as JSON text.
pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, index: usize) -> rusqlite::Result<T> {
    serde_json::from_str(row.get_ref(index)?.as_str()?).map_err(|error| bad_column(index, error))
}

/// A value stored as JSON text, or nothing.
pub(super) fn json_or_none<T: DeserializeOwned>(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<T>> {
    let text = row.get_ref(index)?.as_str_or_null()?;
    text.map(|text| serde_json::from_str(text).map_err(|error| bad_column(index, error))).transpose()
}

/// As JSON text, for a column.
pub(super) fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("lists and maps of text always have a JSON form")
}

/// Headers as one column.
pub(super) fn pack_headers(headers: &[(String, String)]) -> Vec<u8> {
    serde_json::to_vec(headers).expect("pairs of text always have a JSON form")
}

/// Headers from their column; none from null.
pub(super) fn headers(row: &Row<'_>, index: usize) -> rusqlite::Result<Vec<(String, String)>> {
    match row.get_ref(index)?.as_blob_or_null()? {
        Some(blob) => serde_json::from_slice(blob).map_err(|error| bad_column(index, error)),
        None => Ok(Vec::new()),
    }
}

/// An event by its place in the log.
impl EventKey {
    pub(super) fn from_seq(seq: i64) -> Self {
        Self(u128::from(seq.cast_unsigned()))
    }

    /// Its place in the log. Only places come in, so nothing is cut off.
    pub(super) fn seq(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

/// The endpoints an event goes to, as one column: 4 bytes each, big end first.
pub(super) fn pack_targets(endpoints: impl Iterator<Item = i64>) -> Vec<u8> {
    endpoints.flat_map(|endpoint| u32::try_from(endpoint).unwrap_or(u32::MAX).to_be_bytes()).collect()
}

/// The endpoints an event goes to, from their column.
pub(super) fn targets(row: &Row<'_>, index: usize) -> rusqlite::Result<Vec<i64>> {
    let blob: FromSqlResult<&[u8]> = match row.get_ref(index)? {
        ValueRef::Blob(blob) if blob.len().is_multiple_of(4) => Ok(blob),
        _ => Err(FromSqlError::InvalidType),
    };
    Ok(blob?.chunks_exact(4).map(|four| i64::from(u32::from_be_bytes([four[0], four[1], four[2], four[3]]))).collect())
}

#[cfg(test)]
mod tests {
    use postroom_domain::delivery::{AttemptError, DeadReason};

    use super::*;

    #[test]
    fn an_enum_comes_back_from_its_word() {
        for reason in [DeadReason::RetriesExhausted, DeadReason::EndpointGone, DeadReason::OrganizationInactive] {
            assert_eq!(parse_word::<DeadReason>(reason.as_str()), Ok(reason));
        }
        assert_eq!(parse_word::<AttemptError>("blocked_address"), Ok(AttemptError::BlockedAddress));
        assert!(parse_word::<AttemptError>("else").is_err());
    }
}
