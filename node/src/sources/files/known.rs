//! Matches files with stored positions, and reports files that cannot be matched.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::Instant;

use super::content::{Content, first_line, is_beginning_of};
use super::family::{Family, FamilyFile, Packing, modified};
use super::follower::{FollowedFile, Follower, NEW_FILES_MAX};
use super::seen::Seen;
use crate::sources::mark::FilePosition;
use crate::sources::record::SourceMessage;

impl Follower {
    /// Matches every file of the family, oldest first, with its stored position, or creates a position for it.
    pub(super) fn match_files(&mut self, family: &Family) -> io::Result<()> {
        let mut is_cut = false;
        for life in &mut self.lives {
            life.is_found = false;
            is_cut |= life.look_for_cut()?;
        }
        if is_cut {
            // If a copy was seen before the file was truncated, it may contain the content that was removed, so match it again.
            self.seen.retain(|_, seen| seen.number.is_some());
        }
        self.lives_before = self.lives.len();
        let mut unmatched = Vec::new();
        for member in &family.members {
            if !self.is_same_as_before(member)? {
                unmatched.push(member);
            }
        }
        let current = family.members.iter().find(|member| member.is_current);
        for member in unmatched {
            match self.match_one(member, current) {
                Ok(()) => {}
                // The file was renamed or removed since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.is_waiting = true,
                Err(error) if self.stop.is_cancelled() => return Err(error),
                // An error of the operating system may be transient, but a file in an invalid format stays invalid.
                Err(error)
                    if member.packing != Packing::Plain
                        && error.raw_os_error().is_none()
                        && error.kind() != io::ErrorKind::PermissionDenied =>
                {
                    let damaged = Some((Instant::now(), error.to_string(), false));
                    self.seen.insert(member.id, Seen { damaged, ..Seen::new(member, None) });
                }
                Err(error) if member.is_current => return Err(error),
                Err(error) => (self.problem, self.is_waiting) = (Some(error.to_string()), true),
            }
        }
        self.seen.retain(|id, _| family.members.iter().any(|member| member.id == *id));
        self.look_at_damaged(family);
        for life in self.lives.iter_mut().filter(|life| !life.is_found && life.content.is_some()) {
            life.rotated.get_or_insert_with(Instant::now);
        }
        self.say_missing(family);
        Ok(())
    }

    /// Reports compressed files that cannot be decompressed, once it is certain that they are no longer being written.
    fn look_at_damaged(&mut self, family: &Family) {
        let mut losses = Vec::new();
        for member in &family.members {
            let Some((since, error, is_said)) = self.seen.get_mut(&member.id).and_then(|seen| seen.damaged.as_mut())
            else {
                continue;
            };
            self.problem = Some(format!("{}: {error}", member.path.display()));
            if !*is_said {
                self.is_waiting = true;
                if since.elapsed() >= self.grace {
                    *is_said = true;
                    losses.push(format!(
                        "{} cannot be decompressed, so its contents are not recorded: {error}",
                        member.path.display()
                    ));
                }
            }
        }
        for cause in losses {
            self.say(SourceMessage::Lost { count: None, cause });
        }
    }

    /// Reports that a compressed file cannot be read any further, and stops reading it.
    pub(super) fn say_damaged(&mut self, at: usize, error: &io::Error) {
        let life = &mut self.lives[at];
        let cause = format!(
            "{} cannot be decompressed after byte {}, so the rest is not recorded: {error}",
            life.path.display(),
            life.at.offset
        );
        life.at = life.position();
        (life.content, life.at.is_ended) = (None, true);
        self.is_kept = false;
        self.say(SourceMessage::Lost { count: None, cause });
    }

    /// Whether a file is unchanged since the last poll.
    fn is_same_as_before(&mut self, member: &FamilyFile) -> io::Result<bool> {
        let Some(at) = self.lives.iter().position(|life| life.content.is_some() && life.id == member.id) else {
            let Some(seen) = self.seen.get(&member.id) else { return Ok(false) };
            if (seen.length, seen.modified) != (member.length, member.modified) {
                return Ok(false);
            }
            let number = seen.number;
            if let Some(life) = self.lives.iter_mut().find(|life| Some(life.at.number) == number) {
                life.found(member);
            }
            return Ok(true);
        };
        self.lives[at].found(member);
        Ok(true)
    }

