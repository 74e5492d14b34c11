//! Links that people sign in with: made together with the mail that brings them, counted, made void. A person is an
//! organization's number and their own.

use postroom_domain::sign_in::Purpose;
use postroom_domain::{Timestamp, TokenHash};

use super::convert::{at, get, uuid};
use super::pool::{Transaction, bind};
use crate::Result;
use crate::engine::people::{Addressee, LINKS_IN, Link};
use crate::engine::vault::Vault;

/// By primary key.
const ADD: &str = "insert into sign_in_tokens (hash, org, usr, purpose, created_at, expires_at) \
     values ($1, $2, $3, $4, $5, $6)";

/// The unique index on id decides.
const MAIL: &str = "insert into mails (org, usr, id, purpose, token, expires_at, due_at, created_at) \
     values ($1, $2, $3, $4, $5, $6, $7, $7)";

/// Index: sign_in_tokens_by_user.
const MADE: &str = "select count(*) from sign_in_tokens where org = $1 and usr = $2 and created_at > $3";

/// Index: sign_in_tokens_by_user.
const VOID: &str = "update sign_in_tokens set used_at = $3 where org = $1 and usr = $2 and used_at is null";

/// Index: mails_by_user.
const FORGET: &str = "delete from mails where org = $1 and usr = $2";

/// Makes a link and the mail that brings it. Says when it ends.
pub(super) async fn send(
    transaction: &Transaction,
    vault: &Vault,
    to: Addressee,
    purpose: Purpose,
    now: Timestamp,
) -> Result<Timestamp> {
    let link = Link::new(vault, to, purpose, now);
    add(transaction, to, link.hash, purpose, now).await?;
    let id = uuid(link.mail.to_bytes());
    let expires_at = at(link.expires_at);
    transaction.execute(MAIL, bind![to.org, to.usr, id, purpose.as_str(), link.sealed, expires_at, at(now)]).await?;
    Ok(link.expires_at)
}

/// Keeps the hash of a token.
pub(super) async fn add(
    transaction: &Transaction,
    to: Addressee,
    hash: TokenHash,
    purpose: Purpose,
    now: Timestamp,
) -> Result<()> {
    let (hash, expires_at) = (hash.to_bytes().to_vec(), at(now + purpose.life()));
    transaction.execute(ADD, bind![hash, to.org, to.usr, purpose.as_str(), at(now), expires_at]).await?;
    Ok(())
}

/// How many links somebody was sent lately.
pub(super) async fn made_lately(transaction: &Transaction, (org, usr): (i64, i64), now: Timestamp) -> Result<i64> {
    let row = transaction.expect("user", MADE, bind![org, usr, at(now - LINKS_IN)]).await?;
    get(&row, 0)
}

/// Makes all of somebody's links void, and sends no mail with one.
pub(super) async fn void(transaction: &Transaction, (org, usr): (i64, i64), now: Timestamp) -> Result<()> {
    transaction.execute(VOID, bind![org, usr, at(now)]).await?;
    transaction.execute(FORGET, bind![org, usr]).await?;
    Ok(())
}
