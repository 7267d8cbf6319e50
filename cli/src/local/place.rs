//! Finds a log, and reads it either through the socket or from its directory, with the same results.

use anyhow::bail;
use bytes::Bytes;
use piperoll_client::{ClientError, LineStream, NodeClient};
use piperoll_format::ids::Generation;
use piperoll_node::config::NodeConfig;
use piperoll_node::store::{LogDir, OfflineLog, generations_aside};
use piperoll_protocol::node::{ScanRequest, VerifyLine};
use serde_json::json;
use tokio::sync::mpsc;

use crate::address::RowAddress;
use crate::args::{LogArgs, PlaceArgs};
use crate::exit::UsageError;

/// Maximum number of lines that are read ahead of a slow terminal.
const LINES_AHEAD: usize = 256;

/// Access to a log, through the node's socket or offline through its directory.
pub(super) enum LogAccess {
    Socket(NodeClient),
    Directory(Box<NodeConfig>),
}

impl LogAccess {
    /// Returns the socket if one was named, or if a node listens on the configured socket; otherwise, or with `--direct`, the
    /// directory.
    pub(super) async fn find(args: &PlaceArgs) -> anyhow::Result<Self> {
        if let (Some(socket), false) = (&args.socket, args.direct) {
            return Ok(Self::Socket(NodeClient::new(socket)?));
        }
        let config = NodeConfig::load(&args.config)?;
        if args.direct {
            return Ok(Self::Directory(Box::new(config)));
        }
        let client = NodeClient::new(&config.socket.path)?;
        match client.status().await {
            Err(error) if error.is_down() => Ok(Self::Directory(Box::new(config))),
            Err(error @ ClientError::Permission { .. }) => Err(error.into()),
            // Use the socket even if the daemon is unhealthy: it holds the log's lock, and its error messages are more useful.
            _ => Ok(Self::Socket(client)),
        }
    }

    /// Finds the current log as `find` does, or, with a generation, the archived log of that generation.
    pub(super) async fn of_log(args: &LogArgs) -> anyhow::Result<Self> {
        let Some(generation) = args.generation else { return Self::find(&args.place).await };
        let config = NodeConfig::load(&args.place.config)?;
        let all = generations_aside(&config.data_dir);
        let Some((_, data_dir)) = all.iter().find(|(aside, _)| *aside == generation) else {
            let known: Vec<String> = all.iter().map(|(aside, _)| aside.to_string()).collect();
            let known = if known.is_empty() {
                "there are no archived logs".to_owned()
            } else {
                format!("the archived logs are {}", known.join(", "))
            };
            bail!(
                "no log of generation {generation} was archived next to {}; {known}. Omit --generation to read the current log",
                config.data_dir.display()
            );
        };
        Ok(Self::Directory(Box::new(NodeConfig { data_dir: data_dir.clone(), ..config })))
    }

    /// Returns the number of a row, after checking that the address refers to this log.
    ///
    /// # Errors
    /// The address names another node, or a generation; the log of a generation is selected with `--generation` instead.
    pub(super) async fn own_row(&self, row: RowAddress) -> anyhow::Result<u64> {
        let RowAddress { node, seq, generation } = row;
        if let Some(generation) = generation {
            return Err(UsageError(format!(
                "the address of a row of this node cannot include a generation; use --generation {generation} instead"
            ))
            .into());
        }
        let Some(node) = node else { return Ok(seq) };
        let own = match self {
            Self::Socket(client) => client.status().await?.node_id,
            Self::Directory(config) => config.node_id.clone(),
        };
        if own.as_str() != node {
            return Err(UsageError(format!("row {seq} of {node} is not in this log: this is node {own}")).into());
        }
        Ok(seq)
    }

    /// Reads rows as NDJSON lines with a `final` line at the end.
    pub(super) async fn scan(&self, request: ScanRequest) -> anyhow::Result<Lines> {
        match self {
            Self::Socket(client) => Ok(Lines::Socket(client.scan(&request).await?)),
            Self::Directory(config) => {
                let log = open(config)?;
                let node_id = config.node_id.clone();
                Ok(Lines::produce(move |send| {
                    let mut scan = log.scan(&request)?;
                    loop {
                        let batch = log.next_batch(&mut scan)?;
                        for row in &batch.rows {
                            let mut line = Vec::new();
                            row.to_row(node_id.as_str()).write_json(&mut line);
                            if send.blocking_send(Ok(line.into())).is_err() {
                                return Ok(());
                            }
                        }
                        if batch.done {
                            break;
                        }
                    }
                    let last = json!({ "final": {
                        "node_id": node_id, "generation": log.generation(), "rows": scan.sent(), "scanned": scan.scanned(),
                        "more": scan.limit_reached(), "faults": scan.faults(), "fault": log.fault(), "pruned": scan.reaches_pruned(),
                        "erased": scan.erased(),
                    }});
                    let _ = send.blocking_send(Ok(last.to_string().into()));
                    Ok(())
                }))
            }
        }
    }

    /// Returns the archived logs that the current log replaced; the result is empty if only a socket is known.
    pub(super) fn asides(args: &PlaceArgs) -> Vec<(Generation, Self)> {
        let Ok(config) = NodeConfig::load(&args.config) else { return Vec::new() };
        if args.socket.is_some() {
            return Vec::new();
        }
        let of =
            |(generation, data_dir)| (generation, Self::Directory(Box::new(NodeConfig { data_dir, ..config.clone() })));
        generations_aside(&config.data_dir).into_iter().map(of).collect()
    }

    /// Checks the whole log, and returns the results as lines of [`VerifyLine`].
    pub(super) async fn verify(&self) -> anyhow::Result<Lines> {
        match self {
            Self::Socket(client) => Ok(Lines::Socket(client.verify().await?)),
            Self::Directory(config) => {
                let log = open(config)?;
                Ok(Lines::produce(move |send| {
                    let mut check = log.check()?;
                    while !check.done() {
                        for line in log.check_step(&mut check)? {
                            let text = serde_json::to_string::<VerifyLine>(&line)?;
                            if send.blocking_send(Ok(text.into())).is_err() {
                                return Ok(());
                            }
                        }
                    }
                    Ok(())
                }))
            }
        }
    }
}

pub(super) fn open(config: &NodeConfig) -> anyhow::Result<OfflineLog> {
    Ok(OfflineLog::open(&LogDir::new(&config.data_dir), config.keys.clone())?)
}

/// Lines from the socket or the directory.
pub(super) enum Lines {
    Socket(LineStream),
    Directory(mpsc::Receiver<anyhow::Result<Bytes>>),
}

impl Lines {
    fn produce(work: impl FnOnce(&mpsc::Sender<anyhow::Result<Bytes>>) -> anyhow::Result<()> + Send + 'static) -> Self {
        let (send, receive) = mpsc::channel(LINES_AHEAD);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = work(&send) {
                let _ = send.blocking_send(Err(error));
            }
        });
        Self::Directory(receive)
    }

    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        match self {
            Self::Socket(lines) => Ok(lines.next().await?),
            Self::Directory(lines) => lines.recv().await.transpose(),
        }
    }
}
