//! The audit log's entries: what of a change is shown in one, and how each is sealed with the one before.
//!
//! A seal is HMAC-SHA256 with a key of the installation over everything in the entry and the seal before it. Who can write to
//! the database but has no keys can neither change an entry, nor take one out or put one in, without breaking the chain;
//! what can be cut off unseen is its end (docs/adr/0013-audit-chain.md).

use std::fmt::Display;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use postroom_domain::endpoint::EndpointSettings;
use postroom_domain::source::SourceSettings;
use postroom_domain::{AuditEntryId, Email, EndpointId, EventId, OrganizationId, Role, Timestamp, UserId};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::ids::Ids;
use super::packed::to_json;
use super::vault::Vault;
use crate::api::{DeliveryView, NewApiKey, PageRequest, Position, Rotation};
use crate::audit::{Action, AuditEntry, AuditFilter, BrokenLink, ChainReport, Refusal, Refused};
use crate::platform::Organization;
use crate::{Actor, Origin, Result, Scope, SuperAdmin};

/// The chain of what is done outside of every organization.
pub(crate) const INSTALLATION: i64 = 0;

/// The most entries that one page looks at.
pub(crate) const SCANNED: i64 = 10_000;

/// The most entries that are checked at once.
pub(crate) const CHECKED: i64 = 1_000;

/// The longest form of one value; of a longer one only the length is shown.
const VALUE_BYTES: usize = 2_048;

/// What an entry shows of a secret.
const CHANGED: &str = "changed";

/// Named values of a thing.
pub(crate) type Values = Map<String, Value>;

/// Who acts, and in which chain it is written.
#[derive(Clone, Copy)]
pub(crate) struct By<'a> {
    pub(crate) org: i64,
    pub(crate) actor: Actor,
    pub(crate) origin: &'a Origin,
}

impl<'a> From<&'a Scope> for By<'a> {
    fn from(scope: &'a Scope) -> Self {
        Self { org: scope.org, actor: scope.actor, origin: &scope.origin }
    }
}

impl<'a> From<&'a Refused> for By<'a> {
    fn from(who: &'a Refused) -> Self {
        match who {
            Refused::In(scope) => scope.into(),
            Refused::SuperAdmin(proof) => proof.acting_in(INSTALLATION),
            Refused::Nobody(origin) => By::nobody(origin),
        }
    }
}

impl<'a> By<'a> {
    /// The program itself, in an organization. It comes from nowhere.
    pub(crate) fn system(org: i64, nowhere: &'a Origin) -> Self {
        Self { org, actor: Actor::System, origin: nowhere }
    }

    /// Somebody who showed no good credential.
    pub(crate) fn nobody(origin: &'a Origin) -> Self {
        Self { org: INSTALLATION, actor: Actor::Nobody, origin }
    }
}

impl SuperAdmin {
    /// Acting in an organization, or in the installation.
    pub(crate) fn acting_in(&self, org: i64) -> By<'_> {
        By { org, actor: self.0, origin: &self.1 }
    }
}

/// What was done to which thing.
pub(crate) struct Act {
    action: Action,
    resource: Option<String>,
    old: Values,
    new: Values,
}

impl Act {
    pub(crate) fn on(action: Action, resource: impl Display) -> Self {
        Self { resource: Some(resource.to_string()), ..Self::nowhere(action) }
    }

    /// To nothing in particular.
    pub(crate) fn nowhere(action: Action) -> Self {
        Self { action, resource: None, old: Values::new(), new: Values::new() }
    }

    /// What the thing was before.
    pub(crate) fn from(self, old: Values) -> Self {
        Self { old, ..self }
    }

    /// What it is after it.
    pub(crate) fn to(self, new: Values) -> Self {
        Self { new, ..self }
    }

    /// One more value of what it is after it.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.new.insert(name.to_owned(), value.into());
        self
    }

    /// A secret was set or replaced, if it was.
    pub(crate) fn with_secret(self, name: &str, is_set: bool) -> Self {
        if is_set { self.with(name, CHANGED) } else { self }
    }

    /// A new secret beside the ones before.
    pub(crate) fn rotated(self, rotation: &Rotation) -> Self {
        self.with_secret("secret", true).with("grace_seconds", rotation.grace_seconds)
    }

    /// The deliveries that were made.
    pub(crate) fn deliveries(self, made: &[DeliveryView]) -> Self {
        let ids: Vec<String> = made.iter().map(|delivery| delivery.id.to_string()).collect();
        self.with("deliveries", ids)
    }

    /// Leaves out what is the same on both sides.
    fn changes(mut self) -> Self {
        let same: Vec<String> = self
            .old
            .iter()
            .filter(|(name, old)| self.new.get(*name) == Some(old))
            .map(|(name, _)| name.clone())
            .collect();
        for name in same {
            self.old.remove(&name);
            self.new.remove(&name);
        }
        self
    }
}

