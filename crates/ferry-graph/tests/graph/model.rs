//! The plain model: the same questions answered from tables of text, by the words of their
//! definitions. Slow, and knows nothing of who was asked what or when.

use std::collections::BTreeSet;

use ferry_graph::{Kind, Missing};

use crate::world::{Names, World};

/// What a [`Missing`] is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Gap {
    Object(String),
    Output(String),
    Deriver(String, Option<String>),
    Derivation(String),
    Evaluation(String),
}

impl Gap {
    pub(crate) fn of(missing: &Missing) -> Self {
        match missing {
            Missing::Object { path, .. } => Self::Object(path.clone()),
            Missing::Output(output) => Self::Output(output.clone()),
            Missing::Deriver { path, recorded } => Self::Deriver(path.clone(), recorded.clone()),
            Missing::Derivation(path) => Self::Derivation(path.clone()),
            Missing::Evaluation(path) => Self::Evaluation(path.clone()),
            other => panic!("a new sort of missing fact: {other:?}"),
        }
    }
}

/// The model of one world.
pub(crate) struct Model<'w> {
    pub(crate) world: &'w World,
    /// Derivations below what is named: which of several derivers is meant.
    meant: Names,
    pub(crate) gaps: BTreeSet<Gap>,
    pub(crate) unrecorded: Names,
}

impl<'w> Model<'w> {
    pub(crate) fn new(world: &'w World, named: &Names) -> Self {
        let mut model =
            Self { world, meant: Names::new(), gaps: BTreeSet::new(), unrecorded: Names::new() };
        // First those that leave no choice.
        let roots = named.iter().filter_map(|node| model.made_from(node)).collect();
        model.meant = model.below(&roots);
        let open = named.iter().filter(|node| model.made_from(node).is_none());
        let open = open.map(|node| model.derivers_of(node));
        let open = open.filter(|all| all.is_disjoint(&model.meant));
        let first = open.filter_map(|all| all.first().cloned());
        model.meant = model.below(&roots.iter().cloned().chain(first).collect());
        model
    }

    /// These and what they refer to.
    fn below(&self, derivations: &Names) -> Names {
        let mut reached = derivations.clone();
        loop {
            let more = reached.iter().filter_map(|node| self.references(node)).flatten();
            let more: Names = reached.iter().cloned().chain(more).collect();
            if more == reached {
                return reached;
            }
            reached = more;
        }
    }

    /// The derivation that something named is, or is an output of; else the one that is recorded
    /// as having made it, or that is the only one that makes it.
    fn made_from(&self, node: &str) -> Option<String> {
        match derivation_of(node) {
            Some(derivation) => self.made_from(derivation),
            None if is_derivation(node) => Some(node.to_owned()),
            None => {
                let all = self.derivers_of(node);
                let only = all.first().filter(|_| all.len() == 1).cloned();
                self.recorded(node).or(only)
            }
        }
    }

    pub(crate) fn has_file(&self, node: &str) -> bool {
        self.world.derivations.contains_key(node)
    }

    /// What an object refers to: a database says so, or the `.drv` file itself.
    pub(crate) fn references(&self, node: &str) -> Option<Names> {
        let recorded = self.world.objects.get(node).map(|record| record.references.clone());
        let file = || self.world.derivations.get(node).map(|drv| drv.references());
        let mut references = recorded.or_else(file)?;
        references.remove(node);
        Some(references)
    }

    /// What an output is: its path where one is known, else `derivation^name`.
    pub(crate) fn output(&self, derivation: &str, name: &str) -> String {
        let unknown = format!("{derivation}^{name}");
        let Some(drv) = self.world.derivations.get(derivation) else { return unknown };
        let said = drv.outputs.get(name).expect("worlds name outputs that there are");
        let realised = self.world.realised.get(&(derivation.to_owned(), name.to_owned()));
        said.as_ref().or(realised).cloned().unwrap_or(unknown)
    }

