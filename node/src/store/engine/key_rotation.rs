//! Switches to the next MAC key.

use super::writer::Writer;
use crate::store::table::error::AppendError;

impl Writer {
    /// Switches to the newest secret for all further rows. Does nothing if the last row was already sealed with it.
    pub(in crate::store) fn keep_epoch(&mut self) -> Result<(), AppendError> {
        let Some(newest) = self.ring.newest_epoch() else { return Ok(()) };
        let Some(last) = self.last_epoch else {
            self.epoch = newest;
            return Ok(());
        };
        self.epoch = last;
        if newest < last {
            self.health.refuse_writes(format!(
                "the newest row is sealed under key epoch {last}, and node.toml names none above {newest}; name the secret of epoch {last} again"
            ));
            return Ok(());
        }
        if newest == last {
            return Ok(());
        }
        let Some(key) = self.ring.key(self.generation, newest).cloned() else { return Ok(()) };
        self.transact(|rows, now| rows.rotate(newest, key, now))?;
        self.epoch = newest;
        Ok(())
    }
}
