//! One organization of a database, as one side of a copy: what is left out of it, and which numbers it has elsewhere.

use std::collections::HashMap;

use async_trait::async_trait;
use postroom_domain::Timestamp;

use super::Error;
use super::moving::{Cell, Found, OF_AUDIT};
use super::side::{Batches, Meta, Side};
use super::table::{Batch, Position, Row, Table, Value, WHO_IS_WHO};
use crate::engine::guard::guard_hash;
use crate::engine::packed::{pack_targets, unpack_targets};

/// See the [module](self).
pub(super) struct View<'a> {
    pub(super) side: &'a dyn Side,
    pub(super) org: i64,
    /// Names of tables that are read as if they were empty, beside those that say who is who.
    pub(super) left_out: &'static [&'static str],
    /// Whether what the installation keeps for itself is seen.
    pub(super) has_meta: bool,
    pub(super) numbers: Numbers,
}

/// What is added to the numbers that a table gives out, by its name, and so to all that refer to them.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbers(pub(super) HashMap<&'static str, i64>);

impl Numbers {
    fn of(&self, table: &str) -> i64 {
        self.0.get(table).copied().unwrap_or(0)
    }

    /// A row with the new numbers.
    fn renumber(&self, table: &Table, mut row: Row) -> Row {
        if self.0.is_empty() {
            return row;
        }
        for (column, value) in table.columns.iter().zip(&mut row) {
            let more = match column.name {
                "source" => self.of("sources"),
                "endpoint" => self.of("endpoints"),
                name if table.numbered == Some(name) => self.of(table.name),
                _ => 0,
            };
            match value {
                Value::Integer(number) => *number += more,
                Value::Bytes(targets) if column.name == "targets" => {
                    let endpoints = unpack_targets(targets).unwrap_or_default();
                    *targets = pack_targets(endpoints.into_iter().map(|endpoint| endpoint + self.of("endpoints")));
                }
                _ => {}
            }
        }
        if table.name == "duplicate_guard" {
            rehash(table, &mut row);
        }
        row
    }
}

/// Makes the hash of a guard from what it is made of.
fn rehash(table: &Table, row: &mut Row) {
    let at = |name| table.at(name).and_then(|at| row.get(at));
    let owner = match at("source").and_then(Value::integer) {
        Some(source) => (b's', source),
        None => (b'o', at("org").and_then(Value::integer).unwrap_or(0)),
    };
    let Some(Value::Text(external_id)) = at("external_id") else { return };
    let hash = guard_hash(owner, external_id).to_vec();
    if let Some(stored) = table.at("hash").and_then(|at| row.get_mut(at)) {
        *stored = Value::Bytes(hash);
    }
}

#[async_trait]
impl Side for View<'_> {
    async fn meta(&self) -> Result<Meta, Error> {
        let mut meta = if self.has_meta { self.side.meta().await? } else { Meta::new() };
        meta.retain(|name, _| !name.starts_with(OF_AUDIT));
        Ok(meta)
    }

    async fn stamp(&self) -> Result<String, Error> {
        self.side.stamp().await
    }

    async fn cells(&self) -> Result<Vec<Found>, Error> {
        self.side.cells().await
    }

    async fn own(&self, cell: &Cell) -> Result<Box<dyn Side>, Error> {
        self.side.own(cell).await
    }

    async fn count(&self, table: &'static Table) -> Result<u64, Error> {
        self.side.count(table).await
    }

    async fn ends(&self, table: &'static Table) -> Result<Option<(i64, i64)>, Error> {
        self.side.ends(table).await
    }

    fn read(&self, table: &'static Table, _: Option<i64>, after: Option<Position>, due: Timestamp) -> Batches {
        let (reading, batches) = Batches::new();
        let (org, numbers) = (Value::Integer(self.org), self.numbers.clone());
        let is_left_out = self.left_out.contains(&table.name) || WHO_IS_WHO.contains(&table.name);
        let mut all = (!is_left_out).then(|| self.side.read(table, Some(self.org), after, due));
        tokio::spawn(async move {
            let ended = loop {
                let Some(all) = &mut all else { break Ok(()) };
                match all.next().await {
                    Err(error) => break Err(error),
                    Ok(None) => break Ok(()),
                    Ok(Some(Batch { rows, position })) => {
                        let own = rows.into_iter().filter(|row| row.first() == Some(&org));
                        let rows: Vec<Row> = own.map(|row| numbers.renumber(table, row)).collect();
                        if !rows.is_empty() && !reading.send(Batch { rows, position }).await {
                            return;
                        }
                    }
                }
            };
            reading.end(ended).await;
        });
        batches
    }

    async fn begin(&self, meta: Meta) -> Result<(), Error> {
        self.side.begin(meta).await
    }

    async fn write(&self, table: &'static Table, rows: Vec<Row>, progress: Vec<u8>) -> Result<(), Error> {
        self.side.write(table, rows, progress).await
    }

    async fn complete(&self) -> Result<(), Error> {
        self.side.complete().await
    }

    async fn finish(&self, finished: Vec<u8>) -> Result<(), Error> {
        self.side.finish(finished).await
    }

    async fn is_alone(&self) -> Result<(), Error> {
        self.side.is_alone().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::table::TABLES;

    fn table(name: &str) -> &'static Table {
        TABLES.iter().find(|table| table.name == name).unwrap()
    }

    #[test]
    fn everything_that_names_a_source_or_an_endpoint_follows_its_number() {
        let numbers = Numbers(HashMap::from([("sources", 100), ("endpoints", 7), ("source_secrets", 3)]));
        let (number, null) = (Value::Integer, Value::Null);
        let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
        let text = |text: &str| Value::Text(text.to_owned());
        let secret = |secret, source| vec![number(9), number(secret), number(source), null.clone()];
        // What a row holds is never printed.
        let is = |name: &str, row: Row, wanted: &Row| numbers.renumber(table(name), row) == *wanted;
        assert!(is("source_secrets", secret(1, 2), &secret(4, 102)));
        let event = |source: Value, targets: &[u8]| {
            vec![number(9), bytes(b"id"), source, text("a"), null.clone(), bytes(targets)]
        };
        assert!(is(
            "events",
            event(number(2), &[0, 0, 0, 1, 0, 0, 1, 0]),
            &event(number(102), &[0, 0, 0, 8, 0, 0, 1, 7])
        ));
        assert!(is("events", event(null.clone(), &[]), &event(null.clone(), &[])));
        let guard = |hash: [u8; 16], source: Value| vec![number(9), bytes(&hash), bytes(b"id"), source, text("x")];
        let of_source = |source| guard(guard_hash((b's', source), "x"), number(source));
        assert!(is("duplicate_guard", of_source(2), &of_source(102)));
        let own = guard(guard_hash((b'o', 9), "x"), null.clone());
        assert!(is("duplicate_guard", own.clone(), &own));
        let waiting = |endpoint| vec![number(9), number(endpoint), bytes(b"id"), number(0)];
        assert!(is("exceptions", waiting(1), &waiting(8)));
    }
}
