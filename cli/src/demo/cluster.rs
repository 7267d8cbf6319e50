//! Starts, queries and stops the demo's processes.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use piperoll_aggregator::access::tokens::TokenStore;
use piperoll_aggregator::config::AggregatorConfig;
use piperoll_certs::{AggregatorPlace, Authority, Layout, NodePlace};
use piperoll_client::NodeClient;
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::access::Role;
use tokio::process::{Child, Command};

use super::step::QueryAnswer;

const READY_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// One node of the demo.
pub(super) struct DemoNode {
    pub(super) id: String,
    pub(super) address: String,
    folder: PathBuf,
    process: Child,
    socket: NodeClient,
}

pub(super) struct DemoCluster {
    dir: PathBuf,
    nodes: Vec<DemoNode>,
    aggregator: Child,
    url: String,
    token: String,
    archive_url: String,
}

/// Returns a loopback address whose port was free at the time of the call.
fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

impl DemoCluster {
    pub(super) async fn start(dir: &Path) -> anyhow::Result<Self> {
        let authority_dir = dir.join("cluster");
        let mut authority = Authority::init(&authority_dir, &"demo".parse()?)?;
        std::fs::create_dir_all(dir.join("logs"))?;
        let mut nodes = Vec::new();
        for id in ["mx1", "mx2", "mx3"] {
            let address = free_address()?;
            let place = NodePlace { address: address.clone(), listen: Some(address.clone()), layout: Layout::Folder };
            let folder = authority.add_node(&id.parse()?, &place)?;
            let process = spawn_node(dir, id, &folder)?;
            let socket = NodeClient::new(&folder.join("node.sock"))?;
            nodes.push(DemoNode { id: id.to_owned(), address, folder, process, socket });
        }
        let address = free_address()?;
        let place = AggregatorPlace {
            address: address.clone(),
            listen: Some(address.clone()),
            node_address: free_address()?,
            layout: Layout::Folder,
        };
        let folder = authority.add_aggregator(&"reader".parse()?, &place)?;
        let config = folder.join("aggregator.toml");
        let archive_url = format!("file://{}", std::path::absolute(dir.join("archive"))?.display());
        authority.add_archive(&"main".parse()?, &"reader".parse()?, &archive_url)?;
        // By default the witness polls every five seconds; poll more often, so that the demo does not have to wait.
        let text = std::fs::read_to_string(&config)?;
        std::fs::write(&config, format!("{text}\n[witness]\npoll_ms = 500\n"))?;
        let config_name = config.display().to_string();
        let made = Command::new(std::env::current_exe()?)
            .args(["archive", "init", "--config", &config_name])
            .stdin(Stdio::null())
            .output()
            .await?;
        ensure!(made.status.success(), "cannot create the archive: {}", String::from_utf8_lossy(&made.stderr));
        let aggregator = spawn(dir, "reader", &["aggregator", "serve", "--config", &config_name])?;
        for node in &mut nodes {
            wait_until_ready(&node.id, &node.folder.join("node.sock"), &mut node.process).await?;
        }
        let mut cluster = Self {
            dir: dir.to_owned(),
            nodes,
            aggregator,
            url: format!("https://{address}"),
            token: String::new(),
            archive_url,
        };
        wait_until_ready("reader", &folder.join("node/node.sock"), &mut cluster.aggregator).await?;
        let store = TokenStore::open(&AggregatorConfig::load(&config)?.state_dir)?;
        cluster.token = store.create("demo", Role::Admin, None, None, SystemClock.now())?.token;
        cluster.wait_for_aggregator().await?;
        Ok(cluster)
    }

