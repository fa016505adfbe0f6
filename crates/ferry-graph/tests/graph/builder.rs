//! Plans made into worlds.

use std::collections::BTreeMap;

use ferry_graph::Kind;
use proptest::sample::Index;

use crate::model::Model;
use crate::plan::{DrvPlan, EvaluationPlan, OutputPlan, Plan, Recorded, Sort, SourcePlan};
use crate::world::{Drv, Evaluation, Names, Record, World, path};

const OUTPUTS: [&str; 3] = ["out", "dev", "doc"];

fn pick<'a, T>(index: &Index, from: &'a [T]) -> Option<&'a T> {
    (!from.is_empty()).then(|| index.get(from))
}

/// A world that is being built.
#[derive(Default)]
struct Builder {
    whole: bool,
    world: World,
    /// How many objects there were before a derivation, by its number.
    before: Vec<usize>,
    /// The derivations so far with what their files say, had or not.
    derivations: Vec<(String, Drv)>,
    /// What a derivation may read as a source.
    readable: Vec<String>,
    /// In a whole world: what the outputs of a derivation may refer to.
    within_reach: Vec<String>,
    /// What an object may refer to.
    objects: Vec<String>,
    /// References still to be chosen: all objects are known by then.
    references: Vec<(String, Vec<Index>)>,
    /// Derivations that make derivations, and what they make.
    makers: Vec<(String, Option<String>)>,
    fixed: Vec<Option<String>>,
}

impl Plan {
    pub(crate) fn build(self) -> World {
        let mut builder = Builder { whole: self.whole, ..Builder::default() };
        for (number, plan) in self.sources.into_iter().enumerate() {
            builder.source(number, plan);
        }
        if !self.whole {
            // Nobody has it, and only derivations know it.
            builder.readable.push(path("lost-source"));
            let stranger = path("stranger");
            builder.objects.push(stranger.clone());
            builder.world.strangers.insert(stranger);
        }
        for (number, plan) in self.derivations.into_iter().enumerate() {
            builder.derivation(number, plan, self.circles);
        }
        let references = std::mem::take(&mut builder.references);
        for (path, chosen) in references {
            let chosen = chosen.iter().filter_map(|index| pick(index, &builder.objects)).cloned();
            let record = builder.world.objects.get_mut(&path).expect("an object");
            record.references.extend(chosen);
        }
        for plan in self.evaluations {
            builder.evaluation(&plan);
        }
        builder.world
    }
}

impl Builder {
    fn source(&mut self, number: usize, plan: SourcePlan) {
        let source = path(&format!("source-{number}"));
        if plan.had {
            let known = self.objects.clone();
            let references: Names =
                plan.references.iter().filter_map(|index| pick(index, &known)).cloned().collect();
            let content_addressed = Some(true);
            let record = Record { references, size: plan.size, deriver: None, content_addressed };
            self.world.objects.insert(source.clone(), record);
            self.readable.push(source.clone());
        } else {
            self.world.strangers.insert(source.clone());
        }
        self.objects.push(source);
    }

    fn derivation(&mut self, number: usize, plan: DrvPlan, circles: bool) {
        let file = path(&format!("package-{number}.drv"));
        self.before.push(self.objects.len());
        let fixed = plan.sort == Sort::Fixed || plan.sort == Sort::Maker && !self.whole;
        let mut drv = Drv { fixed, ..Drv::default() };
        self.inputs(&plan, &mut drv);
        let made_by =
            plan.made_by.and_then(|index| pick(&index, &self.makers).map(|(drv, _)| drv.clone()));
        if let Some(maker) = &made_by {
            self.product(maker, &file);
            if self.whole && self.world.realised.values().any(|made| *made == file) {
                // What a build makes refers to nothing but what the build had.
                let reach = self.within_reach(maker);
                drv.inputs.retain(|(input, _)| reach.contains(input));
                drv.sources.retain(|source| reach.contains(source));
                drv.exported.retain(|exported| reach.contains(exported));
            }
        }
        if self.whole {
            self.world.derivations.insert(file.clone(), drv.clone());
            self.within_reach = self.within_reach(&file).into_iter().collect();
        }
        self.outputs(number, &file, &plan, &mut drv, circles);
        if plan.record {
            // It may be on record only: its maker did not know the path before.
            let is_made = self.world.realised.values().any(|made| *made == file);
            let deriver = made_by.filter(|_| is_made || !self.whole && number.is_multiple_of(2));
            let content_addressed = number.is_multiple_of(3).then_some(true);
            let record = Record {
                references: drv.references(),
                size: Some(100),
                deriver,
                content_addressed,
            };
            self.world.objects.insert(file.clone(), record);
        }
        if plan.file {
            self.world.derivations.insert(file.clone(), drv.clone());
            self.readable.push(file.clone());
        } else if !plan.record {
            self.world.strangers.insert(file.clone());
        }
        if plan.sort == Sort::Maker {
            self.makers.push((file.clone(), None));
        }
        self.objects.push(file.clone());
        self.derivations.push((file, drv));
    }

