//! Checks, each a pure function that returns the first violation that it finds. The tests below run every check against input
//! that it must reject.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::model::{Known, Row};

pub(crate) type Outcome = Result<(), String>;

/// Checks that every acknowledged entry is present exactly once, under its seq, with its bytes. `is_gone` selects entries
/// that were erased or pruned on purpose.
pub(crate) fn receipts(known: &[Known], rows: &[Row], is_gone: impl Fn(&Known) -> bool) -> Outcome {
    let mut by_id: HashMap<(&str, &str), Vec<&Row>> = HashMap::new();
    for row in rows.iter().filter(|row| !row.id.is_empty()) {
        by_id.entry((&row.node, &row.id)).or_default().push(row);
    }
    for entry in known {
        let place = format!("{}/{}", entry.node, entry.seq);
        match by_id.get(&(entry.node.as_str(), entry.id.as_str())).map(Vec::as_slice) {
            None if is_gone(entry) => {}
            None => return Err(format!("{place} was acknowledged with id {} and is missing", entry.id)),
            Some([row]) => same_bytes(entry, row)?,
            Some(several) => return Err(format!("id {} of {place} is there {} times", entry.id, several.len())),
        }
    }
    Ok(())
}

fn same_bytes(entry: &Known, row: &Row) -> Outcome {
    let (place, found) = (format!("{}/{}", entry.node, entry.seq), format!("{}/{}", row.node, row.seq));
    if place != found {
        return Err(format!("{place} was acknowledged and is at {found}"));
    }
    if row.integrity != "ok" {
        return Err(format!("{place} was acknowledged and is {}", row.integrity));
    }
    if (&entry.signature, &entry.text) != (&row.signature, &row.text) {
        return Err(format!("{place} has other bytes than were acknowledged: {row:?} instead of {entry:?}"));
    }
    Ok(())
}

/// Checks that every row marked `ok` has the bytes that were acknowledged.
pub(crate) fn nothing_changed_is_shown_as_sound(known: &[Known], rows: &[Row]) -> Outcome {
    let by_id: HashMap<&str, &Known> = known.iter().map(|entry| (entry.id.as_str(), entry)).collect();
    for row in rows.iter().filter(|row| row.integrity == "ok") {
        if let Some(entry) = by_id.get(row.id.as_str()) {
            same_bytes(entry, row)?;
        }
    }
    Ok(())
}

/// Checks that the rows of one log, in any order, are numbered from `first` without gaps or duplicates.
pub(crate) fn dense(node: &str, rows: &[Row], first: u64) -> Outcome {
    let mut numbers: Vec<u64> = rows.iter().map(|row| row.seq).collect();
    numbers.sort_unstable();
    for (expected, found) in (first..).zip(numbers) {
        if found != expected {
            return Err(format!("{node}: row {found} is where row {expected} should be"));
        }
    }
    if rows.is_empty() { Err(format!("{node}: no row at all")) } else { Ok(()) }
}

/// Checks that the merged export has exactly the rows that the nodes export.
pub(crate) fn union(parts: &[Row], merged: &[Row]) -> Outcome {
    let counted = |rows: &[Row]| {
        let mut counts: BTreeMap<(String, u64, String), i64> = BTreeMap::new();
        for row in rows {
            *counts.entry((row.node.clone(), row.seq, row.signature.clone())).or_default() += 1;
        }
        counts
    };
    let (expected, found) = (counted(parts), counted(merged));
    let places: HashSet<_> = expected.keys().chain(found.keys()).collect();
    for place in places {
        let (here, there) = (expected.get(place).unwrap_or(&0), found.get(place).unwrap_or(&0));
        if here != there {
            let (node, seq, _) = place;
            return Err(format!("{node}/{seq} is {here} times on the node and {there} times in the merged export"));
        }
    }
    Ok(())
}

/// Checks that an answer marked `complete` has every entry of its range that was acknowledged before the request.
pub(crate) fn complete_is_true(
    is_complete: bool,
    known: &[Known],
    rows: &[Row],
    is_erased: impl Fn(&Known) -> bool,
) -> Outcome {
    if !is_complete {
        return Ok(());
    }
    // An erased row has only its node and seq left, so the filter does not select it.
    receipts(known, rows, is_erased).map_err(|found| format!("the answer is called complete, and {found}"))
}

