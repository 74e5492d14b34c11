//! Tells streams what was committed: numbers of rows only, and to each organization its own. Whoever listens reads the
//! rows itself, so a stream costs the writer next to nothing, and nothing at all while nobody listens.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::broadcast;

use super::Mark;

/// How many items a stream may be behind.
const BEHIND: usize = 1_024;

/// A committed row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sqlite) enum Happened {
    /// An event, by its place in the log.
    Event(i64),
    /// An attempt, by its place in the log.
    Attempt(i64),
}

/// See the [module](self).
#[derive(Debug)]
pub(in crate::sqlite) struct Hub(Mutex<State>);

#[derive(Debug)]
struct State {
    /// The newest rows that were published.
    newest: Mark,
    listeners: HashMap<i64, broadcast::Sender<Happened>>,
    closed: bool,
}

impl Hub {
    /// Begins where the log ends.
    pub(in crate::sqlite) fn new(newest: Mark) -> Self {
        Self(Mutex::new(State { newest, listeners: HashMap::new(), closed: false }))
    }

    /// What one transaction of the writer appended, with whose it is, in order; called after the commit.
    pub(in crate::sqlite) fn publish(&self, rows: impl IntoIterator<Item = (i64, Happened)>) {
        let mut state = self.0.lock();
        for (org, row) in rows {
            state.newest.pass(row);
            let Some(listener) = state.listeners.get(&org) else { continue };
            if listener.send(row).is_err() {
                // The last one has gone.
                state.listeners.remove(&org);
            }
        }
    }

    /// What is published from now on, of one organization, and where that begins.
    pub(super) fn listen(&self, org: i64) -> (broadcast::Receiver<Happened>, Mark) {
        let mut state = self.0.lock();
        let receiver = if state.closed {
            broadcast::channel(1).1
        } else {
            state.listeners.entry(org).or_insert_with(|| broadcast::channel(BEHIND).0).subscribe()
        };
        (receiver, state.newest)
    }

    /// Streams end when they have shown what was published.
    pub(in crate::sqlite) fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.listeners.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_hears_its_own_organization_from_when_it_came_and_the_last_to_leave_is_forgotten() {
        let hub = Hub::new(Mark::default());
        hub.publish([(1, Happened::Event(1)), (1, Happened::Attempt(4))]);
        let (mut one, mark) = hub.listen(1);
        assert_eq!(mark, Mark { event: 1, attempt: 4 });
        hub.publish([(2, Happened::Event(2)), (1, Happened::Event(3))]);
        assert_eq!(one.try_recv(), Ok(Happened::Event(3)));
        assert!(one.try_recv().is_err());
        drop(one);
        hub.publish([(1, Happened::Event(4))]);
        assert!(hub.0.lock().listeners.is_empty());
    }

    #[test]
    fn a_closed_hub_ends_its_streams() {
        let hub = Hub::new(Mark::default());
        let (mut before, _) = hub.listen(1);
        hub.close();
        let (mut after, _) = hub.listen(1);
        assert_eq!(before.try_recv(), Err(broadcast::error::TryRecvError::Closed));
        assert_eq!(after.try_recv(), Err(broadcast::error::TryRecvError::Closed));
    }
}
