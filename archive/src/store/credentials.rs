//! Credentials of a bucket, from a file that only its owner can read.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use piperoll_net::config_files::{FileError, read_private};

/// Settings for a cloud store, such as `aws_access_key_id`. Never printed.
#[derive(Clone, Default)]
pub struct Credentials(BTreeMap<String, String>);

/// Reason why a file of credentials cannot be used. The content of the file is never part of the message.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path}: expected lines of the form aws_access_key_id = \"…\"")]
    Form { path: String },
}

impl Credentials {
    /// Reads a TOML file of texts. The file must have mode 0600.
    ///
    /// # Errors
    /// Fails if others can read the file, or if it is not a table of texts.
    pub fn read(path: &Path) -> Result<Self, CredentialsError> {
        let bytes = read_private(path)?;
        // The parser's message would quote the line, which may contain a secret.
        let form = || CredentialsError::Form { path: path.display().to_string() };
        let text = std::str::from_utf8(&bytes).map_err(|_| form())?;
        toml::from_str(text).map(Self).map_err(|_| form())
    }

    /// Settings for tests.
    #[cfg(test)]
    pub(super) fn of(settings: &[(&str, &str)]) -> Self {
        Self(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
