//! Lets go of organizations that are being moved: whoever asks for one is told to try again, what is under way for it
//! ends, and what is in memory of it becomes exceptions. Then whoever moves it is told so, in the registry.
//!
//! Nothing here is waited for: each is looked at again and again until it is let go of, and as long as it is being moved.
//! One that this process holds for long is named in its log.
//! How it is made sure that a process which has not heard of it does no harm is the engine's business.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tracing::{debug, warn};
use uuid::Uuid;

use super::Cells;
use super::registry::Moving;
use crate::copy;
use crate::error::TenantUnavailable;
use crate::worker::OrganizationKey;
use crate::{Error, Result};

/// How long an organization that is being moved is held before that is said: most attempts have ended by then.
const SAY_AFTER: Duration = Duration::from_secs(5);

/// Calls under way, by what each holds: the token of its time.
#[derive(Default)]
pub(super) struct Calls {
    now: Arc<()>,
    before: Vec<Weak<()>>,
}

impl Calls {
    /// What a call holds, taken before it looks where to go.
    pub(super) fn token(&self) -> Arc<()> {
        self.now.clone()
    }

    /// From here on it is asked whether the calls that have begun by now have ended.
    pub(super) fn turn(&mut self) {
        self.before.push(Arc::downgrade(&std::mem::take(&mut self.now)));
    }

    fn have_ended(&mut self) -> bool {
        self.before.retain(|token| token.strong_count() > 0);
        self.before.is_empty()
    }
}

/// Since when organizations that are being moved are held here, by their moves.
#[derive(Default)]
pub(super) struct Held(HashMap<Uuid, Hold>);

struct Hold {
    since: Instant,
    /// It was let go of, or it was said that it was not.
    is_settled: bool,
}

impl Held {
    /// Tells the operator of those that are held for long, of each once.
    fn tell(&mut self, moving: &[Moving]) {
        self.0.retain(|id, _| moving.iter().any(|moving| moving.id == *id));
        for moving in moving {
            let hold = self.0.entry(moving.id).or_insert_with(|| Hold { since: Instant::now(), is_settled: false });
            if !hold.is_settled && hold.since.elapsed() >= SAY_AFTER {
                hold.is_settled = true;
                let (id, patience) = (moving.organization, copy::PATIENCE.as_secs());
                warn!(organization.id = %id, "the move of organization {id} waits for this process: requests for it and its deliveries that are under way here end first, an attempt within 30 s; if it waits for {patience} s, nothing is moved");
            }
        }
    }

    fn settle(&mut self, moving: &Moving) {
        self.0.entry(moving.id).and_modify(|hold| hold.is_settled = true);
    }
}

/// Goes on with letting go, unless somebody is at it.
pub(super) fn go_on(cells: &Arc<Cells>) {
    let map = cells.map();
    cells.held.lock().tell(map.moving());
    if map.moving().is_empty() {
        return;
    }
    let cells = cells.clone();
    tokio::spawn(async move {
        let Ok(_one_at_a_time) = cells.leaving.try_lock() else { return };
        for moving in cells.map().moving() {
            match cells.let_go(moving).await {
                Ok(true) => cells.held.lock().settle(moving),
                Ok(false) => {}
                Err(error) => {
                    debug!(organization.id = %moving.organization, error = %error.chain(), "an organization that is being moved is not let go of yet");
                }
            }
        }
    });
}

impl Cells {
    /// Returns whether nothing of it is held here any more.
    async fn let_go(self: &Arc<Self>, moving: &Moving) -> Result<bool> {
        let place = self.of(moving.organization);
        if let Some(open) = place.as_ref().and_then(|place| place.opened()) {
            open.upkeep.let_go(moving.org);
        }
        if !self.calls.lock().have_ended() || self.handoff.is_busy(OrganizationKey(moving.org)) {
            return Ok(false);
        }
        if let Some(place) = place
            && !place.leave(self).await
        {
            return Ok(false);
        }
        self.registry.let_go(moving).await
    }
}

/// What a caller is told meanwhile.
pub(super) fn unavailable(moving: &Moving) -> Error {
    let reason = "it is being moved into another one".to_owned();
    Error::Unavailable(TenantUnavailable { organization: moving.organization, reason }.into())
}
