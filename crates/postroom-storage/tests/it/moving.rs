//! What a person does to deliveries: retry, requeue, discard, replay.

use std::time::Duration;

use postroom_domain::delivery::{DeadReason, DeliveryStatus};
use postroom_domain::{DeliveryId, EventId};
use postroom_storage::Error;
use postroom_storage::platform::Tenant;
use postroom_storage::worker::{DeliveryKey, Transition};

use crate::support::{EXHAUSTED, Harness, Room, is_not_found, settlement};

/// An event with one delivery that has been tried once, and stands as said.
async fn tried<H: Harness>(room: &Room<H>, tenant: &Tenant, next: Transition) -> (DeliveryId, DeliveryKey) {
    let event = room.send(tenant, "a").await.id;
    let (stored, endpoint) = room.handed_over().pop().unwrap();
    let key = stored.delivery(endpoint);
    room.storage.worker.attempt_settle(settlement(event, key, 1, 500, next, room.now())).await.unwrap();
    (DeliveryId { event, endpoint_number: 1, run: 0 }, key)
}

fn conflict<T: std::fmt::Debug>(result: Result<T, Error>) -> &'static str {
    match result {
        Err(Error::Conflict { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

pub async fn a_dead_letter_is_requeued_or_discarded_once<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, api) = (room.organization("acme").await, room.storage.api.clone());
    room.endpoint(&acme).await;
    let (id, key) = tried(&room, &acme, EXHAUSTED).await;
    let dead = api.delivery_get(&acme.scope, id).await.unwrap();
    assert_eq!((dead.status, dead.dead_reason), (DeliveryStatus::DeadLetter, Some(DeadReason::RetriesExhausted)));
    assert_eq!((dead.dead_at, dead.next_attempt_at, dead.attempts), (Some(room.now()), None, 1));
    assert_eq!((dead.last_status, dead.last_attempt_at), (Some(500), Some(room.now())));

    room.hands.forward(Duration::from_secs(60));
    let again = api.dead_letter_requeue(&acme.scope, id, room.now()).await.unwrap();
    assert_eq!((again.status, again.next_attempt_at), (DeliveryStatus::Pending, Some(room.now())));
    assert_eq!((again.dead_reason, again.dead_at), (None, None));
    let waiting = room.waiting().await;
    assert_eq!((waiting[0].delivery, waiting[0].attempts, waiting[0].attempts_of_schedule), (key, 1, 0));
    assert_eq!(room.lanes.woken.lock().last(), Some(&key.endpoint));
    assert!(is_not_found(api.dead_letter_requeue(&acme.scope, id, room.now()).await), "it is none any more");

    let dead_again = settlement(id.event, key, 2, 500, EXHAUSTED, room.now());
    room.storage.worker.attempt_settle(dead_again).await.unwrap();
    let discarded = api.dead_letter_discard(&acme.scope, id, room.now()).await.unwrap();
    assert_eq!((discarded.status, discarded.next_attempt_at), (DeliveryStatus::Discarded, None));
    assert!(is_not_found(api.dead_letter_discard(&acme.scope, id, room.now()).await));
    assert!(is_not_found(api.dead_letter_requeue(&acme.scope, id, room.now()).await));
    assert!(room.waiting().await.is_empty());
}

pub async fn only_a_failed_delivery_or_a_dead_letter_can_be_retried<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, api) = (room.organization("acme").await, room.storage.api.clone());
    room.endpoint(&acme).await;
    let later = room.now() + Duration::from_secs(600);
    let (failed, key) = tried(&room, &acme, Transition::Wait(later)).await;
    assert_eq!(api.delivery_get(&acme.scope, failed).await.unwrap().next_attempt_at, Some(later));
    let retried = api.delivery_retry(&acme.scope, failed, room.now()).await.unwrap();
    assert_eq!((retried.status, retried.next_attempt_at), (DeliveryStatus::Failed, Some(room.now())));

    room.lanes.processing.lock().push(key);
    assert_eq!(conflict(api.delivery_retry(&acme.scope, failed, room.now()).await), "delivery_not_retryable");
    room.lanes.processing.lock().clear();
    let done = settlement(failed.event, key, 2, 200, Transition::Done, room.now());
    room.storage.worker.attempt_settle(done).await.unwrap();
    assert_eq!(conflict(api.delivery_retry(&acme.scope, failed, room.now()).await), "delivery_not_retryable");

    let event = room.send(&acme, "a").await.id;
    let in_memory = DeliveryId { event, endpoint_number: 1, run: 0 };
    assert_eq!(conflict(api.delivery_retry(&acme.scope, in_memory, room.now()).await), "delivery_not_retryable");
    room.handed_over();

    let (dead, _) = tried(&room, &acme, EXHAUSTED).await;
    assert_eq!(api.delivery_retry(&acme.scope, dead, room.now()).await.unwrap().status, DeliveryStatus::Pending);
    let unknown = DeliveryId { event: EventId::new(room.now()), endpoint_number: 1, run: 0 };
    assert!(is_not_found(api.delivery_retry(&acme.scope, unknown, room.now()).await));
    assert!(is_not_found(api.delivery_retry(&acme.scope, DeliveryId { run: 1, ..dead }, room.now()).await));
    assert!(is_not_found(api.delivery_retry(&acme.scope, DeliveryId { endpoint_number: 2, ..dead }, room.now()).await));
}

