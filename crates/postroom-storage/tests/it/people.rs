//! People: invited, let in once by each link, and out again within a second; and the mails that bring the links.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures_util::future::join_all;
use postroom_domain::sign_in::Purpose;
use postroom_domain::user::UserStatus;
use postroom_domain::{Email, Role, SessionId, SignInToken, UserId};
use postroom_storage::api::{NewUser, PageRequest, UserChange, UserView};
use postroom_storage::audit::AuditFilter;
use postroom_storage::authorizer::SignedIn;
use postroom_storage::error::Unique;
use postroom_storage::platform::{OrganizationChange, OutgoingMail, Tenant};
use postroom_storage::scope::{Origin, PersonCaller, PersonIs};
use postroom_storage::{Actor, Error, Result, Scope, SuperAdmin};
use postroom_testkit::postgres::connect;

use crate::support::{Harness, Postgres, Room, Sqlite, is_not_found, page};

const BY: fn() -> SuperAdmin = SuperAdmin::by_operator;
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

pub fn email(text: &str) -> Email {
    Email::parse(text).unwrap()
}

pub fn from() -> Origin {
    Origin { address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), request: Some("req_1".into()) }
}

fn role(role: Role) -> UserChange {
    UserChange { role: Some(role), is_active: None }
}

fn active(is_active: bool) -> UserChange {
    UserChange { role: None, is_active: Some(is_active) }
}

