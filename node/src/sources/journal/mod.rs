//! Follows a journal through journalctl, which understands all formats of journal files. Entries of every boot and every
//! machine are read, each of them once.
//!
//! `journalctl --follow` shows only the newest boot (systemd 252; `--merge` shows all boots, but does not order entries that
//! arrive late), and a single cursor cannot express how far the journals of several machines were read. So entries are read in
//! passes, without `--follow`: one journalctl reads each sequence of numbers that has new entries (`files.rs`), and the outputs
//! are merged by time. For each sequence, the position is the number of the last entry that was read, which rotation does not
//! change. An entry's id is derived from its boot, times and contents, which stay the same when journald copies the journal of
//! /run to /var.

mod export;
mod files;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::BufReader;
use tokio::process::{Child, ChildStdout, Command};
use tokio_util::sync::CancellationToken;

use super::counts::Problems;
use super::mark::{Mark, Reached};
use super::record::{MessageSender, Record, SourceMessage};
pub(super) use export::next_entry;
use export::{Cursor, Entry};
use files::{JournalFile, list};

/// Interval between checks of the files' headers.
const POLL: Duration = Duration::from_millis(500);
/// Number of passes after a change. journald counts an entry before the entry can be read, so the first pass may miss the last
/// entry.
const PASSES: u32 = 2;
/// Maximum sequences that are read at once. If there are more, sequences are ordered by their first unread entries.
const READERS_MAX: usize = 32;
/// Maximum files that one journalctl opens.
const FILES_AT_ONCE_MAX: usize = 1_000;
/// Number of records per stored position. After a crash, up to this many records are read again and recognized as duplicates by
/// their ids.
const MARK_EVERY: u32 = 64;
/// Maximum time for which the journal in /run is expected to remain after journald has copied it to /var.
const COPY_WAIT: Duration = Duration::from_secs(600);
/// Interval at which positions are stored if only entries of other units were read.
const QUIET_MARK_EVERY: Duration = Duration::from_secs(60);

/// Configuration of a followed journal.
pub(super) struct JournalConfig {
    /// Name of the source, for health.
    pub(super) name: String,
    pub(super) unit: Option<String>,
    pub(super) directory: Option<PathBuf>,
    pub(super) from_now: bool,
}

pub(super) async fn follow(
    asked: JournalConfig,
    mark: Option<Mark>,
    messages: MessageSender,
    problems: Problems,
    stop: CancellationToken,
) {
    let mut follower = Follower::new(asked, mark, messages);
    let mut known = None;
    while !stop.is_cancelled() && !follower.messages.is_closed() {
        // Entries that were read but not sent yet are read again after the next start.
        let problem = tokio::select! { () = stop.cancelled() => break, polled = follower.poll() => polled.err() };
        if problem != known {
            if let Some(problem) = &problem {
                tracing::warn!(intake = follower.asked.name, problem, "cannot read the journal; retrying");
            }
            problems.set(&follower.asked.name, problem.clone());
        }
        known = problem;
        tokio::select! { () = stop.cancelled() => {}, () = tokio::time::sleep(POLL) => {} }
    }
    follower.keep_positions().await;
}

struct Follower {
    asked: JournalConfig,
    messages: MessageSender,
    sequences: BTreeMap<String, Reached>,
    /// How the first poll treats sequences without a position; later polls use [`First::Read`]. The first poll also uses `Read`
    /// if a position is stored for each sequence; an earlier version stored a single position, which did not distinguish
    /// sequences.
    first: First,
    /// Sequences that were seen in this run, with the number of their last entry.
    seen: HashMap<String, u64>,
    /// Sequences that appeared when other sequences already had positions, and the time at which each appeared.
    appeared: HashMap<String, Instant>,
    /// Headers at the last poll.
    last_look: Vec<JournalFile>,
    passes_due: u32,
    since_mark: u32,
    is_kept: bool,
    kept: Instant,
}

/// Treatment of sequences without a position at the first poll.
enum First {
    /// Reads them from their beginnings.
    Read,
    /// Skips the existing entries.
    PassOver,
    /// Skips the existing entries of sequences that began no later than the entry that an earlier version of Piperoll read last.
    PassOverUntil(u64),
}

