//! The API: what every route has in common.

use serde_json::json;

use crate::support::{ADMIN, Room};

#[tokio::test]
async fn an_event_is_accepted_and_its_repetition_recognised() {
    let room = Room::start().await;
    let tenant = room.tenant("Acme").await;
    room.endpoint(&tenant).await;
    let body = json!({"type": "order.paid", "data": {"order": 42}, "id": "order-42-paid"});
    let first = room.post("/v1/events").bearer(&tenant.key).json(&body).send().await;
    assert_eq!(first.status, 202, "{first:?}");
    let id = first.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(first.json(), json!({"id": id, "duplicate": false, "deliveries": 1}));
    let again = room.post("/v1/events").bearer(&tenant.key).json(&body).send().await;
    assert_eq!(again.json(), json!({"id": id, "duplicate": true, "deliveries": 1}));
}

#[tokio::test]
async fn a_tenant_is_everything_a_new_customer_needs() {
    let room = Room::start().await;
    let body = json!({"name": "Acme Corp.", "target_url": "http://127.0.0.1:9/hook", "event_types": ["order.*"]});
    let made = room.post("/v1/tenants").bearer(ADMIN).json(&body).send().await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    assert_eq!(made["organization"]["slug"], "acme-corp");
    assert!(made["api_key"]["secret"].as_str().unwrap().starts_with("prk_"));
    assert!(made["endpoint"]["secret"].as_str().unwrap().starts_with("whsec_"));
    let again = room.post("/v1/tenants").bearer(ADMIN).json(&body).send().await;
    assert_eq!(again.verdict(), "409 slug_taken");
}
