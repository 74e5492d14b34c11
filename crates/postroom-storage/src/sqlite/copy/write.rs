//! Adds rows, and what finds them: the search tables are filled with the rows that they show.

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Result, params_from_iter};

use super::super::connection::Connection;
use super::sql;
use crate::copy::side::{FINISHED, UNFINISHED};
use crate::copy::table::{Row, Table, Value};
use crate::engine::packed::unpack_targets;

impl ToSql for Value {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// Adds rows and notes the progress, in one transaction. A database in use has none: there nothing may look as if its
/// outcome was not known, or as if the search tables lacked it.
pub(super) fn batch(
    connection: &mut Connection,
    table: &'static Table,
    rows: &[Row],
    progress: Option<&[u8]>,
) -> Result<()> {
    let transaction = connection.transaction()?;
    add(&transaction, table, rows)?;
    match progress {
        Some(progress) => drop(transaction.prepare_cached(sql::PUT_META)?.execute((UNFINISHED, progress))?),
        None => complete(&transaction)?,
    }
    transaction.commit()
}

/// All that is there is settled, and found.
pub(super) fn complete(connection: &Connection) -> Result<()> {
    connection.prepare_cached(sql::COMPLETE)?.execute([]).map(drop)
}

/// Adds rows.
pub(super) fn add(connection: &Connection, table: &'static Table, rows: &[Row]) -> Result<()> {
    let mut found = Found::default();
    for row in rows {
        let kept = row.iter().zip(table.columns).filter(|(_, column)| sql::is_kept(column.kind));
        let mut insert = connection.prepare_cached(&sql::of(table).insert)?;
        insert.execute(params_from_iter(kept.map(|(value, _)| value)))?;
        drop(insert);
        match table.name {
            "events" => found.event(table, row, connection.last_insert_rowid()),
            "replays" => found.replay(connection, table, row)?,
            _ => {}
        }
    }
    found.write(connection)
}

/// The copy has come to its end.
pub(super) fn finish(connection: &mut Connection, finished: &[u8]) -> Result<()> {
    let transaction = connection.transaction()?;
    transaction.prepare_cached(sql::FORGET_META)?.execute([UNFINISHED])?;
    transaction.prepare_cached(sql::PUT_META)?.execute((FINISHED, finished))?;
    transaction.commit()
}

/// Rows of the search tables.
#[derive(Default)]
struct Found {
    by_org: Vec<(i64, i64)>,
    by_type: Vec<(i64, String, i64)>,
    by_endpoint: Vec<(i64, i64, i64)>,
}

impl Found {
    fn event(&mut self, table: &Table, row: &Row, seq: i64) {
        let value = |name| table.at(name).and_then(|at| row.get(at));
        let org = value("org").and_then(Value::integer).unwrap_or(0);
        self.by_org.push((org, seq));
        if let Some(Value::Text(event_type)) = value("type") {
            self.by_type.push((org, event_type.clone(), seq));
        }
        let targets = value("targets").and_then(Value::as_bytes).and_then(unpack_targets).unwrap_or_default();
        self.by_endpoint.extend(targets.into_iter().map(|endpoint| (endpoint, seq, 0)));
    }

    fn replay(&mut self, connection: &Connection, table: &Table, row: &Row) -> Result<()> {
        let value = |name| table.at(name).and_then(|at| row.get(at));
        let number = |name| value(name).and_then(Value::integer).unwrap_or(0);
        let event = value("event").unwrap_or(&Value::Null);
        let seq = connection.prepare_cached(sql::SEQ)?.query_row([event], |row| row.get(0))?;
        self.by_endpoint.push((number("endpoint"), seq, number("run")));
        Ok(())
    }

    /// Neighbours one after the other, so that they share a page.
    fn write(mut self, connection: &Connection) -> Result<()> {
        self.by_org.sort_unstable();
        self.by_type.sort_unstable();
        self.by_endpoint.sort_unstable();
        for row in self.by_org {
            connection.prepare_cached(sql::BY_ORG)?.execute(row)?;
        }
        for row in self.by_type {
            connection.prepare_cached(sql::BY_TYPE)?.execute(row)?;
        }
        for row in self.by_endpoint {
            connection.prepare_cached(sql::BY_ENDPOINT)?.execute(row)?;
        }
        Ok(())
    }
}
