//! Reads configuration and secret files. A secret is refused unless its mode is 0600.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use piperoll_format::mac::EpochSecret;
use piperoll_format::note::SigningSeed;

/// Error for a configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{path}: {source}; check the path in the configuration and the file's owner")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path} contains a secret, but mode {mode:o} lets others read it; run `chmod 600 {path}`", path = path.display())]
    TooOpen { path: PathBuf, mode: u32 },
}

pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(|source| FileError::Io { path: path.to_owned(), source })
}

/// Prefix of the name of a file that systemd passes to the service (`LoadCredential=`, systemd.exec(5)).
const CREDENTIAL: &str = "credential:";
/// Environment variable that holds the directory of these files.
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// Resolves the path of a configured file: relative to `base`, or, for a credential, in systemd's credentials directory. Without
/// a service manager, the path of a credential is returned unchanged. No file has this path, so reading it fails with an error
/// that names the path.
pub fn at(base: &Path, path: &Path) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_prefix(CREDENTIAL)) {
        Some(name) => match std::env::var_os(CREDENTIALS_VARIABLE) {
            Some(directory) => Path::new(&directory).join(name),
            None => path.to_owned(),
        },
        None => base.join(path),
    }
}

/// Returns whether the path is a systemd credential. Only the service can enter systemd's credentials directory, so the group
/// permissions of the files, which may represent an access control list, are allowed there.
fn is_credential(path: &Path) -> bool {
    std::env::var_os(CREDENTIALS_VARIABLE).is_some_and(|directory| path.parent() == Some(Path::new(&directory)))
}

/// Reads a private file. Refuses one that group or others can read, because its content is no longer secret.
pub fn read_private(path: &Path) -> Result<Vec<u8>, FileError> {
    let meta = std::fs::metadata(path).map_err(|source| FileError::Io { path: path.to_owned(), source })?;
    let mode = meta.permissions().mode() & 0o777;
    if mode & if is_credential(path) { 0o007 } else { 0o077 } != 0 {
        return Err(FileError::TooOpen { path: path.to_owned(), mode });
    }
    read(path)
}

/// Reason why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path}: {problem}")]
    Content { path: PathBuf, problem: String },
}

/// Reads a TOML file; the error names the file and the line.
pub fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let bad = |problem: String| ConfigError::Content { path: path.to_owned(), problem };
    let text = String::from_utf8(read(path)?).map_err(|_| bad("not UTF-8".to_owned()))?;
    toml::from_str(&text).map_err(|e| bad(e.to_string()))
}

/// Reads the secret of one epoch.
pub fn read_secret(path: &Path) -> Result<EpochSecret, ConfigError> {
    let bytes = zeroize::Zeroizing::new(read_private(path)?);
    EpochSecret::from_hex(std::str::from_utf8(&bytes).unwrap_or_default())
        .map_err(|e| ConfigError::Content { path: path.to_owned(), problem: e.to_string() })
}

/// Reads a private key that signs checkpoints or cosignatures.
pub fn read_seed(path: &Path) -> Result<SigningSeed, ConfigError> {
    let bytes = zeroize::Zeroizing::new(read_private(path)?);
    let problem = || ConfigError::Content {
        path: path.to_owned(),
        problem: "a signing key must be 64 hexadecimal digits on one line".to_owned(),
    };
    SigningSeed::from_hex(std::str::from_utf8(&bytes).unwrap_or_default()).ok_or_else(problem)
}

/// Returns the folder of a configuration file, to which the relative paths in that file refer.
pub fn base_of(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.parent().unwrap_or(Path::new("/")).to_owned()
}
