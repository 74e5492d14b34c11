//! Lists against a model: random logs of two organizations, half indexed, read in pages of random bounds while the
//! search tables are filled and new events come in.

mod model;
mod plans;

use std::collections::HashSet;

use postroom_domain::{DeliveryId, EventId};
use proptest::prelude::*;

use self::model::{Log, log};
use super::{deliveries, delivery, event, events};
use crate::api::{DeliveryFilter, EventFilter, Page, PageRequest, Position};
use crate::engine::model::{ORG, delivery_filter, event_filter};
use crate::engine::pager::{Pager, Place};
use crate::{Error, Result};

/// Bounds of one page: rows shown, how much is looked at, and how many events are put into the search tables after it.
type Bounds = (usize, usize, i64);

fn bounds() -> impl Strategy<Value = Vec<Bounds>> {
    prop::collection::vec((1..4_usize, 1..100_usize, 0..4_i64), 1..5)
}

/// Reads a list to its end, page by page; what comes new meanwhile is not in it.
fn read<T>(
    log: &mut Log,
    bounds: &[Bounds],
    mut page: impl FnMut(&Log, &PageRequest, usize) -> Result<Page<T>>,
) -> Vec<T> {
    let mut rows = Vec::new();
    let mut after: Option<Position> = None;
    for (limit, looks, indexed) in bounds.iter().cycle() {
        let next = page(log, &PageRequest { limit: *limit, after: after.clone() }, *looks).unwrap();
        assert!(next.data.len() <= *limit);
        assert!(next.next.is_none() || next.next != after, "a page that does not go on");
        rows.extend(next.data);
        after = next.next;
        if after.is_none() {
            break;
        }
        log.index(*indexed);
        log.append_one_more();
    }
    rows
}

fn list_events(log: &mut Log, bounds: &[Bounds], filter: &EventFilter) -> Vec<EventId> {
    let views = read(log, bounds, |log, request, looks| {
        let pager = Pager::looking_at(request, looks);
        let after = Place::after(request)?;
        events::page(&log.connection, &log.flying, ORG, filter.clone(), after, pager)
    });
    for view in &views {
        let one = event::view(&log.connection, &log.flying, ORG, view.id).unwrap();
        assert_eq!((one.status, one.source, one.deliveries), (view.status, view.source, view.deliveries));
    }
    views.into_iter().map(|view| view.id).collect()
}

fn list_deliveries(log: &mut Log, bounds: &[Bounds], filter: &DeliveryFilter) -> Vec<DeliveryId> {
    let views = read(log, bounds, |log, request, looks| {
        let pager = Pager::looking_at(request, looks);
        deliveries::page(&log.connection, &log.flying, ORG, filter, Place::after(request)?, pager)
    });
    for view in &views {
        let one = delivery::view(&log.connection, &log.flying, ORG, view.id).unwrap();
        assert_eq!((one.status, one.event, one.endpoint), (view.status, view.event, view.endpoint));
    }
    views.into_iter().map(|view| view.id).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pages_of_events_show_what_a_filter_describes_once_and_in_order(
        mut log in log(), filter in event_filter(), bounds in bounds(),
    ) {
        let expected = log.world.events(&filter);
        prop_assert_eq!(list_events(&mut log, &bounds, &filter), expected);
    }

    #[test]
    fn pages_of_deliveries_show_what_a_filter_describes_once_and_in_order(
        mut log in log(), filter in delivery_filter(), bounds in bounds(),
    ) {
        let filter = log.world.name(filter);
        let expected = log.world.deliveries(&filter);
        prop_assert_eq!(list_deliveries(&mut log, &bounds, &filter), expected);
    }

    #[test]
    fn nothing_of_another_organization_is_found(log in log()) {
        let own: HashSet<EventId> = log.world.events(&EventFilter::default()).into_iter().collect();
        for event in log.all_events() {
            let found = event::view(&log.connection, &log.flying, ORG, event).map(|view| view.id);
            prop_assert_eq!(found.is_ok(), own.contains(&event));
            let missing = matches!(found, Err(Error::NotFound { kind: "event" }));
            prop_assert!(missing || own.contains(&event));
            prop_assert_eq!(event::payload(&log.connection, ORG, event).is_ok(), own.contains(&event));
        }
        let own: HashSet<DeliveryId> = log.world.deliveries(&DeliveryFilter::default()).into_iter().collect();
        for event in log.all_events() {
            for (endpoint_number, run) in [(0, 0), (1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (1, 9)] {
                let id = DeliveryId { event, endpoint_number, run };
                let found = delivery::view(&log.connection, &log.flying, ORG, id);
                prop_assert_eq!(found.is_ok(), own.contains(&id), "{}", id);
                let missing = matches!(found, Err(Error::NotFound { kind: "delivery" }));
                prop_assert!(missing || own.contains(&id));
            }
        }
    }
}
