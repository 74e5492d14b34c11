//! Many deliveries: fair shares, limits, overflow, and storage that fails.

use std::time::{Duration, Instant};

use postroom_delivery::LaneLimits;
use postroom_domain::OrganizationId;
use postroom_storage::worker::{OrganizationKey, Transition};

use crate::receiver::{Receiver, Reply};
use crate::room::Room;

#[tokio::test]
async fn one_hanging_endpoint_among_ten_does_not_hold_up_the_others() {
    let room = Room::started();
    let hanging = Receiver::always(Reply::hang()).await;
    let healthy = Receiver::always(Reply::status(200)).await;
    let stuck = room.endpoint(&hanging.url("/"));
    let mut all: Vec<_> = (0..9).map(|n| room.endpoint(&healthy.url(&format!("/{n}")))).collect();
    all.insert(4, stuck);
    for _ in 0..100 {
        room.record(&all);
    }
    let attempts = room.attempts(900).await;
    assert!(attempts.iter().all(|(delivery, _, next)| delivery.endpoint != stuck && *next == Transition::Done));
    assert!(hanging.count() <= 16, "{} attempts hang at once", hanging.count());
    hanging.release();
    let attempts = room.attempts(1000).await;
    let mut deliveries: Vec<_> = attempts.iter().map(|(delivery, ..)| *delivery).collect();
    deliveries.sort();
    deliveries.dedup();
    assert_eq!(deliveries.len(), 1000, "each exactly once");
}

#[tokio::test]
async fn what_does_not_fit_in_memory_waits_in_storage_and_is_delivered_all_the_same() {
    let mut room = Room::with(LaneLimits { lane_items: 10, stored: 20, ..LaneLimits::default() });
    let receiver = Receiver::always(Reply::status(200)).await;
    let endpoints: Vec<_> = (0..3).map(|n| room.endpoint(&receiver.url(&format!("/{n}")))).collect();
    for _ in 0..200 {
        room.record(&endpoints);
    }
    assert_eq!(room.memory.state.lock().pending.len(), 3 * 190, "ten fit for each");
    room.start();
    let attempts = room.attempts(600).await;
    assert!(attempts.iter().all(|(_, attempt, next)| *next == Transition::Done && attempt.number == 1));
    assert_eq!(receiver.count(), 600, "each exactly once");
    assert!(room.memory.state.lock().pending.is_empty());
}

#[tokio::test]
async fn bodies_are_bounded_in_bytes_as_well() {
    let mut room = Room::with(LaneLimits { lane_bytes: 10_000, ..LaneLimits::default() });
    let receiver = Receiver::always(Reply::status(200)).await;
    let endpoint = room.endpoint(&receiver.url("/"));
    for _ in 0..50 {
        room.record_with(&[endpoint], |event| event.body = vec![b'x'; 3000].into());
    }
    assert_eq!(room.memory.state.lock().pending.len(), 47, "three fit");
    room.start();
    room.attempts(50).await;
    assert_eq!(receiver.count(), 50);
}

#[tokio::test]
async fn no_more_attempts_are_under_way_than_the_limits_say() {
    let mut room = Room::with(LaneLimits { in_flight: 40, ..LaneLimits::default() });
    let receiver = Receiver::always(Reply::hang()).await;
    room.start();
    let mine: Vec<_> = (0..5).map(|n| room.endpoint(&receiver.url(&format!("/{n}")))).collect();
    for _ in 0..20 {
        room.record(&mine);
    }
    // Alone, an organization gets three quarters of the slots; each of its endpoints no more than 16.
    receiver.arrived(30).await;
    let other = Receiver::always(Reply::status(200)).await;
    let theirs = room.endpoint_with(&other.url("/"), |endpoint| {
        endpoint.organization = OrganizationKey::new(2);
        endpoint.organization_id = OrganizationId::new(room.now());
    });
    for _ in 0..100 {
        room.record_with(&[theirs], |event| event.organization = OrganizationKey::new(2));
    }
    other.arrived(100).await;
    assert_eq!(receiver.count(), 30, "another organization gets through, and takes nothing away");
    receiver.release();
    room.attempts(200).await;
}

#[tokio::test]
async fn an_endpoint_gets_no_more_attempts_a_second_than_it_allows() {
    let room = Room::started();
    let receiver = Receiver::always(Reply::status(200)).await;
    let endpoint = room.endpoint_with(&receiver.url("/"), |endpoint| endpoint.settings.rate_limit = Some(40));
    let start = Instant::now();
    for _ in 0..60 {
        room.record(&[endpoint]);
    }
    room.attempts(60).await;
    // 60 at 40 a second: the last one begins 59 fortieths of a second after the first.
    assert!(start.elapsed() >= Duration::from_millis(1475), "{:?}", start.elapsed());
    let arrived: Vec<_> = receiver.requests().iter().map(|request| request.at).collect();
    for (i, first) in arrived.iter().enumerate() {
        let second =
            arrived[i..].iter().take_while(|at| at.duration_since(*first) < Duration::from_millis(900)).count();
        assert!(second <= 40, "{second} in 0.9 s");
    }
}

#[tokio::test]
async fn an_outcome_that_storage_does_not_take_at_once_is_recorded_later() {
    let room = Room::started();
    let receiver = Receiver::always(Reply::status(200)).await;
    let endpoint = room.endpoint(&receiver.url("/"));
    room.memory.state.lock().failures = 3;
    room.record(&[endpoint]);
    assert_eq!(room.attempts(1).await[0].2, Transition::Done);
    assert_eq!(receiver.count(), 1, "the attempt is not repeated, only its recording");
}

#[tokio::test]
async fn a_panic_in_one_delivery_takes_no_other_along() {
    let room = Room::started();
    let receiver = Receiver::always(Reply::status(200)).await;
    let [poisoned, healthy] = [(); 2].map(|()| room.endpoint(&receiver.url("/")));
    room.memory.state.lock().poisoned = Some(poisoned);
    for _ in 0..50 {
        room.record(&[poisoned, healthy]);
    }
    let attempts = room.attempts(50).await;
    assert!(attempts.iter().all(|(delivery, ..)| delivery.endpoint == healthy));
}

#[tokio::test]
async fn retries_are_due_in_the_order_of_their_time_and_not_before_it() {
    let room = Room::started();
    let receiver = Receiver::new(|n, _| Reply::status(if n < 3 { 500 } else { 200 })).await;
    let endpoint = room.endpoint(&receiver.url("/"));
    let mut order = Vec::new();
    for n in 1..=3 {
        order.push(room.record(&[endpoint]));
        room.attempts(n).await;
        room.pass(Duration::from_secs(15));
    }
    // 45 s after the first, nothing is due yet.
    assert_eq!(receiver.count(), 3);
    for (n, seq) in order.into_iter().enumerate() {
        room.pass(Duration::from_secs(if n == 0 { 21 } else { 15 }));
        let attempts = room.attempts(4 + n).await;
        assert_eq!((attempts[3 + n].0.event, attempts[3 + n].1.number), (seq, 2));
    }
}
