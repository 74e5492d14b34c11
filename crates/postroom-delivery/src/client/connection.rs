//! One HTTP/1.1 connection, driven by whoever uses it, and the idle ones of an endpoint.
//!
//! hyper leaves it to its user to poll the connection. Usually a task of its own does that; here the attempt polls it
//! beside its request, which saves a task for each connection and two wake-ups for each request.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::Request;
use http::response::Parts;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use postroom_domain::delivery::AttemptError;

use super::connect::{ConnectError, Stream};

/// So much of a response body is kept.
pub(crate) const BODY_KEPT_MAX: usize = 16 * 1024;
/// So much of it is read, so that a somewhat longer one does not cost the connection.
const BODY_READ_MAX: usize = 64 * 1024;
/// Status line and headers of a response may come to this; hyper takes at most 100 headers.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// A connection that was not used for so long is not used again.
const IDLE_MAX: Duration = Duration::from_secs(20);
/// So many idle connections are kept for an endpoint, and for all together.
const IDLE_PER_ENDPOINT_MAX: usize = 64;
const IDLE_IN_ALL_MAX: usize = 1024;

/// What came back, as far as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Parts,
    /// At most [`BODY_KEPT_MAX`].
    pub(crate) body: BytesMut,
}

/// Why an exchange has no complete answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{}", chain(.0))]
    Http(#[from] hyper::Error),
}

/// hyper's own texts are short; what it was is in the sources.
fn chain(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl ExchangeError {
    /// The connection ended before anything of an answer came, without anything else being wrong.
    pub(crate) fn is_close(&self) -> bool {
        match self {
            Self::Connect(_) => false,
            Self::Http(error) => {
                let io = std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>);
                !error.is_parse() && (error.is_incomplete_message() || error.is_canceled() || error.is_closed() || io)
            }
        }
    }

    /// The class under which an attempt without an answer is recorded; `None` when it is not the endpoint's failure.
    pub(crate) fn class(&self) -> Option<AttemptError> {
        match self {
            Self::Connect(error) => error.class(),
            Self::Http(_) if self.is_close() => Some(AttemptError::Connect),
            Self::Http(_) => Some(AttemptError::Protocol),
        }
    }
}

type Driver = http1::Connection<TokioIo<Stream>, Full<Bytes>>;

/// A connection on which one exchange happens at a time.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// `None` once the connection has ended.
    driver: Option<Pin<Box<Driver>>>,
    used: Instant,
}

impl Connection {
    pub(crate) async fn open(stream: Stream) -> Result<Self, ExchangeError> {
        let mut http = http1::Builder::new();
        http.max_header_size(HEAD_BYTES_MAX);
        let (sender, driver) = http.handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driver: Some(Box::pin(driver)), used: Instant::now() })
    }

    /// Sends a request and reads the answer into `answer`. Anything but `Ok` leaves the connection useless.
    pub(crate) async fn round_trip(
        &mut self,
        request: Request<Full<Bytes>>,
        answer: &mut Option<Answer>,
    ) -> Result<(), ExchangeError> {
        let Self { sender, driver, used } = self;
        if !sender.is_ready() {
            drive(driver, poll_fn(|cx| sender.poll_ready(cx))).await?;
        }
        let sent = sender.send_request(request);
        let (head, mut body) = drive(driver, sent).await?.into_parts();
        let answer = answer.insert(Answer { head, body: BytesMut::new() });
        let mut read = 0;
        while read < BODY_READ_MAX {
            let Some(frame) = drive(driver, body.frame()).await.transpose()? else {
                *used = Instant::now();
                return Ok(());
            };
            let data = frame.into_data().unwrap_or_default();
            read += data.len();
            let room = BODY_KEPT_MAX - answer.body.len();
            answer.body.extend_from_slice(&data[..data.len().min(room)]);
        }
        // More than anybody needs: the rest is not read, which ends the connection.
        *driver = None;
        Ok(())
    }

    /// Whether another request can go out on it. The receiver may have closed it meanwhile: that is seen here.
    fn is_usable(&mut self) -> bool {
        // Nobody has to be woken when an idle connection ends; the waker of the last attempt is let go here too.
        let mut cx = Context::from_waker(Waker::noop());
        poll_driver(&mut self.driver, &mut cx);
        self.driver.is_some() && self.sender.is_ready() && self.used.elapsed() < IDLE_MAX
    }
}

