//! Reads a table as one answer that comes as fast as it is taken, of one moment, on a connection of its own.

use futures_util::StreamExt as _;
use postroom_domain::{Secret, Timestamp};
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::super::convert::{at, get, moment_of};
use super::{connect, said, sql};
use crate::copy::Error;
use crate::copy::side::Reading;
use crate::copy::table::{Column, Kind, Position, Row, Table, Value};
use crate::engine::packed::broken;

/// What is read does not change while it is read.
const SNAPSHOT: &str = "begin isolation level repeatable read read only";

/// A value with its type, to be sent.
type Sent = (Box<dyn ToSql + Sync + Send>, Type);

/// Which rows of a table.
pub(super) struct Which {
    /// Of one organization.
    pub(super) of: Option<i64>,
    /// Behind this one.
    pub(super) after: Option<Position>,
    /// When what nobody knows the outcome of is due.
    pub(super) due: Timestamp,
}

/// Reads a table and sends what it has.
pub(super) async fn table(
    url: &Secret,
    table: &'static Table,
    which: Which,
    reading: &mut Reading,
) -> Result<(), Error> {
    let Which { of, after, due } = which;
    let owner = connect(url).await?;
    owner.client.batch_execute(SNAPSHOT).await.map_err(said)?;
    let statements = sql::of(table);
    let order: Vec<usize> = table.order.iter().filter_map(|name| table.at(name)).collect();
    let mut values: Vec<Sent> = Vec::new();
    for (value, place) in after.iter().flatten().zip(&order) {
        values.push(sent(value, &table.columns[*place])?);
    }
    if statements.has_due() {
        values.push((Box::new(at(due)), Type::TIMESTAMPTZ));
    }
    if let Some(org) = of {
        values.push((Box::new(org), Type::INT8));
    }
    let values = values.iter().map(|(value, kind)| (&**value as &(dyn ToSql + Sync), kind.clone()));
    let rows =
        owner.client.query_typed_raw(&statements.select(after.is_some(), of.is_some()), values).await.map_err(said)?;
    tokio::pin!(rows);
    while let Some(found) = rows.next().await {
        let found = found.map_err(said)?;
        let columns = table.columns.iter().enumerate();
        let row: Row =
            columns.map(|(place, column)| value(&found, place, column.kind)).collect::<Result<_, Error>>()?;
        let position = order.iter().map(|place| row[*place].clone()).collect();
        if let Some(batch) = reading.add(row, position)
            && !reading.send(batch).await
        {
            return Ok(());
        }
    }
    Ok(())
}

fn value(row: &tokio_postgres::Row, place: usize, kind: Kind) -> Result<Value, Error> {
    let value = match kind {
        Kind::Integer | Kind::EventOrg | Kind::EventSource => get::<Option<i64>>(row, place)?.map(Value::Integer),
        Kind::Boolean => get::<Option<bool>>(row, place)?.map(|is_so| Value::Integer(is_so.into())),
        Kind::Text | Kind::EventExternalId => get::<Option<String>>(row, place)?.map(Value::Text),
        Kind::Bytes => get::<Option<Vec<u8>>>(row, place)?.map(Value::Bytes),
        Kind::Id | Kind::Event => get::<Option<Uuid>>(row, place)?.map(|id| Value::Bytes(id.into_bytes().to_vec())),
        Kind::Moment => {
            get::<Option<std::time::SystemTime>>(row, place)?.map(|time| Value::Integer(moment_of(time).as_millis()))
        }
    };
    Ok(value.unwrap_or(Value::Null))
}

/// A value that rows are read by: never null.
fn sent(value: &Value, column: &Column) -> Result<Sent, Error> {
    Ok(match (value, column.kind) {
        (Value::Integer(number), Kind::Moment) => (Box::new(at(Timestamp::from_millis(*number))), Type::TIMESTAMPTZ),
        (Value::Integer(number), _) => (Box::new(*number), Type::INT8),
        (Value::Text(text), _) => (Box::new(text.clone()), Type::TEXT),
        (Value::Bytes(bytes), Kind::Bytes) => (Box::new(bytes.clone()), Type::BYTEA),
        (Value::Bytes(bytes), Kind::Id | Kind::Event) => (
            Box::new(Uuid::from_slice(bytes).map_err(|_| broken("the position of a copy cannot be read"))?),
            Type::UUID,
        ),
        _ => return Err(broken("the position of a copy cannot be read").into()),
    })
}
