//! How many connections an open database may take of its server: the shared one as many as a busy process needs, and at
//! all times; one organization's own a few, and next to none while nobody needs them.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::pool::{Part, Pool};

/// The two lanes into the log.
const LANES: usize = 2;
/// The one that answers whether the database can be used.
const PROBE: usize = 1;

/// What an open database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Footprint {
    /// Of all organizations without one of their own, and of who is who.
    Shared,
    /// Of one organization.
    Cell,
}

impl Footprint {
    /// How many connections a part has at most.
    pub(super) const fn connections(self, part: Part) -> usize {
        match (self, part) {
            (Self::Shared, Part::Authorizer | Part::Platform)
            | (Self::Cell, Part::Worker | Part::Api | Part::Platform) => 2,
            (Self::Shared, Part::Receiver | Part::DeadLetter) => 4,
            (Self::Shared, Part::Worker) => 6,
            (Self::Shared, Part::Api) => 8,
            (Self::Cell, Part::Authorizer | Part::Receiver | Part::DeadLetter) => 1,
        }
    }

    /// After how long without use a connection is given back, a pool's or a lane's.
    pub(super) fn idle(self) -> Option<Duration> {
        (self == Self::Cell).then_some(Duration::from_secs(10))
    }

    /// How often changes by other nodes are looked for: all nodes show them within a second.
    pub(super) fn look_every(self) -> Duration {
        Duration::from_millis(match self {
            Self::Shared => 400,
            Self::Cell => 600,
        })
    }

    fn total(self) -> usize {
        Part::ALL.into_iter().map(|part| self.connections(part)).sum::<usize>() + LANES
    }
}

/// How many connections a process takes of the database's server, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// In the shared database.
    pub shared: usize,
    /// In each organization's own, while that is open here.
    pub cell: usize,
}

/// See [`Connections`].
#[must_use]
pub fn connections() -> Connections {
    Connections { shared: Footprint::Shared.total() + PROBE, cell: Footprint::Cell.total() }
}

/// Closes connections of pools that nobody has used for so long, until `stop`.
pub(super) fn close_idle(pools: Vec<Pool>, idle: Duration, stop: CancellationToken) {
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(idle / 2) => pools.iter().for_each(|pool| pool.close_idle(idle)),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_documentation_says_of_connections_is_so() {
        assert_eq!(connections(), Connections { shared: 29, cell: 11 });
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/postgresql.md")).unwrap();
        for said in ["26 of its pools at most, and 3 beside them", "11 more for each organization"] {
            assert!(text.contains(said), "{said}");
        }
    }
}
