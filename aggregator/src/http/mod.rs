//! The HTTP interface for people and programs.

mod audited;
mod auth;
mod error;
mod exports;
mod findings;
mod headers;
mod identify;
mod log;
mod nodes;
mod openapi;
mod origin;
mod routes;
mod searches;
mod session;
mod stats;
mod tail;
mod tokens;

pub use openapi::openapi_json;
pub use routes::api_routes;
pub(crate) use routes::routes;
