//! Stopping: what is under way ends or is interrupted, and nothing is lost.

use std::time::Duration;

use postroom_storage::Handoff;
use postroom_storage::worker::Transition;

use crate::receiver::{Receiver, Reply};
use crate::room::Room;

#[tokio::test]
async fn attempts_under_way_may_end_and_are_recorded() {
    let mut room = Room::started();
    let receiver = Receiver::always(Reply::hang()).await;
    let endpoint = room.endpoint(&receiver.url("/"));
    room.record(&[endpoint]);
    receiver.arrived(1).await;
    let lanes = room.lanes.clone();
    room.stop_now();
    let releasing = async {
        // Nothing new begins once the stop has been seen.
        while lanes.reserve(endpoint, 1) {
            lanes.release(endpoint, 1);
            tokio::task::yield_now().await;
        }
        receiver.release();
    };
    let drained = tokio::join!(room.stopped(), releasing).0;
    assert_eq!((drained.interrupted.len(), drained.unsettled, drained.waiting), (0, 0, 0));
    assert_eq!(room.attempts(1).await[0].2, Transition::Done);
    assert!(!lanes.reserve(endpoint, 1), "what comes now waits in storage");
}

#[tokio::test]
async fn attempts_that_do_not_end_in_time_are_interrupted_and_count_for_nothing() {
    let mut room = Room::new();
    room.settings.drain = Duration::from_millis(500);
    room.start();
    let receiver = Receiver::always(Reply::hang()).await;
    let endpoint = room.endpoint(&receiver.url("/"));
    for _ in 0..20 {
        room.record(&[endpoint]);
    }
    receiver.arrived(16).await;
    let drained = room.stop().await;
    assert_eq!((drained.interrupted.len(), drained.unsettled, drained.waiting), (16, 0, 4));
    assert!(room.memory.state.lock().attempts.is_empty(), "nothing is recorded: it was not the endpoint's failure");
    receiver.all_ended().await;
}

#[tokio::test]
async fn a_stop_waits_for_storage_only_as_long_as_it_may() {
    let mut room = Room::new();
    room.settings.drain = Duration::from_millis(500);
    room.start();
    let receiver = Receiver::always(Reply::status(200)).await;
    let endpoint = room.endpoint(&receiver.url("/"));
    room.memory.state.lock().failures = usize::MAX;
    room.record(&[endpoint]);
    receiver.arrived(1).await;
    let drained = room.stop().await;
    assert_eq!((drained.interrupted.len(), drained.unsettled), (0, 1));
}

#[tokio::test]
async fn what_was_waiting_is_delivered_after_the_next_start() {
    let receiver = Receiver::always(Reply::status(200)).await;
    let mut room = Room::started();
    let endpoint = room.endpoint(&receiver.url("/"));
    room.stop().await;
    for _ in 0..10 {
        room.record(&[endpoint]);
    }
    assert_eq!(room.memory.state.lock().pending.len(), 10, "a stopped worker takes nothing into memory");
    room.restart();
    room.attempts(10).await;
    assert_eq!(receiver.count(), 10);
}
