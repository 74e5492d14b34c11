//! Signing in and out.

use postroom_domain::sign_in::{Purpose, SESSION_LIFE};
use postroom_domain::{Email, OrganizationId, SessionId, Timestamp, TokenHash, UserId};
use rusqlite::{Row, params};

use super::audit;
use super::connection::Connection;
use super::convert::{email, moment_or_none, word};
use super::{links, rows};
use crate::Result;
use crate::audit::Action;
use crate::authorizer::SignedIn;
use crate::engine::audit::{Act, By, by_user};
use crate::engine::people::{self, Entrant, LINKS, NO_LINK, SESSIONS};
use crate::engine::vault::Vault;
use crate::scope::Origin;

/// The columns of [`Entrant`].
macro_rules! select_entrant {
    ($rest:literal) => {
        concat!(
            "select user.usr, user.org, user.id, email, role, user.is_active, invited_until, organization.id, \
             organization.is_active from user left join organization on organization.org = user.org ",
            $rest
        )
    };
}

/// By the unique index on email_key.
const BY_EMAIL: &str = select_entrant!("where email_key = ?1");

/// By primary keys.
const BY_TOKEN: &str = select_entrant!(
    "join sign_in_token on sign_in_token.usr = user.usr where hash = ?1 and used_at is null and expires_at > ?2"
);

/// By primary key. Of all that come with one token, this changes a row for one.
const USE: &str = "update sign_in_token set used_at = ?2 where hash = ?1 and used_at is null and expires_at > ?2";

/// By primary key.
const ENTERED: &str = "update user set last_login_at = ?2, invited_until = null where usr = ?1";

/// Index: sign_in_token_by_user.
const ACCEPTED: &str =
    "update sign_in_token set used_at = ?2 where usr = ?1 and used_at is null and purpose = 'invitation'";

/// Index: session_by_user. Leaves room for one more.
const TRIM: &str = "update session set ended_at = ?3 where id in (select id from session \
     where org = ?1 and usr = ?2 and ended_at is null and expires_at > ?3 order by created_at desc limit -1 offset ?4)";

/// The primary key decides.
const BEGIN: &str = "insert into session (id, org, usr, created_at, expires_at, address, user_agent) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// By primary keys.
const OWNER: &str = "select user.org, user.id from session join user on user.usr = session.usr where session.id = ?1";

/// By primary key.
const END: &str = "update session set ended_at = ?2 where id = ?1 and ended_at is null";

impl Entrant {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let organization = row.get::<_, Option<[u8; 16]>>(7)?.map(OrganizationId::from_bytes);
        Ok(Self {
            usr: row.get(0)?,
            org: row.get(1)?,
            id: UserId::from_bytes(row.get(2)?),
            email: email(row, 3)?,
            role: word(row, 4)?,
            is_active: row.get(5)?,
            invited_until: moment_or_none(row, 6)?,
            organization: organization.zip(row.get(8)?),
        })
    }
}

/// Makes a link and its mail, if whoever has the address may sign in. Says whether.
pub(super) fn request(
    connection: &Connection,
    vault: &Vault,
    email: &Email,
    from: &Origin,
    now: Timestamp,
) -> Result<bool> {
    let Some(entrant) = rows::one(connection, BY_EMAIL, &[&email.key()], Entrant::read)? else { return Ok(false) };
    if !entrant.may_sign_in(now) || links::made_lately(connection, entrant.usr, now)? >= LINKS {
        return Ok(false);
    }
    links::send(connection, vault, entrant.addressee(), Purpose::SignIn, now)?;
    // Who has only the address has proved nothing.
    let by = By { org: entrant.org, ..By::nobody(from) };
    audit::write(connection, vault, by, Act::on(Action::UserLinkSent, entrant.id), now)?;
    Ok(true)
}

/// Uses a token up and begins a session. Says in which organization, too.
pub(super) fn enter(
    connection: &Connection,
    vault: &Vault,
    token: TokenHash,
    from: &Origin,
    user_agent: &str,
    now: Timestamp,
) -> Result<(i64, SignedIn)> {
    let hash = token.to_bytes();
    let found = rows::one(connection, BY_TOKEN, &[&hash, &now.as_millis()], Entrant::read)?;
    let entrant = found.filter(|entrant| entrant.may_sign_in(now)).ok_or(NO_LINK)?;
    if connection.prepare_cached(USE)?.execute((hash, now.as_millis()))? != 1 {
        return Err(NO_LINK);
    }
    let (org, usr) = (entrant.org, entrant.usr);
    connection.prepare_cached(ENTERED)?.execute((usr, now.as_millis()))?;
    if entrant.invited_until.is_some() {
        connection.prepare_cached(ACCEPTED)?.execute((usr, now.as_millis()))?;
    }
    connection.prepare_cached(TRIM)?.execute((org, usr, now.as_millis(), SESSIONS - 1))?;
    let (session, expires_at) = (SessionId::new(now), now + SESSION_LIFE);
    connection.prepare_cached(BEGIN)?.execute(params![
        session.to_bytes(),
        org,
        usr,
        now.as_millis(),
        expires_at.as_millis(),
        from.address.map(|address| address.to_string()),
        people::user_agent(user_agent),
    ])?;
    let act = Act::on(Action::UserSignedIn, entrant.id).with("session", session.to_string());
    audit::write(connection, vault, by_user(org, entrant.id, from), act, now)?;
    Ok((org, entrant.signed_in(session, expires_at)))
}

/// Ends a session. Says of which organization it was, if there is one.
pub(super) fn leave(
    connection: &Connection,
    vault: &Vault,
    session: SessionId,
    from: &Origin,
    now: Timestamp,
) -> Result<Option<i64>> {
    let id = session.to_bytes();
    let has_ended = connection.prepare_cached(END)?.execute((id, now.as_millis()))? > 0;
    let owner = rows::one(connection, OWNER, &[&id], |row| Ok((row.get(0)?, UserId::from_bytes(row.get(1)?))))?;
    if let Some((org, user)) = owner.filter(|_| has_ended) {
        let act = Act::on(Action::UserSignedOut, user).with("session", session.to_string());
        audit::write(connection, vault, by_user(org, user, from), act, now)?;
    }
    Ok(owner.map(|(org, _)| org))
}
