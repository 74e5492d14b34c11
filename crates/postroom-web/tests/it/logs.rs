//! What is logged, and what must never be.

use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex};

use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{ADMIN, Engine, Room};

/// Everything that any test of this process logs, at every level.
pub struct Kept(Arc<Mutex<Vec<u8>>>);

/// Begins to keep the log, once for all tests: every test that starts a server asks for it first.
pub fn kept() -> &'static Kept {
    static KEPT: LazyLock<Kept> = LazyLock::new(|| {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let writer = Kept(kept.clone());
        // As the binary does: the client of PostgreSQL would tell the values of every statement.
        let subscriber = tracing_subscriber::fmt().with_env_filter("trace,tokio_postgres=warn").with_ansi(false);
        subscriber.with_writer(writer).init();
        Kept(kept)
    });
    &KEPT
}

impl Kept {
    pub fn text(&self) -> String {
        String::from_utf8(self.since(0)).unwrap()
    }

    /// How much there is so far.
    pub fn length(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// What came after so much.
    pub fn since(&self, length: usize) -> Vec<u8> {
        self.0.lock().unwrap()[length..].to_vec()
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Kept {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        Self(self.0.clone())
    }
}

pub async fn a_request_has_one_span_with_who_what_and_how_it_ended(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    // The log is of all tests of this process, those on the other engine among them.
    let id = format!("request-of-{}", tenant.id);
    room.get("/v1/events/evt_1?x=1").bearer(&tenant.key).header("x-request-id", &id).send().await;
    let text = kept().text();
    let line = text.lines().find(|line| line.contains(&id) && line.contains("answered")).expect("a line");
    for part in ["method=\"GET\"", "route=\"/v1/events/{id}\"", "status=404", &format!("organization.id={}", tenant.id)]
    {
        assert!(line.contains(part), "{part}: {line}");
    }
}

pub async fn no_secret_payload_or_query_is_ever_logged(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "github", "secret": "canary-source-secret"})).await;
    let endpoint = json!({"url": "http://127.0.0.1:9/canary-path", "headers": {"authorization": "canary-header"}});
    let endpoint = room.post("/v1/endpoints").bearer(&tenant.key).json(&endpoint).send().await;
    let shown_once = endpoint.json()["secret"].as_str().unwrap().to_owned();
    room.post("/in/acme/github?token=canary-query")
        .header("x-hub-signature-256", "sha256=canary-signature")
        .header("authorization", "Bearer canary-bearer")
        .body("canary-body")
        .send()
        .await;
    room.post("/v1/events")
        .bearer("prk_canary-wrong-key")
        .json(&json!({"type": "a", "data": "canary-data"}))
        .send()
        .await;
    room.post("/v1/events")
        .bearer(&tenant.key)
        .json(&json!({"type": "a", "data": "canary-data", "x": "canary-field"}))
        .send()
        .await;
    room.post("/v1/sources")
        .bearer(&tenant.key)
        .json(&json!({"provider": "github", "secret": ["canary-list"]}))
        .send()
        .await;
    room.get("/v1/events?q=canary-search&cursor=canary-cursor").bearer(&tenant.key).send().await;
    let sent = room.post("/v1/events").bearer(&tenant.key).header("idempotency-key", "canary-idempotency");
    sent.json(&json!({"type": "a", "data": "canary-data"})).send().await;
    let text = kept().text();
    assert!(text.contains("answered with"), "something is logged at all");
    for secret in ["canary", &tenant.key, ADMIN, &shown_once] {
        let found = text.lines().find(|line| line.contains(secret));
        assert_eq!(found, None, "{secret}");
    }
}

pub async fn what_comes_from_outside_can_not_forge_a_line(engine: Engine) {
    let room = Room::start(engine).await;
    room.call("GET", "/a%0d%0aforged%20line").header("x-request-id", "x forged").send().await;
    room.call("FORGED", "/").send().await;
    assert!(!kept().text().to_lowercase().contains("forged"), "{}", kept().text());
}

pub async fn a_refusal_is_logged_with_its_likely_cause(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "square", "secret": "shh"})).await;
    let signature = "x-square-hmacsha256-signature";
    let refused =
        room.post("/in/acme/square?token=not-for-the-log").header(signature, "c2hvcnQ=").body("{}").send().await;
    assert_eq!(refused.verdict(), "401 signature_invalid");
    let list = room.get("/v1/rejections").bearer(&tenant.key).send().await.json();
    let id = list["data"][0]["id"].as_str().unwrap();
    let text = kept().text();
    let line = text.lines().find(|line| line.contains(&format!("see {id}"))).expect("a line");
    assert!(line.contains("the check signature_format fails; likely cause: this is not written as"), "{line}");
    assert!(!text.contains("not-for-the-log"));
}
