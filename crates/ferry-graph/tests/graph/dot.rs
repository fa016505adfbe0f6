//! The text of drawings.

use std::collections::HashMap;

use ferry_graph::{Kind, NodeSet};

use crate::answers::{node, nodes};
use crate::source::{Habits, Source, explorer, explorer_of};
use crate::world::{Names, World, path};

/// A program, built with a script, a download and a tool whose path is not known yet, that
/// refers to a library of which nobody knows who made it; and its evaluation read a file.
fn world() -> World {
    let mut world = World::default();
    let (script, library) = (path("build.sh"), path("library"));
    world.object(&script, &[]).content_addressed = Some(true);
    world.object(&library, &[]);
    world.derivation(&path("download.drv"), &path("download"), &[]).fixed = true;
    world.derivation(&path("tool.drv"), "", &[]).outputs.insert("out".to_owned(), None);
    let inputs = [(&*path("download.drv"), "out"), (&*path("tool.drv"), "out")];
    let drv = world.derivation(&path("hello.drv"), &path("hello"), &inputs);
    drv.sources.insert(script.clone());
    let references = drv.references();
    world.objects.get_mut(&path("hello.drv")).unwrap().references = references;
    world.object(&path("hello"), &[&library, &path("download")]);
    let needs = Names::from([path("default.nix")]);
    world.object(&path("default.nix"), &[]).content_addressed = Some(true);
    let evaluation = crate::world::Evaluation { needs, ..Default::default() };
    world.evaluations.insert(path("hello.drv"), evaluation);
    world
}

fn everything(world: &World) -> Names {
    world.nodes().into_iter().collect()
}

const ALL: &str = r##"digraph store {
  ranksep=0.35; nodesep=0.2;
  node [style=filled, fontname="sans-serif", fontsize=11];
  edge [fontname="sans-serif", fontsize=10];
  n0 [label="download\n21qz5hjw", shape=ellipse, fillcolor="#fdeeb8"];
  n1 [label="tool.drv\n6q42slnf", shape=box, fillcolor="#d6e6f5"];
  n2 [label="tool.drv^out\n6q42slnf", shape=ellipse, style="filled,dashed", fillcolor="#ffffff"];
  n3 [label="library\nfa7bixwa", shape=ellipse, fillcolor="#ffffff"];
  n4 [label="hello.drv\njhqi2wlf", shape=box, fillcolor="#d6e6f5"];
  n5 [label="hello\nqz53ladh\nrun \"here\"\nR", shape=ellipse, fillcolor="#d6e6f5"];
  n6 [label="build.sh\nrc1x8phx", shape=note, fillcolor="#eeeeee"];
  n7 [label="default.nix\nviylify0", shape=note, fillcolor="#eeeeee"];
  n8 [label="download.drv\nvki937rf", shape=box, fillcolor="#fdeeb8"];
  n0 -> n8 [color="#888888", arrowhead=none];
  n2 -> n1 [color="#888888", arrowhead=none];
  n4 -> n0 [style=dashed];
  n4 -> n2 [style=dashed];
  n4 -> n6 [style=dashed];
  n4 -> n7 [style=dotted];
  n5 -> n0 [style=solid];
  n5 -> n3 [style=solid];
  n5 -> n4 [color="#888888", arrowhead=none];
  subgraph cluster_legend {
    label="legend"; fontname="sans-serif"; color="#888888";
    l0 [label="derivation", shape=box, fillcolor="#d6e6f5"];
    l1 [label="fixed-output derivation", shape=box, fillcolor="#fdeeb8"];
    l2 [label="output", shape=ellipse, fillcolor="#d6e6f5"];
    l3 [label="fixed output", shape=ellipse, fillcolor="#fdeeb8"];
    l4 [label="source", shape=note, fillcolor="#eeeeee"];
    l5 [label="output without a path yet", shape=ellipse, style="filled,dashed", fillcolor="#ffffff"];
    l6 [label="path of unknown origin", shape=ellipse, fillcolor="#ffffff"];
    l0 -> l1 [style=invis];
    l1 -> l2 [style=invis];
    l2 -> l3 [style=invis];
    l3 -> l4 [style=invis];
    l4 -> l5 [style=invis];
    l5 -> l6 [style=invis];
    a0 [shape=point, group=g0];
    b0 [shape=point, group=g0];
    a0 -> b0 [label=" run ", weight=9, style=solid];
    a1 [shape=point, group=g1];
    b1 [shape=point, group=g1];
    a1 -> b1 [label=" build ", weight=9, style=dashed];
    a2 [shape=point, group=g2];
    b2 [shape=point, group=g2];
    a2 -> b2 [label=" eval ", weight=9, style=dotted];
    a3 [shape=point, group=g3];
    b3 [shape=point, group=g3];
    a3 -> b3 [label=" made by ", weight=9, color="#888888", arrowhead=none];
  }
}
"##;

