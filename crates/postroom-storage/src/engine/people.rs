//! People, the same whatever engine keeps them: who may sign in, who is the last admin, how links are made and mails
//! opened, and the bounds of all that.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use postroom_domain::sign_in::{Purpose, SignInToken};
use postroom_domain::user::UserStatus;
use postroom_domain::{Email, MailId, OrganizationId, Role, SessionId, Timestamp, TokenHash, UserId};
use serde::Deserialize;

use super::packed::broken;
use super::vault::{Vault, mail_token};
use crate::api::{UserChange, UserView};
use crate::authorizer::SignedIn;
use crate::platform::OutgoingMail;
use crate::scope::{PersonCaller, PersonIs};
use crate::{Actor, Error, Origin, Result, Scope, SuperAdmin};

/// The most sessions a person has at once.
pub(crate) const SESSIONS: i64 = 20;
/// How many links a person is sent in an hour, at most.
pub(crate) const LINKS: i64 = 5;
/// The time in which they are counted.
pub(crate) const LINKS_IN: Duration = Duration::from_secs(3600);
/// For how long a mail is taken.
pub(crate) const TAKEN: Duration = Duration::from_secs(60);
/// The most mails that are taken at once.
pub(crate) const MAILS: usize = 100;
/// How long tokens, sessions and mails are kept after their end.
pub(crate) const KEPT: Duration = Duration::from_secs(24 * 3600);
/// The organization of who has none: super admins.
pub(crate) const PLATFORM: i64 = 0;

/// The most of a browser's name for itself that is kept, in bytes.
const USER_AGENT_MAX: usize = 256;

/// What no token of anybody is told: whether it was used, has expired, or never was.
pub(crate) const NO_LINK: Error = Error::NotFound { kind: "sign-in link" };

/// A role as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StoredRole {
    Member,
    Admin,
    SuperAdmin,
}

impl StoredRole {
    /// The role in an organization, if it is one.
    pub(crate) fn of_organization(self) -> Option<Role> {
        match self {
            Self::Member => Some(Role::Member),
            Self::Admin => Some(Role::Admin),
            Self::SuperAdmin => None,
        }
    }
}

/// As much of a browser's name for itself as is kept.
pub(crate) fn user_agent(text: &str) -> &str {
    &text[..text.floor_char_boundary(USER_AGENT_MAX)]
}

/// Somebody who wants to sign in.
pub(crate) struct Entrant {
    pub(crate) usr: i64,
    pub(crate) org: i64,
    pub(crate) id: UserId,
    pub(crate) email: Email,
    pub(crate) role: StoredRole,
    pub(crate) is_active: bool,
    pub(crate) invited_until: Option<Timestamp>,
    /// The organization's id, and whether it is switched on; none for a super admin.
    pub(crate) organization: Option<(OrganizationId, bool)>,
}

impl Entrant {
    /// Whether they may come in. Who let an invitation lapse has to be invited again.
    pub(crate) fn may_sign_in(&self, now: Timestamp) -> bool {
        self.is_active
            && self.invited_until.is_none_or(|end| end > now)
            && self.organization.is_none_or(|(_, is_active)| is_active)
    }

    /// To whom a link goes.
    pub(crate) fn addressee(&self) -> Addressee {
        Addressee { org: self.org, usr: self.usr, organization: self.organization.map(|(id, _)| id) }
    }

    /// With the session that begins.
    pub(crate) fn signed_in(self, session: SessionId, expires_at: Timestamp) -> SignedIn {
        SignedIn {
            session,
            expires_at,
            user: self.id,
            email: self.email,
            role: self.role.of_organization(),
            organization: self.organization.map(|(id, _)| id),
        }
    }
}

/// A session that has not ended, of a person who is switched on.
pub(crate) struct Session {
    pub(crate) org: i64,
    pub(crate) id: SessionId,
    pub(crate) user: UserId,
    pub(crate) email: Email,
    pub(crate) role: StoredRole,
    pub(crate) expires_at: Timestamp,
}

impl Session {
    /// The person behind it. `entry` is the organization's proof for an actor, and whether it is switched on.
    pub(crate) fn caller(&self, entry: impl FnOnce(Actor) -> Option<(Scope, bool)>) -> Option<PersonCaller> {
        let actor = Actor::User(self.user);
        let who = match self.role.of_organization() {
            None => PersonIs::SuperAdmin(SuperAdmin(actor, Origin::default())),
            Some(role) => {
                let (scope, organization_active) = entry(actor)?;
                PersonIs::Of { scope, role, organization_active }
            }
        };
        Some(PersonCaller { user: self.user, email: self.email.clone(), session: self.id, who })
    }
}

