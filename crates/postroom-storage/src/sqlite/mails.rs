//! Mails that wait to be sent, and the links that a super admin is given by hand.

use postroom_domain::sign_in::{Purpose, SignInToken};
use postroom_domain::{Email, MailId, OrganizationId, Timestamp, UserId};
use rusqlite::{Row, params};
use tracing::warn;

use super::audit;
use super::connection::Connection;
use super::convert::{email, moment, word};
use super::{links, rows};
use crate::audit::Action;
use crate::engine::audit::{Act, INSTALLATION};
use crate::engine::people::{self, Addressee, PLATFORM, StoredRole, TAKEN, WaitingMail};
use crate::engine::vault::Vault;
use crate::error::Unique;
use crate::platform::{OutgoingMail, SuperAdminLink};
use crate::{Error, Result, SuperAdmin};

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

/// The unique index on email_key decides.
const ADD_SUPER_ADMIN: &str = "insert into user \
     (org, id, email, email_key, role, is_active, created_at, updated_at, created_by) \
     values (0, ?1, ?2, ?3, 'super_admin', 1, ?4, ?4, ?5) on conflict (email_key) do nothing";

/// By the unique index on email_key.
const SUPER_ADMIN: &str = "select usr, org, id from user where email_key = ?1";

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

/// A super admin, new or known, and a link.
pub(super) fn super_admin(
    connection: &Connection,
    vault: &Vault,
    by: &SuperAdmin,
    email: &Email,
    now: Timestamp,
) -> Result<SuperAdminLink> {
    let values = params![UserId::new(now).to_bytes(), email.as_str(), email.key(), now.as_millis(), by.0.to_string()];
    connection.prepare_cached(ADD_SUPER_ADMIN)?.execute(values)?;
    let (usr, org, id) = rows::expect("user", connection, SUPER_ADMIN, &[&email.key()], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?, UserId::from_bytes(row.get(2)?)))
    })?;
    if org != PLATFORM {
        return Err(Error::Taken { field: Unique::UserEmail });
    }
    let token = SignInToken::generate();
    links::add(connection, Addressee { org, usr, organization: None }, token.hash(), Purpose::SignIn, now)?;
    let act = Act::on(Action::SuperAdminInvited, id).with("email", email.as_str());
    audit::write(connection, vault, by.acting_in(INSTALLATION), act, now)?;
    Ok(SuperAdminLink { user: id, token, expires_at: now + Purpose::SignIn.life() })
}
