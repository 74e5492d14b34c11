//! `postroom tenants` from outside, on both engines.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::json;

use super::support::{Engine, Place, Receiver, Server, Tenant, stderr, stdout};

pub fn moving(place: &Place, slug: &str, to: &str) -> Command {
    let mut command = place.command(&["tenants", "move", slug, "--to", to]);
    if let Some(database) = &place.database {
        command.env("POSTROOM_MIGRATE_DATABASE_URL", database.owner_url());
    }
    command
}

/// Moves, and is killed with `kill -9` when it has said so many lines. False when it came to its end before.
pub fn is_killed(place: &Place, slug: &str, to: &str, after: usize) -> bool {
    let mut child = moving(place, slug, to).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it starts");
    let said = BufReader::new(child.stderr.take().expect("it is piped"));
    let lines: Vec<String> = said.lines().map_while(Result::ok).take(after).collect();
    let is_killed = lines.len() == after;
    if is_killed {
        child.kill().expect("it runs");
    }
    let ended = child.wait().expect("it ends");
    assert!(is_killed || ended.success(), "{lines:#?}");
    is_killed
}

fn is_moved_and_answers_as_before(engine: Engine) {
    let receiver = Receiver::answering(&[200]);
    let mut server = Server::start(engine);
    let place = server.place.clone();
    let tenant = server.tenant("Acme", Some(&receiver.url()));
    let other = server.tenant("Other", Some(&receiver.url()));
    let event = json!({ "type": "order.paid", "data": {}, "id": "the-same" });
    let mut first = Vec::new();
    for tenant in [&tenant, &other] {
        let (status, sent) = tenant.post("/v1/events", &event);
        assert_eq!(status, 202);
        first.push(sent["id"].as_str().unwrap().to_owned());
        assert_eq!(receiver.next().header("webhook-id"), sent["id"].as_str().unwrap());
    }
    if place.database.is_none() {
        let running = moving(&place, "acme", "dedicated").output().unwrap();
        assert_eq!(running.status.code(), Some(1));
        assert!(stderr(&running).contains("another Postroom server is using"), "{}", stderr(&running));
    }
    assert_eq!(server.terminate(), 0);
    let nobody = moving(&place, "nobody", "shared").output().unwrap();
    assert!(stderr(&nobody).contains("there is no organization \"nobody\""), "{}", stderr(&nobody));

    for (round, (to, called)) in
        [("dedicated", "a database of its own"), ("shared", "the database that all share")].into_iter().enumerate()
    {
        let mut after = 1;
        while is_killed(&place, "acme", to, after) {
            after += 6;
        }
        assert!(after > 20, "it was killed in all its parts");
        let again = moving(&place, "acme", to).output().unwrap();
        assert_eq!(stdout(&again).trim(), format!("the organization is in {called}"), "{}", stderr(&again));
        let mut list = place.command(&["tenants", "list"]);
        if let Some(database) = &place.database {
            list.env("POSTROOM_MIGRATE_DATABASE_URL", database.owner_url());
        }
        let listed = stdout(&list.output().unwrap());
        assert_eq!(listed.contains("  acme  "), to == "dedicated", "{listed}");
        assert_eq!(listed.lines().count(), usize::from(to == "dedicated"), "{listed}");

        let mut server = Server::at(&place, &[]);
        for (key, first) in [&tenant.key, &other.key].into_iter().zip(&first) {
            let tenant = Tenant { url: server.url.clone(), key: key.clone() };
            assert_eq!(tenant.get("/v1/events")["data"].as_array().unwrap().len(), round + 1);
            let (_, again) = tenant.post("/v1/events", &event);
            assert_eq!(again["id"].as_str(), Some(first.as_str()), "the duplicate guard recognises it");
            let sent = tenant.post("/v1/events", &json!({ "type": "order.paid", "data": {} })).1;
            assert_eq!(receiver.next().header("webhook-id"), sent["id"].as_str().unwrap(), "and nothing else came");
        }
        assert_eq!(server.terminate(), 0);
    }
}

#[test]
fn in_the_file_an_organization_is_moved_there_and_back_and_answers_as_before() {
    is_moved_and_answers_as_before(Engine::Embedded);
}

#[test]
fn on_postgresql_an_organization_is_moved_there_and_back_and_answers_as_before() {
    is_moved_and_answers_as_before(Engine::Postgres);
}

#[test]
fn on_postgresql_a_login_that_may_not_make_databases_is_told_so() {
    let place = Arc::new(Place::new(Engine::Postgres));
    let refused = place.run(&["tenants", "move", "acme", "--to", "dedicated"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("POSTROOM_MIGRATE_DATABASE_URL"), "{}", stderr(&refused));
}
