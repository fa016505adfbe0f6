//! A bundle as a source of facts.

use std::fs;

use ferry_bundle::Bundle;
use ferry_formats::{StoreDir, StorePath};
use ferry_graph::{Explorer, Facts, Kind, NodeSet};
use ferry_store::closure::closure;
use ferry_store::facts::StoreFacts;
use ferry_store::{Error, Store as _};

use crate::builder::Draft;
use crate::objects::{Memory, Object, sample};
use crate::receiver::{Receiver, open};

/// What a source answers to every kind of question, written out.
fn answers(facts: Box<dyn Facts + '_>) -> Vec<String> {
    let mut explorer = Explorer::new(StoreDir::default());
    explorer.add_source(facts);
    let all = explorer.everything().unwrap();
    let mut sets = vec![all.clone()];
    for object in explorer.sorted(&all) {
        let object = NodeSet::from_iter([object]);
        sets.push(explorer.immediate(Kind::Run, &object).unwrap());
        sets.push(explorer.outputs(&object).unwrap());
        sets.push(explorer.derivers(&object).unwrap());
    }
    sets.push(explorer.closure(&[Kind::Build], &all, None, None).unwrap());
    sets.push(explorer.sources(&all).unwrap());
    sets.push(explorer.fixed_outputs(&all).unwrap());
    assert!(sets.iter().filter(|set| !set.is_empty()).count() > 8);
    let render = |set: &NodeSet| {
        let lines = explorer.sorted(set).into_iter().map(|node| {
            format!("{} {:?}", explorer.graph().render(node), explorer.graph().nar_size(node))
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let missing = explorer.missing().map(|fact| fact.tell("the source"));
    sets.iter().map(render).chain(missing).collect()
}

#[test]
fn a_bundle_tells_the_same_as_the_store_that_it_was_loaded_into() {
    let receiver = Receiver::new();
    let bytes = Draft::of(&sample()).build();
    receiver.load(&bytes).unwrap();
    let file = receiver.store.layout().state_dir.join("it.ferry");
    fs::write(&file, &bytes).unwrap();
    let bundle = Bundle::open(&file).unwrap();
    let expected = answers(Box::new(receiver.store.facts()));
    assert_eq!(answers(Box::new(StoreFacts::new(&bundle))), expected);
}

#[test]
fn a_bundle_lists_everything_in_it() {
    let objects = sample();
    let listed = open(&Draft::of(&objects).build()).unwrap().all_paths().unwrap();
    let expected: Vec<_> = objects.iter().map(|object| object.path().clone()).collect();
    assert_eq!(listed, Some(expected));
}

#[test]
fn derivers_of_many_paths_take_one_pass() {
    let objects = sample();
    // A stream: it cannot be read twice.
    let bundle = open(&Draft::of(&objects).build()).unwrap();
    let derivers = |object: &Object| bundle.derivers(object.path()).unwrap();
    let found: Vec<usize> = objects.iter().map(|object| derivers(object).len()).collect();
    // The download and the result.
    assert_eq!(found, [0, 1, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn what_a_closure_lacks_is_named_with_what_wants_it() {
    let mut store = Memory::of(&sample());
    let [tree, recipe] = [3, 6].map(|number| sample()[number].path().clone());
    store.objects.remove(&tree);
    let wanted_by = |roots: &[StorePath]| match closure(&store, roots).unwrap_err() {
        Error::NotValid { path, .. } => (path, None),
        Error::MissingReference { path, reference, .. } => (reference, Some(path)),
        other => panic!("{other}"),
    };
    let render = |path: &StorePath| StoreDir::default().render_path(path);
    assert_eq!(wanted_by(std::slice::from_ref(&recipe)), (render(&tree), Some(render(&recipe))));
    // Whoever else wants it, it was asked for.
    assert_eq!(wanted_by(&[recipe, tree.clone()]), (render(&tree), None));
}
