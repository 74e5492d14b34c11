//! What is of PostgreSQL alone: migrations and logins, roles of processes, several servers on one database, and a
//! database that goes away.

mod cells;
mod moving;
mod own_server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use postroom_testkit::postgres::{Database, Mode, Proxy, connect};
use serde_json::json;

use super::support::{
    ADMIN_TOKEN, Engine, Place, Receiver, Server, Tenant, bearer, post, request, stderr, stdout, wait_for, wait_until,
};

const SERVE: [&str; 3] = ["serve", "--listen", "127.0.0.1:0"];

/// A place with an empty database.
fn empty() -> Place {
    Place::on(wait_for(Database::new()))
}

fn event() -> serde_json::Value {
    json!({ "type": "a.b", "data": {} })
}

#[test]
fn an_older_schema_is_refused_with_the_command_that_mends_it() {
    let place = Arc::new(empty());
    let refused = place.run(&SERVE);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("postroom migrate up"), "{}", stderr(&refused));

    let owner = place.database().owner_url();
    let migrate = |arguments: &[&str]| {
        let mut command = place.command(&["migrate"]);
        // Whoever migrates need not know the encryption keys.
        command.args(arguments).env("POSTROOM_MIGRATE_DATABASE_URL", &owner).env_remove("POSTROOM_ENCRYPTION_KEYS");
        command.output().unwrap()
    };
    assert!(stdout(&migrate(&["status"])).contains("missing  0001_"));
    let up = migrate(&["up"]);
    assert!(stdout(&up).contains("applied 0001_"), "{}{}", stdout(&up), stderr(&up));
    assert_eq!(stdout(&migrate(&[])).trim(), "the database is up to date");
    assert!(!stdout(&migrate(&["status"])).contains("missing"));

    let mut server = Server::at(&place, &[]);
    let down = migrate(&["down", "--yes"]);
    assert_eq!(down.status.code(), Some(1), "not under a running server");
    assert!(stderr(&down).contains("stop them"), "{}", stderr(&down));
    assert_eq!(server.terminate(), 0);
    assert_eq!(migrate(&["down"]).status.code(), Some(1), "not without --yes");
    let down = migrate(&["down", "--yes"]);
    assert!(stdout(&down).contains("took back"), "{}", stderr(&down));
    assert!(stdout(&migrate(&["status"])).contains("missing"));
}

#[test]
fn a_server_with_the_owning_login_migrates_by_itself_and_two_at_once_do_no_harm() {
    let place = Arc::new(empty());
    let owner = place.database().owner_url();
    let start = || {
        let (place, owner) = (place.clone(), owner.clone());
        std::thread::spawn(move || Server::at(&place, &[("POSTROOM_MIGRATE_DATABASE_URL", owner.as_str())]))
    };
    for server in [start(), start()].map(|starting| starting.join().unwrap()) {
        assert_eq!(request("GET", &format!("{}/readyz", server.url), &[], b"").0, 200);
    }
}

#[test]
fn what_cannot_be_a_server_s_login_is_refused_at_once_and_no_password_is_shown() {
    let place = Place::new(Engine::Postgres);
    let database = place.database();
    let wrong = database.app_url().replace(database.name(), "hunter2_is_no_database");
    let cases = [
        (database.owner_url(), "make a login for the server alone"),
        (database.admin_url(), "is a superuser"),
        (wrong, "does not exist"),
        (database.url_as("hunter2_is_nobody"), "hunter2_is_nobody"),
    ];
    for (url, expected) in cases {
        let output = place.command(&SERVE).env("POSTROOM_DATABASE_URL", &url).output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(!said.contains("trying again"), "{said}");
        if let Some(password) = database.password() {
            assert!(!said.contains(password), "{said}");
        }
    }
}

