//! Requests that failed verification: why, for their owner alone, and verifying them again.

use std::time::Duration;

use postroom_domain::Secret;
use postroom_domain::provider::Payload;
use postroom_domain::verify::sign;
use serde_json::{Map, Value, json};

use crate::support::{Engine, Reply, Room, Tenant};

const RIGHT: &str = "whsec_right";

/// A webhook of Stripe, signed now.
async fn stripe(room: &Room, path: &str, id: &str, secret: &str) -> Reply {
    let payload = Payload::of_body(json!({"id": id, "type": "invoice.paid"}).to_string());
    let signed = sign("stripe", &Map::new(), Some(&Secret::from(secret)), &payload, "http://x/", room.now()).unwrap();
    let call = room.post(path).header("content-type", "application/json");
    call.header("stripe-signature", signed.headers["stripe-signature"].as_bytes()).body(signed.body).send().await
}

async fn mend(room: &Room, tenant: &Tenant, source: &str) {
    let call = room.call("PATCH", &format!("/v1/sources/{source}")).bearer(&tenant.key);
    assert_eq!(call.json(&json!({"secret": RIGHT})).send().await.status, 200);
}

async fn reverify(room: &Room, tenant: &Tenant, body: Value) -> Reply {
    room.post("/v1/rejections/reverify").bearer(&tenant.key).json(&body).send().await
}

async fn rejections(room: &Room, tenant: &Tenant) -> Vec<Value> {
    let list = room.get("/v1/rejections?limit=250").bearer(&tenant.key).send().await.json();
    list["data"].as_array().unwrap().clone()
}

async fn events(room: &Room, tenant: &Tenant) -> Vec<Value> {
    let list = room.get("/v1/events?limit=250").bearer(&tenant.key).send().await.json();
    list["data"].as_array().unwrap().clone()
}

pub async fn the_owner_of_a_rejection_sees_why_and_its_sender_only_the_code(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let source = room.source(&tenant, json!({"provider": "stripe", "secret": "whsec_wrong"})).await;
    let refused = stripe(&room, "/in/acme/stripe", "evt_1", RIGHT).await;
    assert_eq!(refused.verdict(), "401 signature_invalid");
    let answer = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(!answer.contains("another") && !answer.contains("compared") && !answer.contains("rej_"), "{answer}");

    let path = format!("/v1/rejections/{}", rejections(&room, &tenant).await[0]["id"].as_str().unwrap());
    let explanation = async || room.get(&path).bearer(&tenant.key).send().await.json()["explanation"].clone();
    let told = explanation().await;
    assert_eq!(
        (&told["verdict"], &told["code"], &told["failed_check"]),
        (&json!("invalid"), &json!("signature_invalid"), &json!("signature"))
    );
    assert!(told["likely_causes"][0].as_str().unwrap().contains("the secret is another one"), "{told}");
    assert_eq!(told["checks"].as_array().unwrap().last().unwrap()["passed"], false);

    let other = json!({"provider": "stripe", "name": "stripe-test", "secret": RIGHT});
    let other = room.source(&tenant, other).await;
    let told = explanation().await;
    assert!(told["likely_causes"][0].as_str().unwrap().contains("it verifies at the source stripe-test"), "{told}");
    assert!(!told.to_string().contains("whsec_wrong") && !told.to_string().contains(RIGHT), "{told}");

    room.forward(Duration::from_secs(24 * 3600));
    mend(&room, &tenant, &source).await;
    let told = explanation().await;
    assert_eq!((&told["verdict"], &told["external_id"]), (&json!("valid"), &json!("evt_1")), "at its time of arrival");
    for id in [&source, &other] {
        let gone = room.call("DELETE", &format!("/v1/sources/{id}")).bearer(&tenant.key).send().await;
        assert_eq!(gone.status, 204);
    }
    assert_eq!(explanation().await, json!(null), "there is nothing left to judge it by");
}

pub async fn all_that_verify_now_become_events_in_order_of_arrival(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let source = room.source(&tenant, json!({"provider": "stripe", "secret": "whsec_wrong"})).await;
    // The third is the first again, the fourth somebody else's.
    for (id, secret) in
        [("evt_1", RIGHT), ("evt_2", RIGHT), ("evt_1", RIGHT), ("evt_x", "whsec_forged"), ("evt_3", RIGHT)]
    {
        assert_eq!(stripe(&room, "/in/acme/stripe", id, secret).await.status, 401);
        room.forward(Duration::from_secs(60));
    }
    room.forward(Duration::from_secs(24 * 3600));
    mend(&room, &tenant, &source).await;

    let reply = reverify(&room, &tenant, json!({"source_id": source, "limit": 2})).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let first = reply.json();
    assert_eq!((&first["verified"], &first["still_invalid"], &first["has_more"]), (&json!(2), &json!(0), &json!(true)));

    let reply = reverify(&room, &tenant, json!({})).await;
    assert_eq!(reply.status, 207, "{reply:?}");
    let rest = reply.json();
    assert_eq!((&rest["verified"], &rest["still_invalid"], &rest["has_more"]), (&json!(2), &json!(1), &json!(false)));
    assert_eq!(
        (&rest["data"][0]["event_id"], &rest["data"][0]["duplicate"]),
        (&first["data"][0]["event_id"], &json!(true)),
        "the repetition is recognised"
    );
    let refused = &rest["data"][1];
    assert_eq!((&refused["status"], &refused["error"]["code"]), (&json!(409), &json!("rejection_still_invalid")));
    assert_eq!(refused["error"]["detail"], "the check signature still fails");

    let arrived: Vec<Value> =
        events(&room, &tenant).await.iter().rev().map(|event| event["external_id"].clone()).collect();
    assert_eq!(arrived, [json!("evt_1"), json!("evt_2"), json!("evt_3")]);
    let last = reverify(&room, &tenant, json!({})).await.json();
    assert_eq!(
        (last["data"].as_array().unwrap().len(), &last["verified"]),
        (1, &json!(0)),
        "what became an event is left out"
    );
    assert_eq!(rejections(&room, &tenant).await.iter().filter(|one| one["event_id"].is_null()).count(), 1);
}

pub async fn a_request_without_an_id_becomes_one_event_however_often_it_is_verified_at_once(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let source = json!({"provider": "token", "secret": "wrong-token", "options": {"header": "x-token"}});
    let source = room.source(&tenant, source).await;
    let refused = room.post("/in/acme/token").header("x-token", RIGHT).body("{}").send().await;
    assert_eq!(refused.verdict(), "401 signature_invalid");
    mend(&room, &tenant, &source).await;
    let all = futures_util::future::join_all((0..4).map(|_| reverify(&room, &tenant, json!({})))).await;
    assert!(all.iter().all(|reply| reply.status == 200), "{all:?}");
    assert_eq!(events(&room, &tenant).await.len(), 1);
}

pub async fn what_to_verify_again_is_checked(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    for (body, field) in [
        (json!({"limit": 0}), "limit out_of_range"),
        (json!({"limit": 1001}), "limit out_of_range"),
        (json!({"source_id": "stripe"}), "source_id invalid_id"),
        (json!({"source": "x"}), "source unknown_field"),
    ] {
        assert_eq!(reverify(&room, &tenant, body.clone()).await.fields(), [field], "{body}");
    }
    let nothing = room.post("/v1/rejections/reverify").bearer(&tenant.key).send().await;
    assert_eq!((nothing.status, &nothing.json()["data"]), (200, &json!([])), "no body is all of them");
}
