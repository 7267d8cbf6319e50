//! Compares the filter with a naive evaluation over plain JSON. Both must give the same answer for every entry and every filter.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::IpAddr;

use ipnet::IpNet;
use piperoll_format::time::Timestamp;
use piperoll_format::view::EntryView;
use piperoll_query::filter::Filter;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A generated term: key, and values as typed. A value without quotes may be a pattern.
type Term = (&'static str, Vec<String>);

/// Terms combined by AND, OR and NOT.
#[derive(Debug, Clone)]
enum Tree {
    Term(Term),
    Not(Box<Tree>),
    All(Vec<Tree>),
    Any(Vec<Tree>),
}

const USERS: [&str; 4] = ["alice", "bob", "Änne Müller", "a,b\"c"];
const ACTIONS: [&str; 4] = ["auth.login", "auth.logout", "quarantine.release", "quarantine.view"];
const ADDRESSES: [&str; 7] =
    ["10.1.2.3", "10.9.0.1", "192.0.2.7", "::ffff:10.1.2.3", "2001:db8::7", "2001:db8:1::7", "ec2.amazonaws.com"];
const NETS: [&str; 7] =
    ["10.0.0.0/8", "10.1.2.3", "192.0.2.0/24", "2001:db8::/32", "2001:db8::7", "0.0.0.0/0", "ec2.amazonaws.com"];
const OUTCOMES: [&str; 4] = ["success", "failure", "denied", "unknown"];
const TIMES: [&str; 4] =
    ["2026-04-14T23:59:59.999999Z", "2026-04-15T00:00:00Z", "2026-04-15T12:00:00+02:00", "2026-04-16T00:00:00Z"];
const DESCRIPTIONS: [&str; 4] = ["released message ÄÖÜ", "signed in", "Signed OUT", "straße"];

fn maybe<T: Clone + std::fmt::Debug + 'static>(values: &'static [T]) -> impl Strategy<Value = Option<T>> {
    prop::option::of(prop::sample::select(values))
}

prop_compose! {
    fn entry()(
        user in maybe(&USERS), action in prop::sample::select(&ACTIONS[..]), outcome in maybe(&OUTCOMES),
        ip in maybe(&ADDRESSES), occurred in maybe(&TIMES), description in maybe(&DESCRIPTIONS),
        impersonator in maybe(&USERS), kind in maybe(&["mail", "domain"]), id in maybe(&["7", "example.org"]),
        agent in maybe(&["curl/8.0", "Mozilla/5.0"]), seq in 0u64..5, bulk: bool, flagged: bool, redacted: bool,
        via in prop::sample::select(&["node", "cli", "socket uid=0"][..]),
    ) -> Value {
        let mut entry = Map::new();
        entry.insert("node_id".to_owned(), json!("mx1"));
        entry.insert("seq".to_owned(), json!(seq));
        entry.insert("timestamp".to_owned(), json!("2026-04-15T08:00:00.000000Z"));
        entry.insert("id".to_owned(), json!(format!("0198c0de-0000-7000-8000-00000000000{seq}")));
        entry.insert("action".to_owned(), json!(action));
        entry.insert("category".to_owned(), json!(if action.starts_with("auth") { "auth" } else { "data" }));
        for (name, value) in [
            ("user", user), ("outcome", outcome), ("ip_address", ip), ("occurred_at", occurred), ("description", description),
            ("impersonator", impersonator), ("entity_type", kind), ("entity_id", id), ("user_agent", agent),
        ] {
            if let Some(value) = value {
                entry.insert(name.to_owned(), json!(value));
            }
        }
        let details = if bulk { json!({ "counts": { "ok": 1 }, "note": "Needle", "affected": ["7", "mail/8"] }) } else { json!({ "counts": 1, "n": [seq, { "deep.er": "Ü" }] }) };
        entry.insert("details".to_owned(), details);
        if redacted {
            entry.insert("changes".to_owned(), json!([{ "field": "price", "old": seq, "new": 4.5 }, { "field": "a.b", "new": "x" }]));
        }
        if flagged {
            entry.insert("flags".to_owned(), json!([{ "rule": "off_hours", "reason": "22:10" }]));
        }
        if redacted {
            entry.insert("redacted".to_owned(), json!(["details.password"]));
        }
        entry.insert("via".to_owned(), json!(via));
        Value::Object(entry)
    }
}

