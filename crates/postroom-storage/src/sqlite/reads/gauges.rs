//! Figures for `/metrics` that nobody counts on the way.

use crate::Result;
use crate::platform::Gauge;
use crate::sqlite::connection::Connection;

/// What the writer knows.
#[derive(Debug, Clone, Copy)]
pub(in crate::sqlite) struct Known {
    /// Deliveries that wait as exceptions.
    pub(in crate::sqlite) waiting: i64,
    /// Dead letters.
    pub(in crate::sqlite) dead: i64,
    /// Events that wait for the writer.
    pub(in crate::sqlite) events: usize,
    /// Settlements that wait for the writer.
    pub(in crate::sqlite) settlements: usize,
    /// Bytes of the write-ahead log that are in use.
    pub(in crate::sqlite) wal_bytes: u64,
}

/// All figures.
pub(in crate::sqlite) fn read(connection: &Connection, known: Known) -> Result<Vec<Gauge>> {
    let mut gauges = vec![
        gauge("postroom_deliveries_pending", known.waiting.max(0).unsigned_abs()),
        gauge("postroom_dead_letters", known.dead.max(0).unsigned_abs()),
        gauge("postroom_storage_queue_events", u64::try_from(known.events).unwrap_or(u64::MAX)),
        gauge("postroom_storage_wal_bytes", known.wal_bytes),
        gauge("postroom_storage_queue_settlements", u64::try_from(known.settlements).unwrap_or(u64::MAX)),
    ];
    let file = connection.path().and_then(|path| std::fs::metadata(path).ok());
    gauges.extend(file.map(|file| gauge("postroom_storage_database_bytes", file.len())));
    Ok(gauges)
}

fn gauge(name: &'static str, value: u64) -> Gauge {
    // Metrics are floating point: above 2^53 the figure is rounded.
    #[allow(clippy::cast_precision_loss)]
    let value = value as f64;
    Gauge { name, labels: Vec::new(), value }
}
