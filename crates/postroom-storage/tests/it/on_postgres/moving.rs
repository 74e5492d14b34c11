//! An organization moved beside running nodes: they let go of it first, the others notice nothing, and what comes late
//! is refused by the database.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use postroom_domain::Secret;
use postroom_domain::keyring::Keyring;
use postroom_storage::copy::{Error, Installation, Report, dedicated, move_to};
use postroom_storage::platform::{Isolation, OrganizationChange, Tenant};
use postroom_storage::worker::{Due, EndpointKey, Transition};
use postroom_storage::{Error as Refused, Storage, SuperAdmin};
use postroom_testkit::postgres::connect;

use crate::copying::Side as _;
use crate::copying::moving::moved;
use crate::support::{Harness as _, Lanes, Postgres, Room, new_event, opening, settlement};

async fn another_node(room: &Room<Postgres>) -> (Storage, Arc<Lanes>) {
    let lanes = Arc::new(Lanes { room: 1_000_000.into(), ..Lanes::default() });
    (room.harness.open(opening(&room.hands, &lanes, &room.keys)).await, lanes)
}

/// Moves in the background.
fn moving(room: &Room<Postgres>, slug: &'static str, to: Isolation) -> tokio::task::JoinHandle<Result<Report, Error>> {
    let (place, keys, now) = (room.harness.installation(), Keyring::parse(&room.keys).unwrap(), room.now());
    tokio::spawn(async move { move_to(&place, slug, to, &keys, now, &mut |_| {}).await })
}

async fn is_refused(storage: &Storage, room: &Room<Postgres>, tenant: &Tenant) -> bool {
    let sent = storage.receiver.event_record(new_event(tenant, "late", None, room.now())).await;
    assert!(matches!(sent, Ok(_) | Err(Refused::Unavailable(_))), "{sent:?}");
    sent.is_err()
}

