//! The receiver of a bench: takes every delivery, writes it into the ledger, answers 200.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::event::Shape;
use super::ledger::Ledger;

/// What is read of one delivery.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Where deliveries arrive.
pub struct Receiver {
    /// Its address.
    pub address: SocketAddr,
    _serving: JoinSet<()>,
}

/// What arrivals are compared with.
pub struct Expected {
    /// The events of this run.
    pub shape: Shape,
    /// Where arrivals are noted.
    pub ledger: Arc<Ledger>,
    /// Of so many events one is refused with 503 the first time it comes, so that retries happen; 0 refuses none.
    pub refuse_one_in: u64,
}

impl Receiver {
    /// Starts receiving on a free port of the loopback address, until it is dropped.
    pub async fn start(expected: Arc<Expected>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, expected));
        Ok(Self { address, _serving: serving })
    }
}

async fn accept(listener: TcpListener, expected: Arc<Expected>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let expected = Arc::clone(&expected);
                connections.spawn(async move {
                    let service = service_fn(|request| take(request, &expected));
                    let mut http = hyper::server::conn::http1::Builder::new();
                    let _ = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn take(request: Request<Incoming>, expected: &Expected) -> Result<Response<Empty<Bytes>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let status = match Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await {
        Ok(body) => expected.note(&path, &body.to_bytes()),
        // The sender broke off: it did not deliver, and will not see an answer either.
        Err(_) => StatusCode::BAD_REQUEST,
    };
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    Ok(response)
}

impl Expected {
    fn note(&self, path: &str, body: &[u8]) -> StatusCode {
        let Some((number, intact)) = self.shape.read(body) else {
            self.ledger.note_stranger();
            return StatusCode::OK;
        };
        if self.refuse_one_in > 0 && number % self.refuse_one_in == 0 && self.ledger.refuse_once(number) {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        self.ledger.note_arrival(number, intact, path == self.shape.path(number));
        StatusCode::OK
    }
}
