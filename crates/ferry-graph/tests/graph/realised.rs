//! What is substituted and what is built, of random worlds and offers, as a plain model has it.

use std::collections::{BTreeMap, BTreeSet};

use ferry_graph::{Explorer, NodeId, Realisation, Realiser, Supply};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::answers::nodes;
use crate::model::{Model, derivation_of, is_derivation};
use crate::plan::worlds;
use crate::source::explorer;
use crate::world::{Names, World, parse, path};

/// What is asked for, and what is offered.
#[derive(Clone, Debug)]
struct Case {
    world: World,
    /// Paths for themselves.
    wanted: Names,
    /// Derivations of which all outputs are wanted.
    built: Names,
    /// What is offered, with what it refers to.
    offered: BTreeMap<String, Names>,
    always_substitute: bool,
}

/// Where something comes from, and the derivation that makes it.
type Told = (&'static str, Option<String>);

/// The rules once more, applied to everything until nothing changes.
#[derive(Clone, Debug, Default, PartialEq)]
struct Plain {
    wanted: Names,
    requests: BTreeSet<(String, Names)>,
    asked: Names,
    substituted: Names,
    built: Names,
    makers: BTreeMap<String, Names>,
}

impl Plain {
    fn of(case: &Case, model: &mut Model<'_>) -> Self {
        let mut plain = Self { wanted: case.wanted.clone(), ..Self::default() };
        for derivation in &case.built {
            let outputs = case.world.derivations[derivation].outputs.keys();
            let outputs = outputs.map(|name| model.output(derivation, name)).collect();
            plain.requests.insert((derivation.clone(), outputs));
        }
        loop {
            let before = plain.clone();
            plain.step(case, model);
            if plain == before {
                return plain;
            }
        }
    }

    fn step(&mut self, case: &Case, model: &mut Model<'_>) {
        for node in self.wanted.clone() {
            if let Some(derivation) = derivation_of(&node) {
                self.requests.insert((derivation.to_owned(), Names::from([node.clone()])));
                continue;
            }
            self.asked.insert(node.clone());
            if case.offered.contains_key(&node) {
                self.substituted.insert(node);
                continue;
            }
            let builders = model.builders(&node);
            let first = builders.into_iter().filter(|one| *one != node);
            if let Some(maker) = first.min_by_key(|maker| parse(maker)) {
                self.makers.entry(node).or_default().insert(maker.clone());
                self.built.insert(maker);
            }
        }
        for (derivation, outputs) in self.requests.clone() {
            for output in &outputs {
                self.makers.entry(output.clone()).or_default().insert(derivation.clone());
            }
            let never = case.world.derivations.get(&derivation);
            let never = never.is_some_and(|drv| drv.never_substituted) && !case.always_substitute;
            if never || outputs.iter().any(|output| derivation_of(output).is_some()) {
                self.built.insert(derivation);
                continue;
            }
            self.asked.extend(outputs.iter().cloned());
            if outputs.iter().all(|output| case.offered.contains_key(output)) {
                self.substituted.extend(outputs);
            } else {
                self.built.insert(derivation);
            }
        }
        for node in &self.substituted {
            self.wanted.extend(case.offered[node].iter().cloned());
        }
        for derivation in self.built.clone() {
            let Some(drv) = case.world.derivations.get(&derivation).cloned() else { continue };
            self.wanted.extend(drv.sources);
            let mut requests: BTreeMap<String, Names> = BTreeMap::new();
            for (input, chain) in &drv.inputs {
                let (mut maker, mut node) = (input.clone(), input.clone());
                for name in chain.split('^') {
                    maker = node;
                    node = model.output(&maker, name);
                }
                requests.entry(maker).or_default().insert(node);
            }
            self.requests.extend(requests);
            let exported =
                model.closure(&[ferry_graph::Kind::Run], &drv.exported, &Names::new(), None);
            self.wanted.extend(model.outputs(&exported));
        }
    }

    /// What is needed, and where it comes from. Of a source that nothing needed names as one it
    /// may be known or not that it is one: `perhaps` says.
    fn supplies(
        &self,
        case: &Case,
        model: &Model<'_>,
        perhaps: &BTreeMap<String, Told>,
    ) -> BTreeMap<String, Told> {
        let read = self.built.iter().filter_map(|drv| case.world.derivations.get(drv));
        let mut named: Names = read.flat_map(|drv| drv.sources.clone()).collect();
        let derivations = self.substituted.iter().filter(|node| is_derivation(node));
        named.extend(derivations.flat_map(|node| case.offered[node].clone()));
        let outputs = self.requests.iter().flat_map(|(_, outputs)| outputs);
        let needed: Names = self.asked.iter().chain(outputs).cloned().collect();
        let supply = |node: &String| {
            let makers = self.makers.get(node).and_then(|makers| makers.first());
            let maker = makers.filter(|maker| model.has_file(maker));
            match maker {
                _ if self.substituted.contains(node) => ("substituted", None),
                _ if self.asked.contains(node) && case.offered.contains_key(node) => {
                    ("spare", None)
                }
                Some(maker) if derivation_of(node).is_none() && !self.asked.contains(node) => {
                    ("built anyway", Some(maker.clone()))
                }
                Some(maker) if case.world.derivations[maker].fixed => {
                    ("fetched", Some(maker.clone()))
                }
                Some(maker) => ("built", Some(maker.clone())),
                None if is_derivation(node) => ("derivation", None),
                None if named.contains(node) => ("source", None),
                None if model.is_source(node) && perhaps.get(node) == Some(&("source", None)) => {
                    ("source", None)
                }
                None => ("unknown", None),
            }
        };
        needed.iter().map(|node| (node.clone(), supply(node))).collect()
    }
}

/// Asks for it, with answers in an order that `choices` decide.
fn realise(case: &Case, explorer: &mut Explorer<'_>, choices: &[Index]) -> (Names, Realisation) {
    let mut realiser = Realiser::new(case.always_substitute);
    for node in nodes(explorer, &case.wanted).iter() {
        realiser.want(explorer, node);
    }
    for derivation in &case.built {
        let node = explorer.node(&parse(derivation));
        let outputs = explorer.named_outputs(node).expect("it can look").expect("it is known");
        let outputs = outputs.into_iter().map(|(_, output)| output).collect();
        realiser.want_outputs(explorer, node, outputs);
    }
    let mut asked = Names::new();
    let mut open: Vec<NodeId> = Vec::new();
    let mut choices = choices.iter().cycle();
    loop {
        for question in realiser.questions(explorer).expect("it can look") {
            let text = explorer.graph().render(question);
            assert!(asked.insert(text.clone()), "{text} is asked about twice");
            open.push(question);
        }
        if open.is_empty() {
            return (asked, realiser.finish(explorer));
        }
        let node = open.swap_remove(choices.next().map_or(0, |choice| choice.index(open.len())));
        let text = explorer.graph().render(node);
        let offer = case.offered.get(&text).map(|references| {
            references.iter().map(|reference| explorer.node(&parse(reference))).collect()
        });
        realiser.answer(node, offer);
    }
}

fn supplies(explorer: &Explorer<'_>, realisation: &Realisation) -> BTreeMap<String, Told> {
    let graph = explorer.graph();
    let told = |supply| match supply {
        Supply::Substituted => ("substituted", None),
        Supply::Spare => ("spare", None),
        Supply::Built(drv) => ("built", Some(graph.render(drv))),
        Supply::Fetched(drv) => ("fetched", Some(graph.render(drv))),
        Supply::BuiltAnyway(drv) => ("built anyway", Some(graph.render(drv))),
        Supply::Source => ("source", None),
        Supply::Derivation => ("derivation", None),
        Supply::Unknown => ("unknown", None),
    };
    let needed = realisation.needed.iter();
    needed.map(|needed| (graph.render(needed.node), told(needed.supply))).collect()
}

fn cases() -> impl Strategy<Value = Case> {
    let chosen = || vec(any::<Index>(), 0..4);
    (worlds(), chosen(), chosen(), vec(any::<bool>(), 64), chosen(), any::<bool>()).prop_map(
        |(mut world, wanted, built, offered, never, always_substitute)| {
            let all = world.nodes();
            let derivations: Vec<String> = world.derivations.keys().cloned().collect();
            if !derivations.is_empty() {
                for index in never {
                    let chosen = world.derivations.get_mut(index.get(&derivations));
                    chosen.expect("it is there").never_substituted = true;
                }
            }
            let paths = all.iter().filter(|node| derivation_of(node).is_none());
            let offered = paths.zip(offered.iter().cycle()).filter(|(_, offered)| **offered);
            let references = |path: &String| {
                let record = world.objects.get(path);
                record.map(|record| record.references.clone()).unwrap_or_default()
            };
            let offered = offered.map(|(path, _)| (path.clone(), references(path))).collect();
            let take = |indices: Vec<Index>, from: &[String]| -> Names {
                let found = indices.iter().filter(|_| !from.is_empty());
                found.map(|index| index.get(from).clone()).collect()
            };
            let (wanted, built) = (take(wanted, &all), take(built, &derivations));
            Case { world, wanted, built, offered, always_substitute }
        },
    )
}

proptest! {
    #![proptest_config(crate::proptest_config())]

    #[test]
    fn what_is_substituted_and_built_is_the_models_whatever_is_answered_first(
        case in cases(),
        choices in vec(any::<Index>(), 1..40),
    ) {
        let mut explorer = explorer(&case.world);
        let mut model = Model::new(&case.world, &Names::new());
        let plain = Plain::of(&case, &mut model);
        let (asked, realisation) = realise(&case, &mut explorer, &choices);
        prop_assert_eq!(asked, plain.asked.clone());
        let told = supplies(&explorer, &realisation);
        prop_assert_eq!(&told, &plain.supplies(&case, &model, &told));
        let rendered = |node| explorer.graph().render(node);
        let built: Names = realisation.built.iter().map(rendered).collect();
        prop_assert_eq!(built, plain.built.clone());
        let refused = |node: &String| plain.asked.contains(node) && !case.offered.contains_key(node);
        let incomplete: BTreeSet<(String, String)> = plain
            .substituted
            .iter()
            .flat_map(|node| case.offered[node].iter().map(|to| (node.clone(), to.clone())))
            .filter(|(_, to)| refused(to))
            .collect();
        let found = realisation.incomplete.iter();
        let found: BTreeSet<_> = found.map(|(from, to)| (rendered(*from), rendered(*to))).collect();
        prop_assert_eq!(found, incomplete);
        let reaches_refused = |node: &String| {
            let mut reached = Names::from([node.clone()]);
            loop {
                let more = reached.iter().filter_map(|node| case.offered.get(node)).flatten();
                let more: Names = reached.iter().chain(more).cloned().collect();
                if more == reached {
                    return reached.iter().any(refused);
                }
                reached = more;
            }
        };
        let not_whole: Names = realisation.not_whole.iter().map(rendered).collect();
        let expected = plain.substituted.iter().filter(|node| reaches_refused(node));
        prop_assert_eq!(not_whole, expected.cloned().collect::<Names>());
    }
}

/// `top` reads `lib` and `tar`, which is a download; `lib` reads `tool`, and `top` refers to
/// `lib`.
fn small() -> World {
    let mut world = World::default();
    let p = path;
    world.derivation(&p("tool.drv"), &p("tool"), &[]);
    world.derivation(&p("tar.drv"), &p("tar"), &[]).fixed = true;
    let lib = world.derivation(&p("lib.drv"), &p("lib"), &[(&p("tool.drv"), "out")]);
    lib.sources.insert(p("patch"));
    let inputs = [(p("lib.drv"), "out"), (p("tar.drv"), "out")];
    let inputs: Vec<(&str, &str)> = inputs.iter().map(|(drv, out)| (drv.as_str(), *out)).collect();
    world.derivation(&p("top.drv"), &p("top"), &inputs);
    world
}

fn told(offered: &[(&str, &[&str])]) -> BTreeMap<String, Told> {
    let offered = offered.iter().map(|(node, references)| {
        (path(node), references.iter().map(|reference| path(reference)).collect())
    });
    let case = Case {
        world: small(),
        wanted: Names::new(),
        built: Names::from([path("top.drv")]),
        offered: offered.collect(),
        always_substitute: false,
    };
    let mut explorer = explorer(&case.world);
    let (_, realisation) = realise(&case, &mut explorer, &[]);
    supplies(&explorer, &realisation)
}

fn expected(table: &[(&str, &'static str, Option<&str>)]) -> BTreeMap<String, Told> {
    table.iter().map(|(node, what, maker)| (path(node), (*what, maker.map(path)))).collect()
}

#[test]
fn below_what_is_offered_nothing_is_asked_but_what_it_refers_to() {
    let offered: [(&str, &[&str]); 2] = [("top", &["lib"]), ("lib", &[])];
    let table = [("top", "substituted", None), ("lib", "substituted", None)];
    assert_eq!(told(&offered), expected(&table));
}

#[test]
fn what_is_built_takes_its_inputs_and_they_take_theirs() {
    let table = [
        ("top", "built", Some("top.drv")),
        ("tar", "fetched", Some("tar.drv")),
        ("lib", "built", Some("lib.drv")),
        ("patch", "source", None),
        ("tool", "substituted", None),
    ];
    assert_eq!(told(&[("tool", &[])]), expected(&table));
}

#[test]
fn what_something_offered_refers_to_is_built_if_nobody_offers_it() {
    let table = [
        ("top", "substituted", None),
        ("lib", "built", Some("lib.drv")),
        ("patch", "substituted", None),
        ("tool", "built", Some("tool.drv")),
    ];
    assert_eq!(told(&[("top", &["lib"]), ("patch", &[])]), expected(&table));
}
