//! Links that people sign in with: made together with the mail that brings them, counted, made void.

use postroom_domain::sign_in::Purpose;
use postroom_domain::{Timestamp, TokenHash};
use rusqlite::params;

use super::connection::Connection;
use crate::Result;
use crate::engine::people::{Addressee, LINKS_IN, Link};
use crate::engine::vault::Vault;

/// By primary key.
const ADD: &str = "insert into sign_in_token (hash, org, usr, purpose, created_at, expires_at) \
     values (?1, ?2, ?3, ?4, ?5, ?6)";

/// The unique index on id decides.
const MAIL: &str = "insert into mail (org, usr, id, purpose, token, expires_at, due_at, created_at) \
     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)";

/// Index: sign_in_token_by_user.
const MADE: &str = "select count(*) from sign_in_token where usr = ?1 and created_at > ?2";

/// Index: sign_in_token_by_user.
const VOID: &str = "update sign_in_token set used_at = ?2 where usr = ?1 and used_at is null";

/// Index: mail_by_user.
const FORGET: &str = "delete from mail where usr = ?1";

/// Makes a link and the mail that brings it. Says when it ends.
pub(super) fn send(
    connection: &Connection,
    vault: &Vault,
    to: Addressee,
    purpose: Purpose,
    now: Timestamp,
) -> Result<Timestamp> {
    let link = Link::new(vault, to, purpose, now);
    add(connection, to, link.hash, purpose, now)?;
    connection.prepare_cached(MAIL)?.execute(params![
        to.org,
        to.usr,
        link.mail.to_bytes(),
        purpose.as_str(),
        link.sealed,
        link.expires_at.as_millis(),
        now.as_millis(),
    ])?;
    Ok(link.expires_at)
}

/// Keeps the hash of a token.
pub(super) fn add(
    connection: &Connection,
    to: Addressee,
    hash: TokenHash,
    purpose: Purpose,
    now: Timestamp,
) -> Result<()> {
    let expires_at = now + purpose.life();
    let values = (hash.to_bytes(), to.org, to.usr, purpose.as_str(), now.as_millis(), expires_at.as_millis());
    connection.prepare_cached(ADD)?.execute(values)?;
    Ok(())
}

/// How many links somebody was sent lately.
pub(super) fn made_lately(connection: &Connection, usr: i64, now: Timestamp) -> Result<i64> {
    let since = (now - LINKS_IN).as_millis();
    Ok(connection.prepare_cached(MADE)?.query_row((usr, since), |row| row.get(0))?)
}

/// Makes all of somebody's links void, and sends no mail with one.
pub(super) fn void(connection: &Connection, usr: i64, now: Timestamp) -> Result<()> {
    connection.prepare_cached(VOID)?.execute((usr, now.as_millis()))?;
    connection.prepare_cached(FORGET)?.execute([usr])?;
    Ok(())
}
