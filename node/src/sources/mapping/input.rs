//! Finds the records in the output of a system, whether they are in lists, inside other objects, JSON in a text, or lines of
//! text.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::auditd;
use super::error::MapError;
use super::ordered::Pairs;
use super::pointer::Pointer;
use super::rule::compile;
use super::windows;
use crate::sources::syslog;
use regex::Regex;

/// Maximum records in one document.
const RECORDS_MAX: usize = 200_000;
/// Maximum nesting of records: how many times a record inside another one is unwrapped.
const UNWRAPPED_MAX: usize = 4;
/// Prefix of JSON in a syslog message (Common Event Expression).
const COOKIE: &str = "@cee:";
/// Name of the member that contains the data that surrounded a record.
const ENVELOPE: &str = "envelope";

/// The table `[input]` as written in the mapping file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawInput {
    /// Pointers to lists of records; each item of the first list that exists is a record.
    #[serde(default)]
    lists: Vec<String>,
    /// Pointers to the record inside another object, or to a text that contains the record as JSON.
    #[serde(default)]
    inside: Vec<String>,
    /// Pointer to a list inside a record; each item becomes an entry.
    split: Option<String>,
    /// Whether to ignore text before the first brace of a line, such as a header that a syslog daemon added.
    #[serde(default)]
    prefix: bool,
    /// Names of members that each contain a record; the object around them may contain each name many times.
    #[serde(default)]
    members: Vec<String>,
    /// Whether records are Windows events, which are converted to a common form.
    #[serde(default)]
    windows: bool,
    /// Form of lines that are not JSON.
    line: Option<LineForm>,
    /// Rule for joining lines to records.
    join: Option<RawJoin>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawJoin {
    /// Expression with named groups, one of them `key`: lines for which all groups have the same values form one record. `end`
    /// matches the last line of a record.
    key: Option<String>,
    end: Option<String>,
    /// A line that matches continues the line before it.
    continued: Option<String>,
}

/// Form of a line of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LineForm {
    /// `{"line": "…"}`.
    Text,
    /// A syslog message, with `message`, `app_name` and so on.
    Syslog,
    /// The lines of one event of the Linux audit daemon.
    Auditd,
}

/// Rule for joining lines to records.
#[derive(Debug, Clone)]
pub enum Join {
    /// Joins lines that have the same key; lines of other records may come in between.
    Key {
        /// An expression whose named groups are the key.
        key: Regex,
        /// Matches the last line of a record.
        end: Option<Regex>,
    },
    /// Joins a line that matches to the line before it; for programs that wrap long lines.
    Continued(Regex),
}

impl Join {
    /// Returns the key of a line; `None` for a line that is a record by itself.
    pub fn key(&self, line: &str) -> Option<String> {
        let Self::Key { key, .. } = self else { return None };
        let groups = key.captures(line)?;
        let named = key.capture_names().flatten().map(|name| groups.name(name).map_or("", |value| value.as_str()));
        Some(named.collect::<Vec<_>>().join("\0"))
    }

    /// Whether a line is the last line of its record.
    pub fn is_end(&self, line: &str) -> bool {
        matches!(self, Self::Key { end: Some(end), .. } if end.is_match(line))
    }

    /// Whether a line continues the previous line; `None` if this mapping does not have lines that are continued.
    pub fn continues(&self, line: &str) -> Option<bool> {
        let Self::Continued(continued) = self else { return None };
        Some(continued.is_match(line))
    }
}

#[derive(Debug)]
pub(super) struct Input {
    lists: Vec<Pointer>,
    inside: Vec<Pointer>,
    split: Option<Pointer>,
    prefix: bool,
    members: Vec<String>,
    windows: bool,
    line: Option<LineForm>,
    pub(super) join: Option<Join>,
}

