//! A browser with its own profile that trusts the cluster's authority, as a user's browser would.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::elements::Element;
use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use piperoll_tests::{Cluster, Guard, free_address};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Error text of the driver if a navigation interrupted a query. `find` retries such queries for up to [`PATIENCE`], a limit that
/// exists only to end a hanging test.
const CUT_SHORT: &str = "aborted by navigation";
const PATIENCE: Duration = Duration::from_secs(20);
/// Environment variable with the path of axe-core's own script (axe.min.js), from its package.
const AXE_VARIABLE: &str = "PIPEROLL_AXE";

pub(crate) struct Browser {
    pub(crate) client: Client,
    base: String,
    // The order of the fields matters: the folder must be removed after the driver, when no process writes to it any more.
    driver: Guard,
    home: TempDir,
}

/// Kills the rest of the browser, which outlives its driver for a moment and writes to the folder while it is being removed.
impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.driver.0.kill();
        let _ = self.driver.0.wait();
        let home = self.home.path().display().to_string();
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let users = processes_with(&home);
            for pid in &users {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL);
            }
            if users.is_empty() && std::fs::remove_dir_all(&home).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Returns the ids of the processes whose command line contains a path.
fn processes_with(path: &str) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(path)
    })
    .collect()
}

/// Checks that the tools that the tests need are installed, or says why the tests cannot run.
fn tools() -> Result<(), String> {
    for program in ["chromedriver", "chromium", "certutil"] {
        let found = Command::new("which").arg(program).stdout(Stdio::null()).status().is_ok_and(|s| s.success());
        if !found {
            return Err(format!("{program} is not installed"));
        }
    }
    axe().map(|_| ())
}

fn axe() -> Result<String, String> {
    let path = std::env::var(AXE_VARIABLE).map_err(|_| format!("{AXE_VARIABLE} does not name axe.min.js"))?;
    std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
}

