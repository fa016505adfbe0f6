//! Worlds that cannot be, and worlds with gaps: what the graph says about them.

use ferry_formats::StoreDir;
use ferry_graph::{
    Explorer, Facts, FactsError, GraphError, Kind, Ledger, Missing, NodeSet, Question,
};

use crate::answers::{node, nodes, written};
use crate::source::{Habits, Source, explorer, explorer_of};
use crate::world::{Names, World, path};

fn names<const N: usize>(paths: [&str; N]) -> Names {
    paths.into_iter().map(str::to_owned).collect()
}

fn missing(explorer: &Explorer<'_>) -> Vec<Missing> {
    explorer.missing().cloned().collect()
}

/// The circle of an error.
fn circle<T>(result: Result<T, GraphError>) -> Vec<String> {
    match result {
        Err(GraphError::Cycle { cycle }) => cycle,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("no error"),
    }
}

/// `top` reads `left`, and `left` and `right` read each other.
fn derivations_in_a_circle() -> World {
    let mut world = World::default();
    let reads = |world: &mut World, name: &str, input: &str| {
        let input = path(&format!("{input}.drv"));
        world.derivation(&path(&format!("{name}.drv")), &path(name), &[(&input, "out")]);
    };
    reads(&mut world, "top", "left");
    reads(&mut world, "left", "right");
    reads(&mut world, "right", "left");
    world
}

#[test]
fn a_derivation_that_needs_itself_is_refused_and_the_way_round_is_shown() {
    let world = derivations_in_a_circle();
    let mut explorer = explorer(&world);
    let top = nodes(&mut explorer, &names([&path("top.drv")]));
    let result = explorer.closure(&[Kind::Build], &top, None, None);
    let message = result.as_ref().map(drop).unwrap_err().to_string();
    let cycle = circle(result);
    let (left, right) = (path("left.drv"), path("right.drv"));
    assert!(
        cycle == [left.clone(), right.clone(), left.clone()]
            || cycle == [right.clone(), left.clone(), right.clone()],
        "{cycle:?}"
    );
    assert_eq!(
        message,
        format!("what {} needs leads back to it:\n  {}", cycle[0], cycle.join("\n  "))
    );
}

#[test]
fn a_derivation_that_reads_its_own_output_is_refused() {
    let (drv, output) = (path("ouroboros.drv"), path("ouroboros"));
    let mut world = World::default();
    world.derivation(&drv, &output, &[(&drv, "out")]);
    let mut explorer = explorer(&world);
    let output = nodes(&mut explorer, &names([&output]));
    let cycle = circle(explorer.closure(&[Kind::Build, Kind::Run], &output, None, None));
    assert_eq!(cycle, [drv.clone(), drv]);
}

#[test]
fn a_circle_of_derivations_is_no_obstacle_to_other_questions() {
    let world = derivations_in_a_circle();
    let mut explorer = explorer(&world);
    let top = nodes(&mut explorer, &names([&path("top.drv")]));
    let reads = explorer.immediate(Kind::Build, &top).unwrap();
    assert_eq!(written(&explorer, &reads), names([&path("left")]));
    let one_step = explorer.closure(&[Kind::Build], &top, None, Some(1)).unwrap();
    assert_eq!(written(&explorer, &one_step), names([&path("top.drv"), &path("left")]));
    let order = explorer.topological_order(&[Kind::Build], &one_step).unwrap();
    assert_eq!(order.len(), 2);
}

/// `a` refers to `b`, `b` to `c`, and `c` to `b` and to itself.
fn references_in_a_circle() -> World {
    let (a, b, c) = (path("a"), path("b"), path("c"));
    let mut world = World::default();
    world.object(&a, &[&b]);
    world.object(&b, &[&c]);
    world.object(&c, &[&c, &b]);
    world
}

#[test]
fn references_in_a_circle_have_a_closure_and_no_order() {
    let mut explorer = explorer(&references_in_a_circle());
    let a = nodes(&mut explorer, &names([&path("a")]));
    let closure = explorer.closure(&[Kind::Run], &a, None, None).unwrap();
    assert_eq!(written(&explorer, &closure), names([&path("a"), &path("b"), &path("c")]));
    let cycle = circle(explorer.topological_order(&[Kind::Run], &closure));
    let (b, c) = (path("b"), path("c"));
    assert!(cycle == [b.clone(), c.clone(), b.clone()] || cycle == [c.clone(), b, c], "{cycle:?}");
    assert_eq!(circle(explorer.sizes(&a)), cycle);
}