/// Sessions that have not ended, by their ids.
#[derive(Default)]
pub(crate) struct Sessions {
    by_id: HashMap<SessionId, Arc<Session>>,
    by_org: HashMap<i64, Vec<SessionId>>,
}

impl Sessions {
    /// One of them.
    pub(crate) fn get(&self, id: SessionId) -> Option<Arc<Session>> {
        self.by_id.get(&id).cloned()
    }

    /// From now on these are an organization's.
    pub(crate) fn put(&mut self, org: i64, sessions: Vec<Session>) {
        for id in self.by_org.remove(&org).into_iter().flatten() {
            self.by_id.remove(&id);
        }
        if !sessions.is_empty() {
            self.by_org.insert(org, sessions.iter().map(|session| session.id).collect());
        }
        self.by_id.extend(sessions.into_iter().map(|session| (session.id, Arc::new(session))));
    }
}

/// To whom a link goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addressee {
    pub(crate) org: i64,
    pub(crate) usr: i64,
    pub(crate) organization: Option<OrganizationId>,
}

/// A link and the mail that brings it, as they are stored.
pub(crate) struct Link {
    pub(crate) hash: TokenHash,
    pub(crate) expires_at: Timestamp,
    pub(crate) mail: MailId,
    pub(crate) sealed: Vec<u8>,
}

impl Link {
    /// A fresh one.
    pub(crate) fn new(vault: &Vault, to: Addressee, purpose: Purpose, now: Timestamp) -> Self {
        let (token, mail) = (SignInToken::generate(), MailId::new(now));
        let (owner, row) = (owner(to.organization), mail.to_bytes());
        let sealed = vault.keyring.seal(mail_token(&owner, &row), &token.expose_str().into());
        Self { hash: token.hash(), expires_at: now + purpose.life(), mail, sealed }
    }
}

/// A mail as it is stored, with whom and what it is about.
pub(crate) struct WaitingMail {
    pub(crate) id: MailId,
    pub(crate) to: Email,
    pub(crate) purpose: Purpose,
    pub(crate) sealed: Vec<u8>,
    /// The organization's id and name; none for a super admin.
    pub(crate) organization: Option<(OrganizationId, String)>,
    pub(crate) role: StoredRole,
    /// Before this time.
    pub(crate) tries: u32,
    pub(crate) expires_at: Timestamp,
}

impl WaitingMail {
    /// Ready to be sent.
    pub(crate) fn open(self, vault: &Vault) -> Result<OutgoingMail> {
        let (organization, name) = self.organization.unzip();
        let (owner, row) = (owner(organization), self.id.to_bytes());
        let token = vault
            .open_secret(mail_token(&owner, &row), &self.sealed)
            .map_err(|error| broken(format!("the link of {} cannot be read: {error}", self.id)))?;
        let token = token.expose_str().and_then(SignInToken::parse);
        Ok(OutgoingMail {
            id: self.id,
            to: self.to,
            purpose: self.purpose,
            token: token.ok_or_else(|| broken("a mail has no link"))?,
            organization: name,
            role: self.role.of_organization(),
            tries: self.tries,
            expires_at: self.expires_at,
        })
    }
}

/// What is sealed for a super admin is sealed for no organization.
fn owner(organization: Option<OrganizationId>) -> [u8; 16] {
    organization.map_or([0; 16], OrganizationId::to_bytes)
}

/// A person of an organization as stored.
pub(crate) struct UserRow {
    pub(crate) usr: i64,
    pub(crate) id: UserId,
    pub(crate) email: Email,
    pub(crate) role: Role,
    pub(crate) is_active: bool,
    pub(crate) invited_until: Option<Timestamp>,
    pub(crate) last_login_at: Option<Timestamp>,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) created_by: String,
}

/// What a change makes of a person.
pub(crate) struct Changed {
    pub(crate) role: Role,
    pub(crate) is_active: bool,
    /// Nobody else may be left who can administer the organization.
    pub(crate) takes_an_admin: bool,
    /// One more counts for the bound.
    pub(crate) comes_back: bool,
    pub(crate) ends_sessions: bool,
    pub(crate) voids_links: bool,
}

