//! Signing in and out. Everything of one person happens behind a lock of their row, which is taken before a token or a
//! session is touched: whoever switches them off at the same time comes before or after, and no two wait for each other.

use postroom_domain::sign_in::{Purpose, SESSION_LIFE};
use postroom_domain::{Email, OrganizationId, SessionId, Timestamp, TokenHash, UserId};
use tokio_postgres::Row;

use super::convert::{at, email, get, id, moment_or_none, uuid, word};
use super::links;
use super::pool::{Transaction, bind};
use super::{Postgres, audit};
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
            "select users.usr, users.org, users.id, email, role, users.is_active, invited_until, organizations.id, \
             organizations.is_active from users left join organizations on organizations.org = users.org ",
            $rest
        )
    };
}

/// By the unique index on email_key.
const ADDRESSED: &str = "select org, usr from users where email_key = $1";

/// By primary key.
const SENT_TO: &str = "select org, usr from sign_in_tokens where hash = $1 and used_at is null and expires_at > $2";

/// By primary key.
const ALONE: &str = "select from users where org = $1 and usr = $2 for no key update";

/// By primary keys.
const ENTRANT: &str = select_entrant!("where users.org = $1 and users.usr = $2");

/// By primary key. Of all that come with one token, this changes a row for one.
const USE: &str = "update sign_in_tokens set used_at = $2 where hash = $1 and used_at is null and expires_at > $2";

/// By primary key.
const ENTERED: &str = "update users set last_login_at = $3, invited_until = null where org = $1 and usr = $2";

/// Index: sign_in_tokens_by_user.
const ACCEPTED: &str = "update sign_in_tokens set used_at = $3 \
     where org = $1 and usr = $2 and used_at is null and purpose = 'invitation'";

/// Index: sessions_by_user. Leaves room for one more.
const TRIM: &str = "update sessions set ended_at = $3 where id in (select id from sessions \
     where org = $1 and usr = $2 and ended_at is null and expires_at > $3 order by created_at desc offset $4)";

/// The primary key decides.
const BEGIN: &str = "insert into sessions (id, org, usr, created_at, expires_at, address, user_agent) \
     values ($1, $2, $3, $4, $5, $6, $7)";

/// By primary key.
const OWNER: &str = "select org, usr from sessions where id = $1";

/// By primary keys.
const END: &str = "update sessions set ended_at = $2 where id = $1 and ended_at is null \
     returning org, (select users.id from users where users.org = sessions.org and users.usr = sessions.usr)";

fn entrant(row: &Row) -> Result<Entrant> {
    let organization: Option<uuid::Uuid> = get(row, 7)?;
    let organization = organization.map(|id| OrganizationId::from_bytes(id.into_bytes()));
    Ok(Entrant {
        usr: get(row, 0)?,
        org: get(row, 1)?,
        id: UserId::from_bytes(id(row, 2)?),
        email: email(row, 3)?,
        role: word(row, 4)?,
        is_active: get(row, 5)?,
        invited_until: moment_or_none(row, 6)?,
        organization: organization.zip(get(row, 8)?),
    })
}

impl Postgres {
    pub(super) async fn request_link(&self, email: &Email, from: &Origin, now: Timestamp) -> Result<bool> {
        let pool = &self.0.pools.authorizer;
        let Some(row) = pool.connection().await?.query_one(ADDRESSED, bind![email.key()]).await? else {
            return Ok(false);
        };
        let transaction = pool.begin_unscoped().await?;
        let requested = request(&transaction, &self.0.vault, &row, from, now).await;
        transaction.finish(requested).await
    }

    pub(super) async fn use_link(
        &self,
        token: &TokenHash,
        from: &Origin,
        user_agent: &str,
        now: Timestamp,
    ) -> Result<SignedIn> {
        let (pool, hash) = (&self.0.pools.authorizer, token.to_bytes().to_vec());
        let row = pool.connection().await?.query_one(SENT_TO, bind![hash, at(now)]).await?.ok_or(NO_LINK)?;
        let transaction = pool.begin_unscoped().await?;
        let entered = enter(&transaction, &self.0.vault, (&row, hash), from, user_agent, now).await;
        self.shown(transaction.finish(entered).await).await
    }

