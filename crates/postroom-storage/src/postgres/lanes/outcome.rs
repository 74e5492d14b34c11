//! The lane for what became of deliveries: attempts are appended, exceptions written, moved and deleted.
//!
//! It keeps some time between two statements, so that one serves many: nobody waits for an outcome but the place it takes
//! in memory.
//! Everything it does can be done twice with the same result, so whoever lost an answer asks again.
//!
//! It also writes a row for each delivery that is in memory for too long, so that the node's watermark moves. Whoever
//! has it in memory goes on; the row is due only after an attempt that began now would have ended. What is in memory of an
//! organization that is being moved gets such rows at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use foldhash::HashSet;
use postroom_domain::Timestamp;
use postroom_domain::delivery::{AttemptError, DeadReason};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::line::{Fault, Line};
use super::{BATCH_BYTES, BATCH_EVENTS, RECONNECT, Reply, Settings, TRIES, gone};
use crate::engine::record::{SETTLEMENTS, Settle};
use crate::postgres::convert::{MOVED, at};
use crate::postgres::door::Login;
use crate::postgres::node::Taken;
use crate::postgres::pool::{Bound, bind};
use crate::worker::{DeliveryKey, EndpointKey, Transition};
use crate::{Error, Result};

/// A statement is sent so long after the one before at the earliest, unless a full one waits: starting and committing one
/// costs as much as thirty attempts.
const PACE: Duration = Duration::from_millis(25);
/// After how long a delivery that is still in memory gets a row of its own.
const SLOW_AFTER: Duration = Duration::from_secs(10);
/// How many of those in one statement.
const SLOW_AT_ONCE: usize = 500;
/// How often those are looked for while nothing else happens.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Above so many, it is looked which deliveries without a known outcome are still in memory.
const UNSURE_MAX: usize = 10_000;

/// Appends attempts; `$again` says what becomes of those that are there already. Lists become rows in a list of
/// columns: as functions in a `from` each would be laid by first, at a thousand instructions for a value.
macro_rules! append {
    ($again:literal) => {
        concat!(
            "\
        insert into attempts (org, endpoint, event, run, id, tx, number, succeeded, status, error, duration_ms, \
            settled_at, url, response_headers, response_body) \
        select a.org, a.endpoint, a.event, a.run, a.id, (select txid_current()), a.number, a.succeeded, a.status, \
            a.error, a.duration_ms, $1, a.url, a.response_headers, a.response_body \
        from (select unnest($2) as org, unnest($3) as endpoint, unnest($4) as event, unnest($5) as run, \
            unnest($6) as id, unnest($7) as number, unnest($8) as succeeded, unnest($9) as status, \
            unnest($10) as error, unnest($11) as duration_ms, unnest($12) as url, \
            unnest($13) as response_headers, unnest($14) as response_body) as a ",
            $again
        )
    };
}

/// Appends attempts, and writes, moves and deletes exceptions.
macro_rules! write {
    ($again:literal) => {
        concat!(
            "with appended as ( ",
            append!($again),
            "), ended as ( \
        delete from exceptions using unnest($15, $16, $17, $18) as e (org, endpoint, event, run) \
        where exceptions.org = e.org and exceptions.endpoint = e.endpoint and exceptions.event = e.event \
            and exceptions.run = e.run \
    ), moved as ( \
        insert into exceptions as old (org, endpoint, event, run, state, due_at, attempts, attempts_of_schedule, \
            reason, since) \
        select m.org, m.endpoint, m.event, m.run, m.state, m.due_at, m.attempts, m.attempts_of_schedule, m.reason, $1 \
        from unnest($19, $20, $21, $22, $23, $24, $25, $26, $27, $28) as m (org, endpoint, event, run, state, due_at, \
            attempts, attempts_of_schedule, reason, in_memory) \
        where m.in_memory or not exists (select from attempts where attempts.org = m.org \
            and attempts.endpoint = m.endpoint and attempts.event = m.event and attempts.run = m.run \
            and attempts.succeeded) \
        order by m.org, m.endpoint, m.event, m.run \
        on conflict (org, endpoint, event, run) do update set \
            attempts = greatest(old.attempts, excluded.attempts), \
            attempts_of_schedule = case when old.state = 'waiting' and excluded.attempts >= old.attempts \
                then greatest(old.attempts_of_schedule, excluded.attempts_of_schedule) else old.attempts_of_schedule end, \
            state = case when old.state = 'waiting' and excluded.attempts >= old.attempts \
                then excluded.state else old.state end, \
            due_at = case when old.state = 'waiting' and excluded.attempts >= old.attempts \
                and excluded.state = 'waiting' then excluded.due_at else old.due_at end, \
            reason = case when old.state = 'waiting' and excluded.attempts >= old.attempts \
                then excluded.reason else old.reason end, \
            since = case when old.state = 'waiting' and excluded.attempts >= old.attempts \
                and excluded.state <> 'waiting' then excluded.since else old.since end \
    ), parked as ( \
        insert into exceptions (org, endpoint, event, run, state, due_at, attempts, attempts_of_schedule, since) \
        select p.org, p.endpoint, p.event, 0, 'waiting', p.due_at, 0, 0, $1 \
        from unnest($29, $30, $31, $32) as p (org, endpoint, event, due_at) \
        order by p.org, p.endpoint, p.event on conflict do nothing \
    ) select 1"
        )
    };
}

