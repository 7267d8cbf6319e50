//! Counts for the line that the campaign prints at its end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Counters shared by rounds, probes and checks.
#[derive(Clone, Default)]
pub(crate) struct Counters(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    rounds: usize,
    faults: BTreeMap<&'static str, usize>,
    checks: BTreeMap<&'static str, usize>,
    skipped: Vec<String>,
    entries: usize,
    peak_kib: BTreeMap<String, u64>,
    slowest: Duration,
}

impl Counters {
    fn with<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    pub(crate) fn round(&self) {
        self.with(|counts| counts.rounds += 1);
    }

    pub(crate) fn fault(&self, kind: &'static str) {
        self.with(|counts| *counts.faults.entry(kind).or_default() += 1);
    }

    pub(crate) fn skipped(&self, reason: String) {
        self.with(|counts| {
            if !counts.skipped.contains(&reason) {
                counts.skipped.push(reason);
            }
        });
    }

    pub(crate) fn entries(&self, number: usize) {
        self.with(|counts| counts.entries = number);
    }

    pub(crate) fn peak(&self, daemon: &str, kib: u64) {
        self.with(|counts| {
            let peak = counts.peak_kib.entry(daemon.to_owned()).or_default();
            *peak = kib.max(*peak);
        });
    }

    pub(crate) fn took(&self, time: Duration) {
        self.with(|counts| counts.slowest = counts.slowest.max(time));
    }

    /// Counts a check. If the check found a violation, prefixes the message with the check's name.
    pub(crate) fn check(&self, name: &'static str, outcome: Result<(), String>) -> Result<(), String> {
        self.with(|counts| *counts.checks.entry(name).or_default() += 1);
        outcome.map_err(|found| format!("{name}: {found}"))
    }

    /// Formats the last line: rounds, entries, faults and checks by kind, and skipped faults.
    pub(crate) fn closing(&self, violations: usize) -> String {
        self.with(|counts| {
            let by_kind = |kinds: &BTreeMap<&'static str, usize>| {
                let total: usize = kinds.values().sum();
                let each: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
                format!("{total} ({})", each.join(", "))
            };
            let peaks: Vec<String> =
                counts.peak_kib.iter().map(|(daemon, kib)| format!("{daemon} {} MiB", kib / 1024)).collect();
            let skipped = if counts.skipped.is_empty() {
                "nothing skipped".to_owned()
            } else {
                format!("SKIPPED: {}", counts.skipped.join("; "))
            };
            format!(
                "campaign: {} rounds, {} entries acknowledged, faults {}, checks {}, peak memory {}, slowest answer {} ms, {skipped}, {violations} violation{}",
                counts.rounds,
                counts.entries,
                by_kind(&counts.faults),
                by_kind(&counts.checks),
                peaks.join(", "),
                counts.slowest.as_millis(),
                if violations == 1 { "" } else { "s" }
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_says_what_was_done_and_what_was_not() {
        let tally = Counters::default();
        tally.round();
        tally.fault("kill");
        tally.skipped("no strace".to_owned());
        assert_eq!(tally.check("panics", Err("one".to_owned())), Err("panics: one".to_owned()));
        let line = tally.closing(1);
        for part in ["1 rounds", "kill 1", "panics 1", "SKIPPED: no strace", "1 violation"] {
            assert!(line.contains(part), "{line}");
        }
    }
}
