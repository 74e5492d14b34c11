//! Figures for `/metrics` that nobody counts on the way.

use rusqlite::Connection;

use crate::Result;
use crate::platform::Gauge;

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
}

/// All figures.
pub(in crate::sqlite) fn read(connection: &Connection, known: Known) -> Result<Vec<Gauge>> {
    let mut gauges = vec![
        gauge("postroom_deliveries_pending", known.waiting.max(0).unsigned_abs()),
        gauge("postroom_dead_letters", known.dead.max(0).unsigned_abs()),
        gauge("postroom_storage_queue_events", u64::try_from(known.events).unwrap_or(u64::MAX)),
        gauge("postroom_storage_queue_settlements", u64::try_from(known.settlements).unwrap_or(u64::MAX)),
    ];
    let path = connection.path().unwrap_or_default();
    for (file, ending) in [("database", ""), ("wal", "-wal")] {
        // A file that is not there yet, or not any more, is an empty one.
        let bytes = std::fs::metadata(format!("{path}{ending}")).map_or(0, |metadata| metadata.len());
        let labels = vec![("file", file.to_owned())];
        gauges.push(Gauge { labels, ..gauge("postroom_storage_file_bytes", bytes) });
    }
    Ok(gauges)
}

fn gauge(name: &'static str, value: u64) -> Gauge {
    // Metrics are floating point: above 2^53 the figure is rounded.
    #[allow(clippy::cast_precision_loss)]
    let value = value as f64;
    Gauge { name, labels: Vec::new(), value }
}
