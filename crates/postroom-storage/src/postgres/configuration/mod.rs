//! What people decide: how organizations, API keys, people, sources and endpoints are made and changed. What is one
//! organization's happens in a transaction in which only its rows exist; every statement names it all the same, for the
//! indexes.

pub(super) mod endpoints;
pub(super) mod idempotency;
pub(super) mod keys;
pub(super) mod organizations;
mod secrets;
pub(super) mod sources;
pub(super) mod users;

use tracing::warn;

use super::Postgres;
use super::convert::{get, violated};
use super::pool::{Transaction, bind};
use super::reads::Desk;
use crate::engine::views;
use crate::error::Unique;
use crate::{Error, Result};

/// By primary key.
const ONE_BY_ONE: &str = "select 1 from organizations where org = $1 for no key update";

/// From here on nobody else makes anything in this organization: whoever waits here counts what was made before.
async fn one_by_one(transaction: &Transaction, org: i64) -> Result<()> {
    transaction.expect("organization", ONE_BY_ONE, bind![org]).await.map(drop)
}

/// Refuses one more row of a kind. `sql` counts up to the bound and no further.
async fn room_for_one_more(transaction: &Transaction, sql: &str, org: i64, what: &str) -> Result<()> {
    let count = match transaction.query_one(sql, bind![org, views::MOST]).await? {
        Some(row) => get(&row, 0)?,
        None => 0,
    };
    views::room_for_one_more(count, what)
}

/// What a violated unique constraint means to the caller. Nothing is looked up before: the constraint decides.
fn taken(error: Error) -> Error {
    let field = match violated(&error) {
        Some("organizations_slug") => Unique::OrganizationSlug,
        Some("organizations_mandrill_fingerprint") => Unique::MandrillWebhookSecret,
        Some("sources_name") => Unique::SourceName,
        Some("users_email_key") => Unique::UserEmail,
        _ => return error,
    };
    Error::Taken { field }
}

impl Postgres {
    /// For what somebody does in one organization, when it is its turn: who waits for others of the same organization
    /// must not keep the connections of all.
    pub(super) async fn desk(&self, org: i64) -> Result<Desk> {
        self.read_at(&self.0.pools.api, org).await
    }

    /// Waits until the directories of this node show what was changed.
    pub(super) async fn shown<T>(&self, changed: Result<T>) -> Result<T> {
        let value = changed?;
        if let Err(error) = self.0.directories.look().await {
            // It is done, and nobody may think that it is not; this node shows it when it reaches the database again.
            warn!(%error, "a change of configuration is not shown by this node yet");
        }
        Ok(value)
    }
}
