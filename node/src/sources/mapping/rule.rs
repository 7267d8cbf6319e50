//! Rule for one field: the source of its value, and the conversions to apply.

use chrono::FixedOffset;
use ipnet::IpNet;
use piperoll_format::ids::EntryId;
use regex::Regex;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::net::IpAddr;

use super::error::MapError;
use super::ordered::Pairs;
use super::pointer::{Pointer, text_of};
use super::times::{self, Form};

/// Number of bytes after which filling in a template stops; no field of an entry is longer.
const TEMPLATE_BYTES_MAX: usize = 64 * 1024;

/// Rule for one field, as written in the mapping file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    constant: Option<String>,
    pointer: Option<String>,
    first: Option<Vec<String>>,
    /// Text with pointers, such as `k8s.{/objectRef/resource}.{/verb}`; there is no value if one of the pointers leads to
    /// nothing.
    template: Option<String>,
    /// Alternative templates; the first one that yields a value is used.
    templates: Option<Vec<String>>,
    /// Apply the rule only to records in which this pointer leads to a value.
    when: Option<String>,
    /// Values that stand for a missing value, such as `-`.
    #[serde(default)]
    not: Vec<String>,
    /// Regular expression of which the named group `value`, or else the first group, becomes the value; a value that does not
    /// match is skipped.
    r#match: Option<String>,
    /// Text to prepend to the value.
    prefix: Option<String>,
    #[serde(default)]
    table: BTreeMap<String, String>,
    /// Pairs of a regular expression and a value; the first expression that matches determines the value.
    #[serde(default)]
    cases: Vec<(String, String)>,
    /// Value to use if neither `table` nor `cases` matches; by default, the original value is kept.
    otherwise: Option<String>,
    /// Value to use if no pointer leads to a value; by default, the field is omitted.
    absent: Option<String>,
    /// Replace characters that are not allowed in an action with `_`.
    #[serde(default)]
    word: bool,
    #[serde(default)]
    lower: bool,
    /// The value is a time in this form.
    time: Option<Form>,
    /// Time zone for times that do not state one.
    zone: Option<String>,
    /// The value is an address: remove its port, its brackets, and the prefix of an IPv4 address in IPv6 form.
    #[serde(default)]
    address: bool,
    /// Omit a value that is not valid for this field and keep it in `details`. By default, the record is refused.
    #[serde(default)]
    or_none: bool,
    /// Networks of trusted proxies, for a value that is a list of addresses, each added by the host that forwarded the request.
    /// The last address outside these networks is used: the sender at that address could have invented the addresses before it.
    trusted: Option<Vec<String>>,
}

/// Validated rule for one field.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) field: &'static str,
    source: Source,
    when: Option<Pointer>,
    not: Vec<String>,
    part: Option<Regex>,
    prefix: Option<String>,
    table: BTreeMap<String, String>,
    cases: Vec<(Regex, String)>,
    otherwise: Option<String>,
    absent: Option<String>,
    word: bool,
    lower: bool,
    time: Option<(Form, Option<FixedOffset>)>,
    address: bool,
    or_none: bool,
    trusted: Option<Vec<IpNet>>,
}

#[derive(Debug)]
enum Source {
    Constant(String),
    Pointers(Vec<(Pointer, String)>),
    Templates(Vec<Vec<TemplatePart>>),
}

#[derive(Debug)]
enum TemplatePart {
    Text(String),
    Pointer(Pointer),
    /// `{*}` is the whole record; `{* /etag}` is the record without the values that these pointers lead to.
    Record(Vec<Pointer>),
}

/// A value for a field.
pub(super) struct Value {
    pub(super) text: String,
    /// Pointer to the source value, if it was copied unchanged and therefore need not stay in `details`.
    pub(super) moved: Option<Pointer>,
}

