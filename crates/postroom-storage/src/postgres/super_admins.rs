//! Super admins: made with a link that is given by hand, listed, switched on and off.

use postroom_domain::sign_in::{Purpose, SignInToken};
use postroom_domain::{Email, Timestamp, UserId};
use tokio_postgres::Row;

use super::configuration::users::END_SESSIONS;
use super::convert::{at, email, get, id, moment, moment_or_none, uuid};
use super::pool::{Transaction, bind};
use super::{Postgres, audit, links};
use crate::api::{Page, PageRequest};
use crate::audit::Action;
use crate::engine::audit::{Act, INSTALLATION, of_super_admin};
use crate::engine::page;
use crate::engine::people::{Addressee, PLATFORM, super_admin_off};
use crate::engine::vault::Vault;
use crate::error::Unique;
use crate::platform::{SuperAdminLink, SuperAdminView};
use crate::{Error, Result, SuperAdmin};

/// The unique index on email_key decides.
const ADD: &str = "insert into users \
     (org, id, email, email_key, role, is_active, created_at, updated_at, created_by) \
     values (0, $1, $2, $3, 'super_admin', true, $4, $4, $5) on conflict (email_key) do nothing";

/// By the unique index on email_key; nobody else changes it meanwhile, and nobody comes in.
const BY_EMAIL: &str = "select usr, org, id, is_active from users where email_key = $1 for no key update";

/// What is shown of one.
macro_rules! select {
    ($rest:literal) => {
        concat!("select id, email, is_active, last_login_at, created_at, updated_at, created_by from users ", $rest)
    };
}

/// By primary key.
const VIEW: &str = select!("where org = 0 and usr = $1");

/// The primary key, from the place the page before ended.
const PAGE: &str = select!(
    "where org = 0 and ($1 is null or usr < (select usr from users where org = 0 and id = $1)) \
     order by usr desc limit $2"
);

/// By primary key.
const UPDATE: &str = "update users set is_active = $2, updated_at = $3 where org = 0 and usr = $1";

impl Postgres {
    pub(super) async fn make_super_admin(
        &self,
        by: &SuperAdmin,
        email: &Email,
        now: Timestamp,
    ) -> Result<SuperAdminLink> {
        let transaction = self.0.pools.platform.begin_unscoped().await?;
        let made = create(&transaction, &self.0.vault, by, email, now).await;
        transaction.finish(made).await
    }

    pub(super) async fn super_admins(&self, request: PageRequest) -> Result<Page<SuperAdminView>> {
        let (after, most) = page::after_id(&request);
        let connection = self.0.pools.platform.connection().await?;
        let rows = connection.query(PAGE, bind![after.map(uuid), most]).await?;
        let found = rows.iter().map(view).collect::<Result<_>>()?;
        Ok(page::cut(&request, found, |view: &SuperAdminView| view.id.to_bytes()))
    }

    pub(super) async fn switch_super_admin(
        &self,
        by: &SuperAdmin,
        email: &Email,
        is_active: bool,
        now: Timestamp,
    ) -> Result<SuperAdminView> {
        let transaction = self.0.pools.platform.begin_unscoped().await?;
        let switched = set_active(&transaction, &self.0.vault, by, email, is_active, now).await;
        self.shown(transaction.finish(switched).await).await
    }
}

/// A person of this address, of an organization or none.
struct Found {
    usr: i64,
    org: i64,
    id: UserId,
    is_active: bool,
}

async fn find(transaction: &Transaction, email: &Email) -> Result<Found> {
    let row = transaction.expect("super admin", BY_EMAIL, bind![email.key()]).await?;
    Ok(Found { usr: get(&row, 0)?, org: get(&row, 1)?, id: UserId::from_bytes(id(&row, 2)?), is_active: get(&row, 3)? })
}

/// A super admin, new or known, and a link.
async fn create(
    transaction: &Transaction,
    vault: &Vault,
    by: &SuperAdmin,
    email: &Email,
    now: Timestamp,
) -> Result<SuperAdminLink> {
    let (id_if_new, key, actor) = (uuid(UserId::new(now).to_bytes()), email.key(), by.0.to_string());
    transaction.execute(ADD, bind![id_if_new, email.as_str(), key, at(now), actor]).await?;
    let found = find(transaction, email).await?;
    if found.org != PLATFORM {
        return Err(Error::Taken { field: Unique::UserEmail });
    }
    if !found.is_active {
        return Err(super_admin_off());
    }
    let token = SignInToken::generate();
    let to = Addressee { org: PLATFORM, usr: found.usr, organization: None };
    links::add(transaction, to, token.hash(), Purpose::SignIn, now).await?;
    let act = Act::on(Action::SuperAdminInvited, found.id).with("email", email.as_str());
    audit::write(transaction, vault, by.acting_in(INSTALLATION), act, now).await?;
    Ok(SuperAdminLink { user: found.id, token, expires_at: now + Purpose::SignIn.life() })
}

/// Switches one on or off.
async fn set_active(
    transaction: &Transaction,
    vault: &Vault,
    by: &SuperAdmin,
    email: &Email,
    is_active: bool,
    now: Timestamp,
) -> Result<SuperAdminView> {
    let found = find(transaction, email).await?;
    if found.org != PLATFORM {
        return Err(Error::NotFound { kind: "super admin" });
    }
    if !is_active {
        links::void(transaction, (PLATFORM, found.usr), now).await?;
        // Before the person, as with people of an organization.
        transaction.execute(END_SESSIONS, bind![PLATFORM, found.usr, at(now)]).await?;
    }
    transaction.execute(UPDATE, bind![found.usr, is_active, at(now)]).await?;
    let act = Act::on(Action::SuperAdminUpdated, found.id)
        .from(of_super_admin(found.is_active))
        .to(of_super_admin(is_active));
    audit::write(transaction, vault, by.acting_in(INSTALLATION), act, now).await?;
    view(&transaction.expect("super admin", VIEW, bind![found.usr]).await?)
}

fn view(row: &Row) -> Result<SuperAdminView> {
    Ok(SuperAdminView {
        id: UserId::from_bytes(id(row, 0)?),
        email: email(row, 1)?,
        is_active: get(row, 2)?,
        last_login_at: moment_or_none(row, 3)?,
        created_at: moment(row, 4)?,
        updated_at: moment(row, 5)?,
        created_by: get(row, 6)?,
    })
}
