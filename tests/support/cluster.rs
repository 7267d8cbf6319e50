//! Runs a cluster as real processes: nodes and aggregators, set up like those of `piperoll cluster`, from the built binary.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use piperoll_aggregator::access::tokens::TokenStore;
use piperoll_aggregator::config::AggregatorConfig;
use piperoll_certs::{AggregatorPlace, Authority, Layout, NodePlace};
use piperoll_net::clock::{Clock as _, SystemClock};
use piperoll_protocol::access::Role;
use serde_json::Value;
use tempfile::TempDir;

use crate::{Answer, FaultProxy, Run};

const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Environment variable with the path of an existing binary, for runs that have just built everything.
const BINARY_VARIABLE: &str = "PIPEROLL_BINARY";

/// Returns the path of the `piperoll` program. Builds it first, so that a test never runs an old one, unless `PIPEROLL_BINARY` is set.
pub fn piperoll() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        piperoll_net::crypto::install();
        if let Some(path) = std::env::var_os(BINARY_VARIABLE) {
            let path = std::path::absolute(path).unwrap();
            assert!(path.exists(), "{BINARY_VARIABLE}: {} is missing", path.display());
            return path;
        }
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--workspace", "--bins"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let built = build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).status().unwrap();
        assert!(built.success(), "piperoll does not build");
        // Tests are in target/<profile>/deps, programs one folder above.
        let exe = std::env::current_exe().unwrap();
        let folder = exe.parent().unwrap();
        let folder = if folder.ends_with("deps") { folder.parent().unwrap() } else { folder };
        let path = folder.join("piperoll");
        assert!(path.exists(), "{} is missing", path.display());
        path
    })
}

/// Environment variable with the name of the test, set for every process it starts, so that a leftover process can be traced to its test.
const TEST_VARIABLE: &str = "PIPEROLL_TEST";

/// A child process that is killed on drop, so that it does not outlive its test.
pub struct Guard(pub Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns an address that was free a moment ago. Its port is below the kernel's range for outgoing connections, because one of
/// hundreds of such connections could otherwise take the port before a process listens on it.
pub fn free_address() -> String {
    const FIRST: u32 = 10_000;
    const PORTS: u32 = 22_000;
    static TRIED: AtomicU32 = AtomicU32::new(0);
    loop {
        let tried = TRIED.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (std::process::id().wrapping_mul(7_919).wrapping_add(tried)) % PORTS;
        if let Ok(listener) = std::net::TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())) {
            return listener.local_addr().unwrap().to_string();
        }
    }
}

/// A node of the cluster, with its folder, its process, and the proxy between it and the aggregator.
pub struct Member {
    pub id: String,
    pub folder: PathBuf,
    pub listen: String,
    pub proxy: FaultProxy,
    /// Environment variables of the node's process, used at its next start.
    pub environment: Vec<(String, String)>,
    process: Option<Child>,
    /// Clock of the node. If it is set, `clocked-node` runs instead of the shipped program.
    clock: Option<String>,
}

impl Member {
    /// Creates the node's folder and its proxy; no process runs yet.
    fn made(authority: &mut Authority, id: &str, clock: Option<String>) -> Self {
        let listen = free_address();
        let proxy = FaultProxy::start(&listen);
        let place = NodePlace { address: proxy.address.clone(), listen: Some(listen.clone()), layout: Layout::Folder };
        let folder = authority.add_node(&id.parse().unwrap(), &place).unwrap();
        at_any_hour(&folder);
        Self { id: id.to_owned(), folder, listen, proxy, environment: Vec::new(), process: None, clock }
    }
}

/// An aggregator with its embedded node of the same name.
struct Aggregator {
    id: String,
    url: String,
    token: String,
    process: Option<Child>,
}

impl Aggregator {
    /// Creates the aggregator's folder and a token; no process runs yet.
    fn made(authority: &mut Authority, id: &str) -> Self {
        let address = free_address();
        let place = AggregatorPlace {
            address: address.clone(),
            listen: Some(address.clone()),
            node_address: free_address(),
            layout: Layout::Folder,
        };
        let folder = authority.add_aggregator(&id.parse().unwrap(), &place).unwrap();
        at_any_hour(&folder.join("node"));
        let state = AggregatorConfig::load(&folder.join("aggregator.toml")).unwrap().state_dir;
        let now = SystemClock.now();
        let token = TokenStore::open(&state).unwrap().create("tester", Role::Admin, None, None, now).unwrap().token;
        Self { id: id.to_owned(), url: format!("https://{address}"), token, process: None }
    }
}

