//! Follows a file and its rotated predecessors.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;

use super::content::{self, Content, Line, digest};
use super::family::{self, Family, FamilyFile, list};
use super::seen::Seen;
use crate::sources::counts::Problems;
use crate::sources::mark::{FilePosition, Mark};
use crate::sources::record::{Cut, MessageSender, Record, SourceMessage};
use crate::sources::safe::Safe;

/// Interval between polls.
const POLL: Duration = Duration::from_millis(250);
/// Time without appended data after which a rotated file counts as finished and the next file is read. A program may keep
/// writing to a file for a while after its rotation.
const GRACE: Duration = Duration::from_secs(5);
/// Maximum time to wait for [`GRACE`] to pass, so that a program that never reopens its log does not delay the next file.
const GRACE_MAX: Duration = Duration::from_secs(30);
/// Maximum number of stored positions: that of the current file, and those of the newest rotated files.
const LIVES_MAX: usize = 64;
/// Maximum new files that are started in one poll; each stays open until it has been read.
pub(super) const NEW_FILES_MAX: usize = 16;
/// Maximum rotated files that stay open.
const OPEN_MAX: usize = 8;
/// Number of records per stored position. After a crash, up to this many records are read again and recognized as duplicates by
/// their ids.
const MARK_EVERY: u32 = 64;

/// Configuration of a followed file.
pub(in crate::sources) struct FileConfig {
    /// Name of the source, used to report its problems.
    pub(in crate::sources) name: String,
    pub(in crate::sources) path: PathBuf,
    pub(in crate::sources) safe: Safe,
    pub(in crate::sources) from_now: bool,
}

pub(in crate::sources) async fn follow(
    asked: FileConfig,
    mark: Option<Mark>,
    messages: MessageSender,
    problems: Problems,
    stop: CancellationToken,
) {
    let name = asked.name.clone();
    let mut follower = Follower::new(asked, mark, messages, stop.clone());
    let mut known = None;
    while !stop.is_cancelled() && !follower.messages.is_closed() {
        // Reading may block on a disk or on the log, so keep it off the async worker threads.
        let looked = tokio::task::spawn_blocking(move || {
            let result = follower.poll();
            (follower, result)
        });
        let Ok((returned, result)) = looked.await else { return };
        follower = returned;
        let problem = result.err().map(|error| error.to_string()).or_else(|| follower.problem.take());
        if problem != known {
            if let Some(problem) = &problem {
                tracing::warn!(file = %follower.path.display(), problem, "cannot read the file; retrying");
            }
            problems.set(&name, problem.clone());
        }
        known = problem;
        tokio::select! { () = stop.cancelled() => {}, () = tokio::time::sleep(POLL) => {} }
    }
    if !follower.is_kept {
        let _ = follower.messages.send(SourceMessage::Offset(follower.mark())).await;
    }
}

/// One file that has, or had, the followed name.
pub(super) struct FollowedFile {
    pub(super) at: FilePosition,
    /// Path at which the file was last found.
    pub(super) path: PathBuf,
    pub(super) content: Option<Content>,
    /// Device and inode of `content`.
    pub(super) id: (u64, u64),
    /// Start of the period in which nothing was appended.
    pub(super) quiet: Instant,
    /// Time at which the file was first seen without the followed name, after it was renamed or removed.
    pub(super) rotated: Option<Instant>,
    pub(super) is_packed: bool,
    /// Whether the file was found in this poll.
    pub(super) is_found: bool,
    /// Whether the file was found in any poll of this run.
    pub(super) was_found: bool,
    /// Start of the period in which the file is neither found nor open.
    pub(super) missing: Option<Instant>,
    /// Set if an earlier version of Piperoll may have recorded the file's records; that version did not distinguish files that
    /// begin with the same line.
    pub(super) may_be_known: bool,
}

