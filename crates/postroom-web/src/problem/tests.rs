use super::fields::explain;
use super::*;

#[test]
fn every_problem_has_a_name_a_title_and_advice_of_its_own() {
    for (index, code) in Code::ALL.iter().enumerate() {
        assert_eq!(Code::parse(code.as_str()), Some(*code));
        assert!(code.status().is_client_error() || code.status().is_server_error());
        assert!(code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", code.as_str());
        assert!(!code.title().ends_with('.') && code.advice().ends_with('.'), "{}", code.as_str());
        assert!(Code::ALL[..index].iter().all(|other| other.title() != code.title()), "{}", code.as_str());
    }
    let statuses: Vec<u16> = Code::ALL.iter().map(|code| code.status().as_u16()).collect();
    assert!(statuses.is_sorted(), "the catalogue is in the order of its statuses");
}

#[test]
fn the_printed_catalogue_is_the_one_in_the_code() {
    crate::committed::assert_current("docs/problems.md", &catalogue_markdown());
}

#[test]
fn a_problem_says_everything_that_the_rfc_and_the_contract_ask_for() {
    let problem = Problem::of(Code::ProviderDisabled).member("error", "Provider disabled");
    let document: Value = serde_json::from_slice(&problem.document("https://hooks.example", "req_1")).unwrap();
    assert_eq!(
        document,
        serde_json::json!({
            "type": "https://hooks.example/problems/provider_disabled",
            "title": "The source or its organization is switched off",
            "status": 403,
            "detail": "Nothing was kept. Switch the source on with `PATCH /v1/sources/{id}` and let the provider send again",
            "code": "provider_disabled",
            "request_id": "req_1",
            "error": "Provider disabled",
        })
    );
}

#[test]
fn a_cause_is_for_the_log_only() {
    let problem = Problem::from(storage::Error::Internal("table secret_things is gone".into()));
    assert_eq!(problem.cause().unwrap().to_string(), "table secret_things is gone");
    let document = problem.document("", "r");
    assert!(!String::from_utf8_lossy(&document).contains("secret_things"));
}

#[test]
fn waiting_times_are_whole_seconds_and_never_zero() {
    for (millis, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (60_000, "60")] {
        let problem = Problem::of(Code::Overloaded).retry_after(Duration::from_millis(millis));
        assert_eq!(problem.0.headers[header::RETRY_AFTER], seconds);
    }
}

#[test]
fn errors_of_the_reader_become_fields() {
    for (path, message, field, code) in [
        (".", "unknown field `x`, expected one of `a`, `b` at line 1 column 5", "x", "unknown_field"),
        ("x", "unknown field `x`, expected `a`", "x", "unknown_field"),
        ("a.x", "unknown field `x`, there are no fields", "a.x", "unknown_field"),
        (".", "missing field `url` at line 1 column 2", "url", "required"),
        ("events[3]", "missing field `type`", "events[3].type", "required"),
        ("url", "invalid type: integer `1`, expected a string", "url", "invalid_type"),
        (".", "invalid type: sequence, expected struct NewThing at line 1 column 0", "body", "invalid_type"),
        ("plan", "unknown variant `gold`, expected one of `free`, `premium`", "plan", "unknown_value"),
    ] {
        let problem = explain(path, message);
        assert_eq!((problem.field.as_str(), problem.code), (field, code), "{message}");
    }
    let secret = explain("url", "invalid type: string \"hunter2\", expected u32");
    assert!(!secret.detail.contains("hunter2"), "{secret:?}");
}