#[test]
fn migrate_tells_of_every_database_and_one_that_fails_stops_no_other() {
    let place = Arc::new(Place::new(Engine::Postgres));
    let owner = place.database().owner_url();
    let environment = [("POSTROOM_MIGRATE_DATABASE_URL", owner.as_str()), ("POSTROOM_ADMIN_TOKEN", ADMIN_TOKEN)];
    let mut server = Server::at(&place, &environment);
    for name in ["Acme", "Zeta"] {
        let body = json!({ "name": name, "isolation": "dedicated" });
        let (status, made) = post(&format!("{}/v1/tenants", server.url), ADMIN_TOKEN, &body);
        assert_eq!(status, 201, "{made}");
    }
    assert_eq!(server.terminate(), 0);
    let migrate = |arguments: &[&str]| {
        let mut command = place.command(&["migrate"]);
        command.args(arguments).env("POSTROOM_MIGRATE_DATABASE_URL", &owner).output().unwrap()
    };
    let lines = |output: &std::process::Output| -> Vec<String> {
        stdout(output).lines().filter(|line| line.contains(" (org_")).map(str::to_owned).collect()
    };
    let told = lines(&migrate(&["status"]));
    assert!(told.len() == 2 && told[0].starts_with("acme (org_") && told[1].ends_with(": up to date"), "{told:?}");
    let dry = migrate(&["down", "--dry-run"]);
    assert_eq!(stdout(&dry).matches("would take back 0").count(), 3, "{}", stdout(&dry));
    assert_eq!(stdout(&migrate(&["down", "--yes"])).matches("took back 0").count(), 3);
    assert_eq!(stdout(&migrate(&["up", "--dry-run"])).matches("would apply 0").count(), 3);

    let locked = |verb: &str, to: &str| {
        let sql = format!(
            "do $$ begin execute (select format('{verb} connect on database %I {to} postroom_test_owner', database) \
             from tenants where name = 'acme'); end $$"
        );
        wait_for(async { connect(&place.database().admin_url()).await.batch_execute(&sql).await.unwrap() });
    };
    locked("revoke", "from");
    let up = migrate(&["up"]);
    assert_eq!(up.status.code(), Some(1), "{}", stdout(&up));
    let told = lines(&up);
    assert!(told.len() == 1 && told[0].starts_with("zeta (org_") && told[0].contains("applied 0"), "{told:?}");
    assert!(stderr(&up).contains("acme (org_"), "{}", stderr(&up));
    locked("grant", "to");
    let up = migrate(&["up"]);
    assert_eq!((up.status.code(), lines(&up).len()), (Some(0), 2), "{}", stdout(&up));
}

/// A login for each part, gone at the end of the test.
struct Logins {
    admin_url: String,
    names: Vec<String>,
    /// Settings with their URLs, and the owning login's.
    environment: Vec<(String, String)>,
}

impl Logins {
    fn new(database: &Database) -> Self {
        let password = database.password().map_or("null".to_owned(), |password| format!("'{password}'"));
        let suffix = database.name().trim_start_matches("postroom_test_").to_owned();
        let mut logins = Self {
            admin_url: database.admin_url(),
            names: Vec::new(),
            environment: vec![("POSTROOM_MIGRATE_DATABASE_URL".to_owned(), database.owner_url())],
        };
        for part in ["authorizer", "receiver", "worker", "api", "dead_letter", "platform"] {
            let login = format!("postroom_test_{}_{suffix}", &part[..3]);
            logins.run(&format!("create role {login} login noinherit password {password}"));
            let name = format!("POSTROOM_DATABASE_URL_{}", part.to_uppercase());
            logins.environment.push((name, database.url_as(&login)));
            logins.names.push(login);
        }
        logins
    }

    fn run(&self, sql: &str) {
        wait_for(async { connect(&self.admin_url).await.batch_execute(sql).await.unwrap() });
    }

    /// Goes through everything a part does, on a server that starts with these settings.
    fn serve(&self, place: &Arc<Place>, environment: &[(String, String)]) -> Server {
        let environment: Vec<(&str, &str)> =
            environment.iter().map(|(name, url)| (name.as_str(), url.as_str())).collect();
        let receiver = Receiver::answering(&[200]);
        let server = Server::at(place, &environment);
        let tenant = server.tenant("Acme", Some(&receiver.url()));
        assert_eq!(tenant.get("/v1/sources")["data"], json!([]));
        for _ in 0..20 {
            let (status, sent) = tenant.post("/v1/events", &event());
            assert_eq!((status, receiver.next().header("webhook-id")), (202, sent["id"].as_str().unwrap()));
        }
        wait_until("the successes", || {
            (tenant.get("/v1/deliveries?status=success")["data"].as_array()?.len() == 20).then_some(())
        });
        server
    }
}

