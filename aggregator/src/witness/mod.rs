//! The witness: remembers the largest log it has seen of every node, and cosigns it (docs/format.md, "Witness"; the
//! rules are those of C2SP tlog-witness).
//!
//! A node can lose, cut or rewrite what it holds; it cannot make somebody else forget what it signed. The witness
//! never delays an append: nodes do not wait for it, and it looks at each of them on its own.

mod accept;
mod aside;
mod earlier;
mod exchange;
mod floor;
mod floor_look;
mod gone;
mod judge;
mod look;
mod memory;
mod poll;
mod watch;

pub(crate) use accept::{AcceptError, Acceptance, accept};
pub(crate) use exchange::{run as exchange, write_pins};
pub(crate) use floor::{Floor, Keeping};
pub(crate) use look::{look, look_unless_looked_at};
pub(crate) use poll::watch;
pub(crate) use watch::{LostHere, Standing, VERDICTS, Watch};
