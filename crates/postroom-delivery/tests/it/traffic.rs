//! Many deliveries: fair shares, limits, overflow, and storage that fails.

use std::time::{Duration, Instant};

use postroom_delivery::LaneLimits;
use postroom_domain::delivery::RetrySchedule;
use postroom_storage::worker::Transition;

use crate::receiver::{Receiver, Reply};
use crate::room::Room;

#[tokio::test]
async fn one_hanging_endpoint_among_ten_does_not_hold_up_the_others() {
    let room = Room::started().await;
    let hanging = Receiver::always(Reply::hang()).await;
    let healthy = Receiver::always(Reply::status(200)).await;
    let stuck = room.endpoint(&hanging.url("/")).await.number;
    for n in 0..9 {
        room.endpoint(&healthy.url(&format!("/{n}"))).await;
    }
    room.record_for_all(100).await;
    let attempts = room.attempts(900).await;
    assert!(attempts.iter().all(|one| one.delivery.endpoint_number != stuck && one.next == Transition::Done));
    assert!(hanging.count() <= 16, "{} attempts hang at once", hanging.count());
    hanging.release();
    let attempts = room.attempts(1000).await;
    let mut deliveries: Vec<_> = attempts.iter().map(|one| one.delivery).collect();
    deliveries.sort();
    deliveries.dedup();
    assert_eq!(deliveries.len(), 1000, "each exactly once");
}

#[tokio::test]
async fn what_does_not_fit_in_memory_waits_in_storage_and_is_delivered_all_the_same() {
    let mut room = Room::with(LaneLimits { lane_items: 10, stored: 20, ..LaneLimits::default() }).await;
    let receiver = Receiver::always(Reply::status(200)).await;
    for n in 0..3 {
        room.endpoint(&receiver.url(&format!("/{n}"))).await;
    }
    room.record_for_all(200).await;
    assert_eq!(room.waiting().await, 3 * 190, "ten fit for each");
    room.start();
    let attempts = room.attempts(600).await;
    assert!(attempts.iter().all(|one| one.next == Transition::Done && one.attempt.number == 1));
    assert_eq!(receiver.count(), 600, "each exactly once");
    assert_eq!(room.waiting().await, 0);
}

#[tokio::test]
async fn bodies_are_bounded_in_bytes_as_well() {
    let mut room = Room::with(LaneLimits { lane_bytes: 10_000, ..LaneLimits::default() }).await;
    let receiver = Receiver::always(Reply::status(200)).await;
    let target = room.endpoint(&receiver.url("/")).await;
    for _ in 0..50 {
        room.record_body(&target, vec![b'x'; 3000]).await;
    }
    assert_eq!(room.waiting().await, 47, "three fit");
    room.start();
    room.attempts(50).await;
    assert_eq!(receiver.count(), 50);
}

#[tokio::test]
async fn no_more_attempts_are_under_way_than_the_limits_say() {
    let mut room = Room::with(LaneLimits { in_flight: 40, ..LaneLimits::default() }).await;
    let receiver = Receiver::always(Reply::hang()).await;
    room.start();
    for n in 0..5 {
        room.endpoint(&receiver.url(&format!("/{n}"))).await;
    }
    room.record_for_all(20).await;
    // Alone, an organization gets three quarters of the slots; each of its endpoints no more than 16.
    receiver.arrived(30).await;
    let other = Receiver::always(Reply::status(200)).await;
    let theirs = room.endpoint_of(&room.organization("other").await, &other.url("/"), |_| {}).await;
    room.record_many(&theirs, 100).await;
    other.arrived(100).await;
    assert_eq!(receiver.count(), 30, "another organization gets through, and takes nothing away");
    receiver.release();
    room.attempts(200).await;
}

