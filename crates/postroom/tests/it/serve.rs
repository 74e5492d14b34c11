//! The server as a process: start, one event's way, signals, what it refuses to start on.

use std::time::Duration;

use serde_json::json;

use super::support::{
    ADMIN_TOKEN, Engine, Receiver, Server, bearer, post, postroom, request, stderr, wait_until, write,
};

pub fn a_signed_webhook_arrives_byte_for_byte_and_signed_for_its_endpoint(engine: Engine) {
    let receiver = Receiver::answering(&[200]);
    let server = Server::start(engine);
    let tenant = server.tenant("Acme Corp", Some(&receiver.url()));
    tenant.source("github", "s3cret");
    let url = format!("{}/in/acme-corp/github", server.url);
    let signed = server.run(&["sign", "--provider", "github", "--secret", "s3cret", "--url", &url, "--json"]);
    let signed: serde_json::Value = serde_json::from_slice(&signed.stdout).unwrap();
    let headers: Vec<(String, String)> = signed["headers"]
        .as_object()
        .map(|map| map.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect())
        .unwrap();
    let body = signed["body"].as_str().unwrap().as_bytes();
    let (status, _, answer) = request("POST", &url, &headers, body);
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    let arrived = receiver.next();
    assert_eq!(arrived.body, body);
    assert_eq!(arrived.header("webhook-id"), answer["id"].as_str().unwrap());

    let endpoint = &tenant.get("/v1/endpoints")["data"][0]["id"];
    let secret = tenant.get(&format!("/v1/endpoints/{}/secret", endpoint.as_str().unwrap()));
    let verifier = standardwebhooks::Webhook::new(secret["secret"].as_str().unwrap()).unwrap();
    let mut signature = http::HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        signature.insert(name, arrived.header(name).parse().unwrap());
    }
    verifier.verify(&arrived.body, &signature).unwrap();
}

pub fn a_failing_endpoint_is_tried_again_and_its_dead_letter_can_be_requeued_by_command(engine: Engine) {
    let receiver = Receiver::answering(&[500, 503, 200]);
    let server = Server::start_with(engine, &[("POSTROOM_RETRY_SCHEDULE", "1")]);
    let tenant = server.tenant("Acme", Some(&receiver.url()));
    let command = |arguments: &[&str]| server.command(arguments).env("POSTROOM_API_KEY", &tenant.key).output().unwrap();
    assert_eq!(command(&["send", "--type", "order.paid"]).status.code(), Some(0));
    let first = receiver.next().header("webhook-id").to_owned();
    assert_eq!(receiver.next().header("webhook-id"), first);
    let dead = wait_until("the dead letter", || {
        let list = command(&["dead-letters", "list", "--json"]);
        serde_json::from_slice::<serde_json::Value>(&list.stdout).ok()
    });
    assert_eq!(dead["dead_letter_reason"], "retries_exhausted");
    let requeued = command(&["dead-letters", "requeue", dead["id"].as_str().unwrap()]);
    assert_eq!(requeued.status.code(), Some(0), "{}", stderr(&requeued));
    assert_eq!(receiver.next().header("webhook-id"), first);
    wait_until("the success", || {
        let list = command(&["deliveries", "list", "--status", "success", "--json"]);
        (!list.stdout.is_empty()).then_some(())
    });
}

pub fn an_accepted_event_survives_a_kill_before_its_delivery(engine: Engine) {
    let receiver = Receiver::answering(&[500, 200]);
    let mut server = Server::start_with(engine, &[("POSTROOM_RETRY_SCHEDULE", "2")]);
    let tenant = server.tenant("Acme", Some(&receiver.url()));
    let (status, sent) = tenant.post("/v1/events", &json!({ "type": "a.b", "data": {} }));
    assert_eq!(status, 202);
    receiver.next();
    server.kill();
    server.restart(&[("POSTROOM_RETRY_SCHEDULE", "2")]);
    assert_eq!(receiver.next().header("webhook-id"), sent["id"].as_str().unwrap());
}

pub fn on_sigterm_an_attempt_under_way_ends_and_the_exit_code_is_0(engine: Engine) {
    let receiver = Receiver::answering_after(&[200], Duration::from_secs(2));
    let mut server = Server::start(engine);
    let tenant = server.tenant("Acme", Some(&receiver.url()));
    tenant.post("/v1/events", &json!({ "type": "a.b", "data": {} }));
    receiver.next();
    assert_eq!(server.terminate(), 0);
    server.restart(&[]);
    let tenant = super::support::Tenant { url: server.url.clone(), ..tenant };
    let delivery = &tenant.get("/v1/deliveries")["data"][0];
    assert_eq!(delivery["status"], "success", "it was recorded before the end: {delivery}");
    assert!(receiver.is_quiet(), "and is not made again");
}

pub fn a_second_signal_ends_it_at_once(engine: Engine) {
    let receiver = Receiver::answering_after(&[200], Duration::from_secs(14));
    let mut server = Server::start(engine);
    let tenant = server.tenant("Acme", Some(&receiver.url()));
    tenant.post("/v1/events", &json!({ "type": "a.b", "data": {} }));
    receiver.next();
    server.signal("TERM");
    wait_until("the drain", || {
        std::net::TcpStream::connect(server.url.trim_start_matches("http://")).is_err().then_some(())
    });
    server.signal("TERM");
    assert_eq!(server.exit_code(), 1, "a drain that ended by itself is 0");
}

