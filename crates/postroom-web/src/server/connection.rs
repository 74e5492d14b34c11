//! One connection: HTTP/1.1 or HTTP/2 by what the client speaks, under the watchdog.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{Request, Version};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::ServerLimits;
use super::refusal::Refusal;
use super::watch::{UnderWay, Verdict, Watch};
use crate::Routes;
use crate::client::Peer;

/// A reading buffer of HTTP/1: headers that do not fit into it are answered with 431 by the parser itself.
const BUFFER_BYTES: usize = 64 * 1024;
/// A connection that was asked to close may still say good-bye for so long.
const CLOSING: Duration = Duration::from_secs(2);

/// Serves one connection until it ends, its watchdog bites, or `stop` and its last answer.
pub(super) async fn serve(
    stream: TcpStream,
    peer: IpAddr,
    routes: Routes,
    limits: ServerLimits,
    stop: CancellationToken,
) {
    // Answers are small and written whole: waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    let watch = Watch::new();
    let io = TokioIo::new(Watched { stream, watch: watch.clone(), refusal: None, closing: None });
    let seen = watch.clone();
    let service = service_fn(move |request| answer(routes.clone(), Peer(peer), seen.clone(), request));
    let builder = builder(&limits);
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut timer = pin!(tokio::time::sleep(limits.first_byte));
    let mut closing = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error = %error, "the connection ended early");
                }
                return;
            }
            () = stop.cancelled(), if !closing => {
                closing = true;
                connection.as_mut().graceful_shutdown();
            }
            () = timer.as_mut() => match watch.verdict(&limits) {
                Verdict::LookAgain(wait) => timer.as_mut().reset(tokio::time::Instant::now() + wait),
                Verdict::CloseIdle if !closing => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                    timer.as_mut().reset(tokio::time::Instant::now() + CLOSING);
                }
                Verdict::CloseIdle => return,
                Verdict::Drop(why) => {
                    tracing::debug!(why, "the connection was cut");
                    return;
                }
            },
        }
    }
}

fn builder(limits: &ServerLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // The watchdog tells slow headers from an idle connection, which the parser's own deadline does not.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams)
        .max_header_list_size(limits.headers_bytes)
        .max_pending_accept_reset_streams(20)
        .max_send_buf_size(64 * 1024);
    builder
}

async fn answer(
    routes: Routes,
    peer: Peer,
    watch: Arc<Watch>,
    request: Request<Incoming>,
) -> Result<Response<Answering>, Infallible> {
    let under_way = watch.request(request.version() == Version::HTTP_2);
    let response = routes.answer(peer, request).await;
    Ok(response.map(|body| Answering { body, _under_way: under_way }))
}

/// An answer's body. The request counts as under way until the last of it is handed to the connection.
struct Answering {
    body: Body,
    _under_way: UnderWay,
}

impl http_body::Body for Answering {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that tells the watch when bytes move, writes problems in place of the parser's refusals, and closes so that the
/// last answer arrives.
struct Watched {
    stream: TcpStream,
    watch: Arc<Watch>,
    refusal: Option<Refusal>,
    /// How long the client may still send, once everything is said to it.
    closing: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.watch.read();
        }
        polled
    }
}

impl Watched {
    /// Whether the parser refuses with these bytes. Answers of handlers begin while their request is under way, or are
    /// written behind others.
    fn is_refusal(&mut self, bytes: &[u8]) -> bool {
        if self.refusal.is_none() && self.watch.is_idle() {
            self.refusal = Refusal::instead_of(bytes);
        }
        self.refusal.is_some()
    }

    /// Writes the refusal; says then that `bytes` were written.
    fn poll_refuse(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<usize>> {
        while let Some(refusal) = self.refusal.as_mut().filter(|refusal| !refusal.rest().is_empty()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, refusal.rest()))?;
            refusal.wrote(written);
        }
        Poll::Ready(Ok(bytes))
    }

    /// Waits for the client to close, and reads what it sends until then to nothing. A socket that is closed with bytes
    /// unread is reset by the system, and the client may then lose the answer: it is refused before all of its body has
    /// been read, and still sends.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let closing = self.closing.get_or_insert_with(|| Box::pin(tokio::time::sleep(CLOSING)));
        // First, because a client that sends without a pause leaves no other turn.
        if closing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut nothing = [0; 8 * 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut nothing);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }

    fn noting(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(polled, Poll::Ready(Ok(bytes)) if bytes > 0) {
            self.watch.wrote();
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_refusal(bytes) {
            return self.poll_refuse(cx, bytes.len());
        }
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.noting(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_refusal(slices.first().map_or(&[], |first| first)) {
            return self.poll_refuse(cx, slices.iter().map(|slice| slice.len()).sum());
        }
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.noting(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        self.poll_closed(cx).map(Ok)
    }
}
