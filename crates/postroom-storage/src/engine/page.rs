//! Pages of a list: where one begins and how the next one is found.

use crate::Result;
use crate::api::{Page, PageRequest, Position};

/// The most rows of a page.
const LIMIT_MAX: usize = 250;

/// How many rows the caller wants, within bounds.
pub(crate) fn limit(request: &PageRequest) -> usize {
    request.limit.clamp(1, LIMIT_MAX)
}

/// The id after which a page begins, and how many rows to read: one more than wanted says whether there is a next page.
/// A position that is none finds nothing: the caller has proved that it is one of ours.
pub(crate) fn after_id(request: &PageRequest) -> (Option<[u8; 16]>, i64) {
    let after = request.after.as_ref().map(|position| <[u8; 16]>::try_from(&*position.0).unwrap_or([0; 16]));
    (after, i64::try_from(limit(request) + 1).unwrap_or(i64::MAX))
}

/// A page from the rows that were read for it.
pub(crate) fn cut<T>(request: &PageRequest, mut data: Vec<T>, id: impl Fn(&T) -> [u8; 16]) -> Page<T> {
    let limit = limit(request);
    let more = data.len() > limit;
    data.truncate(limit);
    let next = data.last().filter(|_| more).map(|last| Position(id(last).to_vec()));
    Page { data, next }
}

/// A page of a list whose places are ids. `rows` reads at most so many rows after a place.
pub(crate) fn by_id<T>(
    request: &PageRequest,
    rows: impl FnOnce(Option<[u8; 16]>, i64) -> Result<Vec<T>>,
    id: impl Fn(&T) -> [u8; 16],
) -> Result<Page<T>> {
    let (after, most) = after_id(request);
    Ok(cut(request, rows(after, most)?, id))
}
