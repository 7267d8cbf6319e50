//! Interprets the names of JSON members that describe neighboring or nested values.

/// Keys of members that contain the name of a neighboring value (`LABELS`), and keys of values named in this way (`LABELLED`).
const LABELS: [&str; 18] = [
    "field",
    "name",
    "key",
    "header",
    "header_name",
    "property",
    "attribute",
    "path",
    "k",
    "type",
    "id",
    "param",
    "parameter",
    "parametername",
    "option",
    "variable",
    "column",
    "setting",
];
const LABELLED: [&str; 17] = [
    "old", "new", "value", "values", "val", "v", "from", "to", "before", "after", "data", "content", "default",
    "current", "previous", "oldvalue", "newvalue",
];
/// Keys of members that, in an object with a secret's name, only describe the secret.
const ABOUT: [&str; 66] = [
    "id",
    "name",
    "type",
    "kind",
    "status",
    "state",
    "arn",
    "role",
    "roles",
    "principal",
    "user",
    "username",
    "owner",
    "scope",
    "scopes",
    "version",
    "algorithm",
    "alg",
    "fingerprint",
    "count",
    "enabled",
    "description",
    "path",
    "url",
    "uri",
    "action",
    "actions",
    "resource",
    "reason",
    "decision",
    "expiration",
    "expires",
    "expiry",
    "issuer",
    "audience",
    "provider",
    "source",
    "namespace",
    "label",
    "labels",
    "tags",
    "optional",
    "permissions",
    "method",
    "region",
    "endpoint",
    "bucket",
    "host",
    "hostname",
    "port",
    "database",
    "db",
    "zone",
    "account",
    "tenant",
    "domain",
    "server",
    "service",
    "protocol",
    "format",
    "autocomplete",
    "minlength",
    "maxlength",
    "required",
    "policy",
    "rules",
];
const ABOUT_ENDS: [&str; 27] = [
    "id",
    "name",
    "arn",
    "type",
    "at",
    "date",
    "time",
    "count",
    "length",
    "policy",
    "status",
    "state",
    "role",
    "user",
    "owner",
    "seconds",
    "days",
    "age",
    "version",
    "ref",
    "path",
    "file",
    "expiration",
    "expiry",
    "enabled",
    "mode",
    "key",
];
/// Keys of lists that hold names.
pub(super) const NAME_LISTS: [&str; 22] = [
    "fields",
    "columns",
    "attributes",
    "keys",
    "names",
    "changed",
    "modified",
    "properties",
    "scopes",
    "params",
    "required",
    "missing",
    "hidden",
    "roles",
    "permissions",
    "tags",
    "changed_fields",
    "changedfields",
    "parameters",
    "options",
    "headers",
    "updated_fields",
];

/// Returns whether a member with this key contains the name of a neighboring value: `name`, or `ParameterKey` next to
/// `ParameterValue`.
pub(super) fn is_label(key: &str) -> bool {
    LABELS.iter().any(|label| key.eq_ignore_ascii_case(label))
        || ["Key", "Name", "Field", "_key", "_name", "_field"]
            .iter()
            .any(|end| key.len() > end.len() && key.ends_with(end))
}

pub(super) fn is_labelled(key: &str) -> bool {
    LABELLED.iter().any(|labelled| key.eq_ignore_ascii_case(labelled))
        || ["Value", "_value", "From", "To", "_from", "_to"]
            .iter()
            .any(|end| key.len() > end.len() && key.ends_with(end))
}

/// Returns whether a member holds the secret itself: `{"token":{"value":…}}`.
pub(super) fn is_content(key: &str) -> bool {
    is_labelled(key)
        || ["plain", "plaintext", "text", "raw", "string", "secret", "key", "token", "contents", "material"]
            .iter()
            .any(|name| key.eq_ignore_ascii_case(name))
}

/// Returns whether a member of an object with a secret's name only describes the secret.
pub(super) fn is_about(key: &str) -> bool {
    if ABOUT.iter().any(|about| key.eq_ignore_ascii_case(about)) {
        return true;
    }
    // `accessKeyId`, `created_at`, `minLength`
    let word_begins =
        key.char_indices().rev().find(|(at, c)| c.is_uppercase() && *at > 0 || matches!(c, '_' | '-' | '.'));
    let last = word_begins.map_or(key, |(at, _)| key[at..].trim_start_matches(['_', '-', '.']));
    last.len() < key.len() && ABOUT_ENDS.iter().any(|end| last.eq_ignore_ascii_case(end))
}
