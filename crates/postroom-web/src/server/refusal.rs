//! What the HTTP/1 parser refuses is answered by the parser itself, with an empty body: here such an answer becomes a
//! problem like every other.
//!
//! It is recognised as it is written: it stands at the beginning of what is written while no request is under way, and
//! has no request id, which every answer of ours has. The parser closes the connection after it.

use crate::observe::{REQUEST_ID, fresh_request_id};
use crate::problem::{Code, Problem};

/// A refusal being written.
pub(super) struct Refusal {
    bytes: Vec<u8>,
    written: usize,
}

impl Refusal {
    /// The problem in place of what the parser is about to write, if that is a refusal.
    pub fn instead_of(bytes: &[u8]) -> Option<Self> {
        let status = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
        let problem = match status {
            b"400" => Problem::new(Code::InvalidRequest, "the request line or a header is damaged"),
            b"414" => Problem::of(Code::UriTooLong),
            b"431" => Problem::of(Code::HeadersTooLarge),
            _ => return None,
        };
        let id = REQUEST_ID;
        let name = id.as_str().as_bytes();
        if bytes.windows(name.len()).any(|part| part == name) {
            return None;
        }
        let code = problem.code().status();
        metrics::counter!(
            "postroom_http_requests_total", "route" => "none", "method" => "other", "status" => code.as_str().to_owned()
        )
        .increment(1);
        let fresh = fresh_request_id();
        let id = fresh.to_str().unwrap_or_default();
        let body = problem.document("", id);
        let head = format!(
            "HTTP/1.1 {code}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n{REQUEST_ID}: {id}\r\n\
             x-content-type-options: nosniff\r\ncache-control: no-store\r\nconnection: close\r\n\r\n",
            body.len()
        );
        Some(Self { bytes: [head.as_bytes(), &body].concat(), written: 0 })
    }

    /// What is still to be written.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// So many more bytes were written.
    pub fn wrote(&mut self, bytes: usize) {
        self.written = (self.written + bytes).min(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refusals_of_the_parser_are_replaced() {
        for (text, expected) in [
            ("HTTP/1.1 431 Request Header Fields Too Large\r\n\r\n", Some("headers_too_large")),
            ("HTTP/1.1 414 URI Too Long\r\n\r\n", Some("uri_too_long")),
            ("HTTP/1.1 400 Bad Request\r\n\r\n", Some("invalid_request")),
            ("HTTP/1.1 400 Bad Request\r\nx-request-id: a\r\n\r\n", None),
            ("HTTP/1.1 200 OK\r\n\r\n", None),
            ("HTTP/1.1 100 Continue\r\n\r\n", None),
            ("HTTP/1.1 4", None),
            ("", None),
        ] {
            let refusal = Refusal::instead_of(text.as_bytes());
            let text = refusal.map(|refusal| String::from_utf8_lossy(refusal.rest()).into_owned());
            assert_eq!(text.is_some(), expected.is_some());
            assert!(text.is_none_or(|text| text.contains(expected.unwrap())));
        }
    }
}
