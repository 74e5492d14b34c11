//! Between Rust and columns: errors by what the caller can do, words of enums, lists of headers and of targets.

use postroom_domain::{Email, Timestamp};
use rusqlite::types::FromSqlError;
use rusqlite::{ErrorCode, Row};
use serde::de::DeserializeOwned;

use crate::Error;
pub(super) use crate::engine::packed::{broken, pack_headers, pack_targets, to_json};
use crate::engine::packed::{parse_word, unpack_created_by, unpack_headers, unpack_targets};
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

/// An address.
pub(super) fn email(row: &Row<'_>, index: usize) -> rusqlite::Result<Email> {
    Email::parse(row.get_ref(index)?.as_str()?).map_err(|error| bad_column(index, error))
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

/// Headers from their column; none from null.
pub(super) fn headers(row: &Row<'_>, index: usize) -> rusqlite::Result<Vec<(String, String)>> {
    match row.get_ref(index)?.as_blob_or_null()? {
        Some(blob) => unpack_headers(blob).map_err(|error| bad_column(index, error)),
        None => Ok(Vec::new()),
    }
}

/// Who sent an event, from the column of its headers; nobody from null.
pub(super) fn created_by(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<String>> {
    let headers = row.get_ref(index)?.as_blob_or_null()?;
    headers.map_or(Ok(None), |blob| unpack_created_by(blob).map_err(|error| bad_column(index, error)))
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

/// The endpoints an event goes to, from their column.
pub(super) fn targets(row: &Row<'_>, index: usize) -> rusqlite::Result<Vec<i64>> {
    Ok(unpack_targets(row.get_ref(index)?.as_blob()?).ok_or(FromSqlError::InvalidType)?)
}