pub fn the_limits_of_plans_are_settings_and_an_organization_s_own_stands_before_them(engine: Engine) {
    let limits = [("POSTROOM_FREE_WEBHOOK_LIMIT", "2"), ("POSTROOM_STARTER_WEBHOOK_LIMIT", "none")];
    let server = Server::start_with(engine, &limits);
    let tenants = format!("{}/v1/tenants", server.url);
    let (_, made) = post(&tenants, ADMIN_TOKEN, &json!({ "name": "Acme", "plan": "free" }));
    assert_eq!(made["organization"]["webhook_limit"], 2, "{made}");
    let key = made["api_key"]["secret"].as_str().unwrap();
    let events = format!("{}/v1/events", server.url);
    let send = || post(&events, key, &json!({ "type": "a.b", "data": {} }));
    let organization = format!("{}/v1/organizations/{}", server.url, made["organization"]["id"].as_str().unwrap());
    let change = |body: serde_json::Value| {
        let headers = bearer(ADMIN_TOKEN);
        let (status, _, answer) = request("PATCH", &organization, &headers, body.to_string().as_bytes());
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        serde_json::from_slice::<serde_json::Value>(&answer).unwrap()["webhook_limit"].clone()
    };
    let full = |limit: u64| {
        let (status, refused) = send();
        assert_eq!((status, &refused["code"]), (429, &json!("webhook_limit_reached")), "{refused}");
        assert!(refused["detail"].as_str().unwrap().contains(&limit.to_string()), "{refused}");
    };
    assert_eq!([send().0, send().0], [202, 202]);
    full(2);
    assert_eq!(change(json!({ "webhook_limit": 3 })), 3);
    assert_eq!(send().0, 202);
    full(3);
    assert_eq!(change(json!({ "plan": "starter" })), 3, "its own stays");
    full(3);
    assert_eq!(change(json!({ "webhook_limit": null })), json!(null));
    assert_eq!(send().0, 202);
}

#[test]
fn it_does_not_start_where_it_cannot_serve_and_says_what_to_do() {
    let server = Server::start(Engine::Embedded);
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "file", "");
    let address = server.url.trim_start_matches("http://");
    let data = server.dir().join("postroom-data");
    let cases: &[(&[&str], &str)] = &[
        (&["--listen", address], "is in use by another program: stop it, or choose another address with --listen"),
        (&["--listen", "203.0.113.7:8080"], "is no address of this machine"),
        (
            &["--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()],
            "another Postroom server is using the data directory",
        ),
        (&["--listen", "127.0.0.1:0", "--data-dir", file.to_str().unwrap()], "the data directory"),
        (&["--listen", "127.0.0.1:0", "--data-dir", "/proc/nowhere"], "the data directory"),
    ];
    for (arguments, expected) in cases {
        let output = postroom().arg("serve").args(*arguments).current_dir(dir.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = stderr(&output);
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn a_damaged_database_is_refused_with_what_to_do() {
    let mut server = Server::start(Engine::Embedded);
    assert_eq!(server.terminate(), 0);
    let database = server.dir().join("postroom-data/postroom.db");
    let mut bytes = std::fs::read(&database).unwrap();
    bytes[..64].fill(0xff);
    std::fs::write(&database, &bytes).unwrap();
    let output = server.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is damaged"), "{}", stderr(&output));
    assert_eq!(std::fs::read(&database).unwrap(), bytes, "it was left as it is");
}

pub fn health_and_metrics_are_there_and_the_log_is_json_without_secrets(engine: Engine) {
    let server = Server::start(engine);
    let tenant = server.tenant("Acme", None);
    tenant.source("stripe", "whsec_planted_secret_of_a_source");
    for path in ["/livez", "/readyz", "/openapi.json", "/docs"] {
        assert_eq!(request("GET", &format!("{}{path}", server.url), &[], b"").0, 200, "{path}");
    }
    post(&format!("{}/v1/events", server.url), "wrong\u{7f}key", &json!({}));
    request("GET", &format!("{}/v1/events?q=a%0d%0a%1b[31mforged", server.url), &bearer(&tenant.key), b"");
    let (_, _, metrics) = request("GET", &format!("{}/metrics", server.url), &[], b"");
    let metrics = String::from_utf8(metrics).unwrap();
    for name in ["postroom_http_requests_total", "postroom_build_info", "postroom_http_request_duration_seconds_bucket"]
    {
        assert!(metrics.contains(name), "{name}");
    }
    let log = std::fs::read_to_string(server.dir().join("log")).unwrap();
    for line in log.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
    for secret in [ADMIN_TOKEN, tenant.key.as_str(), "whsec_planted_secret_of_a_source"] {
        assert!(!log.contains(secret) && !metrics.contains(secret));
    }
}

pub fn an_idle_server_is_small_and_uses_no_processor(engine: Engine) {
    let server = Server::start(engine);
    let stat = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", server.pid())).unwrap();
    let ticks = || -> u64 {
        let stat = stat("stat");
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    // Nothing tells when nothing happens, so spans of time are measured. One of them may read too much on a machine whose
    // processors are taken away from it; a server that is never at rest has no quiet one.
    let mut spans = Vec::new();
    while spans.last().is_none_or(|t| *t > 4) {
        assert!(spans.len() < 15, "ticks of 10 ms in spans of 2 s: {spans:?}");
        let before = ticks();
        std::thread::sleep(Duration::from_secs(2));
        spans.push(ticks() - before);
    }
    // Without the pages of the program's own file: how many of those are in memory is the page cache's business, and how
    // large the file is the compiler's.
    let own: u64 = stat("status")
        .lines()
        .find_map(|l| l.strip_prefix("RssAnon:")?.trim().strip_suffix("kB")?.trim().parse().ok())
        .unwrap();
    assert!(own < 24 * 1024, "{own} KiB");
}
