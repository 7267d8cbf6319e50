//! Tracks how long rows have been witnessed, for automatic retention.
//!
//! No single clock is trusted. The age is a sum with one step for each cosignature that arrives. A step is the time since the
//! previous cosignature of the same witness, according to that witness's timestamps, but at most one hour, and at most the time
//! for which this process has run since the previous step. The first cosignature after a start adds at most one hour. Therefore
//! a clock that jumps, several clocks that jump together, or an outage add almost nothing, and can only delay the removal of
//! rows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use piperoll_format::ids::Generation;
use piperoll_format::note::{Note, VerifyingKey};
use piperoll_net::checked_json;
use serde::{Deserialize, Serialize};

/// Maximum duration that one step adds: longer steps are outages or clock changes.
const STEP_MAX: Duration = Duration::from_hours(1);
/// Minimum interval between two samples. Rows may be removed later than their age allows by at most this much.
const SAMPLE_EVERY: Duration = Duration::from_hours(1);
/// Maximum number of samples; when it is reached, every second sample of the older half is dropped.
const SAMPLES_MAX: usize = 20_000;
/// Interval between two cosigned checkpoints that are kept in full, as evidence for third parties of how long rows were
/// witnessed.
const NOTE_EVERY: Duration = Duration::from_hours(24);
/// Maximum number of kept checkpoints, enough for more than ten years. When it is reached, every second checkpoint of the older
/// half is dropped.
const NOTES_MAX: usize = 4_096;
/// Interval between two writes of the file while no sample is added; a crash loses at most this much of the age.
const WRITE_EVERY: Duration = Duration::from_mins(5);
const FILE: &str = "witnessed.json";

/// One sample: the rows below `size` were witnessed when the sum of all steps was `age_micros`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    size: u64,
    age_micros: i64,
}

/// A sample together with its cosigned checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CosignedSample {
    size: u64,
    age_micros: i64,
    /// The note as the witness returned it.
    note: String,
}

/// Content of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Book {
    /// Generation of the log that the sizes refer to.
    generation: String,
    /// Sum of all counted steps.
    age_micros: i64,
    /// Time of each witness's newest cosignature, by the witness's name, in seconds since 1970 according to that witness's
    /// clock.
    newest: BTreeMap<String, u64>,
    /// Samples, in ascending order of both fields.
    samples: Vec<Sample>,
    /// Kept checkpoints, in ascending order of size and age; missing in files of earlier versions.
    #[serde(default)]
    notes: Vec<CosignedSample>,
    /// The age of rows below this seq is computed from their own timestamps, because an operator has confirmed these
    /// timestamps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    confirmed_below: Option<u64>,
}

/// Tracks for how long rows have been witnessed. The writer updates this, and retention reads it.
#[derive(Debug)]
pub(in crate::store) struct Ages {
    path: PathBuf,
    witnesses: Vec<VerifyingKey>,
    book: Book,
    /// Time of the last counted step, on the monotonic clock.
    counted: Option<Instant>,
    written: Option<Instant>,
    stranger: bool,
}

/// Drops every second element of the older half once the list has `most` elements.
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
    /// Reads the stored ages. A damaged file is renamed and kept as evidence, and a file of another log is ignored. In both
    /// cases, all rows start at age zero.
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
                    tracing::error!(file = %path.display(), %error, moved, "the witnessed times of rows were lost; the ages of these rows are counted from now on");
                    None
                }
            },
            Err(_) => None,
        };
        let book = book.unwrap_or_else(|| Book { generation, ..Book::default() });
        Self { path, witnesses, book, counted: None, written: None, stranger: false }
    }

    /// Returns empty ages for a read-only log, for which nothing is counted or written.
    pub(in crate::store) fn none(generation: Generation) -> Self {
        let book = Book { generation: generation.to_string(), ..Book::default() };
        Self { path: PathBuf::new(), witnesses: Vec::new(), book, counted: None, written: None, stranger: false }
    }

    /// Drops the samples of rows that no longer exist. A log that was restored from an older copy records new rows at these
    /// seqs, and the age of the new rows must start at zero.
    pub(in crate::store) fn cut_to(&mut self, rows: u64) {
        self.book.samples.retain(|sample| sample.size <= rows);
        self.book.notes.retain(|shown| shown.size <= rows);
        self.book.confirmed_below = self.book.confirmed_below.map(|below| below.min(rows));
    }

    /// Remembers that an unconfigured witness has cosigned. Returns true the first time.
    pub(in crate::store) fn met_stranger(&mut self) -> bool {
        !std::mem::replace(&mut self.stranger, true)
    }

    /// Whether a witness that is not configured has cosigned.
    pub(in crate::store) fn stranger(&self) -> bool {
        self.stranger
    }

    /// Whether any witness of this cluster is configured.
    pub(in crate::store) fn knows_witnesses(&self) -> bool {
        !self.witnesses.is_empty()
    }

    /// Returns the time of the newest cosignature of a configured witness on a note, in seconds since 1970 by that witness's
    /// clock.
    pub(in crate::store) fn cosigned_at(&self, note: &Note) -> Option<u64> {
        self.witnesses.iter().filter_map(|witness| note.verify(witness).ok()).max()
    }

    /// Adds a step to the age for the valid cosignatures of configured witnesses on a note over `size` rows. Returns false if
    /// there are none.
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

    /// Keeps a cosigned checkpoint in full, unless the last checkpoint that was kept is recent. Returns whether it was kept.
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
        self.book.notes.push(CosignedSample { size, age_micros: self.book.age_micros, note: note.to_string() });
        true
    }

    /// Returns the oldest kept checkpoint that covers at least this many rows.
    pub(in crate::store) fn note_over(&self, rows: u64) -> Option<String> {
        let first = self.book.notes.partition_point(|shown| shown.size < rows);
        self.book.notes.get(first).map(|shown| shown.note.clone())
    }

    /// Returns the seq below which rows have been witnessed for at least `long`. Kept checkpoints take precedence over samples,
    /// because they can prove the age to third parties.
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

    /// Returns the number of rows that were recorded before the first sample; their age is known only from their own
    /// timestamps.
    pub(in crate::store) fn unsampled(&self) -> Option<u64> {
        self.book.samples.first().map(|sample| sample.size)
    }

    /// Returns the seq below which a row's age is computed from its own timestamp; see [`Self::confirm`].
    pub(in crate::store) fn confirmed_below(&self) -> Option<u64> {
        self.book.confirmed_below
    }

    /// Stores an operator's confirmation of the timestamps of the rows below this seq.
    pub(in crate::store) fn confirm(&mut self, below: u64) -> std::io::Result<()> {
        let confirmed = Book { confirmed_below: Some(below), ..self.book.clone() };
        checked_json::write(&self.path, &confirmed)?;
        self.book = confirmed;
        Ok(())
    }

    /// Returns the duration for which the oldest rows have been witnessed.
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
        // Regardless of the witness's clock, the age never exceeds the elapsed time plus one hour for each start.
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Whatever the witness's clock does, the age never exceeds the elapsed time plus one hour for each start.
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
        // The age survives a restart, except for the last few minutes. A damaged file only delays the removal of rows.
        let again = ages(dir.path());
        assert!(again.oldest() > day * 2 + Duration::from_hours(23), "{:?}", again.oldest());
        std::fs::write(dir.path().join(FILE), b"{}").expect("a file");
        assert_eq!(ages(dir.path()).rows_for(Duration::ZERO), 0);
    }
}
