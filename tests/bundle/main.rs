//! Tests evidence bundles without a cluster: frozen bundles and every kind of forgery. A negative control shows for each check of
//! the verifier that some forgeries are detected by this check alone.

#![allow(clippy::unwrap_used, reason = "tests")]

mod bounded;
mod by_hand;
mod earlier;
mod maker;

use maker::{Case, Log, START, seed, trust};
use piperoll_evidence::bundle::{
    CSV, Check, Instant, KeySpan, Membership, Moved, Outcome, README, REPORT, TIMELINE, TRUST, Trust, Verdict,
    entries_name, render_verdict, verify_bundle, verify_bundle_without,
};
use piperoll_format::note::KeyKind;
use piperoll_format::time::Timestamp;
use proptest::prelude::*;

pub(crate) fn accepted(verdict: &Verdict) -> bool {
    verdict.is_sound() && verdict.trusted && verdict.complete
}

fn golden(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

fn filtered() -> Case {
    let mut case = Case::new();
    case.asked.filter = "user:bob".to_owned();
    for log in &mut case.logs {
        log.shown.retain(|seq| seq % 3 == 1);
    }
    case
}

/// Returns a case whose range is in the middle of the log, with the rows at its borders.
fn ranged() -> Case {
    let mut case = Case::new();
    case.asked.from = Timestamp::from_micros(START + 100 * 1_000_000);
    case.asked.to = Timestamp::from_micros(START + 200 * 1_000_000);
    case.logs[0].shown = [0].into_iter().chain(99..=200).chain([299]).collect();
    case.logs[1].shown = vec![0, 4];
    case
}

/// Returns a case in which two adjacent rows are erased, and the rows shown include the entries that erased them.
fn erased() -> Case {
    let mut case = Case::new();
    case.logs[0].erase(9, 250);
    case.logs[0].erase(10, 251);
    case
}

/// Returns a case with one erased row that may have matched the filter: the manifest counts the row, and the timeline omits it.
fn erased_apart() -> Case {
    let mut case = filtered();
    case.logs[0].erase(9, 250);
    case.logs[0].erased_apart = Some(1);
    // Row 250 was an entry of bob, and is now the entry that erased row 9.
    case.logs[0].shown.retain(|seq| *seq != 250);
    case
}

/// In a bundle with a filter, erased rows are only counted. Older bundles, which show each erased row, remain readable.
#[test]
fn erased_rows_are_counted_apart_from_what_a_filter_selects() {
    let made = erased_apart().parts().seal();
    let verdict = verify_bundle(&made, Some(&trust()));
    assert!(accepted(&verdict), "{:?} {:?}", verdict.findings, verdict.nodes);
    assert_eq!((verdict.rows, verdict.nodes[0].erased, verdict.nodes[0].erased_apart), (101, 0, Some(1)));
    let words = render_verdict(&verdict, Outcome::of(&verdict));
    assert!(words.contains("1 erased row of the range is not shown"), "{words}");
    // The older form: the row and the entry that erased it are among the rows, and the manifest does not count erased rows.
    let mut before = erased_apart();
    before.logs[0].erased_apart = None;
    before.logs[0].shown.extend([9, 250]);
    before.logs[0].shown.sort_unstable();
    let verdict = verify_bundle(&before.parts().seal(), Some(&trust()));
    assert!(accepted(&verdict), "{:?} {:?}", verdict.findings, verdict.nodes);
    assert_eq!((verdict.rows, verdict.nodes[0].erased), (102, 1));
    // A bundle in both forms at once is refused.
    before.logs[0].erased_apart = Some(1);
    let both = before.parts().seal();
    let refused = verify_bundle(&both, Some(&trust()));
    assert!(
        refused.findings.iter().any(|finding| finding.what.contains("row 9 does not match the request")),
        "{refused:?}"
    );
}

/// The verifier expects the nodes that were members when the bundle was created: a node that joined later is not missing, a node
/// that left later must be present, and a bundle cannot be dated before its own content.
#[test]
fn who_was_a_member_is_decided_for_when_it_was_made() {
    let case = Case::new();
    let bundle = case.parts().seal();
    let seconds = |micros: i64| Timestamp::from_micros(micros);
    let made = case.created.micros();
    let with = |from: i64, until: i64| {
        let mut trust = trust();
        let mut third = trust.nodes[0].clone();
        third.id = "mx9".parse().unwrap();
        third.life = Membership { from: seconds(from), until: seconds(until) };
        trust.nodes.push(third);
        let verdict = verify_bundle(&bundle, Some(&Trust::parse(&trust.to_text()).unwrap()));
        assert!(verdict.is_sound(), "it makes nobody a liar: {:?}", verdict.findings);
        verdict.complete
    };
    assert!(with(made + 1, i64::MAX / 2), "it joined later");
    assert!(!with(made - 1, i64::MAX / 2), "it was a member, and is not here");
    assert!(with(START - 20, START - 10), "it had left before the range");
    assert!(!with(START - 20, START), "its life reaches into the range");
    assert!(!with(START - 20, made + 9), "it left later");
    // The bundle is dated before the node joined, but contains a cosignature from a later time.
    let mut back = Case::new();
    back.created = seconds(START + 10);
    let bundle = back.parts().seal();
    let mut trust = trust();
    let mut third = trust.nodes[0].clone();
    third.id = "mx9".parse().unwrap();
    third.life = Membership { from: seconds(START + 1_000_000_000), until: Timestamp::MAX };
    trust.nodes.push(third);
    assert!(!verify_bundle(&bundle, Some(&trust)).complete);
    // The verdict mentions a membership date that was moved.
    let reason = "its clock was wrong".to_owned();
    trust.nodes[0].moved.push(Moved { instant: Instant::MemberFrom, was: None, at: seconds(made), reason });
    let verdict = verify_bundle(&bundle, Some(&trust));
    let words = render_verdict(&verdict, Outcome::of(&verdict));
    assert!(words.contains("NOTE   member_from of mx1 was moved"), "{words}");
}

/// Returns a case in which the first tile was pruned, and the range begins after the first remaining row.
fn pruned() -> Case {
    let mut case = Case::new();
    case.asked.from = Timestamp::from_micros(START + 256 * 1_000_000 + 1);
    case.logs[0].prune(256, 290, None);
    case.logs[0].shown = (256..300).collect();
    case.logs[1].shown = vec![0, 4];
    case
}

/// If the log in a bundle replaced another log, the bundle is incomplete without that other log, unless the other log had no rows
/// or the range begins after the other log ended.
#[test]
fn a_range_that_reaches_back_before_its_log_is_incomplete() {
    let before = |rows: Option<u64>, from: i64| {
        let mut case = Case::new();
        case.asked.from = Timestamp::from_micros(from);
        let generation = "0123456789abcdef0123456789abcdef";
        case.logs[0].take_the_place(
            &serde_json::json!({ "generation": generation, "signed_rows": rows, "witnessed_rows": rows }),
        );
        let bundle = case.parts().seal();
        let verdict = verify_bundle(&bundle, Some(&trust()));
        assert!(verdict.is_sound(), "it makes nobody a liar: {:?}", verdict.findings);
        let control = verify_bundle_without(Check::Whole, &bundle, Some(&trust()));
        assert!(control.complete, "without this check it is believed");
        let missing = verdict.nodes[0].missing.clone().unwrap_or_default();
        assert_eq!(verdict.complete, missing.is_empty());
        assert!(missing.is_empty() || missing.contains(generation), "{missing}");
        verdict.complete
    };
    assert!(!before(Some(9), START - 1) && !before(None, START - 1));
    assert!(before(Some(0), START - 1), "the log before had no rows");
    assert!(before(Some(9), START), "the range begins with the log");
}

#[test]
fn frozen_bundles_are_made_and_read_as_ever() {
    for (name, case, rows, proven) in [
        ("whole.tar", Case::new(), 305, true),
        ("filtered.tar", filtered(), 102, false),
        ("range.tar", ranged(), 100, true),
        ("erased.tar", erased(), 305, true),
        ("pruned.tar", pruned(), 43, true),
        ("earlier.tar", earlier::chain(), 345, true),
    ] {
        let made = case.parts().seal();
        let path = golden(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &made).unwrap();
            std::fs::write(golden("trust.toml"), trust().to_text()).unwrap();
        }
        let frozen = std::fs::read(&path).unwrap();
        assert!(frozen == made, "{name} is not what is made today: the format has changed");
        let trusted = Trust::parse(&std::fs::read_to_string(golden("trust.toml")).unwrap()).unwrap();
        let verdict = verify_bundle(&frozen, Some(&trusted));
        assert!(accepted(&verdict), "{name}: {:?} {:?}", verdict.findings, verdict.nodes);
        assert_eq!((verdict.rows, verdict.proven), (rows, proven), "{name}");
        assert!(!verify_bundle(&frozen, None).trusted, "keys from inside show nothing");
    }
}

