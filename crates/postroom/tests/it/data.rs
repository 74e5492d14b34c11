//! Commands that work on the data directory: seed, apikey, keys, migrate; beside a running server too.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use super::support::{Engine, Receiver, Server, postroom, stderr, stdout};

fn one_json(output: &std::process::Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

pub fn seed_makes_everything_once(engine: Engine) {
    let server = Server::start(engine);
    let first = one_json(&server.run(&["seed", "--json"]));
    assert_eq!(first["organization"], "acme-corp");
    assert!(first["sources"].as_array().unwrap().len() >= 6);
    assert!(first["api_key"].as_str().unwrap().starts_with("prk_"));
    let second = one_json(&server.run(&["seed", "--json"]));
    assert_eq!(second, json!({ "organization": "acme-corp", "sources": [], "endpoint": null, "api_key": null }));
}

pub fn an_api_key_made_beside_a_running_server_works_at_once(engine: Engine) {
    let server = Server::start(engine);
    server.tenant("Acme", None);
    let made = server.run(&["apikey", "create", "--organization", "acme", "--name", "reader", "--scopes", "read"]);
    assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
    let key = stdout(&made).trim().to_owned();
    let command = |arguments: &[&str]| server.command(arguments).env("POSTROOM_API_KEY", &key).output().unwrap();
    let list = command(&["events", "list"]);
    assert_eq!(list.status.code(), Some(0), "{}", stderr(&list));
    let send = command(&["send", "--type", "a.b"]);
    assert_eq!(send.status.code(), Some(1), "a reader does not send");
    assert!(stderr(&send).contains("403"), "{}", stderr(&send));
}

pub fn an_api_key_for_nobody_is_refused(engine: Engine) {
    let server = Server::start(engine);
    let make = |arguments: &[&str]| {
        let base = ["apikey", "create", "--organization", "nobody", "--name", "x"];
        server.command(&base).args(arguments).output().unwrap()
    };
    let output = make(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("there is no organization \"nobody\""), "{}", stderr(&output));
    assert_eq!(make(&["--scopes", "everything"]).status.code(), Some(2));
}

#[test]
fn generated_keys_are_private_and_each_is_new() {
    let server = Server::start(Engine::Embedded);
    let file = server.dir().join("postroom-data/encryption.keys");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let (one, two) = (stdout(&server.run(&["keys", "generate"])), stdout(&server.run(&["keys", "generate"])));
    assert_ne!(one, two);
    assert_eq!(one.trim().len(), 44);
}

#[test]
fn rotated_keys_open_everything_and_the_old_one_is_not_needed_any_more() {
    let receiver = Receiver::answering(&[200]);
    let mut server = Server::start(Engine::Embedded);
    let tenant = server.tenant("Acme", Some(&receiver.url()));
    tenant.source("github", "s3cret");
    let rotate = server.run(&["keys", "rotate", "--new-key"]);
    assert_eq!(rotate.status.code(), Some(1), "the running server does not know the new key");
    assert!(stderr(&rotate).contains("restart it"), "{}", stderr(&rotate));
    assert_eq!(server.terminate(), 0);
    server.restart(&[]);
    let rotate = server.run(&["keys", "rotate"]);
    assert_eq!(rotate.status.code(), Some(0), "{}", stderr(&rotate));
    assert_eq!(server.terminate(), 0);

    let file = server.dir().join("postroom-data/encryption.keys");
    let keys = std::fs::read_to_string(&file).unwrap();
    assert_eq!(keys.lines().count(), 2, "{keys}");
    std::fs::write(&file, keys.lines().next().unwrap()).unwrap();
    server.restart(&[]);
    let (status, _) =
        super::support::post(&format!("{}/v1/events", server.url), &tenant.key, &json!({ "type": "a", "data": 1 }));
    assert_eq!(status, 202);
    assert!(receiver.next().header("webhook-signature").starts_with("v1,"), "the endpoint's secret could be read");
}

#[test]
fn keys_that_do_not_open_the_database_are_refused_and_lost_ones_are_not_made_anew() {
    let mut server = Server::start(Engine::Embedded);
    assert_eq!(server.terminate(), 0);
    let file = server.dir().join("postroom-data/encryption.keys");
    std::fs::write(&file, stdout(&server.run(&["keys", "generate"]))).unwrap();
    let serve = server.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(serve.status.code(), Some(1));
    assert!(stderr(&serve).contains("do not open this database"), "{}", stderr(&serve));
    std::fs::remove_file(&file).unwrap();
    let serve = server.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(serve.status.code(), Some(1));
    assert!(stderr(&serve).contains("put the file back from a backup"), "{}", stderr(&serve));
    assert!(!file.exists());
}

#[test]
fn what_looks_for_something_makes_no_database_where_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["audit", "verify"][..],
        &["admin", "list"],
        &["admin", "deactivate", "--email", "ada@example.com"],
        &["apikey", "create", "--organization", "acme-corp", "--name", "a"],
        &["keys", "rotate"],
        &["tenants", "move", "acme-corp", "--to", "dedicated"],
    ] {
        let output = postroom().args(arguments).current_dir(dir.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stdout(&output));
        let said = stderr(&output);
        assert!(said.contains("there is no database in ./postroom-data: give another --data-dir"), "{said}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{arguments:?}");
    }
}

#[test]
fn migrations_go_forward_and_back_and_not_under_a_running_server() {
    let dir = tempfile::tempdir().unwrap();
    let migrate =
        |arguments: &[&str]| postroom().arg("migrate").args(arguments).current_dir(dir.path()).output().unwrap();
    assert!(stdout(&migrate(&["status"])).contains("missing"));
    assert!(stdout(&migrate(&["up"])).contains("applied 0001_"));
    assert_eq!(stdout(&migrate(&[])).trim(), "the database is up to date");
    assert!(!stdout(&migrate(&["status"])).contains("missing"));
    let down = migrate(&["down"]);
    assert_eq!(down.status.code(), Some(1), "not without --yes");
    assert!(stdout(&migrate(&["down", "--yes"])).contains("took back"));
    assert!(stdout(&migrate(&["status"])).contains("missing"));

    let server = Server::start(Engine::Embedded);
    let up = server.run(&["migrate", "up"]);
    assert_eq!(up.status.code(), Some(1));
    assert!(stderr(&up).contains("another Postroom server is using"), "{}", stderr(&up));
}

#[test]
fn two_migrations_at_once_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        postroom()
            .args(["migrate", "up"])
            .current_dir(dir.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut both: Vec<_> = (0..4).map(|_| start()).collect();
    let codes: Vec<_> = both.iter_mut().map(|child| child.wait().unwrap().code()).collect();
    assert!(codes.contains(&Some(0)), "{codes:?}");
    let status = postroom().args(["migrate", "status"]).current_dir(dir.path()).output().unwrap();
    assert!(!stdout(&status).contains("missing"), "{}", stdout(&status));
}