fn term() -> impl Strategy<Value = Term> {
    fn quote(value: &str) -> String {
        format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
    }
    fn some(key: &'static str, values: Vec<String>) -> BoxedStrategy<Term> {
        prop::collection::vec(prop::sample::select(values), 1..3).prop_map(move |values| (key, values)).boxed()
    }
    let of = |key, values: &[&str]| some(key, values.iter().map(|value| quote(value)).collect());
    let bare = |key, values: &[&str]| some(key, values.iter().map(|value| (*value).to_owned()).collect());
    prop_oneof![
        of("user", &USERS),
        bare("user", &["alice", "a*", "*e", "~ALICE", "~ÄNNE*", "*", "*i*"]),
        of("impersonator", &USERS),
        bare("action", &["auth.login", "auth.*", "quarantine.view", "*", "*.view", "*a*in*"]),
        bare("verb", &["login", "view,release", "~LOG*", "*"]),
        of("outcome", &OUTCOMES),
        of("ip", &NETS),
        bare("ip", &["10.1.*", "2001:db8:*", "10.1.2.3..10.9.0.1", "2001:db8::..2001:db8:1::7", "*.amazonaws.com"]),
        bare("category", &["auth", "data", "log", "a*"]),
        bare("node", &["mx1", "mx2", "mx*"]),
        bare("entity", &["mail", "domain", "mail/7", "domain/example.org", "mail/8", "*/8", "mail/*", "*/*e*"]),
        bare("agent", &["CURL", "mozilla", "m*5.0"]),
        of("flag", &["off_hours", "other"]),
        of("via", &["node", "socket", "socket uid=0"]),
        bare("seq", &["3", "1..2", "2..", "..1", ">2"]),
        bare("seq", &["<=2", "4"]),
        of("id", &["0198c0de-0000-7000-8000-000000000003"]),
        bare("occurred", &["2026-04-15", "2026-04-15T10:00:00Z..", "..2026-04-15T00:00:00Z"]),
        bare("details", &["NEEDLE", "counts", "need*\"}\"", "ok*note"]),
        bare("details.n", &["2", ">2", "1..3", "..1", "*", "\"2\"", "2.0"]),
        bare("details.n", &["<3", "9"]),
        bare("details.note", &["Needle", "~needle", "N*", "needle"]),
        bare("details.n.deep.er", &["Ü", "~ü"]),
        bare("changes.price", &["4.5", ">=3", "*"]),
        bare("changes.price.old", &["4.5", "3"]),
        bare("changes.a.b.new", &["x", "null"]),
        bare("is", &["failed", "denied", "flagged", "impersonated", "bulk", "redacted"]),
        bare("description", &["SIGNED", "s*ed", "*"]),
        prop::sample::select(&["SIGNED", "äöü", "STRASSE", "straße", "s*d*i"][..])
            .prop_map(|text| ("", vec![text.to_owned()]))
            .boxed(),
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    term().prop_map(Tree::Term).prop_recursive(4, 10, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|tree| Tree::Not(Box::new(tree))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Tree::All),
            prop::collection::vec(inner, 2..4).prop_map(Tree::Any),
        ]
    })
}

/// Formats the tree as a user would type it; `style` chooses among the spellings.
fn text(tree: &Tree, style: u8) -> String {
    let all = |parts: &[Tree], between: &str| {
        parts.iter().map(|part| text(part, style / 2)).collect::<Vec<_>>().join(between)
    };
    match tree {
        Tree::Term((key, values)) => match (*key, style % 3) {
            ("", _) => values.join(","),
            (key, 0) => format!("{key}:({})", values.join(" OR ")),
            (key, 1) if !values[0].starts_with(['<', '>', '~']) => format!("{key}={}", values.join(",")),
            (key, _) => format!("{key}:{}", values.join(",")),
        },
        Tree::Not(inner) if style.is_multiple_of(2) => format!("NOT ({})", text(inner, style / 2)),
        Tree::Not(inner) => format!("-({})", text(inner, style / 2)),
        Tree::All(parts) => format!("({})", all(parts, if style.is_multiple_of(2) { " " } else { " AND " })),
        Tree::Any(parts) => format!("({})", all(parts, " OR ")),
    }
}

/// Evaluates the tree over plain JSON, following the documentation literally.
fn naive(entry: &Value, tree: &Tree) -> bool {
    match tree {
        Tree::Not(inner) => !naive(entry, inner),
        Tree::All(parts) => parts.iter().all(|part| naive(entry, part)),
        Tree::Any(parts) => parts.iter().any(|part| naive(entry, part)),
        Tree::Term((key, values)) => values
            .iter()
            .flat_map(|value| value.split(if *key == "verb" { "," } else { "\u{0}" }))
            .any(|value| holds(entry, key, value)),
    }
}

