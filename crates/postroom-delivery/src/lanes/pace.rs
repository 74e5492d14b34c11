//! How much an endpoint gets at once, and how often.

use std::time::{Duration, Instant};

/// How many attempts to one endpoint may be in flight: one more for each round of successes in which all of them were
/// used, half as many for each round in which the endpoint had too much to do (additive increase, multiplicative
/// decrease).
#[derive(Debug)]
pub(crate) struct Concurrency {
    limit: usize,
    successes: usize,
    last_cut: Option<Instant>,
}

impl Concurrency {
    /// What a new endpoint starts with.
    pub(crate) const START: usize = 16;
    /// What a healthy one reaches.
    pub(crate) const MAX: usize = 64;

    pub(crate) fn new() -> Self {
        Self { limit: Self::START, successes: 0, last_cut: None }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// An attempt succeeded; `was_full` says whether the limit is what held more of them back.
    pub(crate) fn succeeded(&mut self, was_full: bool) {
        if !was_full {
            return;
        }
        self.successes += 1;
        if self.successes >= self.limit {
            self.successes = 0;
            self.limit = (self.limit + 1).min(Self::MAX);
        }
    }

    /// An attempt that began at `started` showed overload. Attempts that began before the last cut knew nothing of it,
    /// so they cut no further.
    pub(crate) fn overloaded(&mut self, started: Instant, now: Instant) {
        if self.last_cut.is_none_or(|cut| started >= cut) {
            self.limit = (self.limit / 2).max(1);
            self.successes = 0;
            self.last_cut = Some(now);
        }
    }
}

/// At most so many attempts a second: in every span of one second, not only on average.
#[derive(Debug)]
pub(crate) struct RateLimit {
    per_second: u32,
    interval: Duration,
    /// How far ahead of an even pace attempts may run, so that fast limits do not hang on the timer's milliseconds.
    tolerance: Duration,
    /// When the next attempt would be due at an even pace.
    next: Option<Instant>,
}

impl RateLimit {
    pub(crate) fn new(per_second: u32) -> Self {
        let per_second = per_second.max(1);
        let burst = (per_second / 50).max(1);
        // The burst is taken out of the pace: burst - 1 at once and the rest evenly make `per_second` in a second.
        let interval = Duration::from_nanos(1_000_000_000_u64.div_ceil(u64::from(per_second - (burst - 1))));
        Self { per_second, interval, tolerance: interval * (burst - 1), next: None }
    }

    pub(crate) fn per_second(&self) -> u32 {
        self.per_second
    }

    /// When the next attempt may begin; `None` is now.
    pub(crate) fn wait_until(&self, now: Instant) -> Option<Instant> {
        let earliest = self.next?.checked_sub(self.tolerance)?;
        (earliest > now).then_some(earliest)
    }

    /// Counts an attempt that begins now.
    pub(crate) fn take(&mut self, now: Instant) {
        self.next = Some(self.next.map_or(now, |next| next.max(now)) + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrency_grows_slowly_while_it_is_used_and_halves_once_for_each_round_of_trouble() {
        let start = Instant::now();
        let mut pace = Concurrency::new();
        for _ in 0..1000 {
            pace.succeeded(false);
        }
        assert_eq!(pace.limit(), 16, "not used, not grown");
        for _ in 0..16 {
            pace.succeeded(true);
        }
        assert_eq!(pace.limit(), 17);
        for _ in 0..10_000 {
            pace.succeeded(true);
        }
        assert_eq!(pace.limit(), Concurrency::MAX);
        let cut = start + Duration::from_secs(1);
        for _ in 0..64 {
            pace.overloaded(start, cut);
        }
        assert_eq!(pace.limit(), 32, "64 attempts that began together are one sign");
        for round in 1..10 {
            pace.overloaded(cut + Duration::from_secs(round), cut + Duration::from_secs(round));
        }
        assert_eq!(pace.limit(), 1);
    }

    proptest::proptest! {
        #[test]
        fn no_second_has_more_attempts_than_allowed(per_second in 1_u32..=10_000, gaps in proptest::collection::vec(0_u64..2_000_000, 100)) {
            let mut rate = RateLimit::new(per_second);
            let mut now = Instant::now();
            let mut begun = Vec::new();
            for gap in gaps {
                now += Duration::from_nanos(gap);
                for _ in 0..per_second.min(300) {
                    if rate.wait_until(now).is_none() {
                        rate.take(now);
                        begun.push(now);
                    }
                }
                if let Some(at) = rate.wait_until(now) {
                    now = at;
                }
            }
            for (i, first) in begun.iter().enumerate() {
                let within = begun[i..].iter().take_while(|at| at.duration_since(*first) < Duration::from_secs(1)).count();
                proptest::prop_assert!(within <= per_second as usize, "{within} of {per_second}");
            }
            proptest::prop_assert!(!begun.is_empty());
        }
    }

    #[test]
    fn a_limit_is_used_to_the_full() {
        for per_second in [1, 2, 7, 50, 51, 1000, 9999, 10_000] {
            let (start, mut rate) = (Instant::now(), RateLimit::new(per_second));
            let (mut now, mut count) = (start, 0);
            while now < start + Duration::from_secs(10) {
                match rate.wait_until(now) {
                    // The runtime's timer has a grain of a millisecond.
                    Some(at) => now = at + Duration::from_millis(1),
                    None => {
                        rate.take(now);
                        count += 1;
                    }
                }
            }
            assert!(count * 10 >= per_second * 95, "{count} in 10 s of {per_second} a second");
        }
    }
}