    fn outputs_of(&self, derivation: &str) -> Names {
        let drv = self.world.derivations.get(derivation);
        let names = drv.into_iter().flat_map(|drv| drv.outputs.keys());
        names.map(|name| self.output(derivation, name)).collect()
    }

    /// The derivations that inputs such as `out^out` lead over.
    pub(crate) fn made_on_the_way(&self, derivation: &str) -> Names {
        let mut made = Names::new();
        let drv = self.world.derivations.get(derivation);
        for (input, chain) in drv.into_iter().flat_map(|drv| &drv.inputs) {
            let mut node = input.clone();
            for name in chain.split('^') {
                made.insert(node.clone());
                node = self.output(&node, name);
            }
        }
        made
    }

    /// All derivations that have a path as an output.
    fn derivers_of(&self, path: &str) -> Names {
        let derivations = self.world.derivations.keys();
        derivations.filter(|drv| self.outputs_of(drv).contains(path)).cloned().collect()
    }

    /// The recorded deriver, if somebody has it.
    fn recorded(&self, path: &str) -> Option<String> {
        let deriver = self.world.objects.get(path)?.deriver.clone();
        deriver.filter(|deriver| self.has_file(deriver))
    }

    /// The derivations to build for something. A derivation stands for itself.
    pub(crate) fn builders(&self, node: &str) -> Names {
        if let Some(derivation) = derivation_of(node) {
            return Names::from([derivation.to_owned()]);
        }
        if is_derivation(node) {
            return Names::from([node.to_owned()]);
        }
        let recorded = self.recorded(node);
        let mut all = self.derivers_of(node);
        all.extend(recorded.clone());
        let meant: Names = all.intersection(&self.meant).cloned().collect();
        match all.len() {
            0 | 1 => all,
            _ if !meant.is_empty() => meant,
            _ => recorded.or_else(|| all.first().cloned()).into_iter().collect(),
        }
    }

    /// The derivations that made a derivation.
    pub(crate) fn producers(&self, derivation: &str) -> Names {
        match derivation_of(derivation) {
            Some(producer) => Names::from([producer.to_owned()]),
            None => {
                let mut all = self.derivers_of(derivation);
                all.extend(self.recorded(derivation));
                all
            }
        }
    }

    pub(crate) fn is_source(&self, node: &str) -> bool {
        if is_derivation(node) || derivation_of(node).is_some() {
            return false;
        }
        let record = self.world.objects.get(node);
        let made = record.is_some_and(|record| record.deriver.is_some());
        let by_content = record.is_some_and(|record| record.content_addressed == Some(true));
        let files = self.world.derivations.values();
        let read = files.into_iter().any(|drv| drv.sources.contains(node))
            || self.world.objects.iter().any(|(path, record)| {
                // A derivation refers to derivations and to sources.
                is_derivation(path) && record.references.contains(node)
            });
        !made && self.derivers_of(node).is_empty() && (by_content || read)
    }

    /// Whether an evaluation of what makes it was recorded.
    pub(crate) fn is_recorded(&self, node: &str) -> bool {
        self.builders(node).iter().any(|builder| {
            self.world.evaluations.contains_key(builder) || !self.producers(builder).is_empty()
        })
    }

    fn gap_of_derivation(&mut self, derivation: &str) {
        if !self.has_file(derivation) {
            let text = derivation.to_owned();
            let is_output = derivation_of(derivation).is_some();
            self.gaps.insert(if is_output { Gap::Output(text) } else { Gap::Derivation(text) });
        }
    }

    /// Nobody made it, or nobody has it at all.
    pub(crate) fn gap_of_deriver(&mut self, path: &str) {
        if self.references(path).is_none() {
            self.gaps.insert(Gap::Object(path.to_owned()));
            return;
        }
        let recorded = self.world.objects.get(path).and_then(|record| record.deriver.clone());
        self.gaps.insert(Gap::Deriver(path.to_owned(), recorded));
    }

