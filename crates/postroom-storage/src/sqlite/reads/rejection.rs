//! Requests that failed verification, as the owner of their source sees them.

use postroom_domain::{EventId, RejectionId, SourceId};
use rusqlite::Row;

use crate::Result;
use crate::api::{Page, PageRequest, RejectedRequest, RejectionView};
use crate::engine::page;
use crate::sqlite::connection::Connection;
use crate::sqlite::convert::{headers, moment};
use crate::sqlite::rows;

/// The columns of a view; more may follow.
macro_rules! select_rejection {
    ($rest:literal) => {
        concat!(
            "select rejection.id, source.id, rejection.code, rejection.check_name, rejection.received_at, \
             rejection.event ",
            $rest
        )
    };
}

/// Index: rejection_by_org, from the place the page before ended; the source by primary key.
const OF_ORGANIZATION: &str = select_rejection!(
    "from rejection indexed by rejection_by_org join source on source.source = rejection.source \
     where rejection.org = ?1 \
     and (?2 is null or seq < (select seq from rejection where id = ?2 and org = ?1)) \
     order by seq desc limit ?3"
);

/// Index: rejection_by_source; the source by its unique index on id.
const OF_SOURCE: &str = select_rejection!(
    "from source join rejection indexed by rejection_by_source on rejection.source = source.source \
     where source.id = ?4 and source.org = ?1 and rejection.org = ?1 \
     and (?2 is null or seq < (select seq from rejection where id = ?2 and org = ?1)) \
     order by seq desc limit ?3"
);

/// By the unique index on id.
const BY_ID: &str = select_rejection!(
    ", rejection.method, rejection.path, rejection.headers, rejection.body \
     from rejection join source on source.source = rejection.source \
     where rejection.id = ?1 and rejection.org = ?2"
);

/// For the test that looks at how they are answered.
#[cfg(test)]
pub(super) const STATEMENTS: &[&str] = &[OF_ORGANIZATION, OF_SOURCE, BY_ID];

/// Rejections of the organization, newest first; of one source if given.
pub(in crate::sqlite) fn list(
    connection: &Connection,
    org: i64,
    source: Option<SourceId>,
    request: &PageRequest,
) -> Result<Page<RejectionView>> {
    let rows = |after: Option<[u8; 16]>, limit: i64| {
        Ok(match source {
            Some(source) => rows::all(connection, OF_SOURCE, &[&org, &after, &limit, &source.to_bytes()], read)?,
            None => rows::all(connection, OF_ORGANIZATION, &[&org, &after, &limit], read)?,
        })
    };
    page::by_id(request, rows, |view| view.id.to_bytes())
}

/// One rejection of the organization, with what was rejected.
pub(in crate::sqlite) fn get(
    connection: &Connection,
    org: i64,
    id: RejectionId,
) -> Result<(RejectionView, RejectedRequest)> {
    rows::expect("rejection", connection, BY_ID, &[&id.to_bytes(), &org], |row| {
        let request = RejectedRequest {
            method: row.get(6)?,
            path: row.get(7)?,
            headers: headers(row, 8)?,
            body: row.get::<_, Vec<u8>>(9)?.into(),
        };
        Ok((read(row)?, request))
    })
}

fn read(row: &Row<'_>) -> rusqlite::Result<RejectionView> {
    Ok(RejectionView {
        id: RejectionId::from_bytes(row.get(0)?),
        source: SourceId::from_bytes(row.get(1)?),
        code: row.get(2)?,
        check: row.get(3)?,
        received_at: moment(row, 4)?,
        event: row.get::<_, Option<[u8; 16]>>(5)?.map(EventId::from_bytes),
    })
}
