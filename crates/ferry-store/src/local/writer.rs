//! Adding paths to a store on disk.
//!
//! An object is unpacked beside its place, checked, and moved there; then it is registered.
//! Objects are moved and registered in batches, each batch one transaction, which is committed
//! after the objects have reached the disk: whatever moment the machine stops at, a path that is
//! valid is whole and in its place. A path that is there without being valid is left over from somebody who was
//! interrupted, and is replaced.
//!
//! Two threads share the work: the caller's reads and checks NARs, the other unpacks those that
//! are small (which is most of them) and registers. Large ones are unpacked as they are read.
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
    worker: Option<JoinHandle<Result<()>>>,
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
            Registrar::new(layout.clone(), connection, Arc::clone(&staging), store_lock);
        registrar.require(plan.relied_on())?;
        let (handed, receiver) = sync_channel(QUEUE);
        let worker = {
            let (layout, staging) = (layout.clone(), Arc::clone(&staging));
            std::thread::spawn(move || work(&layout, &staging, registrar, &receiver))
        };
        Ok(Self {
            layout: layout.clone(),
            staging,
            handed: Some(handed),
            worker: Some(worker),
            _roots: roots,
        })
    }

    fn hand_over(&mut self, item: Handed) -> Result<()> {
        let taken = self.handed.as_ref().is_some_and(|handed| handed.send(item).is_ok());
        // Otherwise the other thread has given up, and knows why.
        if taken { Ok(()) } else { self.join() }
    }

    /// Waits for the other thread and returns its failure, if it has one.
    fn join(&mut self) -> Result<()> {
        self.handed = None;
        match self.worker.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            _ => Err(Error::Io {
                action: format!("write to {}", self.layout.describe()),
                source: io::Error::other("the writing thread ended"),
            }),
        }
    }
}

/// What the other thread does: everything that was handed over, in that order.
fn work(
    layout: &Layout,
    staging: &Staging,
    mut registrar: Registrar,
    handed: &Receiver<Handed>,
) -> Result<()> {
    for item in handed {
        let staged = match item {
            Handed::Finish => return registrar.finish(),
            Handed::Staged(staged) => staged,
            Handed::Nar(nar, verified) => {
                let path = layout.store_dir.render_path(&verified.info().path);
                staging.unpack_verified(&path, &nar, verified)?
            }
        };
        registrar.add(staged)?;
    }
    // Given up: what is not registered is not kept.
    Ok(())
}

impl StoreWriter for LocalWriter {
    fn add(&mut self, admitted: Admitted<'_>) -> Result<()> {
        let path = self.layout.store_dir.render_path(&admitted.info().path);
        if admitted.info().nar_size > SMALL {
            let staged = self.staging.unpack(&path, admitted)?;
            return self.hand_over(Handed::Staged(staged));
        }
        let size = usize::try_from(admitted.info().nar_size).unwrap_or_default();
        let mut bytes = Vec::with_capacity(size);
        let verified = admitted.verify(|nar| {
            let read = nar.read_to_end(&mut bytes);
            read.map(drop).map_err(Error::reading(format!("read the NAR of {path}")))
        })?;
        self.hand_over(Handed::Nar(bytes, verified))
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.hand_over(Handed::Finish)?;
        self.join()
    }
}

impl Drop for LocalWriter {
    fn drop(&mut self) {
        if self.worker.is_some() {
            // Why it was given up is known to whoever gave it up.
            drop(self.join());
        }
    }
}
