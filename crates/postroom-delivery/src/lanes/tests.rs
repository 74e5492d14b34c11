use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::AbortHandle;
use postroom_domain::delivery::DeadReason;
use postroom_domain::egress::Policy;
use postroom_domain::endpoint::{EndpointSettings, EndpointUrl, SignatureScheme};
use postroom_domain::{EndpointId, EventId, OrganizationId, Timestamp};
use postroom_storage::worker::{DeliveryKey, Endpoint, EndpointKey, EventKey, OrganizationKey, StoredEvent};
use proptest::prelude::*;

use super::state::{Held, Sign, State, Turn};
use super::{Job, LaneLimits};
use crate::client::Client;
use crate::prepared::Prepared;

const LIMITS: LaneLimits = LaneLimits {
    lane_items: 1024,
    lane_bytes: 1 << 20,
    items: 5000,
    bytes: 64 << 20,
    stored: 200,
    stored_bytes: 1 << 20,
    in_flight: 1000,
    settling: 1000,
};
const CLOCK: Timestamp = Timestamp::ZERO;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

fn event_key(number: i64) -> EventKey {
    EventKey::new(number.unsigned_abs().into())
}

/// Endpoint `e` belongs to organization `e / 100`.
fn job(endpoint: i64, event: i64, bytes: usize, stored: bool) -> Job {
    let event = StoredEvent {
        key: event_key(event),
        organization: OrganizationKey::new(endpoint / 100),
        id: EventId::floor(CLOCK),
        event_type: "a".to_owned(),
        headers: Vec::new(),
        body: Bytes::from(vec![0; bytes]),
    };
    let delivery = event.delivery(EndpointKey::new(endpoint));
    Job { delivery, event: Arc::new(event), attempts: 0, attempts_of_schedule: 0, stored }
}

fn prepared(endpoint: i64, rate_limit: Option<u32>) -> Arc<Prepared> {
    let settings = EndpointSettings {
        url: EndpointUrl::parse("https://example.com/").unwrap(),
        description: String::new(),
        event_types: Vec::new(),
        source_ids: Vec::new(),
        filter: None,
        retry_schedule: None,
        timeout_ms: None,
        rate_limit,
        headers: Vec::new(),
        signature: SignatureScheme::HmacSha256,
    };
    let endpoint = Endpoint {
        organization: OrganizationKey::new(endpoint / 100),
        organization_id: OrganizationId::floor(CLOCK),
        id: EndpointId::floor(CLOCK),
        number: 1,
        settings,
        signer: Err("not needed here".to_owned()),
        blocked: None::<DeadReason>,
    };
    let client = Client::new(Arc::new(Policy::default()), "Postroom/1", None).unwrap();
    Arc::new(Prepared::new(Arc::new(endpoint), &client))
}

/// A state, and what the dispatcher would do with it.
struct Bench {
    state: State,
    now: Instant,
    popped: Vec<Job>,
}

impl Bench {
    fn new(limits: LaneLimits) -> Self {
        Self { state: State::new(limits), now: Instant::now(), popped: Vec::new() }
    }

    fn open(&mut self, endpoint: i64) {
        let key = EndpointKey::new(endpoint);
        self.state.lane(key, self.now);
        self.state.configured(key, prepared(endpoint, None), self.now);
    }

    fn fresh(&mut self, endpoint: i64, seq: i64, bytes: usize) -> bool {
        let reserved = self.state.reserve(EndpointKey::new(endpoint), bytes, self.now);
        if reserved {
            self.state.push(job(endpoint, seq, bytes, false), self.now);
        }
        reserved
    }

    fn pop(&mut self) -> Option<DeliveryKey> {
        let Turn { job, .. } = self.state.pop(self.now)?;
        let delivery = job.delivery;
        let (abort, organization) = (AbortHandle::new_pair().0, job.event.organization);
        self.state.in_hand.insert(delivery, Held { abort, organization, bytes: job.bytes() });
        self.popped.push(job);
        Some(delivery)
    }

    fn end(&mut self, delivery: DeliveryKey, sign: Sign) {
        self.state.ended(delivery, sign, self.now, self.now);
        self.state.settled(delivery);
    }

    fn load(&mut self, endpoint: i64, rows: Vec<(Timestamp, Job)>, more: bool) {
        self.state.load_end(EndpointKey::new(endpoint), rows, more, self.now, CLOCK);
    }

