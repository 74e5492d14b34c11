//! Health, metrics, documents, and what is true of every answer.

use postroom_web::Roles;
use postroom_web::problem::Code;
use serde_json::json;

use crate::support::{ADMIN, Engine, Room};

pub async fn every_problem_has_its_page(engine: Engine) {
    let room = Room::start(engine).await;
    for code in Code::ALL {
        let path = format!("/problems/{}", code.as_str());
        let page = room.get(&path).send().await;
        assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")), "{path}");
        assert!(String::from_utf8_lossy(&page.body).contains(code.as_str()));
        let json = room.get(&path).header("accept", "application/json").send().await.json();
        assert_eq!((&json["code"], &json["status"]), (&json!(code.as_str()), &json!(code.status().as_u16())));
    }
    assert_eq!(room.get("/problems").send().await.status, 200);
    assert_eq!(room.get("/problems/never_was").send().await.verdict(), "404 route_not_found");
}

pub async fn pages_need_nothing_from_elsewhere_and_run_no_scripts(engine: Engine) {
    let room = Room::start(engine).await;
    for path in ["/docs", "/problems", "/problems/forbidden"] {
        let page = room.get(path).send().await;
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"));
        let text = String::from_utf8_lossy(&page.body);
        assert!(!text.contains("<script") && !text.contains("src=") && !text.contains("http://"), "{path}");
    }
}

pub async fn the_document_is_served_as_it_is_committed(engine: Engine) {
    let room = Room::start(engine).await;
    let served = room.get("/openapi.json").send().await.json();
    assert_eq!(served, postroom_web::openapi::document());
    assert_eq!(served["openapi"], "3.1.0");
    let index = room.get("/").send().await.json();
    assert_eq!((&index["name"], &index["docs"]), (&json!("postroom"), &json!("https://hooks.example/docs")));
}

pub async fn a_server_is_live_and_ready_until_it_stops(engine: Engine) {
    let room = Room::start(engine).await;
    assert_eq!(room.get("/livez").send().await.json(), json!({"status": "ok"}));
    assert_eq!(room.get("/readyz").send().await.json(), json!({"status": "ready"}));
    let metrics = room.get("/metrics").send().await;
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    room.storage.platform.close().await.unwrap();
    assert_eq!(room.get("/readyz").send().await.verdict(), "503 not_ready");
    assert_eq!(room.get("/livez").send().await.status, 200);
}

pub async fn storage_that_does_not_answer_is_503_with_a_time_to_come_back(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "none"})).await;
    room.storage.platform.close().await.unwrap();
    for reply in [
        room.post("/in/acme/none").body("{}").send().await,
        room.post("/v1/events").bearer(&tenant.key).json(&json!({"type": "a", "data": 1})).send().await,
        room.get("/v1/events").bearer(&tenant.key).send().await,
    ] {
        assert_eq!(reply.verdict(), "503 storage_unavailable");
        assert!(reply.header("retry-after").is_some());
    }
}

pub async fn a_request_id_is_taken_if_it_is_harmless_and_made_if_not(engine: Engine) {
    let room = Room::start(engine).await;
    let ask = async |id: &str| {
        let reply = room.get("/nothing").header("x-request-id", id).send().await;
        assert_eq!(reply.problem(), "route_not_found");
        reply.header("x-request-id").unwrap().to_owned()
    };
    let long = "x".repeat(64);
    for good in ["a", "A_b-9", &long] {
        assert_eq!(ask(good).await, good);
    }
    let too_long = "x".repeat(65);
    for bad in ["", "a b", "a\"b", "<b>", "é", &too_long] {
        let made = ask(bad).await;
        assert!(made.starts_with("req_") && made.len() == 36, "{made}");
    }
    assert_ne!(ask("").await, ask("").await);
}

