//! Databases of their own on the embedded engine: where they are, what happens when one is damaged, half made, asleep or
//! killed, and what commands do with them.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use postroom_domain::keyring::Keyring;
use postroom_domain::{OrganizationId, Secret, Timestamp};
use postroom_storage::platform::{Gauge, Isolation, NewTenant, OrganizationChange, Tenant};
use postroom_storage::sqlite::{Mode, OpenError, Options, migrate, open, rotate_keys};
use postroom_storage::worker::Transition;
use postroom_storage::{Error, Storage, SuperAdmin, TenantUnavailable};

use crate::embedded::{KEY, child, child_dir, options};
use crate::support::{
    Hands, Harness, Room, SqliteDedicated, awake, new_endpoint, new_event, new_key, new_organization, opening, page,
    settlement,
};

const DATABASE: &str = "postroom.db";
/// Longer than a database stays open that nobody uses.
const IDLE: Duration = Duration::from_secs(6 * 60);

type Dedicated = Room<SqliteDedicated>;

/// The directories of all cells, in the order they were made.
fn cells(data_dir: &Path) -> Vec<PathBuf> {
    let shared = rusqlite::Connection::open(data_dir.join(DATABASE)).unwrap();
    let mut urls = shared.prepare("select url from tenants order by cell").unwrap();
    let urls = urls.query_map([], |row| row.get::<_, String>(0)).unwrap();
    urls.map(|url| data_dir.join(url.unwrap())).collect()
}