    /// What is counted is what is there.
    fn check(&self) {
        let lanes = || self.state.lanes.values();
        for lane in lanes() {
            let queued_stored = lane.queue.iter().filter(|job| job.stored).count();
            assert_eq!(lane.stored, queued_stored + lane.later.len());
            let bytes = lane.queue.iter().filter(|j| j.stored).chain(lane.later.iter().map(|(_, j)| j)).map(Job::bytes);
            assert_eq!(lane.stored_bytes, bytes.sum::<usize>());
            assert!(lane.fresh >= lane.queue.len() - queued_stored);
            assert!(lane.later.iter().is_sorted_by_key(|(due, _)| *due));
        }
        assert_eq!(self.state.fresh, lanes().map(|lane| lane.fresh).sum::<usize>());
        assert_eq!(self.state.fresh_bytes, lanes().map(|lane| lane.fresh_bytes).sum::<usize>());
        assert_eq!(self.state.stored, lanes().map(|lane| lane.stored).sum::<usize>());
        assert_eq!(self.state.in_flight, lanes().map(|lane| lane.in_flight).sum::<usize>());
    }
}

#[test]
fn organizations_take_turns_and_large_events_cost_more() {
    let mut bench = Bench::new(LIMITS);
    for endpoint in [100, 101, 102, 200, 300] {
        bench.open(endpoint);
    }
    for seq in 0..200 {
        for endpoint in [100, 101, 102] {
            bench.fresh(endpoint, seq, 10);
        }
        bench.fresh(200, seq, 10);
    }
    for seq in 0..16 {
        bench.fresh(300, seq, 15 * 1024);
    }
    // Three organizations, one with three times as many endpoints and events, one with large bodies.
    let mut by = [0; 4];
    for _ in 0..160 {
        let delivery = bench.pop().unwrap();
        by[usize::try_from(bench.popped.last().unwrap().event.organization_number()).unwrap()] += 1;
        bench.end(delivery, Sign::Success);
    }
    assert!((66..=86).contains(&by[1]) && (66..=86).contains(&by[2]), "{by:?}");
    assert!((3..=8).contains(&by[3]), "sixteen times as large, so much fewer: {by:?}");
    bench.check();
}

#[test]
fn endpoints_of_an_organization_take_turns_and_get_no_more_than_their_pace() {
    let mut bench = Bench::new(LIMITS);
    for endpoint in [100, 101] {
        bench.open(endpoint);
        for seq in 0..100 {
            bench.fresh(endpoint, seq, 10);
        }
    }
    let first: Vec<_> = (0..8).map(|_| bench.pop().unwrap().endpoint).collect();
    let turns: Vec<_> = [100, 101].into_iter().cycle().take(8).map(EndpointKey::new).collect();
    assert_eq!(first, turns);
    while bench.pop().is_some() {}
    assert_eq!(bench.state.in_flight, 32, "sixteen each");
    let delivery = bench.popped[0].delivery;
    bench.end(delivery, Sign::Success);
    assert_eq!(bench.pop().unwrap().endpoint, delivery.endpoint, "a free slot is used");
    assert!(bench.pop().is_none());
    bench.check();
}

#[test]
fn one_attempt_goes_ahead_to_find_the_configuration() {
    let mut bench = Bench::new(LIMITS);
    for seq in 0..5 {
        bench.fresh(100, seq, 10);
    }
    assert!(bench.pop().is_some());
    assert!(bench.pop().is_none(), "its rate limit is not known yet");
    bench.state.configured(EndpointKey::new(100), prepared(100, Some(1)), bench.now);
    assert!(bench.pop().is_none(), "the first one counts");
    bench.now += Duration::from_millis(999);
    bench.state.tick(bench.now, CLOCK);
    assert!(bench.pop().is_none());
    bench.now += Duration::from_millis(1);
    assert_eq!(bench.state.next_tick().0, Some(bench.now));
    bench.state.tick(bench.now, CLOCK);
    assert!(bench.pop().is_some());
    assert!(bench.pop().is_none());
    bench.state.configured(EndpointKey::new(100), prepared(100, None), bench.now);
    bench.now += Duration::from_secs(1);
    bench.state.tick(bench.now, CLOCK);
    assert!(bench.pop().is_some() && bench.pop().is_some(), "the limit was taken away");
    bench.check();
}

#[test]
fn a_troubled_endpoint_keeps_fewer_places_and_a_healthy_one_still_finds_room() {
    let mut bench = Bench::new(LIMITS);
    bench.open(100);
    let places = |bench: &mut Bench, seq: i64| (0_i64..).take_while(|n| bench.fresh(100, seq + n, 10)).count();
    assert_eq!(places(&mut bench, 0), 256);
    while let Some(delivery) = bench.pop() {
        bench.now += Duration::from_millis(1);
        bench.end(delivery, Sign::Overload);
    }
    assert_eq!(places(&mut bench, 1000), 32);
    assert!(bench.fresh(200, 1, 10));
    bench.check();
}

