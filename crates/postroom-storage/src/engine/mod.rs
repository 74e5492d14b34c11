//! What every engine does in the same way: nothing here knows a database.

pub(crate) mod configured;
pub(crate) mod guard;
pub(crate) mod ids;
pub(crate) mod packed;
pub(crate) mod page;
pub(crate) mod rejections;
pub(crate) mod rows;
pub(crate) mod vault;
