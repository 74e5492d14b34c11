//! Mails that wait to be sent, and the links that a super admin is given by hand.

use postroom_domain::sign_in::{Purpose, SignInToken};
use postroom_domain::{Email, MailId, OrganizationId, Timestamp, UserId};
use tokio_postgres::Row;
use tracing::warn;

use super::convert::{at, email, get, id, moment, uuid, word};
use super::pool::{Transaction, bind};
use super::rows::small;
use super::{Postgres, audit, links};
use crate::audit::Action;
use crate::engine::audit::{Act, INSTALLATION};
use crate::engine::people::{self, Addressee, PLATFORM, StoredRole, TAKEN, WaitingMail};
use crate::engine::vault::Vault;
use crate::error::Unique;
use crate::platform::{OutgoingMail, SuperAdminLink};
use crate::{Error, Result, SuperAdmin};

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

/// The unique index on email_key decides.
const ADD_SUPER_ADMIN: &str = "insert into users \
     (org, id, email, email_key, role, is_active, created_at, updated_at, created_by) \
     values (0, $1, $2, $3, 'super_admin', true, $4, $4, $5) on conflict (email_key) do nothing";

/// By the unique index on email_key.
const SUPER_ADMIN: &str = "select usr, org, id from users where email_key = $1";

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

    pub(super) async fn make_super_admin(
        &self,
        by: &SuperAdmin,
        email: &Email,
        now: Timestamp,
    ) -> Result<SuperAdminLink> {
        let transaction = self.0.pools.platform.begin_unscoped().await?;
        let made = super_admin(&transaction, &self.0.vault, by, email, now).await;
        transaction.finish(made).await
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

/// A super admin, new or known, and a link.
async fn super_admin(
    transaction: &Transaction,
    vault: &Vault,
    by: &SuperAdmin,
    email: &Email,
    now: Timestamp,
) -> Result<SuperAdminLink> {
    let (id_if_new, key, actor) = (uuid(UserId::new(now).to_bytes()), email.key(), by.0.to_string());
    transaction.execute(ADD_SUPER_ADMIN, bind![id_if_new, email.as_str(), key, at(now), actor]).await?;
    let row = transaction.expect("user", SUPER_ADMIN, bind![key]).await?;
    let (usr, org) = (get(&row, 0)?, get(&row, 1)?);
    if org != PLATFORM {
        return Err(Error::Taken { field: Unique::UserEmail });
    }
    let token = SignInToken::generate();
    let to = Addressee { org, usr, organization: None };
    links::add(transaction, to, token.hash(), Purpose::SignIn, now).await?;
    let user = UserId::from_bytes(id(&row, 2)?);
    let act = Act::on(Action::SuperAdminInvited, user).with("email", email.as_str());
    audit::write(transaction, vault, by.acting_in(INSTALLATION), act, now).await?;
    Ok(SuperAdminLink { user, token, expires_at: now + Purpose::SignIn.life() })
}
