//! The test application that tests kill, and the results that it has printed for its entries.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use piperoll_tests::{Cluster, Guard, piperoll};

use super::socket;

pub(super) struct App {
    process: Guard,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

/// Builds the command line, for tests that wrap it in another command.
pub(super) fn command_of(cluster: &Cluster, policy: &str, spool_bytes: u64, count: u64) -> Vec<String> {
    let program = piperoll().with_file_name("recording-app");
    let folder = cluster.dir.path().join("app");
    let (program, socket, folder) = (program.display(), socket(cluster), folder.display());
    [program.to_string(), socket.display().to_string(), folder.to_string(), policy.to_owned()]
        .into_iter()
        .chain([spool_bytes.to_string(), count.to_string()])
        .collect()
}

impl App {
    pub(super) fn start(cluster: &Cluster, policy: &str, spool_bytes: u64, count: u64) -> Self {
        Self::run(&command_of(cluster, policy, spool_bytes, count))
    }

    pub(super) fn run(command: &[String]) -> Self {
        let mut process: Child =
            Command::new(&command[0]).args(&command[1..]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process: Guard(process), lines }
    }

    /// Reads at most `most` ids with their results, up to a line that equals `until`.
    pub(super) fn read(&mut self, until: &str, most: usize) -> Vec<(String, String)> {
        let mut read = Vec::new();
        for line in self.lines.by_ref().map_while(Result::ok).take(most) {
            if line == until {
                break;
            }
            let (id, word) = line.split_once(' ').unwrap_or((&line, ""));
            read.push((id.to_owned(), word.to_owned()));
        }
        read
    }

    pub(super) fn kill(mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }

    /// Waits until the application has sent everything and has exited successfully.
    pub(super) fn end(mut self) {
        assert_eq!(self.read("flushed true", 1_000_000).len(), 0, "everything was sent");
        assert!(self.process.0.wait().unwrap().success());
    }

    /// Waits until the process has ended, for whatever reason.
    pub(super) fn wait(mut self) {
        self.process.0.wait().unwrap();
    }
}
