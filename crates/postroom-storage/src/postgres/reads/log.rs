//! Rows of the log and what belongs to them, many at once.

use std::collections::HashMap;

use postroom_domain::{AttemptId, EndpointId, EventId, Timestamp};
use tokio_postgres::Row;
use uuid::Uuid;

use super::Desk;
use crate::Result;
use crate::engine::log::{EventRow, Exception, Newest, Run, Standing};
use crate::engine::packed::{broken, unpack_targets};
use crate::postgres::convert::{get, id, moment, small, word, word_or_none};
use crate::postgres::pool::bind;
use crate::worker::{DeliveryKey, EndpointKey, EventKey};

/// The columns of [`read`]. Neither headers nor payload are read.
macro_rules! select_event {
    ($rest:literal) => {
        concat!("select id, source, type, external_id, targets from events ", $rest)
    };
}
pub(super) use select_event;

/// By primary key.
const EVENTS: &str = select_event!("where org = $1 and id = any($2)");

/// By primary key.
const REPLAYS: &str = "select event, endpoint, run, created_at, actor from replays where org = $1 and event = any($2)";

/// By primary key of both, for each delivery; the ends of the events leave out all other partitions. Of attempts that
/// two nodes made at the same time a success counts, whenever it was recorded.
const STANDINGS: &str = "select exception.state, exception.due_at, exception.attempts, exception.attempts_of_schedule, \
     exception.reason, exception.since, \
     newest.id, newest.number, newest.succeeded, newest.status, newest.error \
     from unnest($2, $3, $4) with ordinality as wanted (endpoint, event, run, place) \
     left join lateral (select * from exceptions where org = $1 and endpoint = wanted.endpoint \
       and event = wanted.event and run = wanted.run limit 1) as exception on true \
     left join lateral (select id, number, succeeded, status, error from attempts where org = $1 \
       and endpoint = wanted.endpoint and event = wanted.event and run = wanted.run and event between $5 and $6 \
       order by succeeded desc, number desc, tx desc limit 1) as newest on true \
     order by wanted.place";

/// By primary key; deleted ones too.
const ENDPOINTS: &str = "select endpoint, id, number from endpoints where org = $1 and endpoint = any($2)";

/// From the columns of [`select_event`].
pub(super) fn read(row: &Row) -> Result<EventRow> {
    let id: Uuid = get(row, 0)?;
    Ok(EventRow {
        key: EventKey::from_uuid(id),
        id: EventId::from_bytes(id.into_bytes()),
        source: get(row, 1)?,
        event_type: get(row, 2)?,
        external_id: get(row, 3)?,
        targets: unpack_targets(get(row, 4)?).ok_or_else(|| broken("the targets of an event cannot be read"))?,
    })
}

/// The key of an event by its id.
pub(super) fn key(id: EventId) -> EventKey {
    EventKey::from_uuid(Uuid::from_bytes(id.to_bytes()))
}

impl Desk {
    /// An event of the organization.
    pub(in crate::postgres) async fn event(&self, id: EventId) -> Result<Option<EventRow>> {
        let key = key(id);
        Ok(self.events_at(&[key]).await?.remove(&key))
    }

    /// Those of the events that are still there.
    pub(super) async fn events_at(&self, keys: &[EventKey]) -> Result<HashMap<EventKey, EventRow>> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let ids: Vec<Uuid> = keys.iter().map(|key| key.uuid()).collect();
        let rows = self.transaction.query(EVENTS, bind![self.org, ids]).await?;
        rows.iter().map(|row| read(row).map(|event| (event.key, event))).collect()
    }

    /// All runs of each of the events, in the order of lists.
    pub(super) async fn runs<'a>(&self, events: impl IntoIterator<Item = &'a EventRow>) -> Result<Vec<Vec<Run>>> {
        let events: Vec<&EventRow> = events.into_iter().collect();
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = events.iter().map(|event| event.key.uuid()).collect();
        let mut replays: HashMap<EventKey, Vec<(i64, u16, Timestamp, String)>> = HashMap::new();
        for row in self.transaction.query(REPLAYS, bind![self.org, ids]).await? {
            let run = (get(&row, 1)?, small(&row, 2)?, moment(&row, 3)?, get(&row, 4)?);
            replays.entry(EventKey::from_uuid(get(&row, 0)?)).or_default().push(run);
        }
        Ok(events.into_iter().map(|event| event.runs(replays.remove(&event.key).unwrap_or_default())).collect())
    }

    /// How each of the deliveries goes, in their order.
    pub(in crate::postgres) async fn standings(&self, keys: &[DeliveryKey]) -> Result<Vec<Standing>> {
        let events: Vec<Uuid> = keys.iter().map(|key| key.event.uuid()).collect();
        let (Some(first), Some(last)) = (events.iter().min().copied(), events.iter().max().copied()) else {
            return Ok(Vec::new());
        };
        let endpoints: Vec<i64> = keys.iter().map(|key| key.endpoint.0).collect();
        let runs: Vec<i32> = keys.iter().map(|key| i32::from(key.run)).collect();
        let rows = self.transaction.query(STANDINGS, bind![self.org, endpoints, events, runs, first, last]).await?;
        rows.iter().map(|row| self.standing(row)).collect()
    }

    fn standing(&self, row: &Row) -> Result<Standing> {
        let has_exception = get::<Option<&str>>(row, 0)?.is_some();
        let exception = has_exception.then(|| exception(row, self.org)).transpose()?;
        let newest = match get::<Option<Uuid>>(row, 6)? {
            Some(id) => Some(Newest {
                id: AttemptId::from_bytes(id.into_bytes()),
                number: small(row, 7)?,
                succeeded: get(row, 8)?,
                status: status(row, 9)?,
                error: word_or_none(row, 10)?,
            }),
            None => None,
        };
        Ok(Standing { exception, newest })
    }

    /// The id and the number of each of the endpoints.
    pub(in crate::postgres) async fn endpoints(
        &self,
        keys: impl IntoIterator<Item = EndpointKey>,
    ) -> Result<HashMap<EndpointKey, (EndpointId, u32)>> {
        let mut keys: Vec<i64> = keys.into_iter().map(|key| key.0).collect();
        keys.sort_unstable();
        keys.dedup();
        let rows = self.transaction.query(ENDPOINTS, bind![self.org, keys]).await?;
        rows.iter()
            .map(|row| Ok((EndpointKey(get(row, 0)?), (EndpointId::from_bytes(id(row, 1)?), small(row, 2)?))))
            .collect()
    }
}

/// From the columns `state, due_at, attempts, attempts_of_schedule, reason, since`.
pub(in crate::postgres) fn exception(row: &Row, org: i64) -> Result<Exception> {
    Ok(Exception {
        org,
        state: word(row, 0)?,
        due_at: moment(row, 1)?,
        attempts: small(row, 2)?,
        attempts_of_schedule: small(row, 3)?,
        reason: word_or_none(row, 4)?,
        since: moment(row, 5)?,
    })
}

/// An HTTP status.
pub(super) fn status(row: &Row, index: usize) -> Result<Option<u16>> {
    let status: Option<i16> = get(row, index)?;
    status.map(u16::try_from).transpose().map_err(|_| broken("an HTTP status is negative"))
}
