//! Tests bundles that include archived logs.

use piperoll_evidence::bundle::{
    Check, FORMAT, FORMAT_2, MANIFEST, Outcome, checkpoint_name, earlier_names, render_verdict, verify_bundle,
    verify_bundle_without,
};
use piperoll_format::time::Timestamp;
use serde_json::json;

use super::maker::{Case, Log, START, seed, trust};
use super::{Lie, accepted, lie};

/// Returns a case in which the current log of mx1 replaced one with 30 rows, which replaced one with 10 rows. The range begins
/// before all of them.
pub(crate) fn chain() -> Case {
    let mut case = Case::new();
    let present = &mut case.logs[0];
    let (mut second, first) = (present.before(1, 30), present.before(2, 10));
    second
        .take_the_place(&json!({ "generation": first.generation, "signed_rows": 10, "witnessed_rows": 9, "rows": 10 }));
    present.take_the_place(
        &json!({ "generation": second.generation, "signed_rows": 30, "witnessed_rows": 25, "rows": 30 }),
    );
    present.earlier = vec![second, first];
    case.asked.from = Timestamp::from_micros(START - 3 * 3_600_000_000);
    case
}

fn changed(change: impl FnOnce(&mut Case)) -> Vec<u8> {
    let mut case = chain();
    change(&mut case);
    case.parts().seal()
}

/// Returns a bundle in which the current log's statement about its predecessor is changed.
fn said(change: &[(&str, serde_json::Value)]) -> Vec<u8> {
    changed(|case| {
        let log = &mut case.logs[0];
        let generation = &log.earlier[0].generation;
        let mut previous = json!({ "generation": generation, "signed_rows": 30, "witnessed_rows": 25, "rows": 30 });
        for (name, value) in change {
            previous[*name] = value.clone();
        }
        log.take_the_place(&previous);
    })
}

#[test]
fn a_range_over_earlier_logs_is_whole_when_all_of_them_are_here() {
    let bundle = chain().parts().seal();
    let verdict = verify_bundle(&bundle, Some(&trust()));
    assert!(accepted(&verdict) && verdict.proven, "{:?} {:?}", verdict.findings, verdict.nodes);
    assert_eq!(verdict.rows, 345);
    let earlier: Vec<_> = verdict.nodes[0].earlier.iter().map(|log| (log.size, log.rows)).collect();
    assert_eq!(earlier, [(Some(30), 30), (Some(10), 10)]);
    let words = render_verdict(&verdict, Outcome::of(&verdict));
    assert!(words.contains("30 entries of its archived log, generation 00000000000000000000000000000065"), "{words}");
    // The order in which the archived logs are listed does not matter.
    let turned = changed(|case| case.logs[0].earlier.reverse());
    assert!(verify_bundle(&turned, Some(&trust())).proven);
    // A range that begins in the second log does not need the first log.
    let later = changed(|case| {
        case.asked.from = Timestamp::from_micros(START - 3_600_000_000);
        case.logs[0].earlier.pop();
    });
    assert!(verify_bundle(&later, Some(&trust())).proven);
    // With a filter, the rows in the bundle are proven, but their completeness is not.
    let filtered = changed(|case| {
        case.asked.filter = "user:bob".to_owned();
        for log in &mut case.logs {
            log.shown.retain(|seq| seq % 3 == 1);
            for earlier in &mut log.earlier {
                earlier.shown.retain(|seq| seq % 3 == 1);
            }
        }
    });
    let verdict = verify_bundle(&filtered, Some(&trust()));
    assert!(accepted(&verdict) && !verdict.proven, "{:?} {:?}", verdict.findings, verdict.nodes);
    assert_eq!(verdict.rows, 102 + 10 + 3);
}

/// Missing rows of an archived log make a bundle incomplete, but are not evidence of forgery.
#[test]
fn a_part_of_an_earlier_log_is_not_the_whole() {
    let without = |number: usize| changed(|case| drop(case.logs[0].earlier.remove(number)));
    for (what, bundle, words) in [
        ("the second", without(0), "replaced generation 00000000000000000000000000000065"),
        ("the first", without(1), "replaced generation 00000000000000000000000000000066"),
        ("more rows were there", said(&[("rows", json!(31))]), "had 31 rows"),
        ("more rows were signed", said(&[("signed_rows", json!(31))]), "had 31 rows"),
        ("an entry of before", said(&[("rows", json!(null))]), "had an unknown number of rows"),
        ("a log without a name", said(&[("generation", json!(null))]), "replaced generation unknown"),
    ] {
        let verdict = verify_bundle(&bundle, Some(&trust()));
        assert!(verdict.is_sound() && !verdict.complete, "{what}: {:?}", verdict.findings);
        let missing = verdict.nodes[0].missing.clone().unwrap_or_default();
        assert!(missing.contains(words), "{what}: {missing}");
        let control = verify_bundle_without(Check::Whole, &bundle, Some(&trust()));
        assert!(control.complete, "{what}: without this check it is believed");
    }
}

