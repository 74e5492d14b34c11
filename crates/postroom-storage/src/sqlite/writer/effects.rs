//! What follows from a transaction once it is committed, collected while it runs.

use crate::engine::log::ExceptionState;
use crate::worker::EndpointKey;

/// See the [module](self).
#[derive(Debug, Default)]
pub(in crate::sqlite) struct Effects {
    /// Endpoints whose exceptions were written or moved.
    wake: Vec<EndpointKey>,
    /// How the numbers of exceptions of an organization change.
    exceptions: Vec<(i64, ExceptionState, i64)>,
}

impl Effects {
    /// Delivery has to look at this endpoint's exceptions again.
    pub(in crate::sqlite) fn wake(&mut self, endpoint: EndpointKey) {
        if self.wake.last() != Some(&endpoint) {
            self.wake.push(endpoint);
        }
    }

    /// An exception came into a state, or left it.
    pub(in crate::sqlite) fn count(&mut self, org: i64, state: ExceptionState, by: i64) {
        self.exceptions.push((org, state, by));
    }

    /// Where a job begins.
    pub(super) fn mark(&self) -> (usize, usize) {
        (self.wake.len(), self.exceptions.len())
    }

    /// Undoes what a job added since its mark.
    pub(super) fn undo(&mut self, mark: (usize, usize)) {
        self.wake.truncate(mark.0);
        self.exceptions.truncate(mark.1);
    }

    /// Each endpoint to wake, once.
    pub(super) fn wakes(&mut self) -> Vec<EndpointKey> {
        let mut wake = std::mem::take(&mut self.wake);
        wake.sort_unstable();
        wake.dedup();
        wake
    }

    /// The changes of the numbers of exceptions.
    pub(super) fn counts(&self) -> &[(i64, ExceptionState, i64)] {
        &self.exceptions
    }
}
