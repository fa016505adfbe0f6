//! Which files travel because a trace names them: `docs/evaluation.md`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ferry_formats::StorePath;
use ferry_formats::nar::{self, Event};

use super::error::{EvaluationError, Result};
use super::git::{self, Which};
use super::recorded::{Evaluation, OutsideFile};
use super::stage::{Stage, normal};
use crate::Store;
use crate::facts::{EntryKind, Why};
use crate::local::hash_tree;

/// How much travels.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    /// At most so many bytes of files.
    pub bytes: u64,
    /// Directories that do not travel just because a file in them was evaluated: somebody's home.
    pub never_whole: &'a [PathBuf],
}

/// What was collected.
#[derive(Default)]
pub(super) struct Collected {
    /// Directories that are working trees of Git.
    pub(super) working_trees: BTreeSet<PathBuf>,
    /// What a person should know about it, a sentence each.
    pub(super) notes: Vec<String>,
}

/// Copies into `stage` what the trace names. `store` has what the evaluation made of it.
pub(super) fn collect(
    evaluation: &Evaluation,
    store: &dyn Store,
    limits: Limits<'_>,
    stage: &mut Stage,
) -> Result<Collected> {
    let mut collector =
        Collector { limits, stage, covered: Vec::new(), done: Collected::default() };
    let of = |why: Why| evaluation.outside.iter().filter(move |file| file.why == why);
    for file in of(Why::Flake) {
        collector.flake(file, store)?;
    }
    for file in of(Why::NixPath).chain(of(Why::Path)) {
        collector.read(file, store)?;
        collector.covered.push(file.path.clone());
    }
    for file in of(Why::Source) {
        collector.source(file, store)?;
    }
    let main = main_file(evaluation);
    let known =
        [Why::Flake, Why::NixPath, Why::Path, Why::Source, Why::File, Why::Directory, Why::Exists];
    for file in evaluation.outside.iter().filter(|file| !known.contains(&file.why)) {
        collector.nix_file(&file.path, main == Some(file.path.as_path()))?;
    }
    for file in of(Why::File) {
        collector.take(&file.path, &file.path, &|_| false)?;
    }
    for file in of(Why::Exists) {
        collector.stage.begin(&file.path);
        collector.stage.take_one(&file.path)?;
    }
    for file in of(Why::Directory) {
        collector.directory(file)?;
    }
    for file in of(Why::Directory) {
        collector.leave_out_the_rest(file, &evaluation.outside)?;
    }
    let done = collector.done;
    for file in &evaluation.outside {
        check(file, stage)?;
    }
    Ok(done)
}

/// The file that the command names; else the one that is named first.
fn main_file(evaluation: &Evaluation) -> Option<&Path> {
    let directory = evaluation.description.working_directory.as_deref().unwrap_or("/");
    let mut files = evaluation.outside.iter().filter(|file| file.why == Why::NixFile);
    let named: Vec<PathBuf> = evaluation
        .description
        .command
        .iter()
        .flat_map(|word| {
            let path = normal(&Path::new(directory).join(word));
            [path.join("default.nix"), path]
        })
        .collect();
    let first = files.clone().next();
    files.find(|file| named.contains(&file.path)).or(first).map(|file| file.path.as_path())
}

struct Collector<'a> {
    limits: Limits<'a>,
    stage: &'a mut Stage,
    /// Directories of which everything that matters is there.
    covered: Vec<PathBuf>,
    done: Collected,
}