impl RawRule {
    pub(super) fn check(self, field: &'static str, zone: Option<FixedOffset>) -> Result<Rule, String> {
        let templates = self.template.map(|template| vec![template]).or(self.templates);
        let source = match (self.constant, self.pointer, self.first, templates) {
            (Some(text), None, None, None) => Source::Constant(text),
            (None, Some(pointer), None, None) => Source::Pointers(vec![parsed(&pointer)?]),
            (None, None, Some(pointers), None) => {
                Source::Pointers(pointers.iter().map(|pointer| parsed(pointer)).collect::<Result<_, _>>()?)
            }
            (None, None, None, Some(templates)) => {
                Source::Templates(templates.iter().map(|template| parts(template)).collect::<Result<_, _>>()?)
            }
            _ => return Err("needs exactly one of constant, pointer, first, template, templates".to_owned()),
        };
        let zone = self.zone.as_deref().map(times::parse_zone).transpose()?.or(zone);
        // `occurred_at` is always parsed as a time; unless the rule sets `time`, the form is detected.
        let form = self.time.or((field == "occurred_at").then_some(Form::Auto));
        let network =
            |text: String| text.parse::<IpNet>().map_err(|_| format!("{text:?} is not a network such as 10.0.0.0/8"));
        let trusted =
            self.trusted.map(|networks| networks.into_iter().map(network).collect::<Result<_, _>>()).transpose()?;
        let cases = self.cases.into_iter().map(|(regex, value)| Ok((compile(&regex)?, value)));
        Ok(Rule {
            field,
            source,
            when: self.when.as_deref().map(Pointer::parse).transpose()?,
            not: self.not,
            part: self.r#match.as_deref().map(compile).transpose()?,
            prefix: self.prefix,
            table: self.table,
            cases: cases.collect::<Result<_, String>>()?,
            otherwise: self.otherwise,
            absent: self.absent,
            word: self.word,
            lower: self.lower,
            time: form.map(|form| (form, zone)),
            address: self.address,
            or_none: self.or_none,
            trusted,
        })
    }
}

pub(super) fn compile(regex: &str) -> Result<Regex, String> {
    Regex::new(regex).map_err(|error| error.to_string())
}

fn parsed(pointer: &str) -> Result<(Pointer, String), String> {
    Ok((Pointer::parse(pointer)?, pointer.to_owned()))
}

/// Splits a template into literal text and the pointers in braces.
fn parts(template: &str) -> Result<Vec<TemplatePart>, String> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((before, inner)) = rest.split_once('{') {
        let Some((pointer, after)) = inner.split_once('}') else {
            return Err(format!("{template:?} has a brace that is not closed"));
        };
        parts.push(TemplatePart::Text(before.to_owned()));
        parts.push(match pointer.strip_prefix('*') {
            Some(without) => {
                TemplatePart::Record(without.split_whitespace().map(Pointer::parse).collect::<Result<_, _>>()?)
            }
            None => TemplatePart::Pointer(Pointer::parse(pointer)?),
        });
        rest = after;
    }
    parts.push(TemplatePart::Text(rest.to_owned()));
    Ok(parts)
}

impl Rule {
    /// Returns the value of the field in a record; `None` if the record has none.
    ///
    /// # Errors
    /// Fails if the value in the record is not valid for this field.
    pub(super) fn value(&self, record: &Pairs) -> Result<Option<Value>, MapError> {
        if self.when.as_ref().is_some_and(|pointer| pointer.get(record).is_none()) {
            return Ok(None);
        }
        let absent = || Ok(self.absent.clone().map(|text| Value { text, moved: None }));
        match &self.source {
            Source::Constant(text) => Ok(Some(Value { text: text.clone(), moved: None })),
            Source::Templates(templates) => {
                let Some(text) = templates.iter().find_map(|parts| self.fill(parts, record)) else { return absent() };
                match self.finish(&text, "the template")? {
                    Some(text) => Ok(Some(Value { text, moved: None })),
                    None => absent(),
                }
            }
            Source::Pointers(pointers) => {
                for (pointer, shown) in pointers {
                    let Some(raw) = pointer.get(record) else { continue };
                    let found = match &self.trusted {
                        Some(trusted) => last_untrusted(&raw, trusted),
                        None => text_of(&raw),
                    };
                    let Some(text) = found.filter(|text| !self.not.contains(text)) else { continue };
                    let Some(finished) = self.finish(&text, shown)? else { continue };
                    // Only a text can move to the field; a number stays in `details` as it was written.
                    let has_moved = finished == text && raw.get().starts_with('"');
                    return Ok(Some(Value { text: finished, moved: has_moved.then(|| pointer.clone()) }));
                }
                absent()
            }
        }
    }