    fn match_one(&mut self, member: &FamilyFile, current: Option<&FamilyFile>) -> io::Result<()> {
        // Skip a rotated file that has not changed since it was read to its end, or since before the first poll.
        let is_known = self.lives.iter().any(|life| life.at.inode == member.id.1);
        if !member.is_current && !is_known && member.modified <= self.since {
            self.seen.insert(member.id, Seen::new(member, None));
            return Ok(());
        }
        let mut content = Content::open(self.safe.open(&member.path)?, member.packing)?;
        // In a rotated file, trailing bytes without a line end count as a line.
        let first = first_line(&mut content, !member.is_current)?;
        let matched = match &first {
            Some(first) => self.find_life(member, first)?,
            None => None,
        };
        let copied = match current {
            Some(current) if !member.is_current => self.is_copy_of(member, current)?,
            _ => None,
        };
        if let Some((at, content)) = matched {
            // The file is a copy of the current file, unless the current file was truncated and the same lines were written to
            // it again.
            if self.lives[at].at.inode != member.id.1
                && let Some(lines) = copied
            {
                if !self.lives[at].was_found {
                    let cause = format!(
                        "{} has the same content as the beginning of {}: either it is a copy, or these {lines} lines were written twice and are recorded once",
                        member.path.display(),
                        self.path.display()
                    );
                    self.say(SourceMessage::Lost { count: None, cause });
                }
                self.seen.insert(member.id, Seen::new(member, None));
                return Ok(());
            }
            let number = self.lives[at].at.number;
            self.seen.insert(member.id, Seen::new(member, Some(number)));
            // Programs such as rsync and editors replace a file with one that begins with the complete old content. If this
            // file does not begin with it, it is a new file.
            if self.lives[at].is_removed()? && member.packing == Packing::Plain && !self.is_continued_by(at, member)? {
                return self.begin_new(member, first);
            }
            // The open file contains everything that its compressed form contains, unless it was truncated after the compressed
            // copy was made.
            if member.packing != Packing::Plain && self.lives[at].content.is_some() && self.has_all_of(at, member)? {
                self.lives[at].found(member);
                return Ok(());
            }
            let before = self.lives[at].id;
            self.lives[at].at = self.lives[at].position();
            self.lives[at].open(member, content);
            return match current {
                Some(current) if current.id == before => self.match_one(current, Some(current)),
                _ => Ok(()),
            };
        }
        if copied.is_some() {
            self.seen.insert(member.id, Seen::new(member, None));
            return Ok(());
        }
        if let (Some(first), Some(current)) = (&first, current)
            && !member.is_current
            && let Some((at, content)) = self.find_cut(member, first, current)?
        {
            self.lives[at].at = self.lives[at].position();
            self.lives[at].open(member, content);
            self.seen.insert(member.id, Seen::new(member, Some(self.lives[at].at.number)));
            return self.match_one(current, Some(current));
        }
        // Without a complete first line, the file could not be recognized later.
        if first.is_none() && member.is_current {
            return Ok(());
        }
        self.begin_new(member, first)
    }

    fn begin_new(&mut self, member: &FamilyFile, first: Option<String>) -> io::Result<()> {
        // The remaining files are started in later polls, in their order.
        if self.lives.len() >= self.lives_before + NEW_FILES_MAX {
            self.is_waiting = true;
            return Ok(());
        }
        let content = Content::open(self.safe.open(&member.path)?, member.packing)?;
        self.seen.insert(member.id, Seen::new(member, Some(self.next)));
        self.add_life(member, content, first.unwrap_or_default());
        Ok(())
    }