/// Checks that a healthy cluster gives complete answers.
pub(crate) fn is_complete(is_complete: bool, said: &str) -> Outcome {
    if is_complete { Ok(()) } else { Err(format!("everything is healthy, and the answer is not complete: {said}")) }
}

/// Checks that a range with pruned or replaced rows is not marked `complete`.
pub(crate) fn is_not_complete(is_complete: bool, lost: &str) -> Outcome {
    if is_complete { Err(format!("the answer is called complete, and {lost}")) } else { Ok(()) }
}

/// Checks the exit code of `piperoll node verify` on an untouched log.
pub(crate) fn verify_is_clean(node: &str, code: i32, said: &str) -> Outcome {
    if code == 0 {
        Ok(())
    } else {
        Err(format!("{node}: nobody touched this log, and verify exits with {code}: {said}"))
    }
}

/// Checks the exit code of the bundle verifier.
pub(crate) fn bundle_verifies(code: i32, said: &str) -> Outcome {
    if code == 0 { Ok(()) } else { Err(format!("a bundle of a healthy cluster is refused with {code}: {said}")) }
}

/// Checks that no untouched node got one of these verdicts.
pub(crate) fn no_false_alarm<'a>(
    alarms: impl Iterator<Item = (&'a str, &'a str)>,
    is_expected: impl Fn(&str) -> bool,
) -> Outcome {
    for (node, verdict) in alarms {
        if !is_expected(node) {
            return Err(format!("{node} was called {verdict}, and nobody tampered with it"));
        }
    }
    Ok(())
}

/// Checks that a daemon logged no panic.
pub(crate) fn no_panic(daemon: &str, log: &str) -> Outcome {
    match log.lines().find(|line| line.contains("panicked at") || line.contains("stack overflow")) {
        Some(line) => Err(format!("{daemon} said: {line}")),
        None => Ok(()),
    }
}

/// Checks that a tail printed no row twice. The last line may be incomplete, because the campaign kills the tail.
pub(crate) fn repeats_nothing(printed: &str) -> Outcome {
    let mut seen = HashSet::new();
    for row in printed.lines().filter_map(|line| Row::parse(line).ok().flatten()) {
        if !seen.insert((row.node.clone(), row.seq, row.signature.clone())) {
            return Err(format!("a tail printed {}/{} twice", row.node, row.seq));
        }
    }
    Ok(())
}

/// Checks the peak memory of a daemon.
pub(crate) fn memory(daemon: &str, kib: u64, limit_kib: u64) -> Outcome {
    if kib <= limit_kib { Ok(()) } else { Err(format!("{daemon} used {kib} KiB, more than {limit_kib} KiB")) }
}

/// Checks that an answer came within its time limit.
pub(crate) fn within(request: &str, took: Duration, limit: Duration) -> Outcome {
    if took <= limit { Ok(()) } else { Err(format!("{request} took {took:?}, more than {limit:?}")) }
}

