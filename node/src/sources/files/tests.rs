//! Tests the follower with random histories of a log file, compared with a model that knows every line that was written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::content::digest;
use super::follower::{FileConfig, Follower};
use crate::sources::mark::Mark;
use crate::sources::record::SourceMessage;
use crate::sources::safe::Safe;

/// Events of the file or of the node.
#[derive(Debug, Clone)]
enum Event {
    /// A program writes this many lines.
    Write(u8),
    /// A program writes a line without its end; the next write completes it.
    WriteHalf,
    /// `mv audit.log audit.log.1`, with older files moved up by one number; the next write begins a new file.
    Rename,
    /// `cp audit.log audit.log.1; truncate audit.log`, with older files moved up by one number.
    CopyTruncate,
    /// A program writes a line to the newest rotated file.
    WriteLate,
    Gzip,
    Zstd,
    /// The follower polls the files.
    Poll,
    /// The node stops cleanly, or is killed and loses positions that were not stored yet, and starts again.
    Restart,
    Kill(u8),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (1..9_u8).prop_map(Event::Write),
        1 => Just(Event::WriteHalf),
        2 => Just(Event::Rename),
        2 => Just(Event::CopyTruncate),
        1 => Just(Event::WriteLate),
        1 => Just(Event::Gzip),
        1 => Just(Event::Zstd),
        4 => Just(Event::Poll),
        1 => Just(Event::Restart),
        2 => (0..200_u8).prop_map(Event::Kill),
    ];
    proptest::collection::vec(event, 1..40)
}

struct World {
    folder: tempfile::TempDir,
    path: PathBuf,
    follower: Option<Follower>,
    heard: mpsc::Receiver<SourceMessage>,
    /// The position as it is stored on disk.
    kept: Option<Mark>,
    written: Vec<String>,
    next: u32,
    /// A line whose end has not been written yet.
    half: Option<String>,
    /// Recorded lines by position; the node records each position once.
    recorded: BTreeMap<String, String>,
    lost: Vec<String>,
}

