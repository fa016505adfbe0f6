//! Recorded evaluations on their way to the other side, and there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_formats::{PathInfo, StoreDir, StorePath};
use ferry_store::closure::closure;
use ferry_store::evaluation::{Evaluation, EvaluationObject, Limits, Restored, unpack};
use ferry_store::facts::trace_name;
use ferry_store::installable::{self, Installable, Parsed};
use ferry_store::{Joined, JoinedRanges, NarRanges, Store};
use serde_json::{Value, json};

use crate::cli::What;
use crate::context::{Context, temporary_directory};
use crate::evaluate::Expression;
use crate::failure::Failure;
use crate::output;
use crate::recording::{Recorder, traces_directory};

/// The recorded evaluations that come along, and what they resulted in, where that is what is
/// packed.
pub(crate) struct Asked {
    pub(crate) traces: Vec<PathBuf>,
    pub(crate) named: Option<Vec<Installable>>,
}

impl Asked {
    /// Finds them; evaluates and records what nobody has recorded. What is evaluated is put into
    /// the store at `address`, where `store` is.
    pub(crate) fn by(
        context: &Context,
        with_eval: Option<&Option<PathBuf>>,
        what: &What,
        store: &dyn Store,
        address: &str,
    ) -> Result<Self, Failure> {
        let traces = match with_eval {
            None => return Ok(Self { traces: Vec::new(), named: None }),
            Some(Some(trace)) => vec![trace.clone()],
            Some(None) => what.trace.clone(),
        };
        if !traces.is_empty() {
            let named = what.is_empty().then(|| roots(context, &traces, store.store_dir()));
            return Ok(Self { traces, named: named.transpose()? });
        }
        let recorder = Recorder::new(context, address, None)?;
        let mut asked = Self { traces, named: None };
        if let Some(expression) = what.expression() {
            asked.record(context, &recorder, &expression)?;
            return Ok(asked);
        }
        let working_directory = &context.surroundings.working_directory;
        for text in &what.installables {
            match installable::parse(text, store.store_dir(), working_directory)? {
                Parsed::NeedsEvaluation => {
                    asked.record(context, &recorder, &Expression::Flake(text))?;
                }
                Parsed::Installable(one) => asked.kept(one, store)?,
            }
        }
        Ok(asked)
    }

    fn record(
        &mut self,
        context: &Context,
        recorder: &Recorder<'_>,
        expression: &Expression<'_>,
    ) -> Result<(), Failure> {
        let made = recorder.record(expression)?;
        context.talk.say(format!("recorded in {}", made.file.display()));
        self.traces.push(made.file);
        self.named.get_or_insert_default().extend(made.installables);
        Ok(())
    }

    /// A recording that is kept, of what a store path comes from.
    fn kept(&mut self, named: Installable, store: &dyn Store) -> Result<(), Failure> {
        let path = named.path().clone();
        let derivers =
            if path.is_derivation() { vec![path.clone()] } else { store.derivers(&path)? };
        let directory = traces_directory()?;
        let files = derivers.iter().map(|derivation| directory.join(trace_name(derivation)));
        let Some(file) = files.into_iter().find(|file| file.exists()) else {
            let path = store.store_dir().render_path(&path);
            return Err(Failure::new(format!("no evaluation of {path} was recorded")).hint(
                "evaluate it with `ferry trace`, or pack it as FLAKE#ATTR, with --file or --expr",
            ));
        };
        self.traces.push(file);
        self.named.get_or_insert_default().push(named);
        Ok(())
    }
}

/// What evaluations take along besides store paths, ready to be packed.
pub(crate) struct Evaluations {
    recorded: Vec<Evaluation>,
    objects: Vec<EvaluationObject>,
}

impl Evaluations {
    /// Reads these traces, and copies the files that they name, of at most `limit` bytes each.
    /// `store` is the one that was evaluated with.
    pub(crate) fn collect(
        context: &Context,
        traces: &[PathBuf],
        store: &dyn Store,
        limit: u64,
    ) -> Result<Self, Failure> {
        let never_whole = Context::directories_of_everything();
        let limits = Limits { bytes: limit, never_whole: &never_whole };
        let (mut recorded, mut objects) = (Vec::new(), Vec::new());
        for file in traces {
            let file = context.surroundings.working_directory.join(file);
            let one = Evaluation::read(&file, store.store_dir())?;
            let object = EvaluationObject::make(&one, store, &temporary_directory(), limits)?;
            object.notes().iter().for_each(|note| context.talk.say(note));
            recorded.push(one);
            objects.push(object);
        }
        Ok(Self { recorded, objects })
    }

