//! Splits a file of records, which may be compressed, into documents: lines, groups of lines, or JSON values that span several
//! lines.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;

use anyhow::Context as _;
use piperoll_node::sources::{Join, Joined, Joiner, unpacked};

/// Maximum size of one document. A file of one JSON document is kept in memory as a whole.
const DOCUMENT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Byte order mark, which some programs write at the beginning of a file (Unicode, section 23.8, "Byte Order Mark").
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// A document, and the number of its first line.
pub(crate) struct Document {
    pub(crate) line: u64,
    /// The text, or the reason why there is no document.
    pub(crate) text: Result<String, String>,
}

/// The documents of an input, in order.
pub(crate) struct Documents {
    input: Box<dyn BufRead + Send>,
    line: u64,
    joiner: Option<Joiner>,
    /// Whether the documents are JSON, which may span several lines.
    is_json: bool,
    /// Whether a line that is not empty has been read.
    has_begun: bool,
    ready: VecDeque<Document>,
    is_done: bool,
}

impl Documents {
    /// Opens a file, or standard input for `-`.
    pub(crate) fn open(path: &Path, join: Option<Join>, reads_lines: bool) -> anyhow::Result<Self> {
        let input: Box<dyn BufRead + Send> = if path == Path::new("-") {
            Box::new(BufReader::new(std::io::stdin()))
        } else {
            Box::new(BufReader::new(std::fs::File::open(path).with_context(|| path.display().to_string())?))
        };
        Self::of(input, join, reads_lines).with_context(|| path.display().to_string())
    }

    pub(crate) fn of(input: Box<dyn BufRead + Send>, join: Option<Join>, reads_lines: bool) -> std::io::Result<Self> {
        Ok(Self {
            input: unpacked(input)?,
            line: 0,
            joiner: join.map(Joiner::new),
            is_json: !reads_lines,
            has_begun: false,
            ready: VecDeque::new(),
            is_done: false,
        })
    }

    /// Returns the next line without its line ending, or `None` at the end of the input. A line that is too long is skipped and reported.
    fn next_line(&mut self) -> std::io::Result<Option<Result<String, String>>> {
        let mut bytes = Vec::new();
        let read = (&mut self.input).take(DOCUMENT_BYTES_MAX as u64 + 1).read_until(b'\n', &mut bytes)?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        if read > DOCUMENT_BYTES_MAX {
            let mut length = read;
            while bytes.last() != Some(&b'\n') {
                bytes.clear();
                let more = (&mut self.input).take(DOCUMENT_BYTES_MAX as u64).read_until(b'\n', &mut bytes)?;
                if more == 0 {
                    break;
                }
                length += more;
            }
            return Ok(Some(Err(format!(
                "{length} bytes in one line, more than the limit of {DOCUMENT_BYTES_MAX} for a document"
            ))));
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            // Read text that is not UTF-8 as Latin-1, as in followed files; the mapping decides what to do with it.
            Err(error) => error.into_bytes().into_iter().map(char::from).collect(),
        };
        let text = if self.line == 1 { text.trim_start_matches(BYTE_ORDER_MARK) } else { &text };
        Ok(Some(Ok(text.trim_end_matches(['\n', '\r']).to_owned())))
    }

    /// Reads until a document is ready, or the input ends.
    fn fill(&mut self) -> std::io::Result<()> {
        let mut open = OpenJson::default();
        while self.ready.is_empty() && !self.is_done {
            let Some(line) = self.next_line()? else {
                self.is_done = true;
                if let Some(broken) = open.take_broken() {
                    self.ready.push_back(broken);
                }
                if let Some(joiner) = &mut self.joiner {
                    let rest = joiner.flush();
                    self.push_joined(rest);
                }
                return Ok(());
            };
            let line = match line {
                Ok(line) => line,
                Err(problem) => {
                    self.ready.push_back(Document { line: self.line, text: Err(problem) });
                    continue;
                }
            };
            if !self.is_json && !self.has_begun && !line.trim().is_empty() {
                self.has_begun = true;
                self.is_json = begins_document(&line);
            }
            if let Some(joiner) = self.joiner.as_mut().filter(|_| !self.is_json) {
                if !line.trim().is_empty() {
                    let whole = joiner.push(self.line, &line);
                    self.push_joined(whole);
                }
            } else if self.is_json {
                self.ready.extend(open.push(self.line, &line));
            } else if !line.trim().is_empty() {
                self.ready.push_back(Document { line: self.line, text: Ok(line) });
            }
        }
        Ok(())
    }

    fn push_joined(&mut self, whole: Vec<Joined>) {
        self.ready.extend(whole.into_iter().map(|joined| Document { line: joined.first, text: Ok(joined.text) }));
    }
}

impl Iterator for Documents {
    type Item = std::io::Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.fill() {
            self.is_done = true;
            return Some(Err(error));
        }
        self.ready.pop_front().map(Ok)
    }
}

