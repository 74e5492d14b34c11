//! Deliveries and dead letters: what is shown, and what a person can do.

use std::time::Duration;

use postroom_domain::delivery::DeadReason;
use postroom_storage::worker::Transition;
use serde_json::json;

use crate::support::{ADMIN, Engine, Room, Tenant};

const EXHAUSTED: Transition = Transition::Dead(DeadReason::RetriesExhausted);

/// An event with one delivery; returns the paths of both.
async fn sent(room: &Room, tenant: &Tenant) -> (String, String) {
    let body = json!({"type": "order.paid", "data": {"order": 42}});
    let event = room.post("/v1/events").bearer(&tenant.key).json(&body).send().await;
    assert_eq!(event.json()["deliveries"], 1, "{event:?}");
    let event = format!("/v1/events/{}", event.json()["id"].as_str().unwrap());
    let list = room.get(&format!("{event}/deliveries")).bearer(&tenant.key).send().await;
    let delivery = format!("/v1/deliveries/{}", list.json()["data"][0]["id"].as_str().unwrap());
    (event, delivery)
}

pub async fn a_delivery_is_shown_with_its_attempts(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let endpoint = room.endpoint(&tenant).await;
    let (event, delivery) = sent(&room, &tenant).await;
    let get = async |path: &str| room.get(path).bearer(&tenant.key).send().await.json();
    assert_eq!(get(&delivery).await["status"], "pending");
    room.settle(200, Transition::Done).await;
    let shown = get(&delivery).await;
    assert_eq!((&shown["status"], &shown["attempt_count"]), (&json!("success"), &json!(1)));
    assert_eq!((&shown["endpoint_id"], &shown["last_response_status"]), (&json!(endpoint), &json!(200)));
    let attempt = &shown["attempts"][0];
    assert_eq!((&attempt["response_body"], &attempt["response_body_encoding"]), (&json!("answer"), &json!("text")));
    assert_eq!(attempt["response_headers"], json!([{"name": "x-answer", "value": "1"}]));
    assert_eq!((&attempt["url"], &attempt["duration_ms"]), (&json!("http://127.0.0.1:9/hook"), &json!(12)));
    assert_eq!(get(&event).await["status"], "success");
    assert_eq!(get("/v1/deliveries?status=success").await["data"].as_array().unwrap().len(), 1);
    assert_eq!(get("/v1/deliveries?status=failed").await["data"], json!([]));
    let retry = room.post(&format!("{delivery}/retry")).bearer(&tenant.key).send().await;
    assert_eq!(retry.verdict(), "409 delivery_not_retryable");
}

pub async fn a_failed_delivery_waits_and_is_tried_at_once_when_a_person_asks(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.endpoint(&tenant).await;
    let (_, delivery) = sent(&room, &tenant).await;
    room.settle(503, Transition::Wait(room.now() + Duration::from_secs(60))).await;
    let waiting = room.get(&delivery).bearer(&tenant.key).send().await.json();
    assert_eq!(
        (&waiting["status"], &waiting["next_attempt_at"]),
        (&json!("failed"), &json!("2026-11-22T10:01:00.000Z"))
    );
    let retried = room.post(&format!("{delivery}/retry")).bearer(&tenant.key).send().await;
    assert_eq!(
        (retried.status, &retried.json()["next_attempt_at"]),
        (200, &json!("2026-11-22T10:00:00.000Z")),
        "{retried:?}"
    );
}

pub async fn a_dead_letter_is_requeued_or_discarded(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let endpoint = room.endpoint(&tenant).await;
    let (_, delivery) = sent(&room, &tenant).await;
    let dead = delivery.replace("deliveries", "dead-letters");
    let post = async |path: String| room.post(&path).bearer(&tenant.key).send().await;
    assert_eq!(room.get(&dead).bearer(&tenant.key).send().await.verdict(), "404 dead_letter_not_found");
    assert_eq!(post(format!("{dead}/requeue")).await.verdict(), "404 dead_letter_not_found");

    room.settle(500, EXHAUSTED).await;
    room.forward(Duration::from_secs(90));
    let list = room.get(&format!("/v1/dead-letters?endpoint_id={endpoint}")).bearer(&tenant.key).send().await.json();
    assert_eq!(
        (&list["data"][0]["reason"], &list["data"][0]["age_seconds"]),
        (&json!("retries_exhausted"), &json!(90))
    );
    assert_eq!(room.get(&dead).bearer(&tenant.key).send().await.json()["attempts"][0]["response_status"], 500);

    let off = post(format!("/v1/endpoints/{endpoint}/disable")).await;
    assert_eq!(off.status, 200);
    assert_eq!(post(format!("{dead}/requeue")).await.verdict(), "409 endpoint_disabled");
    assert_eq!(post(format!("/v1/endpoints/{endpoint}/enable")).await.status, 200);
    let requeued = post(format!("{dead}/requeue")).await;
    assert_eq!((requeued.status, &requeued.json()["status"]), (200, &json!("pending")), "{requeued:?}");
    assert_eq!(post(format!("{dead}/discard")).await.verdict(), "404 dead_letter_not_found");

    let (_, delivery) = sent(&room, &tenant).await;
    room.settle(500, EXHAUSTED).await;
    let dead = delivery.replace("deliveries", "dead-letters");
    assert_eq!(post(format!("{dead}/discard")).await.json()["status"], "discarded");
    assert_eq!(post(format!("{delivery}/retry")).await.verdict(), "409 delivery_not_retryable");
}