/// First line of every file.
const HEAD: &str = "{\"action\":\"app.start\"}";

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().canonicalize().expect("a path").join("audit.log");
        let (_, heard) = mpsc::channel(1);
        let mut world = Self {
            folder,
            path,
            follower: None,
            heard,
            kept: None,
            written: Vec::new(),
            next: 0,
            half: None,
            recorded: BTreeMap::new(),
            lost: Vec::new(),
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let (messages, heard) = mpsc::channel(100_000);
        let safe = Safe { owners: Vec::new(), links_in: None, own: Vec::new() };
        let asked = FileConfig { name: "test".to_owned(), path: self.path.clone(), safe, from_now: false };
        let mut follower = Follower::new(asked, self.kept.clone(), messages, CancellationToken::new());
        (follower.grace, follower.grace_max) = (Duration::ZERO, Duration::ZERO);
        (self.follower, self.heard) = (Some(follower), heard);
    }

    /// Polls the files. The node records the first `at_most` messages, and stores the newest position among them.
    fn poll(&mut self, at_most: usize) {
        let follower = self.follower.as_mut().expect("it runs");
        // The grace periods are zero, so work that waits for one is done in the next poll.
        for _ in 0..3 {
            follower.poll().expect("a poll");
        }
        for _ in 0..at_most {
            match self.heard.try_recv() {
                Ok(SourceMessage::Record(record)) => {
                    let text = String::from_utf8(record.text).expect("text");
                    let place = record.place.expect("a place");
                    let before = self.recorded.insert(place.clone(), text.clone());
                    assert!(before.is_none_or(|before| before == text), "{place} is two records");
                    self.kept = record.mark.or(self.kept.take());
                }
                Ok(SourceMessage::Offset(mark)) => self.kept = Some(mark),
                Ok(SourceMessage::Lost { cause, .. }) => self.lost.push(cause),
                Err(_) => return,
            }
        }
    }

    fn file(&self) -> File {
        OpenOptions::new().create(true).append(true).open(&self.path).expect("the file")
    }

    fn line(&mut self) -> String {
        self.next += 1;
        format!("{{\"action\":\"x.y\",\"n\":{}}}", self.next)
    }

    fn write(&mut self, lines: u8) {
        let mut text = String::new();
        if let Some(half) = self.half.take() {
            text.push_str(&format!("{}\n", &half[half.len() / 2..]));
            self.written.push(half);
        } else if self.file().metadata().expect("a file").len() == 0 {
            text.push_str(&format!("{HEAD}\n"));
            self.written.push(HEAD.to_owned());
        }
        for _ in 0..lines {
            let line = self.line();
            text.push_str(&format!("{line}\n"));
            self.written.push(line);
        }
        self.file().write_all(text.as_bytes()).expect("written");
    }

    fn rotated(&self, number: u32, packed: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}{packed}"));
        name.into()
    }

    fn shift(&self) {
        for number in (1..=150).rev() {
            for packed in ["", ".gz", ".zst"] {
                let from = self.rotated(number, packed);
                if from.exists() {
                    std::fs::rename(from, self.rotated(number + 1, packed)).expect("renamed");
                }
            }
        }
    }

    fn oldest_plain(&self) -> Option<PathBuf> {
        (2..=151).rev().map(|number| self.rotated(number, "")).find(|path| path.exists())
    }

    fn pack(&self, ending: &str, pack: impl Fn(&[u8]) -> Vec<u8>) {
        let Some(plain) = self.oldest_plain() else { return };
        let modified = plain.metadata().and_then(|meta| meta.modified()).expect("a time");
        let mut packed = plain.clone().into_os_string();
        packed.push(ending);
        std::fs::write(&packed, pack(&std::fs::read(&plain).expect("bytes"))).expect("written");
        // Keep the modification time, as gzip and zstd do.
        File::options().append(true).open(&packed).and_then(|file| file.set_modified(modified)).expect("a time");
        std::fs::remove_file(plain).expect("removed");
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Write(lines) => self.write(*lines),
            Event::WriteHalf => {
                self.write(0);
                let line = self.line();
                self.file().write_all(&line.as_bytes()[..line.len() / 2]).expect("written");
                self.half = Some(line);
            }
            Event::Rename | Event::CopyTruncate if self.half.is_some() || !has_lines(&self.path) => {}
            Event::Rename => {
                self.shift();
                std::fs::rename(&self.path, self.rotated(1, "")).expect("renamed");
            }
            Event::CopyTruncate => {
                self.shift();
                std::fs::copy(&self.path, self.rotated(1, "")).expect("copied");
                self.file().set_len(0).expect("cut");
            }
            Event::WriteLate => {
                let rotated = self.rotated(1, "");
                if rotated.exists() {
                    let line = self.line();
                    let mut file = OpenOptions::new().append(true).open(rotated).expect("a file");
                    writeln!(file, "{line}").expect("written");
                    self.written.push(line);
                }
            }
            Event::Gzip => self.pack(".gz", |bytes| {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(bytes).expect("packed");
                encoder.finish().expect("packed")
            }),
            Event::Zstd => {
                self.pack(".zst", |bytes| {
                    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
                });
            }
            Event::Poll => self.poll(usize::MAX),
            Event::Restart => {
                self.poll(usize::MAX);
                self.kept = Some(self.follower.as_ref().expect("it runs").mark());
                self.start();
            }
            Event::Kill(recorded) => {
                self.poll(usize::from(*recorded));
                self.start();
            }
        }
    }
}

/// Runs a history to its end; callers compare the lines that were recorded with the lines that were written.
fn live(events: &[Event]) -> World {
    let mut world = World::new();
    world.poll(usize::MAX);
    for event in events {
        world.apply(event);
    }
    if world.half.is_some() {
        world.write(0);
    }
    for _ in 0..3 {
        world.poll(usize::MAX);
    }
    world
}

fn has_lines(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.len() > 0)
}

fn counted<'a>(lines: impl Iterator<Item = &'a String>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        *counts.entry(line.as_str()).or_default() += 1;
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_line_is_recorded_once_whatever_happens_to_its_file(events in events()) {
        let mut world = live(&events);
        prop_assert_eq!(counted(world.recorded.values()), counted(world.written.iter()));
        prop_assert_eq!(&world.lost, &Vec::<String>::new());
        // Control: the comparison detects a line that was written but not recorded.
        world.written.push("another".to_owned());
        prop_assert_ne!(counted(world.recorded.values()), counted(world.written.iter()));
        drop(world.folder);
    }
}

