//! Runs a node from its configuration until shutdown.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use piperoll_net::clock::Clock;
use piperoll_net::serve::{serve_plain, serve_tls, serve_unix};
use piperoll_net::tls::{ClientAuth, TlsStore};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{NodeConfig, SocketConfig};
use crate::http::{self, App};
use crate::sinks::Forwarding;
use crate::sources::Intake;
use crate::start_error::StartError;
use crate::store::{LogDir, Store};

const SIGN_INTERVAL: Duration = Duration::from_secs(1);
/// Time limit for the listeners to stop; longer than the time that they allow for their own connections.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// A node with its listeners bound; nothing is served yet.
pub struct Node {
    store: Store,
    app: Arc<App>,
    tls: Arc<TlsStore>,
    peer: TcpListener,
    socket: UnixListener,
    metrics: Option<TcpListener>,
    http: Option<TcpListener>,
    intake: Intake,
    config: NodeConfig,
}

impl Node {
    /// Opens the log and binds every listener, so that a wrong address fails at startup.
    pub async fn bind(config: NodeConfig, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let tls = TlsStore::load(config.peer.files.clone())?;
        let identity = tls.current().identity.clone();
        if identity != config.identity() {
            return Err(StartError::Identity { found: identity.to_string(), expected: config.identity().to_string() });
        }
        let listen = |place: String| move |source| StartError::Listen { place, source };
        let peer = TcpListener::bind(&config.peer.listen).await.map_err(listen(config.peer.listen.clone()))?;
        let metrics = match &config.metrics_listen {
            Some(place) => Some(TcpListener::bind(place).await.map_err(listen(place.clone()))?),
            None => None,
        };
        let http = match config.http.listen {
            Some(place) => Some(TcpListener::bind(place).await.map_err(listen(place.to_string()))?),
            None => None,
        };
        let dir = LogDir::new(&config.data_dir);
        let (keys, store_clock, rules) = (config.keys.clone(), Arc::clone(&clock), config.flags.clone());
        let store = tokio::task::spawn_blocking(move || Store::open(dir, keys, store_clock, rules))
            .await
            .map_err(|e| StartError::Listen { place: "the log".to_owned(), source: std::io::Error::other(e) })??;
        // The log's lock is held from here on, so no running node owns an old socket file.
        let socket = bind_socket(&config.socket).map_err(listen(config.socket.path.display().to_string()))?;
        let forwarding = Forwarding::open(store.clone(), Arc::clone(&clock), &config.forward).await?;
        let app = Arc::new(App::new(store.clone(), clock, Some(Arc::clone(&tls)), &config, forwarding));
        // The intake must not follow the node's own files as if they were another program's log.
        let own = vec![config.data_dir.clone(), config.folder.clone()];
        let intake = Intake::open(&config.intake, &config.data_dir, own, app.metrics().intake.clone()).await?;
        Ok(Self { store, app, tls, peer, socket, metrics, http, intake, config })
    }

    /// Returns the address that peers connect to, with the actual port if the configuration sets port 0.
    pub fn peer_address(&self) -> std::io::Result<std::net::SocketAddr> {
        self.peer.local_addr()
    }

    /// Serves until `shutdown`; records `log.stopped` last.
    pub async fn run(self, shutdown: CancellationToken) {
        let tasks = TaskTracker::new();
        let reload = tokio::spawn(Arc::clone(&self.tls).watch());
        tasks.spawn(serve_tls(
            self.peer,
            Arc::clone(&self.tls),
            ClientAuth::Required,
            http::peer_routes(&self.app),
            shutdown.clone(),
        ));
        tasks.spawn(serve_unix(self.socket, http::socket_routes(&self.app), shutdown.clone()));
        if let Some(listener) = self.http {
            let app = http::http_routes(&self.app);
            tasks.spawn(serve_tls(listener, Arc::clone(&self.tls), ClientAuth::Optional, app, shutdown.clone()));
        }
        if let Some(listener) = self.metrics {
            tasks.spawn(serve_plain(listener, http::metrics_routes(&self.app), shutdown.clone()));
        }
        let signing = tokio::spawn(sign_regularly(self.store.clone()));
        let retention = tokio::spawn(self.app.retention().keep());
        let coming_in = self.intake.start(&self.store, &self.config.redactor, &shutdown);
        let handing_on =
            self.app.forwarding().start(&shutdown, self.config.cluster.as_str(), self.config.node_id.as_str());
        tracing::info!(
            node = %self.config.node_id, generation = %self.store.generation(), socket = %self.config.socket.path.display(),
            listen = %self.config.peer.listen, "node ready"
        );
        shutdown.cancelled().await;
        self.app.stopping.cancel();
        tasks.close();
        // The metrics listener drains its connections without a time limit; a client that never finishes must not turn a clean
        // stop into an unclean one.
        if tokio::time::timeout(STOP_TIMEOUT, tasks.wait()).await.is_err() {
            tracing::warn!("a listener did not stop in time and was aborted");
        }
        for tasks in [coming_in, handing_on] {
            if tokio::time::timeout(STOP_TIMEOUT, tasks.wait()).await.is_err() {
                tracing::warn!("sources or destinations did not stop in time; they resume at the next start");
            }
        }
        reload.abort();
        signing.abort();
        retention.abort();
        self.store.close().await;
        let _ = std::fs::remove_file(&self.config.socket.path);
        tracing::info!(node = %self.config.node_id, "node stopped");
    }
}

/// Signs a checkpoint over new entries regularly, even if no client requests one, because entries that a checkpoint covers cannot
/// be removed unnoticed.
async fn sign_regularly(store: Store) {
    let mut last_fault = None;
    loop {
        tokio::time::sleep(SIGN_INTERVAL).await;
        let fault = store.checkpoint().await.err().map(|error| error.to_string());
        if fault != last_fault
            && let Some(fault) = &fault
        {
            tracing::error!(%fault, "cannot sign a checkpoint");
        }
        last_fault = fault;
    }
}

fn bind_socket(config: &SocketConfig) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(&config.path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let listener = UnixListener::bind(&config.path)?;
    set_group(&config.path, config.group.as_deref())?;
    std::fs::set_permissions(&config.path, std::fs::Permissions::from_mode(config.mode))?;
    Ok(listener)
}

fn set_group(path: &Path, group: Option<&str>) -> std::io::Result<()> {
    let Some(name) = group else { return Ok(()) };
    let group = nix::unistd::Group::from_name(name)?.ok_or_else(|| {
        std::io::Error::other(format!("group {name:?} does not exist; create it or change socket.group"))
    })?;
    Ok(nix::unistd::chown(path, None, Some(group.gid))?)
}
