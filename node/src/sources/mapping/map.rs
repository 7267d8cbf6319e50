//! A mapping: its parsed file, and the entries that it creates from records.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::FixedOffset;
use piperoll_format::entry::{CALLER_TEXTS, field_limit};
use piperoll_redact::Redactor;
use regex::Regex;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::built_in::BUILT_IN;
use super::error::MapError;
use super::input::{Input, Join, RawInput};
use super::ordered::Pairs;
use super::pointer::Pointer;
use super::rule::{self, RawRule, Rule, compile};
use super::{fit, times};

/// Result of mapping one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mapped {
    /// An entry as JSON text, and whether the record had an id of its own; if it had, recording the record again has no effect.
    Entry { text: String, has_id: bool },
    /// A record of a kind that this mapping does not cover.
    PassedOver,
}

/// One record of a document, and its result.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The record as JSON text, without the data around it in the document.
    pub record: String,
    pub result: Result<Mapped, MapError>,
}

/// A mapping that is ready to use.
#[derive(Debug)]
pub struct Mapping {
    input: Input,
    rules: Vec<Rule>,
    require: Vec<Condition>,
    refuse: Vec<Condition>,
    patterns: Vec<Pattern>,
    only_patterns: bool,
    skip: Vec<Conditions>,
    expects: Vec<(Pointer, String)>,
    zone: Option<FixedOffset>,
}

type Condition = (Pointer, Regex);

