//! The local receiver of the tour: an endpoint as an organization would have one, only flakier.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use postroom_domain::verify::{Outcome, Request as Signed, Verifier};
use postroom_domain::{Clock, Secret};
use serde_json::Map;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Every so many deliveries one is refused the first time.
const REFUSE_ONE_IN: usize = 3;

/// One arrival, as the tour tells it.
#[derive(Debug)]
pub struct Arrival {
    /// `/hooks` or `/broken`.
    pub path: String,
    /// The event's id.
    pub webhook_id: String,
    /// Which try of this delivery it is.
    pub attempt: u32,
    /// Whether our signature was good.
    pub signature_good: bool,
    /// What it was answered.
    pub status: StatusCode,
}

/// What the receiver knows and does.
#[derive(Default)]
struct Habits {
    /// Secret of the endpoint at each path.
    verifiers: HashMap<String, Arc<Verifier>>,
    attempts: HashMap<(String, String), u32>,
    /// Whether `/broken` works now.
    mended: bool,
}

/// The receiver.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    /// What arrived.
    pub arrivals: mpsc::UnboundedReceiver<Arrival>,
    habits: Arc<Mutex<Habits>>,
    _serving: JoinSet<()>,
}

impl Receiver {
    /// Starts receiving on a free port.
    pub async fn start(clock: Clock) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        // One line per arrival of a tour of a few dozen events: bounded by what the tour sends.
        let (tell, arrivals) = mpsc::unbounded_channel();
        let habits = Arc::new(Mutex::new(Habits::default()));
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, Arc::clone(&habits), tell, clock));
        Ok(Self { address, arrivals, habits, _serving: serving })
    }

    /// From now on deliveries to this path are verified with this secret.
    pub fn knows(&self, path: &str, secret: &str) -> anyhow::Result<()> {
        let verifier = Verifier::compile("standard-webhooks", &Map::new(), &[Secret::from(secret)])
            .map_err(|_| anyhow::anyhow!("the endpoint's secret is not one of Standard Webhooks"))?;
        self.habits.lock().verifiers.insert(path.to_owned(), Arc::new(verifier));
        Ok(())
    }

    /// `/broken` works from now on.
    pub fn mend(&self) {
        self.habits.lock().mended = true;
    }
}

async fn accept(listener: TcpListener, habits: Arc<Mutex<Habits>>, tell: mpsc::UnboundedSender<Arrival>, clock: Clock) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (habits, tell, clock) = (Arc::clone(&habits), tell.clone(), clock.clone());
        connections.spawn(async move {
            let service = service_fn(|request| take(request, &habits, &tell, &clock));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn take(
    request: Request<Incoming>,
    habits: &Mutex<Habits>,
    tell: &mpsc::UnboundedSender<Arrival>,
    clock: &Clock,
) -> Result<Response<Empty<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, 1024 * 1024).collect().await else { return Ok(answer(StatusCode::BAD_REQUEST)) };
    let path = head.uri.path().to_owned();
    let id = head.headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let (verifier, attempt, status) = habits.lock().decide(&path, &id);
    let signature_good = verifier.is_some_and(|verifier| is_signed(&verifier, &head.headers, &body.to_bytes(), clock));
    let status = if signature_good { status } else { StatusCode::UNAUTHORIZED };
    let _ = tell.send(Arrival { path, webhook_id: id, attempt, signature_good, status });
    Ok(answer(status))
}

impl Habits {
    fn decide(&mut self, path: &str, id: &str) -> (Option<Arc<Verifier>>, u32, StatusCode) {
        let attempt = self.attempts.entry((path.to_owned(), id.to_owned())).or_default();
        *attempt += 1;
        let attempt = *attempt;
        let flaky = attempt == 1 && self.attempts.len().is_multiple_of(REFUSE_ONE_IN);
        let status = match path {
            "/broken" if !self.mended => StatusCode::INTERNAL_SERVER_ERROR,
            "/hooks" if flaky => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::OK,
        };
        (self.verifiers.get(path).cloned(), attempt, status)
    }
}

fn is_signed(verifier: &Verifier, headers: &HeaderMap, body: &[u8], clock: &Clock) -> bool {
    let request = Signed { method: "POST", url: "", headers, body };
    matches!(verifier.verify(&request, clock.now()), Outcome::Verified(_))
}

fn answer(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}