    /// A store that has them, too.
    pub(crate) fn joined<'a>(&'a self, store: &'a dyn Store) -> Joined<'a> {
        let besides: Vec<_> =
            self.objects.iter().map(|object| (object.store(), object.info())).collect();
        Joined::new(store, &besides)
    }

    /// The same of NARs at any position.
    pub(crate) fn files(&self, store: Arc<dyn NarRanges>) -> Arc<dyn NarRanges> {
        let besides =
            self.objects.iter().map(|object| (object.files(), object.info().path.clone()));
        Arc::new(JoinedRanges::new(store, besides.collect()))
    }

    /// Adds them to what is packed, with what the evaluations needed of `store`.
    pub(crate) fn add_to(
        &self,
        store: &dyn Store,
        infos: &mut BTreeMap<StorePath, PathInfo>,
    ) -> Result<(), Failure> {
        let needs: Vec<StorePath> =
            self.recorded.iter().flat_map(|one| one.needs().to_vec()).collect();
        infos.extend(closure(store, &needs)?);
        let objects = self.objects.iter().map(EvaluationObject::info);
        infos.extend(objects.map(|info| (info.path.clone(), info.clone())));
        Ok(())
    }

    /// The store paths that they are.
    pub(crate) fn paths(&self) -> Vec<StorePath> {
        self.objects.iter().map(|object| object.info().path.clone()).collect()
    }
}

/// What traces say that evaluations resulted in.
fn roots(
    context: &Context,
    traces: &[PathBuf],
    store_dir: &StoreDir,
) -> Result<Vec<Installable>, Failure> {
    let mut roots = Vec::new();
    for file in traces {
        let file = context.surroundings.working_directory.join(file);
        let recorded = Evaluation::read(&file, store_dir)?;
        roots.extend(recorded.roots().iter().cloned().map(Installable::Path));
    }
    Ok(roots)
}

/// Where the evaluations `paths` are to be laid out: in `directory`, or each where they usually are.
pub(crate) fn places(
    context: &Context,
    paths: Vec<StorePath>,
    directory: Option<&Path>,
) -> Result<Vec<(StorePath, PathBuf)>, Failure> {
    if let (Some(directory), [_, _, ..]) = (directory, paths.as_slice()) {
        return Err(Failure::usage(format!(
            "there are {} evaluations, and {} holds one",
            paths.len(),
            directory.display()
        ))
        .hint("leave --eval-dir out"));
    }
    let place = |path: &StorePath| match directory {
        Some(directory) => Ok(context.surroundings.working_directory.join(directory)),
        None => usual_place(path),
    };
    paths.into_iter().map(|path| place(&path).map(|place| (path, place))).collect()
}

/// Lays out evaluations that are in `store` in their places, and tells of it.
pub(crate) fn lay_out(
    context: &Context,
    store: &dyn Store,
    places: &[(StorePath, PathBuf)],
) -> Result<Vec<Restored>, Failure> {
    let mut found = Vec::new();
    for (path, place) in places {
        let unpacked = unpack(store, &store.require(path)?, place)?;
        unpacked.notes.iter().for_each(|note| context.talk.say(note));
        context.talk.say(match unpacked.was_there {
            true => format!("the evaluation is in {} already, and stays as it is", place.display()),
            false => format!("laid out the evaluation in {}", place.display()),
        });
        found.push(unpacked.evaluation);
    }
    Ok(found)
}

/// Where an evaluation is laid out unless another place is named.
pub(crate) fn usual_place(path: &StorePath) -> Result<PathBuf, Failure> {
    Ok(Context::user_data_directory()?.join("evaluations").join(path.to_basename()))
}

/// The command that evaluates there again; `store` is the one to evaluate in, unless it is the
/// usual one.
pub(crate) fn command(evaluation: &Restored, store: Option<&str>) -> String {
    let mut words = vec!["ferry".to_owned(), "shell".to_owned(), "--offline".to_owned()];
    if let Some(store) = store {
        words.extend(["--store".to_owned(), store.to_owned()]);
    }
    words.extend([evaluation.directory().display().to_string(), "--".to_owned()]);
    let recorded = evaluation.command();
    match recorded.is_empty() {
        true => words.push("nix-instantiate".to_owned()),
        false => words.extend(recorded),
    }
    words.iter().map(|word| output::quoted(word)).collect::<Vec<_>>().join(" ")
}

/// For programs.
pub(crate) fn json(evaluations: &[Restored], store: Option<&str>) -> Value {
    evaluations
        .iter()
        .map(|evaluation| {
            json!({ "directory": evaluation.directory(), "command": command(evaluation, store) })
        })
        .collect()
}
