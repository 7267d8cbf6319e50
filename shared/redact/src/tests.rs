//! Tests that secrets are masked and that everything else is unchanged.

use super::redactor::Redactor;
use super::{is_same_entry, walk};
use piperoll_format::entry::{CallerEntry, NodeFields, write_body};
use piperoll_format::ids::{Generation, NodeId};
use piperoll_format::limits::REDACTED_COUNT_MAX;
use piperoll_format::time::Timestamp;

fn masked(text: &str) -> String {
    Redactor::shared().entry(text).into_owned()
}

#[test]
fn secrets_go_and_the_rest_stays_as_written() {
    for (text, expected) in [
        (
            r#"{"category":"user","action":"user.update","details":{"n":1.50,"new":{"apiKey":"k","a":"\u0041"},"password":"x"}}"#,
            r#"{"category":"user","action":"user.update","details":{"n":1.50,"new":{"apiKey":"***","a":"\u0041"},"password":"***"},"redacted":["details.new.apiKey","details.password"]}"#,
        ),
        (
            r#"{"category":"user","action":"a","changes":[{"field":"password","old":"a","new":"b"},{"field":"quota","old":1,"new":2}]}"#,
            r#"{"category":"user","action":"a","changes":[{"field":"password","old":"***","new":"***"},{"field":"quota","old":1,"new":2}],"redacted":["changes.password"]}"#,
        ),
        (
            r#"{"category":"auth","action":"a","path":"/x?token=abc","details":{"headers":[{"name":"Cookie","value":"s=1"}]},"redacted":["details.pan"]}"#,
            r#"{"category":"auth","action":"a","path":"/x?token=***","details":{"headers":[{"name":"Cookie","value":"***"}]},"redacted":["details.pan","path","details.headers.Cookie"]}"#,
        ),
        (
            r#"{"category":"auth","action":"a","details":{"v":{"$piperoll_secret":"77"}}}"#,
            r#"{"category":"auth","action":"a","details":{"v":"***"},"redacted":["details.v"]}"#,
        ),
    ] {
        assert_eq!(masked(text), expected);
        assert_eq!(masked(expected), expected, "masking again changes nothing");
    }
}

#[test]
fn what_is_no_secret_stays() {
    for text in [
        r#"{"category":"auth","action":"token.create","details":{"token_id":"7","max_tokens":100,"has_password":true,"password":null}}"#,
        r#"{"category":"auth","action":"auth.login","description":"changed the password of bob","user":"token"}"#,
        r#"{"redacted":"x","details":{"password":"x"}"#,
        "[1]",
    ] {
        assert_eq!(masked(text), text);
    }
}