/// As a column: nothing for nothing, and nothing long.
fn shown(values: Values) -> Option<String> {
    let short = |(name, value): (String, Value)| {
        let bytes = to_json(&value).len();
        (name, if bytes > VALUE_BYTES { json!(format!("({bytes} bytes)")) } else { value })
    };
    (!values.is_empty()).then(|| to_json(&values.into_iter().map(short).collect::<Values>()))
}

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or(Value::Null)
}

fn values<const N: usize>(pairs: [(&str, Value); N]) -> Values {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What is shown of a source.
pub(crate) fn of_source(settings: &SourceSettings, is_active: bool) -> Values {
    values([
        ("name", json!(settings.name)),
        ("provider", json!(settings.provider)),
        ("options", Value::Object(settings.options.clone())),
        ("is_active", json!(is_active)),
    ])
}

/// What is shown of an endpoint: the names of its headers and not their values.
pub(crate) fn of_endpoint(settings: &EndpointSettings) -> Values {
    let headers: Vec<&str> = settings.headers.iter().map(|header| header.name()).collect();
    values([
        ("url", json!(settings.url.as_str())),
        ("description", json!(settings.description)),
        ("event_types", value(&settings.event_types)),
        ("source_ids", value(&settings.source_ids)),
        ("filter", value(&settings.filter)),
        ("retry_schedule", value(&settings.retry_schedule)),
        ("timeout_ms", json!(settings.timeout_ms)),
        ("rate_limit", json!(settings.rate_limit)),
        ("headers", json!(headers)),
        ("signature", json!(settings.signature.as_str())),
    ])
}

/// An endpoint's settings were replaced. The same headers may have other values.
pub(crate) fn endpoint_updated(id: EndpointId, old: &EndpointSettings, new: &EndpointSettings) -> Act {
    Act::on(Action::EndpointUpdated, id)
        .from(of_endpoint(old))
        .to(of_endpoint(new))
        .with_secret("header_values", old.headers != new.headers)
}

/// What is shown of an organization.
pub(crate) fn of_organization(organization: &Organization) -> Values {
    values([
        ("name", json!(organization.name)),
        ("slug", json!(organization.slug)),
        ("plan", json!(organization.plan.as_str())),
        ("webhook_limit", json!(organization.webhook_limit)),
        ("is_active", json!(organization.is_active)),
        ("has_mandrill_webhook_secret", json!(organization.has_mandrill_webhook_secret)),
    ])
}

/// What is shown of an API key.
pub(crate) fn of_key(key: &NewApiKey) -> Values {
    values([("name", json!(key.name)), ("scopes", value(&key.scopes)), ("expires_at", value(&key.expires_at))])
}

/// What is shown of a person.
pub(crate) fn of_user(email: &Email, role: Role, is_active: bool) -> Values {
    values([("email", json!(email.as_str())), ("role", json!(role.as_str())), ("is_active", json!(is_active))])
}

/// What is shown of a super admin, but for what never changes.
pub(crate) fn of_super_admin(is_active: bool) -> Values {
    values([("is_active", json!(is_active))])
}

/// Somebody does something by a link or a session of their own.
pub(crate) fn by_user(org: i64, user: UserId, origin: &Origin) -> By<'_> {
    By { org, actor: Actor::User(user), origin }
}

/// Somebody was refused.
pub(crate) fn refused(refusal: &Refusal) -> Act {
    Act::nowhere(Action::AccessRefused).with("route", refusal.route.as_str()).with("code", refusal.code)
}

/// The last entry of a chain, as far as the next one needs it.
pub(crate) struct Head {
    pub(crate) number: i64,
    pub(crate) id: [u8; 16],
    pub(crate) hash: [u8; 32],
}

/// An entry as it is stored.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) org: i64,
    /// Of the database in which it was written.
    pub(crate) chain: [u8; 16],
    pub(crate) number: i64,
    pub(crate) id: [u8; 16],
    pub(crate) at: Timestamp,
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) resource_type: String,
    pub(crate) resource_id: Option<String>,
    pub(crate) old_values: Option<String>,
    pub(crate) new_values: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) previous: Vec<u8>,
    pub(crate) hash: Vec<u8>,
}

