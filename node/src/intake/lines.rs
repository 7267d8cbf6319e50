//! Lines that are appended to a file, across its rotation.

use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::mark::Mark;
use super::pipeline::RECORD_BYTES_MAX;
use super::{Heard, Heards, Record};

/// How often new lines are looked for.
const POLL: Duration = Duration::from_millis(250);

pub(super) async fn follow(path: PathBuf, mark: Option<Mark>, from_now: bool, heards: Heards, stop: CancellationToken) {
    let mut reader = Reader { path, open: None, mark, from_now };
    while !stop.is_cancelled() && !heards.is_closed() {
        let sender = heards.clone();
        let read = tokio::task::spawn_blocking(move || {
            let result = reader.read_what_is_there(&sender);
            (reader, result)
        });
        let Ok((returned, result)) = read.await else { return };
        reader = returned;
        if let Err(error) = result {
            tracing::warn!(file = %reader.path.display(), %error, "the file cannot be read; tried again");
        }
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(POLL) => {} }
    }
}

struct Reader {
    path: PathBuf,
    open: Option<Open>,
    /// Where the last run of the node got to, until the first look.
    mark: Option<Mark>,
    from_now: bool,
}

struct Open {
    file: BufReader<std::fs::File>,
    device: u64,
    inode: u64,
    offset: u64,
    /// Digest of the first line. A file that was cut and begun anew, or that got the inode of one that is gone, is another file.
    life: String,
}

impl Open {
    fn at(path: &Path, offset: u64) -> std::io::Result<Self> {
        let mut file = BufReader::new(std::fs::File::open(path)?);
        let meta = file.get_ref().metadata()?;
        let mut first = Vec::new();
        if offset > 0 {
            std::io::Read::take(&mut file, RECORD_BYTES_MAX as u64).read_until(b'\n', &mut first)?;
        }
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { file, device: meta.dev(), inode: meta.ino(), offset, life: digest(&first) })
    }

    fn is(&self, meta: &std::fs::Metadata) -> bool {
        (self.device, self.inode) == (meta.dev(), meta.ino())
    }
}

impl Reader {
    /// Hands over every whole line; then goes on with the file that has taken this one's name, if one has.
    fn read_what_is_there(&mut self, heards: &Heards) -> std::io::Result<()> {
        loop {
            if self.open.is_none() {
                match self.first(heards) {
                    Ok(open) => self.open = Some(open),
                    // It will come.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            let Some(open) = &mut self.open else { return Ok(()) };
            if !hand_over_lines(open, heards)? {
                return Ok(());
            }
            let is_shorter = open.file.get_ref().metadata()?.len() < open.offset;
            let named = std::fs::metadata(&self.path);
            let is_another = named.as_ref().is_ok_and(|meta| !open.is(meta));
            if is_shorter && !is_another {
                // Cut and begun anew in place: what was written between our last look and the cut is gone.
                let cause = format!("{} was cut while it was being read", self.path.display());
                let _ = heards.blocking_send(Heard::Lost { count: None, cause });
                self.open = Some(Open::at(&self.path, 0)?);
            } else if is_another {
                // Whoever held the old file may have written to it until a moment ago.
                hand_over_lines(open, heards)?;
                self.open = Some(Open::at(&self.path, 0)?);
            } else {
                return Ok(());
            }
        }
    }

    /// Where to begin: where the last run ended, wherever that file is by now.
    fn first(&mut self, heards: &Heards) -> std::io::Result<Open> {
        let Some(Mark::File { device, inode, offset }) = self.mark.take() else {
            let length = std::fs::metadata(&self.path)?.len();
            return Open::at(&self.path, if self.from_now { length } else { 0 });
        };
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let beside = std::fs::read_dir(folder)?.flatten().map(|found| found.path());
        for path in std::iter::once(self.path.clone()).chain(beside) {
            let is_it = std::fs::metadata(&path)
                .is_ok_and(|meta| (meta.dev(), meta.ino()) == (device, inode) && meta.len() >= offset);
            if is_it {
                return Open::at(&path, offset);
            }
        }
        let cause = format!("the file that was read last is not beside {} any more", self.path.display());
        let open = Open::at(&self.path, 0)?;
        let _ = heards.blocking_send(Heard::Lost { count: None, cause });
        Ok(open)
    }
}

fn digest(line: &[u8]) -> String {
    hex::encode(Sha256::digest(line))
}

/// False when nobody listens any more.
fn hand_over_lines(open: &mut Open, heards: &Heards) -> std::io::Result<bool> {
    loop {
        let mut line = Vec::new();
        let read = std::io::Read::take(&mut open.file, RECORD_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
        let is_long = read == RECORD_BYTES_MAX && line.last() != Some(&b'\n');
        if !is_long && line.last() != Some(&b'\n') {
            // Not written to its end yet.
            open.file.seek(SeekFrom::Start(open.offset))?;
            return Ok(true);
        }
        if open.offset == 0 {
            open.life = digest(&line);
        }
        let Open { device, inode, offset, life, .. } = &*open;
        let place = format!("{device}:{inode}:{life}:{offset}:{}", digest(&line));
        open.offset += read as u64;
        // The rest of a line that is too long is a record of its own, which is no JSON and is kept as such.
        let text = line.trim_ascii().to_vec();
        if text.is_empty() {
            continue;
        }
        let mark = Some(Mark::File { device: open.device, inode: open.inode, offset: open.offset });
        if heards.blocking_send(Heard::Record(Record { text, place: Some(place), mark })).is_err() {
            return Ok(false);
        }
    }
}
