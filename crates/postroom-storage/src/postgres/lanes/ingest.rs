//! The lane for events: takes all that wait, writes them in one statement, hands over, and only then answers.
//!
//! What a batch changes in memory takes effect after the commit. When the server refuses a batch, nobody is acknowledged
//! and reservations are given back. When the answer is lost with the connection, the batch is in doubt: it is found out
//! what became of it before anything else is written ([`super::doubt`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::HashMap;
use parking_lot::Mutex;
use postroom_domain::{EventId, Timestamp};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::batch::{Batch, Entry, Waiting, Why, Written};
use super::doubt::{self, Found};
use super::line::{Fault, Line};
use super::{BATCH_BYTES, BATCH_EVENTS, RECONNECT, Settings, TRIES, counted, gone};
use crate::engine::ids::Ids;
use crate::engine::metrics::Metrics;
use crate::engine::places::Places;
use crate::engine::record::{Counting, Record};
use crate::postgres::convert::{at as moment, get, uuid};
use crate::postgres::door::Login;
use crate::postgres::node::Identity;
use crate::postgres::pool::bind;
use crate::receiver::Recorded;
use crate::{Error, Result};

/// Makes the partition that an event of this moment belongs in.
const MAKE_PARTITION: &str =
    "select make_partition((to_timestamp(($1 / 1000)::double precision) at time zone 'utc')::date)";

/// By the primary keys of both.
const FIRST: &str = "select asked.org, asked.hash, events.id, length(events.targets) / 4 \
     from unnest($1, $2) as asked (org, hash) join duplicate_guard using (org, hash) \
     join events on events.org = duplicate_guard.org and events.id = duplicate_guard.event";

/// How long after a duplicate it is looked for others before anything is written. To look costs the database
/// a third more; not to look costs a whole batch when there is one after all, and a line in the server's log.
const CAREFUL: Duration = Duration::from_secs(10);

/// How often it is looked whether a connection that is not used is to be given back.
const IDLE_LOOK: Duration = Duration::from_millis(500);

/// The most organizations of which it is remembered that they had all events of their month.
const EXHAUSTED_REMEMBERED: usize = 10_000;

enum Command {
    Record(Waiting),
    /// All of them, or none.
    RecordAll(Vec<Waiting>),
    /// Say when nothing of what came before is open.
    Flush(oneshot::Sender<()>),
    /// Finish what is queued, and end.
    Close(oneshot::Sender<()>),
}

/// Organizations that had all events of their month: its end, and their limit. What has no external id, and so can be no
/// duplicate, is refused without asking the database again.
type Exhausted = Arc<Mutex<HashMap<i64, (Timestamp, u64)>>>;

/// The callers' end.
pub(super) struct Ingest {
    sender: UnboundedSender<Command>,
    places: Places,
    exhausted: Exhausted,
}

/// Starts the lane.
pub(super) fn start(login: Login, settings: Arc<Settings>, metrics: Metrics, stop: CancellationToken) -> Ingest {
    let (sender, inbox) = unbounded_channel();
    let exhausted = Exhausted::default();
    let lane = Lane {
        inbox,
        login,
        settings,
        metrics,
        exhausted: exhausted.clone(),
        ids: Ids::after(None),
        line: None,
        down_until: None,
        careful_until: None,
        doubt: None,
        flushing: Vec::new(),
    };
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = lane.run() => {}
        }
    });
    Ingest { sender, places: Places::default(), exhausted }
}

impl Ingest {
    pub(super) fn closed() -> Self {
        Self { sender: unbounded_channel().0, places: Places::default(), exhausted: Exhausted::default() }
    }

    pub(super) fn waiting(&self) -> usize {
        self.places.taken()
    }

    pub(super) async fn record(&self, record: Record) -> Result<Recorded> {
        let (waiting, answer) = self.enter(record)?;
        self.send(Command::Record(waiting))?;
        answer.await.map_err(gone)?
    }

    pub(super) async fn record_all(&self, records: Vec<Record>) -> Result<Vec<Recorded>> {
        let waiting = records.into_iter().map(|record| self.enter(record));
        let (waiting, answers): (Vec<_>, Vec<_>) = waiting.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        self.send(Command::RecordAll(waiting))?;
        let mut recorded = Vec::with_capacity(answers.len());
        for answer in answers {
            recorded.push(answer.await.map_err(gone)??);
        }
        Ok(recorded)
    }

