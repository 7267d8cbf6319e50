//! Object stores on loopback: SeaweedFS, which is an S3 server, and Azurite, the emulator of Azure Blob Storage.

use std::process::{Command, Stdio};

use piperoll_tests::{Guard, free_address, piperoll, until};

/// Environment variable with the path of SeaweedFS's program `weed`.
const SEAWEED_VARIABLE: &str = "PIPEROLL_SEAWEED";
const ACCESS_KEY: &str = "piperolltest";
pub(crate) const SECRET_KEY: &str = "topsecretofthetest";

/// An S3 server on loopback with the bucket `audit`.
pub(crate) struct S3 {
    server: Guard,
    arguments: Vec<String>,
    dir: tempfile::TempDir,
    /// Address of the S3 interface.
    pub(crate) address: String,
    /// Address of the filer.
    filer: String,
    /// Arguments of the server's administration shell.
    shell: [String; 2],
    /// Ports on which the server may have created a Unix socket in /tmp.
    ports: Vec<String>,
}

fn serve(arguments: &[String], dir: &std::path::Path) -> Guard {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("weed.log")).unwrap();
    let server = Command::new(std::env::var_os(SEAWEED_VARIABLE).unwrap())
        .args(["-logtostderr=true", "server", "-s3"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    Guard(server.unwrap())
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.kill();
        for entry in std::fs::read_dir("/tmp").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let of_it = |port: &String| name.starts_with("seaweedfs-") && name.ends_with(&format!("-{port}.sock"));
            if self.ports.iter().any(of_it) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

impl S3 {
    /// Starts SeaweedFS. Returns `None` if it is not installed.
    pub(crate) async fn start() -> Option<Self> {
        if std::env::var_os(SEAWEED_VARIABLE).is_none() {
            eprintln!("SKIPPED: {SEAWEED_VARIABLE} does not name the program weed");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("prt-s3-").tempdir().unwrap();
        let config = dir.path().join("s3.json");
        let identity = serde_json::json!({ "identities": [{ "name": "test", "actions": ["Admin", "Read", "Write", "List"],
            "credentials": [{ "accessKey": ACCESS_KEY, "secretKey": SECRET_KEY }] }] });
        std::fs::write(&config, identity.to_string()).unwrap();
        let port = || free_address().rsplit_once(':').unwrap().1.to_owned();
        let (s3, filer, master) = (port(), port(), port());
        let (filer_grpc, master_grpc) = (port(), port());
        let flags = [
            ("ip", "127.0.0.1".to_owned()),
            ("ip.bind", "127.0.0.1".to_owned()),
            ("dir", dir.path().display().to_string()),
            ("s3.port", s3.clone()),
            ("s3.port.grpc", port()),
            ("s3.port.iceberg", port()),
            ("s3.port.lance", port()),
            ("s3.config", config.display().to_string()),
            ("master.port", master.clone()),
            ("master.port.grpc", master_grpc.clone()),
            ("master.telemetry", "false".to_owned()),
            ("master.volumeSizeLimitMB", "64".to_owned()),
            ("volume.port", port()),
            ("volume.max", "100".to_owned()),
            ("volume.port.grpc", port()),
            ("filer.port", filer.clone()),
            ("filer.port.grpc", filer_grpc.clone()),
        ];
        let arguments: Vec<String> = flags.iter().map(|(flag, value)| format!("-{flag}={value}")).collect();
        let server = serve(&arguments, dir.path());
        // A bucket is a directory of the filer.
        piperoll();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        until("the S3 server to have a bucket", async || {
            let made = client.post(format!("http://127.0.0.1:{filer}/buckets/audit/")).send().await;
            let is_up = client.get(format!("http://127.0.0.1:{s3}/")).send().await.is_ok();
            let has_bucket =
                made.is_ok_and(|made| made.status().is_success() || made.status() == reqwest::StatusCode::CONFLICT);
            (has_bucket && is_up).then_some(())
        })
        .await;
        let ports = flags.into_iter().filter(|(flag, _)| flag.contains("port")).map(|(_, port)| port).collect();
        let at = |port: &str| format!("127.0.0.1:{port}");
        let shell = [format!("-master={}.{master_grpc}", at(&master)), format!("-filer={}.{filer_grpc}", at(&filer))];
        Some(Self { server, arguments, dir, address: at(&s3), filer: at(&filer), shell, ports })
    }

    pub(crate) fn credentials(&self) -> String {
        self.credentials_at(&self.address)
    }

    /// Credentials for clients that reach the server at another address.
    pub(crate) fn credentials_at(&self, address: &str) -> String {
        format!(
            "aws_access_key_id = \"{ACCESS_KEY}\"\naws_secret_access_key = \"{SECRET_KEY}\"\naws_endpoint = \"http://{address}\"\n\
             aws_region = \"us-east-1\"\naws_allow_http = \"true\"\n",
        )
    }

    /// Kills the server with SIGKILL.
    pub(crate) fn kill(&mut self) {
        let _ = self.server.0.kill();
        let _ = self.server.0.wait();
    }

    /// Starts the server again, and waits until it can be used.
    pub(crate) async fn restart(&mut self) {
        self.server = serve(&self.arguments, self.dir.path());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let probe = format!("http://{}/buckets/audit/probe-of-the-test", self.filer);
        until("the S3 server to store objects again", async || {
            let stored = client.put(&probe).body("x").send().await.is_ok_and(|stored| stored.status().is_success());
            let is_up = client.get(format!("http://{}/", self.address)).send().await.is_ok();
            (stored && is_up).then_some(())
        })
        .await;
        let _ = client.delete(&probe).send().await;
    }

    /// Lets the bucket keep all versions of its objects.
    pub(crate) fn keep_versions(&self) {
        let weed = std::env::var_os(SEAWEED_VARIABLE).unwrap();
        let mut shell = Command::new(weed)
            .args(["-logtostderr=true", "shell"])
            .args(&self.shell)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = b"lock\ns3.bucket.versioning -name=audit -status=Enabled\nunlock\nexit\n";
        std::io::Write::write_all(&mut shell.stdin.take().unwrap(), input).unwrap();
        let output = shell.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Names of all files of the bucket, with the versions that are hidden from S3's own lists.
    pub(crate) async fn stored(&self) -> Vec<String> {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let (mut found, mut folders) = (Vec::new(), vec!["/buckets/audit".to_owned()]);
        while let Some(folder) = folders.pop() {
            let list =
                client.get(format!("http://{}{folder}/?limit=10000", self.filer)).header("accept", "application/json");
            let list: serde_json::Value = list.send().await.unwrap().json().await.unwrap_or_default();
            for entry in list["Entries"].as_array().into_iter().flatten() {
                let path = entry["FullPath"].as_str().unwrap().to_owned();
                let is_folder = entry["Mode"].as_u64().unwrap_or_default() & (1 << 31) != 0;
                if is_folder { folders.push(path) } else { found.push(path) }
            }
        }
        found
    }
}

/// Environment variable with the path of Azurite's program for blobs.
const AZURITE_VARIABLE: &str = "PIPEROLL_AZURITE";
/// Account and key that Azurite documents.
const AZURITE_ACCOUNT: &str = "devstoreaccount1";
pub(crate) const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The emulator of Azure Blob Storage on loopback, with the container `audit`.
pub(crate) struct Azurite {
    _server: Guard,
    _dir: tempfile::TempDir,
    endpoint: String,
}

impl Azurite {
    /// Starts Azurite. Returns `None` if it is not installed.
    pub(crate) async fn start() -> Option<Self> {
        let Some(program) = std::env::var_os(AZURITE_VARIABLE) else {
            eprintln!("SKIPPED: {AZURITE_VARIABLE} does not name the program azurite-blob");
            return None;
        };
        let dir = tempfile::Builder::new().prefix("prt-az-").tempdir().unwrap();
        let address = free_address();
        let (host, port) = address.rsplit_once(':').unwrap();
        let log = std::fs::File::create(dir.path().join("azurite.log")).unwrap();
        let server = Command::new("node")
            .arg(program)
            .args(["--blobHost", host, "--blobPort", port, "--skipApiVersionCheck", "--disableTelemetry", "--location"])
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let server = Guard(server.unwrap());
        let this = Self { _server: server, _dir: dir, endpoint: format!("http://{address}/{AZURITE_ACCOUNT}") };
        piperoll();
        until("Azurite to have a container", async || this.make_container().await).await;
        Some(this)
    }

    /// Creates the container with a request that is signed as Azure documents it (Authorize with Shared Key).
    async fn make_container(&self) -> Option<()> {
        use base64::Engine as _;
        use hmac::{KeyInit as _, Mac as _};
        let date = Command::new("date").args(["-u", "+%a, %d %b %Y %H:%M:%S GMT"]).env("LC_ALL", "C").output().unwrap();
        let date = String::from_utf8(date.stdout).unwrap().trim().to_owned();
        let text = format!(
            "PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:2021-12-02\n/{AZURITE_ACCOUNT}/{AZURITE_ACCOUNT}/audit\nrestype:container"
        );
        let key = base64::prelude::BASE64_STANDARD.decode(AZURITE_KEY).unwrap();
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
        mac.update(text.as_bytes());
        let signature = base64::prelude::BASE64_STANDARD.encode(mac.finalize().into_bytes());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client
            .put(format!("{}/audit?restype=container", self.endpoint))
            .header("x-ms-date", date)
            .header("x-ms-version", "2021-12-02")
            .header("content-length", "0")
            .header("authorization", format!("SharedKey {AZURITE_ACCOUNT}:{signature}"));
        let answer = request.send().await.ok()?;
        (answer.status() == 201 || answer.status() == 409).then_some(())
    }

    pub(crate) fn credentials(&self) -> String {
        format!(
            "azure_storage_account_name = \"{AZURITE_ACCOUNT}\"\nazure_storage_account_key = \"{AZURITE_KEY}\"\n\
             azure_storage_endpoint = \"{}\"\nazure_allow_http = \"true\"\n",
            self.endpoint
        )
    }
}