impl Entry {
    /// The entry behind `head`, sealed with it.
    pub(crate) fn after(head: Option<Head>, vault: &Vault, by: By<'_>, act: Act, now: Timestamp) -> Self {
        let head = head.unwrap_or(Head { number: 0, id: [0; 16], hash: [0; 32] });
        let last = EventId::from_bytes(head.id);
        // Time never goes back in a chain, so that an id is also a place in time.
        let id = Ids::after(Some(last)).next(now.max(last.created_at()));
        let act = act.changes();
        let mut entry = Self {
            org: by.org,
            chain: vault.audit_chain(),
            number: head.number + 1,
            id: id.to_bytes(),
            at: id.created_at(),
            actor: by.actor.to_string(),
            action: act.action.as_str().to_owned(),
            resource_type: act.action.resource_type().to_owned(),
            resource_id: act.resource,
            old_values: shown(act.old),
            new_values: shown(act.new),
            address: by.origin.address.map(|address| address.to_string()),
            request_id: by.origin.request.as_deref().map(str::to_owned),
            previous: head.hash.to_vec(),
            hash: Vec::new(),
        };
        entry.hash = vault.audit_seal(&entry.bytes()).to_vec();
        entry
    }

    /// All that is sealed. Every field with its length, so that no two entries are written alike.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"postroom audit entry 1".to_vec();
        let mut add = |field: Option<&[u8]>| {
            bytes.push(u8::from(field.is_some()));
            let field = field.unwrap_or_default();
            bytes.extend((field.len() as u64).to_be_bytes());
            bytes.extend(field);
        };
        add(Some(&self.org.to_be_bytes()));
        add(Some(&self.chain));
        add(Some(&self.number.to_be_bytes()));
        add(Some(&self.id));
        add(Some(&self.at.as_millis().to_be_bytes()));
        for text in [&self.actor, &self.action, &self.resource_type] {
            add(Some(text.as_bytes()));
        }
        for text in [&self.resource_id, &self.old_values, &self.new_values, &self.address, &self.request_id] {
            add(text.as_deref().map(str::as_bytes));
        }
        add(Some(&self.previous));
        bytes
    }

    /// As it is read.
    pub(crate) fn view(self) -> AuditEntry {
        let read = |values: Option<String>| values.and_then(|values| serde_json::from_str(&values).ok());
        AuditEntry {
            id: AuditEntryId::from_bytes(self.id),
            number: self.number.unsigned_abs(),
            at: self.at,
            actor: self.actor,
            action: self.action,
            resource_type: self.resource_type,
            resource_id: self.resource_id,
            old_values: read(self.old_values),
            new_values: read(self.new_values),
            address: self.address,
            request_id: self.request_id,
        }
    }
}

/// Where a page of a list looks: at ids from the first, below the second.
pub(crate) fn bounds(filter: &AuditFilter, request: &PageRequest) -> ([u8; 16], [u8; 16]) {
    let floor = |at: Timestamp| AuditEntryId::floor(at).to_bytes();
    let after = request.after.as_ref().map(|position| <[u8; 16]>::try_from(&*position.0).unwrap_or([0; 16]));
    let below = [after, filter.created_before.map(floor)].into_iter().flatten().min();
    (filter.created_after.map_or([0; 16], floor), below.unwrap_or([0xff; 16]))
}

/// Where the next page begins when this one has looked at as much as it may: behind the last entry that it saw.
pub(crate) fn behind(last_seen: Option<[u8; 16]>) -> Option<Position> {
    last_seen.map(|id| Position(id.to_vec()))
}

/// Goes along a chain and stops at the first entry that is not what was written.
pub(crate) struct Walk {
    chain: [u8; 16],
    /// Entries that are good.
    entries: u64,
    head: Option<[u8; 32]>,
    last: [u8; 16],
    broken: Option<BrokenLink>,
}

impl Walk {
    pub(crate) fn along(chain: [u8; 16]) -> Self {
        Self { chain, entries: 0, head: None, last: [0; 16], broken: None }
    }

    /// What was found.
    pub(crate) fn report(self, organization: Option<OrganizationId>) -> ChainReport {
        let Self { chain, entries, head, broken, .. } = self;
        ChainReport { organization, dedicated: false, chain, entries, head, broken }
    }

    /// The number behind which to read on.
    pub(crate) fn reached(&self) -> i64 {
        i64::try_from(self.entries).unwrap_or(i64::MAX)
    }

    /// Looks at the next entries; false when there is no use in more.
    pub(crate) fn over(&mut self, entries: Vec<Entry>, vault: &Vault) -> bool {
        let is_end = entries.len() < usize::try_from(CHECKED).unwrap_or(usize::MAX);
        for entry in entries {
            if let Err(reason) = self.step(&entry, vault) {
                self.broken = Some(BrokenLink { number: self.entries + 1, reason });
                return false;
            }
        }
        !is_end
    }

