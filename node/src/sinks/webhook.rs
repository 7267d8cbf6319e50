//! Sends batches of lines by POST. A 2xx status confirms the whole batch; after any other status the batch is sent again.

use std::time::Duration;

use piperoll_net::config_files;
use piperoll_protocol::node::NDJSON;
use piperoll_redact::Redactor;
use piperoll_siem::OmittedFields;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};

use super::batch::{Batch, SinkError};
use super::config::WebhookTarget;

const ROWS_MAX: usize = 500;
/// Number of batches that a receiver must accept before larger ones are tried again.
const TAKEN_BEFORE_MORE: u32 = 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum number of characters of an error response that are shown.
const WORDS_CHARACTERS_MAX: usize = 200;
const ANSWER_BYTES_MAX: usize = 4 * 1024;

pub(super) struct WebhookSink {
    target: WebhookTarget,
    client: Option<reqwest::Client>,
    /// Maximum rows per batch: reduced when the receiver reports that a batch is too large, and increased again after the
    /// receiver has accepted [`TAKEN_BEFORE_MORE`] batches.
    rows_max: usize,
    taken: u32,
    /// The part of a row that is left out after the receiver has reported that a single row is too large.
    omit: OmittedFields,
}

impl WebhookSink {
    pub(super) fn new(target: WebhookTarget) -> Self {
        Self { target, client: None, rows_max: ROWS_MAX, taken: 0, omit: OmittedFields::Nothing }
    }

    pub(super) fn rows_max(&self) -> usize {
        self.rows_max
    }

    pub(super) fn omit(&self) -> OmittedFields {
        self.omit
    }

    pub(super) async fn send(&mut self, batch: Batch) -> Result<(), SinkError> {
        let client = self.client()?;
        let mut request = client
            .post(self.target.url.clone())
            .header(CONTENT_TYPE, NDJSON)
            .header("piperoll-rows", format!("{}-{}", batch.range.0, batch.range.1))
            // If the same batch is sent again, it has the same key. A receiver that must not store a row twice has to compare
            // ids instead.
            .header("idempotency-key", format!("{}-{}-{}", batch.generation, batch.range.0, batch.range.1))
            .body(batch.bytes);
        let mut secrets: Vec<String> = self.target.url.query().map(str::to_owned).into_iter().collect();
        if let Some(path) = &self.target.token {
            let token = config_files::read_private(path).map_err(|e| SinkError(e.to_string()))?;
            let token = String::from_utf8_lossy(&token);
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(|_| {
                SinkError::new(path.display(), "not a valid token; expected one line of printable characters")
            })?;
            value.set_sensitive(true);
            secrets.push(token.trim().to_owned());
            request = request.header(AUTHORIZATION, value);
        }
        let answer = request.send().await.map_err(|e| self.problem(in_words(e)))?;
        match answer.status() {
            status if status.is_success() => {
                (self.taken, self.omit) = (self.taken + 1, OmittedFields::Nothing);
                if self.taken >= TAKEN_BEFORE_MORE {
                    (self.taken, self.rows_max) = (0, (self.rows_max * 2).min(ROWS_MAX));
                }
                Ok(())
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                self.taken = 0;
                if batch.rows > 1 {
                    self.rows_max = (self.rows_max / 2).max(1);
                } else {
                    self.omit =
                        if self.omit == OmittedFields::Nothing { OmittedFields::Bulk } else { OmittedFields::Most };
                }
                Err(self.problem("the receiver rejected the request as too large; sending it again in smaller pieces"))
            }
            status => {
                let message = response_excerpt(answer, &secrets).await;
                Err(self.problem(format!("the receiver answered {status} {message}")))
            }
        }
    }

    fn client(&mut self) -> Result<reqwest::Client, SinkError> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .user_agent(concat!("piperoll/", env!("CARGO_PKG_VERSION")));
        if let Some(ca) = &self.target.ca {
            let pem = config_files::read(ca).map_err(|e| SinkError(e.to_string()))?;
            let certificates =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| SinkError::new(ca.display(), e))?;
            builder = builder.tls_certs_only(certificates);
        }
        let client = builder.build().map_err(|e| self.problem(e))?;
        self.client = Some(client.clone());
        Ok(client)
    }

    fn problem(&self, problem: impl std::fmt::Display) -> SinkError {
        let host = self.target.url.host_str().unwrap_or_default();
        let port = self.target.url.port_or_known_default().unwrap_or_default();
        SinkError::new(format!("{host}:{port}"), problem)
    }
}

/// Formats an error with its causes: reqwest's own message says where an error happened, and its sources say which error it
/// was. The URL is left out because it may contain a secret.
fn in_words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut message = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    message
}

/// Returns the beginning of an error response without secrets, because some receivers echo the request.
async fn response_excerpt(mut answer: reqwest::Response, secrets: &[String]) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() >= ANSWER_BYTES_MAX {
            break;
        }
    }
    let mut message = String::from_utf8_lossy(&bytes[..bytes.len().min(ANSWER_BYTES_MAX)]).into_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        message = message.replace(secret.as_str(), "***");
    }
    let message = Redactor::shared().text(&message).to_string();
    message.chars().filter(|c| !c.is_control()).take(WORDS_CHARACTERS_MAX).collect()
}
