//! Derivations are computed on several cores, and what comes of it depends on none of that.

use ferry_store::Store as _;
use nix_derivation::InputDerivation;
use proptest::prelude::*;
use rayon::ThreadPoolBuilder;

use crate::derivations::{World, made, random};
use crate::hostile_derivations::rebuilt;
use crate::objects::{Memory, Object};
use crate::packed::{coded, packed, sections, streams};
use crate::receiver::{count_same_nars, open};

/// What reading a bundle on so many threads comes to: all that it says, or why it is refused.
fn read_on(threads: usize, bundle: &[u8]) -> Result<Vec<String>, String> {
    let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let bundle = open(bundle).map_err(|error| error.to_string())?;
        let infos = bundle.path_infos().iter();
        let mut said: Vec<String> = infos.map(|info| format!("{info:?}")).collect();
        let read = bundle.read_nars(bundle.path_infos(), &mut |info, nar| {
            let mut bytes = Vec::new();
            nar.read_to_end(&mut bytes).unwrap();
            said.push(format!("{} {}", info.path, bytes.escape_ascii()));
            Ok(())
        });
        read.map(|()| said).map_err(|error| error.to_string())
    })
}

/// A bundle of derivations that were made up.
fn made_up(all: &[crate::derivations::Random]) -> Vec<u8> {
    let mut world = World::new("/nix/store");
    let mut earlier = Vec::new();
    for one in all {
        made(&mut world, one, &mut earlier);
    }
    let mut seen = std::collections::BTreeSet::new();
    world.objects.retain(|object| seen.insert(object.path().clone()));
    packed(&world.objects)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_number_of_threads_reads_the_same(all in prop::collection::vec(random(), 1..40)) {
        let bundle = made_up(&all);
        let alone = read_on(1, &bundle);
        prop_assert!(alone.is_ok());
        for threads in [2, 5] {
            prop_assert_eq!(&read_on(threads, &bundle), &alone);
        }
    }

    #[test]
    fn any_number_of_threads_refuses_for_the_same_reason(
        all in prop::collection::vec(random(), 2..16),
        changes in prop::collection::vec((0usize..3, any::<usize>(), any::<u8>()), 1..60),
    ) {
        let bundle = made_up(&all);
        let section = sections(&bundle).into_iter().find(|found| &found.name == b"DRVS");
        let lengths = streams(&section.unwrap().contents).map(|stream| stream.len());
        for (stream, at, value) in changes {
            let Some(at) = at.checked_rem(lengths[stream]) else { continue };
            let changed = rebuilt(&bundle, |streams| streams[stream][at] = value);
            prop_assert_eq!(read_on(4, &changed), read_on(1, &changed));
        }
    }
}

/// More than are held at a time, each with inputs far before it and right before it.
fn many(count: usize) -> Vec<Object> {
    let mut world = World::new("/nix/store");
    let mut paths: Vec<ferry_formats::StorePath> = Vec::new();
    for number in 0..count {
        let mut builder = world.builder(&format!("package{number}")).input_addressed_output("out");
        let inputs = [number.checked_sub(1), number.checked_sub(7), number.checked_div(2)];
        for input in inputs.into_iter().flatten().filter(|input| number % 50 > 0 && *input < number)
        {
            let out = InputDerivation::new(["out"]);
            builder = builder.input_derivation(paths[input].clone(), out);
        }
        paths.push(world.add(builder));
    }
    world.objects
}

#[test]
fn inputs_may_stand_any_number_of_derivations_before() {
    let objects = many(9_000);
    let bundle = packed(&objects);
    assert_eq!(coded(&bundle), objects.len());
    let pool = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let same = pool.install(|| count_same_nars(&open(&bundle).unwrap(), &Memory::of(&objects)));
    assert_eq!(same, objects.len());
}
