//! How answers of the API are shown: a table, an object field by field, or JSON, one object a line.

use anyhow::Context as _;
use http::Method;
use serde_json::{Value, json};

use super::client::{Client, escape};
use super::output::{self, FAINT, STRONG, cell, styled};

/// A resource of the API as a table.
#[derive(Debug)]
pub struct Resource {
    /// Where it is in the API.
    pub path: &'static str,
    /// Title, and the field it shows.
    columns: &'static [(&'static str, &'static str)],
}

/// Events.
pub const EVENTS: Resource = Resource {
    path: "/v1/events",
    columns: &[
        ("id", "id"),
        ("type", "type"),
        ("direction", "direction"),
        ("status", "status"),
        ("deliveries", "delivery_count"),
        ("bytes", "payload_bytes"),
        ("external id", "external_id"),
        ("accepted", "created_at"),
    ],
};
/// Deliveries.
pub const DELIVERIES: Resource = Resource {
    path: "/v1/deliveries",
    columns: &[
        ("id", "id"),
        ("event type", "event_type"),
        ("status", "status"),
        ("attempts", "attempt_count"),
        ("answer", "last_response_status"),
        ("error", "last_error"),
        ("next attempt", "next_attempt_at"),
        ("endpoint", "endpoint_id"),
    ],
};
/// Dead letters.
pub const DEAD_LETTERS: Resource = Resource {
    path: "/v1/dead-letters",
    columns: &[
        ("id", "id"),
        ("event type", "event_type"),
        ("reason", "dead_letter_reason"),
        ("attempts", "attempt_count"),
        ("answer", "last_response_status"),
        ("error", "last_error"),
        ("since", "dead_letter_at"),
        ("endpoint", "endpoint_id"),
    ],
};
/// Rejected requests.
pub const REJECTIONS: Resource = Resource {
    path: "/v1/rejections",
    columns: &[
        ("id", "id"),
        ("source", "source_id"),
        ("code", "code"),
        ("failed check", "failed_check"),
        ("received", "received_at"),
        ("became", "event_id"),
    ],
};
/// The audit log.
pub const AUDIT: Resource = Resource {
    path: "/v1/audit-logs",
    columns: &[
        ("time", "created_at"),
        ("actor", "actor"),
        ("action", "action"),
        ("thing", "resource_id"),
        ("before", "old_values"),
        ("after", "new_values"),
        ("address", "address"),
        ("request", "request_id"),
    ],
};
/// Endpoints.
pub const ENDPOINTS: Resource = Resource {
    path: "/v1/endpoints",
    columns: &[
        ("id", "id"),
        ("url", "url"),
        ("event types", "event_types"),
        ("enabled", "is_enabled"),
        ("description", "description"),
        ("made", "created_at"),
    ],
};
/// Sources.
pub const SOURCES: Resource = Resource {
    path: "/v1/sources",
    columns: &[
        ("id", "id"),
        ("name", "name"),
        ("provider", "provider"),
        ("active", "is_active"),
        ("url", "url"),
        ("made", "created_at"),
    ],
};

/// People of an organization.
pub const USERS: Resource = Resource {
    path: "/v1/users",
    columns: &[
        ("id", "id"),
        ("email", "email"),
        ("role", "role"),
        ("status", "status"),
        ("last login", "last_login_at"),
        ("invited until", "invited_until"),
        ("made", "created_at"),
    ],
};
/// Organizations.
pub const ORGANIZATIONS: Resource = Resource {
    path: "/v1/organizations",
    columns: &[
        ("id", "id"),
        ("slug", "slug"),
        ("name", "name"),
        ("plan", "plan"),
        ("active", "is_active"),
        ("events this month", "webhook_count"),
        ("limit", "webhook_limit"),
    ],
};
/// API keys.
pub const API_KEYS: Resource = Resource {
    path: "/v1/api-keys",
    columns: &[
        ("id", "id"),
        ("name", "name"),
        ("scopes", "scopes"),
        ("ends with", "last_four"),
        ("last used", "last_used_at"),
        ("expires", "expires_at"),
        ("revoked", "revoked_at"),
    ],
};

/// A server, and how its answers are shown.
pub struct View {
    client: Client,
    json: bool,
}

impl View {
    /// Shows what this client gets.
    pub fn new(client: Client, json: bool) -> Self {
        Self { client, json }
    }

    /// For requests that are not lists.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A list, newest first.
    pub async fn list(
        &self,
        resource: &Resource,
        query: &[(&str, Option<String>)],
        limit: usize,
    ) -> anyhow::Result<()> {
        let rows = self.pages(resource.path, query, limit).await?;
        self.print_rows(resource, rows)
    }

    /// All of them.
    pub async fn all(&self, resource: &Resource) -> anyhow::Result<Vec<Value>> {
        self.pages(resource.path, &[], usize::MAX).await
    }

