//! Writes to standard output. A command continues its work when the pipe is closed, and fails when output cannot be written.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::sync::OnceLock;

static FAILURE: OnceLock<std::io::Error> = OnceLock::new();

/// Prints a line to standard output like `println!`, but never panics.
macro_rules! outln {
    () => { $crate::out::write(&mut std::io::stdout(), format_args!("\n")) };
    ($($message:tt)*) => {
        $crate::out::write(&mut std::io::stdout(), format_args!("{}\n", format_args!($($message)*)))
    };
}

/// Prints a line with colors, which are left out if standard output is not a terminal.
macro_rules! paintln {
    ($($message:tt)*) => {
        $crate::out::write(&mut anstream::stdout(), format_args!("{}\n", format_args!($($message)*)))
    };
}

/// Prints a line to standard error like `eprintln!`, but never panics, because a failure of standard error cannot be reported.
macro_rules! errln {
    () => { $crate::out::write_stderr(format_args!("\n")) };
    ($($message:tt)*) => { $crate::out::write_stderr(format_args!("{}\n", format_args!($($message)*))) };
}

/// Writes to standard error, with colors if it is a terminal.
pub(crate) fn write_stderr(text: Arguments<'_>) {
    let _ = anstream::stderr().write_fmt(text);
}

/// Writes to standard output. A pipe closed by its reader, such as `head`, is not a failure; any other error is kept for `failure`.
pub(crate) fn write(out: &mut impl Write, text: Arguments<'_>) {
    if let Err(error) = out.write_fmt(text)
        && error.kind() != ErrorKind::BrokenPipe
    {
        let _ = FAILURE.set(error);
    }
}

/// Error of a write to a standard output that its reader has closed. It ends the command without a failure; any other broken pipe
/// or socket is a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("standard output is closed")]
pub(crate) struct ReaderGone;

impl ReaderGone {
    /// Whether an error was caused by a closed standard output.
    pub(crate) fn is_in(error: &anyhow::Error) -> bool {
        let mut inputs = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
        inputs.any(|io| io.get_ref().is_some_and(|inner| inner.is::<Self>()))
    }
}

/// Standard output for a command that stops when the pipe is closed.
pub(crate) struct Stdout(std::io::Stdout);

pub(crate) fn stdout() -> Stdout {
    Stdout(std::io::stdout())
}

fn marked(error: std::io::Error) -> std::io::Error {
    if error.kind() == ErrorKind::BrokenPipe { std::io::Error::new(ErrorKind::BrokenPipe, ReaderGone) } else { error }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes).map_err(marked)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush().map_err(marked)
    }
}

/// Returns the first error of `write` in this process.
pub(crate) fn failure() -> Option<&'static std::io::Error> {
    FAILURE.get()
}