fn conflict<T: std::fmt::Debug>(result: Result<T>) -> &'static str {
    match result {
        Err(Error::Conflict { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

impl<H: Harness> Room<H> {
    pub async fn invite(&self, scope: &Scope, address: &str, role: Role) -> UserView {
        let new = NewUser { email: email(address), role };
        self.storage.api.user_invite(scope, new, self.now()).await.unwrap()
    }

    /// All mails that are due, sent.
    pub async fn mails(&self) -> Vec<OutgoingMail> {
        let mails = self.storage.platform.mail_take(self.now(), 50).await.unwrap();
        for mail in &mails {
            self.storage.platform.mail_done(mail.id).await.unwrap();
        }
        mails
    }

    /// The token of the one mail that is due.
    pub async fn token(&self) -> SignInToken {
        let mut mails = self.mails().await;
        assert_eq!(mails.len(), 1, "{mails:?}");
        mails.remove(0).token
    }

    pub async fn enter(&self, token: &SignInToken) -> Result<SignedIn> {
        self.storage.authorizer.sign_in(&token.hash(), &from(), "Mozilla/5.0", self.now()).await
    }

    /// Somebody who was invited and has signed in.
    pub async fn joined(&self, scope: &Scope, address: &str, role: Role) -> SignedIn {
        self.invite(scope, address, role).await;
        self.enter(&self.token().await).await.unwrap()
    }

    pub async fn person(&self, session: SessionId) -> Option<PersonCaller> {
        self.storage.authorizer.session_find(session, self.now()).await.unwrap()
    }

    async fn ask(&self, address: &str) -> bool {
        self.storage.authorizer.sign_in_request(&email(address), &from(), self.now()).await.unwrap()
    }

    async fn update(&self, tenant: &Tenant, id: UserId, change: UserChange) -> Result<UserView> {
        self.storage.api.user_update(&tenant.scope, id, change, self.now()).await
    }
}

pub async fn somebody_who_is_invited_comes_in_with_the_link_of_the_mail_until_the_session_ends<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    let invited = room.invite(&acme.scope, "Ada@Example.com", Role::Admin).await;
    assert_eq!((invited.status, invited.role, invited.last_login_at), (UserStatus::Invited, Role::Admin, None));
    assert_eq!(invited.invited_until, Some(room.now() + 7 * DAY));
    assert_eq!((invited.email.as_str(), invited.created_by.as_str()), ("Ada@example.com", "operator"));
    let mail = room.mails().await.remove(0);
    assert_eq!((mail.to, mail.purpose, mail.tries), (invited.email, Purpose::Invitation, 0));
    assert_eq!((mail.organization.as_deref(), mail.role), (Some("acme"), Some(Role::Admin)));
    assert_eq!(mail.expires_at, room.now() + 7 * DAY);

    room.hands.forward(6 * DAY);
    let entered = room.enter(&mail.token).await.unwrap();
    assert_eq!((entered.user, entered.role), (invited.id, Some(Role::Admin)));
    assert_eq!((entered.organization, entered.expires_at), (Some(acme.organization.id), room.now() + DAY));
    assert!(is_not_found(room.enter(&mail.token).await), "a link is good once");
    let view = room.storage.api.user_get(&acme.scope, invited.id).await.unwrap();
    assert_eq!((view.status, view.invited_until, view.last_login_at), (UserStatus::Active, None, Some(room.now())));
    let again = room.storage.api.user_invite_again(&acme.scope, invited.id, room.now()).await;
    assert_eq!(conflict(again), "invitation_accepted");

    let room = room.crash().await;
    let person = room.person(entered.session).await.unwrap();
    assert_eq!((person.user, person.email.as_str()), (invited.id, "Ada@example.com"));
    let PersonIs::Of { scope, role, organization_active } = person.who else { panic!("of an organization") };
    assert_eq!((scope.organization(), scope.actor()), (acme.organization.id, Actor::User(invited.id)));
    assert_eq!((role, organization_active), (Role::Admin, true));
    assert_eq!(room.storage.api.user_list(&scope, page(10)).await.unwrap().data.len(), 1);
    room.storage.authorizer.session_end(entered.session, &Origin::default(), room.now()).await.unwrap();
    assert!(room.person(entered.session).await.is_none());
    room.storage.authorizer.session_end(entered.session, &Origin::default(), room.now()).await.unwrap();
    room.storage.authorizer.session_end(SessionId::new(room.now()), &Origin::default(), room.now()).await.unwrap();
}

pub async fn of_twenty_who_come_with_one_link_at_once_one_comes_in<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    room.joined(&acme.scope, "ada@example.com", Role::Member).await;
    for _ in 0..3 {
        assert!(room.ask("ADA@example.com").await);
        let token = room.token().await;
        let answers = join_all((0..20).map(|_| room.enter(&token))).await;
        let (came_in, others): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!(came_in.len(), 1);
        assert!(others.into_iter().all(is_not_found));
    }
}

pub async fn a_link_is_made_for_who_may_sign_in_and_not_more_than_five_an_hour<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, other) = (room.organization("acme").await, room.organization("other").await);
    assert!(!room.ask("nobody@example.com").await);
    let ada = room.joined(&acme.scope, "ada@example.com", Role::Admin).await;
    room.invite(&other.scope, "bob@example.com", Role::Member).await;
    room.mails().await;
    for _ in 0..4 {
        assert!(room.ask("ada@example.com").await, "with the invitation it is five");
    }
    assert!(!room.ask("ada@example.com").await);
    let tokens: Vec<_> = room.mails().await.into_iter().map(|mail| mail.token).collect();
    assert_eq!(tokens.len(), 4);
    room.hands.forward(15 * MINUTE - Duration::from_millis(1));
    room.enter(&tokens[0]).await.unwrap();
    room.hands.forward(Duration::from_millis(1));
    assert!(is_not_found(room.enter(&tokens[1]).await), "after fifteen minutes it is too late");
    room.hands.forward(45 * MINUTE);
    assert!(room.ask("ada@example.com").await);

    // Who lets an invitation lapse has to be invited again.
    let late = room.token().await;
    assert!(room.ask("bob@example.com").await, "who is invited may ask for a link, too");
    let early = room.token().await;
    room.hands.forward(7 * DAY);
    assert!(!room.ask("bob@example.com").await);
    assert!(is_not_found(room.enter(&early).await));
    assert!(is_not_found(room.enter(&late).await));

    // Nor does anybody come in who is switched off, alone or with the organization.
    assert!(room.ask("ada@example.com").await);
    let token = room.token().await;
    let switch = |is_active| OrganizationChange { is_active: Some(is_active), ..OrganizationChange::default() };
    let (platform, acme_id) = (&room.storage.platform, acme.organization.id);
    platform.organization_update(BY(), acme_id, switch(false), room.now()).await.unwrap();
    assert!(!room.ask("ada@example.com").await);
    assert!(is_not_found(room.enter(&token).await));
    platform.organization_update(BY(), acme_id, switch(true), room.now()).await.unwrap();
    room.enter(&token).await.unwrap();
    room.joined(&acme.scope, "eve@example.com", Role::Admin).await;
    assert!(room.ask("ada@example.com").await);
    let token = room.token().await;
    room.update(&acme, ada.user, active(false)).await.unwrap();
    assert!(!room.ask("ada@example.com").await);
    room.update(&acme, ada.user, active(true)).await.unwrap();
    assert!(is_not_found(room.enter(&token).await), "being switched off voids links");
}

