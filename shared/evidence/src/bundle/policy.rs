//! Checks whether pruned entries had been kept for as long as the cluster's retention policy requires, according to a witness.

use super::membership::KeepPolicy;
use piperoll_format::checkpoint::Checkpoint;
use piperoll_format::note::{Note, VerifyingKey};
use piperoll_format::statement::Pruned;
use piperoll_format::time::Timestamp;

const DAY_MICROS: i64 = 24 * 3_600 * 1_000_000;

/// Result of comparing a prune with the retention policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyFit {
    /// A witness had seen all pruned entries for as long as the policy requires.
    Kept,
    /// The entries were pruned earlier than the policy allows; the text gives the times.
    Early(String),
    /// Reason why it cannot be shown whether the entries were kept for long enough.
    Unshown(String),
}

/// Compares a prune with the policy that was in effect when the prune was recorded. `origin` is the log's origin, `stated` is the
/// time of the `log.pruned` entry, which is proven to be in the log, and `witnesses` are the cluster's witnesses.
///
/// The age of the entries is counted from the cosignature in the `log.pruned` entry: by that time, a witness had seen all entries
/// up to the last pruned one.
pub fn kept_to_policy(
    origin: &str,
    pruned: &Pruned,
    stated: Timestamp,
    policies: &[KeepPolicy],
    witnesses: &[VerifyingKey],
) -> PolicyFit {
    let Some(policy) = KeepPolicy::at(policies, stated) else {
        return PolicyFit::Unshown("the cluster has no retention policy for that time".to_owned());
    };
    let keep = i64::from(policy.keep_days).saturating_mul(DAY_MICROS);
    let since = |time: Timestamp| stated.micros().saturating_sub(time.micros());
    // The cosignature covers only pruned entries of this log. It does not cover entries that were added to an archived log later
    // and were removed with that log.
    let added = pruned.earlier.iter().filter_map(|log| log.added).filter(|added| since(*added) < keep).max();
    if let Some(added) = added {
        let message = format!(
            "an archived log that was pruned with them has an entry recorded at {added} and was recorded as pruned at {stated}, but the policy requires {} days",
            policy.keep_days
        );
        return if added <= stated { PolicyFit::Early(message) } else { PolicyFit::Unshown(message) };
    }
    let seen = pruned.witnessed.as_deref().and_then(|note| cosigned_at(origin, note, pruned.to_seq, witnesses));
    if seen.is_some_and(|seen| since(seen) >= keep) {
        return PolicyFit::Kept;
    }
    let days = policy.keep_days;
    // An entry with a time after the prune shows that a clock was wrong, and says nothing about the entry's age.
    let young = since(pruned.newest) < keep && pruned.newest <= stated;
    match seen {
        Some(seen) if young => PolicyFit::Early(format!(
            "they were witnessed at {seen} and recorded as pruned at {stated}, but the policy requires {days} days"
        )),
        None if young => PolicyFit::Early(format!(
            "the newest of them has the timestamp {} and was recorded as pruned at {stated}, but the policy requires {days} days",
            pruned.newest
        )),
        Some(seen) => PolicyFit::Unshown(format!(
            "only their own timestamps show that they were kept for the {days} days of the policy; the cosignature that covers them is from {seen}"
        )),
        None => PolicyFit::Unshown(format!(
            "only their own timestamps show that they were kept for the {days} days of the policy; the `log.pruned` entry names no witness"
        )),
    }
}