    /// What a build has: what it reads, and what that refers to.
    fn within_reach(&self, file: &str) -> Names {
        let none = Names::new();
        let mut model = Model::new(&self.world, &none);
        let reads = model.reads(file);
        model.closure(&[Kind::Run], &reads, &none, None)
    }

    /// Makes `file` what a maker makes, unless it makes something else already.
    fn product(&mut self, maker: &str, file: &str) {
        let Some(entry) = self.makers.iter_mut().find(|(drv, made)| drv == maker && made.is_none())
        else {
            return;
        };
        if self.whole {
            // Once something was built with what it made, it makes that.
            let output = (maker.to_owned(), "out".to_owned());
            let Some(instead) = self.world.realised.get(&output).cloned() else { return };
            let mut references = self.world.objects.values().map(|record| &record.references);
            if references.any(|paths| paths.contains(maker) || paths.contains(&instead)) {
                return;
            }
            self.world.realised.insert(output, file.to_owned());
            self.world.objects.remove(&instead);
        }
        entry.1 = Some(file.to_owned());
        if self.whole {
            return;
        }
        let made = BTreeMap::from([("out".to_owned(), Some(file.to_owned()))]);
        for (path, drv) in &mut self.derivations {
            if path == maker {
                drv.outputs.clone_from(&made);
            }
        }
        if let Some(drv) = self.world.derivations.get_mut(maker) {
            drv.outputs = made;
        }
    }

    /// What an output is, as far as it is planned.
    fn made(&self, file: &str, says: &Drv, name: &str) -> Option<String> {
        let realised = self.world.realised.get(&(file.to_owned(), name.to_owned()));
        says.outputs.get(name)?.as_ref().or(realised).cloned()
    }

    fn inputs(&self, plan: &DrvPlan, drv: &mut Drv) {
        for (derivation, output, deeper) in &plan.inputs {
            let Some((input, says)) = pick(derivation, &self.derivations) else { continue };
            let names: Vec<&String> = says.outputs.keys().collect();
            let Some(name) = pick(output, &names) else { continue };
            let mut chain = vec![(*name).clone()];
            let mut at = self.made(input, says, name);
            while *deeper && chain.len() < 3 {
                let Some(product) = at.filter(|path| path.ends_with(".drv")) else { break };
                let Some((_, says)) = self.derivations.iter().find(|(path, _)| *path == product)
                else {
                    assert!(!self.whole, "what is made is planned before");
                    // Nobody knows what outputs it has.
                    chain.push("out".to_owned());
                    break;
                };
                let names: Vec<&String> = says.outputs.keys().collect();
                let Some(name) = pick(output, &names) else { break };
                chain.push((*name).clone());
                at = self.made(&product, says, name);
            }
            drv.inputs.insert((input.clone(), chain.join("^")));
        }
        drv.sources.extend(plan.sources.iter().filter_map(|i| pick(i, &self.readable)).cloned());
        for exported in &plan.exported {
            let Some((exported, _)) = pick(exported, &self.derivations) else { continue };
            drv.exported.insert(exported.clone());
            drv.sources.insert(exported.clone());
        }
    }

