//! What owners see: lists and their pages, deliveries and attempts, rejected requests, answers kept.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use postroom_domain::delivery::DeliveryStatus;
use postroom_domain::source::SourceSettings;
use postroom_domain::{DeliveryId, EventId, RejectionId, Secret, SourceId};
use postroom_storage::api::{
    DeliveryFilter, EventFilter, Idempotency, IdempotencyClaim, NewSource, Page, PageRequest, Position, StoredAnswer,
};
use postroom_storage::platform::Tenant;
use postroom_storage::receiver::NewRejection;
use postroom_storage::worker::{DeliveryKey, Transition};
use postroom_storage::{Error, SuperAdmin};

use crate::support::{EXHAUSTED, Harness, Room, is_not_found, page, pattern, settlement};

/// How the only delivery of an event goes.
async fn settle<H: Harness>(room: &Room<H>, event: EventId, status: u16, next: Transition) -> DeliveryKey {
    let (stored, endpoint) = room.handed_over().pop().unwrap();
    assert_eq!(stored.id, event);
    let key = stored.delivery(endpoint);
    room.storage.worker.attempt_settle(settlement(event, key, 1, status, next, room.now())).await.unwrap();
    key
}

async fn events<H: Harness>(room: &Room<H>, tenant: &Tenant, filter: EventFilter) -> Vec<EventId> {
    let page = room.storage.api.event_list(&tenant.scope, filter, page(250)).await.unwrap();
    assert!(page.next.is_none());
    page.data.into_iter().map(|event| event.id).collect()
}

async fn deliveries<H: Harness>(room: &Room<H>, tenant: &Tenant, filter: DeliveryFilter) -> Vec<DeliveryId> {
    let page = room.storage.api.delivery_list(&tenant.scope, filter, page(250)).await.unwrap();
    assert!(page.next.is_none());
    page.data.into_iter().map(|delivery| delivery.id).collect()
}

pub async fn pages_go_through_a_list_without_gap_or_double_while_events_come_in<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, other) = (room.organization("acme").await, room.organization("other").await);
    room.endpoint(&acme).await;
    let mut sent = Vec::new();
    for n in 0..23 {
        sent.push(room.send(&acme, "a").await.id);
        if n % 3 == 0 {
            room.send(&other, "a").await;
        }
    }
    sent.reverse();
    for limit in [1, 5, 23, 24] {
        let (mut seen, mut delivered) = (Vec::new(), Vec::new());
        let (mut next, mut next_delivery): (Option<Position>, Option<Position>) = (None, None);
        let before = events(&room, &acme, EventFilter::default()).await;
        loop {
            let request = PageRequest { limit, after: next };
            let page = room.storage.api.event_list(&acme.scope, EventFilter::default(), request).await.unwrap();
            let request = PageRequest { limit, after: next_delivery };
            let of = DeliveryFilter::default();
            let also: Page<_> = room.storage.api.delivery_list(&acme.scope, of, request).await.unwrap();
            seen.extend(page.data.iter().map(|event| event.id));
            delivered.extend(also.data.iter().map(|delivery| delivery.event));
            assert_eq!(page.next.is_some(), also.next.is_some());
            (next, next_delivery) = (page.next, also.next);
            if next.is_none() {
                break;
            }
            room.send(&acme, "a").await;
        }
        assert_eq!(seen, before, "pages of {limit}");
        assert_eq!(delivered, before, "pages of {limit}");
        assert_eq!(seen[seen.len() - 23..], sent);
    }
    let strange = PageRequest { limit: 1, after: Some(Position(vec![1, 2, 3])) };
    let refused = room.storage.api.event_list(&acme.scope, EventFilter::default(), strange).await;
    assert!(matches!(refused, Err(Error::BadPosition)));
}

