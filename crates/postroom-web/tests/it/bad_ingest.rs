//! Odd and hostile bodies and headers at a source. What is verified is kept as it is, byte for byte, whatever it is; the
//! rest has its exact refusal. The source is of the provider `none`, which proves nobody and takes everything.

use serde_json::{Value, json};

use crate::support::{Engine, Room, Tenant};

async fn open_source(room: &Room) -> Tenant {
    let tenant = room.tenant("Acme").await;
    let options = json!({"event_type_header": "x-type", "event_id_header": "x-id"});
    room.source(&tenant, json!({"provider": "none", "name": "open", "options": options})).await;
    tenant
}

/// The payload of an event as bytes.
async fn payload(room: &Room, tenant: &Tenant, id: &str) -> Vec<u8> {
    use postroom_domain::api_key::KeyHash;
    let hash = KeyHash::of(&tenant.key).unwrap();
    let caller = room.storage.authorizer.key_find(&hash, room.now()).await.unwrap().unwrap();
    room.storage.api.event_payload(&caller.scope, id.parse().unwrap()).await.unwrap().body.to_vec()
}

pub async fn any_body_is_kept_as_it_arrived(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = open_source(&room).await;
    let nested = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let keys = format!("{{{}}}", (0..50_000).map(|n| format!("\"k{n}\":1")).collect::<Vec<_>>().join(","));
    let digits = [b"1".as_slice(), &vec![b'0'; 100_000]].concat();
    let limit = vec![b'x'; 1024 * 1024];
    let bodies: Vec<(&str, &str, Vec<u8>)> = vec![
        ("empty", "application/json", Vec::new()),
        ("one byte", "application/json", b"x".to_vec()),
        ("the limit", "application/octet-stream", limit),
        ("not JSON though it says so", "application/json", b"{nope".to_vec()),
        ("a byte order mark", "application/json", b"\xef\xbb\xbf{}".to_vec()),
        ("UTF-16", "application/json; charset=utf-16", b"\xff\xfe{\0}\0".to_vec()),
        ("invalid UTF-8", "application/json", b"{\"a\":\"\xff\xfe\"}".to_vec()),
        ("NUL", "application/json", b"{\"a\":\"\\u0000\"}".to_vec()),
        ("a lone surrogate", "application/json", b"{\"a\":\"\\ud800\"}".to_vec()),
        ("twice the same key", "application/json", b"{\"a\":1,\"a\":2}".to_vec()),
        ("100,000 arrays", "application/json", nested),
        ("50,000 keys", "application/json", keys.into_bytes()),
        ("100,000 digits", "application/json", digits),
        ("no number of ours", "application/json", b"[1e999,-0,NaN]".to_vec()),
        ("a trailing comma and a comment", "application/json", b"{\"a\":1,}//".to_vec()),
        ("two documents", "application/json", b"{}{}".to_vec()),
        ("a form", "application/x-www-form-urlencoded", b"a=1&b=%zz".to_vec()),
        ("multipart", "multipart/form-data; boundary=b", b"--b\r\n\r\nfile\r\n--b--".to_vec()),
        ("an XML bomb", "application/xml", b"<!DOCTYPE a [<!ENTITY b \"&b;&b;\">]><a>&b;</a>".to_vec()),
        ("protobuf", "application/x-protobuf", vec![8, 150, 1, 255]),
        ("gzip cut short", "application/json", vec![0x1f, 0x8b, 8, 0, 0]),
        ("an odd charset", "application/json; charset=utf-7", b"+ADw-".to_vec()),
        ("CRLF", "text/plain", b"a\r\nb\r\n".to_vec()),
        ("LF", "text/plain", b"a\nb\n".to_vec()),
        ("our own envelope", "application/json", br#"{"type":"evil","timestamp":"x","data":{},"id":"evt_0"}"#.to_vec()),
    ];
    for (what, content_type, body) in bodies {
        let reply = room.post("/in/acme/open").header("content-type", content_type).body(&body).send().await;
        assert_eq!(reply.status, 200, "{what}: {reply:?}");
        let id = reply.json()["id"].as_str().unwrap().to_owned();
        assert_eq!(payload(&room, &tenant, &id).await, body, "{what}");
        let shown = room.get(&format!("/v1/events/{id}")).bearer(&tenant.key).send().await;
        assert_eq!(shown.status, 200, "{what}");
        shown.json();
    }
    let searched = room.get("/v1/events?q=evil&limit=250").bearer(&tenant.key).send().await.json();
    assert_eq!(searched["data"].as_array().unwrap().len(), 1);
}

pub async fn lengths_that_lie_are_refused_or_cut_where_they_end(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = open_source(&room).await;
    let post = |length: &str, body: &str| {
        let text = format!(
            "POST /in/acme/open HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        text.into_bytes()
    };
    // Larger than sent: the client leaves, nobody is answered, nothing is kept.
    let mut socket = tokio::net::TcpStream::connect(room.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut socket, &post("100", "half")).await.unwrap();
    drop(socket);
    // Smaller than sent: the rest is no request.
    let reply = crate::support::Reply::parse(&room.raw(&post("2", "{}rest")).await);
    assert_eq!(reply.status, 200);
    assert_eq!(payload(&room, &tenant, reply.json()["id"].as_str().unwrap()).await, b"{}");
    let events = room.get("/v1/events").bearer(&tenant.key).send().await.json();
    assert_eq!(events["data"].as_array().unwrap().len(), 1);
}

pub async fn a_client_that_leaves_after_its_body_has_still_sent_it(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = open_source(&room).await;
    let mut socket = tokio::net::TcpStream::connect(room.address).await.unwrap();
    let bytes = room.post("/in/acme/open").header("x-id", "left").body("{}").bytes();
    tokio::io::AsyncWriteExt::write_all(&mut socket, &bytes).await.unwrap();
    drop(socket);
    // It does not know, and asks again: one event either way.
    let again = room.post("/in/acme/open").header("x-id", "left").body("{}").send().await;
    assert_eq!(again.status, 200);
    let events = room.get("/v1/events").bearer(&tenant.key).send().await.json();
    assert_eq!(events["data"].as_array().unwrap().len(), 1);
}

pub async fn odd_ids_and_types_of_senders_are_made_to_fit(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = open_source(&room).await;
    let long = "i".repeat(5000);
    for (id, kind, expected_type) in [
        ("a b", "order.paid", "order.paid"),
        (long.as_str(), "a..b c", "a.b_c"),
        ("tab\there", "../x", "/x"),
        ("latin-1 \u{e9}", "", "unknown"),
    ] {
        let call = room.post("/in/acme/open").header("x-id", id).header("x-type", kind).body("{}");
        let first = call.send().await;
        assert_eq!(first.status, 200, "{id:.20} {first:?}");
        assert_eq!(call.send().await.json()["id"], first.json()["id"], "{id:.20}: recognised");
        let path = format!("/v1/events/{}", first.json()["id"].as_str().unwrap());
        let event = room.get(&path).bearer(&tenant.key).send().await.json();
        assert_eq!(event["type"], expected_type);
        assert!(event["external_id"].as_str().is_none_or(|id| id.len() <= 255), "{event}");
    }
    // Seen before with another body: the first one counts.
    let other = room.post("/in/acme/open").header("x-id", "a b").body("[]").send().await;
    assert_eq!(other.json()["duplicate"], true);
}

pub async fn odd_headers_and_urls_do_no_harm(engine: Engine) {
    let room = Room::start(engine).await;
    open_source(&room).await;
    let post = || room.post("/in/acme/open").body("{}");
    let mut thousand = post();
    for _ in 0..1000 {
        thousand = thousand.header("x-a", "b");
    }
    let query = "q=".to_owned() + &"x".repeat(8192);
    let mut long = room.post(&format!("/in/acme/open?{query}")).body("{}");
    long = long.header("x-hub-signature-256", "  sha256=AA  ");
    let cases: Vec<(&str, crate::support::Reply, &str)> = vec![
        ("no content type", post().send().await, "200"),
        ("two content types", post().header("content-type", "a/b").header("content-type", "c/d").send().await, "200"),
        ("a header a thousand times", thousand.send().await, "431 headers_too_large"),
        ("Latin-1", post().header("x-type", b"caf\xe9").send().await, "200"),
        ("a query of 8 KiB", long.send().await, "200"),
        ("PUT", room.call("PUT", "/in/acme/open").body("{}").send().await, "405 method_not_allowed"),
        ("GET with a body", room.get("/in/acme/open").body("{}").send().await, "405 method_not_allowed"),
    ];
    for (what, reply, expected) in cases {
        assert_eq!(reply.verdict(), expected, "{what}: {reply:?}");
    }
}

pub async fn signed_times_that_are_no_times_are_refused(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "slack", "secret": "shh"})).await;
    let now = room.now().as_seconds();
    let times = [
        (now.to_string(), "200"),
        ((now - 300).to_string(), "200"),
        ((now - 301).to_string(), "401 timestamp_out_of_tolerance"),
        ((now + 301).to_string(), "401 timestamp_out_of_tolerance"),
        (format!("{now}000"), "401 timestamp_out_of_tolerance"),
        ("253402300800".to_owned(), "401 timestamp_out_of_tolerance"),
        ("-1".to_owned(), "401"),
        ("99999999999999999999".to_owned(), "401"),
        (format!("{now}.0"), "401"),
        (format!("0x{now:x}"), "401"),
        (format!("+{now}"), "401"),
        ("2026-11-22T10:00:00Z".to_owned(), "401"),
        (String::new(), "401 signature_missing"),
    ];
    for (time, expected) in times {
        let mac = sign("shh", &format!("v0:{time}:{{}}"));
        let call = room.post("/in/acme/slack").header("x-slack-request-timestamp", &time);
        let verdict = call.header("x-slack-signature", format!("v0={mac}")).body("{}").send().await.verdict();
        assert!(verdict.starts_with(expected), "{time:?}: {verdict}");
    }
}

