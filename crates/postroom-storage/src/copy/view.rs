//! One organization of a database, as one side of a copy: all that is its own, and its row, but not its API keys and
//! people, which stay where callers are proved, nor its audit log, which nobody takes away.

use async_trait::async_trait;
use postroom_domain::Timestamp;

use super::Error;
use super::side::{Batches, Meta, Side};
use super::table::{Batch, Position, Row, Table, Value, WHO_IS_WHO};

/// See the [module](self).
pub(super) struct View<'a> {
    pub(super) side: &'a dyn Side,
    pub(super) org: i64,
}

#[async_trait]
impl Side for View<'_> {
    async fn meta(&self) -> Result<Meta, Error> {
        let mut meta = self.side.meta().await?;
        // It begins a chain of its own.
        meta.retain(|name, _| !name.starts_with("audit_"));
        Ok(meta)
    }

    async fn stamp(&self) -> Result<String, Error> {
        self.side.stamp().await
    }

    async fn dedicated(&self) -> Result<i64, Error> {
        self.side.dedicated().await
    }

    async fn count(&self, table: &'static Table) -> Result<u64, Error> {
        self.side.count(table).await
    }

    fn read(&self, table: &'static Table, after: Option<Position>, due: Timestamp) -> Batches {
        let mut all = self.side.read(table, after, due);
        let (reading, batches) = Batches::new();
        let org = Value::Integer(self.org);
        tokio::spawn(async move {
            let is_seen = |row: &Row| !WHO_IS_WHO.contains(&table.name) && row.first() == Some(&org);
            let ended = loop {
                match all.next().await {
                    Err(error) => break Err(error),
                    Ok(None) => break Ok(()),
                    Ok(Some(Batch { mut rows, position })) => {
                        rows.retain(is_seen);
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