    /// Fills in a template; `None` if one of its values is missing.
    fn fill(&self, parts: &[TemplatePart], record: &Pairs) -> Option<String> {
        let mut text = String::new();
        for part in parts {
            match part {
                TemplatePart::Text(part) => text.push_str(part),
                TemplatePart::Record(without) => {
                    let mut record = record.clone();
                    without.iter().for_each(|pointer| pointer.remove(&mut record));
                    text.push_str(&record.to_text());
                }
                // Each placeholder is filled in once, from left to right; the values that are filled in are not searched for
                // placeholders.
                TemplatePart::Pointer(pointer) => {
                    text.push_str(&pointer.text(record).filter(|text| !self.not.contains(text))?)
                }
            }
            if text.len() > TEMPLATE_BYTES_MAX {
                break;
            }
        }
        Some(text)
    }

    /// Applies all conversions of the rule to a value; `None` if `not` lists the value.
    pub(super) fn finish(&self, text: &str, at: &str) -> Result<Option<String>, MapError> {
        if self.not.iter().any(|not| not == text) {
            return Ok(None);
        }
        let mut value = text.to_owned();
        if let Some(part) = &self.part {
            let Some(groups) = part.captures(&value) else { return Ok(None) };
            let group = groups.name("value").or_else(|| groups.get(1)).or_else(|| groups.get(0));
            match group.map(|group| group.as_str().to_owned()).filter(|group| !group.is_empty()) {
                Some(group) => value = group,
                None => return Ok(None),
            }
        }
        if let Some((form, zone)) = self.time {
            value = match times::parse(&value, form, zone) {
                Ok(time) => time,
                Err(_) if self.or_none => return Ok(None),
                Err(problem) => return Err(MapError::value(self.field, at, text, &problem)),
            };
        }
        if self.address {
            value = address(&value);
        }
        let mapped = self
            .table
            .get(&value)
            .or_else(|| self.cases.iter().find(|(regex, _)| regex.is_match(&value)).map(|(_, to)| to));
        let mut value = mapped.or(self.otherwise.as_ref()).cloned().unwrap_or(value);
        if value.is_empty() {
            return Ok(None);
        }
        if self.lower {
            value = value.to_lowercase();
        }
        if let Some(prefix) = &self.prefix {
            value.insert_str(0, prefix);
        }
        if self.word {
            value = word(&value);
        }
        if self.field == "id" && value.parse::<EntryId>().is_err() {
            value = named_id(&value);
        }
        Ok(Some(value))
    }
}

/// Returns the last address of a list that does not belong to a trusted proxy, or the first address if all of them do.
fn last_untrusted(list: &RawValue, trusted: &[IpNet]) -> Option<String> {
    let items: Vec<String> = serde_json::from_str(list.get()).ok()?;
    let is_trusted = |item: &&String| {
        let address = address(item).parse::<IpAddr>();
        address.is_ok_and(|address| trusted.iter().any(|network| network.contains(&address)))
    };
    items.iter().rev().find(|item| !is_trusted(item)).or(items.first()).cloned()
}

/// Replaces the characters that are not allowed in an action.
fn word(value: &str) -> String {
    value.chars().map(|c| if c.is_ascii_alphanumeric() || "._-:/".contains(c) { c } else { '_' }).collect()
}

/// Derives a name-based id (RFC 9562 section 5.8) for a record whose own id is not a UUID.
fn named_id(text: &str) -> String {
    let digest = Sha256::new().chain_update(b"piperoll mapping\0").chain_update(text.as_bytes()).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().hyphenated().to_string()
}

/// Removes the port, brackets and zone from an address; text that is not an address is returned unchanged.
pub(super) fn address(text: &str) -> String {
    let text = text.trim();
    let inner = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(inner, _)| inner);
    let candidates = [Some(text), inner, text.rsplit_once(':').map(|(host, _)| host)];
    let found = candidates.into_iter().flatten().find_map(|candidate| {
        let bare = candidate.split_once('%').map_or(candidate, |(bare, _)| bare);
        bare.parse::<IpAddr>().ok()
    });
    found.map_or_else(|| text.to_owned(), |ip| ip.to_canonical().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_what_is_around_them() {
        for (text, wanted) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:51234", "192.0.2.1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("fe80::1%eth0", "fe80::1"),
            (" 192.0.2.1 ", "192.0.2.1"),
            ("cloudformation.amazonaws.com", "cloudformation.amazonaws.com"),
            ("local", "local"),
        ] {
            assert_eq!(address(text), wanted, "{text}");
        }
    }
}
