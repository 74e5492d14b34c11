//! Pages of a list: where one begins and how the next one is found.

use crate::Result;
use crate::api::{Page, PageRequest, Position};

/// The most rows of a page.
const LIMIT_MAX: usize = 250;

/// How many rows the caller wants, within bounds.
pub(crate) fn limit(request: &PageRequest) -> usize {
    request.limit.clamp(1, LIMIT_MAX)
}

/// A page of a list whose places are ids. `rows` reads at most so many rows after a place. A position that is none
/// finds nothing: the caller has proved that it is one of ours.
pub(crate) fn by_id<T>(
    request: &PageRequest,
    rows: impl FnOnce(Option<[u8; 16]>, i64) -> Result<Vec<T>>,
    id: impl Fn(&T) -> [u8; 16],
) -> Result<Page<T>> {
    let after = request.after.as_ref().map(|position| <[u8; 16]>::try_from(&*position.0).unwrap_or([0; 16]));
    let limit = limit(request);
    // One more than wanted says whether there is a next page.
    let mut data = rows(after, i64::try_from(limit + 1).unwrap_or(i64::MAX))?;
    let more = data.len() > limit;
    data.truncate(limit);
    let next = data.last().filter(|_| more).map(|last| Position(id(last).to_vec()));
    Ok(Page { data, next })
}
