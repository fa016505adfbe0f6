//! `ferry ls`: the store paths in a bundle, or the files of one of them.

use ferry_bundle::{Bundle, Entry, EntryKind, list_nar};
use ferry_formats::{PathInfo, StorePath, nar};
use ferry_store::{Error, Store as _};
use serde_json::{Value, json};

use crate::cli::Ls;
use crate::context::{Context, open_bundle};
use crate::failure::Failure;
use crate::output;

pub(crate) fn run(context: &Context, options: &Ls) -> Result<(), Failure> {
    let against = context.open_against(options.against.as_ref())?;
    let bundle = open_bundle(std::slice::from_ref(&options.file), against.as_ref())?;
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
    let lines = bundle.path_infos().iter().map(|info| {
        let path = store_dir.render_path(&info.path);
        if options.long { format!("{:>12} {path}", info.nar_size) } else { path }
    });
    output::records(lines, false)
}

fn list_files(context: &Context, options: &Ls, bundle: &Bundle, text: &str) -> Result<(), Failure> {
    let (path, below) = split(bundle, text)?;
    if bundle.prerequisites().iter().any(|one| one.path == path) {
        return Err(Failure::new(format!(
            "{text} is not in {}: it was left to the store that receives it",
            bundle.describe()
        )));
    }
    let info = bundle.path_info(&path)?.ok_or_else(|| {
        Failure::new(format!("{text} is not in {}", bundle.describe()))
            .hint("`ferry ls` without a path lists what is")
    })?;
    let mut selection = Selection::new(below.into_bytes(), options.recursive);
    bundle.read_nars(std::slice::from_ref(&info), &mut |_, nar| {
        list_nar(nar, &mut |entry| selection.offer(entry)).map_err(|error| match error {
            nar::Error::Io(source) => Error::reading(format!("read {text}"))(source),
            other => Error::MalformedNar { path: text.to_owned(), reason: other.to_string() },
        })
    })?;
    let shown = selection
        .finish()
        .ok_or_else(|| Failure::new(format!("{text} is not in {}", bundle.describe())))?;
    if context.json {
        let entries: Vec<Value> = shown.iter().map(entry_json).collect();
        return output::json(json!({ "entries": entries }));
    }
    output::records(shown.iter().map(|entry| entry_line(entry, options.long)), false)
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

/// The entry asked for or, if it is a directory, what is in it.
struct Selection {
    below: Vec<u8>,
    recursive: bool,
    found: bool,
    entries: Vec<Entry>,
}

impl Selection {
    fn new(below: Vec<u8>, recursive: bool) -> Self {
        Self { below, recursive, found: false, entries: Vec::new() }
    }

    fn offer(&mut self, entry: Entry) {
        if entry.path == self.below {
            self.found = true;
            if entry.kind != EntryKind::Directory {
                self.entries.push(entry);
            }
            return;
        }
        let inside = match self.below.as_slice() {
            [] => Some(entry.path.as_slice()),
            below => entry.path.strip_prefix(below).and_then(|rest| rest.strip_prefix(b"/")),
        };
        if let Some(path) = inside.filter(|path| self.recursive || !path.contains(&b'/')) {
            self.entries.push(Entry { path: path.to_vec(), ..entry });
        }
    }

    fn finish(self) -> Option<Vec<Entry>> {
        self.found.then_some(self.entries)
    }
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
