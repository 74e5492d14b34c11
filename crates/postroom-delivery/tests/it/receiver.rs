//! A receiver on a real socket that answers as it is told, however badly.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// What arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which connection it came on, from 0.
    pub connection: usize,
    pub method: String,
    pub target: String,
    pub headers: http::HeaderMap,
    pub body: Vec<u8>,
    pub at: Instant,
}

/// What happens on the connection after a request.
#[derive(Debug, Clone)]
pub struct Reply {
    pub bytes: Vec<u8>,
    pub then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Waits for the next request.
    KeepAlive,
    /// Ends the connection properly.
    Close,
    /// Ends it with a reset.
    Reset,
    /// Says nothing more until the receiver is released.
    Hang,
    /// Sends `bytes` again and again.
    Endless,
    /// Sends `bytes` one by one, 10 ms apart, for ever.
    Drip,
}

impl Reply {
    pub fn raw(bytes: impl Into<Vec<u8>>, then: Then) -> Self {
        Self { bytes: bytes.into(), then }
    }

    pub fn status(status: u16) -> Self {
        Self::with(status, "")
    }

    /// `headers` end with a line end each.
    pub fn with(status: u16, headers: &str) -> Self {
        Self::raw(format!("HTTP/1.1 {status} X\r\n{headers}content-length: 2\r\n\r\nok"), Then::KeepAlive)
    }

    pub fn hang() -> Self {
        Self::raw("", Then::Hang)
    }
}

type Behaviour = Arc<dyn Fn(usize, &Request) -> Reply + Send + Sync>;

pub struct Receiver {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    count: watch::Receiver<usize>,
    connections: watch::Receiver<(usize, usize)>,
    release: watch::Sender<bool>,
    _accepting: tokio_util::task::AbortOnDropHandle<()>,
}

struct Shared {
    behaviour: Behaviour,
    requests: Arc<Mutex<Vec<Request>>>,
    count: watch::Sender<usize>,
    /// Opened and ended.
    connections: watch::Sender<(usize, usize)>,
    released: watch::Receiver<bool>,
    tls: Option<TlsAcceptor>,
}

impl Receiver {
    /// Answers the n-th request, counted from 0, as `behaviour` says.
    pub async fn new(behaviour: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(behaviour, None).await
    }

    pub async fn always(reply: Reply) -> Self {
        Self::new(move |_, _| reply.clone()).await
    }

    pub async fn start(
        behaviour: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count_to, count) = watch::channel(0);
        let (connections_to, connections) = watch::channel((0, 0));
        let (release, released) = watch::channel(false);
        let requests = Arc::default();
        let shared = Arc::new(Shared {
            behaviour: Arc::new(behaviour),
            requests: Arc::clone(&requests),
            count: count_to,
            connections: connections_to,
            released,
            tls,
        });
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(shared.clone().connection(stream));
            }
        });
        let accepting = tokio_util::task::AbortOnDropHandle::new(accepting);
        Self { address, requests, count, connections, release, _accepting: accepting }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().clone()
    }

    pub fn count(&self) -> usize {
        *self.count.borrow()
    }

    /// Connections opened so far.
    pub fn connections(&self) -> usize {
        self.connections.borrow().0
    }

    /// Waits until so many requests have arrived.
    pub async fn arrived(&self, count: usize) {
        crate::soon(self.count.clone().wait_for(|arrived| *arrived >= count)).await.unwrap();
    }

    /// Waits until every connection has been ended by the other side.
    pub async fn all_ended(&self) {
        crate::soon(self.connections.clone().wait_for(|(opened, ended)| opened == ended)).await.unwrap();
    }

    /// Lets what hangs answer 200.
    pub fn release(&self) {
        self.release.send_replace(true);
    }
}

impl Shared {
    async fn connection(self: Arc<Self>, stream: TcpStream) {
        let mut number = 0;
        self.connections.send_modify(|(opened, _)| {
            number = *opened;
            *opened += 1;
        });
        match &self.tls {
            None => self.serve(stream, number).await,
            Some(tls) => {
                if let Ok(stream) = tls.accept(stream).await {
                    self.serve(stream, number).await;
                }
            }
        }
        self.connections.send_modify(|(_, ended)| *ended += 1);
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin + MayReset>(&self, mut stream: S, connection: usize) {
        let mut buffer = Vec::new();
        while let Some(request) = read_request(&mut stream, &mut buffer, connection).await {
            let n = {
                let mut requests = self.requests.lock();
                requests.push(request.clone());
                requests.len() - 1
            };
            self.count.send_modify(|count| *count += 1);
            let reply = (self.behaviour)(n, &request);
            if !self.reply(&mut stream, reply).await {
                return;
            }
        }
    }

    /// Whether the connection goes on.
    async fn reply<S: AsyncRead + AsyncWrite + Unpin + MayReset>(&self, stream: &mut S, reply: Reply) -> bool {
        match reply.then {
            Then::KeepAlive => return stream.write_all(&reply.bytes).await.is_ok(),
            Then::Close => {
                let _ = stream.write_all(&reply.bytes).await;
                let _ = stream.shutdown().await;
            }
            Then::Reset => {
                let _ = stream.write_all(&reply.bytes).await;
                stream.reset_on_drop();
            }
            Then::Endless => while stream.write_all(&reply.bytes).await.is_ok() {},
            Then::Drip => {
                for byte in reply.bytes.iter().cycle() {
                    if stream.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
            }
            Then::Hang => {
                let _ = stream.write_all(&reply.bytes).await;
                let mut released = self.released.clone();
                let mut byte = [0];
                let answer = tokio::select! {
                    released = released.wait_for(|released| *released) => released.is_ok(),
                    _ = stream.read(&mut byte) => false,
                };
                return answer && stream.write_all(&Reply::status(200).bytes).await.is_ok();
            }
        }
        false
    }
}

pub trait MayReset {
    fn reset_on_drop(&self) {}
}

impl MayReset for TcpStream {
    fn reset_on_drop(&self) {
        self.set_zero_linger().unwrap();
    }
}

impl MayReset for tokio_rustls::server::TlsStream<TcpStream> {}

async fn read_request<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    connection: usize,
) -> Option<Request> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer[..head_end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ').map(str::to_owned);
    let mut headers = http::HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        headers.append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
    }
    let length: usize = headers.get("content-length").map_or(0, |value| value.to_str().unwrap().parse().unwrap());
    let body_start = head_end + 4;
    while buffer.len() < body_start + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer[body_start..body_start + length].to_vec();
    buffer.drain(..body_start + length);
    Some(Request { connection, method: first.next()?, target: first.next()?, headers, body, at: Instant::now() })
}
