//! Opens files that other programs write. The file must be a regular file with a single name and without links on its path,
//! must belong to an owner who is allowed to supply records, and must not be one of the node's own files. All checks use the
//! open descriptor, so that the file cannot be replaced between the checks and the reads.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::Mode;

/// Maximum links that are resolved on the path to one file.
const LINKS_MAX: usize = 8;
/// Maximum number of the node's own files that a file is compared with. The node's directories contain a few dozen files, plus
/// index blocks.
const OWN_FILES_MAX: usize = 100_000;
/// Maximum depth of subdirectories that are searched in the node's own directories.
const OWN_DEPTH_MAX: usize = 4;

/// Conditions that a followed file must meet.
#[derive(Debug, Clone)]
pub(super) struct Safe {
    /// Allowed owners besides root and the daemon's own user.
    pub(super) owners: Vec<u32>,
    /// Directory inside which links are resolved; with `None`, no links are resolved.
    pub(super) links_in: Option<PathBuf>,
    /// Directories of the node: its data, its keys, its configuration.
    pub(super) own: Vec<PathBuf>,
}

impl Safe {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// `NotFound` if there is no file; otherwise the error says what is wrong, and which setting would allow it.
    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        let file = self.open_resolved(path)?;
        let meta = file.metadata()?;
        let shown = path.display();
        if !meta.is_file() {
            return Err(refused(format!("{shown} is not a regular file; name a file that programs append to")));
        }
        if meta.nlink() > 1 {
            return Err(refused(format!(
                "{shown} has {} hard links, so it may not be the file that it seems to be; copy it instead of linking it",
                meta.nlink()
            )));
        }
        let allowed = [0, nix::unistd::geteuid().as_raw()];
        if !allowed.contains(&meta.uid()) && !self.owners.contains(&meta.uid()) {
            return Err(refused(format!(
                "{shown} belongs to uid {0}; to let that user write records to this log, add `owners = [{0}]` to this [[intake]] in node.toml",
                meta.uid()
            )));
        }
        if self.is_own((meta.dev(), meta.ino())) {
            return Err(refused(format!("{shown} is one of this node's own files; name the log of another program")));
        }
        Ok(file)
    }

    fn open_resolved(&self, path: &Path) -> io::Result<File> {
        let mut path = std::path::absolute(path)?;
        for _ in 0..=LINKS_MAX {
            match walk(&path)? {
                Found::File(file) => return Ok(file),
                Found::Link { at, to } => {
                    let Some(inside) = &self.links_in else {
                        return Err(refused(format!(
                            "{} is a symbolic link, and symbolic links are not followed; name the file itself, or set `links_in` of this [[intake]] to the folder that links may point into",
                            at.display()
                        )));
                    };
                    let rest = path.strip_prefix(&at).unwrap_or(Path::new("")).to_owned();
                    let target = normal(&at.parent().unwrap_or(Path::new("/")).join(to));
                    if !at.starts_with(inside) || !target.starts_with(inside) {
                        return Err(refused(format!(
                            "the link {} points to {}, but `links_in` allows only links within {}",
                            at.display(),
                            target.display(),
                            inside.display()
                        )));
                    }
                    path = if rest.as_os_str().is_empty() { target } else { target.join(rest) };
                }
            }
        }
        Err(refused(format!("{} has more than {LINKS_MAX} levels of symbolic links", path.display())))
    }

    fn is_own(&self, file: (u64, u64)) -> bool {
        let mut left = OWN_FILES_MAX;
        self.own.iter().any(|folder| holds(folder, file, OWN_DEPTH_MAX, &mut left))
    }
}

fn holds(folder: &Path, file: (u64, u64), depth: usize, left: &mut usize) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    for entry in entries.flatten() {
        *left = left.saturating_sub(1);
        let Ok(meta) = entry.metadata() else { continue };
        if *left == 0 || (meta.dev(), meta.ino()) == file {
            // If there are too many files to compare with, assume that the file is one of the node's own.
            return true;
        }
        if meta.is_dir() && depth > 0 && holds(&entry.path(), file, depth - 1, left) {
            return true;
        }
    }
    false
}

enum Found {
    File(File),
    Link { at: PathBuf, to: PathBuf },
}

