//! What several nodes, and several people, do at the same time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use postroom_domain::delivery::DeliveryStatus;
use postroom_domain::{DeliveryId, EventId, Role};
use postroom_storage::api::{Activity, ActivityId, ActivityStream, UserChange};
use postroom_storage::platform::Tenant;
use postroom_storage::worker::Transition;
use postroom_storage::{Error, Storage};
use postroom_testkit::postgres::connect;

use crate::people::{email, from};
use crate::support::{EXHAUSTED, Harness, Lanes, Postgres, Room, new_event, opening, settlement};

/// One more node on the database of a room.
async fn another_node(room: &Room<Postgres>) -> (Storage, Arc<Lanes>) {
    let lanes = Arc::new(Lanes { room: 1_000_000.into(), ..Lanes::default() });
    (room.harness.open(opening(&room.hands, &lanes, &room.keys)).await, lanes)
}

/// The next so many items: which event, and whether its attempt.
async fn take(stream: &mut ActivityStream, count: usize) -> Vec<(ActivityId, EventId, bool)> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let item = tokio::time::timeout(Duration::from_secs(20), stream.next()).await.expect("nothing happens");
        match item.expect("the stream ended") {
            (id, Activity::Event(event)) => seen.push((id, event.id, false)),
            (id, Activity::Attempt(delivery, _)) => seen.push((id, delivery.event, true)),
            (_, Activity::Gap(missed)) => panic!("a gap of {missed:?}"),
        }
    }
    seen
}