impl Browser {
    /// Opens a browser that has no session yet; `None` if the tests are skipped.
    pub(crate) async fn open(cluster: &Cluster) -> Option<Self> {
        if let Err(why) = tools() {
            assert!(std::env::var_os("CI").is_none(), "the browser tests cannot run: {why}");
            eprintln!("SKIPPED: {why}");
            return None;
        }
        let home = tempfile::Builder::new().prefix("prb-").tempdir().unwrap();
        trust(home.path(), &cluster.ca());
        let port = free_address().rsplit_once(':').unwrap().1.to_owned();
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .env("HOME", home.path())
            .env("TMPDIR", home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let driver = Guard(driver);
        let downloads = home.path().join("downloads");
        std::fs::create_dir_all(&downloads).unwrap();
        let options = json!({ "goog:chromeOptions": {
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1400,1000",
                     format!("--user-data-dir={}", home.path().join("profile").display())],
            "prefs": { "download.default_directory": downloads, "download.prompt_for_download": false,
                "profile.default_content_setting_values.automatic_downloads": 1 },
        } });
        let Value::Object(capabilities) = options else { unreachable!("an object") };
        let address = format!("http://127.0.0.1:{port}");
        let mut builder = ClientBuilder::new(http());
        builder.capabilities(capabilities);
        let started = Instant::now();
        let client = loop {
            let tried = builder.connect(&address).await;
            match tried {
                Ok(client) => break client,
                Err(error) => assert!(started.elapsed() < PATIENCE, "no browser: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        Some(Self { client, base: cluster.url.clone(), driver, home })
    }

    /// Opens a browser that is signed in with a token and shows the timeline.
    pub(crate) async fn signed_in(cluster: &Cluster, token: &str) -> Option<Self> {
        let browser = Self::open(cluster).await?;
        browser.sign_in(token).await;
        Some(browser)
    }

    pub(crate) async fn sign_in(&self, token: &str) {
        self.go("/sign-in").await;
        self.write("#token", token).await;
        self.client.active_element().await.unwrap().send_keys(&Key::Enter.to_string()).await.unwrap();
        self.find("tr[data-entry]").await;
    }

    pub(crate) async fn go(&self, path: &str) {
        self.client.goto(&format!("{}{path}", self.base)).await.unwrap();
    }

    /// Returns path and query of the page's URL.
    pub(crate) async fn address(&self) -> String {
        self.client.current_url().await.unwrap().as_str().strip_prefix(&self.base).unwrap().to_owned()
    }

    /// Waits for the first matching element. Repeats a query that a navigation interrupted.
    pub(crate) async fn find(&self, css: &str) -> Element {
        let started = Instant::now();
        let found = loop {
            let found = self.client.wait().at_most(PATIENCE).for_element(Locator::Css(css)).await;
            match found {
                Err(error) if error.to_string().contains(CUT_SHORT) && started.elapsed() < PATIENCE => {}
                found => break found,
            }
        };
        match found {
            Ok(element) => element,
            Err(error) => panic!("no {css}: {error}; the page says:\n{}", self.text("body").await),
        }
    }

    /// Clicks by script, so that the element's position on the page does not matter.
    pub(crate) async fn click(&self, css: &str) {
        self.find(css).await;
        self.js("document.querySelector(arguments[0]).click()", json!([css])).await;
    }

    /// Clicks the button with this label.
    pub(crate) async fn press(&self, within: &str, words: &str) {
        let script = "const found = [...document.querySelectorAll(arguments[0] + ' button, ' + arguments[0] + ' a')].find((one) => one.textContent.includes(arguments[1]) && !one.disabled); found?.click(); return Boolean(found)";
        self.until(&format!("a button {words:?} in {within}"), async || {
            self.js(script, json!([within, words])).await == true
        })
        .await;
    }

    /// Empties a field and types into it.
    pub(crate) async fn write(&self, css: &str, text: &str) {
        let field = self.find(css).await;
        self.js("document.querySelector(arguments[0]).value = ''", json!([css])).await;
        field.send_keys(text).await.unwrap();
    }

    /// Sends keys to the focused element.
    pub(crate) async fn keys(&self, keys: &str) {
        self.client.active_element().await.unwrap().send_keys(keys).await.unwrap();
    }

    pub(crate) async fn text(&self, css: &str) -> String {
        let script = "return document.querySelector(arguments[0])?.innerText ?? ''";
        self.js(script, json!([css])).await.as_str().unwrap_or_default().to_owned()
    }

    /// Returns the texts of all matching elements.
    pub(crate) async fn texts(&self, css: &str) -> Vec<String> {
        let script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.innerText)";
        let texts = self.js(script, json!([css])).await;
        texts.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    }

    /// Returns the visible rows as `node/seq`.
    pub(crate) async fn places(&self) -> Vec<String> {
        let script = "return [...document.querySelectorAll('tr[data-entry]')].map((row) => row.dataset.entry)";
        serde_json::from_value(self.js(script, json!([])).await).unwrap()
    }

    pub(crate) async fn js(&self, script: &str, arguments: Value) -> Value {
        let Value::Array(arguments) = arguments else { panic!("arguments are a list") };
        self.client.execute(script, arguments).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Waits for a text.
    pub(crate) async fn says(&self, css: &str, words: &str) {
        self.until(&format!("{words:?} in {css}"), async || self.text(css).await.contains(words)).await;
    }

    /// Waits until a condition holds.
    pub(crate) async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let started = Instant::now();
        while !holds().await {
            if started.elapsed() > PATIENCE {
                self.shot("failed").await;
                panic!("never: {what}; the page says:\n{}", self.text("body").await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Saves a screenshot.
    pub(crate) async fn shot(&self, name: &str) {
        let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/screenshots"));
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join(format!("{name}.png")), self.client.screenshot().await.unwrap()).unwrap();
    }

    /// Checks that axe-core finds no serious violation of WCAG 2.2 A and AA.
    pub(crate) async fn is_accessible(&self, what: &str) {
        self.js(&axe().unwrap(), json!([])).await;
        let script = "const done = arguments[arguments.length - 1]; axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] }).then((found) => done(found.violations.filter((one) => ['serious', 'critical'].includes(one.impact)).map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => node.html.slice(0, 200) + ' ' + node.failureSummary).join(' | ')}`)))";
        let found = self.client.execute_async(script, vec![]).await.unwrap();
        assert_eq!(found, json!([]), "{what}");
    }

    /// Waits until a download is complete and returns its path.
    pub(crate) async fn download(&self, ending: &str) -> PathBuf {
        let dir = self.home.path().join("downloads");
        let started = Instant::now();
        loop {
            let files = std::fs::read_dir(&dir).unwrap().map(|file| file.unwrap().path());
            if let Some(file) = files.into_iter().find(|path| path.to_str().unwrap().ends_with(ending)) {
                return file;
            }
            assert!(started.elapsed() < PATIENCE, "no download *{ending}: {}", self.text("body").await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn close(self) {
        self.client.clone().close().await.unwrap();
    }
}

/// Returns the connector to the driver, which runs on this machine and speaks plain HTTP.
fn http() -> hyper_util::client::legacy::connect::HttpConnector {
    hyper_util::client::legacy::connect::HttpConnector::new()
}

/// Adds the cluster's ca.crt to the browser's trusted authorities, as a user does once.
fn trust(home: &Path, ca: &Path) {
    let store = home.join(".pki/nssdb");
    std::fs::create_dir_all(&store).unwrap();
    let database = format!("sql:{}", store.display());
    let run = |args: &[&str]| {
        let done = Command::new("certutil").args(["-d", &database]).args(args).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    run(&["-N", "--empty-password"]);
    run(&["-A", "-t", "C,,", "-n", "cluster", "-i", ca.to_str().unwrap()]);
}
