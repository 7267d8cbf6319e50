//! Reads the lines to record, within bounds, in a thread of its own: reading standard input blocks.

use std::io::{BufRead, Read as _};

use piperoll_shared::log::limits::CALLER_ENTRY_BYTES_MAX;
use tokio::sync::mpsc;

/// Lines that are read ahead.
const LINES_AHEAD: usize = 1_024;
/// Some programs write it at the beginning of a file (Unicode, section 23.8, "Byte Order Mark").
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One line of the input.
pub(super) enum Line {
    /// Without its end.
    Whole(Vec<u8>),
    /// Longer than an entry may be; so many bytes.
    Long(u64),
}

/// Starts reading.
pub(super) fn lines_of(mut input: Box<dyn BufRead + Send>) -> mpsc::Receiver<std::io::Result<Line>> {
    let (send, receive) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || {
        let mut is_first = true;
        loop {
            let read = match next_line(&mut input, is_first) {
                Ok(None) => return,
                Ok(Some(line)) => Ok(line),
                Err(error) => Err(error),
            };
            is_first = false;
            let has_failed = read.is_err();
            if send.blocking_send(read).is_err() || has_failed {
                return;
            }
        }
    });
    receive
}

fn next_line(input: &mut dyn BufRead, is_first: bool) -> std::io::Result<Option<Line>> {
    let mut line = Vec::new();
    let mut bytes: u64 = 0;
    loop {
        let mut part = Vec::new();
        let read = input.take(CALLER_ENTRY_BYTES_MAX as u64).read_until(b'\n', &mut part)? as u64;
        bytes += read;
        let is_end = read == 0 || part.last() == Some(&b'\n');
        if line.len() + part.len() <= CALLER_ENTRY_BYTES_MAX + 1 {
            line.append(&mut part);
        }
        if is_end {
            break;
        }
    }
    if bytes == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if bytes > CALLER_ENTRY_BYTES_MAX as u64 + 1 {
        return Ok(Some(Line::Long(bytes)));
    }
    if is_first && line.starts_with(BYTE_ORDER_MARK) {
        line.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(Some(Line::Whole(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_a_byte_order_mark_is_skipped() {
        let long = "x".repeat(3 * CALLER_ENTRY_BYTES_MAX);
        let text = format!("\u{feff}one\n{long}\n\ntwo\r\n{}\nlast", "y".repeat(CALLER_ENTRY_BYTES_MAX));
        let mut input = std::io::BufReader::new(text.as_bytes());
        let mut found = Vec::new();
        while let Some(line) = next_line(&mut input, found.is_empty()).expect("bytes in memory") {
            found.push(match line {
                Line::Whole(line) if line.len() > 10 => format!("{} bytes", line.len()),
                Line::Whole(line) => String::from_utf8(line).expect("text"),
                Line::Long(bytes) => format!("long {bytes}"),
            });
        }
        let (long, whole) = (format!("long {}", long.len() + 1), format!("{CALLER_ENTRY_BYTES_MAX} bytes"));
        assert_eq!(found, ["one", &long, "", "two\r", &whole, "last"]);
    }
}
