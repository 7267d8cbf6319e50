//! Writes the output file of an export.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Standard output, or a file that keeps a temporary name until it is known whether the export is complete.
pub(super) enum Target {
    Stdout(std::io::BufWriter<crate::out::Stdout>),
    File { file: std::io::BufWriter<std::fs::File>, temporary: PathBuf, wanted: PathBuf },
}

impl Target {
    pub(super) fn open(asked: Option<&Path>, suggested: PathBuf) -> anyhow::Result<Self> {
        let wanted = match asked {
            Some(path) if path == Path::new("-") => {
                return Ok(Self::Stdout(std::io::BufWriter::new(crate::out::stdout())));
            }
            Some(path) => path.to_owned(),
            None => suggested,
        };
        anyhow::ensure!(
            !wanted.exists(),
            "{} already exists and will not be overwritten; choose another --output",
            wanted.display()
        );
        let mut temporary = wanted.clone().into_os_string();
        temporary.push(".part");
        let temporary = PathBuf::from(temporary);
        // Only the owner may read an export, and an existing symbolic link is not followed.
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&temporary).with_context(|| {
            format!("cannot create {}; remove it if an earlier export left it behind", temporary.display())
        })?;
        Ok(Self::File { file: std::io::BufWriter::new(file), temporary, wanted })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let out: &mut dyn std::io::Write = match self {
            Self::Stdout(out) => out,
            Self::File { file, .. } => file,
        };
        Ok(out.write_all(bytes)?)
    }

    /// Removes the temporary file of an export that was refused.
    pub(super) fn discard(self) {
        if let Self::File { temporary, .. } = self {
            let _ = std::fs::remove_file(temporary);
        }
    }

    /// Renames the file to its final name, which contains PARTIAL if the export is incomplete. Returns the name.
    pub(super) fn finish(self, whole: bool) -> anyhow::Result<String> {
        match self {
            Self::Stdout(mut out) => {
                out.flush()?;
                Ok("standard output".to_owned())
            }
            Self::File { mut file, temporary, wanted } => {
                file.flush()?;
                file.get_ref().sync_all()?;
                let named = wanted.to_string_lossy().contains("PARTIAL");
                let wanted = if whole || named { wanted } else { partial_name(&wanted) };
                std::fs::rename(&temporary, &wanted)?;
                Ok(wanted.display().to_string())
            }
        }
    }
}

/// Returns an unused name with PARTIAL in it, so that a second attempt does not overwrite the file of the first one.
fn partial_name(path: &Path) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or(String::new(), |e| format!(".{}", e.to_string_lossy()));
    let named = |number: String| path.with_file_name(format!("{stem}_PARTIAL{number}{extension}"));
    let first = named(String::new());
    if !first.exists() {
        return first;
    }
    (2u32..).map(|number| named(format!("-{number}"))).find(|name| !name.exists()).unwrap_or(first)
}
