//! The bare gateway that a server is measured against: receives, checks the HMAC and that it is JSON, answers, forwards.
//! It is made of what the server is made of (axum, hyper) and stores nothing, so what it answered is gone with it: this is
//! the least that any gateway has to do, not a gateway to use.

use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::hmac;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::routing::post;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use serde::de::IgnoredAny;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::event::{hmac_key, path};

/// Bodies that are read, as a server does by default.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Forwards under way at once. A caller waits when there are more, so that memory is bounded.
const FORWARDS_MAX: usize = 1024;

/// Where to forward, and whose signature to check.
#[derive(Debug, clap::Args)]
pub struct GatewayArgs {
    /// The receiver's address
    #[arg(long)]
    forward_to: SocketAddr,
    /// The secret that requests are signed with
    #[arg(long)]
    secret: String,
}

struct Gateway {
    key: hmac::Key,
    forward_to: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    forwards: Arc<Semaphore>,
}

/// Runs the gateway until the process is ended; prints its address first.
pub async fn run(args: GatewayArgs) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    crate::cli::output::json(&serde_json::json!({ "url": format!("http://{}", listener.local_addr()?) }))?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let gateway = Arc::new(Gateway {
        key: hmac_key(&args.secret),
        forward_to: args.forward_to,
        client: Client::builder(TokioExecutor::new()).build(connector),
        forwards: Arc::new(Semaphore::new(FORWARDS_MAX)),
    });
    let router = Router::new()
        .route("/in/{organization}/{source}", post(take))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(gateway);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = TowerToHyperService::new(router.clone());
        connections.spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn take(
    State(gateway): State<Arc<Gateway>>,
    Path((organization, _)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let tag = header("x-hub-signature-256").strip_prefix("sha256=").and_then(|text| hex::decode(text).ok());
    if tag.is_none_or(|tag| hmac::verify(&gateway.key, &body, &tag).is_err()) {
        return StatusCode::UNAUTHORIZED;
    }
    if serde_json::from_slice::<IgnoredAny>(&body).is_err() {
        return StatusCode::BAD_REQUEST;
    }
    if let Some(target) = target(&organization, header("x-github-event")) {
        forward(&gateway, &target, body).await;
    }
    StatusCode::OK
}

/// `bench-0f3a-7` and `bench3` go to `/r/7/3`: where a server would have looked for a subscription.
fn target(organization: &str, event_type: &str) -> Option<String> {
    let organization = organization.strip_prefix("bench-")?.rsplit('-').next()?.parse().ok()?;
    Some(path(organization, event_type.strip_prefix("bench")?.parse().ok()?))
}

async fn forward(gateway: &Arc<Gateway>, target: &str, body: Bytes) {
    let Ok(permit) = Arc::clone(&gateway.forwards).acquire_owned().await else { return };
    let request = Request::post(format!("http://{}{target}", gateway.forward_to))
        .header("content-type", "application/json")
        .body(Full::new(body));
    let Ok(request) = request else { return };
    let gateway = Arc::clone(gateway);
    // Not joined: its end is the end of the permit, and the process is thrown away after the run.
    tokio::spawn(async move {
        if let Ok(response) = gateway.client.request(request).await {
            let _ = response.into_body().collect().await;
        }
        drop(permit);
    });
}