impl UserRow {
    /// As administrators see it.
    pub(crate) fn view(self) -> UserView {
        let status = match (self.is_active, self.invited_until) {
            (false, _) => UserStatus::Deactivated,
            (true, Some(_)) => UserStatus::Invited,
            (true, None) => UserStatus::Active,
        };
        UserView {
            id: self.id,
            email: self.email,
            role: self.role,
            status,
            invited_until: self.invited_until,
            last_login_at: self.last_login_at,
            created_at: self.created_at,
            updated_at: self.updated_at,
            created_by: self.created_by,
        }
    }

    /// What a change makes of this one.
    pub(crate) fn changed(&self, change: UserChange) -> Changed {
        let (role, is_active) = (change.role.unwrap_or(self.role), change.is_active.unwrap_or(self.is_active));
        let was_admin = self.is_active && self.invited_until.is_none() && self.role == Role::Admin;
        Changed {
            role,
            is_active,
            takes_an_admin: was_admin && !(is_active && role == Role::Admin),
            comes_back: is_active && !self.is_active,
            ends_sessions: role != self.role || (self.is_active && !is_active),
            voids_links: self.is_active && !is_active,
        }
    }

    /// Refuses to send another invitation to who needs none, or had enough of them.
    pub(crate) fn can_be_invited_again(&self, links: i64) -> Result<()> {
        let refuse = |code, detail: &str| Err(Error::Conflict { code, detail: detail.to_owned() });
        match (self.is_active, self.invited_until) {
            (false, _) => refuse("user_deactivated", "the person is switched off: switch them on first"),
            (true, None) => {
                refuse("invitation_accepted", "the person has accepted the invitation: they ask for a link themselves")
            }
            (true, Some(_)) if links >= LINKS => refuse(
                "too_many_invitations",
                "the person was sent five links within an hour: wait, or look why they do not arrive",
            ),
            (true, Some(_)) => Ok(()),
        }
    }
}

/// An organization has an admin who can sign in, as long as it had one.
pub(crate) fn last_admin() -> Error {
    Error::Conflict {
        code: "last_admin",
        detail: "this is the last admin of the organization: make somebody else an admin first".to_owned(),
    }
}

/// A link would not let them in.
pub(crate) fn super_admin_off() -> Error {
    Error::Conflict {
        code: "user_deactivated",
        detail: "this super admin is switched off: switch them on first".to_owned(),
    }
}

/// What is counted against the bound of people.
pub(crate) const PEOPLE: &str = "people who are not deactivated";

#[cfg(test)]
mod tests {
    use super::*;

    fn row(role: Role, is_active: bool, invited_until: Option<i64>) -> UserRow {
        let at = Timestamp::from_millis;
        UserRow {
            usr: 1,
            id: UserId::new(at(1)),
            email: Email::parse("ada@example.com").unwrap(),
            role,
            is_active,
            invited_until: invited_until.map(at),
            last_login_at: None,
            created_at: at(1),
            updated_at: at(1),
            created_by: "operator".to_owned(),
        }
    }

    #[test]
    fn only_an_admin_who_can_sign_in_is_missed() {
        let demote = UserChange { role: Some(Role::Member), is_active: None };
        let switch_off = UserChange { role: None, is_active: Some(false) };
        let table = [
            (row(Role::Admin, true, None), true),
            (row(Role::Admin, true, Some(1)), false),
            (row(Role::Admin, false, None), false),
            (row(Role::Member, true, None), false),
        ];
        for (row, missed) in table {
            assert_eq!(row.changed(demote).takes_an_admin, missed);
            assert_eq!(row.changed(switch_off).takes_an_admin, missed);
            assert!(!row.changed(UserChange::default()).takes_an_admin);
        }
    }

    #[test]
    fn a_change_that_changes_nothing_ends_nothing() {
        let active = row(Role::Admin, true, None);
        let same = active.changed(UserChange { role: Some(Role::Admin), is_active: Some(true) });
        assert!(!same.ends_sessions && !same.voids_links && !same.comes_back);
        let demoted = active.changed(UserChange { role: Some(Role::Member), is_active: None });
        assert!(demoted.ends_sessions && !demoted.voids_links);
        let off = active.changed(UserChange { role: None, is_active: Some(false) });
        assert!(off.ends_sessions && off.voids_links);
        assert!(row(Role::Member, false, None).changed(UserChange { role: None, is_active: Some(true) }).comes_back);
    }

    #[test]
    fn a_browsers_name_is_cut_between_characters() {
        assert_eq!(user_agent("curl/8"), "curl/8");
        assert_eq!(user_agent(&"\u{e9}".repeat(200)).len(), 256);
        assert_eq!(user_agent(&format!("x{}", "\u{e9}".repeat(200))).len(), 255);
    }
}
