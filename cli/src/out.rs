//! Standard output. A command whose reader is gone carries on with its work, and one whose output cannot be written fails.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};
use std::sync::OnceLock;

static FAILURE: OnceLock<std::io::Error> = OnceLock::new();

/// Prints a line to standard output, as `println!` does, without its panic.
macro_rules! outln {
    () => { $crate::out::write(&mut std::io::stdout(), format_args!("\n")) };
    ($($words:tt)*) => {
        $crate::out::write(&mut std::io::stdout(), format_args!("{}\n", format_args!($($words)*)))
    };
}

/// Prints a line with colors, which are left out where standard output is no terminal.
macro_rules! paintln {
    ($($words:tt)*) => {
        $crate::out::write(&mut anstream::stdout(), format_args!("{}\n", format_args!($($words)*)))
    };
}

/// Writes to standard output. A reader that has read enough, such as `head`, is no failure; any other error is kept for `failure`.
pub(crate) fn write(out: &mut impl Write, text: Arguments<'_>) {
    if let Err(error) = out.write_fmt(text)
        && error.kind() != ErrorKind::BrokenPipe
    {
        let _ = FAILURE.set(error);
    }
}

/// Returns the first error of `write` in this process.
pub(crate) fn failure() -> Option<&'static std::io::Error> {
    FAILURE.get()
}
