//! HTTP/2 with prior knowledge, on the same port.

use futures_util::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{Engine, Room};

type Body = Full<bytes::Bytes>;

async fn connect(room: &Room) -> SendRequest<Body> {
    let socket = TcpStream::connect(room.address).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn post(body: &'static [u8]) -> Request<Body> {
    Request::post("http://test/in/acme/none").body(Full::from(body)).unwrap()
}

pub async fn many_requests_share_one_connection(engine: Engine) {
    let room = Room::start(engine).await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "none"})).await;
    let sender = connect(&room).await;
    let sends = (0..300).map(|_| {
        let mut sender = sender.clone();
        async move {
            let response = sender.send_request(post(b"{}")).await.unwrap();
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert!(body.starts_with(b"{\"id\":\"evt_"), "{body:?}");
            status
        }
    });
    assert!(join_all(sends).await.into_iter().all(|status| status == StatusCode::OK));
}

pub async fn headers_and_bodies_over_the_limit_are_refused_there_too(engine: Engine) {
    let room = Room::with(engine, |setup| setup.limits.body_bytes_max = 1000).await;
    let tenant = room.tenant("Acme").await;
    room.source(&tenant, json!({"provider": "none"})).await;
    let mut sender = connect(&room).await;
    let large = sender.send_request(post(&[b'x'; 1001])).await.unwrap();
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let mut request = post(b"{}");
    for n in 0..20 {
        let name = http::HeaderName::try_from(format!("x-{n}")).unwrap();
        request.headers_mut().insert(name, "v".repeat(1000).parse().unwrap());
    }
    let refused = sender.send_request(request).await;
    assert!(refused.is_err() || refused.unwrap().status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let mut sender = connect(&room).await;
    assert_eq!(sender.send_request(post(b"{}")).await.unwrap().status(), StatusCode::OK);
}
