//! Keys and values of the filter language, for user interfaces.

use super::test::PROPERTIES;

/// Every key of the language, for messages and help. Paths such as `details.KEY` and `changes.FIELD`, which address values inside
/// these fields, are not listed.
pub const KEYS: [&str; 28] = [
    "user",
    "actor",
    "subject",
    "user_type",
    "impersonator",
    "session",
    "credential",
    "auth_method",
    "action",
    "verb",
    "category",
    "outcome",
    "reason",
    "entity",
    "target",
    "domain",
    "ip",
    "agent",
    "request",
    "node",
    "flag",
    "via",
    "id",
    "seq",
    "occurred",
    "details",
    "description",
    "is",
];

/// Entry fields whose key in the language has a different name, each with that key.
const FIELD_NAMES: [(&str, &str); 5] = [
    ("ip_address", "ip"),
    ("user_agent", "agent"),
    ("request_id", "request"),
    ("node_id", "node"),
    ("occurred_at", "occurred"),
];

/// Returns the key with this name, or the key of the entry field with this name.
pub fn canonical_key(name: &str) -> Option<&'static str> {
    let named = KEYS.into_iter().find(|key| *key == name);
    named.or_else(|| FIELD_NAMES.iter().find(|(field, _)| *field == name).map(|(_, key)| *key))
}

/// Whether a name is a key, a field that has a key, or a path to a value inside `details` or `changes`.
pub fn is_key(name: &str) -> bool {
    canonical_key(name).is_some()
        || name.split_once('.').is_some_and(|(root, path)| matches!(root, "details" | "changes") && !path.is_empty())
}

/// Rules that flag entries (docs/flags.md).
pub(super) const FLAG_WORDS: [&str; 9] = [
    "value_changed",
    "many_operations",
    "outside_hours",
    "sensitive_deletion",
    "repeated_edits",
    "failed_logins",
    "new_address",
    "new_device",
    "impersonation",
];

/// Possible first words of `via`.
pub(super) const VIA_WORDS: [&str; 8] = ["node", "socket", "http", "import", "cli", "syslog", "journald", "file"];

/// Each key, the field by which its values can be counted (`GET /stats?by=`), and a description of what it matches. The most
/// frequently needed keys come first.
pub const KEY_WORDS: [(&str, Option<&str>, &str); KEYS.len()] = [
    ("user", Some("user"), "who did it; k* matches names that begin with k, ~kim ignores case"),
    ("action", Some("action"), "what was done; auth.* and *.update match several actions"),
    ("verb", Some("verb"), "the last word of the action, such as delete"),
    ("entity", Some("entity"), "what was affected: type or type/id"),
    ("is", None, "failed, denied, flagged, impersonated, bulk, redacted or erased"),
    ("outcome", Some("outcome"), "success, failure, denied or unknown"),
    ("ip", Some("ip_address"), "source address or network: 10.0.0.0/8, 203.0.113.*, 10.0.0.1..10.0.0.9"),
    ("node", Some("node_id"), "the node that recorded it"),
    (
        "category",
        Some("category"),
        "auth, user, config, data, cluster, security, integration, audit, log, or a custom category",
    ),
    ("actor", Some("user"), "the acting person, or the account that was used"),
    ("subject", None, "everything about a person or thing"),
    ("target", Some("target"), "what was affected, by name"),
    ("domain", Some("domain"), "which domain"),
    ("reason", Some("reason"), "why it failed or was denied"),
    ("flag", Some("flag"), "the detection rule that flagged it"),
    ("session", Some("session"), "which session"),
    ("request", Some("request_id"), "which request"),
    ("impersonator", Some("impersonator"), "the person acting as the user"),
    ("user_type", Some("user_type"), "person, service and so on"),
    ("credential", Some("credential"), "the API key, by ID"),
    ("auth_method", Some("auth_method"), "how the user signed in"),
    ("agent", Some("user_agent"), "part of the user agent"),
    ("via", Some("via"), "the interface through which it was recorded"),
    ("id", None, "one entry, by ID"),
    ("seq", None, "row numbers of a node: 5, 1..9"),
    ("occurred", None, "when it happened according to the caller: from..to"),
    ("details", None, "part of the details; details.subject:hello and details.count:>5 match single values"),
    ("description", None, "part of the description, like text without a key"),
];

/// Values of `is:`.
pub const IS_WORDS: [&str; PROPERTIES.len()] = {
    let mut words = [""; PROPERTIES.len()];
    let mut index = 0;
    while index < words.len() {
        words[index] = PROPERTIES[index].0;
        index += 1;
    }
    words
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Facet;

    #[test]
    fn every_key_has_words_and_counts_by_a_field_there_is() {
        for key in KEYS {
            assert_eq!(KEY_WORDS.iter().filter(|(known, ..)| *known == key).count(), 1, "{key}");
        }
        for (key, counted_by, _) in KEY_WORDS {
            assert!(counted_by.is_none_or(|field| Facet::parse(field).is_ok()), "{key}");
        }
    }
    #[test]
    fn the_rules_are_those_that_flag() {
        assert_eq!(FLAG_WORDS, piperoll_detect::RULES);
    }
}