    /// What a derivation reads: its sources, the outputs that it names, and the outputs of every
    /// derivation that `exportReferencesGraph` leads to.
    pub(crate) fn reads(&mut self, derivation: &str) -> Names {
        self.gap_of_derivation(derivation);
        let Some(drv) = self.world.derivations.get(derivation) else { return Names::new() };
        let mut reads = drv.sources.clone();
        for (input, chain) in &drv.inputs {
            let mut node = input.clone();
            self.gap_of_derivation(&node);
            for (depth, name) in chain.split('^').enumerate() {
                if depth > 0 && derivation_of(&node).is_none() {
                    self.gap_of_derivation(&node);
                }
                node = self.output(&node, name);
            }
            reads.insert(node);
        }
        let exported = self.closure(&[Kind::Run], &drv.exported, &Names::new(), None);
        reads.extend(self.outputs(&exported));
        reads
    }

    /// The edges of a kind that begin at a node.
    pub(crate) fn edges(&mut self, kind: Kind, node: &str) -> Names {
        match kind {
            Kind::Run => match self.references(node) {
                Some(references) => references,
                None => {
                    let text = node.to_owned();
                    let is_output = derivation_of(node).is_some();
                    self.gaps.insert(if is_output { Gap::Output(text) } else { Gap::Object(text) });
                    Names::new()
                }
            },
            Kind::Build => {
                let builders = self.builders(node);
                if builders.is_empty() && !self.is_source(node) {
                    self.gap_of_deriver(node);
                }
                builders.iter().flat_map(|builder| self.reads(builder)).collect()
            }
            Kind::Eval => self
                .builders(node)
                .iter()
                .flat_map(|builder| self.evaluated_with(builder))
                .collect(),
        }
    }

    /// What had to be there before a derivation could exist: what is recorded, and what made it.
    pub(crate) fn evaluated_with(&self, derivation: &str) -> Names {
        let mut needs = self.producers(derivation);
        let recorded = self.world.evaluations.get(derivation);
        needs.extend(recorded.into_iter().flat_map(|evaluation| evaluation.needs.iter().cloned()));
        needs
    }

    pub(crate) fn immediate(&mut self, kind: Kind, of: &Names) -> Names {
        if kind == Kind::Eval {
            for node in of {
                let builders = self.builders(node);
                match builders.first() {
                    None if !self.is_source(node) => self.gap_of_deriver(node),
                    Some(builder) if !self.is_recorded(node) => {
                        self.gaps.insert(Gap::Evaluation(builder.clone()));
                    }
                    _ => {}
                }
            }
        }
        of.iter().flat_map(|node| self.edges(kind, node)).collect()
    }

    pub(crate) fn closure(
        &mut self,
        kinds: &[Kind],
        of: &Names,
        stop: &Names,
        depth: Option<u32>,
    ) -> Names {
        if kinds.contains(&Kind::Eval) {
            for node in of.difference(stop) {
                if let (Some(builder), false) =
                    (self.builders(node).first(), self.is_recorded(node))
                {
                    self.unrecorded.insert(builder.clone());
                }
            }
        }
        let mut reached = of.clone();
        let mut edge: Names = of.clone();
        let mut left = depth.unwrap_or(u32::MAX);
        while !edge.is_empty() && left > 0 {
            left -= 1;
            let mut beyond = Names::new();
            for node in edge.difference(stop) {
                for &kind in kinds {
                    beyond.extend(self.edges(kind, node));
                }
            }
            edge = beyond.difference(&reached).cloned().collect();
            reached.extend(edge.iter().cloned());
        }
        reached
    }

