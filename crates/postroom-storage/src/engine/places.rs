//! Places for events that wait to be written: bounded in number and in bytes. At the bound an event is refused, and its
//! sender tries again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{Error, Result};

/// The most events waiting.
const EVENTS: usize = 8_192;
/// The most bytes of events waiting.
const EVENT_BYTES: usize = 32 << 20;

/// Counts what waits and keeps it below the bounds.
#[derive(Debug, Default)]
pub(crate) struct Places(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    events: AtomicUsize,
    bytes: AtomicUsize,
}

/// One event's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    waiting: Arc<Waiting>,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.events.fetch_sub(1, Ordering::Relaxed);
        self.waiting.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Places {
    /// Events waiting now.
    pub(crate) fn taken(&self) -> usize {
        self.0.events.load(Ordering::Relaxed)
    }

    /// A place for an event of so many bytes, or [`Error::Overloaded`].
    pub(crate) fn take(&self, bytes: usize) -> Result<Place> {
        let place = Place { waiting: self.0.clone(), bytes };
        let events = self.0.events.fetch_add(1, Ordering::Relaxed);
        let waiting = self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        // One event always fits when nothing waits, whatever its size.
        let full = events >= EVENTS || (events > 0 && waiting + bytes > EVENT_BYTES);
        if full { Err(Error::Overloaded) } else { Ok(place) }
    }
}
