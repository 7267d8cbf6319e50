//! Parses the output of `journalctl --output=export` (systemd, "Journal Export Formats").
//!
//! An entry is a list of fields and ends with an empty line. A field is `NAME=text` on one line or, if its value is not text or
//! has several lines, `NAME`, its length as 64 bits in little-endian order, and its bytes. Any process may write to the
//! journal, with fields of hundreds of megabytes, so each field and each entry is kept only up to a limit. Of a value that
//! exceeds the limit, only the length and hash are kept.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

use super::super::text::decode;

/// Maximum bytes that are kept of one field's value.
const FIELD_BYTES_MAX: usize = 128 * 1024;
/// Maximum bytes that are kept of all values of one entry.
const ENTRY_BYTES_MAX: usize = 192 * 1024;
/// Maximum bytes of a field's name. journald accepts up to 64; a longer line without `=` is not in this format.
const NAME_BYTES_MAX: usize = 256;
/// Maximum fields of one entry; journald accepts 1,024.
const FIELDS_MAX: usize = 2_048;

/// One entry of a journal.
#[derive(Debug, Clone)]
pub(in crate::sources) struct Entry {
    pub(in crate::sources) cursor: Cursor,
    /// Time at which journald recorded the entry, in microseconds since 1970; 0 if it is missing.
    pub(in crate::sources) time: u64,
    /// The record that mappings read: a JSON object with each field as text, or as a list if it was repeated.
    pub(in crate::sources) record: Vec<u8>,
}

/// Position of an entry, as given in `__CURSOR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::sources) struct Cursor {
    /// The cursor as it was printed.
    pub(super) text: String,
    /// Id of the number sequence, `s=`.
    pub(super) sequence: String,
    /// Number of the entry in the sequence, `i=`.
    pub(super) number: u64,
    /// Boot, times and hash of the contents, `b=` to `x=`; the same after journald has copied the entry to another file.
    pub(super) content: String,
    /// `t=`, in microseconds since 1970.
    pub(super) time: u64,
}

impl Cursor {
    /// Parses a cursor; `None` if the text is not one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (numbered, content) = text.split_once(";b=")?;
        let (sequence, number) = numbered.strip_prefix("s=")?.split_once(";i=")?;
        let time = content.split(';').find_map(|part| part.strip_prefix("t="))?;
        Some(Self {
            text: text.to_owned(),
            sequence: sequence.to_owned(),
            number: u64::from_str_radix(number, 16).ok()?,
            content: content.to_owned(),
            time: u64::from_str_radix(time, 16).ok()?,
        })
    }
}

