//! Figures for `/metrics` that nobody counts on the way.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::Result;
use crate::platform::Gauge;
use crate::postgres::Postgres;
use crate::postgres::convert::get;
use crate::postgres::pool::bind;

/// Index: exceptions_by_state, whole: its cost grows with what waits and what is dead.
const EXCEPTIONS: &str = "select count(*) filter (where state = 'waiting'), \
     count(*) filter (where state = 'dead_letter') from exceptions";

/// Tables with their indexes. The size of the database as a whole is for those who may connect to it, and the part's role
/// logs in as somebody else.
const SIZE: &str = "select coalesce(sum(pg_total_relation_size(oid)), 0)::bigint from pg_class \
     where relnamespace = 'public'::regnamespace and relkind = 'r'";

/// How many times as long as it took to count is waited before it is counted again.
const SHARE: u32 = 100;

/// What was counted last.
#[derive(Debug, Default)]
pub(in crate::postgres) struct Counted(Mutex<Option<(Instant, Count)>>);

#[derive(Debug, Clone, Copy)]
struct Count {
    waiting: i64,
    dead: i64,
    bytes: i64,
}

impl Postgres {
    /// All figures.
    pub(in crate::postgres) async fn figures(&self) -> Result<Vec<Gauge>> {
        let Count { waiting, dead, bytes } = self.count().await?;
        let mut gauges = vec![
            gauge("postroom_deliveries_pending", Vec::new(), waiting),
            gauge("postroom_dead_letters", Vec::new(), dead),
            gauge("postroom_storage_database_bytes", Vec::new(), bytes),
            gauge("postroom_storage_queue_events", Vec::new(), length(self.0.lanes.events())),
            gauge("postroom_storage_queue_settlements", Vec::new(), length(self.0.lanes.settlements())),
        ];
        for (part, pool) in self.0.pools.all() {
            let (most, open, lent) = pool.status();
            for (state, connections) in [("allowed", most), ("open", open), ("in_use", lent)] {
                let labels = vec![("role", part.role().to_owned()), ("state", state.to_owned())];
                let connections = i64::try_from(connections).unwrap_or(i64::MAX);
                gauges.push(gauge("postroom_storage_connections", labels, connections));
            }
        }
        Ok(gauges)
    }

    async fn count(&self) -> Result<Count> {
        if let Some((again, count)) = *self.0.counted.0.lock()
            && Instant::now() < again
        {
            return Ok(count);
        }
        let began = Instant::now();
        let connection = self.0.pools.platform.connection().await?;
        let (mut count, rows) = (Count { waiting: 0, dead: 0, bytes: 0 }, connection.query(EXCEPTIONS, bind![]).await?);
        for row in &rows {
            (count.waiting, count.dead) = (get(row, 0)?, get(row, 1)?);
        }
        for row in &connection.query(SIZE, bind![]).await? {
            count.bytes = get(row, 0)?;
        }
        let again = Instant::now() + began.elapsed().min(Duration::from_secs(30)) * SHARE;
        *self.0.counted.0.lock() = Some((again, count));
        Ok(count)
    }
}

fn length(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

fn gauge(name: &'static str, labels: Vec<(&'static str, String)>, value: i64) -> Gauge {
    // Metrics are floating point: above 2^53 the figure is rounded.
    #[allow(clippy::cast_precision_loss)]
    let value = value.max(0) as f64;
    Gauge { name, labels, value }
}
