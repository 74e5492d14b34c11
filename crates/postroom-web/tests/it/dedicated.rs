//! Databases of their own on the embedded engine, from outside.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::support::{ADMIN, Engine, Room, Tenant, eventually};

/// The one database file of its own that there is.
fn only_file(room: &Room) -> PathBuf {
    let mut all = std::fs::read_dir(room.data_dir().join("tenants")).unwrap();
    let (only, none) = (all.next().unwrap().unwrap(), all.next());
    assert!(none.is_none());
    only.path().join("postroom.db")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_is_a_503_of_its_organization_alone_and_metrics_name_it() {
    let room = Room::start(Engine::EmbeddedDedicated).await;
    let acme = room.tenant("Acme").await;
    let (here, away) = (only_file(&room), only_file(&room).with_extension("away"));
    let other = room.tenant("Other").await;
    for tenant in [&acme, &other] {
        room.source(tenant, json!({"provider": "github", "secret": "shh"})).await;
    }
    // It is closed when nobody has used it for a while.
    room.forward(Duration::from_secs(6 * 60));
    eventually("both sleep", || async {
        let gauges = room.storage.platform.gauges().await.unwrap();
        gauges
            .iter()
            .any(|gauge| gauge.labels.contains(&("state", "asleep".to_owned())) && gauge.value == 2.0)
            .then_some(())
    })
    .await;
    std::fs::rename(&here, &away).unwrap();

    let event = json!({"type": "a", "data": 1});
    let send = async |tenant: &Tenant| room.post("/v1/events").bearer(&tenant.key).json(&event).send().await;
    let receive = async |tenant: &Tenant| room.post(&format!("/in/{}/github", tenant.slug)).body("{}").send().await;
    for refused in [send(&acme).await, receive(&acme).await] {
        assert_eq!(refused.verdict(), "503 storage_unavailable");
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
        assert!(
            !String::from_utf8_lossy(&refused.body).contains("postroom.db"),
            "that is for the operator: {refused:?}"
        );
    }
    assert_eq!((send(&other).await.status, receive(&other).await.status), (202, 401));
    assert_eq!(room.get("/readyz").send().await.status, 200);
    let listed = room.get("/v1/organizations").bearer(ADMIN).send().await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    let figure = |value: u8| format!("postroom_tenant_unavailable{{organization=\"{}\"}} {value}\n", acme.id);
    let metrics = async || String::from_utf8_lossy(&room.get("/metrics").send().await.body).into_owned();
    let shown = metrics().await;
    assert!(shown.contains(&figure(1)) && !shown.contains(&other.id), "{shown}");

    std::fs::rename(&away, &here).unwrap();
    eventually("it is mended", || async { (send(&acme).await.status == 202).then_some(()) }).await;
    assert!(metrics().await.contains(&figure(0)));
}
