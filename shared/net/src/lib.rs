//! Machine and network services that both daemons need: TLS and identities, servers and their limits, clocks, and files.

pub mod atomic_file;
pub mod checked_json;
pub mod clock;
pub mod config_files;
mod connection_limits;
pub mod crypto;
pub mod fair_share;
pub mod identity;
pub mod metrics;
pub mod outbound_tls;
pub mod serve;
pub mod telemetry;
pub mod tls;
pub mod token_file;
