//! What may happen on the way between a client and its database: refused, silent, slow, cut, or cut at the worst moment.

mod answers;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use self::answers::{Answers, Trap};
use super::{at, machine};

/// Connections that wait to be taken.
const BACKLOG: u32 = 1024;

/// What is read at once.
const PIECE_BYTES: usize = 64 * 1024;

/// What the way to the database does to everything that wants to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing special.
    Pass,
    /// Each piece of an answer arrives this much later.
    Delay(Duration),
    /// Connections are made and stay open; no byte passes, either way, not even the end of a connection. What was held back
    /// passes when this ends, as after a broken network.
    BlackHole,
    /// As when no process listens: open connections are reset, new ones refused.
    Refuse,
}

/// A way through which bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    ToServer,
    /// Answers.
    ToClient,
}

/// A proxy for PostgreSQL's protocol on the loopback address, which a test controls. Its connections end with it. Answers pass
/// message by message.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    rules: watch::Sender<Rules>,
    traps: Arc<Traps>,
    door: tokio::sync::Mutex<Door>,
}

#[derive(Debug, Clone)]
struct Rules {
    upstream: SocketAddr,
    mode: Mode,
    /// A connection that began in an earlier one is reset.
    generation: u64,
}

/// What happens once, to whichever connection runs into it first.
#[derive(Debug, Default)]
struct Traps {
    to_server: Mutex<Option<Limit>>,
    to_client: Mutex<Option<Limit>>,
    answer: Mutex<Option<LostAnswer>>,
    open: AtomicUsize,
}

#[derive(Debug)]
struct Limit {
    bytes: usize,
    sprung: oneshot::Sender<()>,
}

#[derive(Debug)]
struct LostAnswer {
    tag: String,
    sprung: oneshot::Sender<()>,
}

/// Who has the port: a task that takes connections, or nobody, which is a socket that is bound and does not listen.
#[derive(Debug, Default)]
struct Door {
    open: Option<JoinHandle<()>>,
    shut: Option<TcpSocket>,
}

impl Proxy {
    /// A way to this server, which need not be there yet.
    ///
    /// # Panics
    ///
    /// When no port is free.
    pub async fn to(upstream: SocketAddr) -> Self {
        let address = machine::local(machine::free_port());
        let (rules, _) = watch::channel(Rules { upstream, mode: Mode::Refuse, generation: 0 });
        let door = tokio::sync::Mutex::new(Door { open: None, shut: Some(bind(address)) });
        let proxy = Self { address, rules, traps: Arc::default(), door };
        proxy.set(Mode::Pass).await;
        proxy
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same URL, but through here.
    ///
    /// # Panics
    ///
    /// When it is no URL.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        at(url, self.address)
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.traps.open.load(Ordering::SeqCst)
    }

    /// What happens from now on.
    ///
    /// # Panics
    ///
    /// When somebody took the port in the moment in which it was nobody's.
    pub async fn set(&self, mode: Mode) {
        self.rules.send_modify(|rules| rules.mode = mode);
        let mut door = self.door.lock().await;
        if mode == Mode::Refuse {
            if let Some(listening) = door.open.take() {
                listening.abort();
                // Its listener is closed when it has ended; that it was aborted is no news.
                listening.await.ok();
                door.shut = Some(bind(self.address));
            }
            self.cut();
        } else if door.open.is_none() {
            // Two sockets may not have the port while one of them listens.
            door.shut = None;
            let listener = bind(self.address).listen(BACKLOG).expect("the port is ours");
            door.open = Some(tokio::spawn(accept(listener, self.rules.subscribe(), Arc::clone(&self.traps))));
        }
    }

    /// Resets all connections there are; new ones are as before.
    pub fn cut(&self) {
        self.rules.send_modify(|rules| rules.generation += 1);
    }

    /// New connections go to another server, as after a failover; those there are are reset.
    pub fn repoint(&self, upstream: SocketAddr) {
        self.rules.send_modify(|rules| {
            rules.upstream = upstream;
            rules.generation += 1;
        });
    }

    /// Lets this many more bytes pass in one direction, over all connections, then resets the connection that brought the
    /// last one. Once. The receiver hears of it.
    pub fn cut_after(&self, direction: Direction, bytes: usize) -> oneshot::Receiver<()> {
        let (sprung, heard) = oneshot::channel();
        *locked(self.traps.limit(direction)) = Some(Limit { bytes, sprung });
        heard
    }

    /// Withholds the next answer that would tell a client of its committed transaction, and resets that connection: the
    /// server has committed, and the client cannot know. `tag` is how the command tag begins: `COMMIT`, or `INSERT`, `UPDATE`,
    /// `SELECT` for a statement that is a transaction by itself. Once. The receiver hears of it. Not through TLS.
    pub fn lose_answer(&self, tag: &str) -> oneshot::Receiver<()> {
        let (sprung, heard) = oneshot::channel();
        *locked(&self.traps.answer) = Some(LostAnswer { tag: tag.to_owned(), sprung });
        heard
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(listening) = &self.door.get_mut().open {
            listening.abort();
        }
    }
}