    fn step(&mut self, entry: &Entry, vault: &Vault) -> Result<(), &'static str> {
        if entry.number != self.reached() + 1 {
            return Err("it is missing");
        }
        if entry.previous != self.head.unwrap_or_default() {
            return Err("it does not belong behind the one before");
        }
        let seal = vault.audit_seal_of(entry.chain, &entry.bytes()).ok_or("its key is missing")?;
        if verify_slices_are_equal(&seal, &entry.hash).is_err() {
            return Err("it is not as it was written");
        }
        if entry.id <= self.last {
            return Err("it is older than the one before");
        }
        (self.entries, self.head, self.last) = (self.entries + 1, Some(seal), entry.id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use postroom_domain::Secret;
    use postroom_domain::keyring::Keyring;

    use super::*;
    use crate::engine::vault::AuditKeys;

    fn vault(key: &str) -> Vault {
        let keyring = Keyring::parse(&Keyring::generate()).unwrap();
        Vault::new(
            keyring,
            Secret::from("fingerprints"),
            AuditKeys { chain: [1; 16], all: vec![([1; 16], key.into())] },
        )
    }

    fn chain(vault: &Vault, length: i64) -> Vec<Entry> {
        let origin = Origin { address: Some([127, 0, 0, 1].into()), request: Some("req_1".into()) };
        let by = By { org: 7, actor: Actor::Operator, origin: &origin };
        let mut entries: Vec<Entry> = Vec::new();
        for number in 0..length {
            let head = entries.last().map(|last| Head {
                number: last.number,
                id: last.id,
                hash: last.hash.clone().try_into().unwrap(),
            });
            let act = Act::on(Action::SourceUpdated, "src_1").with("name", number);
            // A clock that goes back.
            entries.push(Entry::after(head, vault, by, act, Timestamp::from_millis(90_000_000 - number * 60_000)));
        }
        entries
    }

    fn walk(entries: Vec<Entry>, vault: &Vault) -> (u64, Option<BrokenLink>) {
        let mut walk = Walk::along(vault.audit_chain());
        walk.over(entries, vault);
        (walk.entries, walk.broken)
    }

    #[test]
    fn a_chain_is_whole_as_it_was_written_though_the_clock_goes_back() {
        let vault = vault("key");
        let entries = chain(&vault, 5);
        assert!(entries.is_sorted_by(|a, b| a.id < b.id && a.at <= b.at));
        assert_eq!(walk(entries, &vault), (5, None));
    }

    #[test]
    fn every_change_to_a_chain_breaks_it_where_it_was_made() {
        let written = vault("key");
        let broken = |at: u64, change: &dyn Fn(&mut Vec<Entry>)| {
            let mut entries = chain(&written, 5);
            change(&mut entries);
            let (good, link) = walk(entries, &written);
            let link = link.expect("the chain is broken");
            assert_eq!((good, link.number), (at - 1, at), "{}", link.reason);
        };
        broken(2, &|chain| chain[1].actor = "key_2".into());
        broken(2, &|chain| chain[1].action = "source.deleted".into());
        broken(2, &|chain| chain[1].resource_type = "endpoint".into());
        broken(2, &|chain| chain[1].resource_id = None);
        broken(2, &|chain| chain[1].old_values = Some("{}".into()));
        broken(2, &|chain| chain[1].new_values = None);
        broken(2, &|chain| chain[1].address = Some("127.0.0.2".into()));
        broken(2, &|chain| chain[1].request_id = Some(String::new()));
        broken(2, &|chain| chain[1].at = Timestamp::from_millis(1));
        broken(2, &|chain| chain[1].org = 8);
        broken(2, &|chain| chain[1].chain = [2; 16]);
        broken(2, &|chain| chain[1].hash[0] ^= 1);
        broken(1, &|chain| drop(chain.remove(0)));
        broken(3, &|chain| drop(chain.remove(2)));
        broken(3, &|chain| chain.swap(2, 3));
        broken(2, &|chain| chain[1] = chain[0].clone());
        // Sealed anew by somebody without the key, from there on.
        broken(4, &|chain| {
            let others = vault("another");
            chain[3].actor = "nobody".into();
            chain[3].hash = others.audit_seal(&chain[3].bytes()).to_vec();
        });
    }

    #[test]
    fn an_entry_shows_what_differs_and_nothing_long() {
        let act = Act::on(Action::SourceUpdated, "src_1")
            .from(values([("name", json!("a")), ("is_active", json!(true)), ("options", json!("x".repeat(3_000)))]))
            .to(values([("name", json!("b")), ("is_active", json!(true)), ("options", json!("y".repeat(3_000)))]))
            .with_secret("secret", true)
            .with_secret("other", false)
            .changes();
        assert_eq!(shown(act.old).unwrap(), r#"{"name":"a","options":"(3002 bytes)"}"#);
        assert_eq!(shown(act.new).unwrap(), r#"{"name":"b","options":"(3002 bytes)","secret":"changed"}"#);
        assert_eq!(shown(Values::new()), None);
    }

    #[test]
    fn every_action_has_a_name_of_its_own() {
        let mut names: Vec<&str> = Action::ALL.iter().map(|(action, _)| action.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Action::ALL.len());
        assert!(names.iter().all(|name| name.split('.').count() == 2));
    }
}
