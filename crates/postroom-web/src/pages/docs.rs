//! `/docs`: the API's document as one page for people, made of the document itself.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::response::Response;
use serde_json::Value;

use super::html::{self, escape, marked};

pub(super) async fn page() -> Response {
    static BODY: LazyLock<String> = LazyLock::new(|| body(&crate::openapi::document()));
    html::page("Postroom API", &BODY)
}

fn body(document: &Value) -> String {
    let mut html = paragraphs(document["info"]["description"].as_str().unwrap_or_default());
    html += "<p>The same for programs: <a href=\"openapi.json\">openapi.json</a>. Every error is listed under <a href=\"problems\">problems</a>.</p>";
    for tag in document["tags"].as_array().into_iter().flatten() {
        let name = tag["name"].as_str().unwrap_or_default();
        let text = tag["description"].as_str().unwrap_or_default();
        let _ = write!(html, "<h2>{}</h2>{}", escape(name), paragraphs(text));
        for (path, method, operation) in operations(document).filter(|(_, _, operation)| operation["tags"][0] == name) {
            html += &describe(document, path, method, operation);
        }
    }
    html
}

fn operations(document: &Value) -> impl Iterator<Item = (&String, &String, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        item.as_object().into_iter().flatten().map(move |(method, operation)| (path, method, operation))
    })
}

fn describe(document: &Value, path: &str, method: &str, operation: &Value) -> String {
    let summary = operation["summary"].as_str().unwrap_or_default();
    let mut html = format!(
        "<details><summary><span class=\"method\">{}</span> <code>{}</code> <span class=\"soft\">{}</span></summary>",
        escape(&method.to_uppercase()),
        escape(path),
        escape(summary)
    );
    html += &paragraphs(operation["description"].as_str().unwrap_or_default());
    html += &parameters(document, operation);
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    if !body.is_null() {
        let _ = write!(html, "<h3>Body</h3>{}", fields(document, body, 0));
    }
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let schema = &response["content"]["application/json"]["schema"];
        if !schema.is_null() {
            let _ = write!(html, "<h3>Answer {}</h3>{}", escape(status), fields(document, schema, 0));
        }
    }
    html + "</details>"
}

fn parameters(document: &Value, operation: &Value) -> String {
    let mut rows = String::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let parameter = resolve(document, parameter);
        let _ = write!(
            rows,
            "<tr><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
            escape(parameter["name"].as_str().unwrap_or_default()),
            escape(parameter["in"].as_str().unwrap_or_default()),
            marked(parameter["description"].as_str().unwrap_or_default())
        );
    }
    if rows.is_empty() { rows } else { format!("<h3>Parameters</h3><table>{rows}</table>") }
}

/// How deep objects inside objects are shown.
const DEPTH_MAX: usize = 3;

/// The fields of an object as a table; of anything else, its type.
fn fields(document: &Value, schema: &Value, depth: usize) -> String {
    let schema = resolve(document, schema);
    if depth > DEPTH_MAX {
        return String::new();
    }
    if let Some(parts) = schema["allOf"].as_array() {
        return parts.iter().map(|part| fields(document, part, depth)).collect();
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let choice = choices.iter().find(|choice| choice["type"] != "null");
        return choice.map(|choice| fields(document, choice, depth)).unwrap_or_default();
    }
    let mut rows = String::new();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let inner = resolve(document, field);
        let text = field["description"].as_str().or(inner["description"].as_str()).unwrap_or_default();
        let required = schema["required"].as_array().is_some_and(|names| names.iter().any(|other| other == name));
        let nested = fields(document, if inner["items"].is_null() { field } else { &inner["items"] }, depth + 1);
        let _ = write!(
            rows,
            "<tr><td><code>{}</code>{}</td><td>{}</td><td>{}{nested}</td></tr>",
            escape(name),
            if required { "" } else { " <span class=\"soft\">optional</span>" },
            escape(&type_name(document, field)),
            marked(text),
        );
    }
    if rows.is_empty() { String::new() } else { format!("<table>{rows}</table>") }
}

fn type_name(document: &Value, schema: &Value) -> String {
    let schema = resolve(document, schema);
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        return choices.iter().map(|choice| type_name(document, choice)).collect::<Vec<_>>().join(" or ");
    }
    let name = match &schema["type"] {
        Value::String(name) => name.clone(),
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => "any".to_owned(),
    };
    match &schema["items"] {
        Value::Null => name,
        items => format!("{name} of {}", type_name(document, items)),
    }
}

fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let target = schema["$ref"].as_str().and_then(|reference| document.pointer(reference.trim_start_matches('#')));
    target.unwrap_or(schema)
}

fn paragraphs(text: &str) -> String {
    text.split("\n\n").map(|part| format!("<p>{}</p>", marked(part.trim()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_every_operation_and_nothing_unescaped() {
        let document = crate::openapi::document();
        let html = body(&document);
        for (path, _, _) in operations(&document) {
            assert!(html.contains(&escape(path)), "{path}");
        }
        assert!(html.contains("grace_seconds") && !html.contains("<script"));
        let hostile = serde_json::json!({"info": {"description": "<b>`<i>`"}, "tags": [], "paths": {}});
        assert!(body(&hostile).starts_with("<p>&lt;b&gt;<code>&lt;i&gt;</code></p>"));
    }
}
