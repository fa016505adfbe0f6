//! Adding paths to a store on disk.
//!
//! An object is unpacked beside its place, checked, and moved there; then it is registered.
//! Objects are moved and registered in batches, each batch one transaction, which is committed
//! after the objects have reached the disk: whatever moment the machine stops at, a path that is
//! valid is whole and in its place. A path that is there without being valid is left over from somebody who was
//! interrupted, and is replaced.
//!
//! Three threads share the work: the caller's reads and checks NARs, one unpacks those that are
//! small (which is most of them), and one registers. Large ones are unpacked as they are read.
//!
//! Temporary roots keep the garbage collector from the new paths, from what they refer to, and
//! from the directory where objects are unpacked. (Holding the collector's lock all the while
//! would do, too; but Nix collects while it adds a path when space is short, and would wait for
//! us while we wait for it.)

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::layout::Layout;
use super::locks::StoreLock;
use super::registrar::Registrar;
use super::roots::TemporaryRoots;
use super::schema;
use super::staging::{Staged, Staging};
use crate::admission::{Admitted, Plan, Verified};
use crate::{Error, Result, StoreWriter};

/// NARs up to this size in bytes are handed over in memory.
const SMALL: u64 = 1 << 20;
/// How many objects may wait to be unpacked.
const QUEUE: usize = 32;
/// How many may wait to be registered: unpacking goes on while a batch is brought to the disk.
const UNPACKED: usize = 4096;

enum Handed {
    /// A checked NAR to be unpacked.
    Nar(Vec<u8>, Verified),
    /// An object that is unpacked already.
    Staged(Staged),
    /// That was all: register what there is.
    Finish,
}

pub(super) struct LocalWriter {
    layout: Layout,
    staging: Arc<Staging>,
    handed: Option<SyncSender<Handed>>,
    /// The one that registers, whose failure comes first, and the one that unpacks.
    workers: Vec<JoinHandle<Result<()>>>,
    _roots: TemporaryRoots,
}

impl LocalWriter {
    pub(super) fn new(layout: &Layout, plan: &Plan) -> Result<Self> {
        schema::create_directories(layout)?;
        let store_lock = StoreLock::hold(&layout.state_dir.join("db/big-lock"))?;
        let connection = schema::open_for_writing(layout)?;
        let staging_path = Staging::new_path();
        let held: Vec<_> = (plan.infos().iter().map(|info| &info.path))
            .chain(plan.relied_on())
            .chain([&staging_path])
            .cloned()
            .collect();
        let roots = TemporaryRoots::new(layout, &held)?;
        let staging = Arc::new(Staging::create(layout, &staging_path)?);
        let mut registrar =
            Registrar::new(layout.clone(), connection, Arc::clone(&staging), store_lock)?;
        registrar.require(plan.relied_on())?;
        let (handed, to_unpack) = sync_channel(QUEUE);
        let (unpacked, to_register) = sync_channel(UNPACKED);
        let registering = std::thread::spawn(move || register(registrar, &to_register));
        let unpacking = {
            let (layout, staging) = (layout.clone(), Arc::clone(&staging));
            std::thread::spawn(move || unpack(&layout, &staging, &to_unpack, &unpacked))
        };
        Ok(Self {
            layout: layout.clone(),
            staging,
            handed: Some(handed),
            workers: vec![registering, unpacking],
            _roots: roots,
        })
    }

    fn hand_over(&mut self, item: Handed) -> Result<()> {
        let taken = self.handed.as_ref().is_some_and(|handed| handed.send(item).is_ok());
        // Otherwise the other threads have given up, and know why.
        if taken { Ok(()) } else { self.join() }
    }

    /// Waits for the other threads and returns their failure, if there is one.
    fn join(&mut self) -> Result<()> {
        self.handed = None;
        let outcomes: Vec<_> = self.workers.drain(..).map(JoinHandle::join).collect();
        let ended = || Error::Io {
            action: format!("write to {}", self.layout.describe()),
            source: io::Error::other("a writing thread ended"),
        };
        if outcomes.is_empty() {
            return Err(ended());
        }
        outcomes.into_iter().try_for_each(|outcome| outcome.unwrap_or_else(|_| Err(ended())))
    }
}

/// Unpacks everything that is handed over, and hands it on in that order; `None` is the end.
fn unpack(
    layout: &Layout,
    staging: &Staging,
    handed: &Receiver<Handed>,
    unpacked: &SyncSender<Option<Staged>>,
) -> Result<()> {
    for item in handed {
        let staged = match item {
            Handed::Finish => None,
            Handed::Staged(staged) => Some(staged),
            Handed::Nar(nar, verified) => {
                Some(staging.unpack_verified(&layout.store_dir, &nar, verified)?)
            }
        };
        // Where nobody registers any more, that thread says why.
        if unpacked.send(staged).is_err() {
            break;
        }
    }
    Ok(())
}

/// Registers everything that is unpacked, in that order.
fn register(mut registrar: Registrar, unpacked: &Receiver<Option<Staged>>) -> Result<()> {
    for staged in unpacked {
        match staged {
            Some(staged) => registrar.add(staged)?,
            None => return registrar.finish(),
        }
    }
    // Given up: what is not registered is not kept.
    Ok(())
}

impl StoreWriter for LocalWriter {
    fn add(&mut self, admitted: Admitted<'_>) -> Result<()> {
        if admitted.info().nar_size > SMALL {
            let staged = self.staging.unpack(&self.layout.store_dir, admitted)?;
            return self.hand_over(Handed::Staged(staged));
        }
        let (nar, verified) = admitted.read_whole()?;
        self.hand_over(Handed::Nar(nar, verified))
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.hand_over(Handed::Finish)?;
        self.join()
    }
}

impl Drop for LocalWriter {
    fn drop(&mut self) {
        if !self.workers.is_empty() {
            // Why it was given up is known to whoever gave it up.
            drop(self.join());
        }
    }
}