/// Histories in which, between two polls, an open file was truncated, the same first lines were written to it again, and it was
/// then renamed or compressed.
#[test]
fn what_random_lives_found_stays_fixed() {
    use Event::{CopyTruncate, Gzip, Kill, Poll, Rename, Write, WriteHalf};
    for events in [
        vec![Write(1), Poll, CopyTruncate, Write(2), Rename, Write(1), Rename, Gzip, Gzip],
        vec![WriteHalf, Poll, Write(1), CopyTruncate, Write(7), Kill(1)],
        vec![WriteHalf, Poll, Write(1), CopyTruncate, Write(1), Rename, Gzip, Write(1), Rename, Gzip],
    ] {
        let world = live(&events);
        assert_eq!(counted(world.recorded.values()), counted(world.written.iter()), "{events:?}");
        assert_eq!(world.lost, Vec::<String>::new(), "{events:?}");
    }
}

#[test]
fn what_is_cut_without_a_copy_is_said() {
    let mut world = World::new();
    world.write(3);
    world.poll(usize::MAX);
    std::fs::write(&world.path, "{\"action\":\"app.other\"}\n").expect("cut");
    for _ in 0..3 {
        world.poll(usize::MAX);
    }
    assert_eq!(world.recorded.len(), 5);
    assert!(matches!(&world.lost[..], [cause] if cause.contains("was truncated")), "{:?}", world.lost);
}

#[test]
fn a_file_that_is_gone_is_said_with_what_is_known_of_it() {
    let mut world = World::new();
    world.write(3);
    world.poll(usize::MAX);
    world.follower = None;
    world.write(5);
    std::fs::remove_file(&world.path).expect("removed");
    world.write(1);
    world.start();
    for _ in 0..3 {
        world.poll(usize::MAX);
    }
    assert!(matches!(&world.lost[..], [cause] if cause.contains("no longer in its directory")), "{:?}", world.lost);
    let texts: BTreeSet<&String> = world.recorded.values().collect();
    assert_eq!(world.recorded.len(), 4 + 2, "{texts:?}");
}

#[test]
fn what_cannot_be_told_from_a_copy_is_said_and_read_once() {
    let mut world = World::new();
    world.write(3);
    world.poll(usize::MAX);
    world.follower = None;
    world.write(2);
    std::fs::copy(&world.path, world.rotated(1, "")).expect("copied");
    world.write(1);
    world.start();
    for _ in 0..3 {
        world.poll(usize::MAX);
    }
    assert_eq!(counted(world.recorded.values()), counted(world.written.iter()));
    assert!(matches!(&world.lost[..], [cause] if cause.contains("6 lines")), "{:?}", world.lost);
}

#[test]
fn a_packed_file_that_is_damaged_costs_only_itself() {
    let mut world = World::new();
    world.write(3);
    world.poll(usize::MAX);
    world.follower = None;
    for _ in 0..2 {
        world.apply(&Event::Rename);
        world.write(200);
    }
    world.apply(&Event::Gzip);
    let packed = world.rotated(2, ".gz");
    let bytes = std::fs::read(&packed).expect("bytes");
    std::fs::write(&packed, &bytes[..bytes.len() / 2]).expect("cut");
    world.start();
    for _ in 0..3 {
        world.poll(usize::MAX);
    }
    assert!(world.lost.iter().any(|cause| cause.contains("cannot be decompressed")), "{:?}", world.lost);
    let last = world.written.last().expect("lines");
    assert!(world.recorded.values().any(|line| line == last));
    assert!(world.recorded.len() >= 405, "{}", world.recorded.len());
}

