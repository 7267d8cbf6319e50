//! `piperoll man` and `piperoll completions`: generates man pages and completions from the arguments.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Args;
use crate::exit::Exit;

/// Writes a page for the program and one for every command, such as `piperoll-node-append.1`.
pub(crate) fn man(directory: &Path) -> anyhow::Result<Exit> {
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    clap_mangen::generate_to(Args::command(), directory).with_context(|| directory.display().to_string())?;
    Ok(Exit::Complete)
}

pub(crate) fn completions(shell: Shell) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "piperoll", &mut script);
    crate::out::stdout().write_all(&script)?;
    Ok(Exit::Complete)
}
