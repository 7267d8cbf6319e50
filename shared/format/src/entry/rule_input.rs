//! Properties of an entry that detection rules use.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::time::Timestamp;

/// Maximum number of changed amounts that are read from one entry.
const AMOUNTS_MAX: usize = 100;

/// Owned fields of an entry for the detection rules. The rules run when an entry is recorded, but the fields are extracted when
/// it is parsed, because parsing runs in parallel and recording does not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuleInput {
    pub occurred_at: Option<Timestamp>,
    pub user: Option<String>,
    pub user_type: Option<String>,
    pub impersonator: Option<String>,
    pub category: String,
    pub action: String,
    pub outcome: Option<String>,
    pub entity_type: Option<String>,
    pub entity_id: Option<String>,
    /// The `ip_address` of the entry, or its `peer_address` if it has no `ip_address`.
    pub ip_address: Option<String>,
    pub user_agent: Option<String>,
    pub has_changes: bool,
    /// Changes from one number to another in `changes`.
    pub amounts: Vec<Amount>,
}

/// A number that changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Amount {
    pub field: String,
    pub old: f64,
    pub new: f64,
}

impl RuleInput {
    /// Returns whether the action contains one of these verbs as a word: `user.delete`, `DeleteUser`, `users.deleteMany`.
    pub fn has_verb(&self, verbs: &[&str]) -> bool {
        split_words(&self.action).iter().any(|word| verbs.contains(&word.as_str()))
    }

    /// Returns whether the action did not take place (outcome `failure` or `denied`).
    pub fn was_in_vain(&self) -> bool {
        matches!(self.outcome.as_deref(), Some("failure" | "denied"))
    }

    /// The outcome of a login attempt, or `None` if the entry does not record a login attempt.
    pub fn login(&self) -> Option<Login> {
        if !matches!(self.category.as_str(), "auth" | "audit") {
            return None;
        }
        let words = split_words(&self.action);
        let has = |one: &[&str]| words.iter().any(|word| one.contains(&word.as_str()));
        let has_pair =
            |first: &str| words.windows(2).any(|pair| pair[0] == first && matches!(pair[1].as_str(), "in" | "on"));
        if !has(&["login", "logon", "signin", "authenticate"]) && !has_pair("log") && !has_pair("sign") {
            return None;
        }
        Some(match self.outcome.as_deref() {
            Some("success") => Login::Succeeded,
            Some("failure" | "denied") => Login::Failed,
            _ if has(&["failed", "failure", "denied", "refused"]) => Login::Failed,
            _ => Login::Other,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    Succeeded,
    Failed,
    Other,
}

/// Splits a name into lower-case words at any separator or change of case: `unit_price`, `unitPrice`, `unit.price`.
pub fn split_words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before_is_lower = false;
    for c in name.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && before_is_lower) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
        before_is_lower = c.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Returns the changed values that are numbers.
pub(super) fn amounts(changes: &str) -> Vec<Amount> {
    #[derive(Deserialize)]
    struct Change<'a> {
        field: String,
        #[serde(borrow)]
        old: Option<&'a RawValue>,
        #[serde(borrow)]
        new: Option<&'a RawValue>,
    }
    let changes: Vec<Change<'_>> = serde_json::from_str(changes).unwrap_or_default();
    let of = |change: Change<'_>| {
        let (old, new) = (amount(change.old?.get())?, amount(change.new?.get())?);
        Some(Amount { field: change.field, old, new })
    };
    changes.into_iter().filter_map(of).filter(|amount| amount.old != amount.new).take(AMOUNTS_MAX).collect()
}

/// Parses a JSON number, or a string that contains one: `"12.50 EUR"`, `"1.000,50"`, `"$1,000.50"`.
fn amount(json: &str) -> Option<f64> {
    let number = if let Ok(text) = serde_json::from_str::<String>(json) {
        let digits = text.trim_matches(|c: char| !c.is_ascii_digit() && c != '-');
        // The last point or comma is a decimal separator if one or two digits follow it. A single point is always a decimal
        // separator.
        let mark = digits.rfind(['.', ',']).filter(|at| {
            let behind = digits.len() - at - 1;
            (1..=2).contains(&behind) || (digits[*at..].starts_with('.') && digits.matches(['.', ',']).count() == 1)
        });
        let whole = |part: &str| part.replace(['.', ',', '\'', ' ', '\u{a0}'], "");
        match mark {
            Some(at) => format!("{}.{}", whole(&digits[..at]), &digits[at + 1..]).parse(),
            None => whole(digits).parse(),
        }
    } else {
        json.parse()
    };
    number.ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        for (json, expected) in [
            ("12.5", Some(12.5)),
            (r#""12.50 EUR""#, Some(12.5)),
            (r#""100,00""#, Some(100.0)),
            (r#""1.000.000,00""#, Some(1_000_000.0)),
            (r#""$1,000.50""#, Some(1_000.5)),
            (r#""1,000""#, Some(1_000.0)),
            (r#""-3""#, Some(-3.0)),
            (r#""none""#, None),
            ("[1,2]", None),
            ("null", None),
            ("true", None),
        ] {
            assert_eq!(amount(json), expected, "{json}");
        }
    }

    #[test]
    fn words_of_names() {
        assert_eq!(split_words("DeleteUser"), ["delete", "user"]);
        assert_eq!(split_words("unit_price.netAmount[0]"), ["unit", "price", "net", "amount", "0"]);
        assert_eq!(split_words("auth.login-failed"), ["auth", "login", "failed"]);
    }
}
