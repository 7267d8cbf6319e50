//! Arguments of `piperoll demo`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

#[derive(Debug, ClapArgs)]
pub(crate) struct DemoArgs {
    /// Directory to use, which is kept; a temporary one by default
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Exit after the last step, with 0 only if every step showed the expected result
    #[arg(long)]
    pub(crate) once: bool,
    /// Load these logs instead of the built-in day of events
    #[arg(long, requires = "map")]
    pub(crate) import: Option<PathBuf>,
    /// Mapping for --import: a TOML file, or the name of a built-in mapping such as cloudtrail
    #[arg(long)]
    pub(crate) map: Option<String>,
}
