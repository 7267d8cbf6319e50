//! A client's fields as sent: names, limits and order.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::rule_input::{RuleInput, amounts};
use super::terms::{CATEGORIES, EntryError, NODE_CATEGORY, OUTCOMES, is_category};
use crate::ids::EntryId;
use crate::limits;
use crate::time::Timestamp;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CallerFields<'a> {
    pub(super) id: Option<EntryId>,
    #[serde(borrow)]
    occurred_at: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    impersonator: Option<Cow<'a, str>>,
    #[serde(borrow)]
    session: Option<Cow<'a, str>>,
    #[serde(borrow)]
    auth_method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    credential: Option<Cow<'a, str>>,
    #[serde(borrow)]
    category: Option<Cow<'a, str>>,
    #[serde(borrow)]
    action: Option<Cow<'a, str>>,
    #[serde(borrow)]
    outcome: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
    #[serde(borrow)]
    entity_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    entity_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    entity_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    target: Option<Cow<'a, str>>,
    #[serde(borrow)]
    domain: Option<Cow<'a, str>>,
    #[serde(borrow)]
    ip_address: Option<Cow<'a, str>>,
    #[serde(borrow)]
    peer_address: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user_agent: Option<Cow<'a, str>>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    path: Option<Cow<'a, str>>,
    #[serde(borrow)]
    request_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    description: Option<Cow<'a, str>>,
    #[serde(borrow)]
    changes: Option<&'a RawValue>,
    #[serde(borrow)]
    details: Option<&'a RawValue>,
    pub(super) redacted: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change<'a> {
    #[serde(borrow)]
    #[expect(dead_code, reason = "only its presence and type are checked; the text is kept as given")]
    field: Cow<'a, str>,
    #[serde(borrow)]
    #[expect(dead_code, reason = "accepted but not read; the text is kept as given")]
    old: Option<&'a RawValue>,
    #[serde(borrow)]
    #[expect(dead_code, reason = "accepted but not read; the text is kept as given")]
    new: Option<&'a RawValue>,
}

fn check_text(field: &'static str, value: Option<&str>, max: usize, one_line: bool) -> Result<(), EntryError> {
    let Some(value) = value else { return Ok(()) };
    if value.len() > max {
        return Err(EntryError::field(field, format!("{} bytes, more than the limit of {max}", value.len())));
    }
    if one_line && value.is_empty() {
        return Err(EntryError::field(field, "must not be empty; omit it instead"));
    }
    if one_line && let Some(bad) = value.chars().find(|c| c.is_control()) {
        return Err(EntryError::field(
            field,
            format!("control character U+{:04X} is not allowed here", u32::from(bad)),
        ));
    }
    Ok(())
}

/// Limits of a text field of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldLimit {
    /// Maximum length in bytes of UTF-8.
    pub bytes_max: usize,
    /// Whether the field must be non-empty and free of control characters.
    pub is_one_line: bool,
    /// Whether the field may contain only letters, digits and `. _ - : /`.
    pub is_word: bool,
}

/// Returns the limits of a text field by name, or `None` for fields with a format of their own (`id`, `occurred_at`) and for fields
/// that are not text.
pub fn field_limit(field: &str) -> Option<FieldLimit> {
    let line = |bytes_max| Some(FieldLimit { bytes_max, is_one_line: true, is_word: false });
    match field {
        "user" | "impersonator" | "session" | "credential" | "request_id" => line(limits::IDENTIFIER_BYTES_MAX),
        "user_type" | "auth_method" | "category" | "outcome" | "entity_type" => line(limits::SHORT_WORD_BYTES_MAX),
        "action" => Some(FieldLimit { bytes_max: limits::ACTION_BYTES_MAX, is_one_line: true, is_word: true }),
        "reason" => line(limits::ACTION_BYTES_MAX),
        "entity_id" | "entity_name" => line(limits::ENTITY_BYTES_MAX),
        "target" => line(limits::TARGET_BYTES_MAX),
        "domain" => line(limits::DOMAIN_BYTES_MAX),
        "ip_address" | "peer_address" => line(limits::ADDRESS_BYTES_MAX),
        "method" => line(limits::METHOD_BYTES_MAX),
        "user_agent" | "path" | "description" => {
            Some(FieldLimit { bytes_max: limits::LONG_TEXT_BYTES_MAX, is_one_line: false, is_word: false })
        }
        _ => None,
    }
}

impl<'a> CallerFields<'a> {
    /// The text fields, in the order of the format.
    fn texts(&self) -> [(&'static str, &Option<Cow<'a, str>>); 23] {
        [
            ("occurred_at", &self.occurred_at),
            ("user", &self.user),
            ("user_type", &self.user_type),
            ("impersonator", &self.impersonator),
            ("session", &self.session),
            ("auth_method", &self.auth_method),
            ("credential", &self.credential),
            ("category", &self.category),
            ("action", &self.action),
            ("outcome", &self.outcome),
            ("reason", &self.reason),
            ("entity_type", &self.entity_type),
            ("entity_id", &self.entity_id),
            ("entity_name", &self.entity_name),
            ("target", &self.target),
            ("domain", &self.domain),
            ("ip_address", &self.ip_address),
            ("peer_address", &self.peer_address),
            ("user_agent", &self.user_agent),
            ("method", &self.method),
            ("path", &self.path),
            ("request_id", &self.request_id),
            ("description", &self.description),
        ]
    }