pub async fn nothing_is_sent_again_to_an_endpoint_that_gets_nothing<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, api) = (room.organization("acme").await, room.storage.api.clone());
    let endpoint = room.endpoint(&acme).await.id;
    let (dead, _) = tried(&room, &acme, EXHAUSTED).await;
    api.endpoint_set_enabled(&acme.scope, endpoint, false, room.now()).await.unwrap();
    for refused in [
        api.dead_letter_requeue(&acme.scope, dead, room.now()).await.map(drop),
        api.delivery_retry(&acme.scope, dead, room.now()).await.map(drop),
        api.event_replay(&acme.scope, dead.event, None, room.now()).await.map(drop),
        api.event_replay(&acme.scope, dead.event, Some(vec![endpoint]), room.now()).await.map(drop),
    ] {
        assert_eq!(conflict(refused), "endpoint_disabled");
    }
    assert_eq!(room.send(&acme, "a").await.deliveries, 0, "new events do not go there");
    api.endpoint_set_enabled(&acme.scope, endpoint, true, room.now()).await.unwrap();
    api.dead_letter_requeue(&acme.scope, dead, room.now()).await.unwrap();

    let (dead, _) = tried(&room, &acme, EXHAUSTED).await;
    api.endpoint_delete(&acme.scope, endpoint, room.now()).await.unwrap();
    assert_eq!(conflict(api.dead_letter_requeue(&acme.scope, dead, room.now()).await), "endpoint_deleted");
    assert_eq!(conflict(api.event_replay(&acme.scope, dead.event, None, room.now()).await), "no_endpoints");
    assert!(is_not_found(api.event_replay(&acme.scope, dead.event, Some(vec![endpoint]), room.now()).await));
    assert_eq!(api.dead_letter_discard(&acme.scope, dead, room.now()).await.unwrap().endpoint, endpoint);
}

pub async fn a_replay_is_a_new_run_of_the_same_event<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, api) = (room.organization("acme").await, room.storage.api.clone());
    let first = room.endpoint(&acme).await.id;
    let event = room.send(&acme, "a").await.id;
    let second = room.endpoint(&acme).await.id;
    room.hands.forward(Duration::from_secs(5));
    let runs = api.event_replay(&acme.scope, event, None, room.now()).await.unwrap();
    assert_eq!(runs.len(), 1, "where it went at first");
    assert_eq!((runs[0].id, runs[0].endpoint), (DeliveryId { event, endpoint_number: 1, run: 1 }, first));
    assert_eq!((runs[0].status, runs[0].created_at), (DeliveryStatus::Pending, room.now()));
    let both = Some(vec![second, first, second]);
    let runs = api.event_replay(&acme.scope, event, both, room.now()).await.unwrap();
    let ids: Vec<_> = runs.iter().map(|run| (run.id.endpoint_number, run.id.run)).collect();
    assert_eq!(ids, [(2, 1), (1, 2)]);
    assert!(runs.iter().all(|run| run.created_by.as_deref() == Some("operator")), "{runs:?}");

    let waiting = room.waiting().await;
    assert_eq!(waiting.len(), 3);
    assert!(waiting.iter().all(|due| due.event.id == event && due.attempts == 0));
    let done = waiting.iter().find(|due| due.delivery.run == 2).unwrap();
    let done = settlement(event, done.delivery, 1, 200, Transition::Done, room.now());
    room.storage.worker.attempt_settle(done).await.unwrap();
    let run = DeliveryId { event, endpoint_number: 1, run: 2 };
    assert_eq!(api.delivery_get(&acme.scope, run).await.unwrap().status, DeliveryStatus::Success);
    let original = DeliveryId { run: 0, ..run };
    let original = api.delivery_get(&acme.scope, original).await.unwrap();
    assert_eq!((original.status, original.created_by), (DeliveryStatus::Pending, None));
    drop(api);
    let room = room.crash().await;
    let waiting = room.waiting().await;
    assert_eq!(waiting.len(), 3, "two runs and the original, which was in memory");
    let json = [("content-type".to_owned(), "application/json".to_owned())];
    assert!(waiting.iter().all(|due| due.event.headers == json), "who sent it is no header");
    assert_eq!(room.storage.api.event_payload(&acme.scope, event).await.unwrap().headers, json);
    let sent = room.storage.api.event_get(&acme.scope, event).await.unwrap();
    assert_eq!(sent.created_by.as_deref(), Some("operator"));
    let kept = room.storage.api.delivery_get(&acme.scope, run).await.unwrap();
    assert_eq!(kept.created_by.as_deref(), Some("operator"));
}

pub async fn a_test_goes_to_one_endpoint_whatever_it_wants_and_does_not_count<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, api) = (room.organization("acme").await, room.storage.api.clone());
    room.endpoint(&acme).await;
    let picky = room.endpoint_of(&acme, |settings| settings.event_types = vec![crate::support::pattern("x")]).await.id;
    let test = || postroom_storage::api::TestEvent {
        event_type: postroom_domain::event::EventType::parse("postroom.test").unwrap(),
        body: bytes::Bytes::from_static(b"{}"),
    };
    let event = api.endpoint_test(&acme.scope, picky, test(), room.now()).await.unwrap();
    assert_eq!((event.event_type.as_str(), event.deliveries), ("postroom.test", 1));
    let delivered = room.handed_over();
    assert_eq!(delivered.len(), 1);
    assert_eq!(delivered[0].0.id, event.id);
    let organization = room.storage.platform.organization_of(&acme.scope).await.unwrap();
    assert_eq!(organization.webhook_count, 0);
    api.endpoint_set_enabled(&acme.scope, picky, false, room.now()).await.unwrap();
    assert_eq!(conflict(api.endpoint_test(&acme.scope, picky, test(), room.now()).await), "endpoint_disabled");
}