/// Checks that a daemon which refuses to start exits with 1 and names the damaged file.
pub(crate) fn refusal_names(code: Option<i32>, said: &str, names: &[String]) -> Outcome {
    if code != Some(1) {
        return Err(format!("the daemon ended with {code:?} instead of 1: {said}"));
    }
    if names.iter().any(|name| said.contains(name.as_str())) {
        return Ok(());
    }
    Err(format!("the daemon refused to start and named none of {names:?}: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(seq: u64) -> Known {
        let (node, text) = ("mx1".to_owned(), format!("text {seq}"));
        let (id, signature) = (format!("id{seq}"), format!("mac{seq}"));
        Known { node, generation: 0, seq, id, signature, micros: 0, text }
    }

    fn row(seq: u64) -> Row {
        let Known { node, id, signature, text, .. } = known(seq);
        Row { node, seq, id, signature, integrity: "ok".to_owned(), text }
    }

    fn nothing(_: &Known) -> bool {
        false
    }

    #[test]
    fn a_missing_doubled_moved_or_changed_entry_is_found() {
        let all = [known(0), known(1)];
        assert_eq!(receipts(&all, &[row(0), row(1)], nothing), Ok(()));
        assert!(receipts(&all, &[row(0)], nothing).unwrap_err().contains("mx1/1 was acknowledged"));
        assert_eq!(receipts(&all, &[row(0)], |entry| entry.seq == 1), Ok(()));
        assert!(receipts(&all, &[row(0), row(1), row(1)], nothing).unwrap_err().contains("2 times"));
        assert!(receipts(&all, &[row(0), Row { seq: 5, ..row(1) }], nothing).unwrap_err().contains("is at mx1/5"));
        for wrong in [
            Row { signature: "other".to_owned(), ..row(1) },
            Row { text: "other".to_owned(), ..row(1) },
            Row { integrity: "violation".to_owned(), ..row(1) },
        ] {
            assert!(receipts(&all, &[row(0), wrong], nothing).is_err());
        }
    }

    #[test]
    fn a_changed_row_that_is_shown_as_sound_is_found() {
        let changed = Row { text: "other".to_owned(), ..row(1) };
        assert!(nothing_changed_is_shown_as_sound(&[known(1)], std::slice::from_ref(&changed)).is_err());
        let marked = Row { integrity: "violation".to_owned(), ..changed };
        assert_eq!(nothing_changed_is_shown_as_sound(&[known(1)], &[marked]), Ok(()));
    }

    #[test]
    fn a_hole_in_the_numbers_is_found() {
        assert_eq!(dense("mx1", &[row(3), row(4)], 3), Ok(()));
        for rows in [&[row(3), row(5)][..], &[row(4)], &[row(3), row(3)], &[]] {
            assert!(dense("mx1", rows, 3).is_err(), "{rows:?}");
        }
    }

    #[test]
    fn a_merge_that_loses_doubles_or_changes_is_found() {
        let parts = [row(0), row(1)];
        assert_eq!(union(&parts, &[row(1), row(0)]), Ok(()));
        let changed = Row { signature: "other".to_owned(), ..row(1) };
        for merged in [&[row(0)][..], &[row(0), row(1), row(1)], &[row(0), changed], &[row(0), row(1), row(2)]] {
            assert!(union(&parts, merged).is_err(), "{merged:?}");
        }
    }

    #[test]
    fn a_false_complete_is_found() {
        let all = [known(0), known(1)];
        assert_eq!(complete_is_true(false, &all, &[], nothing), Ok(()));
        assert_eq!(complete_is_true(true, &all, &[row(0), row(1)], nothing), Ok(()));
        assert!(complete_is_true(true, &all, &[row(0)], nothing).is_err());
        // An erased row may be absent; any other absent row is missing.
        assert_eq!(complete_is_true(true, &all, &[row(0)], |entry: &Known| entry.seq == 1), Ok(()));
        assert!(complete_is_true(true, &all, &[row(0)], |entry: &Known| entry.seq == 0).is_err());
        assert!(is_complete(false, "mx1 is missing").is_err());
        assert!(is_not_complete(true, "rows were pruned").is_err());
    }

    #[test]
    fn findings_alarms_panics_memory_and_time_are_found() {
        assert!(verify_is_clean("mx1", 4, "row 7").is_err());
        assert!(bundle_verifies(4, "REFUSED").is_err());
        assert!(no_false_alarm([("mx1", "fork")].into_iter(), |_| false).is_err());
        assert_eq!(no_false_alarm([("mx1", "rollback")].into_iter(), |node| node == "mx1"), Ok(()));
        assert!(no_panic("mx1", "INFO fine\nthread 'x' panicked at node/src/lib.rs:1:1").is_err());
        assert_eq!(no_panic("mx1", "INFO fine"), Ok(()));
        let line = "{\"entry\":{\"node_id\":\"mx1\",\"seq\":7},\"signature\":\"ab\"}\n";
        assert_eq!(repeats_nothing(&format!("{line}{{\"ent")), Ok(()));
        assert!(repeats_nothing(&line.repeat(2)).is_err());
        assert!(memory("mx1", 11, 10).is_err());
        assert!(within("a page", Duration::from_secs(2), Duration::from_secs(1)).is_err());
    }

    #[test]
    fn a_refusal_without_the_name_of_the_file_or_with_a_crash_is_found() {
        let names = ["log.db".to_owned()];
        assert_eq!(refusal_names(Some(1), "/x/log.db is damaged", &names), Ok(()));
        assert!(refusal_names(Some(1), "something is damaged", &names).is_err());
        assert!(refusal_names(Some(101), "/x/log.db is damaged", &names).is_err());
        assert!(refusal_names(None, "/x/log.db is damaged", &names).is_err());
    }
}
