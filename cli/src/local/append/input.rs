//! Reads the lines to record, within limits, on a thread of its own, because reading standard input blocks.

use std::io::{BufRead, Read as _};

use piperoll_format::limits::CALLER_ENTRY_BYTES_MAX;
use piperoll_node::sources::{Mapped, Mapping, Outcome};
use piperoll_redact::Redactor;
use tokio::sync::mpsc;

use crate::documents::{Document, Documents};

/// Maximum number of lines that are read ahead.
const LINES_AHEAD: usize = 1_024;
/// Byte order mark, which some programs write at the beginning of a file (Unicode, section 23.8, "Byte Order Mark").
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One line, or one record of a document.
pub(super) enum Item {
    /// An entry as JSON. `has_id` matters only for foreign records: it tells whether the record has an ID of its own.
    Entry {
        line: u64,
        text: Vec<u8>,
        has_id: bool,
    },
    /// A record that the mapping does not cover.
    PassedOver,
    Refused {
        line: u64,
        problem: String,
    },
}

enum Line {
    /// A line without its line ending.
    Whole(Vec<u8>),
    /// Length in bytes of a line that exceeds the maximum size of an entry.
    Long(u64),
}

/// Starts reading entries, one per line.
pub(super) fn entries_of(mut input: Box<dyn BufRead + Send>) -> mpsc::Receiver<std::io::Result<Item>> {
    let (send, receive) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || {
        for number in 1.. {
            let read = match next_line(&mut input, number == 1) {
                Ok(None) => return,
                Ok(Some(Line::Whole(line))) if line.iter().all(u8::is_ascii_whitespace) => continue,
                Ok(Some(Line::Whole(text))) => Ok(Item::Entry { line: number, text, has_id: false }),
                Ok(Some(Line::Long(bytes))) => {
                    let problem =
                        format!("{bytes} bytes, more than the limit of {CALLER_ENTRY_BYTES_MAX} for an entry");
                    Ok(Item::Refused { line: number, problem })
                }
                Err(error) => Err(error),
            };
            let has_failed = read.is_err();
            if send.blocking_send(read).is_err() || has_failed {
                return;
            }
        }
    });
    receive
}

/// Starts reading foreign records.
pub(super) fn records_of(
    documents: Documents,
    mapping: Mapping,
    redactor: Redactor,
) -> mpsc::Receiver<std::io::Result<Item>> {
    let (send, receive) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || {
        for document in documents {
            let items = match document {
                Ok(document) => items_of(&document, &mapping, &redactor).into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            for item in items {
                let has_failed = item.is_err();
                if send.blocking_send(item).is_err() || has_failed {
                    return;
                }
            }
        }
    });
    receive
}

fn items_of(document: &Document, mapping: &Mapping, redactor: &Redactor) -> Vec<Item> {
    let line = document.line;
    let text = match &document.text {
        Ok(text) => text,
        Err(problem) => return vec![Item::Refused { line, problem: problem.clone() }],
    };
    let outcomes = match mapping.read(text, redactor) {
        Ok(outcomes) => outcomes,
        Err(error) => return vec![Item::Refused { line, problem: error.to_string() }],
    };
    let is_list = outcomes.len() > 1;
    let item = |(at, outcome): (usize, Outcome)| match outcome.result {
        Ok(Mapped::Entry { text, has_id }) => Item::Entry { line, text: text.into_bytes(), has_id },
        Ok(Mapped::PassedOver) => Item::PassedOver,
        Err(error) if is_list => Item::Refused { line, problem: format!("record {}: {error}", at + 1) },
        Err(error) => Item::Refused { line, problem: error.to_string() },
    };
    outcomes.into_iter().enumerate().map(item).collect()
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
