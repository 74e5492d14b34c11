//! How much is kept of requests that failed verification.

use std::collections::HashMap;

use parking_lot::Mutex;
use postroom_domain::Timestamp;

/// How many are kept of one source in a minute.
const A_MINUTE: u32 = 60;
/// How many are kept of one organization.
pub(crate) const KEPT: i64 = 1_000;
/// How many bytes of bodies are kept of one organization.
pub(crate) const KEPT_BYTES: i64 = 64 << 20;

/// How many requests of each source were kept in the current minute.
#[derive(Default)]
pub(crate) struct Rate(Mutex<(i64, HashMap<i64, u32>)>);

impl Rate {
    /// Whether one more may be kept. Counts it.
    pub(crate) fn admits(&self, source: i64, at: Timestamp) -> bool {
        let minute = at.as_seconds().div_euclid(60);
        let mut state = self.0.lock();
        if state.0 != minute {
            *state = (minute, HashMap::new());
        }
        let count = state.1.entry(source).or_default();
        *count += 1;
        *count <= A_MINUTE
    }
}