/// A forgery, with part of the message that reports it and the only check that can detect it.
pub(crate) struct Lie {
    pub(crate) what: &'static str,
    pub(crate) words: &'static str,
    pub(crate) check: Check,
    pub(crate) bundle: Vec<u8>,
    pub(crate) trust: Trust,
}

pub(crate) fn lie(what: &'static str, words: &'static str, check: Check, bundle: Vec<u8>) -> Lie {
    Lie { what, words, check, bundle, trust: trust() }
}

/// Returns a bundle of logs with one change, signed, witnessed and exported like any other.
fn log_lie(change: impl FnOnce(&mut Case)) -> Vec<u8> {
    let mut case = Case::new();
    change(&mut case);
    case.parts().seal()
}

/// Returns forgeries by a holder of the exporter's key.
fn exporters_lies() -> Vec<Lie> {
    let honest = Case::new();
    let member = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut parts = honest.parts();
        change(parts.member(name));
        parts.seal()
    };
    vec![
        lie("another exporter", "not signed by an exporter", Check::ManifestSignature, {
            let mut parts = honest.parts();
            parts.key = seed(9).named("golden/aggregator/agg", KeyKind::Log).unwrap();
            parts.seal()
        }),
        lie("another cluster", "it belongs to cluster", Check::Cluster, {
            let mut parts = honest.parts();
            parts.manifest.cluster = "other".parse().unwrap();
            parts.renew_report(&honest);
            parts.seal()
        }),
        lie("another trust file inside", "does not match the signed manifest", Check::Digests, {
            let mut parts = honest.parts();
            parts.manifest.members = honest.parts().members.iter().map(|(n, b)| digest(n, b)).collect();
            parts.member(TRUST).extend_from_slice(b"\n# trust me\n");
            parts.pack()
        }),
        lie("a count too high", "the manifest states", Check::Counts, {
            let mut parts = honest.parts();
            parts.manifest.nodes[0].borders = 1;
            parts.seal()
        }),
        lie("a row that was not asked for", "does not match the request", Check::Question, {
            let mut case = filtered();
            case.logs[0].shown.push(299);
            let (mut parts, all) = (case.parts(), case.logs.iter().map(|log| log.shown.len() as u64).sum());
            // The timeline and the CSV file have exactly the rows that are shown.
            let mut open = case.clone();
            open.asked.filter = String::new();
            let mut copies = open.parts();
            parts.manifest.rows = all;
            parts.manifest.nodes[0].rows += 1;
            for name in [TIMELINE, CSV] {
                *parts.member(name) = copies.member(name).clone();
            }
            parts.renew_report(&case);
            parts.seal()
        }),
        lie("another timeline", "does not match the proven rows", Check::Timeline, member(TIMELINE, &|b| b[400] ^= 1)),
        lie("another table", "does not match the proven rows", Check::Csv, member(CSV, &|b| b.push(b'\n'))),
        lie("another report", "does not match the manifest", Check::Report, member(REPORT, &|b| b[900] ^= 1)),
        lie("another readme", "does not have the expected text", Check::Readme, member(README, &|b| b.clear())),
    ]
}

