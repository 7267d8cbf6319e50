//! Sends signed requests with the credentials of an opened store, and reads the answers within limits.

use std::fmt::{self, Write as _};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::azure::{AzureAuthorizer, AzureCredentialProvider};
use object_store::client::{HttpClient, HttpErrorKind, HttpRequest, HttpRequestBody};
use object_store::gcp::GcpCredentialProvider;
use reqwest::redirect::Policy;
use serde::de::DeserializeOwned;

use super::super::error::{StoreError, chain};

/// Time limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of repetitions of a request that failed for a transient reason, and the delay before the first one. The delay
/// doubles each time.
const RETRIES_MAX: u32 = 4;
const RETRY_DELAY: Duration = Duration::from_millis(200);
/// Maximum size of an answer in bytes. A page of 1,000 versions has about 2 MB.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Maximum length of a message that a store sends, in characters.
const MESSAGE_CHARS_MAX: usize = 200;

/// How requests are signed.
pub(in crate::store) enum Signer {
    /// AWS Signature Version 4. `payer` accepts the costs of a bucket whose requesters pay.
    Aws { credentials: AwsCredentialProvider, region: String, payer: bool },
    /// Azure Storage: shared key, shared access signature, or a token of Microsoft Entra.
    Azure { credentials: AzureCredentialProvider, account: String },
    /// Google Cloud: a bearer token.
    Google { credentials: GcpCredentialProvider },
    /// The settings say that requests are not signed.
    Unsigned,
}

/// Client of one store.
pub(in crate::store) struct Client {
    http: HttpClient,
    signer: Signer,
    /// Address for messages; has no credentials.
    shown: String,
}

/// Answer to a request.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A request that got no answer. The address is not part of the reason, because it may contain a signature.
struct Lost {
    is_transient: bool,
    reason: String,
}

impl Client {
    /// Makes a client. `plain` allows requests without TLS.
    pub(in crate::store) fn new(signer: Signer, plain: bool, shown: &str) -> Result<Self, StoreError> {
        let built = reqwest::Client::builder()
            // A redirect would send the signature to another host.
            .redirect(Policy::none())
            .https_only(!plain)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .user_agent(concat!("piperoll/", env!("CARGO_PKG_VERSION")))
            .build();
        let http = HttpClient::new(built.map_err(|error| StoreError::open(shown, &error))?);
        Ok(Self { http, signer, shown: shown.to_owned() })
    }

    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Sends a request without a body. Transient failures are repeated; all requests of this module are idempotent.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&'static str, &'static str)],
    ) -> Result<Answer, String> {
        let mut delay = RETRY_DELAY;
        let mut retries = 0;
        loop {
            let result = self.send_once(&method, url, headers).await;
            let is_transient = match &result {
                Ok(answer) => is_transient(answer.status),
                Err(lost) => lost.is_transient,
            };
            if !is_transient || retries >= RETRIES_MAX {
                return result.map_err(|lost| lost.reason);
            }
            tokio::time::sleep(delay).await;
            delay *= 2;
            retries += 1;
        }
    }

    async fn send_once(
        &self,
        method: &Method,
        url: &str,
        headers: &[(&'static str, &'static str)],
    ) -> Result<Answer, Lost> {
        let permanent = |reason: String| Lost { is_transient: false, reason };
        let request = http::Request::builder().method(method.clone()).uri(url).body(HttpRequestBody::empty());
        let mut request = request.map_err(|_| permanent("the settings result in an invalid address".to_owned()))?;
        for (name, value) in headers {
            request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        self.sign(&mut request)
            .await
            .map_err(|error| permanent(format!("cannot sign the request: {}", chain(&error))))?;
        let lost = |error: object_store::client::HttpError| {
            let permanent = matches!(error.kind(), HttpErrorKind::Decode | HttpErrorKind::Unknown);
            Lost { is_transient: !permanent, reason: chain(&error) }
        };
        let (parts, body) = self.http.execute(request).await.map_err(lost)?.into_parts();
        let mut stream = body.bytes_stream();
        let mut all = Vec::new();
        while let Some(chunk) = stream.try_next().await.map_err(lost)? {
            if all.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(permanent(format!("the answer is larger than {ANSWER_BYTES_MAX} bytes")));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(Answer { status: parts.status, headers: parts.headers, body: all.into() })
    }

    async fn sign(&self, request: &mut HttpRequest) -> Result<(), object_store::Error> {
        match &self.signer {
            Signer::Aws { credentials, region, payer } => {
                let credential = credentials.get_credential().await?;
                let authorizer = AwsAuthorizer::new(&credential, "s3", region).with_request_payer(*payer);
                authorizer.try_authorize(request, None)
            }
            Signer::Azure { credentials, account } => {
                let credential = credentials.get_credential().await?;
                AzureAuthorizer::new(&credential, account).try_authorize(request)
            }
            Signer::Google { credentials } => {
                let credential = credentials.get_credential().await?;
                let mut value = HeaderValue::from_str(&format!("Bearer {}", credential.bearer)).map_err(|_| {
                    object_store::Error::Generic {
                        store: "GCS",
                        source: "the bearer token is not a header value".into(),
                    }
                })?;
                value.set_sensitive(true);
                request.headers_mut().insert(http::header::AUTHORIZATION, value);
                Ok(())
            }
            Signer::Unsigned => Ok(()),
        }
    }

    pub(super) fn failed(&self, what: &'static str, name: &str, reason: String) -> StoreError {
        StoreError::Failed { what, name: name.to_owned(), store: self.shown.clone(), reason }
    }

    /// Error for an answer that is neither success nor a lock. `rights` names the rights that the credentials need.
    pub(super) fn refused(&self, what: &'static str, name: &str, answer: &Answer, rights: &str) -> StoreError {
        let reason = answer.reason();
        if !matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return self.failed(what, name, reason);
        }
        let reason = format!("cannot {what} it: {reason}; the credentials need {rights}");
        StoreError::Denied { name: name.to_owned(), store: self.shown.clone(), reason }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("shown", &self.shown).finish_non_exhaustive()
    }
}

