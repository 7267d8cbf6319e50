//! The HTTP interface for people and programs.

mod archive;
mod audited;
mod auth;
mod declared;
mod error;
mod exports;
mod findings;
mod headers;
mod health;
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

pub use declared::api_routes;
pub use openapi::openapi_json;
pub(crate) use routes::routes;