    fn enter(&self, record: Record) -> Result<(Waiting, oneshot::Receiver<Result<Recorded>>)> {
        self.refuse_exhausted(&record)?;
        let place = self.places.take(record.bytes())?;
        let (reply, answer) = oneshot::channel();
        Ok((Waiting { record: Box::new(record), reply, place, set: None }, answer))
    }

    pub(super) async fn flush(&self) -> Result<()> {
        let (reply, done) = oneshot::channel();
        self.send(Command::Flush(reply))?;
        done.await.map_err(gone)
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

    fn refuse_exhausted(&self, record: &Record) -> Result<()> {
        let Counting::Upto(Some(limit)) = record.count else { return Ok(()) };
        let known = self.exhausted.lock().get(&record.org).copied();
        match known {
            Some((resets_at, of)) if of == limit && record.guard.is_none() && record.received_at < resets_at => {
                Err(Error::LimitReached { limit, resets_at })
            }
            _ => Ok(()),
        }
    }
}

struct Lane {
    inbox: UnboundedReceiver<Command>,
    login: Login,
    settings: Arc<Settings>,
    metrics: Metrics,
    exhausted: Exhausted,
    ids: Ids,
    line: Option<Line>,
    /// Until then nobody is kept waiting for a connection.
    down_until: Option<Instant>,
    /// Until then duplicates are expected.
    careful_until: Option<Instant>,
    /// A batch whose answer was lost. Nobody waits for it any longer.
    doubt: Option<Batch>,
    /// Who waits until nothing is open.
    flushing: Vec<oneshot::Sender<()>>,
}

impl Lane {
    async fn run(mut self) {
        loop {
            let (waiting, closing) = self.gather().await;
            if !waiting.is_empty() || self.doubt.is_some() {
                self.turn(waiting).await;
            }
            if self.doubt.is_none() {
                self.flushing.drain(..).for_each(|done| _ = done.send(()));
            }
            if let Some(done) = closing {
                let _caller_gone = done.send(());
                return;
            }
        }
    }

    /// The next command. A connection that is not used for long is given back meanwhile.
    async fn next(&mut self) -> Option<Command> {
        let unused = Instant::now();
        // Looked at now and then: how soon depends on how many connections there are elsewhere.
        while let (Some(budget), Some(_)) = (&self.settings.budget, &self.line) {
            match tokio::time::timeout(IDLE_LOOK, self.inbox.recv()).await {
                Ok(next) => return next,
                Err(_nothing) if budget.is_over(unused.elapsed()) => self.line = None,
                Err(_nothing) => {}
            }
        }
        self.inbox.recv().await
    }

    /// Everything that waits, up to the size of one statement; waits for the first.
    async fn gather(&mut self) -> (Vec<Waiting>, Option<oneshot::Sender<()>>) {
        let (mut waiting, mut bytes) = (Vec::new(), 0);
        let mut next = if self.doubt.is_some() {
            tokio::time::timeout(RECONNECT, self.inbox.recv()).await.ok().flatten()
        } else {
            match self.next().await {
                Some(command) => Some(command),
                None => return (waiting, Some(oneshot::channel().0)),
            }
        };
        while let Some(command) = next {
            match command {
                Command::Close(done) => return (waiting, Some(done)),
                Command::Flush(done) => {
                    self.flushing.push(done);
                    return (waiting, None);
                }
                Command::Record(one) => {
                    bytes += one.record.body.len();
                    waiting.push(one);
                }
                Command::RecordAll(all) => {
                    bytes += all.iter().map(|one| one.record.body.len()).sum::<usize>();
                    let set = Some(waiting.len());
                    waiting.extend(all.into_iter().map(|one| Waiting { set, ..one }));
                }
            }
            let full = waiting.len() >= BATCH_EVENTS || bytes >= BATCH_BYTES;
            next = if full { None } else { self.inbox.try_recv().ok() };
        }
        (waiting, None)
    }