pub async fn every_route_answers_options_head_and_wrong_methods_sanely(engine: Engine) {
    let room = Room::start(engine).await;
    let mut paths: Vec<String> =
        ["/", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/problems", "/sign-in", "/sign-in.js"]
            .map(str::to_owned)
            .to_vec();
    let document = postroom_web::openapi::document();
    paths.extend(
        document["paths"].as_object().unwrap().keys().map(|path| path.replace("{id}", "x").replace("{name}", "x")),
    );
    for path in paths {
        let options = room.call("OPTIONS", &path).send().await;
        assert_eq!((options.status, options.body.len()), (204, 0), "{path} {options:?}");
        let allow = options.header("allow").unwrap_or_default().to_owned();
        let trace = room.call("BREW", &path).bearer(ADMIN).send().await;
        assert_eq!(trace.verdict(), "405 method_not_allowed", "{path}");
        assert_eq!(trace.header("allow"), Some(allow.as_str()));
        if allow.contains("GET") {
            let head = room.call("HEAD", &path).send().await;
            assert_eq!(head.body.len(), 0, "{path}");
            assert!(head.status == 200 || head.status == 401, "{path} {head:?}");
        }
    }
    assert_eq!(room.get("/v2/events").send().await.verdict(), "404 route_not_found");
    assert_eq!(room.get("/v1/nothing").bearer(ADMIN).send().await.verdict(), "404 route_not_found");
}

pub async fn whatever_is_accepted_the_answer_is_json(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    for accept in ["text/html", "*/*", "nonsense", "application/xml;q=1"] {
        let reply = room.get("/v1/events").bearer(&tenant.key).header("accept", accept);
        let reply = reply.header("accept-encoding", "br;q=0").send().await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert!(reply.header("access-control-allow-origin").is_none());
    }
}

pub async fn a_process_serves_only_the_parts_it_has(engine: Engine) {
    let room = Room::with(engine, |setup| setup.roles = Roles { receiver: true, api: false }).await;
    assert_eq!(room.get("/v1/events").send().await.verdict(), "404 route_not_found");
    assert_eq!(room.post("/in/a/b").send().await.verdict(), "404 source_not_found");
    let room = Room::with(engine, |setup| setup.roles = Roles { receiver: false, api: true }).await;
    assert_eq!(room.post("/in/a/b").send().await.verdict(), "404 route_not_found");
    assert_eq!(room.get("/v1/events").send().await.verdict(), "401 credentials_missing");
    // One that delivers only.
    let room = Room::with(engine, |setup| setup.roles = Roles { receiver: false, api: false }).await;
    for path in ["/", "/docs", "/openapi.json", "/problems", "/in/a/b", "/v1/events", "/sign-in"] {
        assert_eq!(room.get(path).send().await.verdict(), "404 route_not_found", "{path}");
    }
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(room.get(path).send().await.status, 200, "{path}");
    }
}

pub async fn a_panic_in_a_handler_is_500_and_hurts_nobody_else(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.break_clock();
    let reply = room.get("/v1/events").bearer(&tenant.key).send().await;
    assert_eq!(reply.verdict(), "500 internal_error");
    assert!(!String::from_utf8_lossy(&reply.body).contains("secret-in-a-panic"));
    assert_eq!(room.get("/livez").send().await.status, 200);
    room.mend_clock();
    assert_eq!(room.get("/v1/events").bearer(&tenant.key).send().await.status, 200);
}

pub async fn metrics_count_requests_by_route_and_never_by_caller(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "none"})).await;
    assert_eq!(room.post("/in/acme/none").body("{}").send().await.status, 200);
    room.source(&tenant, json!({"provider": "github", "secret": "s"})).await;
    assert_eq!(room.post("/in/acme/github").body("{}").send().await.status, 401);
    room.call("BREW", "/somewhere-odd").send().await;
    let text = String::from_utf8(room.get("/metrics").send().await.body).unwrap();
    let receiving = "route=\"/in/{organization_slug}/{source_name}\"";
    for line in [
        format!("postroom_http_requests_total{{{receiving},method=\"POST\",status=\"200\"}}"),
        format!("postroom_http_request_duration_seconds_count{{{receiving},method=\"POST\"}}"),
        "postroom_http_requests_total{route=\"none\",method=\"other\",status=\"404\"}".to_owned(),
        "postroom_rejections_total{code=\"signature_missing\"}".to_owned(),
        "postroom_accept_duration_seconds_count".to_owned(),
        "postroom_http_connections ".to_owned(),
        "postroom_deliveries_pending ".to_owned(),
    ] {
        assert!(text.contains(&line), "{line}\n{text}");
    }
    for caller in ["acme", "BREW", "somewhere-odd", "127.0.0.1"] {
        assert!(!text.contains(caller), "{caller}\n{text}");
    }
}
