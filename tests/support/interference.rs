//! Makes system calls of a running process fail or take long, by means of strace.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ATTACH_TIMEOUT: Duration = Duration::from_secs(20);

/// Injects a fault into the system calls of a process, until `end` is called or the value is dropped.
pub struct Interference(Child);

impl Interference {
    /// Returns whether strace is installed and may attach to a process that it did not start.
    pub fn is_possible() -> bool {
        let mut other = Command::new("sleep").arg("60").spawn().unwrap();
        let attached = Self::with(other.id(), "read").is_some();
        let _ = other.kill();
        let _ = other.wait();
        attached
    }

    /// Attaches strace to every thread of a process; `None` if strace is missing, not permitted, or does not attach in time.
    pub fn with(pid: u32, inject: &str) -> Option<Self> {
        let calls = inject.split(':').next().unwrap();
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
        if inject != calls {
            command.args(["-e", &format!("inject={inject}")]);
        }
        let strace = command.args(["-p", &pid.to_string()]).stderr(Stdio::null()).spawn().ok()?;
        let tracer = format!("TracerPid:\t{}", strace.id());
        let mut interference = Self(strace);
        let is_traced = |task: std::io::Result<std::fs::DirEntry>| {
            let status = task.and_then(|task| std::fs::read_to_string(task.path().join("status")));
            // A thread that has ended in the meantime makes no more system calls, so it counts as traced.
            status.map_or(true, |status| status.lines().any(|line| line == tracer))
        };
        let begun = Instant::now();
        loop {
            if interference.0.try_wait().unwrap().is_some() || begun.elapsed() > ATTACH_TIMEOUT {
                return None;
            }
            let mut tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
            if tasks.all(is_traced) {
                return Some(interference);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Detaches strace; the process continues undisturbed.
    pub fn end(mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

impl Drop for Interference {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
