//! People of an organization, as its administrators invite and change them.

use postroom_domain::sign_in::Purpose;
use postroom_domain::{Timestamp, UserId};

use super::{one_by_one, room_for_one_more, taken};
use crate::api::{NewUser, Page, PageRequest, UserChange, UserView};
use crate::audit::Action;
use crate::engine::audit::{self, Act};
use crate::engine::page;
use crate::engine::people::{self, Addressee, PEOPLE, UserRow};
use crate::engine::vault::Vault;
use crate::postgres::Postgres;
use crate::postgres::audit::write;
use crate::postgres::convert::{at, get, uuid};
use crate::postgres::links;
use crate::postgres::pool::{Transaction, bind};
use crate::postgres::rows::{Read, select_user};
use crate::{Result, Scope};

/// Unique indexes on (org, id) and email_key decide.
const INSERT: &str = "insert into users (org, id, email, email_key, role, is_active, created_at, updated_at, created_by) \
     values ($1, $2, $3, $4, $5, true, $6, $6, $7) returning usr";

/// The primary key, from the organization on, at most as many entries as the bound.
const COUNT: &str = "select count(*) from (select 1 from users where org = $1 and is_active limit $2) as bounded";

/// By the unique index on (org, id).
const BY_ID: &str = select_user!("where org = $1 and id = $2");

/// By the unique index on (org, id); nobody else changes it meanwhile, and nobody comes in.
const TO_CHANGE: &str = select_user!("where org = $1 and id = $2 for no key update");

/// The primary key, from the place the page before ended.
const PAGE: &str = select_user!(
    "where org = $1 and ($2 is null or usr < (select usr from users where org = $1 and id = $2)) \
     order by usr desc limit $3"
);

/// The primary key, from the organization on.
const OTHER_ADMIN: &str = "select exists (select from users where org = $1 and usr <> $2 and role = 'admin' \
     and is_active and invited_until is null)";

/// By primary key.
const UPDATE: &str = "update users set role = $3, is_active = $4, updated_at = $5 where org = $1 and usr = $2";

/// By primary key.
const INVITED: &str = "update users set invited_until = $3, updated_at = $4 where org = $1 and usr = $2";

/// Index: sessions_by_user.
pub(in crate::postgres) const END_SESSIONS: &str =
    "update sessions set ended_at = $3 where org = $1 and usr = $2 and ended_at is null and expires_at > $3";

impl Postgres {
    pub(in crate::postgres) async fn user_invite(
        &self,
        scope: &Scope,
        new: NewUser,
        now: Timestamp,
    ) -> Result<UserView> {
        let desk = self.desk(scope.org).await?;
        let invited = invite(&desk.transaction, &self.0.vault, scope, &new, now).await;
        desk.end(invited).await
    }

    pub(in crate::postgres) async fn user_invite_again(
        &self,
        scope: &Scope,
        id: UserId,
        now: Timestamp,
    ) -> Result<UserView> {
        let desk = self.desk(scope.org).await?;
        let invited = invite_again(&desk.transaction, &self.0.vault, scope, id, now).await;
        desk.end(invited).await
    }

    pub(in crate::postgres) async fn user_list(&self, scope: &Scope, request: PageRequest) -> Result<Page<UserView>> {
        let (after, most) = page::after_id(&request);
        let desk = self.desk(scope.org).await?;
        let rows = desk.transaction.query(PAGE, bind![scope.org, after.map(uuid), most]).await;
        let views = UserRow::all(&desk.end(rows).await?)?.into_iter().map(UserRow::view).collect();
        Ok(page::cut(&request, views, |view: &UserView| view.id.to_bytes()))
    }

    pub(in crate::postgres) async fn user_get(&self, scope: &Scope, id: UserId) -> Result<UserView> {
        let desk = self.desk(scope.org).await?;
        let found = find(&desk.transaction, BY_ID, scope, id).await;
        desk.end(found).await.map(UserRow::view)
    }

