//! What a node accepted and is not yet settled, and what it has not yet counted: everything that would have to be found
//! out from the log if it died now.
//!
//! The watermark is a transaction number: everything that this node accepted in transactions before it is settled or has
//! an exception. Numbers of one node's batches ascend, because one lane writes them one after the other.

use std::collections::{BTreeMap, VecDeque};

use foldhash::{HashMap, HashSet};

use crate::worker::{DeliveryKey, EndpointKey, EventKey};

/// One transaction of the ingest lane.
#[derive(Debug)]
struct Batch {
    tx: i64,
    /// In milliseconds.
    recorded_at: i64,
    /// Deliveries that are neither settled nor exceptions.
    unsettled: usize,
    events: Vec<EventKey>,
}

/// An event with deliveries that are only in memory.
#[derive(Debug)]
struct Unsettled {
    batch: u64,
    org: i64,
    endpoints: Vec<EndpointKey>,
}

/// A delivery that was taken out to be settled. It holds the watermark back until [`Ledger::settled`] says that what
/// settles it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::postgres) struct Taken {
    batch: u64,
    org: i64,
    delivery: DeliveryKey,
}

impl Taken {
    /// Whose it is.
    pub(in crate::postgres) fn org(&self) -> i64 {
        self.org
    }

    /// Which delivery.
    pub(in crate::postgres) fn delivery(&self) -> DeliveryKey {
        self.delivery
    }
}

/// How far a node has come, to be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::postgres) struct Mark {
    /// See the [module](self).
    pub(in crate::postgres) watermark: i64,
    /// Everything before this transaction is in `counts` or was counted before.
    pub(in crate::postgres) counted: i64,
    /// Events to add to each organization's month, its first millisecond.
    pub(in crate::postgres) counts: Vec<((i64, i64), i64)>,
}

/// See the [module](self).
#[derive(Debug)]
pub(in crate::postgres) struct Ledger {
    /// Number of the first batch.
    front: u64,
    batches: VecDeque<Batch>,
    events: HashMap<EventKey, Unsettled>,
    /// The next batch of this node has this transaction number or a higher one.
    upto: i64,
    counts: BTreeMap<(i64, i64), i64>,
}

impl Ledger {
    /// Nothing was accepted yet; what will be is in transactions from `upto` on.
    pub(in crate::postgres) fn new(upto: i64) -> Self {
        Self { front: 0, batches: VecDeque::new(), events: HashMap::default(), upto, counts: BTreeMap::new() }
    }

    /// Begins anew under another node: what is in here is no longer this node's to settle.
    pub(in crate::postgres) fn reset(&mut self, upto: i64) {
        // Numbers of batches go on, so that what was taken from here before changes nothing.
        let front = self.front + u64::try_from(self.batches.len()).unwrap_or(0);
        *self = Self { front, ..Self::new(upto) };
    }

    /// Whether everything is settled, or about to be.
    pub(in crate::postgres) fn is_empty(&self) -> bool {
        self.batches.iter().all(|batch| batch.unsettled == 0)
    }

    /// Whether nothing of an organization is here that has not been taken out.
    pub(in crate::postgres) fn is_without(&self, org: i64) -> bool {
        self.events.values().all(|event| event.org != org)
    }

    /// Takes out deliveries of these organizations, at most `limit`.
    pub(in crate::postgres) fn take_of(&mut self, orgs: &HashSet<i64>, limit: usize) -> Vec<Taken> {
        let theirs = self.events.iter().filter(|(_, event)| orgs.contains(&event.org));
        let deliveries: Vec<DeliveryKey> = theirs
            .flat_map(|(key, event)| event.endpoints.iter().map(|to| (*key, *to)))
            .map(|(event, endpoint)| DeliveryKey { event, endpoint, run: 0 })
            .take(limit)
            .collect();
        deliveries.into_iter().filter_map(|delivery| self.take(delivery)).collect()
    }

