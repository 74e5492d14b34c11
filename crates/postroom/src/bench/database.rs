//! What a load costs the database's server: its processor time, when it runs on this machine, and its write-ahead log.

use std::fs;
use std::time::Duration;

use postroom_domain::Secret;
use postroom_storage::postgres::Meter;

use super::child::{cpu_ticks, seconds, stat};

/// How long the server may take to say.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads the figures of one server; see the [module](self).
pub struct Gauge {
    meter: Meter,
    /// The process that started all of the server's others; `None` on another machine.
    postmaster: Option<u32>,
}

/// Sums so far; differences of two are what something cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Processor time of all the server's processes.
    pub cpu_seconds: Option<f64>,
    /// Bytes of write-ahead log.
    pub wal_bytes: Option<u64>,
}

impl Cost {
    /// What it cost since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds.zip(before.cpu_seconds).map(|(after, before)| after - before),
            wal_bytes: self.wal_bytes.zip(before.wal_bytes).map(|(after, before)| after.saturating_sub(before)),
        }
    }
}

impl Gauge {
    /// Connects, and looks whether the server runs here.
    pub async fn connect(url: &Secret) -> anyhow::Result<Self> {
        let meter = Meter::connect(url).await?;
        let postmaster = meter.process().await.and_then(parent_here);
        Ok(Self { meter, postmaster })
    }

    /// The sums of this moment.
    pub async fn cost(&self) -> Cost {
        // A server that is gone without a word never says.
        let wal_bytes = tokio::time::timeout(PATIENCE, self.meter.wal_bytes()).await.ok().flatten();
        Cost { cpu_seconds: self.postmaster.and_then(cpu_seconds), wal_bytes }
    }
}

/// The parent of a server process of this number, if this machine has one: on another machine the number is some other
/// program's here, or nobody's.
fn parent_here(backend: u32) -> Option<u32> {
    let title = fs::read(format!("/proc/{backend}/cmdline")).ok()?;
    if !title.starts_with(b"postgres: ") {
        return None;
    }
    stat(backend)?.get(1)?.parse().ok()
}

/// Of the parent and all its children; of those that have ended since, too.
fn cpu_seconds(postmaster: u32) -> Option<f64> {
    let parent = postmaster.to_string();
    let ended: u64 = stat(postmaster)?.get(13..15)?.iter().filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    let mut ticks = ended + cpu_ticks(&stat(postmaster)?)?;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that ends while it is looked at is counted by its parent.
        let fields = stat(pid).unwrap_or_default();
        if fields.get(1) == Some(&parent) {
            ticks += cpu_ticks(&fields).unwrap_or_default();
        }
    }
    Some(seconds(ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_no_database_server() {
        assert_eq!(parent_here(std::process::id()), None);
        assert_eq!(parent_here(u32::MAX), None);
    }

    #[test]
    fn processor_time_of_a_process_counts_and_grows() {
        let before = cpu_seconds(std::process::id()).unwrap();
        let mut mixed = 1_u64;
        while cpu_seconds(std::process::id()).unwrap() <= before {
            (0..1_000_000).for_each(|n| mixed = mixed.wrapping_mul(31).wrapping_add(n));
        }
        assert_ne!(mixed, 0);
    }
}
