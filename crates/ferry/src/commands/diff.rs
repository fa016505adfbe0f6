//! `ferry diff`: what one set of store paths has and another has not.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use ferry_formats::{PathInfo, StorePath};
use ferry_store::Store;
use ferry_store::closure::closure;
use ferry_store::difference::{
    Change, DerivationChanges, Difference, PackageChange, compare, derivation_changes,
};
use ferry_store::installable::Installable;
use serde_json::{Value, json};

use crate::cli::Diff;
use crate::context::Context;
use crate::conversion::Freight;
use crate::failure::Failure;
use crate::installables::Installables;
use crate::output;
use crate::sources::OpenSource;

pub(crate) fn run(context: &Context, options: &Diff) -> Result<ExitCode, Failure> {
    let before = Side::open(context, options, &options.before)?;
    let after = Side::open(context, options, &options.after)?;
    let difference = compare(&before.infos, &after.infos);
    let derivations = match options.derivations {
        true => Some(derivation_changes(&difference, before.store()?, after.store()?)?),
        false => None,
    };
    let render = |path: &StorePath| match before.store() {
        Ok(store) => store.store_dir().render_path(path),
        Err(_) => path.to_basename(),
    };
    if context.json {
        print_json(&difference, derivations.as_ref(), &render)?;
    } else {
        print(options, &difference, derivations.as_ref(), &render)?;
        if let Some(changes) = &derivations {
            context.talk.say(format!(
                "{} changed; {} differ only in what they depend on; {} without a counterpart",
                changes.changed.len(),
                changes.only_hashes,
                changes.unpaired,
            ));
        }
    }
    Ok(if difference.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// One of the two things that are compared.
struct Side {
    held: Held,
    infos: Vec<PathInfo>,
}

enum Held {
    File(Freight),
    Store(OpenSource),
}

impl Side {
    fn open(context: &Context, options: &Diff, name: &str) -> Result<Self, Failure> {
        let file = context.surroundings.working_directory.join(name);
        let in_store = context
            .store_dir()
            .is_ok_and(|dir| file.canonicalize().is_ok_and(|file| file.starts_with(dir.as_str())));
        if name == "-" || (file.is_file() && !in_store) {
            let freight = Freight::open(context, Path::new(name), None)?;
            let infos = freight.path_infos().to_vec();
            return Ok(Self { held: Held::File(freight), infos });
        }
        let source = OpenSource::open(context, &options.store)?;
        let infos = {
            let store = store_of(&source)?;
            let of = Installables { context, store_dir: store.store_dir(), store: &options.store };
            let mut roots = Vec::new();
            for installable in of.one(name)? {
                match installable {
                    Installable::Path(path) => roots.push(path),
                    Installable::Outputs { .. } => {
                        let message = format!("`{name}`: name its outputs by their store paths");
                        return Err(Failure::usage(message));
                    }
                }
            }
            closure(store, &roots)?.into_values().collect()
        };
        Ok(Self { held: Held::Store(source), infos })
    }

    fn store(&self) -> Result<&dyn Store, Failure> {
        match &self.held {
            Held::File(freight) => Ok(freight.store()),
            Held::Store(source) => store_of(source),
        }
    }
}

fn store_of(source: &OpenSource) -> Result<&dyn Store, Failure> {
    source.store().ok_or_else(|| Failure::usage("a binary cache is asked for its facts only"))
}

fn print(
    options: &Diff,
    difference: &Difference,
    derivations: Option<&DerivationChanges>,
    render: &dyn Fn(&StorePath) -> String,
) -> Result<(), Failure> {
    if let Some(changes) = derivations {
        for change in &changes.changed {
            output::line(
                format!("{}\n{}", render(&change.before), render(&change.after)).as_bytes(),
            )?;
            for change in &change.changes {
                output::line(described(change).as_bytes())?;
            }
        }
        return Ok(());
    }
    if options.long {
        let lines = [("-", &difference.only_before), ("+", &difference.only_after)];
        let conflicts = [("!", &difference.conflicting)];
        let mut lines: Vec<(&StorePath, &str)> = lines
            .iter()
            .chain(&conflicts)
            .flat_map(|(sign, paths)| paths.iter().map(|path| (path, *sign)))
            .collect();
        // What has taken another's place stands beside it.
        lines.sort_by(|a, b| (a.0.name(), b.1, a.0).cmp(&(b.0.name(), a.1, b.0)));
        return output::records(
            lines.into_iter().map(|(path, sign)| format!("{sign} {}", render(path))),
            false,
        );
    }
    let conflicts = difference.conflicting.iter();
    let conflicts = conflicts.map(|path| format!("{}: one path, different contents", render(path)));
    output::records(difference.packages.iter().map(summary).chain(conflicts), false)
}

/// In the manner of `nix store diff-closures`.
fn summary(package: &PackageChange) -> String {
    let versions = |versions: &BTreeSet<String>| {
        let shown = versions.iter().map(|version| if version.is_empty() { "ε" } else { version });
        shown.collect::<Vec<_>>().join(", ")
    };
    let or_none = |set: &BTreeSet<String>| {
        if set.is_empty() { "∅".to_owned() } else { versions(set) }
    };
    let mut items = Vec::new();
    if !(package.removed.is_empty() && package.added.is_empty()) {
        items.push(format!("{} → {}", or_none(&package.removed), or_none(&package.added)));
    }
    if !package.rebuilt.is_empty() {
        items.push(format!("{} differs", versions(&package.rebuilt)));
    }
    let (before, after) = (package.size_before, package.size_after);
    if before != after {
        let sign = if after > before { '+' } else { '-' };
        items.push(format!("{sign}{}", output::size(after.abs_diff(before))));
    }
    let suffix = if package.derivations { ".drv" } else { "" };
    format!("{}{suffix}: {}", package.name, items.join(", "))
}

/// Longest value shown on one line, in characters.
const LONGEST: usize = 200;

fn described(change: &Change) -> String {
    let shown = |value: &str| {
        let line = value.escape_debug().to_string();
        match line.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
            None => line,
        }
    };
    let what = &change.what;
    match (&change.before, &change.after) {
        (Some(before), Some(after)) if before.lines().count() > 1 || after.lines().count() > 1 => {
            lines_that_differ(what, before, after)
        }
        (Some(before), Some(after)) => format!("  {what}: {} → {}", shown(before), shown(after)),
        (Some(before), None) => format!("  {what}: - {}", shown(before)),
        (None, Some(after)) => format!("  {what}: + {}", shown(after)),
        (None, None) => format!("  {what}"),
    }
}

/// The lines between what two texts have in common at both ends.
fn lines_that_differ(what: &str, before: &str, after: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let same =
        |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| pairs.take_while(|(a, b)| a == b).count();
    let head = same(&mut old.iter().zip(&new));
    let shorter = old.len().min(new.len()) - head;
    let tail = same(&mut old.iter().rev().zip(new.iter().rev())).min(shorter);
    let mut out = format!("  {what}, line {}:", head + 1);
    for (sign, lines) in [('-', &old), ('+', &new)] {
        for line in lines.get(head..lines.len() - tail).unwrap_or_default() {
            out.push_str(&format!("\n    {sign} {line}"));
        }
    }
    out
}

fn print_json(
    difference: &Difference,
    derivations: Option<&DerivationChanges>,
    render: &dyn Fn(&StorePath) -> String,
) -> Result<(), Failure> {
    let paths = |paths: &[StorePath]| paths.iter().map(render).collect::<Vec<_>>();
    let package = |it: &PackageChange| {
        json!({
            "name": it.name,
            "derivations": it.derivations,
            "removed": it.removed,
            "added": it.added,
            "differing": it.rebuilt,
            "narSizeBefore": it.size_before,
            "narSizeAfter": it.size_after,
        })
    };
    let changes = |it: &Change| json!({ "what": it.what, "before": it.before, "after": it.after });
    let derivations = derivations.map(|all| {
        let changed = all.changed.iter().map(|it| {
            json!({
                "before": render(&it.before),
                "after": render(&it.after),
                "changes": it.changes.iter().map(changes).collect::<Vec<Value>>(),
            })
        });
        json!({
            "changed": changed.collect::<Vec<Value>>(),
            "onlyHashes": all.only_hashes,
            "unpaired": all.unpaired,
        })
    });
    output::json(json!({
        "onlyBefore": paths(&difference.only_before),
        "onlyAfter": paths(&difference.only_after),
        "conflicting": paths(&difference.conflicting),
        "packages": difference.packages.iter().map(package).collect::<Vec<Value>>(),
        "derivations": derivations,
    }))
}
