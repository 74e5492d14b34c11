//! What a person does to deliveries: retry, requeue, discard, replay. Each is one transaction that holds the rows it
//! decides on, so that two people, or a person and a worker, do not overwrite each other.

use std::collections::HashMap;

use postroom_domain::delivery::DeadReason;
use postroom_domain::{DeliveryId, EndpointId, EventId, Timestamp};
use tokio_postgres::Row;
use uuid::Uuid;

use super::Postgres;
use super::audit;
use super::convert::{at, get, id, small, uuid};
use super::pool::bind;
use super::reads::Desk;
use super::reads::exception;
use crate::api::{DeliveryView, EventView, TestEvent};
use crate::audit::Action;
use crate::engine::audit::Act;
use crate::engine::log::{EventRow, Exception, ExceptionState, Run};
use crate::engine::moves::{self, Again, Target};
use crate::worker::{DeliveryKey, EndpointKey};
use crate::{Actor, Error, Result, Scope};

/// By the unique index on (org, id).
const BY_ID: &str = "select endpoint, id, number, disabled_reason is not null, deleted_at is not null from endpoints \
     where org = $1 and id = any($2) and deleted_at is null";

/// By primary key.
const BY_KEY: &str = "select endpoint, id, number, disabled_reason is not null, deleted_at is not null from endpoints \
     where org = $1 and endpoint = any($2)";

/// By primary key. Whoever else wants to move this delivery waits.
const HOLD: &str = "select state, due_at, attempts, attempts_of_schedule, reason, since from exceptions \
     where org = $1 and endpoint = $2 and event = $3 and run = $4 for update";

/// By primary key.
const MOVE: &str = "update exceptions set state = $5, due_at = $6, attempts_of_schedule = $7, reason = $8, since = $9 \
     where org = $1 and endpoint = $2 and event = $3 and run = $4";

/// By primary key.
const LAST_RUNS: &str = "select endpoint, max(run) from replays where org = $1 and event = $2 and endpoint = any($3) \
     group by endpoint";

/// By primary key, in its order, so that two replays of one event wait for each other and never in a ring.
const ADD_RUNS: &str = "insert into replays (org, event, endpoint, run, created_at, actor) \
     select $1, $2, added.endpoint, added.run, $5, $6 from unnest($3, $4) as added (endpoint, run) \
     order by added.endpoint on conflict do nothing returning endpoint";

/// By primary key; writes the indexes of exceptions.
const ADD_WAITING: &str = "insert into exceptions \
     (org, endpoint, event, run, state, due_at, attempts, attempts_of_schedule, since) \
     select $1, added.endpoint, $2, added.run, 'waiting', $5, 0, 0, $5 from unnest($3, $4) as added (endpoint, run)";

/// How often a replay looks for a free run, while others replay the same event.
const TRIES: usize = 32;

impl Postgres {
    pub(in crate::postgres) async fn event_replay(
        &self,
        scope: &Scope,
        id: EventId,
        endpoints: Option<Vec<EndpointId>>,
        now: Timestamp,
    ) -> Result<Vec<DeliveryView>> {
        let desk = self.change_at(&self.0.pools.dead_letter, scope.org).await?;
        let replayed = self.replay(&desk, scope, id, endpoints, now).await;
        let (keys, views) = desk.end(replayed).await?;
        keys.into_iter().for_each(|endpoint| self.0.node.wake(endpoint, at(now)));
        Ok(views)
    }

    pub(in crate::postgres) async fn endpoint_test(
        &self,
        scope: &Scope,
        id: EndpointId,
        test: TestEvent,
        now: Timestamp,
    ) -> Result<EventView> {
        let desk = self.change_at(&self.0.pools.dead_letter, scope.org).await?;
        // Written before it is done: an event is recorded with others, and by another part.
        let asked = async {
            let endpoint = enabled_endpoint(&desk, id).await?;
            self.note(&desk, scope, Act::on(Action::EndpointTested, id), now).await?;
            Ok(endpoint)
        };
        let asked = asked.await;
        let endpoint = desk.end(asked).await?;
        let recorded = self.record_test(scope, endpoint, test, now).await?;
        self.event_get(scope, recorded.id).await
    }

    pub(in crate::postgres) async fn delivery_retry(
        &self,
        scope: &Scope,
        id: DeliveryId,
        now: Timestamp,
    ) -> Result<DeliveryView> {
        let desk = self.change_at(&self.0.pools.dead_letter, scope.org).await?;
        let moved = retry(&desk, id, now).await;
        self.moved(desk, moved, scope, Act::on(Action::DeliveryRetried, id), now).await
    }

    pub(in crate::postgres) async fn dead_letter_requeue(
        &self,
        scope: &Scope,
        id: DeliveryId,
        now: Timestamp,
    ) -> Result<DeliveryView> {
        let desk = self.change_at(&self.0.pools.dead_letter, scope.org).await?;
        let moved = requeue(&desk, id, now).await;
        self.moved(desk, moved, scope, Act::on(Action::DeadLetterRequeued, id), now).await
    }

