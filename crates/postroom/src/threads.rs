//! The threads of a server: some for its callers, and the others for everything else.
//!
//! Threads of one pool take tasks from each other and wake each other for it. Two pools, which hand over a batch at a
//! time, do so less: an event costs a tenth less processor time (docs/adr/0017). And however much is to be delivered, who
//! calls does not wait for a thread.

use std::io;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::thread::available_parallelism;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::config::Roles;

/// How many threads each pool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    /// For connections of callers and their requests.
    callers: usize,
    /// For storage, deliveries and upkeep.
    rest: usize,
}

impl Threads {
    /// Half of the cores for each; whoever has little to do in a process with these roles leaves the cores to the other.
    #[must_use]
    pub fn of(roles: Roles) -> Self {
        Self::new(roles, available_parallelism().map_or(1, NonZero::get))
    }

    fn new(roles: Roles, cores: usize) -> Self {
        let serves = roles.receiver || roles.api;
        let callers = match (serves, roles.worker) {
            (true, true) => (cores / 2).max(1),
            (true, false) => cores,
            (false, _) => 1,
        };
        Self { callers, rest: if serves { cores.div_ceil(2) } else { cores } }
    }

    /// The pool for the rest, in which a server is opened and closed.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn rest(self) -> io::Result<Runtime> {
        Builder::new_multi_thread().worker_threads(self.rest).enable_all().build()
    }
}

/// The pool for callers. What still runs in it when this goes away is let go of.
pub struct Callers {
    handle: Handle,
    /// Taken only at the end.
    pool: Option<Runtime>,
}

impl Callers {
    /// Starts its threads.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start(threads: Threads) -> io::Result<Self> {
        let pool =
            Builder::new_multi_thread().worker_threads(threads.callers).thread_name("callers").enable_all().build()?;
        Ok(Self { handle: pool.handle().clone(), pool: Some(pool) })
    }

    /// Brings a listener here, so that its connections wake this pool's threads.
    ///
    /// # Errors
    /// When the system refuses to watch it.
    pub fn bring(&self, listener: TcpListener) -> io::Result<TcpListener> {
        let listener = listener.into_std()?;
        let _here = self.handle.enter();
        TcpListener::from_std(listener)
    }

    /// Runs it here; resolves when it has ended.
    pub async fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Err(ended) = self.handle.spawn(work).await
            && ended.is_panic()
        {
            resume_unwind(ended.into_panic());
        }
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        // Waiting for its threads is not allowed where this happens: inside the other pool.
        if let Some(pool) = self.pool.take() {
            pool.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Roles = Roles { receiver: true, api: true, worker: true };

    #[test]
    fn cores_are_shared_between_callers_and_the_rest() {
        let of = |roles, cores| {
            let Threads { callers, rest } = Threads::new(roles, cores);
            (callers, rest)
        };
        assert_eq!([1, 2, 3, 8].map(|cores| of(ALL, cores)), [(1, 1), (1, 1), (1, 2), (4, 4)]);
        let worker = Roles { receiver: false, api: false, worker: true };
        assert_eq!([1, 2, 8].map(|cores| of(worker, cores)), [(1, 1), (1, 2), (1, 8)]);
        let receiver = Roles { receiver: true, api: false, worker: false };
        assert_eq!([1, 2, 8].map(|cores| of(receiver, cores)), [(1, 1), (2, 1), (8, 4)]);
    }

    #[tokio::test]
    #[should_panic(expected = "a fault of the server")]
    async fn a_panic_of_what_serves_callers_is_one_of_the_server() {
        let callers = Callers::start(Threads { callers: 1, rest: 1 }).unwrap();
        callers.run(async { panic!("a fault of the server") }).await;
    }
}