impl Follower {
    fn new(asked: JournalConfig, mark: Option<Mark>, messages: MessageSender) -> Self {
        let mut sequences = BTreeMap::new();
        let mut first = if asked.from_now { First::PassOver } else { First::Read };
        match mark {
            Some(Mark::Journals { sequences: kept }) => {
                (sequences, first) = (kept, First::Read);
            }
            Some(Mark::Journal { cursor }) => {
                if let Some(cursor) = Cursor::parse(&cursor) {
                    let reached = Reached {
                        read: cursor.number,
                        through: cursor.number,
                        time: cursor.time,
                        content: cursor.content,
                        repeats: 0,
                        is_open: true,
                    };
                    sequences.insert(cursor.sequence, reached);
                    first = if asked.from_now { First::PassOverUntil(cursor.time) } else { First::Read };
                }
            }
            _ => {}
        }
        Self {
            asked,
            messages,
            sequences,
            first,
            seen: HashMap::new(),
            appeared: HashMap::new(),
            last_look: Vec::new(),
            passes_due: PASSES,
            since_mark: 0,
            is_kept: true,
            kept: Instant::now(),
        }
    }

    /// Polls the files, and reads new entries.
    async fn poll(&mut self) -> Result<(), String> {
        let directory = self.asked.directory.clone();
        let listed = tokio::task::spawn_blocking(move || list(directory.as_deref())).await;
        let listing = listed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        if listing.files.is_empty() && !self.sequences.is_empty() {
            let problem = listing
                .problem
                .unwrap_or_else(|| "the journal files that have been read so far no longer exist".to_owned());
            return Err(problem);
        }
        if listing.files != self.last_look {
            self.passes_due = PASSES;
        }
        if self.passes_due == 0 {
            return listing.problem.map_or(Ok(()), Err);
        }
        let mut by_sequence: BTreeMap<String, Vec<JournalFile>> = BTreeMap::new();
        for file in &listing.files {
            by_sequence.entry(file.sequence.clone()).or_default().push(file.clone());
        }
        self.place_new(&by_sequence).await;
        if listing.problem.is_none() {
            self.say_gone(&by_sequence).await;
        }
        if !self.pass(&by_sequence).await? {
            return listing.problem.map_or(Ok(()), Err);
        }
        self.last_look = listing.files;
        self.passes_due -= 1;
        if self.passes_due == 0 {
            self.say_unread(&by_sequence).await;
        }
        for (sequence, files) in &by_sequence {
            let last = last_of(files);
            self.seen.insert(sequence.clone(), last);
            if let Some(reached) = self.sequences.get_mut(sequence) {
                let is_open = files.iter().any(|file| !file.is_archived);
                if (reached.through, reached.is_open) != (last, is_open) {
                    (reached.through, reached.is_open) = (last.max(reached.through), is_open);
                    self.is_kept = false;
                }
            }
        }
        if !self.is_kept && (self.since_mark > 0 || self.kept.elapsed() >= QUIET_MARK_EVERY) {
            self.keep_positions().await;
        }
        listing.problem.map_or(Ok(()), Err)
    }

    /// Creates a position for every sequence without one: at its end if existing entries are not wanted, otherwise at its
    /// beginning.
    async fn place_new(&mut self, by_sequence: &BTreeMap<String, Vec<JournalFile>>) {
        let first = std::mem::replace(&mut self.first, First::Read);
        let has_positions = !self.sequences.is_empty();
        self.appeared.retain(|_, since| since.elapsed() < COPY_WAIT);
        for (sequence, files) in by_sequence {
            let last = last_of(files);
            let begins = files.iter().map(|file| file.begins).min().unwrap_or(0);
            let is_passed_over = match first {
                First::Read => false,
                First::PassOver => true,
                First::PassOverUntil(time) => begins <= time,
            };
            self.sequences.entry(sequence.clone()).or_insert_with(|| {
                self.is_kept = false;
                if has_positions {
                    self.appeared.insert(sequence.clone(), Instant::now());
                }
                let (read, through) =
                    if is_passed_over { (last, last) } else { (0, first_of(files).saturating_sub(1)) };
                Reached { read, through, time: begins, content: String::new(), repeats: 0, is_open: true }
            });
        }
        // Store the positions at once, so that entries written while the node is down are read later.
        if !matches!(first, First::Read) {
            self.keep_positions().await;
        }
    }

