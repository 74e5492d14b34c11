//! Nobody else's: another organization's id is like one that never was, in every method that takes one.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use postroom_domain::event::EventType;
use postroom_domain::{DeliveryId, EventId, Role, Secret};
use postroom_storage::api::{DeliveryFilter, EventFilter, Rotation, SourceChange, TestEvent, UserChange};

use crate::support::{EXHAUSTED, Harness, Room, new_key, new_rejection, new_source, page, settings, settlement};

/// Methods that take no id of a thing: they make one, list one's own, or belong to a key of the caller's own choice.
const WITHOUT_ID: [&str; 16] = [
    "source_create",
    "source_list",
    "endpoint_create",
    "endpoint_list",
    "event_list",
    "delivery_list",
    "dead_letter_list",
    "rejection_list",
    "api_key_create",
    "api_key_list",
    "user_invite",
    "user_list",
    "idempotency_begin",
    "idempotency_finish",
    "audit_list",
    "activity",
];

pub async fn no_method_finds_what_belongs_to_another_organization<H: Harness>() {
    let room = Room::<H>::new().await;
    let (mine, other) = (room.organization("mine").await, room.organization("other").await);
    let (api, now, scope) = (&room.storage.api, room.now(), &mine.scope);
    let source = api.source_create(&other.scope, new_source("custom", "a-secret-of-it"), now).await.unwrap().id;
    let endpoint = room.endpoint(&other).await.id;
    room.endpoint(&mine).await;
    let key = api.api_key_create(&other.scope, new_key(), now).await.unwrap().id;
    let user = room.invite(&other.scope, "ada@example.com", Role::Admin).await.id;
    let event = room.send(&other, "a").await.id;
    let own_event = room.send(&mine, "a").await.id;
    let dead = room.handed_over().remove(0);
    let dead = dead.0.delivery(dead.1);
    room.storage.worker.attempt_settle(settlement(event, dead, 1, 500, EXHAUSTED, now)).await.unwrap();
    let delivery = DeliveryId { event, endpoint_number: 1, run: 0 };
    let rejection = new_rejection(&room.source("other", "custom").await.unwrap(), now);
    let rejection = room.storage.receiver.rejection_record(rejection).await.unwrap().unwrap();
    let test = || TestEvent { event_type: EventType::parse("a").unwrap(), body: Bytes::from_static(b"{}") };
    let rotation = || Rotation { secret: Secret::from("x"), grace_seconds: 1 };

    let mut seen: BTreeSet<&str> = WITHOUT_ID.into();
    macro_rules! not_found {
        ($($method:ident($($argument:expr),*)),* $(,)?) => {$(
            let answer = api.$method(scope, $($argument),*).await.map(drop);
            assert!(matches!(answer, Err(postroom_storage::Error::NotFound { .. })), "{}", stringify!($method));
            seen.insert(stringify!($method));
        )*};
    }
    not_found! {
        user_get(user),
        user_invite_again(user, now),
        user_update(user, UserChange::default(), now),
        source_get(source),
        source_update(source, SourceChange::default(), now),
        source_rotate(source, rotation(), now),
        source_delete(source, now),
        endpoint_get(endpoint),
        endpoint_update(endpoint, 0, settings("https://example.com/"), now),
        endpoint_set_enabled(endpoint, false, now),
        endpoint_rotate(endpoint, rotation(), now),
        endpoint_secret_reveal(endpoint, now),
        endpoint_test(endpoint, test(), now),
        endpoint_delete(endpoint, now),
        event_get(event),
        event_payload(event),
        event_replay(event, None, now),
        event_replay(own_event, Some(vec![endpoint]), now),
        delivery_get(delivery),
        attempt_list(delivery),
        delivery_retry(delivery, now),
        dead_letter_requeue(delivery, now),
        dead_letter_discard(delivery, now),
        rejection_get(rejection),
        rejection_resolve(rejection, own_event, now),
        api_key_get(key),
        api_key_revoke(key, now),
    }
    let methods: BTreeSet<&str> = include_str!("../../src/api.rs")
        .lines()
        .filter_map(|line| line.trim().strip_prefix("async fn ")?.split('(').next())
        .collect();
    assert_eq!(methods, seen, "a new method needs a line here");

    assert!(
        api.event_list(scope, EventFilter { source: Some(source), ..Default::default() }, page(9))
            .await
            .unwrap()
            .data
            .is_empty()
    );
    for filter in [
        DeliveryFilter { endpoint: Some(endpoint), ..Default::default() },
        DeliveryFilter { event: Some(event), ..Default::default() },
    ] {
        assert!(api.delivery_list(scope, filter, page(9)).await.unwrap().data.is_empty());
    }
    assert!(api.dead_letter_list(scope, DeliveryFilter::default(), page(9)).await.unwrap().data.is_empty());
    assert!(api.rejection_list(scope, Some(source), page(9)).await.unwrap().data.is_empty());
    let untouched = api.delivery_get(&other.scope, delivery).await.unwrap();
    assert_eq!(untouched.status.as_str(), "dead_letter", "nothing of it changed anything");
}

pub async fn a_rejection_becomes_an_event_of_its_own_organization_only<H: Harness>() {
    let room = Room::<H>::new().await;
    let (mine, other) = (room.organization("mine").await, room.organization("other").await);
    let api = &room.storage.api;
    api.source_create(&mine.scope, new_source("custom", "a-secret-of-it"), room.now()).await.unwrap();
    let rejection = new_rejection(&room.source("mine", "custom").await.unwrap(), room.now());
    let id = room.storage.receiver.rejection_record(rejection).await.unwrap().unwrap();
    let (own, foreign) = (room.send(&mine, "a").await.id, room.send(&other, "a").await.id);
    for unknown in [foreign, EventId::new(room.now())] {
        assert!(crate::support::is_not_found(api.rejection_resolve(&mine.scope, id, unknown, room.now()).await));
    }
    api.rejection_resolve(&mine.scope, id, own, room.now()).await.unwrap();
    assert_eq!(api.rejection_get(&mine.scope, id).await.unwrap().0.event, Some(own));
}

pub async fn a_source_under_attack_keeps_what_is_within_its_rate<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    let api = &room.storage.api;
    api.source_create(&acme.scope, new_source("custom", "a-secret-of-it"), room.now()).await.unwrap();
    let source = room.source("acme", "custom").await.unwrap();
    let mut kept = 0;
    for _ in 0..70 {
        let rejection = new_rejection(&source, room.now());
        kept += usize::from(room.storage.receiver.rejection_record(rejection).await.unwrap().is_some());
    }
    assert_eq!(kept, 60);
    room.hands.forward(Duration::from_secs(60));
    let rejection = new_rejection(&source, room.now());
    assert!(room.storage.receiver.rejection_record(rejection).await.unwrap().is_some(), "a new minute");
}
