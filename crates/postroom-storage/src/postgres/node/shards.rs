//! Which waiting deliveries this node makes: those of endpoints in the shards that it leases.
//!
//! A shard that is to go to another node is first only left: nothing of it begins any more here. It is given back once
//! no attempt of it is under way, so that handing over sends nothing twice.

use std::collections::BTreeMap;

use foldhash::HashSet;

use crate::Handoff;
use crate::worker::{DeliveryKey, EndpointKey};

/// How many there are. The table has a row for each.
pub(super) const SHARDS: i64 = 64;

/// A leased shard.
#[derive(Debug, Default)]
struct Shard {
    /// Nothing of it begins any more.
    is_left: bool,
    /// Attempts that may be under way.
    under_way: HashSet<DeliveryKey>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Shards(BTreeMap<i64, Shard>);

/// The shard of an endpoint.
fn shard_of(endpoint: EndpointKey) -> i64 {
    endpoint.0.rem_euclid(SHARDS)
}

impl Shards {
    /// Those whose deliveries are made here.
    pub(super) fn held(&self) -> Vec<i64> {
        self.0.iter().filter(|(_, shard)| !shard.is_left).map(|(number, _)| *number).collect()
    }

    /// Whether waiting deliveries of an endpoint are made here.
    pub(super) fn holds(&self, endpoint: EndpointKey) -> bool {
        self.0.get(&shard_of(endpoint)).is_some_and(|shard| !shard.is_left)
    }

    /// Whether an attempt may begin; it is under way then.
    pub(super) fn admit(&mut self, delivery: DeliveryKey) -> bool {
        match self.0.get_mut(&shard_of(delivery.endpoint)) {
            Some(shard) if !shard.is_left => {
                shard.under_way.insert(delivery);
                true
            }
            _ => false,
        }
    }

    /// An attempt has ended.
    pub(super) fn ended(&mut self, delivery: DeliveryKey) {
        if let Some(shard) = self.0.get_mut(&shard_of(delivery.endpoint)) {
            shard.under_way.remove(&delivery);
        }
    }

    /// What the database says is leased now. Returns those that are new.
    pub(super) fn set(&mut self, leased: &[i64]) -> Vec<i64> {
        self.0.retain(|number, _| leased.contains(number));
        let fresh: Vec<i64> = leased.iter().copied().filter(|number| !self.0.contains_key(number)).collect();
        self.0.extend(fresh.iter().map(|number| (*number, Shard::default())));
        fresh
    }

    /// Leaves as many as are more than `share`, or takes back some that were left. Neighbours part: endpoints that were
    /// made one after the other are to be shared out too.
    pub(super) fn fit(&mut self, share: usize) {
        let mut all: Vec<_> = self.0.iter_mut().collect();
        all.sort_unstable_by_key(|(number, _)| number.reverse_bits().cast_unsigned());
        for (at, (_, shard)) in all.into_iter().enumerate() {
            shard.is_left = at >= share;
        }
    }

    /// Those that can be given back: left, and nothing under way.
    pub(super) fn done_with(&mut self, handoff: &dyn Handoff) -> Vec<i64> {
        for shard in self.0.values_mut().filter(|shard| shard.is_left) {
            shard.under_way.retain(|delivery| handoff.is_processing(*delivery));
        }
        let done = self.0.iter().filter(|(_, shard)| shard.is_left && shard.under_way.is_empty());
        done.map(|(number, _)| *number).collect()
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::EventKey;

    fn delivery(endpoint: i64) -> DeliveryKey {
        DeliveryKey { event: EventKey(1), endpoint: EndpointKey(endpoint), run: 0 }
    }

    struct Still;

    impl Handoff for Still {
        fn reserve(&self, _: EndpointKey, _: usize) -> bool {
            false
        }
        fn deliver(&self, _: std::sync::Arc<crate::worker::StoredEvent>, _: Vec<EndpointKey>) {}
        fn release(&self, _: EndpointKey, _: usize) {}
        fn wake(&self, _: EndpointKey) {}
        fn is_processing(&self, delivery: DeliveryKey) -> bool {
            delivery.endpoint.0 == 3
        }
        fn is_busy(&self, _: crate::worker::OrganizationKey) -> bool {
            false
        }
    }

    #[test]
    fn a_shard_is_given_back_when_nothing_of_it_is_under_way() {
        let mut shards = Shards::default();
        assert!(!shards.admit(delivery(1)));
        assert_eq!(shards.set(&[1, 2, 3]), [1, 2, 3]);
        for endpoint in [1, 2 + SHARDS, 3] {
            assert!(shards.admit(delivery(endpoint)));
        }
        shards.fit(1);
        assert_eq!(shards.held(), [2]);
        assert!(shards.admit(delivery(2)) && !shards.admit(delivery(1)));
        assert_eq!(shards.done_with(&Still), [1], "an attempt of 3 is under way");
        shards.ended(delivery(3));
        assert_eq!(shards.done_with(&Still), [1, 3]);
        assert_eq!(shards.set(&[1, 5]), [5]);
        assert_eq!(shards.held(), [5], "1 is still left");
    }
}
