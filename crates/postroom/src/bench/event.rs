//! The events of a run: from its number follow an event's bytes, its organization, its type and where it must arrive.

use aws_lc_rs::hmac;
use bytes::Bytes;

/// What the JSON of an event begins with; its number follows in 16 hexadecimal digits.
const HEAD: &[u8] = br#"{"n":""#;
const DIGITS: usize = 16;

/// How the events of a run look and where they go.
#[derive(Debug, Clone)]
pub struct Shape {
    template: Vec<u8>,
    /// How many organizations.
    pub organizations: u64,
    /// How many endpoints each has; each wants one event type.
    pub endpoints: u64,
}

impl Shape {
    /// Events of so many bytes for so many endpoints.
    pub fn new(body_bytes: usize, organizations: u64, endpoints: u64) -> Self {
        let mut template = [HEAD, &[b'0'; DIGITS], br#"","pad":""#].concat();
        let pad = body_bytes.saturating_sub(template.len() + 2);
        template.extend((0..pad).map(|index| b"abcdefghijklmnopqrstuvwxyz"[index % 26]));
        template.extend_from_slice(br#""}"#);
        Self { template, organizations, endpoints }
    }

    /// The JSON of an event.
    pub fn body(&self, number: u64) -> Vec<u8> {
        let mut body = self.template.clone();
        body[HEAD.len()..HEAD.len() + DIGITS].copy_from_slice(format!("{number:016x}").as_bytes());
        body
    }

    /// Which organization sends it.
    pub fn organization(&self, number: u64) -> u64 {
        number % self.organizations
    }

    /// Which of its organization's endpoints wants it; also its type's number.
    pub fn endpoint(&self, number: u64) -> u64 {
        number / self.organizations % self.endpoints
    }

    /// The path at the receiver where it must arrive.
    pub fn path(&self, number: u64) -> String {
        path(self.organization(number), self.endpoint(number))
    }

    /// The number of what arrived and whether its bytes are those that were sent; for an event of `/v1/events` these
    /// are the bytes of `data` inside the envelope. `None` if it carries no number.
    pub fn read(&self, arrived: &[u8]) -> Option<(u64, bool)> {
        let start = memchr::memmem::find(arrived, HEAD)?;
        let digits = arrived.get(start + HEAD.len()..start + HEAD.len() + DIGITS)?;
        let number = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        let json = arrived.get(start..start + self.template.len());
        let intact = json.is_some_and(|json| {
            let behind = HEAD.len() + DIGITS;
            json[behind..] == self.template[behind..]
        });
        let framed = start == 0 && arrived.len() == self.template.len()
            || start > 0 && arrived.len() == start + self.template.len() + 1 && arrived.last() == Some(&b'}');
        Some((number, intact && framed))
    }
}

/// The path of an endpoint at the receiver.
pub fn path(organization: u64, endpoint: u64) -> String {
    format!("/r/{organization}/{endpoint}")
}

/// The type of the events that an endpoint wants.
pub fn event_type(endpoint: u64) -> String {
    format!("bench{endpoint}")
}

/// Signs as GitHub does: `sha256=` and the HMAC of the body in hexadecimal.
pub fn github_signature(key: &hmac::Key, body: &[u8]) -> String {
    format!("sha256={}", hex::encode(hmac::sign(key, body)))
}

/// The key of a secret.
pub fn hmac_key(secret: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
}

/// The envelope in which `/v1/events` takes an event.
pub fn own_envelope(run: &str, number: u64, event_type: &str, data: &[u8]) -> Bytes {
    let head = format!("{{\"type\":\"{event_type}\",\"id\":\"bench-{run}-{number}\",\"data\":");
    Bytes::from([head.as_bytes(), data, b"}"].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_recognised_bare_and_in_its_envelope_and_not_when_altered() {
        let shape = Shape::new(1024, 50, 10);
        let body = shape.body(0xabc);
        assert_eq!(body.len(), 1024);
        assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
        assert_eq!(shape.read(&body), Some((0xabc, true)));
        let envelope = [br#"{"type":"a","timestamp":"t","data":"#, body.as_slice(), b"}"].concat();
        assert_eq!(shape.read(&envelope), Some((0xabc, true)));
        let mut bad = body.clone();
        bad[500] ^= 1;
        assert_eq!(shape.read(&bad), Some((0xabc, false)));
        assert_eq!(shape.read(&body[..1000]), Some((0xabc, false)));
        assert_eq!(shape.read(&[body.as_slice(), b" "].concat()), Some((0xabc, false)));
        assert_eq!(shape.read(b"{}"), None);
    }

    #[test]
    fn events_go_round_all_organizations_and_endpoints() {
        let shape = Shape::new(100, 3, 2);
        let paths: Vec<String> = (0..6).map(|number| shape.path(number)).collect();
        assert_eq!(paths, ["/r/0/0", "/r/1/0", "/r/2/0", "/r/0/1", "/r/1/1", "/r/2/1"]);
    }
}
