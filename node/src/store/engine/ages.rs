//! How long rows have been witnessed, which automatic retention uses.
//!
//! No clock is believed. The age is a sum over the cosignatures that arrive: each step between two of one witness counts as long as
//! that witness says, but never longer than an hour, and never longer than this process has run since the one before; the first one after
//! a start counts an hour at most. So a clock that jumps, all clocks that jump together, and an outage add almost nothing, and can only
//! delay that rows go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use piperoll_format::ids::Generation;
use piperoll_format::note::{Note, VerifyingKey};
use piperoll_net::checked_json;
use serde::{Deserialize, Serialize};

/// The most that one step counts: longer ones are outages, or clocks that were set.
const STEP_MAX: Duration = Duration::from_hours(1);
/// Between two samples: rows go late by at most as long.
const SAMPLE_EVERY: Duration = Duration::from_hours(1);
/// When there are more, every second one of the older half goes.
const SAMPLES_MAX: usize = 20_000;
/// Between two cosigned checkpoints that are kept whole, to show others for how long rows were witnessed.
const NOTE_EVERY: Duration = Duration::from_hours(24);
/// More than ten years of them; when there are more, every second one of the older half goes.
const NOTES_MAX: usize = 4_096;
/// Between two writes of the file without a new sample; a crash loses that much age.
const WRITE_EVERY: Duration = Duration::from_mins(5);
const FILE: &str = "witnessed.json";

/// Rows below `size` were witnessed when the sum was `age_micros`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    size: u64,
    age_micros: i64,
}

/// The same, with the checkpoint itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    size: u64,
    age_micros: i64,
    /// As it came back cosigned.
    note: String,
}

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Book {
    /// Sizes are of this log only.
    generation: String,
    /// The sum.
    age_micros: i64,
    /// The newest cosignature of each witness, by its name, in seconds since 1970 by its own clock.
    newest: BTreeMap<String, u64>,
    /// Ascending in both.
    samples: Vec<Sample>,
    /// Ascending in both; missing in files of earlier versions.
    #[serde(default)]
    notes: Vec<Shown>,
    /// For the rows below this one an operator answered that their own times are right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    confirmed_below: Option<u64>,
}

/// Updated by the writer and read by retention.
#[derive(Debug)]
pub(in crate::store) struct Ages {
    path: PathBuf,
    witnesses: Vec<VerifyingKey>,
    book: Book,
    /// When the last step was counted, by a clock that nobody sets.
    counted: Option<Instant>,
    written: Option<Instant>,
    stranger: bool,
}

/// Lets every second one of the older half go when there are too many.
fn make_room<T>(list: &mut Vec<T>, most: usize) {
    if list.len() < most {
        return;
    }
    let mut place = 0;
    list.retain(|_| {
        place += 1;
        place > most / 2 || place % 2 == 0
    });
}

impl Ages {
    /// Reads what is known. A file that is damaged or of another log is set aside: then everything ages from now on.
    pub(in crate::store) fn open(dir: &Path, generation: Generation, witnesses: Vec<VerifyingKey>) -> Self {
        let path = dir.join(FILE);
        let generation = generation.to_string();
        let book = match std::fs::read(&path) {
            Ok(bytes) => match checked_json::from_bytes::<Book>(&bytes) {
                Ok(book) if book.generation == generation => Some(book),
                Ok(_) => None,
                Err(error) => {
                    let aside = path.with_extension("json.damaged");
                    let moved = std::fs::rename(&path, &aside).is_ok();
                    tracing::error!(file = %path.display(), %error, moved, "the witnessed time of rows is lost; they age from now on");
                    None
                }
            },
            Err(_) => None,
        };
        let book = book.unwrap_or_else(|| Book { generation, ..Book::default() });
        Self { path, witnesses, book, counted: None, written: None, stranger: false }
    }

    /// Of a log that is only read: nothing ages, and nothing is written.
    pub(in crate::store) fn none(generation: Generation) -> Self {
        let book = Book { generation: generation.to_string(), ..Book::default() };
        Self { path: PathBuf::new(), witnesses: Vec::new(), book, counted: None, written: None, stranger: false }
    }

    /// Forgets what was sampled of rows that are not here any more: a log that was put back from an older copy records others in
    /// their place, which are young.
    pub(in crate::store) fn cut_to(&mut self, rows: u64) {
        self.book.samples.retain(|sample| sample.size <= rows);
        self.book.notes.retain(|shown| shown.size <= rows);
        self.book.confirmed_below = self.book.confirmed_below.map(|below| below.min(rows));
    }