    /// One batch with all of `waiting`.
    async fn turn(&mut self, waiting: Vec<Waiting>) {
        if let Err(error) = self.connect().await {
            return self.refuse(waiting, &error);
        }
        let Some(by) = self.settings.node.identity() else {
            return self.refuse(waiting, &gone("this node has lost touch with the database"));
        };
        // Whoever has gone is told nothing any more, so nothing of theirs is stored. A set stays whole.
        let waiting: Vec<Waiting> =
            waiting.into_iter().filter(|one| one.set.is_some() || !one.reply.is_closed()).collect();
        if waiting.is_empty() {
            return;
        }
        let started = Instant::now();
        let batch = self.stage(waiting, by);
        // What was accepted while there was no limit is in the count that a limit is compared with.
        if let Err(error) = self.settings.node.count(&batch.limited()).await {
            return self.failed(batch, &error);
        }
        match self.write(&batch).await {
            Ok(Some(written)) => {
                self.metrics.commit_seconds.record(started.elapsed().as_secs_f64());
                self.committed(batch, written).await;
            }
            // Either this node is thought dead, or a lost statement of ours has moved the epoch after all.
            Ok(None) => self.in_doubt(batch, gone("this node is thought dead by the others")).await,
            Err(fault @ Fault::Refused(_)) => self.failed(batch, &fault.into_error()),
            Err(Fault::Lost(error)) => {
                self.line = None;
                self.in_doubt(batch, error).await;
            }
        }
    }

    /// Makes sure that there is a connection, and that no batch is in doubt.
    async fn connect(&mut self) -> Result<()> {
        if self.line.as_ref().is_some_and(|line| !line.is_gone()) && self.doubt.is_none() {
            return Ok(());
        }
        if self.down_until.is_some_and(|until| Instant::now() < until) {
            return Err(gone("the database does not answer"));
        }
        let connected = self.reconnect().await;
        self.down_until = connected.is_err().then(|| Instant::now() + RECONNECT);
        connected
    }

    async fn reconnect(&mut self) -> Result<()> {
        if self.line.as_ref().is_none_or(Line::is_gone) {
            self.line = None;
            self.line = Some(Line::connect(&self.login).await?);
        }
        if let Some(batch) = self.doubt.take() {
            self.in_doubt(batch, gone("the answer to a batch was lost")).await;
        }
        if self.doubt.is_some() { Err(gone("the database does not answer")) } else { Ok(()) }
    }

    /// Finds out what became of a batch, at once if that can be; otherwise whoever waits is told to try again, and it is
    /// found out before anything else is written.
    async fn in_doubt(&mut self, mut batch: Batch, error: Error) {
        let found = async {
            if self.line.is_none() {
                self.line = Some(Line::connect(&self.login).await?);
            }
            let line = self.line.as_ref().ok_or_else(|| gone("there is no connection"))?;
            doubt::resolve(line, &batch).await.map_err(Fault::into_error)
        };
        match found.await {
            Ok(Found::Stored(written, epoch)) => {
                self.settings.node.moved_to(batch.by, epoch);
                self.committed(batch, written).await;
            }
            Ok(Found::Nothing(epoch)) => {
                self.settings.node.moved_to(batch.by, epoch);
                self.failed(batch, &error);
            }
            // Whoever recovers this node finds what is stored.
            Ok(Found::Dead) => {
                self.settings.node.fenced(batch.by);
                self.failed(batch, &error);
            }
            Err(again) => {
                self.line = None;
                self.down_until = Some(Instant::now() + RECONNECT);
                tracing::debug!(error = %again, "what became of a batch is not known yet");
                answer_all(&mut batch, &error);
                self.doubt = Some(batch);
            }
        }
    }

    /// Gives every event its id, and every delivery its place.
    fn stage(&mut self, waiting: Vec<Waiting>, by: Identity) -> Batch {
        let now = self.settings.clock.now();
        let places = Batch::places(&waiting);
        let window = self.settings.dedupe_window;
        let oldest = waiting.iter().map(|one| one.record.received_at).min().unwrap_or(now);
        let floor = uuid(EventId::floor(oldest - window + Duration::from_millis(1)).to_bytes());
        let mut batch = Batch { by, now, entries: Vec::new(), followers: Vec::new(), floor };
        for (Waiting { record, reply, place, set }, before) in waiting.into_iter().zip(places) {
            if let Some(first) = before {
                batch.followers.push((first, reply, place));
                continue;
            }
            let bytes = record.body.len();
            let (memory, parked) =
                record.endpoints.iter().partition(|endpoint| self.settings.handoff.reserve(**endpoint, bytes));
            let id = self.ids.next(now);
            batch.entries.push(Entry { id, record, set, memory, parked, reply: Some(reply), place });
        }
        batch.level();
        batch
    }