pub async fn a_new_invitation_voids_the_one_before<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    let ada = room.invite(&acme.scope, "ada@example.com", Role::Member).await;
    let again = async || room.storage.api.user_invite_again(&acme.scope, ada.id, room.now()).await;
    let first = room.token().await;
    again().await.unwrap();
    room.hands.forward(MINUTE);
    let view = again().await.unwrap();
    assert_eq!((view.status, view.invited_until), (UserStatus::Invited, Some(room.now() + 7 * DAY)));
    let newest = room.token().await;
    assert!(is_not_found(room.enter(&first).await));
    again().await.unwrap();
    again().await.unwrap();
    assert_eq!(conflict(again().await), "too_many_invitations");
    assert!(is_not_found(room.enter(&newest).await));
    // Accepted with another link, it is accepted: the invitation itself is void then.
    let invitation = room.token().await;
    room.hands.forward(60 * MINUTE);
    assert!(room.ask("ada@example.com").await);
    room.enter(&room.token().await).await.unwrap();
    assert!(is_not_found(room.enter(&invitation).await));
    room.update(&acme, ada.id, active(false)).await.unwrap();
    assert_eq!(conflict(again().await), "user_deactivated");
}

pub async fn an_address_is_one_persons_in_the_installation<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, other) = (room.organization("acme").await, room.organization("other").await);
    room.invite(&acme.scope, "ada@example.com", Role::Member).await;
    for scope in [&acme.scope, &other.scope] {
        let new = NewUser { email: email("ADA@EXAMPLE.com"), role: Role::Admin };
        let taken = room.storage.api.user_invite(scope, new, room.now()).await;
        assert!(matches!(taken, Err(Error::Taken { field: Unique::UserEmail })), "{taken:?}");
    }
    let taken = room.storage.platform.super_admin_create(BY(), &email("Ada@example.com"), room.now()).await;
    assert!(matches!(taken, Err(Error::Taken { field: Unique::UserEmail })), "{taken:?}");
    assert_eq!(room.mails().await.len(), 1, "and nothing was sent for it");
    let at_once = join_all([&acme, &other].map(|tenant| {
        let new = NewUser { email: email("bob@example.com"), role: Role::Admin };
        room.storage.api.user_invite(&tenant.scope, new, room.now())
    }));
    assert_eq!(at_once.await.iter().filter(|answer| answer.is_ok()).count(), 1);
}

