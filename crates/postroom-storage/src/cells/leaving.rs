//! Lets go of organizations that are being moved: whoever asks for one is told to try again, what is under way for it
//! ends, and what is in memory of it becomes exceptions. Then whoever moves it is told so, in the registry.
//!
//! Nothing here is waited for: each is looked at again and again until it is let go of, and as long as it is being moved.
//! How it is made sure that a process which has not heard of it does no harm is the engine's business.

use std::sync::{Arc, Weak};

use tracing::debug;

use super::Cells;
use super::registry::Moving;
use crate::error::TenantUnavailable;
use crate::worker::OrganizationKey;
use crate::{Error, Result};

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

/// Goes on with letting go, unless somebody is at it.
pub(super) fn go_on(cells: &Arc<Cells>) {
    if cells.map().moving().is_empty() {
        return;
    }
    let cells = cells.clone();
    tokio::spawn(async move {
        let Ok(_one_at_a_time) = cells.leaving.try_lock() else { return };
        for moving in cells.map().moving() {
            if let Err(error) = cells.let_go(moving).await {
                debug!(organization.id = %moving.organization, error = %error.chain(), "an organization that is being moved is not let go of yet");
            }
        }
    });
}

impl Cells {
    async fn let_go(self: &Arc<Self>, moving: &Moving) -> Result<()> {
        let place = self.of(moving.organization);
        if let Some(open) = place.as_ref().and_then(|place| place.opened()) {
            open.upkeep.let_go(moving.org);
        }
        if !self.calls.lock().have_ended() || self.handoff.is_busy(OrganizationKey(moving.org)) {
            return Ok(());
        }
        if let Some(place) = place
            && !place.leave(self).await
        {
            return Ok(());
        }
        self.registry.let_go(moving).await
    }
}

/// What a caller is told meanwhile.
pub(super) fn unavailable(moving: &Moving) -> Error {
    let reason = "it is being moved into another one".to_owned();
    Error::Unavailable(TenantUnavailable { organization: moving.organization, reason }.into())
}
