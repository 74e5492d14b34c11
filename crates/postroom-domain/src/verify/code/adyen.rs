//! Adyen's standard webhooks: every item of the body carries a keyed hash over eight of its fields.
//!
//! The fields are joined by colons that nothing escapes, so a value can move from one into the next; and what is not
//! among them is not signed. Both is Adyen's scheme. Every item has to be right, not only the first.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::super::batch;
use super::super::json::Paths;
use super::super::trace::{Trace, count};
use super::super::{Refusal, Request, check};
use super::{Signer, missing, refused};
use crate::Secret;
use crate::provider::FieldError;

/// The most items of one request; Adyen sends one.
const MAX_ITEMS: usize = 100;

/// What is signed, in this order; a field that is not there is empty.
const FIELDS: [&str; 8] = [
    "pspReference",
    "originalReference",
    "merchantAccountCode",
    "merchantReference",
    "amount.value",
    "amount.currency",
    "eventCode",
    "success",
];

/// The scheme with a source's keys.
#[derive(Debug)]
pub(in crate::verify) struct Check {
    keys: Vec<hmac::Key>,
    paths: Paths,
    signed: [usize; FIELDS.len()],
    signature: usize,
}

impl Check {
    pub fn compile(secrets: &[Secret]) -> Self {
        let keys = secrets.iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.expose())).collect();
        let mut paths = Paths::default();
        let signed = FIELDS.map(|field| paths.add(&format!("NotificationRequestItem.{field}")));
        let signature = paths.add("NotificationRequestItem.additionalData.hmacSignature");
        Self { keys, paths, signed, signature }
    }

    /// Checks every item.
    pub fn run<T: Trace>(&self, request: &Request<'_>, trace: &mut T) -> Result<(), Refusal> {
        let items = batch::items(request.body, &["notificationItems"]);
        if items.is_empty() {
            return Err(missing(check::SIGNATURE_HEADER, "the body has no notificationItems", trace));
        }
        if items.len() > MAX_ITEMS {
            return Err(refused(check::SIGNATURE_FORMAT, format!("at most {MAX_ITEMS} items are looked at"), trace));
        }
        for item in &items {
            let values = self.paths.read(item.as_bytes());
            let Some(text) = values[self.signature].as_deref().filter(|text| !text.is_empty()) else {
                return Err(missing(check::SIGNATURE_HEADER, "an item has no additionalData.hmacSignature", trace));
            };
            let Some(given) = STANDARD.decode(text).ok().filter(|bytes| bytes.len() == 32) else {
                return Err(refused(check::SIGNATURE_FORMAT, "a signature is not 32 bytes in base64", trace));
            };
            let message = self.signed.map(|slot| values[slot].as_deref().unwrap_or_default()).join(":");
            if !self.keys.iter().any(|key| hmac::verify(key, message.as_bytes(), &given).is_ok()) {
                return Err(refused(check::SIGNATURE, "an item is signed with none of the keys", trace));
            }
        }
        trace.passed(check::SIGNATURE, || format!("{} signed with a key of the source", count(items.len(), "item")));
        Ok(())
    }
}

/// Puts a signature into every item of the body.
pub(super) fn sign(signer: &Signer<'_>, body: &mut Vec<u8>) -> Result<(), FieldError> {
    let not_adyen = || FieldError::new("body", "invalid_json", "a JSON object with notificationItems");
    let key = hmac::Key::new(hmac::HMAC_SHA256, signer.secret.expose());
    let mut document: Value = serde_json::from_slice(body).map_err(|_| not_adyen())?;
    let items = document.get_mut("notificationItems").and_then(Value::as_array_mut).ok_or_else(not_adyen)?;
    for item in items {
        let item = item.get_mut("NotificationRequestItem").filter(|item| item.is_object()).ok_or_else(not_adyen)?;
        let fields = FIELDS.map(|field| match item.pointer(&format!("/{}", field.replace('.', "/"))) {
            Some(Value::String(text)) => text.clone(),
            None | Some(Value::Null) => String::new(),
            Some(other) => other.to_string(),
        });
        let tag = hmac::sign(&key, fields.join(":").as_bytes());
        if !item["additionalData"].is_object() {
            item["additionalData"] = Value::Object(serde_json::Map::new());
        }
        item["additionalData"]["hmacSignature"] = STANDARD.encode(tag).into();
    }
    *body = document.to_string().into_bytes();
    Ok(())
}
