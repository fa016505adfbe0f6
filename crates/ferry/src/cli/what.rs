//! Options that say what is taken: what is named, which set of it, and what comes along.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::evaluate::Expression;

/// What is taken. A command whose default set is not `runtime` says so with `mut_arg`.
#[derive(Args)]
pub(crate) struct What {
    /// What to take: a store path, `x.drv`, `x.drv^out,dev`, `x.drv^*`, a link into the store, or
    /// FLAKE#ATTR. With --file or --expr, attribute paths
    #[arg(value_name = "INSTALLABLE")]
    pub(crate) installables: Vec<String>,
    /// What of it to take: a named set (`recipe`, to build it; `runtime`, to run it; `rebuild`,
    /// `sources`, `sources+fragments`, `build`, `total`: see `ferry query --sets`), or any query,
    /// in which `x` is what is named
    #[arg(long, default_value = "runtime")]
    pub(crate) set: String,
    /// A query file that defines more sets
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) query_file: Vec<PathBuf>,
    /// A recorded evaluation, for what had to be there before the derivations could exist
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) trace: Vec<PathBuf>,
    /// Take this along too, with everything it refers to
    #[arg(long, value_name = "INSTALLABLE")]
    pub(crate) also: Vec<String>,
    #[command(flatten)]
    pub(crate) evaluated: Evaluated,
}

/// What is evaluated, where what is named are attributes.
#[derive(Args)]
pub(crate) struct Evaluated {
    /// Evaluate attributes of this Nix file
    #[arg(short, long, value_hint = ValueHint::FilePath, conflicts_with = "expr")]
    pub(crate) file: Option<PathBuf>,
    /// Evaluate attributes of this Nix expression
    #[arg(long)]
    pub(crate) expr: Option<String>,
}

impl Evaluated {
    /// Whether there is nothing to evaluate.
    pub(crate) fn is_empty(&self) -> bool {
        self.file.is_none() && self.expr.is_none()
    }

    /// The expression that --file or --expr names.
    pub(crate) fn expression<'a>(&'a self, attributes: &'a [String]) -> Option<Expression<'a>> {
        match (&self.file, &self.expr) {
            (Some(file), _) => Some(Expression::File(file, attributes)),
            (None, Some(text)) => Some(Expression::Text(text, attributes)),
            (None, None) => None,
        }
    }
}

impl What {
    /// Whether nothing is named: neither a thing nor an expression.
    pub(crate) fn is_empty(&self) -> bool {
        self.installables.is_empty() && self.evaluated.is_empty()
    }

    /// The expression that --file or --expr names.
    pub(crate) fn expression(&self) -> Option<Expression<'_>> {
        self.evaluated.expression(&self.installables)
    }
}

/// What is signed with.
#[derive(Args)]
pub(crate) struct SignWith {
    /// Sign every path, and a bundle itself too, with the secret key in this file (made by `nix
    /// key generate-secret`)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) sign_key: Vec<PathBuf>,
}
