//! Errors of a store.

use std::path::PathBuf;

/// Reasons why an operation on a store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot open the archive at {address}: {reason}")]
    Open { address: String, reason: String },
    #[error("cannot create the directory {}: {error}", path.display())]
    Directory { path: PathBuf, error: std::io::Error },
    #[error(
        "the setting {0:?} in the file of credentials is unknown, or does not belong to this kind of store; use names such as \
         aws_access_key_id, aws_secret_access_key, aws_endpoint, aws_region for s3, azure_storage_account_name, \
         azure_storage_account_key for az, and google_service_account for gs"
    )]
    Setting(String),
    #[error("{name} is missing from {store}")]
    Missing { name: String, store: String },
    #[error("access to {name} in {store} was denied: {reason}")]
    Denied { name: String, store: String, reason: String },
    #[error("{name} in {store} has {bytes} bytes; at most {bytes_max} are allowed")]
    TooLarge { name: String, store: String, bytes: u64, bytes_max: u64 },
    #[error(
        "{name} in {store} has more than {versions_max} versions, so none was deleted; find out what writes them, delete them with the \
         store's own tools, and try again"
    )]
    TooManyVersions { name: String, store: String, versions_max: usize },
    #[error(
        "{store} accepted the deletion of {name}, but still lists {versions} of its versions; something creates them again, or the \
         store is not consistent; try again later"
    )]
    VersionsRemain { name: String, store: String, versions: usize },
    #[error("cannot {what} {name} in {store}: {reason}")]
    Failed { what: &'static str, name: String, store: String, reason: String },
}

impl StoreError {
    pub(super) fn open(address: &str, error: &dyn std::error::Error) -> Self {
        Self::Open { address: address.to_owned(), reason: chain(error) }
    }

    /// Whether the object does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}

/// Joins an error and its causes into one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    shorten(&text)
}

/// Maximum length of a reason.
const REASON_CHARS_MAX: usize = 300;

/// Shortens a reason. Of a service's XML answer, only code and message are kept: the rest may repeat parts of the request.
fn shorten(text: &str) -> String {
    let begin = ["<?xml", "<Error"].iter().filter_map(|tag| text.find(tag)).min();
    let (text, xml) = text.split_at(begin.unwrap_or(text.len()));
    let element = |name: &str| {
        let (_, rest) = xml.split_once(&format!("<{name}>"))?;
        rest.split_once("</").map(|(value, _)| value)
    };
    let parts = [Some(text.trim_end_matches([' ', ':'])), element("Code"), element("Message")];
    let joined = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
    joined.replace('\n', " ").chars().take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::shorten;

    #[test]
    fn a_reason_does_not_repeat_the_request() {
        let answer = "Client error with status 403 Forbidden: <?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code>\
            <Message>The signature does not match</Message><CanonicalRequest>x-amz-security-token:secret</CanonicalRequest></Error>";
        let reason = "Client error with status 403 Forbidden: SignatureDoesNotMatch: The signature does not match";
        assert_eq!(shorten(answer), reason);
        assert_eq!(shorten(&"x".repeat(9_000)).len(), 300);
        assert_eq!(shorten("connection\nrefused"), "connection refused");
    }
}
