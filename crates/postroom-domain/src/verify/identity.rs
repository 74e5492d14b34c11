//! Which event a request is, and of which type: read from its headers and body by the provider's row.

use std::borrow::Cow;
use std::cell::OnceCell;

use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, HeaderName};

use super::json::{self, Paths};
use super::{Request, form, template};
use crate::provider::scheme::{Field, Pick};

/// One compiled field.
#[derive(Debug)]
enum Source {
    Header(HeaderName),
    Json(usize),
    JsonMark(usize, String),
    /// A value inside the JSON of a form field; without a path the field's text.
    Form(String, Option<(Paths, usize)>),
    FormMark(String, String),
    Query(String),
    FormDigest,
    BodyDigest,
}

/// Fields of requests, found together in one pass over the body.
#[derive(Debug, Default)]
pub(super) struct Fields {
    paths: Paths,
    sources: Vec<Source>,
}

/// The number of a field in its [`Fields`].
pub(super) type FieldIndex = usize;

impl Fields {
    /// Adds a field. A header or path of a row is always valid; those of options were checked before.
    pub fn add(&mut self, field: Field<'_>) -> Result<FieldIndex, crate::Invalid> {
        let source = match field {
            Field::Header(name) => Source::Header(template::header_name(name)?),
            Field::Json(path) => Source::Json(self.paths.add(template::json_path(path)?)),
            Field::JsonMark(path, word) => {
                Source::JsonMark(self.paths.add(template::json_path(path)?), word.to_owned())
            }
            Field::Form(name, "") => Source::Form(name.to_owned(), None),
            Field::Form(name, path) => {
                let mut paths = Paths::default();
                let slot = paths.add(template::json_path(path)?);
                Source::Form(name.to_owned(), Some((paths, slot)))
            }
            Field::FormMark(name, word) => Source::FormMark(name.to_owned(), word.to_owned()),
            Field::Query(name) => Source::Query(name.to_owned()),
            Field::FormDigest => Source::FormDigest,
            Field::BodyDigest => Source::BodyDigest,
        };
        self.sources.push(source);
        Ok(self.sources.len() - 1)
    }

    /// Reads what the fields need of the body, once.
    pub fn read<'r>(&'r self, request: &'r Request<'r>) -> Values<'r> {
        Values { fields: self, request, json: self.paths.read(request.body), form: OnceCell::new() }
    }

    /// The headers among the fields.
    pub fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.sources.iter().filter_map(|source| match source {
            Source::Header(name) => Some(name),
            _ => None,
        })
    }
}

/// The fields of one request.
pub(super) struct Values<'r> {
    fields: &'r Fields,
    request: &'r Request<'r>,
    json: Vec<Option<String>>,
    /// The form in the body, decoded when the first field asks for it.
    form: OnceCell<Vec<form::Pair<'r>>>,
}

impl Values<'_> {
    /// The text of a field; none if it is missing, empty or not UTF-8.
    pub fn get(&self, index: FieldIndex) -> Option<Cow<'_, str>> {
        let value = match &self.fields.sources[index] {
            Source::Header(name) => Cow::Borrowed(only_text(self.request.headers, name)?),
            Source::Json(slot) => Cow::Borrowed(self.json[*slot].as_deref()?),
            Source::JsonMark(slot, word) => self.json[*slot].as_ref().map(|_| Cow::Borrowed(word.as_str()))?,
            Source::Form(name, path) => {
                let text = self.form_field(name)?;
                match path {
                    None => Cow::Borrowed(std::str::from_utf8(text).ok()?),
                    Some((paths, slot)) => Cow::Owned(paths.read(text).swap_remove(*slot)?),
                }
            }
            Source::FormMark(name, word) => self.form_field(name).map(|_| Cow::Borrowed(word.as_str()))?,
            Source::Query(name) => Cow::Owned(query(self.request.url, name)?),
            Source::FormDigest => Cow::Owned(digest_of(&form::sorted(self.request.body))),
            Source::BodyDigest => Cow::Owned(digest_of(self.request.body)),
        };
        if value.is_empty() { None } else { Some(value) }
    }

    /// The value of the only form field of this name.
    pub fn form_field(&self, name: &str) -> Option<&[u8]> {
        let read = || {
            let body = self.request.body;
            if json::looks_like_json(body) { Vec::new() } else { form::pairs(body).collect() }
        };
        let pairs = self.form.get_or_init(read);
        let mut values = pairs.iter().filter(|(have, _)| have.as_ref() == name.as_bytes());
        let (_, value) = values.next()?;
        if values.next().is_some() { None } else { Some(value) }
    }
}

fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(digest(&SHA256, bytes)))
}

/// Compiled groups of fields: the first group that is complete, its values joined.
#[derive(Debug, Default)]
pub(super) struct Choice(Vec<Vec<FieldIndex>>);

impl Choice {
    /// Compiles the groups.
    pub fn compile(pick: Pick<'_>, fields: &mut Fields) -> Result<Self, crate::Invalid> {
        let group = |group: &&[Field<'_>]| group.iter().map(|field| fields.add(*field)).collect();
        pick.iter().map(group).collect::<Result<_, _>>().map(Self)
    }

    /// The value of a request. `mixed` stands for a value in which the items of a list do not agree.
    pub fn of(&self, values: &Values<'_>, joint: &str, mixed: Option<&str>) -> Option<String> {
        self.0.iter().find_map(|group| {
            // Room for nearly every one, so that it does not grow word by word.
            let mut text = String::with_capacity(64);
            for (index, field) in group.iter().enumerate() {
                let part = values.get(*field)?;
                text.push_str(if index == 0 { "" } else { joint });
                text.push_str(if part == json::MIXED { mixed? } else { &part });
            }
            Some(text)
        })
    }
}

/// The value of a header that stands there once, as text.
fn only_text<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Option<&'r str> {
    std::str::from_utf8(super::single(headers, name)?).ok()
}

/// The decoded value of the only query parameter of this name.
fn query(url: &str, name: &str) -> Option<String> {
    let (_, query) = url.split_once('?')?;
    let query = query.split('#').next().unwrap_or_default();
    String::from_utf8(form::field(query.as_bytes(), name)?.into_owned()).ok()
}