/// Reads the next entry; `None` at the end. An incomplete entry at the end is dropped: journalctl prints it again next time.
pub(in crate::sources) async fn next_entry(input: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<Entry>> {
    let mut fields = Fields::default();
    loop {
        match next_field(input, fields.room()).await? {
            Next::Field(name, value) => fields.add(name, value),
            Next::EndOfEntry if fields.is_empty() => {}
            Next::EndOfEntry => return fields.into_entry().map(Some),
            Next::End => return Ok(None),
        }
    }
}

#[derive(Default)]
struct Fields {
    values: Map<String, Value>,
    /// Names of fields whose encoding was guessed, each with the encoding.
    notes: Map<String, Value>,
    bytes: usize,
    count: usize,
    left_out: u64,
}

enum FieldValue {
    Bytes(Vec<u8>),
    /// A value that is too long to keep.
    Long {
        bytes: u64,
        sha256: String,
    },
}

impl Fields {
    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn room(&self) -> usize {
        FIELD_BYTES_MAX.min(ENTRY_BYTES_MAX - self.bytes.min(ENTRY_BYTES_MAX))
    }

    fn add(&mut self, name: String, value: FieldValue) {
        self.count += 1;
        if self.count > FIELDS_MAX {
            self.left_out += 1;
            return;
        }
        let value = match value {
            FieldValue::Bytes(bytes) => {
                self.bytes += bytes.len() + name.len();
                let decoded = decode(&bytes);
                if let Some(note) = decoded.note() {
                    self.notes.insert(name.clone(), json!(note));
                }
                json!(decoded.into_text(&bytes))
            }
            FieldValue::Long { bytes, sha256 } => json!({ "omitted_bytes": bytes, "sha256": sha256 }),
        };
        match self.values.get_mut(&name) {
            None => drop(self.values.insert(name, value)),
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }

    fn into_entry(mut self) -> std::io::Result<Entry> {
        let text = |name: &str| self.values.get(name).and_then(Value::as_str).unwrap_or_default();
        let cursor = Cursor::parse(text("__CURSOR")).ok_or_else(|| invalid("an entry without a cursor"))?;
        let time = text("__REALTIME_TIMESTAMP").parse().unwrap_or(cursor.time);
        // People and mappings expect a single message.
        if let Some(Value::Array(lines)) = self.values.get("MESSAGE")
            && let Some(lines) = lines.iter().map(Value::as_str).collect::<Option<Vec<_>>>()
        {
            let message = lines.join("\n");
            self.values.insert("MESSAGE".to_owned(), json!(message));
        }
        if !self.notes.is_empty() {
            self.values.insert("encoding".to_owned(), Value::Object(self.notes));
        }
        if self.left_out > 0 {
            self.values.insert("omitted_fields".to_owned(), json!(self.left_out));
        }
        Ok(Entry { cursor, time, record: Value::Object(self.values).to_string().into_bytes() })
    }
}

enum Next {
    Field(String, FieldValue),
    EndOfEntry,
    End,
}

async fn next_field(input: &mut (impl AsyncBufRead + Unpin), room: usize) -> std::io::Result<Next> {
    let mut line = Vec::new();
    let most = NAME_BYTES_MAX + room;
    let read = (&mut *input).take(most as u64).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Ok(Next::End);
    }
    let is_whole = line.last() == Some(&b'\n');
    if is_whole {
        line.pop();
    }
    if line.is_empty() {
        return Ok(Next::EndOfEntry);
    }
    let name = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(NAME_BYTES_MAX)]).into_owned();
    match line.iter().position(|byte| *byte == b'=') {
        Some(at) if is_whole => Ok(Next::Field(name(&line[..at]), FieldValue::Bytes(line.split_off(at + 1)))),
        Some(at) if read == most => {
            let value = skip_line(input, &line[at + 1..]).await?;
            Ok(Next::Field(name(&line[..at]), value))
        }
        None if is_whole => match read_binary(input, room).await? {
            Some(value) => Ok(Next::Field(name(&line), value)),
            None => Ok(Next::End),
        },
        None if read == most => Err(invalid("a field without a name")),
        // The input ended in the middle of a line.
        _ => Ok(Next::End),
    }
}

