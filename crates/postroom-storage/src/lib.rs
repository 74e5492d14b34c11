//! The one door to a database.
//!
//! The rest of the program sees five traits, one for each part of the process and what that part may do:
//!
//! | Trait | Part | May |
//! |---|---|---|
//! | [`Authorizer`] | proves callers, lets people in | read API keys, people and the state of organizations, write sessions; no signing secret |
//! | [`Receiver`] | accepts events | read sources with their secrets, append events and rejections |
//! | [`Worker`] | delivers | read endpoints with their secrets and events, append attempts, move exceptions |
//! | [`Api`] | an organization's own resources | everything of the one organization its [`Scope`] proves; secrets only by their own methods |
//! | [`Platform`] | super admin and upkeep | organizations and keys; no payloads, no signing secrets |
//!
//! Callers never see a connection, a row number or a dialect. Everything an organization owns is reached through a
//! [`Scope`], and a scope is made only here, from a credential that was found or for a super admin who named an
//! organization that exists: code that would reach into another organization cannot be written by mistake.
//!
//! An engine implements the traits and must pass the conformance suite.

pub mod api;
pub mod audit;
pub mod authorizer;
mod cells;
pub mod copy;
mod engine;
pub mod error;
pub mod handoff;
pub mod platform;
pub mod postgres;
pub mod receiver;
pub mod scope;
pub mod sqlite;
pub mod worker;

use std::sync::Arc;

pub use api::Api;
pub use authorizer::Authorizer;
pub use error::{Error, Result, TenantUnavailable};
pub use handoff::Handoff;
pub use platform::Platform;
pub use receiver::Receiver;
pub use scope::{Actor, Origin, Scope, SuperAdmin};
pub use worker::Worker;

/// An open database, as the parts of the process see it.
#[derive(Clone)]
pub struct Storage {
    /// Proves callers.
    pub authorizer: Arc<dyn Authorizer>,
    /// Accepts events.
    pub receiver: Arc<dyn Receiver>,
    /// Delivers.
    pub worker: Arc<dyn Worker>,
    /// An organization's own resources.
    pub api: Arc<dyn Api>,
    /// Organizations and upkeep.
    pub platform: Arc<dyn Platform>,
}