    /// Finds the stored position that this file continues, that is, one for which the bytes up to the offset are the same. If
    /// there are several, prefers the position with this inode, or else the one that was read furthest.
    fn find_life(&self, member: &FamilyFile, first: &str) -> io::Result<Option<(usize, Content)>> {
        let mut candidates: Vec<usize> = (0..self.lives.len())
            .filter(|at| {
                let life = &self.lives[*at];
                let is_free = !life.is_found
                    && (life.content.is_none()
                        || member.packing != Packing::Plain
                        || member.is_current && life.is_removed().unwrap_or(false));
                is_free
                    && life.at.first == first
                    && (member.packing != Packing::Plain || life.at.offset <= member.length)
            })
            .collect();
        candidates.sort_by_key(|at| self.lives[*at].at.offset);
        let mut content = Content::open(self.safe.open(&member.path)?, member.packing)?;
        let mut matching = Vec::new();
        for at in candidates {
            let position = self.lives[at].position();
            if !content.advance(position.offset, &self.may_go_on())? {
                break;
            }
            if content.read.digest() == position.prefix {
                matching.push(at);
            }
        }
        if self.stop.is_cancelled() {
            return Err(io::Error::other("stopping"));
        }
        let by_inode = matching.iter().find(|at| self.lives[**at].at.inode == member.id.1);
        let Some(at) = by_inode.or(matching.last()).copied() else { return Ok(None) };
        let mut content = Content::open(self.safe.open(&member.path)?, member.packing)?;
        let is_there = content.advance(self.lives[at].at.offset, &self.may_go_on())?;
        Ok(is_there.then_some((at, content)))
    }

    /// Whether the open file at index `at` begins with the complete content of `member`.
    fn has_all_of(&self, at: usize, member: &FamilyFile) -> io::Result<bool> {
        let Some(mut open) = self.lives[at].opened_again()? else { return Ok(false) };
        let mut part = Content::open(self.safe.open(&member.path)?, member.packing)?;
        Ok(is_beginning_of(&mut part, &mut open, &self.may_go_on())?.is_some())
    }

    /// Whether `member` begins with the complete content of the open file at index `at`.
    fn is_continued_by(&self, at: usize, member: &FamilyFile) -> io::Result<bool> {
        let Some(mut open) = self.lives[at].opened_again()? else { return Ok(true) };
        let mut whole = Content::open(self.safe.open(&member.path)?, member.packing)?;
        Ok(is_beginning_of(&mut open, &mut whole, &self.may_go_on())?.is_some())
    }

    /// Finds the position of the current file if `member` is a copy that was made before the current file was truncated, and
    /// the new content of the current file begins with the same lines. `member` is such a copy if it contains everything that
    /// was read so far.
    fn find_cut(&self, member: &FamilyFile, first: &str, current: &FamilyFile) -> io::Result<Option<(usize, Content)>> {
        let is_it = |life: &FollowedFile| life.content.is_some() && life.id == current.id && life.at.first == first;
        let Some(at) = self.lives.iter().position(is_it) else { return Ok(None) };
        let position = self.lives[at].position();
        let mut content = Content::open(self.safe.open(&member.path)?, member.packing)?;
        let has_it = content.advance(position.offset, &self.may_go_on())? && content.read.digest() == position.prefix;
        Ok(has_it.then_some((at, content)))
    }

    /// Returns the number of lines of a rotated file if the current file begins with the complete content of the rotated file.
    fn is_copy_of(&self, member: &FamilyFile, current: &FamilyFile) -> io::Result<Option<u64>> {
        if member.packing == Packing::Plain && member.length > current.length
            || current.length == 0
            || member.length == 0
        {
            return Ok(None);
        }
        let mut part = Content::open(self.safe.open(&member.path)?, member.packing)?;
        let mut whole = Content::open(self.safe.open(&current.path)?, current.packing)?;
        is_beginning_of(&mut part, &mut whole, &self.may_go_on())
    }

    pub(super) fn add_life(&mut self, member: &FamilyFile, content: Content, first: String) {
        let at = FilePosition {
            first,
            number: self.next,
            offset: content.read.offset,
            prefix: String::new(),
            modified: member.modified,
            inode: member.id.1,
            length: member.length,
            is_ended: false,
        };
        let mut life = FollowedFile::known(at);
        life.open(member, content);
        life.may_be_known = self.is_upgrade && self.next > 0;
        self.lives.push(life);
        self.next += 1;
        self.is_kept = false;
    }