/// Whether a typed pattern, translated to a regular expression, matches the whole value or, if `part` is set, any part of the
/// value, ignoring case.
fn glob(typed: &str, have: &str, part: bool) -> bool {
    let (typed, folds) = typed.strip_prefix('~').map_or((typed, part), |rest| (rest, true));
    let mut pattern = String::new();
    let mut quoted = false;
    let mut chars = typed.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => pattern.push_str(&regex::escape(&chars.next().unwrap().to_string())),
            '*' if !quoted => pattern.push_str(".*"),
            c => pattern.push_str(&regex::escape(&c.to_string())),
        }
    }
    let pattern = if part { format!("(?s){pattern}") } else { format!("(?s)^{pattern}$") };
    let fold = |text: &str| if folds { text.to_lowercase() } else { text.to_owned() };
    regex::Regex::new(&fold(&pattern)).unwrap().is_match(&fold(have))
}

fn plain(typed: &str) -> String {
    typed
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .map_or(typed.to_owned(), |inner| inner.replace("\\\"", "\"").replace("\\\\", "\\"))
}

/// Returns every value at a path.
fn at<'a>(value: &'a Value, path: &[&str]) -> Vec<&'a Value> {
    let mut found = Vec::new();
    if path.is_empty() {
        found.push(value);
    }
    match value {
        Value::Array(items) => found.extend(items.iter().flat_map(|item| at(item, path))),
        Value::Object(map) => {
            for keys in 1..=path.len() {
                found.extend(map.get(&path[..keys].join(".")).into_iter().flat_map(|inner| at(inner, &path[keys..])));
            }
        }
        _ => {}
    }
    found
}

fn value_holds(value: &Value, typed: &str) -> bool {
    if typed == "*" {
        return true;
    }
    if value.is_array() || value.is_object() {
        return false;
    }
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let number: Option<f64> = text.parse().ok();
    let compare =
        |bound: &str, holds: fn(f64, f64) -> bool| number.is_some_and(|number| holds(number, bound.parse().unwrap()));
    if let Some(bound) = typed.strip_prefix(">=") {
        compare(bound, |a, b| a >= b)
    } else if let Some(bound) = typed.strip_prefix('>') {
        compare(bound, |a, b| a > b)
    } else if let Some(bound) = typed.strip_prefix('<') {
        compare(bound, |a, b| a < b)
    } else if let Some((from, to)) = typed.split_once("..") {
        (from.is_empty() || compare(from, |a, b| a >= b))
            && (to.is_empty() || compare(to, |a, b| a <= b))
            && number.is_some()
    } else if let Ok(wanted) = typed.parse::<f64>() {
        value.is_number() && number == Some(wanted)
    } else {
        glob(typed, &text, false)
    }
}