/// Polls a future and the connection that it depends on. What is there already needs no look at the connection, and what
/// is asked for is known to the connection before it is polled: otherwise it would wake this task for it.
async fn drive<F: Future>(driver: &mut Option<Pin<Box<Driver>>>, future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(output);
        }
        poll_driver(driver, cx);
        future.as_mut().poll(cx)
    })
    .await
}

fn poll_driver(driver: &mut Option<Pin<Box<Driver>>>, cx: &mut Context<'_>) {
    if let Some(connection) = driver
        // The error, if there is one, is also the request's or the body's.
        && let Poll::Ready(_) = connection.as_mut().poll(cx)
    {
        *driver = None;
    }
}

/// The idle connections of one endpoint. They are not shared between endpoints: what one organization's receiver does
/// to a connection is nobody else's trouble.
pub(crate) struct Pool {
    idle: Mutex<Vec<Connection>>,
    in_all: Arc<AtomicUsize>,
}

impl Pool {
    /// An empty pool; `in_all` counts the idle connections of all pools that share it.
    pub(crate) fn new(in_all: Arc<AtomicUsize>) -> Self {
        Self { idle: Mutex::default(), in_all }
    }

    /// The connection used last that is still open.
    pub(crate) fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock();
        while let Some(mut connection) = idle.pop() {
            self.in_all.fetch_sub(1, Ordering::Relaxed);
            if connection.is_usable() {
                return Some(connection);
            }
        }
        None
    }

    pub(crate) fn put(&self, mut connection: Connection) {
        if !connection.is_usable() {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_PER_ENDPOINT_MAX && self.in_all.load(Ordering::Relaxed) < IDLE_IN_ALL_MAX {
            self.in_all.fetch_add(1, Ordering::Relaxed);
            idle.push(connection);
        }
    }

    /// Drops connections that are closed or were idle for too long.
    pub(crate) fn sweep(&self) {
        let mut idle = self.idle.lock();
        let before = idle.len();
        idle.retain_mut(Connection::is_usable);
        self.in_all.fetch_sub(before - idle.len(), Ordering::Relaxed);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.in_all.fetch_sub(self.idle.get_mut().len(), Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} idle)", self.idle.lock().len())
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn pair(listener: &TcpListener) -> (Connection, TcpStream) {
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        (Connection::open(Stream::Plain(ours.unwrap())).await.ok().unwrap(), theirs.unwrap().0)
    }

    #[tokio::test]
    async fn idle_connections_are_bounded_counted_and_dropped_once_the_receiver_has_closed_them() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let in_all = Arc::new(AtomicUsize::new(0));
        let pools = [Pool::new(in_all.clone()), Pool::new(in_all.clone())];
        let count = || in_all.load(Ordering::Relaxed);
        let mut theirs = Vec::new();
        for pool in [&pools[0], &pools[0], &pools[1]] {
            let (connection, stream) = pair(&listener).await;
            pool.put(connection);
            theirs.push(stream);
        }
        assert_eq!(count(), 3);
        theirs.remove(0);
        let swept = async {
            while count() > 2 {
                pools[0].sweep();
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), swept).await.unwrap();
        assert!(pools[0].take().is_some());
        assert!(pools[0].take().is_none());
        assert_eq!(count(), 1);
        in_all.store(IDLE_IN_ALL_MAX, Ordering::Relaxed);
        pools[0].put(pair(&listener).await.0);
        assert!(pools[0].take().is_none(), "no room for another");
        in_all.store(1, Ordering::Relaxed);
        drop(pools);
        assert_eq!(count(), 0);
    }
}
