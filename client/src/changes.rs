//! Compares two states of a value.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use piperoll_format::limits::{CHANGES_COUNT_MAX, LONG_TEXT_BYTES_MAX};
use piperoll_redact::{MARK, MASK, Redactor};

/// Field name that represents the changes beyond [`CHANGES_COUNT_MAX`]; the new value of this field is the number of those
/// changes.
const UNLISTED: &str = "(fields not listed)";
/// Maximum number of changes named in a sentence; the others are counted.
const SAID_MAX: usize = 4;
/// Maximum number of characters of one value in a sentence.
const SAID_CHARS_MAX: usize = 60;

/// Changed fields with their values before and after; unchanged fields are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Changes(Vec<Change>);

/// One changed field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// A path such as `limits.quota`.
    pub field: String,
    /// Value before the change; `None` if the field did not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// Value after the change; `None` if the field was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
}

impl Changes {
    /// Compares two values by their structure: objects field by field, lists of equal length that contain objects or lists
    /// element by element, and all other lists as a whole.
    ///
    /// A field of type [`super::Secret`], or one whose name is that of a secret, is compared and then masked.
    ///
    /// # Errors
    /// When a value cannot be written as JSON, such as a map whose keys are not strings.
    pub fn between(old: &impl Serialize, new: &impl Serialize) -> Result<Self, serde_json::Error> {
        let mut changes = Self::default();
        changes.compare("", Some(serde_json::to_value(old)?), Some(serde_json::to_value(new)?));
        if changes.0.len() > CHANGES_COUNT_MAX {
            let unlisted = changes.0.split_off(CHANGES_COUNT_MAX - 1).len();
            changes.push(UNLISTED, None, Some(unlisted.into()));
        }
        Ok(changes)
    }

    /// Adds one field, which the application has compared itself.
    #[must_use]
    pub fn with(mut self, field: impl Into<String>, old: impl Serialize, new: impl Serialize) -> Self {
        let value = |value: Value| (!value.is_null()).then_some(value);
        let (old, new) = (serde_json::to_value(old).unwrap_or_default(), serde_json::to_value(new).unwrap_or_default());
        self.compare(&field.into(), value(old), value(new));
        self
    }

    /// Whether no field changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over the changed fields, in the order in which they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Change> {
        self.0.iter()
    }

    fn compare(&mut self, field: &str, old: Option<Value>, new: Option<Value>) {
        match (old, new) {
            (old, new) if old == new => {}
            // Compare a field as a whole if its name is that of a secret: the paths of nested fields would not be masked as
            // secrets.
            (old, new) if Redactor::shared().is_secret_name(field) => self.push(field, old, new),
            (Some(Value::Object(old)), Some(Value::Object(new))) if !is_mark(&old) && !is_mark(&new) => {
                self.compare_fields(field, old, new);
            }
            (Some(Value::Array(old)), Some(Value::Array(new))) if old.len() == new.len() && !all_plain(&old, &new) => {
                for (at, (old, new)) in old.into_iter().zip(new).enumerate() {
                    self.compare(&format!("{field}[{at}]"), Some(old), Some(new));
                }
            }
            (old, new) => self.push(field, old, new),
        }
    }

    fn push(&mut self, field: &str, old: Option<Value>, new: Option<Value>) {
        self.0.push(Change { field: field.to_owned(), old: old.map(unmarked), new: new.map(unmarked) });
    }

    fn compare_fields(&mut self, field: &str, mut old: Map<String, Value>, new: Map<String, Value>) {
        let path = |name: &str| if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
        for (name, value) in new {
            let before = old.remove(&name);
            self.compare(&path(&name), before, Some(value));
        }
        for (name, value) in old {
            self.compare(&path(&name), Some(value), None);
        }
    }

    /// Describes the changes in a sentence, such as `changed quota from 5 to 10 and owner from alice to bob`.
    pub fn sentence(&self) -> String {
        let redactor = Redactor::shared();
        let parts: Vec<String> = self.0.iter().take(SAID_MAX).map(|change| change.said(redactor)).collect();
        let left = self.0.len().saturating_sub(SAID_MAX);
        let said = match (parts.as_slice(), left) {
            ([], _) => return "changed nothing".to_owned(),
            ([one], 0) => one.clone(),
            ([first @ .., last], 0) => format!("{} and {last}", first.join(", ")),
            (all, left) => format!("{} and {left} more", all.join(", ")),
        };
        let mut text = format!("changed {said}");
        while text.len() > LONG_TEXT_BYTES_MAX {
            text.pop();
        }
        text
    }
}