    /// Waits until every node is connected and the clocks are measured, so that the demo shows realistic times.
    async fn wait_for_aggregator(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            if let Ok((status, answer)) = self.query(&["query", "--limit", "1", "--json"]).await
                && status.success()
                && answer.envelope.order_uncertainty_ms.is_some()
            {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the aggregator did not become ready");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(super) fn nodes(&self) -> &[DemoNode] {
        &self.nodes
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn archive_url(&self) -> String {
        self.archive_url.clone()
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.dir.join("cluster/ca.crt")
    }

    /// Runs this program as a user would; with `show` its output goes to the terminal, otherwise it is captured.
    pub(super) async fn run(&self, args: &[&str], show: bool) -> anyhow::Result<(ExitStatus, String)> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(args)
            .env("PIPEROLL_URL", &self.url)
            .env("PIPEROLL_CA", self.ca())
            .env("PIPEROLL_TOKEN", &self.token)
            .env_remove("PIPEROLL_NODE_SOCKET")
            .stdin(Stdio::null());
        if show {
            let words: Vec<String> = args
                .iter()
                .filter(|arg| **arg != "--table")
                .map(|arg| if arg.contains([' ', ':']) { format!("'{arg}'") } else { (*arg).to_owned() })
                .collect();
            outln!("   $ piperoll {}\n", words.join(" "));
            let status = command.status().await?;
            outln!("   exit code {}", status.code().unwrap_or(-1));
            return Ok((status, String::new()));
        }
        let output = command.output().await?;
        Ok((output.status, String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// Runs a `--json` query and parses its answer.
    pub(super) async fn query(&self, args: &[&str]) -> anyhow::Result<(ExitStatus, QueryAnswer)> {
        let (status, text) = self.run(args, false).await?;
        Ok((status, QueryAnswer::parse(&text)?))
    }

    pub(super) async fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        Ok(self.nodes[index].process.kill().await?)
    }

    /// Stops a node in an orderly way.
    pub(super) async fn stop_node(&mut self, index: usize) {
        stop_process(&mut self.nodes[index].process).await;
    }

    /// Returns the path of a file of the demo.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) async fn restart(&mut self, index: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[index];
        node.process = spawn_node(&self.dir, &node.id, &node.folder)?;
        wait_until_ready(&node.id, &node.folder.join("node.sock"), &mut node.process).await
    }

    pub(super) fn print_logs(&self) {
        for entry in std::fs::read_dir(self.dir.join("logs")).into_iter().flatten().flatten() {
            errln!("--- {}", entry.path().display());
            errln!("{}", std::fs::read_to_string(entry.path()).unwrap_or_default());
        }
    }

    /// Stops every process, the aggregator first.
    pub(super) async fn stop(&mut self) {
        let processes =
            std::iter::once(&mut self.aggregator).chain(self.nodes.iter_mut().map(|node| &mut node.process));
        for process in processes {
            stop_process(process).await;
        }
    }
}

impl DemoNode {
    pub(super) fn config(&self) -> PathBuf {
        self.folder.join("node.toml")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(super) fn database(&self) -> PathBuf {
        self.data().join("log.db")
    }

    pub(super) async fn append(&self, lines: &[String]) -> anyhow::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let report = self.socket.append_lines((lines.join("\n") + "\n").into_bytes(), false).await?;
        let refused = report.results.iter().find_map(|result| result.error.as_deref());
        ensure!(report.rejected == 0, "{} refused entries: {}", report.rejected, refused.unwrap_or_default());
        Ok(())
    }
}

async fn stop_process(process: &mut Child) {
    let Some(pid) = process.id().and_then(|id| i32::try_from(id).ok()) else { return };
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
    if tokio::time::timeout(STOP_TIMEOUT, process.wait()).await.is_err() {
        let _ = process.kill().await;
    }
}

fn spawn_node(dir: &Path, id: &str, folder: &Path) -> anyhow::Result<Child> {
    let config = folder.join("node.toml");
    spawn(dir, id, &["node", "serve", "--config", &config.display().to_string()])
}

fn spawn(dir: &Path, name: &str, args: &[&str]) -> anyhow::Result<Child> {
    let path = dir.join("logs").join(format!("{name}.log"));
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| path.display().to_string())?;
    Command::new(std::env::current_exe()?)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        // Ctrl-C in the terminal must reach only the demo, which then stops its processes in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {name}"))
}

async fn wait_until_ready(id: &str, socket: &Path, process: &mut Child) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_TIMEOUT;
    let client = NodeClient::new(socket)?;
    while client.health().await.is_err() {
        if let Some(status) = process.try_wait()? {
            bail!("{id} exited immediately ({status})");
        }
        ensure!(Instant::now() < deadline, "{id} did not become ready");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
