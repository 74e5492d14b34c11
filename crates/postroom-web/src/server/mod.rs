//! The accept loop: bounded in connections, in time and in headers, and able to stop.
//!
//! The framework's own loop has no deadlines: a client that connects and says nothing would keep its place for ever.
//! Here every connection has a watchdog (`watch`) with one timer of its own. Bodies have their own deadline where they
//! are read, because only there is it known that one is expected.

mod connection;
mod refusal;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::places::Places;
use crate::{Routes, client};

/// Bounds of the connections of one listener.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// Connections at one moment; further ones are closed at once.
    pub connections: usize,
    /// Connections of one address at one moment. Behind a proxy all of them come from one.
    pub connections_per_address: usize,
    /// From the connection to its first byte.
    pub first_byte: Duration,
    /// From the first byte of a request to the end of its headers.
    pub headers: Duration,
    /// A connection without a request.
    pub idle: Duration,
    /// A request under way in which not a byte moves, in either direction.
    pub stall: Duration,
    /// What is under way when the process stops may still take so long.
    pub drain: Duration,
    /// Requests at one moment on one HTTP/2 connection.
    pub http2_streams: u32,
    /// All headers of one request, in bytes.
    pub headers_bytes: u32,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: 2_000,
            first_byte: Duration::from_secs(10),
            headers: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            drain: Duration::from_secs(20),
            http2_streams: 100,
            headers_bytes: 16 * 1024,
        }
    }
}

/// Accepts connections until `stop`, then closes the idle ones, lets requests under way end, and returns; after
/// `limits.drain` it returns whatever is still open.
pub async fn serve(listener: TcpListener, routes: Routes, limits: ServerLimits, stop: CancellationToken) {
    let places = Places::new(limits.connections, limits.connections_per_address);
    metrics::describe_gauge!("postroom_http_connections", "Open connections");
    metrics::describe_counter!("postroom_http_connections_refused_total", "Connections for which there was no place");
    let open = metrics::gauge!("postroom_http_connections");
    let tasks = TaskTracker::new();
    let abandon = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                after_failure(&error, &stop).await;
                continue;
            }
        };
        let Some(place) = places.take(client::owner(peer.ip())) else {
            refuse(&stream, peer);
            continue;
        };
        let (routes, stop, abandon, open) = (routes.clone(), stop.clone(), abandon.clone(), open.clone());
        tasks.spawn(async move {
            // Dropped also when the connection panics, which ends this task and no other.
            let _place = (place, Counted::new(open));
            tokio::select! {
                () = connection::serve(stream, peer.ip(), routes, limits, stop) => {}
                () = abandon.cancelled() => {}
            }
        });
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(limits.drain, tasks.wait()).await.is_err() {
        tracing::warn!(connections = tasks.len(), "closing connections whose requests did not end in time");
        abandon.cancel();
        tasks.wait().await;
    }
}

/// A connection in the gauge of open ones.
struct Counted(metrics::Gauge);

impl Counted {
    fn new(open: metrics::Gauge) -> Self {
        open.increment(1);
        Self(open)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// A connection for which there is no place: told so, as far as that is possible without waiting for it.
fn refuse(stream: &TcpStream, peer: SocketAddr) {
    const ANSWER: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    tracing::debug!(peer = %peer, "no place for another connection");
    metrics::counter!("postroom_http_connections_refused_total").increment(1);
    let _ = stream.try_write(ANSWER);
}

/// Failures of one connection are nothing; running out of file descriptors or memory needs a pause, or the loop would
/// spin on the connection that it cannot take.
async fn after_failure(error: &io::Error, stop: &CancellationToken) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
        return;
    }
    tracing::warn!(error = %error, "no connection can be accepted right now");
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(Duration::from_millis(100)) => {}
    }
}
