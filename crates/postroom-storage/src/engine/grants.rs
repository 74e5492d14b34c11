//! How it is written down what each part of the process may do. Each engine has a list of its own, of its own tables.

use self::Part::{Api, Authorizer, Copier, DeadLetter, Keys, Platform, Receiver, Worker};

/// A part of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// Proves callers.
    Authorizer,
    /// Accepts events.
    Receiver,
    /// Delivers.
    Worker,
    /// An organization's own resources.
    Api,
    /// What a person does to deliveries.
    DeadLetter,
    /// The super admin, and upkeep.
    Platform,
    /// The command that seals secrets anew.
    Keys,
    /// The command that copies everything elsewhere.
    Copier,
}

impl Part {
    /// In the order of their numbers.
    pub(crate) const ALL: [Self; 8] = [Authorizer, Receiver, Worker, Api, DeadLetter, Platform, Keys, Copier];

    /// As documents and logs name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Authorizer => "authorizer",
            Self::Receiver => "receiver",
            Self::Worker => "worker",
            Self::Api => "api",
            Self::DeadLetter => "dead_letter",
            Self::Platform => "platform",
            Self::Keys => "keys",
            Self::Copier => "copy",
        }
    }
}

/// What a part may do with a table. An insert may fill every column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grant {
    pub(crate) part: Part,
    pub(crate) table: &'static str,
    pub(crate) read: &'static [&'static str],
    pub(crate) insert: bool,
    pub(crate) update: &'static [&'static str],
    pub(crate) delete: bool,
}

/// Every column.
pub(crate) const ALL: &[&str] = &["*"];

/// Columns that have the same names in both engines, by what they are for.
pub(crate) mod columns {
    /// The end of a chain of the audit log.
    pub(crate) const CHAIN: &[&str] = &["org", "chain", "number", "id", "hash"];
    /// A key without what proves it.
    pub(crate) const API_KEY: &[&str] = &[
        "org",
        "key",
        "id",
        "name",
        "scopes",
        "last_four",
        "expires_at",
        "revoked_at",
        "last_used_at",
        "created_at",
        "created_by",
    ];
    /// What a key is recognised by, and what it is good for.
    pub(crate) const API_KEY_PROOF: &[&str] =
        &["org", "key", "id", "scopes", "hash", "expires_at", "revoked_at", "last_used_at"];
    /// A person, but for the text by which an address is unique.
    pub(crate) const USER: &[&str] = &[
        "org",
        "usr",
        "id",
        "email",
        "role",
        "is_active",
        "invited_until",
        "last_login_at",
        "created_at",
        "updated_at",
        "created_by",
    ];
    /// What an admin changes of a person.
    pub(crate) const USER_CHANGE: &[&str] = &["role", "is_active", "invited_until", "updated_at"];
    /// Who signs in, and what they may do.
    pub(crate) const USER_PROOF: &[&str] =
        &["org", "usr", "id", "email", "email_key", "role", "is_active", "invited_until"];
    /// A person whom nobody invites.
    pub(crate) const SUPER_ADMIN: &[&str] = &[
        "org",
        "usr",
        "id",
        "email",
        "email_key",
        "role",
        "is_active",
        "last_login_at",
        "created_at",
        "updated_at",
        "created_by",
    ];
    /// A session, but for what began it.
    pub(crate) const SESSION: &[&str] = &["id", "org", "usr", "created_at", "expires_at", "ended_at"];
    /// What ending sessions looks at.
    pub(crate) const SESSION_END: &[&str] = &["id", "org", "usr", "expires_at", "ended_at"];
    /// What an organization decides of an endpoint, and what follows from it.
    pub(crate) const ENDPOINT_CHANGE: &[&str] = &[
        "url",
        "description",
        "event_types",
        "source_ids",
        "filter",
        "retry_schedule",
        "timeout_ms",
        "rate_limit",
        "headers",
        "signature",
        "version",
        "disabled_reason",
        "disabled_at",
        "updated_at",
        "deleted_at",
    ];
    /// What moves when an exception does.
    pub(crate) const EXCEPTION: &[&str] = &["state", "due_at", "attempts", "attempts_of_schedule", "reason", "since"];
    /// What moves when a repeated request is claimed and answered.
    pub(crate) const ANSWER: &[&str] = &["request_hash", "claimed_at", "status", "body"];
}