    /// Notes that a cosignature came of a witness that is not known here. True the first time.
    pub(in crate::store) fn met_stranger(&mut self) -> bool {
        !std::mem::replace(&mut self.stranger, true)
    }

    /// Whether a witness cosigns that is not known here.
    pub(in crate::store) fn stranger(&self) -> bool {
        self.stranger
    }

    /// Whether a witness of this cluster is known here at all.
    pub(in crate::store) fn knows_witnesses(&self) -> bool {
        !self.witnesses.is_empty()
    }

    /// When a witness that is known here cosigned a note last, in seconds since 1970 by its clock.
    pub(in crate::store) fn cosigned_at(&self, note: &Note) -> Option<u64> {
        self.witnesses.iter().filter_map(|witness| note.verify(witness).ok()).max()
    }

    /// Counts the cosignatures of a note of `size` rows. Returns whether there was a good one.
    pub(in crate::store) fn count(&mut self, note: &Note, size: u64, now: Instant) -> bool {
        let mut step = Duration::ZERO;
        let mut good = false;
        for witness in &self.witnesses {
            let Ok(seconds) = note.verify(witness) else { continue };
            good = true;
            let newest = self.book.newest.insert(witness.name().to_owned(), seconds);
            let said = newest.map_or(Duration::ZERO, |newest| Duration::from_secs(seconds.saturating_sub(newest)));
            step = step.max(said);
        }
        if !good {
            return false;
        }
        let ran = self.counted.map_or(STEP_MAX, |counted| now.saturating_duration_since(counted));
        self.counted = Some(now);
        let step = step.min(STEP_MAX).min(ran);
        self.book.age_micros = self.book.age_micros.saturating_add(i64::try_from(step.as_micros()).unwrap_or_default());
        let sampled = self.sample(size) | self.show(note, size);
        let due = self.written.is_none_or(|written| now.saturating_duration_since(written) >= WRITE_EVERY);
        if sampled || due {
            self.written = Some(now);
            if let Err(error) = checked_json::write(&self.path, &self.book) {
                tracing::warn!(%error, file = %self.path.display(), "cannot store the witnessed time of rows");
            }
        }
        true
    }

    fn sample(&mut self, size: u64) -> bool {
        let every = i64::try_from(SAMPLE_EVERY.as_micros()).unwrap_or(i64::MAX);
        let due = self
            .book
            .samples
            .last()
            .is_none_or(|last| size > last.size && self.book.age_micros.saturating_sub(last.age_micros) >= every);
        if !due {
            return false;
        }
        make_room(&mut self.book.samples, SAMPLES_MAX);
        self.book.samples.push(Sample { size, age_micros: self.book.age_micros });
        true
    }

    /// Keeps a cosigned checkpoint whole, unless one was kept a short while ago.
    fn show(&mut self, note: &Note, size: u64) -> bool {
        let every = i64::try_from(NOTE_EVERY.as_micros()).unwrap_or(i64::MAX);
        let due = self
            .book
            .notes
            .last()
            .is_none_or(|last| size > last.size && self.book.age_micros.saturating_sub(last.age_micros) >= every);
        if !due {
            return false;
        }
        make_room(&mut self.book.notes, NOTES_MAX);
        self.book.notes.push(Shown { size, age_micros: self.book.age_micros, note: note.to_string() });
        true
    }

    /// The oldest cosigned checkpoint that is kept of a log with so many rows.
    pub(in crate::store) fn note_over(&self, rows: u64) -> Option<String> {
        let first = self.book.notes.partition_point(|shown| shown.size < rows);
        self.book.notes.get(first).map(|shown| shown.note.clone())
    }

    /// Rows below this one were witnessed for so long at least. Where a checkpoint can show it to others, no more than those under it.
    pub(in crate::store) fn rows_for(&self, long: Duration) -> u64 {
        let long = i64::try_from(long.as_micros()).unwrap_or(i64::MAX);
        let until = self.book.age_micros.saturating_sub(long);
        let shown = self.book.notes.partition_point(|shown| shown.age_micros <= until);
        if let Some(last) = shown.checked_sub(1) {
            return self.book.notes[last].size;
        }
        let old = self.book.samples.partition_point(|sample| sample.age_micros <= until);
        old.checked_sub(1).map_or(0, |last| self.book.samples[last].size)
    }

