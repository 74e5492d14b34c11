//! What every engine does in the same way: nothing here knows a database.

pub(crate) mod audit;
pub(crate) mod configured;
pub(crate) mod grants;
pub(crate) mod guard;
pub(crate) mod idempotency;
pub(crate) mod ids;
pub(crate) mod log;
pub(crate) mod metrics;
#[cfg(test)]
pub(crate) mod model;
pub(crate) mod moves;
pub(crate) mod packed;
pub(crate) mod page;
pub(crate) mod pager;
pub(crate) mod people;
pub(crate) mod places;
pub(crate) mod record;
pub(crate) mod rejections;
pub(crate) mod rows;
pub(crate) mod shares;
pub(crate) mod vault;
pub(crate) mod views;