    pub(in crate::postgres) async fn user_update(
        &self,
        scope: &Scope,
        id: UserId,
        change: UserChange,
        now: Timestamp,
    ) -> Result<UserView> {
        let desk = self.desk(scope.org).await?;
        let changed = update(&desk.transaction, &self.0.vault, scope, id, change, now).await;
        self.shown(desk.end(changed).await).await
    }
}

async fn find(transaction: &Transaction, sql: &str, scope: &Scope, id: UserId) -> Result<UserRow> {
    UserRow::read(&transaction.expect("user", sql, bind![scope.org, uuid(id.to_bytes())]).await?)
}

async fn invite(
    transaction: &Transaction,
    vault: &Vault,
    scope: &Scope,
    new: &NewUser,
    now: Timestamp,
) -> Result<UserView> {
    one_by_one(transaction, scope.org).await?;
    room_for_one_more(transaction, COUNT, scope.org, PEOPLE).await?;
    let id = UserId::new(now);
    let (key, by) = (new.email.key(), scope.actor.to_string());
    let row = transaction
        .expect(
            "user",
            INSERT,
            bind![scope.org, uuid(id.to_bytes()), new.email.as_str(), key, new.role.as_str(), at(now), by],
        )
        .await
        .map_err(taken)?;
    send(transaction, vault, scope, get(&row, 0)?, now).await?;
    let act = Act::on(Action::UserInvited, id).to(audit::of_user(&new.email, new.role, true));
    write(transaction, vault, scope.into(), act, now).await?;
    find(transaction, BY_ID, scope, id).await.map(UserRow::view)
}

async fn invite_again(
    transaction: &Transaction,
    vault: &Vault,
    scope: &Scope,
    id: UserId,
    now: Timestamp,
) -> Result<UserView> {
    let row = find(transaction, TO_CHANGE, scope, id).await?;
    let user = (scope.org, row.usr);
    row.can_be_invited_again(links::made_lately(transaction, user, now).await?)?;
    links::void(transaction, user, now).await?;
    send(transaction, vault, scope, row.usr, now).await?;
    write(transaction, vault, scope.into(), Act::on(Action::UserInvitedAgain, id), now).await?;
    find(transaction, BY_ID, scope, id).await.map(UserRow::view)
}

async fn send(transaction: &Transaction, vault: &Vault, scope: &Scope, usr: i64, now: Timestamp) -> Result<()> {
    let to = Addressee { org: scope.org, usr, organization: Some(scope.organization) };
    let expires_at = links::send(transaction, vault, to, Purpose::Invitation, now).await?;
    transaction.execute(INVITED, bind![scope.org, usr, at(expires_at), at(now)]).await?;
    Ok(())
}

async fn update(
    transaction: &Transaction,
    vault: &Vault,
    scope: &Scope,
    id: UserId,
    change: UserChange,
    now: Timestamp,
) -> Result<UserView> {
    // Two admins who demote each other at the same time: the second one sees what the first one did.
    one_by_one(transaction, scope.org).await?;
    let row = find(transaction, TO_CHANGE, scope, id).await?;
    let changed = row.changed(change);
    if changed.takes_an_admin {
        let other = transaction.expect("user", OTHER_ADMIN, bind![scope.org, row.usr]).await?;
        if !get::<bool>(&other, 0)? {
            return Err(people::last_admin());
        }
    }
    if changed.comes_back {
        room_for_one_more(transaction, COUNT, scope.org, PEOPLE).await?;
    }
    if changed.voids_links {
        links::void(transaction, (scope.org, row.usr), now).await?;
    }
    // Before the person: who ends a session holds that and then notes the change, and so does this.
    if changed.ends_sessions {
        transaction.execute(END_SESSIONS, bind![scope.org, row.usr, at(now)]).await?;
    }
    transaction.execute(UPDATE, bind![scope.org, row.usr, changed.role.as_str(), changed.is_active, at(now)]).await?;
    let act = Act::on(Action::UserUpdated, id)
        .from(audit::of_user(&row.email, row.role, row.is_active))
        .to(audit::of_user(&row.email, changed.role, changed.is_active));
    write(transaction, vault, scope.into(), act, now).await?;
    find(transaction, BY_ID, scope, id).await.map(UserRow::view)
}
