//! Which of several equally short ways is taken.

use ferry_graph::{Kind, Step};

use crate::answers::{node, nodes};
use crate::source::{Habits, Source, explorer_of};
use crate::world::{Names, World, path};

/// The ways from `top` to `bottom`, whichever way the facts are told.
fn ways(world: &World, kinds: &[Kind]) -> Vec<Vec<(String, Kind, Option<String>)>> {
    let told = [(false, false), (false, true), (true, false), (true, true)];
    let way = |(volunteers, backwards)| {
        let habits = Habits { volunteers, backwards, remote: false };
        let mut explorer = explorer_of(vec![Source::new("", world.clone(), habits)]);
        if backwards {
            // Numbers are given in the order in which nodes are heard of.
            for name in world.nodes().iter().rev() {
                node(&mut explorer, name);
            }
        }
        let from = nodes(&mut explorer, &Names::from([path("top")]));
        let to = nodes(&mut explorer, &Names::from([path("bottom")]));
        let steps = explorer.shortest_way(kinds, &from, &to).unwrap().expect("a way");
        let text = |node| explorer.graph().render(node);
        let written = |step: &Step| (text(step.to), step.kind, step.builder.map(text));
        steps.iter().map(written).collect()
    };
    told.map(way).to_vec()
}

/// Four levels of six, each of which refers to all of the next.
#[test]
fn lower_store_paths_are_preferred() {
    let mut world = World::default();
    let level = |level: usize| -> Vec<String> {
        (0..6).map(|number| path(&format!("at-{level}-{number}"))).collect()
    };
    let mut below = vec![path("bottom")];
    world.object(&below[0], &[]);
    for number in (0..4).rev() {
        let references: Vec<&str> = below.iter().map(String::as_str).collect();
        let here = level(number);
        for path in &here {
            world.object(path, &references);
        }
        below = here;
    }
    let references: Vec<&str> = below.iter().map(String::as_str).collect();
    world.object(&path("top"), &references);
    let mut expected: Vec<(String, Kind, Option<String>)> =
        (0..4).map(|number| (level(number).into_iter().min().unwrap(), Kind::Run, None)).collect();
    expected.push((path("bottom"), Kind::Run, None));
    for way in ways(&world, &Kind::ALL) {
        assert_eq!(way, expected);
    }
}

#[test]
fn kinds_given_first_are_preferred() {
    let mut world = World::default();
    world.derivation(&path("bottom.drv"), &path("bottom"), &[]);
    world.object(&path("bottom"), &[]);
    world.derivation(&path("top.drv"), &path("top"), &[(&path("bottom.drv"), "out")]);
    world.object(&path("top"), &[&path("bottom")]);
    let by_run = vec![(path("bottom"), Kind::Run, None)];
    let by_build = vec![(path("bottom"), Kind::Build, Some(path("top.drv")))];
    assert!(ways(&world, &[Kind::Run, Kind::Build]).iter().all(|way| *way == by_run));
    assert!(ways(&world, &[Kind::Build, Kind::Run]).iter().all(|way| *way == by_build));
}
