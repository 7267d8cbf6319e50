//! The mapping file (docs/operations.md, "Importing logs").
//!
//! Nothing of a record is lost: a value that became a field unchanged stands in that field; everything else
//! stays in `details`, number text and key order included.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::ordered::Pairs;

/// Mappings that ship with the program.
const BUILT_IN: [(&str, &str); 1] = [("cloudtrail", include_str!("../../mappings/cloudtrail.toml"))];

/// A mapping, ready to use.
#[derive(Debug)]
pub(crate) struct Mapping {
    fields: Vec<(String, Rule)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    #[expect(dead_code, reason = "for the people who read the file")]
    description: Option<String>,
    field: BTreeMap<String, Rule>,
}

/// Where a field's value comes from: a constant, a pointer, or the first of several pointers that leads to
/// something; then possibly a table from the record's word to ours.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    constant: Option<String>,
    pointer: Option<String>,
    first: Option<Vec<String>>,
    /// Put in front of the value.
    prefix: Option<String>,
    /// Value to value.
    #[serde(default)]
    table: BTreeMap<String, String>,
    /// For a value that the table does not name; without it the value itself is used.
    otherwise: Option<String>,
    /// When no pointer leads to anything; without it the field is left out.
    absent: Option<String>,
}

impl Rule {
    fn pointers(&self) -> Vec<&str> {
        self.pointer.iter().chain(self.first.iter().flatten()).map(String::as_str).collect()
    }

    /// The value arrives in the field as it was.
    fn is_verbatim(&self) -> bool {
        self.table.is_empty() && self.prefix.is_none() && self.otherwise.is_none()
    }
}

impl Mapping {
    /// Reads a mapping file, or finds a built-in one by name.
    pub(crate) fn load(name_or_path: &str) -> anyhow::Result<Self> {
        let text = match BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
            Some((_, text)) => (*text).to_owned(),
            None => std::fs::read_to_string(Path::new(name_or_path)).with_context(|| {
                let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
                format!("mapping {name_or_path}: neither a readable file nor a built-in mapping ({})", names.join(", "))
            })?,
        };
        let typed: Typed = toml::from_str(&text).with_context(|| format!("mapping {name_or_path}"))?;
        for (field, rule) in &typed.field {
            let sources = usize::from(rule.constant.is_some())
                + usize::from(rule.pointer.is_some())
                + usize::from(rule.first.is_some());
            if sources != 1 {
                bail!("mapping {name_or_path}: field.{field} needs exactly one of constant, pointer, first");
            }
            if let Some(bad) = rule.pointers().iter().find(|p| !p.starts_with('/')) {
                bail!("mapping {name_or_path}: field.{field}: {bad:?} is not a JSON pointer; it begins with '/'");
            }
        }
        Ok(Self { fields: typed.field.into_iter().collect() })
    }

    /// One record to one entry, as JSON text.
    pub(crate) fn apply(&self, record: &str) -> anyhow::Result<String> {
        let compact = piperoll_shared::log::json::compact(record)?;
        let record = Pairs::parse(&compact).ok_or_else(|| anyhow!("the record is not a JSON object"))?;
        let mut entry = Pairs(Vec::new());
        let mut rest = Pairs::parse(&compact).ok_or_else(|| anyhow!("the record is not a JSON object"))?;
        for (field, rule) in &self.fields {
            let Some(value) = rule.value(&record, &mut rest) else { continue };
            let text = serde_json::to_string(&value)?;
            entry.0.push((field.clone(), RawValue::from_string(text)?));
        }
        if !rest.0.is_empty()
            && let Some(raw) = rest.to_raw()
        {
            entry.0.push(("details".to_owned(), raw));
        }
        Ok(entry.to_text())
    }
}

impl Rule {
    /// The field's value; what moved into it unchanged is taken out of `rest`.
    fn value(&self, record: &Pairs, rest: &mut Pairs) -> Option<String> {
        if let Some(constant) = &self.constant {
            return Some(constant.clone());
        }
        for pointer in self.pointers() {
            let path = steps(pointer);
            let Some(raw) = record.get(&path) else { continue };
            // Only text can move; numbers and structures stay in details as they are written.
            let Ok(text) = serde_json::from_str::<String>(raw.get()) else { continue };
            if text.is_empty() {
                continue;
            }
            if self.is_verbatim() {
                rest.remove(&path);
                return Some(text);
            }
            let mapped = self.table.get(&text).or(self.otherwise.as_ref()).cloned().unwrap_or(text);
            return Some(format!("{}{mapped}", self.prefix.as_deref().unwrap_or_default()));
        }
        self.absent.clone()
    }
}

/// RFC 6901: `~1` is a slash, `~0` a tilde.
fn steps(pointer: &str) -> Vec<String> {
    pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_mapped_without_loss() {
        let mapping = Mapping::load("cloudtrail").expect("the built-in mapping");
        let record = r#"{"eventVersion":"1.08","userIdentity":{"type":"IAMUser","userName":"benjamin"},
            "eventTime":"2023-07-10T11:42:18Z","eventSource":"iam.amazonaws.com","eventName":"ListUsers",
            "sourceIPAddress":"cloudtrail.amazonaws.com","errorCode":"AccessDenied","big":1.00000000000000000001,
            "eventID":"875240ac-e821-4fc6-a311-8c352a1d20f5"}"#;
        let entry: serde_json::Value = serde_json::from_str(&mapping.apply(record).expect("an entry")).expect("JSON");
        assert_eq!(entry["user"], "benjamin");
        assert_eq!(entry["outcome"], "denied");
        assert_eq!(entry["ip_address"], "cloudtrail.amazonaws.com");
        assert_eq!(entry["id"], "875240ac-e821-4fc6-a311-8c352a1d20f5");
        assert_eq!(entry["user_type"], "IAMUser");
        assert!(entry["details"].get("userIdentity").is_none(), "nothing is left of it");
        assert_eq!(entry["reason"], "AccessDenied");
        let text = mapping.apply(record).expect("an entry");
        assert!(text.contains("\"big\":1.00000000000000000001"), "{text}");
    }
}
