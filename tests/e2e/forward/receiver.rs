//! A real rsyslog, optionally with TLS, that writes the messages it receives to a file.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use piperoll_tests::free_address;

const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Rsyslog {
    folder: PathBuf,
    pub(super) address: String,
    process: Option<Child>,
}

impl Rsyslog {
    /// Starts rsyslog. Returns `None` if it is not installed, or if `with_tls` is set and its TLS module is not installed.
    pub(super) fn start(folder: &Path, with_tls: bool) -> Option<Self> {
        let installed = Path::new("/usr/sbin/rsyslogd").exists();
        if !installed || with_tls && !Path::new("/usr/lib/x86_64-linux-gnu/rsyslog/lmnsd_gtls.so").exists() {
            println!("SKIPPED: no rsyslog with TLS here (apt-get install rsyslog rsyslog-gnutls)");
            return None;
        }
        std::fs::create_dir_all(folder).unwrap();
        let address = free_address();
        let port = address.rsplit_once(':').unwrap().1;
        let (mut global, mut module) = (String::new(), "module(load=\"imtcp\")".to_owned());
        if with_tls {
            make_certificate(folder);
            let at = |name: &str| folder.join(name).display().to_string();
            global = format!(
                "global(DefaultNetstreamDriver=\"gtls\" DefaultNetstreamDriverCAFile=\"{}\" \
                 DefaultNetstreamDriverCertFile=\"{}\" DefaultNetstreamDriverKeyFile=\"{}\")\n",
                at("ca.pem"),
                at("receiver.pem"),
                at("receiver.key"),
            );
            module = "module(load=\"imtcp\" StreamDriver.Name=\"gtls\" StreamDriver.Mode=\"1\" StreamDriver.AuthMode=\"anon\")".to_owned();
        }
        let config = format!(
            "global(workDirectory=\"{folder}\" maxMessageSize=\"8k\")\n{global}{module}\n\
             main_queue(queue.timeoutshutdown=\"20000\" queue.size=\"100000\")\n\
             input(type=\"imtcp\" port=\"{port}\" address=\"127.0.0.1\")\n\
             template(name=\"raw\" type=\"string\" string=\"%rawmsg%\\n\")\n\
             action(type=\"omfile\" file=\"{folder}/received.log\" template=\"raw\")\n",
            folder = folder.display(),
        );
        std::fs::write(folder.join("rsyslog.conf"), config).unwrap();
        let mut receiver = Self { folder: folder.to_owned(), address, process: None };
        receiver.run();
        Some(receiver)
    }

    pub(super) fn port(&self) -> &str {
        self.address.rsplit_once(':').unwrap().1
    }

    pub(super) fn run(&mut self) {
        let _ = std::fs::remove_file(self.folder.join("pid"));
        let child = Command::new("/usr/sbin/rsyslogd")
            .arg("-n")
            .arg("-f")
            .arg(self.folder.join("rsyslog.conf"))
            .arg("-i")
            .arg(self.folder.join("pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.folder.join("rsyslog.err")).unwrap())
            .spawn()
            .unwrap();
        self.process = Some(child);
        let begun = Instant::now();
        while std::net::TcpStream::connect(&self.address).is_err() {
            let said = || std::fs::read_to_string(self.folder.join("rsyslog.err")).unwrap();
            assert!(begun.elapsed() < PATIENCE, "rsyslog does not listen: {}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        let pid = self.process.as_ref().unwrap().id();
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
    }

    /// Stops rsyslog with SIGTERM, as an administrator would.
    pub(super) fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        self.process.take().unwrap().wait().unwrap();
    }

    /// Returns the received messages, one per line of the file.
    pub(super) fn received(&self) -> Vec<String> {
        let bytes = std::fs::read(self.folder.join("received.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Makes an authority other than the cluster's, and a certificate for `localhost` signed by it.
fn make_certificate(folder: &Path) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = parameters.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::from_params(&parameters, &authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = parameters.signed_by(&key, &issuer).unwrap();
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(folder.join("receiver.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("receiver.key"), key.serialize_pem()).unwrap();
}