pub async fn a_filter_finds_the_events_it_describes<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    let paid = room.try_send(&acme, "order.paid", Some("one")).await.unwrap().id;
    room.hands.forward(Duration::from_secs(60));
    let noon = room.now();
    let shipped = room.send(&acme, "order.shipped").await.id;
    room.hands.forward(Duration::from_secs(8 * 24 * 3600));
    let again = room.try_send(&acme, "orders", Some("one")).await.unwrap().id;
    let all = EventFilter::default();
    let of_type = |text| EventFilter { event_type: Some(pattern(text)), ..EventFilter::default() };
    let with_id = |id: &str| EventFilter { external_id: Some(id.to_owned()), ..EventFilter::default() };
    let with_text = |text: &str| EventFilter { text: Some(text.to_owned()), ..EventFilter::default() };
    for (filter, found) in [
        (all.clone(), vec![again, shipped, paid]),
        (of_type("order.paid"), vec![paid]),
        (of_type("order.*"), vec![shipped, paid]),
        (EventFilter { created_after: Some(noon), ..all.clone() }, vec![again, shipped]),
        (EventFilter { created_before: Some(noon), ..all.clone() }, vec![paid]),
        (with_id("one"), vec![again, paid]),
        (EventFilter { event_type: Some(pattern("order.paid")), ..with_id("one") }, vec![paid]),
        (with_id("two"), vec![]),
        (with_text("\"total\":7"), vec![again, shipped, paid]),
        (with_text("order.s"), vec![shipped]),
        (with_text("ORDER"), vec![]),
    ] {
        assert_eq!(events(&room, &acme, filter.clone()).await, found, "{filter:?}");
    }
}

pub async fn a_delivery_and_its_event_show_where_they_stand<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, api) = (room.organization("acme").await, room.storage.api.clone());
    let endpoint = room.endpoint(&acme).await.id;
    let later = room.now() + Duration::from_secs(60);
    let mut sent = Vec::new();
    for (status, next) in [(200, Transition::Done), (500, Transition::Wait(later)), (500, EXHAUSTED)] {
        let event = room.send(&acme, "a").await.id;
        settle(&room, event, status, next).await;
        sent.push(event);
    }
    let in_flight = room.send(&acme, "a").await.id;
    let (stored, to) = room.handed_over().pop().unwrap();
    room.lanes.processing.lock().push(stored.delivery(to));
    let in_memory = room.send(&acme, "a").await.id;
    let nowhere = room.storage.api.endpoint_set_enabled(&acme.scope, endpoint, false, room.now()).await.map(drop);
    let silent = room.send(&acme, "a").await.id;
    nowhere.unwrap();

    let stands = [
        (sent[0], DeliveryStatus::Success),
        (sent[1], DeliveryStatus::Failed),
        (sent[2], DeliveryStatus::DeadLetter),
        (in_flight, DeliveryStatus::Processing),
        (in_memory, DeliveryStatus::Pending),
    ];
    for (event, status) in stands {
        assert_eq!(api.event_get(&acme.scope, event).await.unwrap().status, Some(status));
        let id = DeliveryId { event, endpoint_number: 1, run: 0 };
        assert_eq!(api.delivery_get(&acme.scope, id).await.unwrap().status, status);
        let filter = DeliveryFilter { status: Some(status), ..DeliveryFilter::default() };
        assert_eq!(deliveries(&room, &acme, filter.clone()).await, [id]);
        let there = DeliveryFilter { endpoint: Some(endpoint), ..filter.clone() };
        assert_eq!(deliveries(&room, &acme, there).await, [id]);
        let of_another = DeliveryFilter { event: Some(silent), ..filter };
        assert!(deliveries(&room, &acme, of_another).await.is_empty());
        let filter = EventFilter { status: Some(status), ..EventFilter::default() };
        assert_eq!(events(&room, &acme, filter).await, [event]);
    }
    let silent = api.event_get(&acme.scope, silent).await.unwrap();
    assert_eq!((silent.status, silent.deliveries), (None, 0));
    let dead = api.dead_letter_list(&acme.scope, DeliveryFilter::default(), page(10)).await.unwrap().data;
    assert_eq!(dead.iter().map(|dead| dead.event).collect::<Vec<_>>(), [sent[2]]);
}