pub async fn an_organization_keeps_an_admin_who_can_sign_in<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    let ada = room.joined(&acme.scope, "ada@example.com", Role::Admin).await.user;
    let invited = room.invite(&acme.scope, "eve@example.com", Role::Admin).await.id;
    room.mails().await;
    for change in [role(Role::Member), active(false)] {
        assert_eq!(conflict(room.update(&acme, ada, change).await), "last_admin");
    }
    room.update(&acme, ada, role(Role::Admin)).await.unwrap();
    room.update(&acme, invited, active(false)).await.unwrap();
    for _ in 0..5 {
        let address = format!("bob-{}@example.com", UserId::new(room.now()));
        let bob = room.joined(&acme.scope, &address, Role::Admin).await.user;
        let (one, other) =
            tokio::join!(room.update(&acme, ada, role(Role::Member)), room.update(&acme, bob, active(false)));
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
        assert_eq!(conflict(if one.is_ok() { other } else { one }), "last_admin");
        let ada_view = room.storage.api.user_get(&acme.scope, ada).await.unwrap();
        if ada_view.role == Role::Member {
            room.update(&acme, ada, role(Role::Admin)).await.unwrap();
            room.update(&acme, bob, active(false)).await.unwrap();
        }
    }
}

pub async fn a_session_ends_with_its_time_with_another_role_and_with_being_switched_off<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    room.joined(&acme.scope, "root@example.com", Role::Admin).await;
    let first = room.joined(&acme.scope, "ada@example.com", Role::Member).await;
    let again = async || {
        assert!(room.ask("ada@example.com").await);
        room.enter(&room.token().await).await.unwrap().session
    };
    let promoted = room.update(&acme, first.user, role(Role::Admin)).await.unwrap();
    assert_eq!(promoted.role, Role::Admin);
    assert!(room.person(first.session).await.is_none());
    let second = again().await;
    room.update(&acme, first.user, role(Role::Admin)).await.unwrap();
    let person = room.person(second).await.expect("what changes nothing ends nothing");
    assert!(matches!(person.who, PersonIs::Of { role: Role::Admin, .. }));
    let off = room.update(&acme, first.user, active(false)).await.unwrap();
    assert_eq!(off.status, UserStatus::Deactivated);
    assert!(room.person(second).await.is_none());
    room.update(&acme, first.user, active(true)).await.unwrap();
    assert!(room.person(second).await.is_none(), "it does not come back");
    let third = again().await;
    let off = OrganizationChange { is_active: Some(false), ..OrganizationChange::default() };
    room.storage.platform.organization_update(BY(), acme.organization.id, off, room.now()).await.unwrap();
    let person = room.person(third).await.unwrap();
    assert!(matches!(person.who, PersonIs::Of { organization_active: false, .. }));
    room.hands.forward(DAY - Duration::from_millis(1));
    assert!(room.person(third).await.is_some());
    room.hands.forward(Duration::from_millis(1));
    assert!(room.person(third).await.is_none());
}

pub async fn the_oldest_session_ends_for_the_twenty_first<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    let mut sessions = vec![room.joined(&acme.scope, "ada@example.com", Role::Member).await.session];
    while sessions.len() < 21 {
        room.hands.forward(15 * MINUTE);
        assert!(room.ask("ada@example.com").await);
        sessions.push(room.enter(&room.token().await).await.unwrap().session);
    }
    assert!(room.person(sessions[0]).await.is_none());
    for session in &sessions[1..] {
        assert!(room.person(*session).await.is_some());
    }
}

pub async fn a_super_admin_is_made_once_and_comes_in_without_an_organization<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    let platform = &room.storage.platform;
    let first = platform.super_admin_create(BY(), &email("root@example.com"), room.now()).await.unwrap();
    let second = platform.super_admin_create(BY(), &email("Root@example.com"), room.now()).await.unwrap();
    assert_eq!(first.user, second.user);
    assert_eq!(second.expires_at, room.now() + 15 * MINUTE);
    assert!(room.mails().await.is_empty(), "the link is handed over");
    let entered = room.enter(&second.token).await.unwrap();
    assert_eq!((entered.user, entered.role, entered.organization), (first.user, None, None));
    let person = room.person(entered.session).await.unwrap();
    let PersonIs::SuperAdmin(by) = person.who else { panic!("a super admin") };
    let scope = room.storage.authorizer.organization_enter(by, "acme").await.unwrap().unwrap();
    assert_eq!((scope.organization(), scope.actor()), (acme.organization.id, Actor::User(first.user)));
    assert!(room.ask("root@example.com").await);
    let mail = room.mails().await.remove(0);
    assert_eq!((mail.organization, mail.role, mail.purpose), (None, None, Purpose::SignIn));
    room.enter(&mail.token).await.unwrap();
    assert!(is_not_found(room.storage.api.user_get(&scope, first.user).await), "of no organization");
    room.storage.authorizer.session_end(entered.session, &Origin::default(), room.now()).await.unwrap();
    assert!(room.person(entered.session).await.is_none());
}

