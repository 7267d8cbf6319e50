//! `piperoll doctor`: checks everything on this machine that a daemon needs, and prints how to fix problems.

mod aggregator;
mod finding;
mod machine;
mod node;
mod run;

pub(crate) use run::run;