impl Drop for Logins {
    fn drop(&mut self) {
        self.names.iter().for_each(|login| self.run(&format!("drop owned by {login}; drop role {login}")));
    }
}

#[test]
fn every_part_can_log_in_as_somebody_else() {
    let place = Arc::new(empty());
    let logins = Logins::new(place.database());
    let server = logins.serve(&place, &logins.environment);
    let seen: Vec<String> = wait_for(async {
        let admin = connect(&place.database().admin_url()).await;
        let sql = "select distinct usename::text from pg_stat_activity \
                   where datname = current_database() and usename <> current_user order by 1";
        admin.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    });
    let mut expected = logins.names.clone();
    expected.sort();
    assert_eq!(seen, expected, "each part is connected as its own login");
    drop(server);
}

mod pgbouncer {
    use postroom_testkit::postgres::PgBouncer;

    use super::*;

    #[test]
    fn a_server_works_through_pgbouncer_in_transaction_mode() {
        let place = Arc::new(empty());
        let logins = Logins::new(place.database());
        let migrated = {
            let mut command = place.command(&["migrate", "up"]);
            command.envs(logins.environment.iter().cloned()).output().unwrap()
        };
        assert_eq!(migrated.status.code(), Some(0), "{}", stderr(&migrated));
        let pooler = wait_for(PgBouncer::start(&place.database().admin_url()));
        let parts = logins.environment.iter().filter(|(name, _)| name != "POSTROOM_MIGRATE_DATABASE_URL");
        let through: Vec<(String, String)> = parts.map(|(name, url)| (name.clone(), pooler.url(url))).collect();
        drop(logins.serve(&place, &through));
    }
}

#[test]
fn processes_share_the_parts_out_and_what_one_accepts_another_delivers() {
    let place = Arc::new(Place::new(Engine::Postgres));
    let receiver = Receiver::answering(&[200]);
    let api = Server::at(&place, &[("POSTROOM_ROLES", "api")]);
    let inbound = Server::at(&place, &[("POSTROOM_ROLES", "receiver")]);
    let tenant = api.tenant("Acme", Some(&receiver.url()));
    assert_eq!(tenant.post("/v1/sources", &json!({ "provider": "none" })).0, 201);
    let status = |server: &Server, path: &str| request("GET", &format!("{}{path}", server.url), &[], b"").0;
    assert_eq!((status(&inbound, "/v1/events"), status(&api, "/in/acme/none")), (404, 404));

    let database = url::Url::parse(&place.database().app_url()).unwrap();
    let endpoint = json!({ "url": format!("http://127.0.0.1:{}/", database.port().unwrap()) });
    assert_eq!(tenant.post("/v1/endpoints", &endpoint).0, 422, "nothing is delivered to the database");

    let own = tenant.post("/v1/events", &event()).1["id"].as_str().unwrap().to_owned();
    let source = format!("{}/in/acme/none", inbound.url);
    // A source is known to other processes within a second.
    let answer = wait_until("the source in another process", || {
        let (status, answer) = post(&source, "", &json!({ "hook": 1 }));
        (status == 200).then_some(answer)
    });
    let hook = answer["id"].as_str().unwrap().to_owned();
    assert_eq!(tenant.get("/v1/deliveries?status=pending")["data"].as_array().unwrap().len(), 2);
    assert!(receiver.is_quiet(), "nobody delivers yet");

    let worker = Server::at(&place, &[("POSTROOM_ROLES", "worker")]);
    let mut arrived = [receiver.next(), receiver.next()].map(|one| one.header("webhook-id").to_owned());
    arrived.sort();
    let mut sent = [own, hook];
    sent.sort();
    assert_eq!(arrived, sent);
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(status(&worker, path), 200, "{path}");
    }
    for path in ["/", "/docs", "/openapi.json", "/v1/events", "/in/acme/none"] {
        assert_eq!(status(&worker, path), 404, "{path}");
    }
}