/// What a statement is sent for: the second when some of the attempts may be there already.
type Twice = [&'static str; 2];

/// By the primary keys of all three tables. A late failure brings nothing back that a success, a person or a rule has
/// ended, and the number of attempts only grows.
const WRITE: Twice = [write!(""), write!("on conflict do nothing")];

/// The same for deliveries that ended in memory, which nearly all do: to start what there is nothing to do for, on all
/// days' attempts at that, takes as long as to append.
const APPEND: Twice = [append!(""), append!("on conflict do nothing")];

/// How many of the values only attempts need.
const OF_ATTEMPTS: usize = 14;

enum Command {
    Settle {
        settle: Box<Settle>,
        reply: Reply<()>,
        permit: OwnedSemaphorePermit,
    },
    /// Say whether nothing of an organization is in memory, or taken from there and not yet stored.
    IsWithout(i64, oneshot::Sender<bool>),
    /// Finish what is queued, and end.
    Close(oneshot::Sender<()>),
}

/// The callers' end. A full queue makes them wait: who cannot record outcomes must not make more of them.
pub(super) struct Outcome {
    sender: UnboundedSender<Command>,
    places: Arc<Semaphore>,
}

/// Starts the lane.
pub(super) fn start(login: Login, settings: Arc<Settings>, stop: CancellationToken) -> Outcome {
    let (sender, inbox) = unbounded_channel();
    let lane = Lane {
        inbox,
        login,
        settings,
        line: None,
        used: Instant::now(),
        down_until: None,
        put_off: VecDeque::new(),
        unsure: HashSet::default(),
    };
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = lane.run() => {}
        }
    });
    Outcome { sender, places: Arc::new(Semaphore::new(SETTLEMENTS)) }
}

impl Outcome {
    pub(super) fn closed() -> Self {
        Self { sender: unbounded_channel().0, places: Arc::new(Semaphore::new(SETTLEMENTS)) }
    }

    pub(super) fn waiting(&self) -> usize {
        SETTLEMENTS.saturating_sub(self.places.available_permits())
    }

    pub(super) async fn settle(&self, settle: Settle) -> Result<()> {
        let permit = self.places.clone().acquire_many_owned(settle.weight()).await.map_err(gone)?;
        let (reply, answer) = oneshot::channel();
        self.send(Command::Settle { settle: Box::new(settle), reply, permit })?;
        answer.await.map_err(gone)?
    }

    pub(super) async fn is_without(&self, org: i64) -> Result<bool> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::IsWithout(org, reply))?;
        answer.await.map_err(gone)
    }

    pub(super) async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.send(Command::Close(reply)).is_ok() {
            let _ended_already = done.await;
        }
    }

    fn send(&self, command: Command) -> Result<()> {
        self.sender.send(command).map_err(|_| gone("the database was closed"))
    }
}

type Waiting = (Box<Settle>, Reply<()>, OwnedSemaphorePermit);