    /// The rows that had been recorded before the first sample: nothing but their own times says how old they are.
    pub(in crate::store) fn unsampled(&self) -> Option<u64> {
        self.book.samples.first().map(|sample| sample.size)
    }

    /// The rows below this one go by their own times; see `confirm`.
    pub(in crate::store) fn confirmed_below(&self) -> Option<u64> {
        self.book.confirmed_below
    }

    /// Keeps that an operator answers for the times of the rows below this one.
    pub(in crate::store) fn confirm(&mut self, below: u64) -> std::io::Result<()> {
        let confirmed = Book { confirmed_below: Some(below), ..self.book.clone() };
        checked_json::write(&self.path, &confirmed)?;
        self.book = confirmed;
        Ok(())
    }

    /// For how long the oldest rows have been witnessed.
    pub(in crate::store) fn oldest(&self) -> Duration {
        let first = self.book.samples.first().map_or(self.book.age_micros, |sample| sample.age_micros);
        Duration::from_micros(u64::try_from(self.book.age_micros.saturating_sub(first)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use piperoll_format::note::{KeyKind, SigningKey, SigningSeed};
    use proptest::prelude::*;

    fn key(number: u8, kind: KeyKind) -> SigningKey {
        SigningSeed::from_bytes([number; 32]).named("c/x", kind).expect("a key")
    }

    fn ages(dir: &Path) -> Ages {
        Ages::open(dir, Generation::from_bytes([3; 16]), vec![key(1, KeyKind::Witness).public().clone()])
    }

    fn cosigned(seconds: u64, by: u8) -> Note {
        let note = Note::unsigned("c/n/g\n9\nroot\n".to_owned()).expect("a text");
        let text = note.text().to_owned();
        note.with(key(by, KeyKind::Witness).cosign(&text, seconds))
    }

    proptest! {
        // Every step is synced to the disk.
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Whatever the witness's clock does, the age is never more than the time that went by, and an hour for each start.
        #[test]
        fn no_clock_makes_rows_old(
            steps in proptest::collection::vec((0u64..4_000_000_000, 0u64..20_000, any::<bool>()), 1..40)
        ) {
            let dir = tempfile::tempdir().expect("a folder");
            let start = Instant::now();
            let (mut book, mut now, mut starts) = (ages(dir.path()), start, 1);
            for (seconds, ran, restarted) in steps {
                now += Duration::from_secs(ran);
                if restarted {
                    book = ages(dir.path());
                    starts += 1;
                }
                prop_assert!(book.count(&cosigned(seconds, 1), 9, now));
            }
            let most = now.duration_since(start) + STEP_MAX * starts;
            prop_assert_eq!(book.rows_for(most + Duration::from_secs(1)), 0);
            prop_assert!(book.oldest() <= most);
        }
    }

    #[test]
    fn rows_that_took_the_place_of_others_are_young() {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut book, start) = (ages(dir.path()), Instant::now());
        for hour in 0..200u64 {
            let now = start + Duration::from_secs(hour * 3_600);
            assert!(book.count(&cosigned(1_000_000 + hour * 3_600, 1), 100 + hour, now));
        }
        assert!(book.rows_for(Duration::from_hours(24)) > 200);
        book.cut_to(150);
        assert!(book.rows_for(Duration::ZERO) <= 150, "rows behind the end are others");
    }

    #[test]
    fn rows_age_while_they_are_witnessed() {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut book, start) = (ages(dir.path()), Instant::now());
        for minute in 0..60 * 24 * 3 {
            let now = start + Duration::from_secs(minute * 60);
            assert!(book.count(&cosigned(1_000_000 + minute * 60, 1), 10 + minute, now));
            assert!(!book.count(&cosigned(9_000_000, 2), 10_000, now), "a witness that nobody knows");
        }
        let day = Duration::from_hours(24);
        assert_eq!(book.rows_for(day * 4), 0);
        let old = book.rows_for(day * 2);
        assert!((10..=10 + 60 * 24).contains(&old), "{old}");
        let note = book.note_over(old).expect("a checkpoint that shows it");
        assert!(note.contains("c/n/g") && book.note_over(u64::MAX).is_none(), "{note}");
        // Kept over a restart, but for some minutes; a damaged file only delays.
        let again = ages(dir.path());
        assert!(again.oldest() > day * 2 + Duration::from_hours(23), "{:?}", again.oldest());
        std::fs::write(dir.path().join(FILE), b"{}").expect("a file");
        assert_eq!(ages(dir.path()).rows_for(Duration::ZERO), 0);
    }
}
