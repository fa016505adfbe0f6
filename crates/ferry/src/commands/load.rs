//! `ferry load`: what is in a bundle, into a store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ferry_bundle::{Bundle, Manifest};
use ferry_formats::{PathInfo, StorePath};
use ferry_store::closure::unreferenced;
use ferry_store::copy::require_same_directory;
use ferry_store::daemon::{Address, DaemonStore};
use ferry_store::evaluation::Restored;
use ferry_store::local::{Layout, replace_symlink};
use ferry_store::trust::TrustPolicy;
use ferry_store::uri::{OpenStore, Purpose};
use ferry_store::{CopyReport, Store as _, copy};
use serde_json::json;

use crate::base::read_content_from;
use crate::cli::Load;
use crate::commands::{copied, prerequisites};
use crate::context::{Context, open_bundle, require_bundle_key};
use crate::failure::Failure;
use crate::{evaluations, output};

pub(crate) fn run(context: &Context, options: &Load) -> Result<(), Failure> {
    let trust = if options.no_check_sigs {
        TrustPolicy::accept_all()
    } else {
        context.trust(&options.trust)?
    };
    let keys = &options.trust.trusted_public_key;
    let store =
        context.open_store(&options.to, Purpose::Write, trust, options.no_check_sigs, keys)?;
    let mut bundle = open_bundle(&options.files, Some(&store))?;
    require_bundle_key(&bundle, &options.keys)?;

    require_same_directory(&bundle, store.destination())?;
    prerequisites::require(context, &bundle, store.destination())?;
    read_content_from(&mut bundle, &store)?;
    let evaluations = match options.no_eval {
        true => Vec::new(),
        false => bundle.manifest().evaluation_paths(),
    };
    let places = evaluations::places(context, evaluations, options.eval_dir.as_deref())?;
    // Before anything is loaded: afterwards would leave a moment in which it can be collected. A
    // root to a path that is not valid yet does no harm.
    let kept = if options.no_root {
        Roots::default()
    } else {
        Roots::make(&store, &root_name(options, bundle.manifest())?, &to_keep(&bundle))?
    };
    let offered: BTreeMap<_, _> =
        bundle.path_infos().iter().map(|info| (info.path.clone(), info.clone())).collect();
    let report = copy(&bundle, store.destination(), offered, &[], &*context.bars)
        .inspect_err(|_| kept.unmake())?;
    context.tell_recovered(&bundle);
    let laid_out = evaluations::lay_out(context, store.store(), &places)?;

    tell(context, options, &bundle, &store, &Done { links: &kept.links, report, laid_out })
}

/// What has to be kept so that all of the bundle is, with what was left out of it: what was packed,
/// and what nothing in it refers to, such as a download.
fn to_keep(bundle: &Bundle) -> Vec<StorePath> {
    let infos = bundle.path_infos();
    let mut kept = bundle.manifest().root_paths();
    let known: BTreeSet<StorePath> = kept.iter().cloned().collect();
    let mut before: BTreeSet<&StorePath> =
        bundle.prerequisites().iter().map(|one| &one.path).collect();
    if !before.is_empty() {
        for reference in infos.iter().flat_map(PathInfo::other_references) {
            before.remove(reference);
        }
    }
    let before = before.into_iter().cloned();
    kept.extend(unreferenced(infos).into_iter().chain(before).filter(|path| !known.contains(path)));
    kept
}

/// What the roots are kept under: the name given, or that of the first thing packed.
fn root_name(options: &Load, manifest: &Manifest) -> Result<String, Failure> {
    let name = match &options.root {
        Some(name) => name.clone(),
        None => manifest
            .root_paths()
            .first()
            .map(|root| match root.name().trim_end_matches(".drv") {
                name if name.is_empty() || name.starts_with('.') => root.to_basename(),
                name => name.to_owned(),
            })
            .unwrap_or_else(|| "bundle".to_owned()),
    };
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        return Err(Failure::usage(format!("`{name}` cannot be the name of a root")));
    }
    Ok(name)
}

/// The links that keep what is loaded from the garbage collector.
#[derive(Default)]
struct Roots {
    links: Vec<PathBuf>,
    /// Those of them that were not there before.
    new: Vec<PathBuf>,
}

impl Roots {
    /// Makes them; if that fails, all is as it was.
    fn make(store: &OpenStore, name: &str, paths: &[StorePath]) -> Result<Self, Failure> {
        let mut roots = Self::default();
        match roots.make_links(store, name, paths) {
            Ok(()) => Ok(roots),
            Err(failure) => {
                roots.unmake();
                Err(failure)
            }
        }
    }