pub async fn attempts_are_shown_first_to_last_with_what_came_back<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, api) = (room.organization("acme").await, room.storage.api.clone());
    room.endpoint(&acme).await;
    let event = room.send(&acme, "a").await.id;
    let key = settle(&room, event, 503, Transition::Wait(room.now())).await;
    let first = room.now();
    room.hands.forward(Duration::from_secs(9));
    let done = settlement(event, key, 2, 200, Transition::Done, room.now());
    room.storage.worker.attempt_settle(done).await.unwrap();

    let id = DeliveryId { event, endpoint_number: 1, run: 0 };
    let attempts = api.attempt_list(&acme.scope, id).await.unwrap();
    let shown: Vec<_> = attempts.iter().map(|view| (view.attempt.number, view.started_at)).collect();
    assert_eq!(shown, [(1, first), (2, room.now())]);
    let answer = attempts[0].attempt.response.as_ref().unwrap();
    assert_eq!((answer.status, &*answer.body), (503, &b"answer"[..]));
    assert_eq!(answer.headers, [("x-answer".to_owned(), "1".to_owned())]);
    assert_eq!(attempts[0].attempt.url, "https://example.com/hook");
    assert_eq!(attempts[0].attempt.duration, Duration::from_millis(12));
    let delivery = api.delivery_get(&acme.scope, id).await.unwrap();
    assert_eq!((delivery.attempts, delivery.last_status), (2, Some(200)));
    let payload = api.event_payload(&acme.scope, event).await.unwrap();
    assert_eq!(payload.body, r#"{"type":"a","data":{"total":7}}"#);
    assert_eq!(payload.headers, [("content-type".to_owned(), "application/json".to_owned())]);
}

pub async fn what_belongs_to_another_organization_is_like_what_never_was<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, spy, api) = (room.organization("acme").await, room.organization("spy").await, &room.storage.api);
    let endpoint = room.endpoint(&acme).await.id;
    let event = room.send(&acme, "a").await.id;
    settle(&room, event, 500, EXHAUSTED).await;
    let id = DeliveryId { event, endpoint_number: 1, run: 0 };
    assert!(is_not_found(api.event_get(&spy.scope, event).await));
    assert!(is_not_found(api.event_payload(&spy.scope, event).await));
    assert!(is_not_found(api.delivery_get(&spy.scope, id).await));
    assert!(is_not_found(api.attempt_list(&spy.scope, id).await));
    assert!(is_not_found(api.rejection_get(&spy.scope, RejectionId::new(room.now())).await));
    assert!(events(&room, &spy, EventFilter::default()).await.is_empty());
    for filter in [
        DeliveryFilter::default(),
        DeliveryFilter { endpoint: Some(endpoint), ..DeliveryFilter::default() },
        DeliveryFilter { event: Some(event), ..DeliveryFilter::default() },
        DeliveryFilter { status: Some(DeliveryStatus::DeadLetter), ..DeliveryFilter::default() },
        DeliveryFilter {
            status: Some(DeliveryStatus::DeadLetter),
            endpoint: Some(endpoint),
            ..DeliveryFilter::default()
        },
    ] {
        assert_eq!(deliveries(&room, &acme, filter.clone()).await, [id]);
        assert!(deliveries(&room, &spy, filter).await.is_empty());
    }
}

pub async fn rejected_requests_are_listed_newest_first_and_shown_whole<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, spy, api) = (room.organization("acme").await, room.organization("spy").await, &room.storage.api);
    let mut kept: Vec<(SourceId, RejectionId)> = Vec::new();
    for name in ["one", "two", "one"] {
        let settings = SourceSettings {
            name: name.to_owned(),
            provider: "github".to_owned(),
            options: serde_json::Map::default(),
        };
        let new = NewSource { settings, secret: Some(Secret::from("a secret long enough")) };
        let _exists_the_second_time = api.source_create(&acme.scope, new, room.now()).await;
        let source = room.storage.receiver.source_find("acme", name).await.unwrap().unwrap();
        let id = source.id;
        let rejection = NewRejection {
            source,
            code: "signature_invalid",
            check: "signature".to_owned(),
            method: "POST".to_owned(),
            path: format!("/in/acme/{name}?q"),
            headers: vec![("x-a".to_owned(), "b".to_owned())],
            body: Bytes::from_static(b"\x00body"),
            received_at: room.now(),
        };
        kept.push((id, room.storage.receiver.rejection_record(rejection).await.unwrap().unwrap()));
    }
    let ids = |page: Page<postroom_storage::api::RejectionView>| -> (Vec<RejectionId>, Option<Position>) {
        (page.data.iter().map(|rejection| rejection.id).collect(), page.next)
    };
    let (first, next) = ids(api.rejection_list(&acme.scope, None, page(2)).await.unwrap());
    assert_eq!(first, [kept[2].1, kept[1].1]);
    let rest = PageRequest { limit: 2, after: next };
    assert_eq!(ids(api.rejection_list(&acme.scope, None, rest).await.unwrap()), (vec![kept[0].1], None));
    let of_one = api.rejection_list(&acme.scope, Some(kept[0].0), page(9)).await.unwrap();
    assert_eq!(ids(of_one).0, [kept[2].1, kept[0].1]);
    for filter in [None, Some(kept[0].0)] {
        assert!(api.rejection_list(&spy.scope, filter, page(9)).await.unwrap().data.is_empty());
    }
    let (view, request) = api.rejection_get(&acme.scope, kept[1].1).await.unwrap();
    assert_eq!((view.source, view.code.as_str(), view.check.as_str()), (kept[1].0, "signature_invalid", "signature"));
    assert_eq!((request.path.as_str(), &*request.body), ("/in/acme/two?q", &b"\x00body"[..]));
    assert!(is_not_found(api.rejection_get(&spy.scope, kept[1].1).await));
}