pub(super) struct Follower {
    pub(super) path: PathBuf,
    pub(super) safe: Safe,
    pub(super) messages: MessageSender,
    pub(super) stop: CancellationToken,
    /// Oldest first.
    pub(super) lives: Vec<FollowedFile>,
    /// Number of the next file.
    pub(super) next: u64,
    /// Nanoseconds since 1970. Rotated files that were last changed at or before this time were already read, or existed before
    /// the first poll.
    pub(super) since: i64,
    pub(super) first: First,
    /// Files by device and inode, as of the last poll.
    pub(super) seen: HashMap<(u64, u64), Seen>,
    pub(super) last_look: Option<Family>,
    /// Set if work is left for a later poll, such as a retry or a file whose grace period has not passed; the next poll is then
    /// not skipped.
    pub(super) is_waiting: bool,
    pub(super) since_mark: u32,
    pub(super) is_kept: bool,
    /// Reason why a rotated file cannot be read.
    pub(super) problem: Option<String>,
    /// The values of [`GRACE`] and [`GRACE_MAX`], except in tests.
    pub(super) grace: Duration,
    pub(super) grace_max: Duration,
    /// Number of files that were tracked when this poll began.
    pub(super) lives_before: usize,
    /// Set while a poll begins at a position that an earlier version of Piperoll stored.
    pub(super) is_upgrade: bool,
    /// Number of the newest file whose position was stored before this start.
    pub(super) newest_before: Option<u64>,
}

/// The position at which the first poll begins to read.
pub(super) enum First {
    Done,
    /// Read the file from its beginning.
    Beginning,
    /// Skip the existing content.
    End,
    /// Use the position that an earlier version of Piperoll stored: digest of the first line, and offset.
    Earlier {
        first: String,
        offset: u64,
    },
}

impl Follower {
    pub(super) fn new(asked: FileConfig, mark: Option<Mark>, messages: MessageSender, stop: CancellationToken) -> Self {
        let FileConfig { path, safe, from_now, .. } = asked;
        let mut follower = Self {
            path,
            safe,
            messages,
            stop,
            lives: Vec::new(),
            next: 0,
            since: 0,
            first: if from_now { First::End } else { First::Beginning },
            seen: HashMap::new(),
            last_look: None,
            is_waiting: false,
            since_mark: 0,
            is_kept: true,
            problem: None,
            lives_before: 0,
            is_upgrade: false,
            newest_before: None,
            grace: GRACE,
            grace_max: GRACE_MAX,
        };
        match mark {
            Some(Mark::Files { files, next, since }) => {
                follower.lives = files.into_iter().map(FollowedFile::known).collect();
                (follower.next, follower.since, follower.first) = (next, since, First::Done);
                follower.newest_before = follower.lives.iter().map(|life| life.at.number).max();
            }
            Some(Mark::File { life, offset }) if offset > 0 => follower.first = First::Earlier { first: life, offset },
            Some(Mark::File { .. }) => follower.first = First::Beginning,
            _ => {}
        }
        follower
    }

    /// Polls the files of the family and sends every new line.
    pub(super) fn poll(&mut self) -> std::io::Result<()> {
        let family = list(&self.path)?;
        if !self.is_waiting && self.last_look.as_ref() == Some(&family) && self.open_are_read()? {
            return Ok(());
        }
        self.is_waiting = false;
        if !matches!(self.first, First::Done) {
            self.begin(&family)?;
        }
        self.match_files(&family)?;
        self.is_upgrade = false;
        let is_whole = self.read_all()?;
        self.close_some()?;
        if !self.is_kept && !self.say(SourceMessage::Offset(self.mark())) {
            return Ok(());
        }
        (self.is_kept, self.since_mark) = (true, 0);
        self.last_look = is_whole.then_some(family);
        Ok(())
    }