fn is_transient(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

impl Answer {
    /// The body as text, without the byte order mark that Azure sends.
    pub(super) fn text(&self) -> Result<&str, String> {
        let text = std::str::from_utf8(&self.body).map_err(|_| "the answer is not UTF-8".to_owned())?;
        Ok(text.trim_start_matches('\u{feff}'))
    }

    /// The value that a successful XML answer stands for. Missing if the answer is something else.
    pub(super) fn parsed<T: DeserializeOwned>(&self) -> Option<T> {
        let text = self.status.is_success().then(|| self.text().ok()).flatten()?;
        quick_xml::de::from_str(text).ok()
    }

    /// Error code: a header on Azure, an element of the XML on S3 and Azure, `reason` in Google's JSON.
    pub(super) fn code(&self) -> Option<String> {
        let header = self.headers.get("x-ms-error-code").and_then(|value| value.to_str().ok());
        header.or_else(|| self.element("Code")).map(str::to_owned).or_else(|| self.google().map(|(code, _)| code))
    }

    /// Status, code and message in one line.
    pub(super) fn reason(&self) -> String {
        let message = self.element("Message").map(str::to_owned).or_else(|| self.google().map(|(_, message)| message));
        // Azure adds an identifier and the time in further lines.
        let message = message.and_then(|message| message.lines().next().map(str::to_owned));
        let parts = [Some(self.status.as_u16().to_string()), self.code(), message];
        let joined = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
        joined.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MESSAGE_CHARS_MAX).collect()
    }

    fn element(&self, name: &str) -> Option<&str> {
        let text = self.text().ok().filter(|text| text.starts_with('<'))?;
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once("</").map(|(value, _)| value)
    }

    /// Code and message of the JSON API of Google Cloud Storage.
    fn google(&self) -> Option<(String, String)> {
        let json = serde_json::from_slice::<serde_json::Value>(&self.body).ok()?;
        let error = json.get("error")?;
        let text = |value: Option<&serde_json::Value>| Some(value?.as_str()?.to_owned());
        let code = text(error.pointer("/errors/0/reason")).unwrap_or_default();
        Some((code, text(error.get("message")).unwrap_or_default()))
    }
}

/// Encodes text for a path or a query: all but the unreserved characters of RFC 3986, and but `/` in a path.
pub(super) fn encoded(text: &str, is_path: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            b'/' if is_path => out.push('/'),
            // Writing to a text cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).expect("a status");
        Answer { status, headers: HeaderMap::new(), body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    #[test]
    fn a_reason_has_code_and_message_only() {
        let xml = "\u{feff}<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>No match\nRequestId:1</Message>\
            <CanonicalRequest>secret</CanonicalRequest></Error>";
        assert_eq!(answer(403, xml).reason(), "403 SignatureDoesNotMatch No match");
        let json = r#"{"error":{"code":403,"message":"held","errors":[{"reason":"objectUnderActiveHold"}]}}"#;
        assert_eq!(answer(403, json).reason(), "403 objectUnderActiveHold held");
        assert_eq!(answer(502, "<html>secret</html>").reason(), "502");
        assert_eq!(answer(400, "").reason(), "400");
    }

    #[test]
    fn names_are_encoded_for_paths_and_queries() {
        assert_eq!(encoded("data/day=1/a b+ü.parquet", true), "data/day%3D1/a%20b%2B%C3%BC.parquet");
        assert_eq!(encoded("a/b", false), "a%2Fb");
    }
}
