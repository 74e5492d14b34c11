//! Mails that wait to be sent.

use postroom_domain::{MailId, OrganizationId, Timestamp};
use rusqlite::Row;
use tracing::warn;

use super::connection::Connection;
use super::convert::{email, moment, word};
use super::rows;
use crate::Result;
use crate::engine::people::{self, StoredRole, TAKEN, WaitingMail};
use crate::engine::vault::Vault;
use crate::platform::OutgoingMail;

/// Index: mail_due, its first entry.
const DUE: &str = "select exists (select 1 from mail where due_at <= ?1)";

/// Index: mail_due; the others by primary keys.
const TAKE: &str = "select mail, mail.id, email, purpose, token, organization.id, organization.name, role, tries, \
     expires_at from mail join user on user.usr = mail.usr left join organization on organization.org = mail.org \
     where due_at <= ?1 order by due_at limit ?2";

/// By primary key.
const TAKEN_UNTIL: &str = "update mail set due_at = ?2, tries = tries + 1 where mail = ?1";

/// By the unique index on id.
const DONE: &str = "delete from mail where id = ?1";

/// By the unique index on id.
const FAILED: &str = "update mail set due_at = ?2 where id = ?1";

/// Whether any mail is due.
pub(super) fn is_due(connection: &Connection, now: Timestamp) -> Result<bool> {
    Ok(connection.prepare_cached(DUE)?.query_row([now.as_millis()], |row| row.get(0))?)
}

/// Takes mails that are due.
pub(super) fn take(connection: &Connection, vault: &Vault, now: Timestamp, limit: usize) -> Result<Vec<OutgoingMail>> {
    let limit = i64::try_from(limit.min(people::MAILS)).unwrap_or(0);
    let waiting = rows::all(connection, TAKE, &[&now.as_millis(), &limit], |row| Ok((row.get(0)?, read(row)?)))?;
    let mut mails = Vec::with_capacity(waiting.len());
    for (row, mail) in waiting {
        let row: i64 = row;
        connection.prepare_cached(TAKEN_UNTIL)?.execute((row, (now + TAKEN).as_millis()))?;
        match mail.open(vault) {
            Ok(mail) => mails.push(mail),
            // The others do not wait for it; it goes when its link has ended.
            Err(error) => warn!(error = %error.chain(), "a mail cannot be read, and is not sent"),
        }
    }
    Ok(mails)
}

fn read(row: &Row<'_>) -> rusqlite::Result<WaitingMail> {
    Ok(WaitingMail {
        id: MailId::from_bytes(row.get(1)?),
        to: email(row, 2)?,
        purpose: word(row, 3)?,
        sealed: row.get(4)?,
        organization: row.get::<_, Option<[u8; 16]>>(5)?.map(OrganizationId::from_bytes).zip(row.get(6)?),
        role: word::<StoredRole>(row, 7)?,
        tries: row.get(8)?,
        expires_at: moment(row, 9)?,
    })
}

/// Forgets a mail.
pub(super) fn done(connection: &Connection, id: MailId) -> Result<()> {
    connection.prepare_cached(DONE)?.execute([id.to_bytes()])?;
    Ok(())
}

/// Puts a mail off.
pub(super) fn failed(connection: &Connection, id: MailId, retry_at: Timestamp) -> Result<()> {
    connection.prepare_cached(FAILED)?.execute((id.to_bytes(), retry_at.as_millis()))?;
    Ok(())
}
