//! Odd and hostile input to the API: each has its exact answer.

use serde_json::{Value, json};

use crate::support::{ADMIN, Engine, Reply, Room};

/// What a request is answered: the verdict and the refused fields.
fn seen(reply: &Reply) -> (String, Vec<String>) {
    let verdict = reply.verdict();
    let fields = if reply.status == 422 { reply.fields() } else { Vec::new() };
    (verdict, fields)
}

fn expect(reply: &Reply, verdict: &str, field: &str, context: &str) {
    let fields: Vec<String> = if field.is_empty() { Vec::new() } else { vec![field.to_owned()] };
    assert_eq!(seen(reply), (verdict.to_owned(), fields), "{context}: {reply:?}");
}

const INVALID: &str = "422 validation_failed";

pub async fn bodies_that_are_not_one_json_object(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    for (body, verdict, field) in [
        (&b""[..], "400 invalid_json", ""),
        (b" ", "400 invalid_json", ""),
        (b"{", "400 invalid_json", ""),
        (b"{\"type\":\"a\",\"data\":1}x", "400 invalid_json", ""),
        (b"{\"type\":\"a\",\"data\":1,}", "400 invalid_json", ""),
        (b"{\"type\":\"a\",\"data\":NaN}", "400 invalid_json", ""),
        (b"{\"type\":\"a\",\"data\":01}", "400 invalid_json", ""),
        (b"\xef\xbb\xbf{\"type\":\"a\",\"data\":1}", "400 invalid_json", ""),
        (b"{\"type\":\"\xff\",\"data\":1}", "400 invalid_json", ""),
        (b"{\"type\":\"a\",\"data\":\"\xff\"}", "400 invalid_json", ""),
        (b"[]", INVALID, "body invalid_type"),
        (b"null", INVALID, "body invalid_type"),
        (b"\"text\"", INVALID, "body invalid_type"),
        (b"{}", INVALID, "type required"),
        (b"{\"type\":\"a\"}", INVALID, "data required"),
        (b"{\"type\":1,\"data\":1}", INVALID, "type invalid_type"),
        (b"{\"type\":null,\"data\":1}", INVALID, "type invalid_type"),
        (b"{\"type\":\"a\",\"data\":1,\"type\":\"b\"}", INVALID, "type duplicate_field"),
        (b"{\"type\":\"a\",\"data\":1,\"Data\":1}", INVALID, "Data unknown_field"),
        (b"{\"type\":\"a\",\"data\":1,\"org_id\":\"x\"}", INVALID, "org_id unknown_field"),
        (b"{\"type\":\"a\",\"data\":1,\"id\":true}", INVALID, "id invalid_type"),
    ] {
        let call = room.post("/v1/events").bearer(&tenant.key).header("content-type", "application/json").body(body);
        expect(&call.send().await, verdict, field, &String::from_utf8_lossy(body));
    }
    let good = "{\"type\":\"a\",\"data\":1}";
    for (content_type, verdict) in [
        ("application/json", "202"),
        ("application/json; charset=utf-8", "202"),
        ("application/cloudevents+json", "202"),
        ("text/plain", "415 unsupported_media_type"),
        ("application/x-www-form-urlencoded", "415 unsupported_media_type"),
        ("json", "415 unsupported_media_type"),
        ("", "415 unsupported_media_type"),
    ] {
        let call = room.post("/v1/events").bearer(&tenant.key).header("content-type", content_type).body(good);
        assert_eq!(call.send().await.verdict(), verdict, "{content_type}");
    }
    let twice = room.post("/v1/events").bearer(&tenant.key).body(good);
    let twice = twice.header("content-type", "application/json").header("content-type", "application/json");
    assert_eq!(twice.send().await.verdict(), "415 unsupported_media_type");
    assert_eq!(room.post("/v1/events").bearer(&tenant.key).body(good).send().await.status, 202, "none is JSON");
}