fn is_there(due: &Due) -> bool {
    // Keys of endpoints begin with the number of the database.
    due.delivery.endpoint > EndpointKey::new(1 << 32)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_end_what_is_under_way_and_write_down_what_they_hold_before_an_organization_moves() {
    let room = Room::<Postgres>::new().await;
    let (second, second_lanes) = another_node(&room).await;
    let (acme, other) = (room.organization("acme").await, room.organization("other").await);
    room.endpoint(&acme).await;
    room.until(async || second.receiver.source_find("other", "none").await.unwrap().is_none()).await;
    for to in [Isolation::Dedicated, Isolation::Shared] {
        let mut sent = HashSet::new();
        for _ in 0..5 {
            sent.insert(room.send(&acme, "a").await.id);
        }
        let mut held = room.handed_over();
        let (under_way, endpoint) = held.pop().unwrap();
        room.lanes.busy.lock().push(under_way.organization);
        let moving = moving(&room, "acme", to);
        for storage in [&room.storage, &second] {
            room.until(async || is_refused(storage, &room, &acme).await).await;
            storage.receiver.event_record(new_event(&other, "b", None, room.now())).await.unwrap();
        }
        let (queued, to_endpoint) = &held[0];
        assert!(!room.storage.worker.delivery_admit(queued.delivery(*to_endpoint)).unwrap(), "nothing more begins");
        assert!(matches!(moved(&room.harness, "acme", to, &room.keys, room.now()).await, Err(Error::UnderWay)));
        assert!(!moving.is_finished(), "an attempt is under way");
        let done = settlement(under_way.id, under_way.delivery(endpoint), 1, 200, Transition::Done, room.now());
        room.storage.worker.attempt_settle(done).await.unwrap();
        sent.remove(&under_way.id);
        room.lanes.busy.lock().clear();
        let report = moving.await.unwrap().unwrap();
        assert!(report.differences.is_empty() && !report.was_finished);

        for storage in [&room.storage, &second] {
            room.until(async || storage.api.endpoint_list(&acme.scope, crate::support::page(1)).await.is_ok()).await;
        }
        // What was sent in between, before a node had heard of it, waits too.
        let late = |due: &Due| due.event.event_type == "late";
        let waits = async || {
            let mut waiting = room.waiting().await;
            for (endpoint, _) in second.worker.pending_heads(None, 100).await.unwrap() {
                let far = room.now() + Duration::from_secs(3600);
                waiting.extend(second.worker.pending_due(endpoint, far, 100, usize::MAX).await.unwrap());
            }
            waiting
        };
        room.until(async || {
            let waiting: HashSet<_> = waits().await.iter().filter(|due| !late(due)).map(|due| due.event.id).collect();
            waiting == sent
        })
        .await;
        assert!(waits().await.iter().all(|due| is_there(due) == (to == Isolation::Dedicated)));
        for due in waits().await {
            for storage in [&room.storage, &second] {
                let done = settlement(due.event.id, due.delivery, 1, 200, Transition::Done, room.now());
                let _it_is_the_others = storage.worker.attempt_settle(done).await;
            }
        }
        room.until(async || waits().await.is_empty()).await;
    }
    drop((second, second_lanes));
}

/// Moves, and waits for nobody for longer than a second.
async fn moved_at_once(room: &Room<Postgres>, slug: &str, to: Isolation) -> Result<Report, Error> {
    let Installation::Postgres(mut logins) = room.harness.installation() else { panic!("another engine") };
    logins.patience = Duration::from_secs(1);
    let (place, keys) = (Installation::Postgres(logins), Keyring::parse(&room.keys).unwrap());
    move_to(&place, slug, to, &keys, room.now(), &mut |_| {}).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_organization_that_a_node_does_not_let_go_of_goes_on_where_it_is_with_all_it_has() {
    let room = Room::<Postgres>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    let (second, second_lanes) = another_node(&room).await;
    let mut sent = HashSet::new();
    for to in [Isolation::Dedicated, Isolation::Shared] {
        sent.insert(room.send(&acme, "a").await.id);
        let (under_way, endpoint) = room.handed_over().pop().unwrap();
        sent.insert(second.receiver.event_record(new_event(&acme, "a", None, room.now())).await.unwrap().id);
        room.lanes.busy.lock().push(under_way.organization);
        let kept = moved_at_once(&room, "acme", to).await.unwrap_err();
        assert!(matches!(&kept, Error::NotLetGo { nodes, seconds: 1 } if nodes == &[1]), "{kept:?}");
        let said = kept.to_string();
        assert!(said.contains("nodes 1 have not let go of the organization in 1 s, so it was not moved"), "{said}");

        // It is where it was, on both nodes, and what is under way ends there.
        let own = dedicated(&room.harness.installation()).await.unwrap().len();
        assert_eq!(own, usize::from(to == Isolation::Shared));
        for storage in [&room.storage, &second] {
            room.until(async || storage.api.endpoint_list(&acme.scope, crate::support::page(1)).await.is_ok()).await;
            sent.insert(storage.receiver.event_record(new_event(&acme, "a", None, room.now())).await.unwrap().id);
        }
        let done = settlement(under_way.id, under_way.delivery(endpoint), 1, 200, Transition::Done, room.now());
        room.storage.worker.attempt_settle(done).await.unwrap();
        sent.remove(&under_way.id);
        room.lanes.busy.lock().clear();

        assert!(moved(&room.harness, "acme", to, &room.keys, room.now()).await.unwrap().differences.is_empty());
        for storage in [&room.storage, &second] {
            room.until(async || storage.api.endpoint_list(&acme.scope, crate::support::page(1)).await.is_ok()).await;
        }
        let waits = async || {
            let far = room.now() + Duration::from_secs(3600);
            let mut waiting = room.waiting().await;
            for (endpoint, _) in second.worker.pending_heads(None, 100).await.unwrap() {
                waiting.extend(second.worker.pending_due(endpoint, far, 100, usize::MAX).await.unwrap());
            }
            waiting.into_iter().filter(|due| due.event.event_type == "a").collect::<Vec<_>>()
        };
        room.until(async || {
            let waiting = waits().await;
            let known: HashSet<_> = waiting.iter().map(|due| due.event.id).collect();
            known == sent && waiting.iter().all(|due| is_there(due) == (to == Isolation::Dedicated))
        })
        .await;
    }
    drop((second, second_lanes));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_being_written_is_waited_for_and_what_comes_late_is_refused() {
    let room = Room::<Postgres>::new().await;
    let (acme, other) = (room.organization("acme").await, room.organization("other").await);
    room.endpoint(&acme).await;
    room.endpoint(&other).await;
    let slow = connect(&room.harness.database.admin_url()).await;
    let write = "insert into idempotency_keys (org, key, request_hash, claimed_at) \
         select org, 'slow', decode(repeat('00', 32), 'hex'), now() from organizations where slug = ";
    slow.batch_execute(&format!("begin; {write} 'acme'")).await.unwrap();
    let moving = moving(&room, "acme", Isolation::Dedicated);
    let watch = connect(&room.harness.database.admin_url()).await;
    let stage = async || watch.query_opt("select stage from moves", &[]).await.unwrap().map(|row| row.get(0));
    room.until(async || stage().await == Some("fenced".to_owned())).await;
    assert!(!moving.is_finished());
    slow.batch_execute("commit").await.unwrap();
    let report = moving.await.unwrap().unwrap();
    assert!(report.tables.contains(&("idempotency_keys", 1)), "{report:?}");

    for role in ["api", "receiver", "worker"] {
        let late = connect(&room.harness.database.admin_url()).await;
        let organizations = late.query("select slug, org from organizations order by slug", &[]).await.unwrap();
        for row in organizations {
            let (slug, org): (String, i64) = (row.get(0), row.get(1));
            let enter = format!("select set_config('app.current_organization_id', '{org}', true)");
            let write = match role {
                "api" => format!(
                    "insert into idempotency_keys (org, key, request_hash, claimed_at) \
                     values ({org}, 'late', decode(repeat('00', 32), 'hex'), now())"
                ),
                _ => format!(
                    "insert into exceptions (org, endpoint, event, run, state, due_at, attempts, attempts_of_schedule, since) \
                     values ({org}, 1, gen_random_uuid(), 0, 'waiting', now(), 0, 0, now())"
                ),
            };
            late.batch_execute(&format!("begin; set local role postroom_{role}; {enter}")).await.unwrap();
            let written = late.batch_execute(&write).await;
            let code = written.err().map(|error| error.code().unwrap().code().to_owned());
            assert_eq!(code, (slug == "acme").then(|| "PM001".to_owned()), "{role} {slug}");
            late.batch_execute("rollback").await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_organizations_move_at_the_same_time() {
    let room = Room::<Postgres>::new().await;
    let mut acme = None;
    for slug in ["other", "acme"] {
        let tenant = room.organization(slug).await;
        room.endpoint(&tenant).await;
        room.send(&tenant, "a").await;
        acme = Some(tenant);
    }
    for to in [Isolation::Dedicated, Isolation::Shared] {
        let both = [moving(&room, "acme", to), moving(&room, "other", to)];
        for moving in both {
            assert!(moving.await.unwrap().unwrap().differences.is_empty());
        }
        // What is said of it to the shared database is still said there.
        let by = SuperAdmin::by_operator();
        let secret = Some(Some(Secret::from("a mandrill key")));
        let change = OrganizationChange { mandrill_webhook_secret: secret, ..OrganizationChange::default() };
        let id = acme.as_ref().unwrap().organization.id;
        room.until(async || {
            room.storage.platform.organization_update(by.clone(), id, change.clone(), room.now()).await.is_ok()
        })
        .await;
        room.until(async || {
            room.storage.receiver.source_find("acme", "mandrill").await.is_ok_and(|found| found.is_some())
        })
        .await;
        let own = dedicated(&room.harness.installation()).await.unwrap().len();
        assert_eq!(own, if to == Isolation::Dedicated { 2 } else { 0 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_has_left_moves_along() {
    let room = Room::<Postgres>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    let (second, _lanes) = another_node(&room).await;
    room.until(async || !is_refused(&second, &room, &acme).await).await;
    let sent = second.receiver.event_record(new_event(&acme, "a", None, room.now())).await.unwrap();
    drop(second);
    let admin = connect(&room.harness.database.admin_url()).await;
    admin.batch_execute("update nodes set lease_until = '-infinity' where node = 2").await.unwrap();
    moved(&room.harness, "acme", Isolation::Dedicated, &room.keys, room.now()).await.unwrap();
    room.until(async || room.waiting().await.iter().any(|due| due.event.id == sent.id && is_there(due))).await;
}
