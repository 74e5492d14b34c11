//! Many nodes on one database: nothing that was acknowledged is lost, nothing is made twice without need, and limits
//! are limits of all nodes together, whatever happens to one of them or to its connections.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use postroom_domain::EventId;
use postroom_storage::api::DeliveryFilter;
use postroom_storage::platform::{OrganizationChange, Tenant};
use postroom_storage::worker::{DeliveryKey, EndpointKey, StoredEvent, Transition};
use postroom_storage::{Error, Storage, SuperAdmin};
use postroom_testkit::postgres::{Mode, Proxy, connect};
use tokio_postgres::Client;

use crate::support::{EXHAUSTED, Lanes, Postgres, Room, new_event, opening, options_at, page, settlement, until};

/// A node with a delivery side of its own.
struct Neighbour {
    storage: Storage,
    lanes: Arc<Lanes>,
}

impl Neighbour {
    async fn of(room: &Room<Postgres>) -> Self {
        Self::at(room, &room.harness.database.app_url(), Duration::from_secs(15)).await
    }

    async fn at(room: &Room<Postgres>, url: &str, lease: Duration) -> Self {
        let lanes = Arc::new(Lanes { room: AtomicI64::new(1_000_000), ..Lanes::default() });
        let mut options = options_at(url, opening(&room.hands, &lanes, &room.keys));
        options.lease = lease;
        Self { storage: postroom_storage::postgres::open(options).await.unwrap(), lanes }
    }

    async fn send(&self, room: &Room<Postgres>, tenant: &Tenant, id: Option<&str>) -> Result<EventId, Error> {
        let event = new_event(tenant, "a", id, room.now());
        self.storage.receiver.event_record(event).await.map(|recorded| recorded.id)
    }

    fn handed_over(&self) -> Vec<(Arc<StoredEvent>, EndpointKey)> {
        let delivered = std::mem::take(&mut *self.lanes.delivered.lock());
        delivered.into_iter().flat_map(|(event, to)| to.into_iter().map(move |one| (event.clone(), one))).collect()
    }

    async fn waiting(&self, room: &Room<Postgres>) -> Vec<DeliveryKey> {
        let far = room.now() + Duration::from_secs(400 * 24 * 3600);
        let mut all = Vec::new();
        for (endpoint, _) in self.storage.worker.pending_heads(None, 1000).await.unwrap() {
            let due = self.storage.worker.pending_due(endpoint, far, 1000, usize::MAX).await.unwrap();
            all.extend(due.into_iter().map(|due| due.delivery));
        }
        all
    }
}

/// A second, and what a busy machine adds.
const A_SECOND: Duration = Duration::from_secs(5);

async fn admin(room: &Room<Postgres>) -> Client {
    connect(&room.harness.database.admin_url()).await
}

async fn count(admin: &Client, sql: &str) -> i64 {
    admin.query_one(sql, &[]).await.unwrap().get(0)
}

async fn limited(room: &Room<Postgres>, slug: &str, limit: u64) -> Tenant {
    let tenant = room.organization(slug).await;
    let change = OrganizationChange { webhook_limit: Some(Some(limit)), ..OrganizationChange::default() };
    let by = SuperAdmin::by_operator();
    room.storage.platform.organization_update(by, tenant.organization.id, change, room.now()).await.unwrap();
    tenant
}