pub async fn a_super_admin_who_is_switched_off_is_out_at_once_until_switched_on_again<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    room.joined(&acme.scope, "ada@example.com", Role::Admin).await;
    let platform = &room.storage.platform;
    let (root, eve) = (email("root@example.com"), email("eve@example.com"));
    let create = async |email: &Email| platform.super_admin_create(BY(), email, room.now()).await;
    let switch = async |email: &Email, on| platform.super_admin_set_active(BY(), email, on, room.now()).await;
    let session = room.enter(&create(&root).await.unwrap().token).await.unwrap().session;
    let unused = create(&root).await.unwrap().token;
    let of_eve = room.enter(&create(&eve).await.unwrap().token).await.unwrap().session;
    assert!(room.ask("root@example.com").await);

    let off = switch(&email("Root@Example.com"), false).await.unwrap();
    assert_eq!((off.email.as_str(), off.is_active, off.created_by.as_str()), ("root@example.com", false, "operator"));
    assert!(room.person(session).await.is_none());
    assert!(room.person(of_eve).await.is_some(), "somebody else stays");
    assert!(is_not_found(room.enter(&unused).await));
    assert!(room.mails().await.is_empty(), "no link goes out");
    assert!(!room.ask("root@example.com").await);
    assert_eq!(conflict(create(&root).await), "user_deactivated");

    let first = platform.super_admin_list(BY(), page(1)).await.unwrap();
    let next = PageRequest { limit: 1, after: first.next };
    let second = platform.super_admin_list(BY(), next).await.unwrap();
    assert_eq!((first.data[0].email.as_str(), first.data[0].is_active), ("eve@example.com", true));
    assert_eq!(first.data[0].last_login_at, Some(room.now()));
    assert_eq!(
        (second.data, second.next.is_none()),
        (vec![off.clone()], true),
        "people of organizations are not there"
    );

    assert!(!switch(&eve, false).await.unwrap().is_active, "the last one, too");
    assert!(is_not_found(switch(&email("ada@example.com"), false).await), "who is of an organization is none");
    assert!(is_not_found(switch(&email("nobody@example.com"), true).await));
    assert_eq!(switch(&root, true).await.unwrap().id, off.id);
    assert!(room.person(session).await.is_none(), "what has ended stays so");
    room.enter(&create(&root).await.unwrap().token).await.unwrap();

    let filter = AuditFilter { action: Some("super_admin.updated".to_owned()), ..AuditFilter::default() };
    let entries = platform.audit_list(BY(), filter, page(10)).await.unwrap().data;
    let ids: Vec<_> = entries.iter().map(|entry| entry.resource_id.clone().unwrap()).collect();
    assert_eq!(ids, [off.id, first.data[0].id, off.id].map(|id| id.to_string()));
    let is_active = |on: bool| Some(serde_json::Map::from_iter([("is_active".to_owned(), on.into())]));
    assert_eq!((&entries[0].old_values, &entries[0].new_values), (&is_active(false), &is_active(true)));
    assert_eq!(entries[2].actor, "operator");
}

