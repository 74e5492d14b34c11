//! Attempts as their owner sees them.

use std::time::Duration;

use postroom_domain::{AttemptId, DeliveryId};
use tokio_postgres::Row;

use super::Desk;
use super::log::status;
use crate::api::AttemptView;
use crate::postgres::Postgres;
use crate::postgres::convert::{count, get, headers, id, small, word_or_none};
use crate::postgres::pool::bind;
use crate::worker::{Attempt, Response};
use crate::{Result, Scope};

/// The columns that [`read`] takes.
macro_rules! select_attempt {
    ($rest:literal) => {
        concat!(
            "select attempts.id, attempts.number, attempts.url, attempts.status, attempts.response_headers, \
             attempts.response_body, attempts.error, attempts.duration_ms ",
            $rest
        )
    };
}
pub(super) use select_attempt;

/// By primary key; those of one delivery are sorted.
const NEWEST: &str = select_attempt!(
    "from attempts where org = $1 and endpoint = $2 and event = $3 and run = $4 \
     order by number desc, tx desc, id desc limit 100"
);

impl Postgres {
    pub(in crate::postgres) async fn attempt_list(&self, scope: &Scope, id: DeliveryId) -> Result<Vec<AttemptView>> {
        let desk = self.read_at(&self.0.pools.dead_letter, scope.org).await?;
        let attempts = list(&desk, id).await;
        desk.end(attempts).await
    }
}

/// The newest 100 attempts of a delivery of the organization, first to last.
async fn list(desk: &Desk, id: DeliveryId) -> Result<Vec<AttemptView>> {
    let (_, run) = desk.find_delivery(id).await?;
    let (endpoint, event, number) = (run.key.endpoint.0, run.key.event.uuid(), i32::from(run.key.run));
    let rows = desk.transaction.query(NEWEST, bind![desk.org, endpoint, event, number]).await?;
    rows.iter().rev().map(read).collect()
}

/// From the columns of [`select_attempt`].
pub(super) fn read(row: &Row) -> Result<AttemptView> {
    let id = AttemptId::from_bytes(id(row, 0)?);
    let response = match status(row, 3)? {
        Some(status) => Some(Response {
            status,
            headers: headers(row, 4)?,
            body: get::<Option<Vec<u8>>>(row, 5)?.unwrap_or_default().into(),
        }),
        None => None,
    };
    let attempt = Attempt {
        id,
        number: small(row, 1)?,
        url: get(row, 2)?,
        response,
        error: word_or_none(row, 6)?,
        duration: Duration::from_millis(count(row, 7)?),
    };
    Ok(AttemptView { attempt, started_at: id.created_at() })
}
