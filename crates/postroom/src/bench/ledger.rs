//! The unit of truth: what was sent, what was acknowledged, what arrived. It lives outside the server under test.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Entries are made in pieces of this size as they are needed.
const PIECE: usize = 1 << 16;
/// The most events of a run: 64 million.
const PIECES: usize = 1 << 10;

const ACCEPTED: u8 = 1;
const ALTERED: u8 = 2;
const MISDIRECTED: u8 = 4;
const REFUSED: u8 = 8;

#[derive(Default)]
struct Entry {
    flags: AtomicU8,
    /// How often it arrived, up to 255.
    arrived: AtomicU8,
}

/// What became of every event of a run, by its number.
pub struct Ledger {
    pieces: Box<[OnceLock<Box<[Entry]>>]>,
    next: AtomicU64,
    arrived_once: AtomicU64,
    strangers: AtomicU64,
    started: Instant,
    last_arrival_us: AtomicU64,
}

/// The ledger of some events, added up.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// Numbers given out: sent at least once.
    pub sent: u64,
    /// Acknowledged with 2xx.
    pub accepted: u64,
    /// Arrived at least once, whether acknowledged or not: a server that was killed may have stored what it could not
    /// acknowledge any more.
    pub delivered: u64,
    /// Acknowledged and never arrived.
    pub lost: u64,
    /// Arrived though never sent, or at another endpoint than its own.
    pub invented: u64,
    /// Arrived with other bytes than were sent.
    pub altered: u64,
    /// Arrived more than once.
    pub doubled: u64,
}

impl Ledger {
    /// An empty ledger.
    pub fn new() -> Self {
        Self {
            pieces: (0..PIECES).map(|_| OnceLock::new()).collect(),
            next: AtomicU64::new(0),
            arrived_once: AtomicU64::new(0),
            strangers: AtomicU64::new(0),
            started: Instant::now(),
            last_arrival_us: AtomicU64::new(0),
        }
    }

    /// The number of the next event, or `None` when the ledger is full.
    pub fn take_number(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number < (PIECE * PIECES) as u64 {
            Some(number)
        } else {
            self.next.fetch_sub(1, Ordering::Relaxed);
            None
        }
    }

    /// How many numbers were given out.
    pub fn sent(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// How many acknowledged or unacknowledged events arrived at least once.
    pub fn arrived(&self) -> u64 {
        self.arrived_once.load(Ordering::Relaxed)
    }

    /// When the newest first arrival was, since the ledger was made.
    pub fn last_arrival(&self) -> Duration {
        Duration::from_micros(self.last_arrival_us.load(Ordering::Relaxed))
    }

    /// The time since the ledger was made.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The server acknowledged this event.
    pub fn note_accepted(&self, number: u64) {
        if let Some(entry) = self.entry(number) {
            entry.flags.fetch_or(ACCEPTED, Ordering::Relaxed);
        }
    }

    /// This event arrived.
    pub fn note_arrival(&self, number: u64, intact: bool, at_its_endpoint: bool) {
        let entry = if number < self.sent() { self.entry(number) } else { None };
        let Some(entry) = entry else { return self.note_stranger() };
        let flags = if intact { 0 } else { ALTERED } | if at_its_endpoint { 0 } else { MISDIRECTED };
        if flags != 0 {
            entry.flags.fetch_or(flags, Ordering::Relaxed);
        }
        let more = |count: u8| Some(count.saturating_add(1));
        let before = entry.arrived.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).unwrap_or(u8::MAX);
        if before == 0 {
            self.arrived_once.fetch_add(1, Ordering::Relaxed);
            let now = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.last_arrival_us.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// Whether the receiver shall refuse this event now: only the first time it is asked.
    pub fn refuse_once(&self, number: u64) -> bool {
        self.entry(number).is_some_and(|entry| entry.flags.fetch_or(REFUSED, Ordering::Relaxed) & REFUSED == 0)
    }

    /// Something arrived that has no number of ours.
    pub fn note_stranger(&self) {
        self.strangers.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds up the events with these numbers.
    pub fn sum(&self, numbers: std::ops::Range<u64>) -> Sum {
        let mut sum = Sum {
            sent: numbers.end - numbers.start,
            invented: self.strangers.load(Ordering::Relaxed),
            ..Sum::default()
        };
        for entry in numbers.filter_map(|number| self.entry(number)) {
            let flags = entry.flags.load(Ordering::Relaxed);
            let arrived = entry.arrived.load(Ordering::Relaxed);
            let accepted = flags & ACCEPTED != 0;
            sum.accepted += u64::from(accepted);
            sum.delivered += u64::from(arrived > 0);
            sum.lost += u64::from(accepted && arrived == 0);
            sum.doubled += u64::from(arrived > 1);
            sum.altered += u64::from(flags & ALTERED != 0);
            sum.invented += u64::from(flags & MISDIRECTED != 0);
        }
        sum
    }

    /// Whether every acknowledged event among these arrived.
    pub fn all_arrived(&self, numbers: std::ops::Range<u64>) -> bool {
        self.sum(numbers).lost == 0
    }

    fn entry(&self, number: u64) -> Option<&Entry> {
        let index = usize::try_from(number).ok()?;
        let piece = self.pieces.get(index / PIECE)?;
        piece.get_or_init(|| (0..PIECE).map(|_| Entry::default()).collect()).get(index % PIECE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_invented_altered_and_doubled_events_are_told_apart() {
        let ledger = Ledger::new();
        let numbers: Vec<u64> = (0..7).map(|_| ledger.take_number().unwrap()).collect();
        for number in &numbers[..6] {
            ledger.note_accepted(*number);
        }
        ledger.note_arrival(0, true, true); // as it should be
        ledger.note_arrival(1, true, true); // twice
        ledger.note_arrival(1, true, true);
        ledger.note_arrival(2, false, true); // altered
        ledger.note_arrival(3, true, false); // at another endpoint
        ledger.note_arrival(6, true, true); // stored, but its acknowledgement was lost
        ledger.note_arrival(99, true, true); // never sent
        let sum = Sum { sent: 7, accepted: 6, delivered: 5, lost: 2, invented: 2, altered: 1, doubled: 1 };
        assert_eq!(ledger.sum(0..7), sum);
        assert!(!ledger.all_arrived(0..7));
        assert!(ledger.all_arrived(0..4));
        assert_eq!(ledger.arrived(), 5);
    }
}
