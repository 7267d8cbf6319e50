//! Tests that the text of any filter is parsed as the same filter.

use proptest::prelude::*;

use super::expr::{Expr, Filter, VERSION_1_MARK, VERSION_2_MARK, no_time};
use super::path::{Bound, PathValue, Root};
use super::pattern::{Pattern, TextPattern};
use super::test::{EntityPattern, FIELDS, IpPattern, PROPERTIES, Subject, Test};
use super::value::time_range;
use super::{version_1, version_2};
use crate::column::Column;
use crate::zone::Now;
use piperoll_format::entry::OUTCOMES;
use piperoll_format::ids::EntryId;
use piperoll_format::time::Timestamp;

/// Generates text with every kind of character that a grammar could misread.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9*?()\\[\\]{}<>=!~\"\\\\,.:/ |&+_-]{1,6}",
        "\\PC{1,4}",
        prop::sample::select(
            &[
                "OR",
                "AND",
                "NOT",
                "or",
                "..",
                "1..2",
                ">5",
                "5",
                "-5",
                "1e3",
                "10.0.0.1x",
                "v1:",
                "v2:",
                "“x”",
                "x..",
                "null",
                "~",
                "/a/",
                "a/b",
                "log",
                "failed_logins",
                "node",
                "socket uid=0"
            ][..]
        )
        .prop_map(str::to_owned),
    ]
}

fn pattern() -> impl Strategy<Value = Pattern> {
    (prop::collection::vec(prop_oneof![3 => text(), 1 => Just(String::new())], 1..4), any::<bool>())
        .prop_filter("a value is not empty", |(pieces, _)| pieces.len() > 1 || !pieces[0].is_empty())
        .prop_map(|(pieces, ignore_case)| Pattern::new(pieces, ignore_case))
}

fn needle() -> impl Strategy<Value = TextPattern> {
    prop::collection::vec(text(), 1..3).prop_map(TextPattern::new)
}

fn several<T: std::fmt::Debug>(one: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(one, 1..3)
}

fn ip() -> impl Strategy<Value = IpPattern> {
    prop_oneof![
        (any::<u32>(), 0u8..=32).prop_map(|(bits, prefix)| net(std::net::Ipv4Addr::from(bits).into(), prefix)),
        (any::<u128>(), 0u8..=128).prop_map(|(bits, prefix)| net(std::net::Ipv6Addr::from(bits).into(), prefix)),
        (any::<u32>(), any::<u32>()).prop_map(|(a, b)| IpPattern::Range(
            std::net::Ipv4Addr::from(a.min(b)).into(),
            std::net::Ipv4Addr::from(a.max(b)).into()
        )),
        pattern()
            .prop_filter("not an address", |pattern| pattern
                .literal()
                .is_none_or(|text| super::value::net(text).is_none()))
            .prop_map(IpPattern::Text),
    ]
}

fn net(address: std::net::IpAddr, prefix: u8) -> IpPattern {
    IpPattern::Net(
        ipnet::IpNet::new(address.to_canonical(), prefix.min(if address.to_canonical().is_ipv4() { 32 } else { 128 }))
            .expect("a network")
            .trunc(),
    )
}

fn path_value() -> impl Strategy<Value = PathValue> {
    let number = || "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,2})?";
    let bound = move || (number(), any::<bool>()).prop_map(|(text, inclusive)| Bound { text, inclusive });
    prop_oneof![
        pattern().prop_map(PathValue::Text),
        Just(PathValue::Text(Pattern::exactly(String::new()))),
        number().prop_map(PathValue::Number),
        bound().prop_map(|bound| PathValue::Range(Some(bound), None)),
        bound().prop_map(|bound| PathValue::Range(None, Some(Bound { inclusive: true, ..bound }))),
        (0u32..50, 50u32..99).prop_map(|(a, b)| {
            let end = |number: u32| Some(Bound { text: number.to_string(), inclusive: true });
            PathValue::Range(end(a), end(b))
        }),
    ]
}

fn entity() -> impl Strategy<Value = EntityPattern> {
    (pattern(), prop::option::of(pattern())).prop_filter_map("a type alone has no slash", |(kind, id)| {
        let id = id.map(|id| Pattern::new(id.pieces().to_vec(), kind.ignores_case()));
        let has_slash = kind.pieces().iter().any(|piece| piece.contains('/'));
        (id.is_some() || !has_slash).then(|| EntityPattern { affected: id.is_some(), kind, id })
    })
}

