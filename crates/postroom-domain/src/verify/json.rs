//! Reads a few values out of a JSON body without building the document.
//!
//! One pass, no allocation but for the values asked for. Of a name that stands twice the last counts, as in most
//! parsers. A body that is not exactly one JSON document yields nothing.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The most paths that one pass looks for.
const MAX_PATHS: usize = 16;

/// What a path with `*` reads as when the items of the list do not agree: nothing that an event's type or id could be.
pub(super) const MIXED: &str = "\0mixed";

/// Compiled paths.
#[derive(Debug, Clone, Default)]
pub(super) struct Paths(Vec<Vec<String>>);

impl Paths {
    /// Adds a path and says under which number [`Self::read`] will have its value.
    pub fn add(&mut self, path: &str) -> usize {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        if let Some(known) = self.0.iter().position(|have| *have == path) {
            return known;
        }
        assert!(self.0.len() < MAX_PATHS, "no scheme reads that many values");
        self.0.push(path);
        self.0.len() - 1
    }

    /// The values, by the numbers of [`Self::add`].
    pub fn read(&self, body: &[u8]) -> Vec<Option<String>> {
        let mut found = vec![None; self.0.len()];
        if self.0.is_empty() || !looks_like_json(body) {
            return found;
        }
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let all = u16::MAX >> (MAX_PATHS - self.0.len());
        let node = Node { paths: &self.0, active: all, depth: 0, found: &mut found };
        if node.deserialize(&mut deserializer).and_then(|()| deserializer.end()).is_err() {
            found.fill(None);
        }
        found
    }
}

/// Whether the first byte that is not white space begins an object or a list.
pub(crate) fn looks_like_json(body: &[u8]) -> bool {
    body.iter().find(|b| !b.is_ascii_whitespace()).is_some_and(|b| matches!(b, b'{' | b'['))
}

/// One value of the document, and which paths (a bit each) lead to or through it.
struct Node<'p, 'f> {
    paths: &'p [Vec<String>],
    active: u16,
    depth: usize,
    found: &'f mut [Option<String>],
}

impl Node<'_, '_> {
    fn keep(self, text: &str) {
        for (index, path) in self.paths.iter().enumerate() {
            if self.active & (1 << index) == 0 || path.len() != self.depth {
                continue;
            }
            let slot = &mut self.found[index];
            match slot {
                Some(before) if path.iter().any(|s| s == "*") && before != text => *slot = Some(MIXED.to_owned()),
                _ => *slot = Some(text.to_owned()),
            }
        }
    }
}

/// Which of the active paths go on with this name or position.
fn narrowed(paths: &[Vec<String>], active: u16, depth: usize, goes_on: impl Fn(&str) -> bool) -> u16 {
    let mut mask = 0;
    for (index, path) in paths.iter().enumerate() {
        if active & (1 << index) != 0 && path.get(depth).is_some_and(|segment| goes_on(segment)) {
            mask |= 1 << index;
        }
    }
    mask
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.keep(text);
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.keep(&number.to_string());
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.keep(&number.to_string());
        Ok(())
    }

    fn visit_bool<E>(self, truth: bool) -> Result<(), E> {
        self.keep(if truth { "true" } else { "false" });
        Ok(())
    }

    // Two different long numbers can be one f64, so a fraction or a number beyond 64 bits names nothing.
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Node { paths, active, depth, found } = self;
        while let Some(active) = map.next_key_seed(Key { paths, active, depth })? {
            if active == 0 {
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(Node { paths, active, depth: depth + 1, found: &mut *found })?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Node { paths, active, depth, found } = self;
        for position in 0_usize.. {
            let here = narrowed(paths, active, depth, |segment| segment == "*" || segment.parse() == Ok(position));
            let more = if here == 0 {
                seq.next_element::<IgnoredAny>()?.is_some()
            } else {
                seq.next_element_seed(Node { paths, active: here, depth: depth + 1, found: &mut *found })?.is_some()
            };
            if !more {
                if position == 0 {
                    Node { paths, active, depth, found }.keep("[]");
                }
                break;
            }
        }
        Ok(())
    }
}

/// A name of an object, read as the set of paths that go on with it.
struct Key<'p> {
    paths: &'p [Vec<String>],
    active: u16,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = u16;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u16, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = u16;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<u16, E> {
        Ok(narrowed(self.paths, self.active, self.depth, |segment| segment == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(paths: &[&str], body: &str) -> Vec<Option<String>> {
        let mut compiled = Paths::default();
        let slots: Vec<usize> = paths.iter().map(|path| compiled.add(path)).collect();
        let found = compiled.read(body.as_bytes());
        slots.into_iter().map(|slot| found[slot].clone()).collect()
    }

    fn one(path: &str, body: &str) -> Option<String> {
        read(&[path], body).remove(0)
    }

    #[test]
    fn values_are_found_at_their_paths_in_one_pass() {
        let body = r#" {"x":[{"id":1},{"id":2}],"event":{"type":"a","n":-3},"type":"b","ok":true,"z":null} "#;
        let found = read(&["event.type", "type", "x.1.id", "event.n", "ok", "z", "nope.deeper", "event"], body);
        let found: Vec<Option<&str>> = found.iter().map(Option::as_deref).collect();
        assert_eq!(found, [Some("a"), Some("b"), Some("2"), Some("-3"), Some("true"), None, None, None]);
    }

    #[test]
    fn items_of_a_list_must_agree_and_an_empty_list_is_seen() {
        assert_eq!(one("*.event", r#"[{"event":"open"},{"event":"open"}]"#).as_deref(), Some("open"));
        assert_eq!(one("*.event", r#"[{"event":"open"},{"event":"send"}]"#).as_deref(), Some(MIXED));
        assert_eq!(one("events", r#"{"events":[]}"#).as_deref(), Some("[]"));
        assert_eq!(one("events", r#"{"events":[1]}"#), None);
    }

    #[test]
    fn the_last_of_two_equal_names_counts_and_escapes_are_read() {
        assert_eq!(one("id", r#"{"id":"a","id":"b"}"#).as_deref(), Some("b"));
        assert_eq!(one("id", r#"{"i\u0064":"\u00e9\n"}"#).as_deref(), Some("é\n"));
    }

    #[test]
    fn numbers_that_would_lose_digits_name_nothing() {
        assert_eq!(one("id", r#"{"id":18446744073709551615}"#).as_deref(), Some("18446744073709551615"));
        assert_eq!(one("id", r#"{"id":18446744073709551616}"#), None);
        assert_eq!(one("id", r#"{"id":1.5}"#), None);
    }

    #[test]
    fn what_is_not_one_json_document_yields_nothing() {
        let deep = format!(r#"{{"a":{}{},"id":"x"}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(one("id", &deep).as_deref(), Some("x"), "what is skipped may be deep");
        for body in ["", " ", "id", r#"{"id":"a""#, r#"{"id":"a"}{"id":"b"}"#, "\u{feff}{\"id\":\"a\"}", "\"id\""] {
            assert_eq!(one("id", body), None, "{body}");
        }
    }
}
