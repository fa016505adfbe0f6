//! Bundles as they are really written, and taken apart by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use ferry_bundle::{BundleWriter, DerivationBase, PackOptions, Prerequisites};
use ferry_formats::keys::SecretKey;
use ferry_formats::{PathInfo, StorePath};
use ferry_store::leave_out::leave_out;
use ferry_store::progress::Silent;
use ferry_store::{Store as _, copy};

use crate::builder::{Section, number};
use crate::objects::{Memory, Object, key};

/// Bytes that a writer on another thread leaves.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A bundle as `ferry pack` makes it.
pub(crate) fn packed(objects: &[Object]) -> Vec<u8> {
    packed_from(&Memory::of(objects), objects, 9, vec![key()])
}

/// Everything in a store; the last of `objects` is the root.
pub(crate) fn packed_from(
    store: &Memory,
    objects: &[Object],
    level: i32,
    sign_with: Vec<SecretKey>,
) -> Vec<u8> {
    let roots = objects.last().map(|object| object.path().clone()).into_iter().collect();
    let prerequisites = Prerequisites::default();
    let set = "runtime".to_owned();
    let options =
        PackOptions { set, roots, level, sign_with, prerequisites, ..PackOptions::default() };
    written(store, store.infos(), options)
}

/// Without what is `there`, signed by [`key`].
pub(crate) fn packed_without(
    store: &Memory,
    objects: &[Object],
    there: &BTreeSet<StorePath>,
) -> Vec<u8> {
    packed_on(store, objects, there, &[])
}

/// The same, where the payload is said to build on the content of `bases`.
pub(crate) fn packed_on(
    store: &Memory,
    objects: &[Object],
    there: &BTreeSet<StorePath>,
    bases: &[PathInfo],
) -> Vec<u8> {
    let thinned = leave_out(store.infos(), &|path| there.contains(path));
    let mut prerequisites =
        Prerequisites::new(store, &thinned.carried, &thinned.prerequisites).unwrap();
    bases.iter().for_each(|base| prerequisites.add_content_base(base));
    let roots = objects.last().map(|object| object.path().clone()).into_iter().collect();
    let (set, sign_with) = ("runtime".to_owned(), vec![key()]);
    let options =
        PackOptions { set, roots, level: 3, sign_with, prerequisites, ..PackOptions::default() };
    written(store, thinned.carried, options)
}

/// Without what is `there`, and against what `base` is made of, which is there too.
pub(crate) fn packed_against(
    store: &Memory,
    objects: &[Object],
    there: &BTreeSet<StorePath>,
    base: &[StorePath],
) -> Vec<u8> {
    let base = DerivationBase::read(store, base).unwrap();
    let infos = objects.iter().map(|object| (object.path().clone(), object.info.clone()));
    let is_there = |path: &StorePath| there.contains(path) || base.contains(path);
    let thinned = leave_out(infos.collect(), &is_there);
    let left = &thinned.prerequisites;
    let prerequisites =
        Prerequisites::with_base(store, &thinned.carried, left, Some(base)).unwrap();
    let roots = objects.last().map(|object| object.path().clone()).into_iter().collect();
    let (set, sign_with) = ("recipe".to_owned(), vec![key()]);
    let options =
        PackOptions { set, roots, level: 9, sign_with, prerequisites, ..PackOptions::default() };
    written(store, thinned.carried, options)
}

pub(crate) fn written(
    store: &Memory,
    infos: BTreeMap<StorePath, PathInfo>,
    options: PackOptions,
) -> Vec<u8> {
    let sink = Shared::default();
    let directory = store.store_dir().clone();
    let writer = BundleWriter::new(sink.clone(), "test".to_owned(), directory, options);
    copy(store, &writer, infos, &[], &Silent).unwrap();
    sink.take()
}

/// The sections of a bundle, `SIGN` without signatures.
pub(crate) fn sections(bundle: &[u8]) -> Vec<Section> {
    let mut rest = &bundle[12..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let name: [u8; 4] = rest[..4].try_into().unwrap();
        let length = u64::from_le_bytes(rest[4..12].try_into().unwrap()) as usize;
        let contents = match &name {
            b"SIGN" => [&rest[12..44], b"\0"].concat(),
            _ => rest[12..12 + length].to_vec(),
        };
        found.push(Section::new(&name, contents));
        rest = &rest[12 + length..];
    }
    found
}

/// Where a section with streams in it has them, decompressed.
pub(crate) fn streams(section: &[u8]) -> [Vec<u8>; 3] {
    let mut rest = section;
    let sizes: Vec<(usize, usize)> =
        (0..3).map(|_| (take_number(&mut rest), take_number(&mut rest))).collect();
    std::array::from_fn(|number| {
        let (plain, size) = sizes[number];
        let (stream, behind) = rest.split_at(size);
        rest = behind;
        if plain == size { stream.to_vec() } else { zstd::bulk::decompress(stream, plain).unwrap() }
    })
}

/// A section with these streams, stored as they are.
pub(crate) fn stored(streams: &[Vec<u8>; 3]) -> Vec<u8> {
    let mut out = Vec::new();
    for stream in streams {
        number(&mut out, stream.len() as u64);
        number(&mut out, stream.len() as u64);
    }
    streams.iter().for_each(|stream| out.extend(stream));
    out
}

pub(crate) fn take_number(bytes: &mut &[u8]) -> usize {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let (byte, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        number |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}

/// How many derivations a bundle has in coded form.
pub(crate) fn coded(bundle: &[u8]) -> usize {
    let section = sections(bundle).into_iter().find(|section| &section.name == b"DRVS").unwrap();
    let numbers = &streams(&section.contents)[0];
    let mut numbers = numbers.as_slice();
    // Those that are given.
    take_number(&mut numbers);
    take_number(&mut numbers)
}
