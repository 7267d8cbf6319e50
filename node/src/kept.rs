//! Reads the log of a node that no longer runs, such as one that left its cluster, and writes nothing to its directory.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use piperoll_net::clock::Clock;
use piperoll_net::identity::Identity;
use piperoll_net::serve::{TlsPeer, serve_stream};
use tokio::io::DuplexStream;
use tokio_util::sync::CancellationToken;

use crate::config::NodeConfig;
use crate::http::{self, App};
use crate::sinks::Forwarding;
use crate::start_error::StartError;
use crate::store::{LogDir, Store};

/// A log that is served inside this process, to one aggregator.
#[derive(Clone)]
pub struct KeptLog {
    routes: Router,
}

impl KeptLog {
    /// Opens the log of a node's folder for reading. Fails if there is none, or if it is the log of another node.
    pub async fn open(config: &NodeConfig, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let (dir, keys) = (LogDir::new(&config.data_dir), config.keys.clone());
        let store_clock = Arc::clone(&clock);
        let store = tokio::task::spawn_blocking(move || Store::open_to_read(dir, keys, store_clock))
            .await
            .map_err(|e| StartError::Listen { place: "the log".to_owned(), source: std::io::Error::other(e) })??;
        let forwarding = Forwarding::open(store.clone(), Arc::clone(&clock), &[]).await?;
        let app = Arc::new(App::new(store, clock, None, config, forwarding));
        Ok(Self { routes: http::peer_routes(&app) })
    }

    /// Serves one connection to `reader`, an aggregator of the same cluster, until either end is dropped.
    pub async fn serve(self, stream: DuplexStream, reader: Identity) {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let peer = TlsPeer { address: nowhere, identity: Some(reader) };
        serve_stream(stream, peer, self.routes, CancellationToken::new()).await;
    }
}