fn holds(entry: &Value, key: &str, typed: &str) -> bool {
    let have = |field: &str| entry.get(field).and_then(Value::as_str);
    let contains = |field: Option<String>| field.is_some_and(|field| glob(typed, &field, true));
    let value = plain(typed);
    let value = value.as_str();
    if let Some(path) = key.strip_prefix("details.") {
        let path: Vec<&str> = path.split('.').collect();
        return at(&entry["details"], &path).into_iter().any(|found| value_holds(found, typed));
    }
    if let Some(path) = key.strip_prefix("changes.") {
        let changes = entry.get("changes").and_then(Value::as_array).cloned().unwrap_or_default();
        return changes.iter().any(|change| {
            let field = change["field"].as_str().unwrap();
            let sides: Vec<&str> = match path.strip_prefix(field) {
                Some("") => vec!["old", "new"],
                Some(".old") => vec!["old"],
                Some(".new") => vec!["new"],
                _ => vec![],
            };
            sides.into_iter().filter_map(|side| change.get(side)).any(|found| value_holds(found, typed))
        });
    }
    match key {
        "" | "description" => contains(have("description").map(str::to_owned)),
        "node" => have("node_id").is_some_and(|node| glob(typed, node, false)),
        "outcome" => have("outcome").unwrap_or("unknown") == value,
        "verb" => have("action").is_some_and(|action| glob(typed, action.rsplit('.').next().unwrap(), false)),
        "entity" => match typed.split_once('/') {
            Some((kind, id)) => {
                let is_kind = have("entity_type").is_some_and(|have| glob(kind, have, false));
                let affected = entry["details"]["affected"].as_array().cloned().unwrap_or_default();
                (is_kind && have("entity_id").is_some_and(|have| glob(id, have, false)))
                    || affected.iter().filter_map(Value::as_str).any(|name| {
                        (is_kind && glob(id, name, false))
                            || name.split_once('/').is_some_and(|(a, b)| glob(kind, a, false) && glob(id, b, false))
                    })
            }
            None => have("entity_type").is_some_and(|have| glob(typed, have, false)),
        },
        "ip" => have("ip_address").is_some_and(|have| {
            let address = have.parse::<IpAddr>().map(|address| address.to_canonical());
            if let Some((from, to)) = value.split_once("..") {
                let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
                return address
                    .is_ok_and(|address| address.is_ipv4() == from.is_ipv4() && from <= address && address <= to);
            }
            let net = match value {
                "10.1.*" => "10.1.0.0/16",
                "2001:db8:*" => "2001:db8::/32",
                other => other,
            };
            let wanted = net.parse::<IpNet>().ok().or_else(|| net.parse::<IpAddr>().ok().map(IpNet::from));
            match (address, wanted) {
                (Ok(address), Some(net)) => net.contains(&address),
                (_, None) => glob(typed, have, false),
                (Err(_), Some(_)) => false,
            }
        }),
        "agent" => contains(have("user_agent").map(str::to_owned)),
        "flag" => {
            entry.get("flags").is_some_and(|flags| flags.as_array().unwrap().iter().any(|flag| flag["rule"] == value))
        }
        "via" => have("via").is_some_and(|via| via == value || via.split(' ').next() == Some(value)),
        "id" => have("id") == Some(value),
        "seq" => {
            let seq = entry["seq"].as_u64().unwrap();
            if let Some(bound) = value.strip_prefix('>') {
                return seq > bound.parse().unwrap();
            }
            if let Some(bound) = value.strip_prefix("<=") {
                return seq <= bound.parse().unwrap();
            }
            match value.split_once("..") {
                Some((from, to)) => from.parse().unwrap_or(0) <= seq && seq <= to.parse().unwrap_or(u64::MAX),
                None => value.parse() == Ok(seq),
            }
        }
        "occurred" => {
            let time = Timestamp::parse_rfc3339(have("occurred_at").or(have("timestamp")).unwrap()).unwrap();
            let at = |text: &str| Timestamp::parse_rfc3339(text).unwrap();
            match value.split_once("..") {
                Some((from, "")) => at(from) <= time,
                Some(("", to)) => time < at(to),
                _ => at("2026-04-15T00:00:00Z") <= time && time < at("2026-04-16T00:00:00Z"),
            }
        }
        "details" => {
            contains(entry.get("details").map(Value::to_string)) || contains(entry.get("changes").map(Value::to_string))
        }
        "is" => match value {
            "failed" => have("outcome") == Some("failure"),
            "denied" => have("outcome") == Some("denied"),
            "flagged" => entry.get("flags").is_some(),
            "impersonated" => have("impersonator").is_some(),
            "bulk" => entry["details"]["counts"].is_object(),
            _ => entry.get("redacted").is_some(),
        },
        field => have(field).is_some_and(|have| glob(typed, have, false)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]
    #[test]
    fn a_filter_is_its_naive_evaluation(entry in entry(), tree in tree(), style in any::<u8>()) {
        let now = Timestamp::parse_rfc3339("2026-04-20T00:00:00Z").unwrap();
        let text = text(&tree, style);
        let filter = Filter::parse(&text, now).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let body = entry.to_string();
        let view = EntryView::parse(body.as_bytes()).unwrap();
        prop_assert_eq!(filter.matches(&view), naive(&entry, &tree), "{} on {}", text, body);
        let again = Filter::parse_stored(&filter.to_string(), now).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(&again, &filter);
        // The wider filter that is sent to a node that knows only version 1 excludes no entry that the filter matches.
        let widened = filter.widened_to_version_1();
        prop_assert!(widened.in_version_1().is_some());
        prop_assert!(!filter.matches(&view) || widened.matches(&view), "{} instead of {}", widened, text);
    }
}

/// Text in JSON is found whether or not it is escaped.
#[test]
fn escaped_text_is_found_like_plain_text() {
    let now = Timestamp::from_micros(0);
    for details in
        [r#"{"who":"M\u00fcller","url":"\/index.php\/files"}"#, r#"{"who":"Müller","url":"/index.php/files"}"#]
    {
        let body = format!("{{\"node_id\":\"mx1\",\"via\":\"cli\",\"details\":{}}}", details.replace("\\\\", "\\"));
        let view = EntryView::parse(body.as_bytes()).unwrap();
        for text in [
            "details:müller",
            "details:\"/index.php/files\"",
            "details.who:Müller",
            "details.url:/index.php/files",
            "subject:Müller",
            "details:\"\\\"who\\\":\\\"M\"",
        ] {
            assert!(Filter::parse(text, now).unwrap().matches(&view), "{text} on {body}");
            assert!(!Filter::parse(&format!("-{text}"), now).unwrap().matches(&view), "-{text} on {body}");
        }
        // A filter that predates version 2 still matches the stored form only.
        let old = Filter::parse_stored("details:müller", now).unwrap();
        assert_eq!(old.matches(&view), !body.contains("u00fc"), "{body}");
    }
}