impl Traps {
    fn limit(&self, direction: Direction) -> &Mutex<Option<Limit>> {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }

    /// How many of these bytes may pass, and whether the connection is cut after them.
    fn pass(&self, direction: Direction, bytes: usize) -> (usize, bool) {
        let mut limit = locked(self.limit(direction));
        let Some(mut armed) = limit.take() else { return (bytes, false) };
        if armed.bytes <= bytes {
            armed.sprung.send(()).ok();
            return (armed.bytes, true);
        }
        armed.bytes -= bytes;
        *limit = Some(armed);
        (bytes, false)
    }
}

impl Trap for Traps {
    fn wants(&self, tag: &str) -> bool {
        locked(&self.answer).as_ref().is_some_and(|lost| tag.starts_with(&lost.tag))
    }

    fn springs(&self) -> bool {
        let lost = locked(&self.answer).take();
        lost.map(|lost| lost.sprung.send(()).ok()).is_some()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bind(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    // Connections that ended a moment ago do not keep us from the port.
    socket.set_reuseaddr(true).expect("a socket");
    socket.bind(address).unwrap_or_else(|error| panic!("the proxy's port {address}: {error}"));
    socket
}

async fn accept(listener: TcpListener, rules: watch::Receiver<Rules>, traps: Arc<Traps>) {
    loop {
        // An error here is one of a connection that went before it was taken.
        let Ok((client, _)) = listener.accept().await else { continue };
        let (rules, traps) = (rules.clone(), Arc::clone(&traps));
        let generation = rules.borrow().generation;
        traps.open.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            carry(client, rules, generation, &traps).await;
            traps.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// How a connection ends: as its two ends wish, or by us.
enum End {
    Closed,
    Cut,
}

async fn carry(mut client: TcpStream, mut rules: watch::Receiver<Rules>, generation: u64, traps: &Traps) {
    let upstream = tokio::select! {
        () = cut(rules.clone(), generation) => None,
        upstream = connect(&mut rules) => upstream.ok(),
    };
    let Some(mut upstream) = upstream else {
        client.set_zero_linger().ok();
        return;
    };
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = upstream.split();
    let end = tokio::select! {
        () = cut(rules.clone(), generation) => End::Cut,
        end = ask(from_client, to_server, rules.clone(), traps) => end,
        end = answer(from_server, to_client, rules.clone(), traps) => end,
    };
    if matches!(end, End::Cut) {
        client.set_zero_linger().ok();
        upstream.set_zero_linger().ok();
    }
}

/// Comes when the connections of this generation are to end.
async fn cut(mut rules: watch::Receiver<Rules>, generation: u64) {
    // The other outcome is that the proxy is gone.
    rules.wait_for(|rules| rules.generation != generation).await.ok();
}

/// Waits out a black hole; how long the next piece is held back after it.
async fn passable(rules: &mut watch::Receiver<Rules>) -> Duration {
    match rules.wait_for(|rules| rules.mode != Mode::BlackHole).await.as_deref() {
        Ok(Rules { mode: Mode::Delay(delay), .. }) => *delay,
        Ok(_) | Err(_) => Duration::ZERO,
    }
}

async fn connect(rules: &mut watch::Receiver<Rules>) -> io::Result<TcpStream> {
    passable(rules).await;
    let upstream = rules.borrow().upstream;
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn ask(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut rules: watch::Receiver<Rules>, traps: &Traps) -> End {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = from.read(&mut piece).await;
        passable(&mut rules).await;
        let Ok(bytes @ 1..) = read else { return End::Closed };
        if let Some(end) = write(&mut to, &piece[..bytes], Direction::ToServer, traps).await {
            return end;
        }
    }
}

async fn answer(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut rules: watch::Receiver<Rules>,
    traps: &Traps,
) -> End {
    let mut answers = Answers::default();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = from.read(&mut piece).await;
        tokio::time::sleep(passable(&mut rules).await).await;
        let Ok(bytes @ 1..) = read else { return End::Closed };
        let next = answers.take(&piece[..bytes], traps);
        if let Some(end) = write(&mut to, &next.pass, Direction::ToClient, traps).await {
            return end;
        }
        if next.lose {
            return End::Cut;
        }
    }
}

/// How the connection ends, if it does.
async fn write(to: &mut WriteHalf<'_>, bytes: &[u8], direction: Direction, traps: &Traps) -> Option<End> {
    let (passing, cut) = traps.pass(direction, bytes.len());
    let written = to.write_all(&bytes[..passing]).await;
    match (written, cut) {
        (_, true) => Some(End::Cut),
        (Err(_), false) => Some(End::Closed),
        (Ok(()), false) => None,
    }
}
