//! `kill -9` of whatever makes, migrates or seals anew a database of one organization: at every step it is held up by a lock
//! that the test took, seen to wait there, and killed; then it is done once more.

use std::io::Write as _;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use postroom_testkit::postgres;
use serde_json::json;

use super::super::event;
use super::{Dedicated, ask, count, hold, inside, is_delivered, owning, run, start, until_waiting};
use crate::support::{
    ADMIN_TOKEN, Engine, Place, Receiver, Server, Tenant, post, request, stderr, stdout, wait_for, wait_until,
};

/// The lock that migrations take.
const MIGRATING: &str = "select pg_advisory_lock(8101820253219323757)";

/// The making of an organization with a database of its own, which is asked for again and again.
struct Making {
    place: Arc<Place>,
    server: Server,
    other: Tenant,
    receiver: Receiver,
}

impl Making {
    fn body(&self) -> serde_json::Value {
        json!({ "name": "Acme", "isolation": "dedicated", "plan": "premium", "target_url": self.receiver.url() })
    }

    fn shared(&self) -> &str {
        self.place.database().name()
    }

    /// Asks, and does not wait for the answer.
    fn ask(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.server.url.trim_start_matches("http://")).expect("a server");
        let body = self.body().to_string();
        let head = format!(
            "POST /v1/tenants HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_TOKEN}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("it takes a request");
        stream
    }

    /// Asks while somebody holds what the making needs, and kills the server when it waits for that.
    fn is_killed_while<T>(&mut self, held: T, database: &str) {
        let asked = self.ask();
        until_waiting(&self.admin(), database, 1);
        self.is_killed(asked, held, database);
    }

    fn is_killed<T>(&mut self, asked: TcpStream, held: T, database: &str) {
        self.server.kill();
        drop((asked, held));
        // What a killed process had asked for is done, or is not, before anybody asks for more.
        let left = format!("pg_stat_activity where datname = '{database}' and application_name = 'postroom'");
        wait_until("the end of its sessions", || (count(&self.admin(), &left) == 0).then_some(()));
        let [(name, url)] = owning(&self.place);
        self.server.restart(&[(name, &url)]);
        let source = format!("{}/in/acme/none", self.server.url);
        wait_until("others work on", || {
            (self.other.at(&self.server).post("/v1/events", &event()).0 == 202).then_some(())
        });
        let (status, head, _) = request("POST", &source, &[], b"{}");
        assert!(status == 503 && head.contains("\r\nretry-after: "), "it is not made yet: {head}");
        assert_eq!(self.rows("tenants where initialize"), 0);
    }

    fn admin(&self) -> String {
        self.place.database().admin_url()
    }

    fn rows(&self, from: &str) -> i64 {
        count(&self.admin(), from)
    }

    /// The databases of organizations that there are on the server.
    fn databases(&self) -> Vec<String> {
        ask(&self.admin(), "select datname::text from pg_database where datname like 'postroom\\_ten\\_%'")
    }
}

/// Keeps `create database` waiting, on a server of the test's own.
const TEMPLATE: &str = "begin; alter database template0 rename to template0_held";

