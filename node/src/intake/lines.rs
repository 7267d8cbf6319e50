//! Lines that are appended to a file, across its rotation.
//!
//! A file is known by the digest of its first line, not by its name, device or inode: names change when files are rotated, inodes are used
//! again, devices are numbered anew at every boot, and a file that was cut in place is another file.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::mark::Mark;
use super::pipeline::RECORD_BYTES_MAX;
use super::safe::Safe;
use super::{Heard, Heards, Problems, Record};

/// How often new lines are looked for.
const POLL: Duration = Duration::from_millis(250);
/// Whoever writes may hold a file open for a while after it was rotated away.
const GRACE: Duration = Duration::from_secs(5);
/// Rotated files that nobody can go on reading.
const PACKED: [&str; 5] = ["gz", "xz", "zst", "bz2", "zip"];

pub(super) async fn follow(
    asked: Asked,
    mark: Option<Mark>,
    heards: Heards,
    problems: Problems,
    stop: CancellationToken,
) {
    let Asked { name, path, safe, from_now } = asked;
    let mut reader = Reader { path, safe, open: None, begin: Begin::of(mark, from_now), stop: stop.clone(), heards };
    let mut known = None;
    while !stop.is_cancelled() && !reader.heards.is_closed() {
        // Reading may wait for a disk or for the log; nobody else waits with it.
        let read = tokio::task::spawn_blocking(move || {
            let result = reader.read_what_is_there();
            (reader, result)
        });
        let Ok((returned, result)) = read.await else { return };
        reader = returned;
        let problem = result.err().map(|error| error.to_string());
        if problem != known
            && let Some(problem) = &problem
        {
            tracing::warn!(file = %reader.path.display(), problem, "the file cannot be read; tried again");
        }
        if problem != known {
            problems.set(&name, problem.clone());
        }
        known = problem;
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(POLL) => {} }
    }
}

/// What is followed.
pub(super) struct Asked {
    /// Of the source, for health.
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) safe: Safe,
    pub(super) from_now: bool,
}

/// Where the first look begins.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Begin {
    Beginning,
    End,
    /// Where the last run ended, in the file with this first line.
    At {
        life: String,
        offset: u64,
    },
}

impl Begin {
    fn of(mark: Option<Mark>, from_now: bool) -> Self {
        match mark {
            Some(Mark::File { life, offset }) if offset > 0 => Self::At { life, offset },
            Some(_) => Self::Beginning,
            None if from_now => Self::End,
            None => Self::Beginning,
        }
    }
}

struct Reader {
    path: PathBuf,
    safe: Safe,
    open: Option<Open>,
    begin: Begin,
    stop: CancellationToken,
    heards: Heards,
}

struct Open {
    file: BufReader<File>,
    path: PathBuf,
    offset: u64,
    /// Digest of the first line; empty before there is a whole one.
    life: String,
    /// Since when another file has this one's name, and nothing more came.
    rotated: Option<Instant>,
}

impl Open {
    fn at(safe: &Safe, path: &Path, offset: u64) -> std::io::Result<Self> {
        let mut file = BufReader::new(safe.open(path)?);
        let life = if offset > 0 { first_line(&mut file)? } else { String::new() };
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { file, path: path.to_owned(), offset, life, rotated: None })
    }

    fn mark(&self) -> Mark {
        Mark::File { life: self.life.clone(), offset: self.offset }
    }
}

