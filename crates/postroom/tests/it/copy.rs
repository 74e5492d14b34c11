//! `postroom copy` from outside: as the document says it, killed at any moment, and refused.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use postroom_testkit::postgres::{Database, connect};
use serde_json::{Value, json};

use super::support::{Engine, Place, Receiver, Server, Tenant, post, stderr, stdout, wait_for, wait_until};

/// A stopped installation on the file: an organization with an endpoint that got an event and one that answers nothing
/// good, and so many events.
struct Installation {
    place: Arc<Place>,
    key: String,
    receiver: Receiver,
}

impl Installation {
    fn new(events: usize) -> Self {
        let receiver = Receiver::answering(&[200]);
        let mut server = Server::start(Engine::Embedded);
        let tenant = server.tenant("Acme", Some(&receiver.url()));
        assert_eq!(tenant.post("/v1/sources", &json!({ "provider": "none", "name": "hook" })).0, 201);
        let event = |number: usize| json!({ "type": "order.paid", "data": { "number": number } });
        assert_eq!(tenant.post("/v1/events", &event(0)).0, 202);
        receiver.next();
        for first in (1..events).step_by(100) {
            let events: Vec<Value> = (first..events.min(first + 100)).map(event).collect();
            let (status, answer) = tenant.post("/v1/events/batch", &json!({ "events": events }));
            assert!(status < 300, "{answer}");
        }
        let key = tenant.key.clone();
        assert_eq!(server.terminate(), 0);
        Self { place: server.place.clone(), key, receiver }
    }

    /// The encryption keys of its directory.
    fn keys(&self) -> String {
        std::fs::read_to_string(self.place.dir.path().join("postroom-data/encryption.keys")).unwrap()
    }

    /// A copy of it to a database, with the settings of its servers.
    fn copy(&self, database: &Database, arguments: &[&str]) -> Command {
        let mut command = self.place.command(&["copy", "--from", "postroom-data"]);
        command.args(arguments).env("POSTROOM_DATABASE_URL", database.app_url());
        command.env("POSTROOM_MIGRATE_DATABASE_URL", database.owner_url()).env("POSTROOM_ENCRYPTION_KEYS", self.keys());
        command
    }

    /// Every event is in a list, once.
    fn count(&self, server: &Server) -> usize {
        let tenant = Tenant { url: server.url.clone(), key: self.key.clone() };
        let (mut ids, mut path) = (std::collections::BTreeSet::new(), "/v1/events?limit=100".to_owned());
        loop {
            let page = tenant.get(&path);
            for event in page["data"].as_array().unwrap() {
                assert!(ids.insert(event["id"].to_string()), "twice in the list");
            }
            match page["next_cursor"].as_str() {
                Some(cursor) => path = format!("/v1/events?limit=100&cursor={cursor}"),
                None => return ids.len(),
            }
        }
    }
}

fn last_json(output: &Output) -> Value {
    let said = stdout(output);
    serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap_or_else(|_| panic!("{said}{}", stderr(output)))
}

/// The commands of docs/moving.md as they stand, with names and passwords of this test.
#[test]
fn the_way_from_the_file_to_postgresql_is_as_the_document_says() {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/moving.md")).unwrap();
    let script = document.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let installation = Installation::new(30);
    let place = Place::on(wait_for(Database::new()));
    let database = place.database();
    let url = |login: &str, password: &str| format!("postgres://{login}:{password}@127.0.0.1/postroom");
    let script = script
        .replace(&url("postroom_app", "another-of-your-own"), &database.app_url())
        .replace(&url("postroom_owner", "one-of-your-own"), &database.owner_url());
    assert!(!script.contains("your-own"), "{script}");
    #[expect(clippy::disallowed_methods, reason = "what a shell would find is what the document's commands find")]
    let path = std::env::join_paths(
        std::iter::once(std::path::Path::new(env!("CARGO_BIN_EXE_postroom")).parent().unwrap().to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    // The server is asked for a version only: one that stays is started below, with what the script has set.
    let script = script.replace("postroom serve", "postroom serve --version; echo \"keys=$POSTROOM_ENCRYPTION_KEYS\"");
    let mut shell = Command::new("sh");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("POSTROOM_")) {
        shell.env_remove(name);
    }
    let shell = shell.args(["-ec", &script]).env("PATH", path.unwrap()).current_dir(installation.place.dir.path());
    let output = shell.output().unwrap();
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{said}{}", stderr(&output));
    assert!(said.contains("copied: 1 organizations, 30 events") && said.contains("the same on both sides"), "{said}");
    let keys = said.lines().find_map(|line| line.strip_prefix("keys=")).unwrap();

    let server = Server::at(&Arc::new(place), &[("POSTROOM_ENCRYPTION_KEYS", keys)]);
    assert_eq!(installation.count(&server), 30);
    let tenant = Tenant { url: server.url.clone(), key: installation.key.clone() };
    let (status, sent) = tenant.post("/v1/events", &json!({ "type": "order.paid", "data": {} }));
    assert_eq!(status, 202, "the key lets its holder in: {sent}");
    wait_until("its delivery, signed", || {
        let arrived = installation.receiver.next();
        (arrived.header("webhook-id") == sent["id"].as_str().unwrap()).then_some(arrived)
    });
    assert_eq!(post(&format!("{}/in/acme/hook", server.url), "", &json!({ "hook": 1 })).0, 200);
}

/// Runs a command until it has said a line that is the last one wanted, and kills it there. False when it ended before.
fn killed_when(mut command: Command, mut is_last: impl FnMut(&str) -> bool) -> bool {
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let is_killed =
        BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok).any(|line| is_last(&line));
    if is_killed {
        child.kill().unwrap();
    }
    child.wait().unwrap();
    is_killed
}

