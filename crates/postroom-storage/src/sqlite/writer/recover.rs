//! After a crash: which deliveries of the newest events nobody knows the outcome of.

use postroom_domain::Timestamp;

use super::effects::Effects;
use crate::engine::log::Exception;
use crate::sqlite::connection::Connection;
use crate::sqlite::convert::targets;
use crate::sqlite::exceptions;
use crate::sqlite::grants::Part;
use crate::sqlite::rows;
use crate::worker::{DeliveryKey, EndpointKey, EventKey};

/// The one row.
const WATERMARK: &str = "select watermark from progress";

/// By primary key, from the watermark on. Bodies are not touched.
const EVENTS: &str = "select seq, org, targets from event where seq > ?1 order by seq limit 1000";

/// Index: attempt_by_event.
const ATTEMPTED: &str = "select 1 from attempt where event = ?1 and endpoint = ?2 and run = 0 limit 1";

/// The one row.
const SETTLED_UPTO: &str = "update progress set watermark = ?1 where one = 1";

/// Makes each delivery above the watermark that has neither an attempt nor an exception an exception that is due now.
/// In steps of 1,000 events, one transaction each, so it can be killed and begun again. Returns how many there were.
pub(in crate::sqlite) fn recover(connection: &mut Connection, now: Timestamp) -> rusqlite::Result<usize> {
    connection.act_as(Part::Worker);
    let mut recovered = 0;
    loop {
        let transaction = connection.transaction()?;
        let watermark: i64 = transaction.query_row(WATERMARK, [], |row| row.get(0))?;
        let events = rows::all(&transaction, EVENTS, &[&watermark], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, targets(row, 2)?))
        })?;
        let Some((last, _, _)) = events.last() else { return Ok(recovered) };
        let last = *last;
        for (event, org, endpoints) in events {
            for endpoint in endpoints {
                let delivery =
                    DeliveryKey { event: EventKey::from_seq(event), endpoint: EndpointKey(endpoint), run: 0 };
                let attempted = rows::one(&transaction, ATTEMPTED, &[&event, &endpoint], |_| Ok(()))?.is_some();
                if !attempted && exceptions::find(&transaction, delivery)?.is_none() {
                    let waiting = Exception::untried(org, now, now);
                    // Nobody counts yet and nobody listens yet: both begin after this.
                    exceptions::put(&transaction, &mut Effects::default(), delivery, None, &waiting)?;
                    recovered += 1;
                }
            }
        }
        transaction.prepare_cached(SETTLED_UPTO)?.execute([last])?;
        transaction.commit()?;
    }
}
