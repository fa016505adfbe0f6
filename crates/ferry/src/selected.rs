//! From the options that say what is taken to what they name, and to the paths that are carried.

use ferry_formats::StorePath;
use ferry_graph::{Explorer, Facts, NodeSet, query};
use ferry_store::installable::Installable;
use ferry_store::selection::{self, Selection};
use ferry_store::{Store, Wanted};

use crate::cli::What;
use crate::context::Context;
use crate::failure::Failure;
use crate::installables::Installables;
use crate::queries::Queries;
use crate::sources::add_traces;

/// What a copy carries.
pub(crate) struct Carried {
    /// What was named; nothing, if what nothing else in it refers to stands for all of it.
    pub(crate) roots: Option<Vec<StorePath>>,
    /// Everything, with all that it refers to.
    pub(crate) wanted: Wanted,
}

/// What the options name.
pub(crate) struct Named {
    pub(crate) installables: Vec<Installable>,
    /// What comes along.
    pub(crate) also: Vec<Installable>,
}

impl Named {
    /// Looks at the options, but for the installables where those are `known`.
    pub(crate) fn known(
        known: Option<Vec<Installable>>,
        context: &Context,
        what: &What,
        store: &dyn Store,
        address: &str,
    ) -> Result<Self, Failure> {
        let installables = Installables { context, store_dir: store.store_dir(), store: address };
        match known {
            None => Self::of(what, &installables),
            Some(known) => Ok(Self { installables: known, also: installables.all(&what.also)? }),
        }
    }

    /// Looks at the options; something has to be named.
    pub(crate) fn of(what: &What, installables: &Installables<'_>) -> Result<Self, Failure> {
        if what.is_empty() {
            return Err(Failure::usage("nothing is named: give an INSTALLABLE, --file or --expr"));
        }
        let named = match what.expression() {
            Some(expression) => installables.evaluated(&expression)?,
            None => installables.all(&what.installables)?,
        };
        Ok(Self { installables: named, also: installables.all(&what.also)? })
    }
}

/// Refuses to take nothing. Where one of ferry's own sets is empty, there is a reason that is told
/// elsewhere.
pub(crate) fn require_some(name: &str, set: &NodeSet, also: &[Installable]) -> Result<(), Failure> {
    let is_named = query::named_sets().iter().any(|set| set.name == name);
    if is_named || !set.is_empty() || !also.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("the set `{name}` is empty: there is nothing to take")).hint(
        "`ferry query` answers parts of a query, `ferry query --sets` prints what sets there are",
    ))
}

/// What the options take out of a store, of which `facts` are known, to be copied. Nix puts what it
/// evaluates into the store at `address`.
pub(crate) fn selected(
    context: &Context,
    what: &What,
    store: &dyn Store,
    facts: Box<dyn Facts + '_>,
    address: &str,
) -> Result<Carried, Failure> {
    let named = Named::known(None, context, what, store, address)?;
    let Selection { roots, paths } = selected_of(context, what, named, store, facts, address)?;
    Ok(Carried { roots: Some(roots), wanted: Wanted::closure(store, &paths)? })
}

/// What `named` and the options name, without what that refers to.
pub(crate) fn selected_of(
    context: &Context,
    what: &What,
    named: Named,
    store: &dyn Store,
    facts: Box<dyn Facts + '_>,
    address: &str,
) -> Result<Selection, Failure> {
    let Named { installables: named, also } = named;
    let mut explorer = Explorer::new(store.store_dir().clone());
    explorer.add_source(facts);
    add_traces(&mut explorer, context, &what.trace)?;
    let mut queries = Queries::new(context, explorer, address);
    let set = queries.evaluate_set(&what.query_file, &what.set, &named)?;
    queries.settle(false)?;
    require_some(&what.set, &set, &also)?;
    Ok(selection::select(store, &mut queries.explorer, &set, &named, &also)?)
}
