//! Server-sent events, as `/v1/stream` writes them.

/// The longest line of a stream that is read; a longer one is not ours.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// One message of the stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Its kind.
    pub event: String,
    /// What it carries.
    pub data: String,
}

/// Takes server-sent events apart (WHATWG HTML, section 9.2), byte by byte as they arrive.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: Vec<u8>,
    message: Message,
    id: Option<String>,
    last_id: Option<String>,
}

impl Reader {
    /// Begins anew on another connection: half a message is none.
    pub fn forget_unfinished(&mut self) {
        self.buffer.clear();
        self.message = Message::default();
        self.id = None;
    }

    /// The messages that end in these bytes.
    ///
    /// # Errors
    /// When a line is longer than this server writes any.
    pub fn read(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<Message>> {
        self.buffer.extend_from_slice(bytes);
        let mut messages = Vec::new();
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            if let Some(message) = self.line(line.trim_end_matches(['\n', '\r'])) {
                messages.push(message);
            }
        }
        anyhow::ensure!(self.buffer.len() <= LINE_BYTES_MAX, "the server's stream is not one of Postroom");
        Ok(messages)
    }

    /// The id of the last whole message, to resume after.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    fn line(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            // An id counts only with the whole message: resuming behind a half one would lose it.
            self.last_id = self.id.take().or(self.last_id.take());
            let message = std::mem::take(&mut self.message);
            return (!message.data.is_empty()).then_some(message);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.message.event),
            "id" => self.id = Some(value.to_owned()),
            "data" if self.message.data.is_empty() => value.clone_into(&mut self.message.data),
            "data" => self.message.data.push_str(&format!("\n{value}")),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let stream = ": hello\n\nid: 1\nevent: event\ndata: {\"a\":1}\n\nevent: gap\r\ndata: x\r\ndata: y\r\n\r\nid: 2\ndata: half";
        for size in 1..stream.len() {
            let mut reader = Reader::default();
            let messages: Vec<Message> =
                stream.as_bytes().chunks(size).flat_map(|part| reader.read(part).unwrap()).collect();
            let expected = [("event", "{\"a\":1}"), ("gap", "x\ny")];
            let got: Vec<(&str, &str)> = messages.iter().map(|m| (m.event.as_str(), m.data.as_str())).collect();
            assert_eq!(got, expected, "in pieces of {size}");
            assert_eq!(reader.last_id(), Some("1"), "in pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        assert!(Reader::default().read(&vec![b'x'; LINE_BYTES_MAX + 1]).is_err());
    }
}