pub struct Cluster {
    pub dir: TempDir,
    pub nodes: Vec<Member>,
    /// Address of the selected aggregator, and a token for it; see [`Cluster::turn_to`].
    pub url: String,
    pub token: String,
    aggregators: Vec<Aggregator>,
    asked: usize,
    /// Processes that run many nodes each.
    packs: Vec<Guard>,
    /// Additional environment of aggregators.
    pub aggregator_environment: Vec<(String, String)>,
    pub(crate) client: reqwest::Client,
}

impl Cluster {
    /// Starts nodes with these ids and an aggregator named `agg`, and waits until all of them answer.
    pub async fn start(ids: &[&str]) -> Self {
        Self::start_with(ids, |_| None).await
    }

    /// Like [`Cluster::start`], with a separate clock for some nodes: `+60s`, `-7s`, or `@1776240000` for a stopped clock.
    pub async fn start_with(ids: &[&str], clock: impl Fn(&str) -> Option<String>) -> Self {
        let mut cluster = Self::made(ids, clock).await;
        cluster.run_all().await;
        cluster
    }

    /// Starts all nodes and the aggregator, and waits for them.
    pub async fn run_all(&mut self) {
        for index in 0..self.nodes.len() {
            self.spawn(index);
        }
        self.spawn_aggregator();
        for node in &self.nodes {
            self.wait_for_node(node).await;
        }
        self.wait_for_aggregator().await;
    }

    /// Starts these nodes in one process, and waits for them.
    pub async fn spawn_pack(&mut self, indexes: std::ops::Range<usize>) {
        let configs = self.nodes[indexes.clone()].iter().map(|node| node.folder.join("node.toml"));
        let child = Command::new(piperoll().with_file_name("node-pack"))
            .args(configs)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(self.log(&format!("pack-{}", indexes.start)))
            .spawn()
            .unwrap();
        self.packs.push(Guard(child));
        for node in &self.nodes[indexes] {
            self.wait_for_node(node).await;
        }
    }

    /// Like [`Cluster::start`], with a witness that polls more often than the default: every `poll_ms` milliseconds.
    pub async fn witnessed(ids: &[&str], poll_ms: u32) -> Self {
        let mut cluster = Self::made(ids, |_| None).await;
        cluster.poll_every(poll_ms);
        cluster.run_all().await;
        cluster
    }

    /// Sets the polling interval of the witness, in milliseconds. Takes effect at the next start.
    pub fn poll_every(&self, poll_ms: u32) {
        self.configure_aggregator(&format!("[witness]\npoll_ms = {poll_ms}\n"));
    }

    /// Adds tables to `aggregator.toml`, replacing those of the same name. Takes effect at the next start.
    pub fn configure_aggregator(&self, lines: &str) {
        let config = self.aggregator_folder().join("aggregator.toml");
        let mut table: toml::Table = std::fs::read_to_string(&config).unwrap().parse().unwrap();
        table.extend(lines.parse::<toml::Table>().unwrap());
        std::fs::write(&config, table.to_string()).unwrap();
    }

