//! Random worlds, by plans that shrink well.
//!
//! What a derivation reads is planned before it, so derivations never go round in circles;
//! references may, where the plan says so.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::world::World;

/// What sort of derivation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sort {
    /// Input-addressed.
    Plain,
    /// A download.
    Fixed,
    /// Makes derivations: a fixed output.
    Maker,
    /// Content-addressed: its paths are known once it is built.
    Floating,
}

/// What is recorded as the deriver of an output.
#[derive(Clone, Debug)]
pub(crate) enum Recorded {
    Nothing,
    ItsOwn,
    /// Another one that may have nothing to do with it.
    Other(Index),
    /// One that nobody has.
    Lost,
}

#[derive(Clone, Debug)]
pub(crate) struct OutputPlan {
    pub(crate) had: bool,
    pub(crate) realised: bool,
    pub(crate) recorded: Recorded,
    pub(crate) refers_to_itself: bool,
    pub(crate) references: Vec<Index>,
    pub(crate) size: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct DrvPlan {
    pub(crate) sort: Sort,
    /// Whether anybody has the file, and whether it is in a database.
    pub(crate) file: bool,
    pub(crate) record: bool,
    pub(crate) outputs: Vec<OutputPlan>,
    /// A derivation, an output, and whether to read an output of the output.
    pub(crate) inputs: Vec<(Index, Index, bool)>,
    pub(crate) sources: Vec<Index>,
    pub(crate) exported: Vec<Index>,
    /// The download that an earlier one makes too.
    pub(crate) same_as: Option<Index>,
    /// The earlier derivation that makes this one.
    pub(crate) made_by: Option<Index>,
}

#[derive(Clone, Debug)]
pub(crate) struct SourcePlan {
    pub(crate) had: bool,
    pub(crate) references: Vec<Index>,
    pub(crate) size: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct EvaluationPlan {
    pub(crate) of: Index,
    pub(crate) needs: Vec<(Index, bool)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) sources: Vec<SourcePlan>,
    pub(crate) derivations: Vec<DrvPlan>,
    pub(crate) evaluations: Vec<EvaluationPlan>,
    pub(crate) circles: bool,
    /// Nothing is missing, and nothing is odd.
    pub(crate) whole: bool,
}

/// Worlds of up to a dozen derivations, with gaps.
pub(crate) fn worlds() -> impl Strategy<Value = World> {
    plans().prop_map(Plan::build)
}

/// The same without gaps, as a store is in which everything was just built.
pub(crate) fn whole_worlds() -> impl Strategy<Value = World> {
    plans().prop_map(|plan| plan.whole().build())
}

fn plans() -> impl Strategy<Value = Plan> {
    (
        vec(source_plan(), 1..5),
        vec(drv_plan(), 1..12),
        vec(evaluation_plan(), 0..4),
        prop::bool::weighted(0.15),
    )
        .prop_map(|(sources, derivations, evaluations, circles)| Plan {
            sources,
            derivations,
            evaluations,
            circles,
            whole: false,
        })
}

fn size() -> impl Strategy<Value = Option<u64>> {
    option::weighted(0.9, 1_u64..1000)
}

fn source_plan() -> impl Strategy<Value = SourcePlan> {
    (prop::bool::weighted(0.85), vec(any::<Index>(), 0..2), size())
        .prop_map(|(had, references, size)| SourcePlan { had, references, size })
}

fn output_plan() -> impl Strategy<Value = OutputPlan> {
    let recorded = prop_oneof![
        4 => Just(Recorded::ItsOwn),
        3 => Just(Recorded::Nothing),
        1 => any::<Index>().prop_map(Recorded::Other),
        1 => Just(Recorded::Lost),
    ];
    (
        prop::bool::weighted(0.85),
        any::<bool>(),
        recorded,
        prop::bool::weighted(0.2),
        vec(any::<Index>(), 0..4),
        size(),
    )
        .prop_map(|(had, realised, recorded, refers_to_itself, references, size)| OutputPlan {
            had,
            realised,
            recorded,
            refers_to_itself,
            references,
            size,
        })
}

fn drv_plan() -> impl Strategy<Value = DrvPlan> {
    let sort = prop_oneof![
        5 => Just(Sort::Plain),
        3 => Just(Sort::Fixed),
        2 => Just(Sort::Maker),
        2 => Just(Sort::Floating),
    ];
    let inputs = vec((any::<Index>(), any::<Index>(), prop::bool::weighted(0.7)), 0..5);
    (
        (sort, prop::bool::weighted(0.9), prop::bool::weighted(0.8)),
        vec(output_plan(), 1..=3),
        inputs,
        vec(any::<Index>(), 0..3),
        prop_oneof![5 => vec(any::<Index>(), 0..1), 1 => vec(any::<Index>(), 1..3)],
        option::weighted(0.4, any::<Index>()),
        option::weighted(0.3, any::<Index>()),
    )
        .prop_map(
            |((sort, file, record), outputs, inputs, sources, exported, same_as, made_by)| {
                DrvPlan { sort, file, record, outputs, inputs, sources, exported, same_as, made_by }
            },
        )
}

fn evaluation_plan() -> impl Strategy<Value = EvaluationPlan> {
    (any::<Index>(), vec((any::<Index>(), any::<bool>()), 0..5))
        .prop_map(|(of, needs)| EvaluationPlan { of, needs })
}

impl Plan {
    fn whole(mut self) -> Self {
        self.whole = true;
        self.circles = false;
        self.sources.iter_mut().for_each(|source| source.had = true);
        for drv in &mut self.derivations {
            (drv.file, drv.record) = (true, true);
            for output in &mut drv.outputs {
                (output.had, output.realised) = (true, true);
                output.recorded = Recorded::ItsOwn;
            }
        }
        self
    }
}
