//! Every row of the table of receiving, and what must not disturb it.

use std::time::Duration;

use hmac::sign_github;
use serde_json::json;

use crate::support::{ADMIN, Engine, Room, Tenant};

const SECRET: &str = "It's a Secret to Everybody";

mod hmac {
    //! GitHub's scheme, written down once more: what the domain computes is checked against its own vectors there.

    pub fn sign_github(secret: &str, body: &[u8]) -> String {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
        format!("sha256={}", hex::encode(aws_lc_rs::hmac::sign(&key, body)))
    }
}

async fn github(room: &Room) -> Tenant {
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "github", "secret": SECRET})).await;
    tenant
}

fn push<'a>(room: &'a Room, id: &str, body: &[u8]) -> crate::support::Call<'a> {
    room.post("/in/acme/github")
        .header("content-type", "application/json")
        .header("x-github-event", "push")
        .header("x-github-delivery", id)
        .header("x-hub-signature-256", sign_github(SECRET, body))
        .body(body)
}

pub async fn a_verified_webhook_is_kept_once_and_its_repetition_is_answered_with_the_same_id(engine: Engine) {
    let room = Room::start(engine).await;
    github(&room).await;
    let first = push(&room, "d-1", b"{}").send().await;
    assert_eq!(first.status, 200, "{first:?}");
    let id = first.json()["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("evt_"));
    assert_eq!(first.json(), json!({"id": id, "duplicate": false}));
    let again = push(&room, "d-1", b"{}").send().await;
    assert_eq!((again.status, again.json()), (200, json!({"id": id, "duplicate": true})));
    assert_ne!(push(&room, "d-2", b"{}").send().await.json()["id"], id);
}

pub async fn what_is_not_proved_is_refused_with_the_reason(engine: Engine) {
    let room = Room::start(engine).await;
    github(&room).await;
    let wrong = push(&room, "d", b"{}").body("{ }").send().await;
    assert_eq!(wrong.verdict(), "401 signature_invalid");
    let missing = room.post("/in/acme/github").body("{}").send().await;
    assert_eq!(missing.verdict(), "401 signature_missing");
}

pub async fn an_unknown_organization_and_an_unknown_source_are_answered_alike(engine: Engine) {
    let room = Room::start(engine).await;
    github(&room).await;
    for path in ["/in/acme/nothing", "/in/nobody/github", "/in/ACME/github", "/in/acme%2f/github", "/in/acme/github%00"]
    {
        let reply = room.post(path).body("{}").send().await;
        assert_eq!(reply.verdict(), "404 source_not_found", "{path}");
    }
    for path in ["/in", "/in/acme", "/in/acme/github/", "/in/acme/github/x", "/in//github"] {
        let reply = room.post(path).body("{}").send().await;
        assert_eq!(reply.status, 404, "{path} {reply:?}");
    }
}

pub async fn what_is_switched_off_answers_403_with_the_contracts_words(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let source = room.source(&tenant, json!({"provider": "github", "secret": SECRET})).await;
    let path = format!("/v1/sources/{source}");
    let off = room.call("PATCH", &path).bearer(&tenant.key).json(&json!({"is_active": false})).send().await;
    assert_eq!(off.status, 200, "{off:?}");
    let refused = push(&room, "d", b"{}").send().await;
    assert_eq!(refused.verdict(), "403 provider_disabled");
    assert_eq!(refused.json()["error"], "Provider disabled");

    let on = room.call("PATCH", &path).bearer(&tenant.key).json(&json!({"is_active": true})).send().await;
    assert_eq!(on.status, 200);
    assert_eq!(push(&room, "d", b"{}").send().await.status, 200);
    let gone = room.call("DELETE", &format!("/v1/organizations/{}", tenant.id)).bearer(ADMIN).send().await;
    assert_eq!(gone.status, 200, "{gone:?}");
    assert_eq!(push(&room, "d", b"{}").send().await.verdict(), "403 provider_disabled");
}

pub async fn a_body_or_headers_over_the_limit_are_refused_and_nothing_is_kept(engine: Engine) {
    let room = Room::with(engine, |setup| setup.limits.body_bytes_max = 1000).await;
    github(&room).await;
    let at_limit = vec![b'x'; 1000];
    assert_eq!(push(&room, "d-1", &at_limit).send().await.status, 200);
    let over = vec![b'x'; 1001];
    assert_eq!(push(&room, "d-2", &over).send().await.verdict(), "413 body_too_large");
    // Without a length it is known only while reading.
    let chunked: Vec<u8> = [b"3e9\r\n".as_slice(), &over, b"\r\n0\r\n\r\n"].concat();
    let reply = push(&room, "d-3", &over).header("transfer-encoding", "chunked").body(chunked).send().await;
    assert_eq!(reply.verdict(), "413 body_too_large");
    let reply = push(&room, "d-4", b"{}").header("x-large", vec![b'x'; 16 * 1024]).send().await;
    assert_eq!(reply.verdict(), "431 headers_too_large");
}

pub async fn a_provider_gets_the_handshake_it_expects_and_nothing_is_recorded(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "mandrill", "secret": "key"})).await;
    let probe = room.call("HEAD", "/in/acme/mandrill").send().await;
    assert_eq!((probe.status, probe.body.len()), (200, 0));

    room.source(&tenant, json!({"provider": "dropbox", "secret": "shh"})).await;
    let echoed = room.get("/in/acme/dropbox?challenge=c-7").send().await;
    assert_eq!((echoed.status, echoed.body.as_slice()), (200, &b"c-7"[..]), "{echoed:?}");
    assert_eq!(echoed.header("content-type"), Some("text/plain"));

    room.source(&tenant, json!({"provider": "slack", "secret": "shh"})).await;
    let body = br#"{"type":"url_verification","challenge":"c-42"}"#;
    let at = room.now().as_seconds().to_string();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"shh");
    let signed = [format!("v0:{at}:").as_bytes(), body].concat();
    let reply = room
        .post("/in/acme/slack")
        .header("x-slack-request-timestamp", &at)
        .header("x-slack-signature", format!("v0={}", hex::encode(aws_lc_rs::hmac::sign(&key, &signed))))
        .body(body)
        .send()
        .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(String::from_utf8_lossy(&reply.body).contains("c-42"));
    let events = room.get("/v1/events").bearer(&tenant.key).send().await.json();
    assert_eq!(events["data"], json!([]));
}