#[test]
fn a_database_whose_making_is_killed_at_every_step_is_made_by_the_same_request_and_once() {
    let own = wait_for(postgres::Server::start());
    let place = Arc::new(Place::on_own(&own));
    let server = start(&place, &owning(&place));
    let other = server.tenant("Other", None);
    let mut making = Making { place: place.clone(), server, other, receiver: Receiver::answering(&[200]) };
    let (shared, admin) = (making.shared().to_owned(), making.admin());

    // The row is written, and the database is not made.
    let held = hold(&admin, TEMPLATE);
    let asked = making.ask();
    until_waiting(&admin, &shared, 1);
    making.server.kill();
    let creating = "pg_stat_activity where query like 'create database%' and pid <> pg_backend_pid()";
    run(&admin, &format!("select pg_terminate_backend(pid) from {creating}"));
    wait_until("the end of the session", || (count(&admin, creating) == 0).then_some(()));
    making.is_killed(asked, held, &shared);
    assert_eq!((making.rows("tenants"), making.databases().len()), (1, 0));

    // The database is made when nobody waits for it any more.
    making.is_killed_while(hold(&admin, TEMPLATE), &shared);
    let [database] = making.databases().try_into().expect("one database");
    let cell = inside(&place, &database);
    let applied = || count(&cell, "pg_class where relname = 'migrations'");
    assert_eq!(applied(), 0);

    // Before its migrations, and in the middle of them.
    making.is_killed_while(hold(&cell, MIGRATING), &database);
    assert_eq!(applied(), 0);
    making.is_killed_while(hold(&cell, "begin; lock table pg_policy in share mode"), &database);
    let half = count(&cell, "migrations");
    assert!((1..8).contains(&half), "{half} migrations");

    // Migrated, and nothing is in it.
    let (before, asked) = (hold(&cell, MIGRATING), making.ask());
    until_waiting(&admin, &database, 1);
    let row = hold(&admin, "begin; select from tenants for update");
    drop(before);
    until_waiting(&admin, &shared, 1);
    assert_eq!(count(&cell, "organizations"), 0);
    making.is_killed(asked, row, &shared);

    // All is there but the key, and the word that all is there.
    making.is_killed_while(hold(&admin, "begin; lock table api_keys in share mode"), &shared);
    assert_eq!((count(&cell, "organizations"), making.rows("api_keys")), (1, 1));

    let tenants = format!("{}/v1/tenants", making.server.url);
    let (status, made) = post(&tenants, ADMIN_TOKEN, &making.body());
    assert_eq!(status, 201, "{made}");
    let (status, again) = post(&tenants, ADMIN_TOKEN, &making.body());
    assert_eq!((status, again["code"].as_str()), (409, Some("slug_taken")), "{again}");
    assert_eq!(making.databases(), [database]);
    let key = made["api_key"]["secret"].as_str().unwrap().to_owned();
    let acme = Tenant { url: making.server.url.clone(), key };
    let sent = acme.post("/v1/events", &event()).1["id"].as_str().unwrap().to_owned();
    assert_eq!(making.receiver.next().header("webhook-id"), sent);
    for (path, things) in [("/v1/endpoints", 1), ("/v1/api-keys", 1), ("/v1/events", 1)] {
        assert_eq!(acme.get(path)["data"].as_array().unwrap().len(), things, "{path}");
    }
    assert_eq!((making.rows("organizations"), making.rows("tenants")), (2, 1));
    assert!(making.receiver.is_quiet(), "nothing is sent twice");
}

/// A command of the operator's, with the owning login.
fn operator(place: &Place, arguments: &[&str], keys: Option<&str>) -> Command {
    let mut command = place.command(arguments);
    command.envs(owning(place)).stdout(Stdio::piped()).stderr(Stdio::piped());
    keys.map(|keys| command.env("POSTROOM_ENCRYPTION_KEYS", keys));
    command
}

fn killed(mut child: Child) {
    child.kill().expect("it runs");
    child.wait().expect("it ends");
}