    /// Reports entries that were removed before they were read, and forgets sequences that no longer have files. A position
    /// moves past lost entries only after the loss was reported (see `hand_over`).
    async fn say_gone(&mut self, by_sequence: &BTreeMap<String, Vec<JournalFile>>) {
        for (sequence, files) in by_sequence {
            let Some(reached) = self.sequences.get(sequence) else { continue };
            // Report one gap at a time, because the entries between two gaps are read before the next poll.
            if let Some((gone, next)) = first_missing(files, reached.through) {
                self.say_removed(gone).await;
                if let Some(reached) = self.sequences.get_mut(sequence) {
                    reached.through = next - 1;
                    self.is_kept = false;
                }
            }
        }
        let is_there = |sequence: &String| by_sequence.contains_key(sequence);
        let vanished: Vec<String> = self.sequences.keys().filter(|sequence| !is_there(sequence)).cloned().collect();
        for sequence in vanished {
            let Some(reached) = self.sequences.get(&sequence).cloned() else { continue };
            // journald copies the journal in /run to /var under another sequence, so all entries still exist.
            let is_copy = |files: &[JournalFile]| files.iter().any(|file| file.begins <= reached.time);
            let is_copied =
                by_sequence.iter().any(|(other, files)| self.appeared.contains_key(other) && is_copy(files));
            match self.seen.get(&sequence) {
                _ if is_copied => {}
                Some(last) if *last > reached.through => self.say_removed(last - reached.through).await,
                // All entries that were seen in this sequence were read.
                Some(_) => {}
                None if reached.is_open => {
                    let cause = "the journal files that were last read have been removed; the number of entries added since then is unknown";
                    let _ = self.messages.send(SourceMessage::Lost { count: None, cause: cause.to_owned() }).await;
                }
                None => {}
            }
            self.sequences.remove(&sequence);
            self.seen.remove(&sequence);
            self.is_kept = false;
        }
    }

    /// Reports entries that journalctl did not print although it read their files to the end: at damaged data it stops without
    /// an error. If only one unit is followed, nothing is reported, because the expected number of entries is unknown.
    async fn say_unread(&mut self, by_sequence: &BTreeMap<String, Vec<JournalFile>>) {
        if self.asked.unit.is_some() {
            return;
        }
        for (sequence, files) in by_sequence {
            let Some(reached) = self.sequences.get(sequence) else { continue };
            let (read, last) = (reached.read, last_of(files));
            // Consider only the numbers after the last gap, because the gaps were already reported.
            let from = files
                .iter()
                .map(|file| file.first)
                .filter(|first| *first > read + 1)
                .min()
                .map_or(read, |first| first - 1)
                .max(read);
            if last > from {
                let cause = format!(
                    "{} entries of the journal are counted in its files but cannot be read; `journalctl --verify` shows the damage",
                    last - from
                );
                let _ = self.messages.send(SourceMessage::Lost { count: Some(last - from), cause }).await;
                if let Some(reached) = self.sequences.get_mut(sequence) {
                    (reached.read, reached.through) = (last, last.max(reached.through));
                    self.is_kept = false;
                }
            }
        }
    }

    async fn say_removed(&self, gone: u64) {
        // How many of these entries belong to the followed unit can no longer be determined.
        let count = self.asked.unit.is_none().then_some(gone);
        let of_all = if count.is_none() { ", of this unit and others," } else { "" };
        let cause = format!("{gone} entries of the journal{of_all} were removed before they were read");
        let _ = self.messages.send(SourceMessage::Lost { count, cause }).await;
    }

    /// Reads the new entries of all sequences, merged by time. Returns false if some entries were left for the next pass.
    async fn pass(&mut self, by_sequence: &BTreeMap<String, Vec<JournalFile>>) -> Result<bool, String> {
        let mut waiting: Vec<(u64, Reader)> = Vec::new();
        for (sequence, files) in by_sequence {
            let reached = self.sequences.get(sequence).cloned().unwrap_or_default();
            if last_of(files) > reached.read {
                let begins = files.iter().filter(|file| file.last > reached.read).map(|file| file.begins).min();
                waiting.push((begins.unwrap_or(0).max(reached.time), Reader::new(sequence, files, reached.read)));
            }
        }
        waiting.sort_by_key(|(begins, _)| std::cmp::Reverse(*begins));
        let mut reading: Vec<(Entry, Reader)> = Vec::new();
        let mut is_whole = true;
        loop {
            let earliest = |reading: &[(Entry, Reader)]| reading.iter().map(|(entry, _)| entry.time).min();
            while reading.len() < READERS_MAX
                && waiting
                    .last()
                    .is_some_and(|(begins, _)| earliest(&reading).is_none_or(|earliest| *begins <= earliest))
            {
                let Some((_, mut reader)) = waiting.pop() else { break };
                reader.start(&self.asked)?;
                match reader.next().await? {
                    Some(entry) => reading.push((entry, reader)),
                    None => is_whole &= !reader.is_cut,
                }
            }
            let Some(at) = (0..reading.len()).min_by_key(|at| reading[*at].0.time) else { return Ok(is_whole) };
            let entry = match reading[at].1.next().await? {
                Some(next) => std::mem::replace(&mut reading[at].0, next),
                None => {
                    let (entry, reader) = reading.swap_remove(at);
                    is_whole &= !reader.is_cut;
                    entry
                }
            };
            if !self.hand_over(entry).await {
                return Ok(false);
            }
        }
    }

