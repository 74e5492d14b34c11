//! What a person does to deliveries: retry, requeue, discard, replay, test. Each runs inside the writer, so that what it
//! finds is still so when it changes it.

use postroom_domain::{DeliveryId, EndpointId, EventId, Timestamp};
use rusqlite::Row;

use super::audit;
use super::connection::Connection;
use super::exceptions;
use super::reads::delivery;
use super::reads::event;
use super::rows;
use super::writer::Effects;
use crate::api::DeliveryView;
use crate::audit::Action;
use crate::engine::audit::Act;
use crate::engine::log::{EventRow, Exception, ExceptionState};
use crate::engine::moves::{self, Again, Target};
use crate::engine::vault::Vault;
use crate::worker::{DeliveryKey, EndpointKey};
use crate::{Handoff, Result, Scope};

/// By the unique index on id.
const BY_ID: &str = "select endpoint, id, number, disabled_reason is not null, deleted_at is not null from endpoint \
     where id = ?2 and org = ?1 and deleted_at is null";

/// By primary key.
const BY_KEY: &str = "select endpoint, id, number, disabled_reason is not null, deleted_at is not null from endpoint \
     where endpoint = ?2 and org = ?1";

/// Primary key of replay.
const LAST_RUN: &str = "select coalesce(max(run), 0) from replay where event = ?1 and endpoint = ?2";

/// Primary key of replay.
const ADD_RUN: &str = "insert into replay (event, endpoint, run, created_at, actor) values (?1, ?2, ?3, ?4, ?5)";

/// Primary key of delivery_by_endpoint.
const LIST_RUN: &str = "insert into delivery_by_endpoint (endpoint, event, run) values (?1, ?2, ?3)";

/// One organization's deliveries, inside a transaction of the writer.
pub(super) struct Moves<'a> {
    pub(super) connection: &'a Connection,
    pub(super) effects: &'a mut Effects,
    pub(super) handoff: &'a dyn Handoff,
    pub(super) vault: &'a Vault,
    pub(super) scope: &'a Scope,
    pub(super) now: Timestamp,
}

/// From the columns of [`BY_ID`].
fn read(row: &Row<'_>) -> rusqlite::Result<Target> {
    Ok(Target {
        key: EndpointKey(row.get(0)?),
        id: EndpointId::from_bytes(row.get(1)?),
        number: row.get(2)?,
        is_disabled: row.get(3)?,
        is_deleted: row.get(4)?,
    })
}

/// An endpoint of the organization that gets deliveries.
pub(super) fn enabled_endpoint(connection: &Connection, org: i64, id: EndpointId) -> Result<EndpointKey> {
    let target = rows::expect("endpoint", connection, BY_ID, &[&org, &id.to_bytes()], read)?;
    target.check().map(|()| target.key)
}