/// Nothing yet.
pub(crate) const fn grant(part: Part, table: &'static str) -> Grant {
    Grant { part, table, read: &[], insert: false, update: &[], delete: false }
}

impl Grant {
    pub(crate) const fn read(self, columns: &'static [&'static str]) -> Self {
        Self { read: columns, ..self }
    }

    pub(crate) const fn insert(self) -> Self {
        Self { insert: true, ..self }
    }

    pub(crate) const fn update(self, columns: &'static [&'static str]) -> Self {
        Self { update: columns, ..self }
    }

    pub(crate) const fn delete(self) -> Self {
        Self { delete: true, ..self }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    //! What a list has to be, and how ARCHITECTURE.md shows it.

    use std::fmt::Write as _;
    use std::path::Path;

    use super::{ALL, Grant, Part};

    /// Tables with their columns, in the order of the schema.
    pub(crate) type Schema = Vec<(String, Vec<String>)>;

    /// Whether a list of columns has this one.
    pub(crate) fn has(granted: &[&str], column: &str) -> bool {
        granted == ALL || granted.contains(&column)
    }

    /// A list names what exists, and each thing once.
    pub(crate) fn check(grants: &[Grant], schema: &Schema) {
        for (at, grant) in grants.iter().enumerate() {
            let (name, table) = (grant.part.as_str(), grant.table);
            let (_, columns) = schema.iter().find(|known| known.0 == table).unwrap_or_else(|| panic!("{table}"));
            for column in grant.read.iter().chain(grant.update).filter(|column| **column != "*") {
                assert!(columns.iter().any(|known| known == column), "{name}: {table}.{column}");
            }
            let again = grants[..at].iter().any(|other| (other.part, other.table) == (grant.part, grant.table));
            assert!(!again, "{name}: {table} is listed twice");
            assert!(grant.read == ALL || grant.read.len() < columns.len(), "{name}: every column of {table} is ALL");
        }
    }

    /// Holds the table of an engine in ARCHITECTURE.md to its list, and writes it anew if it is not that.
    pub(crate) fn document(list: &str, grants: &[Grant], schema: &Schema) {
        let begin = format!("<!-- made from crates/postroom-storage/src/{list} -->\n");
        let end = format!("<!-- end of {list} -->\n");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ARCHITECTURE.md");
        let found = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = found.split_once(&begin).expect("the place of the table is marked");
        let (_, after) = rest.split_once(&end).expect("the end of the table is marked");
        let expected = format!("{before}{begin}\n{}\n{end}{after}", table(grants, schema));
        if found != expected {
            std::fs::write(&path, expected).unwrap();
            panic!("a table in ARCHITECTURE.md was not current and has been written anew: look at the difference");
        }
    }

    /// What may be done, as one table.
    fn table(grants: &[Grant], schema: &Schema) -> String {
        let mut table =
            "| Part | Table | Reads | Adds rows | Changes | Deletes rows |\n|---|---|---|---|---|---|\n".to_owned();
        for part in Part::ALL {
            let all = schema.iter().filter_map(|(name, columns)| {
                grants.iter().find(|grant| grant.part == part && grant.table == name).map(|grant| (grant, columns))
            });
            for (grant, columns) in all {
                let yes = |granted: bool| if granted { "yes" } else { "" };
                let (read, update) = (words(grant.read, columns), words(grant.update, columns));
                let (insert, delete) = (yes(grant.insert), yes(grant.delete));
                let name = part.as_str();
                writeln!(table, "| {name} | `{}` | {read} | {insert} | {update} | {delete} |", grant.table).unwrap();
            }
        }
        table
    }

    /// Columns, or those that are left out when these are fewer.
    fn words(granted: &[&str], columns: &[String]) -> String {
        let quoted = |names: Vec<&String>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let (named, others): (Vec<_>, Vec<_>) = columns.iter().partition(|column| has(granted, column));
        match (named.len(), others.len()) {
            (_, 0) => "all".to_owned(),
            (named, others_left) if others_left * 3 < named => format!("all but {}", quoted(others)),
            _ => quoted(named),
        }
    }
}
