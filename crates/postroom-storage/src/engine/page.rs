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

/// One page of two lists that are both in the order of their ids, newest first. What is in both is there once.
pub(crate) fn merge<T>(request: &PageRequest, pages: [Page<T>; 2], id: impl Fn(&T) -> [u8; 16]) -> Page<T> {
    // Below the higher of the places where they end, one of them has not been read yet.
    let end = pages.iter().filter_map(|page| page.next.clone()).max_by(|one, other| one.0.cmp(&other.0));
    let mut data: Vec<T> = pages.into_iter().flat_map(|page| page.data).collect();
    data.retain(|row| end.as_ref().is_none_or(|end| id(row)[..] >= end.0[..]));
    data.sort_unstable_by_key(|row| std::cmp::Reverse(id(row)));
    data.dedup_by_key(|row| id(row));
    let page = cut(request, data, id);
    Page { next: page.next.or(end), ..page }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of ids, newest first, of which a page was read.
    fn page(all: &[u8], request: &PageRequest) -> Page<[u8; 16]> {
        let (after, most) = after_id(request);
        let ids = all.iter().map(|id| [*id; 16]).filter(|id| after.is_none_or(|after| *id < after));
        cut(request, ids.take(usize::try_from(most).unwrap()).collect(), |id| *id)
    }

    #[test]
    fn two_lists_are_read_as_one_whatever_the_length_of_a_page() {
        let (one, other) = ([9, 8, 5, 4, 3, 1], [8, 7, 6, 2]);
        for limit in 1..11 {
            let (mut request, mut read) = (PageRequest { limit, after: None }, Vec::new());
            loop {
                let both = merge(&request, [page(&one, &request), page(&other, &request)], |id| *id);
                assert!(both.data.len() <= limit);
                read.extend(both.data.iter().map(|id| id[0]));
                let Some(next) = both.next else { break };
                request.after = Some(next);
            }
            assert_eq!(read, [9, 8, 7, 6, 5, 4, 3, 2, 1], "in pages of {limit}");
        }
    }
}