/// Records so many events at one node, each with the attempt that follows; several at once.
async fn traffic(storage: &Storage, lanes: &Lanes, room: &Room<Postgres>, acme: &Tenant, count: usize) {
    let send = async || storage.receiver.event_record(new_event(acme, "a", None, room.now())).await.unwrap();
    let rounds = (0..count).map(|_| send()).collect::<Vec<_>>();
    let settle = async || {
        let delivered = std::mem::take(&mut *lanes.delivered.lock());
        for (event, endpoints) in delivered {
            let done = settlement(event.id, event.delivery(endpoints[0]), 1, 200, Transition::Done, room.now());
            storage.worker.attempt_settle(done).await.unwrap();
        }
    };
    let sent = futures_util::stream::iter(rounds).buffer_unordered(16);
    sent.for_each(async |_| settle().await).await;
    settle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nodes_write_at_once_is_shown_by_each_in_one_order_and_once() {
    let room = Room::<Postgres>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    let (second, second_lanes) = another_node(&room).await;
    let mut here = room.storage.api.activity(&acme.scope, None).await.unwrap();
    let mut there = second.api.activity(&acme.scope, None).await.unwrap();
    let count = 150;
    let (seen_here, seen_there, (), ()) = tokio::join!(
        take(&mut here, count * 4),
        take(&mut there, count * 4),
        traffic(&room.storage, &room.lanes, &room, &acme, count),
        traffic(&second, &second_lanes, &room, &acme, count),
    );
    assert_eq!(seen_here, seen_there);
    let different: HashSet<_> = seen_here.iter().map(|(_, event, is_attempt)| (*event, *is_attempt)).collect();
    assert_eq!(different.len(), count * 4, "nothing twice");
    for (at, (_, event, _)) in seen_here.iter().enumerate().filter(|(_, seen)| seen.2) {
        assert!(seen_here[..at].iter().any(|seen| seen.1 == *event), "an attempt before its event");
    }
    for from in [0, 1, 199, 333, count * 4 - 2] {
        let (after, ..) = seen_here[from];
        let mut resumed = second.api.activity(&acme.scope, Some(after)).await.unwrap();
        assert_eq!(take(&mut resumed, count * 4 - from - 1).await, seen_here[from + 1..], "from {from} on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_ends_late_is_shown_in_its_place_and_holds_back_what_is_behind_it() {
    let room = Room::<Postgres>::new().await;
    let acme = room.organization("acme").await;
    let before = room.send(&acme, "a").await.id;
    let mut stream = room.storage.api.activity(&acme.scope, None).await.unwrap();
    let late = EventId::new(room.now());
    let slow = connect(&room.harness.database.admin_url()).await;
    let id = uuid::Uuid::from_bytes(late.to_bytes());
    slow.batch_execute(&format!(
        "begin; insert into events (org, id, node, tx, type, targets, counted, headers, body) \
         select org, '{id}', 1, txid_current(), 'a', '', true, '[]', '{{}}' from organizations"
    ))
    .await
    .unwrap();
    let behind = room.send(&acme, "a").await.id;
    let quiet = tokio::time::timeout(Duration::from_millis(800), stream.next()).await;
    assert!(quiet.is_err(), "something is shown that is behind what is still written");
    slow.batch_execute("commit").await.unwrap();
    let seen = take(&mut stream, 2).await;
    assert_eq!(seen.iter().map(|seen| seen.1).collect::<Vec<_>>(), [late, behind]);
    let mut from_the_beginning = room.storage.api.activity(&acme.scope, Some(ActivityId([0; 16]))).await.unwrap();
    let all = take(&mut from_the_beginning, 3).await;
    assert_eq!(all.iter().map(|seen| seen.1).collect::<Vec<_>>(), [before, late, behind]);
}

/// A delivery that is a dead letter.
async fn dead_letter(room: &Room<Postgres>, acme: &Tenant) -> DeliveryId {
    let event = room.send(acme, "a").await.id;
    let (stored, endpoint) = room.handed_over().pop().unwrap();
    let dead = settlement(event, stored.delivery(endpoint), 1, 500, EXHAUSTED, room.now());
    room.storage.worker.attempt_settle(dead).await.unwrap();
    DeliveryId { event, endpoint_number: 1, run: 0 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_people_who_move_a_dead_letter_at_once_one_does() {
    let room = Room::<Postgres>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    let (second, _lanes) = another_node(&room).await;
    for _ in 0..10 {
        let id = dead_letter(&room, &acme).await;
        let (one, other, scope, now) = (&room.storage.api, &second.api, &acme.scope, room.now());
        let requeues = join_all([one, other].map(|api| api.dead_letter_requeue(scope, id, now)));
        let discards = join_all([one, other].map(|api| api.dead_letter_discard(scope, id, now)));
        let (requeued, discarded) = tokio::join!(requeues, discards);
        let done = |answers: &[Result<_, Error>]| answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(done(&requeued) + done(&discarded), 1);
        let refused = requeued.iter().chain(&discarded).filter_map(|answer| answer.as_ref().err());
        assert!(refused.into_iter().all(|error| matches!(error, Error::NotFound { kind: "dead letter" })));
        let expected = if done(&requeued) == 1 { DeliveryStatus::Pending } else { DeliveryStatus::Discarded };
        assert_eq!(one.delivery_get(scope, id).await.unwrap().status, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_and_a_worker_who_decide_at_once_lose_nothing() {
    let room = Room::<Postgres>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    for _ in 0..10 {
        let event = room.send(&acme, "a").await.id;
        let (stored, endpoint) = room.handed_over().pop().unwrap();
        let key = stored.delivery(endpoint);
        let waits = settlement(event, key, 1, 500, Transition::Wait(room.now()), room.now());
        room.storage.worker.attempt_settle(waits).await.unwrap();
        let id = DeliveryId { event, endpoint_number: 1, run: 0 };
        let done = settlement(event, key, 2, 200, Transition::Done, room.now());
        let (settled, retried) = tokio::join!(
            room.storage.worker.attempt_settle(done),
            room.storage.api.delivery_retry(&acme.scope, id, room.now()),
        );
        settled.unwrap();
        assert!(matches!(retried, Ok(_) | Err(Error::Conflict { code: "delivery_not_retryable", .. })), "{retried:?}");
        let after = room.storage.api.delivery_get(&acme.scope, id).await.unwrap();
        assert_eq!((after.status, after.attempts), (DeliveryStatus::Success, 2));
    }
    assert!(room.waiting().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replays_at_once_get_runs_of_their_own() {
    let room = Room::<Postgres>::new().await;
    let acme = room.organization("acme").await;
    let (first, other) = (room.endpoint(&acme).await.id, room.endpoint(&acme).await.id);
    let event = room.send(&acme, "a").await.id;
    let (second, _lanes) = another_node(&room).await;
    let replay = |n: usize| {
        let api = if n.is_multiple_of(2) { &room.storage.api } else { &second.api };
        let both = if n.is_multiple_of(3) { vec![first, other] } else { vec![other, first] };
        api.event_replay(&acme.scope, event, Some(both), room.now())
    };
    let mut runs = Vec::new();
    for views in join_all((0..6).map(replay)).await {
        runs.extend(views.unwrap().into_iter().map(|view| (view.id.endpoint_number, view.id.run)));
    }
    runs.sort_unstable();
    let expected: Vec<(u32, u16)> = (1..3).flat_map(|endpoint| (1..7).map(move |run| (endpoint, run))).collect();
    assert_eq!(runs, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_out_and_being_given_another_role_at_once_both_go_well() {
    let room = Room::<Postgres>::new().await;
    let acme = room.organization("acme").await;
    room.joined(&acme.scope, "root@example.com", Role::Admin).await;
    let address = email("ada@example.com");
    let ada = room.joined(&acme.scope, address.as_str(), Role::Member).await;
    let (api, authorizer) = (&room.storage.api, &room.storage.authorizer);
    for round in 0..12 {
        room.hands.forward(Duration::from_secs(2_000));
        let mut sessions = Vec::new();
        for _ in 0..2 {
            assert!(authorizer.sign_in_request(&address, &from(), room.now()).await.unwrap());
            sessions.push(room.enter(&room.token().await).await.unwrap().session);
        }
        let role = Some(if round % 2 == 0 { Role::Admin } else { Role::Member });
        let (change, origin) = (UserChange { role, is_active: None }, from());
        let (changed, one, other) = tokio::join!(
            api.user_update(&acme.scope, ada.user, change, room.now()),
            authorizer.session_end(sessions[0], &origin, room.now()),
            authorizer.session_end(sessions[1], &origin, room.now()),
        );
        assert!(changed.is_ok() && one.is_ok() && other.is_ok(), "{changed:?} {one:?} {other:?}");
        for session in sessions {
            assert!(room.person(session).await.is_none());
        }
    }
}
