//! Lists journal files and reads their headers: which number sequence a file belongs to, and the numbers of its entries.
//!
//! journald numbers its entries. All files of one sequence have the same id, and numbers keep increasing through rotation and
//! reboots, so the numbers in the existing files show which entries were removed. The header is parsed here because the output
//! of `journalctl --header` is meant only for people, while the layout of the header is fixed: systemd, "Journal File Format",
//! section "Header".

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// Signature of a journal file.
const SIGNATURE: &[u8; 8] = b"LPKSHHRH";
/// Length of the part of the header that every version has, in bytes.
const HEADER_BYTES: usize = 208;
/// `state` of a file that was rotated away and is complete.
const STATE_ARCHIVED: u8 = 2;
/// Maximum files in one directory; a journal with more cannot be followed.
const FILES_MAX: usize = 65_536;
/// Directories of this machine's journal: the one that survives reboots, and the one that is lost at a reboot.
const SYSTEM_FOLDERS: [&str; 2] = ["/var/log/journal", "/run/log/journal"];
const MACHINE_ID: &str = "/etc/machine-id";

/// One journal file, as its header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JournalFile {
    pub(super) path: PathBuf,
    /// Id of the sequence in which its entries are numbered, 32 hexadecimal digits; `s=` of a cursor.
    pub(super) sequence: String,
    /// Number of its first entry.
    pub(super) first: u64,
    /// Number of its last entry.
    pub(super) last: u64,
    /// Number of entries in the file. Numbers between `first` and `last` may belong to entries in other files of the sequence.
    pub(super) entries: u64,
    /// Time of the first entry, in microseconds since 1970.
    pub(super) begins: u64,
    /// Set if the file was rotated away; no more entries are appended to it.
    pub(super) is_archived: bool,
}

/// The journal files below a directory.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) files: Vec<JournalFile>,
    /// Reason why the first unreadable file could not be read. Its entries count as unknown, not as lost.
    pub(super) problem: Option<String>,
}

/// Lists the journal files in `directory` and in the machines' folders inside it; without `directory`, those of this machine's
/// own journal.
pub(super) fn list(directory: Option<&Path>) -> io::Result<Listing> {
    let mut listing = Listing::default();
    match directory {
        Some(directory) => {
            add_folder(directory, &mut listing)?;
            for entry in std::fs::read_dir(directory)?.flatten() {
                let is_machine = is_machine_folder(&entry.file_name().to_string_lossy());
                if is_machine && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    add_folder(&entry.path(), &mut listing)?;
                }
            }
        }
        None => {
            let machine = std::fs::read_to_string(MACHINE_ID).map_err(|error| {
                io::Error::new(error.kind(), format!("{MACHINE_ID}: {error}; is systemd installed?"))
            })?;
            for folder in SYSTEM_FOLDERS {
                match add_folder(&Path::new(folder).join(machine.trim()), &mut listing) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    added => added?,
                }
            }
        }
    }
    Ok(listing)
}

/// Whether a folder belongs to a machine: its name is the machine's id or, for a journal namespace, that id and the namespace.
fn is_machine_folder(name: &str) -> bool {
    let id = name.split_once('.').map_or(name, |(id, _)| id);
    id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn add_folder(folder: &Path, listing: &mut Listing) -> io::Result<()> {
    let named = |error: io::Error, path: &Path| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    for entry in std::fs::read_dir(folder).map_err(|error| named(error, folder))?.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        // A file that was being written during a crash gets a trailing tilde, and still holds entries.
        if !(name.ends_with(".journal") || name.ends_with(".journal~")) {
            continue;
        }
        if listing.files.len() >= FILES_MAX {
            return Err(io::Error::other(format!("{} holds more than {FILES_MAX} journal files", folder.display())));
        }
        match read_header(&path) {
            Ok(Some(file)) => listing.files.push(file),
            // The file is empty, or was just created.
            Ok(None) => {}
            // The file was removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let hint = "is this user in the group systemd-journal?";
                listing.problem.get_or_insert_with(|| format!("{}: {error}; {hint}", path.display()));
            }
        }
    }
    Ok(())
}

fn read_header(path: &Path) -> io::Result<Option<JournalFile>> {
    // A link or a pipe is not a journal file, and opening a pipe would block until another process writes to it.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file: File = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut header = Vec::with_capacity(HEADER_BYTES);
    file.take(HEADER_BYTES as u64).read_to_end(&mut header)?;
    Ok(parse_header(&header, path))
}

/// Parses a header; `None` if the file is not a journal file or contains no entry.
pub(super) fn parse_header(header: &[u8], path: &Path) -> Option<JournalFile> {
    if header.len() < HEADER_BYTES || !header.starts_with(SIGNATURE) {
        return None;
    }
    let number = |at: usize| header.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    let (entries, last, first, begins) = (number(152)?, number(160)?, number(168)?, number(184)?);
    if entries == 0 || first == 0 || last < first {
        return None;
    }
    Some(JournalFile {
        path: path.to_owned(),
        sequence: hex::encode(header.get(72..88)?),
        first,
        last,
        entries,
        begins,
        is_archived: header.get(16) == Some(&STATE_ARCHIVED),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_parsed_and_nothing_else_is() {
        let mut header = vec![0; HEADER_BYTES];
        header[..8].copy_from_slice(SIGNATURE);
        header[16] = STATE_ARCHIVED;
        header[72..88].copy_from_slice(&[0xab; 16]);
        for (at, value) in [(152, 3_u64), (160, 9), (168, 7), (184, 1_795_000_000_000_001)] {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        let file = parse_header(&header, Path::new("/j/a.journal")).expect("a header");
        assert_eq!((file.first, file.last, file.entries, file.is_archived), (7, 9, 3, true));
        assert_eq!((file.sequence, file.begins), ("ab".repeat(16), 1_795_000_000_000_001));
        for length in 0..HEADER_BYTES {
            assert_eq!(parse_header(&header[..length], Path::new("a")), None);
        }
        header[0] = b'l';
        assert_eq!(parse_header(&header, Path::new("a")), None);
    }

    #[test]
    fn folders_of_machines_are_told_from_others() {
        let id = "0123456789abcdef0123456789abcdef";
        assert!(is_machine_folder(id) && is_machine_folder(&format!("{id}.mail")));
        assert!(!is_machine_folder("archive") && !is_machine_folder(&id[1..]));
    }
}
