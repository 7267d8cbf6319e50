//! Finds the records in what a system writes: in lists, inside other objects, as JSON in a text, or as lines of text.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::MapError;
use super::auditd;
use super::ordered::Pairs;
use super::pointer::Pointer;
use super::rule::compile;
use super::windows;
use crate::intake::syslog;
use regex::Regex;

/// Records in one document.
const RECORDS_MAX: usize = 200_000;
/// Records inside records, each unwrapped in turn.
const UNWRAPPED_MAX: usize = 4;
/// Before JSON in a syslog message (Common Event Expression).
const COOKIE: &str = "@cee:";
/// Member of a record for what was around it.
const ENVELOPE: &str = "envelope";

/// `[input]`, as the file has it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TypedInput {
    /// Pointers to lists of records; of the first one that leads to a list each item is a record.
    #[serde(default)]
    lists: Vec<String>,
    /// Pointers to the record inside of another object, or to a text that is the record as JSON.
    #[serde(default)]
    inside: Vec<String>,
    /// Pointer to a list inside of a record; of each item an entry is made.
    split: Option<String>,
    /// What is before the first brace of a line is no part of the record, such as the header of a syslog daemon.
    #[serde(default)]
    prefix: bool,
    /// Names of members that are a record each, in an object that may have each of them many times.
    #[serde(default)]
    members: Vec<String>,
    /// Records are Windows events, which are brought into one form.
    #[serde(default)]
    windows: bool,
    /// What a line is that is no JSON.
    line: Option<LineForm>,
    /// Consecutive lines with the same group `key` are one record; `end` is the last of them.
    join: Option<TypedJoin>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TypedJoin {
    key: String,
    end: Option<String>,
}

/// What a line of text is read as.
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

/// How lines belong together.
#[derive(Debug, Clone)]
pub struct Join {
    key: Regex,
    end: Option<Regex>,
}

impl Join {
    /// The key of a line; none for a line that is a record by itself.
    pub fn key<'a>(&self, line: &'a str) -> Option<&'a str> {
        self.key.captures(line)?.name("key").map(|key| key.as_str())
    }

    /// Whether a line is the last one of its record.
    pub fn is_end(&self, line: &str) -> bool {
        self.end.as_ref().is_some_and(|end| end.is_match(line))
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

impl TypedInput {
    pub(super) fn check(self) -> Result<Input, String> {
        let pointers =
            |texts: Vec<String>| texts.iter().map(|text| Pointer::parse(text)).collect::<Result<Vec<_>, _>>();
        let join = match self.join {
            None => None,
            Some(TypedJoin { key, end }) => {
                let key = compile(&key)?;
                if !key.capture_names().flatten().any(|name| name == "key") {
                    return Err("join.key needs a group (?<key>…)".to_owned());
                }
                Some(Join { key, end: end.as_deref().map(compile).transpose()? })
            }
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
    /// Whether lines of text are records.
    pub(super) fn reads_lines(&self) -> bool {
        self.line.is_some()
    }

    /// The records of a document, which is JSON or lines of text.
    pub(super) fn records(&self, document: &str) -> Result<Vec<Result<Pairs, MapError>>, MapError> {
        let document = match document.find('{') {
            Some(at) if self.prefix && !document.trim_start().starts_with('[') => &document[at..],
            _ => document,
        };
        let trimmed = document.trim_start();
        if !(trimmed.starts_with('{') || trimmed.starts_with('['))
            && let Some(line) = self.line
        {
            return Ok(vec![read_line(document, line)]);
        }
        // Checked and compacted one by one: as one object they would have the same name more than once.
        if !self.members.is_empty()
            && let Some(parts) = Pairs::parse(document).filter(|whole| self.are_members(whole))
        {
            let one = |(name, value): (String, Box<RawValue>)| {
                let compact = piperoll_shared::log::json::compact(value.get())
                    .map_err(|error| MapError::plain(error.to_string()))?;
                let raw = RawValue::from_string(compact).map_err(|error| MapError::plain(error.to_string()))?;
                Ok(Pairs(vec![(name, raw)]))
            };
            return Ok(parts.0.into_iter().take(RECORDS_MAX).map(one).collect());
        }
        let compact = match piperoll_shared::log::json::compact(document) {
            Ok(compact) => compact,
            // A line of text may begin with a brace or a bracket too.
            Err(error) => match self.line {
                Some(line) if !document.trim_end().contains('\n') => return Ok(vec![read_line(document, line)]),
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
            return Err(MapError::plain(format!("{} records in one document, more than {RECORDS_MAX}", items.len())));
        }
        Ok(items.into_iter().flat_map(|item| self.unwrap(&item)).collect())
    }

    fn are_members(&self, whole: &Pairs) -> bool {
        whole.0.len() > 1 && whole.0.iter().all(|(name, _)| self.members.contains(name))
    }

    /// One item of a list as records.
    fn unwrap(&self, item: &RawValue) -> Vec<Result<Pairs, MapError>> {
        let Some(mut record) = Pairs::parse(item.get()) else { return vec![Err(not_an_object())] };
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

/// The object that a pointer leads to, itself or as text.
fn inner_of(pointer: &Pointer, record: &Pairs) -> Option<Pairs> {
    let value = pointer.get(record)?;
    match value.get().as_bytes().first()? {
        b'{' => Pairs::parse(value.get()),
        b'"' => {
            let text: String = serde_json::from_str(value.get()).ok()?;
            // A text that has JSON somewhere in it may have got that from anybody.
            let text = text.trim_start().strip_prefix(COOKIE).unwrap_or(&text);
            let compact = piperoll_shared::log::json::compact(text.trim()).ok()?;
            Pairs::parse(&compact)
        }
        _ => None,
    }
}

fn not_an_object() -> MapError {
    MapError::plain("the record is not a JSON object".to_owned())
}
