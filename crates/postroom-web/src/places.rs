//! How many of something there may be at one moment, in all and for each owner.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// Places for connections, or for streams.
pub(crate) struct Places<K: Eq + Hash>(Arc<Shared<K>>);

struct Shared<K> {
    total_max: usize,
    each_max: usize,
    taken: Mutex<Taken<K>>,
}

struct Taken<K> {
    total: usize,
    each: HashMap<K, usize>,
}

/// A place, given back when dropped.
pub(crate) struct Place<K: Eq + Hash> {
    places: Arc<Shared<K>>,
    owner: K,
}

impl<K: Eq + Hash + Copy> Places<K> {
    pub fn new(total_max: usize, each_max: usize) -> Self {
        let taken = Mutex::new(Taken { total: 0, each: HashMap::new() });
        Self(Arc::new(Shared { total_max, each_max, taken }))
    }

    /// A place, if there is one left for this owner.
    pub fn take(&self, owner: K) -> Option<Place<K>> {
        let mut taken = self.0.taken.lock();
        let of_owner = taken.each.get(&owner).copied().unwrap_or(0);
        if taken.total >= self.0.total_max || of_owner >= self.0.each_max {
            return None;
        }
        taken.total += 1;
        taken.each.insert(owner, of_owner + 1);
        Some(Place { places: self.0.clone(), owner })
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.total -= 1;
        if let Some(count) = taken.each.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                taken.each.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_for_each_owner_and_are_given_back() {
        let places = Places::new(3, 2);
        let first = places.take('a').unwrap();
        let _second = places.take('a').unwrap();
        assert!(places.take('a').is_none(), "two of one owner");
        let third = places.take('b').unwrap();
        assert!(places.take('b').is_none(), "three in all");
        drop(first);
        let _fourth = places.take('b').unwrap();
        drop(third);
        assert_eq!(places.0.taken.lock().each, HashMap::from([('a', 1), ('b', 1)]));
    }
}