    fn make_links(
        &mut self,
        store: &OpenStore,
        name: &str,
        paths: &[StorePath],
    ) -> Result<(), Failure> {
        let directory = match store {
            OpenStore::Local(store) => store.layout().named_roots().join(name),
            // What is behind a command may be another machine, where our files mean nothing.
            OpenStore::Daemon(daemon) if matches!(daemon.address(), Address::Command(_)) => {
                return self.make_there(daemon, name, paths);
            }
            OpenStore::Daemon(_) => Context::user_state_directory()?.join("roots").join(name),
        };
        for path in paths {
            let link = directory.join(path.to_basename());
            if link.symlink_metadata().is_err() {
                self.new.push(link.clone());
            }
            replace_symlink(Path::new(&store.store().store_dir().render_path(path)), &link)?;
            if let OpenStore::Daemon(daemon) = store {
                daemon.add_indirect_root(&link)?;
            }
            self.links.push(link);
        }
        Ok(())
    }

    /// Has the daemon make the links, which it does for users whom it trusts.
    fn make_there(
        &mut self,
        daemon: &DaemonStore,
        name: &str,
        paths: &[StorePath],
    ) -> Result<(), Failure> {
        let directory = Layout::system().named_roots().join(name);
        for path in paths {
            let link = directory.join(path.to_basename());
            if daemon.add_permanent_root(path, &link)? {
                self.links.push(link);
            }
        }
        Ok(())
    }

    /// Leaves only the links that an earlier load has made.
    fn unmake(&self) {
        for link in &self.new {
            // One that cannot be removed leads nowhere, and does no harm.
            let _ = std::fs::remove_file(link);
            let _ = link.parent().map(std::fs::remove_dir);
        }
    }
}

/// What was done.
struct Done<'a> {
    links: &'a [PathBuf],
    report: CopyReport,
    laid_out: Vec<Restored>,
}

fn tell(
    context: &Context,
    options: &Load,
    bundle: &Bundle,
    store: &OpenStore,
    done: &Done<'_>,
) -> Result<(), Failure> {
    let Done { links, report, laid_out } = done;
    let roots: Vec<String> = bundle
        .manifest()
        .root_paths()
        .iter()
        .map(|root| bundle.store_dir().render_path(root))
        .collect();
    let next = next_command(options, bundle, store);
    let address = (options.to != "auto").then_some(options.to.as_str());
    if context.json {
        let mut fields = copied::fields(report, bundle.store_dir());
        if let Some(object) = fields.as_object_mut() {
            object.insert("roots".to_owned(), json!(roots));
            object.insert("gcRoots".to_owned(), json!(links));
            object.insert("next".to_owned(), json!(next));
            object.insert("evaluations".to_owned(), evaluations::json(laid_out, address));
        }
        output::json(fields)?;
    } else {
        for root in &roots {
            output::line(root.as_bytes())?;
        }
    }
    copied::tell(context, "added", &store.store().describe(), report, bundle.store_dir());
    if let Some(parent) = links.first().and_then(|link| link.parent()) {
        context.talk.say(format!(
            "kept from the garbage collector by {} (remove it to let go)",
            parent.display()
        ));
    } else if !options.no_root && !roots.is_empty() {
        context.talk.say(
            "nothing keeps it from the garbage collector there: that daemon makes no roots for us",
        );
    }
    for evaluation in laid_out {
        let command = evaluations::command(evaluation, address);
        context.talk.say(format!("evaluate again: {command}"));
    }
    if let Some(next) = next {
        context.talk.say(format!("next: {next}"));
    }
    Ok(())
}

/// The command that makes use of what was loaded.
fn next_command(options: &Load, bundle: &Bundle, store: &OpenStore) -> Option<String> {
    let roots = bundle.manifest().root_paths();
    let root = roots.first()?;
    let path = bundle.store_dir().render_path(root);
    let chroot = match store {
        OpenStore::Local(local) => local.layout().root.as_deref(),
        OpenStore::Daemon(_) => None,
    };
    let address = match chroot {
        Some(root) => format!(" --store {}", output::quoted(&root.to_string_lossy())),
        None if options.to == "daemon" => " --store daemon".to_owned(),
        None => String::new(),
    };
    if root.is_derivation() {
        // The one command for this that every Nix has as it is installed.
        return Some(format!("nix-store{address} --realise {path}"));
    }
    let programs = programs(store, root);
    match (chroot, programs.as_slice()) {
        (None, [only]) => Some(output::quoted(only).into_owned()),
        _ => Some(format!("nix-store{address} --query --requisites {path}")),
    }
}

/// The programs that a loaded path has in its `bin`, where its files can be seen from here.
fn programs(store: &OpenStore, root: &StorePath) -> Vec<String> {
    let OpenStore::Local(local) = store else { return Vec::new() };
    let bin = local.layout().real_path(root).join("bin");
    let Ok(entries) = std::fs::read_dir(bin) else { return Vec::new() };
    let mut found: Vec<String> =
        entries.flatten().map(|entry| entry.path().display().to_string()).collect();
    found.sort();
    found
}
