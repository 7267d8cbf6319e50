//! Request bodies: bounded in time and size, with errors in the API's format.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, Request};
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// Maximum time that a body may take to arrive.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum bytes of a JSON request that contains a filter, ids or a range instead of entries.
const JSON_BYTES_MAX: usize = 64 * 1024;

/// A JSON body of at most `BYTES_MAX` bytes.
pub(super) struct JsonBody<T, const BYTES_MAX: usize = JSON_BYTES_MAX>(pub(super) T);

impl<T: DeserializeOwned, S: Sync, const BYTES_MAX: usize> FromRequest<S> for JsonBody<T, BYTES_MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = receive(request.into_body(), BYTES_MAX).await?;
        serde_json::from_slice(&body).map(Self).map_err(|error| {
            let detail = format!("invalid request body: {error}. Nothing was done");
            ApiError::new(400, "bad_body", detail)
        })
    }
}

/// Reads a body within `BODY_TIMEOUT` and `limit` bytes.
pub(super) async fn receive(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if came_late(&error) => Err(late()),
        Ok(Err(error)) => {
            let too_long = std::error::Error::source(&error).is_some_and(|cause| cause.is::<LengthLimitError>());
            let (status, code, problem) = if too_long {
                (413, "too_large", format!("the body is larger than {limit} bytes; split it"))
            } else {
                (400, "bad_body", format!("the body could not be read: {error}"))
            };
            Err(ApiError::new(status, code, format!("{problem}. Nothing was recorded")))
        }
        Err(_) => Err(late()),
    }
}

fn late() -> ApiError {
    let detail =
        format!("the body did not arrive within {} s, or stalled. Nothing was recorded", BODY_TIMEOUT.as_secs());
    ApiError::new(408, "request_timeout", detail)
}

/// Whether the listener aborted the body because of a timeout.
fn came_late(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::TimedOut) {
            return true;
        }
        cause = error.source();
    }
    false
}
