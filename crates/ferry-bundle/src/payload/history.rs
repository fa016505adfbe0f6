//! Payload that was seen, for later blocks to refer to.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::format::{BLOCK_SIZE, limit};

/// Blocks by number, put in by several threads in any order, read in parts by others.
pub(crate) struct History {
    state: Mutex<State>,
    changed: Condvar,
    /// How far back anybody will look, in bytes.
    reach: u64,
    /// Holds the blocks, where they are too many to be held in memory.
    file: Option<File>,
}

#[derive(Default)]
struct State {
    /// With its bytes, where they are in memory.
    blocks: BTreeMap<u64, Option<Arc<Vec<u8>>>>,
    /// No more will come.
    ended: bool,
}

impl History {
    /// For looking back `reach` bytes before a block. What is more than fits into memory goes to a file
    /// without a name in `directory`.
    pub(crate) fn new(reach: u64, directory: &Path) -> io::Result<Self> {
        let file = match reach > limit::HELD {
            true => Some(tempfile::tempfile_in(directory)?),
            false => None,
        };
        Ok(Self { state: Mutex::default(), changed: Condvar::new(), reach, file })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a block. The one before the last that anybody will look back from may be given up.
    pub(crate) fn put(&self, number: u64, block: &Arc<Vec<u8>>) -> io::Result<()> {
        if self.reach == 0 {
            return Ok(());
        }
        let start = number.saturating_mul(BLOCK_SIZE as u64);
        if let Some(file) = &self.file {
            file.write_all_at(block, start)?;
        }
        let mut state = self.state();
        state.blocks.insert(number, self.file.is_none().then(|| Arc::clone(block)));
        if self.file.is_none() {
            let oldest = start.saturating_sub(self.reach) / BLOCK_SIZE as u64;
            while state.blocks.first_key_value().is_some_and(|(first, _)| *first < oldest) {
                state.blocks.pop_first();
            }
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Wakes up whoever waits: no more blocks will come.
    pub(crate) fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
    }

    /// Fills `buffer` from `position` in the payload; waits for the blocks that hold it, which
    /// must be on their way.
    pub(crate) fn read(&self, mut position: u64, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            let number = position / BLOCK_SIZE as u64;
            let within = usize::try_from(position % BLOCK_SIZE as u64).unwrap_or_default();
            let count = buffer.len().min(BLOCK_SIZE - within);
            let (part, rest) = buffer.split_at_mut(count);
            let block = self.wait_for(number)?;
            match (&block, &self.file) {
                (Some(block), _) => match block.get(within..within + count) {
                    Some(bytes) => part.copy_from_slice(bytes),
                    None => return Err(io::ErrorKind::UnexpectedEof.into()),
                },
                (None, Some(file)) => file.read_exact_at(part, position)?,
                (None, None) => return Err(io::ErrorKind::NotFound.into()),
            }
            position += count as u64;
            buffer = rest;
        }
        Ok(())
    }

    fn wait_for(&self, number: u64) -> io::Result<Option<Arc<Vec<u8>>>> {
        let mut state = self.state();
        loop {
            if let Some(block) = state.blocks.get(&number) {
                return Ok(block.clone());
            }
            if state.ended {
                return Err(io::Error::other("a block that others need is not there"));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
