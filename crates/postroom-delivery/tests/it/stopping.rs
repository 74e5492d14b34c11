//! Stopping: what is under way ends or is interrupted, and nothing is lost.

use std::collections::HashSet;
use std::time::Duration;

use postroom_storage::Handoff;
use postroom_storage::worker::{EndpointKey, Transition};

use crate::receiver::{Receiver, Reply};
use crate::room::Room;

#[tokio::test]
async fn attempts_under_way_may_end_and_are_recorded() {
    let mut room = Room::started().await;
    let receiver = Receiver::always(Reply::hang()).await;
    let target = room.endpoint(&receiver.url("/")).await;
    room.record(&target).await;
    receiver.arrived(1).await;
    let (lanes, any) = (room.lanes.clone(), EndpointKey::new(99));
    room.stop_now();
    let releasing = async {
        // Nothing new begins once the stop has been seen.
        while lanes.reserve(any, 1) {
            lanes.release(any, 1);
            tokio::task::yield_now().await;
        }
        receiver.release();
    };
    let drained = tokio::join!(room.stopped(), releasing).0;
    assert_eq!((drained.interrupted.len(), drained.unsettled, drained.waiting), (0, 0, 0));
    assert_eq!(room.attempts(1).await[0].next, Transition::Done);
}

#[tokio::test]
async fn attempts_that_do_not_end_in_time_are_interrupted_count_for_nothing_and_are_made_again() {
    let mut room = Room::new().await;
    room.settings.drain = Duration::from_millis(500);
    room.start();
    let receiver = Receiver::new(|n, _| if n < 16 { Reply::hang() } else { Reply::status(200) }).await;
    let target = room.endpoint(&receiver.url("/")).await;
    let events: HashSet<_> = room.record_many(&target, 20).await.into_iter().collect();
    receiver.arrived(16).await;
    let drained = room.stop().await;
    assert_eq!((drained.interrupted.len(), drained.unsettled, drained.waiting), (16, 0, 4));
    assert_eq!(room.recorded(), 0, "nothing is recorded: it was not the endpoint's failure");
    receiver.all_ended().await;

    let room = room.restarted().await;
    let attempts = room.attempts(20).await;
    assert!(attempts.iter().all(|one| one.next == Transition::Done && one.attempt.number == 1));
    assert_eq!(attempts.iter().map(|one| one.delivery.event).collect::<HashSet<_>>(), events);
}

#[tokio::test]
async fn a_stop_waits_for_storage_only_as_long_as_it_may() {
    let mut room = Room::new().await;
    room.settings.drain = Duration::from_millis(500);
    room.start();
    let receiver = Receiver::always(Reply::status(200)).await;
    let target = room.endpoint(&receiver.url("/")).await;
    room.watched.seen.lock().failures = usize::MAX;
    room.record(&target).await;
    // The answer has been read, and storage refuses the outcome.
    crate::soon(async {
        while room.watched.seen.lock().failures == usize::MAX {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let drained = room.stop().await;
    assert_eq!((drained.interrupted.len(), drained.unsettled), (0, 1));

    let room = room.restarted().await;
    assert_eq!(room.attempts(1).await[0].next, Transition::Done);
    assert_eq!(receiver.count(), 2, "delivered again, as its outcome could not be recorded");
}

#[tokio::test]
async fn what_comes_after_a_stop_waits_in_storage_for_the_next_start() {
    let receiver = Receiver::always(Reply::status(200)).await;
    let mut room = Room::started().await;
    let target = room.endpoint(&receiver.url("/")).await;
    room.stop().await;
    room.record_many(&target, 10).await;
    assert_eq!(room.waiting().await, 10, "a stopped worker takes nothing into memory");
    let room = room.restarted().await;
    room.attempts(10).await;
    assert_eq!(receiver.count(), 10);
}

#[tokio::test]
async fn after_a_fall_every_delivery_without_a_recorded_outcome_is_made_again() {
    let room = Room::started().await;
    let receiver = Receiver::new(|n, _| if n < 30 { Reply::status(200) } else { Reply::hang() }).await;
    let target = room.endpoint(&receiver.url("/")).await;
    let events: HashSet<_> = room.record_many(&target, 50).await.into_iter().collect();
    let before: HashSet<_> = room.attempts(30).await.iter().map(|one| one.delivery.event).collect();
    receiver.arrived(31).await;
    let room = room.restarted().await;
    receiver.release();
    let after: HashSet<_> = room.attempts(20).await.iter().map(|one| one.delivery.event).collect();
    assert!(before.is_disjoint(&after), "what was recorded as delivered is not delivered again");
    assert_eq!(&before | &after, events);
}

#[tokio::test]
async fn a_retry_in_a_database_of_its_own_is_made_after_a_restart_though_nobody_calls() {
    let room = Room::started().await;
    let receiver = Receiver::new(|n, _| Reply::status(if n < 2 { 500 } else { 200 })).await;
    let dedicated = room.dedicated("dedicated").await;
    let [shared, own] = [room.acme.clone(), dedicated];
    let shared = room.endpoint_of(&shared, &receiver.url("/shared"), |_| {}).await;
    let own = room.endpoint_of(&own, &receiver.url("/own"), |_| {}).await;
    // The first endpoint of each: inside of their databases they have the same number.
    let events = [room.record(&shared).await, room.record(&own).await];
    let failed = room.attempts(2).await;
    assert!(failed.iter().all(|one| matches!(one.next, Transition::Wait(_))));

    let room = room.restarted().await;
    room.pass(Duration::from_secs(90));
    let made = room.attempts(2).await;
    assert!(made.iter().all(|one| one.next == Transition::Done && one.attempt.number == 2));
    for (path, event) in ["/shared", "/own"].into_iter().zip(events) {
        let to = |one: &&crate::watched::Recorded| one.attempt.url.ends_with(path);
        let tried = failed.iter().chain(&made).filter(to).map(|one| one.delivery.event);
        assert_eq!(tried.collect::<Vec<_>>(), [event, event], "{path}");
    }
}