pub async fn a_repeated_request_gets_the_answer_of_the_first<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, other, api) = (room.organization("acme").await, room.organization("other").await, &room.storage.api);
    let claim = |key: &str, hash: u8| IdempotencyClaim { key: key.to_owned(), request_hash: [hash; 32] };
    let answer = StoredAnswer { status: 201, body: Bytes::from_static(b"{\"secret\":\"shown once\"}") };
    let begin = |scope, hash| api.idempotency_begin(scope, claim("k", hash), room.now());
    assert!(matches!(begin(&acme.scope, 1).await.unwrap(), Idempotency::New));
    assert!(matches!(begin(&acme.scope, 1).await.unwrap(), Idempotency::InProgress));
    assert!(matches!(begin(&acme.scope, 2).await.unwrap(), Idempotency::Reused));
    assert!(matches!(begin(&other.scope, 1).await.unwrap(), Idempotency::New), "keys are each organization's own");

    api.idempotency_finish(&acme.scope, claim("k", 1), None, room.now()).await.unwrap();
    assert!(matches!(begin(&acme.scope, 2).await.unwrap(), Idempotency::New), "given back");
    room.hands.forward(Duration::from_secs(60));
    assert!(matches!(begin(&acme.scope, 1).await.unwrap(), Idempotency::New), "given up");
    let late = StoredAnswer { status: 500, body: Bytes::new() };
    api.idempotency_finish(&acme.scope, claim("k", 2), Some(late), room.now()).await.unwrap();
    api.idempotency_finish(&acme.scope, claim("k", 1), Some(answer.clone()), room.now()).await.unwrap();
    room.hands.forward(Duration::from_secs(24 * 3600 - 1));
    let Idempotency::Answered(stored) = begin(&acme.scope, 1).await.unwrap() else { panic!("not answered") };
    assert_eq!((stored.status, &stored.body), (201, &answer.body));
    assert!(matches!(begin(&acme.scope, 2).await.unwrap(), Idempotency::Reused));
    room.hands.forward(Duration::from_secs(1));
    assert!(matches!(begin(&acme.scope, 2).await.unwrap(), Idempotency::New), "a day later");

    let (platform, by) = (&room.storage.platform, SuperAdmin::by_operator());
    assert!(matches!(
        platform.idempotency_begin(by.clone(), claim("k", 1), room.now()).await.unwrap(),
        Idempotency::New
    ));
    platform.idempotency_finish(by.clone(), claim("k", 1), Some(answer), room.now()).await.unwrap();
    let again = platform.idempotency_begin(by, claim("k", 1), room.now()).await.unwrap();
    assert!(matches!(again, Idempotency::Answered(_)));
}

pub async fn figures_tell_what_waits_and_what_is_dead<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    for next in [Transition::Wait(room.now()), EXHAUSTED, Transition::Wait(room.now())] {
        let event = room.send(&acme, "a").await.id;
        settle(&room, event, 500, next).await;
    }
    let gauges = room.storage.platform.gauges().await.unwrap();
    let value = |name: &str| gauges.iter().find(|gauge| gauge.name == name).map(|gauge| gauge.value);
    assert_eq!((value("postroom_deliveries_pending"), value("postroom_dead_letters")), (Some(2.0), Some(1.0)));
    let different: HashSet<_> = gauges.iter().map(|gauge| (gauge.name, gauge.labels.clone())).collect();
    assert_eq!(different.len(), gauges.len());
}
