//! The OpenAPI document: what handlers say of themselves, completed with what is true of every route.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::permission::{Permission, SuperAdminMay, permission};
use crate::problem::Code;
use crate::rates::is_counted;

/// How a limit by time stands: on every answer to a request that counts.
const STANDING: [(&str, &str); 3] = [
    (
        "RateLimit-Limit",
        "How many requests the organization may make in a minute; with a 429, how many of what was counted.",
    ),
    ("RateLimit-Remaining", "How many of them it may make now."),
    ("RateLimit-Reset", "Seconds until it may make all of them again."),
];
const RETRY_AFTER: (&str, &str) = ("Retry-After", "With 429 and 503: seconds after which to try again.");

/// The document as JSON, made once.
pub(crate) fn json() -> &'static str {
    static JSON: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", document()));
    &JSON
}

/// The document.
///
/// # Panics
/// When the description of the routes is not valid JSON, which a test rules out.
#[must_use]
pub fn document() -> Value {
    let (_, api) = crate::sign_in::router().merge(crate::api::router()).split_for_parts();
    let mut document = serde_json::to_value(api).expect("a document of texts and numbers can be written");
    document["info"] = info();
    document["servers"] = json!([{"url": "/", "description": "this server"}]);
    document["tags"] = tags();
    document["security"] = json!([{"bearer": []}, {"cookie": []}]);
    document["components"]["securitySchemes"] = json!({"bearer": {
        "type": "http", "scheme": "bearer",
        "description": "An API key of an organization (`prk_...`), a session token, or the installation's admin token.",
    }, "cookie": {
        "type": "apiKey", "in": "cookie", "name": "__Host-postroom_session",
        "description": "The session of a browser. For changes it counts from pages of this server only. On a public URL \
            without TLS its name is `postroom_session`.",
    }});
    document["components"]["schemas"]["Problem"] = problem_schema();
    document["components"]["responses"]["Problem"] = json!({
        "description": "What went wrong; `code` says which problem, `/problems` lists all of them.",
        "headers": headers(STANDING.iter().chain([&RETRY_AFTER])),
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    });
    document["components"]["headers"] = STANDING
        .iter()
        .chain([&RETRY_AFTER])
        .map(|(name, text)| {
            let schema = json!({"type": "integer", "minimum": 0});
            ((*name).to_owned(), json!({"description": text, "schema": schema}))
        })
        .collect::<Map<_, _>>()
        .into();
    document["components"]["parameters"] = parameters();
    if let Some(paths) = document["paths"].as_object_mut() {
        for (path, item) in paths {
            complete_path(path, item);
        }
    }
    document
}

/// These headers, as they are described once.
fn headers<'a>(names: impl Iterator<Item = &'a (&'a str, &'a str)>) -> Map<String, Value> {
    let reference = |name: &str| json!({"$ref": format!("#/components/headers/{name}")});
    names.map(|(name, _)| ((*name).to_owned(), reference(name))).collect()
}

fn info() -> Value {
    json!({
        "title": "Postroom",
        "version": "1",
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        "description": "Receives, records and delivers webhooks.\n\n\
            Ids have prefixes and sort by time. Times are RFC 3339 in UTC with milliseconds. Lists are newest first: give \
            `next_cursor` as `cursor` to get the next page. Every `POST` under `/v1` takes an `Idempotency-Key`: the same key with the \
            same request within 24 hours gets the same answer, with the header `Idempotent-Replayed: true`. Unknown fields \
            are refused. What belongs to another organization is answered like what never was.\n\n\
            Third parties send to `POST /in/{organization_slug}/{source_name}`, in the form that each of them has.",
    })
}

fn tags() -> Value {
    let tag = |name: &str, text: &str| json!({"name": name, "description": text});
    json!([
        tag("organizations", "The customers of the installation."),
        tag("sources", "Where third parties send."),
        tag("endpoints", "Where events go."),
        tag("events", "What was accepted."),
        tag("rejections", "Requests that failed verification."),
        tag("deliveries", "One event for one endpoint, with every attempt."),
        tag("dead letters", "Deliveries that will not be tried again by themselves."),
        tag("API keys", "How an organization's code proves who it is."),
        tag("users", "The people of an organization."),
        tag("audit log", "Who did what."),
        tag("signing in", "A link by mail, a session."),
        tag("stream", "What happens, as it happens."),
    ])
}