    pub(super) fn check(&self) -> Result<(), EntryError> {
        for (field, value) in self.texts() {
            if let Some(limit) = field_limit(field) {
                check_text(field, value.as_deref(), limit.bytes_max, limit.is_one_line)?;
            }
        }
        self.check_words()?;
        self.check_objects()
    }

    fn check_words(&self) -> Result<(), EntryError> {
        let Some(action) = self.action.as_deref() else {
            return Err(EntryError::field("action", "is required, for example \"auth.login\""));
        };
        let Some(category) = self.category.as_deref() else {
            return Err(EntryError::field(
                "category",
                format!("is required: one of {}, or a custom lower-case word", CATEGORIES.join(", ")),
            ));
        };
        if category == NODE_CATEGORY || action == "log" || action.starts_with("log.") {
            return Err(EntryError::Reserved);
        }
        if !is_category(category) {
            let message = format!(
                "{category:?} is not a lower-case word of letters, digits, _ and -, such as {}",
                CATEGORIES.join(", ")
            );
            return Err(EntryError::field("category", message));
        }
        if !action.chars().all(|c| c.is_ascii_alphanumeric() || "._-:/".contains(c)) {
            return Err(EntryError::field(
                "action",
                "use letters, digits and . _ - : / with the verb last, such as \"quarantine.release\"",
            ));
        }
        if let Some(outcome) = self.outcome.as_deref()
            && !OUTCOMES.contains(&outcome)
        {
            return Err(EntryError::field("outcome", format!("{outcome:?} is not one of {}", OUTCOMES.join(", "))));
        }
        if let Some(time) = self.occurred_at.as_deref() {
            Timestamp::parse_rfc3339(time).map_err(|e| EntryError::field("occurred_at", e.to_string()))?;
            check_text("occurred_at", Some(time), limits::SHORT_WORD_BYTES_MAX, true)?;
        }
        Ok(())
    }

    fn check_objects(&self) -> Result<(), EntryError> {
        if let Some(changes) = self.changes {
            let wrong = |problem: &dyn std::fmt::Display| {
                EntryError::field(
                    "changes",
                    format!("must be a list of objects with `field`, `old` and `new`: {problem}"),
                )
            };
            let list: Vec<&RawValue> = serde_json::from_str(changes.get()).map_err(|e| wrong(&e))?;
            for change in &list {
                // serde would also accept a list of three values as a `Change`.
                if !change.get().starts_with('{') {
                    return Err(wrong(&"each change must be an object"));
                }
                serde_json::from_str::<Change<'_>>(change.get()).map_err(|e| wrong(&e))?;
            }
            if list.len() > limits::CHANGES_COUNT_MAX {
                return Err(EntryError::field("changes", format!("more than {} changes", limits::CHANGES_COUNT_MAX)));
            }
        }
        if self.details.is_some_and(|details| !details.get().starts_with('{')) {
            return Err(EntryError::field("details", "must be a JSON object"));
        }
        if self.redacted.as_ref().is_some_and(|paths| paths.len() > limits::REDACTED_COUNT_MAX) {
            return Err(EntryError::field("redacted", format!("more than {} paths", limits::REDACTED_COUNT_MAX)));
        }
        Ok(())
    }

    pub(super) fn rule_input(&self) -> RuleInput {
        let text = |value: &Option<Cow<'_, str>>| value.as_deref().map(str::to_owned);
        RuleInput {
            occurred_at: self.occurred_at.as_deref().and_then(|time| Timestamp::parse_rfc3339(time).ok()),
            user: text(&self.user),
            user_type: text(&self.user_type),
            impersonator: text(&self.impersonator),
            category: text(&self.category).unwrap_or_default(),
            action: text(&self.action).unwrap_or_default(),
            outcome: text(&self.outcome),
            entity_type: text(&self.entity_type),
            entity_id: text(&self.entity_id),
            ip_address: text(&self.ip_address).or_else(|| text(&self.peer_address)),
            user_agent: text(&self.user_agent),
            has_changes: self.changes.is_some(),
            amounts: self.changes.map(|changes| amounts(changes.get())).unwrap_or_default(),
        }
    }

    pub(super) fn write_fields(&self, out: &mut String) {
        for (field, value) in self.texts() {
            if let Some(value) = value {
                push_json(out, field, value);
            }
        }
        for (field, value) in [("changes", self.changes), ("details", self.details)] {
            if let Some(value) = value {
                push_json(out, field, value);
            }
        }
    }
}

pub(super) fn push_json<T: serde::Serialize + ?Sized>(out: &mut String, field: &str, value: &T) {
    // Strings, lists of strings and raw values cannot fail to serialize.
    let text = serde_json::to_string(value).unwrap_or_default();
    out.push_str(",\"");
    out.push_str(field);
    out.push_str("\":");
    out.push_str(&text);
}