struct Lane {
    inbox: UnboundedReceiver<Command>,
    login: Login,
    settings: Arc<Settings>,
    line: Option<Line>,
    /// When the line was last asked for.
    used: Instant,
    /// Until then nobody is kept waiting for a connection.
    down_until: Option<Instant>,
    /// Of two settlements of one delivery, the second waits for the next statement.
    put_off: VecDeque<Waiting>,
    /// Deliveries in memory that may have a row all the same: the answer to the statement that wrote it was lost.
    unsure: HashSet<DeliveryKey>,
}

impl Lane {
    async fn run(mut self) {
        loop {
            let (waiting, closing) = self.gather().await;
            self.turn(waiting).await;
            if let Some(done) = closing {
                while !self.put_off.is_empty() {
                    let waiting = self.put_off.drain(..).collect();
                    let waiting = self.one_each(waiting);
                    self.turn(waiting).await;
                }
                let _caller_gone = done.send(());
                return;
            }
        }
    }

    /// What waits, up to the size of one statement. Empty after a while, so that slow deliveries are looked for.
    async fn gather(&mut self) -> (Vec<Waiting>, Option<oneshot::Sender<()>>) {
        let (mut waiting, mut bytes): (Vec<Waiting>, _) = (self.put_off.drain(..).collect(), 0);
        let mut closing = None;
        let mut next = match tokio::time::timeout(LOOK_EVERY, self.inbox.recv()).await {
            Ok(Some(command)) => Some(command),
            Ok(None) => return (waiting, Some(oneshot::channel().0)),
            Err(_nothing) => None,
        };
        let early = PACE.saturating_sub(self.used.elapsed());
        if next.is_some() && self.inbox.len() < BATCH_EVENTS && !early.is_zero() {
            tokio::time::sleep(early).await;
        }
        while let Some(command) = next {
            match command {
                Command::Close(done) => {
                    closing = Some(done);
                    break;
                }
                Command::IsWithout(org, reply) => _ = reply.send(self.settings.node.is_without(org)),
                Command::Settle { settle, reply, permit } => {
                    bytes += settle.bytes();
                    waiting.push((settle, reply, permit));
                }
            }
            let full = waiting.len() >= BATCH_EVENTS || bytes >= BATCH_BYTES;
            next = if full { None } else { self.inbox.try_recv().ok() };
        }
        (self.one_each(waiting), closing)
    }

    fn one_each(&mut self, all: Vec<Waiting>) -> Vec<Waiting> {
        let mut seen = HashSet::with_capacity_and_hasher(all.len(), <_>::default());
        let (now, later) = all.into_iter().partition(|(settle, _, _)| seen.insert(settle.delivery));
        let later: Vec<Waiting> = later;
        self.put_off.extend(later);
        now
    }

    async fn turn(&mut self, waiting: Vec<Waiting>) {
        let now = self.settings.clock.now();
        let node = self.settings.node.clone();
        let taken: Vec<Option<Taken>> = waiting.iter().map(|(settle, _, _)| node.take(settle.delivery)).collect();
        let mut slow = node.take_older_than((now - SLOW_AFTER).as_millis(), now.as_millis(), SLOW_AT_ONCE);
        slow.extend(node.take_away(SLOW_AT_ONCE));
        if waiting.is_empty() && slow.is_empty() {
            if self.settings.budget.as_ref().is_some_and(|budget| budget.is_over(self.used.elapsed())) {
                self.line = None;
            }
            return;
        }
        let mut values = Values::default();
        let is_alive = node.identity().is_some();
        for ((settle, _, _), taken) in waiting.iter().zip(&taken) {
            let in_memory = is_alive && taken.is_some() && !self.unsure.contains(&settle.delivery);
            values.add(settle, in_memory, now);
        }
        for one in &slow {
            values.park(*one, self.due_again(*one, now));
        }
        match self.write(&values, now).await {
            Ok(()) => {
                for taken in taken.into_iter().flatten().chain(slow) {
                    self.unsure.remove(&taken.delivery());
                    node.settled(taken);
                }
                values.wakes().into_iter().for_each(|(endpoint, due)| node.wake(endpoint, due));
                for (settle, reply, _) in waiting {
                    node.ended(settle.delivery);
                    let _caller_gone = reply.send(Ok(()));
                }
            }
            Err(fault) => {
                if self.unsure.len() > UNSURE_MAX {
                    self.unsure.retain(|delivery| node.has_in_memory(*delivery));
                }
                // Unknown counts as not settled: it is asked for again, and can be done twice.
                for taken in taken.into_iter().flatten().chain(slow) {
                    if matches!(fault, Fault::Lost(_)) {
                        self.unsure.insert(taken.delivery());
                    }
                    node.put_back(taken);
                }
                self.failed(waiting, fault).await;
            }
        }
    }

