//! Foreign records into entries, by a small mapping in TOML (docs/intake.md, "Mappings").
//!
//! Nothing of a record is lost: a value that became a field unchanged stands in that field; everything else
//! stays in `details`, number text and key order included.

use std::collections::BTreeMap;
use std::path::Path;

use piperoll_shared::log::time::Timestamp;
use regex::Regex;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::ordered::Pairs;

/// Mappings that ship with the program.
const BUILT_IN: [(&str, &str); 4] = [
    ("cloudtrail", include_str!("../../mappings/cloudtrail.toml")),
    ("kubernetes-audit", include_str!("../../mappings/kubernetes-audit.toml")),
    ("sshd", include_str!("../../mappings/sshd.toml")),
    ("syslog", include_str!("../../mappings/syslog.toml")),
];

/// Bytes of a field that a template makes; no field of an entry is longer.
const FIELD_BYTES_MAX: usize = 64 * 1024;

/// Why a mapping cannot be used, or a record not be mapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MapError(String);

/// A mapping, ready to use.
#[derive(Debug)]
pub struct Mapping {
    fields: Vec<(String, Rule)>,
    require: Vec<(Vec<String>, Regex)>,
    refuse: Vec<(Vec<String>, Regex)>,
    patterns: Vec<Pattern>,
    only_patterns: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    #[expect(dead_code, reason = "for the people who read the file")]
    description: Option<String>,
    #[serde(default)]
    field: BTreeMap<String, Rule>,
    /// Pointer to regular expression: a record in which one does not match is passed over.
    #[serde(default)]
    require: BTreeMap<String, String>,
    /// Pointer to regular expression: a record in which one matches is passed over. What is not there matches nothing.
    #[serde(default)]
    refuse: BTreeMap<String, String>,
    #[serde(default)]
    pattern: Vec<TypedPattern>,
    /// A record that no pattern matches is passed over.
    #[serde(default)]
    only_patterns: bool,
}

/// A text taken apart: its named groups, and what `set` says, become fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TypedPattern {
    pointer: String,
    regex: String,
    #[serde(default)]
    set: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Pattern {
    pointer: Vec<String>,
    regex: Regex,
    set: BTreeMap<String, String>,
}

/// Where a field's value comes from: a constant, a pointer, the first of several pointers that leads to
/// something, or a text with pointers in it; then possibly a table from the record's word to ours.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    constant: Option<String>,
    pointer: Option<String>,
    first: Option<Vec<String>>,
    /// `k8s.{/objectRef/resource}.{/verb}`; nothing when one of them leads nowhere.
    template: Option<String>,
    /// Only for records in which this pointer leads to something.
    when: Option<String>,
    /// Put in front of the value.
    prefix: Option<String>,
    /// Value to value.
    #[serde(default)]
    table: BTreeMap<String, String>,
    /// For a value that the table does not name; without it the value itself is used.
    otherwise: Option<String>,
    /// When no pointer leads to anything; without it the field is left out.
    absent: Option<String>,
    /// What an action cannot hold becomes `_`.
    #[serde(default)]
    word: bool,
    /// The value is a time in this unit since 1970.
    time: Option<Unit>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Unit {
    Seconds,
    Micros,
}

