//! One of everything that an organization owns.

use postroom_domain::delivery::DeadReason;
use postroom_storage::worker::Transition;
use serde_json::json;

use super::{Room, Tenant};

/// One of everything that an organization owns.
pub struct Owned {
    pub source: String,
    pub endpoint: String,
    pub event: String,
    pub delivery: String,
    pub dead_letter: String,
    pub rejection: String,
    pub api_key: String,
    pub user: String,
}

impl Owned {
    /// Makes one of everything.
    pub async fn of(room: &Room, tenant: &Tenant) -> Self {
        let body = json!({"provider": "github", "secret": "shh"});
        let source = room.source(tenant, body).await;
        let endpoint = room.endpoint(tenant).await;
        let first = |path: String| async move {
            let reply = room.get(&path).bearer(&tenant.key).send().await;
            assert_eq!(reply.status, 200, "{reply:?}");
            reply.json()["data"][0]["id"].as_str().unwrap_or_else(|| panic!("{path}: {reply:?}")).to_owned()
        };
        let send = || room.post("/v1/events").bearer(&tenant.key).json(&json!({"type": "a.b", "data": 1}));
        assert_eq!(send().send().await.status, 202);
        room.settle(500, Transition::Dead(DeadReason::RetriesExhausted)).await;
        let dead_letter = first("/v1/dead-letters".to_owned()).await;
        let sent = send().send().await;
        assert_eq!(sent.status, 202);
        let event = sent.json()["id"].as_str().unwrap().to_owned();
        let delivery = first(format!("/v1/events/{event}/deliveries")).await;
        let refused = room.post(&format!("/in/{}/github", tenant.slug)).body("{}").send().await;
        assert_eq!(refused.status, 401);
        let rejection = first("/v1/rejections".to_owned()).await;
        let api_key = first("/v1/api-keys".to_owned()).await;
        let user = room.invited(tenant, &format!("somebody@{}.example", tenant.slug), "member").await;
        Self { source, endpoint, event, delivery, dead_letter, rejection, api_key, user }
    }
}