    /// When somebody else may make a delivery that is in memory here: at once if it is not begun and will not be.
    fn due_again(&self, taken: Taken, now: Timestamp) -> Timestamp {
        let delivery = taken.delivery();
        let is_let_go = self.settings.node.is_away(taken.org()) && !self.settings.handoff.is_processing(delivery);
        if is_let_go { now } else { now + self.settings.attempt_timeout(delivery.endpoint) }
    }

    async fn failed(&mut self, waiting: Vec<Waiting>, fault: Fault) {
        // The partition of an event is gone, and with it the event, or its organization has moved away while this node was
        // thought dead: only its own settlement has to fail.
        if fault.is(&SqlState::CHECK_VIOLATION) || fault.is(&SqlState::from_code(MOVED)) {
            if waiting.len() > 1 {
                for one in waiting {
                    Box::pin(self.turn(vec![one])).await;
                }
            } else {
                for (_, reply, _) in waiting {
                    let _caller_gone = reply.send(Err(Error::NotFound { kind: "event" }));
                }
            }
            return;
        }
        if matches!(fault, Fault::Lost(_)) {
            self.line = None;
        }
        let error = fault.into_error();
        tracing::debug!(error = %error.chain(), "outcomes could not be stored; they are asked for again");
        for (_, reply, _) in waiting {
            let _caller_gone = reply.send(Err(error.again()));
        }
    }

    async fn write(&mut self, values: &Values<'_>, now: Timestamp) -> Result<(), Fault> {
        self.used = Instant::now();
        if self.line.as_ref().is_none_or(Line::is_gone) {
            if self.down_until.is_some_and(|until| Instant::now() < until) {
                return Err(Fault::Lost(gone("the database does not answer")));
            }
            let connected = Line::connect(&self.login).await;
            self.down_until = connected.is_err().then(|| Instant::now() + RECONNECT);
            self.line = Some(connected.map_err(Fault::Lost)?);
        }
        let Some(line) = &self.line else { return Err(Fault::Lost(gone("there is no connection"))) };
        let (mut tries, mut again) = (0, false);
        loop {
            tries += 1;
            match values.write(line, again, now).await {
                // What was stored by a statement whose answer was lost is asked for again.
                Err(fault) if fault.is(&SqlState::UNIQUE_VIOLATION) && tries < TRIES => again = true,
                Err(fault) if fault.is_conflict() && tries < TRIES => {}
                written => return written,
            }
        }
    }
}

/// The columns of all three tables.
#[derive(Default)]
struct Values<'a> {
    attempts: Keys,
    ids: Vec<Uuid>,
    numbers: Vec<i32>,
    succeeded: Vec<bool>,
    statuses: Vec<Option<i16>>,
    errors: Vec<Option<&'static str>>,
    durations: Vec<i64>,
    urls: Vec<&'a str>,
    response_headers: Vec<Option<&'a [u8]>>,
    response_bodies: Vec<Option<&'a [u8]>>,
    ended: Keys,
    moved: Keys,
    states: Vec<&'static str>,
    due_at: Vec<SystemTime>,
    counts: Vec<i32>,
    counts_of_schedule: Vec<i32>,
    reasons: Vec<Option<&'static str>>,
    in_memory: Vec<bool>,
    parked: Keys,
    parked_until: Vec<SystemTime>,
}

/// Deliveries, by columns.
#[derive(Default)]
struct Keys {
    orgs: Vec<i64>,
    endpoints: Vec<i64>,
    events: Vec<Uuid>,
    runs: Vec<i32>,
}