const OUTPUTS_ONLY: &str = r##"digraph store {
  ranksep=0.35; nodesep=0.2;
  node [style=filled, fontname="sans-serif", fontsize=11];
  edge [fontname="sans-serif", fontsize=10];
  n0 [label="download\n21qz5hjw", shape=ellipse, fillcolor="#fdeeb8"];
  n1 [label="hello\nqz53ladh", shape=ellipse, fillcolor="#d6e6f5"];
  n2 [label="build.sh\nrc1x8phx", shape=note, fillcolor="#eeeeee"];
  n1 -> n0 [style=dashed];
  n1 -> n2 [style=dashed];
  subgraph cluster_legend {
    label="legend"; fontname="sans-serif"; color="#888888";
    l0 [label="output", shape=ellipse, fillcolor="#d6e6f5"];
    l1 [label="fixed output", shape=ellipse, fillcolor="#fdeeb8"];
    l2 [label="source", shape=note, fillcolor="#eeeeee"];
    l0 -> l1 [style=invis];
    l1 -> l2 [style=invis];
    a0 [shape=point, group=g0];
    b0 [shape=point, group=g0];
    a0 -> b0 [label=" build ", weight=9, style=dashed];
  }
}
"##;

#[test]
fn a_drawing_is_this_text() {
    let world = world();
    let mut explorer = explorer(&world);
    let set = nodes(&mut explorer, &everything(&world));
    let hello = node(&mut explorer, &path("hello"));
    let marks = HashMap::from([(hello, vec!["run \"here\"".to_owned(), "R".to_owned()])]);
    let dot = explorer.dot(&set, &Kind::ALL, &marks).unwrap();
    assert_eq!(dot.to_string(), ALL);
}

#[test]
fn outputs_whose_derivations_are_not_drawn_have_the_edges_themselves() {
    let world = world();
    let mut explorer = explorer(&world);
    let names = ["hello", "download", "build.sh"].map(path).into_iter().collect();
    let set = nodes(&mut explorer, &names);
    let dot = explorer.dot(&set, &[Kind::Build], &HashMap::new()).unwrap().to_string();
    assert_eq!(dot, OUTPUTS_ONLY);
}

#[test]
fn what_is_not_known_is_drawn_as_such_and_is_not_missing() {
    let world = World::default();
    let mut explorer = explorer(&world);
    let set = nodes(&mut explorer, &[path("nobody"), path("nobody.drv")].into());
    let dot = explorer.dot(&set, &Kind::ALL, &HashMap::new()).unwrap().to_string();
    assert!(dot.contains("path of unknown origin"));
    assert!(!dot.contains("n0 ->") && !dot.contains("n1 ->"));
    assert_eq!(explorer.missing().count(), 0);
}

#[test]
fn a_drawing_does_not_depend_on_what_was_learnt_first() {
    let world = world();
    let set_of = |habits| {
        let mut explorer = explorer_of(vec![Source::new("", world.clone(), habits)]);
        let mut names: Vec<String> = world.nodes();
        if habits.backwards {
            names.reverse();
        }
        let set: NodeSet = names.iter().map(|name| node(&mut explorer, name)).collect();
        explorer.dot(&set, &Kind::ALL, &HashMap::new()).unwrap().to_string()
    };
    let plain = set_of(Habits::default());
    assert_eq!(set_of(Habits { volunteers: true, backwards: true, remote: false }), plain);
}

#[test]
fn nothing_is_drawn_of_nothing() {
    let mut explorer = explorer(&World::default());
    let dot = explorer.dot(&NodeSet::default(), &Kind::ALL, &HashMap::new()).unwrap();
    let text = dot.to_string();
    assert!(text.starts_with("digraph store {\n") && text.ends_with("}\n"));
    assert!(!text.contains("label"));
}
