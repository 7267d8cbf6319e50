//! Checks in an application's tests that every route that changes something records an entry.

use http::{Method, Request};
use serde_json::Value;
use tower::{Service, ServiceExt as _};

use super::recorded_entries::RecordedEntries;

/// A route that is not recorded as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingFault {
    /// The route recorded no entry.
    #[error("{method} {path} was answered without an entry; wrap the route in RecordLayer")]
    Nothing {
        /// Method of the request.
        method: Method,
        /// Path of the request.
        path: String,
    },
    /// The route recorded more than one entry.
    #[error("{method} {path} recorded {count} entries instead of one")]
    Several {
        /// Method of the request.
        method: Method,
        /// Path of the request.
        path: String,
        /// Number of entries.
        count: usize,
    },
    /// The route's handler did not name the action.
    #[error("{method} {path} recorded {action:?}; its handler should name the action with AuditContext::action")]
    Unnamed {
        /// Method of the request.
        method: Method,
        /// Path of the request.
        path: String,
        /// The action that was recorded.
        action: String,
    },
}

/// Sends a request without a body to every route, and checks the entries that each route records. Call it with the entries of
/// [`Recorder::in_memory`](super::Recorder::in_memory) and every route that changes something.
///
/// # Errors
/// Returns the first route that is not recorded as it should be.
///
/// # Panics
/// When the service itself fails, or a path is not a valid URI.
pub async fn check_routes<S, B>(
    service: S,
    captured: &RecordedEntries,
    routes: impl IntoIterator<Item = (Method, &str)>,
) -> Result<(), RecordingFault>
where
    S: Service<Request<B>> + Clone,
    S::Error: std::fmt::Debug,
    B: Default,
{
    for (method, path) in routes {
        captured.clear();
        let mut request = Request::new(B::default());
        *request.method_mut() = method.clone();
        *request.uri_mut() = path.parse().expect("a path");
        service.clone().oneshot(request).await.expect("an answer");
        let path = path.to_owned();
        let entries: Vec<Value> =
            captured.entries().into_iter().filter(|entry| entry["reason"] != super::layer::INTENT).collect();
        match entries.as_slice() {
            [] => return Err(RecordingFault::Nothing { method, path }),
            [one] => {
                let action = one["action"].as_str().unwrap_or_default();
                let was_refused = one["outcome"] == "denied";
                if action.starts_with("http.") && !was_refused {
                    return Err(RecordingFault::Unnamed { method, path, action: action.to_owned() });
                }
            }
            several => return Err(RecordingFault::Several { method, path, count: several.len() }),
        }
    }
    Ok(())
}