/// Opens the file step by step from the root directory, with one descriptor per name, so that replacing a directory in the
/// meantime has no effect.
fn walk(path: &Path) -> io::Result<Found> {
    let folder = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    // Opening a pipe must not block, and a terminal must not become the controlling terminal.
    let last = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let mut at: OwnedFd = open("/", folder, Mode::empty())?;
    let mut shown = PathBuf::from("/");
    let names: Vec<Component<'_>> =
        path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir)).collect();
    for (number, name) in names.iter().enumerate() {
        let name = name.as_os_str();
        let flags = if number + 1 == names.len() { last } else { folder };
        let parent = at;
        shown.push(name);
        match openat(&parent, name, flags, Mode::empty()) {
            Ok(next) if number + 1 == names.len() => return Ok(Found::File(File::from(next))),
            Ok(next) => at = next,
            Err(error @ (Errno::ELOOP | Errno::ENOTDIR)) => {
                return match readlinkat(&parent, name) {
                    Ok(to) => Ok(Found::Link { at: shown, to: PathBuf::from(to) }),
                    Err(_) => Err(io::Error::other(format!("{}: {error}", shown.display()))),
                };
            }
            Err(Errno::ENOENT) => return Err(io::ErrorKind::NotFound.into()),
            Err(error) => return Err(io::Error::other(format!("{}: {error}", shown.display()))),
        }
    }
    Err(refused(format!("{} is not a file", path.display())))
}

/// Removes `.` and `..`, which may occur in the targets of links.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

fn refused(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn plain(own: Vec<PathBuf>) -> Safe {
        Safe { owners: Vec::new(), links_in: None, own }
    }

    #[test]
    fn only_a_regular_file_of_its_own_with_one_name_is_opened() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let root = dir.path().canonicalize()?;
        let (logs, keys) = (root.join("logs"), root.join("keys"));
        std::fs::create_dir(&logs)?;
        std::fs::create_dir(&keys)?;
        std::fs::write(keys.join("secret.0"), "00")?;
        std::fs::write(logs.join("app.log"), "x\n")?;
        let safe = plain(vec![keys.clone()]);
        assert!(safe.open(&logs.join("app.log")).is_ok());
        assert_eq!(safe.open(&logs.join("none")).err().map(|e| e.kind()), Some(io::ErrorKind::NotFound));
        // Try a link as the last component, a link as a directory on the path, and a dangling link.
        symlink(keys.join("secret.0"), logs.join("link"))?;
        symlink(&keys, logs.join("folder"))?;
        symlink(root.join("nothing"), logs.join("dangling"))?;
        std::fs::hard_link(keys.join("secret.0"), logs.join("hard"))?;
        nix::unistd::mkfifo(&logs.join("pipe"), Mode::S_IRUSR)?;
        for (name, message) in [
            ("link", "is a symbolic link"),
            ("folder/secret.0", "is a symbolic link"),
            ("dangling", "is a symbolic link"),
            ("hard", "hard links"),
            ("pipe", "not a regular file"),
            (".", "not a"),
        ] {
            let error = safe.open(&logs.join(name)).expect_err(name).to_string();
            assert!(error.contains(message), "{name}: {error}");
        }
        std::fs::remove_file(logs.join("hard"))?;
        let error = safe.open(&keys.join("secret.0")).expect_err("the node's own").to_string();
        assert!(error.contains("of this node's own files"), "{error}");
        Ok(())
    }

    #[test]
    fn links_are_followed_inside_of_the_folder_that_is_named() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let root = dir.path().canonicalize()?;
        for folder in ["log/containers", "log/pods", "etc"] {
            std::fs::create_dir_all(root.join(folder))?;
        }
        std::fs::write(root.join("log/pods/a.log"), "x\n")?;
        std::fs::write(root.join("etc/shadow"), "x\n")?;
        symlink("../pods/a.log", root.join("log/containers/relative"))?;
        symlink(root.join("log/pods/a.log"), root.join("log/containers/absolute"))?;
        symlink(root.join("etc/shadow"), root.join("log/containers/out"))?;
        symlink("../../etc/shadow", root.join("log/containers/up"))?;
        symlink("loop", root.join("log/containers/loop"))?;
        let safe = Safe { links_in: Some(root.join("log")), ..plain(Vec::new()) };
        for good in ["relative", "absolute"] {
            assert!(safe.open(&root.join("log/containers").join(good)).is_ok(), "{good}");
        }
        for bad in ["out", "up", "loop"] {
            assert!(safe.open(&root.join("log/containers").join(bad)).is_err(), "{bad}");
        }
        Ok(())
    }

    #[test]
    fn an_owner_who_is_not_listed_is_refused_with_the_setting_to_add() -> io::Result<()> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(());
        }
        let dir = tempfile::tempdir()?;
        let path = dir.path().canonicalize()?.join("app.log");
        std::fs::write(&path, "x\n")?;
        std::os::unix::fs::chown(&path, Some(12_345), None)?;
        let error = plain(Vec::new()).open(&path).expect_err("a stranger's").to_string();
        assert!(error.contains("owners = [12345]"), "{error}");
        assert!(Safe { owners: vec![12_345], ..plain(Vec::new()) }.open(&path).is_ok());
        Ok(())
    }
}
