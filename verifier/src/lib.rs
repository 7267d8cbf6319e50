//! Checks evidence bundles offline, without network, secrets or database. `piperoll_evidence::bundle` does the verification; this
//! crate reads the files, prints the verdict and sets the exit code.

use std::io::Write;
use std::path::{Path, PathBuf};

pub use piperoll_evidence::bundle::Outcome;
use piperoll_evidence::bundle::{BUNDLE_BYTES_MAX, TRUST_BYTES_MAX, Trust, Verdict, render_verdict, verify_bundle};

/// Arguments of the verification: the files to check and the output format.
#[derive(Debug, Clone, clap::Args)]
pub struct VerifyBundleArgs {
    /// The bundle, as `piperoll export --bundle` wrote it
    pub bundle: PathBuf,
    /// The cluster's trust file, from its administrators (`piperoll cluster trust`), never from the author of the bundle. Without
    /// it, the keys inside the bundle are used, which proves nothing, and the exit code is never 0
    #[arg(long)]
    pub trust: Option<PathBuf>,
    /// Print the verdict as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Checks a bundle and writes the verdict to `out`.
pub fn run(args: &VerifyBundleArgs, out: &mut impl Write) -> Result<Outcome, String> {
    let trust = match &args.trust {
        None => None,
        Some(path) => {
            let bytes = read(path, TRUST_BYTES_MAX)?;
            let text = String::from_utf8(bytes).map_err(|_| format!("{}: not UTF-8 text", path.display()))?;
            Some(Trust::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?)
        }
    };
    let bundle = read(&args.bundle, BUNDLE_BYTES_MAX)?;
    let verdict = verify_bundle(&bundle, trust.as_ref());
    let outcome = Outcome::of(&verdict);
    let said = if args.json { json(&verdict, outcome) } else { render_verdict(&verdict, outcome) };
    out.write_all(said.as_bytes()).map_err(|error| format!("cannot write to standard output: {error}"))?;
    Ok(outcome)
}

fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, String> {
    let message = |error: std::io::Error| format!("{}: {error}", path.display());
    let bytes = std::fs::metadata(path).map_err(message)?.len();
    if bytes > bytes_max as u64 {
        return Err(format!("{}: {bytes} bytes, more than the limit of {bytes_max}", path.display()));
    }
    std::fs::read(path).map_err(message)
}

fn json(verdict: &Verdict, outcome: Outcome) -> String {
    let mut value = serde_json::to_value(verdict).unwrap_or_default();
    value["outcome"] = outcome.word().into();
    format!("{value}\n")
}