/// JSON whose end has not been read yet.
#[derive(Default)]
struct OpenJson {
    begun: u64,
    text: String,
    depth: usize,
    in_text: bool,
    is_escaped: bool,
}

impl OpenJson {
    /// Adds a line and returns the documents that it completes. If the line is a complete document while an object before it is
    /// unfinished, only that object is reported as broken, and no other document is lost.
    fn push(&mut self, number: u64, line: &str) -> Vec<Document> {
        let mut documents = Vec::new();
        let is_nested = self.text.starts_with('[');
        if !self.text.is_empty() && !is_nested && line.starts_with('{') && is_whole(line) {
            documents.extend(self.take_broken());
        }
        if self.text.is_empty() {
            if line.trim().is_empty() {
                return documents;
            }
            self.begun = number;
        } else {
            self.text.push('\n');
        }
        self.scan(line);
        self.text.push_str(line);
        let is_too_long = self.text.len() > DOCUMENT_BYTES_MAX;
        if is_too_long {
            let problem =
                format!("more than the limit of {DOCUMENT_BYTES_MAX} bytes for a document; is a bracket missing?");
            documents.push(Document { line: self.begun, text: Err(problem) });
            *self = Self::default();
        } else if self.depth == 0 {
            documents.push(Document { line: self.begun, text: Ok(std::mem::take(&mut self.text)) });
            *self = Self::default();
        }
        documents
    }

    fn scan(&mut self, line: &str) {
        for byte in line.bytes() {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.in_text => self.is_escaped = true,
                b'"' => self.in_text = !self.in_text,
                b'{' | b'[' if !self.in_text => self.depth += 1,
                b'}' | b']' if !self.in_text => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        // A JSON string cannot span lines.
        if self.in_text {
            (self.in_text, self.is_escaped) = (false, false);
        }
    }

    fn take_broken(&mut self) -> Option<Document> {
        if self.text.is_empty() {
            return None;
        }
        let broken = Document { line: self.begun, text: Err("unterminated JSON".to_owned()) };
        *self = Self::default();
        Some(broken)
    }
}

/// Whether the first line of a file begins JSON that spans several lines, although the mapping reads lines.
fn begins_document(line: &str) -> bool {
    let line = line.trim();
    line.starts_with(['{', '[']) && line.ends_with(['{', '[', ',']) && !is_whole(line)
}

fn is_whole(line: &str) -> bool {
    serde_json::from_str::<&serde_json::value::RawValue>(line).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(text: &str, reads_lines: bool) -> Vec<(u64, Result<String, String>)> {
        let input = Box::new(std::io::Cursor::new(text.as_bytes().to_vec()));
        let documents = Documents::of(input, None, reads_lines).expect("bytes in memory");
        documents
            .map(|document| document.expect("bytes in memory"))
            .map(|document| (document.line, document.text))
            .collect()
    }

    #[test]
    fn json_may_go_over_lines_and_a_broken_line_costs_itself() {
        let broken = || Err("unterminated JSON".to_owned());
        for (text, wanted) in [
            ("{\"a\":1}\n\n{\"b\":2}", vec![(1, Ok("{\"a\":1}")), (3, Ok("{\"b\":2}"))]),
            ("\u{feff}{\n  \"a\": \"}\"\n}\n{\"b\":2}\n", vec![(1, Ok("{\n  \"a\": \"}\"\n}")), (4, Ok("{\"b\":2}"))]),
            ("[\n{\"a\":1},\n{\"b\":2}\n]\n", vec![(1, Ok("[\n{\"a\":1},\n{\"b\":2}\n]"))]),
            ("{\"a\":\"x\n{\"b\":2}\n{\"c\":3}\n", vec![(1, broken()), (2, Ok("{\"b\":2}")), (3, Ok("{\"c\":3}"))]),
            ("{\"a\":{\n", vec![(1, broken())]),
            ("no JSON\n{\"b\":2}\n", vec![(1, Ok("no JSON")), (2, Ok("{\"b\":2}"))]),
            ("", vec![]),
        ] {
            let wanted: Vec<(u64, Result<String, String>)> = wanted
                .into_iter()
                .map(|(line, text): (u64, Result<&str, String>)| (line, text.map(str::to_owned)))
                .collect();
            assert_eq!(documents(text, false), wanted, "{text}");
        }
        assert_eq!(
            documents("[31/Jan/2023]\n{\"a\"\n", true),
            [(1, Ok("[31/Jan/2023]".to_owned())), (2, Ok("{\"a\"".to_owned()))]
        );
        for text in ["{\n  \"a\": 1\n}", "[\n  {\"a\": 1},\n  {\"b\": 2}\n]", "[{\n\"a\": 1\n}]"] {
            assert_eq!(documents(text, true), [(1, Ok(text.to_owned()))], "one document though lines are read too");
        }
    }
}
