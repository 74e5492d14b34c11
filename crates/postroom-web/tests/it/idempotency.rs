//! `Idempotency-Key`: the same request has one effect and one answer.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{ADMIN, Engine, Room};

pub async fn the_same_key_and_request_get_the_stored_answer_and_make_nothing_twice(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let body = json!({"url": "http://127.0.0.1:9/hook"});
    let make = || room.post("/v1/endpoints").bearer(&tenant.key).header("idempotency-key", "k-1").json(&body);
    let first = make().send().await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, None), "{first:?}");
    let again = make().send().await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(again.body, first.body, "with the secret that is shown once");
    let list = room.get("/v1/endpoints").bearer(&tenant.key).send().await.json();
    assert_eq!(list["data"].as_array().unwrap().len(), 1);

    room.forward(Duration::from_secs(24 * 3600 + 1));
    let later = make().send().await;
    assert_eq!((later.status, later.header("idempotent-replayed")), (201, None));
    assert_ne!(later.json()["id"], first.json()["id"]);
}

pub async fn a_key_is_good_for_one_request_of_one_organization(engine: Engine) {
    let room = Room::start(engine).await;
    let (acme, other) = (room.tenant("Acme").await, room.tenant("Other").await);
    let send = |key: &str, path: &str, n: u32| {
        let body = json!({"type": "a", "data": n});
        room.post(path).bearer(key).header("idempotency-key", "k").json(&body)
    };
    assert_eq!(send(&acme.key, "/v1/events", 1).send().await.status, 202);
    assert_eq!(send(&acme.key, "/v1/events", 2).send().await.verdict(), "409 idempotency_key_reused");
    assert_eq!(send(&acme.key, "/v1/events?x=1", 1).send().await.verdict(), "409 idempotency_key_reused");
    assert_eq!(send(&other.key, "/v1/events", 2).send().await.status, 202, "another organization's key is another key");
}

pub async fn a_request_that_was_refused_may_be_sent_again(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let post = |name: &str| {
        let body = json!({"provider": "github", "name": name});
        room.post("/v1/sources").bearer(&tenant.key).header("idempotency-key", "k").json(&body)
    };
    assert_eq!(post("A").send().await.verdict(), "422 validation_failed");
    assert_eq!(post("A").send().await.verdict(), "422 validation_failed");
    assert_eq!(post("a").send().await.status, 201);
}

pub async fn of_many_at_the_same_time_one_works_and_the_others_wait_or_get_its_answer(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let body = json!({"url": "http://127.0.0.1:9/hook"});
    let calls = (0..20).map(|_| async {
        room.post("/v1/endpoints").bearer(&tenant.key).header("idempotency-key", "k").json(&body).send().await
    });
    let replies = join_all(calls).await;
    for reply in &replies {
        match reply.status {
            201 => {}
            _ => {
                assert_eq!(reply.verdict(), "409 idempotency_key_in_use");
                assert!(reply.header("retry-after").is_some());
            }
        }
    }
    let list = room.get("/v1/endpoints").bearer(&tenant.key).send().await.json();
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
}

pub async fn super_admins_have_keys_of_their_own_outside_of_every_organization(engine: Engine) {
    let room = Room::start(engine).await;
    let make = || room.post("/v1/tenants").bearer(ADMIN).header("idempotency-key", "k").json(&json!({"name": "Acme"}));
    let first = make().send().await;
    assert_eq!(first.status, 201, "{first:?}");
    let again = make().send().await;
    assert_eq!((again.body.clone(), again.header("idempotent-replayed")), (first.body, Some("true")));
}

pub async fn a_key_that_cannot_be_one_is_refused(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let long = "k".repeat(256);
    for bad in ["", "a b", "é", long.as_str()] {
        let body = json!({"type": "a", "data": 1});
        let reply = room.post("/v1/events").bearer(&tenant.key).header("idempotency-key", bad).json(&body).send().await;
        assert_eq!(reply.verdict(), "400 invalid_idempotency_key", "{bad}");
    }
}

pub async fn a_batch_in_which_something_was_refused_is_not_stored(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let body = json!({"events": [{"type": "a", "data": 1, "id": "1"}, {"type": "a b", "data": 1}]});
    let send = || room.post("/v1/events/batch").bearer(&tenant.key).header("idempotency-key", "k").json(&body);
    for duplicate in [false, true] {
        let reply = send().send().await;
        assert_eq!((reply.status, reply.header("idempotent-replayed")), (207, None));
        let data = reply.json()["data"].clone();
        assert_eq!((&data[0]["status"], &data[0]["duplicate"]), (&json!(202), &json!(duplicate)));
        assert_eq!(data[1]["error"]["errors"][0]["field"], "type");
    }
}