impl Mapping {
    /// Reads a mapping file, or finds a built-in one by name.
    ///
    /// # Errors
    /// In words: what is wrong with it, and where.
    pub fn load(name_or_path: &str) -> Result<Self, MapError> {
        let bad = |problem: String| MapError(format!("mapping {name_or_path}: {problem}"));
        let text = match BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
            Some((_, text)) => (*text).to_owned(),
            None => std::fs::read_to_string(Path::new(name_or_path)).map_err(|error| {
                let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
                bad(format!("neither a readable file ({error}) nor a built-in mapping ({})", names.join(", ")))
            })?,
        };
        let typed: Typed = toml::from_str(&text).map_err(|e| bad(e.to_string()))?;
        for (field, rule) in &typed.field {
            rule.check().map_err(|problem| bad(format!("field.{field} {problem}")))?;
        }
        let regex = |text: &str| Regex::new(text).map_err(|e| bad(e.to_string()));
        let pointer = |text: &str| match text.starts_with('/') {
            true => Ok(steps(text)),
            false => Err(bad(format!("{text:?} is not a JSON pointer; it begins with '/'"))),
        };
        let mut patterns = Vec::new();
        for TypedPattern { pointer: at, regex: text, set } in typed.pattern {
            patterns.push(Pattern { pointer: pointer(&at)?, regex: regex(&text)?, set });
        }
        let conditions = |typed: &BTreeMap<String, String>| -> Result<Vec<_>, MapError> {
            typed.iter().map(|(at, text)| Ok((pointer(at)?, regex(text)?))).collect()
        };
        let (require, refuse) = (conditions(&typed.require)?, conditions(&typed.refuse)?);
        let fields = typed.field.into_iter().collect();
        Ok(Self { fields, require, refuse, patterns, only_patterns: typed.only_patterns })
    }

    /// One record to one entry, as JSON text; none for a record that the mapping passes over.
    ///
    /// # Errors
    /// When the record is no JSON object.
    pub fn apply(&self, record: &str) -> Result<Option<String>, MapError> {
        let compact = piperoll_shared::log::json::compact(record).map_err(|e| MapError(e.to_string()))?;
        let no_object = || MapError("the record is not a JSON object".to_owned());
        let record = Pairs::parse(&compact).ok_or_else(no_object)?;
        let is_met = |(pointer, regex): &(Vec<String>, Regex)| {
            text_at(&record, pointer).is_some_and(|text| regex.is_match(&text))
        };
        if !self.require.iter().all(is_met) || self.refuse.iter().any(is_met) {
            return Ok(None);
        }
        let Some(found) = self.match_patterns(&record) else { return Ok(None) };
        let mut entry = Pairs(Vec::new());
        let mut rest = Pairs::parse(&compact).ok_or_else(no_object)?;
        let mut put = |field: &str, value: &str| {
            if let Ok(raw) = RawValue::from_string(serde_json::Value::from(value).to_string()) {
                entry.0.push((field.to_owned(), raw));
            }
        };
        for (field, value) in &found {
            put(field, value);
        }
        for (field, rule) in self.fields.iter().filter(|(field, _)| !found.contains_key(field)) {
            if let Some(value) = rule.value(&record, &mut rest) {
                put(field, &value);
            }
        }
        if !rest.0.is_empty()
            && let Some(raw) = rest.to_raw()
        {
            entry.0.push(("details".to_owned(), raw));
        }
        Ok(Some(entry.to_text()))
    }

    /// What patterns say; of two that say something about a field, the first one counts.
    fn match_patterns(&self, record: &Pairs) -> Option<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        let mut matched = false;
        for Pattern { pointer, regex, set } in &self.patterns {
            let Some(text) = text_at(record, pointer) else { continue };
            let Some(groups) = regex.captures(&text) else { continue };
            matched = true;
            for name in regex.capture_names().flatten() {
                if let Some(value) = groups.name(name).filter(|value| !value.is_empty()) {
                    found.entry(name.to_owned()).or_insert_with(|| value.as_str().to_owned());
                }
            }
            for (name, value) in set {
                found.entry(name.clone()).or_insert_with(|| value.clone());
            }
        }
        (matched || !self.only_patterns).then_some(found)
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        let sources = [self.constant.is_some(), self.pointer.is_some(), self.first.is_some(), self.template.is_some()];
        if sources.iter().filter(|is_there| **is_there).count() != 1 {
            return Err("needs exactly one of constant, pointer, first, template".to_owned());
        }
        let placeholders = self.template.as_deref().map(placeholders).unwrap_or_default();
        let mut pointers = self.pointers().into_iter().chain(self.when.as_deref()).chain(placeholders);
        match pointers.find(|pointer| !pointer.starts_with('/')) {
            Some(bad) => Err(format!("holds {bad:?}, which is not a JSON pointer; it begins with '/'")),
            None => Ok(()),
        }
    }

    fn pointers(&self) -> Vec<&str> {
        self.pointer.iter().chain(self.first.iter().flatten()).map(String::as_str).collect()
    }

    /// The value arrives in the field as it was.
    fn is_verbatim(&self) -> bool {
        self.table.is_empty() && self.prefix.is_none() && self.otherwise.is_none() && !self.word && self.time.is_none()
    }

    /// The field's value; what moved into it unchanged is taken out of `rest`.
    fn value(&self, record: &Pairs, rest: &mut Pairs) -> Option<String> {
        if self.when.as_ref().is_some_and(|pointer| record.get(&steps(pointer)).is_none()) {
            return None;
        }
        if let Some(constant) = &self.constant {
            return Some(constant.clone());
        }
        if let Some(template) = &self.template {
            // Each placeholder once, from left to right: what a value holds is not looked at again.
            let (mut value, mut rest) = (String::new(), template.as_str());
            while let Some((before, pointer, after)) = rest
                .split_once('{')
                .and_then(|(before, inner)| inner.split_once('}').map(|(pointer, after)| (before, pointer, after)))
            {
                value.push_str(before);
                match text_at(record, &steps(pointer)) {
                    Some(text) => value.push_str(&text),
                    None => return self.absent.clone(),
                }
                rest = after;
                if value.len() > FIELD_BYTES_MAX {
                    break;
                }
            }
            value.push_str(rest);
            return Some(self.finish(value));
        }
        for pointer in self.pointers() {
            let path = steps(pointer);
            let Some(raw) = record.get(&path) else { continue };
            // Only text can move; numbers and structures stay in details as they are written.
            let is_text = raw.get().starts_with('"');
            let Some(text) = text_of(&raw).filter(|_| is_text || !self.is_verbatim()) else { continue };
            if self.is_verbatim() {
                rest.remove(&path);
                return Some(text);
            }
            let mapped = self.table.get(&text).or(self.otherwise.as_ref()).cloned().unwrap_or(text);
            return Some(self.finish(format!("{}{mapped}", self.prefix.as_deref().unwrap_or_default())));
        }
        self.absent.clone()
    }

    fn finish(&self, value: String) -> String {
        let value = match self.time {
            None => value,
            Some(unit) => {
                let micros = value.parse::<i64>().ok().and_then(|number| match unit {
                    Unit::Micros => Some(number),
                    Unit::Seconds => number.checked_mul(1_000_000),
                });
                micros.map_or(value, |micros| Timestamp::from_micros(micros).to_text())
            }
        };
        if !self.word {
            return value;
        }
        value.chars().map(|c| if c.is_ascii_alphanumeric() || "._-:/".contains(c) { c } else { '_' }).collect()
    }
}

/// A text that is not empty, or a number as it is written.
fn text_of(raw: &RawValue) -> Option<String> {
    let text = match raw.get().as_bytes().first()? {
        b'"' => serde_json::from_str::<String>(raw.get()).ok()?,
        b'0'..=b'9' | b'-' => raw.get().to_owned(),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}

fn text_at(record: &Pairs, pointer: &[String]) -> Option<String> {
    text_of(&record.get(pointer)?)
}

/// The pointers in a template.
fn placeholders(template: &str) -> Vec<&str> {
    template.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(pointer, _)| pointer).collect()
}

/// RFC 6901: `~1` is a slash, `~0` a tilde.
fn steps(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect()
}