pub async fn a_signed_time_outside_the_tolerance_is_refused(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "stripe", "secret": "whsec_text"})).await;
    let body = br#"{"id":"evt_1","type":"invoice.paid"}"#;
    let at = room.now().as_seconds();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"whsec_text");
    let signature = hex::encode(aws_lc_rs::hmac::sign(&key, &[format!("{at}.").as_bytes(), body].concat()));
    let send = || room.post("/in/acme/stripe").header("stripe-signature", format!("t={at},v1={signature}")).body(body);
    assert_eq!(send().send().await.status, 200);
    room.forward(Duration::from_secs(301));
    assert_eq!(send().send().await.verdict(), "401 timestamp_out_of_tolerance");
}

pub async fn the_url_that_a_provider_signs_is_the_public_one_unless_the_source_says_otherwise(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "mandrill", "secret": "key"})).await;
    let options = json!({"public_url": "https://user:pw@proxy.example/hook"});
    room.source(&tenant, json!({"provider": "mandrill", "secret": "key", "name": "other", "options": options})).await;
    let sign = |url: &str| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"key");
        let signature = aws_lc_rs::hmac::sign(&key, format!("{url}mandrill_events[]").as_bytes());
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, signature)
    };
    for (path, url) in [
        ("/in/acme/mandrill?a=1&b=%20", "https://hooks.example/in/acme/mandrill?a=1&b=%20"),
        ("/in/acme/other", "https://user:pw@proxy.example/hook"),
    ] {
        let reply = room
            .post(path)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("x-mandrill-signature", sign(url))
            .body("mandrill_events=%5B%5D")
            .send()
            .await;
        assert_eq!(reply.status, 200, "{path} {reply:?}");
    }
}

pub async fn the_monthly_limit_is_exact_and_says_when_to_come_back(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = github(&room).await;
    let path = format!("/v1/organizations/{}", tenant.id);
    let set = room.call("PATCH", &path).bearer(ADMIN).json(&json!({"webhook_limit": 2})).send().await;
    assert_eq!(set.status, 200, "{set:?}");
    for id in ["d-1", "d-2"] {
        assert_eq!(push(&room, id, b"{}").send().await.status, 200);
    }
    let refused = push(&room, "d-3", b"{}").send().await;
    assert_eq!(refused.verdict(), "429 webhook_limit_reached");
    // From 2026-11-22T10:00:00Z to the first of December.
    assert_eq!(refused.header("retry-after"), Some((8 * 24 * 3600 + 14 * 3600).to_string().as_str()));
    assert_eq!(
        push(&room, "d-1", b"{}").send().await.json()["duplicate"],
        true,
        "a repetition is answered all the same"
    );
}

pub async fn other_methods_are_refused_with_those_that_are_allowed(engine: Engine) {
    let room = Room::start(engine).await;
    github(&room).await;
    for method in ["GET", "PUT", "DELETE", "PATCH", "HEAD"] {
        let reply = room.call(method, "/in/acme/github").send().await;
        assert_eq!(reply.status, 405, "{method}");
        assert!(reply.header("allow").unwrap().contains("POST"), "{reply:?}");
        if method != "HEAD" {
            assert_eq!(reply.problem(), "method_not_allowed");
        }
    }
    let options = room.call("OPTIONS", "/in/acme/github").send().await;
    assert_eq!((options.status, options.body.len()), (204, 0));
}