/// Returns the time at which a witness of the cluster had seen at least `rows` entries of the log: the time of the earliest valid
/// cosignature of the note.
fn cosigned_at(origin: &str, note: &str, rows: u64, witnesses: &[VerifyingKey]) -> Option<Timestamp> {
    let note = Note::parse(note).ok()?;
    let checkpoint = Checkpoint::parse(note.text()).ok()?;
    if checkpoint.origin != origin || checkpoint.size < rows {
        return None;
    }
    let seconds = witnesses.iter().filter_map(|witness| note.verify(witness).ok()).min()?;
    Some(Timestamp::from_micros(i64::try_from(seconds).ok()?.checked_mul(1_000_000)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use piperoll_format::note::{KeyKind, SigningKey, SigningSeed};
    use piperoll_format::statement::EarlierPruned;

    const ORIGIN: &str = "c/mx1/00000000000000000000000000000007";
    const DAY: i64 = DAY_MICROS;

    fn witness(number: u8) -> SigningKey {
        SigningSeed::from_bytes([number; 32]).named("c/aggregator/agg", KeyKind::Witness).expect("a key")
    }

    fn pruned(newest: i64, note: Option<String>) -> Pruned {
        let time = Timestamp::from_micros(newest);
        Pruned {
            from_seq: 0,
            to_seq: 256,
            epoch: 0,
            era: 0,
            last_timestamp: time,
            newest: time,
            root: [0; 32],
            policy: "365 days".to_owned(),
            archive: None,
            witnessed: note,
            earlier: Vec::new(),
        }
    }

    fn note(origin: &str, size: u64, day: i64, by: u8) -> String {
        let checkpoint = Checkpoint { origin: origin.to_owned(), size, root: [1; 32] };
        let key = SigningSeed::from_bytes([9; 32]).named(origin, KeyKind::Log).expect("a key");
        let note = checkpoint.sign(&key).expect("a note");
        let seconds = u64::try_from(day * DAY / 1_000_000).expect("a time");
        let cosignature = witness(by).cosign(note.text(), seconds);
        note.with(cosignature).to_string()
    }

    #[test]
    fn only_a_witness_of_the_cluster_shows_that_a_policy_was_kept() {
        let policies = [
            KeepPolicy { from: Timestamp::MIN, keep_days: 365 },
            KeepPolicy { from: Timestamp::from_micros(2_000 * DAY), keep_days: 90 },
        ];
        let witnesses = [witness(1).public().clone()];
        let fit = |newest: i64, note: Option<String>, stated: i64| {
            let stated = Timestamp::from_micros(stated * DAY);
            kept_to_policy(ORIGIN, &pruned(newest * DAY, note), stated, &policies, &witnesses)
        };
        let seen = |day| Some(note(ORIGIN, 256, day, 1));
        assert_eq!(fit(1_000, seen(1_000), 1_365), PolicyFit::Kept);
        assert_eq!(fit(9_000, seen(1_000), 1_365), PolicyFit::Kept, "a row of a clock that ran ahead");
        assert_eq!(fit(2_000, seen(2_000), 2_090), PolicyFit::Kept, "the policy of that time");
        for (what, early) in
            [("a day too early", fit(1_000, seen(1_000), 1_364)), ("no witness, and young", fit(1_000, None, 1_364))]
        {
            assert!(matches!(early, PolicyFit::Early(_)), "{what}: {early:?}");
        }
        for (what, unshown) in [
            ("no witness", fit(900, None, 1_365)),
            ("witnessed late", fit(900, seen(1_200), 1_365)),
            ("a witness that nobody trusts", fit(900, Some(note(ORIGIN, 256, 900, 2)), 1_365)),
            ("another log", fit(900, Some(note("c/mx2/00000000000000000000000000000007", 256, 900, 1)), 1_365)),
            ("fewer rows", fit(900, Some(note(ORIGIN, 255, 900, 1)), 1_365)),
            ("no note at all", fit(900, Some("x".to_owned()), 1_365)),
            ("a row of the future", fit(9_000, None, 1_365)),
        ] {
            assert!(matches!(unshown, PolicyFit::Unshown(_)), "{what}: {unshown:?}");
        }
        for (added, is_early) in [(999, false), (1_100, true), (2_000, false)] {
            let generation = piperoll_format::ids::Generation::from_bytes([8; 16]);
            let added = Some(Timestamp::from_micros(added * DAY));
            let earlier = vec![EarlierPruned { generation, rows: 3, added }];
            let pruned = Pruned { earlier, ..pruned(1_000 * DAY, seen(1_000)) };
            let stated = Timestamp::from_micros(1_365 * DAY);
            let fit = kept_to_policy(ORIGIN, &pruned, stated, &policies, &witnesses);
            let expected = if added < Some(Timestamp::from_micros(1_001 * DAY)) {
                fit == PolicyFit::Kept
            } else {
                fit != PolicyFit::Kept
            };
            assert!(expected && matches!(fit, PolicyFit::Early(_)) == is_early, "{added:?}: {fit:?}");
        }
        let without = kept_to_policy(ORIGIN, &pruned(0, seen(0)), Timestamp::from_micros(500 * DAY), &[], &witnesses);
        assert!(matches!(without, PolicyFit::Unshown(_)), "no policy");
    }
}
