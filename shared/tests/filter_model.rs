//! The filter against a naive evaluation over plain JSON: same answer for every entry and every filter.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::IpAddr;

use ipnet::IpNet;
use piperoll_shared::log::filter::Filter;
use piperoll_shared::log::time::Timestamp;
use piperoll_shared::log::view::EntryView;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// One term as a generator made it: key, values, negated.
type Term = (&'static str, Vec<String>, bool);

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
        let details = if bulk { json!({ "counts": { "ok": 1 }, "note": "Needle" }) } else { json!({ "counts": 1 }) };
        entry.insert("details".to_owned(), details);
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
    let of = |key: &'static str, values: &'static [&'static str]| {
        prop::collection::vec(prop::sample::select(values), 1..3)
            .prop_map(move |values| (key, values.into_iter().map(str::to_owned).collect::<Vec<_>>()))
            .boxed()
    };
    let key = prop_oneof![
        of("user", &USERS),
        of("impersonator", &USERS),
        of("action", &["auth.login", "auth.*", "quarantine.view", "*"]),
        of("outcome", &OUTCOMES),
        of("ip", &NETS),
        of("category", &["auth", "data", "log"]),
        of("node", &["mx1", "mx2"]),
        of("entity", &["mail", "domain", "mail/7", "domain/example.org"]),
        of("agent", &["CURL", "mozilla"]),
        of("flag", &["off_hours", "other"]),
        of("via", &["node", "socket", "socket uid=0"]),
        of("seq", &["3", "1..2", "2..", "..1"]),
        of("id", &["0198c0de-0000-7000-8000-000000000003"]),
        of("occurred", &["2026-04-15", "2026-04-15T10:00:00Z..", "..2026-04-15T00:00:00Z"]),
        of("details", &["NEEDLE", "counts"]),
        of("is", &["failed", "denied", "flagged", "impersonated", "bulk", "redacted"]),
        prop::sample::select(&["SIGNED", "äöü", "STRASSE", "straße"][..])
            .prop_map(|text| ("", vec![text.to_owned()]))
            .boxed(),
    ];
    (key, any::<bool>()).prop_map(|((key, values), negated)| (key, values, negated))
}

fn text(terms: &[Term]) -> String {
    let quote = |value: &String| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
    let words: Vec<String> = terms
        .iter()
        .map(|(key, values, negated)| {
            let values: Vec<String> = values.iter().map(quote).collect();
            let colon = if key.is_empty() { "" } else { ":" };
            format!("{}{key}{colon}{}", if *negated { "-" } else { "" }, values.join(","))
        })
        .collect();
    words.join(" ")
}

/// The documentation, word for word, over plain JSON.
fn naive(entry: &Value, terms: &[Term]) -> bool {
    terms.iter().all(|(key, values, negated)| values.iter().any(|value| holds(entry, key, value)) != *negated)
}

fn holds(entry: &Value, key: &str, value: &str) -> bool {
    let have = |field: &str| entry.get(field).and_then(Value::as_str);
    let contains = |field: Option<String>| field.is_some_and(|f| f.to_lowercase().contains(&value.to_lowercase()));
    match key {
        "" => contains(have("description").map(str::to_owned)),
        "node" => have("node_id") == Some(value),
        "outcome" => have("outcome").unwrap_or("unknown") == value,
        "action" => match value.strip_suffix('*') {
            Some(prefix) => have("action").is_some_and(|action| action.starts_with(prefix)),
            None => have("action") == Some(value),
        },
        "entity" => match value.split_once('/') {
            Some((kind, id)) => have("entity_type") == Some(kind) && have("entity_id") == Some(id),
            None => have("entity_type") == Some(value),
        },
        "ip" => have("ip_address").is_some_and(|have| {
            let wanted = value.parse::<IpNet>().ok().or_else(|| value.parse::<IpAddr>().ok().map(IpNet::from));
            match (have.parse::<IpAddr>(), wanted) {
                (Ok(address), Some(net)) => net.contains(&address.to_canonical()),
                (_, None) => have == value,
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
        "details" => contains(entry.get("details").map(Value::to_string)),
        "is" => match value {
            "failed" => have("outcome") == Some("failure"),
            "denied" => have("outcome") == Some("denied"),
            "flagged" => entry.get("flags").is_some(),
            "impersonated" => have("impersonator").is_some(),
            "bulk" => entry["details"]["counts"].is_object(),
            _ => entry.get("redacted").is_some(),
        },
        field => have(field) == Some(value),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]
    #[test]
    fn a_filter_is_its_naive_evaluation(entry in entry(), terms in prop::collection::vec(term(), 0..4)) {
        let now = Timestamp::parse_rfc3339("2026-04-20T00:00:00Z").unwrap();
        let filter = Filter::parse(&text(&terms), now).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let body = entry.to_string();
        let view = EntryView::parse(body.as_bytes()).unwrap();
        prop_assert_eq!(filter.matches(&view), naive(&entry, &terms), "{} on {}", text(&terms), body);
        let again = Filter::parse(&filter.to_string(), now).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(again, filter);
    }
}