    /// Sends a batch; `None` if it was not let in.
    async fn write(&mut self, batch: &Batch) -> Result<Option<Written>, Fault> {
        let mut made_partition = false;
        let mut tries = 0;
        loop {
            let fault = match self.write_once(batch).await {
                Err(fault) => fault,
                Ok(written) => {
                    let is_duplicate = |why: &Why| matches!(why, Why::Duplicate);
                    if written.as_ref().is_some_and(|written| written.left_out.values().any(is_duplicate)) {
                        self.careful_until = Some(Instant::now() + CAREFUL);
                    }
                    return Ok(written);
                }
            };
            tries += 1;
            // A duplicate that was not expected; or, at the same moment, another node's first one.
            if fault.is(&SqlState::UNIQUE_VIOLATION) && tries < TRIES {
                self.careful_until = Some(Instant::now() + CAREFUL);
                continue;
            }
            let line = self.line()?;
            if fault.is(&SqlState::CHECK_VIOLATION) && !made_partition {
                made_partition = true;
                for millis in batch.days() {
                    line.query(MAKE_PARTITION, bind![millis]).await?;
                }
            } else if !fault.is_conflict() || tries >= TRIES {
                return Err(fault);
            }
        }
    }

    async fn write_once(&self, batch: &Batch) -> Result<Option<Written>, Fault> {
        let line = self.line()?;
        if !batch.limited().is_empty() {
            return counted::write(line, batch).await;
        }
        let guards = batch.guards(self.careful_until.is_some_and(|until| Instant::now() < until));
        let values = batch.values(&guards, &HashMap::default());
        let answer = values.write(line, batch, &guards, &<_>::default()).await?;
        Ok(answer.is_alive.then(|| {
            let duplicates = answer.guarded.map(|guarded| batch.duplicates(&guarded)).unwrap_or_default();
            let left_out = duplicates.into_iter().map(|place| (place, Why::Duplicate));
            Written { tx: answer.tx, left_out: left_out.collect() }
        }))
    }

    fn line(&self) -> Result<&Line, Fault> {
        self.line.as_ref().ok_or_else(|| Fault::Lost(gone("there is no connection")))
    }

    /// Enters a stored batch into the books, hands over, and answers.
    async fn committed(&mut self, batch: Batch, written: Written) {
        let answers = self.answers(&batch, &written).await;
        let is_ours = self.enter(&batch, &written);
        let handoff = &*self.settings.handoff;
        let Batch { entries, followers, now, .. } = batch;
        let followers: Vec<_> = followers
            .into_iter()
            .map(|(first, reply, place)| (Some(reply), place, follow(answers.get(first))))
            .collect();
        let (mut replies, mut wake) = (Vec::with_capacity(entries.len()), Vec::new());
        // Handed over before anybody is answered: who was acknowledged finds the delivery under way.
        for (at, (mut entry, answer)) in entries.into_iter().zip(answers).enumerate() {
            let is_stored = !written.left_out.contains_key(&at);
            if is_stored {
                self.metrics.accepted(entry.record.source.is_some());
                wake.append(&mut entry.parked);
            }
            if !is_stored || !is_ours {
                entry.release(handoff);
            }
            let (reply, place) = entry.hand_over(handoff);
            replies.push((reply, place, answer));
        }
        wake.sort_unstable();
        wake.dedup();
        wake.into_iter().for_each(|endpoint| self.settings.node.wake(endpoint, moment(now)));
        for (reply, place, answer) in replies.into_iter().chain(followers) {
            self.metrics.answered(Some(&answer));
            drop(place);
            let _caller_gone = reply.map(|reply| reply.send(answer));
        }
    }

    /// Says whether the deliveries in memory are this node's to make: not when it was thought dead meanwhile, because
    /// then the others have found them.
    fn enter(&self, batch: &Batch, written: &Written) -> bool {
        let (month, _) = batch.now.month();
        let stored = || batch.stored(written);
        let events = stored().map(|entry| (entry.key(), entry.record.org, entry.memory.clone()));
        let counts = stored()
            .filter(|entry| matches!(entry.record.count, Counting::Upto(None)))
            .map(|entry| ((entry.record.org, month.as_millis()), 1));
        self.metrics.batch_events.record(f64::from(u32::try_from(stored().count()).unwrap_or(u32::MAX)));
        let at = batch.now.as_millis();
        self.settings.node.enter(batch.by, |ledger| ledger.push(written.tx, at, events, counts))
    }

