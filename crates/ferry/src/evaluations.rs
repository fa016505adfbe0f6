//! Recorded evaluations on their way to the other side, and there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferry_formats::{PathInfo, StoreDir, StorePath};
use ferry_store::closure::closure;
use ferry_store::evaluation::{EvaluationObject, Limits, Recorded, Restored, unpack};
use ferry_store::{Joined, JoinedRanges, NarRanges, Store};
use serde_json::{Value, json};

use crate::context::{Context, temporary_directory};
use crate::failure::Failure;
use crate::output;

/// What evaluations take along besides store paths, ready to be packed.
pub(crate) struct Evaluations {
    recorded: Vec<Recorded>,
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
            let one = Recorded::read(&file, store.store_dir())?;
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

/// What traces say that evaluations resulted in, as installables.
pub(crate) fn roots(
    context: &Context,
    traces: &[PathBuf],
    store_dir: &StoreDir,
) -> Result<Vec<String>, Failure> {
    let mut roots = Vec::new();
    for file in traces {
        let file = context.surroundings.working_directory.join(file);
        let recorded = Recorded::read(&file, store_dir)?;
        roots.extend(recorded.roots().iter().map(|root| store_dir.render_path(root)));
    }
    Ok(roots)
}

/// Lays out the evaluations `paths` that are in `store`: in `directory`, or each where they usually
/// are; and tells of it.
pub(crate) fn lay_out(
    context: &Context,
    store: &dyn Store,
    paths: &[StorePath],
    directory: Option<&Path>,
) -> Result<Vec<Restored>, Failure> {
    if let (Some(directory), [_, _, ..]) = (directory, paths) {
        return Err(Failure::usage(format!(
            "there are {} evaluations, and {} holds one",
            paths.len(),
            directory.display()
        ))
        .hint("leave --eval-dir out"));
    }
    let mut found = Vec::new();
    for path in paths {
        let place = match directory {
            Some(directory) => context.surroundings.working_directory.join(directory),
            None => usual_place(path)?,
        };
        let unpacked = unpack(store, &store.require(path)?, &place)?;
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
