//! Derivations that a store has already, and that those in a bundle are checked against.

use ferry_bundle::verify_against;
use ferry_formats::{NarHash, StoreDir, StorePath};
use ferry_store::admission::Plan;
use ferry_store::local::LocalStore;
use ferry_store::progress::Silent;
use ferry_store::trust::TrustPolicy;
use ferry_store::{Destination, Error, Result, SignatureCheck, Store, StoreWriter};
use nix_derivation::InputDerivation;

use crate::derivations::World;
use crate::objects::{Memory, Object};
use crate::receiver::{Receiver, open};
use crate::thin::{closed, receiver_with, the_rest_comes_back};

/// A store that is asked for texts in one way only.
struct Asked<'a> {
    store: &'a LocalStore,
    /// Whether it gives them one at a time.
    single: bool,
    /// Where many are read at a time.
    many: Option<&'a dyn Store>,
}

impl Destination for Asked<'_> {
    fn store_dir(&self) -> &StoreDir {
        Destination::store_dir(self.store)
    }

    fn describe(&self) -> String {
        Destination::describe(self.store)
    }

    fn present(&self, paths: &[StorePath]) -> Result<Vec<Option<NarHash>>> {
        self.store.present(paths)
    }

    fn derivation_text(&self, path: &StorePath) -> Result<Vec<u8>> {
        match self.single {
            true => Destination::derivation_text(self.store, path),
            false => Err(Error::NotValid { path: path.to_basename(), store: self.describe() }),
        }
    }

    fn derivations(&self) -> Option<&dyn Store> {
        self.many
    }

    fn signature_check(&self) -> SignatureCheck<'_> {
        self.store.signature_check()
    }

    fn writer<'a>(&'a self, plan: &'a Plan) -> Result<Box<dyn StoreWriter + 'a>> {
        self.store.writer(plan)
    }
}

/// Derivations each made of the one before; all but the last are there already.
fn chain() -> (Vec<Object>, Receiver, Vec<u8>) {
    let mut world = World::new("/nix/store");
    let mut last: Option<StorePath> = None;
    for number in 0..12 {
        let mut builder = world.builder(&format!("link{number}")).input_addressed_output("out");
        if let Some(input) = last {
            builder = builder.input_derivation(input, InputDerivation::new(["out"]));
        }
        last = Some(world.add(builder));
    }
    let objects = world.objects;
    let there = closed(&objects, |place| place + 1 < objects.len());
    let bundle = the_rest_comes_back(&objects, &there);
    let receiver = receiver_with(&objects, &there);
    (objects, receiver, bundle)
}

fn verified(bundle: &[u8], asked: &Asked<'_>) -> Result<usize> {
    let report = verify_against(&open(bundle)?, asked, &TrustPolicy::accept_all(), &Silent)?;
    Ok(report.copied.added)
}

#[test]
fn they_are_read_many_at_a_time() {
    let (_, receiver, bundle) = chain();
    let store = &receiver.store;
    let together = Asked { store, single: false, many: Some(store) };
    assert_eq!(verified(&bundle, &together).unwrap(), 1);
    // They are asked for.
    verified(&bundle, &Asked { store, single: false, many: None }).unwrap_err();
}

#[test]
fn what_cannot_be_read_together_is_looked_up_by_itself() {
    let (objects, receiver, bundle) = chain();
    let store = &receiver.store;
    for there in [0, 5, objects.len() - 1] {
        let some = Memory::of(&objects[..there]);
        let apart = Asked { store, single: true, many: Some(&some) };
        assert_eq!(verified(&bundle, &apart).unwrap(), 1);
    }
}