fn problem_schema() -> Value {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    json!({
        "type": "object",
        "description": "RFC 9457",
        "required": ["type", "title", "status", "detail", "code", "request_id"],
        "properties": {
            "type": {"type": "string", "format": "uri", "description": "A page about this problem."},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "One sentence for people about this occurrence."},
            "code": {"type": "string", "enum": codes, "description": "Stable, for programs."},
            "request_id": {"type": "string", "description": "The same as the header `X-Request-Id`."},
            "errors": {"type": "array", "description": "With 422.", "items": {"$ref": "#/components/schemas/FieldProblem"}},
        },
    })
}

fn parameters() -> Value {
    json!({
        "Organization": {
            "name": "Postroom-Organization", "in": "header", "required": false, "schema": {"type": "string"},
            "description": "From a super admin: for which organization, by id or slug.",
        },
        "IdempotencyKey": {
            "name": "Idempotency-Key", "in": "header", "required": false,
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            "description": "Makes it safe to send the same request again.",
        },
        "Id": {"name": "id", "in": "path", "required": true, "schema": {"type": "string"}},
    })
}

fn complete_path(path: &str, item: &mut Value) {
    let Some(operations) = item.as_object_mut() else { return };
    for (method, operation) in operations {
        let Ok(verb) = method.to_uppercase().parse() else { continue };
        let (Some(needed), Some(operation)) = (permission(&verb, path), operation.as_object_mut()) else { continue };
        complete(path, method, needed, operation);
    }
}

/// What is true of every operation: who may use it, which headers it takes, how it fails.
fn complete(path: &str, method: &str, needed: &Permission, operation: &mut Map<String, Value>) {
    operation.insert("operationId".to_owned(), json!(operation_id(method, path)));
    let said = operation.get("description").and_then(Value::as_str).map(|text| format!("{}\n\n", text.trim()));
    let description = format!("{}May be used by {}.", said.unwrap_or_default(), needed.who());
    operation.insert("description".to_owned(), json!(description));
    let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
    if let Some(parameters) = parameters.as_array_mut() {
        let mut refer = |name: &str| parameters.push(json!({"$ref": format!("#/components/parameters/{name}")}));
        if path.contains("{id}") {
            refer("Id");
        }
        if needed.super_admin == SuperAdminMay::InOrganization {
            refer("Organization");
        }
        if method == "post" && !needed.is_open {
            refer("IdempotencyKey");
        }
    }
    if needed.is_open {
        operation.insert("security".to_owned(), json!([]));
    }
    if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
        responses.insert("default".to_owned(), json!({"$ref": "#/components/responses/Problem"}));
        for response in responses.values_mut() {
            let Some(response) = response.as_object_mut().filter(|response| !response.contains_key("$ref")) else {
                continue;
            };
            if response.get("description").is_none_or(|text| text == "") {
                response.insert("description".to_owned(), json!("Done"));
            }
            if method.to_uppercase().parse().is_ok_and(|method| is_counted(&method, path)) {
                let all = response.entry("headers").or_insert_with(|| json!({}));
                if let Some(all) = all.as_object_mut() {
                    all.extend(headers(STANDING.iter()));
                }
            }
        }
    }
}

/// `get /v1/events/{id}/deliveries` is `get_events_id_deliveries`.
fn operation_id(method: &str, path: &str) -> String {
    let path = path.trim_start_matches("/v1").trim_start_matches("/api").trim_start_matches('/');
    let words = path.replace(['{', '}'], "").replace(['/', '-'], "_");
    format!("{method}_{words}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permission::PERMISSIONS;

    fn operations() -> Vec<(String, String)> {
        let document = document();
        let paths = document["paths"].as_object().unwrap().clone();
        let all = paths.into_iter().flat_map(|(path, item)| {
            let methods: Vec<String> = item.as_object().unwrap().keys().cloned().collect();
            methods.into_iter().map(move |method| (method.to_uppercase(), path.clone()))
        });
        all.collect()
    }

    #[test]
    fn the_document_and_the_permission_table_name_the_same_routes() {
        let mut documented = operations();
        let mut permitted: Vec<_> =
            PERMISSIONS.iter().map(|row| (row.method.to_string(), row.path.to_owned())).collect();
        documented.sort();
        permitted.sort();
        assert_eq!(documented, permitted);
    }

    #[test]
    fn the_committed_document_is_the_one_in_the_code() {
        crate::committed::assert_current("docs/openapi.json", json());
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_is_described() {
        let document = document();
        assert_eq!(document["openapi"], "3.1.0");
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path}");
                assert!(operation["tags"][0].is_string(), "{method} {path}");
            }
        }
    }
}
