//! Questions, the graph's answers to them written out, and whether the model agrees.

use std::collections::BTreeMap;

use ferry_graph::{Explorer, GraphError, Kind, NodeId, NodeSet};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, subsequence};

use crate::model::{Gap, Model, derivation_of, is_derivation};
use crate::world::{Names, World, parse};

/// A question about some nodes.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Immediate(Kind, Names),
    Closure(Vec<Kind>, Names, Names, Option<u32>),
    Dependents(Vec<Kind>, Names, Names, Option<u32>),
    Outputs(Names),
    Derivers(Names),
    Derivations(Names),
    Sources(Names),
    FixedOutputs(Names),
    Fragments(Names),
    Sizes(Names),
    Order(Vec<Kind>, Names),
    Way(Vec<Kind>, Names, Names),
    Known(Names),
    Builders(Names),
    Everything,
}

/// One step of a way: from, to, how, and whose need it is where that is not the first.
pub(crate) type Edge = (String, String, Kind, Option<String>);

/// An answer, written out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Nodes(Names),
    Order(Vec<String>),
    Way(Option<Vec<Edge>>),
    Sizes {
        /// Own size, closure, added.
        members: BTreeMap<String, (Option<u64>, u64, u64)>,
        nar: u64,
        closure: u64,
        objects: usize,
        unknown: usize,
    },
    /// There is none: things need each other.
    Circle(Vec<String>),
}

/// A world and questions about it.
pub(crate) fn questions(
    worlds: impl Strategy<Value = World>,
) -> impl Strategy<Value = (World, Vec<Ask>)> {
    (worlds, vec(plan(), 1..6)).prop_map(|(world, plans)| {
        let nodes = askable(&world);
        let questions = plans.iter().map(|plan| plan.question(&nodes)).collect();
        (world, questions)
    })
}

/// The nodes that one can name: store paths, and outputs without a path of derivations that
/// somebody has.
fn askable(world: &World) -> Vec<String> {
    let has_file = |node: &String| {
        derivation_of(node).is_none_or(|derivation| world.derivations.contains_key(derivation))
    };
    world.nodes().into_iter().filter(has_file).collect()
}

#[derive(Clone, Debug)]
struct QuestionPlan {
    which: u8,
    kinds: Vec<Kind>,
    first: Vec<Index>,
    second: Vec<Index>,
    all: bool,
    depth: Option<u32>,
}

fn plan() -> impl Strategy<Value = QuestionPlan> {
    (
        0_u8..16,
        subsequence(Kind::ALL.to_vec(), 1..=3).prop_shuffle(),
        vec(any::<Index>(), 0..5),
        vec(any::<Index>(), 0..4),
        prop::bool::weighted(0.1),
        option::weighted(0.3, 0_u32..4),
    )
        .prop_map(|(which, kinds, first, second, all, depth)| QuestionPlan {
            which,
            kinds,
            first,
            second,
            all,
            depth,
        })
}

impl QuestionPlan {
    fn question(&self, nodes: &[String]) -> Ask {
        let names = |chosen: &[Index]| -> Names {
            if self.all && chosen.len() > 1 {
                return nodes.iter().cloned().collect();
            }
            chosen.iter().map(|index| index.get(nodes).clone()).collect()
        };
        let (first, second) = (names(&self.first), names(&self.second));
        let kinds = self.kinds.clone();
        match self.which {
            0 => Ask::Immediate(kinds[0], first),
            1 | 2 => Ask::Closure(kinds, first, second, self.depth),
            3 => Ask::Dependents(kinds, first, second, self.depth),
            4 => Ask::Outputs(first),
            5 => Ask::Derivers(first),
            6 => Ask::Derivations(first),
            7 => Ask::Sources(first),
            8 => Ask::FixedOutputs(first),
            9 => Ask::Fragments(first),
            10 => Ask::Sizes(first),
            11 => Ask::Order(kinds, first),
            12 => Ask::Way(kinds, first, second),
            13 => Ask::Known(first),
            14 => Ask::Builders(first),
            _ => Ask::Everything,
        }
    }
}

impl Ask {
    /// What it names.
    pub(crate) fn names(&self) -> Names {
        match self {
            Self::Immediate(_, of)
            | Self::Outputs(of)
            | Self::Derivers(of)
            | Self::Derivations(of)
            | Self::Sources(of)
            | Self::FixedOutputs(of)
            | Self::Fragments(of)
            | Self::Sizes(of)
            | Self::Order(_, of)
            | Self::Known(of)
            | Self::Builders(of) => of.clone(),
            Self::Closure(_, first, second, _)
            | Self::Dependents(_, first, second, _)
            | Self::Way(_, first, second) => first.union(second).cloned().collect(),
            Self::Everything => Names::new(),
        }
    }

    /// What the graph answers.
    pub(crate) fn ask(&self, explorer: &mut Explorer<'_>) -> Answer {
        match self.try_ask(explorer) {
            Ok(answer) => answer,
            Err(GraphError::Cycle { cycle }) => Answer::Circle(cycle),
            Err(error) => panic!("{self:?}: {error}"),
        }
    }

