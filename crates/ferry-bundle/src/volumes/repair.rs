//! Writing volumes again that are missing or damaged.

use std::fs::File;
use std::io;

use sha2::{Digest as _, Sha256};

use super::header::{DIGEST, Header};
use super::names::Names;
use super::parity;
use super::set::{Condition, Volume, Volumes};
use super::write::{Begun, Unfinished};
use crate::{BundleError, Result};

impl Volumes {
    /// Writes those again that are missing or damaged, and returns them as they were before. They
    /// appear when all are whole, and not before the bundle was found to be the one that was
    /// divided. Those that whoever wrote them could not move to their places any more are moved.
    ///
    /// # Errors
    /// When not enough is left of the others, or something cannot be written. Then nothing has
    /// changed.
    pub fn repair(&self, begun: Begun) -> Result<Vec<Volume>> {
        let wrong = |volume: &Volume| volume.condition != Condition::Whole;
        let wanted: Vec<Volume> = self.check().into_iter().filter(wrong).collect();
        if wanted.is_empty() {
            self.put_in_place().map_err(self.not_written())?;
            return Ok(wanted);
        }
        let mut digest = Sha256::new();
        io::copy(&mut self.open()?, &mut digest).map_err(|error| self.carried(error))?;
        let digest: [u8; DIGEST] = digest.finalize().into();
        if digest != self.bundle_digest() {
            return Err(BundleError::Volumes {
                bundle: self.name(),
                reason: "what they hold together is not the bundle that was divided".to_owned(),
            });
        }
        self.write_again(&wanted, begun)?;
        self.put_in_place().map_err(self.not_written())?;
        Ok(wanted)
    }

    fn not_written(&self) -> impl FnOnce(io::Error) -> BundleError + use<> {
        BundleError::io(format!("write volumes of {}", self.name()))
    }

    fn carried(&self, error: io::Error) -> BundleError {
        BundleError::io(format!("read {}", self.name()))(error)
    }

    fn write_again(&self, wanted: &[Volume], mut begun: Begun) -> Result<()> {
        let failed = || self.not_written();
        let layout = self.inner.layout();
        let mut unfinished = wanted
            .iter()
            .map(|volume| {
                Unfinished::begin(&Names::of_bundle(&volume.file), volume.number, &mut begun)
            })
            .collect::<io::Result<Vec<_>>>()
            .map_err(failed())?;
        let parity_wanted = wanted.iter().any(|volume| volume.parity);
        for stripe in 0..layout.stripes() {
            let mut data = Vec::new();
            for number in 1..=layout.data {
                let needed = parity_wanted || wanted.iter().any(|volume| volume.number == number);
                data.push(if needed { self.inner.leaf(number, stripe)? } else { Vec::new() });
            }
            let mut again = Vec::new();
            if parity_wanted {
                let made = parity::encode(layout, layout.shard_length(stripe), data.clone());
                again = made.map_err(|reason| failed()(io::Error::other(reason)))?;
            }
            data.extend(again);
            for volume in &mut unfinished {
                if let Some(leaf) = data.get(volume.number() as usize - 1)
                    && layout.leaf_length(volume.number(), stripe) > 0
                {
                    volume.put(leaf).map_err(failed())?;
                }
            }
        }
        self.finish(wanted, unfinished).map_err(failed())
    }

    fn finish(&self, wanted: &[Volume], unfinished: Vec<Unfinished>) -> io::Result<()> {
        let mut written = Vec::new();
        for volume in unfinished {
            let number = volume.number();
            let volume = volume.written()?;
            volume.seal(&Header { number, root: volume.root(), ..*self.inner.header() })?;
            written.push(volume);
        }
        for (volume, wanted) in written.into_iter().zip(wanted) {
            volume.persist(&wanted.file)?;
            File::open(Names::of_bundle(&wanted.file).directory())?.sync_all()?;
        }
        Ok(())
    }
}