#[test]
fn what_one_process_changes_every_other_knows_within_a_second() {
    let place = Arc::new(Place::new(Engine::Postgres));
    let (one, two) = (Server::at(&place, &[]), Server::at(&place, &[]));
    let tenant = one.tenant("Acme", None);
    let there = Tenant { url: two.url.clone(), key: tenant.key.clone() };
    let (status, made) = tenant.post("/v1/api-keys", &json!({ "name": "short", "scopes": ["events:write"] }));
    assert_eq!(status, 201, "{made}");
    let key = made["secret"].as_str().unwrap();
    let send = || post(&format!("{}/v1/events", two.url), key, &event()).0;
    assert_eq!(send(), 202, "a key that is new is looked up");
    let revoke = format!("{}/v1/api-keys/{}", one.url, made["id"].as_str().unwrap());
    assert_eq!(request("DELETE", &revoke, &bearer(&tenant.key), b"").0, 200);
    within_a_second("a revoked key", || send() == 401);

    let organization = format!("{}/v1/organizations", one.url);
    let (_, _, list) = request("GET", &organization, &bearer(ADMIN_TOKEN), b"");
    let list: serde_json::Value = serde_json::from_slice(&list).unwrap();
    let id = list["data"][0]["id"].as_str().unwrap();
    assert_eq!(request("DELETE", &format!("{organization}/{id}"), &bearer(ADMIN_TOKEN), b"").0, 200);
    within_a_second("an organization that is switched off", || there.post("/v1/events", &event()).0 != 202);
}

/// A second, and what a busy test machine adds.
fn within_a_second(what: &str, so: impl Fn() -> bool) {
    let began = Instant::now();
    wait_until(what, || so().then_some(()));
    assert!(began.elapsed() < Duration::from_secs(5), "{what}: {:?}", began.elapsed());
}

/// A place whose database is reached through a proxy, which lives in this runtime.
fn behind_a_proxy() -> (tokio::runtime::Runtime, Proxy, Arc<Place>, String) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let place = Arc::new(Place::new(Engine::Postgres));
    let url = place.database().app_url();
    let address = url::Url::parse(&url).unwrap();
    let upstream = address.socket_addrs(|| None).unwrap()[0];
    let proxy = runtime.block_on(Proxy::to(upstream));
    let url = proxy.url(&url);
    (runtime, proxy, place, url)
}

#[test]
fn a_server_waits_for_its_database_for_a_while_and_then_says_why_it_does_not_start() {
    let (runtime, proxy, place, url) = behind_a_proxy();
    runtime.block_on(proxy.set(Mode::Refuse));
    let refused = {
        let (place, url) = (place.clone(), url.clone());
        std::thread::spawn(move || place.command(&SERVE).env("POSTROOM_DATABASE_URL", url).output().unwrap())
    };
    let began = Instant::now();
    let refused = refused.join().unwrap();
    assert!(began.elapsed() > Duration::from_secs(10), "it did not wait: {:?}", began.elapsed());
    assert_eq!(refused.status.code(), Some(1));
    let said = stderr(&refused);
    assert!(said.contains("trying again for 20 s") && said.contains("error: the database cannot be opened"), "{said}");
    assert!(said.contains("refused"), "{said}");

    let waiting = {
        let (place, url) = (place.clone(), url.clone());
        std::thread::spawn(move || Server::at(&place, &[("POSTROOM_DATABASE_URL", url.as_str())]))
    };
    let log = place.log();
    wait_until("the first try", || std::fs::read_to_string(&log).ok()?.contains("trying again").then_some(()));
    runtime.block_on(proxy.set(Mode::Pass));
    let server = waiting.join().unwrap();
    assert_eq!(request("GET", &format!("{}/readyz", server.url), &[], b"").0, 200);
}

