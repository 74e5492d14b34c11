//! Which deliveries of recorded events are still only in memory, and so how far the log is settled.
//!
//! The watermark is the last place in the log up to which every delivery is settled or has an exception row: after a
//! crash only what lies above it has to be looked at.

use std::collections::VecDeque;

use crate::worker::EndpointKey;

/// One recorded event.
#[derive(Debug)]
pub(super) struct Unsettled {
    pub(super) org: i64,
    /// When it was recorded, in milliseconds.
    recorded_at: i64,
    /// Endpoints whose delivery is in memory.
    endpoints: Vec<EndpointKey>,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Outstanding {
    /// Place in the log of the first entry.
    front: i64,
    entries: VecDeque<Unsettled>,
}

impl Outstanding {
    /// Nothing is in memory; the next event to be recorded gets the place `next`.
    pub(super) fn new(next: i64) -> Self {
        Self { front: next, entries: VecDeque::new() }
    }

    /// An event was recorded at the next place.
    pub(super) fn push(&mut self, seq: i64, org: i64, recorded_at: i64, endpoints: Vec<EndpointKey>) {
        debug_assert_eq!(seq, self.front + i64::try_from(self.entries.len()).unwrap_or(i64::MAX));
        self.entries.push_back(Unsettled { org, recorded_at, endpoints });
    }

    fn at(&mut self, seq: i64) -> Option<&mut Unsettled> {
        usize::try_from(seq.checked_sub(self.front)?).ok().and_then(|index| self.entries.get_mut(index))
    }

    /// Takes a delivery out, if it is here.
    pub(super) fn settle(&mut self, seq: i64, endpoint: EndpointKey) -> bool {
        let Some(entry) = self.at(seq) else { return false };
        let Some(index) = entry.endpoints.iter().position(|known| *known == endpoint) else { return false };
        entry.endpoints.swap_remove(index);
        true
    }

    /// Puts a delivery back: what settled it was not committed.
    pub(super) fn unsettle(&mut self, seq: i64, endpoint: EndpointKey) {
        if let Some(entry) = self.at(seq) {
            entry.endpoints.push(endpoint);
        }
    }

    /// The watermark. Forgets what lies below it.
    pub(super) fn watermark(&mut self) -> i64 {
        while self.entries.front().is_some_and(|entry| entry.endpoints.is_empty()) {
            self.entries.pop_front();
            self.front += 1;
        }
        self.front - 1
    }

    /// Deliveries of events recorded before `before`, oldest first, at most `limit`. A clock that was set back by more
    /// than a second makes events look as if they were yet to come: those count as old too.
    pub(super) fn older_than(&self, before: i64, now: i64, limit: usize) -> Vec<(i64, i64, EndpointKey)> {
        let old = |entry: &Unsettled| entry.recorded_at <= before || entry.recorded_at > now + 1000;
        self.entries
            .iter()
            .zip(self.front..)
            .take_while(|(entry, _)| entry.endpoints.is_empty() || old(entry))
            .flat_map(|(entry, seq)| entry.endpoints.iter().map(move |endpoint| (seq, entry.org, *endpoint)))
            .take(limit)
            .collect()
    }

    /// Whether anything is in memory.
    pub(super) fn is_empty(&mut self) -> bool {
        self.watermark();
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: EndpointKey = EndpointKey(1);
    const B: EndpointKey = EndpointKey(2);

    #[test]
    fn the_watermark_stops_before_the_first_unsettled_delivery() {
        let mut outstanding = Outstanding::new(11);
        assert_eq!(outstanding.watermark(), 10);
        outstanding.push(11, 1, 0, vec![A, B]);
        outstanding.push(12, 1, 0, vec![A]);
        outstanding.push(13, 1, 0, Vec::new());
        assert!(outstanding.settle(12, A));
        assert!(!outstanding.settle(12, A), "settled twice");
        assert_eq!(outstanding.watermark(), 10);
        assert!(outstanding.settle(11, A));
        assert!(outstanding.settle(11, B));
        outstanding.unsettle(11, B);
        assert_eq!(outstanding.watermark(), 10);
        assert!(outstanding.settle(11, B));
        assert_eq!(outstanding.watermark(), 13);
        assert!(outstanding.is_empty());
        assert!(!outstanding.settle(11, A), "below the watermark");
    }

    #[test]
    fn old_deliveries_are_found_oldest_first_and_a_clock_set_back_makes_old() {
        let mut outstanding = Outstanding::new(1);
        outstanding.push(1, 7, 1_000, vec![A, B]);
        outstanding.push(2, 7, 2_000, vec![A]);
        assert_eq!(outstanding.older_than(1_500, 9_000, 10), [(1, 7, A), (1, 7, B)]);
        assert_eq!(outstanding.older_than(1_500, 9_000, 1), [(1, 7, A)]);
        assert_eq!(outstanding.older_than(-9_000, -5_000, 10).len(), 3);
    }
}
