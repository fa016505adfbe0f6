//! Derivations are coded on a thread of their own, while the next ones are read and checked.

use std::collections::BTreeMap;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, bounded};
use ferry_formats::{PathInfo, nar};

use super::Encoder;

/// Bytes of NARs that are handed over together, and how many times that may wait.
const LOT: usize = 256 << 10;
const QUEUE: usize = 2;

/// Takes derivations in.
pub(crate) struct Coder {
    lot: Vec<Checked>,
    /// Bytes in it.
    size: usize,
    lots: Sender<Vec<Checked>>,
    thread: JoinHandle<Coded>,
}

/// A derivation whose NAR was checked.
pub(crate) struct Checked {
    /// Where it stands in the plan.
    pub(crate) place: usize,
    pub(crate) info: PathInfo,
    pub(crate) nar: Vec<u8>,
}

/// What has become of them.
pub(crate) struct Coded {
    pub(crate) encoder: Encoder,
    /// The NARs of those that cannot be coded, by their places.
    pub(crate) kept: BTreeMap<usize, Vec<u8>>,
}

impl Coder {
    pub(crate) fn start(mut encoder: Encoder) -> Self {
        let (lots, queue) = bounded::<Vec<Checked>>(QUEUE);
        let thread = thread::spawn(move || {
            let mut kept = BTreeMap::new();
            for Checked { place, info, nar } in queue.into_iter().flatten() {
                let coded =
                    nar::file_contents(&nar).is_some_and(|text| encoder.add(place, &info, text));
                if !coded {
                    kept.insert(place, nar);
                }
            }
            Coded { encoder, kept }
        });
        Self { lot: Vec::new(), size: 0, lots, thread }
    }

    /// Takes in the next one. Inputs come before their dependents.
    pub(crate) fn add(&mut self, derivation: Checked) {
        self.size += derivation.nar.len();
        self.lot.push(derivation);
        if self.size >= LOT {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        self.size = 0;
        // If nobody takes it, the thread has ended, and `finish` says why.
        let _ = self.lots.send(std::mem::take(&mut self.lot));
    }

    /// Waits until all of them are coded.
    pub(crate) fn finish(mut self) -> Coded {
        self.hand_over();
        drop(self.lots);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