    pub(super) async fn end_session(&self, session: SessionId, from: &Origin, now: Timestamp) -> Result<()> {
        let transaction = self.0.pools.authorizer.begin_unscoped().await?;
        let ended = leave(&transaction, &self.0.vault, session, from, now).await;
        self.shown(transaction.finish(ended).await).await
    }
}

/// Ends a session, if it has not ended.
async fn leave(
    transaction: &Transaction,
    vault: &Vault,
    session: SessionId,
    from: &Origin,
    now: Timestamp,
) -> Result<()> {
    let session_id = uuid(session.to_bytes());
    let Some(owner) = transaction.query_one(OWNER, bind![session_id]).await? else { return Ok(()) };
    // Whoever switches the person off at this moment comes before or after this.
    transaction.expect("user", ALONE, bind![get::<i64>(&owner, 0)?, get::<i64>(&owner, 1)?]).await?;
    let Some(row) = transaction.query_one(END, bind![session_id, at(now)]).await? else { return Ok(()) };
    let (org, user) = (get(&row, 0)?, UserId::from_bytes(id(&row, 1)?));
    let act = Act::on(Action::UserSignedOut, user).with("session", session.to_string());
    audit::write(transaction, vault, by_user(org, user, from), act, now).await
}

/// Somebody, behind the lock of their row.
async fn alone(transaction: &Transaction, row: &Row) -> Result<Entrant> {
    let (org, usr): (i64, i64) = (get(row, 0)?, get(row, 1)?);
    transaction.expect("user", ALONE, bind![org, usr]).await?;
    entrant(&transaction.expect("user", ENTRANT, bind![org, usr]).await?)
}

/// Makes a link and its mail, if whoever has the address may sign in. Says whether.
async fn request(transaction: &Transaction, vault: &Vault, row: &Row, from: &Origin, now: Timestamp) -> Result<bool> {
    let entrant = alone(transaction, row).await?;
    let user = (entrant.org, entrant.usr);
    if !entrant.may_sign_in(now) || links::made_lately(transaction, user, now).await? >= LINKS {
        return Ok(false);
    }
    links::send(transaction, vault, entrant.addressee(), Purpose::SignIn, now).await?;
    // Who has only the address has proved nothing.
    let by = By { org: entrant.org, ..By::nobody(from) };
    audit::write(transaction, vault, by, Act::on(Action::UserLinkSent, entrant.id), now).await?;
    Ok(true)
}

/// Uses a token up and begins a session.
async fn enter(
    transaction: &Transaction,
    vault: &Vault,
    (row, hash): (&Row, Vec<u8>),
    from: &Origin,
    user_agent: &str,
    now: Timestamp,
) -> Result<SignedIn> {
    let entrant = alone(transaction, row).await?;
    if !entrant.may_sign_in(now) || transaction.execute(USE, bind![hash, at(now)]).await? != 1 {
        return Err(NO_LINK);
    }
    let (org, usr) = (entrant.org, entrant.usr);
    transaction.execute(ENTERED, bind![org, usr, at(now)]).await?;
    if entrant.invited_until.is_some() {
        transaction.execute(ACCEPTED, bind![org, usr, at(now)]).await?;
    }
    transaction.execute(TRIM, bind![org, usr, at(now), SESSIONS - 1]).await?;
    let (session, expires_at) = (SessionId::new(now), now + SESSION_LIFE);
    let address = from.address.map(|address| address.to_string());
    let (id, user_agent) = (uuid(session.to_bytes()), people::user_agent(user_agent));
    transaction.execute(BEGIN, bind![id, org, usr, at(now), at(expires_at), address, user_agent]).await?;
    let act = Act::on(Action::UserSignedIn, entrant.id).with("session", session.to_string());
    audit::write(transaction, vault, by_user(org, entrant.id, from), act, now).await?;
    Ok(entrant.signed_in(session, expires_at))
}
