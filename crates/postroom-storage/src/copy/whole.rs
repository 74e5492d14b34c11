//! An installation in which organizations have databases of their own, as one source: their rows come behind those of the
//! shared database, table by table, with numbers that lie behind its numbers. So the target has all of them in one.
//!
//! Each of those databases is opened when it is read, and not kept: there may be many. Nobody can be at them while the
//! shared one is kept, because whoever works there is in the table of nodes of both, or has the lock of both.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use postroom_domain::Timestamp;

use super::Error;
use super::moving::{AUDIT_KEYS, Cell, Found, NUMBERED, Placed, endpoint_number};
use super::side::{Batches, Meta, Reading, Side};
use super::table::{Batch, Position, Row, TABLES, Table, Value, WHO_IS_WHO};
use super::view::{Numbers, View};
use crate::engine::packed::broken;

/// Tables in which an organization with a database of its own has rows in the shared one, beside those that say who is who.
const BESIDE: &[&str] = &["organizations", "audit_logs"];
/// What is of no meaning in its own database.
const COPIES: &[&str] = &["organizations"];

/// See the [module](self).
struct Whole(Arc<Parts>);

struct Parts {
    shared: Box<dyn Side>,
    /// In the order of their organizations.
    own: Vec<Own>,
}

/// A database of one organization.
struct Own {
    org: i64,
    cell: Cell,
    numbers: Numbers,
    endpoint_number: i64,
}

/// The shared database together with all that are in its registry.
pub(super) async fn of(shared: Box<dyn Side>) -> Result<Box<dyn Side>, Error> {
    let mut found = shared.cells().await?;
    if found.is_empty() {
        return Ok(shared);
    }
    found.sort_by_key(|found| found.org);
    let mut next = HashMap::new();
    for table in numbered() {
        next.insert(table.name, shared.ends(table).await?.map_or(1, |(_, last)| last + 1));
    }
    let mut own = Vec::with_capacity(found.len());
    for Found { org, placed, .. } in found {
        let Placed::Dedicated(cell) = placed else { return Err(Error::BeingMade) };
        let side = shared.own(&cell).await?;
        let mut numbers = HashMap::new();
        for table in numbered() {
            if let (Some((first, last)), Some(next)) = (side.ends(table).await?, next.get_mut(table.name)) {
                numbers.insert(table.name, *next - first);
                *next += last - first + 1;
            }
        }
        let endpoint_number = endpoint_number(&*side).await?;
        own.push(Own { org, cell, numbers: Numbers(numbers), endpoint_number });
    }
    Ok(Box::new(Whole(Arc::new(Parts { shared, own }))))
}

fn numbered() -> impl Iterator<Item = &'static Table> {
    TABLES.iter().filter(|table| NUMBERED.contains(&table.name))
}

impl Parts {
    /// A row of the shared database, unless it belongs to somebody who is elsewhere: what a move has left behind, or a
    /// count that is older than that there.
    fn shown(&self, table: &Table, mut row: Row) -> Option<Row> {
        let org = row.first().and_then(Value::integer)?;
        let Ok(at) = self.own.binary_search_by_key(&org, |own| own.org) else { return Some(row) };
        if !BESIDE.contains(&table.name) && !WHO_IS_WHO.contains(&table.name) {
            return None;
        }
        if let Some(number) = table.at("endpoint_number").and_then(|at| row.get_mut(at)) {
            *number = Value::Integer(self.own.get(at)?.endpoint_number);
        }
        Some(row)
    }

    /// Reads one part, from a position in it. False when nobody reads any more.
    async fn read(
        &self,
        part: usize,
        table: &'static Table,
        after: Option<Position>,
        due: Timestamp,
        to: &Reading,
    ) -> Result<bool, Error> {
        let (side, mut batches);
        match part.checked_sub(1).and_then(|at| self.own.get(at)) {
            None => batches = self.shared.read(table, None, after, due),
            Some(own) => {
                side = self.shared.own(&own.cell).await?;
                let (org, numbers) = (own.org, own.numbers.clone());
                let view = View { side: &*side, org, left_out: COPIES, has_meta: false, numbers };
                batches = view.read(table, None, after, due);
            }
        }
        while let Some(Batch { rows, position }) = batches.next().await? {
            let rows: Vec<Row> =
                if part == 0 { rows.into_iter().filter_map(|row| self.shown(table, row)).collect() } else { rows };
            let which = Value::Integer(i64::try_from(part).unwrap_or(i64::MAX));
            let position = [which].into_iter().chain(position).collect();
            if !rows.is_empty() && !to.send(Batch { rows, position }).await {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads all parts, from a position on, which begins with the number of its part.
    async fn read_all(
        &self,
        table: &'static Table,
        after: Option<Position>,
        due: Timestamp,
        to: &Reading,
    ) -> Result<(), Error> {
        let part = after.as_ref().and_then(|after| after.first()).and_then(Value::integer).unwrap_or(0);
        let first = usize::try_from(part).unwrap_or(0);
        let mut after = after.map(|after| after.into_iter().skip(1).collect());
        for part in first..=self.own.len() {
            if !self.read(part, table, after.take(), due, to).await? {
                break;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Side for Whole {
    async fn meta(&self) -> Result<Meta, Error> {
        let mut meta = self.0.shared.meta().await?;
        for own in &self.0.own {
            let there = self.0.shared.own(&own.cell).await?.meta().await?;
            meta.extend(there.into_iter().filter(|(name, _)| name.starts_with(AUDIT_KEYS)));
        }
        Ok(meta)
    }

    async fn stamp(&self) -> Result<String, Error> {
        let mut stamps = vec![self.0.shared.stamp().await?];
        for own in &self.0.own {
            stamps.push(self.0.shared.own(&own.cell).await?.stamp().await?);
        }
        Ok(stamps.join(" / "))
    }

    async fn cells(&self) -> Result<Vec<Found>, Error> {
        self.0.shared.cells().await
    }

    async fn own(&self, cell: &Cell) -> Result<Box<dyn Side>, Error> {
        self.0.shared.own(cell).await
    }

    async fn count(&self, table: &'static Table) -> Result<u64, Error> {
        let mut count = self.0.shared.count(table).await?;
        for own in self.0.own.iter().filter(|_| !COPIES.contains(&table.name)) {
            count += self.0.shared.own(&own.cell).await?.count(table).await?;
        }
        Ok(count)
    }

    async fn ends(&self, table: &'static Table) -> Result<Option<(i64, i64)>, Error> {
        self.0.shared.ends(table).await
    }

    fn read(&self, table: &'static Table, _: Option<i64>, after: Option<Position>, due: Timestamp) -> Batches {
        let (reading, batches) = Batches::new();
        let parts = self.0.clone();
        tokio::spawn(async move {
            let read = parts.read_all(table, after, due, &reading).await;
            reading.end(read).await;
        });
        batches
    }

    async fn begin(&self, _: Meta) -> Result<(), Error> {
        Err(read_only())
    }

    async fn write(&self, _: &'static Table, _: Vec<Row>, _: Vec<u8>) -> Result<(), Error> {
        Err(read_only())
    }

    async fn complete(&self) -> Result<(), Error> {
        Err(read_only())
    }

    async fn finish(&self, _: Vec<u8>) -> Result<(), Error> {
        Err(read_only())
    }

    async fn is_alone(&self) -> Result<(), Error> {
        self.0.shared.is_alone().await
    }
}

fn read_only() -> Error {
    broken("a source was asked to be written").into()
}
