//! Where the database of one organization is, and how a login gets there.
//!
//! The registry knows no logins: each process goes the ways that it was given to the shared database, with another
//! database in them. As long as the two are on the same servers only that is replaced, so that whoever goes through a
//! pooler, or straight to the server to migrate, goes on doing so.

use postroom_domain::{Secret, TenantId};

use crate::postgres::open::OpenError;

/// The parts of a URL, as text.
struct Url<'a> {
    scheme: &'a str,
    /// User and password.
    user: &'a str,
    hosts: &'a str,
    /// With its question mark.
    parameters: &'a str,
}

impl<'a> Url<'a> {
    fn split(url: &'a Secret) -> Result<Self, OpenError> {
        let wrong = || OpenError::Url("it is not of that form".to_owned());
        let text = url.expose_str().ok_or_else(wrong)?;
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        // As it is judged when settings are read: whatever is before the first @ is user and password.
        let (user, place) = rest.split_once('@').ok_or_else(wrong)?;
        let (place, parameters) = place.split_at(place.find('?').unwrap_or(place.len()));
        let hosts = place.split('/').next().unwrap_or_default();
        Ok(Self { scheme, user, hosts, parameters })
    }
}

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::postgres) struct Place {
    hosts: String,
    database: String,
}

impl Place {
    /// A new database beside the shared one. Its name says nothing and can be nobody else's.
    pub(in crate::postgres) fn beside(shared: &Secret, id: TenantId) -> Result<Self, OpenError> {
        let digits: String = id.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { hosts: Url::split(shared)?.hosts.to_owned(), database: format!("postroom_ten_{digits}") })
    }

    /// What the registry says.
    pub(in crate::postgres) fn read(url: &str, database: &str) -> Result<Self, OpenError> {
        let hosts = url.strip_prefix("postgres://").and_then(|rest| rest.split('/').next());
        let hosts = hosts.filter(|hosts| !hosts.is_empty() && !hosts.contains(['@', '?', '#']));
        let hosts = hosts.ok_or_else(|| OpenError::Url("that of an organization in the registry".to_owned()))?;
        Ok(Self { hosts: hosts.to_owned(), database: database.to_owned() })
    }

    /// As the registry keeps it.
    pub(in crate::postgres) fn url(&self) -> String {
        format!("postgres://{}/{}", self.hosts, percent(&self.database))
    }

    pub(in crate::postgres) fn database(&self) -> &str {
        &self.database
    }

    /// Whether it is on the servers of the shared one.
    pub(in crate::postgres) fn is_beside(&self, shared: &Secret) -> Result<bool, OpenError> {
        Ok(Url::split(shared)?.hosts == self.hosts)
    }

    /// The way there for a login that was given for the database `shared`.
    pub(in crate::postgres) fn way(&self, login: &Secret, shared: &Secret) -> Result<Secret, OpenError> {
        let url = Url::split(login)?;
        let hosts = if self.is_beside(shared)? { url.hosts } else { &self.hosts };
        let text = format!("{}://{}@{hosts}/{}{}", url.scheme, url.user, percent(&self.database), url.parameters);
        Ok(Secret::from(text))
    }
}

/// A name as a part of a URL.
fn percent(name: &str) -> impl std::fmt::Display {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string().replace("%5F", "_")
}

/// A name as an identifier.
pub(in crate::postgres) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::DatabaseUrl;

    fn secret(text: &str) -> Secret {
        Secret::from(text)
    }

    #[test]
    fn a_name_stays_one_identifier_whatever_is_in_it() {
        assert_eq!(quoted("postroom_app"), "\"postroom_app\"");
        assert_eq!(quoted("a\"; drop table events; --"), "\"a\"\"; drop table events; --\"");
    }

    #[test]
    fn a_new_database_is_named_by_its_id_alone_and_kept_without_a_login() {
        let id = TenantId::from_bytes([0xab; 16]);
        let place = Place::beside(&secret("postgres://app:s%40cret@db1:5433,db2/main?sslmode=require"), id).unwrap();
        let name = format!("postroom_ten_{}", "ab".repeat(16));
        assert_eq!((place.database(), place.url()), (name.as_str(), format!("postgres://db1:5433,db2/{name}")));
        assert!(name.len() < 64, "longer names are cut");
        assert_eq!(Place::read(&place.url(), place.database()).unwrap(), place);
    }

    #[test]
    fn each_login_goes_its_own_way_with_another_database_in_it() {
        let shared = "postgres://app:p@pool:6432/main?sslmode=require";
        let here = Place::read("postgres://pool:6432/cell", "cell").unwrap();
        let there = Place::read("postgres://other:5432/cell", "cell").unwrap();
        let owner = "postgresql://owner:p#?@server/main";
        for (place, login, way) in [
            (&here, shared, "postgres://app:p@pool:6432/cell?sslmode=require"),
            (&here, owner, "postgresql://owner:p#?@server/cell"),
            (&there, shared, "postgres://app:p@other:5432/cell?sslmode=require"),
            (&there, owner, "postgresql://owner:p#?@other:5432/cell"),
        ] {
            assert_eq!(place.way(&secret(login), &secret(shared)).unwrap(), secret(way), "{login}");
        }
        let odd = Place::read("postgres://pool:6432/x", "a b/?@%").unwrap();
        let way = odd.way(&secret(shared), &secret(shared)).unwrap();
        assert_eq!(DatabaseUrl::parse(&way).unwrap().to_string(), "pool/a b/?@%");
    }

    #[test]
    fn a_registry_that_holds_more_than_a_place_is_refused() {
        for url in ["", "postgres://", "postgres://user@host/db", "host/db", "postgres://host?x/db"] {
            assert!(Place::read(url, "db").is_err(), "{url}");
        }
    }
}