pub async fn event_types_ids_and_data(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let post = async |body: Value| room.post("/v1/events").bearer(&tenant.key).json(&body).send().await;
    let long = "x".repeat(129);
    for (kind, code) in [
        ("", "required"),
        (long.as_str(), "too_long"),
        ("🎉", "invalid_event_type"),
        ("a..b", "invalid_event_type"),
        ("../x", "invalid_event_type"),
        ("a\nb", "invalid_event_type"),
        ("*", "invalid_event_type"),
        ("a.*", "invalid_event_type"),
        ("<script>", "invalid_event_type"),
    ] {
        let reply = post(json!({"type": kind, "data": 1})).await;
        expect(&reply, INVALID, &format!("type {code}"), kind);
    }
    let long = "i".repeat(256);
    for (id, code) in
        [("", "required"), (long.as_str(), "too_long"), ("a\nb", "invalid_character"), ("\u{0}", "invalid_character")]
    {
        let reply = post(json!({"type": "a", "data": 1, "id": id})).await;
        expect(&reply, INVALID, &format!("id {code}"), id);
    }
    let both = post(json!({"type": "", "data": 1, "id": ""})).await;
    assert_eq!(both.fields(), ["type required", "id required"], "everything that is wrong is told at once");
    for data in [json!(null), json!(0), json!(true), json!(""), json!([]), json!("x".repeat(1_000_000))] {
        assert_eq!(post(json!({"type": "a", "data": data})).await.status, 202);
    }
    let large = post(json!({"type": "a", "data": "x".repeat(1_048_576)})).await;
    assert_eq!(large.verdict(), "413 body_too_large");
    let deep = format!("{{\"type\":\"a\",\"data\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let deep = room.post("/v1/events").bearer(&tenant.key).header("content-type", "application/json").body(deep);
    assert_eq!(deep.send().await.status, 202, "data may be nested as deep as it likes: nobody walks through it");
}

pub async fn urls_of_endpoints(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let post = async |url: &str| room.post("/v1/endpoints").bearer(&tenant.key).json(&json!({"url": url})).send().await;
    let long = format!("https://example.com/{}", "x".repeat(8192));
    for (url, code) in [
        ("", "invalid_url"),
        ("example.com", "invalid_url"),
        ("//example.com/", "invalid_url"),
        ("ftp://example.com/", "invalid_url"),
        ("file:///etc/passwd", "invalid_url"),
        ("javascript:alert(1)", "invalid_url"),
        ("https://", "invalid_url"),
        ("https://user:pw@example.com/", "invalid_url"),
        ("https://example.com/#fragment", "invalid_url"),
        ("https://example.com:0/", "invalid_url"),
        ("https://example.com:65536/", "invalid_url"),
        ("https://xn--a\u{0}/", "invalid_url"),
        ("https://exa mple.com/", "invalid_url"),
        ("https://example.com\\@evil.com", "invalid_url"),
        ("https://[fe80::1%25eth0]/", "invalid_url"),
        (long.as_str(), "too_long"),
    ] {
        expect(&post(url).await, INVALID, &format!("url {code}"), url);
    }
    let own = format!("http://{}/", room.address);
    for blocked in [
        "http://10.0.0.1/",
        "http://192.168.1.1/",
        "http://169.254.169.254/latest",
        "http://100.64.0.1/",
        "http://0.0.0.0/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://[64:ff9b::a00:1]/",
        "http://[fe80::1]/",
        "http://167772161/",
        "http://0x0a000001/",
        "http://012.0.0.1/",
        "http://10.1/",
        "http://10.0.0.1./",
        "http://１０.0.0.1/",
        own.as_str(),
    ] {
        let reply = post(blocked).await;
        assert_eq!(reply.verdict(), INVALID, "{blocked} {reply:?}");
        assert!(reply.fields()[0].starts_with("url "), "{blocked} {reply:?}");
    }
    for (good, written) in [
        ("https://example.com", "https://example.com/"),
        ("HTTPS://EXAMPLE.com/A", "https://example.com/A"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://example.com./", "https://example.com./"),
        ("http://127.0.0.1:9/", "http://127.0.0.1:9/"),
    ] {
        let reply = post(good).await;
        assert_eq!((reply.status, &reply.json()["url"]), (201, &json!(written)), "{good} {reply:?}");
    }
    let id = room.endpoint(&tenant).await;
    let patch = json!({"url": "http://10.0.0.1/"});
    let changed = room.call("PATCH", &format!("/v1/endpoints/{id}")).bearer(&tenant.key).json(&patch).send().await;
    assert_eq!(changed.verdict(), INVALID, "the same check on every way to write a URL");
}

pub async fn settings_of_endpoints(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let many: serde_json::Map<String, Value> = (0..1000).map(|n| (format!("x-{n}"), json!("v"))).collect();
    let deep = (0..1000).fold(json!({"a": 1}), |inner, _| json!({"$not": inner}));
    let long = "v".repeat(64 * 1024);
    let cases: Vec<(Value, &str)> = vec![
        (json!({"description": "d".repeat(501)}), "description too_long"),
        (json!({"description": "a\u{0}b"}), "description invalid_character"),
        (json!({"event_types": ["a b"]}), "event_types[0] invalid_event_type"),
        (json!({"event_types": ["ok", ""]}), "event_types[1] required"),
        (json!({"event_types": "order.paid"}), "event_types invalid_type"),
        (json!({"event_types": vec!["a"; 101]}), "event_types too_many"),
        (json!({"source_ids": ["x"]}), "source_ids[0] source_not_found"),
        (json!({"filter": {}}), "filter invalid_filter"),
        (json!({"filter": {"a": {"$regex": "("}}}), "filter invalid_filter"),
        (json!({"filter": "x"}), "filter invalid_filter"),
        (json!({"filter": {"a": "x".repeat(1_000_000)}}), "filter too_long"),
        (json!({"retry_schedule": [0]}), "retry_schedule out_of_range"),
        (json!({"retry_schedule": [604_801]}), "retry_schedule out_of_range"),
        (json!({"retry_schedule": [1_000_000_000_000_000_000_u64]}), "retry_schedule out_of_range"),
        (json!({"retry_schedule": vec![1; 1000]}), "retry_schedule too_many"),
        (json!({"retry_schedule": [-1]}), "retry_schedule[0] invalid_type"),
        (json!({"retry_schedule": [1.5]}), "retry_schedule[0] invalid_type"),
        (json!({"timeout_ms": 999}), "timeout_ms out_of_range"),
        (json!({"timeout_ms": 30_001}), "timeout_ms out_of_range"),
        (json!({"timeout_ms": "5000"}), "timeout_ms invalid_type"),
        (json!({"rate_limit": 0}), "rate_limit out_of_range"),
        (json!({"rate_limit": -1}), "rate_limit invalid_type"),
        (json!({"rate_limit": 1_000_000_000_000_u64}), "rate_limit out_of_range"),
        (json!({"headers": {"": "v"}}), "headers. invalid_header_name"),
        (json!({"headers": {"a b": "v"}}), "headers.a b invalid_header_name"),
        (json!({"headers": {"Host": "v"}}), "headers.Host reserved_header"),
        (json!({"headers": {"webhook-id": "v"}}), "headers.webhook-id reserved_header"),
        (json!({"headers": {"x": long}}), "headers.x too_long"),
        (json!({"headers": {"x": "a\r\nb: c"}}), "headers.x invalid_header_value"),
        (json!({"headers": {"x": 1}}), "headers.x invalid_type"),
        (json!({"headers": many}), "headers too_many"),
        (json!({"signature": "rsa"}), "signature unknown_value"),
        (json!({"is_enabled": false}), "is_enabled unknown_field"),
        (json!({"id": "ep_1"}), "id unknown_field"),
        (json!({"secret": "whsec_x"}), "secret unknown_field"),
        (json!({"created_at": "2026-01-01T00:00:00Z"}), "created_at unknown_field"),
    ];
    for (extra, field) in cases {
        let mut body = extra.clone();
        body["url"] = json!("https://example.com/");
        let reply = room.post("/v1/endpoints").bearer(&tenant.key).json(&body).send().await;
        expect(&reply, INVALID, field, &extra.to_string().chars().take(80).collect::<String>());
    }
    let mut body = json!({"url": "https://example.com/"});
    body["filter"] = deep;
    let reply = room.post("/v1/endpoints").bearer(&tenant.key).json(&body).send().await;
    assert!(matches!(reply.status, 400 | 422), "nested too deep to be read at all: {reply:?}");
    for good in [json!({"retry_schedule": []}), json!({"retry_schedule": [900, 60, 300]}), json!({"description": null})]
    {
        let mut body = good.clone();
        body["url"] = json!("https://example.com/");
        let reply = room.post("/v1/endpoints").bearer(&tenant.key).json(&body).send().await;
        assert_eq!(reply.status, 201, "{good} {reply:?}");
    }
}

pub async fn patches_that_say_nothing_or_too_much(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let source = room.source(&tenant, json!({"provider": "github"})).await;
    let endpoint = room.endpoint(&tenant).await;
    let patch = async |path: &str, body: Value| room.call("PATCH", path).bearer(&tenant.key).json(&body).send().await;
    let source = format!("/v1/sources/{source}");
    let endpoint = format!("/v1/endpoints/{endpoint}");
    for path in [&source, &endpoint] {
        assert_eq!(patch(path, json!({})).await.status, 200);
        for field in ["id", "created_at", "updated_at", "organization_id", "secret_history"] {
            expect(&patch(path, json!({field: "x"})).await, INVALID, &format!("{field} unknown_field"), path);
        }
    }
    expect(&patch(&source, json!({"name": null})).await, INVALID, "name invalid_type", "name");
    expect(&patch(&source, json!({"provider": "stripe"})).await, INVALID, "provider unknown_field", "provider");
    expect(&patch(&source, json!({"is_active": "yes"})).await, INVALID, "is_active invalid_type", "is_active");
    expect(&patch(&endpoint, json!({"url": null})).await, INVALID, "url invalid_type", "url");
    expect(&patch(&endpoint, json!({"signature": "ed25519"})).await, INVALID, "signature unknown_field", "signature");
    for path in [&source, &endpoint] {
        assert_eq!(room.call("DELETE", path).bearer(&tenant.key).send().await.status, 204);
        let name = if path.contains("source") { "404 source_not_found" } else { "404 endpoint_not_found" };
        assert_eq!(room.call("DELETE", path).bearer(&tenant.key).send().await.verdict(), name);
        assert_eq!(room.get(path).bearer(&tenant.key).send().await.verdict(), name);
        assert_eq!(patch(path, json!({})).await.verdict(), name);
    }
}

pub async fn names_slugs_plans_and_limits_of_organizations(engine: Engine) {
    let room = Room::start(engine).await;
    let post = async |body: Value| room.post("/v1/organizations").bearer(ADMIN).json(&body).send().await;
    let cases: Vec<(Value, &str)> = vec![
        (json!({"name": "\u{65e5}\u{672c}"}), "slug required"),
        (json!({"name": ""}), "name required"),
        (json!({"name": " ", "slug": "a"}), "name required"),
        (json!({"name": "a\u{202e}b", "slug": "a"}), "name invalid_character"),
        (json!({"name": "a\u{200b}b", "slug": "a"}), "name invalid_character"),
        (json!({"name": "x".repeat(10_000)}), "name too_long"),
        (json!({"name": "x", "slug": "A"}), "slug invalid_slug"),
        (json!({"name": "x", "slug": "a/b"}), "slug invalid_slug"),
        (json!({"name": "x", "slug": ""}), "slug invalid_slug"),
        (json!({"name": "x", "plan": "Free"}), "plan unknown_value"),
        (json!({"name": "x", "webhook_limit": -1}), "webhook_limit invalid_type"),
        (json!({"name": "x", "webhook_limit": 10_u64.pow(18)}), "webhook_limit out_of_range"),
        (json!({"name": "x", "is_active": 1}), "is_active invalid_type"),
        (json!({"name": "x", "mandrill_webhook_secret": ""}), "mandrill_webhook_secret invalid_secret"),
        (json!({"name": "x", "mandrill_webhook_secret": "a b"}), "mandrill_webhook_secret invalid_secret"),
        (json!({"name": "x", "webhook_count": 0}), "webhook_count unknown_field"),
    ];
    for (body, field) in cases {
        let reply = post(body.clone()).await;
        assert_eq!(reply.verdict(), INVALID, "{body:.60} {reply:?}");
        assert!(reply.fields().contains(&field.to_owned()), "{body:.60} {:?}", reply.fields());
    }
    assert_eq!(post(json!({"name": ""})).await.fields(), ["name required"], "and nothing of a slug that nobody gave");
    let html = post(json!({"name": "<script>alert(1)</script>"})).await;
    assert_eq!((html.status, &html.json()["slug"]), (201, &json!("script-alert-1-script")));
}

pub async fn scopes_and_times_of_keys(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let cases: Vec<(Value, &str)> = vec![
        (json!({"name": "k", "scopes": []}), "scopes required"),
        (json!({"name": "k", "scopes": ["Admin"]}), "scopes[0] unknown_value"),
        (json!({"name": "k", "scopes": ["read", "write"]}), "scopes[1] unknown_value"),
        (json!({"name": "k", "scopes": "read"}), "scopes invalid_type"),
        (json!({"name": "k"}), "scopes required"),
        (json!({"scopes": ["read"]}), "name required"),
        (json!({"name": "k", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}), "expires_at out_of_range"),
        (json!({"name": "k", "scopes": ["read"], "expires_at": "tomorrow"}), "expires_at invalid_time"),
        (json!({"name": "k", "scopes": ["read"], "hash": "x"}), "hash unknown_field"),
    ];
    for (body, field) in cases {
        let reply = room.post("/v1/api-keys").bearer(&tenant.key).json(&body).send().await;
        expect(&reply, INVALID, field, &body.to_string());
    }
}

pub async fn secrets_of_sources(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    for (secret, accepted) in [
        ("whsec_", false),
        ("not base64!", false),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", true),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", true),
        ("", false),
    ] {
        let body = json!({"provider": "standard-webhooks", "name": "s", "secret": secret});
        let reply = room.post("/v1/sources").bearer(&tenant.key).json(&body).send().await;
        if accepted {
            assert_eq!(reply.status, 201, "{secret} {reply:?}");
            let path = format!("/v1/sources/{}", reply.json()["id"].as_str().unwrap());
            assert_eq!(room.call("DELETE", &path).bearer(&tenant.key).send().await.status, 204);
        } else {
            assert_eq!(reply.verdict(), INVALID, "{secret} {reply:?}");
            assert!(reply.fields()[0].starts_with("secret "), "{secret} {reply:?}");
        }
    }
    let body = json!({"provider": "github", "secret": "x".repeat(1_000_000)});
    let large = room.post("/v1/sources").bearer(&tenant.key).json(&body).send().await;
    assert_eq!(large.verdict(), INVALID, "{large:?}");
}

pub async fn ids_in_paths_that_are_no_ids(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let long = "a".repeat(10_000);
    for id in ["x", "EVT_00", "evt_", "evt_0%00", "dlv_00000000000000000000000000000000", "%ff", "..%2f..", &long] {
        let reply = room.get(&format!("/v1/events/{id}")).bearer(&tenant.key).send().await;
        assert_eq!(reply.verdict(), "404 event_not_found", "{id:.40}");
    }
}

pub async fn actions_that_take_nothing_take_nothing(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let id = room.endpoint(&tenant).await;
    let path = format!("/v1/endpoints/{id}/enable");
    assert_eq!(room.post(&path).bearer(&tenant.key).send().await.status, 200);
    assert_eq!(room.post(&path).bearer(&tenant.key).json(&json!({})).send().await.status, 200);
    expect(&room.post(&path).bearer(&tenant.key).json(&json!({"x": 1})).send().await, INVALID, "x unknown_field", "x");
    expect(&room.post(&path).bearer(&tenant.key).json(&json!([])).send().await, INVALID, "body invalid_type", "[]");
}