pub async fn a_replay_makes_new_deliveries_of_an_old_event(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let first = room.endpoint(&tenant).await;
    let (event, delivery) = sent(&room, &tenant).await;
    room.settle(200, Transition::Done).await;
    let second = room.endpoint(&tenant).await;
    let replay = async |body: serde_json::Value| {
        room.post(&format!("{event}/replay")).bearer(&tenant.key).json(&body).send().await
    };
    let again = replay(json!({})).await;
    assert_eq!(again.status, 202, "{again:?}");
    let made = again.json()["data"].clone();
    assert_eq!((made.as_array().unwrap().len(), &made[0]["endpoint_id"]), (1, &json!(first)));
    assert_ne!(format!("/v1/deliveries/{}", made[0]["id"].as_str().unwrap()), delivery);
    let elsewhere = replay(json!({"endpoint_ids": [second, second]})).await.json();
    assert_eq!(
        (elsewhere["data"].as_array().unwrap().len(), &elsewhere["data"][0]["endpoint_id"]),
        (1, &json!(second))
    );
    assert_eq!(replay(json!({"endpoint_ids": []})).await.fields(), ["endpoint_ids out_of_range"]);
    assert_eq!(replay(json!({"endpoint_ids": ["x"]})).await.verdict(), "404 endpoint_not_found");
}

pub async fn events_and_replays_name_the_key_or_person_that_made_them(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.endpoint(&tenant).await;
    let key = room.key(&tenant, &["events:write"]).await;
    let key_id = room.get("/v1/api-keys").bearer(&tenant.key).send().await.json()["data"][0]["id"].clone();
    let ada = room.person(&tenant, "ada@example.com", "admin").await;
    let (event, all) = (json!({"type": "a.b", "data": 1}), ["1", "2"].map(|data| json!({"type": "b.c", "data": data})));
    room.post("/v1/events").bearer(&key).json(&event).send().await;
    room.post("/v1/events/batch").bearer(&key).json(&json!({"events": all})).send().await;
    room.post("/v1/events").bearer(&ada.token).json(&event).send().await;
    room.post("/v1/events").bearer(ADMIN).header("postroom-organization", "acme").json(&event).send().await;
    room.source(&tenant, json!({"provider": "telegram", "secret": "right"})).await;
    let update = json!({"update_id": 1, "message": {"message_id": 1, "text": "hi"}}).to_string();
    let signed = room.post("/in/acme/telegram").header("x-telegram-bot-api-secret-token", "right").body(update);
    assert_eq!(signed.send().await.status, 200);

    let listed = room.get("/v1/events").bearer(&tenant.key).send().await.json();
    let by: Vec<_> = listed["data"].as_array().unwrap().iter().map(|event| event["created_by"].clone()).collect();
    assert_eq!(by, [json!(null), json!("super_admin"), json!(ada.id), key_id.clone(), key_id.clone(), key_id.clone()]);
    let first = format!("/v1/events/{}", listed["data"][5]["id"].as_str().unwrap());
    let shown = room.get(&first).bearer(&tenant.key).send().await.json();
    assert_eq!(shown["created_by"], key_id);
    assert_eq!(shown["headers"], json!([{"name": "content-type", "value": "application/json"}]));

    let replayed = room.post(&format!("{first}/replay")).bearer(&ada.token).json(&json!({})).send().await.json();
    assert_eq!(replayed["data"][0]["created_by"], json!(ada.id));
    let deliveries = room.get(&format!("{first}/deliveries")).bearer(&tenant.key).send().await.json();
    let by: Vec<_> = deliveries["data"].as_array().unwrap().iter().map(|one| one["created_by"].clone()).collect();
    assert_eq!(by, [json!(ada.id), json!(null)], "the newest run first");
}
