//! Every delivery ends: settlements, exceptions, the watermark, and what a restart finds.

use std::sync::Arc;
use std::time::Duration;

use postroom_domain::delivery::DeadReason;
use postroom_storage::worker::Transition;

use crate::support::{EXHAUSTED, Harness, Room, settlement};

pub async fn an_unsettled_delivery_is_found_again_after_a_restart_and_a_settled_one_is_not<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    let mut recorded = Vec::new();
    for _ in 0..4 {
        recorded.push(room.send(&acme, "a").await.id);
    }
    let deliveries: Vec<_> = room.handed_over().into_iter().map(|(event, to)| event.delivery(to)).collect();
    let settle = |at: usize, next| settlement(recorded[at], deliveries[at], 1, 200, next, room.now());
    let later = room.now() + Duration::from_secs(60);
    room.storage.worker.attempt_settle(settle(0, Transition::Done)).await.unwrap();
    room.storage.worker.attempt_settle(settle(2, Transition::Wait(later))).await.unwrap();

    let room = room.crash().await;
    let waiting = room.waiting().await;
    let found: Vec<_> = waiting.iter().map(|due| (due.event.id, due.due_at, due.attempts)).collect();
    assert_eq!(found, [(recorded[1], room.now(), 0), (recorded[3], room.now(), 0), (recorded[2], later, 1)]);
    assert!(room.handed_over().is_empty(), "recovery goes through storage");
    assert_eq!(&*waiting[0].event.body, br#"{"type":"a","data":{"total":7}}"#);

    let room = room.crash().await;
    assert_eq!(room.waiting().await.len(), 3, "recovered once");
}

pub async fn a_failed_delivery_waits_for_its_time_until_it_succeeds_or_is_dead<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    let event = room.send(&acme, "a").await.id;
    let delivery = room.handed_over().remove(0);
    let delivery = delivery.0.delivery(delivery.1);
    let later = room.now() + Duration::from_secs(60);
    let worker = &room.storage.worker;
    worker.attempt_settle(settlement(event, delivery, 1, 500, Transition::Wait(later), room.now())).await.unwrap();
    assert_eq!(worker.pending_heads(None, 10).await.unwrap(), [(delivery.endpoint, later)]);
    assert!(worker.pending_due(delivery.endpoint, room.now(), 10, 1 << 20).await.unwrap().is_empty(), "not yet due");
    let due = worker.pending_due(delivery.endpoint, later, 10, 1 << 20).await.unwrap();
    assert_eq!((due[0].delivery, due[0].attempts, due[0].attempts_of_schedule), (delivery, 1, 1));

    worker.attempt_settle(settlement(event, delivery, 2, 500, EXHAUSTED, room.now())).await.unwrap();
    assert!(worker.pending_heads(None, 10).await.unwrap().is_empty(), "a dead letter is not due");
    let late = settlement(event, delivery, 3, 500, Transition::Wait(later), room.now());
    worker.attempt_settle(late).await.unwrap();
    assert!(worker.pending_heads(None, 10).await.unwrap().is_empty(), "a late failure brings nothing back");
}

pub async fn a_slow_delivery_gets_a_row_so_that_a_restart_need_not_look_at_everything_since<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    room.endpoint_of(&acme, |settings| settings.timeout_ms = Some(20_000)).await;
    let slow = room.send(&acme, "a").await.id;
    room.hands.forward(Duration::from_secs(9));
    room.send(&acme, "b").await;
    assert!(room.waiting().await.is_empty());
    room.hands.forward(Duration::from_secs(1));
    room.send(&acme, "c").await;
    room.until(async || room.waiting().await.len() == 2).await;
    let waiting = room.waiting().await;
    let due: Vec<_> = waiting.iter().map(|due| (due.event.id, due.due_at.since(room.now()).as_secs())).collect();
    assert_eq!(due, [(slow, 15), (slow, 20)], "after an attempt that begins now would have ended");

    for due in waiting {
        let done = settlement(slow, due.delivery, 1, 200, Transition::Done, room.now());
        room.storage.worker.attempt_settle(done).await.unwrap();
    }
    assert!(room.waiting().await.is_empty(), "settled from memory after all");
}

pub async fn a_delivery_can_be_moved_without_an_attempt<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    room.send(&acme, "a").await;
    let (event, endpoint) = room.handed_over().remove(0);
    let later = room.now() + Duration::from_secs(5);
    let worker = &room.storage.worker;
    worker.delivery_move(event.delivery(endpoint), 0, Transition::Wait(later)).await.unwrap();
    assert_eq!(room.waiting().await[0].due_at, later);
    let dead = Transition::Dead(DeadReason::EndpointDisabled);
    worker.delivery_move(event.delivery(endpoint), 0, dead).await.unwrap();
    assert!(room.waiting().await.is_empty());
}

pub async fn an_attempt_that_our_shutdown_broke_off_leaves_the_delivery_to_be_made<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    let event = room.send(&acme, "a").await.id;
    let (stored, endpoint) = room.handed_over().remove(0);
    let mut broken_off = settlement(event, stored.delivery(endpoint), 1, 200, Transition::Wait(room.now()), room.now());
    Arc::make_mut(&mut broken_off.attempt).response = None;
    broken_off.attempts_of_schedule = 0;
    room.storage.worker.attempt_settle(broken_off).await.unwrap();
    let room = room.restart().await;
    let waiting = room.waiting().await;
    assert_eq!(waiting.len(), 1);
    assert_eq!((waiting[0].due_at, waiting[0].attempts, waiting[0].attempts_of_schedule), (room.now(), 1, 0));
}