    /// Creates folders and proxies; no process runs yet.
    pub async fn made(ids: &[&str], clock: impl Fn(&str) -> Option<String>) -> Self {
        piperoll();
        let dir = tempfile::Builder::new().prefix("prt-").tempdir().unwrap();
        let mut authority = Authority::init(&dir.path().join("c"), &"test".parse().unwrap()).unwrap();
        let mut nodes = Vec::new();
        for id in ids {
            nodes.push(Member::made(&mut authority, id, clock(id)));
        }
        let aggregator = Aggregator::made(&mut authority, "agg");
        let ca = std::fs::read(dir.path().join("c/ca.crt")).unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(&ca).unwrap())
            .build()
            .unwrap();
        let (url, token) = (aggregator.url.clone(), aggregator.token.clone());
        let made = Self {
            nodes,
            url,
            token,
            aggregators: vec![aggregator],
            asked: 0,
            packs: Vec::new(),
            aggregator_environment: Vec::new(),
            client,
            dir,
        };
        // Tests send requests as fast as they can, so raise the rate limits. Tests of these limits set their own.
        made.configure_aggregator("[rates]\nper_address = 100000\nper_caller = 100000\n");
        made
    }

    /// Adds a node to the roster and starts it. The aggregator reads the new roster at its next start.
    pub async fn add_node(&mut self, id: &str) {
        let member = Member::made(&mut self.authority(), id, None);
        self.nodes.push(member);
        self.restart(self.nodes.len() - 1).await;
    }

    /// Adds and selects an aggregator together with its node, without starting it. When they are next restarted, the other
    /// aggregators read the new roster, and the nodes read the new aggregator's witness key.
    pub fn add_aggregator(&mut self, id: &str) {
        let made = Aggregator::made(&mut self.authority(), id);
        self.aggregators.push(made);
        self.turn_to(self.aggregators.len() - 1);
        self.configure_aggregator("[rates]\nper_address = 100000\nper_caller = 100000\n");
    }

    /// Returns the number of aggregators.
    pub fn aggregators(&self) -> usize {
        self.aggregators.len()
    }

    /// Selects the aggregator that all other methods use from now on.
    pub fn turn_to(&mut self, index: usize) {
        let aggregator = &self.aggregators[index];
        (self.url, self.token) = (aggregator.url.clone(), aggregator.token.clone());
        self.asked = index;
    }

    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("c/ca.crt")
    }

    pub fn authority(&self) -> Authority {
        Authority::open(&self.dir.path().join("c")).unwrap()
    }

    pub fn authority_dir(&self) -> PathBuf {
        self.dir.path().join("c")
    }

    pub fn aggregator_folder(&self) -> PathBuf {
        self.dir.path().join("c/machines").join(&self.aggregators[self.asked].id)
    }

    pub fn aggregator_pid(&self) -> u32 {
        self.aggregators[self.asked].process.as_ref().unwrap().id()
    }

    /// Starts a node, which must not be running.
    pub fn spawn(&mut self, index: usize) {
        let running = self.nodes[index].process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_none());
        assert!(!running, "{} runs already; the process before would be left behind", self.nodes[index].id);
        let log = self.log(&self.nodes[index].id);
        let node = &mut self.nodes[index];
        let mut command = match &node.clock {
            None => Command::new(piperoll()),
            Some(clock) => {
                let mut command = Command::new(piperoll().with_file_name("clocked-node"));
                command.env("PIPEROLL_TEST_CLOCK", clock);
                command
            }
        };
        let child = command
            .envs(node.environment.iter().map(|(name, value)| (name, value)))
            .env(TEST_VARIABLE, std::thread::current().name().unwrap_or_default())
            .args(["node", "serve", "--config"])
            .arg(node.folder.join("node.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        node.process = Some(child);
    }

    /// Starts the selected aggregator, which must not be running.
    pub fn spawn_aggregator(&mut self) {
        let known = self.aggregator_process();
        let running = known.is_some_and(|process| process.try_wait().unwrap().is_none());
        assert!(!running, "the aggregator runs already; the process before would be left behind");
        let log = self.log(&self.aggregators[self.asked].id);
        let child = Command::new(piperoll())
            .env(TEST_VARIABLE, std::thread::current().name().unwrap_or_default())
            .envs(self.aggregator_environment.clone())
            .args(["aggregator", "serve", "--config"])
            .arg(self.aggregator_folder().join("aggregator.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.aggregators[self.asked].process = Some(child);
    }

    /// Sets a node's clock for its next start.
    pub fn set_clock(&mut self, index: usize, clock: &str) {
        self.nodes[index].clock = Some(clock.to_owned());
    }

    /// Reverts `set_clock` for the next start of a node.
    pub fn clear_clock(&mut self, index: usize) {
        self.nodes[index].clock = None;
    }

    fn log(&self, name: &str) -> std::fs::File {
        let path = self.dir.path().join(format!("{name}.log"));
        std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap()
    }

    pub fn log_text(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    pub async fn wait_for_node(&self, node: &Member) {
        let client = piperoll_client::NodeClient::new(&node.folder.join("node.sock")).unwrap();
        let deadline = Instant::now() + READY_TIMEOUT;
        while client.status().await.is_err() {
            assert!(Instant::now() < deadline, "{} is not ready: {}", node.id, self.log_text(&node.id));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn wait_for_aggregator(&self) {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let answer = self.client.get(format!("{}/readyz", self.url)).send().await;
            if answer.is_ok_and(|a| a.status().is_success()) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the aggregator is not ready: {}",
                self.log_text(&self.aggregators[self.asked].id)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a page without a filter is complete, and returns the page.
    pub async fn wait_until_complete(&self) -> Answer {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let answer = self.page("limit=1").await;
            if answer.status == 200 && answer.json()["complete"] == true {
                return answer;
            }
            assert!(Instant::now() < deadline, "never complete: {}", answer.text);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until a node contributes to a page, whether or not its rows are valid.
    pub async fn wait_until_answered(&self, id: &str) {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let answer = self.page("limit=1").await.json();
            let nodes = answer["nodes"].as_array().cloned().unwrap_or_default();
            if nodes.iter().any(|node| node["node_id"] == id && !node["head_seq"].is_null()) {
                return;
            }
            assert!(Instant::now() < deadline, "never answered: {answer}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub fn pid(&self, index: usize) -> u32 {
        self.nodes[index].process.as_ref().unwrap().id()
    }

    /// Returns the most recently started process of a node, which may have ended.
    pub fn process(&mut self, index: usize) -> Option<&mut Child> {
        self.nodes[index].process.as_mut()
    }

    /// Returns the most recently started process of the aggregator, which may have ended.
    pub fn aggregator_process(&mut self) -> Option<&mut Child> {
        self.aggregators[self.asked].process.as_mut()
    }

    pub fn signal(&self, index: usize, signal: Signal) {
        let pid = self.pid(index);
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
        // A thread in a system call stops only when the call returns, so until then the node could still answer one request.
        while signal == Signal::SIGSTOP && !is_stopped(pid) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Kills a node with SIGKILL, and waits until its process is gone.
    pub fn kill(&mut self, index: usize) {
        let process = self.nodes[index].process.as_mut().unwrap();
        let _ = process.kill();
        let _ = process.wait();
    }

    /// Stops a node with SIGTERM; it must exit successfully.
    pub fn stop(&mut self, index: usize) {
        self.signal(index, Signal::SIGTERM);
        assert!(self.nodes[index].process.as_mut().unwrap().wait().unwrap().success());
    }

    pub async fn restart(&mut self, index: usize) {
        self.spawn(index);
        self.wait_for_node(&self.nodes[index]).await;
    }

    /// Kills the aggregator and its embedded node with SIGKILL.
    pub fn kill_aggregator(&mut self) {
        let process = self.aggregator_process().unwrap();
        let _ = process.kill();
        let _ = process.wait();
    }

    pub fn stop_aggregator(&mut self) {
        let process = self.aggregator_process().unwrap();
        kill(Pid::from_raw(i32::try_from(process.id()).unwrap()), Signal::SIGTERM).unwrap();
        assert!(process.wait().unwrap().success());
    }

    /// Records NDJSON lines on a node, which must accept all of them.
    pub async fn append(&self, index: usize, lines: &[String]) {
        let client = piperoll_client::NodeClient::new(&self.nodes[index].folder.join("node.sock")).unwrap();
        for batch in lines.chunks(10_000) {
            let report = client.append_lines((batch.join("\n") + "\n").into_bytes(), false).await.unwrap();
            assert_eq!(report.rejected, 0, "{:?}", report.results.iter().find(|r| r.error.is_some()));
        }
    }

    /// Returns a command that runs the program as a user of the aggregator does.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(piperoll());
        command
            .args(args)
            .env("PIPEROLL_URL", &self.url)
            .env("PIPEROLL_CA", self.ca())
            .env("PIPEROLL_TOKEN", &self.token)
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Run {
        self.command(args).output().unwrap().into()
    }

    /// Runs `piperoll node <args> --config <its node.toml>`.
    pub fn on_node(&self, index: usize, args: &[&str]) -> Run {
        Command::new(piperoll())
            .arg("node")
            .args(args)
            .arg("--config")
            .arg(self.nodes[index].folder.join("node.toml"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
            .into()
    }

    /// Verifies every node's log at the end of a fault test: each log is intact and every signature is valid.
    pub fn verify_all(&self) {
        for index in 0..self.nodes.len() {
            let run = self.on_node(index, &["verify"]);
            assert_eq!(run.code, 0, "{}: {}{}", self.nodes[index].id, run.stdout, run.stderr);
        }
    }

    /// Returns the timestamp in a row's body.
    pub fn row_timestamp(&self, index: usize, seq: usize) -> String {
        let conn = rusqlite::Connection::open(self.database(index)).unwrap();
        let body: String = conn.query_row("SELECT body FROM entries WHERE seq = ?1", [seq], |row| row.get(0)).unwrap();
        serde_json::from_str::<Value>(&body).unwrap()["timestamp"].as_str().unwrap().to_owned()
    }

    pub fn database(&self, index: usize) -> PathBuf {
        self.nodes[index].folder.join("data/log.db")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self
            .nodes
            .iter_mut()
            .filter_map(|n| n.process.as_mut())
            .chain(self.aggregators.iter_mut().filter_map(|aggregator| aggregator.process.as_mut()))
        {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Turns off the detection rule `outside_hours`, so that results do not depend on the time of day at which a test runs.
fn at_any_hour(folder: &Path) {
    let config = folder.join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}\n[flags]\noutside_hours = false\n")).unwrap();
}

/// Returns a caller's entry with this user and action.
pub fn entry(user: &str, action: &str) -> String {
    serde_json::json!({ "category": "auth", "action": action, "user": user, "outcome": "success" }).to_string()
}

/// Returns whether every thread of a process is stopped (proc_pid_stat(5), `T`) or has ended.
fn is_stopped(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_default()).all(|stat| {
        // The state follows the process name, which may contain any character.
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 'Z', 'X']))
    })
}