    /// Sends an entry; returns false if the receiving end is closed.
    async fn hand_over(&mut self, entry: Entry) -> bool {
        let Entry { cursor, record, .. } = entry;
        let mut reached = self.sequences.get(&cursor.sequence).cloned().unwrap_or_default();
        // Two entries with the same time and contents still count as two.
        reached.repeats = if reached.content == cursor.content { reached.repeats + 1 } else { 0 };
        reached.read = cursor.number;
        reached.through = reached.through.max(cursor.number);
        reached.time = cursor.time;
        reached.content = cursor.content;
        let place = match reached.repeats {
            0 => format!("b={}", reached.content),
            repeats => format!("b={};again={repeats}", reached.content),
        };
        let is_mark_due = self.since_mark + 1 >= MARK_EVERY;
        let mark = is_mark_due.then(|| {
            let mut sequences = self.sequences.clone();
            sequences.insert(cursor.sequence.clone(), reached.clone());
            Mark::Journals { sequences }
        });
        let record = Record { text: record, cut: None, place: Some(place), earlier_place: Some(cursor.text), mark };
        // When the node stops, `follow` drops this call and stores the positions, so a position moves only after its entry was
        // sent.
        if self.messages.send(SourceMessage::Record(record)).await.is_err() {
            return false;
        }
        self.sequences.insert(cursor.sequence, reached);
        (self.since_mark, self.is_kept) = if is_mark_due { (0, true) } else { (self.since_mark + 1, false) };
        true
    }

    fn mark(&self) -> Mark {
        Mark::Journals { sequences: self.sequences.clone() }
    }

    async fn keep_positions(&mut self) {
        if !self.is_kept {
            let _ = self.messages.send(SourceMessage::Offset(self.mark())).await;
            (self.is_kept, self.since_mark, self.kept) = (true, 0, Instant::now());
        }
    }
}

fn last_of(files: &[JournalFile]) -> u64 {
    files.iter().map(|file| file.last).max().unwrap_or(0)
}

fn first_of(files: &[JournalFile]) -> u64 {
    files.iter().map(|file| file.first).min().unwrap_or(0)
}

/// Finds the first gap after `through`: returns how many numbers are in no file, and the first number after them that is in a
/// file. The files of one sequence may overlap: the numbers between two entries of a user's journal are in the system's
/// journal.
fn first_missing(files: &[JournalFile], through: u64) -> Option<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = files.iter().map(|file| (file.first, file.last)).collect();
    ranges.sort_unstable();
    let mut covered = through;
    for (first, last) in ranges {
        let missing = first.saturating_sub(covered.saturating_add(1));
        if missing > 0 {
            return Some((missing, first));
        }
        covered = covered.max(last);
    }
    None
}

/// One journalctl process that reads the files of one sequence.
struct Reader {
    sequence: String,
    files: Vec<PathBuf>,
    /// Number of the last entry that was read earlier.
    read: u64,
    /// Entries with this number or a higher one may be in files that were left for the next pass.
    limit: u64,
    /// Set if reading ended at `limit`.
    is_cut: bool,
    output: Option<(Child, BufReader<ChildStdout>)>,
}

impl Reader {
    fn new(sequence: &str, files: &[JournalFile], read: u64) -> Self {
        let mut files: Vec<&JournalFile> = files.iter().filter(|file| file.last > read).collect();
        files.sort_by_key(|file| file.first);
        let limit = files.get(FILES_AT_ONCE_MAX).map_or(u64::MAX, |file| file.first);
        let files = files.iter().take(FILES_AT_ONCE_MAX).map(|file| file.path.clone()).collect();
        Self { sequence: sequence.to_owned(), files, read, limit, is_cut: false, output: None }
    }