impl Moves<'_> {
    /// Tries a failed delivery now; a dead letter begins its schedule anew.
    pub(super) fn retry(&mut self, id: DeliveryId) -> Result<DeliveryView> {
        let key = delivery::key(self.connection, self.scope.org, id)?;
        let status = self.view(id)?.status;
        let view = match moves::retry(status, exceptions::find(self.connection, key)?)? {
            Again::Anew(dead) => self.begin_anew(id, key, &dead),
            Again::Now(waiting) => {
                self.target(key.endpoint)?.check()?;
                let due_now = Exception { due_at: self.now, ..waiting };
                self.put(id, key, ExceptionState::Waiting, &due_now)
            }
        }?;
        self.note(Act::on(Action::DeliveryRetried, id))?;
        Ok(view)
    }

    /// A dead letter waits again.
    pub(super) fn requeue(&mut self, id: DeliveryId) -> Result<DeliveryView> {
        let (key, dead) = self.dead_letter(id)?;
        self.note(Act::on(Action::DeadLetterRequeued, id))?;
        self.begin_anew(id, key, &dead)
    }

    /// A dead letter is not needed any more.
    pub(super) fn discard(&mut self, id: DeliveryId) -> Result<DeliveryView> {
        let (key, dead) = self.dead_letter(id)?;
        self.note(Act::on(Action::DeadLetterDiscarded, id))?;
        let discarded = Exception { state: ExceptionState::Discarded, since: self.now, ..dead };
        self.put(id, key, ExceptionState::DeadLetter, &discarded)
    }

    /// Sends an event again: a new run for each endpoint, or for each it went to that is still there.
    pub(super) fn replay(&mut self, id: EventId, endpoints: Option<Vec<EndpointId>>) -> Result<Vec<DeliveryView>> {
        let event = event::find(self.connection, self.scope.org, id)?;
        let targets = match endpoints {
            Some(ids) => self.named(ids)?,
            None => self.still_there(&event)?,
        };
        let mut views = Vec::with_capacity(targets.len());
        for target in targets {
            target.check()?;
            let run = self.new_run(&event, target.key)?;
            let key = DeliveryKey { event: event.key, endpoint: target.key, run };
            let waiting = Exception::untried(self.scope.org, self.now, self.now);
            exceptions::put(self.connection, self.effects, key, None, &waiting)?;
            self.effects.wake(target.key);
            views.push(self.view(DeliveryId { event: id, endpoint_number: target.number, run })?);
        }
        self.note(Act::on(Action::EventReplayed, id).deliveries(&views))?;
        Ok(views)
    }

    fn note(&self, act: Act) -> Result<()> {
        audit::write(self.connection, self.vault, self.scope.into(), act, self.now)
    }

    fn dead_letter(&self, id: DeliveryId) -> Result<(DeliveryKey, Exception)> {
        let key = delivery::key(self.connection, self.scope.org, id)?;
        Ok((key, moves::dead_letter(exceptions::find(self.connection, key)?)?))
    }

    fn begin_anew(&mut self, id: DeliveryId, key: DeliveryKey, dead: &Exception) -> Result<DeliveryView> {
        self.target(key.endpoint)?.check()?;
        let waiting = Exception { attempts: dead.attempts, ..Exception::untried(dead.org, self.now, self.now) };
        self.put(id, key, ExceptionState::DeadLetter, &waiting)
    }

    fn put(
        &mut self,
        id: DeliveryId,
        key: DeliveryKey,
        before: ExceptionState,
        after: &Exception,
    ) -> Result<DeliveryView> {
        exceptions::put(self.connection, self.effects, key, Some(before), after)?;
        self.effects.wake(key.endpoint);
        self.view(id)
    }

    fn view(&self, id: DeliveryId) -> Result<DeliveryView> {
        delivery::view(self.connection, self.handoff, self.scope.org, id)
    }

    fn target(&self, key: EndpointKey) -> Result<Target> {
        rows::expect("endpoint", self.connection, BY_KEY, &[&self.scope.org, &key.0], read)
    }

    fn named(&self, ids: Vec<EndpointId>) -> Result<Vec<Target>> {
        let mut targets: Vec<Target> = Vec::with_capacity(ids.len());
        for id in ids {
            let target = rows::expect("endpoint", self.connection, BY_ID, &[&self.scope.org, &id.to_bytes()], read)?;
            if !targets.iter().any(|known| known.key == target.key) {
                targets.push(target);
            }
        }
        Ok(targets)
    }

    fn still_there(&self, event: &EventRow) -> Result<Vec<Target>> {
        let mut targets = Vec::with_capacity(event.targets.len());
        for endpoint in &event.targets {
            let target = self.target(EndpointKey(*endpoint))?;
            if !target.is_deleted {
                targets.push(target);
            }
        }
        if targets.is_empty() {
            return Err(moves::no_endpoints());
        }
        Ok(targets)
    }

    fn new_run(&self, event: &EventRow, endpoint: EndpointKey) -> Result<u16> {
        let key = (event.key.seq(), endpoint.0);
        let last: u16 = self.connection.prepare_cached(LAST_RUN)?.query_row(key, |row| row.get(0))?;
        let run = moves::next_run(last)?;
        let values = (event.key.seq(), endpoint.0, run, self.now.as_millis(), self.scope.actor.to_string());
        self.connection.prepare_cached(ADD_RUN)?.execute(values)?;
        self.connection.prepare_cached(LIST_RUN)?.execute((endpoint.0, event.key.seq(), run))?;
        Ok(run)
    }
}