    /// Follows the cursor until there is enough or no more.
    async fn pages(&self, path: &str, query: &[(&str, Option<String>)], limit: usize) -> anyhow::Result<Vec<Value>> {
        let mut rows: Vec<Value> = Vec::new();
        let mut cursor: Option<String> = None;
        while rows.len() < limit {
            let mut url = format!("{path}?limit={}", (limit - rows.len()).clamp(1, 250));
            for (key, value) in query {
                if let Some(value) = value {
                    url.push_str(&format!("&{key}={}", escape(value)));
                }
            }
            if let Some(cursor) = &cursor {
                url.push_str(&format!("&cursor={}", escape(cursor)));
            }
            let answer = self.client.get(&url).await?;
            rows.extend(answer["data"].as_array().cloned().unwrap_or_default());
            cursor = answer["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        rows.truncate(limit);
        Ok(rows)
    }

    /// One of them.
    pub async fn show(&self, resource: &Resource, id: &str) -> anyhow::Result<()> {
        let answer = self.client.get(&format!("{}/{}", resource.path, escape(id))).await?;
        self.print_object(&answer)
    }

    /// A list that belongs to the object shown above it.
    pub async fn below(&self, resource: &Resource, path: &str, title: &str) -> anyhow::Result<()> {
        if self.json {
            return Ok(());
        }
        let rows = self.pages(path, &[], 250).await?;
        output::line("")?;
        output::line(styled(STRONG, title))?;
        self.print_rows(resource, rows)
    }

    /// Does the same to each, one after the other.
    pub async fn act(&self, resource: &Resource, ids: &[String], action: &str) -> anyhow::Result<()> {
        for id in ids {
            let path = format!("{}/{}/{action}", resource.path, escape(id));
            let answer = self.client.post(&path, Some(&json!({}))).await.with_context(|| output::plain(id))?;
            self.print_object(&answer)?;
        }
        Ok(())
    }

    /// Deletes one.
    pub async fn delete(&self, resource: &Resource, id: &str) -> anyhow::Result<()> {
        self.remove(resource, id, "deleted").await
    }

    /// `DELETE` of one, in the word for what that means there.
    pub async fn remove(&self, resource: &Resource, id: &str, done: &str) -> anyhow::Result<()> {
        self.client.json(Method::DELETE, &format!("{}/{}", resource.path, escape(id)), None).await?;
        if self.json { Ok(()) } else { Ok(output::line(format!("{done} {}", output::plain(id)))?) }
    }

    /// Rows of a resource.
    pub fn print_rows(&self, resource: &Resource, rows: Vec<Value>) -> anyhow::Result<()> {
        self.print_columns(resource.columns, rows)
    }

    /// Rows with these titles and fields.
    pub fn print_columns(&self, columns: &[(&str, &str)], rows: Vec<Value>) -> anyhow::Result<()> {
        if self.json {
            return Ok(rows.iter().try_for_each(output::json)?);
        }
        if rows.is_empty() {
            return Ok(output::line(styled(FAINT, "nothing"))?);
        }
        let titles: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
        let cells = |row: &Value| columns.iter().map(|(_, field)| short(&cell(&row[*field]))).collect();
        Ok(output::table(&titles, rows.iter().map(cells).collect())?)
    }

    /// A provider's guide, for reading.
    pub fn print_guide(&self, provider: &Value) -> anyhow::Result<()> {
        if self.json {
            return Ok(output::json(provider)?);
        }
        let guide = &provider["guide"];
        output::line(format!("{} ({})", styled(STRONG, cell(&provider["title"])), cell(&provider["name"])))?;
        output::line(cell(&provider["summary"]))?;
        for (title, key) in [("URL", "url"), ("Secret", "secret"), ("Events", "events"), ("It expects", "delivery")] {
            output::line(format!("\n{}\n  {}", styled(STRONG, title), cell(&guide[key])))?;
        }
        let lists = [
            ("It gets", "answers"),
            ("Good to know", "notes"),
            ("Try it", "commands"),
            ("Not verified", "unverified"),
            ("Checked against", "references"),
        ];
        for (title, key) in lists {
            let items: Vec<&Value> = guide[key].as_array().into_iter().flatten().collect();
            if !items.is_empty() {
                output::line(format!("\n{}", styled(STRONG, title)))?;
                items.into_iter().try_for_each(|item| output::line(format!("  {}", cell(item))))?;
            }
        }
        Ok(())
    }

    /// Every field on a line of its own; lists of objects (attempts, headers) as JSON, one a line.
    pub fn print_object(&self, object: &Value) -> anyhow::Result<()> {
        if self.json {
            return Ok(output::json(object)?);
        }
        let Some(fields) = object.as_object() else { return Ok(output::line(cell(object))?) };
        let width = fields.keys().map(String::len).max().unwrap_or(0);
        // The id first: it is what the next command needs.
        let id_first =
            fields.iter().filter(|(key, _)| *key == "id").chain(fields.iter().filter(|(key, _)| *key != "id"));
        for (key, value) in id_first {
            let label = styled(FAINT, format!("{key:width$}"));
            match value {
                Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
                    output::line(label)?;
                    items
                        .iter()
                        .try_for_each(|item| output::line(format!("  {}", output::plain(&item.to_string()))))?;
                }
                Value::Null => {}
                other => output::line(format!("{label}  {}", cell(other)))?,
            }
        }
        Ok(())
    }
}

/// Long cells (URLs, descriptions) are cut in tables; `show` and `--json` have all of it.
fn short(text: &str) -> String {
    if text.chars().count() <= 60 { text.to_owned() } else { text.chars().take(57).chain("...".chars()).collect() }
}