/// Reads a value that is preceded by its length; `None` if the input ends before the value is complete.
async fn read_binary(input: &mut (impl AsyncBufRead + Unpin), room: usize) -> std::io::Result<Option<FieldValue>> {
    let mut length = [0; 8];
    if let Err(error) = input.read_exact(&mut length).await {
        return if error.kind() == std::io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    let length = u64::from_le_bytes(length);
    let (mut kept, mut hash, mut left) = (Vec::new(), Sha256::new(), length);
    let is_kept = length <= room as u64;
    while left > 0 {
        let buffer = input.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(None);
        }
        let taken = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if is_kept {
            kept.extend_from_slice(&buffer[..taken]);
        } else {
            hash.update(&buffer[..taken]);
        }
        input.consume(taken);
        left -= taken as u64;
    }
    // The line end after the value.
    let mut end = [0; 1];
    match input.read_exact(&mut end).await {
        Ok(_) if end == *b"\n" => {}
        Ok(_) => return Err(invalid("a field that does not end at its stated length")),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    Ok(Some(if is_kept {
        FieldValue::Bytes(kept)
    } else {
        FieldValue::Long { bytes: length, sha256: hex::encode(hash.finalize()) }
    }))
}

/// Hashes the rest of a line that is too long to keep.
async fn skip_line(input: &mut (impl AsyncBufRead + Unpin), begun: &[u8]) -> std::io::Result<FieldValue> {
    let mut hash = Sha256::new_with_prefix(begun);
    let mut bytes = begun.len() as u64;
    loop {
        let buffer = input.fill_buf().await?;
        if buffer.is_empty() {
            break;
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let (value, taken) = (&buffer[..end.unwrap_or(buffer.len())], end.map_or(buffer.len(), |end| end + 1));
        hash.update(value);
        bytes += value.len() as u64;
        input.consume(taken);
        if end.is_some() {
            break;
        }
    }
    Ok(FieldValue::Long { bytes, sha256: hex::encode(hash.finalize()) })
}

fn invalid(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, format!("journalctl printed {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CURSOR: &str = "__CURSOR=s=ab;i=1f;b=cd;m=3e9;t=6608b015f3001;x=2c21";

    async fn entries(input: &[u8]) -> Vec<Entry> {
        let (mut input, mut found) = (input, Vec::new());
        while let Some(entry) = next_entry(&mut input).await.expect("entries") {
            found.push(entry);
        }
        found
    }

    fn binary(name: &str, value: &[u8]) -> Vec<u8> {
        [name.as_bytes(), b"\n", &(value.len() as u64).to_le_bytes(), value, b"\n"].concat()
    }

    #[tokio::test]
    async fn fields_are_text_where_they_are_text() {
        let mut input = format!("{CURSOR}\n__REALTIME_TIMESTAMP=77\nMESSAGE=a=b\nPRIORITY=6\n").into_bytes();
        input.extend(binary("COLOURED", "gr\u{fc}n \u{1b}[32m\nline".as_bytes()));
        input.extend(binary("LATIN", b"gr\xfcn"));
        input.extend(binary("RAW", b"\0\x01\xff"));
        input.extend(b"TAG=one\nTAG=two\n\n\n");
        input.extend(format!("{CURSOR}\nMESSAGE=first\nMESSAGE=second\n\n").as_bytes());
        let found = entries(&input).await;
        let record: Value = serde_json::from_slice(&found[0].record).expect("JSON");
        assert_eq!((found[0].cursor.number, found[0].time), (31, 77));
        assert_eq!(found[0].cursor.content, "cd;m=3e9;t=6608b015f3001;x=2c21");
        assert_eq!(record["MESSAGE"], "a=b");
        assert_eq!(record["COLOURED"], "gr\u{fc}n \u{1b}[32m\nline");
        assert_eq!(record["LATIN"], "gr\u{fc}n");
        assert_eq!(record["RAW"], "AAH/");
        assert_eq!(record["TAG"], json!(["one", "two"]));
        assert_eq!(record["encoding"]["LATIN"], "not UTF-8; read as ISO 8859-1");
        let second: Value = serde_json::from_slice(&found[1].record).expect("JSON");
        assert_eq!(second["MESSAGE"], "first\nsecond");
        assert_eq!(found.len(), 2);
    }

    #[tokio::test]
    async fn what_is_too_long_keeps_its_length_and_hash() {
        let long = "x".repeat(FIELD_BYTES_MAX + 400);
        let mut input = format!("{CURSOR}\nUSER=kim\nTEXT={long}\n").into_bytes();
        input.extend(binary("DUMP", long.as_bytes()));
        input.extend(b"LAST=here\n\n");
        let found = entries(&input).await;
        let record: Value = serde_json::from_slice(&found[0].record).expect("JSON");
        let wanted = json!({ "omitted_bytes": long.len(), "sha256": hex::encode(Sha256::digest(&long)) });
        assert_eq!((&record["TEXT"], &record["DUMP"]), (&wanted, &wanted));
        assert_eq!((&record["USER"], &record["LAST"]), (&json!("kim"), &json!("here")));
    }

    #[tokio::test]
    async fn an_entry_that_is_cut_off_is_none() {
        let mut whole = format!("{CURSOR}\nMESSAGE=a\n").into_bytes();
        whole.extend(binary("B", b"12345"));
        whole.push(b'\n');
        for length in 0..whole.len() {
            assert!(entries(&whole[..length]).await.is_empty(), "{length}");
        }
        assert_eq!(entries(&whole).await.len(), 1);
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in ["", "s=ab", "s=ab;i=zz;b=c;m=1;t=2;x=3", "i=1;s=ab;b=c;t=1", "s=ab;i=1;b=c;m=1;x=3"] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }
}
