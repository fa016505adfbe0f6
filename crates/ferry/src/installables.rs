//! From what was typed to installables: parsed, or evaluated by Nix.

use ferry_formats::StoreDir;
use ferry_store::installable::{self, Installable, Parsed};

use crate::context::Context;
use crate::evaluate::{self, Expression};
use crate::failure::Failure;

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
        match installable::parse(text, self.store_dir, working_directory)? {
            Parsed::Installable(installable) => Ok(vec![installable]),
            Parsed::NeedsEvaluation => self.evaluated(&Expression::Flake(text)),
        }
    }

    /// What several arguments mean.
    pub(crate) fn all(&self, texts: &[String]) -> Result<Vec<Installable>, Failure> {
        let found = texts.iter().map(|text| self.one(text)).collect::<Result<Vec<_>, _>>()?;
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