/// Value that a pattern gives to a field.
enum Found {
    /// A named group of its regular expression.
    Group(String),
    Set(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMapping {
    #[serde(default)]
    description: String,
    /// Location of the records, shown by `map list`.
    #[serde(default)]
    source: String,
    /// Time zone of times that do not state one.
    zone: Option<String>,
    /// A record is mapped only if at least one of these pointers leads to a value in it. Without this check, rules for absent
    /// values could turn unrelated records into entries.
    #[serde(default)]
    expects: Vec<String>,
    #[serde(default)]
    input: RawInput,
    #[serde(default)]
    field: BTreeMap<String, RawRule>,
    /// Pointers, each with a regular expression: a record is passed over unless all of the expressions match.
    #[serde(default)]
    require: BTreeMap<String, String>,
    /// Pointers, each with a regular expression: a record is passed over if one of the expressions matches. A missing value
    /// never matches.
    #[serde(default)]
    refuse: BTreeMap<String, String>,
    #[serde(default)]
    pattern: Vec<RawPattern>,
    /// Whether to pass over records that no pattern matches.
    #[serde(default)]
    only_patterns: bool,
    /// A record that meets all conditions of one of these is passed over.
    #[serde(default)]
    skip: Vec<RawSkip>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSkip {
    #[serde(default)]
    require: BTreeMap<String, String>,
    #[serde(default)]
    refuse: BTreeMap<String, String>,
    #[serde(default)]
    missing: Vec<String>,
}

/// Conditions that must all be met.
#[derive(Debug)]
struct Conditions {
    require: Vec<Condition>,
    refuse: Vec<Condition>,
    missing: Vec<Pointer>,
}

impl Conditions {
    fn check(
        require: BTreeMap<String, String>,
        refuse: BTreeMap<String, String>,
        missing: &[String],
    ) -> Result<Self, String> {
        let missing = missing.iter().map(|pointer| Pointer::parse(pointer)).collect::<Result<_, _>>()?;
        Ok(Self { require: conditions(require)?, refuse: conditions(refuse)?, missing })
    }

    fn are_met(&self, record: &Pairs) -> bool {
        all_met(&self.require, record)
            && !any_met(&self.refuse, record)
            && self.missing.iter().all(|pointer| pointer.text(record).is_none())
    }
}

fn conditions(typed: BTreeMap<String, String>) -> Result<Vec<Condition>, String> {
    typed.into_iter().map(|(at, regex)| Ok((Pointer::parse(&at)?, compile(&regex)?))).collect()
}

/// Parses a text or tests conditions; named groups and the values in `set` become fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPattern {
    pointer: Option<String>,
    first: Option<Vec<String>>,
    regex: Option<String>,
    #[serde(default)]
    require: BTreeMap<String, String>,
    #[serde(default)]
    refuse: BTreeMap<String, String>,
    /// Pointers to values that must be absent.
    #[serde(default)]
    missing: Vec<String>,
    #[serde(default)]
    set: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Pattern {
    text: Option<(Vec<Pointer>, Regex)>,
    conditions: Conditions,
    set: BTreeMap<&'static str, String>,
}

/// A mapping that ships with the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltIn {
    pub name: &'static str,
    /// Description of the records that the mapping accepts.
    pub description: String,
    /// Location of the records that the mapping accepts.
    pub source: String,
    /// Fields of an entry that the mapping can fill in, in the order of the format.
    pub fields: Vec<&'static str>,
}

impl Mapping {
    /// Reads a mapping file, or finds a built-in one by name.
    ///
    /// # Errors
    /// Returns what is wrong with the mapping, and where.
    pub fn load(name_or_path: &str) -> Result<Self, MapError> {
        let bad = |problem: String| MapError::plain(format!("mapping {name_or_path}: {problem}"));
        let text = match BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
            Some((_, text)) => (*text).to_owned(),
            None => std::fs::read_to_string(Path::new(name_or_path)).map_err(|error| {
                let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
                bad(format!("neither a readable file ({error}) nor a built-in mapping ({})", names.join(", ")))
            })?,
        };
        let typed: RawMapping = toml::from_str(&text).map_err(|error| bad(error.to_string()))?;
        typed.check().map_err(bad)
    }

    /// Returns the mappings that ship with the program.
    pub fn built_in() -> Vec<BuiltIn> {
        let read = |(name, text): &(&'static str, &str)| {
            let typed: RawMapping = toml::from_str(text).ok()?;
            let (description, source) = (typed.description.clone(), typed.source.clone());
            let fields = typed.check().ok()?.fields();
            Some(BuiltIn { name, description, source, fields })
        };
        BUILT_IN.iter().filter_map(read).collect()
    }

    fn fields(&self) -> Vec<&'static str> {
        let of_groups = |pattern: &Pattern| -> Vec<&'static str> {
            let names = pattern.text.iter().flat_map(|(_, regex)| regex.capture_names().flatten());
            names.filter_map(known_field).chain(pattern.set.keys().copied()).collect()
        };
        let filled: Vec<&str> =
            self.rules.iter().map(|rule| rule.field).chain(self.patterns.iter().flat_map(of_groups)).collect();
        CALLER_TEXTS.iter().filter(|field| filled.contains(field)).copied().collect()
    }

    /// Returns the rule for joining lines, if a record may consist of several lines.
    pub fn join(&self) -> Option<&Join> {
        self.input.join.as_ref()
    }

    /// Whether lines that are not JSON are records.
    pub fn reads_lines(&self) -> bool {
        self.input.reads_lines()
    }

    /// Maps a document to entries and masks the secrets that can be recognized. A document is a line, the lines of one record, or JSON
    /// with one record or a list of them.
    ///
    /// # Errors
    /// Fails if the document is not of this kind; each record has its own result.
    pub fn read(&self, document: &str, redactor: &Redactor) -> Result<Vec<Outcome>, MapError> {
        let outcome = |record: Result<Pairs, MapError>| match record {
            Ok(record) => Outcome { result: self.map(&record, redactor), record: record.to_text() },
            Err(error) => Outcome { result: Err(error), record: document.to_owned() },
        };
        Ok(self.input.records(document)?.into_iter().map(outcome).collect())
    }

    fn map(&self, record: &Pairs, redactor: &Redactor) -> Result<Mapped, MapError> {
        if !self.expects.is_empty() && self.expects.iter().all(|(pointer, _)| pointer.get(record).is_none()) {
            let names: Vec<&str> = self.expects.iter().map(|(_, shown)| shown.as_str()).collect();
            return Err(MapError::plain(format!("not a record of this kind: it has none of {}", names.join(", "))));
        }
        let is_skipped = self.skip.iter().any(|conditions| conditions.are_met(record));
        if is_skipped || !all_met(&self.require, record) || any_met(&self.refuse, record) {
            return Ok(Mapped::PassedOver);
        }
        let Some(found) = self.match_patterns(record) else { return Ok(Mapped::PassedOver) };
        let mut entry = Pairs(Vec::new());
        let mut rest = record.clone();
        let mut has_id = false;
        let mut put = |field: &'static str, value: &str| -> bool {
            has_id |= field == "id";
            if let Ok(raw) = RawValue::from_string(serde_json::Value::from(value).to_string()) {
                entry.0.push((field.to_owned(), raw));
            }
            // If a value will be shortened, keep the full value in `details` as well.
            !field_limit(field).is_some_and(|limit| fit::field(value, limit).1)
        };
        for (field, value) in &found {
            let value = match value {
                // An empty text in `set` means that the value is known to be absent.
                Found::Set(value) if value.is_empty() => continue,
                Found::Set(value) => value.clone(),
                Found::Group(value) => match self.group_value(field, value)? {
                    Some(value) => value,
                    None => continue,
                },
            };
            put(field, &value);
        }
        for rule in self.rules.iter().filter(|rule| !found.contains_key(rule.field)) {
            let Some(value) = rule.value(record)? else { continue };
            let is_whole = put(rule.field, &value.text);
            if let Some(pointer) = value.moved.filter(|_| is_whole) {
                pointer.remove(&mut rest);
            }
        }
        // The mapping has patterns, and this record matches none of them.
        if !has_action(&entry) && !self.patterns.is_empty() {
            return Err(MapError::plain("no pattern of this mapping matches the record, so its action is unknown"));
        }
        if !rest.0.is_empty()
            && let Some(raw) = rest.to_raw()
        {
            entry.0.push(("details".to_owned(), raw));
        }
        // Mask secrets before values are shortened, because a part of a secret may not be recognized.
        let whole = entry.to_text();
        let masked = redactor.entry(&whole);
        let mut entry = Pairs::parse(&masked).ok_or_else(|| MapError::plain("the entry is not a JSON object"))?;
        fit::entry(&mut entry);
        Ok(Mapped::Entry { text: entry.to_text(), has_id })
    }

    /// Returns a group's value, converted by the field's own rule.
    fn group_value(&self, field: &'static str, value: &str) -> Result<Option<String>, MapError> {
        const AT: &str = "a pattern's group";
        if let Some(rule) = self.rules.iter().find(|rule| rule.field == field) {
            return rule.finish(value, AT);
        }
        match field {
            "ip_address" | "peer_address" => Ok(Some(rule::address(value))),
            "occurred_at" => match times::parse(value, times::Form::Auto, self.zone) {
                Ok(time) => Ok(Some(time)),
                Err(problem) => Err(MapError::value(field, AT, value, &problem)),
            },
            _ => Ok(Some(value.to_owned())),
        }
    }

    /// Returns the values that patterns give to fields; if two patterns give a value to the same field, the first pattern is
    /// used. `None` if the record is passed over.
    fn match_patterns(&self, record: &Pairs) -> Option<BTreeMap<&'static str, Found>> {
        let mut found = BTreeMap::new();
        let mut matched = false;
        for pattern in &self.patterns {
            if !pattern.conditions.are_met(record) {
                continue;
            }
            if let Some((pointers, regex)) = &pattern.text {
                let Some(text) = pointers.iter().find_map(|pointer| pointer.text(record)) else { continue };
                let Some(groups) = regex.captures(&text) else { continue };
                for name in regex.capture_names().flatten().filter_map(known_field) {
                    if let Some(value) = groups.name(name).filter(|value| !value.is_empty()) {
                        found.entry(name).or_insert_with(|| Found::Group(value.as_str().to_owned()));
                    }
                }
            }
            matched = true;
            for (name, value) in &pattern.set {
                found.entry(name).or_insert_with(|| Found::Set(value.clone()));
            }
        }
        (matched || !self.only_patterns).then_some(found)
    }
}

