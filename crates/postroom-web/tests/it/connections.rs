//! Clients that are slow, silent, damaged or too many.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Engine, PATIENCE, Reply, Room, Setup, eventually};

/// A deadline that tests need not wait for. Each test shortens the one that it is about: the others must not cut off what
/// a busy machine is only slow with.
const SHORT: Duration = Duration::from_millis(100);

/// What arrives before the other side closes.
async fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut bytes)).await.expect("the connection is closed");
    bytes
}

pub async fn a_connection_that_says_nothing_is_closed(engine: Engine) {
    let silence = |setup: &mut Setup| (setup.server.first_byte, setup.server.headers) = (SHORT, SHORT);
    let room = Room::with(engine, silence).await;
    let mut socket = TcpStream::connect(room.address).await.unwrap();
    assert!(rest(&mut socket).await.is_empty());
    let mut socket = TcpStream::connect(room.address).await.unwrap();
    socket.write_all(b"P").await.unwrap();
    assert!(rest(&mut socket).await.is_empty(), "one byte is not enough, whatever protocol it may begin");
}

pub async fn headers_that_trickle_are_cut_off(engine: Engine) {
    let room = Room::with(engine, |setup| setup.server.headers = SHORT).await;
    let mut socket = TcpStream::connect(room.address).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let began = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    while socket.write_all(b"x-a: b\r\n").await.is_ok() {
        ticks.tick().await;
        assert!(began.elapsed() < PATIENCE, "the trickle never ends");
    }
}

pub async fn a_body_that_does_not_arrive_is_408_and_the_connection_ends(engine: Engine) {
    let room = Room::with(engine, |setup| setup.limits.body_timeout = SHORT).await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "none"})).await;
    let mut socket = TcpStream::connect(room.address).await.unwrap();
    socket.write_all(b"POST /in/acme/none HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab").await.unwrap();
    let reply = Reply::parse(&rest(&mut socket).await);
    assert_eq!(reply.verdict(), "408 request_timeout");
}

pub async fn a_connection_serves_many_requests_and_is_closed_when_it_is_idle(engine: Engine) {
    // Long enough for the next request on a busy machine.
    let room = Room::with(engine, |setup| setup.server.idle = Duration::from_secs(2)).await;
    let mut socket = TcpStream::connect(room.address).await.unwrap();
    let mut buffer = vec![0; 4096];
    for _ in 0..3 {
        socket.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let read = socket.read(&mut buffer).await.unwrap();
        assert!(buffer[..read].starts_with(b"HTTP/1.1 200"));
    }
    assert!(rest(&mut socket).await.is_empty());
}

pub async fn a_client_that_does_not_read_its_answers_is_cut_off(engine: Engine) {
    // Whole answers are handed over before they are written: then no request is under way any more.
    let room = Room::with(engine, |Setup { server, .. }| {
        (server.headers, server.idle, server.stall) = (SHORT, SHORT, SHORT);
    })
    .await;
    let mut socket = TcpStream::connect(room.address).await.unwrap();
    let began = Instant::now();
    // Asks for pages and reads none, until neither side can write any more.
    let ask = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n";
    while let Ok(written) = tokio::time::timeout(PATIENCE, socket.write_all(ask)).await {
        if written.is_err() {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "it is never cut off");
    }
    panic!("the socket stays open though nothing moves");
}

pub async fn connections_are_bounded_and_a_place_is_given_back(engine: Engine) {
    let room = Room::with(engine, |setup| setup.server.connections = 2).await;
    let first = TcpStream::connect(room.address).await.unwrap();
    let _second = TcpStream::connect(room.address).await.unwrap();
    let third = eventually("the third is refused", || async {
        let answer = room.raw(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        (!answer.starts_with(b"HTTP/1.1 200")).then_some(answer)
    });
    let answer = third.await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 503"), "{}", String::from_utf8_lossy(&answer));
    drop(first);
    eventually("the place is given back", || async {
        let answer = room.raw(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        answer.starts_with(b"HTTP/1.1 200").then_some(())
    })
    .await;
}

pub async fn bodies_in_sum_are_bounded(engine: Engine) {
    let room = Room::with(engine, |setup| {
        setup.limits.bodies_bytes_max = 1000;
        setup.limits.body_bytes_max = 500;
    })
    .await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "none"})).await;
    let mut hungry = TcpStream::connect(room.address).await.unwrap();
    hungry.write_all(b"POST /in/acme/none HTTP/1.1\r\nhost: x\r\ncontent-length: 499\r\n\r\nab").await.unwrap();
    let mut another = TcpStream::connect(room.address).await.unwrap();
    another.write_all(b"POST /in/acme/none HTTP/1.1\r\nhost: x\r\ncontent-length: 499\r\n\r\nab").await.unwrap();
    let refused = eventually("a third body is refused", || async {
        let reply = room.post("/in/acme/none").body([b'x'; 400]).send().await;
        (reply.status != 200).then_some(reply)
    });
    let refused = refused.await;
    assert_eq!((refused.verdict().as_str(), refused.header("retry-after")), ("503 overloaded", Some("1")));
    drop(hungry);
    eventually("there is room again", || async {
        let reply = room.post("/in/acme/none").body([b'x'; 400]).send().await;
        (reply.status == 200).then_some(())
    })
    .await;
}