#[test]
fn nothing_hides_behind_another_spelling() {
    let mut names = vec!["\\u0070assword".to_owned()];
    names.extend(["pass\\u0077ord", "password", "api\\u005fkey", "Authorization"].map(str::to_owned));
    for name in names {
        let text = format!(r#"{{"category":"data","action":"a","details":{{"{name}":"x9"}}}}"#);
        assert!(!masked(&text).contains("x9"), "{text}");
    }
    for value in [
        r#""postgres:\/\/app:x9cret@db\/x""#,
        r#""\/reset-password\/0123456789x9cdef01""#,
        r#""{\u0022password\u0022:\u0022x9\u0022}""#,
        r#""{\"a\":{\"token\": \"x9 y\"}}""#,
        r#""say {\\\"token\\\": \\\"x9\\\"}""#,
        r#""password\t=\tx9""#,
        r#""Bearer\tx9cdef123""#,
        r#"{"op":"replace","path":"/user/password","value":"x9"}"#,
        r#"{"Name":"Cookie","Value":"x9"}"#,
        r#"["Cookie","sid=x9"]"#,
        r#"{"$piperoll_s\u0065cret":"x9"}"#,
    ] {
        let text = format!(r#"{{"category":"data","action":"a","details":{{"v":{value}}}}}"#);
        let out = masked(&text);
        assert!(!out.contains("x9"), "{text}: {out}");
        assert_eq!(masked(&out), out, "masking again changes nothing");
    }
    let null = r#"{"category":"data","action":"a","details":{"password":"x"},"redacted":null}"#;
    assert_eq!(
        masked(null),
        r#"{"category":"data","action":"a","details":{"password":"***"},"redacted":["details.password"]}"#
    );
}

proptest::proptest! {
    /// The trigger pattern matches every entry in which a full examination finds a secret.
    #[test]
    fn nothing_is_overlooked(text in r#"[a-c_ ="':/?&\\-]{0,6}(password|api_?key|token|Bearer |basic |pin|pwd|secret_key|reset|cookie)[a-z0-9_ ="':/?&-]{0,24}"#, as_key: bool) {
        let details = if as_key { serde_json::json!({ text: "x9" }) } else { serde_json::json!({ "v": text }) };
        let entry = serde_json::json!({ "category": "data", "action": "a", "details": details }).to_string();
        let redactor = Redactor::shared();
        proptest::prop_assert_eq!(redactor.entry(&entry), redactor.looked_at(&entry));
    }
}

#[test]
fn what_is_masked_is_named_in_bounded_room() {
    let many: Vec<String> = (0..3_000).map(|n| format!(r#""k{n}_pin":1"#)).collect();
    let text = format!(r#"{{"details":{{"{}":{{{}}}}}}}"#, "K".repeat(10_000), many.join(","));
    let out = masked(&text);
    let value: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let redacted = value["redacted"].as_array().expect("a list");
    assert!(
        redacted.len() <= REDACTED_COUNT_MAX
            && out.len() < text.len() + 20_000 + REDACTED_COUNT_MAX * (walk::PATH_BYTES_MAX + 3)
    );
}

#[test]
fn own_names_are_added() {
    let own = Redactor::new(&["ssn".to_owned()]).expect("good names");
    assert_eq!(
        own.entry(r#"{"category":"data","action":"a","details":{"SSN":"1"}}"#),
        r#"{"category":"data","action":"a","details":{"SSN":"***"},"redacted":["details.SSN"]}"#
    );
    assert!(own.is_secret_name("password") && own.is_secret_name("ssn"));
}

fn stamped(entry: &CallerEntry) -> String {
    let node_id: NodeId = "mx1".parse().expect("a node id");
    let stamp = NodeFields {
        node_id: &node_id,
        generation: &Generation::from_bytes([7; 16]),
        seq: 42,
        era: 0,
        salt: [9; 16],
        timestamp: Timestamp::from_micros(1_776_240_000_000_001),
        id: "0198c0de-0000-7000-8000-000000000001".parse().expect("an id"),
        via: "socket uid=1000",
    };
    write_body(&stamp, entry, "").expect("a body")
}

#[test]
fn an_entry_stored_under_earlier_rules_of_masking_is_the_same() {
    let entry = |text: &str| CallerEntry::parse(text.as_bytes()).expect("an entry");
    let earlier = r#"{"category":"auth","action":"a","description":"password=***,S3cr3t x","details":{"secret":"***","n":1.50},"redacted":["description","details.secret"]}"#;
    for later in [
        r#"{"category":"auth","action":"a","description":"password=*** x","details":{"secret":{"secretName":"db"},"n":1.50},"redacted":["description"]}"#,
        r#"{"category":"auth","action":"a","description":"*** x","details":{"secret":"***","n":1.50},"redacted":["description","details.secret"]}"#,
    ] {
        assert!(is_same_entry(&entry(later), &stamped(&entry(earlier))), "{later}");
        let flagged = stamped(&entry(earlier)).replace(",\"redacted\"", ",\"flags\":[{\"rule\":\"r\"}],\"redacted\"");
        assert!(is_same_entry(&entry(later), &flagged), "{later}");
    }
    for other in [
        r#"{"category":"auth","action":"b","description":"password=*** x","details":{"secret":"***","n":1.50}}"#,
        r#"{"category":"auth","action":"a","description":"password=*** y","details":{"secret":"***","n":1.50}}"#,
        r#"{"category":"auth","action":"a","description":"password=*** x","details":{"secret":"***","n":1.5}}"#,
        r#"{"category":"auth","action":"a","description":"password=*** x","details":{"secret":"***"}}"#,
        r#"{"category":"auth","action":"a","description":"password=*** x","details":{}}"#,
    ] {
        assert!(!is_same_entry(&entry(other), &stamped(&entry(earlier))), "{other}");
    }
}
