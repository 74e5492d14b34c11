//! Splits a proved request that carries several events into one part for each.
//!
//! A part keeps the shape of its request: it is the original with all other items left out, so that code written for
//! the provider reads it like a request that carried one. The item itself is the exact slice of the original. What
//! can not be split within bounds stays one event of type `batch`.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::identity::{Choice, Fields, Values};
use super::outcome::{Part, bounded_id};
use super::{Request, form};
use crate::Invalid;
use crate::event::EventType;
use crate::provider::scheme;

/// The most events that one request is split into: what Mandrill and SendGrid send at most.
const MAX_ITEMS: usize = 1000;

/// The most bytes around the items: every part repeats them.
const MAX_AROUND_BYTES: usize = 4096;

/// Where the items of a provider's requests stand, and what names an item.
#[derive(Debug)]
pub(super) struct Batch {
    form: Option<&'static str>,
    path: Vec<&'static str>,
    fields: Fields,
    event_type: Choice,
    event_id: Choice,
}

impl Batch {
    /// Compiles a row's description.
    pub fn compile(row: &scheme::Batch) -> Result<Self, Invalid> {
        let mut fields = Fields::default();
        let event_type = Choice::compile(row.event_type, &mut fields)?;
        let event_id = Choice::compile(row.event_id, &mut fields)?;
        let path = row.items.split('.').filter(|name| !name.is_empty()).collect();
        Ok(Self { form: row.form, path, fields, event_type, event_id })
    }

    /// The events of a request in their order; none if it carries none that can be told apart. The type of an item
    /// that names none is `otherwise`.
    pub fn parts(&self, request: &Request<'_>, values: &Values<'_>, otherwise: impl Fn() -> EventType) -> Vec<Part> {
        let json = match self.form {
            Some(name) => values.form_field(name).unwrap_or_default(),
            None => request.body,
        };
        let items = items(json, &self.path);
        let [Some(first), Some(last)] = [items.first(), items.last()].map(|item| item.map(|item| span(json, item)))
        else {
            return Vec::new();
        };
        let (before, after) = (&json[..first.start], &json[last.end..]);
        if items.len() > MAX_ITEMS || before.len() + after.len() > MAX_AROUND_BYTES {
            return Vec::new();
        }
        let is_one = items.len() == 1;
        let body = |item: &str| match self.form {
            // The request is that event: it goes on as it came, with a signature that still proves it.
            _ if is_one => request.body.to_vec(),
            None => [before, item.as_bytes(), after].concat(),
            Some(name) => form::encode(name, &[before, item.as_bytes(), after].concat()),
        };
        let part = |item: &&str| {
            let (event_type, external_id) = self.identify(request, item, &otherwise);
            Part { event_type, external_id, body: body(item) }
        };
        items.iter().map(part).collect()
    }

    fn identify(
        &self,
        request: &Request<'_>,
        item: &str,
        otherwise: impl Fn() -> EventType,
    ) -> (EventType, Option<String>) {
        let item = Request { body: item.as_bytes(), ..*request };
        let values = self.fields.read(&item);
        let event_type = self.event_type.of(&values, ".", Some("batch"));
        let event_type = event_type.map_or_else(otherwise, |text| EventType::from_provider(&text));
        (event_type, self.event_id.of(&values, ":", None).map(bounded_id))
    }
}

/// The items of the list at a path, each exactly as it is written; none if there is no such list.
pub(super) fn items<'b>(json: &'b [u8], path: &[&str]) -> Vec<&'b str> {
    let Ok(text) = std::str::from_utf8(json) else { return Vec::new() };
    let mut here = text;
    for name in path {
        let Ok(mut members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(here) else { return Vec::new() };
        let Some(value) = members.remove(*name) else { return Vec::new() };
        here = value.get();
    }
    let items: Vec<&RawValue> = serde_json::from_str(here).unwrap_or_default();
    items.into_iter().map(RawValue::get).collect()
}

/// Where a slice of `whole` stands in it.
fn span(whole: &[u8], slice: &str) -> std::ops::Range<usize> {
    let start = (slice.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize).min(whole.len());
    start..(start + slice.len()).min(whole.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_exact_slices_of_the_list_at_a_path() {
        let json = br#" {"a": {"list": [ {"n": 1.0} , "x" ,[2]]}, "z": 1} "#;
        let found = items(json, &["a", "list"]);
        assert_eq!(found, [r#"{"n": 1.0}"#, r#""x""#, "[2]"]);
        assert_eq!(&json[span(json, found[1])], br#""x""#);
        for path in [["a", "none"], ["z", "list"], ["b", "list"]] {
            assert!(items(json, &path).is_empty(), "{path:?}");
        }
        for body in ["", "[", "[1", "{}", "[1] x", "\u{feff}[1]"] {
            assert!(items(body.as_bytes(), &[]).is_empty(), "{body:?}");
        }
        assert!(items(b"[\"\xff\"]", &[]).is_empty());
        assert_eq!(items(b"[1,2]\r\n", &[]), ["1", "2"]);
    }
}