async fn settle_all(room: &Room<Postgres>, storage: &Storage, made: Vec<(Arc<StoredEvent>, EndpointKey)>) {
    let settle = made.into_iter().map(|(event, to)| {
        let done = settlement(event.id, event.delivery(to), 1, 200, Transition::Done, room.now());
        async move { storage.worker.attempt_settle(done).await.unwrap() }
    });
    join_all(settle).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_nodes_deliveries_are_made_by_another_and_those_it_had_settled_are_not() {
    let room = Room::<Postgres>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    let other = Neighbour::of(&room).await;
    until(async || other.storage.receiver.source_find("acme", "none").await.unwrap().is_none()).await;
    let sent = join_all((0..50).map(|_| other.send(&room, &acme, None))).await;
    let sent: Vec<EventId> = sent.into_iter().map(Result::unwrap).collect();
    let mut made = other.handed_over();
    assert_eq!(made.len(), 50);
    let left: HashSet<EventId> = made.split_off(20).into_iter().map(|(event, _)| event.id).collect();
    settle_all(&room, &other.storage, made).await;

    drop(other);
    let admin = admin(&room).await;
    admin.batch_execute("update nodes set lease_until = '-infinity' where node = 2").await.unwrap();
    until(async || room.waiting().await.len() == 30).await;
    let found: HashSet<EventId> = room.waiting().await.into_iter().map(|due| due.event.id).collect();
    assert_eq!(found, left);
    let organization = room.storage.platform.organization_of(&acme.scope).await.unwrap();
    assert_eq!(organization.webhook_count, sent.len() as u64, "a crash loses no count and adds none");
    assert_eq!(count(&admin, "select count(*) from nodes where state = 'recovered'").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_begins_though_the_recovery_of_another_takes_long() {
    let room = Room::<Postgres>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    let dead = Neighbour::of(&room).await;
    dead.send(&room, &acme, None).await.unwrap();
    drop(dead);
    // Nobody else is there to recover it.
    room.storage.platform.close().await.unwrap();
    let admin = admin(&room).await;
    admin.batch_execute("update nodes set lease_until = '-infinity' where node = 2").await.unwrap();
    let mut locking = connect(&room.harness.database.admin_url()).await;
    let locked = locking.transaction().await.unwrap();
    locked.batch_execute("lock table attempts in access exclusive mode").await.unwrap();

    let other = tokio::time::timeout(Duration::from_secs(20), Neighbour::of(&room)).await.expect("it begins");
    assert_eq!(count(&admin, "select count(*) from nodes where node = 2 and state = 'dead'").await, 1);
    locked.rollback().await.unwrap();
    until(async || other.waiting(&room).await.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_thought_dead_goes_on_as_another_and_forgets_what_it_held() {
    let room = Room::<Postgres>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    let held = room.send(&acme, "a").await.id;
    let (event, endpoint) = room.handed_over().remove(0);
    let delivery = event.delivery(endpoint);
    assert!(room.storage.worker.delivery_admit(delivery).unwrap());

    let other = Neighbour::of(&room).await;
    let admin = admin(&room).await;
    // As another node would, at a moment when this one does not look.
    admin.batch_execute("update nodes set state = 'dead' where node = 1").await.unwrap();
    let refused = room.try_send(&acme, "a", Some("x")).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    until(async || room.try_send(&acme, "a", Some("x")).await.is_ok()).await;
    let admits = |storage: &Storage| matches!(storage.worker.delivery_admit(delivery), Ok(true));
    until(async || {
        let (here, there) = (admits(&room.storage), admits(&other.storage));
        assert!(!(here && there), "never both");
        // It is made from its row by whoever has the shard.
        let rows = if here { room.waiting().await.len() } else { other.waiting(&room).await.len() };
        (here || there) && rows == 1
    })
    .await;
    // What was under way ends late: it did happen, and so the row goes.
    let done = settlement(held, delivery, 1, 200, Transition::Done, room.now());
    room.storage.worker.attempt_settle(done).await.unwrap();
    let rows = "select count(*) from exceptions";
    assert_eq!(count(&admin, rows).await, 0, "only the new event is there, and in memory");
    assert_eq!(count(&admin, "select count(*) from events").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_comes_to_two_nodes_at_once_is_one_event_and_takes_no_other_with_it() {
    let room = Room::<Postgres>::new().await;
    let acme = room.organization("acme").await;
    let other = Neighbour::of(&room).await;
    let sends = (0..200).map(|n| {
        let (room, other, acme) = (&room, &other, &acme);
        async move {
            let (same, here, there) = (format!("same-{}", n % 100), format!("here-{n}"), format!("there-{n}"));
            let (first, second, here, there) = tokio::join!(
                room.try_send(acme, "a", Some(&same)),
                other.send(room, acme, Some(&same)),
                room.try_send(acme, "a", Some(&here)),
                other.send(room, acme, Some(&there)),
            );
            assert!(!here.unwrap().duplicate && there.is_ok());
            assert_eq!(first.unwrap().id, second.unwrap());
        }
    });
    join_all(sends).await;
    let admin = admin(&room).await;
    assert_eq!(count(&admin, "select count(*) from events").await, 500);
    assert_eq!(count(&admin, "select count(*) from duplicate_guard join events on id = event").await, 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_is_exact_over_two_nodes() {
    let room = Room::<Postgres>::new().await;
    let acme = limited(&room, "acme", 100).await;
    let free = room.organization("free").await;
    let other = Neighbour::of(&room).await;
    let sends = (0..10).map(|client| {
        let (room, other, acme, free) = (&room, &other, &acme, &free);
        async move {
            let mut accepted = 0;
            for n in 0..40 {
                let id = format!("{client}-{n}");
                // Every second id is sent on both nodes at once.
                let (here, there) = tokio::join!(room.try_send(acme, "a", Some(&id)), async {
                    if n % 2 == 0 { Some(other.send(room, acme, Some(&id)).await) } else { None }
                },);
                let mut ids = HashSet::new();
                for answer in [Some(here.map(|recorded| recorded.id)), there].into_iter().flatten() {
                    match answer {
                        Ok(id) => drop(ids.insert(id)),
                        Err(Error::LimitReached { limit: 100, .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
                assert!(ids.len() <= 1, "one id, one event");
                accepted += ids.len();
                room.send(free, "b").await;
            }
            accepted
        }
    });
    let accepted: usize = join_all(sends).await.into_iter().sum();
    let admin = admin(&room).await;
    let stored = "select count(*) from events join organizations using (org) where slug = 'acme'";
    assert_eq!((accepted, count(&admin, stored).await), (100, 100));
    assert_eq!(room.storage.platform.organization_of(&acme.scope).await.unwrap().webhook_count, 100);
    assert_eq!(count(&admin, "select count(*) from duplicate_guard").await, 100);
    until(async || room.storage.platform.organization_of(&free.scope).await.unwrap().webhook_count == 400).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_where_there_was_none_counts_what_came_before_and_holds_on_every_node_within_a_second() {
    let room = Room::<Postgres>::new().await;
    let other = Neighbour::of(&room).await;
    let set = async |tenant: &Tenant, limit| {
        let change = OrganizationChange { webhook_limit: Some(Some(limit)), ..OrganizationChange::default() };
        let by = SuperAdmin::by_operator();
        room.storage.platform.organization_update(by, tenant.organization.id, change, room.now()).await.unwrap();
    };
    let is_refused = |answer: Result<EventId, Error>| match answer {
        Ok(_) => false,
        Err(Error::LimitReached { .. }) => true,
        Err(error) => panic!("{error:?}"),
    };
    for round in 0..5 {
        let acme = room.organization(&format!("acme-{round}")).await;
        join_all((0..10).map(|_| room.send(&acme, "a"))).await;
        set(&acme, 12).await;
        let mut accepted = 0;
        while !is_refused(room.try_send(&acme, "a", None).await.map(|recorded| recorded.id)) {
            accepted += 1;
        }
        assert_eq!(accepted, 2, "on the node that changed it: exact at once");
    }

    let acme = room.organization("acme").await;
    until(async || other.send(&room, &acme, None).await.is_ok()).await;
    join_all((0..50).map(|_| other.send(&room, &acme, None))).await;
    set(&acme, 51).await;
    let set_at = Instant::now();
    until(async || {
        let here = is_refused(room.try_send(&acme, "a", None).await.map(|recorded| recorded.id));
        here && is_refused(other.send(&room, &acme, None).await)
    })
    .await;
    assert!(set_at.elapsed() < A_SECOND, "{:?}", set_at.elapsed());
    let admin = admin(&room).await;
    let stored = count(&admin, "select count(*) from events join organizations using (org) where slug = 'acme'").await;
    let counted = room.storage.platform.organization_of(&acme.scope).await.unwrap().webhook_count;
    assert_eq!(counted, stored.cast_unsigned(), "all that was accepted is counted by then");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_answer_to_a_commit_is_lost_the_event_is_there_once_and_is_delivered_once() {
    let room = Room::<Postgres>::new().await;
    let (acme, few) = (room.organization("acme").await, limited(&room, "few", 1_000).await);
    room.endpoint(&acme).await;
    room.endpoint(&few).await;
    let database = &room.harness.database;
    let proxy = Proxy::to(address(&database.app_url())).await;
    let node = Neighbour::at(&room, &proxy.url(&database.app_url()), Duration::from_secs(15)).await;
    let mut sent = HashSet::new();
    for n in 0..20 {
        let (tenant, tag) = if n % 2 == 0 { (&acme, "SELECT") } else { (&few, "COMMIT") };
        let id = format!("id-{n}");
        let lost = proxy.lose_answer(tag);
        loop {
            match node.send(&room, tenant, Some(&id)).await {
                Ok(id) => {
                    sent.insert(id);
                    break;
                }
                Err(Error::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("{error:?}"),
            }
        }
        drop(lost);
    }
    let admin = admin(&room).await;
    assert_eq!((sent.len(), count(&admin, "select count(*) from events").await), (20, 20));
    let made = node.handed_over();
    let delivered: HashSet<EventId> = made.iter().map(|(event, _)| event.id).collect();
    assert_eq!((made.len(), &delivered), (20, &sent), "each of them once");
    settle_all(&room, &node.storage, made).await;
    assert_eq!(count(&admin, "select count(distinct event) from attempts where succeeded").await, 20);
    assert_eq!(count(&admin, "select count(*) from exceptions").await, 0);
    assert_eq!(count(&admin, "select count(*) from nodes where state <> 'live'").await, 0, "nobody died of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_ends_in_the_middle_loses_nothing() {
    let room = Room::<Postgres>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    let admin = admin(&room).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let ends = async {
        while !stop.is_cancelled() {
            let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                 where datname = current_database() and application_name = 'postroom'";
            count(&admin, end).await;
            tokio::time::sleep(Duration::from_millis(120)).await;
        }
    };
    let sends = async {
        let send = (0..8).map(|client| {
            let (room, acme) = (&room, &acme);
            async move {
                let mut ids = Vec::new();
                for n in 0..60 {
                    let id = format!("{client}-{n}");
                    ids.push(loop {
                        match room.try_send(acme, "a", Some(&id)).await {
                            Ok(recorded) => break recorded.id,
                            Err(Error::Unavailable(_) | Error::Overloaded) => {
                                tokio::time::sleep(Duration::from_millis(10)).await;
                            }
                            Err(error) => panic!("{error:?}"),
                        }
                    });
                }
                ids
            }
        });
        let ids: HashSet<EventId> = join_all(send).await.into_iter().flatten().collect();
        stop.cancel();
        ids
    };
    let (ids, ()) = tokio::join!(sends, ends);
    assert_eq!((ids.len(), count(&admin, "select count(*) from events").await), (480, 480));
    let made: Vec<EventId> = room.handed_over().into_iter().map(|(event, _)| event.id).collect();
    let waiting: Vec<EventId> = room.waiting().await.into_iter().map(|due| due.event.id).collect();
    let all: HashSet<EventId> = made.iter().chain(&waiting).copied().collect();
    assert_eq!(all, ids, "each is in memory or waits");
    assert_eq!(made.len() + waiting.len(), 480, "and none of them in both");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_deliveries_are_shared_out_and_a_stopped_nodes_go_to_the_others_at_once() {
    let room = Room::<Postgres>::new().await;
    let acme = room.organization("acme").await;
    for _ in 0..8 {
        room.endpoint(&acme).await;
    }
    room.send(&acme, "a").await;
    let due = room.now();
    for (event, to) in room.handed_over() {
        let failed = settlement(event.id, event.delivery(to), 1, 500, Transition::Wait(due), room.now());
        room.storage.worker.attempt_settle(failed).await.unwrap();
    }
    assert_eq!(room.waiting().await.len(), 8);
    let other = Neighbour::at(&room, &room.harness.database.app_url(), Duration::from_secs(6)).await;
    until(async || other.waiting(&room).await.len() == 4).await;
    let (mine, theirs) = (room.waiting().await, other.waiting(&room).await);
    assert_eq!(mine.len(), 4);
    assert!(mine.iter().all(|due| !theirs.contains(&due.delivery)), "nobody has what another has");
    assert!(mine.iter().all(|due| room.storage.worker.delivery_admit(due.delivery).unwrap()));
    assert!(theirs.iter().all(|delivery| !room.storage.worker.delivery_admit(*delivery).unwrap()));
    other.storage.platform.close().await.unwrap();
    until(async || room.waiting().await.len() == 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_for_an_endpoint_of_another_node_wakes_that_node_within_a_second() {
    let room = Room::<Postgres>::new().await;
    let acme = room.organization("acme").await;
    for _ in 0..4 {
        room.endpoint(&acme).await;
    }
    let other = Neighbour::at(&room, &room.harness.database.app_url(), Duration::from_secs(6)).await;
    let (mut dead, mut later) = (Vec::new(), Vec::new());
    for (ends, next) in [(&mut dead, EXHAUSTED), (&mut later, Transition::Wait(room.now() + Duration::from_secs(60)))] {
        let event = room.send(&acme, "a").await.id;
        for (stored, to) in room.handed_over() {
            let failed = settlement(event, stored.delivery(to), 1, 500, next, room.now());
            room.storage.worker.attempt_settle(failed).await.unwrap();
            ends.push((event, stored.delivery(to)));
        }
    }
    until(async || other.waiting(&room).await.len() == 2).await;
    let theirs: Vec<EndpointKey> = other.waiting(&room).await.iter().map(|delivery| delivery.endpoint).collect();
    let mine = later.iter().map(|(_, delivery)| delivery.endpoint).find(|key| !theirs.contains(key)).unwrap();
    let admin = admin(&room).await;
    let woken = async |node: &Lanes| {
        let started = Instant::now();
        until(async || theirs.iter().all(|key| node.woken.lock().contains(key))).await;
        assert!(started.elapsed() < A_SECOND, "{:?}", started.elapsed());
    };
    let quiet = || other.lanes.woken.lock().clear();

    // A person.
    let page = room.storage.api.dead_letter_list(&acme.scope, DeliveryFilter::default(), page(10)).await.unwrap();
    quiet();
    for view in page.data {
        room.storage.api.dead_letter_requeue(&acme.scope, view.id, room.now()).await.unwrap();
    }
    woken(&other.lanes).await;
    // A retry that is due at once.
    quiet();
    for (event, delivery) in later {
        let again = settlement(event, delivery, 2, 500, Transition::Wait(room.now()), room.now());
        room.storage.worker.attempt_settle(again).await.unwrap();
    }
    woken(&other.lanes).await;
    // What finds no place in memory.
    quiet();
    room.lanes.room.store(0, std::sync::atomic::Ordering::SeqCst);
    room.send(&acme, "a").await;
    woken(&other.lanes).await;
    assert!(!other.lanes.woken.lock().contains(&mine), "nobody is woken for what is not his");
    until(async || count(&admin, "select count(*) from pokes").await == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_cut_off_from_the_database_begins_nothing_and_answers_in_time() {
    let room = Room::<Postgres>::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    let database = &room.harness.database;
    let proxy = Proxy::to(address(&database.app_url())).await;
    let node = Neighbour::at(&room, &proxy.url(&database.app_url()), Duration::from_secs(3)).await;
    node.send(&room, &acme, None).await.unwrap();
    let (event, endpoint) = node.handed_over().remove(0);
    let delivery = event.delivery(endpoint);
    assert!(node.storage.worker.delivery_admit(delivery).unwrap());
    proxy.set(Mode::BlackHole).await;
    let started = Instant::now();
    let refused = node.send(&room, &acme, None).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    assert!(started.elapsed() <= Duration::from_secs(15), "{:?}", started.elapsed());
    assert!(node.storage.worker.delivery_admit(delivery).is_err(), "its lease is over");
    until(async || room.waiting().await.iter().any(|due| due.delivery == delivery)).await;
    proxy.set(Mode::Pass).await;
    until(async || node.send(&room, &acme, Some("again")).await.is_ok()).await;
    let of = |storage: &Storage| matches!(storage.worker.delivery_admit(delivery), Ok(true));
    assert!(!(of(&node.storage) && of(&room.storage)), "one of them has its shard");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_away_for_longer_than_a_lease_makes_nobody_dead() {
    let room = Room::<Postgres>::new().await;
    room.storage.platform.close().await.unwrap();
    let url = room.harness.database.app_url();
    let proxy = Proxy::to(address(&url)).await;
    let lease = Duration::from_secs(6);
    let nodes = [
        Neighbour::at(&room, &proxy.url(&url), lease).await,
        Neighbour::at(&room, &proxy.url(&url), lease).await,
        Neighbour::at(&room, &proxy.url(&url), lease).await,
    ];
    let admin = admin(&room).await;
    proxy.set(Mode::Refuse).await;
    let over = "select count(*) from nodes where state = 'live' and lease_until < clock_timestamp()";
    until(async || count(&admin, over).await == 3).await;
    proxy.set(Mode::Pass).await;
    let alive = "select count(*) from nodes where state = 'live' and lease_until > clock_timestamp()";
    until(async || count(&admin, alive).await == 3).await;
    // All of them have looked after the dead since, at least once.
    let since = Instant::now();
    until(async || since.elapsed() > lease / 2).await;
    assert_eq!(count(&admin, "select count(*) from nodes where state <> 'recovered'").await, 3, "the same three");
    assert_eq!(count(&admin, alive).await, 3);
    drop(nodes);
}

/// Where a database is.
fn address(url: &str) -> std::net::SocketAddr {
    let config: tokio_postgres::Config = url.parse().unwrap();
    let tokio_postgres::config::Host::Tcp(host) = &config.get_hosts()[0] else { panic!("not a network address") };
    (host.parse::<std::net::IpAddr>().unwrap(), config.get_ports()[0]).into()
}