    /// Whether all open files still have the length that they had at the last poll. This includes open files that no longer
    /// have a name in the family.
    pub(super) fn open_are_read(&self) -> std::io::Result<bool> {
        for life in &self.lives {
            if let Some(file) = life.content.as_ref().and_then(Content::plain)
                && file.metadata()?.len() != life.at.length
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Decides where reading begins if no position in the format of this version is stored.
    pub(super) fn begin(&mut self, family: &Family) -> std::io::Result<()> {
        let newest_rotated =
            family.members.iter().filter(|member| !member.is_current).map(|member| member.modified).max();
        let current = family.members.iter().find(|member| member.is_current);
        match &self.first {
            First::Done | First::Beginning => self.since = newest_rotated.unwrap_or(0),
            First::End => {
                self.since = newest_rotated.unwrap_or(0);
                if let Some(current) = current {
                    let mut content = Content::open(self.safe.open(&current.path)?, current.packing)?;
                    let end = content.plain().map(content::end_of_lines).transpose()?.unwrap_or(0);
                    let first = content::first_line(
                        &mut Content::open(self.safe.open(&current.path)?, current.packing)?,
                        false,
                    )?;
                    if !content.advance(end, &self.may_go_on())? {
                        // The node is stopping; the next start begins in the same way.
                        return Err(std::io::Error::other("stopping"));
                    }
                    if end > 0 {
                        self.add_life(current, content, first.unwrap_or_default());
                    }
                }
            }
            First::Earlier { first, offset } => {
                let (first, offset) = (first.clone(), *offset);
                self.begin_at(family, &first, offset)?;
            }
        }
        // Store the position now, so that lines written while the node is down are read. Later content under this name counts
        // as new.
        self.first = First::Done;
        self.is_kept = false;
        Ok(())
    }

    pub(super) fn may_go_on(&self) -> impl Fn() -> bool + use<> {
        let stop = self.stop.clone();
        move || !stop.is_cancelled()
    }

    pub(super) fn say(&self, heard: SourceMessage) -> bool {
        self.messages.blocking_send(heard).is_ok()
    }

    /// Sends the lines of all files, oldest file first. Returns false if some lines were left for the next poll.
    pub(super) fn read_all(&mut self) -> std::io::Result<bool> {
        for at in 0..self.lives.len() {
            if self.lives[at].content.is_none() {
                continue;
            }
            let before = self.lives[at].at.offset;
            let is_packed = self.lives[at].is_packed;
            match self.hand_over_lines(at, is_packed) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) if is_packed => {
                    self.say_damaged(at, &error);
                    continue;
                }
                Err(error) => return Err(error),
            }
            let is_last = at + 1 == self.lives.len();
            let life = &mut self.lives[at];
            if life.at.offset != before {
                life.quiet = changed_at(life.at.modified);
                life.at.is_ended = false;
            }
            let Some(rotated) = life.rotated else { continue };
            if life.at.is_ended {
                continue;
            }
            if life.is_packed || life.quiet.elapsed() >= self.grace {
                // Trailing bytes without a line end will never be completed.
                if !self.hand_over_lines(at, true)? {
                    return Ok(false);
                }
                self.lives[at].at.is_ended = true;
            } else {
                self.is_waiting = true;
                if !is_last && rotated.elapsed() < self.grace_max {
                    return Ok(true);
                }
            }
        }
        Ok(true)
    }

    /// Sends every complete line of one file; with `to_end`, also trailing bytes without a line end. Returns false if the
    /// receiving end is closed or the node stops.
    pub(super) fn hand_over_lines(&mut self, at: usize, to_end: bool) -> std::io::Result<bool> {
        loop {
            if self.stop.is_cancelled() {
                return Ok(false);
            }
            let Some(content) = &mut self.lives[at].content else { return Ok(true) };
            let begun = content.read.offset;
            let (line, cut, whole) = match content.next_line(to_end)? {
                Line::End | Line::Unfinished => return Ok(true),
                Line::Whole(line) => (digest(&line), None, line),
                Line::Long { begin, bytes, sha256 } => (sha256.clone(), Some(Cut { bytes, sha256 }), begin),
            };
            let offset = content.read.offset;
            let life = &mut self.lives[at];
            if begun == 0 {
                // The same digest that `first_line` computes; for a line that is too long, the digest of its beginning.
                life.at.first = digest(&whole);
            }
            let plain = format!("{}:{begun}:{line}", life.at.first);
            let place = match life.at.number {
                0 => plain.clone(),
                number => format!("{}#{number}:{begun}:{line}", life.at.first),
            };
            let earlier_place = life.may_be_known.then_some(plain);
            life.at.offset = offset;
            self.is_kept = false;
            let text = whole.trim_ascii();
            if text.is_empty() {
                continue;
            }
            self.since_mark += 1;
            let mark = (self.since_mark >= MARK_EVERY).then(|| self.mark());
            if mark.is_some() {
                (self.since_mark, self.is_kept) = (0, true);
            }
            let record = Record { text: text.to_vec(), cut, place: Some(place), earlier_place, mark };
            if !self.say(SourceMessage::Record(record)) {
                return Ok(false);
            }
        }
    }

