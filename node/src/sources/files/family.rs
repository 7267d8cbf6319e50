//! Lists a followed file and the files that had its name earlier, such as `audit.log.1`, `audit.log-20261122.gz` and
//! `audit-2026-11-22.log`.

use std::cmp::Reverse;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Extensions of compressed files that are supported.
const GZIP: &str = "gz";
const ZSTD: [&str; 2] = ["zst", "zstd"];
/// Extensions of compressed files that are not supported.
const UNREADABLE: [&str; 5] = ["xz", "bz2", "zip", "lz4", "Z"];
/// Maximum digits of a rotation number; a longer number is a date.
const ROTATION_DIGITS_MAX: usize = 4;

/// Compression of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// One file of the family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FamilyFile {
    pub(super) path: PathBuf,
    pub(super) packing: Packing,
    /// Device and inode.
    pub(super) id: (u64, u64),
    /// Bytes as stored.
    pub(super) length: u64,
    /// Last change of its contents, in nanoseconds since 1970.
    pub(super) modified: i64,
    pub(super) is_current: bool,
}

/// The files of one family, oldest first; the file with the followed name is last.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Family {
    pub(super) members: Vec<FamilyFile>,
    /// Rotated files that are compressed in an unsupported format.
    pub(super) unreadable: Vec<PathBuf>,
}

/// Lists the family of a followed path.
pub(super) fn list(path: &Path) -> io::Result<Family> {
    let mut family = Family::default();
    let mut rotated = Vec::new();
    for entry in std::fs::read_dir(path.parent().unwrap_or(Path::new(".")))?.flatten() {
        let other = entry.path();
        let Some(kind) = rotated_name(path, &other) else { continue };
        let Ok(meta) = entry.metadata() else { continue };
        if !meta.is_file() {
            continue;
        }
        match kind {
            Some(packing) => rotated.push(member(other, packing, &meta, false)),
            None => family.unreadable.push(other),
        }
    }
    // While a file is being compressed, both files exist, and the compressed one is incomplete.
    let plain: Vec<PathBuf> =
        rotated.iter().filter(|member| member.packing == Packing::Plain).map(|member| member.path.clone()).collect();
    rotated.retain(|member| member.packing == Packing::Plain || !plain.contains(&member.path.with_extension("")));
    sort(path, &mut rotated);
    family.unreadable.sort();
    family.members = rotated;
    // `metadata` follows a link; whether links are allowed is checked when the file is opened.
    match std::fs::metadata(path) {
        Ok(meta) => family.members.push(member(path.to_owned(), Packing::Plain, &meta, true)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(family)
}

fn member(path: PathBuf, packing: Packing, meta: &std::fs::Metadata, is_current: bool) -> FamilyFile {
    FamilyFile { path, packing, id: (meta.dev(), meta.ino()), length: meta.len(), modified: modified(meta), is_current }
}

/// Returns the time of the last change of the contents, in nanoseconds since 1970.
pub(super) fn modified(meta: &std::fs::Metadata) -> i64 {
    meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec())
}

/// Sorts rotated files, oldest first: by rotation number if every file has one (`.2` is older than `.1`, even if `.2` was
/// written to later), otherwise by modification time.
fn sort(path: &Path, rotated: &mut [FamilyFile]) {
    if rotated.iter().all(|member| rotation_number(path, &member.path).is_some()) {
        rotated.sort_by_key(|member| Reverse(rotation_number(path, &member.path)));
    } else {
        rotated.sort_by(|a, b| (a.modified, &a.path).cmp(&(b.modified, &b.path)));
    }
}

fn rotation_number(path: &Path, other: &Path) -> Option<u32> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let other = name(other);
    let rest = other.strip_prefix(&name(path))?.strip_prefix('.')?;
    let digits = rest.split_once('.').map_or(rest, |(digits, _)| digits);
    if digits.len() > ROTATION_DIGITS_MAX {
        return None;
    }
    digits.parse().ok()
}

/// Returns the compression of a rotated file of this path: `Some(None)` if the compression is not supported, `None` if the file
/// is not in the family. A rotated name is the followed name with a number after it or before its extension. A name with
/// letters in that place belongs to another log of the same program.
#[expect(clippy::option_option, reason = "three cases: not in the family, in the family but unreadable, readable")]
fn rotated_name(path: &Path, other: &Path) -> Option<Option<Packing>> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let end = |path: &Path| path.extension().unwrap_or_default().to_string_lossy().into_owned();
    let (packing, other) = match end(other).as_str() {
        GZIP => (Some(Packing::Gzip), other.with_extension("")),
        end if ZSTD.contains(&end) => (Some(Packing::Zstd), other.with_extension("")),
        end if UNREADABLE.contains(&end) => (None, other.with_extension("")),
        _ => (Some(Packing::Plain), other.to_owned()),
    };
    let numbered = |prefix: &str| {
        let rest = name(&other).strip_prefix(prefix).map(str::to_owned);
        rest.is_some_and(|rest| {
            let mut characters = rest.chars();
            matches!(characters.next(), Some('.' | '-')) && characters.next().is_some_and(|c| c.is_ascii_digit())
        })
    };
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let is_rotated = numbered(&name(path)) || numbered(&stem) && end(path) == end(&other);
    is_rotated.then_some(packing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rotated_names_are_of_the_family() {
        let kind = |other: &str| rotated_name(Path::new("/l/audit.log"), &Path::new("/l").join(other));
        for (other, packing) in [
            ("audit.log.1", Packing::Plain),
            ("audit.log-20261122", Packing::Plain),
            ("audit-2026-11-22T10-00-00.000.log", Packing::Plain),
            ("audit.log.1.gz", Packing::Gzip),
            ("audit.log-20261122.zst", Packing::Zstd),
            ("audit-2026-11-22.log.gz", Packing::Gzip),
        ] {
            assert_eq!(kind(other), Some(Some(packing)), "{other}");
        }
        assert_eq!(kind("audit.log.2.xz"), Some(None));
        for other in [
            "audit.log",
            "audit-errors.log",
            "audit.log.bak",
            "audits.log",
            "audit-2.txt",
            "other.log.1",
            "audit.log.gz",
        ] {
            assert_eq!(kind(other), None, "{other}");
        }
    }

    #[test]
    fn the_oldest_comes_first() {
        let path = Path::new("/l/a.log");
        let made = |name: &str, modified: i64| FamilyFile {
            path: Path::new("/l").join(name),
            packing: Packing::Plain,
            id: (0, 0),
            length: 0,
            modified,
            is_current: false,
        };
        let order = |mut members: Vec<FamilyFile>| {
            sort(path, &mut members);
            members
                .iter()
                .map(|member| member.path.file_name().unwrap_or_default().to_string_lossy().into_owned())
                .collect::<Vec<_>>()
        };
        // `a.log.10.gz` is the oldest file, although it was modified last.
        assert_eq!(
            order(vec![made("a.log.1", 5), made("a.log.10.gz", 9), made("a.log.2", 7)]),
            ["a.log.10.gz", "a.log.2", "a.log.1"]
        );
        assert_eq!(
            order(vec![made("a.log-20261130", 5), made("a.log-20261129", 4)]),
            ["a.log-20261129", "a.log-20261130"]
        );
    }
}
