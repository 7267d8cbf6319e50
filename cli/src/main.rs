//! `piperoll`: the only binary, and the only crate that depends on both node and aggregator.

#![deny(clippy::print_stdout, reason = "`println!` panics when its output is closed; use `outln!`")]
#![deny(clippy::print_stderr, reason = "`eprintln!` panics when its output is full; use `errln!`")]

#[macro_use]
mod out;

mod address;
mod archive;
mod args;
mod cluster;
mod demo;
mod doctor;
mod documents;
mod exit;
mod local;
mod manual;
mod map;
mod remote;
mod report;
mod serve;
mod show;
mod token;

use clap::Parser as _;

use args::{Args, Command};
use exit::Exit;
use piperoll_verify::{Outcome, VerifyBundleArgs};

fn main() -> std::process::ExitCode {
    piperoll_net::crypto::install();
    let args = Args::parse_from(args::protect_negation(std::env::args_os()));
    if args.command.only_prints() {
        // Restore the default of SIGPIPE, so that `piperoll query | head` ends quietly like other commands. For a daemon the
        // signal stays ignored, because a daemon must outlive its terminal.
        sigpipe::reset();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            errln!("piperoll: cannot start the runtime: {error}");
            return Exit::Failed.into();
        }
    };
    let exit = runtime.block_on(run(args.command));
    // Blocking reads of standard input must not keep a finished command alive.
    runtime.shutdown_background();
    match exit {
        Ok(_) if let Some(error) = out::failure() => {
            errln!("piperoll: cannot write to standard output: {error}");
            Exit::Failed.into()
        }
        Ok(exit) => exit.into(),
        // `piperoll … | head` is not a failure.
        Err(error) if out::ReaderGone::is_in(&error) => Exit::Complete.into(),
        Err(error) => {
            errln!("piperoll: {}", in_one_line(&error));
            Exit::of(&error).into()
        }
    }
}

/// Joins the chain of causes into one line. Leaves out causes whose text the line already contains.
fn in_one_line(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !message.contains(&text) {
            let separator = if message.is_empty() { "" } else { ": " };
            message = format!("{message}{separator}{text}");
        }
    }
    message
}

async fn run(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Cluster(command) => cluster::run(command),
        Command::Node(command) => local::run(command).await,
        Command::Archive(command) => archive::run(*command).await,
        Command::Map(command) => map::run(command),
        Command::Aggregator(command) => serve::aggregator(command).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Query(args) => remote::query(args).await,
        Command::Tail(args) => remote::tail(args).await,
        Command::Report(command) => report::run(*command).await,
        Command::Show(args) => remote::show(args).await,
        Command::Verdict(args) => remote::verdict(args).await,
        Command::Export(args) => remote::export(args).await,
        Command::VerifyBundle(args) => verify_bundle(&args),
        Command::Stats(args) => remote::stats(args).await,
        Command::Verify(args) => remote::verify(args).await,
        Command::Nodes(args) => remote::nodes(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { directory } => manual::man(&directory),
        Command::Browse(args) => remote::browse(args).await,
    }
}

fn verify_bundle(args: &VerifyBundleArgs) -> anyhow::Result<Exit> {
    let outcome = piperoll_verify::run(args, &mut out::stdout()).map_err(anyhow::Error::msg)?;
    Ok(match outcome {
        Outcome::Verified => Exit::Complete,
        Outcome::Unchecked => Exit::Failed,
        Outcome::Usage => Exit::Usage,
        Outcome::Incomplete => Exit::Incomplete,
        Outcome::Refused => Exit::Violation,
    })
}
