//! Two sources that do not tell the same: who is believed, and that it is said.

use std::collections::BTreeSet;

use ferry_formats::StoreDir;
use ferry_graph::{Disagreement, Explorer, Facts, FactsError, Ledger, ObjectFacts, Question};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::answers::{nodes, written};
use crate::plan::worlds;
use crate::source::{Habits, Source, explorer_of};
use crate::world::{Names, World, parse, path};

/// What one source might say otherwise.
#[derive(Clone, Debug)]
enum Twist {
    Refer(Index),
    Forget,
    Resize(u64),
    NoSize,
    Lose,
}

fn twists() -> impl Strategy<Value = Vec<(Index, Twist)>> {
    let twist = prop_oneof![
        any::<Index>().prop_map(Twist::Refer),
        Just(Twist::Forget),
        (1_u64..5).prop_map(Twist::Resize),
        Just(Twist::NoSize),
        Just(Twist::Lose),
    ];
    vec((any::<Index>(), twist), 0..8)
}

fn twisted(world: &World, twists: &[(Index, Twist)]) -> World {
    let mut world = world.clone();
    let paths: Vec<String> = world.objects.keys().cloned().collect();
    for (index, twist) in twists {
        if paths.is_empty() {
            continue;
        }
        let path = index.get(&paths);
        let Some(record) = world.objects.get_mut(path) else { continue };
        match twist {
            Twist::Refer(other) => drop(record.references.insert(other.get(&paths).clone())),
            Twist::Forget => drop(record.references.pop_last()),
            Twist::Resize(size) => record.size = Some(*size),
            Twist::NoSize => record.size = None,
            Twist::Lose => drop(world.objects.remove(path)),
        }
    }
    world
}

/// What the first and the second source differ in. A reference to itself is no difference.
fn differences(first: &World, second: &World) -> BTreeSet<(String, &'static str)> {
    let mut found = BTreeSet::new();
    for (path, one) in &first.objects {
        let Some(other) = second.objects.get(path) else { continue };
        let itself = Names::from([path.clone()]);
        if &one.references - &itself != &other.references - &itself {
            found.insert((path.clone(), "references"));
        }
        if let (Some(one), Some(other)) = (one.size, other.size)
            && one != other
        {
            found.insert((path.clone(), "NAR size"));
        }
    }
    found
}

proptest! {
    #![proptest_config(crate::proptest_config())]

    #[test]
    fn what_two_sources_differ_in_is_reported_and_nothing_else(
        world in worlds(),
        (one, other) in (twists(), twists()),
        habits in vec(any::<(bool, bool)>(), 2),
    ) {
        // What the files say is told by what refers to them.
        let mut world = world;
        world.derivations.clear();
        world.realised.clear();
        let (first, second) = (twisted(&world, &one), twisted(&world, &other));
        let habit = |n: usize| {
            let (volunteers, backwards) = habits[n];
            Habits { volunteers, backwards, remote: false }
        };
        let mut explorer = explorer_of(vec![
            Source::new("first", first.clone(), habit(0)),
            Source::new("second", second.clone(), habit(1)),
        ]);
        let all: Names = world.objects.keys().cloned().collect();
        // One by one: a source that volunteers is heard before the other one is asked.
        for node in nodes(&mut explorer, &all).iter() {
            explorer.known(&[node]).unwrap();
        }

        let reported = explorer.graph().disagreements();
        prop_assert!(reported.iter().all(|one| one.believed == "first" && one.other == "second"));
        let listed: Vec<(String, &str)> =
            reported.iter().map(|one| (one.object.clone(), one.about)).collect();
        let once: BTreeSet<(String, &str)> = listed.iter().cloned().collect();
        prop_assert_eq!(listed.len(), once.len(), "each once");
        prop_assert_eq!(once, differences(&first, &second));
        for path in &all {
            let record = first.objects.get(path).or(second.objects.get(path));
            let node = explorer.node(&parse(path));
            let references = explorer.graph().references(node);
            prop_assert_eq!(references.is_some(), record.is_some());
            let (Some(references), Some(record)) = (references, record) else { continue };
            let references = references.iter().copied().collect();
            let expected = &record.references - &Names::from([path.clone()]);
            prop_assert_eq!(written(&explorer, &references), expected);
            let other = second.objects.get(path).and_then(|record| record.size);
            prop_assert_eq!(explorer.graph().nar_size(node), record.size.or(other));
        }
    }
}

/// Tells about one object, as it is.
struct Says {
    name: &'static str,
    path: String,
    references: Vec<String>,
    size: Option<u64>,
}

impl Facts for Says {
    fn describe(&self) -> String {
        self.name.to_owned()
    }

    fn learn(&mut self, question: Question<'_>, ledger: &mut Ledger<'_>) -> Result<(), FactsError> {
        if matches!(question, Question::Objects(_)) {
            let node = ledger.node(&parse(&self.path));
            let references: Vec<_> =
                self.references.iter().map(|path| ledger.node(&parse(path))).collect();
            let facts = ObjectFacts {
                references: &references,
                nar_size: self.size,
                ..ObjectFacts::default()
            };
            ledger.object(node, &facts);
        }
        Ok(())
    }
}

fn disagreements(sources: Vec<Says>) -> Vec<Disagreement> {
    let mut explorer = Explorer::new(StoreDir::default());
    let path = sources[0].path.clone();
    for source in sources {
        explorer.add_source(Box::new(source));
    }
    let node = explorer.node(&parse(&path));
    explorer.known(&[node]).unwrap();
    explorer.graph().disagreements().to_vec()
}

#[test]
fn the_order_of_references_and_naming_one_twice_are_no_disagreement() {
    let (a, b, c) = (path("a"), path("b"), path("c"));
    let says = |name, references: &[&String]| {
        let references = references.iter().map(|path| (*path).clone()).collect();
        Says { name, path: a.clone(), references, size: Some(1) }
    };
    assert_eq!(disagreements(vec![says("one", &[&b, &c]), says("other", &[&c, &a, &b, &b])]), []);
}

#[test]
fn a_size_is_blamed_on_who_said_it() {
    let says = |name, size| Says { name, path: path("a"), references: Vec::new(), size };
    let sources = vec![says("one", None), says("another", Some(5)), says("a third", Some(7))];
    assert_eq!(
        disagreements(sources),
        [Disagreement {
            object: path("a"),
            about: "NAR size",
            believed: "another".to_owned(),
            other: "a third".to_owned(),
        }]
    );
}
