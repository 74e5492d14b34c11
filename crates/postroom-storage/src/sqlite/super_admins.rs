//! Super admins: made with a link that is given by hand, listed, switched on and off.

use postroom_domain::sign_in::{Purpose, SignInToken};
use postroom_domain::{Email, Timestamp, UserId};
use rusqlite::{Row, params};

use super::configuration::users::END_SESSIONS;
use super::connection::Connection;
use super::convert::{email, moment, moment_or_none};
use super::{audit, links, rows};
use crate::audit::Action;
use crate::engine::audit::{Act, INSTALLATION, of_super_admin};
use crate::engine::people::{Addressee, PLATFORM, super_admin_off};
use crate::engine::vault::Vault;
use crate::error::Unique;
use crate::platform::{SuperAdminLink, SuperAdminView};
use crate::{Error, Result, SuperAdmin};

/// The unique index on email_key decides.
const ADD: &str = "insert into user \
     (org, id, email, email_key, role, is_active, created_at, updated_at, created_by) \
     values (0, ?1, ?2, ?3, 'super_admin', 1, ?4, ?4, ?5) on conflict (email_key) do nothing";

/// By the unique index on email_key.
const BY_EMAIL: &str = "select usr, org, id, is_active from user where email_key = ?1";

/// What is shown of one.
macro_rules! select {
    ($rest:literal) => {
        concat!("select id, email, is_active, last_login_at, created_at, updated_at, created_by from user ", $rest)
    };
}

/// By primary key.
const VIEW: &str = select!("where usr = ?1");

/// Index: the unique one on (org, usr), from the place the page before ended.
const PAGE: &str = select!(
    "where org = 0 and (?1 is null or usr < (select usr from user where id = ?1 and org = 0)) \
     order by usr desc limit ?2"
);

/// By primary key.
const UPDATE: &str = "update user set is_active = ?2, updated_at = ?3 where usr = ?1";

/// A person of this address, of an organization or none.
struct Found {
    usr: i64,
    org: i64,
    id: UserId,
    is_active: bool,
}

fn find(connection: &Connection, email: &Email) -> Result<Found> {
    rows::expect("super admin", connection, BY_EMAIL, &[&email.key()], |row| {
        Ok(Found { usr: row.get(0)?, org: row.get(1)?, id: UserId::from_bytes(row.get(2)?), is_active: row.get(3)? })
    })
}

/// A super admin, new or known, and a link.
pub(super) fn create(
    connection: &Connection,
    vault: &Vault,
    by: &SuperAdmin,
    email: &Email,
    now: Timestamp,
) -> Result<SuperAdminLink> {
    let values = params![UserId::new(now).to_bytes(), email.as_str(), email.key(), now.as_millis(), by.0.to_string()];
    connection.prepare_cached(ADD)?.execute(values)?;
    let found = find(connection, email)?;
    if found.org != PLATFORM {
        return Err(Error::Taken { field: Unique::UserEmail });
    }
    if !found.is_active {
        return Err(super_admin_off());
    }
    let token = SignInToken::generate();
    let to = Addressee { org: PLATFORM, usr: found.usr, organization: None };
    links::add(connection, to, token.hash(), Purpose::SignIn, now)?;
    let act = Act::on(Action::SuperAdminInvited, found.id).with("email", email.as_str());
    audit::write(connection, vault, by.acting_in(INSTALLATION), act, now)?;
    Ok(SuperAdminLink { user: found.id, token, expires_at: now + Purpose::SignIn.life() })
}

/// Super admins after a place, newest first.
pub(super) fn list(connection: &Connection, after: Option<[u8; 16]>, limit: i64) -> Result<Vec<SuperAdminView>> {
    Ok(rows::all(connection, PAGE, &[&after, &limit], view)?)
}

/// Switches one on or off.
pub(super) fn set_active(
    connection: &Connection,
    vault: &Vault,
    by: &SuperAdmin,
    email: &Email,
    is_active: bool,
    now: Timestamp,
) -> Result<SuperAdminView> {
    let found = find(connection, email)?;
    if found.org != PLATFORM {
        return Err(Error::NotFound { kind: "super admin" });
    }
    connection.prepare_cached(UPDATE)?.execute((found.usr, is_active, now.as_millis()))?;
    if !is_active {
        connection.prepare_cached(END_SESSIONS)?.execute((PLATFORM, found.usr, now.as_millis()))?;
        links::void(connection, found.usr, now)?;
    }
    let act = Act::on(Action::SuperAdminUpdated, found.id)
        .from(of_super_admin(found.is_active))
        .to(of_super_admin(is_active));
    audit::write(connection, vault, by.acting_in(INSTALLATION), act, now)?;
    rows::expect("super admin", connection, VIEW, &[&found.usr], view)
}

fn view(row: &Row<'_>) -> rusqlite::Result<SuperAdminView> {
    Ok(SuperAdminView {
        id: UserId::from_bytes(row.get(0)?),
        email: email(row, 1)?,
        is_active: row.get(2)?,
        last_login_at: moment_or_none(row, 3)?,
        created_at: moment(row, 4)?,
        updated_at: moment(row, 5)?,
        created_by: row.get(6)?,
    })
}
