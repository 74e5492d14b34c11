//! Pages of the log: where one begins, where it ends, and how much is looked at for it.
//!
//! A filter that no index answers is checked row by row. So that a page costs a bounded time whatever the filter is, it
//! ends after a number of rows looked at, of bytes searched, or after half a second: it is then short, maybe empty, and
//! has a next one that goes on behind the last row that was looked at.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::api::{Page, PageRequest, Position};
use crate::worker::{DeliveryKey, EventKey};
use crate::{Error, Result};

/// How much is looked at for one page: 5,000 rows of the organization, or 80,000 of others.
const LOOKS: usize = 5_000 * OWN;
/// What it takes to look at a row of the organization: other tables are asked about it.
const OWN: usize = 16;
/// What it takes to pass a row of somebody else.
const FOREIGN: usize = 1;
/// The most bytes of payloads searched for one page; the last payload may exceed it.
const BYTES: u64 = 32 << 20;
/// How long one page may take.
const TIME: Duration = Duration::from_millis(500);

/// A place in a list of the log, newest first: an event, and for a delivery its endpoint and run. Lists go from higher
/// places to lower ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) event: EventKey,
    pub(crate) endpoint: i64,
    pub(crate) run: i64,
}

impl Place {
    /// Before everything.
    pub(crate) const START: Self = Self { event: EventKey(u128::MAX), endpoint: i64::MAX, run: i64::MAX };

    /// Behind an event and all of its deliveries.
    pub(crate) fn event(event: EventKey) -> Self {
        Self { event, endpoint: 0, run: 0 }
    }

    /// Where a page begins: behind this.
    pub(crate) fn after(request: &PageRequest) -> Result<Self> {
        let Some(Position(bytes)) = &request.after else { return Ok(Self::START) };
        let (&[high, low, endpoint, run], []) = bytes.as_chunks::<8>() else { return Err(Error::BadPosition) };
        let half = |bytes| u128::from(u64::from_be_bytes(bytes));
        Ok(Self {
            event: EventKey(half(high) << 64 | half(low)),
            endpoint: i64::from_be_bytes(endpoint),
            run: i64::from_be_bytes(run),
        })
    }

    /// Of a delivery.
    pub(crate) fn delivery(key: DeliveryKey) -> Self {
        Self { event: key.event, endpoint: key.endpoint.0, run: i64::from(key.run) }
    }

    fn position(self) -> Position {
        let numbers = [self.endpoint.to_be_bytes(), self.run.to_be_bytes()].concat();
        Position([&self.event.0.to_be_bytes()[..], &numbers].concat())
    }
}

/// Whether to look at one more row.
pub(crate) type Go = ControlFlow<()>;

/// Collects the rows of one page.
pub(crate) struct Pager<T> {
    limit: usize,
    looks: usize,
    bytes: u64,
    until: Instant,
    data: Vec<T>,
    /// The last row looked at.
    last: Option<Place>,
    next: Option<Place>,
}

impl<T> Pager<T> {
    pub(crate) fn new(request: &PageRequest) -> Self {
        Self {
            limit: crate::engine::page::limit(request),
            looks: LOOKS,
            bytes: BYTES,
            until: Instant::now() + TIME,
            data: Vec::new(),
            last: None,
            next: None,
        }
    }

    /// With another bound of looks, and none of time: for tests.
    #[cfg(test)]
    pub(crate) fn looking_at(request: &PageRequest, looks: usize) -> Self {
        Self { looks, until: Instant::now() + Duration::from_secs(3600), ..Self::new(request) }
    }

    /// A row of the organization that was looked at and is not shown.
    pub(crate) fn pass(&mut self, place: Place) -> Go {
        self.look(place, OWN)
    }

    /// A row of another organization.
    pub(crate) fn pass_foreign(&mut self, place: Place) -> Go {
        self.look(place, FOREIGN)
    }

    fn look(&mut self, place: Place, looks: usize) -> Go {
        self.last = Some(place);
        self.looks = self.looks.saturating_sub(looks);
        if self.looks > 0 && self.bytes > 0 && Instant::now() < self.until {
            return Go::Continue(());
        }
        self.next = Some(place);
        Go::Break(())
    }

    /// A row to show. The one after the last of the page only says that there is a next page.
    pub(crate) fn show(&mut self, place: Place, row: T) -> Go {
        if self.data.len() == self.limit {
            self.next = self.last;
            return Go::Break(());
        }
        self.data.push(row);
        self.pass(place)
    }

    /// So many bytes were searched.
    pub(crate) fn searched(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    pub(crate) fn finish(self) -> Page<T> {
        Page { data: self.data, next: self.next.map(Place::position) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(limit: usize, after: Option<Position>) -> PageRequest {
        PageRequest { limit, after }
    }

    fn page(pager: &mut Pager<u128>, from: u128) -> Option<u128> {
        (1..from).rev().find(|seq| pager.show(Place::event(EventKey(*seq)), *seq).is_break())
    }

    #[test]
    fn a_full_page_has_a_next_one_only_if_there_is_one_more_row() {
        for (rows, next) in [(2_u128, None), (3, None), (4, Some(2))] {
            let mut pager = Pager::new(&request(3, None));
            page(&mut pager, rows + 1);
            let page = pager.finish();
            assert_eq!(page.data.len(), 3.min(usize::try_from(rows).unwrap()));
            assert_eq!(page.next, next.map(|seq| Place::event(EventKey(seq)).position()), "{rows}");
        }
    }

    #[test]
    fn a_page_that_looked_at_its_bound_is_short_and_goes_on_behind_the_last_row() {
        let mut pager: Pager<u128> = Pager::looking_at(&request(3, None), OWN + 2);
        assert!(pager.pass(Place::event(EventKey(10))).is_continue());
        assert!(pager.pass_foreign(Place::event(EventKey(9))).is_continue());
        assert!(pager.pass_foreign(Place::event(EventKey(8))).is_break());
        let page = pager.finish();
        assert!(page.data.is_empty());
        assert_eq!(Place::after(&request(3, page.next)).unwrap(), Place::event(EventKey(8)));
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for bytes in [vec![], vec![0; 31], vec![0; 33], vec![0; 24]] {
            let request = request(1, Some(Position(bytes)));
            assert!(matches!(Place::after(&request), Err(Error::BadPosition)));
        }
    }
}