impl Change {
    fn said(&self, redactor: &Redactor) -> String {
        let name: String = self.field.chars().filter(|c| !c.is_control()).take(SAID_CHARS_MAX).collect();
        if redactor.is_secret_name(&self.field) || [&self.old, &self.new].into_iter().flatten().any(|v| *v == MASK) {
            return name;
        }
        match (&self.old, &self.new) {
            (None, Some(new)) => format!("{name} to {}", value_said(new)),
            (Some(_), None) => format!("{name} to nothing"),
            (Some(old), Some(new)) => format!("{name} from {} to {}", value_said(old), value_said(new)),
            (None, None) => name,
        }
    }
}

fn value_said(value: &Value) -> String {
    let text = match value {
        Value::String(text) if text.is_empty() => "empty".to_owned(),
        Value::String(text) => text.clone(),
        Value::Null => "nothing".to_owned(),
        other => other.to_string(),
    };
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if clean.chars().count() <= SAID_CHARS_MAX {
        clean
    } else {
        clean.chars().take(SAID_CHARS_MAX - 1).collect::<String>() + "…"
    }
}

/// Whether two lists contain only plain values. Such lists are shown as a whole, because a comparison by index would not show
/// which values were added or removed.
fn all_plain(old: &[Value], new: &[Value]) -> bool {
    !old.iter().chain(new).any(|value| value.is_object() || value.is_array())
}

fn is_mark(object: &Map<String, Value>) -> bool {
    object.contains_key(MARK)
}

/// Replaces the marks of secrets with the mask. The marks only serve to compare secrets.
fn unmarked(value: Value) -> Value {
    match value {
        Value::Object(object) if is_mark(&object) => Value::String(MASK.to_owned()),
        Value::Object(object) => {
            object.into_iter().map(|(name, value)| (name, unmarked(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(list) => list.into_iter().map(unmarked).collect(),
        plain => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Secret;
    use super::*;
    use serde_json::json;

    #[derive(Serialize)]
    struct Account {
        owner: &'static str,
        quota: u64,
        pass: Secret<String>,
        tags: Vec<&'static str>,
        limits: Value,
    }

    fn account(owner: &'static str, pass: &str) -> Account {
        Account {
            owner,
            quota: 5,
            pass: Secret::new(pass.to_owned()),
            tags: vec!["a"],
            limits: json!({"rate": 1, "list": [{"x": 1}]}),
        }
    }

    #[test]
    fn more_changes_than_an_entry_holds_are_counted() {
        let of =
            |value: u8| (0..1_200).map(|n| (format!("f{n:04}"), value)).collect::<std::collections::BTreeMap<_, _>>();
        let changes = Changes::between(&of(0), &of(1)).expect("values");
        assert_eq!(changes.iter().count(), CHANGES_COUNT_MAX);
        let last = changes.iter().last().expect("a change");
        assert_eq!(
            (last.field.as_str(), &last.new),
            (UNLISTED, &Some(serde_json::json!(1_200 - CHANGES_COUNT_MAX + 1)))
        );
    }

    #[test]
    fn only_what_changed_and_no_secret() {
        let old = account("alice", "hunter2");
        assert!(
            Changes::between(&old, &account("alice", "hunter2")).expect("JSON").is_empty(),
            "the password is the same"
        );
        let new = Account {
            quota: 10,
            tags: vec!["a", "b"],
            limits: json!({"rate": 1, "list": [{"x": 2}], "more": true}),
            ..account("bob", "hunter3")
        };
        let changes = Changes::between(&old, &new).expect("JSON");
        let text = serde_json::to_value(&changes).expect("JSON");
        assert_eq!(
            text,
            json!([
                {"field": "limits.list[0].x", "old": 1, "new": 2},
                {"field": "limits.more", "new": true},
                {"field": "owner", "old": "alice", "new": "bob"},
                {"field": "pass", "old": "***", "new": "***"},
                {"field": "quota", "old": 5, "new": 10},
                {"field": "tags", "old": ["a"], "new": ["a", "b"]},
            ])
        );
        assert_eq!(
            changes.sentence(),
            "changed limits.list[0].x from 1 to 2, limits.more to true, owner from alice to bob, pass and 2 more"
        );
        assert!(!text.to_string().contains("hunter"));
    }

    #[test]
    fn sentences_read_well_and_hold_no_secret() {
        let one = Changes::default().with("quota", 5, 10);
        assert_eq!(one.sentence(), "changed quota from 5 to 10");
        let two = one.with("owner", Value::Null, "bob").with("same", 1, 1);
        assert_eq!(two.sentence(), "changed quota from 5 to 10 and owner to bob");
        assert_eq!(Changes::default().with("api_key", "a", "b").sentence(), "changed api_key");
        assert_eq!(Changes::default().sentence(), "changed nothing");
    }
}