    fn try_ask(&self, explorer: &mut Explorer<'_>) -> Result<Answer, GraphError> {
        let mut set = |of: &Names| nodes(explorer, of);
        let found = match self {
            Self::Immediate(kind, of) => {
                let of = set(of);
                explorer.immediate(*kind, &of)?
            }
            Self::Closure(kinds, of, stop, depth) => {
                let (of, stop) = (set(of), set(stop));
                explorer.closure(kinds, &of, Some(&stop), *depth)?
            }
            Self::Dependents(kinds, universe, targets, depth) => {
                let (universe, targets) = (set(universe), set(targets));
                explorer.dependents(kinds, &universe, &targets, *depth)?
            }
            Self::Outputs(of) => {
                let of = set(of);
                explorer.outputs(&of)?
            }
            Self::Derivers(of) => {
                let of = set(of);
                explorer.derivers(&of)?
            }
            Self::Derivations(of) => {
                let of = set(of);
                explorer.derivations(&of)
            }
            Self::Sources(of) => {
                let of = set(of);
                explorer.sources(&of)?
            }
            Self::FixedOutputs(of) => {
                let of = set(of);
                explorer.fixed_outputs(&of)?
            }
            Self::Fragments(of) => {
                let of = set(of);
                explorer.fragments(&of)?
            }
            Self::Everything => explorer.everything()?,
            Self::Sizes(of) => {
                let of = set(of);
                return sizes(explorer, &of);
            }
            Self::Order(kinds, of) => {
                let of = set(of);
                let order = explorer.topological_order(kinds, &of)?;
                let order = order.into_iter().map(|node| explorer.graph().render(node));
                return Ok(Answer::Order(order.collect()));
            }
            Self::Way(kinds, from, to) => {
                let (from, to) = (set(from), set(to));
                let way = explorer.shortest_way(kinds, &from, &to)?;
                let text = |node: NodeId| explorer.graph().render(node);
                let written = way.map(|steps| {
                    let steps = steps.into_iter();
                    let step = |step: ferry_graph::Step| {
                        (text(step.from), text(step.to), step.kind, step.builder.map(text))
                    };
                    steps.map(step).collect()
                });
                return Ok(Answer::Way(written));
            }
            Self::Known(of) => {
                let of: Vec<NodeId> = set(of).iter().collect();
                explorer.known(&of)?
            }
            Self::Builders(of) => {
                let of = set(of);
                explorer.builders_of(&of)?
            }
        };
        Ok(Answer::Nodes(written(explorer, &found)))
    }

    /// Fails unless this is what the model answers.
    pub(crate) fn check(&self, model: &mut Model<'_>, answer: &Answer) {
        let none = Names::new();
        let expected = match self {
            Self::Immediate(kind, of) => model.immediate(*kind, of),
            Self::Closure(kinds, of, stop, depth) => model.closure(kinds, of, stop, *depth),
            Self::Dependents(kinds, universe, targets, depth) => {
                model.dependents(kinds, universe, targets, *depth)
            }
            Self::Outputs(of) => model.outputs(of),
            Self::Derivers(of) => model.derivers(of),
            Self::Derivations(of) => {
                of.iter().filter(|node| is_derivation(node)).cloned().collect()
            }
            Self::Sources(of) => of.iter().filter(|node| model.is_source(node)).cloned().collect(),
            Self::FixedOutputs(of) => model.fixed_outputs(of),
            Self::Fragments(of) => model.fragments(of),
            Self::Everything => {
                let world = model.world;
                world.objects.keys().chain(world.derivations.keys()).cloned().collect()
            }
            Self::Sizes(of) => {
                let closure = model.closure(&[Kind::Run], of, &none, None);
                if is_circular(&model.edges_within(&[Kind::Run], &closure)) {
                    check_circle(model, &[Kind::Run], &closure, answer);
                } else {
                    check_sizes(model, of, &closure, answer);
                }
                return;
            }
            Self::Order(kinds, of) => return check_order(model, kinds, of, answer),
            Self::Way(kinds, from, to) => return check_way(model, kinds, from, to, answer),
            Self::Known(of) => {
                of.iter().filter(|node| model.references(node).is_some()).cloned().collect()
            }
            Self::Builders(of) => of.iter().flat_map(|node| model.builders(node)).collect(),
        };
        assert_eq!(answer, &Answer::Nodes(expected), "{self:?}");
    }
}

fn sizes(explorer: &mut Explorer<'_>, of: &NodeSet) -> Result<Answer, GraphError> {
    let report = explorer.sizes(of)?;
    assert_eq!(report.members.len(), of.len(), "one line a member");
    let lines = report.members.iter().map(|member| {
        (explorer.graph().render(member.node), (member.nar, member.closure, member.added))
    });
    Ok(Answer::Sizes {
        members: lines.collect(),
        nar: report.nar,
        closure: report.closure,
        objects: report.closure_objects,
        unknown: report.unknown,
    })
}

