//! `ferry ls`: the store paths in a bundle, or the files of one of them.

use ferry_bundle::{Bundle, Entry, EntryKind, list_nar};
use ferry_formats::{PathInfo, StorePath};
use ferry_store::{Error, Store as _};
use serde_json::{Value, json};

use crate::cli::Ls;
use crate::context::{Context, open_bundle};
use crate::failure::Failure;
use crate::output;

pub(crate) fn run(context: &Context, options: &Ls) -> Result<(), Failure> {
    let bundle = open_bundle(&options.file)?;
    match &options.path {
        None => list_paths(context, options, &bundle),
        Some(path) => list_files(context, options, &bundle, path),
    }
}

fn list_paths(context: &Context, options: &Ls, bundle: &Bundle) -> Result<(), Failure> {
    let store_dir = bundle.store_dir();
    if context.json {
        let describe = |info: &PathInfo| {
            json!({
                "path": store_dir.render_path(&info.path),
                "narHash": info.nar_hash.to_sri(),
                "narSize": info.nar_size,
                "references":
                    info.references.iter().map(|path| store_dir.render_path(path)).collect::<Vec<_>>(),
                "deriver": info.deriver.as_ref().map(|path| store_dir.render_path(path)),
                "ca": info.ca.as_ref().map(ToString::to_string),
                "signatures":
                    info.signatures.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        };
        let paths: Vec<Value> = bundle.path_infos().iter().map(describe).collect();
        return output::json(json!({ "paths": paths }));
    }
    for info in bundle.path_infos() {
        let path = store_dir.render_path(&info.path);
        let line = if options.long { format!("{:>12} {path}", info.nar_size) } else { path };
        output::line(line.as_bytes())?;
    }
    Ok(())
}

fn list_files(context: &Context, options: &Ls, bundle: &Bundle, text: &str) -> Result<(), Failure> {
    let (path, below) = split(bundle, text)?;
    let info = bundle.require(&path)?;
    let mut entries = Vec::new();
    bundle.read_nars(std::slice::from_ref(&info), &mut |_, nar| {
        entries = list_nar(nar).map_err(|error| Error::MalformedNar {
            path: text.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(())
    })?;
    let shown = select(entries, below.as_bytes(), options.recursive)
        .ok_or_else(|| Failure::new(format!("{text} is not in {}", bundle.describe())))?;
    if context.json {
        let entries: Vec<Value> = shown.iter().map(entry_json).collect();
        return output::json(json!({ "entries": entries }));
    }
    for entry in &shown {
        output::line(&entry_line(entry, options.long))?;
    }
    Ok(())
}

/// The store path, and what comes behind it.
fn split(bundle: &Bundle, text: &str) -> Result<(StorePath, String), Failure> {
    let relative =
        text.strip_prefix(bundle.store_dir().as_str()).unwrap_or(text).trim_start_matches('/');
    let (base, below) = relative.split_once('/').unwrap_or((relative, ""));
    let path = StorePath::from_basename(base.as_bytes())
        .map_err(|error| Failure::usage(format!("`{text}` is not a store path: {error}")))?;
    Ok((path, below.trim_end_matches('/').to_owned()))
}

/// The entry asked for and, if it is a directory, what is in it.
fn select(entries: Vec<Entry>, below: &[u8], recursive: bool) -> Option<Vec<Entry>> {
    let found = entries.iter().find(|entry| entry.path == below)?.clone();
    if found.kind != EntryKind::Directory {
        return Some(vec![found]);
    }
    let inside = |path: &[u8]| -> Option<Vec<u8>> {
        let rest =
            if below.is_empty() { path } else { path.strip_prefix(below)?.strip_prefix(b"/")? };
        (!rest.is_empty()).then(|| rest.to_vec())
    };
    let children = entries.into_iter().filter_map(|entry| {
        let path = inside(&entry.path)?;
        (recursive || !path.contains(&b'/')).then_some(Entry { path, ..entry })
    });
    Some(children.collect())
}

fn entry_line(entry: &Entry, long: bool) -> Vec<u8> {
    let mut line = Vec::new();
    if long {
        let (kind, size) = match &entry.kind {
            EntryKind::Regular { size, executable: true } => ("-r-xr-xr-x", *size),
            EntryKind::Regular { size, executable: false } => ("-r--r--r--", *size),
            EntryKind::Directory => ("dr-xr-xr-x", 0),
            EntryKind::Symlink { .. } => ("lrwxrwxrwx", 0),
        };
        line.extend_from_slice(format!("{kind} {size:>12} ").as_bytes());
    }
    line.extend_from_slice(if entry.path.is_empty() { b"." } else { &entry.path });
    if let (true, EntryKind::Symlink { target }) = (long, &entry.kind) {
        line.extend_from_slice(b" -> ");
        line.extend_from_slice(target);
    }
    line
}

fn entry_json(entry: &Entry) -> Value {
    let path = String::from_utf8_lossy(&entry.path);
    match &entry.kind {
        EntryKind::Regular { size, executable } => {
            json!({ "path": path, "type": "regular", "size": size, "executable": executable })
        }
        EntryKind::Directory => json!({ "path": path, "type": "directory" }),
        EntryKind::Symlink { target } => {
            json!({ "path": path, "type": "symlink", "target": String::from_utf8_lossy(target) })
        }
    }
}
