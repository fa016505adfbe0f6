//! The bundle in its volumes, as one file.

use std::io::{self, Read, Seek, SeekFrom};

use super::set::Volumes;
use crate::BundleError;

/// Reads the bundle in a set of volumes. What is missing or damaged is computed from parity.
pub struct VolumeReader {
    volumes: Volumes,
    position: u64,
    /// A leaf and where it stands in the bundle.
    leaf: (u64, Vec<u8>),
    /// Whether what cannot be restored reads as zeros.
    even_damaged: bool,
}

impl Volumes {
    /// Opens the bundle.
    ///
    /// # Errors
    /// When there are not enough volumes.
    pub fn open(&self) -> crate::Result<VolumeReader> {
        self.require_enough()?;
        Ok(self.reader(false))
    }

    /// Opens the bundle even where there are not enough volumes: what neither they nor parity have
    /// reads as zeros.
    #[must_use]
    pub fn open_even_damaged(&self) -> VolumeReader {
        self.reader(true)
    }

    fn reader(&self, even_damaged: bool) -> VolumeReader {
        VolumeReader { volumes: self.clone(), position: 0, leaf: (0, Vec::new()), even_damaged }
    }
}

impl VolumeReader {
    fn load(&mut self) -> Result<(), BundleError> {
        let layout = *self.volumes.inner.layout();
        let leaf = u64::from(layout.leaf);
        let (before, within) = (self.position / layout.capacity, self.position % layout.capacity);
        let number = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
        let stripe = within / leaf;
        let read = match self.volumes.inner.leaf(number, stripe) {
            Err(_) if self.even_damaged => vec![0; layout.leaf_length(number, stripe)],
            read => read?,
        };
        self.leaf = (before * layout.capacity + stripe * leaf, read);
        Ok(())
    }

    /// What is known from the position on.
    fn loaded(&self) -> &[u8] {
        let (start, leaf) = &self.leaf;
        let within =
            self.position.checked_sub(*start).and_then(|within| usize::try_from(within).ok());
        within.and_then(|within| leaf.get(within..)).unwrap_or_default()
    }
}

impl Read for VolumeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.position >= self.volumes.bundle_size() {
            return Ok(0);
        }
        if self.loaded().is_empty() {
            // Carried as the error type that a copy looks for in a failed read.
            self.load().map_err(|error| io::Error::other(ferry_store::Error::from(error)))?;
        }
        let count = self.loaded().read(buffer)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for VolumeReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(by) => self.volumes.bundle_size().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
