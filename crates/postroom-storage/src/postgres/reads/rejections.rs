//! Requests that failed verification, as the owner of their source sees them.

use postroom_domain::{EventId, RejectionId, SourceId, Timestamp};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::api::{Page, PageRequest, RejectedRequest, RejectionView};
use crate::audit::Action;
use crate::engine::audit::Act;
use crate::engine::page;
use crate::engine::vault::Vault;
use crate::postgres::convert::{get, headers, id, moment, uuid};
use crate::postgres::pool::{Transaction, bind};
use crate::postgres::{Postgres, audit};
use crate::{Error, Result, Scope};

/// The columns of [`read`]; more may follow.
macro_rules! select_rejection {
    ($rest:literal) => {
        concat!(
            "select rejections.id, sources.id, rejections.code, rejections.check_name, rejections.received_at, \
             rejections.event ",
            $rest
        )
    };
}

/// By primary key, from the place the page before ended; the source by primary key.
const OF_ORGANIZATION: &str = select_rejection!(
    "from rejections join sources on sources.org = rejections.org and sources.source = rejections.source \
     where rejections.org = $1 and ($2 is null or rejections.id < $2) \
     order by rejections.id desc limit $3"
);

/// Index: rejections_by_source; the source by its unique index on (org, id).
const OF_SOURCE: &str = select_rejection!(
    "from sources join rejections on rejections.org = sources.org and rejections.source = sources.source \
     where sources.org = $1 and sources.id = $4 and ($2 is null or rejections.id < $2) \
     order by rejections.id desc limit $3"
);

/// By primary key.
const BY_ID: &str = select_rejection!(
    ", rejections.method, rejections.path, rejections.headers, rejections.body \
     from rejections join sources on sources.org = rejections.org and sources.source = rejections.source \
     where rejections.org = $1 and rejections.id = $2"
);

/// By primary key, of both.
const RESOLVE: &str = "update rejections set event = $3 where org = $1 and id = $2 \
     and exists (select 1 from events where events.org = $1 and events.id = $3)";

impl Postgres {
    pub(in crate::postgres) async fn rejection_list(
        &self,
        scope: &Scope,
        source: Option<SourceId>,
        page: PageRequest,
    ) -> Result<Page<RejectionView>> {
        let (after, most) = page::after_id(&page);
        let after: Option<Uuid> = after.map(uuid);
        let desk = self.read_at(&self.0.pools.api, scope.org).await?;
        let rows = match source.map(|source| uuid(source.to_bytes())) {
            Some(source) => desk.transaction.query(OF_SOURCE, bind![scope.org, after, most, source]).await,
            None => desk.transaction.query(OF_ORGANIZATION, bind![scope.org, after, most]).await,
        };
        let views = desk.end(rows).await?.iter().map(read).collect::<Result<_>>()?;
        Ok(page::cut(&page, views, |view: &RejectionView| view.id.to_bytes()))
    }

    pub(in crate::postgres) async fn rejection_get(
        &self,
        scope: &Scope,
        id: RejectionId,
    ) -> Result<(RejectionView, RejectedRequest)> {
        let desk = self.read_at(&self.0.pools.api, scope.org).await?;
        let row = desk.transaction.expect("rejection", BY_ID, bind![scope.org, uuid(id.to_bytes())]).await;
        let row = desk.end(row).await?;
        let request = RejectedRequest {
            method: get(&row, 6)?,
            path: get(&row, 7)?,
            headers: headers(&row, 8)?,
            body: get::<Vec<u8>>(&row, 9)?.into(),
        };
        Ok((read(&row)?, request))
    }

    pub(in crate::postgres) async fn rejection_resolve(
        &self,
        scope: &Scope,
        id: RejectionId,
        event: EventId,
        now: Timestamp,
    ) -> Result<()> {
        let desk = self.change_at(&self.0.pools.api, scope.org).await?;
        let resolved = resolve(&desk.transaction, &self.0.vault, scope, (id, event), now).await;
        desk.end(resolved).await
    }
}

async fn resolve(
    transaction: &Transaction,
    vault: &Vault,
    scope: &Scope,
    (id, event): (RejectionId, EventId),
    now: Timestamp,
) -> Result<()> {
    let (row, made) = (uuid(id.to_bytes()), uuid(event.to_bytes()));
    if transaction.execute(RESOLVE, bind![scope.org, row, made]).await? == 0 {
        return Err(Error::NotFound { kind: "rejection" });
    }
    let act = Act::on(Action::RejectionReverified, id).with("event", event.to_string());
    audit::write(transaction, vault, scope.into(), act, now).await
}

fn read(row: &Row) -> Result<RejectionView> {
    Ok(RejectionView {
        id: RejectionId::from_bytes(id(row, 0)?),
        source: SourceId::from_bytes(id(row, 1)?),
        code: get(row, 2)?,
        check: get(row, 3)?,
        received_at: moment(row, 4)?,
        event: get::<Option<Uuid>>(row, 5)?.map(|id| EventId::from_bytes(id.into_bytes())),
    })
}
