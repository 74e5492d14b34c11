//! The load: so many workers, each with a connection of its own, each with one request under way.
//!
//! A worker sends an event until it is acknowledged, with the same id each time, as a provider does. The latency of an
//! event is that of its first try, if that was acknowledged.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aws_lc_rs::hmac;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use postroom_domain::Timestamp;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::event::{Shape, event_type, github_signature, own_envelope};
use super::ledger::Ledger;

/// A request that takes longer than this is given up and sent again.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// A time in which a server acknowledges nothing is told when it is as long as this.
const GAP: Duration = Duration::from_secs(1);
/// The most of them.
const GAPS_MAX: usize = 1000;
/// The pause after a refusal or a broken connection, so that a dead server is not asked in a tight loop. Shorter than what
/// `Retry-After` asks for: how soon a server accepts again is to be seen.
const PAUSE: Duration = Duration::from_millis(10);

/// What to send and how to prove who sends it.
#[derive(Clone)]
pub enum Kind {
    /// GitHub webhooks to `/in/bench-RUN-N/github`, signed with this key; the name is the source's, usually `github`.
    Inbound {
        /// Signs every body.
        key: Arc<hmac::Key>,
        /// `/in/...` of each organization.
        paths: Arc<[String]>,
    },
    /// The organizations' own events to `/v1/events`.
    Own {
        /// `Bearer ...` of each organization.
        keys: Arc<[HeaderValue]>,
    },
}

/// A load.
pub struct Load {
    /// What to send.
    pub kind: Kind,
    /// The events.
    pub shape: Shape,
    /// Where acknowledgements are noted, and numbers come from.
    pub ledger: Arc<Ledger>,
    /// Makes the ids of this run unlike those of others.
    pub run: String,
    /// Workers.
    pub concurrency: usize,
    /// Where to send: the servers that are running. Workers are spread over them, and go to the next when one breaks off.
    pub servers: watch::Receiver<Vec<SocketAddr>>,
}

/// When a load ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After this time.
    Elapsed(Duration),
    /// After so many events.
    Events(u64),
    /// When it is told to.
    Stopped,
}

/// What a load did.
#[derive(Debug, Default)]
pub struct Done {
    /// Numbers of the events sent.
    pub numbers: std::ops::Range<u64>,
    /// Acknowledged.
    pub accepted: u64,
    /// From the first request to the last acknowledgement.
    pub took: Duration,
    /// Latencies of first tries, in microseconds, ascending.
    pub latencies_us: Vec<u32>,
    /// Tries that were refused or broke off.
    pub repeated: u64,
    /// Those of them that were answered: not now, later.
    pub refused: u64,
    /// When servers acknowledged nothing for long.
    pub gaps: Vec<Gap>,
}

/// A time in which a server acknowledged nothing, between two acknowledgements of its.
#[derive(Debug, Clone)]
pub struct Gap {
    /// Which server.
    pub server: SocketAddr,
    /// How long.
    pub lasted: Duration,
    /// When it acknowledged the next one.
    pub ended_at: Timestamp,
}

impl Gap {
    /// As the last line shows it.
    pub fn json(&self) -> Value {
        let millis = u64::try_from(self.lasted.as_millis()).unwrap_or(u64::MAX);
        json!({ "server": self.server.to_string(), "ms": millis, "ended_at": self.ended_at })
    }
}

/// When each server last acknowledged something, and the gaps so far.
#[derive(Default)]
struct Pulse {
    last: HashMap<SocketAddr, Instant>,
    gaps: Vec<Gap>,
}

impl Pulse {
    fn beat(&mut self, server: SocketAddr, ended_at: impl FnOnce() -> Timestamp) {
        let now = Instant::now();
        let Some(last) = self.last.insert(server, now) else { return };
        let lasted = now - last;
        if lasted >= GAP && self.gaps.len() < GAPS_MAX {
            self.gaps.push(Gap { server, lasted, ended_at: ended_at() });
        }
    }
}

impl Done {
    /// The latency that this share of events did not exceed, in milliseconds.
    pub fn percentile_ms(&self, share: f64) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        let index = (last as f64 * share).round() as usize;
        self.latencies_us.get(index).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
    }
}

struct Run {
    load: Load,
    until: Until,
    began: Instant,
    first: u64,
    stop: AtomicBool,
    repeated: AtomicU64,
    refused: AtomicU64,
    pulse: Mutex<Pulse>,
}

/// A load under way.
pub struct Running {
    run: Arc<Run>,
    workers: JoinSet<anyhow::Result<Vec<u32>>>,
}

impl Load {
    /// Starts it.
    pub fn start(self, until: Until) -> Running {
        let first = self.ledger.sent();
        let concurrency = self.concurrency;
        let run = Run {
            load: self,
            until,
            began: Instant::now(),
            first,
            stop: AtomicBool::new(false),
            repeated: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            pulse: Mutex::default(),
        };
        let run = Arc::new(run);
        let mut workers = JoinSet::new();
        for worker in 0..concurrency {
            workers.spawn(Arc::clone(&run).work(worker));
        }
        Running { run, workers }
    }
}

