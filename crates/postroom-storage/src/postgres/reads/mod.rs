//! What people look at. Everything is read in a transaction in which only the rows of one organization exist, in few
//! round trips: rows come in chunks, and what belongs to them is asked for all at once.

pub(super) mod activity;
pub(super) mod attempts;
pub(super) mod deliveries;
pub(super) mod delivery;
pub(super) mod events;
pub(super) mod gauges;
mod log;
pub(super) mod rejections;
mod scan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(super) use self::log::exception;
use postroom_domain::Timestamp;

use super::Postgres;
use super::pool::{Pool, Transaction};
use crate::engine::shares::Turn;
use crate::{Error, Handoff, Result};

/// The rows of one organization, as one part of the process sees them.
pub(super) struct Desk {
    pub(super) transaction: Transaction,
    pub(super) org: i64,
    pub(super) handoff: Arc<dyn Handoff>,
    now: Timestamp,
    /// Ends with the read.
    _turn: Option<Turn>,
}

impl Postgres {
    /// To read at, when it is the organization's turn.
    pub(super) async fn read_at(&self, pool: &Pool, org: i64) -> Result<Desk> {
        let turn = self.0.shares.turn(org).await?;
        Ok(Desk { _turn: Some(turn), ..self.change_at(pool, org).await? })
    }

    /// To change something at.
    pub(super) async fn change_at(&self, pool: &Pool, org: i64) -> Result<Desk> {
        let transaction = pool.begin_for(org).await?;
        Ok(Desk { transaction, org, handoff: self.0.options.handoff.clone(), now: self.now(), _turn: None })
    }
}

impl Desk {
    /// Ends the transaction: what was done lasts if it went well, and leaves no trace if it did not.
    pub(super) async fn end<T>(self, result: Result<T>) -> Result<T> {
        match result {
            // Nothing more can be said on such a connection.
            Err(error @ Error::Unavailable(_)) => Err(error),
            result => self.transaction.finish(result).await,
        }
    }
}
