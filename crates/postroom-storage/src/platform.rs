//! What a super admin and the installation's own upkeep may do: organizations, tenants, limits, migrations, keys.

use async_trait::async_trait;
use postroom_domain::organization::Plan;
use postroom_domain::sign_in::{Purpose, SignInToken};
use postroom_domain::{Email, MailId, OrganizationId, Role, Secret, Timestamp, UserId};

use crate::api::{
    EndpointView, Idempotency, IdempotencyClaim, NewApiKey, NewEndpoint, Page, PageRequest, StoredAnswer,
};
use crate::audit::{AuditEntry, AuditFilter, ChainReport, Refusal, Refused};
use crate::{Result, Scope, SuperAdmin};

/// See the [module](self).
#[async_trait]
pub trait Platform: Send + Sync {
    /// Makes an organization with an API key and, if a URL is given, an endpoint, in one transaction.
    async fn tenant_create(&self, by: SuperAdmin, new: NewTenant, now: Timestamp) -> Result<Tenant>;

    /// Makes an organization.
    async fn organization_create(&self, by: SuperAdmin, new: NewOrganization, now: Timestamp) -> Result<Organization>;

    /// Organizations, newest first.
    async fn organization_list(&self, by: SuperAdmin, page: PageRequest) -> Result<Page<Organization>>;

    /// One organization.
    async fn organization_get(&self, by: SuperAdmin, id: OrganizationId) -> Result<Organization>;

    /// Changes what is `Some`.
    async fn organization_update(
        &self,
        by: SuperAdmin,
        id: OrganizationId,
        change: OrganizationChange,
        now: Timestamp,
    ) -> Result<Organization>;

    /// The organization of a scope, for its own administrators.
    async fn organization_of(&self, scope: &Scope) -> Result<Organization>;

    /// A new name for the organization of a scope: all that its own administrators may change of it.
    async fn organization_rename(&self, scope: &Scope, name: String, now: Timestamp) -> Result<Organization>;

    /// Entries of the audit log of what is done outside of every organization, newest first.
    async fn audit_list(&self, by: SuperAdmin, filter: AuditFilter, page: PageRequest) -> Result<Page<AuditEntry>>;

    /// Notes that somebody was refused: in the chain of the organization acted for, or of the installation. Whoever calls
    /// this bounds how often.
    async fn access_refused(&self, who: Refused, refusal: Refusal, now: Timestamp) -> Result<()>;

    /// Checks the chains of the audit log, all or those of one organization, also in databases of organizations that have
    /// their own.
    ///
    /// # Errors
    /// When one of the databases does not answer. A chain that is broken is no error here.
    async fn audit_verify(&self, by: SuperAdmin, organization: Option<OrganizationId>) -> Result<Vec<ChainReport>>;

    /// Like [`Api::idempotency_begin`](crate::Api::idempotency_begin), for what a super admin does outside of every
    /// organization.
    async fn idempotency_begin(&self, by: SuperAdmin, claim: IdempotencyClaim, now: Timestamp) -> Result<Idempotency>;

    /// Like [`Api::idempotency_finish`](crate::Api::idempotency_finish), for the same.
    async fn idempotency_finish(
        &self,
        by: SuperAdmin,
        claim: IdempotencyClaim,
        answer: Option<StoredAnswer>,
        now: Timestamp,
    ) -> Result<()>;

    /// Makes a super admin, or finds the one that has this address, and a link for them to sign in with. No mail is sent:
    /// whoever calls this hands the link over.
    ///
    /// # Errors
    /// [`Taken`](crate::Error::Taken) when a person of an organization has this address,
    /// [`Conflict`](crate::Error::Conflict) when the super admin is switched off.
    async fn super_admin_create(&self, by: SuperAdmin, email: &Email, now: Timestamp) -> Result<SuperAdminLink>;

    /// Super admins, newest first, and among them those who are switched off.
    async fn super_admin_list(&self, by: SuperAdmin, page: PageRequest) -> Result<Page<SuperAdminView>>;

    /// Switches a super admin on or off. Being switched off ends their sessions and makes their links void in the same
    /// transaction, and every node sees it within a second. The last one may go: the admin token and the command line
    /// remain.
    ///
    /// # Errors
    /// [`NotFound`](crate::Error::NotFound) when no super admin has this address.
    async fn super_admin_set_active(
        &self,
        by: SuperAdmin,
        email: &Email,
        is_active: bool,
        now: Timestamp,
    ) -> Result<SuperAdminView>;

    /// Takes mails that are due, for 60 seconds: until then nobody else gets them, and whoever has sent one or could not
    /// says so. A mail whose link has expired meanwhile is among them, to be given up.
    async fn mail_take(&self, now: Timestamp, limit: usize) -> Result<Vec<OutgoingMail>>;

    /// A mail was sent, or is given up: it goes.
    async fn mail_done(&self, id: MailId) -> Result<()>;

    /// A mail could not be sent: it is due again at `retry_at`.
    async fn mail_failed(&self, id: MailId, retry_at: Timestamp) -> Result<()>;