/// A bundle is refused if it declares a format version other than the one that its content requires.
#[test]
fn the_format_is_the_one_that_the_content_needs() {
    for (case, from, to) in [(chain(), FORMAT_2, FORMAT), (Case::new(), FORMAT, FORMAT_2)] {
        let bundle = case.parts().seal();
        let at = bundle.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut other = bundle.clone();
        other[at..at + to.len()].copy_from_slice(to.as_bytes());
        let verdict = verify_bundle(&other, Some(&trust()));
        let found = verdict.findings.iter().any(|finding| finding.what.contains("but its content requires"));
        assert!(found, "{:?}", verdict.findings);
    }
    assert_eq!(MANIFEST, "manifest");
}

/// Returns forgeries about archived logs, each with the only check that detects it.
pub(crate) fn lies() -> Vec<Lie> {
    let log = |change: fn(&mut Log)| changed(|case| change(&mut case.logs[0].earlier[0]));
    vec![
        lie(
            "an earlier checkpoint that nobody signed",
            "signature",
            Check::NodeSignature,
            log(|log| log.signer = seed(9)),
        ),
        lie("an earlier log without a witness", "no witness", Check::Witness, log(|log| log.cosigned_at = None)),
        lie("an earlier log of another node", "was written by mx2", Check::Identity, {
            log(|log| {
                let other = Case::new().logs[1].before(1, 30);
                log.rows[2].body = other.rows[2].body.clone();
            })
        }),
        lie("a row of an earlier log changed", "do not lead to the root", Check::Root, {
            log(|log| {
                log.checkpoint = Some(log.note());
                log.rows[4].body =
                    String::from_utf8(log.rows[4].body.clone()).unwrap().replace("bob", "eve").into_bytes();
            })
        }),
        lie(
            "rows of an earlier log left out",
            "not shown",
            Check::Whole,
            log(|log| log.shown.retain(|seq| *seq != 12)),
        ),
        lie("an earlier log twice", "it is in the bundle twice", Check::Identity, {
            changed(|case| {
                let again = case.logs[0].earlier[0].clone();
                case.logs[0].earlier.push(again);
            })
        }),
        lie("another count of an earlier log", "it does not match its description in the manifest", Check::Counts, {
            let mut parts = chain().parts();
            parts.manifest.nodes[0].earlier[1].borders = 1;
            parts.seal()
        }),
        lie("a former key beyond its end", "signed with a key that is not valid", Check::KeySpan, log(|_| {}))
            .trusting(|trust| {
                // The archived log was cosigned after its key had been replaced.
                let replaced = trust.nodes[0].keys[0].clone();
                let present = "00000000000000000000000000000007".to_owned();
                trust.nodes[0]
                    .keys
                    .insert(0, piperoll_evidence::bundle::KeySpan { generation: Some(present), ..replaced });
                trust.nodes[0].keys[1].until = Some(Timestamp::from_micros(START));
            }),
    ]
}

impl Lie {
    fn trusting(mut self, change: fn(&mut piperoll_evidence::bundle::Trust)) -> Self {
        change(&mut self.trust);
        self
    }
}

/// Bundles in which a member of an archived log is missing or belongs to another log are refused.
#[test]
fn members_of_earlier_logs_have_their_places() {
    let mut parts = chain().parts();
    let [checkpoint, ..] = earlier_names("mx1", 1);
    let other = parts.member(&checkpoint_name("mx1")).clone();
    *parts.member(&checkpoint) = other;
    let verdict = verify_bundle(&parts.seal(), Some(&trust()));
    assert!(!verdict.is_sound());
    for name in earlier_names("mx1", 2) {
        let mut parts = chain().parts();
        parts.members.retain(|(known, _)| *known != name);
        let verdict = verify_bundle(&parts.seal(), Some(&trust()));
        assert!(!verdict.is_sound(), "{name}");
    }
}
