//! `piperoll doctor`: checks everything on this machine that a daemon needs, and says how to fix what is wrong.

mod aggregator;
mod finding;
mod machine;
mod node;
mod run;

pub(crate) use run::run;
