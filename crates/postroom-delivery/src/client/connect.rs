//! The one way out: resolve, ask the egress policy about every address, dial exactly those, and speak TLS.
//!
//! A literal address in a URL takes the same way as a resolved one. There is no proxy, and nothing is read from the
//! environment.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use postroom_domain::delivery::AttemptError;
use postroom_domain::egress::{Blocked, Policy};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::resolve::{ResolveError, Resolver};

/// At most so many addresses of a name are dialled.
const DIALLED_MAX: usize = 8;
/// When an address keeps silent for so long the next one is dialled beside it (RFC 8305).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// Where to connect to.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    pub(crate) host: Host,
    pub(crate) port: u16,
    /// The name a certificate must be for; `None` for plain HTTP.
    pub(crate) tls: Option<ServerName<'static>>,
}

/// What stands in a URL where the host is.
#[derive(Debug, Clone)]
pub(crate) enum Host {
    Ip(IpAddr),
    Name(Box<str>),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error("blocked: {0}")]
    Blocked(#[from] Blocked),
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    #[error("TLS failed: {0}")]
    Tls(#[source] io::Error),
    /// This machine is out of something (file descriptors, memory): not the endpoint's failure.
    #[error("this server could not open a connection: {0}")]
    Exhausted(#[source] io::Error),
}

impl ConnectError {
    /// The class under which the attempt is recorded; `None` when it is not the endpoint's failure.
    pub(crate) fn class(&self) -> Option<AttemptError> {
        match self {
            Self::Resolve(_) => Some(AttemptError::Dns),
            Self::Blocked(_) => Some(AttemptError::BlockedAddress),
            Self::Connect(_) => Some(AttemptError::Connect),
            Self::Tls(_) => Some(AttemptError::Tls),
            Self::Exhausted(_) => None,
        }
    }
}

#[derive(Clone)]
pub(crate) struct Connector {
    policy: Arc<Policy>,
    resolver: Resolver,
    tls: TlsConnector,
}

impl Connector {
    pub(crate) fn new(policy: Arc<Policy>, resolver: Resolver, tls: Arc<rustls::ClientConfig>) -> Self {
        Self { policy, resolver, tls: TlsConnector::from(tls) }
    }

    pub(crate) async fn connect(&self, to: &Destination) -> Result<Stream, ConnectError> {
        let addresses = self.vetted(to).await?;
        let tcp = dial(&addresses).await?;
        // Between a listener on all interfaces and its own public address only the connection shows that they are one.
        let ends = (tcp.local_addr().map_err(ConnectError::Connect)?, tcp.peer_addr().map_err(ConnectError::Connect)?);
        self.policy.check_connected(ends.0, ends.1)?;
        tcp.set_nodelay(true).map_err(ConnectError::Connect)?;
        match &to.tls {
            None => Ok(Stream::Plain(tcp)),
            Some(name) => {
                let tls = self.tls.connect(name.clone(), tcp).await.map_err(ConnectError::Tls)?;
                Ok(Stream::Tls(Box::new(tls)))
            }
        }
    }

    /// The addresses to dial: all that the name has, or an error if a single one of them is not allowed. A name that
    /// mixes public and private addresses is up to something, and which one would be dialled is left to chance.
    async fn vetted(&self, to: &Destination) -> Result<Vec<SocketAddr>, ConnectError> {
        let addresses = match &to.host {
            Host::Ip(ip) => vec![SocketAddr::new(*ip, to.port)],
            Host::Name(name) => {
                let ips = self.resolver.resolve(name).await?;
                ips.iter().map(|ip| SocketAddr::new(*ip, to.port)).collect()
            }
        };
        for address in &addresses {
            self.policy.check_addr(*address)?;
        }
        Ok(addresses)
    }
}

/// Dials the addresses in their order, the next one as soon as one fails or keeps silent; the first connection wins.
async fn dial(addresses: &[SocketAddr]) -> Result<TcpStream, ConnectError> {
    let mut next = addresses.iter().take(DIALLED_MAX);
    let mut dialling = FuturesUnordered::new();
    dialling.extend(next.next().map(|address| TcpStream::connect(*address)));
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "no address");
    loop {
        let more = next.len() > 0;
        tokio::select! {
            biased;
            done = dialling.next() => match done {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) if is_exhaustion(&error) => return Err(ConnectError::Exhausted(error)),
                Some(Err(error)) => {
                    failure = error;
                    dialling.extend(next.next().map(|address| TcpStream::connect(*address)));
                }
                None => return Err(ConnectError::Connect(failure)),
            },
            () = tokio::time::sleep(NEXT_ADDRESS_AFTER), if more => {
                dialling.extend(next.next().map(|address| TcpStream::connect(*address)));
            }
        }
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// A connection, with or without TLS.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_lacks_is_not_the_endpoints_failure() {
        use rustix::io::Errno;
        for (errno, ours) in
            [(Errno::MFILE, true), (Errno::NFILE, true), (Errno::CONNREFUSED, false), (Errno::NETUNREACH, false)]
        {
            assert_eq!(is_exhaustion(&io::Error::from_raw_os_error(errno.raw_os_error())), ours, "{errno:?}");
        }
        let exhausted = ConnectError::Exhausted(io::Error::from_raw_os_error(Errno::MFILE.raw_os_error()));
        assert_eq!(exhausted.class(), None);
    }
}
