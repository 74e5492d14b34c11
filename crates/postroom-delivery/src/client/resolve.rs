//! Names to addresses, by the system's resolver, without letting one slow name hold up another.
//!
//! `getaddrinfo` blocks its thread for as long as a name server keeps silent, and cannot be called off. So look-ups run
//! on threads of their own (not on the runtime's, which storage reads with), one per name at a time, and names that
//! were slow the last time may occupy only a part of them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// Asks for the addresses of a name, blocking. Tests put their own in the place of the system's.
pub type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// The name has no address, or nobody could say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the name can not be resolved: {0}")]
pub(crate) struct ResolveError(Arc<str>);

type Answer = Result<Arc<[IpAddr]>, ResolveError>;

/// At most so many look-ups at once, and so many of them for names that were slow.
const THREADS_MAX: usize = 64;
const THREADS_FOR_SLOW_MAX: usize = 16;
/// A name is slow once its answer took this long.
const SLOW: Duration = Duration::from_secs(1);
/// So many slow names are remembered; then all are forgotten, which costs each one more slow look-up.
const SLOW_NAMES_MAX: usize = 10_000;
/// A thread without work ends after this time.
const THREAD_IDLE: Duration = Duration::from_secs(10);
/// More addresses than this are not looked at.
const ADDRESSES_MAX: usize = 32;

/// Resolves names. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Resolver(Arc<Shared>);

struct Shared {
    lookup: Lookup,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    /// Who waits for which name; a name is in here from its first request until its answer.
    waiting: HashMap<Arc<str>, Vec<oneshot::Sender<Answer>>>,
    queue: VecDeque<Arc<str>>,
    queue_slow: VecDeque<Arc<str>>,
    slow: HashSet<Arc<str>>,
    threads: usize,
    threads_idle: usize,
    threads_on_slow: usize,
}

impl Resolver {
    pub(crate) fn new(lookup: Lookup) -> Self {
        Self(Arc::new(Shared { lookup, state: Mutex::default(), work: Condvar::new() }))
    }

    /// The system's resolver: hosts file, name servers and search domains as for any other program.
    pub(crate) fn system() -> Self {
        Self::new(Arc::new(|name| Ok((name, 0).to_socket_addrs()?.map(|addr| addr.ip()).collect())))
    }

    /// The addresses of a name, in the resolver's order, at least one. Dropping the future calls nothing off: the
    /// answer may still serve somebody else.
    pub(crate) async fn resolve(&self, name: &str) -> Answer {
        let (sender, receiver) = oneshot::channel();
        self.0.request(name, sender, &self.0)?;
        receiver.await.unwrap_or_else(|_| Err(ResolveError("the look-up was given up".into())))
    }
}

impl Shared {
    fn request(&self, name: &str, sender: oneshot::Sender<Answer>, this: &Arc<Self>) -> Result<(), ResolveError> {
        let mut state = self.state.lock();
        if let Some(waiting) = state.waiting.get_mut(name) {
            waiting.push(sender);
            return Ok(());
        }
        let name: Arc<str> = name.into();
        state.waiting.insert(name.clone(), vec![sender]);
        if state.slow.contains(&name) {
            state.queue_slow.push_back(name.clone())
        } else {
            state.queue.push_back(name.clone())
        }
        if state.threads_idle > 0 || state.threads >= THREADS_MAX {
            self.work.notify_one();
            return Ok(());
        }
        let shared = this.clone();
        let started = std::thread::Builder::new().name("resolver".to_owned()).spawn(move || shared.work());
        match started {
            Ok(_) => state.threads += 1,
            // With other threads at work the name waits for one of them; alone it would wait for ever.
            Err(error) if state.threads == 0 => {
                state.waiting.remove(&name);
                state.queue.clear();
                state.queue_slow.clear();
                return Err(ResolveError(error.to_string().into()));
            }
            Err(_) => {}
        }
        Ok(())
    }

    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            let Some((name, was_slow)) = state.next() else {
                state.threads_idle += 1;
                let idle = self.work.wait_for(&mut state, THREAD_IDLE).timed_out();
                state.threads_idle -= 1;
                if idle && !state.has_work() {
                    state.threads -= 1;
                    return;
                }
                continue;
            };
            drop(state);
            let start = Instant::now();
            let answer = self.look_up(&name);
            let is_slow = start.elapsed() >= SLOW;
            state = self.state.lock();
            state.threads_on_slow -= usize::from(was_slow);
            state.remember(&name, is_slow);
            for sender in state.waiting.remove(&name).unwrap_or_default() {
                let _ = sender.send(answer.clone());
            }
        }
    }

    fn look_up(&self, name: &str) -> Answer {
        let lookup = std::panic::AssertUnwindSafe(|| (self.lookup)(name));
        let addresses = match std::panic::catch_unwind(lookup) {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(error)) => return Err(ResolveError(error.to_string().into())),
            Err(_) => return Err(ResolveError("the look-up failed".into())),
        };
        match &addresses[..addresses.len().min(ADDRESSES_MAX)] {
            [] => Err(ResolveError("no address".into())),
            some => Ok(some.into()),
        }
    }
}

impl State {
    fn has_work(&self) -> bool {
        !self.queue.is_empty() || (!self.queue_slow.is_empty() && self.threads_on_slow < THREADS_FOR_SLOW_MAX)
    }

    fn next(&mut self) -> Option<(Arc<str>, bool)> {
        if let Some(name) = self.queue.pop_front() {
            return Some((name, false));
        }
        if self.threads_on_slow >= THREADS_FOR_SLOW_MAX {
            return None;
        }
        let name = self.queue_slow.pop_front()?;
        self.threads_on_slow += 1;
        Some((name, true))
    }

    fn remember(&mut self, name: &Arc<str>, is_slow: bool) {
        if !is_slow {
            self.slow.remove(name);
            return;
        }
        if self.slow.len() >= SLOW_NAMES_MAX {
            self.slow.clear();
        }
        self.slow.insert(name.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_name_without_an_answer_does_not_hold_up_others() {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Mutex::new(held);
        let resolver = Resolver::new(Arc::new(move |name: &str| {
            if name == "silent" {
                let _ = held.lock().recv();
            }
            Ok(vec![[192, 0, 2, 1].into()])
        }));
        let silent = tokio::spawn({
            let resolver = resolver.clone();
            async move { resolver.resolve("silent").await }
        });
        for _ in 0..100 {
            assert!(resolver.resolve("quick").await.is_ok());
        }
        assert!(!silent.is_finished());
        drop(release);
        assert!(silent.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_name_asked_for_by_many_is_looked_up_once() {
        let count = Arc::new(AtomicUsize::new(0));
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Mutex::new(held);
        let resolver = Resolver::new(Arc::new({
            let count = count.clone();
            move |_: &str| {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = held.lock().recv();
                Ok(vec![[192, 0, 2, 1].into()])
            }
        }));
        let all = futures_util::future::join_all((0..10).map(|_| resolver.resolve("one")));
        let (answers, ()) = tokio::join!(all, async { drop(release) });
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_name_without_addresses_and_one_whose_look_up_panics_are_errors() {
        let resolver = Resolver::new(Arc::new(|name: &str| {
            assert_ne!(name, "panic");
            Ok(Vec::new())
        }));
        assert!(resolver.resolve("nothing").await.is_err());
        assert!(resolver.resolve("panic").await.is_err());
        assert!(resolver.resolve("nothing").await.is_err());
    }
}