pub async fn what_the_parser_refuses_is_a_4xx_and_the_connection_ends(engine: Engine) {
    let room = Room::start(engine).await;
    let many: Vec<u8> = (0..8000).flat_map(|n| format!("x-{n}: y\r\n").into_bytes()).collect();
    let long_line = vec![b'a'; 1024 * 1024];
    let cases: [(&str, Vec<u8>, &[u16]); 12] = [
        ("garbage", b"\x00\x01\x02\r\n\r\n".to_vec(), &[400]),
        (
            "two lengths",
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_vec(),
            &[400],
        ),
        ("length +0", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: +0\r\n\r\n".to_vec(), &[400]),
        ("length in hex", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0x1\r\n\r\na".to_vec(), &[400]),
        ("huge length", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n".to_vec(), &[400]),
        ("two codings", b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: x, y\r\n\r\n".to_vec(), &[400]),
        ("folding", b"GET / HTTP/1.1\r\nhost: x\r\nx-a: b\r\n c\r\n\r\n".to_vec(), &[400]),
        ("NUL in a header", b"GET / HTTP/1.1\r\nhost: x\r\nx-a: b\0c\r\n\r\n".to_vec(), &[400]),
        ("blank in a name", b"GET / HTTP/1.1\r\nhost: x\r\nx a: b\r\n\r\n".to_vec(), &[400]),
        ("HTTP/3.0", b"GET / HTTP/3.0\r\nhost: x\r\n\r\n".to_vec(), &[400]),
        ("8000 headers", [b"GET / HTTP/1.1\r\nhost: x\r\n".as_slice(), &many, b"\r\n"].concat(), &[431]),
        ("1 MiB line", [b"GET /".as_slice(), &long_line, b" HTTP/1.1\r\n\r\n"].concat(), &[414, 431]),
    ];
    for (what, bytes, statuses) in cases {
        let answer = room.raw(&bytes).await;
        let reply = Reply::parse(&answer);
        assert!(statuses.contains(&reply.status), "{what}: {reply:?}");
        assert_eq!(answer.windows(5).filter(|five| five == b"HTTP/").count(), 1, "{what}: one answer");
        reply.problem();
    }
}

pub async fn a_client_whose_body_is_not_read_gets_its_answer_and_no_reset(engine: Engine) {
    let room = Room::start(engine).await;
    for (asked, status) in [("GET /openapi.json", 200), ("POST /v1/events", 401), ("POST /nothing", 404)] {
        let head = format!("{asked} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1000000\r\n\r\n");
        let mut socket = TcpStream::connect(room.address).await.unwrap();
        socket.write_all(&[head.as_bytes(), &[b'a'; 1_000_000]].concat()).await.expect("everything is taken");
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("it is closed");
        read.unwrap_or_else(|error| panic!("{asked} is not reset: {error}"));
        assert_eq!(Reply::parse(&answer).status, status, "{asked}");
    }
}

pub async fn a_client_that_does_not_close_is_not_waited_for(engine: Engine) {
    let mut room = Room::with(engine, |setup| setup.server.drain = PATIENCE * 2).await;
    let mut socket = TcpStream::connect(room.address).await.unwrap();
    socket.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let answer = rest(&mut socket).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    room.stopped().await;
    drop(socket);
}

pub async fn a_smuggled_request_is_not_served(engine: Engine) {
    let room = Room::start(engine).await;
    let both = b"POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = room.raw(both).await;
    let answers = answer.windows(9).filter(|nine| nine == b"HTTP/1.1 ").count();
    assert!(answers <= 1, "{}", String::from_utf8_lossy(&answer));
}

pub async fn stopping_lets_requests_under_way_end_and_closes_idle_connections(engine: Engine) {
    let mut room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "none"})).await;
    let mut idle = TcpStream::connect(room.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut buffer = [0; 1024];
    assert!(idle.read(&mut buffer).await.unwrap() > 0);
    let mut busy = TcpStream::connect(room.address).await.unwrap();
    busy.write_all(b"POST /in/acme/none HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n")
        .await
        .unwrap();
    // The server asks for the body: the request is under way.
    assert!(busy.read(&mut buffer).await.unwrap() > 0);
    room.stop.cancel();
    assert!(rest(&mut idle).await.is_empty());
    busy.write_all(b"{}").await.unwrap();
    let answer = rest(&mut busy).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    room.stopped().await;
    assert!(TcpStream::connect(room.address).await.is_err(), "nobody listens any more");
}

pub async fn what_does_not_end_is_closed_when_the_time_to_stop_is_over(engine: Engine) {
    let mut room = Room::with(engine, |setup| setup.server.drain = Duration::from_millis(50)).await;
    let mut stuck = TcpStream::connect(room.address).await.unwrap();
    stuck
        .write_all(b"POST /v1/tenants HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n")
        .await
        .unwrap();
    room.stopped().await;
    assert!(rest(&mut stuck).await.is_empty());
}

pub async fn damaged_requests_are_never_a_5xx_and_never_hang(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "none"})).await;
    let whole = [
        room.post("/in/acme/none").header("content-type", "application/json").body("{\"a\":1}").bytes(),
        room.post("/v1/events").bearer(&tenant.key).json(&json!({"type": "a", "data": {"b": [1, 2]}})).bytes(),
        room.get("/v1/events?limit=5&type=a").bearer(&tenant.key).bytes(),
    ];
    // The same damage in every run: a linear congruential generator with a fixed seed.
    let mut seed = 42_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let mut answers = 0;
    for round in 0..300 {
        let mut bytes = whole[round % whole.len()].clone();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = u8::try_from(random(256)).unwrap(),
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"\r\n\0: {\"%\xff"[random(9)]),
            }
        }
        let mut socket = TcpStream::connect(room.address).await.unwrap();
        let _ = socket.write_all(&bytes).await;
        let _ = socket.shutdown().await;
        let answer = rest(&mut socket).await;
        if !answer.is_empty() {
            answers += 1;
            assert!(!answer.starts_with(b"HTTP/1.1 5"), "{:?}", String::from_utf8_lossy(&bytes));
        }
    }
    assert!(answers > 200, "most are answered: {answers}");
}