    /// A batch was committed: its events with the deliveries that are in memory, and how many events to count for whom.
    pub(in crate::postgres) fn push(
        &mut self,
        tx: i64,
        recorded_at: i64,
        events: impl Iterator<Item = (EventKey, i64, Vec<EndpointKey>)>,
        counts: impl Iterator<Item = ((i64, i64), i64)>,
    ) {
        let number = self.front + u64::try_from(self.batches.len()).unwrap_or(0);
        let mut batch = Batch { tx, recorded_at, unsettled: 0, events: Vec::new() };
        for (key, org, endpoints) in events.filter(|(_, _, endpoints)| !endpoints.is_empty()) {
            batch.unsettled += endpoints.len();
            batch.events.push(key);
            self.events.insert(key, Unsettled { batch: number, org, endpoints });
        }
        self.batches.push_back(batch);
        self.upto = self.upto.max(tx + 1);
        for (of, more) in counts {
            *self.counts.entry(of).or_default() += more;
        }
    }

    /// Whether there are events of this organization to be counted.
    pub(in crate::postgres) fn counts(&self, org: i64) -> bool {
        self.counts.range((org, i64::MIN)..=(org, i64::MAX)).next().is_some()
    }

    /// Whether a delivery is in memory, and neither settled nor about to be.
    pub(in crate::postgres) fn holds(&self, delivery: DeliveryKey) -> bool {
        delivery.run == 0
            && self.events.get(&delivery.event).is_some_and(|event| event.endpoints.contains(&delivery.endpoint))
    }

    /// Takes a delivery out to settle it, if it is here.
    pub(in crate::postgres) fn take(&mut self, delivery: DeliveryKey) -> Option<Taken> {
        if delivery.run != 0 {
            return None;
        }
        let event = self.events.get_mut(&delivery.event)?;
        let index = event.endpoints.iter().position(|known| *known == delivery.endpoint)?;
        event.endpoints.swap_remove(index);
        let taken = Taken { batch: event.batch, org: event.org, delivery };
        if event.endpoints.is_empty() {
            self.events.remove(&delivery.event);
        }
        Some(taken)
    }

    /// What settles a delivery is durable.
    pub(in crate::postgres) fn settled(&mut self, taken: Taken) {
        if let Some(batch) = self.batch(taken.batch) {
            batch.unsettled -= 1;
        }
        while self.batches.front().is_some_and(|batch| batch.unsettled == 0) {
            self.batches.pop_front();
            self.front += 1;
        }
    }

    /// Puts a delivery back: what would have settled it is not known to be stored.
    pub(in crate::postgres) fn put_back(&mut self, taken: Taken) {
        if self.batch(taken.batch).is_none() {
            return;
        }
        let Taken { batch, org, delivery } = taken;
        let event = self.events.entry(delivery.event);
        event.or_insert_with(|| Unsettled { batch, org, endpoints: Vec::new() }).endpoints.push(delivery.endpoint);
    }

    fn batch(&mut self, number: u64) -> Option<&mut Batch> {
        usize::try_from(number.checked_sub(self.front)?).ok().and_then(|index| self.batches.get_mut(index))
    }

    /// Takes out deliveries of events recorded before `before`, oldest first, at most `limit`. A clock that was set back
    /// by more than a second makes events look as if they were yet to come: those count as old too.
    pub(in crate::postgres) fn take_older_than(&mut self, before: i64, now: i64, limit: usize) -> Vec<Taken> {
        let old = |batch: &&Batch| batch.recorded_at <= before || batch.recorded_at > now + 1000;
        let deliveries: Vec<DeliveryKey> = self
            .batches
            .iter()
            .take_while(old)
            .flat_map(|batch| &batch.events)
            .filter_map(|key| self.events.get(key).map(|event| (*key, event)))
            .flat_map(|(key, event)| event.endpoints.iter().map(move |to| (key, *to)))
            .map(|(event, endpoint)| DeliveryKey { event, endpoint, run: 0 })
            .take(limit)
            .collect();
        deliveries.into_iter().filter_map(|delivery| self.take(delivery)).collect()
    }

    /// The watermark, and up to where events are counted here.
    pub(in crate::postgres) fn reaches(&self) -> (i64, i64) {
        let unsettled = self.batches.iter().find(|batch| batch.unsettled > 0);
        (unsettled.map_or(self.upto, |batch| batch.tx), self.upto)
    }