#[test]
fn a_reference_to_itself_is_no_circle() {
    let itself = path("itself");
    let mut world = World::default();
    world.object(&itself, &[&itself]);
    let mut explorer = explorer(&world);
    let set = nodes(&mut explorer, &names([&itself]));
    assert_eq!(explorer.topological_order(&[Kind::Run], &set).unwrap().len(), 1);
    assert_eq!(explorer.immediate(Kind::Run, &set).unwrap(), NodeSet::default());
}

#[test]
fn an_output_that_there_is_not_is_an_error_that_tells_which_there_are() {
    let (tool, user) = (path("tool.drv"), path("user.drv"));
    let mut world = World::default();
    let outputs = &mut world.derivation(&tool, &path("tool"), &[]).outputs;
    outputs.insert("dev".to_owned(), Some(path("tool-dev")));
    world.derivation(&user, &path("user"), &[(&tool, "doc")]);
    let mut explorer = explorer(&world);
    let expected = format!("{tool} has no output `doc`; it has: dev, out");

    let drv = node(&mut explorer, &tool);
    let error = explorer.output(drv, "doc").unwrap_err();
    assert!(matches!(&error, GraphError::NoSuchOutput { output, .. } if output == "doc"));
    assert_eq!(error.to_string(), expected);
    // The derivation that reads it is as wrong, and so is one that goes on from there.
    let user = nodes(&mut explorer, &names([&path("user")]));
    let error = explorer.immediate(Kind::Build, &user).unwrap_err();
    assert_eq!(error.to_string(), expected);
    let error = explorer.closure(&[Kind::Build], &user, None, None).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

/// A disk that fails at one sort of question.
struct Failing {
    source: Source,
    at: fn(&Question<'_>) -> bool,
}

impl Facts for Failing {
    fn describe(&self) -> String {
        "the old disk".to_owned()
    }

    fn learn(&mut self, question: Question<'_>, ledger: &mut Ledger<'_>) -> Result<(), FactsError> {
        if (self.at)(&question) {
            return Err("read error in block 7".into());
        }
        self.source.learn(question, ledger)
    }
}

#[test]
fn a_source_that_cannot_look_is_an_error_whatever_it_was_asked() {
    let (drv, output) = (path("hello.drv"), path("hello"));
    let mut world = World::default();
    world.derivation(&drv, &output, &[]);
    world.object(&output, &[]);
    type At = fn(&Question<'_>) -> bool;
    type Ask = fn(&mut Explorer<'_>, &NodeSet) -> Result<NodeSet, GraphError>;
    let cases: [(At, Ask); 5] = [
        (
            |question| matches!(question, Question::Objects(_)),
            |explorer, set| explorer.immediate(Kind::Run, set),
        ),
        (
            |question| matches!(question, Question::Derivers(_)),
            |explorer, set| explorer.derivers(set),
        ),
        (
            |question| matches!(question, Question::Derivations(_)),
            |explorer, set| explorer.closure(&[Kind::Build], set, None, None),
        ),
        (
            |question| matches!(question, Question::Evaluations(_)),
            |explorer, set| explorer.fragments(set),
        ),
        (|question| matches!(question, Question::Everything), |explorer, _| explorer.everything()),
    ];
    for (at, ask) in cases {
        let source = Source::new("", world.clone(), Habits::default());
        let mut explorer = Explorer::new(StoreDir::default());
        explorer.add_source(Box::new(Failing { source, at }));
        let set = nodes(&mut explorer, &names([&output]));
        match ask(&mut explorer, &set) {
            Err(GraphError::Source { name, source }) => {
                assert_eq!(name, "the old disk");
                assert_eq!(source.to_string(), "read error in block 7");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_object_that_nobody_has_is_missing_and_said_to_be_an_output_where_that_is_known() {
    let (drv, output, stranger) = (path("hello.drv"), path("hello"), path("stranger"));
    let mut world = World::default();
    world.derivation(&drv, &output, &[]);
    let mut explorer = explorer(&world);
    let drv_set = nodes(&mut explorer, &names([&drv]));
    let mut set = explorer.outputs(&drv_set).unwrap();
    set.union_with(&nodes(&mut explorer, &names([&stranger])));
    let closure = explorer.closure(&[Kind::Run], &set, None, None).unwrap();
    assert_eq!(closure, set);
    let mut expected = vec![
        Missing::Object { path: output, output_of: Some((drv, "out".to_owned())) },
        Missing::Object { path: stranger, output_of: None },
    ];
    expected.sort();
    assert_eq!(missing(&explorer), expected);
}

#[test]
fn an_output_without_a_path_has_no_references_before_it_is_built() {
    let drv = path("floating.drv");
    let mut world = World::default();
    world.derivation(&drv, "", &[]).outputs.insert("out".to_owned(), None);
    let mut explorer = explorer(&world);
    let set = nodes(&mut explorer, &names([&format!("{drv}^out")]));
    explorer.immediate(Kind::Run, &set).unwrap();
    assert_eq!(missing(&explorer), [Missing::Output(format!("{drv}^out"))]);
    // What it takes to build it is no secret.
    let built = explorer.immediate(Kind::Build, &set).unwrap();
    assert!(built.is_empty());
    assert_eq!(missing(&explorer).len(), 1);
}

#[test]
fn a_path_that_nobody_is_known_to_have_made_is_missing_its_deriver() {
    let (orphan, child, lost) = (path("orphan"), path("child"), path("lost.drv"));
    let mut world = World::default();
    world.object(&orphan, &[]);
    world.object(&child, &[]).deriver = Some(lost.clone());
    let mut explorer = explorer(&world);
    let set = nodes(&mut explorer, &names([&orphan, &child]));
    assert!(explorer.immediate(Kind::Build, &set).unwrap().is_empty());
    let mut expected = vec![
        Missing::Deriver { path: orphan, recorded: None },
        Missing::Deriver { path: child, recorded: Some(lost) },
    ];
    expected.sort();
    assert_eq!(missing(&explorer), expected);
}

#[test]
fn a_derivation_that_nobody_has_is_missing_where_it_is_read_from() {
    let (drv, lost) = (path("user.drv"), path("lost.drv"));
    let mut world = World::default();
    world.derivation(&drv, &path("user"), &[(&lost, "dev"), (&lost, "out")]);
    let mut explorer = explorer(&world);
    let set = nodes(&mut explorer, &names([&drv]));
    let reads = explorer.immediate(Kind::Build, &set).unwrap();
    // Which paths these are only the derivation knows.
    let expected = names([&format!("{lost}^dev"), &format!("{lost}^out")]);
    assert_eq!(written(&explorer, &reads), expected);
    assert_eq!(missing(&explorer), [Missing::Derivation(lost)]);
}

#[test]
fn an_evaluation_that_was_not_recorded_is_missing_or_said_to_end_a_closure() {
    let (drv, output) = (path("hello.drv"), path("hello"));
    let mut world = World::default();
    world.derivation(&drv, &output, &[]);
    world.object(&output, &[]);
    let mut asked = explorer(&world);
    let set = nodes(&mut asked, &names([&output]));
    asked.immediate(Kind::Eval, &set).unwrap();
    assert_eq!(missing(&asked), [Missing::Evaluation(drv.clone())]);

    let mut asked = explorer(&world);
    let set = nodes(&mut asked, &names([&output]));
    asked.closure(&[Kind::Eval], &set, None, None).unwrap();
    assert_eq!(missing(&asked), []);
    assert_eq!(asked.unrecorded().collect::<Vec<_>>(), [drv]);
}

#[test]
fn what_a_derivation_refers_to_is_a_source_even_if_nobody_has_it_or_the_file() {
    let (drv, lost) = (path("hello.drv"), path("lost.tar.gz"));
    let mut world = World::default();
    world.object(&drv, &[&lost]);
    let mut explorer = explorer(&world);
    let set = nodes(&mut explorer, &names([&drv]));
    let recipe = explorer.closure(&[Kind::Run], &set, None, None).unwrap();
    let sources = explorer.sources(&recipe).unwrap();
    assert_eq!(written(&explorer, &sources), names([&lost]));
    assert_eq!(missing(&explorer), [Missing::Object { path: lost, output_of: None }]);
}

#[test]
fn a_graph_without_sources_knows_nothing_and_says_so() {
    let mut explorer = explorer_of(Vec::new());
    let set = nodes(&mut explorer, &names([&path("hello")]));
    assert_eq!(explorer.closure(&[Kind::Run], &set, None, None).unwrap(), set);
    assert_eq!(missing(&explorer), [Missing::Object { path: path("hello"), output_of: None }]);
    assert!(explorer.everything().unwrap().is_empty());
}
