//! Mails that wait to be sent.

use postroom_domain::{MailId, OrganizationId, Timestamp};
use tokio_postgres::Row;
use tracing::warn;

use super::Postgres;
use super::convert::{at, email, get, id, moment, uuid, word};
use super::pool::bind;
use super::rows::small;
use crate::Result;
use crate::engine::people::{self, StoredRole, TAKEN, WaitingMail};
use crate::platform::OutgoingMail;

/// Index: mails_due; the others by primary keys. What another node takes at this moment is left to it.
const TAKE: &str = "with due as (select org, mail from mails where due_at <= $1 order by due_at limit $2 \
       for update skip locked), \
     taken as (update mails set due_at = $3, tries = tries + 1 from due \
       where mails.org = due.org and mails.mail = due.mail \
       returning mails.org, mails.usr, mails.id, purpose, token, tries - 1 as tries, expires_at) \
     select taken.id, email, purpose, token, organizations.id, name, role, tries, expires_at \
     from taken join users on users.org = taken.org and users.usr = taken.usr \
       left join organizations on organizations.org = taken.org";

/// By the unique index on id.
const DONE: &str = "delete from mails where id = $1";

/// By the unique index on id.
const FAILED: &str = "update mails set due_at = $2 where id = $1";

impl Postgres {
    pub(super) async fn take_mails(&self, now: Timestamp, limit: usize) -> Result<Vec<OutgoingMail>> {
        let limit = i64::try_from(limit.min(people::MAILS)).unwrap_or(0);
        let connection = self.0.pools.platform.connection().await?;
        let rows = connection.query(TAKE, bind![at(now), limit, at(now + TAKEN)]).await?;
        let mut mails = Vec::with_capacity(rows.len());
        for row in rows {
            match read(&row).and_then(|mail| mail.open(&self.0.vault)) {
                Ok(mail) => mails.push(mail),
                // The others do not wait for it; it goes when its link has ended.
                Err(error) => warn!(error = %error.chain(), "a mail cannot be read, and is not sent"),
            }
        }
        Ok(mails)
    }

    pub(super) async fn forget_mail(&self, id: MailId) -> Result<()> {
        let connection = self.0.pools.platform.connection().await?;
        connection.execute(DONE, bind![uuid(id.to_bytes())]).await.map(drop)
    }

    pub(super) async fn put_mail_off(&self, id: MailId, retry_at: Timestamp) -> Result<()> {
        let connection = self.0.pools.platform.connection().await?;
        connection.execute(FAILED, bind![uuid(id.to_bytes()), at(retry_at)]).await.map(drop)
    }
}

fn read(row: &Row) -> Result<WaitingMail> {
    let organization: Option<uuid::Uuid> = get(row, 4)?;
    let organization = organization.map(|id| OrganizationId::from_bytes(id.into_bytes()));
    Ok(WaitingMail {
        id: MailId::from_bytes(id(row, 0)?),
        to: email(row, 1)?,
        purpose: word(row, 2)?,
        sealed: get(row, 3)?,
        organization: organization.zip(get(row, 5)?),
        role: word::<StoredRole>(row, 6)?,
        tries: small(row, 7)?.unwrap_or(0),
        expires_at: moment(row, 8)?,
    })
}
