//! The live stream.

use std::time::Duration;

use postroom_storage::worker::Transition;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Call, Engine, PATIENCE, Room, Tenant};

/// A stream as it is read.
struct Watching {
    socket: TcpStream,
    text: String,
}

#[derive(Debug)]
struct Message {
    kind: String,
    id: Option<String>,
    data: Value,
}

impl Watching {
    async fn begin(room: &Room, call: Call<'_>) -> Self {
        let mut socket = TcpStream::connect(room.address).await.unwrap();
        socket.write_all(&call.bytes()).await.unwrap();
        let mut watching = Self { socket, text: String::new() };
        watching.until(": open").await;
        assert!(watching.text.starts_with("HTTP/1.1 200") && watching.text.contains("text/event-stream"));
        watching
    }

    /// Reads until the text is there; true when the stream ended instead.
    async fn until(&mut self, text: &str) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        while !self.text.contains(text) {
            let read = tokio::time::timeout(PATIENCE, self.socket.read(&mut buffer)).await;
            match read.unwrap_or_else(|_| panic!("{text} never came: {}", self.text)).unwrap() {
                0 => return true,
                bytes => self.text.push_str(std::str::from_utf8(&buffer[..bytes]).unwrap()),
            }
        }
        false
    }

    /// The next message.
    async fn next(&mut self) -> Message {
        self.until("data: ").await;
        let begin = self.text.find("event: ").unwrap();
        self.text.drain(..begin);
        self.until("\n\n").await;
        let end = self.text.find("\n\n").unwrap();
        let message: String = self.text.drain(..end + 2).collect();
        let field = |name: &str| message.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
        Message {
            kind: field("event: ").unwrap(),
            id: field("id: "),
            data: serde_json::from_str(&field("data: ").unwrap()).unwrap(),
        }
    }
}

async fn send(room: &Room, tenant: &Tenant, event_type: &str) -> String {
    let body = json!({"type": event_type, "data": 1});
    let reply = room.post("/v1/events").bearer(&tenant.key).json(&body).send().await;
    reply.json()["id"].as_str().unwrap().to_owned()
}

pub async fn events_deliveries_and_attempts_are_shown_as_they_happen_and_to_their_owner_only(engine: Engine) {
    let room = Room::start(engine).await;
    let (acme, other) = (room.tenant("Acme").await, room.tenant("Other").await);
    room.endpoint(&acme).await;
    let mut stream = Watching::begin(&room, room.get("/v1/stream").bearer(&acme.key)).await;
    send(&room, &other, "theirs").await;
    let id = send(&room, &acme, "mine").await;
    let event = stream.next().await;
    assert_eq!((event.kind.as_str(), &event.data["id"]), ("event", &json!(id)));
    room.settle(200, Transition::Done).await;
    let delivery = stream.next().await;
    assert_eq!((delivery.kind.as_str(), &delivery.data["status"], delivery.id), ("delivery", &json!("success"), None));
    let attempt = stream.next().await;
    assert_eq!((attempt.kind.as_str(), &attempt.data["response_status"]), ("attempt", &json!(200)));
    assert_eq!((&attempt.data["event_id"], &attempt.data["delivery_id"]), (&json!(id), &delivery.data["id"]));
}

pub async fn a_stream_shows_only_what_was_asked_for(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let call = room.get("/v1/stream?kinds=event&type=order.*").bearer(&tenant.key);
    let mut stream = Watching::begin(&room, call).await;
    send(&room, &tenant, "other").await;
    let id = send(&room, &tenant, "order.paid").await;
    assert_eq!(stream.next().await.data["id"], json!(id));
}

pub async fn a_stream_resumes_after_the_last_thing_it_showed(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    let mut stream = Watching::begin(&room, room.get("/v1/stream").bearer(&tenant.key)).await;
    send(&room, &tenant, "first").await;
    let last = stream.next().await.id.unwrap();
    drop(stream);
    let missed = [send(&room, &tenant, "second").await, send(&room, &tenant, "third").await];
    let call = room.get("/v1/stream").bearer(&tenant.key).header("last-event-id", &last);
    let mut stream = Watching::begin(&room, call).await;
    for id in missed {
        assert_eq!(stream.next().await.data["id"], json!(id));
    }
    let live = send(&room, &tenant, "fourth").await;
    assert_eq!(stream.next().await.data["id"], json!(live));

    let other = room.tenant("Other").await;
    for bad in [last.as_str(), "x", ""] {
        let reply = room.get("/v1/stream").bearer(&other.key).header("last-event-id", bad).send().await;
        assert_eq!(reply.verdict(), "422 invalid_cursor", "a place is bound to its organization");
    }
}

pub async fn a_quiet_stream_says_that_it_is_alive_and_ends_when_the_server_stops(engine: Engine) {
    let mut room = Room::with(engine, |setup| setup.limits.stream_heartbeat = Duration::from_millis(20)).await;
    let tenant = room.tenant("Acme").await;
    let mut stream = Watching::begin(&room, room.get("/v1/stream").bearer(&tenant.key)).await;
    stream.until(": alive").await;
    room.stopped().await;
    assert!(stream.until("never").await, "the stream ends");
}

pub async fn a_stream_ends_when_its_key_is_revoked(engine: Engine) {
    let room = Room::with(engine, |setup| setup.limits.stream_heartbeat = Duration::from_millis(20)).await;
    let tenant = room.tenant("Acme").await;
    let key = room.key(&tenant, &["read"]).await;
    let mut stream = Watching::begin(&room, room.get("/v1/stream").bearer(&key)).await;
    let list = room.get("/v1/api-keys").bearer(&tenant.key).send().await.json();
    let path = format!("/v1/api-keys/{}", list["data"][0]["id"].as_str().unwrap());
    assert_eq!(room.call("DELETE", &path).bearer(&tenant.key).send().await.status, 200);
    assert!(stream.until("never").await, "the stream ends");
}

pub async fn a_stream_ends_when_its_session_ends(engine: Engine) {
    let room = Room::with(engine, |setup| setup.limits.stream_heartbeat = Duration::from_millis(20)).await;
    let tenant = room.tenant("Acme").await;
    let ada = room.person(&tenant, "ada@example.com", "member").await;
    let root = room.super_admin("root@example.com").await;
    for person in [&ada, &root] {
        let call = room.get("/v1/stream").header("cookie", &person.cookie);
        let mut stream = Watching::begin(&room, call.header("postroom-organization", &tenant.slug)).await;
        assert_eq!(room.post("/api/auth/logout").bearer(&person.token).send().await.status, 204);
        assert!(stream.until("never").await, "the stream ends");
    }
}

pub async fn streams_of_one_organization_are_bounded(engine: Engine) {
    let room = Room::with(engine, |setup| setup.limits.streams_per_organization = 1).await;
    let tenant = room.tenant("Acme").await;
    let _stream = Watching::begin(&room, room.get("/v1/stream").bearer(&tenant.key)).await;
    let reply = room.get("/v1/stream").bearer(&tenant.key).send().await;
    assert_eq!(reply.verdict(), "429 too_many_streams");
    for bad in ["kinds=x", "kinds=", "source_id=x", "endpoint_id=ep_1", "type=", "typ=a"] {
        let reply = room.get(&format!("/v1/stream?{bad}")).bearer(&tenant.key).send().await;
        assert_eq!(reply.verdict(), "422 validation_failed", "{bad}");
    }
}