fn has_action(entry: &Pairs) -> bool {
    entry.member("action").is_some()
}

fn all_met(conditions: &[Condition], record: &Pairs) -> bool {
    conditions.iter().all(|condition| is_met(condition, record))
}

fn any_met(conditions: &[Condition], record: &Pairs) -> bool {
    conditions.iter().any(|condition| is_met(condition, record))
}

fn is_met((pointer, regex): &Condition, record: &Pairs) -> bool {
    pointer.text(record).is_some_and(|text| regex.is_match(&text))
}

/// Returns the name of a field that a mapping may fill in. The fields `changes` and `details` are excluded, because they are
/// not text.
fn known_field(name: &str) -> Option<&'static str> {
    CALLER_TEXTS.iter().find(|field| **field == name).copied()
}

impl RawMapping {
    fn check(self) -> Result<Mapping, String> {
        let field = |name: &str| {
            known_field(name).ok_or_else(|| {
                format!("{name:?} is not a field of an entry; the fields are {}", CALLER_TEXTS.join(", "))
            })
        };
        let zone = self.zone.as_deref().map(times::parse_zone).transpose()?;
        let mut rules = Vec::new();
        for (name, rule) in self.field {
            let field = field(&name)?;
            rules.push(rule.check(field, zone).map_err(|problem| format!("field.{name}: {problem}"))?);
        }
        let mut patterns = Vec::new();
        for (at, typed) in self.pattern.into_iter().enumerate() {
            let bad = |problem: String| format!("pattern {}: {problem}", at + 1);
            let text = match (
                typed.pointer.into_iter().chain(typed.first.unwrap_or_default()).collect::<Vec<_>>(),
                typed.regex,
            ) {
                (pointers, Some(regex)) if !pointers.is_empty() => {
                    let regex = compile(&regex).map_err(bad)?;
                    for name in regex.capture_names().flatten() {
                        field(name).map_err(bad)?;
                    }
                    let pointers = pointers.iter().map(|pointer| Pointer::parse(pointer)).collect::<Result<_, _>>();
                    Some((pointers.map_err(bad)?, regex))
                }
                (pointers, None) if pointers.is_empty() => None,
                _ => return Err(bad("`regex` must be set together with `pointer` or `first`".to_owned())),
            };
            let set =
                typed.set.into_iter().map(|(name, value)| Ok((field(&name)?, value))).collect::<Result<_, String>>();
            patterns.push(Pattern {
                text,
                conditions: Conditions::check(typed.require, typed.refuse, &typed.missing).map_err(bad)?,
                set: set.map_err(bad)?,
            });
        }
        let skip = self.skip.into_iter().map(|skip| Conditions::check(skip.require, skip.refuse, &skip.missing));
        let expects = self.expects.into_iter().map(|shown| Ok((Pointer::parse(&shown)?, shown)));
        Ok(Mapping {
            expects: expects.collect::<Result<_, String>>()?,
            skip: skip.collect::<Result<_, _>>()?,
            input: self.input.check()?,
            rules,
            require: conditions(self.require)?,
            refuse: conditions(self.refuse)?,
            patterns,
            only_patterns: self.only_patterns,
            zone,
        })
    }
}