    /// Whether the database answers and can write. Never waits for the queue of the writer.
    async fn health(&self) -> Result<()>;

    /// Figures for `/metrics` that are not counted on the way: waiting and dead deliveries, queue lengths, file sizes.
    async fn gauges(&self) -> Result<Vec<Gauge>>;

    /// One bounded step of retention: events, deliveries and attempts older than the window, rejections, stored
    /// idempotent answers. Returns whether there is more to do.
    async fn upkeep(&self, now: Timestamp) -> Result<bool>;

    /// Flushes what is queued and closes the database. Later calls answer `Unavailable`.
    async fn close(&self) -> Result<()>;
}

/// A way in for a super admin.
#[derive(Debug, Clone)]
pub struct SuperAdminLink {
    /// Who.
    pub user: UserId,
    /// What the link carries; it is shown this once.
    pub token: SignInToken,
    /// Until when it is good.
    pub expires_at: Timestamp,
}

/// A super admin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuperAdminView {
    /// Their id.
    pub id: UserId,
    /// Their address.
    pub email: Email,
    /// Whether they may sign in.
    pub is_active: bool,
    /// When they last signed in.
    pub last_login_at: Option<Timestamp>,
    /// When they were made.
    pub created_at: Timestamp,
    /// When they were last switched on or off.
    pub updated_at: Timestamp,
    /// Who made them, as [`Actor`](crate::Actor) is written.
    pub created_by: String,
}

/// A mail to send.
#[derive(Debug, Clone)]
pub struct OutgoingMail {
    /// Its id.
    pub id: MailId,
    /// To whom.
    pub to: Email,
    /// What its link is for.
    pub purpose: Purpose,
    /// What its link carries.
    pub token: SignInToken,
    /// The name of the person's organization; none for a super admin.
    pub organization: Option<String>,
    /// What the person may do there; none for a super admin.
    pub role: Option<Role>,
    /// How often it was tried to send it.
    pub tries: u32,
    /// When the link ends, and with it the reason to send it.
    pub expires_at: Timestamp,
}

/// A figure for `/metrics`.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    /// The metric's name, `postroom_…` with its unit at the end.
    pub name: &'static str,
    /// Labels.
    pub labels: Vec<(&'static str, String)>,
    /// The figure.
    pub value: f64,
}

/// An organization to make.
#[derive(Debug, Clone)]
pub struct NewOrganization {
    /// For people.
    pub name: String,
    /// In URLs.
    pub slug: String,
    /// Decides the monthly limit.
    pub plan: Plan,
    /// Events a calendar month; `None` is the plan's limit.
    pub webhook_limit: Option<u64>,
    /// Whether it is switched on.
    pub is_active: bool,
    /// Verifies `/in/{slug}/mandrill` when it has no source of that name; unique in the installation.
    pub mandrill_webhook_secret: Option<Secret>,
}

/// What to change of an organization.
#[derive(Debug, Clone, Default)]
pub struct OrganizationChange {
    /// New name.
    pub name: Option<String>,
    /// New slug: inbound URLs change with it.
    pub slug: Option<String>,
    /// New plan.
    pub plan: Option<Plan>,
    /// `Some(None)`: the plan's limit again.
    pub webhook_limit: Option<Option<u64>>,
    /// Switch on or off.
    pub is_active: Option<bool>,
    /// `Some(None)` takes it away.
    pub mandrill_webhook_secret: Option<Option<Secret>>,
}

/// An organization as a super admin sees it.
#[derive(Debug, Clone)]
pub struct Organization {
    /// Its id.
    pub id: OrganizationId,
    /// For people.
    pub name: String,
    /// In URLs.
    pub slug: String,
    /// Decides the monthly limit.
    pub plan: Plan,
    /// Events a calendar month, the plan's or its own; `None` is unlimited.
    pub webhook_limit: Option<u64>,
    /// Events accepted in the current calendar month (UTC).
    pub webhook_count: u64,
    /// Whether it is switched on.
    pub is_active: bool,
    /// Whether a Mandrill secret is stored.
    pub has_mandrill_webhook_secret: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Who made it: the id of a key or a user, `super_admin`, `operator`; unknown for what is older than the audit log.
    pub created_by: Option<String>,
}

/// Everything a new customer needs, made in one transaction.
#[derive(Debug, Clone)]
pub struct NewTenant {
    /// The organization.
    pub organization: NewOrganization,
    /// Its first API key.
    pub api_key: NewApiKey,
    /// Its first endpoint.
    pub endpoint: Option<NewEndpoint>,
    /// In which database its data lives.
    pub isolation: Isolation,
}

/// In which database an organization's data lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Isolation {
    /// The one of all organizations that have none of their own.
    #[default]
    Shared,
    /// One of its own.
    Dedicated,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// The organization.
    pub organization: Organization,
    /// A way into it.
    pub scope: Scope,
    /// Its first API key's view.
    pub api_key: crate::api::ApiKeyView,
    /// Its first endpoint.
    pub endpoint: Option<EndpointView>,
}
