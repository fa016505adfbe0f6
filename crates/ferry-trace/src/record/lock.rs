//! The lock files of flakes: which store path is which input.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use ferry_formats::{ContentAddress, NarHash, NixHash, StoreDir, StorePath};
use serde_json::Value;

/// Larger files are no lock files, in bytes.
const LARGEST: u64 = 64 << 20;

/// An input as a lock file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Input {
    /// Its name among the nodes.
    pub(super) node: String,
    pub(super) url: Option<String>,
    pub(super) rev: Option<String>,
    /// The URL of a Git repository that it comes from.
    pub(super) repository: Option<String>,
}

/// Adds the inputs that a lock file has, by the store paths that they get.
pub(super) fn read(file: &Path, store_dir: &StoreDir, inputs: &mut HashMap<StorePath, Input>) {
    let is_small = fs::metadata(file).is_ok_and(|metadata| metadata.len() <= LARGEST);
    let read = || serde_json::from_slice::<Value>(&fs::read(file).ok()?).ok();
    let Some(lock) = is_small.then(read).flatten() else { return };
    let Some(nodes) = lock.get("nodes").and_then(Value::as_object) else { return };
    // In the order of their names: whoever reads this twice finds the same.
    for (node, value) in nodes.iter().collect::<BTreeMap<_, _>>() {
        if let Some((path, input)) = input(node, value, store_dir) {
            inputs.entry(path).or_insert(input);
        }
    }
}

fn input(node: &str, value: &Value, store_dir: &StoreDir) -> Option<(StorePath, Input)> {
    let locked = value.get("locked")?;
    let text = |name: &str| locked.get(name).and_then(Value::as_str).map(str::to_owned);
    let hash = NarHash::parse(&text("narHash")?).ok()?;
    let path = tree_path(store_dir, "source", hash)?;
    let kind = text("type").unwrap_or_default();
    let url = match kind.as_str() {
        "git" => text("url").map(|url| match url.contains("://") {
            true => format!("git+{url}"),
            false => url,
        }),
        "path" => text("path").map(|path| format!("path:{path}")),
        "github" | "gitlab" | "sourcehut" => {
            let (owner, name) = (text("owner")?, text("repo")?);
            Some(format!("{kind}:{owner}/{name}"))
        }
        _ => text("url"),
    };
    let repository = text("url").filter(|_| kind == "git");
    Some((path, Input { node: node.to_owned(), url, rev: text("rev"), repository }))
}

/// The path of a tree with this name and hash.
pub(super) fn tree_path(store_dir: &StoreDir, name: &str, hash: NarHash) -> Option<StorePath> {
    let address = ContentAddress::Nar(NixHash::Sha256(hash.0));
    store_dir.build_ca_path(name, &address, [], false).ok()
}
