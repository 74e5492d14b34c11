//! The work behind asking for a link, apart from the request: whether the address is known, and how long it takes to find
//! out, shows neither in the answer nor in its time.

use std::sync::Arc;

use postroom_domain::Email;
use postroom_storage::scope::Origin;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::app::Shared;

/// Requests for links being worked off at one moment. More are dropped: who asked asks again.
const PLACES: usize = 256;

/// The requests for links that are being worked off.
pub(crate) struct Requests {
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    dropped: metrics::Counter,
}

impl Requests {
    /// `tasks` is waited for before storage is closed.
    pub fn new(tasks: TaskTracker) -> Self {
        let name = "postroom_sign_in_requests_dropped_total";
        metrics::describe_counter!(name, "Requests for sign-in links for which there was no place");
        Self { places: Arc::new(Semaphore::new(PLACES)), tasks, dropped: metrics::counter!(name) }
    }

    /// Takes a request in. Returns at once, whatever becomes of it.
    pub fn take(&self, state: &Shared, email: Email, from: Origin) {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.dropped.increment(1);
            return;
        };
        let state = state.clone();
        let work = async move {
            let _place = place;
            // What was found out stays here: a figure or a line for each outcome would tell who is known.
            if let Err(error) = state.app.storage.authorizer.sign_in_request(&email, &from, state.now()).await {
                tracing::warn!(error = %error, "a sign-in link could not be made");
            }
            state.app.mail_queued.notify_one();
        };
        self.tasks.spawn(work.in_current_span());
    }
}
