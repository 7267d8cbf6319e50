//! What `piperoll demo` takes.

use std::path::PathBuf;

use clap::Args as ClapArgs;

#[derive(Debug, ClapArgs)]
pub(crate) struct DemoArgs {
    /// Directory to use (kept afterwards); a temporary one by default
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// End after the last step instead of running on; exit 0 only if every step showed what it should
    #[arg(long)]
    pub(crate) once: bool,
    /// Load real logs (NDJSON) instead of the built-in day
    #[arg(long, requires = "map")]
    pub(crate) import: Option<PathBuf>,
    /// Mapping for --import: a TOML file, or the name of a built-in one (cloudtrail)
    #[arg(long)]
    pub(crate) map: Option<String>,
}