    /// What to write down now. The counts are taken out: who gets them has to see them stored.
    pub(in crate::postgres) fn mark(&mut self) -> Mark {
        let (watermark, counted) = self.reaches();
        Mark { watermark, counted, counts: std::mem::take(&mut self.counts).into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: EndpointKey = EndpointKey(1);
    const B: EndpointKey = EndpointKey(2);

    fn of(event: u128, endpoint: EndpointKey) -> DeliveryKey {
        DeliveryKey { event: EventKey(event), endpoint, run: 0 }
    }

    fn push(ledger: &mut Ledger, tx: i64, at: i64, event: u128, endpoints: &[EndpointKey]) {
        let events = [(EventKey(event), 7, endpoints.to_vec())];
        ledger.push(tx, at, events.into_iter(), [((7, 0), 1)].into_iter());
    }

    #[test]
    fn the_watermark_stops_before_the_first_delivery_whose_settlement_is_not_durable() {
        let mut ledger = Ledger::new(10);
        assert_eq!(ledger.mark().watermark, 10);
        push(&mut ledger, 15, 0, 1, &[A, B]);
        push(&mut ledger, 18, 0, 2, &[A]);
        push(&mut ledger, 21, 0, 3, &[]);
        let taken = ledger.take(of(2, A)).unwrap();
        assert_eq!(ledger.take(of(2, A)), None, "taken twice");
        ledger.settled(taken);
        assert_eq!(ledger.mark().watermark, 15);
        let (a, b) = (ledger.take(of(1, A)).unwrap(), ledger.take(of(1, B)).unwrap());
        assert!(!ledger.holds(of(1, B)));
        ledger.settled(a);
        assert_eq!(ledger.mark().watermark, 15, "taken is not settled");
        ledger.put_back(b);
        assert!(ledger.holds(of(1, B)));
        let b = ledger.take(of(1, B)).unwrap();
        ledger.settled(b);
        assert_eq!(ledger.mark().watermark, 22);
    }

    #[test]
    fn events_are_counted_once_up_to_the_mark() {
        let mut ledger = Ledger::new(10);
        push(&mut ledger, 15, 0, 1, &[A]);
        push(&mut ledger, 16, 0, 2, &[A]);
        assert_eq!(ledger.mark(), Mark { watermark: 15, counted: 17, counts: vec![((7, 0), 2)] });
        assert_eq!(ledger.mark(), Mark { watermark: 15, counted: 17, counts: vec![] });
    }

    #[test]
    fn old_deliveries_are_taken_oldest_first_and_a_clock_set_back_makes_old() {
        let mut ledger = Ledger::new(1);
        push(&mut ledger, 1, 1_000, 1, &[A, B]);
        push(&mut ledger, 2, 2_000, 2, &[A]);
        assert_eq!(ledger.take_older_than(500, 9_000, 10), []);
        let old = ledger.take_older_than(1_500, 9_000, 1);
        assert_eq!(old[0].delivery(), of(1, A));
        assert_eq!(ledger.take_older_than(1_500, 9_000, 10).len(), 1, "what was taken is not taken again");
        assert_eq!(ledger.take_older_than(-9_000, -5_000, 10).len(), 1);
    }

    #[test]
    fn an_organizations_deliveries_are_taken_alone() {
        let mut ledger = Ledger::new(1);
        push(&mut ledger, 1, 0, 1, &[A, B]);
        let other = [(EventKey(2), 8, vec![A])];
        ledger.push(2, 0, other.into_iter(), std::iter::empty());
        let [seven, eight] = [7, 8].map(|org| HashSet::from_iter([org]));
        let taken = ledger.take_of(&seven, 1).into_iter().chain(ledger.take_of(&seven, 10)).collect::<Vec<_>>();
        assert_eq!((taken.len(), ledger.take_of(&seven, 10).len()), (2, 0));
        assert!(ledger.is_without(7) && !ledger.is_without(8));
        ledger.put_back(taken[0]);
        assert!(!ledger.is_without(7), "what settles it is not stored");
        assert_eq!(ledger.take_of(&eight, 10)[0].delivery(), of(2, A));
    }

    #[test]
    fn what_was_taken_before_a_new_beginning_changes_nothing_after_it() {
        let mut ledger = Ledger::new(1);
        push(&mut ledger, 1, 0, 1, &[A, B]);
        let (a, b) = (ledger.take(of(1, A)).unwrap(), ledger.take(of(1, B)).unwrap());
        ledger.reset(50);
        push(&mut ledger, 60, 0, 9, &[A]);
        ledger.settled(a);
        ledger.put_back(b);
        assert!(!ledger.holds(of(1, B)));
        assert_eq!(ledger.mark().watermark, 60);
    }
}
