//! Databases of single organizations, from outside: one that cannot be used is its organization's matter alone, what is
//! killed while it makes, migrates or rotates them is done by the next, and many of them take few connections.

mod killed;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use postroom_domain::Secret;
use postroom_storage::postgres::migrate;
use postroom_testkit::postgres::{self, connect};
use serde_json::json;

use super::event;
use crate::support::{
    ADMIN_TOKEN, Engine, Place, Receiver, Server, Tenant, bearer, post, request, stderr, wait_for, wait_until,
};

/// The owning login, for servers that make databases.
fn owning(place: &Place) -> [(&'static str, String); 1] {
    [("POSTROOM_MIGRATE_DATABASE_URL", place.database().owner_url())]
}

fn start(place: &Arc<Place>, environment: &[(&'static str, String)]) -> Server {
    Server::at(place, &environment.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>())
}

/// An organization with a database of its own.
struct Dedicated {
    tenant: Tenant,
    id: String,
    slug: String,
    database: String,
}

impl Dedicated {
    fn make(server: &Server, name: &str, target: Option<&str>) -> Self {
        let mut body = json!({ "name": name, "plan": "premium", "isolation": "dedicated" });
        if let Some(target) = target {
            body["target_url"] = target.into();
        }
        let (status, made) = post(&format!("{}/v1/tenants", server.url), ADMIN_TOKEN, &body);
        assert_eq!(status, 201, "{made}");
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        let (id, slug) = (text(&made["organization"]["id"]), text(&made["organization"]["slug"]));
        let known = format!("select database from tenants where name = '{slug}'");
        let database = ask(&server.place.database().admin_url(), &known).remove(0);
        let tenant = Tenant { url: server.url.clone(), key: text(&made["api_key"]["secret"]) };
        Self { tenant, id, slug, database }
    }

    /// A superuser's way into its database.
    fn admin_url(&self, place: &Place) -> String {
        inside(place, &self.database)
    }

    /// The answer to an event, by one of the servers.
    fn send(&self, server: &Server) -> (u16, serde_json::Value) {
        self.tenant.at(server).post("/v1/events", &event())
    }
}

fn inside(place: &Place, database: &str) -> String {
    place.database().admin_url().replace(place.database().name(), database)
}

fn run(url: &str, sql: &str) {
    wait_for(async { connect(url).await.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")) });
}

/// The texts of the first column.
fn ask(url: &str, sql: &str) -> Vec<String> {
    wait_for(async {
        let rows = connect(url).await.query(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        rows.iter().map(|row| row.get(0)).collect()
    })
}

fn count(url: &str, from: &str) -> i64 {
    ask(url, &format!("select count(*)::text from {from}"))[0].parse().expect("a number")
}

/// A session that keeps what it took until it is dropped.
fn hold(url: &str, sql: &str) -> impl Sized + use<> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = runtime.block_on(async {
        let client = connect(url).await;
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        client
    });
    (client, runtime)
}

/// Waits until so many of our sessions in a database wait for a lock that somebody holds.
fn until_waiting(admin_url: &str, database: &str, sessions: i64) {
    let waiting = format!(
        "pg_stat_activity where datname = '{database}' and application_name = 'postroom' and wait_event_type = 'Lock'"
    );
    wait_until("a session that waits", || (count(admin_url, &waiting) >= sessions).then_some(()));
}

/// That one organization is answered 503, as everybody can see, and nobody else.
fn suffers_alone(server: &Server, acme: &Dedicated, others: &[&Tenant], what: &str) {
    let authorized = bearer(&acme.tenant.key);
    for (method, path, body) in [
        ("POST", "/v1/events", event().to_string()),
        ("GET", "/v1/endpoints", String::new()),
        ("POST", "/in/acme/none", "{}".to_owned()),
    ] {
        let began = Instant::now();
        let (status, head, answer) = request(method, &format!("{}{path}", server.url), &authorized, body.as_bytes());
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(status, 503, "{what}: {method} {path}: {answer}");
        assert!(head.contains("\r\nretry-after: "), "{what}: {method} {path}: {head}");
        assert!(!answer.contains(&acme.database), "{what}: that is for the operator: {answer}");
        assert!(began.elapsed() < Duration::from_secs(12), "{what}: {method} {path}: {:?}", began.elapsed());
    }
    wait_until("the figure", || {
        let shown = metrics(server);
        shown.contains(&format!("postroom_tenant_unavailable{{organization=\"{}\"}} 1\n", acme.id)).then_some(())
    });
    assert_eq!(metrics(server).matches("postroom_tenant_unavailable{").count(), 1, "{what}");
    assert_eq!(request("GET", &format!("{}/readyz", server.url), &[], b"").0, 200, "{what}");
    for other in others {
        let (status, answer) = other.post("/v1/events", &event());
        assert_eq!(status, 202, "{what}: {answer}");
    }
}

fn metrics(server: &Server) -> String {
    let (_, _, body) = request("GET", &format!("{}/metrics", server.url), &[], b"");
    String::from_utf8_lossy(&body).into_owned()
}

/// That the organization works again, by itself: events are accepted and delivered, and the figure says so.
fn is_mended(server: &Server, acme: &Dedicated, receiver: &Receiver, what: &str) {
    let sent = wait_until(what, || {
        let (status, sent) = acme.send(server);
        (status == 202).then(|| sent["id"].as_str().unwrap().to_owned())
    });
    // What was answered 503 may have been stored, so there may be more.
    wait_until(what, || (receiver.next().header("webhook-id") == sent).then_some(()));
    wait_until(what, || {
        let shown = metrics(server);
        shown.contains(&format!("postroom_tenant_unavailable{{organization=\"{}\"}} 0\n", acme.id)).then_some(())
    });
}

#[test]
fn a_database_that_is_missing_unreachable_or_locked_stops_its_organization_alone_until_it_is_mended() {
    let place = Arc::new(Place::new(Engine::Postgres));
    let server = start(&place, &owning(&place));
    let (there, elsewhere) = (Receiver::answering(&[200]), Receiver::answering(&[200]));
    let acme = Dedicated::make(&server, "Acme", Some(&there.url()));
    let zeta = Dedicated::make(&server, "Zeta", Some(&elsewhere.url())).tenant;
    let other = server.tenant("Other", Some(&elsewhere.url()));
    assert_eq!(acme.tenant.post("/v1/sources", &json!({ "provider": "none" })).0, 201);
    is_delivered(&server, &acme, &there);

    let (admin, name) = (place.database().admin_url(), &acme.database);
    let closed = format!(
        "alter database \"{name}\" with allow_connections false; \
         select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'"
    );
    let open = format!("alter database \"{name}\" with allow_connections true");
    let suffers = |what| suffers_alone(&server, &acme, &[&zeta, &other], what);

    run(&admin, &closed);
    suffers("unreachable");
    run(&admin, &open);
    is_mended(&server, &acme, &there, "reachable again");

    run(&admin, &closed);
    run(&admin, &format!("alter database \"{name}\" rename to \"{name}_away\""));
    suffers("missing");
    run(&admin, &format!("alter database \"{name}_away\" rename to \"{name}\""));
    run(&admin, &open);
    is_mended(&server, &acme, &there, "there again");

    let tables = "begin; lock table events, exceptions, endpoints, sources, organizations in access exclusive mode";
    let locked = hold(&acme.admin_url(&place), tables);
    suffers("locked");
    drop(locked);
    is_mended(&server, &acme, &there, "not locked any more");
}

fn is_delivered(server: &Server, acme: &Dedicated, receiver: &Receiver) {
    let (status, sent) = acme.send(server);
    assert_eq!(status, 202, "{sent}");
    assert_eq!(receiver.next().header("webhook-id"), sent["id"].as_str().unwrap());
}

#[test]
fn a_database_of_another_version_waits_for_its_migrations_and_so_does_what_is_to_be_delivered() {
    let place = Arc::new(Place::new(Engine::Postgres));
    let retries = ("POSTROOM_RETRY_SCHEDULE", "1,1,1,1,1".to_owned());
    let [owner] = owning(&place);
    let mut server = start(&place, &[owner.clone(), retries.clone()]);
    let (there, elsewhere) = (Receiver::answering(&[500, 200]), Receiver::answering(&[200]));
    let acme = Dedicated::make(&server, "Acme", Some(&there.url()));
    let other = server.tenant("Other", Some(&elsewhere.url()));
    assert_eq!(acme.tenant.post("/v1/sources", &json!({ "provider": "none" })).0, 201);
    let sent = acme.send(&server).1["id"].as_str().unwrap().to_owned();
    assert_eq!(there.next().header("webhook-id"), sent, "the first attempt, which fails");
    assert_eq!(server.terminate(), 0);

    let url = Secret::from(place.database().owner_url().replace(place.database().name(), &acme.database));
    let newest = wait_for(migrate::down(&url)).expect("it may").expect("there is one");
    let others = |server: &Server| other.at(server);
    server.restart(&[("POSTROOM_RETRY_SCHEDULE", &retries.1)]);
    suffers_alone(&server, &acme, &[&others(&server)], "older");
    assert!(there.is_quiet(), "what waits there goes on waiting");
    let up = place.command(&["migrate", "up"]).env(owner.0, &owner.1).output().expect("it starts");
    assert_eq!(up.status.code(), Some(0), "{}", stderr(&up));
    assert!(String::from_utf8_lossy(&up.stdout).contains(&format!("applied {newest}")));
    assert_eq!(there.next().header("webhook-id"), sent, "without a restart, and though nobody asked");
    is_mended(&server, &acme, &there, "migrated");

    assert_eq!(server.terminate(), 0);
    run(
        &acme.admin_url(&place),
        "insert into migrations select max(version) + 1, 'newer', max(version) + 1 from migrations",
    );
    server.restart(&[]);
    suffers_alone(&server, &acme, &[&others(&server)], "newer");
    run(&acme.admin_url(&place), "delete from migrations where name = 'newer'");
    is_mended(&server, &acme, &there, "as it was");

    let says_so =
        || std::fs::read_to_string(place.log()).unwrap().contains("databases of 1 organizations are on other");
    assert_eq!((server.terminate(), says_so()), (0, false));
    let elsewhere = "update tenants set url = replace(url, '127.0.0.1', 'localhost')";
    run(&place.database().admin_url(), elsewhere);
    server.restart(&[]);
    assert!(says_so(), "as far as the registry tells, it is on another server");
    is_delivered(&server, &acme, &there);
}

#[test]
fn retries_of_others_do_not_wait_for_a_database_that_is_locked() {
    const ENDPOINTS: usize = 16;
    let place = Arc::new(Place::new(Engine::Postgres));
    let [owner] = owning(&place);
    let server = start(&place, &[owner, ("POSTROOM_RETRY_SCHEDULE", ["2"; 20].join(","))]);
    let failing = Receiver::answering(&[500]);
    let acme = Dedicated::make(&server, "Acme", None);
    for _ in 0..ENDPOINTS {
        assert_eq!(acme.tenant.post("/v1/endpoints", &json!({ "url": failing.url() })).0, 201);
    }
    assert_eq!(acme.send(&server).0, 202);
    (0..ENDPOINTS).for_each(|_| drop(failing.next()));
    let _locked = hold(&acme.admin_url(&place), "begin; lock table exceptions in access exclusive mode");

    let receiver = Receiver::answering(&[500, 500, 500, 200]);
    let other = server.tenant("Other", Some(&receiver.url()));
    let began = Instant::now();
    assert_eq!(other.post("/v1/events", &event()).0, 202);
    let attempts: Vec<String> = (0..4).map(|_| receiver.next().header("webhook-id").to_owned()).collect();
    assert!(attempts.iter().all(|id| *id == attempts[0]), "{attempts:?}");
    // Three times two seconds and what the schedule adds by chance, and the bound for which one database is waited for.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

/// As many as a server with so few slots has for the databases of organizations.
const FEW: i64 = 22;

#[test]
fn more_databases_than_there_are_connections_for_take_turns() {
    const ORGANIZATIONS: usize = 14;
    let own = wait_for(postgres::Server::start_with(&[("max_connections", "64")]));
    let place = Arc::new(Place::on_own(&own));
    let server = start(&place, &owning(&place));
    let said = std::fs::read_to_string(place.log()).unwrap();
    assert!(said.contains(&format!("up to 29 connections to the database, and up to {FEW} to those")), "{said}");
    let receiver = Receiver::answering(&[200]);
    let (over, admin) = (AtomicBool::new(false), own.admin_url());
    let most = std::thread::scope(|scope| {
        let watched = scope.spawn(|| {
            let sessions = "pg_stat_activity where datname like 'postroom\\_ten\\_%' and usename = 'postroom_test_app'";
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = most.max(count(&admin, sessions));
            }
            most
        });
        let all: Vec<_> = (0..ORGANIZATIONS)
            .map(|number| Dedicated::make(&server, &format!("Acme {number}"), Some(&receiver.url())))
            .collect();
        let rounds = 3;
        for _ in 0..rounds {
            std::thread::scope(|scope| {
                all.iter().for_each(|acme| {
                    scope.spawn(|| wait_until("a place", || (acme.send(&server).0 == 202).then_some(())));
                });
            });
        }
        (0..rounds * ORGANIZATIONS).for_each(|_| drop(receiver.next()));
        over.store(true, Ordering::Relaxed);
        watched.join().unwrap()
    });
    // A session that was closed is counted by the server until its process has ended; without the bound the lanes alone would be 28.
    assert!((1..=FEW + 4).contains(&most), "{most} connections");
}