    pub(in crate::postgres) async fn dead_letter_discard(
        &self,
        scope: &Scope,
        id: DeliveryId,
        now: Timestamp,
    ) -> Result<DeliveryView> {
        let desk = self.change_at(&self.0.pools.dead_letter, scope.org).await?;
        let moved = discard(&desk, id, now).await;
        self.moved(desk, moved, scope, Act::on(Action::DeadLetterDiscarded, id), now).await
    }

    /// Ends a move. Whoever makes the deliveries of the endpoint, here or elsewhere, looks at it.
    async fn moved(&self, desk: Desk, moved: Moved, scope: &Scope, act: Act, now: Timestamp) -> Result<DeliveryView> {
        let noted = match moved {
            Ok(moved) => self.note(&desk, scope, act, now).await.map(|()| moved),
            refused => refused,
        };
        let (endpoint, view) = desk.end(noted).await?;
        self.0.node.wake(endpoint, at(now));
        Ok(view)
    }

    async fn note(&self, desk: &Desk, scope: &Scope, act: Act, now: Timestamp) -> Result<()> {
        audit::write(&desk.transaction, &self.0.vault, scope.into(), act, now).await
    }

    async fn replay(
        &self,
        desk: &Desk,
        scope: &Scope,
        id: EventId,
        endpoints: Option<Vec<EndpointId>>,
        now: Timestamp,
    ) -> Result<(Vec<EndpointKey>, Vec<DeliveryView>)> {
        let replayed = replay(desk, id, endpoints, scope.actor, now).await?;
        self.note(desk, scope, Act::on(Action::EventReplayed, id).deliveries(&replayed.1), now).await?;
        Ok(replayed)
    }
}

type Moved = Result<(EndpointKey, DeliveryView)>;

/// Tries a failed delivery now; a dead letter begins its schedule anew.
async fn retry(desk: &Desk, id: DeliveryId, now: Timestamp) -> Moved {
    let (event, run) = desk.find_delivery(id).await?;
    let held = hold(desk, run.key).await?;
    let standing = desk.standings(&[run.key]).await?.pop().ok_or(Error::NotFound { kind: "delivery" })?;
    match moves::retry(standing.status(&*desk.handoff, run.key), held)? {
        Again::Anew(dead) => begin_anew(desk, &event, run, &dead, now).await,
        Again::Now(waiting) => {
            target(desk, run.key.endpoint).await?.check()?;
            put(desk, &event, run, &Exception { due_at: now, ..waiting }).await
        }
    }
}

/// A dead letter waits again.
async fn requeue(desk: &Desk, id: DeliveryId, now: Timestamp) -> Moved {
    let (event, run) = desk.find_delivery(id).await?;
    let dead = moves::dead_letter(hold(desk, run.key).await?)?;
    begin_anew(desk, &event, run, &dead, now).await
}

/// A dead letter is not needed any more.
async fn discard(desk: &Desk, id: DeliveryId, now: Timestamp) -> Moved {
    let (event, run) = desk.find_delivery(id).await?;
    let dead = moves::dead_letter(hold(desk, run.key).await?)?;
    let discarded = Exception { state: ExceptionState::Discarded, since: now, ..dead };
    put(desk, &event, run, &discarded).await
}

async fn begin_anew(desk: &Desk, event: &EventRow, run: Run, dead: &Exception, now: Timestamp) -> Moved {
    target(desk, run.key.endpoint).await?.check()?;
    let waiting = Exception { attempts: dead.attempts, ..Exception::untried(dead.org, now, now) };
    put(desk, event, run, &waiting).await
}

/// The exception of a delivery, held until the end of the transaction.
async fn hold(desk: &Desk, key: DeliveryKey) -> Result<Option<Exception>> {
    let row =
        desk.transaction.query_one(HOLD, bind![desk.org, key.endpoint.0, key.event.uuid(), i32::from(key.run)]).await?;
    row.map(|row| exception(&row, desk.org)).transpose()
}

async fn put(desk: &Desk, event: &EventRow, run: Run, after: &Exception) -> Moved {
    let DeliveryKey { event: key, endpoint, run: number } = run.key;
    let of_schedule = i32::try_from(after.attempts_of_schedule).unwrap_or(i32::MAX);
    desk.transaction
        .execute(
            MOVE,
            bind![
                desk.org,
                endpoint.0,
                key.uuid(),
                i32::from(number),
                after.state.as_str(),
                at(after.due_at),
                of_schedule,
                after.reason.map(DeadReason::as_str),
                at(after.since),
            ],
        )
        .await?;
    let view = desk.delivery_views([(event, run)]).await?.pop().ok_or(Error::NotFound { kind: "delivery" })?;
    Ok((endpoint, view))
}

