//! `piperoll-verify`: the verifier as a separate program, for auditors.

use std::process::ExitCode;

use clap::Parser;
use piperoll_verify::{VerifyBundleArgs, run};

/// Check an evidence bundle offline
#[derive(Parser)]
#[command(
    name = "piperoll-verify",
    version,
    after_help = "Exit codes: 0 complete and verified, 1 unchecked or failed to run, 2 usage error or wrong file, 3 incomplete, 4 refused.\n\n\
                  Example:\n  piperoll-verify audit-2026-04-15_to_2026-05-12.tar --trust trust.toml"
)]
struct Args {
    #[command(flatten)]
    verify: VerifyBundleArgs,
}

fn main() -> ExitCode {
    match run(&Args::parse().verify, &mut std::io::stdout().lock()) {
        Ok(outcome) => ExitCode::from(outcome as u8),
        Err(problem) => {
            eprintln!("piperoll-verify: {problem}");
            ExitCode::FAILURE
        }
    }
}