impl Running {
    /// Tells the workers to end after the event they have in hand.
    pub fn stop(&self) {
        self.run.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for the end.
    pub async fn finish(mut self) -> anyhow::Result<Done> {
        let mut latencies_us = Vec::new();
        while let Some(ended) = self.workers.join_next().await {
            latencies_us.extend(ended??);
        }
        latencies_us.sort_unstable();
        let ledger = &self.run.load.ledger;
        let numbers = self.run.first..ledger.sent();
        Ok(Done {
            accepted: ledger.sum(numbers.clone()).accepted,
            numbers,
            took: self.run.began.elapsed(),
            latencies_us,
            repeated: self.run.repeated.load(Ordering::Relaxed),
            refused: self.run.refused.load(Ordering::Relaxed),
            gaps: std::mem::take(&mut self.run.pulse.lock().gaps),
        })
    }
}

/// A worker's connection, and which server the next one goes to.
struct Connection {
    sender: Option<(SocketAddr, SendRequest<Full<Bytes>>)>,
    next: usize,
}

impl Run {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
            || match self.until {
                Until::Elapsed(limit) => self.began.elapsed() >= limit,
                Until::Events(count) => self.load.ledger.sent() >= self.first + count,
                Until::Stopped => false,
            }
    }

    async fn work(self: Arc<Self>, worker: usize) -> anyhow::Result<Vec<u32>> {
        let mut latencies = Vec::new();
        let mut connection = Connection { sender: None, next: worker };
        while !self.is_over() {
            let Some(number) = self.load.ledger.take_number() else { break };
            let body = self.body(number);
            let began = Instant::now();
            let mut first_try = true;
            while !self.send(&mut connection, number, &body).await? {
                first_try = false;
                self.repeated.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
            self.load.ledger.note_accepted(number);
            if first_try {
                latencies.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
        }
        Ok(latencies)
    }

    fn body(&self, number: u64) -> Bytes {
        let shape = &self.load.shape;
        match &self.load.kind {
            Kind::Inbound { .. } => Bytes::from(shape.body(number)),
            Kind::Own { .. } => {
                own_envelope(&self.load.run, number, &event_type(shape.endpoint(number)), &shape.body(number))
            }
        }
    }

    fn request(&self, number: u64, body: &Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
        let shape = &self.load.shape;
        let organization = usize::try_from(shape.organization(number))?;
        let request = Request::post(match &self.load.kind {
            Kind::Inbound { paths, .. } => paths[organization].as_str(),
            Kind::Own { .. } => "/v1/events",
        });
        let request = request
            .header(HOST, HeaderValue::from_static("bench"))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let request = match &self.load.kind {
            Kind::Inbound { key, .. } => request
                .header("x-github-event", event_type(shape.endpoint(number)))
                .header("x-github-delivery", format!("bench-{}-{number}", self.load.run))
                .header("x-hub-signature-256", github_signature(key, body)),
            Kind::Own { keys } => request.header(AUTHORIZATION, keys[organization].clone()),
        };
        Ok(request.body(Full::new(body.clone()))?)
    }

    /// Whether the server acknowledged the event. A refusal that repeating cannot mend, or that does not say when to repeat,
    /// ends the bench.
    async fn send(&self, connection: &mut Connection, number: u64, body: &Bytes) -> anyhow::Result<bool> {
        let (server, mut sender) = match connection.sender.take() {
            Some(sender) => sender,
            None => match self.connect(&mut connection.next).await {
                Some(sender) => sender,
                None => return Ok(false),
            },
        };
        let request = self.request(number, body)?;
        let exchange = async {
            sender.ready().await.ok()?;
            let response = sender.send_request(request).await.ok()?;
            let status = response.status();
            let says_when = response.headers().contains_key(RETRY_AFTER);
            let answer = response.into_body().collect().await.ok()?.to_bytes();
            Some((status, says_when, answer))
        };
        let Ok(Some((status, says_when, answer))) = tokio::time::timeout(REQUEST_TIMEOUT, exchange).await else {
            return Ok(false);
        };
        connection.sender = Some((server, sender));
        let again = says_when && matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        anyhow::ensure!(
            status.is_success() || again,
            "the server refused an event with {status}: {}",
            crate::config::printable(&String::from_utf8_lossy(&answer))
        );
        if again {
            self.refused.fetch_add(1, Ordering::Relaxed);
        } else {
            self.pulse.lock().beat(server, || crate::process::clock().now());
        }
        Ok(!again)
    }

    async fn connect(&self, next: &mut usize) -> Option<(SocketAddr, SendRequest<Full<Bytes>>)> {
        let address = {
            let servers = self.load.servers.borrow();
            *servers.get(*next % servers.len().max(1))?
        };
        *next += 1;
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
        // Ends when the sender is dropped or the server goes away.
        tokio::spawn(connection);
        Some((address, sender))
    }
}

/// `Bearer ...` of an API key.
pub fn bearer(key: &str) -> anyhow::Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {key}")).context("an API key is ASCII")?;
    value.set_sensitive(true);
    Ok(value)
}