impl RawInput {
    pub(super) fn check(self) -> Result<Input, String> {
        let pointers =
            |texts: Vec<String>| texts.iter().map(|text| Pointer::parse(text)).collect::<Result<Vec<_>, _>>();
        let join = match self.join {
            None => None,
            Some(RawJoin { key: Some(key), end, continued: None }) => {
                let key = compile(&key)?;
                if !key.capture_names().flatten().any(|name| name == "key") {
                    return Err("join.key needs a group (?<key>…)".to_owned());
                }
                Some(Join::Key { key, end: end.as_deref().map(compile).transpose()? })
            }
            Some(RawJoin { key: None, end: None, continued: Some(continued) }) => {
                Some(Join::Continued(compile(&continued)?))
            }
            Some(_) => return Err("join needs either `key` (`end` is optional) or `continued`, not both".to_owned()),
        };
        Ok(Input {
            lists: pointers(self.lists)?,
            inside: pointers(self.inside)?,
            split: self.split.as_deref().map(Pointer::parse).transpose()?,
            prefix: self.prefix,
            members: self.members,
            windows: self.windows,
            line: self.line,
            join,
        })
    }
}

impl Input {
    /// Whether lines of text count as records.
    pub(super) fn reads_lines(&self) -> bool {
        self.line.is_some()
    }

    /// Returns the records of a document, which is JSON or lines of text.
    pub(super) fn records(&self, document: &str) -> Result<Vec<Result<Pairs, MapError>>, MapError> {
        let document = match document.find('{') {
            Some(at) if self.prefix && !document.trim_start().starts_with('[') => &document[at..],
            _ => document,
        };
        let trimmed = document.trim_start();
        if !(trimmed.starts_with('{') || trimmed.starts_with('['))
            && let Some(line) = self.line
        {
            return Ok(self.line_records(document, line));
        }
        // Check and compact the members one by one, because the object may contain the same name more than once.
        if !self.members.is_empty()
            && let Some(parts) = Pairs::parse(document).filter(|whole| self.are_members(whole))
        {
            let one = |(name, value): (String, Box<RawValue>)| {
                let compact =
                    piperoll_format::json::compact(value.get()).map_err(|error| MapError::plain(error.to_string()))?;
                let raw = RawValue::from_string(compact).map_err(|error| MapError::plain(error.to_string()))?;
                Ok(Pairs(vec![(name, raw)]))
            };
            return Ok(parts.0.into_iter().take(RECORDS_MAX).map(one).collect());
        }
        let compact = match piperoll_format::json::compact(document) {
            Ok(compact) => compact,
            // Even a line of text may begin with a brace or a bracket.
            Err(error) => match self.line {
                Some(line) if !document.trim_end().contains('\n') => return Ok(self.line_records(document, line)),
                _ => return Err(MapError::plain(error.to_string())),
            },
        };
        let items = if compact.starts_with('[') {
            items_of(&compact)
        } else {
            let object = Pairs::parse(&compact).ok_or_else(not_an_object)?;
            let list =
                self.lists.iter().find_map(|pointer| pointer.get(&object).filter(|value| value.get().starts_with('[')));
            match list {
                Some(list) => items_of(list.get()),
                None => Some(vec![RawValue::from_string(compact).map_err(|error| MapError::plain(error.to_string()))?]),
            }
        };
        let items = items.ok_or_else(not_an_object)?;
        if items.len() > RECORDS_MAX {
            return Err(MapError::plain(format!(
                "{} records in one document; the limit is {RECORDS_MAX}",
                items.len()
            )));
        }
        Ok(items.into_iter().flat_map(|item| self.unwrap(&item)).collect())
    }

    /// Converts a line of text to a record with the line's fields, and returns the records in it: a field may contain JSON.
    fn line_records(&self, document: &str, form: LineForm) -> Vec<Result<Pairs, MapError>> {
        let unfolded;
        let line = match &self.join {
            Some(Join::Continued(continued)) if document.contains('\n') => {
                unfolded = unfold(document, continued);
                &unfolded
            }
            _ => document,
        };
        match read_line(line, form).map(|record| record.to_raw()) {
            Ok(Some(record)) => self.unwrap(&record),
            Ok(None) => Vec::new(),
            Err(error) => vec![Err(error)],
        }
    }

    fn are_members(&self, whole: &Pairs) -> bool {
        whole.0.len() > 1 && whole.0.iter().all(|(name, _)| self.members.contains(name))
    }

