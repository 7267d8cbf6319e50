//! A wall clock that a test sets by preloading a library. Libraries in the process see this clock too, for example when they
//! validate certificates.

use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/support/clock.c");

/// Part of the path of the loader in a dynamically linked program (ELF, `PT_INTERP`). The first `HEAD_BYTES` bytes of the file
/// are searched for it.
const LOADER: &[u8] = b"/ld-";
const HEAD_BYTES: u64 = 4_096;

/// A compiled library that changes the clock of a process that preloads it.
pub struct ClockShim {
    library: PathBuf,
}

impl ClockShim {
    /// Returns whether a program loads shared libraries. The clock of a statically linked program cannot be changed.
    pub fn can_reach(program: &Path) -> bool {
        let mut head = Vec::new();
        let file = std::fs::File::open(program).unwrap();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, HEAD_BYTES), &mut head).unwrap();
        head.windows(LOADER.len()).any(|window| window == LOADER)
    }

    /// Compiles the library; returns `None` without a C compiler.
    pub fn compiled(folder: &Path) -> Option<Self> {
        let library = folder.join("clock.so");
        let cc = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(SOURCE).output();
        cc.is_ok_and(|output| output.status.success()).then_some(Self { library })
    }

    /// Returns the environment of a process whose clock is off by the number of seconds in `file`. The number may change while
    /// the process runs.
    pub fn environment(&self, file: &Path) -> [(String, String); 2] {
        [
            ("LD_PRELOAD".to_owned(), self.library.display().to_string()),
            ("PIPEROLL_SHIM_CLOCK".to_owned(), file.display().to_string()),
        ]
    }

    /// Sets the clock. The new file is renamed over the old one, so that no process reads an empty file.
    pub fn set(file: &Path, seconds: i64) -> std::io::Result<()> {
        let new = file.with_extension("new");
        std::fs::write(&new, seconds.to_string())?;
        std::fs::rename(new, file)
    }
}
