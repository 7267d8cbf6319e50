//! Maps errors to HTTP statuses. No other module does this.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use piperoll_net::token_file::TokenFileError;
use piperoll_protocol::problem::Problem;

use crate::access::saved_searches::SearchError;
use crate::access::tokens::TokenError;
use crate::scan::query::QueryError;
use crate::witness::accept::AcceptError;

/// An error response.
#[derive(Debug)]
pub(super) struct ApiError(Problem);

/// Error code of a response, for the audit entry of the request.
#[derive(Debug, Clone)]
pub(super) struct RefusalReason(pub(super) String);

impl ApiError {
    pub(super) fn new(status: u16, code: &str, detail: impl Into<String>) -> Self {
        Self(Problem::new(status, code, detail))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&self.0).unwrap_or_default();
        let mut response = (status, [(CONTENT_TYPE, Problem::MEDIA_TYPE)], body).into_response();
        response.extensions_mut().insert(RefusalReason(self.0.code));
        response
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        Self::new(400, error.code(), error.to_string())
    }
}

impl From<AcceptError> for ApiError {
    fn from(error: AcceptError) -> Self {
        let (status, code) = match &error {
            AcceptError::NothingToAccept => (409, "nothing_to_accept"),
            AcceptError::OtherGeneration { .. } => (409, "other_generation"),
            AcceptError::OtherLog { .. } => (409, "other_log"),
            AcceptError::NothingPresented => (409, "nothing_presented"),
            AcceptError::Store(_) => (500, "witness_file"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<SearchError> for ApiError {
    fn from(error: SearchError) -> Self {
        let (status, code) = match &error {
            SearchError::NotFound(_) => (404, "no_such_search"),
            SearchError::Name | SearchError::TooLong => (400, "bad_request"),
            SearchError::Full | SearchError::TooManyPeople => (409, "too_many_searches"),
            SearchError::Io { .. } | SearchError::Failed(_) => {
                tracing::error!(%error, "cannot read or write the saved searches");
                let detail = "cannot read or write the saved searches; see the daemon's log";
                return Self::new(500, "search_file", detail);
            }
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        let (status, code) = match &error {
            TokenError::File(TokenFileError::Exists(_)) => (409, "token_exists"),
            TokenError::File(TokenFileError::NotFound(_)) => (404, "no_such_token"),
            TokenError::File(TokenFileError::Name(_)) | TokenError::Scope(_) | TokenError::Expired(_) => {
                (400, "bad_token_request")
            }
            TokenError::File(TokenFileError::Full(_)) => (429, "too_many_tokens"),
            TokenError::File(TokenFileError::Io { .. } | TokenFileError::Content { .. }) => {
                tracing::error!(%error, "cannot read or write the token file");
                return Self::new(500, "token_file", "cannot read or write the token file; see the aggregator's log");
            }
        };
        Self::new(status, code, error.to_string())
    }
}