impl Reader {
    /// Hands over every whole line; then goes on with the file that was begun next, if one was.
    fn read_what_is_there(&mut self) -> std::io::Result<()> {
        loop {
            if self.open.is_none() {
                match self.first() {
                    Ok(open) => self.open = Some(open),
                    // It will come. What it holds then came after now.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        if self.begin == Begin::End {
                            self.begin = Begin::Beginning;
                            self.say(Heard::Place(Mark::File { life: String::new(), offset: 0 }));
                        }
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                }
            }
            self.look_for_cut()?;
            let before = self.open.as_ref().map_or(0, |open| open.offset);
            if !self.hand_over_lines(false)? {
                return Ok(());
            }
            let Some(open) = &mut self.open else { return Ok(()) };
            let is_current = is_named(&open.path, &self.path, open.file.get_ref())?;
            if is_current {
                open.rotated = None;
                return Ok(());
            }
            let since = match open.rotated {
                Some(since) if open.offset == before => since,
                _ => *open.rotated.insert(Instant::now()),
            };
            if since.elapsed() < GRACE {
                return Ok(());
            }
            // What stands behind the last line end will not be finished any more.
            self.hand_over_lines(true)?;
            match self.next_file()? {
                Some(next) => self.open = Some(Open::at(&self.safe, &next, 0)?),
                None => return Ok(()),
            }
        }
    }

    fn say(&self, heard: Heard) -> bool {
        self.heards.blocking_send(heard).is_ok()
    }

    /// Where to begin: where the last run ended, wherever that file is by now. Asked again until it succeeds.
    fn first(&mut self) -> std::io::Result<Open> {
        let open = match self.begin.clone() {
            Begin::Beginning => Open::at(&self.safe, &self.path, 0)?,
            Begin::End => {
                let end = end_of_lines(self.safe.open(&self.path)?)?;
                let open = Open::at(&self.safe, &self.path, end)?;
                self.say(Heard::Place(open.mark()));
                open
            }
            Begin::At { life, offset } => match self.find(&life, offset)? {
                Some(path) => Open::at(&self.safe, &path, offset)?,
                None => {
                    let open = Open::at(&self.safe, &self.path, 0)?;
                    let cause = format!("the file that was read last is not beside {} any more", self.path.display());
                    self.say(Heard::Lost { count: None, cause });
                    open
                }
            },
        };
        self.begin = Begin::Beginning;
        Ok(open)
    }

    /// A file that was cut and begun anew in place has another first line, or is shorter than what was read of it.
    fn look_for_cut(&mut self) -> std::io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.offset == 0 {
            return Ok(());
        }
        let mut again = BufReader::new(open.file.get_ref().try_clone()?);
        again.seek(SeekFrom::Start(0))?;
        let is_cut = again.get_ref().metadata()?.len() < open.offset || first_line(&mut again)? != open.life;
        // Both share one place in the file.
        open.file.seek(SeekFrom::Start(open.offset))?;
        if is_cut {
            (open.offset, open.life) = (0, String::new());
            open.file.seek(SeekFrom::Start(0))?;
            let cause = format!("{} was cut while it was being read", open.path.display());
            self.say(Heard::Lost { count: None, cause });
        }
        Ok(())
    }

    /// False when nobody listens any more, or the node stops. With `unfinished`, what stands behind the last line end too.
    fn hand_over_lines(&mut self, unfinished: bool) -> std::io::Result<bool> {
        let Some(open) = &mut self.open else { return Ok(true) };
        loop {
            if self.stop.is_cancelled() {
                return Ok(false);
            }
            let mut line = Vec::new();
            let read = (&mut open.file).take(RECORD_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
            let is_whole = line.last() == Some(&b'\n') || read == RECORD_BYTES_MAX;
            if read == 0 || !is_whole && !unfinished {
                open.file.seek(SeekFrom::Start(open.offset))?;
                return Ok(true);
            }
            if open.offset == 0 {
                open.life = digest(&line);
            }
            let place = format!("{}:{}:{}", open.life, open.offset, digest(&line));
            open.offset += read as u64;
            // The rest of a line that is too long is a record of its own, which is no JSON and is kept as such.
            let text = line.trim_ascii().to_vec();
            if text.is_empty() {
                continue;
            }
            let record = Record { text, place: Some(place), mark: Some(open.mark()) };
            if self.heards.blocking_send(Heard::Record(record)).is_err() {
                return Ok(false);
            }
        }
    }

    /// The file with this first line, under its own name or a later one.
    fn find(&self, life: &str, offset: u64) -> std::io::Result<Option<PathBuf>> {
        for path in std::iter::once(self.path.clone()).chain(self.siblings()?.into_iter().map(|(_, path)| path)) {
            let file = match self.safe.open(&path) {
                Ok(file) => file,
                // The place is kept until it is allowed, or somebody else's name is out of the way.
                Err(error) if path == self.path && error.kind() == std::io::ErrorKind::PermissionDenied => {
                    return Err(error);
                }
                Err(_) => continue,
            };
            if file.metadata()?.len() >= offset && first_line(&mut BufReader::new(file))? == life {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// The file that was begun behind the one that is open: of those rotated away meanwhile the first, otherwise the one with the name.
    fn next_file(&self) -> std::io::Result<Option<PathBuf>> {
        let Some(open) = &self.open else { return Ok(None) };
        let done = open.file.get_ref().metadata()?.modified()?;
        for (_, path) in self.siblings()?.into_iter().filter(|(changed, _)| *changed > done) {
            if !is_named(&path, &path, open.file.get_ref())? {
                return Ok(Some(path));
            }
        }
        Ok(self.path.exists().then(|| self.path.clone()))
    }

    /// Rotated files of the same kind, by their last change: `audit.log.1`, `audit.log-20261122`, `audit-2026-11-22.log`.
    fn siblings(&self) -> std::io::Result<Vec<(SystemTime, PathBuf)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(self.path.parent().unwrap_or(Path::new(".")))?.flatten() {
            let path = entry.path();
            if let Ok(meta) = entry.metadata()
                && meta.is_file()
                && is_rotated_name(&self.path, &path)
            {
                found.push((meta.modified()?, path));
            }
        }
        found.sort();
        Ok(found)
    }
}

/// The name with a number behind it, or with one in front of its ending. Other logs of the same program have words there.
fn is_rotated_name(path: &Path, other: &Path) -> bool {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let end = |path: &Path| path.extension().unwrap_or_default().to_string_lossy().into_owned();
    if PACKED.contains(&end(other).as_str()) {
        return false;
    }
    let numbered = |prefix: &str| {
        let rest = name(other).strip_prefix(prefix).map(str::to_owned);
        rest.is_some_and(|rest| {
            let mut characters = rest.chars();
            matches!(characters.next(), Some('.' | '-')) && characters.next().is_some_and(|c| c.is_ascii_digit())
        })
    };
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    numbered(&name(path)) || numbered(&stem) && end(path) == end(other)
}

/// Whether the file that is open still has the name that is followed.
fn is_named(opened: &Path, name: &Path, file: &File) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let held = file.metadata()?;
    // Through a link, as far as links are followed at all: the file that is open was checked.
    match std::fs::metadata(name) {
        Ok(named) => Ok((named.dev(), named.ino()) == (held.dev(), held.ino())),
        // Nothing has taken the name yet. One that was opened under another name is done all the same.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(opened == name),
        Err(error) => Err(error),
    }
}

/// Digest of the first line, or nothing while there is no whole one.
fn first_line(file: &mut BufReader<File>) -> std::io::Result<String> {
    let mut line = Vec::new();
    let read = file.take(RECORD_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
    Ok(if line.last() == Some(&b'\n') || read == RECORD_BYTES_MAX { digest(&line) } else { String::new() })
}

/// Behind the last whole line.
fn end_of_lines(mut file: File) -> std::io::Result<u64> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(RECORD_BYTES_MAX as u64);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(length - from).read_to_end(&mut tail)?;
    Ok(tail.iter().rposition(|byte| *byte == b'\n').map_or(from, |at| from + at as u64 + 1))
}

fn digest(line: &[u8]) -> String {
    hex::encode(Sha256::digest(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rotated_names_are_kin() {
        let is_kin = |other: &str| is_rotated_name(Path::new("/l/audit.log"), &Path::new("/l").join(other));
        for kin in ["audit.log.1", "audit.log-20261122", "audit-2026-11-22T10-00-00.000.log"] {
            assert!(is_kin(kin), "{kin}");
        }
        for other in [
            "audit.log",
            "audit-errors.log",
            "audit.log.1.gz",
            "audit.log.bak",
            "audits.log",
            "audit-2.txt",
            "other.log.1",
        ] {
            assert!(!is_kin(other), "{other}");
        }
    }
}