impl Keys {
    fn push(&mut self, org: i64, delivery: DeliveryKey) {
        self.orgs.push(org);
        self.endpoints.push(delivery.endpoint.0);
        self.events.push(delivery.event.uuid());
        self.runs.push(i32::from(delivery.run));
    }
}

impl<'a> Values<'a> {
    fn add(&mut self, settle: &'a Settle, in_memory: bool, now: Timestamp) {
        self.append(settle);
        let (state, due_at, reason) = match settle.next {
            // What is only in memory has no row to be deleted.
            Transition::Done if in_memory => return,
            Transition::Done => return self.ended.push(settle.org, settle.delivery),
            Transition::Wait(due_at) => ("waiting", due_at, None),
            Transition::Dead(reason) => ("dead_letter", now, Some(DeadReason::as_str(reason))),
        };
        self.moved.push(settle.org, settle.delivery);
        self.states.push(state);
        self.due_at.push(at(due_at));
        self.counts.push(number(settle.attempts));
        self.counts_of_schedule.push(number(settle.attempts_of_schedule.unwrap_or(0)));
        self.reasons.push(reason);
        self.in_memory.push(in_memory);
    }

    fn append(&mut self, settle: &'a Settle) {
        let Some((attempt, headers)) = &settle.attempt else { return };
        self.attempts.push(settle.org, settle.delivery);
        self.ids.push(Uuid::from_bytes(attempt.id.to_bytes()));
        self.numbers.push(number(attempt.number));
        self.succeeded.push(settle.next == Transition::Done);
        let status = |response: &crate::worker::Response| i16::try_from(response.status).unwrap_or(i16::MAX);
        self.statuses.push(attempt.response.as_ref().map(status));
        self.errors.push(attempt.error.map(AttemptError::as_str));
        self.durations.push(i64::try_from(attempt.duration.as_millis()).unwrap_or(i64::MAX));
        self.urls.push(&attempt.url);
        self.response_headers.push(headers.as_deref());
        self.response_bodies.push(attempt.response.as_ref().map(|response| &*response.body));
    }

    fn park(&mut self, taken: Taken, until: Timestamp) {
        self.parked.push(taken.org(), taken.delivery());
        self.parked_until.push(at(until));
    }

    /// Endpoints with rows that wait now, and when the first of those is due.
    fn wakes(&self) -> BTreeMap<EndpointKey, SystemTime> {
        let moved = self.moved.endpoints.iter().zip(&self.due_at).zip(&self.states);
        let moved = moved.filter(|(_, state)| **state == "waiting").map(|(row, _)| row);
        let mut first = BTreeMap::new();
        for (endpoint, due) in moved.chain(self.parked.endpoints.iter().zip(&self.parked_until)) {
            let earliest = first.entry(EndpointKey(*endpoint)).or_insert(*due);
            *earliest = (*earliest).min(*due);
        }
        first
    }

    async fn write(&self, line: &Line, again: bool, now: Timestamp) -> Result<(), Fault> {
        let Self { attempts, ended, moved, parked, .. } = self;
        let now = at(now);
        let values: &[Bound<'_>] = bind![
            now,
            attempts.orgs,
            attempts.endpoints,
            attempts.events,
            attempts.runs,
            self.ids,
            self.numbers,
            self.succeeded,
            self.statuses,
            self.errors,
            self.durations,
            self.urls,
            self.response_headers,
            self.response_bodies,
            ended.orgs,
            ended.endpoints,
            ended.events,
            ended.runs,
            moved.orgs,
            moved.endpoints,
            moved.events,
            moved.runs,
            self.states,
            self.due_at,
            self.counts,
            self.counts_of_schedule,
            self.reasons,
            self.in_memory,
            parked.orgs,
            parked.endpoints,
            parked.events,
            self.parked_until,
        ];
        let only_attempts = [ended, moved, parked].into_iter().all(|keys| keys.orgs.is_empty());
        let (statements, values) = if only_attempts { (APPEND, &values[..OF_ATTEMPTS]) } else { (WRITE, values) };
        line.write(statements[usize::from(again)], values).await.map(drop)
    }
}

fn number(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
