//! The rows of deliveries that are not on the straight way. Every change goes through here, so that the numbers of
//! waiting and dead deliveries are right without ever being counted over.

use postroom_domain::delivery::DeadReason;
use rusqlite::Row;

use super::connection::Connection;
use super::convert::{moment, word, word_or_none};
use super::rows;
use super::writer::Effects;
use crate::engine::log::{Exception, ExceptionState};
use crate::worker::DeliveryKey;

/// By primary key.
const FIND: &str = "select org, state, due_at, attempts, attempts_of_schedule, reason, since from exception \
     where endpoint = ?1 and event = ?2 and run = ?3";

macro_rules! insert_exception {
    ($rest:literal) => {
        concat!(
            "insert into exception \
             (endpoint, event, run, org, state, due_at, attempts, attempts_of_schedule, reason, since) \
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            $rest
        )
    };
}

/// Writes indexes exception_due and exception_by_org.
const ADD: &str = insert_exception!("");

/// By primary key; writes indexes exception_due and exception_by_org.
const PUT: &str = insert_exception!(
    " on conflict (endpoint, event, run) do update set state = excluded.state, due_at = excluded.due_at, \
     attempts = excluded.attempts, attempts_of_schedule = excluded.attempts_of_schedule, \
     reason = excluded.reason, since = excluded.since"
);

/// By primary key.
const DELETE: &str = "delete from exception where endpoint = ?1 and event = ?2 and run = ?3";

/// From the columns `org, state, due_at, attempts, attempts_of_schedule, reason, since`.
fn read(row: &Row<'_>) -> rusqlite::Result<Exception> {
    Ok(Exception {
        org: row.get(0)?,
        state: word(row, 1)?,
        due_at: moment(row, 2)?,
        attempts: row.get(3)?,
        attempts_of_schedule: row.get(4)?,
        reason: word_or_none(row, 5)?,
        since: moment(row, 6)?,
    })
}

/// The exception of a delivery, if it has one.
pub(super) fn find(connection: &Connection, delivery: DeliveryKey) -> rusqlite::Result<Option<Exception>> {
    let key: [&dyn rusqlite::ToSql; 3] = [&delivery.endpoint.0, &delivery.event.seq(), &delivery.run];
    rows::one(connection, FIND, &key, read)
}

/// Writes the exception of a delivery. `before` is the state it is known to be in, none if it has no row.
pub(super) fn put(
    connection: &Connection,
    effects: &mut Effects,
    delivery: DeliveryKey,
    before: Option<ExceptionState>,
    exception: &Exception,
) -> rusqlite::Result<()> {
    if let Some(before) = before {
        effects.count(exception.org, before, -1);
    }
    write(connection, PUT, effects, delivery, exception)
}

/// Writes the exception of a new delivery, for who may not touch those that are there.
pub(super) fn add(
    connection: &Connection,
    effects: &mut Effects,
    delivery: DeliveryKey,
    exception: &Exception,
) -> rusqlite::Result<()> {
    write(connection, ADD, effects, delivery, exception)
}

fn write(
    connection: &Connection,
    sql: &'static str,
    effects: &mut Effects,
    delivery: DeliveryKey,
    exception: &Exception,
) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute(rusqlite::params![
        delivery.endpoint.0,
        delivery.event.seq(),
        delivery.run,
        exception.org,
        exception.state.as_str(),
        exception.due_at.as_millis(),
        exception.attempts,
        exception.attempts_of_schedule,
        exception.reason.map(DeadReason::as_str),
        exception.since.as_millis(),
    ])?;
    effects.count(exception.org, exception.state, 1);
    Ok(())
}

/// Deletes the exception of a delivery, if it has one.
pub(super) fn delete(
    connection: &Connection,
    effects: &mut Effects,
    delivery: DeliveryKey,
    before: &Exception,
) -> rusqlite::Result<()> {
    connection.prepare_cached(DELETE)?.execute((delivery.endpoint.0, delivery.event.seq(), delivery.run))?;
    effects.count(before.org, before.state, -1);
    Ok(())
}