pub async fn people_of_another_organization_are_like_none<H: Harness>() {
    let room = Room::<H>::new().await;
    let (acme, other) = (room.organization("acme").await, room.organization("other").await);
    let ada = room.joined(&acme.scope, "ada@example.com", Role::Admin).await;
    let bob = room.invite(&acme.scope, "bob@example.com", Role::Admin).await.id;
    let api = &room.storage.api;
    for id in [ada.user, bob, UserId::new(room.now())] {
        assert!(is_not_found(api.user_get(&other.scope, id).await));
        assert!(is_not_found(api.user_invite_again(&other.scope, id, room.now()).await));
        assert!(is_not_found(room.update(&other, id, active(false)).await));
    }
    assert!(api.user_list(&other.scope, page(10)).await.unwrap().data.is_empty());
    assert!(room.person(ada.session).await.is_some());
    let first = api.user_list(&acme.scope, page(1)).await.unwrap();
    let next = postroom_storage::api::PageRequest { limit: 1, after: first.next };
    let second = api.user_list(&acme.scope, next).await.unwrap();
    assert_eq!((first.data[0].id, second.data[0].id, second.next), (bob, ada.user, None), "newest first");
}

pub async fn a_mail_is_taken_once_until_it_is_sent_or_given_up<H: Harness>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    for number in 0..12 {
        room.invite(&acme.scope, &format!("user-{number}@example.com"), Role::Member).await;
    }
    let platform = &room.storage.platform;
    let taken = join_all((0..6).map(|_| platform.mail_take(room.now(), 2))).await;
    let mut taken: Vec<_> = taken.into_iter().flat_map(Result::unwrap).collect();
    assert!(platform.mail_take(room.now(), 50).await.unwrap().is_empty());
    taken.sort_by_key(|mail| mail.id);
    taken.dedup_by_key(|mail| mail.id);
    assert_eq!(taken.len(), 12);
    let (put_off, sent) = (taken[0].id, taken[1].id);
    platform.mail_failed(put_off, room.now() + 10 * MINUTE).await.unwrap();
    platform.mail_done(sent).await.unwrap();
    let room = room.crash().await;
    // Whoever had taken the others is dead.
    room.hands.forward(MINUTE);
    let again = room.mails().await;
    assert_eq!(again.len(), 10);
    assert!(again.iter().all(|mail| mail.tries == 1 && mail.id != put_off && mail.id != sent));
    room.hands.forward(9 * MINUTE);
    let last = room.mails().await.remove(0);
    assert_eq!((last.id, last.tries), (put_off, 1));
    room.enter(&last.token).await.unwrap();
    room.hands.forward(30 * DAY);
    assert!(room.mails().await.is_empty());
}

/// A database in which a statement on a table can be made to fail.
pub trait Breakable {
    /// `how` is `insert`, `update` or `delete`; `table` as PostgreSQL names it.
    async fn break_at(&self, how: &str, table: &str);
    /// Nothing fails any more.
    async fn mend(&self, table: &str);
}

/// Every way is broken at each of its steps in turn, which is what a crash there would leave, and works after that as if
/// nothing had been.
pub async fn what_fails_in_the_middle_leaves_nothing_half_done<H: Harness + Breakable>() {
    let room = Room::<H>::new().await;
    let acme = room.organization("acme").await;
    room.joined(&acme.scope, "root@example.com", Role::Admin).await;
    let failing = async |how: &str, table: &str| room.harness.break_at(how, table).await;

    for (how, table) in [("insert", "users"), ("insert", "sign_in_tokens"), ("insert", "mails"), ("update", "users")] {
        failing(how, table).await;
        let new = NewUser { email: email("ada@example.com"), role: Role::Member };
        assert!(room.storage.api.user_invite(&acme.scope, new, room.now()).await.is_err(), "{how} {table}");
        room.harness.mend(table).await;
        assert_eq!(room.storage.api.user_list(&acme.scope, page(10)).await.unwrap().data.len(), 1);
        assert!(room.mails().await.is_empty());
    }
    let ada = room.invite(&acme.scope, "ada@example.com", Role::Member).await.id;
    let token = room.token().await;
    for (how, table) in [("update", "sign_in_tokens"), ("update", "users"), ("insert", "sessions")] {
        failing(how, table).await;
        let failed = room.enter(&token).await;
        assert!(matches!(failed, Err(Error::Internal(_))), "{how} {table}: {failed:?}");
        room.harness.mend(table).await;
        let view = room.storage.api.user_get(&acme.scope, ada).await.unwrap();
        assert_eq!((view.status, view.last_login_at), (UserStatus::Invited, None));
    }
    let session = room.enter(&token).await.unwrap().session;
    failing("insert", "mails").await;
    let ask = room.storage.authorizer.sign_in_request(&email("ada@example.com"), &from(), room.now()).await;
    assert!(ask.is_err());
    room.harness.mend("mails").await;
    for _ in 0..4 {
        assert!(room.ask("ada@example.com").await, "a link without a mail does not count");
    }
    for (how, table) in [("update", "sign_in_tokens"), ("delete", "mails"), ("update", "sessions")] {
        failing(how, table).await;
        assert!(room.update(&acme, ada, active(false)).await.is_err(), "{how} {table}");
        room.harness.mend(table).await;
        assert_eq!(room.storage.api.user_get(&acme.scope, ada).await.unwrap().status, UserStatus::Active);
        assert!(room.person(session).await.is_some());
    }
    let mails = room.mails().await;
    assert_eq!(mails.len(), 4);
    room.enter(&mails[0].token).await.unwrap();
    room.update(&acme, ada, active(false)).await.unwrap();
    assert!(is_not_found(room.enter(&mails[1].token).await));
    assert!(room.person(session).await.is_none());
}

