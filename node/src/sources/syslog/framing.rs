//! Finds the messages in a stream (RFC 6587 section 3.4).
//!
//! Digits count as the octet count of a frame only if a space and `<` follow them, because a line may begin with a year. A
//! malformed frame affects no other frame: the data after it is parsed from its first byte.

use std::io;

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

use crate::sources::record::Cut;

/// Maximum bytes that are kept of one message; of a longer message, the length and hash are kept as well.
pub(super) const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Largest octet count that is accepted. A larger number is taken for the beginning of a line of text.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Maximum number of digits of an octet count.
const COUNT_DIGITS_MAX: usize = 8;

/// One message of a stream.
pub(super) struct Message {
    pub(super) text: Vec<u8>,
    /// Length and hash of the whole message, if `text` is only its beginning.
    pub(super) cut: Option<Cut>,
    /// Number of announced octets that had not arrived when the stream ended; `None` if the message is complete.
    pub(super) missing: Option<usize>,
}

/// Reads the next message; `None` at the end of the stream.
pub(super) async fn message(input: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Message>> {
    let mut begun = Vec::new();
    let count = frame_count(input, &mut begun).await?;
    match count {
        Some(count) => counted(input, count).await.map(Some),
        None => line(input, &begun).await,
    }
}

/// Reads the count before a frame and the space after it; `None` if there is no count. `begun` receives the bytes that were
/// read.
async fn frame_count(input: &mut (impl AsyncBufRead + Unpin), begun: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        let Some(byte) = input.fill_buf().await?.first().copied() else { return Ok(None) };
        let is_count = match byte {
            // MSG-LEN has no leading zero.
            b'0' => !begun.is_empty(),
            b'1'..=b'9' => true,
            _ => false,
        };
        if is_count && begun.len() < COUNT_DIGITS_MAX {
            begun.push(byte);
            input.consume(1);
            continue;
        }
        let count = std::str::from_utf8(begun).ok().and_then(|digits| digits.parse().ok());
        let Some(count) = count.filter(|count| byte == b' ' && *count <= FRAME_BYTES_MAX) else { return Ok(None) };
        begun.push(byte);
        input.consume(1);
        let is_message = input.fill_buf().await?.first() == Some(&b'<');
        return Ok(is_message.then_some(count));
    }
}

/// Reads a message of `count` octets.
async fn counted(input: &mut (impl AsyncBufRead + Unpin), count: usize) -> io::Result<Message> {
    let mut parts = Parts::default();
    let mut left = count;
    while left > 0 {
        let buffer = input.fill_buf().await?;
        if buffer.is_empty() {
            let mut message = parts.done();
            message.missing = Some(left);
            return Ok(message);
        }
        let taken = buffer.len().min(left);
        parts.add(&buffer[..taken]);
        input.consume(taken);
        left -= taken;
    }
    Ok(parts.done())
}

/// Reads a message that ends at the end of its line.
async fn line(input: &mut (impl AsyncBufRead + Unpin), begun: &[u8]) -> io::Result<Option<Message>> {
    let mut parts = Parts::default();
    parts.add(begun);
    loop {
        let buffer = input.fill_buf().await?;
        if buffer.is_empty() {
            let is_something = parts.bytes > 0;
            return Ok(is_something.then(|| parts.done()));
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(buffer.len());
        parts.add(&buffer[..taken]);
        input.consume(end.map_or(taken, |end| end + 1));
        if end.is_some() {
            return Ok(Some(parts.done()));
        }
    }
}

/// A message that is being received: its text up to the limit and, if the message is longer, the hash of all of it.
#[derive(Default)]
struct Parts {
    text: Vec<u8>,
    bytes: u64,
    hash: Option<Sha256>,
}

impl Parts {
    fn add(&mut self, part: &[u8]) {
        self.bytes += part.len() as u64;
        if self.hash.is_none() && self.bytes > MESSAGE_BYTES_MAX as u64 {
            self.hash = Some(Sha256::new_with_prefix(&self.text));
        }
        if let Some(hash) = &mut self.hash {
            hash.update(part);
        }
        let room = MESSAGE_BYTES_MAX - self.text.len();
        self.text.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn done(self) -> Message {
        let cut = self.hash.map(|hash| Cut { bytes: self.bytes, sha256: hex::encode(hash.finalize()) });
        Message { text: self.text, cut, missing: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn messages(input: &[u8]) -> Vec<String> {
        let (mut input, mut found) = (input, Vec::new());
        while let Some(message) = message(&mut input).await.expect("bytes in memory") {
            let mut text = String::from_utf8_lossy(&message.text).into_owned();
            if let Some(missing) = message.missing {
                text.push_str(&format!(" -{missing}"));
            }
            found.push(text);
        }
        found
    }

    #[tokio::test]
    async fn only_digits_a_space_and_a_priority_count_octets() {
        for (input, wanted) in [
            ("6 <13>ab6 <13>cd", vec!["<13>ab", "<13>cd"]),
            ("6 <13>ab\n6 <13>cd\n", vec!["<13>ab", "", "<13>cd", ""]),
            ("<13>a\n<13>b\n", vec!["<13>a", "<13>b"]),
            ("2026-04-30 10:00 x\n<13>b\n", vec!["2026-04-30 10:00 x", "<13>b"]),
            ("20260430 is no count\n<13>b\n", vec!["20260430 is no count", "<13>b"]),
            ("42 is a line\n42\n42 \n", vec!["42 is a line", "42", "42 "]),
            ("06 <13>ab\n<13>b\n", vec!["06 <13>ab", "<13>b"]),
            ("99999999 <13>a\n<13>b\n", vec!["99999999 <13>a", "<13>b"]),
            ("123456789012 <13>a\n<13>b", vec!["123456789012 <13>a", "<13>b"]),
            // A count that is too small affects only its own frame.
            ("5 <13>abc\n6 <13>cd", vec!["<13>a", "bc", "<13>cd"]),
            ("20 <13>hung up", vec!["<13>hung up -9"]),
            ("7", vec!["7"]),
            ("7 ", vec!["7 "]),
            ("", vec![]),
        ] {
            assert_eq!(messages(input.as_bytes()).await, wanted, "{input:?}");
        }
    }

    #[tokio::test]
    async fn what_is_too_long_keeps_its_length_and_hash() {
        let long = format!("<13>{}", "x".repeat(MESSAGE_BYTES_MAX + 10));
        for input in [format!("{} {long}<13>next\n", long.len()), format!("{long}\n<13>next\n")] {
            let mut input = input.as_bytes();
            let first = message(&mut input).await.expect("bytes").expect("a message");
            let cut = first.cut.expect("too long");
            assert_eq!((first.text.len(), cut.bytes), (MESSAGE_BYTES_MAX, long.len() as u64));
            assert_eq!(cut.sha256, hex::encode(Sha256::digest(&long)));
            assert_eq!(message(&mut input).await.expect("bytes").expect("a message").text, b"<13>next");
        }
    }
}
