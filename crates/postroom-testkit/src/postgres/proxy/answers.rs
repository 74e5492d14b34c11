//! Reads as much of the server's side of the protocol as is needed to know when a transaction was committed.
//!
//! Messages: <https://www.postgresql.org/docs/15/protocol-message-formats.html>. Each is a letter, a length that counts itself in
//! four bytes, and a body; only the answer to a wish for encryption is a single letter.

/// Letter and length.
const HEAD_BYTES: usize = 5;

const COMMAND_COMPLETE: u8 = b'C';
const ERROR: u8 = b'E';
const READY_FOR_QUERY: u8 = b'Z';
/// The status in `ReadyForQuery` when no transaction is open.
const IDLE: u8 = b'I';

/// One connection's answers.
#[derive(Debug, Default)]
pub struct Answers {
    /// The beginning of a message that has not come whole.
    partial: Vec<u8>,
    /// Messages since the one that may have to be lost.
    held: Option<Vec<u8>>,
    failed: bool,
    stage: Stage,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The server has not said anything but perhaps no to encryption.
    #[default]
    Greeting,
    Messages,
    /// It said yes: nothing here can be read.
    Encrypted,
}

/// What to do with what came.
#[derive(Debug, PartialEq, Eq)]
pub struct Next {
    /// These bytes go on; perhaps none yet.
    pub pass: Vec<u8>,
    /// Then a transaction was committed, and nobody is to hear of it.
    pub lose: bool,
}

/// Says which answer is to be lost.
pub trait Trap {
    /// Whether it is one with this command tag.
    fn wants(&self, tag: &str) -> bool;

    /// Whether it is this one, now that its transaction is committed. Another connection's may have been first.
    fn springs(&self) -> bool;
}

impl Answers {
    /// Takes what the server sent. What follows an answer that the trap wants is held until the server is ready for the next
    /// question, because only then it has committed for sure.
    pub fn take(&mut self, bytes: &[u8], trap: &impl Trap) -> Next {
        if self.stage == Stage::Greeting {
            self.stage = match bytes {
                [b'N'] => Stage::Greeting,
                [b'S' | b'G'] => Stage::Encrypted,
                _ => Stage::Messages,
            };
        }
        if self.stage != Stage::Messages {
            return Next { pass: bytes.to_vec(), lose: false };
        }
        self.partial.extend_from_slice(bytes);
        let mut pass = Vec::new();
        while let Some(length) = whole(&self.partial) {
            let message: Vec<u8> = self.partial.drain(..length).collect();
            if self.held.is_none() && message[0] == COMMAND_COMPLETE && trap.wants(&tag(&message)) {
                self.held = Some(Vec::new());
                self.failed = false;
            }
            let Some(held) = &mut self.held else {
                pass.extend(message);
                continue;
            };
            self.failed |= message[0] == ERROR;
            held.extend_from_slice(&message);
            if message[0] == READY_FOR_QUERY {
                if message.get(HEAD_BYTES) == Some(&IDLE) && !self.failed && trap.springs() {
                    return Next { pass, lose: true };
                }
                // It was within a transaction that goes on, or it failed after all.
                pass.extend(self.held.take().unwrap_or_default());
            }
        }
        Next { pass, lose: false }
    }
}

/// How long the first message is, if it is all there.
fn whole(bytes: &[u8]) -> Option<usize> {
    let length: [u8; 4] = bytes.get(1..HEAD_BYTES)?.try_into().ok()?;
    let length = 1 + usize::try_from(u32::from_be_bytes(length)).ok()?;
    (bytes.len() >= length).then_some(length)
}

/// The command tag, without the zero at its end.
fn tag(message: &[u8]) -> String {
    String::from_utf8_lossy(&message[HEAD_BYTES..]).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(letter: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[letter][..], &length, body].concat()
    }

    struct Commit;

    impl Trap for Commit {
        fn wants(&self, tag: &str) -> bool {
            tag == "COMMIT"
        }

        fn springs(&self) -> bool {
            true
        }
    }

    /// What passes of these messages, and whether an answer is lost then.
    fn passed(messages: &[Vec<u8>], piece_bytes: usize) -> (Vec<u8>, bool) {
        let mut answers = Answers::default();
        let mut passed = Vec::new();
        let stream = messages.concat();
        for piece in stream.chunks(piece_bytes) {
            let next = answers.take(piece, &Commit);
            passed.extend(next.pass);
            if next.lose {
                return (passed, true);
            }
        }
        (passed, false)
    }

    #[test]
    fn an_answer_is_lost_only_when_the_transaction_was_committed() {
        let greeting = message(b'R', &[0; 4]);
        let commit = message(COMMAND_COMPLETE, b"COMMIT\0");
        let insert = message(COMMAND_COMPLETE, b"INSERT 0 1\0");
        let failure = message(ERROR, b"SFATAL\0\0");
        let ready = |status| message(READY_FOR_QUERY, &[status]);
        for (messages, lost) in [
            (vec![greeting.clone(), insert.clone(), ready(b'I')], false),
            (vec![greeting.clone(), insert.clone(), ready(b'T'), commit.clone(), ready(b'I')], true),
            (vec![greeting.clone(), insert.clone(), commit.clone(), ready(b'T')], false),
            (vec![greeting, insert, commit, failure, ready(b'I')], false),
        ] {
            let before = if lost { &messages[..3] } else { &messages[..] };
            for piece_bytes in [1, 7, 1000] {
                assert_eq!(passed(&messages, piece_bytes), (before.concat(), lost), "{messages:?} by {piece_bytes}");
            }
        }
    }

    #[test]
    fn an_encrypted_connection_passes_as_it_is() {
        let mut answers = Answers::default();
        for bytes in [&b"N"[..], b"S", b"\x16\x03\x01 whatever"] {
            assert_eq!(answers.take(bytes, &Commit), Next { pass: bytes.to_vec(), lose: false });
        }
    }
}
