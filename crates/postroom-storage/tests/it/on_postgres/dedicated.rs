//! Databases of single organizations on PostgreSQL, with several nodes and through the router: what one of them that
//! cannot be used does to the others, and who looks after it when a node dies.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use postroom_domain::EventId;
use postroom_storage::platform::Tenant;
use postroom_storage::{Error, Storage, SuperAdmin, TenantUnavailable};
use postroom_testkit::postgres::{APP_ROLE, connect};
use tokio_postgres::Client;

use crate::support::{Hands, Harness as _, Lanes, PostgresDedicated, Room, new_event, opening};

/// Longer than a database stays open that nobody uses.
const IDLE: Duration = Duration::from_secs(6 * 60);

type Dedicated = Room<PostgresDedicated>;

async fn admin(room: &Dedicated) -> Client {
    connect(&room.harness.0.database.admin_url()).await
}

/// The names of the databases, in the order they were made.
async fn databases(room: &Dedicated) -> Vec<String> {
    let rows = admin(room).await.query("select database from tenants order by cell", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn inside(room: &Dedicated, database: &str) -> Client {
    let shared = &room.harness.0.database;
    connect(&shared.admin_url().replace(shared.name(), database)).await
}

/// How many databases stand so.
async fn standing(storage: &Storage, state: &str) -> f64 {
    let gauges = storage.platform.gauges().await.unwrap();
    let found = gauges
        .iter()
        .find(|gauge| gauge.name == "postroom_tenant_databases" && gauge.labels.contains(&("state", state.to_owned())));
    found.map_or(0.0, |gauge| gauge.value)
}

/// A node with a delivery side and a clock of its own.
async fn neighbour(room: &Dedicated) -> (Storage, Arc<Lanes>) {
    let lanes = Arc::new(Lanes { room: AtomicI64::new(1_000_000), ..Lanes::default() });
    let storage = room.harness.open(opening(&Hands::new(), &lanes, &room.keys)).await;
    (storage, lanes)
}

/// What goes over all databases.
#[derive(Clone, Copy)]
enum Walk {
    Upkeep,
    Audit,
}

async fn send(storage: &Storage, tenant: &Tenant) -> Result<EventId, Error> {
    let event = new_event(tenant, "a", None, Hands::new().now());
    storage.receiver.event_record(event).await.map(|recorded| recorded.id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_database_that_goes_away_is_unavailable_to_its_organization_alone() {
    let room = Dedicated::new().await;
    let (acme, other) = (room.organization("acme").await, room.organization("other").await);
    room.send(&acme, "a").await;
    let database = databases(&room).await.remove(0);
    let admin = admin(&room).await;
    let lock = format!("revoke connect on database \"{database}\" from {APP_ROLE}");
    let ended = format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{database}'");
    admin.batch_execute(&format!("{lock}; {ended}")).await.unwrap();
    for _ in 0..3 {
        let refused = room.try_send(&acme, "a", None).await;
        assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
        let refused = room.storage.api.endpoint_list(&acme.scope, crate::support::page(1)).await;
        assert!(matches!(refused, Err(Error::Unavailable(_) | Error::Overloaded)), "{refused:?}");
        room.send(&other, "a").await;
        room.storage.worker.pending_heads(None, 100).await.unwrap();
        room.storage.platform.health().await.unwrap();
    }
    admin.batch_execute(&format!("grant connect on database \"{database}\" to {APP_ROLE}")).await.unwrap();
    room.until(async || room.try_send(&acme, "a", None).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_that_say_nothing_hold_up_figures_and_lists_once_and_not_one_after_the_other() {
    let room = Dedicated::new().await;
    let mut all = Vec::new();
    for slug in ["one", "two", "three", "four", "five", "six"] {
        all.push(room.organization(slug).await);
    }
    room.send(&all[5], "a").await;
    let mut silent = Vec::new();
    for database in &databases(&room).await[..5] {
        let client = inside(&room, database).await;
        client.batch_execute("begin; lock table organizations, usage, exceptions").await.unwrap();
        silent.push(client);
    }
    // Each is waited for for a second: five seconds, one after the other.
    let bound = Duration::from_secs(3);
    let begun = Instant::now();
    let unavailable = standing(&room.storage, "unavailable").await;
    assert!((unavailable - 5.0).abs() < f64::EPSILON && begun.elapsed() < bound, "{:?}", begun.elapsed());
    let begun = Instant::now();
    let (by, page) = (SuperAdmin::by_operator(), crate::support::page(10));
    let listed = room.storage.platform.organization_list(by, page).await.unwrap().data;
    assert!(begun.elapsed() < bound, "{:?}", begun.elapsed());
    let listed: Vec<_> = listed.iter().map(|one| (one.slug.as_str(), one.webhook_count)).collect();
    assert_eq!(listed, [("six", 1), ("five", 0), ("four", 0), ("three", 0), ("two", 0), ("one", 0)]);
    for client in silent {
        client.batch_execute("rollback").await.unwrap();
    }
    room.until(async || standing(&room.storage, "open").await > 5.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upkeep_and_the_check_of_audit_logs_do_not_wait_for_one_database_before_they_go_on_with_the_next() {
    let room = Dedicated::new().await;
    for slug in ["one", "two", "three"] {
        room.endpoint(&room.organization(slug).await).await;
    }
    let (databases, admin) = (databases(&room).await, admin(&room).await);
    let now = room.now();
    for (table, what) in [("rejections", Walk::Upkeep), ("audit_logs", Walk::Audit)] {
        let mut locked = Vec::new();
        for database in &databases[..2] {
            let client = inside(&room, database).await;
            client.batch_execute(&format!("begin; lock table {table}")).await.unwrap();
            locked.push(client);
        }
        let platform = room.storage.platform.clone();
        let walk = tokio::spawn(async move {
            match what {
                Walk::Upkeep => platform.upkeep(now).await.map(|_| 0),
                Walk::Audit => {
                    let reports = platform.audit_verify(SuperAdmin::by_operator(), None).await?;
                    Ok(reports.iter().filter(|report| report.dedicated && report.broken.is_none()).count())
                }
            }
        });
        let waiting = "select count(distinct database) from pg_locks join pg_database on pg_database.oid = database \
             where not granted and datname = any ($1)";
        room.until(async || admin.query_one(waiting, &[&databases]).await.unwrap().get::<_, i64>(0) == 2).await;
        drop(locked);
        let whole = walk.await.unwrap().unwrap();
        assert_eq!(whole, if matches!(what, Walk::Audit) { 3 } else { 0 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_database_that_cannot_be_opened_is_named_and_nobody_else_waits() {
    let room = Dedicated::new().await;
    let (acme, other) = (room.organization("acme").await, room.organization("other").await);
    room.storage.platform.close().await.unwrap();
    let database = databases(&room).await.remove(0);
    admin(&room).await.batch_execute(&format!("drop database \"{database}\" with (force)")).await.unwrap();
    let (storage, _lanes) = neighbour(&room).await;
    let refused = send(&storage, &acme).await;
    let is_named = |error: &Error| match error {
        Error::Unavailable(cause) => cause.is::<TenantUnavailable>() && cause.to_string().contains("does not exist"),
        _ => false,
    };
    assert!(refused.as_ref().is_err_and(is_named), "{refused:?}");
    send(&storage, &other).await.unwrap();
    assert!((standing(&storage, "unavailable").await - 1.0).abs() < f64::EPSILON);
    storage.platform.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_outlives_the_threads_of_whoever_asked_for_it_first() {
    let room = Arc::new(Dedicated::new().await);
    let asking = room.clone();
    let asked = move || {
        let elsewhere = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        elsewhere.block_on(async {
            let acme = asking.organization("acme").await;
            asking.send(&acme, "a").await;
            acme
        })
    };
    let acme = tokio::task::spawn_blocking(asked).await.unwrap();
    room.send(&acme, "a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_work_in_one_database_and_nothing_of_it_is_elsewhere() {
    let room = Dedicated::new().await;
    let (other, _lanes) = neighbour(&room).await;
    let acme = room.organization("acme").await;
    let endpoint = room.endpoint(&acme).await;
    room.until(async || send(&other, &acme).await.is_ok()).await;
    let sent = join_all((0..20).map(|at| send(if at % 2 == 0 { &room.storage } else { &other }, &acme))).await;
    let sent: HashSet<EventId> = sent.into_iter().map(Result::unwrap).collect();
    assert_eq!(sent.len(), 20);
    let found = other.api.endpoint_get(&acme.scope, endpoint.id).await.unwrap();
    assert_eq!(found.id, endpoint.id);
    let cell = inside(&room, &databases(&room).await[0]).await;
    let nodes: i64 = cell.query_one("select count(distinct node) from events", &[]).await.unwrap().get(0);
    assert_eq!(nodes, 2);
    let shared: i64 = admin(&room).await.query_one("select count(*) from events", &[]).await.unwrap().get(0);
    assert_eq!(shared, 0);
    other.platform.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_left_behind_in_a_database_is_found_by_one_that_had_closed_it() {
    let room = Dedicated::new().await;
    let acme = room.organization("acme").await;
    room.endpoint(&acme).await;
    let (other, lanes) = neighbour(&room).await;
    send(&other, &acme).await.unwrap();
    // The other one holds deliveries in memory; here nothing has been asked for long.
    // Whoever has come in since this one looked last makes it wait for another five minutes.
    for _ in 0..3 {
        room.hands.forward(IDLE);
        let soon = Instant::now() + Duration::from_secs(5);
        while standing(&room.storage, "asleep").await == 0.0 && Instant::now() < soon {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(standing(&room.storage, "asleep").await > 0.0);
    let sent = join_all((0..10).map(|_| send(&other, &acme))).await;
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    assert!(standing(&room.storage, "asleep").await > 0.0, "it is the other's business");
    assert_eq!(lanes.delivered.lock().len(), 11);

    // Killed: its leases run out, in both databases.
    drop(other);
    let over =
        "update nodes set lease_until = '-infinity' where node = (select max(node) from nodes where state = 'live')";
    inside(&room, &databases(&room).await[0]).await.batch_execute(over).await.unwrap();
    admin(&room).await.batch_execute(over).await.unwrap();
    room.until(async || room.waiting().await.len() == 11).await;
}
