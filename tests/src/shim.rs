//! A wall clock that a test sets, also for what a process gives to libraries: certificates are judged by it.

use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/clock.c");

/// A compiled library that moves the clock of the process that preloads it.
pub struct ClockShim {
    library: PathBuf,
}

impl ClockShim {
    /// None without a C compiler.
    pub fn compiled(folder: &Path) -> Option<Self> {
        let library = folder.join("clock.so");
        let cc = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(SOURCE).output();
        cc.is_ok_and(|output| output.status.success()).then_some(Self { library })
    }

    /// Variables for a process whose clock is off by the seconds that `file` says, whenever it says others.
    pub fn environment(&self, file: &Path) -> [(String, String); 2] {
        [
            ("LD_PRELOAD".to_owned(), self.library.display().to_string()),
            ("PIPEROLL_SHIM_CLOCK".to_owned(), file.display().to_string()),
        ]
    }

    /// Sets the clock. The file is renamed over the old one, so that nobody reads an empty one.
    pub fn set(file: &Path, seconds: i64) -> std::io::Result<()> {
        let new = file.with_extension("new");
        std::fs::write(&new, seconds.to_string())?;
        std::fs::rename(new, file)
    }
}