#[test]
fn a_position_of_an_earlier_version_is_understood() {
    for is_rotated in [false, true] {
        let mut world = World::new();
        world.write(4);
        world.follower = None;
        let text = std::fs::read_to_string(&world.path).expect("text");
        let offset = text.lines().take(3).map(|line| line.len() as u64 + 1).sum();
        let life = digest(format!("{HEAD}\n").as_bytes());
        world.kept = Some(Mark::File { life: life.clone(), offset });
        if is_rotated {
            world.apply(&Event::Rename);
            world.write(2);
        }
        world.start();
        for _ in 0..3 {
            world.poll(usize::MAX);
        }
        let wanted = counted(world.written[3..].iter());
        assert_eq!(counted(world.recorded.values()), wanted);
        // The ids stay those of the earlier version, so that a record that was recorded after the last stored position is
        // recognized as a duplicate.
        let line = text.lines().nth(3).expect("a line");
        let place = format!("{life}:{offset}:{}", digest(format!("{line}\n").as_bytes()));
        assert_eq!(world.recorded.get(&place).map(String::as_str), Some(line));
        assert_eq!(world.lost, Vec::<String>::new());
    }
}

fn poll_times(world: &mut World, times: usize) {
    for _ in 0..times {
        world.poll(usize::MAX);
    }
}

#[test]
fn more_rotated_files_than_positions_are_all_read() {
    let mut world = World::new();
    world.write(1);
    poll_times(&mut world, 1);
    world.follower = None;
    for _ in 0..101 {
        world.apply(&Event::Rename);
        world.write(1);
    }
    world.start();
    poll_times(&mut world, 20);
    assert_eq!(counted(world.recorded.values()), counted(world.written.iter()));
    // After a restart, most positions have been forgotten, but every line is still recorded exactly once.
    world.start();
    poll_times(&mut world, 20);
    assert_eq!(counted(world.recorded.values()), counted(world.written.iter()));
    assert_eq!(world.lost, Vec::<String>::new());
}

#[test]
fn a_copy_that_was_seen_before_the_cut_has_what_was_cut() {
    let mut world = World::new();
    world.write(3);
    poll_times(&mut world, 1);
    std::fs::copy(&world.path, world.rotated(1, "")).expect("copied");
    poll_times(&mut world, 2);
    world.file().set_len(0).expect("cut");
    world.write(1);
    poll_times(&mut world, 3);
    world.kept = Some(world.follower.as_ref().expect("it runs").mark());
    world.start();
    poll_times(&mut world, 3);
    assert_eq!(counted(world.recorded.values()), counted(world.written.iter()));
    assert_eq!(world.lost, Vec::<String>::new());
}

#[test]
fn a_file_that_begins_with_a_line_that_is_too_long_is_known_again() {
    let mut world = World::new();
    let long = "x".repeat(300_000);
    std::fs::write(&world.path, format!("{long}\n")).expect("written");
    world.write(3);
    for _ in 0..3 {
        poll_times(&mut world, 2);
        world.start();
    }
    poll_times(&mut world, 2);
    assert_eq!(world.recorded.len(), 4);
    assert_eq!(world.lost, Vec::<String>::new());
}

#[test]
fn a_rotated_file_of_one_line_without_an_end_is_known_again() {
    let mut world = World::new();
    std::fs::write(&world.path, "{\"n\":\"a1\"}").expect("written");
    poll_times(&mut world, 1);
    world.apply(&Event::Rename);
    poll_times(&mut world, 2);
    world.apply(&Event::Rename);
    for _ in 0..2 {
        world.start();
        poll_times(&mut world, 2);
    }
    assert_eq!(world.recorded.len(), 1, "{:?}", world.recorded);
    assert_eq!(world.lost, Vec::<String>::new());
}

#[test]
fn a_file_that_was_replaced_by_a_longer_copy_of_itself_goes_on() {
    let mut world = World::new();
    world.write(3);
    poll_times(&mut world, 1);
    for _ in 0..2 {
        let copy = world.path.with_extension("tmp");
        std::fs::copy(&world.path, &copy).expect("copied");
        let line = world.line();
        writeln!(OpenOptions::new().append(true).open(&copy).expect("a file"), "{line}").expect("written");
        world.written.push(line);
        std::fs::rename(&copy, &world.path).expect("renamed");
        poll_times(&mut world, 3);
    }
    assert_eq!(counted(world.recorded.values()), counted(world.written.iter()));
    assert_eq!(world.lost, Vec::<String>::new());
}
