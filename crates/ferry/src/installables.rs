//! From what was typed to installables: parsed, or evaluated by Nix.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use ferry_formats::StoreDir;
use ferry_store::installable::{self, Installable, Parsed};

use crate::context::Context;
use crate::conversion::begins_like_bundle;
use crate::evaluate::{self, Expression};
use crate::failure::Failure;

/// How the names of files end that ferry reads.
const OURS: [&str; 8] = ["ferry", "inv", "inventory", "txt", "trace", "export", "closure", "drv"];

/// Refuses the name of a file that is no installable: a bundle, another file, or one that should be
/// there by its name.
fn mistaken(context: &Context, text: &str) -> Result<(), Failure> {
    let file = context.surroundings.working_directory.join(text);
    if is_bundle(&file) {
        return Err(Failure::usage(format!("{text} is a bundle, and no installable")).hint(
            format!("what is in it is named by store paths, with --store {text} or --from {text}"),
        ));
    }
    require_file(context, text)?;
    match file.is_file() {
        true => Err(Failure::usage(format!(
            "{text} is a file outside of the store, and no installable"
        ))
        .hint("name a store path, a link into the store, or FLAKE#ATTR; a Nix file with --file")),
        false => Ok(()),
    }
}

/// Makes sure that something is there, if it has the name of a file that ferry reads.
pub(crate) fn require_file(context: &Context, text: &str) -> Result<(), Failure> {
    let file = context.surroundings.working_directory.join(text);
    let end = file.extension().and_then(|end| end.to_str()).unwrap_or_default();
    match OURS.contains(&end) && !text.contains(['#', ':']) && file.symlink_metadata().is_err() {
        true => Err(Failure::new(format!("cannot read {text}: no such file"))),
        false => Ok(()),
    }
}

/// Whether there is a bundle in a file, or a volume of one.
pub(crate) fn is_bundle(file: &Path) -> bool {
    let mut start = [0; 6];
    // Opening a pipe would wait for its other end.
    let is_read =
        file.is_file() && File::open(file).and_then(|mut file| file.read_exact(&mut start)).is_ok();
    is_read && begins_like_bundle(&start)
}

/// What is needed to tell what an installable means.
pub(crate) struct Installables<'a> {
    pub(crate) context: &'a Context,
    pub(crate) store_dir: &'a StoreDir,
    /// The address of the store that is worked on: Nix puts what it evaluates there.
    pub(crate) store: &'a str,
}

impl Installables<'_> {
    /// What one argument means.
    pub(crate) fn one(&self, text: &str) -> Result<Vec<Installable>, Failure> {
        let working_directory = &self.context.surroundings.working_directory;
        match installable::parse(text, self.store_dir, working_directory) {
            Ok(Parsed::Installable(installable)) => Ok(vec![installable]),
            // Nix is not asked about a file that was meant for something else.
            Ok(Parsed::NeedsEvaluation) => {
                mistaken(self.context, text)?;
                self.evaluated(&Expression::Flake(text))
            }
            Err(error) => {
                mistaken(self.context, text)?;
                let place = text.split(['^', '!']).next().unwrap_or(text);
                let is_there = working_directory.join(place).symlink_metadata().is_ok();
                match is_there || place.starts_with(self.store_dir.as_str()) {
                    true => Err(error.into()),
                    // A file that cannot be found is no mistake in the command.
                    false => Err(Failure::new(error)),
                }
            }
        }
    }

    /// What several arguments mean.
    pub(crate) fn all<'t>(
        &self,
        texts: impl IntoIterator<Item = &'t String>,
    ) -> Result<Vec<Installable>, Failure> {
        let found = texts.into_iter().map(|text| self.one(text)).collect::<Result<Vec<_>, _>>()?;
        Ok(found.concat())
    }

    /// What Nix says that an expression means.
    pub(crate) fn evaluated(
        &self,
        expression: &Expression<'_>,
    ) -> Result<Vec<Installable>, Failure> {
        // Of these addresses Nix knows nothing; its own default is the same store, if it is any.
        let known_to_nix = self.store != "auto" && !self.store.starts_with("exec:");
        let address = known_to_nix.then_some(self.store);
        let working_directory = &self.context.surroundings.working_directory;
        evaluate::evaluate(expression, address, self.store_dir, working_directory)
    }
}