impl Collector<'_> {
    /// A flake in a working tree is what Git tracks there; any other is its whole directory.
    fn flake(&mut self, file: &OutsideFile, store: &dyn Store) -> Result<()> {
        match git::working_tree(&file.path) {
            _ if file.copy.is_some() => self.source(file, store),
            Some(tree) => self.working_tree(tree, tree, Which::Tracked),
            None => self.take(&file.path, &file.path, &|_| false),
        }
    }

    /// What was copied into the store.
    fn source(&mut self, file: &OutsideFile, store: &dyn Store) -> Result<()> {
        if git::working_tree(&file.path) == Some(&file.path) {
            self.done.working_trees.insert(file.path.clone());
        }
        // All of it was, unless there is a copy that says otherwise.
        match file.copy {
            None => self.take(&file.path, &file.path, &|_| false),
            Some(_) => self.read(file, store),
        }
    }

    /// A file or directory of which something was read.
    fn read(&mut self, file: &OutsideFile, store: &dyn Store) -> Result<()> {
        let listing = match &file.copy {
            Some(object) => listing(store, object)?,
            None => None,
        };
        let Some(names) = listing else { return self.whole_but_ignored(&file.path) };
        self.stage.begin(&file.path);
        for name in names {
            self.stage.take_one(&file.path.join(name))?;
        }
        Ok(())
    }

    /// An evaluated file. What else it reads stands in no log, so what is around it travels too.
    fn nix_file(&mut self, file: &Path, is_main: bool) -> Result<()> {
        if !self.covered.iter().any(|directory| file.starts_with(directory)) {
            let around = git::working_tree(file).filter(|tree| !self.is_never_whole(tree));
            let directory = file.parent().unwrap_or(file);
            if let Some(tree) = around {
                self.working_tree(tree, tree, Which::NotIgnored)?;
            } else if is_main && self.is_never_whole(directory) {
                self.done.notes.push(format!(
                    "{} does not travel as a whole: only the files in it that were evaluated do",
                    directory.display()
                ));
            } else if is_main {
                self.take(directory, directory, &is_hidden)?;
                self.covered.push(directory.to_owned());
            }
        }
        self.take(file, file, &|_| false)
    }

    /// A directory that was listed: what was in it then, and of directories in it nothing.
    fn directory(&mut self, file: &OutsideFile) -> Result<()> {
        let is_never_whole = self.is_never_whole(&file.path);
        self.stage.begin(&file.path);
        self.stage.take_one(&file.path)?;
        for (name, kind) in &file.entries {
            let entry = file.path.join(name);
            let found =
                entry.symlink_metadata().map(|metadata| EntryKind::of(metadata.file_type()));
            if !found.is_ok_and(|found| found == *kind) {
                return Err(EvaluationError::OtherEntries {
                    directory: file.path.clone(),
                    entry: name.clone(),
                });
            }
            match kind {
                // Repositories are made again where files are laid out.
                _ if name == ".git" => {}
                EntryKind::Unknown => self.done.notes.push(format!(
                    "{} does not travel: it is no file, directory or link",
                    entry.display()
                )),
                EntryKind::Regular if is_never_whole => self.stage.make_empty(&entry)?,
                _ => self.stage.take_one(&entry)?,
            }
        }
        if is_never_whole {
            self.done.notes.push(format!(
                "{} was listed: files in it that were not read travel empty",
                file.path.display()
            ));
        }
        Ok(())
    }

    /// Takes out again what was not in a directory when it was listed, unless something says that it
    /// is needed.
    fn leave_out_the_rest(&mut self, file: &OutsideFile, all: &[OutsideFile]) -> Result<()> {
        for entry in self.stage.entries(&file.path)? {
            let was_there = entry.to_str().is_some_and(|name| file.entries.contains_key(name));
            let path = file.path.join(&entry);
            if !was_there && !all.iter().any(|one| one.path.starts_with(&path)) {
                self.stage.remove(&path)?;
            }
        }
        Ok(())
    }

    fn is_never_whole(&self, directory: &Path) -> bool {
        directory.parent().is_none() || self.limits.never_whole.iter().any(|one| one == directory)
    }

    /// A directory, without what Git ignores in it.
    fn whole_but_ignored(&mut self, path: &Path) -> Result<()> {
        match git::working_tree(path) {
            Some(tree) if !self.is_never_whole(tree) => {
                self.working_tree(tree, path, Which::NotIgnored)
            }
            _ => self.take(path, path, &|child| child.file_name() == Some(OsStr::new(".git"))),
        }
    }

    /// The files of a working tree that are at or below `below`.
    fn working_tree(&mut self, tree: &Path, below: &Path, which: Which) -> Result<()> {
        self.stage.begin(below);
        for name in git::files(tree, which)? {
            let file = tree.join(name);
            // One that is tracked and gone is gone for Nix, too; a directory is a repository of
            // its own.
            let is_there = file.symlink_metadata().is_ok_and(|metadata| !metadata.is_dir());
            if is_there && file.starts_with(below) {
                self.stage.take_one(&file)?;
            }
        }
        if below == tree {
            self.done.working_trees.insert(tree.to_owned());
        }
        self.covered.push(below.to_owned());
        Ok(())
    }

    fn take(&mut self, name: &Path, path: &Path, leave_out: &dyn Fn(&Path) -> bool) -> Result<()> {
        self.stage.begin(name);
        self.stage.take(path, leave_out)
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"."))
}

/// The names of the files, links and directories in a store object, relative to it; nothing where
/// the store does not have it.
fn listing(store: &dyn Store, object: &StorePath) -> Result<Option<Vec<PathBuf>>> {
    let failed = |error: crate::Error| EvaluationError::BadObject {
        object: store.store_dir().render_path(object),
        reason: error.to_string(),
    };
    let Some(info) = store.path_info(object).map_err(failed)? else { return Ok(None) };
    let mut names = Vec::new();
    let mut read = |nar: &mut dyn std::io::Read| {
        let mut at = PathBuf::new();
        nar::decode(nar, |event| {
            match event {
                Event::DirectoryStart { name } => {
                    at.extend(name.map(OsStr::from_bytes));
                    names.push(at.clone());
                }
                Event::DirectoryEnd { .. } => {
                    at.pop();
                }
                Event::Regular { name, mut contents, .. } => {
                    names.push(
                        name.map_or_else(|| at.clone(), |name| at.join(OsStr::from_bytes(name))),
                    );
                    contents.copy_to(&mut std::io::sink())?;
                }
                Event::Symlink { name, .. } => {
                    names.push(
                        name.map_or_else(|| at.clone(), |name| at.join(OsStr::from_bytes(name))),
                    );
                }
            }
            Ok(())
        })
    };
    store
        .read_nars(std::slice::from_ref(&info), &mut |_, nar| {
            read(nar).map_err(crate::Error::other)
        })
        .map_err(failed)?;
    Ok(Some(names))
}

/// Makes sure that what was copied is what was evaluated.
fn check(file: &OutsideFile, stage: &Stage) -> Result<()> {
    let Some(recorded) = file.nar_hash else { return Ok(()) };
    let hash = |path: &Path| -> Result<_> {
        let real = fs::canonicalize(path)
            .map_err(EvaluationError::io(format!("read {}", path.display())))?;
        Ok(hash_tree(&real).map_err(EvaluationError::tree(path))?.0)
    };
    let found = hash(&stage.place(&file.path))?;
    // Other files may have come into the copy, because of other lines of the trace.
    if found == recorded || hash(&file.path)? == recorded {
        return Ok(());
    }
    Err(EvaluationError::Changed {
        file: file.path.clone(),
        recorded: recorded.to_sri(),
        found: found.to_sri(),
    })
}