#[test]
fn what_is_promised_is_counted_and_can_be_given_back() {
    let mut bench = Bench::new(LaneLimits { items: 10, ..LIMITS });
    let endpoint = EndpointKey::new(100);
    assert!((0..10).all(|_| bench.state.reserve(endpoint, 5, bench.now)));
    assert!(!bench.state.reserve(EndpointKey::new(200), 5, bench.now), "full for all");
    bench.state.release(endpoint, 5);
    assert!(bench.state.reserve(EndpointKey::new(200), 5, bench.now));
    assert_eq!(bench.state.fresh_bytes, 50);
    bench.state.closed = true;
    bench.state.release(endpoint, 5);
    assert!(!bench.state.reserve(endpoint, 5, bench.now), "closed");
    bench.check();
}

#[test]
fn nothing_begins_while_storage_is_behind_with_outcomes() {
    let mut bench = Bench::new(LaneLimits { settling: 2, ..LIMITS });
    bench.open(100);
    for seq in 0..10 {
        bench.fresh(100, seq, 10);
    }
    let [a, b] = [(); 2].map(|()| bench.pop().unwrap());
    for delivery in [a, b] {
        bench.state.ended(delivery, Sign::Success, bench.now, bench.now);
    }
    assert!(bench.pop().is_none());
    assert!(bench.state.settled(a), "attempts waited for it");
    assert!(bench.pop().is_some());
}

#[test]
fn no_delivery_is_taken_from_storage_that_is_held_already_or_was_settled_meanwhile() {
    let mut bench = Bench::new(LIMITS);
    bench.open(100);
    let key = EndpointKey::new(100);
    for seq in [1, 2] {
        bench.fresh(100, seq, 10);
    }
    let in_hand = bench.pop().unwrap();
    bench.load(100, vec![(at(-1), job(100, 3, 10, true))], false);
    let settled_before = bench.pop().unwrap();
    let settled_after = bench.pop().unwrap();
    assert_eq!((in_hand.event, settled_before.event, settled_after.event), (event_key(1), event_key(2), event_key(3)));
    bench.end(settled_before, Sign::Success);
    bench.fresh(100, 4, 10);
    assert!(bench.state.load_begin(key, bench.now).is_some());
    bench.end(settled_after, Sign::Success);
    let rows = [1, 3, 4, 5].map(|seq| (at(-1), job(100, seq, 10, true)));
    bench.load(100, rows.to_vec(), false);
    let left: Vec<_> = std::iter::from_fn(|| bench.pop()).map(|delivery| delivery.event).collect();
    assert_eq!(left, [event_key(4), event_key(5)]);
    bench.check();
}

#[test]
fn what_is_read_replaces_what_was_read_before_and_waits_for_its_time() {
    let mut bench = Bench::new(LIMITS);
    bench.open(100);
    let key = EndpointKey::new(100);
    let row = |due: i64, seq| (at(due), job(100, seq, 10, true));
    bench.load(100, vec![row(1, 1), row(2, 2), row(3, 3)], false);
    assert!(bench.pop().is_none());
    // A person discards 1 and tries 3 now.
    assert!(bench.state.load_begin(key, bench.now).is_some());
    bench.load(100, vec![row(0, 3), row(2, 2)], false);
    assert_eq!(bench.pop().unwrap().event, event_key(3));
    assert!(bench.pop().is_none());
    bench.state.tick(bench.now, at(1));
    assert!(bench.pop().is_none());
    bench.state.tick(bench.now, at(2));
    assert_eq!(bench.pop().unwrap().event, event_key(2));
    assert_eq!(bench.state.next_tick(), (None, None));
    bench.check();
}

#[test]
fn more_is_read_as_soon_as_little_is_left_and_never_more_than_fits() {
    let mut bench = Bench::new(LIMITS);
    bench.open(100);
    let key = EndpointKey::new(100);
    assert_eq!(bench.state.load_begin(key, bench.now), Some((64, 1 << 20)));
    assert_eq!(bench.state.load_begin(key, bench.now), None, "one at a time");
    bench.load(100, (0..64).map(|seq| (at(0), job(100, seq, 10, true))).collect(), true);
    assert!(bench.state.hungry.is_empty());
    let mut first = Vec::new();
    while bench.state.hungry.is_empty() {
        let delivery = bench.pop().unwrap();
        first.push(delivery);
        if first.len() > 1 {
            bench.end(delivery, Sign::Success);
        }
    }
    assert_eq!(first.len(), 48, "sixteen are left, as many as may be under way");
    assert_eq!(bench.state.load_begin(key, bench.now), Some((65, (1 << 20) + 10)), "one is in hand and comes again");
    // Others fill the memory; then everybody gets a little, and at last nobody anything.
    for (endpoint, rows) in [(200, 8), (300, 8), (400, 8)] {
        bench.open(endpoint);
        let key = EndpointKey::new(endpoint);
        let begun = bench.state.load_begin(key, bench.now);
        assert!(begun.is_some());
        bench.load(endpoint, (0..rows).map(|seq| (at(0), job(endpoint, seq, 40_000, true))).collect(), true);
    }
    bench.open(500);
    assert_eq!(bench.state.load_begin(EndpointKey::new(500), bench.now), Some((8, 1 << 16)), "bytes are scarce");
    bench.load(500, (0..3).map(|seq| (at(0), job(500, seq, 40_000, true))).collect(), true);
    bench.open(600);
    assert_eq!(bench.state.load_begin(EndpointKey::new(600), bench.now), None);
    bench.check();
}