    pub(crate) fn dependents(
        &mut self,
        kinds: &[Kind],
        universe: &Names,
        targets: &Names,
        depth: Option<u32>,
    ) -> Names {
        let within = self.closure(kinds, universe, &Names::new(), None);
        let mut found: Names = targets.intersection(&within).cloned().collect();
        for _ in 0..depth.unwrap_or(u32::MAX) {
            let needs_one = |node: &&String| {
                kinds.iter().any(|&kind| !self.edges(kind, node).is_disjoint(&found))
            };
            let more: Names = within.iter().filter(needs_one).cloned().collect();
            if more.is_subset(&found) {
                break;
            }
            found.extend(more);
        }
        found
    }

    pub(crate) fn outputs(&mut self, of: &Names) -> Names {
        let derivations: Vec<&String> = of.iter().filter(|node| is_derivation(node)).collect();
        derivations.iter().for_each(|derivation| self.gap_of_derivation(derivation));
        derivations.iter().flat_map(|derivation| self.outputs_of(derivation)).collect()
    }

    pub(crate) fn derivers(&mut self, of: &Names) -> Names {
        let mut found = Names::new();
        for node in of {
            if is_derivation(node) {
                found.extend(self.producers(node));
                continue;
            }
            let builders = self.builders(node);
            if builders.is_empty() && !self.is_source(node) {
                self.gap_of_deriver(node);
            }
            found.extend(builders);
        }
        found
    }

    pub(crate) fn fixed_outputs(&mut self, of: &Names) -> Names {
        let mut found = Names::new();
        for node in of {
            let mut makers = self.builders(node);
            let says_no = self.world.objects.get(node).and_then(|one| one.content_addressed);
            if makers.is_empty() && !self.is_source(node) && says_no != Some(false) {
                self.gap_of_deriver(node);
            }
            makers.iter().for_each(|maker| self.gap_of_derivation(maker));
            if is_derivation(node) {
                makers.extend(self.producers(node));
            }
            let is_fixed =
                |maker: &String| self.world.derivations.get(maker).is_some_and(|drv| drv.fixed);
            if makers.iter().any(is_fixed) {
                found.insert(node.clone());
            }
        }
        found
    }

    pub(crate) fn fragments(&self, of: &Names) -> Names {
        let builders = of.iter().flat_map(|node| self.builders(node));
        let recorded = builders.filter_map(|builder| self.world.evaluations.get(&builder));
        recorded.flat_map(|evaluation| evaluation.fragments.iter().cloned()).collect()
    }

    /// The edges of these kinds among the nodes of a set, a node's to itself left out.
    pub(crate) fn edges_within(
        &mut self,
        kinds: &[Kind],
        set: &Names,
    ) -> BTreeSet<(String, String)> {
        let mut found = BTreeSet::new();
        for from in set {
            for &kind in kinds {
                let targets = self.edges(kind, from);
                let inside = targets.intersection(set).filter(|to| *to != from);
                found.extend(inside.map(|to| (from.clone(), to.clone())));
            }
        }
        found
    }

    /// How many edges there are on a shortest way.
    pub(crate) fn distance(&mut self, kinds: &[Kind], from: &Names, to: &Names) -> Option<usize> {
        let mut reached = from.clone();
        let mut edge = from.clone();
        for length in 0.. {
            if !edge.is_disjoint(to) {
                return Some(length);
            }
            if edge.is_empty() {
                break;
            }
            let mut beyond = Names::new();
            for node in &edge {
                for &kind in kinds {
                    beyond.extend(self.edges(kind, node));
                }
            }
            edge = beyond.difference(&reached).cloned().collect();
            reached.extend(edge.iter().cloned());
        }
        None
    }

    pub(crate) fn size(&self, nodes: &Names) -> u64 {
        nodes.iter().filter_map(|node| self.world.objects.get(node)?.size).sum()
    }
}

pub(crate) fn is_derivation(node: &str) -> bool {
    node.ends_with(".drv") && derivation_of(node).is_none()
}

/// What a node is an output of, if its path is not known.
pub(crate) fn derivation_of(node: &str) -> Option<&str> {
    node.rsplit_once('^').map(|(derivation, _)| derivation)
}