#[test]
fn while_the_database_is_away_nothing_is_accepted_and_afterwards_everything_goes_on() {
    let (runtime, proxy, place, url) = behind_a_proxy();
    let receiver = Receiver::answering(&[200]);
    let mut server = Server::at(&place, &[("POSTROOM_DATABASE_URL", url.as_str())]);
    let tenant = server.tenant("Acme", Some(&receiver.url()));
    let (_, before) = tenant.post("/v1/events", &event());
    assert_eq!(receiver.next().header("webhook-id"), before["id"].as_str().unwrap());

    for mode in [Mode::Refuse, Mode::BlackHole] {
        runtime.block_on(proxy.set(mode));
        let began = Instant::now();
        let (status, head, body) =
            request("POST", &format!("{}/v1/events", server.url), &bearer(&tenant.key), event().to_string().as_bytes());
        let body = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(status, 503, "{mode:?} {body}");
        assert!(head.contains("\r\nretry-after: "), "{mode:?} {head}");
        assert!(began.elapsed() < Duration::from_secs(20), "{mode:?} {:?}", began.elapsed());
        let health = |path: &str| request("GET", &format!("{}{path}", server.url), &[], b"").0;
        assert_eq!((health("/livez"), health("/readyz")), (200, 503), "{mode:?}");

        runtime.block_on(proxy.set(Mode::Pass));
        let began = Instant::now();
        wait_until("ready again", || (health("/readyz") == 200).then_some(()));
        let id = wait_until("accepted again", || {
            let (status, sent) = tenant.post("/v1/events", &event());
            (status == 202).then(|| sent["id"].as_str().unwrap().to_owned())
        });
        assert!(began.elapsed() < Duration::from_secs(20), "{mode:?} {:?}", began.elapsed());
        // What was answered 503 may have been stored, so there may be one more.
        wait_until("its delivery", || (receiver.next().header("webhook-id") == id).then_some(()));
    }
    assert_eq!(server.terminate(), 0);
}

#[test]
fn rotated_keys_open_everything_on_postgresql_too() {
    let place = Arc::new(Place::new(Engine::Postgres));
    let receiver = Receiver::answering(&[200]);
    let old = place.setting("POSTROOM_ENCRYPTION_KEYS");
    let fresh = stdout(&place.run(&["keys", "generate"])).trim().to_owned();
    let mut server = Server::at(&place, &[]);
    let tenant = server.tenant("Acme", Some(&receiver.url()));
    tenant.source("github", "s3cret");
    let owner = place.database().owner_url();
    let rotate = |keys: &str, arguments: &[&str]| {
        let mut command = place.command(&["keys", "rotate"]);
        command.args(arguments).env("POSTROOM_ENCRYPTION_KEYS", keys).env("POSTROOM_MIGRATE_DATABASE_URL", &owner);
        command.output().unwrap()
    };
    let both = format!("{fresh},{old}");
    assert!(stderr(&rotate(&both, &["--new-key"])).contains("the keys are those of POSTROOM_ENCRYPTION_KEYS"));
    let refused = rotate(&both, &[]);
    assert!(stderr(&refused).contains("restart them with that key first"), "{}", stderr(&refused));
    assert_eq!(server.terminate(), 0);
    let rotated = rotate(&both, &[]);
    assert_eq!(rotated.status.code(), Some(0), "{}", stderr(&rotated));
    assert_eq!(rotate(&fresh, &[]).status.code(), Some(0), "the old key is not needed any more");
    let refused = place.run(&SERVE);
    assert!(stderr(&refused).contains("do not open this database"), "{}", stderr(&refused));

    let server = Server::at(&place, &[("POSTROOM_ENCRYPTION_KEYS", &fresh)]);
    let (status, _) = post(&format!("{}/v1/events", server.url), &tenant.key, &event());
    assert_eq!(status, 202);
    assert!(receiver.next().header("webhook-signature").starts_with("v1,"), "the endpoint's secret could be read");
}

#[test]
fn random_nodes_are_killed_under_load_and_nothing_is_lost_invented_or_altered() {
    let place = Place::new(Engine::Postgres);
    let output = place
        .command(&["bench", "--nodes", "3", "--kill", "4", "--organizations", "3", "--concurrency", "16", "--json"])
        .output()
        .unwrap();
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{said}{}", stderr(&output));
    let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&last["lost"], &last["invented"], &last["altered"]), (&0.into(), &0.into(), &0.into()), "{last}");
    let active = wait_for(async {
        let admin = connect(&place.database().admin_url()).await;
        admin.query_one("select count(*) from organizations where is_active", &[]).await.unwrap().get::<_, i64>(0)
    });
    assert_eq!(active, 0, "what the bench made is switched off");
}

