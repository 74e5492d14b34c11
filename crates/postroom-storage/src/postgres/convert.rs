//! Between Rust and columns: moments, ids, words, and errors by what the caller can do.

use std::time::{Duration, SystemTime};

use postroom_domain::{Email, Timestamp};
use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

use crate::engine::packed::{broken, parse_word, unpack_created_by, unpack_headers};
use crate::worker::EventKey;
use crate::{Error, Result};

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        if passes_by_itself(&error) { Self::Unavailable(error.into()) } else { Self::Internal(error.into()) }
    }
}

impl From<deadpool_postgres::PoolError> for Error {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        use deadpool_postgres::{PoolError, TimeoutType};
        match error {
            PoolError::Timeout(TimeoutType::Wait) => Self::Overloaded,
            // It did not get as far as a statement.
            PoolError::Backend(error) => Self::Unavailable(error.into()),
            other => Self::Unavailable(other.into()),
        }
    }
}

/// Whether trying again later can help: a server that is away, starting, stopping, full, read-only after a failover, or
/// had to end this transaction for another's sake; or an organization that
/// is being moved.
pub(super) fn passes_by_itself(error: &tokio_postgres::Error) -> bool {
    let Some(state) = error.code() else { return true };
    let class = &state.code()[..2];
    matches!(class, "08" | "40" | "53" | "57" | "58")
        || *state == SqlState::LOCK_NOT_AVAILABLE
        || *state == SqlState::READ_ONLY_SQL_TRANSACTION
        || state.code() == MOVED
}

/// What the database says to whoever would write something of an organization that is being moved, or has moved.
pub(super) const MOVED: &str = "PM001";

/// The name of the unique constraint that a statement would have broken.
pub(super) fn violated(error: &Error) -> Option<&str> {
    let Error::Internal(source) = error else { return None };
    let error = source.downcast_ref::<tokio_postgres::Error>()?.as_db_error()?;
    if *error.code() == SqlState::UNIQUE_VIOLATION { error.constraint() } else { None }
}

/// Whether a statement gave up because others held what it needed for long.
pub(super) fn is_locked(error: &Error) -> bool {
    let Error::Unavailable(source) = error else { return false };
    let error = source.downcast_ref::<tokio_postgres::Error>();
    error.and_then(tokio_postgres::Error::code) == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

/// A moment, for a column.
pub(super) fn at(moment: Timestamp) -> SystemTime {
    let distance = Duration::from_millis(moment.as_millis().unsigned_abs());
    if moment.as_millis() >= 0 { SystemTime::UNIX_EPOCH + distance } else { SystemTime::UNIX_EPOCH - distance }
}

/// A moment from its column.
pub(super) fn moment_of(time: SystemTime) -> Timestamp {
    let millis = |distance: Duration| i64::try_from(distance.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => millis(after),
        Err(before) => -millis(before.duration()),
    })
}

/// A column.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T> {
    row.try_get(index).map_err(|error| Error::Internal(error.into()))
}

/// A moment.
pub(super) fn moment(row: &Row, index: usize) -> Result<Timestamp> {
    get(row, index).map(moment_of)
}

/// A moment that may be missing.
pub(super) fn moment_or_none(row: &Row, index: usize) -> Result<Option<Timestamp>> {
    Ok(get::<Option<SystemTime>>(row, index)?.map(moment_of))
}

/// The 16 bytes of an id.
pub(super) fn id(row: &Row, index: usize) -> Result<[u8; 16]> {
    Ok(get::<Uuid>(row, index)?.into_bytes())
}

/// An id, for a column.
pub(super) fn uuid(bytes: [u8; 16]) -> Uuid {
    Uuid::from_bytes(bytes)
}

/// An enum stored as its word.
pub(super) fn word<T: DeserializeOwned>(row: &Row, index: usize) -> Result<T> {
    parse_word(get(row, index)?).map_err(|error| Error::Internal(error.into()))
}

/// An enum stored as its word, or nothing.
pub(super) fn word_or_none<T: DeserializeOwned>(row: &Row, index: usize) -> Result<Option<T>> {
    let text: Option<&str> = get(row, index)?;
    text.map(|text| parse_word(text).map_err(|error| Error::Internal(error.into()))).transpose()
}

/// An address.
pub(super) fn email(row: &Row, index: usize) -> Result<Email> {
    Email::parse(get(row, index)?).map_err(|error| Error::Internal(error.into()))
}

/// A value stored as JSON text.
pub(super) fn json<T: DeserializeOwned>(row: &Row, index: usize) -> Result<T> {
    serde_json::from_str(get(row, index)?).map_err(|error| Error::Internal(error.into()))
}

/// A value stored as JSON text, or nothing.
pub(super) fn json_or_none<T: DeserializeOwned>(row: &Row, index: usize) -> Result<Option<T>> {
    let text: Option<&str> = get(row, index)?;
    text.map(|text| serde_json::from_str(text).map_err(|error| Error::Internal(error.into()))).transpose()
}

/// Headers from their column; none from null.
pub(super) fn headers(row: &Row, index: usize) -> Result<Vec<(String, String)>> {
    match get::<Option<&[u8]>>(row, index)? {
        Some(bytes) => unpack_headers(bytes).map_err(|error| Error::Internal(error.into())),
        None => Ok(Vec::new()),
    }
}

/// Who sent an event, from the column of its headers; nobody from null.
pub(super) fn created_by(row: &Row, index: usize) -> Result<Option<String>> {
    let headers = get::<Option<&[u8]>>(row, index)?;
    headers.map_or(Ok(None), |bytes| unpack_created_by(bytes).map_err(|error| Error::Internal(error.into())))
}

/// A small number that is never negative.
pub(super) fn small<T: TryFrom<i32>>(row: &Row, index: usize) -> Result<T> {
    T::try_from(get::<i32>(row, index)?).map_err(|_| broken("a number is out of its range"))
}

/// A number that is never negative.
pub(super) fn count<T: TryFrom<i64>>(row: &Row, index: usize) -> Result<T> {
    T::try_from(get::<i64>(row, index)?).map_err(|_| broken("a number is out of its range"))
}

impl EventKey {
    /// An event by its id.
    pub(super) fn from_uuid(id: Uuid) -> Self {
        Self(id.as_u128())
    }

    /// Its id.
    pub(super) fn uuid(self) -> Uuid {
        Uuid::from_u128(self.0)
    }
}