    fn start(&mut self, asked: &JournalConfig) -> Result<(), String> {
        let mut command = Command::new("journalctl");
        // Print every field in full; values that are too long are cut when they are parsed.
        command.args(["--output=export", "--all", "--no-pager", "--quiet"]);
        if let Some(unit) = &asked.unit {
            command.arg(format!("--unit={unit}"));
        }
        command.args(self.files.iter().map(|file| format!("--file={}", escape_glob(&file.display().to_string()))));
        // A cursor needs only the sequence and a number. If the entry with that number was removed, journalctl begins with the
        // next one.
        command.arg(format!("--cursor=s={};i={:x}", self.sequence, self.read + 1));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("journalctl: {error}; is systemd installed?"))?;
        let stdout = child.stdout.take().ok_or("cannot read the output of journalctl")?;
        self.output = Some((child, BufReader::new(stdout)));
        Ok(())
    }

    /// Returns the next entry that was not read before; `None` at the end.
    async fn next(&mut self) -> Result<Option<Entry>, String> {
        loop {
            let Some((child, output)) = &mut self.output else { return Ok(None) };
            match next_entry(output).await.map_err(|error| error.to_string())? {
                // An entry of another sequence can occur only if one of the files was just replaced; skip it.
                Some(entry) if entry.cursor.sequence != self.sequence || entry.cursor.number <= self.read => {}
                Some(entry) if entry.cursor.number >= self.limit => {
                    (self.output, self.is_cut) = (None, true);
                    return Ok(None);
                }
                Some(entry) => {
                    self.read = entry.cursor.number;
                    return Ok(Some(entry));
                }
                None => {
                    let status = child.wait().await.map_err(|error| format!("journalctl: {error}"))?;
                    self.output = None;
                    // A file may have been rotated away since the files were listed.
                    if status.success() || !self.files.iter().all(|file| file.exists()) {
                        return Ok(None);
                    }
                    return Err(format!("journalctl failed ({status}); is this user in the group systemd-journal?"));
                }
            }
        }
    }
}

/// Escapes a path for `--file`, which expects a pattern.
fn escape_glob(path: &str) -> String {
    path.chars().flat_map(|c| if "*?[]\\".contains(c) { vec!['\\', c] } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(first: u64, last: u64) -> JournalFile {
        JournalFile {
            path: PathBuf::new(),
            sequence: String::new(),
            first,
            last,
            entries: 1,
            begins: 0,
            is_archived: false,
        }
    }

    #[test]
    fn only_numbers_that_no_file_can_hold_are_missing() {
        for (files, through, missing) in [
            (vec![file(1, 9)], 0, None),
            (vec![file(5, 9)], 4, None),
            (vec![file(5, 9)], 9, None),
            (vec![file(5, 9)], 2, Some((2, 5))),
            // A user's journal whose range is within the system journal's range, and one whose range extends beyond it.
            (vec![file(1, 20), file(3, 18)], 2, None),
            (vec![file(1, 20), file(3, 25), file(24, 30)], 10, None),
            // The middle file was removed.
            (vec![file(1, 10), file(21, 30)], 5, Some((10, 21))),
            (vec![file(1, 10), file(21, 30)], 25, None),
        ] {
            assert_eq!(first_missing(&files, through), missing, "{files:?} {through}");
        }
    }

    #[test]
    fn a_position_of_an_earlier_version_is_understood() {
        let cursor = "s=ab;i=1f;b=cd;m=3e9;t=6608b015f3001;x=2c21".to_owned();
        for from_now in [false, true] {
            let asked = JournalConfig { name: "ssh".to_owned(), unit: None, directory: None, from_now };
            let (messages, _heard) = tokio::sync::mpsc::channel(1);
            let follower = Follower::new(asked, Some(Mark::Journal { cursor: cursor.clone() }), messages);
            let reached = follower.sequences.get("ab").expect("the sequence of the cursor");
            assert_eq!((reached.read, reached.through, reached.time), (31, 31, 0x0006_608b_015f_3001));
            // If the source was configured to begin with new entries, entries from before the first start are not wanted.
            assert_eq!(matches!(follower.first, First::PassOverUntil(0x0006_608b_015f_3001)), from_now);
        }
    }

    #[test]
    fn paths_are_no_patterns() {
        assert_eq!(escape_glob("/j/a[1]*.journal"), "/j/a\\[1\\]\\*.journal");
    }
}