#[test]
fn bench_tells_what_the_database_spends() {
    let place = Place::new(Engine::Postgres);
    // Processor time is counted in hundredths of a second: enough events to see some of it.
    let arguments = ["bench", "--nodes", "2", "--rounds", "1", "--events", "5000", "--organizations", "2", "--json"];
    let output = place.run(&arguments);
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{said}{}", stderr(&output));
    let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    for figure in ["database_cpu_us_per_event", "wal_bytes_per_event", "cpu_us_per_event"] {
        assert!(last[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure}: {last}");
    }
    let embedded = Place::new(Engine::Embedded).run(&arguments);
    assert_eq!(embedded.status.code(), Some(1));
    assert!(stderr(&embedded).contains("several nodes need PostgreSQL: set POSTROOM_DATABASE_URL"));
}

/// The statements and commands of README's section, with names and passwords of this test.
#[test]
fn the_readme_s_section_works_as_it_stands() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
    let section = readme.split("## On PostgreSQL").nth(1).unwrap().split("\n## ").next().unwrap();
    let script = section.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let (sql, commands) = script.split_once("<<'SQL'\n").unwrap().1.split_once("SQL\n").unwrap();
    let database = wait_for(Database::new());
    let unique = database.name().replace("postroom_test_", "readme_");
    let password = database.password().unwrap_or("x").to_owned();
    let server = url::Url::parse(&database.admin_url()).unwrap();
    let place = format!("{}:{}", server.host_str().unwrap(), server.port().unwrap_or(5432));
    let own = |text: &str| {
        let text = text
            .replace("postroom_owner", &format!("{unique}_owner"))
            .replace("postroom_app", &format!("{unique}_app"));
        let text = text.replace("another-of-your-own", &password).replace("one-of-your-own", &password);
        text.replace("database postroom ", &format!("database {unique} "))
            .replace("@127.0.0.1/postroom", &format!("@{place}/{unique}"))
    };
    let admin = |sql: String| {
        wait_for(async { connect(&database.admin_url()).await.batch_execute(&sql).await.unwrap() });
    };
    own(sql).split(';').filter(|statement| !statement.trim().is_empty()).for_each(|one| admin(one.to_owned()));

    #[expect(clippy::disallowed_methods, reason = "what a shell would find is what the README's commands find")]
    let path = std::env::join_paths(
        std::iter::once(std::path::Path::new(env!("CARGO_BIN_EXE_postroom")).parent().unwrap().to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let dir = tempfile::tempdir().unwrap();
    let script = own(commands)
        .replace("postroom serve", "postroom serve --listen 127.0.0.1:0 & sleep 0; postroom seed --json; kill $!");
    let mut shell = std::process::Command::new("sh");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("POSTROOM_")) {
        shell.env_remove(name);
    }
    let output = shell.args(["-ec", &script]).env("PATH", path.unwrap()).current_dir(dir.path()).output().unwrap();
    let said = stdout(&output);
    assert!(said.contains("applied 0001_") && said.contains("prk_"), "{said}{}", stderr(&output));
    admin(format!("drop database {unique} with (force)"));
    admin(format!("drop role {unique}_owner, {unique}_app"));
}

#[test]
fn ten_clients_against_a_limit_of_1000_on_three_servers_are_accepted_exactly_1000_times() {
    let place = Arc::new(Place::new(Engine::Postgres));
    let mut servers: [Server; 3] = std::array::from_fn(|_| Server::at(&place, &[]));
    let plan = json!({ "name": "Acme", "plan": "free" });
    let (status, made) = post(&format!("{}/v1/tenants", servers[0].url), ADMIN_TOKEN, &plan);
    assert_eq!(status, 201, "{made}");
    let (key, id) = (made["api_key"]["secret"].as_str().unwrap(), made["organization"]["id"].as_str().unwrap());
    let organization = |server: &Server| {
        let (status, _, body) = request("GET", &format!("{}/v1/organizations/{id}", server.url), &bearer(key), b"");
        (status == 200).then(|| serde_json::from_slice::<serde_json::Value>(&body).unwrap())
    };
    for server in &servers {
        wait_until("the key on every server", || organization(server));
    }
    let send = |server: &Server| {
        let (status, answer) = post(&format!("{}/v1/events", server.url), key, &event());
        assert!(status == 202 || answer["code"] == "webhook_limit_reached", "{status} {answer}");
        status == 202
    };
    let accepted: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..10)
            .map(|client| {
                let (server, send) = (&servers[client % 3], &send);
                scope.spawn(move || (0..130).filter(|_| send(server)).count())
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert_eq!(accepted, 1_000);
    for server in &mut servers {
        server.kill();
        server.restart(&[]);
        assert!(!send(server), "nor after a crash");
    }
    assert_eq!(organization(&servers[0]).unwrap()["webhook_count"], 1_000);
}
