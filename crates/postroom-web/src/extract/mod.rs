//! What handlers take out of a request. Every refusal is a catalogued [`Problem`](crate::problem::Problem): none of the
//! framework's own extractors is used, because theirs answer in other shapes.

pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod credential;
mod json;
mod path;
mod precondition;
mod query;

pub(crate) use auth::{Caller, InOrganization};
pub(crate) use json::{Json, JsonBytes, JsonOrEmpty, double_option, given, read_json};
pub(crate) use path::{DeadLetter, Id};
pub(crate) use precondition::{IfMatch, Tagged};
pub(crate) use query::{List, PageParams, Paged, Query};
