//! Dictionary of the values of a column within a block.

use std::io;

use super::layout::Section;

/// A dictionary of texts, read into memory.
pub(super) struct Dictionary {
    ends: Vec<u32>,
    texts: String,
}

impl Dictionary {
    pub(super) fn read(bytes: &[u8], part: &Section) -> io::Result<Self> {
        let (ends, texts) = bytes.split_at_checked(part.count as usize * 4).ok_or_else(damaged)?;
        let ends = ends.as_chunks::<4>().0.iter().map(|end| u32::from_le_bytes(*end)).collect();
        Ok(Self { ends, texts: String::from_utf8(texts.to_vec()).map_err(|_| damaged())? })
    }

    pub(super) fn len(&self) -> u32 {
        self.ends.len() as u32
    }

    pub(super) fn value(&self, place: u32) -> io::Result<&str> {
        let place = place as usize;
        let from = place.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        let to = self.ends.get(place).copied().unwrap_or(0);
        self.texts.get(from as usize..to as usize).ok_or_else(damaged)
    }
}

pub(super) fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the file is not a block of this index")
}
