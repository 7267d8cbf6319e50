//! Atomically replaces small files that several processes read and change, so that a crash leaves either the old or the new file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Replaces a file, or creates it, with mode 0600. The file and its directory entry are synced when this returns. Writers of one
/// file must not run concurrently: either each of them holds the file's [`lock`], or there is only one writer.
///
/// # Errors
/// Fails if the file cannot be written; its old content then remains.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = beside(path, "new");
    // A file left over from a crash may have any mode, and it might be a link planted by an attacker.
    let _ = std::fs::remove_file(&beside);
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    give_to_owner_of_folder(path, &file)?;
    std::fs::rename(&beside, path)?;
    // Without this sync, a power failure could undo the rename, and with it a revocation that was already confirmed to the caller.
    File::open(folder_of(path))?.sync_all()
}

/// Takes the exclusive lock of the file, waiting while another process holds it. Dropping the returned file releases the lock.
///
/// # Errors
/// Fails if the lock file cannot be created or is a link.
pub fn lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
    let file = options.open(beside(path, "lock"))?;
    give_to_owner_of_folder(path, &file)?;
    file.lock()?;
    Ok(file)
}

/// Gives the file to the owner of its folder, so that a command run by root does not leave files that the daemon, which runs as
/// another user, cannot read. Only root may change the owner of a file, and only root needs to, so a failure is ignored.
fn give_to_owner_of_folder(path: &Path, file: &File) -> io::Result<()> {
    let meta = file.metadata()?;
    if !meta.is_file() || meta.nlink() != 1 {
        // A file with a second hard link may belong to another user.
        return Err(io::Error::other(format!(
            "a file next to {} (.lock or .new) is not a regular file with a single link; remove it",
            path.display()
        )));
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
