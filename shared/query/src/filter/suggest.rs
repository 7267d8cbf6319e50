//! Suggestions for mistyped filters.

use super::keywords::KEYS;

/// Minimum similarity, from 0 to 1, of a suggested word to the typed one: one wrong letter in four is allowed.
const ALIKE_MIN: f64 = 0.75;

pub(super) const NO_REGEX: &str = "regular expressions are not supported: * matches any characters, as in user:k*, and ~ ignores case, as in user:~kim; quote a value that contains these characters";

/// Names that other query languages use for keys, and what to write instead.
const OTHER_KEYS: [(&str, &str); 34] = [
    ("username", "user"),
    ("user_name", "user"),
    ("usr", "user"),
    ("who", "actor"),
    ("event", "action"),
    ("event_type", "action"),
    ("operation", "action or verb"),
    ("type", "entity or category"),
    ("kind", "entity or category"),
    ("resource", "entity"),
    ("object", "entity"),
    ("entity_name", "subject"),
    ("host", "node"),
    ("hostname", "node"),
    ("source", "ip or via"),
    ("src", "ip"),
    ("src_ip", "ip"),
    ("client_ip", "ip"),
    ("address", "ip"),
    ("addr", "ip"),
    ("peer_address", "details or ip"),
    ("status", "outcome"),
    ("result", "outcome"),
    ("success", "outcome:success or is:failed"),
    ("severity", "flag, category or is:flagged"),
    ("level", "flag, category or is:flagged"),
    ("message", "text in quotes, which searches the description"),
    ("msg", "text in quotes, which searches the description"),
    ("text", "text in quotes, which searches the description"),
    ("time", "--from and --to, or occurred"),
    ("timestamp", "--from and --to, or occurred"),
    ("date", "--from and --to, or occurred"),
    ("created", "--from and --to, or occurred"),
    ("role", "user_type"),
];

/// Values that other query languages use for outcomes.
const OTHER_OUTCOMES: [(&str, &str); 16] = [
    ("ok", "success"),
    ("succeeded", "success"),
    ("successful", "success"),
    ("passed", "success"),
    ("allowed", "success"),
    ("accepted", "success"),
    ("failed", "failure"),
    ("fail", "failure"),
    ("error", "failure"),
    ("err", "failure"),
    ("deny", "denied"),
    ("refused", "denied"),
    ("rejected", "denied"),
    ("forbidden", "denied"),
    ("blocked", "denied"),
    ("unauthorized", "denied"),
];

pub(super) fn unknown_key(typed: &str) -> String {
    let lower = typed.to_lowercase();
    let bare = lower.trim_start_matches('+');
    let meant = if KEYS.contains(&bare) {
        Some(bare.to_owned())
    } else {
        OTHER_KEYS
            .iter()
            .find(|(other, _)| *other == bare)
            .map(|(_, meant)| (*meant).to_owned())
            .or_else(|| nearest(bare, &KEYS))
    };
    let why = if typed.starts_with('+') { " A plus is not needed: all conditions must hold." } else { "" };
    match meant {
        Some(meant) => {
            format!("unknown key {typed:?}; did you mean {meant}?{why} Quote text to search for it literally")
        }
        None => {
            format!("unknown key {typed:?}; the keys are {}; quote text to search for it literally", KEYS.join(" "))
        }
    }
}

/// Returns the error message for a value that is not in the list of its key.
pub(super) fn not_in_list(key: &str, typed: &str, known: &[&str]) -> String {
    let lower = typed.to_lowercase();
    let meant = if known.contains(&lower.as_str()) {
        Some(lower)
    } else {
        let other = OTHER_OUTCOMES
            .iter()
            .find(|(other, meant)| *other == lower && known.contains(meant))
            .map(|(_, meant)| (*meant).to_owned());
        other.or_else(|| nearest(&lower, known))
    };
    match meant {
        Some(meant) => {
            format!("{key} has no value {typed:?}; did you mean {key}:{meant}? Its values are {}", known.join(" "))
        }
        None => format!("{key} has no value {typed:?}; its values are {}", known.join(" ")),
    }
}

/// Returns the word of a list that is similar to the typed one.
pub(super) fn near(typed: &str, known: &[&str]) -> Option<String> {
    nearest(typed, known)
}

/// Whether a word is an operator that other languages, such as SQL, write between a field and its values.
pub(super) fn is_foreign_operator(word: &str) -> bool {
    ["in", "like", "is", "equals", "eq", "contains", "matches", "ilike", "between"]
        .iter()
        .any(|known| word.eq_ignore_ascii_case(known))
}

fn nearest(typed: &str, known: &[&str]) -> Option<String> {
    let alike = known.iter().map(|word| (strsim::normalized_damerau_levenshtein(typed, word), *word));
    let (likeness, word) = alike.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    let begins = typed.len() > 2 && word.starts_with(typed);
    (likeness >= ALIKE_MIN || begins).then(|| word.to_owned())
}

/// Refuses operators of other query languages that are written as separate words.
pub(super) fn refuse_foreign_word(word: &str) -> Result<(), String> {
    let write = match word {
        "&&" | "&" => "AND, or a space",
        "||" | "|" => "OR",
        "," => "a comma directly between the values of one key, as in user:alice,bob",
        "#" | "//" | "--" => {
            return Err(format!("a filter has no comments; remove this one, or quote {word:?} to search for it"));
        }
        "<>" | "!" => "NOT, or a minus directly before the condition",
        _ => return Ok(()),
    };
    Err(format!("write {write}; quote {word:?} to search for it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_suggested() {
        for (typed, meant) in [
            ("usr", "did you mean user?"),
            ("User", "did you mean user?"),
            ("actoin", "did you mean action?"),
            ("host", "did you mean node?"),
            ("+user", "did you mean user?"),
            ("zzz", "the keys are"),
        ] {
            assert!(unknown_key(typed).contains(meant), "{typed}: {}", unknown_key(typed));
        }
        let outcomes = ["success", "failure", "denied", "unknown"];
        for (typed, meant) in [
            ("failed", "outcome:failure"),
            ("Success", "outcome:success"),
            ("sucess", "outcome:success"),
            ("deny", "outcome:denied"),
        ] {
            assert!(not_in_list("outcome", typed, &outcomes).contains(meant), "{typed}");
        }
        assert!(!not_in_list("outcome", "purple", &outcomes).contains("did you mean"));
    }
}
