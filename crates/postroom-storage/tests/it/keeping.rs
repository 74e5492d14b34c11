//! How long things are kept, and that what goes takes everything of its own with it and nothing else.

use std::time::Duration;

use postroom_domain::DeliveryId;
use postroom_domain::delivery::DeliveryStatus;
use postroom_storage::api::{DeliveryFilter, EventFilter};
use postroom_storage::worker::Transition;

use crate::support::{EXHAUSTED, Harness, Room, is_not_found, page, settlement};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Runs upkeep until it says that nothing is left, as the server does.
async fn upkeep<H: Harness>(room: &Room<H>) -> usize {
    let mut steps = 1;
    while room.storage.platform.upkeep(room.now()).await.unwrap() {
        steps += 1;
        assert!(steps < 1_000, "upkeep ends");
    }
    steps
}

pub async fn an_old_event_goes_with_all_that_is_of_it_unless_a_delivery_waits<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    let mut ids = Vec::new();
    for next in [Transition::Done, EXHAUSTED, Transition::Wait(room.now() + 40 * DAY)] {
        let event = room.try_send(&acme, "a", Some(&format!("id-{next:?}"))).await.unwrap().id;
        let (stored, endpoint) = room.handed_over().remove(0);
        let settled = settlement(event, stored.delivery(endpoint), 1, 500, next, room.now());
        room.storage.worker.attempt_settle(settled).await.unwrap();
        ids.push(event);
    }
    let replayed = room.storage.api.event_replay(&acme.scope, ids[0], None, room.now()).await.unwrap()[0].id;
    let due = room.waiting().await.into_iter().find(|due| due.delivery.run == 1).unwrap();
    let done = settlement(ids[0], due.delivery, 1, 200, Transition::Done, room.now());
    room.storage.worker.attempt_settle(done).await.unwrap();
    let room = room.restart().await;
    let api = room.storage.api.clone();

    room.hands.forward(30 * DAY);
    upkeep(&room).await;
    assert_eq!(api.event_list(&acme.scope, EventFilter::default(), page(9)).await.unwrap().data.len(), 3, "not yet");
    // An engine may wait until the whole day of an event is old.
    room.hands.forward(DAY);
    let young = room.send(&acme, "b").await.id;
    upkeep(&room).await;
    let left: Vec<_> = api.event_list(&acme.scope, EventFilter::default(), page(9)).await.unwrap().data;
    assert_eq!(left.iter().map(|event| event.id).collect::<Vec<_>>(), [young, ids[2]]);
    for gone in [DeliveryId { event: ids[0], endpoint_number: 1, run: 0 }, replayed] {
        assert!(is_not_found(api.delivery_get(&acme.scope, gone).await));
        assert!(is_not_found(api.attempt_list(&acme.scope, gone).await));
    }
    let dead = api.dead_letter_list(&acme.scope, DeliveryFilter::default(), page(9)).await.unwrap();
    assert!(dead.data.is_empty());
    let all = api.delivery_list(&acme.scope, DeliveryFilter::default(), page(9)).await.unwrap().data;
    let states: Vec<_> = all.iter().map(|delivery| (delivery.event, delivery.status)).collect();
    assert_eq!(states, [(young, DeliveryStatus::Pending), (ids[2], DeliveryStatus::Failed)]);
    assert!(!room.try_send(&acme, "a", Some("id-Done")).await.unwrap().duplicate, "its id went too");

    let due = room.waiting().await.remove(0);
    let done = settlement(ids[2], due.delivery, 2, 200, Transition::Done, room.now());
    room.storage.worker.attempt_settle(done).await.unwrap();
    upkeep(&room).await;
    assert!(is_not_found(api.event_get(&acme.scope, ids[2]).await), "it waited until its delivery had ended");
    drop(api);
    let room = room.restart().await;
    assert_eq!(room.waiting().await.len(), 2, "the young event and the one sent again are still to be delivered");
}

pub async fn retention_takes_many_events_in_small_steps<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    let send = (0..600).map(|n| {
        let room = &room;
        let acme = &acme;
        async move { room.try_send(acme, "a", Some(&format!("id-{n}"))).await.unwrap() }
    });
    futures_util::future::join_all(send).await;
    for (event, endpoint) in room.handed_over() {
        let done = settlement(event.id, event.delivery(endpoint), 1, 200, Transition::Done, room.now());
        room.storage.worker.attempt_settle(done).await.unwrap();
    }
    let room = room.restart().await;
    room.hands.forward(31 * DAY);
    let found = room.storage.api.event_list(&acme.scope, EventFilter::default(), page(9)).await.unwrap();
    assert_eq!(found.data.len(), 9);
    let steps = upkeep(&room).await;
    assert!((2..=20).contains(&steps), "{steps} steps");
    let left = room.storage.api.event_list(&acme.scope, EventFilter::default(), page(9)).await.unwrap();
    assert!(left.data.is_empty());
    assert_eq!(room.send(&acme, "a").await.deliveries, 1, "life goes on");
}
