//! Writes files and folders of the cluster directory.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::error::{CertsError, Result, io};

pub(crate) fn make_private_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| io(path, source))
}

/// Creates a person's folder, accessible only to its owner.
pub(crate) fn make_new_private_dir(path: &Path) -> Result<()> {
    make_new_dir(path, 0o700)
}

/// Creates a machine's folder. Other users may traverse it, because applications reach the node's socket inside, but they may not
/// list it. Every private file in it is accessible only to its owner.
pub(crate) fn make_new_machine_dir(path: &Path) -> Result<()> {
    make_new_dir(path, 0o711)
}

fn make_new_dir(path: &Path, mode: u32) -> Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(CertsError::Exists(path.to_owned())),
        Err(source) => Err(io(path, source)),
    }
}

pub(crate) fn write_new_private(path: &Path, bytes: &[u8]) -> Result<()> {
    if path.exists() {
        return Err(CertsError::Exists(path.to_owned()));
    }
    replace(path, bytes, 0o600)
}

pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes, 0o600)
}

pub(crate) fn write_public(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, bytes, 0o644)
}

/// Replaces a file as a whole: another process sees either the old or the new content, even after a crash.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let temporary = path.with_extension("new");
    let written = (|| {
        let mut file: File = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    written.map_err(|source| io(path, source))
}

/// Changes a configuration file and keeps the rest of it unchanged, comments included.
pub(crate) fn edit_toml(path: &Path, change: impl FnOnce(&mut toml_edit::DocumentMut)) -> Result<()> {
    let text = fs::read_to_string(path).map_err(|source| io(path, source))?;
    let mut document: toml_edit::DocumentMut = text
        .parse()
        .map_err(|e: toml_edit::TomlError| CertsError::Content { path: path.to_owned(), problem: e.to_string() })?;
    change(&mut document);
    write_public(path, document.to_string().as_bytes())
}