fn check_sizes(model: &mut Model<'_>, of: &Names, closure: &Names, answer: &Answer) {
    let (none, run) = (Names::new(), [Kind::Run]);
    let size_of = |model: &Model<'_>, node: &String| {
        model.world.objects.get(node).and_then(|record| record.size)
    };
    let mut members = BTreeMap::new();
    for member in of {
        let alone = model.closure(&run, &Names::from([member.clone()]), &none, None);
        let mut others = of.clone();
        others.remove(member);
        let without = model.closure(&run, &others, &none, None);
        let added: Names = closure.difference(&without).cloned().collect();
        let own = size_of(model, member);
        members.insert(member.clone(), (own, model.size(&alone), model.size(&added)));
    }
    let expected = Answer::Sizes {
        members,
        nar: model.size(of),
        closure: model.size(closure),
        objects: closure.len(),
        unknown: closure.iter().filter(|node| size_of(model, node).is_none()).count(),
    };
    assert_eq!(answer, &expected);
}

fn check_order(model: &mut Model<'_>, kinds: &[Kind], of: &Names, answer: &Answer) {
    let edges = model.edges_within(kinds, of);
    if is_circular(&edges) {
        return check_circle(model, kinds, of, answer);
    }
    let Answer::Order(order) = answer else { panic!("no order: {answer:?}") };
    let place: BTreeMap<&String, usize> =
        order.iter().enumerate().map(|(place, node)| (node, place)).collect();
    assert_eq!((order.len(), place.len()), (of.len(), of.len()), "each node once");
    for (from, to) in &edges {
        assert!(place[to] < place[from], "{from} stands before {to}, which it needs");
    }
}

/// The way round must be one, and begin where it ends.
fn check_circle(model: &mut Model<'_>, kinds: &[Kind], within: &Names, answer: &Answer) {
    let Answer::Circle(circle) = answer else { panic!("this goes round in circles: {answer:?}") };
    let edges = model.edges_within(kinds, within);
    assert!(circle.len() > 2, "{circle:?}");
    assert_eq!(circle.first(), circle.last());
    for step in circle.windows(2) {
        assert!(edges.contains(&(step[0].clone(), step[1].clone())), "{step:?} is no edge");
    }
}

/// Whether taking away what has no edges left, again and again, leaves something.
fn is_circular(edges: &std::collections::BTreeSet<(String, String)>) -> bool {
    let mut left = edges.clone();
    loop {
        let begins: Names = left.iter().map(|(from, _)| from.clone()).collect();
        let before = left.len();
        left.retain(|(_, to)| begins.contains(to));
        if left.len() == before {
            return !left.is_empty();
        }
    }
}

fn check_way(model: &mut Model<'_>, kinds: &[Kind], from: &Names, to: &Names, answer: &Answer) {
    let Answer::Way(way) = answer else { panic!("no way: {answer:?}") };
    assert_eq!(way.as_ref().map(Vec::len), model.distance(kinds, from, to));
    let Some(steps) = way else { return };
    // What is looked at from here on is no question of the graph's.
    let gaps = model.gaps.clone();
    if let (Some(first), Some(last)) = (steps.first(), steps.last()) {
        assert!(from.contains(&first.0) && to.contains(&last.1));
    }
    for pair in steps.windows(2) {
        assert_eq!(pair[0].1, pair[1].0);
    }
    for (from, to, kind, builder) in steps {
        assert!(kinds.contains(kind) && model.edges(*kind, from).contains(to), "{from} -> {to}");
        match builder {
            None => assert!(*kind == Kind::Run || is_derivation(from)),
            Some(builder) => {
                assert!(model.builders(from).contains(builder));
                let needs = match kind {
                    Kind::Run => panic!("references are an object's own"),
                    Kind::Build => model.reads(builder),
                    Kind::Eval => model.evaluated_with(builder),
                };
                assert!(needs.contains(to), "it is not {builder} that needs {to}");
            }
        }
    }
    model.gaps = gaps;
}

/// The node of a name.
pub(crate) fn node(explorer: &mut Explorer<'_>, name: &str) -> NodeId {
    match name.rsplit_once('^') {
        None => explorer.node(&parse(name)),
        Some((derivation, output)) => {
            let derivation = node(explorer, derivation);
            explorer.output(derivation, output).expect("an output that there is")
        }
    }
}

/// The nodes of some names.
pub(crate) fn nodes(explorer: &mut Explorer<'_>, names: &Names) -> NodeSet {
    names.iter().map(|name| node(explorer, name)).collect()
}

/// Nodes written out.
pub(crate) fn written(explorer: &Explorer<'_>, nodes: &NodeSet) -> Names {
    nodes.iter().map(|node| explorer.graph().render(node)).collect()
}

/// What was missing.
pub(crate) fn gaps(explorer: &Explorer<'_>) -> std::collections::BTreeSet<Gap> {
    explorer.missing().map(Gap::of).collect()
}

/// What no evaluation was recorded of.
pub(crate) fn unrecorded(explorer: &Explorer<'_>) -> Names {
    explorer.unrecorded().map(str::to_owned).collect()
}