    /// What each entry is answered, in order.
    async fn answers(&self, batch: &Batch, written: &Written) -> Vec<Result<Recorded>> {
        let firsts = self.firsts(batch, written).await;
        let (_, resets_at) = batch.now.month();
        let answer = |(at, entry): (usize, &Entry)| match written.left_out.get(&at) {
            None => Ok(entry.recorded()),
            Some(Why::Duplicate) => match &firsts {
                // A first one that retention has just taken: the sender's next try is a new event.
                Ok(firsts) => firsts.get(&at).copied().ok_or_else(|| gone("the first event of this id is going away")),
                Err(error) => Err(error.again()),
            },
            Some(Why::Over) => {
                let limit = entry.limit().unwrap_or_default();
                let mut exhausted = self.exhausted.lock();
                if exhausted.len() >= EXHAUSTED_REMEMBERED {
                    exhausted.clear();
                }
                exhausted.insert(entry.record.org, (resets_at, limit));
                Err(Error::LimitReached { limit, resets_at })
            }
            Some(Why::Unknown) => Err(gone("the answer of the database was lost")),
        };
        batch.entries.iter().enumerate().map(answer).collect()
    }

    /// The first events of those that are duplicates, by their places. A statement of its own, so that it sees what was
    /// committed meanwhile.
    async fn firsts(&self, batch: &Batch, written: &Written) -> Result<HashMap<usize, Recorded>> {
        let lost = written.left_out.iter().filter(|(_, why)| matches!(why, Why::Duplicate)).map(|(at, _)| *at);
        let asked: HashMap<(i64, Uuid), usize> =
            lost.filter_map(|at| Some((batch.entries.get(at)?.hash()?, at))).collect();
        if asked.is_empty() {
            return Ok(HashMap::default());
        }
        let (orgs, hashes): (Vec<i64>, Vec<Uuid>) = asked.keys().copied().unzip();
        let rows = self.line().map_err(Fault::into_error)?.query(FIRST, bind![orgs, hashes]).await;
        let mut firsts = HashMap::default();
        for row in rows.map_err(Fault::into_error)? {
            let Some(at) = asked.get(&(get(&row, 0)?, get(&row, 1)?)) else { continue };
            let id = EventId::from_bytes(get::<Uuid>(&row, 2)?.into_bytes());
            let deliveries = u32::try_from(get::<i32>(&row, 3)?).unwrap_or(0);
            firsts.insert(*at, Recorded { id, duplicate: true, deliveries });
        }
        Ok(firsts)
    }

    /// Nothing is stored: reservations are given back.
    fn failed(&self, mut batch: Batch, error: &Error) {
        for entry in &mut batch.entries {
            entry.release(&*self.settings.handoff);
        }
        tracing::warn!(error = %error.chain(), "a batch of events could not be stored; nobody was acknowledged");
        answer_all(&mut batch, error);
    }

    /// Nobody is kept waiting for a database that is away.
    fn refuse(&mut self, waiting: Vec<Waiting>, error: &Error) {
        for Waiting { reply, place, .. } in waiting {
            drop(place);
            let _caller_gone = reply.send(Err(error.again()));
        }
    }
}

/// What whoever sent the same id at the same moment is answered.
fn follow(first: Option<&Result<Recorded>>) -> Result<Recorded> {
    match first {
        Some(Ok(recorded)) => Ok(Recorded { duplicate: true, ..*recorded }),
        Some(Err(error)) => Err(error.again()),
        None => Err(gone("an event was not staged")),
    }
}

/// Answers everybody who still waits.
fn answer_all(batch: &mut Batch, error: &Error) {
    let replies = batch.entries.iter_mut().filter_map(|entry| entry.reply.take());
    for reply in replies.chain(std::mem::take(&mut batch.followers).into_iter().map(|(_, reply, _)| reply)) {
        let _caller_gone = reply.send(Err(error.again()));
    }
}