/// Returns forgeries by nodes: logs that violate their own rules, and parts of logs that are passed off as complete.
fn nodes_lies() -> Vec<Lie> {
    vec![
        lie(
            "a checkpoint that the node did not sign",
            "signature",
            Check::NodeSignature,
            log_lie(|case| {
                case.logs[1].signer = seed(9);
            }),
        ),
        lie("no witness", "no witness in the trust file", Check::Witness, {
            // The log has a row after the range, so the age of the checkpoint does not matter.
            let mut case = ranged();
            case.logs[0].cosigned_at = None;
            case.parts().seal()
        }),
        lie(
            "rows of another node",
            "was written by mx2",
            Check::Identity,
            log_lie(|case| {
                let other = Log::new(1, 5);
                case.logs[0].rows[2].body = String::from_utf8(other.rows[2].body.clone()).unwrap().into_bytes();
            }),
        ),
        lie(
            "time runs backwards",
            "the time of row 7",
            Check::TimeOrder,
            log_lie(|case| {
                let log = &mut case.logs[0];
                log.rows[7].body = maker::body(&log.id, &log.generation, 7, 0, START + 1, "alice");
            }),
        ),
        lie(
            "a row that is no entry",
            "row 3 is not a valid entry",
            Check::EntryForm,
            log_lie(|case| {
                case.logs[0].rows[3].body.pop();
            }),
        ),
        lie(
            "rows left out",
            "not shown",
            Check::Whole,
            log_lie(|case| {
                case.logs[0].shown.retain(|seq| !(50..60).contains(seq));
            }),
        ),
        lie(
            "an old checkpoint",
            "does not cover the range",
            Check::Fresh,
            log_lie(|case| {
                let log = &mut case.logs[0];
                (log.size, log.cosigned_at) = (200, Some(START / 1_000_000 + 200));
                log.shown.truncate(200);
            }),
        ),
        lie(
            "a node left out",
            "the bundle contains nothing from this node",
            Check::Expected,
            log_lie(|case| {
                case.logs.pop();
            }),
        ),
        lie(
            "rows that were rejected",
            "rows without a proof",
            Check::Rejected,
            log_lie(|case| {
                case.logs[1].rejected = b"{\"entry\":\"?\"}\n".to_vec();
            }),
        ),
    ]
}