fn count(directory: &Path, sql: &str) -> i64 {
    rusqlite::Connection::open(directory.join(DATABASE)).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

fn change(directory: &Path, sql: &str) {
    rusqlite::Connection::open(directory.join(DATABASE)).unwrap().execute_batch(sql).unwrap();
}

/// How many databases stand so.
async fn standing(storage: &Storage, state: &str) -> f64 {
    let gauges = storage.platform.gauges().await.unwrap();
    let found = gauges
        .iter()
        .find(|gauge| gauge.name == "postroom_tenant_databases" && gauge.labels == [("state", state.to_owned())]);
    found.map_or(0.0, |gauge| gauge.value)
}

/// Lets time pass until a database sleeps. When it is looked at, something may still be under way: then it is looked at
/// again after as long.
async fn one_sleeps(room: &Dedicated) {
    let sleeps = async || {
        room.hands.forward(IDLE);
        standing(&room.storage, "asleep").await > 0.0
    };
    room.until(sleeps).await;
}

async fn unavailable(storage: &Storage) -> Vec<String> {
    let gauges = storage.platform.gauges().await.unwrap();
    let is_named = |gauge: &Gauge| gauge.name == "postroom_tenant_unavailable" && gauge.value > 0.0;
    let named = gauges.into_iter().filter(is_named);
    named.flat_map(|gauge| gauge.labels.into_iter().map(|(_, organization)| organization)).collect()
}

async fn try_make(storage: &Storage, slug: &str, now: Timestamp) -> postroom_storage::Result<Tenant> {
    let new = NewTenant {
        organization: new_organization(slug),
        api_key: new_key(),
        endpoint: Some(new_endpoint()),
        isolation: Isolation::Dedicated,
    };
    storage.platform.tenant_create(SuperAdmin::by_operator(), new, now).await
}

/// Whether it is the error of one organization's database.
fn is_of_a_tenant(error: &Error) -> bool {
    matches!(error, Error::Unavailable(cause) if cause.is::<TenantUnavailable>())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_organization_owns_is_in_its_own_file_and_nowhere_else() {
    let room = Dedicated::new().await;
    let acme = try_make(&room.storage, "acme", room.now()).await.unwrap();
    assert_eq!(room.send(&acme, "a").await.deliveries, 1);
    let other = room.organization("other").await;
    room.send(&other, "a").await;
    let dir = room.harness.0.path();
    let [first, second] = cells(dir).try_into().unwrap();
    let everything = "select (select count(*) from event) + (select count(*) from endpoint) \
                      + (select count(*) from endpoint_secret) + (select count(*) from attempt)";
    assert_eq!(count(dir, everything), 0);
    assert_eq!((count(&first, everything), count(&second, everything)), (3, 1));
    for (directory, organizations, keys) in [(dir, 2, 2), (&first, 1, 0), (&second, 1, 0)] {
        assert_eq!(count(directory, "select count(*) from organization"), organizations);
        assert_eq!(count(directory, "select count(*) from api_key"), keys);
    }
    // What is sealed and who is who has the same numbers in both.
    assert_eq!(
        count(dir, "select org from organization where slug = 'other'"),
        count(&second, "select org from organization")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_cannot_be_used_is_unavailable_to_its_organization_alone_and_named() {
    let room = Dedicated::new().await;
    let acme = room.organization("acme").await;
    let other = room.organization("other").await;
    let mut room = room.restart().await;
    for damage in ["missing", "damaged", "anothers", "empty", "in use", "newer"] {
        room.storage.platform.close().await.unwrap();
        let [cell, others] = cells(room.harness.0.path()).try_into().unwrap();
        let file = cell.join(DATABASE);
        let sound = std::fs::read(&file).unwrap();
        let mut lock = None;
        match damage {
            "missing" => std::fs::remove_file(&file).unwrap(),
            "damaged" => std::fs::write(&file, vec![7; sound.len()]).unwrap(),
            "anothers" => std::fs::write(&file, std::fs::read(others.join(DATABASE)).unwrap()).unwrap(),
            "empty" => std::fs::write(&file, b"").unwrap(),
            "in use" => {
                let locked = std::fs::File::options().write(true).open(cell.join("postroom.lock")).unwrap();
                locked.try_lock().unwrap();
                lock = Some(locked);
            }
            _ => change(&cell, "pragma user_version = 99"),
        }
        let storage = room.harness.open(opening(&room.hands, &room.lanes, &room.keys)).await;
        let record = |tenant: &Tenant| storage.receiver.event_record(new_event(tenant, "a", None, room.hands.now()));
        let refused = record(&acme).await.unwrap_err();
        assert!(is_of_a_tenant(&refused), "{damage}: {refused:?}");
        let source = storage.receiver.source_find("acme", "any").await.unwrap_err();
        assert!(is_of_a_tenant(&source), "{damage}: {source:?}");
        record(&other).await.unwrap();
        assert_eq!(unavailable(&storage).await, [acme.organization.id.to_string()], "{damage}");
        storage.platform.health().await.unwrap();
        let audited = storage.platform.audit_verify(SuperAdmin::by_operator(), None).await.unwrap();
        let unread = audited.iter().filter(|report| report.broken.is_some()).map(|report| report.organization);
        assert_eq!(unread.collect::<Vec<_>>(), [Some(acme.organization.id)], "{damage}: the others are checked");
        assert_eq!(storage.worker.pending_heads(None, 10).await.unwrap(), []);

        drop(lock);
        if damage != "in use" {
            for suffix in ["-wal", "-shm"] {
                let _not_there = std::fs::remove_file(cell.join(format!("{DATABASE}{suffix}")));
            }
            std::fs::write(&file, &sound).unwrap();
        }
        room.until(async || record(&acme).await.is_ok()).await;
        assert!(unavailable(&storage).await.is_empty(), "{damage}: it is mended without a restart");
        room.storage = storage;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_half_made_is_refused_and_completed_by_the_same_request() {
    let room = Dedicated::new().await;
    // Where its directory belongs there is something else.
    let (dir, slug) = (room.harness.0.path().to_owned(), "acme");
    std::fs::write(dir.join("tenants"), b"").unwrap();
    assert!(try_make(&room.storage, slug, room.now()).await.is_err());
    let scope = room.storage.authorizer.organization_enter(SuperAdmin::by_operator(), slug).await.unwrap().unwrap();
    let refused = room.storage.api.endpoint_list(&scope, page(9)).await.unwrap_err();
    assert!(is_of_a_tenant(&refused), "{refused:?}");
    std::fs::remove_file(dir.join("tenants")).unwrap();

    let acme = try_make(&room.storage, slug, room.now()).await.unwrap();
    assert_eq!(room.send(&acme, "a").await.deliveries, 1);
    assert!(matches!(try_make(&room.storage, slug, room.now()).await, Err(Error::Taken { .. })), "it is complete");
}

/// What a process that was killed after a step of making a tenant leaves: what later steps did is taken away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_died_after_any_step_is_completed_by_the_next_one() {
    for step in ["row", "file", "migrations", "endpoint"] {
        let room = Dedicated::new().await;
        let acme = try_make(&room.storage, "acme", room.now()).await.unwrap();
        room.storage.platform.close().await.unwrap();
        let dir = room.harness.0.path();
        let [cell] = cells(dir).try_into().unwrap();
        change(dir, "update tenants set initialize = 0; delete from api_key");
        if step != "endpoint" {
            std::fs::remove_dir_all(&cell).unwrap();
        }
        if step == "file" {
            std::fs::create_dir(&cell).unwrap();
            std::fs::write(cell.join(DATABASE), b"").unwrap();
        } else if step == "migrations" {
            migrate::up(&cell).unwrap();
        }
        let storage = room.harness.open(opening(&room.hands, &room.lanes, &room.keys)).await;
        let refused = storage.receiver.event_record(new_event(&acme, "a", None, room.now())).await.unwrap_err();
        assert!(is_of_a_tenant(&refused), "after {step}: {refused:?}");
        let again = try_make(&storage, "acme", room.now()).await.unwrap();
        assert_eq!(again.organization.id, acme.organization.id, "after {step}");
        let there = storage.api.endpoint_list(&again.scope, page(9)).await.unwrap().data;
        let asked_for = again.endpoint.as_ref().unwrap().id;
        assert_eq!(there.iter().map(|endpoint| endpoint.id).collect::<Vec<_>>(), [asked_for], "after {step}");
        assert_eq!(storage.api.api_key_list(&again.scope, page(9)).await.unwrap().data.len(), 1, "after {step}");
        let recorded = storage.receiver.event_record(new_event(&again, "a", None, room.now())).await.unwrap();
        assert_eq!(recorded.deliveries, 1, "after {step}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_made_until_the_process_is_killed_are_complete_or_can_be_completed() {
    let keys = Secret::from(KEY);
    let slug = |number: usize| format!("acme-{number}");
    if let Some(dir) = child_dir() {
        let storage = open(options(&dir, &keys, Mode::Serve)).unwrap();
        for number in 0.. {
            match try_make(&storage, &slug(number), Hands::new().now()).await {
                Ok(_) => writeln!(std::io::stdout(), "made {number}").unwrap(),
                Err(error) => assert!(matches!(error, Error::Taken { .. }), "{error:?}"),
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut made = 0;
    for round in 0..6 {
        let test = "dedicated::tenants_made_until_the_process_is_killed_are_complete_or_can_be_completed";
        let mut running = child(test, dir.path()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(running.stdout.take().unwrap()).lines().map_while(Result::ok);
        let numbers = lines.filter_map(|line| line.strip_prefix("made ")?.parse::<usize>().ok());
        made = numbers.take(1 + round % 3).last().expect("it makes some") + 1;
        running.kill().unwrap();
        running.wait().unwrap();
    }
    let storage = open(options(dir.path(), &keys, Mode::Serve)).unwrap();
    awake(&storage).await;
    for number in 0..made {
        let by = SuperAdmin::by_operator();
        let scope = storage.authorizer.organization_enter(by, &slug(number)).await.unwrap().unwrap();
        assert_eq!(storage.api.endpoint_list(&scope, page(9)).await.unwrap().data.len(), 1);
        assert_eq!(storage.api.api_key_list(&scope, page(9)).await.unwrap().data.len(), 1);
    }
    // The one that was under way.
    let next = match try_make(&storage, &slug(made), Hands::new().now()).await {
        Err(Error::Taken { .. }) => try_make(&storage, &slug(made + 1), Hands::new().now()).await.unwrap(),
        next => next.unwrap(),
    };
    assert_eq!(storage.api.endpoint_list(&next.scope, page(9)).await.unwrap().data.len(), 1);
    storage.platform.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_sleeps_when_nothing_waits_there_and_wakes_for_the_next_call() {
    let room = Dedicated::new().await;
    let [acme, busy] = [room.organization("acme").await, room.organization("busy").await];
    room.send(&acme, "a").await;
    room.endpoint(&busy).await;
    let event = room.send(&busy, "a").await.id;
    let delivery = room.handed_over().remove(0);
    let delivery = delivery.0.delivery(delivery.1);
    let later = room.now() + Duration::from_secs(3600);
    let failed = settlement(event, delivery, 1, 500, Transition::Wait(later), room.now());
    room.storage.worker.attempt_settle(failed).await.unwrap();

    let dir = room.harness.0.path().to_owned();
    let awake_in_the_registry = || count(&dir, "select sum(awake) from tenants");
    assert_eq!((standing(&room.storage, "open").await, awake_in_the_registry()), (2.0, 2));
    one_sleeps(&room).await;
    assert_eq!((standing(&room.storage, "open").await, awake_in_the_registry()), (1.0, 1), "where a delivery waits");
    assert_eq!(room.waiting().await.len(), 1);
    let by = SuperAdmin::by_operator;
    let shown = room.storage.platform.organization_get(by(), acme.organization.id).await.unwrap();
    assert_eq!((shown.webhook_count, standing(&room.storage, "asleep").await), (1, 1.0), "without waking it");

    // What is changed of an organization meanwhile is known when it wakes.
    let off = OrganizationChange { slug: Some("renamed".to_owned()), ..OrganizationChange::default() };
    room.storage.platform.organization_update(by(), acme.organization.id, off, room.now()).await.unwrap();
    let source = crate::support::new_source("s", "secret");
    room.storage.api.source_create(&acme.scope, source, room.now()).await.unwrap();
    assert!(room.source("renamed", "s").await.is_some());
    assert!(room.source("acme", "s").await.is_none());
    assert_eq!((standing(&room.storage, "open").await, awake_in_the_registry()), (2.0, 2));

    // A start opens the one in which something waits, and leaves the other.
    one_sleeps(&room).await;
    room.lanes.woken.lock().clear();
    let room = room.restart().await;
    room.until(async || !room.lanes.woken.lock().is_empty()).await;
    assert_eq!((standing(&room.storage, "open").await, standing(&room.storage, "asleep").await), (1.0, 1.0));
    assert_eq!(room.waiting().await.len(), 1, "though nobody called");
    let room = room.crash().await;
    assert_eq!(room.waiting().await.len(), 1, "after a crash, too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_slept_for_long_is_woken_so_that_what_is_old_goes() {
    let room = Dedicated::new().await;
    let acme = room.organization("acme").await;
    let old = room.send(&acme, "a").await.id;
    one_sleeps(&room).await;
    room.hands.forward(Duration::from_secs(31 * 24 * 3600));
    room.until(async || standing(&room.storage, "open").await > 0.0).await;
    room.until(async || {
        while room.storage.platform.upkeep(room.now()).await.unwrap() {}
        room.storage.api.event_get(&acme.scope, old).await.is_err()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_beside_the_server_reaches_a_database_that_is_awake_and_one_that_sleeps() {
    let room = Dedicated::new().await;
    let acme = room.organization("acme").await;
    let options = |mode| Options { mode, ..room.harness.0.options(opening(&room.hands, &room.lanes, &room.keys)) };
    let beside = open(options(Mode::Beside)).unwrap();
    let enter =
        async |slug| beside.authorizer.organization_enter(SuperAdmin::by_operator(), slug).await.unwrap().unwrap();
    let scope = enter("acme").await;
    for deliveries in 1..=2 {
        if deliveries == 2 {
            one_sleeps(&room).await;
        }
        beside.api.endpoint_create(&scope, new_endpoint(), room.now()).await.unwrap();
        room.until(async || room.send(&acme, "a").await.deliveries == deliveries).await;
        for (event, to) in room.handed_over() {
            let done = settlement(event.id, event.delivery(to), 1, 200, Transition::Done, room.now());
            room.storage.worker.attempt_settle(done).await.unwrap();
        }
    }
    beside.platform.close().await.unwrap();
    let awake = count(room.harness.0.path(), "select awake from tenants");
    assert_eq!(awake, 1, "the server has it open");

    // One that the command made itself.
    let beside = open(options(Mode::Beside)).unwrap();
    let other = try_make(&beside, "other", room.now()).await.unwrap();
    beside.platform.close().await.unwrap();
    room.until(async || room.try_send(&other, "a", None).await.is_ok_and(|recorded| recorded.deliveries == 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_rotate_in_every_database_and_the_shared_one_is_last() {
    let room = Dedicated::new().await;
    let [acme, other] = [room.organization("acme").await, room.organization("other").await];
    for tenant in [&acme, &other] {
        room.endpoint(tenant).await;
    }
    room.storage.platform.close().await.unwrap();
    let dir = room.harness.0.path();
    let (old, new) = (room.keys.clone(), Keyring::generate());
    let text = |key: &Secret| key.expose_str().unwrap().to_owned();
    let ring = Keyring::parse(&Secret::from(format!("{},{}", text(&new), text(&old)))).unwrap();
    let [first, _] = cells(dir).try_into().unwrap();
    let file = first.join(DATABASE);
    let sound = std::fs::read(&file).unwrap();
    std::fs::write(&file, vec![7; sound.len()]).unwrap();
    let failed = rotate_keys(dir, &ring, |_, _| {}).unwrap_err().to_string();
    assert!(failed.contains(&acme.organization.id.to_string()), "{failed}");
    let early = open(options(dir, &new, Mode::Serve)).map(drop).unwrap_err();
    assert!(matches!(early, OpenError::WrongKey(_)), "{early}");
    std::fs::write(&file, &sound).unwrap();

    let mut last = (0, 0);
    // Of each database the sentinel, the key of fingerprints, and name and key of the audit log's chain; of each organization a
    // secret.
    let sealed = rotate_keys(dir, &ring, |done, total| last = (done, total)).unwrap();
    assert_eq!((sealed, last), (5 + 4, (14, 14)), "the other one was done before");
    let storage = open(options(dir, &new, Mode::Serve)).unwrap();
    for tenant in [&acme, &other] {
        let endpoint = storage.api.endpoint_list(&tenant.scope, page(9)).await.unwrap().data.remove(0);
        storage.api.endpoint_secret_reveal(&tenant.scope, endpoint.id, room.now()).await.unwrap();
    }
    storage.platform.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_walk_over_every_database_and_one_that_fails_stops_no_other() {
    let room = Dedicated::new().await;
    let [acme, other] = [room.organization("acme").await, room.organization("other").await];
    let dir = room.harness.0.path();
    assert!(matches!(migrate::up_all(dir, |_, _| {}), Err(OpenError::Locked(_))), "a server is running");
    room.storage.platform.close().await.unwrap();
    let [first, second] = cells(dir).try_into().unwrap();
    for newest in ["0005_audit", "0004_people"] {
        migrate::down_all(dir, |_, taken_back| assert_eq!(taken_back.unwrap(), Some(newest))).unwrap();
    }
    assert!(matches!(migrate::down_all(dir, |_, _| {}), Err(OpenError::HasTenants(2))));
    assert!(matches!(migrate::down(dir), Err(OpenError::HasTenants(2))));
    migrate::down(&second).unwrap();
    std::fs::write(first.join(DATABASE), b"not a database at all, but longer than its header would be. not a database at all, but longer than its header would be").unwrap();

    type Told = Vec<(Option<OrganizationId>, Result<usize, String>)>;
    let [acme, other] = [acme, other].map(|tenant| Some(tenant.organization.id));
    let missing = |expected: [usize; 2]| {
        let mut told: Told = Vec::new();
        migrate::status_all(dir, |database, steps| {
            let missing = steps.map(|steps| steps.iter().filter(|step| !step.applied).count());
            told.push((database.organization, missing.map_err(|error| error.to_string())));
        })
        .unwrap();
        let [shared, (damaged, error), behind] = told.try_into().unwrap();
        assert_eq!((shared, damaged, behind), ((None, Ok(expected[0])), acme, (other, Ok(expected[1]))));
        assert!(error.unwrap_err().contains(&acme.unwrap().to_string()));
    };
    missing([2, 3]);
    let mut told: Told = Vec::new();
    migrate::up_all(dir, |database, applied| {
        told.push((database.organization, applied.map(|names| names.len()).map_err(|error| error.to_string())));
    })
    .unwrap();
    let [shared, (damaged, error), behind] = told.try_into().unwrap();
    assert_eq!((shared, damaged, behind), ((None, Ok(2)), acme, (other, Ok(3))));
    assert!(error.unwrap_err().contains("damaged"));
    missing([0, 0]);
}
