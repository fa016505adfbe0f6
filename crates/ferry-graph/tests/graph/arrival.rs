//! How facts arrive makes no difference: from one source or from several that have a part each,
//! when they are asked for or before, in whatever order, and whatever was asked before.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::answers::{Answer, Ask, gaps, nodes, questions, unrecorded};
use crate::model::Gap;
use crate::plan::worlds;
use crate::source::{Habits, Source, explorer, explorer_of};
use crate::world::{Names, World};

#[derive(Clone, Debug)]
struct Arrangement {
    salt: u64,
    sources: Vec<Habits>,
    asked_backwards: bool,
}

fn arrangement() -> impl Strategy<Value = Arrangement> {
    let habits = any::<(bool, bool, bool)>().prop_map(|(volunteers, backwards, remote)| Habits {
        volunteers,
        backwards,
        remote,
    });
    (any::<u64>(), vec(habits, 1..4), any::<bool>())
        .prop_map(|(salt, sources, asked_backwards)| Arrangement { salt, sources, asked_backwards })
}

fn sources_of(world: &World, arrangement: &Arrangement) -> Vec<Source> {
    let parts = parts(world, arrangement.sources.len(), arrangement.salt);
    let habits = arrangement.sources.iter();
    let named = habits.zip(parts).enumerate();
    named.map(|(n, (habits, part))| Source::new(&format!("source {n}"), part, *habits)).collect()
}

/// Asks everything, after all that is named was named.
fn ask_all(
    explorer: &mut ferry_graph::Explorer<'_>,
    asked: &[Ask],
    backwards: bool,
) -> (Vec<Answer>, std::collections::BTreeSet<Gap>, Names) {
    let named: Names = asked.iter().flat_map(Ask::names).collect();
    for node in nodes(explorer, &named).iter() {
        explorer.name(node);
    }
    let answers = if backwards {
        let mut answers: Vec<Answer> = asked.iter().rev().map(|ask| ask.ask(explorer)).collect();
        answers.reverse();
        answers
    } else {
        asked.iter().map(|ask| ask.ask(explorer)).collect()
    };
    (answers, gaps(explorer), unrecorded(explorer))
}

/// A world cut into parts, so that no fact is lost; some are in several parts.
fn parts(world: &World, count: usize, salt: u64) -> Vec<World> {
    let goes_to = |path: &str, what: u64, part: usize| {
        let hash = path.bytes().fold(salt ^ what, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
        });
        let part = u64::try_from(part).unwrap();
        let count = u64::try_from(count).unwrap();
        // One in eight is known to all of them.
        hash % count == part || (hash >> 32).is_multiple_of(8)
    };
    let mut parts = vec![World::default(); count];
    for (number, part) in parts.iter_mut().enumerate() {
        for (path, record) in &world.objects {
            if goes_to(path, 1, number) {
                part.objects.insert(path.clone(), record.clone());
            }
        }
        for (path, drv) in &world.derivations {
            if goes_to(path, 2, number) {
                part.derivations.insert(path.clone(), drv.clone());
            }
        }
        let files: BTreeSet<&String> = part.derivations.keys().collect();
        for (key, output) in &world.realised {
            if files.contains(&key.0) {
                part.realised.insert(key.clone(), output.clone());
            }
        }
        for (path, evaluation) in &world.evaluations {
            if goes_to(path, 3, number) {
                part.evaluations.insert(path.clone(), evaluation.clone());
            }
        }
    }
    parts
}

proptest! {
    #![proptest_config(crate::proptest_config())]

    #[test]
    fn answers_do_not_depend_on_how_facts_arrive(
        (mut world, asked) in questions(worlds()),
        arrangement in arrangement(),
    ) {
        if arrangement.sources.iter().any(|habits| habits.remote) {
            // Who is far away is not asked who made a derivation that a file tells enough of.
            for (_, record) in world.objects.iter_mut().filter(|(path, _)| path.ends_with(".drv")) {
                record.deriver = None;
            }
        }
        let expected = ask_all(&mut explorer(&world), &asked, false);
        let mut arranged = explorer_of(sources_of(&world, &arrangement));
        let answers = ask_all(&mut arranged, &asked, arrangement.asked_backwards);
        prop_assert_eq!(answers, expected);
        prop_assert_eq!(arranged.graph().disagreements(), &[]);
    }
}