pub async fn signatures_that_are_no_signatures_are_refused(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "stripe", "secret": "shh"})).await;
    let time = room.now().as_seconds().to_string();
    let mac = sign("shh", &format!("{time}.{{}}"));
    for (header, expected) in [
        ("t=TIME,v1=MAC", "200"),
        ("t=TIME,v1=00,v1=MAC", "200"),
        ("t=TIME,v0=x,v1=MAC,other=1", "200"),
        ("t=TIME,V1=MAC", "401"),
        ("t=TIME,v0=MAC", "401"),
        ("t=TIME,v1=", "401"),
        ("t=TIME,v1=MA", "401 signature_invalid"),
        ("t=TIME,v1=MACMAC", "401 signature_invalid"),
        ("t=TIME", "401"),
        ("v1=MAC", "401"),
        ("MAC", "401"),
        ("", "401 signature_missing"),
    ] {
        let value = header.replace("MAC", &mac).replace("TIME", &time);
        let reply = room.post("/in/acme/stripe").header("stripe-signature", &value).body("{}").send().await;
        assert!(reply.verdict().starts_with(expected), "{header:?}: {}", reply.verdict());
    }
    let value = format!("t={time},v1={mac}");
    let twice = room.post("/in/acme/stripe").header("stripe-signature", &value).header("stripe-signature", &value);
    assert_eq!(twice.body("{}").send().await.status, 401, "which of two headers counts is nobody's to choose");
    let upper = room.post("/in/acme/stripe").header("STRIPE-Signature", &value).body("{}");
    assert_eq!(upper.send().await.status, 200, "names of headers have no case");
}

fn sign(secret: &str, message: &str) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    hex::encode(aws_lc_rs::hmac::sign(&key, message.as_bytes()))
}

pub async fn a_flood_of_bad_requests_is_kept_within_bounds_and_always_answered(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "github", "secret": "shh"})).await;
    let floods = (0..100).map(|_| async { room.post("/in/acme/github").body("{}").send().await.verdict() });
    for verdict in futures_util::future::join_all(floods).await {
        assert_eq!(verdict, "401 signature_missing");
    }
    let kept = room.get("/v1/rejections?limit=250").bearer(&tenant.key).send().await.json();
    let kept = kept["data"].as_array().map(Vec::len);
    assert_eq!(kept, Some(60), "60 a minute of one source are kept");
    let events: Value = room.get("/v1/events").bearer(&tenant.key).send().await.json();
    assert_eq!(events["data"], json!([]));
}
