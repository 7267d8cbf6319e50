//! What a filter can be made of, for pages and programs that help people to write one.

use super::{KEYS, PROPERTIES};

/// Key, the field by which its values can be counted (`GET /stats?by=`), and what it matches. In the order in which people
/// need them.
pub const KEY_WORDS: [(&str, Option<&str>, &str); KEYS.len()] = [
    ("user", Some("user"), "who did it"),
    ("action", Some("action"), "what was done; * at the end matches everything that begins so"),
    ("entity", Some("entity"), "what it was done to: type or type/id"),
    ("is", None, "failed, denied, flagged, impersonated, bulk, redacted or erased"),
    ("outcome", Some("outcome"), "success, failure, denied or unknown"),
    ("ip", Some("ip_address"), "from which address or network, such as 10.0.0.0/8"),
    ("node", Some("node_id"), "which node recorded it"),
    ("category", Some("category"), "auth, user, config, data, cluster, security, integration, audit or log"),
    ("actor", Some("user"), "who really did it, or as whom"),
    ("subject", None, "everything that touches a person or thing"),
    ("target", Some("target"), "what it was done to, by name"),
    ("domain", Some("domain"), "which domain"),
    ("reason", Some("reason"), "why it failed or was denied"),
    ("flag", Some("flag"), "which rule flagged it"),
    ("session", Some("session"), "which session"),
    ("request", Some("request_id"), "which request"),
    ("impersonator", Some("impersonator"), "the real person behind the user"),
    ("user_type", Some("user_type"), "person, service and so on"),
    ("credential", Some("credential"), "which API key, by its id"),
    ("auth_method", Some("auth_method"), "how they signed in"),
    ("agent", Some("user_agent"), "a part of the user agent"),
    ("via", Some("via"), "through which interface it was recorded"),
    ("id", None, "one entry by its id"),
    ("seq", None, "row numbers of a node: 5, 1..9"),
    ("occurred", None, "when it happened by the caller's word: from..to"),
    ("details", None, "a piece of the details"),
];

/// What can stand behind `is:`.
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
    use crate::log::stats::Facet;

    #[test]
    fn every_key_has_words_and_counts_by_a_field_there_is() {
        for key in KEYS {
            assert_eq!(KEY_WORDS.iter().filter(|(known, ..)| *known == key).count(), 1, "{key}");
        }
        for (key, counted_by, _) in KEY_WORDS {
            assert!(counted_by.is_none_or(|field| Facet::parse(field).is_ok()), "{key}");
        }
    }
}