/// Returns forgeries about erased, dropped and pruned rows, such as erasures that no statement of the node confirms.
fn lies_about_what_is_gone() -> Vec<Lie> {
    vec![
        lie(
            "a row erased under an entry that says nothing of the kind",
            "is shown as erased",
            Check::Erasure,
            log_lie(|case| {
                // The log's row 250 is a login; this statement was made up.
                let log = &mut case.logs[0];
                let body = log.statement(250, &log.erasure(9));
                log.erased.insert(9, maker::Stored { body, mac: log.rows[250].mac.clone() });
            }),
        ),
        lie(
            "a row erased under a true entry that erased another",
            "is shown as erased",
            Check::Erasure,
            log_lie(|case| {
                // Entry 250 erased row 200; a made-up body claims that entry 250 erased row 9.
                let log = &mut case.logs[0];
                let body = log.statement(250, &log.erasure(9));
                let mac = log.rows[250].mac.clone();
                log.erase(200, 250);
                log.erased.insert(9, maker::Stored { body, mac });
            }),
        ),
        lie("rows dropped that nobody stated as pruned", "were not shown", Check::Whole, {
            // The dropped rows belong to a previous era, so the first row shown gives no information about them.
            let mut case = pruned();
            let log = &mut case.logs[0];
            log.rows[290] = Log::new(0, 300).rows[290].clone();
            for (seq, row) in (0u64..).zip(&mut log.rows).skip(256) {
                row.body = maker::body(
                    &log.id,
                    &log.generation,
                    seq,
                    1,
                    START + i64::try_from(seq).unwrap() * 1_000_000,
                    "bob",
                );
            }
            case.parts().seal()
        }),
        lie("a range that reaches back to pruned rows", "were pruned", Check::Whole, {
            let mut case = pruned();
            case.asked.from = Timestamp::from_micros(START + 255 * 1_000_000);
            case.parts().seal()
        }),
    ]
}

fn lies() -> Vec<Lie> {
    let honest = Case::new();
    let mut lies = exporters_lies();
    lies.extend(nodes_lies());
    lies.extend(lies_about_what_is_gone());
    lies.extend(earlier::lies());
    lies.push(lie("a row changed in every copy", "do not lead to the root", Check::Root, {
        let mut case = honest.clone();
        let signed = case.logs[0].note();
        let body = String::from_utf8(case.logs[0].rows[1].body.clone()).unwrap().replace("bob", "eve");
        case.logs[0].rows[1].body = body.into_bytes();
        case.logs[0].checkpoint = Some(signed);
        case.parts().seal()
    }));
    let mut ended = trust();
    ended.nodes[0].keys[0].to_size = Some(299);
    lies.push(Lie {
        trust: ended,
        ..lie("a key past its end", "signed with a key that is not valid", Check::KeySpan, honest.parts().seal())
    });
    lies
}

fn digest(name: &str, bytes: &[u8]) -> piperoll_evidence::bundle::MemberDigest {
    piperoll_evidence::bundle::MemberDigest::of(name, bytes)
}

#[test]
fn every_lie_is_refused_and_every_check_is_needed() {
    for lie in lies() {
        let verdict = verify_bundle(&lie.bundle, Some(&lie.trust));
        assert!(!accepted(&verdict), "{}: accepted", lie.what);
        let mut words: Vec<String> = verdict.findings.iter().map(|finding| finding.what.clone()).collect();
        words.extend(verdict.nodes.iter().filter_map(|node| node.missing.clone()));
        assert!(words.iter().any(|said| said.contains(lie.words)), "{}: {words:?}", lie.what);
        // Negative control: without this one check the forgery is accepted.
        let blind = verify_bundle_without(lie.check, &lie.bundle, Some(&lie.trust));
        let words: Vec<&str> = blind.findings.iter().map(|finding| finding.what.as_str()).collect();
        assert!(accepted(&blind), "{}: found without {:?}: {words:?}", lie.what, lie.check);
    }
}