#[tokio::test]
async fn an_endpoint_gets_no_more_attempts_a_second_than_it_allows() {
    let mut room = Room::new().await;
    let receiver = Receiver::always(Reply::status(200)).await;
    let target = room.endpoint_with(&receiver.url("/"), |settings| settings.rate_limit = Some(40)).await;
    room.record_many(&target, 60).await;
    let start = Instant::now();
    room.start();
    room.attempts(60).await;
    // 60 at 40 a second: the last one begins 59 fortieths of a second after the first.
    assert!(start.elapsed() >= Duration::from_millis(1475), "{:?}", start.elapsed());
    let arrived: Vec<_> = receiver.requests().iter().map(|request| request.at).collect();
    for (i, first) in arrived.iter().enumerate() {
        // Half a second, in which 21 are due: those that a busy machine held up may come on top.
        let window = Duration::from_millis(500);
        let at_once = arrived[i..].iter().take_while(|at| at.duration_since(*first) < window).count();
        assert!(at_once <= 40, "{at_once} in {window:?}");
    }
}

#[tokio::test]
async fn an_outcome_that_storage_does_not_take_at_once_is_recorded_later() {
    let room = Room::started().await;
    let receiver = Receiver::always(Reply::status(200)).await;
    let target = room.endpoint(&receiver.url("/")).await;
    room.watched.seen.lock().failures = 3;
    assert_eq!(room.attempt_at(&target).await.next, Transition::Done);
    assert_eq!(receiver.count(), 1, "the attempt is not repeated, only its recording");
}

#[tokio::test]
async fn a_panic_in_one_delivery_takes_no_other_along() {
    let room = Room::started().await;
    let receiver = Receiver::always(Reply::status(200)).await;
    let poisoned = room.endpoint(&receiver.url("/")).await;
    let healthy = room.endpoint(&receiver.url("/")).await;
    room.watched.seen.lock().poisoned = Some(poisoned.number);
    room.record_for_all(50).await;
    let attempts = room.attempts(50).await;
    assert!(attempts.iter().all(|one| one.delivery.endpoint_number == healthy.number));
}

#[tokio::test]
async fn what_has_become_another_processs_to_make_is_forgotten_and_what_is_not_known_is_asked_again() {
    let room = Room::started().await;
    let receiver = Receiver::always(Reply::status(200)).await;
    let theirs = room.endpoint(&receiver.url("/theirs")).await;
    let ours = room.endpoint(&receiver.url("/ours")).await;
    {
        let mut seen = room.watched.seen.lock();
        seen.taken_over = Some(theirs.number);
        seen.unsure = 3;
    }
    room.record_for_all(20).await;
    let attempts = room.attempts(20).await;
    assert!(attempts.iter().all(|one| one.delivery.endpoint_number == ours.number));
    room.until(|seen| (seen.dropped == 20).then_some(())).await;
    assert_eq!(receiver.count(), 20, "nothing was sent");
}

#[tokio::test]
async fn a_retry_that_is_due_soon_is_made_soon() {
    let mut room = Room::new().await;
    room.let_time_run();
    room.settings.retry_schedule = RetrySchedule::new(&[1]).unwrap();
    room.start();
    let receiver = Receiver::new(|n, _| Reply::status(if n < 20 { 500 } else { 200 })).await;
    let target = room.endpoint(&receiver.url("/")).await;
    let start = Instant::now();
    room.record_many(&target, 20).await;
    let attempts = room.attempts(40).await;
    // All waiting deliveries are walked over after five seconds: the first of these did not wait for that.
    let first = receiver.requests()[20].at.duration_since(start).as_secs_f64();
    assert!((0.99..4.9).contains(&first), "{first}");
    assert!(attempts[20..].iter().all(|one| one.next == Transition::Done && one.attempt.number == 2));
    assert_eq!(receiver.count(), 40);
}

#[tokio::test]
async fn retries_are_due_in_the_order_of_their_time_and_not_before_it() {
    let room = Room::started().await;
    let receiver = Receiver::new(|n, _| Reply::status(if n < 3 { 500 } else { 200 })).await;
    let target = room.endpoint(&receiver.url("/")).await;
    let mut order = Vec::new();
    for _ in 1..=3 {
        order.push(room.attempt_at(&target).await.delivery);
        room.pass(Duration::from_secs(15));
    }
    // 45 s after the first, nothing is due yet.
    assert_eq!(receiver.count(), 3);
    for (n, delivery) in order.into_iter().enumerate() {
        room.pass(Duration::from_secs(if n == 0 { 21 } else { 15 }));
        let attempts = room.attempts(4 + n).await;
        assert_eq!((attempts[3 + n].delivery, attempts[3 + n].attempt.number), (delivery, 2));
    }
}
