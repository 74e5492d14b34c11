//! People of an organization, as its administrators invite and change them.

use postroom_domain::sign_in::Purpose;
use postroom_domain::{Timestamp, UserId};
use rusqlite::params;

use super::{room_for_one_more, taken};
use crate::api::{NewUser, UserChange, UserView};
use crate::audit::Action;
use crate::engine::audit::{self, Act};
use crate::engine::people::{self, Addressee, PEOPLE, UserRow};
use crate::engine::vault::Vault;
use crate::sqlite::audit::write;
use crate::sqlite::connection::Connection;
use crate::sqlite::links;
use crate::sqlite::rows::{self, select_user};
use crate::{Result, Scope};

/// Unique indexes on id and email_key decide.
const INSERT: &str = "insert into user \
     (org, id, email, email_key, role, is_active, created_at, updated_at, created_by) \
     values (?1, ?2, ?3, ?4, ?5, 1, ?6, ?6, ?7)";

/// Index: the unique one on (org, usr), at most as many entries as the bound.
const COUNT: &str = "select count(*) from (select 1 from user where org = ?1 and is_active = 1 limit ?2)";

/// By the unique index on id.
const BY_ID: &str = select_user!("where id = ?2 and org = ?1");

/// Index: the unique one on (org, usr), from the place the page before ended.
const PAGE: &str = select_user!(
    "where org = ?1 and (?2 is null or usr < (select usr from user where id = ?2 and org = ?1)) \
     order by usr desc limit ?3"
);

/// Index: the unique one on (org, usr).
const OTHER_ADMIN: &str = "select exists (select 1 from user where org = ?1 and usr <> ?2 and role = 'admin' \
     and is_active = 1 and invited_until is null)";

/// By primary key.
const UPDATE: &str = "update user set role = ?2, is_active = ?3, updated_at = ?4 where usr = ?1";

/// By primary key.
const INVITED: &str = "update user set invited_until = ?2, updated_at = ?3 where usr = ?1";

/// Index: session_by_user.
pub(in crate::sqlite) const END_SESSIONS: &str =
    "update session set ended_at = ?3 where org = ?1 and usr = ?2 and ended_at is null and expires_at > ?3";

/// Adds a person who is invited.
pub(in crate::sqlite) fn invite(
    connection: &Connection,
    vault: &Vault,
    scope: &Scope,
    new: &NewUser,
    now: Timestamp,
) -> Result<UserView> {
    room_for_one_more(connection, COUNT, scope.org, PEOPLE)?;
    let id = UserId::new(now);
    let values = params![
        scope.org,
        id.to_bytes(),
        new.email.as_str(),
        new.email.key(),
        new.role.as_str(),
        now.as_millis(),
        scope.actor.to_string(),
    ];
    connection.prepare_cached(INSERT)?.execute(values).map_err(taken)?;
    send(connection, vault, scope, connection.last_insert_rowid(), now)?;
    let act = Act::on(Action::UserInvited, id).to(audit::of_user(&new.email, new.role, true));
    write(connection, vault, scope.into(), act, now)?;
    get(connection, scope, id)
}

/// Sends another invitation.
pub(in crate::sqlite) fn invite_again(
    connection: &Connection,
    vault: &Vault,
    scope: &Scope,
    id: UserId,
    now: Timestamp,
) -> Result<UserView> {
    let row = find(connection, scope, id)?;
    row.can_be_invited_again(links::made_lately(connection, row.usr, now)?)?;
    links::void(connection, row.usr, now)?;
    send(connection, vault, scope, row.usr, now)?;
    write(connection, vault, scope.into(), Act::on(Action::UserInvitedAgain, id), now)?;
    get(connection, scope, id)
}

fn send(connection: &Connection, vault: &Vault, scope: &Scope, usr: i64, now: Timestamp) -> Result<()> {
    let to = Addressee { org: scope.org, usr, organization: Some(scope.organization) };
    let expires_at = links::send(connection, vault, to, Purpose::Invitation, now)?;
    connection.prepare_cached(INVITED)?.execute((usr, expires_at.as_millis(), now.as_millis()))?;
    Ok(())
}

/// Changes what is `Some`.
pub(in crate::sqlite) fn update(
    connection: &Connection,
    vault: &Vault,
    scope: &Scope,
    id: UserId,
    change: UserChange,
    now: Timestamp,
) -> Result<UserView> {
    let row = find(connection, scope, id)?;
    let changed = row.changed(change);
    let other_admin = || connection.prepare_cached(OTHER_ADMIN)?.query_row((scope.org, row.usr), |row| row.get(0));
    if changed.takes_an_admin && !other_admin()? {
        return Err(people::last_admin());
    }
    if changed.comes_back {
        room_for_one_more(connection, COUNT, scope.org, PEOPLE)?;
    }
    let values = (row.usr, changed.role.as_str(), changed.is_active, now.as_millis());
    connection.prepare_cached(UPDATE)?.execute(values)?;
    if changed.ends_sessions {
        connection.prepare_cached(END_SESSIONS)?.execute((scope.org, row.usr, now.as_millis()))?;
    }
    if changed.voids_links {
        links::void(connection, row.usr, now)?;
    }
    let act = Act::on(Action::UserUpdated, id)
        .from(audit::of_user(&row.email, row.role, row.is_active))
        .to(audit::of_user(&row.email, changed.role, changed.is_active));
    write(connection, vault, scope.into(), act, now)?;
    get(connection, scope, id)
}

fn find(connection: &Connection, scope: &Scope, id: UserId) -> Result<UserRow> {
    rows::expect("user", connection, BY_ID, &[&scope.org, &id.to_bytes()], UserRow::read)
}

/// One person.
pub(in crate::sqlite) fn get(connection: &Connection, scope: &Scope, id: UserId) -> Result<UserView> {
    find(connection, scope, id).map(UserRow::view)
}

/// The people after a place, newest first.
pub(in crate::sqlite) fn list(
    connection: &Connection,
    org: i64,
    after: Option<[u8; 16]>,
    limit: i64,
) -> Result<Vec<UserView>> {
    let rows = rows::all(connection, PAGE, &[&org, &after, &limit], UserRow::read)?;
    Ok(rows.into_iter().map(UserRow::view).collect())
}
