//! What `ferry missing --json` says, and caches to ask.

use std::collections::BTreeSet;

use ferry_test_world::Machine;
use serde::Deserialize;

use crate::support::ferry;

/// What `--json` promises.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Told {
    pub(super) version: u32,
    pub(super) caches: Vec<Cache>,
    pub(super) needed: u64,
    pub(super) there: u64,
    pub(super) missing: u64,
    pub(super) coverage: Coverage,
    pub(super) nar_size: u64,
    pub(super) download_size: u64,
    pub(super) requests_per_second: f64,
    pub(super) built: Vec<String>,
    pub(super) incomplete: Vec<Incomplete>,
    pub(super) missing_facts: Vec<String>,
    pub(super) added_to_list: Option<u64>,
    pub(super) fetched: Option<Fetched>,
    pub(super) paths: Vec<Path>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Cache {
    pub(super) address: String,
    pub(super) paths: u64,
    pub(super) nar_size: u64,
    pub(super) requests: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Coverage {
    pub(super) paths: f64,
    pub(super) bytes: f64,
    pub(super) unknown_sizes: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Incomplete {
    pub(super) path: String,
    pub(super) reference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Fetched {
    pub(super) added: u64,
    pub(super) present: u64,
    pub(super) nar_size: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Path {
    pub(super) path: String,
    pub(super) state: String,
    pub(super) substituted: bool,
    pub(super) cache: Option<String>,
    pub(super) nar_size: Option<u64>,
    pub(super) download_size: Option<u64>,
    pub(super) derivation: Option<String>,
    pub(super) urls: Option<Vec<String>>,
    pub(super) unusable: Vec<Unusable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Unusable {
    pub(super) cache: String,
    pub(super) untrusted: bool,
    pub(super) reason: String,
}

impl Told {
    /// The paths in a state, by their names.
    pub(super) fn names(&self, state: &str) -> Vec<String> {
        let paths = self.paths.iter().filter(|path| path.state == state);
        let names: BTreeSet<&str> = paths.map(|path| name(&path.path)).collect();
        names.into_iter().map(str::to_owned).collect()
    }
}

pub(super) fn name(path: &str) -> &str {
    path.strip_prefix("/nix/store/").unwrap_or(path).split_once('-').expect("a store path").1
}

/// Runs it with `--json`, and looks at the exit code.
pub(super) fn missing(machine: &Machine, args: &[&str]) -> Told {
    let outcome = ferry(machine, ["missing", "--json"]).args(args).online().run();
    let told: Told = serde_json::from_slice(&outcome.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", outcome.text(), outcome.stderr));
    assert_eq!(outcome.code(), i32::from(told.missing > 0), "{}", outcome.stderr);
    assert_eq!(told.version, 1);
    assert_eq!(told.needed, told.there + told.missing);
    let there: u64 = told.caches.iter().map(|cache| cache.paths).sum();
    assert_eq!(there, told.there);
    for path in &told.paths {
        let is_there = ["there", "elsewhere"].contains(&&*path.state);
        assert_eq!(path.cache.is_some(), is_there, "{}", path.path);
        assert!(!path.substituted || is_there && path.nar_size.is_some(), "{}", path.path);
        assert!(path.download_size.is_none() || is_there, "{}", path.path);
    }
    told
}

/// A narinfo of something that is not there. No client gets as far as that.
pub(super) fn narinfo(path: &str, references: &[String], size: usize) -> String {
    let references: Vec<&str> =
        references.iter().map(|path| path.strip_prefix("/nix/store/").unwrap()).collect();
    format!(
        "StorePath: {path}\nURL: nar/{}.nar\nCompression: none\nFileSize: {size}\n\
         NarHash: sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s\n\
         NarSize: {}\nReferences: {}\n",
        name(path),
        2 * size,
        references.join(" ")
    )
}

pub(super) fn narinfo_name(path: &str) -> String {
    let base = path.strip_prefix("/nix/store/").unwrap();
    format!("{}.narinfo", base.split_once('-').unwrap().0)
}

pub(super) const CACHE_INFO: &str = "StoreDir: /nix/store\n";
