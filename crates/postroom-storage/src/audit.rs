//! The audit log as it is read and checked: who did what to which thing, from where, with the change.
//!
//! Entries are written by whatever they are about, in the same transaction, and never changed: no part of the process may.
//! Those of one organization are a chain in the order of their numbers, each sealed with the one before
//! ([`ChainReport`]); a chain for each database in which the organization ever lived. What is done outside of every organization is a chain of its own, the installation's.

use postroom_domain::{AuditEntryId, OrganizationId, Timestamp};
use serde_json::{Map, Value};

use crate::{Actor, Origin, Scope, SuperAdmin};

macro_rules! actions {
    ($($(#[doc = $doc:literal])* $name:ident => $text:literal),* $(,)?) => {
        /// What can be done. Each is named by the kind of thing it is done to and a verb.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Action {
            $($(#[doc = $doc])* $name,)*
        }

        impl Action {
            /// All of them, each with what it means.
            pub const ALL: &[(Self, &str)] = &[$((Self::$name, concat!($($doc),*))),*];

            /// As entries have it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

actions! {
    /// A source was made.
    SourceCreated => "source.created",
    /// Name, options, secret or state of a source were changed.
    SourceUpdated => "source.updated",
    /// A source was deleted.
    SourceDeleted => "source.deleted",
    /// A source got a new secret.
    SourceSecretRotated => "source.secret_rotated",
    /// A source without a secret was told its first one by the provider's handshake.
    SourceSecretLearned => "source.secret_learned",
    /// An endpoint was made.
    EndpointCreated => "endpoint.created",
    /// What its owner decides of an endpoint was changed.
    EndpointUpdated => "endpoint.updated",
    /// An endpoint was deleted.
    EndpointDeleted => "endpoint.deleted",
    /// An endpoint was switched on.
    EndpointEnabled => "endpoint.enabled",
    /// An endpoint was switched off, by the system when it answered 410.
    EndpointDisabled => "endpoint.disabled",
    /// An endpoint got a new secret.
    EndpointSecretRotated => "endpoint.secret_rotated",
    /// Somebody looked at an endpoint's secret.
    EndpointSecretViewed => "endpoint.secret_viewed",
    /// A test event was asked for.
    EndpointTested => "endpoint.tested",
    /// An event was sent again.
    EventReplayed => "event.replayed",
    /// A delivery was tried at once.
    DeliveryRetried => "delivery.retried",
    /// A dead letter waits again.
    DeadLetterRequeued => "dead_letter.requeued",
    /// A dead letter was given up.
    DeadLetterDiscarded => "dead_letter.discarded",
    /// A rejected request was verified after all and became an event.
    RejectionReverified => "rejection.reverified",
    /// An API key was made.
    ApiKeyCreated => "api_key.created",
    /// An API key was ended.
    ApiKeyRevoked => "api_key.revoked",
    /// An organization was made.
    OrganizationCreated => "organization.created",
    /// An organization was changed, or switched on or off.
    OrganizationUpdated => "organization.updated",
    /// A person was invited.
    UserInvited => "user.invited",
    /// A person was sent another invitation.
    UserInvitedAgain => "user.invited_again",
    /// A person got another role, or was switched on or off.
    UserUpdated => "user.updated",
    /// A person asked for a link to sign in with, and is sent one.
    UserLinkSent => "user.link_sent",
    /// A person signed in.
    UserSignedIn => "user.signed_in",
    /// A person signed out.
    UserSignedOut => "user.signed_out",
    /// A super admin was made, or given another link.
    SuperAdminInvited => "super_admin.invited",
    /// A super admin was switched on or off.
    SuperAdminUpdated => "super_admin.updated",
    /// Callers were refused: bad credentials, too many of them, or not allowed. One entry a minute for each caller and route.
    AccessRefused => "access.refused",
}

impl Action {
    /// The kind of thing it is done to.
    #[must_use]
    pub fn resource_type(self) -> &'static str {
        self.as_str().split('.').next().unwrap_or_default()
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One entry as it is read.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// Its id; ids ascend in a chain.
    pub id: AuditEntryId,
    /// Its number in its chain, counted from 1.
    pub number: u64,
    /// When it was done. Never before the entry in front of it.
    pub at: Timestamp,
    /// Who did it: the id of a key or a user, `super_admin`, `operator`, `sender`, `nobody`, `system`.
    pub actor: String,
    /// What was done, such as `endpoint.updated`.
    pub action: String,
    /// The kind of thing it was done to.
    pub resource_type: String,
    /// Which one.
    pub resource_id: Option<String>,
    /// What was changed, as it was before. Secrets are never shown.
    pub old_values: Option<Map<String, Value>>,
    /// The same, as it is after it. Of a secret only that it was `changed`.
    pub new_values: Option<Map<String, Value>>,
    /// The client's address.
    pub address: Option<String>,
    /// The id of the request.
    pub request_id: Option<String>,
}

/// Who was refused, and from where.
#[derive(Debug, Clone)]
pub enum Refused {
    /// Somebody who acts for an organization: its own chain has the entry.
    In(Scope),
    /// A super admin outside of every organization.
    SuperAdmin(SuperAdmin),
    /// Somebody who showed no good credential.
    Nobody(Origin),
}

impl Refused {
    /// Who it was.
    #[must_use]
    pub fn actor(&self) -> Actor {
        match self {
            Self::In(scope) => scope.actor(),
            Self::SuperAdmin(proof) => proof.actor(),
            Self::Nobody(_) => Actor::Nobody,
        }
    }

    /// The same, from there.
    #[must_use]
    pub fn from(self, origin: Origin) -> Self {
        match self {
            Self::In(scope) => Self::In(scope.from(origin)),
            Self::SuperAdmin(proof) => Self::SuperAdmin(proof.from(origin)),
            Self::Nobody(_) => Self::Nobody(origin),
        }
    }
}

/// What a caller was refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Method and path of the route, as the program writes it.
    pub route: String,
    /// Why, as the answer's code says.
    pub code: &'static str,
}

/// Which entries to list. All conditions hold together. A page looks at a bounded number of entries: it may be short or
/// empty and still have a next one.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// By this one.
    pub actor: Option<String>,
    /// This was done.
    pub action: Option<String>,
    /// To a thing of this kind.
    pub resource_type: Option<String>,
    /// To this one.
    pub resource_id: Option<String>,
    /// At this moment or later.
    pub created_after: Option<Timestamp>,
    /// Before this moment.
    pub created_before: Option<Timestamp>,
}

/// Whether a chain is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainReport {
    /// Whose chain; none is the installation's own.
    pub organization: Option<OrganizationId>,
    /// Whether it is in the organization's own database.
    pub dedicated: bool,
    /// Of the database in which it was written.
    pub chain: [u8; 16],
    /// Entries that were checked, up to the first that is wrong.
    pub entries: u64,
    /// The seal of the last good one. Whoever keeps it elsewhere can see later that none was cut off behind it.
    pub head: Option<[u8; 32]>,
    /// The first entry that is not what was written, if there is one.
    pub broken: Option<BrokenLink>,
}

impl ChainReport {
    /// Of an organization whose own database cannot be read now.
    pub(crate) fn unread(organization: OrganizationId) -> Self {
        let broken = BrokenLink { number: 1, reason: "its database cannot be read now" };
        let organization = Some(organization);
        Self { organization, dedicated: true, chain: [0; 16], entries: 0, head: None, broken: Some(broken) }
    }
}

/// Where a chain is broken, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenLink {
    /// The number of the entry.
    pub number: u64,
    /// What is wrong with it.
    pub reason: &'static str,
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_document_shows_every_action() {
        const BEGIN: &str = "<!-- made from crates/postroom-storage/src/audit.rs -->\n";
        const END: &str = "<!-- end of audit.rs -->\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/audit.md");
        let found = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = found.split_once(BEGIN).unwrap();
        let (_, after) = rest.split_once(END).unwrap();
        let mut table = "\n| Action | Means |\n|---|---|\n".to_owned();
        for (action, text) in Action::ALL {
            writeln!(table, "| `{action}` |{text} |").unwrap();
        }
        let expected = format!("{before}{BEGIN}{table}\n{END}{after}");
        if found != expected {
            std::fs::write(&path, expected).unwrap();
            panic!("docs/audit.md was not current and has been written anew: look at the difference");
        }
    }
}