/// Changes made without any key are refused: truncation, appended bytes, flipped bits, and removed, swapped or changed rows.
#[test]
fn nothing_can_be_changed_without_a_key() {
    let bundle = Case::new().parts().seal();
    let refused = |bundle: &[u8], what: &str| {
        let verdict = verify_bundle(bundle, Some(&trust()));
        assert!(!verdict.is_sound(), "{what}: {:?}", verdict.nodes);
        verdict.findings[0].what.clone()
    };
    let mut longer = bundle.clone();
    longer.push(0);
    assert!(refused(&longer, "a byte behind the end").contains("after its end"));
    for cut in [0, 1, 511, 512, 700, bundle.len() / 2, bundle.len() - 512, bundle.len() - 1] {
        refused(&bundle[..cut], "cut");
    }
    for bit in (0..bundle.len() * 8).step_by(4_099) {
        let mut flipped = bundle.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        refused(&flipped, &format!("bit {bit}"));
    }
    let rows_changed = |change: &dyn Fn(&mut Vec<maker::Stored>), what: &str| {
        let case = Case::new();
        let mut changed = case.clone();
        changed.logs[0].checkpoint = Some(case.logs[0].note());
        let mut rows: Vec<maker::Stored> = case.logs[0].shown_rows().cloned().collect();
        change(&mut rows);
        let mut parts = case.parts();
        let mut entries = Vec::new();
        for row in &rows {
            piperoll_evidence::bundle::write_entry(&mut entries, &row.body, &row.mac);
        }
        *parts.member(&entries_name("mx1")) = entries;
        refused(&parts.seal(), what);
    };
    rows_changed(&|rows| drop(rows.remove(9)), "a row dropped");
    rows_changed(&|rows| rows.swap(9, 10), "rows swapped");
    rows_changed(&|rows| rows.insert(9, rows[9].clone()), "a row repeated");
    rows_changed(&|rows| rows.truncate(299), "the last row dropped");
    rows_changed(&|rows| rows[5].mac[0] ^= 1, "a mac changed");
    // Sizes that do not match the rows: a wrong size in the manifest, and the checkpoint of another log.
    let mut parts = Case::new().parts();
    parts.manifest.nodes[0].size = Some(301);
    assert!(refused(&parts.seal(), "a wrong size").contains("a different log than the checkpoint"));
    let mut case = Case::new();
    case.logs[0].checkpoint = Some(case.logs[1].note());
    assert!(refused(&case.parts().seal(), "a foreign checkpoint").contains("another log"));
    // A cosignature over a checkpoint of another size.
    let mut case = Case::new();
    case.logs[0].size = 299;
    let older = case.logs[0].note();
    let mut case = Case::new();
    let signed = case.logs[0].note();
    let cosignature = older.lines().last().unwrap();
    case.logs[0].checkpoint =
        Some(format!("{}\n{cosignature}\n", signed.lines().take(5).collect::<Vec<_>>().join("\n")));
    assert!(refused(&case.parts().seal(), "a cosignature of another checkpoint").contains("does not match"));
    // Keys may be added to the trust file; a key is not accepted for checkpoints smaller than its first size.
    let mut rotated = trust();
    let old = rotated.nodes[0].keys[0].clone();
    let new = KeySpan { public: seed(77).public_bytes(), from_size: 1_000, ..old.clone() };
    rotated.nodes[0].keys = vec![new, KeySpan { to_size: Some(999), ..old }];
    assert!(accepted(&verify_bundle(&bundle, Some(&rotated))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A bundle in which random bytes were overwritten is refused, and never causes a panic.
    #[test]
    fn garbage_in_a_bundle_is_refused(at: prop::sample::Index, bytes in prop::collection::vec(any::<u8>(), 1..600)) {
        let mut bundle = Case::new().parts().seal();
        let at = at.index(bundle.len());
        let end = (at + bytes.len()).min(bundle.len());
        let same = bundle[at..end] == bytes[..end - at];
        bundle[at..end].copy_from_slice(&bytes[..end - at]);
        let verdict = verify_bundle(&bundle, Some(&trust()));
        prop_assert!(same || !verdict.is_sound());
    }

    #[test]
    fn garbage_alone_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..4_096)) {
        prop_assert!(!verify_bundle(&bytes, Some(&trust())).is_sound());
    }
}
