//! Address of an archive: a directory, or a bucket or container of an object store.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Location of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `file:///srv/archive`: a directory on this machine.
    Directory(PathBuf),
    /// `s3://bucket/prefix`: a bucket of Amazon S3 or of a service with the same interface.
    S3 { bucket: String, prefix: String },
    /// `az://container/prefix`: a container of Azure Blob Storage. The settings name the storage account.
    Azure { container: String, prefix: String },
    /// `gs://bucket/prefix`: a bucket of Google Cloud Storage.
    Gcs { bucket: String, prefix: String },
}

/// Reason why a text is not the address of an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error(
        "{0:?} is not the address of an archive: expected file:///DIRECTORY, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or \
         az://CONTAINER/PREFIX"
    )]
    Form(String),
    #[error(
        "{0:?} names a host or a storage account: expected az://CONTAINER/PREFIX, with the account in AZURE_STORAGE_ACCOUNT_NAME or in \
         the file that `credentials` names"
    )]
    Account(String),
    #[error(
        "the address of an archive must not contain credentials; use the environment or the file that `credentials` names"
    )]
    Credentials,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        // A query may contain a secret, so it is not repeated.
        let shown = || text.split(['?', '#']).next().unwrap_or_default().to_owned();
        let form = || AddressError::Form(shown());
        let (scheme, rest) = text.split_once("://").ok_or_else(form)?;
        if rest.contains('@') {
            return Err(AddressError::Credentials);
        }
        if rest.contains(['?', '#', '%']) || rest.split('/').any(|part| matches!(part, "." | "..")) {
            return Err(form());
        }
        if scheme == "file" {
            let is_absolute = rest.starts_with('/') && rest.len() > 1;
            return is_absolute.then(|| Self::Directory(PathBuf::from(rest))).ok_or_else(form);
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        if bucket.is_empty() || prefix.split('/').any(str::is_empty) && !prefix.is_empty() {
            return Err(form());
        }
        let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
        match scheme {
            "s3" => Ok(Self::S3 { bucket, prefix }),
            "gs" => Ok(Self::Gcs { bucket, prefix }),
            // The name of a container has no dots; with dots it is the host of an account, as some engines write it.
            "az" if bucket.contains('.') => Err(AddressError::Account(shown())),
            "az" => Ok(Self::Azure { container: bucket, prefix }),
            _ => Err(form()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, bucket, prefix) = match self {
            Self::Directory(path) => return write!(f, "file://{}", path.display()),
            Self::S3 { bucket, prefix } => ("s3", bucket, prefix),
            Self::Azure { container, prefix } => ("az", container, prefix),
            Self::Gcs { bucket, prefix } => ("gs", bucket, prefix),
        };
        write!(f, "{scheme}://{bucket}")?;
        if prefix.is_empty() { Ok(()) } else { write!(f, "/{prefix}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_in_one_form_only() {
        for (text, shown) in [
            ("file:///srv/archive", "file:///srv/archive"),
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
            ("gs://bucket.example.com/a", "gs://bucket.example.com/a"),
            ("az://container/a/b/", "az://container/a/b"),
        ] {
            assert_eq!(text.parse::<Address>().map(|address| address.to_string()), Ok(shown.to_owned()));
        }
        for bad in [
            "",
            "/srv/archive",
            "file://srv",
            "file:///",
            "file:///srv/../etc",
            "s3://",
            "s3:///prefix",
            "s3://b//c",
            "az://",
            "gs:///x",
            "ftp://x/y",
            "s3://bucket/a?b",
            "s3://bucket/%2e%2e/x",
        ] {
            assert!(matches!(bad.parse::<Address>(), Err(AddressError::Form(_))), "{bad:?}");
        }
        let error = "az://account.blob.core.windows.net/c/x".parse::<Address>().expect_err("an account");
        assert!(matches!(error, AddressError::Account(_)), "{error}");
        for secret in
            ["s3://AKIA123:secret@bucket/x", "az://c/x?sig=secret", "abfss://secret@account.dfs.core.windows.net/x"]
        {
            let error = secret.parse::<Address>().expect_err("credentials");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