#[test]
fn killed_at_any_moment_it_goes_on_where_it_was_and_nothing_is_lost_or_twice() {
    let installation = Installation::new(4_000);
    let place = Arc::new(Place::new(Engine::Postgres));
    let mut kills = 0;
    for lines in [1, 4, 9, 13, 14, 15, 16, 14, 15, 24, 30, 35] {
        let mut said = 0;
        let enough = |_: &str| {
            said += 1;
            said == lines
        };
        kills += usize::from(killed_when(installation.copy(place.database(), &[]), enough));
    }
    assert!(kills >= 8, "{kills}");
    let output = installation.copy(place.database(), &["--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = last_json(&output);
    assert_eq!(report["differences"], json!([]));
    let again = installation.copy(place.database(), &[]).output().unwrap();
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    assert_eq!(stdout(&again).trim(), "the copy was finished before; nothing was changed");
    let verified = installation.copy(place.database(), &["--verify", "--json"]).output().unwrap();
    assert_eq!((verified.status.code(), &last_json(&verified)["tables"]["events"]), (Some(0), &json!(4_000)));
    let server = Server::at(&place, &[("POSTROOM_ENCRYPTION_KEYS", &installation.keys())]);
    assert_eq!(installation.count(&server), 4_000);
}

#[test]
fn half_a_copy_is_no_installation_and_what_differs_is_named() {
    let installation = Installation::new(300);
    let place = Arc::new(Place::new(Engine::Postgres));
    // All events are there by then.
    assert!(killed_when(installation.copy(place.database(), &[]), |line| line.starts_with("copying attempts")));
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let refused = place.command(&serve).env("POSTROOM_ENCRYPTION_KEYS", installation.keys()).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("holds a copy that is not finished"), "{}", stderr(&refused));
    wait_for(async {
        let admin = connect(&place.database().admin_url()).await;
        admin
            .batch_execute(
                "update events set type = 'order.stolen' where id = (select min(id::text)::uuid from events)",
            )
            .await
    })
    .unwrap();
    let output = installation.copy(place.database(), &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("events of org_"), "{}", stderr(&output));
    assert!(stderr(&output).contains("300 rows on both sides, with other contents"), "{}", stderr(&output));
}

#[test]
fn what_cannot_be_copied_is_refused_with_what_to_do() {
    let installation = Installation::new(1);
    let place = Place::new(Engine::Postgres);
    let refused = |mut command: Command, expected: &str| {
        let output = command.output().unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected), "{expected}: {said}");
        if let Some(password) = place.database().password() {
            assert!(!said.contains(password), "{said}");
        }
    };
    refused(installation.place.command(&["copy"]), "say what to copy: --from");
    let mut without = installation.copy(place.database(), &[]);
    without.env_remove("POSTROOM_ENCRYPTION_KEYS");
    refused(without, "export POSTROOM_ENCRYPTION_KEYS=\"$(cat postroom-data/encryption.keys)\"");
    let mut others = installation.copy(place.database(), &[]);
    others.env("POSTROOM_ENCRYPTION_KEYS", place.setting("POSTROOM_ENCRYPTION_KEYS"));
    refused(others, "give the keys that its servers use");
    let mut as_app = installation.copy(place.database(), &[]);
    as_app.env_remove("POSTROOM_MIGRATE_DATABASE_URL");
    refused(as_app, "put the login that owns the database");
    let wrong = installation.place.command(&["copy", "--from", "postgres://u:hunter2@h"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    let mut server = Server::at(&installation.place, &[]);
    refused(installation.copy(place.database(), &[]), "another Postroom server is using");
    assert_eq!(server.terminate(), 0);
    let mut other = Server::at(&Arc::new(Place::new(Engine::Postgres)), &[]);
    refused(installation.copy(other.place.database(), &[]), "1 servers are running on the target: stop them");
    assert_eq!(other.terminate(), 0);
}

#[test]
fn a_new_directory_gets_the_keys_of_the_old_one_and_a_server_starts_there() {
    let installation = Installation::new(50);
    let output = installation.place.run(&["copy", "--from", "postroom-data", "--to", "elsewhere"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let server = Server::at(&installation.place, &[("POSTROOM_DATA_DIR", "elsewhere")]);
    assert_eq!(installation.count(&server), 50);
}