#[test]
fn keys_rotated_over_several_databases_and_killed_in_each_open_everything_in_the_end() {
    let place = Arc::new(Place::new(Engine::Postgres));
    let receiver = Receiver::answering(&[200]);
    let old = place.setting("POSTROOM_ENCRYPTION_KEYS");
    let fresh = stdout(&place.run(&["keys", "generate"])).trim().to_owned();
    let both = format!("{fresh},{old}");
    let mut server = start(&place, &owning(&place));
    let all = ["Acme", "Zeta"].map(|name| Dedicated::make(&server, name, Some(&receiver.url())));
    let other = server.tenant("Other", Some(&receiver.url()));
    // One that was begun, has its first secrets, and was never finished.
    let half = Dedicated::make(&server, "Half", Some(&receiver.url()));
    assert_eq!(server.terminate(), 0);
    let admin = place.database().admin_url();
    run(&admin, &format!("update tenants set initialize = false where database = '{}'", half.database));

    let shared = place.database().name();
    let [acme, zeta] = all.each_ref().map(|one| one.database.as_str());
    for (database, table) in [
        (acme, "endpoint_secrets"),
        (acme, "meta"),
        (zeta, "endpoint_secrets"),
        (&half.database, "meta"),
        (shared, "endpoint_secrets"),
        (shared, "meta"),
    ] {
        let held = hold(&inside(&place, database), &format!("begin; lock table {table} in share mode"));
        let rotating = operator(&place, &["keys", "rotate"], Some(&both)).spawn().expect("it starts");
        until_waiting(&admin, database, 1);
        killed(rotating);
        drop(held);
        let early = operator(&place, &["serve", "--listen", "127.0.0.1:0"], Some(&fresh)).output().expect("it starts");
        assert!(stderr(&early).contains("do not open this database"), "at {table} of {database}: {}", stderr(&early));
    }
    let mut beside = start(&place, &[("POSTROOM_ENCRYPTION_KEYS", both.clone())]);
    all.iter().for_each(|one| is_delivered(&beside, one, &receiver));
    assert_eq!(beside.terminate(), 0);

    let rotated = operator(&place, &["keys", "rotate"], Some(&both)).output().expect("it starts");
    assert_eq!(rotated.status.code(), Some(0), "{}", stderr(&rotated));
    let again = operator(&place, &["keys", "rotate"], Some(&fresh)).output().expect("it starts");
    assert_eq!(again.status.code(), Some(0), "the old key is not needed any more: {}", stderr(&again));
    let [owner] = owning(&place);
    let server = start(&place, &[owner, ("POSTROOM_ENCRYPTION_KEYS", fresh)]);
    all.iter().for_each(|one| is_delivered(&server, one, &receiver));
    assert_eq!(other.at(&server).post("/v1/events", &event()).0, 202);
    receiver.next();
    let body = json!({ "name": "Half", "isolation": "dedicated", "slug": half.slug });
    let (status, made) = post(&format!("{}/v1/tenants", server.url), ADMIN_TOKEN, &body);
    assert_eq!(status, 201, "what it had is opened by the newest key: {made}");
}

#[test]
fn migrations_of_many_databases_are_finished_by_the_second_when_the_first_is_killed() {
    let place = Arc::new(Place::new(Engine::Postgres));
    let mut server = start(&place, &owning(&place));
    let all = ["Acme", "Beta", "Zeta"].map(|name| Dedicated::make(&server, name, None));
    assert_eq!(server.terminate(), 0);
    let migrate = |arguments: &[&str]| operator(&place, &[&["migrate"], arguments].concat(), None);
    let down = migrate(&["down", "--yes"]).output().expect("it starts");
    assert_eq!(stdout(&down).matches("took back 0").count(), 4, "{}", stderr(&down));
    let admin = place.database().admin_url();
    let missing = |arguments: &[&str]| {
        let output = migrate(arguments).output().expect("it starts");
        stdout(&output).lines().filter(|line| line.contains("missing") || line.contains("would apply")).count()
    };
    assert_eq!((missing(&["status"]), missing(&["up", "--dry-run"])), (4, 4));

    // Two at once, both held up at the second of the three.
    let second = &all[1];
    let held = hold(&second.admin_url(&place), MIGRATING);
    let one = migrate(&["up"]).spawn().expect("it starts");
    until_waiting(&admin, &second.database, 1);
    let two = migrate(&["up"]).spawn().expect("it starts");
    until_waiting(&admin, &second.database, 2);
    wait_until("the others, which wait for nobody", || (missing(&["status"]) == 1).then_some(()));
    killed(one);
    drop(held);
    let two = two.wait_with_output().expect("it ends");
    assert_eq!(two.status.code(), Some(0), "{}", stderr(&two));
    assert_eq!(missing(&["status"]), 0);

    // Servers that may migrate do it themselves, two of them at once.
    assert_eq!(migrate(&["down", "--yes"]).output().expect("it starts").status.code(), Some(0));
    let servers = std::thread::scope(|scope| {
        let starting = [0, 1].map(|_| scope.spawn(|| start(&place, &owning(&place))));
        starting.map(|starting| starting.join().unwrap())
    });
    for (server, acme) in servers.iter().flat_map(|server| all.iter().map(move |acme| (server, acme))) {
        wait_until("its database", || (acme.send(server).0 == 202).then_some(()));
    }
    assert_eq!(missing(&["status"]), 0);
}
