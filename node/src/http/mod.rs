//! The node's two HTTP interfaces.

mod admin;
mod app;
mod append;
mod body;
mod error;
mod health;
mod loopback;
mod peer;
mod quota;
mod room;
mod sender;
mod socket;
mod stream;

pub(crate) use app::{App, metrics_routes};
pub(crate) use loopback::http_routes;
pub(crate) use peer::peer_routes;
pub(crate) use socket::socket_routes;