fn test() -> impl Strategy<Value = Test> {
    let time = || (0i64..4_000_000_000_000_000).prop_map(Timestamp::from_micros);
    prop_oneof![
        (prop::sample::select(&FIELDS[..]), several(pattern()))
            .prop_map(|((_, column), patterns)| Test::Field(column, patterns)),
        several(prop::sample::select(&OUTCOMES[..])).prop_map(|words| Test::Field(
            Column::Outcome,
            words.into_iter().map(|word| Pattern::exactly(word.to_owned())).collect()
        )),
        several(pattern()).prop_map(Test::Actor),
        several(pattern()).prop_map(Test::Verb),
        several(pattern().prop_map(|whole| Subject { part: TextPattern::new(whole.pieces().to_vec()), whole }))
            .prop_map(Test::Subject),
        several(entity()).prop_map(Test::Entity),
        several(ip()).prop_map(Test::Ip),
        several(needle()).prop_map(Test::Agent),
        several(needle()).prop_map(Test::Details),
        several(needle()).prop_map(Test::Text),
        several(pattern()).prop_map(Test::Flag),
        several(pattern()).prop_map(Test::Via),
        several(any::<[u8; 16]>().prop_map(|bytes| EntryId::from_uuid(uuid::Uuid::from_bytes(bytes))))
            .prop_map(Test::Id),
        several((0u64..9, 9u64..99)).prop_map(Test::Seq),
        several((time(), time()).prop_map(|(a, b)| time_range(a.min(b), a.max(b)))).prop_map(Test::Occurred),
        (any::<bool>(), several(text()), several(path_value())).prop_map(|(details, path, values)| Test::Path(
            if details { Root::Details } else { Root::Changes },
            path,
            values
        )),
        several(prop::sample::select(&PROPERTIES[..]))
            .prop_map(|list| Test::Is(list.into_iter().map(|(_, property)| property).collect())),
    ]
}

fn expr() -> impl Strategy<Value = Expr> {
    test().prop_map(Expr::Test).prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::all),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::any),
            inner.prop_map(Expr::not),
        ]
    })
}

/// Generates text that a person could type, valid or not.
fn typed() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        4 => text(),
        2 => prop::sample::select(&["user:", "user=", "user!=", "details.a:", "details.", "changes.x.new:>", "ip:", "entity:", "seq:", "occurred:", "is:", "-", "(", ")", "user:(", "\"", "*", "~", " ", " OR ", " AND ", " NOT ", "alice", "7d..", "flag:", "1..2"][..]).prop_map(str::to_owned),
    ];
    prop::collection::vec(word, 0..8).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn a_filter_is_read_from_its_own_text(expr in expr()) {
        let filter = Filter::of(expr);
        let now = Now::from(no_time());
        let typed = filter.typed();
        let read = version_2::parse(typed.trim_start_matches("v2: "), now, true).map_err(|(at, problem)| TestCaseError::fail(format!("{typed:?} at {at}: {problem}")))?;
        prop_assert_eq!(&read.filter, &filter, "{}", typed);
        prop_assert!(!read.hints.iter().any(|hint| hint.contains("quote it")), "{}: {:?}", typed, read.hints);
        let stored = filter.to_string();
        prop_assert_eq!(&Filter::parse_stored(&stored, now).map_err(|e| TestCaseError::fail(e.to_string()))?, &filter, "{}", stored);
        if let Some(old) = filter.in_version_1() {
            prop_assert_eq!(&version_1::parse(&old, no_time()).map_err(|(_, problem)| TestCaseError::fail(problem))?, &filter, "{}", old);
        }
    }

    /// In each version, any text is either refused, or parsed as a filter whose printed form is parsed as the same filter again.
    #[test]
    fn what_can_be_read_can_be_written(text in typed()) {
        let now = Now::from(Timestamp::from_micros(1_776_240_000_000_000));
        let again = |filter: &Filter| Filter::parse_stored(&filter.to_string(), now);
        if let Ok(filter) = Filter::parse(&text, now) {
            prop_assert_eq!(again(&filter).map_err(|e| TestCaseError::fail(e.to_string()))?, filter.clone(), "{}", text);
            let retyped = Filter::parse(&filter.typed(), now).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(&retyped, &filter, "{}", text);
            prop_assert_eq!(Filter::parse_config(&filter.config_text(), now), Ok(filter.clone()), "{}", text);
            prop_assert_eq!(Filter::parse(&Filter::portable(&text, now), now), Ok(filter), "{}", text);
        }
        if let Ok(filter) = version_1::parse(&text, now.at) {
            prop_assert_eq!(again(&filter).map_err(|e| TestCaseError::fail(e.to_string()))?, filter.clone(), "{}", text);
            // A person who types this filter today must write it in version 2, or add the mark of version 1.
            let lifted = filter.clone().into_version_2();
            prop_assert_eq!(&version_2::parse(&lifted.typed(), now, true).map_err(|(_, problem)| TestCaseError::fail(problem))?.filter, &lifted, "{}", text);
            let retyped = Filter::parse(&Filter::retyped(&text, now), now).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(&retyped, &filter, "{}", text);
            prop_assert_eq!(Filter::parse(&filter.typed(), now), Ok(filter.clone()), "{}", text);
            // Combined with a filter that version 1 cannot express, the filter keeps its meaning.
            let other = Filter::of(Expr::Test(Test::Verb(vec![Pattern::exactly("delete".to_owned())])));
            let both = filter.and(other);
            prop_assert_eq!(Filter::parse_stored(&both.to_string(), now), Ok(both.clone()), "{}", text);
        }
        // A program that knows only version 1 refuses marked text.
        let marked = [VERSION_1_MARK, VERSION_2_MARK].map(|mark| version_1::parse(&format!("{mark} {text}"), now.at));
        prop_assert!(marked.iter().all(Result::is_err));
    }
}
