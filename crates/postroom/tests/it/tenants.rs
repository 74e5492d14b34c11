//! `postroom tenants` from outside, on the embedded engine.

use std::sync::Arc;

use serde_json::json;

use super::support::{Engine, Place, Receiver, Server, Tenant, stderr, stdout};

#[test]
fn an_organization_is_moved_while_the_server_is_stopped_and_answers_as_before() {
    let receiver = Receiver::answering(&[200]);
    let mut server = Server::start(Engine::Embedded);
    let tenant = server.tenant("Acme", Some(&receiver.url()));
    let other = server.tenant("Other", Some(&receiver.url()));
    let event = json!({ "type": "order.paid", "data": {} });
    for tenant in [&tenant, &other] {
        assert_eq!(tenant.post("/v1/events", &event).0, 202);
        receiver.next();
    }
    let place = server.place.clone();
    let moves = || place.run(&["tenants", "move", "acme", "--to", "dedicated"]);
    let running = moves();
    assert_eq!(running.status.code(), Some(1));
    assert!(stderr(&running).contains("another Postroom server is using"), "{}", stderr(&running));
    assert_eq!(server.terminate(), 0);

    let nobody = place.run(&["tenants", "move", "nobody", "--to", "dedicated"]);
    assert!(stderr(&nobody).contains("there is no organization \"nobody\""), "{}", stderr(&nobody));
    let moved = moves();
    assert_eq!(moved.status.code(), Some(0), "{}", stderr(&moved));
    assert!(stdout(&moved).contains("compared, into a database of its own"), "{}", stdout(&moved));
    assert_eq!(stdout(&moves()).trim(), "the organization has a database of its own");
    let listed = stdout(&place.run(&["tenants", "list"]));
    assert!(listed.starts_with("org_") && listed.contains("  acme  tenants/ten_"), "{listed}");
    assert_eq!(listed.lines().count(), 1);

    let server = Server::at(&place, &[]);
    for key in [&tenant.key, &other.key] {
        let tenant = Tenant { url: server.url.clone(), key: key.clone() };
        assert_eq!(tenant.get("/v1/events")["data"].as_array().unwrap().len(), 1);
        let sent = tenant.post("/v1/events", &event).1;
        assert_eq!(receiver.next().header("webhook-id"), sent["id"].as_str().unwrap());
    }
}

#[test]
fn on_postgresql_the_command_says_that_it_is_of_the_embedded_engine() {
    let place = Arc::new(Place::new(Engine::Postgres));
    let refused = place.run(&["tenants", "move", "acme", "--to", "dedicated"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("of the embedded engine"), "{}", stderr(&refused));
}
