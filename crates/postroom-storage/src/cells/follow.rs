//! Follows the registry, and lets cells wake and sleep.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postroom_domain::Timestamp;
use tokio::time::MissedTickBehavior;
use tracing::warn;

use super::place::Place;
use super::{Cells, leaving};

/// How often the registry is asked whether it has changed.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How often all cells are looked at, though it has not.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A cell nobody asks anything of sleeps after this.
const IDLE: Duration = Duration::from_secs(5 * 60);
/// A cell that slept for so long is woken: what is old in it has to go.
const ASLEEP_AT_MOST: Duration = Duration::from_secs(24 * 3600);
/// A cell in which something may wait is tried again after this when it could not be opened.
const FAILED_WAIT: Duration = Duration::from_secs(5);
/// How often it is said that the registry cannot be read.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Begins to follow, until the cells are closed or dropped. Cells in which something may wait are being opened when this
/// returns.
pub(super) fn start(cells: &Arc<Cells>) {
    look(cells);
    let (weak, stop) = (Arc::downgrade(cells), cells.stop.clone());
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(ASK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut looked, mut said) = (Instant::now(), None::<Instant>);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let Some(cells) = weak.upgrade() else { return };
            let has_changed = cells.refresh().await.unwrap_or_else(|error| {
                if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
                    said = Some(Instant::now());
                    warn!(error = %error.chain(), "the registry of databases cannot be read, trying again");
                }
                false
            });
            leaving::go_on(&cells);
            if has_changed || looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                look(&cells);
            }
        }
    });
}

/// Looks at every cell; what there is to do is done in the background.
fn look(cells: &Arc<Cells>) {
    let now = cells.clock.now();
    for place in cells.map().all() {
        if place.opened().is_some() {
            tend(cells, place, now);
        } else if cells.delivers && cells.map().move_of(place.organization).is_none() {
            let has_slept_long = place.asleep_since().is_some_and(|since| now.since(since) >= ASLEEP_AT_MOST);
            if place.is_called() || has_slept_long {
                place.begin(cells, FAILED_WAIT);
            }
        }
    }
}

/// An open cell: its copy of the organization is mended if it is not that of now, and it sleeps if nobody uses it.
fn tend(cells: &Arc<Cells>, place: &Arc<Place>, now: Timestamp) {
    let (cells, place) = (cells.clone(), place.clone());
    let is_behind = place.opened().is_some_and(|open| *open.copied.lock() != place.row().updated_at);
    let before = now - IDLE;
    if !is_behind && !place.is_unused_since(before) {
        return;
    }
    tokio::spawn(async move {
        if let Some(open) = place.opened().filter(|_| is_behind)
            && let Err(error) = cells.copy_organization(&open, place.org).await
        {
            place.say("could not be told what was changed of its organization, and will be", &error.chain());
        }
        place.sleep(&cells, before).await;
    });
}