    fn outputs(&mut self, number: usize, file: &str, plan: &DrvPlan, drv: &mut Drv, circles: bool) {
        if plan.sort == Sort::Maker && self.whole {
            drv.outputs.insert("out".to_owned(), None);
            // Unless it will make a derivation.
            let made = path(&format!("package-{number}-out"));
            let record = Record { deriver: Some(file.to_owned()), ..Record::default() };
            self.world.objects.insert(made.clone(), record);
            self.world.realised.insert((file.to_owned(), "out".to_owned()), made);
            return;
        }
        if plan.sort == Sort::Maker {
            // A derivation that nobody has, until one is planned.
            let made = path(&format!("made-by-{number}.drv"));
            self.world.strangers.insert(made.clone());
            drv.outputs.insert("out".to_owned(), Some(made));
            return;
        }
        let shared = plan.same_as.and_then(|index| pick(&index, &self.fixed).cloned().flatten());
        let count = if plan.sort == Sort::Fixed { 1 } else { OUTPUTS.len() };
        for (name, output) in OUTPUTS.iter().take(count).zip(&plan.outputs) {
            let made = match (&shared, plan.sort) {
                (Some(shared), Sort::Fixed) => shared.clone(),
                _ => path(&format!("package-{number}-{name}")),
            };
            if plan.sort == Sort::Floating {
                drv.outputs.insert((*name).to_owned(), None);
                if !(output.realised && plan.file) {
                    continue;
                }
                self.world.realised.insert((file.to_owned(), (*name).to_owned()), made.clone());
            } else {
                drv.outputs.insert((*name).to_owned(), Some(made.clone()));
            }
            if !output.had {
                self.world.strangers.insert(made.clone());
            } else if !self.world.objects.contains_key(&made) {
                self.output(file, &made, plan, output, circles);
            }
            if plan.file {
                self.readable.push(made.clone());
            }
            self.objects.push(made);
        }
        if plan.sort == Sort::Fixed {
            self.fixed.push(drv.outputs.get("out").cloned().flatten());
        }
    }

    fn output(
        &mut self,
        file: &str,
        made: &str,
        plan: &DrvPlan,
        output: &OutputPlan,
        circles: bool,
    ) {
        let mut record = Record { size: output.size, ..Record::default() };
        if output.refers_to_itself {
            record.references.insert(made.to_owned());
        }
        if self.whole && plan.sort != Sort::Fixed {
            let reach = &self.within_reach;
            let chosen = output.references.iter().filter_map(|index| pick(index, reach));
            record.references.extend(chosen.cloned());
        } else if self.whole {
            record.references.clear();
        } else if circles {
            self.references.push((made.to_owned(), output.references.clone()));
        } else {
            let chosen = output.references.iter().filter_map(|index| pick(index, &self.objects));
            record.references.extend(chosen.cloned());
        }
        record.deriver = match &output.recorded {
            Recorded::Nothing => None,
            Recorded::ItsOwn => Some(file.to_owned()),
            Recorded::Other(index) => pick(index, &self.derivations).map(|(drv, _)| drv.clone()),
            Recorded::Lost => {
                let lost = path("lost.drv");
                self.world.strangers.insert(lost.clone());
                Some(lost)
            }
        };
        record.content_addressed = match plan.sort {
            Sort::Plain if output.references.is_empty() => None,
            Sort::Plain => Some(false),
            _ => Some(true),
        };
        self.world.objects.insert(made.to_owned(), record);
    }

    fn evaluation(&mut self, plan: &EvaluationPlan) {
        let numbers: Vec<usize> = (0..self.derivations.len()).collect();
        let Some(&number) = pick(&plan.of, &numbers) else { return };
        let (derivation, _) = &self.derivations[number];
        // Nothing needs what comes after it, in a whole world.
        let before = if self.whole { self.before[number] } else { self.objects.len() };
        let mut evaluation = Evaluation::default();
        for (index, is_fragment) in &plan.needs {
            let Some(need) = pick(index, &self.objects[..before]) else { continue };
            evaluation.needs.insert(need.clone());
            let is_made = self.world.objects.get(need).is_some_and(|one| one.deriver.is_some());
            // In a whole world, what was built and was needed was built for it.
            let is_fragment = if self.whole { is_made } else { *is_fragment };
            if is_fragment {
                evaluation.fragments.insert(need.clone());
            }
        }
        self.world.evaluations.insert(derivation.clone(), evaluation);
    }
}
