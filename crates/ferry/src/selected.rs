//! From the options that say what is taken to what they name, and to the paths that are carried.

use ferry_graph::{Explorer, Facts};
use ferry_store::Store;
use ferry_store::installable::Installable;
use ferry_store::selection::{self, Selection};

use crate::cli::What;
use crate::context::Context;
use crate::evaluate::Expression;
use crate::failure::Failure;
use crate::installables::Installables;
use crate::queries::Queries;
use crate::sources::add_traces;

/// What the options name.
pub(crate) struct Named {
    pub(crate) installables: Vec<Installable>,
    /// What comes along.
    pub(crate) also: Vec<Installable>,
}

impl Named {
    /// Looks at the options; something has to be named.
    pub(crate) fn of(what: &What, installables: &Installables<'_>) -> Result<Self, Failure> {
        if what.is_empty() {
            return Err(Failure::usage("nothing is named: give an INSTALLABLE, --file or --expr"));
        }
        let named = match (&what.file, &what.expr) {
            (Some(file), _) => {
                installables.evaluated(&Expression::File(file, &what.installables))?
            }
            (_, Some(text)) => {
                installables.evaluated(&Expression::Text(text, &what.installables))?
            }
            _ => installables.all(&what.installables)?,
        };
        Ok(Self { installables: named, also: installables.all(&what.also)? })
    }
}

/// What the options take out of a store, of which `facts` are known. Nix puts what it evaluates
/// into the store at `address`.
pub(crate) fn selected(
    context: &Context,
    what: &What,
    store: &dyn Store,
    facts: Box<dyn Facts + '_>,
    address: &str,
) -> Result<Selection, Failure> {
    let installables = Installables { context, store_dir: store.store_dir(), store: address };
    let Named { installables: named, also } = Named::of(what, &installables)?;
    let mut explorer = Explorer::new(store.store_dir().clone());
    explorer.add_source(facts);
    add_traces(&mut explorer, context, &what.trace)?;
    let mut queries = Queries::new(context, explorer, address);
    let set = queries.evaluate_set(&what.query_file, &what.set, &named)?;
    queries.settle(false)?;
    Ok(selection::select(store, &mut queries.explorer, &set, &named, &also)?)
}
