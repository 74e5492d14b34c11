//! Limits by time: how they are told, whom they hold, and whom not.

use std::time::Duration;

use postroom_web::Quota;
use serde_json::json;

use crate::support::{ADMIN, Engine, Reply, Room};

const MINUTE: Duration = Duration::from_secs(60);

fn standing(reply: &Reply) -> [Option<&str>; 4] {
    ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "retry-after"].map(|name| reply.header(name))
}

pub async fn an_organization_that_asks_too_often_waits_and_hurts_nobody_else(engine: Engine) {
    let room = Room::with(engine, |setup| setup.limits.requests = Quota { limit: 3, window: MINUTE }).await;
    let (busy, calm) = (room.tenant("Busy").await, room.tenant("Calm").await);
    let ask = async |key: &str| room.get("/v1/endpoints").bearer(key).send().await;
    for (remaining, reset) in [("2", "20"), ("1", "40"), ("0", "60")] {
        let reply = ask(&busy.key).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(standing(&reply), [Some("3"), Some(remaining), Some(reset), None]);
    }
    let refused = ask(&busy.key).await;
    assert_eq!(refused.verdict(), "429 rate_limited");
    assert_eq!(standing(&refused), [Some("3"), Some("0"), Some("60"), Some("20")]);

    assert_eq!(ask(&calm.key).await.status, 200);
    let event = json!({"type": "a.b", "data": 1});
    for _ in 0..5 {
        let sent = room.post("/v1/events").bearer(&busy.key).json(&event).send().await;
        assert_eq!(sent.status, 202, "sending is not counted: {sent:?}");
        assert_eq!(standing(&sent), [None; 4]);
    }
    room.forward(Duration::from_secs(20));
    assert_eq!(ask(&busy.key).await.status, 200);
    assert_eq!(ask(&busy.key).await.status, 429);
}

pub async fn the_document_names_the_headers_of_limits_where_they_are_sent(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let document = room.get("/openapi.json").send().await.json();
    let names = ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"];
    let documented = |method: &str, path: &str, status: &str| {
        let response = &document["paths"][path][method]["responses"][status];
        assert!(response.is_object(), "{method} {path} {status}");
        names.map(|name| response["headers"][name]["$ref"] == format!("#/components/headers/{name}"))
    };
    let event = json!({"type": "a.b", "data": 1});
    for (method, path, body) in [
        ("get", "/v1/events", None),
        ("get", "/v1/api-keys", None),
        ("post", "/v1/events", Some(&event)),
        ("post", "/v1/endpoints", Some(&json!({"url": "http://127.0.0.1:9/"}))),
        ("post", "/api/auth/request-magic-link", Some(&json!({"email": "a@example.com"}))),
    ] {
        let call = room.call(&method.to_uppercase(), path).bearer(&tenant.key);
        let reply = if let Some(body) = body { call.json(body) } else { call }.send().await;
        let sent = standing(&reply)[0].is_some();
        assert_eq!(documented(method, path, &reply.status.to_string()), [sent; 3], "{method} {path}: {reply:?}");
    }
    let problem = &document["components"]["responses"]["Problem"]["headers"];
    for name in names.into_iter().chain(["Retry-After"]) {
        let path = problem[name]["$ref"].as_str().unwrap().trim_start_matches('#');
        assert_eq!(document.pointer(path).unwrap()["schema"]["type"], "integer", "{name}");
    }
}

pub async fn who_guesses_credentials_is_stopped_and_who_has_one_is_not(engine: Engine) {
    let room = Room::with(engine, |setup| setup.limits.wrong_credentials = Quota { limit: 3, window: MINUTE }).await;
    let tenant = room.tenant("Acme").await;
    let ask = async |token: &str| room.get("/v1/providers").bearer(token).send().await;
    for _ in 0..3 {
        assert_eq!(ask("a-guess").await.verdict(), "401 credentials_invalid");
    }
    let refused = ask("a-guess").await;
    assert_eq!(refused.verdict(), "429 rate_limited");
    assert_eq!(standing(&refused), [Some("3"), Some("0"), Some("60"), Some("20")]);

    assert_eq!(ask(&tenant.key).await.status, 200, "a key can not be guessed, so a right one is always right");
    assert_eq!(ask(ADMIN).await.status, 429, "the admin token can be, so it is not even looked at");
    assert_eq!(room.get("/v1/providers").send().await.verdict(), "401 credentials_missing", "that is no guess");

    room.get("/v1/endpoints").bearer("another-guess").send().await;
    room.forward(Duration::from_secs(20));
    let log = room.get("/v1/audit-logs?actor=nobody").bearer(ADMIN).send().await;
    assert_eq!(log.status, 200, "{log:?}");
    let codes: Vec<_> =
        log.json()["data"].as_array().unwrap().iter().map(|entry| entry["new_values"].clone()).collect();
    let entry = |route: &str, code: &str| json!({"route": route, "code": code});
    let expected = [
        entry("GET /v1/endpoints", "credentials_invalid"),
        entry("GET /v1/providers", "rate_limited"),
        entry("GET /v1/providers", "credentials_invalid"),
    ];
    assert_eq!(codes, expected, "newest first; too many are too many wherever they are shown");
}
