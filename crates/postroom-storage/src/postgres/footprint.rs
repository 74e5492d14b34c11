//! How many connections an open database may take of its server: the shared one as many as a busy process needs, and at
//! all times; one organization's own a few, and next to none while nobody needs them.

use std::time::Duration;

use super::pool::Part;

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
pub(super) struct Connections {
    /// In the shared database.
    pub(super) shared: usize,
    /// In each organization's own; those of all together are bounded, too.
    pub(super) cell: usize,
}

/// See [`Connections`].
pub(super) fn connections() -> Connections {
    Connections { shared: Footprint::Shared.total() + PROBE, cell: Footprint::Cell.total() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_documentation_says_of_connections_is_so() {
        assert_eq!(connections(), Connections { shared: 29, cell: 11 });
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/postgresql.md")).unwrap();
        for said in ["26 of its pools at most, and 3 beside them", "takes up to 11 of each process"] {
            assert!(text.contains(said), "{said}");
        }
    }
}