/// Sends an event again: a new run for each endpoint, or for each it went to that is still there.
async fn replay(
    desk: &Desk,
    id: EventId,
    endpoints: Option<Vec<EndpointId>>,
    actor: Actor,
    now: Timestamp,
) -> Result<(Vec<EndpointKey>, Vec<DeliveryView>)> {
    let event = desk.event(id).await?.ok_or(Error::NotFound { kind: "event" })?;
    let targets = match endpoints {
        Some(ids) => named(desk, ids).await?,
        None => still_there(desk, &event).await?,
    };
    targets.iter().try_for_each(Target::check)?;
    let keys: Vec<EndpointKey> = targets.iter().map(|target| target.key).collect();
    let runs = new_runs(desk, &event, &keys, actor, now).await?;
    let endpoints: Vec<i64> = keys.iter().map(|key| key.0).collect();
    let numbers: Vec<i32> = runs.iter().map(|run| i32::from(run.key.run)).collect();
    desk.transaction.execute(ADD_WAITING, bind![desk.org, event.key.uuid(), endpoints, numbers, at(now)]).await?;
    let views = desk.delivery_views(runs.into_iter().map(|run| (&event, run))).await?;
    Ok((keys, views))
}

/// A new run for each of the endpoints, in their order.
async fn new_runs(
    desk: &Desk,
    event: &EventRow,
    endpoints: &[EndpointKey],
    actor: Actor,
    now: Timestamp,
) -> Result<Vec<Run>> {
    let mut made: HashMap<EndpointKey, u16> = HashMap::new();
    let event_id = event.key.uuid();
    for _ in 0..TRIES {
        let wanted: Vec<i64> = endpoints.iter().filter(|key| !made.contains_key(key)).map(|key| key.0).collect();
        if wanted.is_empty() {
            break;
        }
        let mut last: HashMap<i64, u16> = HashMap::new();
        for row in desk.transaction.query(LAST_RUNS, bind![desk.org, event_id, wanted.clone()]).await? {
            last.insert(get(&row, 0)?, small(&row, 1)?);
        }
        let next = |endpoint: &i64| moves::next_run(last.get(endpoint).copied().unwrap_or(0));
        let runs: Vec<u16> = wanted.iter().map(next).collect::<Result<_>>()?;
        let numbers: Vec<i32> = runs.iter().map(|run| i32::from(*run)).collect();
        let by_endpoint: HashMap<i64, u16> = wanted.iter().copied().zip(runs).collect();
        // A run that somebody else made meanwhile is left to them.
        for row in desk
            .transaction
            .query(ADD_RUNS, bind![desk.org, event_id, wanted, numbers, at(now), actor.to_string()])
            .await?
        {
            let endpoint: i64 = get(&row, 0)?;
            made.extend(by_endpoint.get(&endpoint).map(|run| (EndpointKey(endpoint), *run)));
        }
    }
    let run = |endpoint: &EndpointKey| {
        let run = *made.get(endpoint).ok_or(Error::Overloaded)?;
        Ok(Run {
            key: DeliveryKey { event: event.key, endpoint: *endpoint, run },
            created_at: now,
            created_by: Some(actor.to_string()),
        })
    };
    endpoints.iter().map(run).collect()
}

/// An endpoint of the organization that gets deliveries.
async fn enabled_endpoint(desk: &Desk, id: EndpointId) -> Result<EndpointKey> {
    let target = named(desk, vec![id]).await?.pop().ok_or(Error::NotFound { kind: "endpoint" })?;
    target.check().map(|()| target.key)
}

async fn target(desk: &Desk, key: EndpointKey) -> Result<Target> {
    desk.transaction.expect("endpoint", BY_KEY, bind![desk.org, vec![key.0]]).await.and_then(|row| read(&row))
}

/// Each of the endpoints once, in the order in which they were named.
async fn named(desk: &Desk, ids: Vec<EndpointId>) -> Result<Vec<Target>> {
    let all: Vec<Uuid> = ids.iter().map(|id| uuid(id.to_bytes())).collect();
    let rows = desk.transaction.query(BY_ID, bind![desk.org, all]).await?;
    let found: Vec<Target> = rows.iter().map(read).collect::<Result<_>>()?;
    let mut found: HashMap<EndpointId, Target> = found.into_iter().map(|target| (target.id, target)).collect();
    if ids.iter().any(|id| !found.contains_key(id)) {
        return Err(Error::NotFound { kind: "endpoint" });
    }
    Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
}

async fn still_there(desk: &Desk, event: &EventRow) -> Result<Vec<Target>> {
    let rows = desk.transaction.query(BY_KEY, bind![desk.org, event.targets.clone()]).await?;
    let targets: Vec<Target> = rows.iter().map(read).collect::<Result<_>>()?;
    let mut targets: Vec<Target> = targets.into_iter().filter(|target| !target.is_deleted).collect();
    let place = |target: &Target| event.targets.iter().position(|endpoint| *endpoint == target.key.0);
    targets.sort_by_key(place);
    if targets.is_empty() { Err(moves::no_endpoints()) } else { Ok(targets) }
}

/// From the columns of [`BY_ID`].
fn read(row: &Row) -> Result<Target> {
    Ok(Target {
        key: EndpointKey(get(row, 0)?),
        id: EndpointId::from_bytes(id(row, 1)?),
        number: small(row, 2)?,
        is_disabled: get(row, 3)?,
        is_deleted: get(row, 4)?,
    })
}