impl Breakable for Sqlite {
    async fn break_at(&self, how: &str, table: &str) {
        let table = table.trim_end_matches('s');
        self.run(&format!("create trigger broken before {how} on {table} begin select raise(abort, 'broken'); end"));
    }

    async fn mend(&self, _: &str) {
        self.run("drop trigger broken");
    }
}

impl Sqlite {
    fn run(&self, sql: &str) {
        let raw = rusqlite::Connection::open(self.path().join("postroom.db")).unwrap();
        raw.busy_timeout(Duration::from_secs(5)).unwrap();
        raw.execute_batch(sql).unwrap();
    }

    fn count(&self, sql: &str) -> i64 {
        let raw = rusqlite::Connection::open(self.path().join("postroom.db")).unwrap();
        raw.query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

impl Breakable for Postgres {
    async fn break_at(&self, how: &str, table: &str) {
        let admin = connect(&self.database.admin_url()).await;
        let sql = format!(
            "create or replace function broken() returns trigger language plpgsql as \
               $$begin raise exception 'broken'; end$$; \
             create trigger broken before {how} on {table} for each row execute function broken()"
        );
        admin.batch_execute(&sql).await.unwrap();
    }

    async fn mend(&self, table: &str) {
        let admin = connect(&self.database.admin_url()).await;
        admin.batch_execute(&format!("drop trigger broken on {table}")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_in_the_middle_leaves_nothing_half_done_on_sqlite() {
    what_fails_in_the_middle_leaves_nothing_half_done::<Sqlite>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_in_the_middle_leaves_nothing_half_done_on_postgres() {
    what_fails_in_the_middle_leaves_nothing_half_done::<Postgres>().await;
}

/// What has ended a day ago is gone, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_sessions_and_mails_go_a_day_after_their_end() {
    let room = Room::<Sqlite>::new().await;
    let acme = room.organization("acme").await;
    room.joined(&acme.scope, "ada@example.com", Role::Admin).await;
    room.invite(&acme.scope, "bob@example.com", Role::Admin).await;
    let rows = || {
        ["sign_in_token", "session", "mail", "user"]
            .map(|table| room.harness.count(&format!("select count(*) from {table}")))
    };
    let upkeep = async || while room.storage.platform.upkeep(room.now()).await.unwrap() {};
    room.hands.forward(2 * DAY - MINUTE);
    upkeep().await;
    assert_eq!(rows(), [2, 1, 1, 2]);
    room.hands.forward(MINUTE);
    upkeep().await;
    assert_eq!(rows(), [2, 0, 1, 2]);
    room.hands.forward(6 * DAY);
    upkeep().await;
    assert_eq!(rows(), [0, 0, 0, 2]);
}
