//! What the other side can do with a named set, tried out: a machine that has the members of the
//! set and nothing else builds, with a network or without.

use ferry_graph::query;
use ferry_graph::{Kind, Missing};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::drawn::{self, ByName};
use crate::model::{Model, is_derivation};
use crate::plan::whole_worlds;
use crate::source::explorer;
use crate::world::{Names, World, path};

/// All that a machine can have which has these: it builds what it can as long as it can.
fn all_that_can_be_had(world: &World, has: &Names, network: bool) -> Names {
    let mut had = has.clone();
    let mut model = Model::new(world, &Names::new());
    loop {
        let before = had.len();
        for (path, drv) in &world.derivations {
            // A derivation that is made on the way has to be made.
            let reads = model.reads(path);
            let needs_all = |nodes: &Names| nodes.is_subset(&had);
            if had.contains(path)
                && (network || !drv.fixed)
                && needs_all(&reads)
                && needs_all(&model.made_on_the_way(path))
            {
                had.extend(model.outputs(&Names::from([path.clone()])));
            }
        }
        if had.len() == before {
            return had;
        }
    }
}

/// The members of a set of `root`, unless something was missing.
fn members(world: &World, set: &str, root: &str) -> Option<Names> {
    let question = query::Source::new("test", &format!("set({set}, {root})"));
    let program = query::parse(&[question]).unwrap();
    let mut explorer = explorer(world);
    let found = program.evaluate(&mut explorer, &mut ByName).unwrap();
    let no_evaluation = |missing: &Missing| matches!(missing, Missing::Evaluation(_));
    assert!(explorer.missing().all(no_evaluation), "{set}: {:?}", explorer.missing().next());
    let whole = explorer.missing().next().is_none() && explorer.unrecorded().next().is_none();
    whole.then(|| crate::answers::written(&explorer, &found))
}

/// Fails if a set of `root` does not allow what is said of it. Sets of which evaluations are
/// missing promise nothing.
fn keeps_its_promises(world: &World, root: &str) {
    let none = Names::new();
    let start = Names::from([path(root)]);
    let mut model = Model::new(world, &start);
    let outputs = model.outputs(&start);
    let runtime = model.closure(&[Kind::Run], &outputs, &none, None);
    let evaluated = model.closure(&[Kind::Eval], &start, &none, None);
    let fragments = model.fragments(&evaluated);
    for set in query::named_sets() {
        let set = set.name.as_str();
        let Some(members) = members(world, set, root) else { continue };
        let closure = model.closure(&[Kind::Run], &members, &none, None);
        assert_eq!(members, closure, "{set} lacks what its members refer to");
        let has_all = |wanted: &Names| wanted.is_subset(&members);
        // What a derivation can be rebuilt from, step by step.
        let reads_of = |model: &mut Model<'_>, made: &Names| -> Names {
            let makers: Names = made.iter().flat_map(|node| model.builders(node)).collect();
            let reads: Names = makers.iter().flat_map(|maker| model.reads(maker)).collect();
            makers.into_iter().chain(reads).collect()
        };
        match set {
            "recipe" => {
                let had = all_that_can_be_had(world, &members, true);
                assert_eq!(outputs.difference(&had).next(), None, "{set} of {root}");
            }
            "runtime" => assert!(has_all(&runtime), "{set} {root}"),
            "rebuild" => {
                let needed: Names =
                    reads_of(&mut model, &runtime).difference(&runtime).cloned().collect();
                assert!(has_all(&needed), "{set} {root}");
            }
            "sources" | "sources+fragments" => {
                let had = all_that_can_be_had(world, &members, false);
                assert_eq!(outputs.difference(&had).next(), None, "{set} of {root}");
                assert_eq!(evaluated.difference(&had).next(), None, "evaluating, {set} of {root}");
                assert!(set == "sources" || has_all(&fragments), "{set} {root}");
            }
            "build" => {
                let all = model.closure(&[Kind::Run, Kind::Build], &outputs, &none, None);
                assert!(has_all(&all) && has_all(&reads_of(&mut model, &all)), "{set} {root}");
            }
            "total" => {
                let from = outputs.union(&start).cloned().collect();
                let all = model.closure(&Kind::ALL, &from, &none, None);
                assert!(has_all(&all) && has_all(&reads_of(&mut model, &all)), "{set} {root}");
                assert!(has_all(&evaluated), "{set} {root}");
            }
            other => panic!("what does `{other}` promise?"),
        }
    }
}

#[test]
fn the_drawn_world_keeps_the_promises_of_every_set() {
    keeps_its_promises(&drawn::world(), "app.drv");
}

#[test]
fn nothing_of_the_drawn_sources_is_too_much() {
    let world = drawn::world();
    let members = members(&world, "sources", "app.drv").unwrap();
    let needed = Names::from(["app", "config", "nixpkgs"].map(path));
    for left_out in members.iter().filter(|member| !is_derivation(member)) {
        let fewer: Names = members.iter().filter(|member| *member != left_out).cloned().collect();
        let had = all_that_can_be_had(&world, &fewer, false);
        assert!(!needed.is_subset(&had), "{left_out} is not needed");
    }
}

proptest! {
    #![proptest_config(crate::proptest_config())]

    #[test]
    fn whole_worlds_keep_the_promises_of_every_set(
        world in whole_worlds(),
        root in any::<Index>(),
    ) {
        // A download is not built, and a derivation that makes or is made by another is no recipe.
        let makes: Names = world.realised.keys().map(|(maker, _)| maker.clone()).collect();
        let made: Names = world.realised.values().cloned().collect();
        let roots = world.derivations.iter().filter(|(path, drv)| {
            !drv.fixed && !makes.contains(*path) && !made.contains(*path)
        });
        let roots: Vec<&String> = roots.map(|(path, _)| path).collect();
        if !roots.is_empty() {
            keeps_its_promises(&world, root.get(&roots).split_once('-').unwrap().1);
        }
    }
}
