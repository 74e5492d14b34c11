//! Lists against the model: random logs of two organizations, written in an order that is not quite that of their ids,
//! read in pages of random bounds while new events come in.

mod model;
mod plans;

use std::collections::HashSet;
use std::sync::Arc;

use postroom_domain::{DeliveryId, EventId};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use self::model::{Log, key};
use super::{Desk, deliveries, events};
use crate::api::{DeliveryFilter, EventFilter, Page, PageRequest, Position};
use crate::engine::model::{ORG, World, delivery_filter, event_filter, moment, world};
use crate::engine::pager::{Pager, Place};
use crate::postgres::pool::Pool;
use crate::{Error, Result};

/// Bounds of one page: rows shown, how much is looked at, and how many rows are read at first.
type Bounds = (usize, usize, i64);

fn bounds() -> impl Strategy<Value = Vec<Bounds>> {
    prop::collection::vec((1..4_usize, 1..100_usize, 1..9_i64), 1..5)
}

/// Runs a test on many logs, one after the other in one database.
fn each<T: std::fmt::Debug>(of: impl Strategy<Value = T>, test: impl AsyncFn(&mut Log, T)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let log = std::cell::RefCell::new(runtime.block_on(Log::new()));
    let config = ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() };
    let end = TestRunner::new(config).run(&of, |case| {
        runtime.block_on(test(&mut log.borrow_mut(), case));
        Ok(())
    });
    end.unwrap();
}

async fn at(pool: &Pool, log: &Log) -> Desk {
    let transaction = pool.begin_for(ORG).await.unwrap();
    Desk { transaction, org: ORG, handoff: Arc::new(log.world.flying()), now: moment(25), _turn: None }
}

async fn list_events(log: &mut Log, bounds: &[Bounds], filter: &EventFilter) -> Vec<EventId> {
    let mut found = Vec::new();
    let mut after: Option<Position> = None;
    for (limit, looks, first) in bounds.iter().cycle() {
        let request = PageRequest { limit: *limit, after: after.clone() };
        let pager = Pager::looking_at(&request, *looks);
        let desk = at(&log.api, log).await;
        let page = events::list(&desk, filter, Place::after(&request).unwrap(), *first, pager).await;
        let page = check(desk.end(page).await, *limit, &after);
        for view in &page.data {
            let desk = at(&log.api, log).await;
            let one = events::view(&desk, view.id).await;
            let one = desk.end(one).await.unwrap();
            assert_eq!((one.status, one.source, one.payload_bytes), (view.status, view.source, view.payload_bytes));
        }
        found.extend(page.data.into_iter().map(|view| view.id));
        after = page.next;
        if after.is_none() {
            break;
        }
        log.append_one_more().await;
    }
    found
}

async fn list_deliveries(log: &mut Log, bounds: &[Bounds], filter: &DeliveryFilter) -> Vec<DeliveryId> {
    let mut found = Vec::new();
    let mut after: Option<Position> = None;
    for (limit, looks, first) in bounds.iter().cycle() {
        let request = PageRequest { limit: *limit, after: after.clone() };
        let pager = Pager::looking_at(&request, *looks);
        let desk = at(&log.dead_letter, log).await;
        let page = deliveries::list(&desk, filter, Place::after(&request).unwrap(), *first, pager).await;
        let page = check(desk.end(page).await, *limit, &after);
        for view in &page.data {
            let desk = at(&log.dead_letter, log).await;
            let one = desk.delivery(view.id).await;
            let one = desk.end(one).await.unwrap();
            assert_eq!((one.status, one.event, one.endpoint), (view.status, view.event, view.endpoint));
        }
        found.extend(page.data.into_iter().map(|view| view.id));
        after = page.next;
        if after.is_none() {
            break;
        }
        log.append_one_more().await;
    }
    found
}

fn check<T>(page: Result<Page<T>>, limit: usize, after: &Option<Position>) -> Page<T> {
    let page = page.unwrap();
    assert!(page.data.len() <= limit);
    assert!(page.next.is_none() || page.next != *after, "a page that does not go on");
    page
}

fn logs() -> impl Strategy<Value = (World, i64)> {
    (world(key), 0..30_i64)
}

#[test]
fn pages_of_events_show_what_a_filter_describes_once_and_in_order() {
    each((logs(), event_filter(), bounds()), async |log, ((world, watermark), filter, bounds)| {
        log.write(world, watermark).await;
        let expected = log.world.events(&filter);
        assert_eq!(list_events(log, &bounds, &filter).await, expected);
    });
}

#[test]
fn pages_of_deliveries_show_what_a_filter_describes_once_and_in_order() {
    each((logs(), delivery_filter(), bounds()), async |log, ((world, watermark), filter, bounds)| {
        log.write(world, watermark).await;
        let filter = log.world.name(filter);
        let expected = log.world.deliveries(&filter);
        assert_eq!(list_deliveries(log, &bounds, &filter).await, expected);
    });
}

#[test]
fn nothing_of_another_organization_is_found() {
    each(logs(), async |log, (world, watermark)| {
        log.write(world, watermark).await;
        let own: HashSet<EventId> = log.world.events(&EventFilter::default()).into_iter().collect();
        let own_deliveries: HashSet<DeliveryId> =
            log.world.deliveries(&DeliveryFilter::default()).into_iter().collect();
        for event in log.all_events() {
            let desk = at(&log.api, log).await;
            let found = events::view(&desk, event).await;
            let found = desk.end(found).await;
            assert_eq!(found.is_ok(), own.contains(&event));
            assert!(found.is_ok() || matches!(found, Err(Error::NotFound { kind: "event" })));
            for (endpoint_number, run) in [(0, 0), (1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (1, 9)] {
                let id = DeliveryId { event, endpoint_number, run };
                let desk = at(&log.dead_letter, log).await;
                let found = desk.delivery(id).await;
                let found = desk.end(found).await;
                assert_eq!(found.is_ok(), own_deliveries.contains(&id), "{id}");
                assert!(found.is_ok() || matches!(found, Err(Error::NotFound { kind: "delivery" })));
            }
        }
    });
}
