//! Small files that several processes read and change: replaced atomically, so that a crash leaves the old or the new one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Replaces a file, or makes it, with mode 0600; synced with its name when this returns. Writers of one file must not meet: they
/// hold its [`lock`], or there is one of them.
///
/// # Errors
/// When it cannot be written; then it is as it was.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = beside(path, "new");
    // A left-over of a crash has whatever mode it has, and might be a link that somebody planted.
    let _ = std::fs::remove_file(&beside);
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    give_to_owner_of_folder(path, &file)?;
    std::fs::rename(&beside, path)?;
    // Without this the new name may be gone with the power, and with it a revocation that somebody was told of.
    File::open(folder_of(path))?.sync_all()
}

/// Waits until no other process changes the file, and keeps them waiting until what is returned is dropped.
///
/// # Errors
/// When the lock's file cannot be made, or is a link.
pub fn lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
    let file = options.open(beside(path, "lock"))?;
    give_to_owner_of_folder(path, &file)?;
    file.lock()?;
    Ok(file)
}

/// A command that root runs must leave nothing that the daemon, another user, cannot read. Nobody else may give files away, and
/// nobody else has to.
fn give_to_owner_of_folder(path: &Path, file: &File) -> io::Result<()> {
    let meta = file.metadata()?;
    if !meta.is_file() || meta.nlink() != 1 {
        // What has another name is somebody else's.
        return Err(io::Error::other(format!("something else stands beside {}; remove it", path.display())));
    }
    if let Ok(owner) = std::fs::metadata(folder_of(path)) {
        let _ = std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()));
    }
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{suffix}"));
    path.with_file_name(name)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_what_a_crash_left_is_no_hindrance() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("state.json");
        replace(&path, b"first").expect("made");
        std::fs::write(dir.path().join("state.json.new"), b"half of something long").expect("a left-over");
        replace(&path, b"next").expect("replaced");
        assert_eq!(std::fs::read(&path).expect("the file"), b"next");
        assert_eq!(std::fs::metadata(&path).expect("the file").mode() & 0o777, 0o600);
        std::fs::remove_file(dir.path().join("state.json.lock")).expect_err("no lock yet");
        std::os::unix::fs::symlink(&path, dir.path().join("state.json.lock")).expect("a link");
        lock(&path).expect_err("a link is not followed");
        std::fs::remove_file(dir.path().join("state.json.lock")).expect("removed");
        let _held = lock(&path).expect("a lock");
        let again = File::open(dir.path().join("state.json.lock")).expect("the lock");
        assert!(again.try_lock().is_err(), "others wait");
    }
}