#[test]
fn lanes_without_work_are_forgotten_after_a_while() {
    let mut bench = Bench::new(LIMITS);
    for endpoint in [100, 200, 300] {
        bench.open(endpoint);
    }
    bench.fresh(100, 1, 10);
    bench.state.reserve(EndpointKey::new(200), 10, bench.now);
    bench.now += Duration::from_secs(61);
    assert_eq!(bench.state.sweep(bench.now).len(), 2);
    let left: HashSet<_> = bench.state.lanes.keys().copied().collect();
    assert_eq!(left, HashSet::from([100, 200].map(EndpointKey::new)));
    let delivery = bench.pop().unwrap();
    bench.end(delivery, Sign::Success);
    bench.check();
}

trait OrganizationNumber {
    fn organization_number(&self) -> i64;
}

impl OrganizationNumber for StoredEvent {
    /// Tests number organizations from 1 on.
    fn organization_number(&self) -> i64 {
        (0..100).find(|n| OrganizationKey::new(*n) == self.organization).unwrap()
    }
}

proptest! {
    /// Whatever comes in whatever order: the counts stay true, nothing is popped twice at a time, and in the end all
    /// that came in went out.
    #[test]
    fn every_delivery_goes_out_once_and_the_counts_stay_true(
        steps in proptest::collection::vec((0_u8..8, 0_i64..6, 0_usize..3000), 1..300),
    ) {
        let mut bench = Bench::new(LaneLimits { in_flight: 8, settling: 4, lane_items: 20, ..LIMITS });
        let (mut next, mut expected, mut out) = (0, HashSet::new(), HashSet::new());
        let mut hands: Vec<DeliveryKey> = Vec::new();
        for (what, endpoint, bytes) in steps {
            let endpoint = 100 + endpoint * 60;
            let key = EndpointKey::new(endpoint);
            next += 1;
            match what {
                0 | 1 => {
                    if bench.fresh(endpoint, next, bytes) {
                        expected.insert((endpoint, next));
                    }
                }
                2 => {
                    if bench.state.load_begin(key, bench.now).is_some() {
                        let lane = &bench.state.lanes[&key];
                        // What storage still has: what is waiting here already, and one more.
                        let mut rows: Vec<_> = lane.queue.iter().filter(|job| job.stored).map(|job| (at(0), job.clone())).collect();
                        rows.push((at(0), job(endpoint, next, bytes, true)));
                        expected.insert((endpoint, next));
                        rows.extend(lane.later.iter().cloned());
                        bench.load(endpoint, rows, false);
                    }
                }
                3 => bench.open(endpoint),
                4 | 5 => {
                    if let Some(delivery) = bench.pop() {
                        prop_assert!(!hands.contains(&delivery));
                        hands.push(delivery);
                    }
                }
                _ if hands.is_empty() => {}
                _ => {
                    let delivery = hands.swap_remove(bytes % hands.len());
                    let sign = [Sign::Success, Sign::Overload, Sign::Neither][bytes % 3];
                    bench.end(delivery, sign);
                    out.insert(delivery);
                }
            }
            bench.now += Duration::from_millis(1);
            bench.check();
        }
        for endpoint in 0..6 {
            bench.open(100 + endpoint * 60);
        }
        loop {
            while let Some(delivery) = bench.pop() {
                hands.push(delivery);
            }
            let Some(delivery) = hands.pop() else { break };
            bench.end(delivery, Sign::Neither);
            out.insert(delivery);
        }
        bench.check();
        let out: HashSet<_> = out.into_iter().map(|delivery| (delivery.endpoint, delivery.event)).collect();
        let expected: HashSet<_> = expected.into_iter().map(|(endpoint, seq)| (EndpointKey::new(endpoint), event_key(seq))).collect();
        prop_assert_eq!(out, expected);
        prop_assert_eq!((bench.state.fresh, bench.state.stored, bench.state.in_flight), (0, 0, 0));
    }
}