    /// Converts one item of a list to records.
    fn unwrap(&self, item: &RawValue) -> Vec<Result<Pairs, MapError>> {
        let Some(mut record) = Pairs::parse(item.get()) else { return vec![Err(not_an_object())] };
        decode_journal_text(&mut record);
        for _ in 0..UNWRAPPED_MAX {
            let Some((inner, pointer)) =
                self.inside.iter().find_map(|pointer| Some((inner_of(pointer, &record)?, pointer)))
            else {
                break;
            };
            let mut envelope = record;
            pointer.remove(&mut envelope);
            record = inner;
            if !envelope.0.is_empty()
                && record.member(ENVELOPE).is_none()
                && let Some(raw) = envelope.to_raw()
            {
                record.0.push((ENVELOPE.to_owned(), raw));
            }
        }
        if self.windows {
            return vec![
                windows::event(&record).ok_or_else(|| MapError::plain("not a Windows event: it has no event id")),
            ];
        }
        let Some(split) = &self.split else { return vec![Ok(record)] };
        let parts = split.get(&record).and_then(|list| items_of(list.get())).unwrap_or_default();
        if parts.len() < 2 {
            return vec![Ok(record)];
        }
        let one = |part: Box<RawValue>| {
            let mut record = record.clone();
            if let Ok(list) = RawValue::from_string(format!("[{}]", part.get())) {
                split.replace(&mut record, list);
            }
            Ok(record)
        };
        parts.into_iter().map(one).collect()
    }
}

/// Restores a line that was wrapped at blanks: joins its parts with a blank.
fn unfold(document: &str, continued: &Regex) -> String {
    let mut whole = String::with_capacity(document.len());
    for line in document.split('\n') {
        if whole.is_empty() {
            whole.push_str(line);
            continue;
        }
        let indented = continued.find(line).filter(|found| found.start() == 0).map_or(0, |found| found.end());
        whole.push(' ');
        whole.push_str(&line[indented..]);
    }
    whole
}

/// Decodes a message that is not UTF-8: the journal's JSON contains it as a list of its bytes (systemd, "Journal Export
/// Formats").
fn decode_journal_text(record: &mut Pairs) {
    const MESSAGE: &str = "MESSAGE";
    let Some(list) = record.member(MESSAGE).filter(|value| value.get().starts_with('[')) else { return };
    let Ok(bytes) = serde_json::from_str::<Vec<u8>>(list.get()) else { return };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let Ok(raw) = RawValue::from_string(serde_json::Value::from(text).to_string()) else { return };
    if let Some((_, value)) = record.0.iter_mut().find(|(name, _)| name == MESSAGE) {
        *value = raw;
    }
}

fn read_line(line: &str, form: LineForm) -> Result<Pairs, MapError> {
    let text = match form {
        LineForm::Text => format!("{{\"line\":{}}}", serde_json::Value::from(line.trim_end_matches(['\r', '\n']))),
        LineForm::Syslog => syslog::line_apart(line.trim_end_matches(['\r', '\n'])),
        LineForm::Auditd => auditd::event(line).ok_or_else(|| {
            MapError::plain("not a line of the audit daemon: it has no type= and msg=audit(…)".to_owned())
        })?,
    };
    Pairs::parse(&text).ok_or_else(not_an_object)
}

fn items_of(list: &str) -> Option<Vec<Box<RawValue>>> {
    serde_json::from_str(list).ok()
}

/// Returns the object at a pointer, where the object may also be given as a text that contains JSON.
fn inner_of(pointer: &Pointer, record: &Pairs) -> Option<Pairs> {
    let value = pointer.get(record)?;
    match value.get().as_bytes().first()? {
        b'{' => Pairs::parse(value.get()),
        b'"' => {
            let text: String = serde_json::from_str(value.get()).ok()?;
            // Accept only a text that is JSON as a whole: JSON in the middle of a text may come from any sender.
            let text = text.trim_start().strip_prefix(COOKIE).unwrap_or(&text);
            let compact = piperoll_format::json::compact(text.trim()).ok()?;
            Pairs::parse(&compact)
        }
        _ => None,
    }
}

fn not_an_object() -> MapError {
    MapError::plain("the record is not a JSON object".to_owned())
}
