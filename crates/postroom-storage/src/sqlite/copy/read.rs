//! Reads a table from its beginning or from a position, on a thread and a connection of its own.

use std::collections::BTreeMap;
use std::path::Path;

use postroom_domain::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension as _, params_from_iter};

use super::super::connection::Connection;
use super::super::convert::targets;
use super::super::grants::Part;
use super::super::open::{self, OpenError};
use super::super::writer::stored_hash;
use super::sql;
use crate::copy::Error;
use crate::copy::side::Reading;
use crate::copy::table::{Position, Row, Table, Value};

/// What is read here and not as it is stored.
struct Reader<'a> {
    connection: Connection,
    table: &'static Table,
    reading: &'a mut Reading,
    due: Timestamp,
    /// Nobody reads any more.
    is_left: bool,
}

/// Reads a table and sends what it has. A position of another length than the table's is one in what follows its rows.
pub(super) fn table(
    data_dir: &Path,
    table: &'static Table,
    after: Option<&Position>,
    due: Timestamp,
    reading: &mut Reading,
) -> Result<(), Error> {
    let file = open::connect(data_dir)?;
    file.pragma_update(None, "query_only", true).map_err(OpenError::from)?;
    let connection = Connection::new(file, Part::Copier).map_err(OpenError::from)?;
    let mut reader = Reader { connection, table, reading, due, is_left: false };
    Ok(reader.read(after).map_err(crate::Error::from)?)
}

impl Reader<'_> {
    fn read(&mut self, after: Option<&Position>) -> rusqlite::Result<()> {
        let (watermark, guarded): (i64, i64) =
            self.connection.query_row(sql::PROGRESS, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let behind = match self.table.name {
            "duplicate_guard" => self.unguarded(guarded)?,
            _ => BTreeMap::new(),
        };
        let is_behind = after.is_some_and(|after| after.len() != self.table.embedded_order.len());
        if !is_behind {
            self.stored(after, &behind)?;
        }
        let done = after.filter(|_| is_behind);
        match self.table.name {
            "duplicate_guard" => self.guards(behind, done),
            "exceptions" => self.unsettled(watermark, done)?,
            _ => {}
        }
        Ok(())
    }

    /// Rows as they are stored. What belongs to an event that is not there belongs to nothing and is left out; a hash
    /// that a newer event has since taken over is read with that.
    fn stored(&mut self, after: Option<&Position>, behind: &BTreeMap<[u8; 16], Row>) -> rusqlite::Result<()> {
        let statements = sql::of(self.table);
        let sql = if after.is_some() { &statements.after } else { &statements.first };
        let columns = self.table.columns.len();
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query(params_from_iter(after.into_iter().flatten()))?;
        while let Some(found) = rows.next()? {
            let row: Row = (0..columns).map(|at| value(found.get_ref(at)?)).collect::<rusqlite::Result<_>>()?;
            let by = columns..columns + self.table.embedded_order.len();
            let position = by.map(|at| value(found.get_ref(at)?)).collect::<rusqlite::Result<_>>()?;
            if is_whole(self.table, &row) && !is_taken_over(&row, behind) {
                self.is_left |= send(self.reading, row, position);
            }
            if self.is_left {
                break;
            }
        }
        Ok(())
    }

    fn send(&mut self, row: Row, position: Position) {
        if !self.is_left {
            self.is_left = send(self.reading, row, position);
        }
    }

    /// Deliveries of the newest events that nobody knows the outcome of: due at once, as recovery would make them.
    fn unsettled(&mut self, watermark: i64, done: Option<&Position>) -> rusqlite::Result<()> {
        let number = |at: usize| done.and_then(|done| done.get(at)).and_then(Value::integer);
        let done = (number(0).unwrap_or(watermark), number(1).unwrap_or(i64::MAX));
        let mut statement = self.connection.prepare(sql::UNSETTLED)?;
        let mut rows = statement.query([done.0.saturating_sub(1).max(watermark)])?;
        while let Some(row) = rows.next()? {
            let (seq, id, org): (i64, Vec<u8>, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            for (at, endpoint) in (0..).zip(targets(row, 3)?) {
                let known = |sql| -> rusqlite::Result<bool> {
                    let mut statement = self.connection.prepare_cached(sql)?;
                    Ok(statement.query_row((seq, endpoint), |_| Ok(())).optional()?.is_some())
                };
                if (seq, at) > done && !known(sql::ATTEMPTED)? && !known(sql::EXCEPTED)? && !self.is_left {
                    let position = vec![Value::Integer(seq), Value::Integer(at)];
                    self.is_left = send(self.reading, untried(org, endpoint, &id, self.due), position);
                }
            }
        }
        Ok(())
    }

    /// The hashes of the newest events, which the guard has yet to learn.
    fn unguarded(&self, guarded: i64) -> rusqlite::Result<BTreeMap<[u8; 16], Row>> {
        let mut found = BTreeMap::new();
        let mut statement = self.connection.prepare(sql::UNGUARDED)?;
        let mut rows = statement.query([guarded])?;
        while let Some(row) = rows.next()? {
            if let Some(hash) = stored_hash(row)? {
                let (org, id): (i64, Vec<u8>) = (row.get(1)?, row.get(6)?);
                let (source, external_id) = (value(row.get_ref(4)?)?, value(row.get_ref(5)?)?);
                let guard = [Value::Integer(org), Value::Bytes(hash.to_vec()), Value::Bytes(id), source, external_id];
                found.insert(hash, guard.to_vec());
            }
        }
        Ok(found)
    }

    fn guards(&mut self, behind: BTreeMap<[u8; 16], Row>, done: Option<&Position>) {
        let done = done.and_then(|done| done.first()).and_then(Value::as_bytes).map(<[u8]>::to_vec);
        for (hash, row) in behind {
            if done.as_deref().is_none_or(|done| hash.as_slice() > done) {
                self.send(row, vec![Value::Bytes(hash.to_vec()), Value::Null]);
            }
        }
    }
}

/// An exception in the order of the table's columns.
fn untried(org: i64, endpoint: i64, event: &[u8], due: Timestamp) -> Row {
    let (zero, due) = (Value::Integer(0), Value::Integer(due.as_millis()));
    vec![
        Value::Integer(org),
        Value::Integer(endpoint),
        Value::Bytes(event.to_vec()),
        zero.clone(),
        Value::Text("waiting".to_owned()),
        due.clone(),
        zero.clone(),
        zero,
        Value::Null,
        due,
    ]
}

/// True when nobody reads any more.
fn send(reading: &mut Reading, row: Row, position: Position) -> bool {
    reading.add(row, position).is_some_and(|batch| !reading.send_blocking(batch))
}

/// Whether a row belongs to an event that is there, if it belongs to one.
fn is_whole(table: &Table, row: &Row) -> bool {
    use crate::copy::table::Kind;
    let of_event = table.columns.iter().zip(row).find(|(column, _)| column.kind == Kind::Event);
    of_event.is_none_or(|(_, id)| *id != Value::Null)
}

fn is_taken_over(row: &Row, behind: &BTreeMap<[u8; 16], Row>) -> bool {
    let hash = if behind.is_empty() { None } else { row.get(1).and_then(Value::as_bytes) };
    hash.and_then(|hash| <[u8; 16]>::try_from(hash).ok()).is_some_and(|hash| behind.contains_key(&hash))
}

fn value(stored: ValueRef<'_>) -> rusqlite::Result<Value> {
    Ok(match stored {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Text(_) => Value::Text(stored.as_str()?.to_owned()),
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
        ValueRef::Real(_) => return Err(rusqlite::types::FromSqlError::InvalidType.into()),
    })
}