    /// Begins at the position that an earlier version of Piperoll stored, which identified a file by its first line.
    pub(super) fn begin_at(&mut self, family: &Family, first: &str, offset: u64) -> io::Result<()> {
        // If several files begin with this line, use the oldest. Records of the other files that were already recorded are
        // recognized as duplicates by their ids.
        self.is_upgrade = true;
        for member in &family.members {
            let opened = self.safe.open(&member.path).and_then(|file| Content::open(file, member.packing));
            let mut content = match opened {
                Ok(content) => content,
                // Keep the position until the file can be read.
                Err(error) if member.is_current => return Err(error),
                Err(_) => continue,
            };
            if first_line(&mut content, false)?.as_deref() != Some(first) {
                continue;
            }
            let mut content = Content::open(self.safe.open(&member.path)?, member.packing)?;
            if content.advance(offset, &self.may_go_on())? {
                self.since = if member.is_current { self.newest_before(family, member) } else { member.modified };
                self.add_life(member, content, first.to_owned());
                return Ok(());
            }
        }
        self.since =
            family.members.iter().filter(|member| !member.is_current).map(|member| member.modified).max().unwrap_or(0);
        let cause = self.words_not_found(family, 0);
        self.say(SourceMessage::Lost { count: None, cause });
        Ok(())
    }

    fn newest_before(&self, family: &Family, current: &FamilyFile) -> i64 {
        let rotated = family.members.iter().filter(|member| member.id != current.id);
        rotated.map(|member| member.modified).max().unwrap_or(0)
    }

    /// Reports data that was lost because its files are no longer in the family, and forgets these files. A file that is being
    /// renamed, copied or compressed may be missing for a moment.
    fn say_missing(&mut self, family: &Family) {
        let mut missing = Vec::new();
        for life in &mut self.lives {
            if life.is_found || life.content.is_some() {
                continue;
            }
            let unread = life.at.length.saturating_sub(life.at.offset);
            let was_cut = life.at.inode == 0;
            let was_read_last = !life.was_found && self.newest_before == Some(life.at.number) && !life.at.is_ended;
            if !(was_cut || was_read_last || unread > 0 && !life.at.is_ended) {
                continue;
            }
            let since = *life.missing.get_or_insert_with(Instant::now);
            self.is_waiting = true;
            if since.elapsed() >= self.grace {
                missing.push((life.at.number, was_cut, unread));
            }
        }
        for (number, was_cut, unread) in missing {
            let cause = if was_cut {
                format!(
                    "{} was truncated while it was being read: {unread} bytes are known to be unread, and it is unknown what was written after the last check",
                    self.path.display()
                )
            } else {
                self.words_not_found(family, unread)
            };
            self.say(SourceMessage::Lost { count: None, cause });
            self.lives.retain(|life| life.at.number != number);
            self.is_kept = false;
        }
    }

    fn words_not_found(&self, family: &Family, unread: u64) -> String {
        let packed = match family.unreadable.first() {
            Some(path) => format!("; it may be {}, which uses an unsupported compression format", path.display()),
            None => String::new(),
        };
        format!(
            "the file last read as {} is no longer in its directory; {unread} bytes of it are known to be unread, and it is unknown what was written after the last check{packed}",
            self.path.display()
        )
    }
}

impl FollowedFile {
    /// Closes this file if it no longer begins with the content that was read from it, because it was truncated in place and
    /// perhaps written to again. A copy of that content may be in the family. Returns whether the file was closed.
    fn look_for_cut(&mut self) -> io::Result<bool> {
        let Some(content) = &self.content else { return Ok(false) };
        let Some(file) = content.plain() else { return Ok(false) };
        let meta = file.metadata()?;
        let now = (meta.len(), modified(&meta));
        if now == (self.at.length, self.at.modified) {
            return Ok(false);
        }
        if content.read.is_still_in(file)? {
            (self.at.length, self.at.modified) = now;
            return Ok(false);
        }
        self.at = self.position();
        (self.content, self.id, self.at.inode) = (None, (0, 0), 0);
        Ok(true)
    }

    /// Whether the open file no longer has a name.
    fn is_removed(&self) -> io::Result<bool> {
        match self.content.as_ref().and_then(Content::plain) {
            Some(file) => Ok(file.metadata()?.nlink() == 0),
            None => Ok(false),
        }
    }

    /// Opens the open file again, at its beginning and with a new descriptor, because a duplicated descriptor would share the
    /// file offset.
    fn opened_again(&self) -> io::Result<Option<Content>> {
        let Some(file) = self.content.as_ref().and_then(Content::plain) else { return Ok(None) };
        let file = std::fs::File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        Content::open(file, Packing::Plain).map(Some)
    }
}
