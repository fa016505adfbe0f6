//! A source that tells a world: all of it or a part, when it is asked or before.

use std::collections::BTreeSet;

use ferry_formats::StoreDir;
use ferry_graph::{
    DerivationFacts, Explorer, Facts, FactsError, Ledger, NodeId, ObjectFacts, Question,
};

use crate::world::{Drv, World, parse};

/// How a source behaves. None of it may make a difference to an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Habits {
    /// Tells all that it knows as soon as it is asked anything.
    pub(crate) volunteers: bool,
    /// Tells what comes last in order first.
    pub(crate) backwards: bool,
    /// Says that it is far away.
    pub(crate) remote: bool,
}

/// A world as a source of facts.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) world: World,
    pub(crate) habits: Habits,
    pub(crate) told: bool,
}

impl Source {
    pub(crate) fn new(name: &str, world: World, habits: Habits) -> Self {
        Self { name: name.to_owned(), world, habits, told: false }
    }

    fn object(&self, path: &str, ledger: &mut Ledger<'_>) {
        let Some(record) = self.world.objects.get(path) else { return };
        let node = ledger.node(&parse(path));
        let mut references: Vec<NodeId> =
            record.references.iter().map(|path| ledger.node(&parse(path))).collect();
        if self.habits.backwards {
            references.reverse();
        }
        let deriver = record.deriver.as_ref().map(|path| ledger.node(&parse(path)));
        ledger.object(
            node,
            &ObjectFacts {
                references: &references,
                nar_size: record.size,
                deriver,
                content_addressed: record.content_addressed,
            },
        );
    }

    fn derivation(&self, path: &str, ledger: &mut Ledger<'_>) {
        let Some(drv) = self.world.derivations.get(path) else { return };
        let node = ledger.node(&parse(path));
        if self.habits.backwards {
            self.realised(path, ledger);
        }
        ledger.derivation(node, &facts_of(drv));
        self.realised(path, ledger);
    }

    fn realised(&self, path: &str, ledger: &mut Ledger<'_>) {
        let node = ledger.node(&parse(path));
        for ((derivation, name), output) in &self.world.realised {
            if derivation == path {
                let output = ledger.node(&parse(output));
                ledger.realised(node, name, output);
            }
        }
    }

    fn derivers(&self, output: &str, ledger: &mut Ledger<'_>) {
        let node = ledger.node(&parse(output));
        for (path, drv) in &self.world.derivations {
            if drv.outputs.values().flatten().any(|made| made == output) {
                let deriver = ledger.node(&parse(path));
                ledger.deriver(node, deriver);
            }
        }
        for ((derivation, name), made) in &self.world.realised {
            if made == output {
                let derivation = ledger.node(&parse(derivation));
                ledger.realised(derivation, name, node);
            }
        }
    }

    fn evaluation(&self, path: &str, ledger: &mut Ledger<'_>) {
        let Some(evaluation) = self.world.evaluations.get(path) else { return };
        let node = ledger.node(&parse(path));
        let needs: Vec<NodeId> =
            evaluation.needs.iter().map(|path| ledger.node(&parse(path))).collect();
        let fragments: Vec<NodeId> =
            evaluation.fragments.iter().map(|path| ledger.node(&parse(path))).collect();
        ledger.evaluation(node, &needs, &fragments);
    }

    /// Every path that it could tell anything about.
    fn paths(&self) -> Vec<String> {
        let world = &self.world;
        let mut paths: BTreeSet<String> = world.objects.keys().cloned().collect();
        paths.extend(world.derivations.keys().cloned());
        paths.extend(
            world.derivations.values().flat_map(|drv| drv.outputs.values().flatten().cloned()),
        );
        paths.extend(world.realised.values().cloned());
        paths.extend(world.evaluations.keys().cloned());
        let mut paths: Vec<String> = paths.into_iter().collect();
        if self.habits.backwards {
            paths.reverse();
        }
        paths
    }
}

impl Facts for Source {
    fn describe(&self) -> String {
        self.name.clone()
    }

    fn is_remote(&self) -> bool {
        self.habits.remote
    }

    fn learn(&mut self, question: Question<'_>, ledger: &mut Ledger<'_>) -> Result<(), FactsError> {
        if self.habits.volunteers {
            if !std::mem::replace(&mut self.told, true) {
                for path in self.paths() {
                    self.object(&path, ledger);
                    self.derivation(&path, ledger);
                    self.derivers(&path, ledger);
                    self.evaluation(&path, ledger);
                }
            }
            return Ok(());
        }
        type Tell = fn(&Source, &str, &mut Ledger<'_>);
        let (nodes, tell): (&[NodeId], Tell) = match question {
            Question::Objects(nodes) => (nodes, Self::object),
            Question::Derivations(nodes) => (nodes, Self::derivation),
            Question::Derivers(nodes) => (nodes, Self::derivers),
            Question::Evaluations(nodes) => (nodes, Self::evaluation),
            Question::Everything => {
                for path in self.paths() {
                    self.object(&path, ledger);
                    self.derivation(&path, ledger);
                }
                return Ok(());
            }
        };
        for &node in nodes {
            let path = ledger.path(node).ok_or("asked about something without a path")?;
            tell(self, &ledger.store_dir().render_path(&path), ledger);
        }
        Ok(())
    }
}

pub(crate) fn facts_of(drv: &Drv) -> DerivationFacts {
    let paths = |paths: &BTreeSet<String>| paths.iter().map(|path| parse(path)).collect();
    DerivationFacts {
        outputs: drv
            .outputs
            .iter()
            .map(|(name, path)| (name.clone(), path.as_deref().map(parse)))
            .collect(),
        fixed_output: drv.fixed,
        inputs: drv.inputs.iter().map(|(path, name)| (parse(path), name.clone())).collect(),
        sources: paths(&drv.sources),
        exported: paths(&drv.exported),
        never_substituted: drv.never_substituted,
        urls: Vec::new(),
    }
}

/// An explorer of these sources.
pub(crate) fn explorer_of(sources: Vec<Source>) -> Explorer<'static> {
    let mut explorer = Explorer::new(StoreDir::default());
    for source in sources {
        explorer.add_source(Box::new(source));
    }
    explorer
}

/// An explorer of a world, told question by question.
pub(crate) fn explorer(world: &World) -> Explorer<'static> {
    explorer_of(vec![Source::new("the store", world.clone(), Habits::default())])
}
