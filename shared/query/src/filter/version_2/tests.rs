//! Tests of text that people type, valid and invalid.

use super::super::{Filter, FilterError, TypedFilter};
use crate::zone::{Now, Zone};
use piperoll_format::time::Timestamp;

fn now() -> Timestamp {
    Timestamp::parse_rfc3339("2026-04-15T08:00:00Z").expect("a time")
}

fn typed(text: &str) -> Result<TypedFilter, FilterError> {
    Filter::parse_typed(text, now())
}

#[test]
fn habits_of_other_tools_mean_what_was_meant() {
    for (text, canonical) in [
        ("", ""),
        ("user=kim", "user:kim"),
        ("user!=kim", "-user:kim"),
        ("user:alice OR user:bob", "user:alice OR user:bob"),
        ("user:(alice OR bob)", "user:alice,bob"),
        ("user:(alice, bob)", "user:alice,bob"),
        ("user:alice AND is:failed", "user:alice is:failed"),
        ("NOT user:alice", "-user:alice"),
        ("NOT(user:alice OR user:bob)", "-(user:alice OR user:bob)"),
        ("NOT NOT user:alice", "user:alice"),
        ("\"a\" is:failed OR is:denied \"d\"", "(\"a\" is:failed) OR (is:denied \"d\")"),
        ("a (\"b\" OR \"c\") d", "\"a\" (\"b\" OR \"c\") \"d\""),
        ("user:a OR (user:b OR user:c)", "user:a OR user:b OR user:c"),
        ("user:k*", "user:k*"),
        ("user:\"k*\"", "user:\"k*\""),
        ("user:\"Alice \"*", "user:\"Alice \"*"),
        ("user:~M.Keller", "user:~m.keller"),
        ("action:*.update", "action:*.update"),
        ("ip:203.0.113.*", "ip:203.0.113.0/24"),
        ("ip_address:10.0.0.1", "ip:10.0.0.1"),
        ("ip:10.0.0.1..10.0.0.9", "ip:10.0.0.1..10.0.0.9"),
        ("seq:>5", "seq:6..18446744073709551615"),
        ("seq<=5", "seq:0..5"),
        ("occurred:>=2026-04-15", "occurred:2026-04-15T00:00:00.000000Z.."),
        ("occurred>2026-04-15", "occurred:2026-04-16T00:00:00.000000Z.."),
        ("occurred:7d..", "occurred:2026-04-08T08:00:00.000000Z.."),
        ("details.subject:\"Hello, you\"", "details.subject:\"Hello, you\""),
        ("details.\"odd key\".x:1..5", "details.\"odd key\".x:1..5"),
        ("details.n>=5", "details.n:5.."),
        ("category:payment", "category:payment"),
        ("description:mail,spam", "description:\"mail\",\"spam\""),
        ("hello,world", "\"hello,world\""),
        ("flag:\"an_old_rule\"", "flag:\"an_old_rule\""),
        ("details.empty:\"\"", "details.empty:\"\""),
        ("outcome:fail*", "outcome:fail*"),
        ("verb:x v1:\"details:m entity:a/b\"", "verb:x v1:\"details:m\" v1:\"entity:a/b\""),
    ] {
        let typed = typed(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(typed.filter.typed(), canonical, "{text}");
        assert!(typed.hints.is_empty(), "{text}: {:?}", typed.hints);
    }
}

#[test]
fn what_could_mean_something_else_is_refused_at_its_place() {
    for (text, at, part) in [
        ("user:alice or user:bob", 11, "write OR in capitals"),
        ("user:alice and user:bob", 11, "write AND in capitals"),
        ("not user:alice", 0, "write NOT in capitals"),
        ("user:alice && user:bob", 11, "write AND"),
        ("user:alice || user:bob", 11, "write OR"),
        ("!user:alice", 0, "-user:alice"),
        ("user=~k.*", 4, "regular expressions are not supported"),
        ("user!~k.*", 4, "regular expressions are not supported"),
        ("user:/k.*/", 5, "regular expressions are not supported"),
        ("user==kim", 4, "one = is enough"),
        ("user:k?m", 5, "quote a value"),
        ("user:a..c", 5, "accept ranges"),
        ("user:>5", 5, "cannot be compared with < and >"),
        ("user: alice", 5, "without a space"),
        ("user:a, b", 7, "needs a value here"),
        ("user:", 5, "needs a value here"),
        ("user:\"\"", 5, "-user:*"),
        ("usr:bob", 0, "did you mean user?"),
        ("User:bob", 0, "did you mean user?"),
        ("host:mx1", 0, "did you mean node?"),
        ("retries=3", 0, "quote text"),
        ("+user:alice", 0, "did you mean user?"),
        ("outcome:failed", 8, "did you mean outcome:failure?"),
        ("outcome:good", 8, "success failure denied unknown"),
        ("is:new", 3, "is has no value"),
        ("flag:nosuchflag", 5, "flag has no value"),
        ("flag:failed_login", 5, "did you mean flag:failed_logins?"),
        ("via:sockt", 4, "did you mean via:socket?"),
        ("category:Auth", 9, "lower-case word"),
        ("ip:10.0.0", 3, "neither an address"),
        ("ip:10.1.2*", 3, "whole parts"),
        ("ip:10.0.0.1-10.0.0.9", 3, "10.0.0.1..10.0.0.9"),
        ("ip:10.0.0.1:443", 3, "cannot have a port"),
        ("ip:10.0.0.9..10.0.0.1", 3, "after its end"),
        ("ip:10.0.0.0/99", 3, "neither an address"),
        ("seq:x", 4, "seq must be a number"),
        ("seq:9..3", 4, "after its end"),
        ("seq:~5", 4, "neither * nor ~"),
        ("entity:/x", 7, "its type is missing"),
        ("entity:mail/", 7, "its id is missing"),
        ("occurred:noon", 9, "occurred must be a day"),
        ("occurred:>1M", 9, "differ in length"),
        ("id:7", 3, ""),
        ("details.n:9..1", 10, "after its end"),
        ("details.n:1..x", 10, "not a number"),
        ("details.a[0]:x", 9, "list elements cannot be indexed here"),
        ("details.:x", 8, "a key is missing"),
        ("details.a", 0, ""),
        ("(user:a", 0, "never closed"),
        ("user:a)", 6, "unmatched closing parenthesis"),
        ("()", 1, "these parentheses are empty"),
        ("user:(a b)", 8, "OR or a comma"),
        ("user:(a AND b)", 8, "separately"),
        ("user:a(b)", 6, "quote a value with parentheses"),
        ("user:a OR", 9, "missing at the end"),
        ("OR user:a", 0, "OR needs a condition on both sides"),
        ("user:a AND", 7, "AND needs a condition on both sides"),
        ("user:a AND AND user:b", 11, "AND needs a condition on both sides"),
        ("user:a OR OR user:b", 10, "OR needs a condition on both sides"),
        ("NOT", 0, "NOT needs a condition after it"),
        ("-", 0, "a minus needs a condition"),
        ("--a", 0, "one minus"),
        ("\"open", 0, "never closed"),
        ("“user”", 0, "typographic"),
        ("=x", 0, "a key is missing"),
        ("a \"\" b", 2, "no text to look for"),
        ("é usr:bob", 2, "did you mean user?"),
    ] {
        if text == "details.a" {
            // A path without an operator is a word like any other.
            assert!(typed(text).is_ok());
            continue;
        }
        let error = typed(text).expect_err(text);
        assert_eq!(error.at, at, "{text}: {error}");
        assert!(error.problem.contains(part), "{text}: {error}");
    }
}

/// Text in the syntax of other tools is refused, because this language would otherwise search for it literally.
#[test]
fn spellings_of_other_tools_are_refused() {
    for (text, at, part) in [
        ("user:alice&&outcome:success", 5, "write a comma or OR"),
        ("user:alice|bob", 5, "write a comma or OR"),
        ("user:alice;bob", 5, "write a comma or OR"),
        ("user:'alice'", 5, "quote with \""),
        ("user IN (alice, bob)", 0, "user:alice,bob for one of several"),
        ("user like alice", 0, "write user:alice"),
        ("user:NOT alice", 5, "joins conditions"),
        ("user:-alice", 5, "-user:alice"),
        ("user:alice,-bob", 11, "-user:bob"),
        ("user:alice ,bob", 11, "separates the values"),
        ("\"signed in\"~5", 0, "fuzzy distances"),
        ("user:alice~1", 5, "fuzzy distances"),
        ("+alice", 0, "must hold anyway"),
        ("user:al\\*", 5, "only inside quotes"),
        ("user:alice # comment", 11, "no comments"),
        ("user:al%", 5, "* matches any"),
        ("outcome:deny*", 8, "outcome has no value"),
        ("outcome:~failed", 8, "outcome has no value"),
        ("via:~sockt", 4, "did you mean via:socket?"),
        ("verb:mailbox.delete", 5, "last word"),
        ("user:alice\u{200b}", 5, "U+200B"),
        ("user:bob (or) user:alice", 9, "write OR in capitals"),
        ("details.count:>5,<9", 14, "a comma means OR"),
        ("user:(\"\" OR bob)", 6, "no entry has an empty value"),
        ("verb:x v1:\"usr:bob\"", 7, "unknown key"),
    ] {
        let error = typed(text).expect_err(text);
        assert_eq!(error.at, at, "{text}: {error}");
        assert!(error.problem.contains(part), "{text}: {error}");
    }
}

#[test]
fn operators_among_words_get_a_hint() {
    for (text, words) in [
        ("did NOT work", Some("quote it: \"NOT\"")),
        ("password OR login", Some("quote it: \"OR\"")),
        ("black AND white", Some("quote it: \"AND\"")),
        ("black and white", Some("in capitals, AND joins")),
        ("\"did NOT work\"", None),
        ("user:a NOT is:failed", None),
        ("category:authn", Some("did you mean category:auth?")),
        ("entity:example.org", Some("entity:domain/example.org")),
        ("details:subject:hello", Some("details.subject:hello")),
        ("\"NOT\"", None),
        ("and", None),
    ] {
        let hints = typed(text).unwrap_or_else(|error| panic!("{error}")).hints;
        match words {
            Some(words) => assert!(hints.len() == 1 && hints[0].contains(words), "{text}: {hints:?}"),
            None => assert!(hints.is_empty(), "{text}: {hints:?}"),
        }
    }
    let empty = |text: &str| typed(text).map(|typed| typed.filter.hints_when_empty()).unwrap_or_default();
    assert_eq!(empty("user:M.Keller"), ["user:M.Keller is case-sensitive; user:~M.Keller ignores case"]);
    assert_eq!(empty("user:carol").len(), 1);
    assert_eq!(
        empty("details.subject:HELLO"),
        ["details.subject:HELLO is case-sensitive; details.subject:~HELLO ignores case"]
    );
    assert!(empty("user:~M.Keller").is_empty() && empty("outcome:failure node:mx1 is:failed").is_empty());
}

#[test]
fn a_filter_is_bounded() {
    let deep = |levels: usize| format!("{}user:a{}", "(".repeat(levels), ")".repeat(levels));
    assert!(typed(&deep(16)).is_ok());
    assert!(typed(&deep(17)).is_err_and(|error| error.problem.contains("nested")));
    assert!(typed(&deep(2_000)).is_err());
    assert!(typed(&"NOT ".repeat(2_000)).is_err());
    assert!(typed(&vec!["a"; 64].join(" ")).is_ok());
    assert!(typed(&vec!["a"; 65].join(" ")).is_err_and(|error| error.problem.contains("64 conditions")));
    assert!(typed(&format!("user:{}", vec!["a"; 257].join(","))).is_err());
    assert!(typed(&"x".repeat(8_193)).is_err());
    assert!(
        typed(&format!("details:{}", vec!["abc"; 129].join(","))).is_err_and(|error| error.problem.contains("128"))
    );
    // Combining a deeply nested filter with another filter adds one level of nesting; the result must still be accepted.
    let nested =
        (0..15).fold("user:a OR user:b".to_owned(), |inner, n| format!("is:failed {} ({inner})", ["", "OR"][n % 2]));
    let filter = Filter::parse(&nested, now()).unwrap_or_else(|error| panic!("{error}"));
    let both = filter.and(Filter::parse("verb:x OR verb:y", now()).expect("a scope"));
    assert_eq!(Filter::parse_stored(&both.to_string(), now()), Ok(both));
    // The limit applies to the text alone, even if a mark is added to it.
    let long = format!("verb:x {}", vec!["\"a\""; 20].join(" "));
    let long = format!("{long} user:{}", "b".repeat(8_192 - long.len() - 6));
    assert_eq!(long.len(), 8_192);
    let filter = Filter::parse(&long, now()).expect("as long as may be");
    assert_eq!(Filter::parse_stored(&filter.to_string(), now()), Ok(filter));
    assert!(typed(&format!("details.{}:x", vec!["a"; 17].join("."))).is_err());
}

#[test]
fn days_are_those_of_the_zone() {
    let zone = Zone::parse("+02:00").expect("a zone");
    let filter = Filter::parse("occurred:2026-04-15", Now { at: now(), zone }).expect("a filter");
    assert_eq!(filter.typed(), "occurred:2026-04-14T22:00:00.000000Z..2026-04-15T22:00:00.000000Z");
}

#[test]
fn typed_text_can_name_its_version() {
    let parsed = |text: &str| Filter::parse(text, now()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(parsed("v1: user:k*").typed(), "user:\"k*\"");
    assert_eq!(parsed("v2: user:k*"), parsed("user:k*"));
    let error = Filter::parse("v1: user:a usr:b", now()).expect_err("an unknown key");
    assert_eq!((error.at, error.text.as_str()), (11, "v1: user:a usr:b"));
    assert_eq!(parsed("user:k*").to_string(), "v2: user:k*");
    assert_eq!(parsed("user:\"k*\"").to_string(), "user:k*");
    assert_eq!(Filter::portable("user:kim", now()), "user:kim");
    assert_eq!(Filter::portable("user=kim", now()), "v2: user=kim");
    assert_eq!(Filter::portable("details:x", now()), "details:x");
    assert_eq!(Filter::retyped("user:k*", now()), "v1: user:k*");
    assert_eq!(Filter::retyped("user:kim", now()), "user:kim");
    assert_eq!(Filter::retyped("details:x", now()), "v1: details:x");
    assert_eq!(parsed("v1: details:x").typed(), "v2: v1:\"details:x\"");
}
