//! Which organizations have cells: a map that is replaced as a whole, so that whoever looks waits for nobody.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashMap;
use postroom_domain::OrganizationId;

use super::place::Place;
use super::registry::{Moving, Tenants};

/// See the [module](self).
#[derive(Default)]
pub(super) struct Map {
    pub(super) revision: i64,
    by_number: BTreeMap<u32, Arc<Place>>,
    by_organization: HashMap<OrganizationId, Arc<Place>>,
    by_slug: HashMap<Arc<str>, Arc<Place>>,
    moving: Vec<Moving>,
}

impl Map {
    /// The map of a registry. A cell that was known before keeps its place.
    pub(super) fn next(&self, tenants: Tenants) -> Self {
        let mut map = Self { revision: tenants.revision, moving: tenants.moving, ..Self::default() };
        for row in tenants.rows {
            let slug = row.slug.clone();
            let place = match self.by_number.get(&row.cell) {
                Some(place) => {
                    place.follow(row);
                    place.clone()
                }
                None => Arc::new(Place::new(row)),
            };
            map.by_number.insert(place.cell, place.clone());
            map.by_organization.insert(place.organization, place.clone());
            map.by_slug.insert(slug, place);
        }
        map
    }

    pub(super) fn of(&self, organization: OrganizationId) -> Option<Arc<Place>> {
        self.by_organization.get(&organization).cloned()
    }

    pub(super) fn by_slug(&self, slug: &str) -> Option<Arc<Place>> {
        self.by_slug.get(slug).cloned()
    }

    pub(super) fn by_number(&self, cell: u32) -> Option<Arc<Place>> {
        self.by_number.get(&cell).cloned()
    }

    /// Organizations that are being moved. Nearly always there are none, and never many.
    pub(super) fn moving(&self) -> &[Moving] {
        &self.moving
    }

    /// The move of an organization, if it is being moved.
    pub(super) fn move_of(&self, organization: OrganizationId) -> Option<&Moving> {
        self.moving.iter().find(|moving| moving.organization == organization)
    }

    /// All, in the order of their numbers.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Place>> {
        self.by_number.values()
    }

    /// Those from a number on.
    pub(super) fn from(&self, cell: u32) -> impl Iterator<Item = &Arc<Place>> {
        self.by_number.range(cell..).map(|(_, place)| place)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }
}
