//! Adds rows, as one array for each column.

use std::time::SystemTime;

use postroom_domain::Timestamp;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use super::super::convert::at;
use super::super::pool::{Typed, bind};
use super::{said, sql};
use crate::copy::Error;
use crate::copy::side::UNFINISHED;
use crate::copy::table::{Kind, Row, Table, Value};
use crate::engine::packed::broken;

/// The values of a column.
type Array = (Box<dyn ToSql + Sync + Send>, Type);

/// Adds rows and notes the progress, in one transaction. A database in use has none.
pub(super) async fn batch(
    client: &mut Client,
    table: &'static Table,
    rows: Vec<Row>,
    progress: Option<Vec<u8>>,
) -> Result<(), Error> {
    let transaction = client.transaction().await.map_err(said)?;
    add(&transaction, table, rows).await?;
    if let Some(progress) = progress {
        transaction.execute_typed(sql::PUT_META, bind![UNFINISHED, progress]).await.map_err(said)?;
    }
    transaction.commit().await.map_err(said)
}

/// Adds rows.
pub(super) async fn add(transaction: &Transaction<'_>, table: &'static Table, rows: Vec<Row>) -> Result<(), Error> {
    let mut columns: Vec<Vec<Value>> = table.columns.iter().map(|_| Vec::with_capacity(rows.len())).collect();
    for row in rows {
        columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
    }
    if let Some(events) = partitions(table, &columns)? {
        transaction.query_typed(sql::PARTITIONS, bind![events]).await.map_err(said)?;
    }
    let kept = sql::kept(table).map(|(place, column)| array(std::mem::take(&mut columns[place]), column.kind));
    let arrays: Vec<Array> = kept.collect::<Result<_, Error>>()?;
    let values: Vec<_> = arrays.iter().map(|(array, kind)| (&**array as &(dyn ToSql + Sync), kind.clone())).collect();
    transaction.execute_typed(&sql::of(table).insert, &values).await.map(drop).map_err(said)
}

/// The events whose days have to have a partition, for a table that has them.
fn partitions(table: &Table, columns: &[Vec<Value>]) -> Result<Option<Vec<Uuid>>, Error> {
    let column = match table.name {
        "events" => "id",
        "attempts" => "event",
        _ => return Ok(None),
    };
    let ids = table.at(column).and_then(|place| columns.get(place)).into_iter().flatten();
    ids.map(uuid).collect::<Result<Vec<_>, Error>>().map(Some)
}

fn array(values: Vec<Value>, kind: Kind) -> Result<Array, Error> {
    match kind {
        Kind::Integer | Kind::EventOrg | Kind::EventSource => each(values, |value| value.integer()),
        Kind::Boolean => each(values, |value| value.integer().map(|number| number != 0)),
        Kind::Text | Kind::EventExternalId => {
            each(values, |value| if let Value::Text(text) = value { Some(text) } else { None })
        }
        Kind::Bytes => each(values, |value| if let Value::Bytes(bytes) = value { Some(bytes) } else { None }),
        Kind::Id | Kind::Event => each(values, |value| uuid(&value).ok()),
        Kind::Moment => {
            each::<SystemTime>(values, |value| value.integer().map(|millis| at(Timestamp::from_millis(millis))))
        }
    }
}

/// Each value as what the column holds, or nothing; none may be something else.
fn each<T>(values: Vec<Value>, read: impl Fn(Value) -> Option<T>) -> Result<Array, Error>
where
    Vec<Option<T>>: Typed + Send + 'static,
{
    let read = values.into_iter().map(|value| match value {
        Value::Null => Ok(None),
        value => read(value).map(Some).ok_or_else(|| broken("a value is not of its column's kind").into()),
    });
    let values: Vec<Option<T>> = read.collect::<Result<_, Error>>()?;
    Ok((Box::new(values), <Vec<Option<T>> as Typed>::TYPE))
}

fn uuid(value: &Value) -> Result<Uuid, Error> {
    let id = value.as_bytes().and_then(|bytes| Uuid::from_slice(bytes).ok());
    Ok(id.ok_or_else(|| broken("an id has not 16 bytes"))?)
}