    pub(super) fn mark(&self) -> Mark {
        // A file without a complete line cannot be recognized yet.
        let files = self.lives.iter().filter(|life| !life.at.first.is_empty()).map(FollowedFile::position).collect();
        Mark::Files { files, next: self.next, since: self.since }
    }

    /// Closes files that need not stay open, and forgets the positions of the oldest files.
    pub(super) fn close_some(&mut self) -> std::io::Result<()> {
        let count = self.lives.len();
        for (at, life) in self.lives.iter_mut().enumerate() {
            let Some(content) = &life.content else { continue };
            // An open file takes up disk space even after it was removed.
            let is_removed = match content.plain() {
                Some(file) => std::os::unix::fs::MetadataExt::nlink(&file.metadata()?) == 0,
                None => true,
            };
            let is_old = at + OPEN_MAX < count;
            if life.at.is_ended && (is_old || is_removed && life.quiet.elapsed() >= self.grace_max) {
                life.at = life.position();
                life.content = None;
            } else if is_removed {
                self.is_waiting = true;
            }
        }
        // Forget only files that were read to their end, and only while no work is waiting: a file that has not been read yet may
        // be older than these.
        let is_all_read = !self.is_waiting;
        while is_all_read
            && self.lives.len() > LIVES_MAX
            && self.lives[0].at.is_ended
            && self.lives[0].content.is_none()
        {
            let gone = self.lives.remove(0);
            self.since = self.since.max(gone.at.modified);
            self.is_kept = false;
        }
        Ok(())
    }
}

impl FollowedFile {
    pub(super) fn known(at: FilePosition) -> Self {
        Self {
            at,
            path: PathBuf::new(),
            content: None,
            id: (0, 0),
            quiet: Instant::now(),
            rotated: None,
            is_packed: false,
            is_found: false,
            was_found: false,
            missing: None,
            may_be_known: false,
        }
    }

    /// Returns the position in the form in which it is stored, with the digest of everything that was read.
    pub(super) fn position(&self) -> FilePosition {
        let mut at = self.at.clone();
        if let Some(content) = &self.content {
            (at.offset, at.prefix) = (content.read.offset, content.read.digest());
        }
        at
    }

    /// Attaches a file that was found to this followed file; `content` is already open at the right position.
    pub(super) fn open(&mut self, member: &FamilyFile, content: Content) {
        self.content = Some(content);
        self.id = member.id;
        self.is_packed = member.packing != family::Packing::Plain;
        self.quiet = changed_at(member.modified);
        self.found(member);
    }

    pub(super) fn found(&mut self, member: &FamilyFile) {
        self.path.clone_from(&member.path);
        (self.is_found, self.was_found, self.missing) = (true, true, None);
        (self.at.inode, self.at.modified) = (member.id.1, member.modified);
        if member.packing == family::Packing::Plain {
            self.at.length = member.length;
        }
        self.rotated = if member.is_current { None } else { self.rotated.or(Some(Instant::now())) };
    }
}

/// Converts the time of a file's last change to an `Instant`; a time in the future counts as now.
fn changed_at(modified: i64) -> Instant {
    let modified = Duration::from_nanos(u64::try_from(modified).unwrap_or(0));
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok().and_then(|now| now.checked_sub(modified));
    let now = Instant::now();
    age.and_then(|age| now.checked_sub(age)).unwrap_or(now)
}
