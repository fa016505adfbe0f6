//! What ferry prints with `--json`.

use ferry_test_world::{Machine, NixVersion, World};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::support::{Built, ferry, generate_key, query, sorted};

const BUNDLE: &str = "/tmp/c.ferry";

// The JSON that is promised, written down apart from the code that prints it. No field may be
// missing, and none may be added without being added here.

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Packed {
    version: u32,
    bundle: String,
    bundle_size: u64,
    /// Files, where there are several.
    #[serde(deserialize_with = "or_null")]
    volumes: Option<Vec<String>>,
    set: String,
    roots: Vec<String>,
    evaluations: Vec<String>,
    paths: u64,
    nar_size: u64,
    left_out: u64,
    prerequisites: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Verified {
    version: u32,
    bundle: String,
    #[serde(deserialize_with = "or_null")]
    volumes: Option<Vec<serde_json::Value>>,
    #[serde(deserialize_with = "or_null")]
    volumes_not_whole: Option<u64>,
    valid: bool,
    paths: u64,
    nar_size: u64,
    content_addressed: u64,
    signed_by_trusted: u64,
    signed_by: Vec<String>,
    untrusted: Vec<String>,
    prerequisites: u64,
    #[serde(deserialize_with = "or_null")]
    against: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Told {
    version: u32,
    bundle: String,
    #[serde(deserialize_with = "or_null")]
    bundle_size: Option<u64>,
    #[serde(deserialize_with = "or_null")]
    volumes: Option<Vec<serde_json::Value>>,
    format_version: u32,
    store_dir: String,
    set: String,
    roots: Vec<String>,
    evaluations: Vec<String>,
    paths: u64,
    derivations: u64,
    nar_size: u64,
    prerequisites: Vec<String>,
    head_digest: String,
    signed_by: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Paths {
    version: u32,
    paths: Vec<PathInfo>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PathInfo {
    path: String,
    nar_hash: String,
    nar_size: u64,
    references: Vec<String>,
    #[serde(deserialize_with = "or_null")]
    deriver: Option<String>,
    #[serde(deserialize_with = "or_null")]
    ca: Option<String>,
    signatures: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entries {
    pub(crate) version: u32,
    pub(crate) entries: Vec<Entry>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, tag = "type", rename_all = "lowercase")]
pub(crate) enum Entry {
    Regular { path: String, size: u64, executable: bool },
    Directory { path: String },
    Symlink { path: String, target: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Loaded {
    version: u32,
    roots: Vec<String>,
    added: u64,
    present: u64,
    nar_size: u64,
    /// Paths that were there with another content.
    kept: Vec<String>,
    gc_roots: Vec<String>,
    #[serde(deserialize_with = "or_null")]
    next: Option<String>,
    evaluations: Vec<LaidOut>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct LaidOut {
    directory: String,
    command: String,
}

/// A field that has to be there, and may be null.
fn or_null<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(from)
}

/// What a command with `--json` prints: one document on one line, and nothing besides.
pub(crate) fn json<T: DeserializeOwned>(machine: &Machine, args: &[&str]) -> T {
    let told = ferry(machine, args).args(["--json", "--quiet"]).succeed();
    assert_eq!(told.stderr, "", "{args:?}");
    let text = String::from_utf8(told.stdout).expect("JSON is UTF-8");
    assert_eq!(text.find('\n'), Some(text.len() - 1), "{args:?}: not one line: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
}

fn number(machine: &Machine, args: &[&str]) -> u64 {
    query(machine, args).iter().map(|line| line.parse::<u64>().expect("Nix tells a size")).sum()
}

#[test]
fn json_is_what_is_promised_and_agrees_with_nix() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let Built { machine, derivation, top, fod } = Built::new(&world, version);
        let key = generate_key(&machine, "harbour-1");
        let also = ["pack", &derivation, "--also", &top, "--also", &fod, "-o", BUNDLE];
        let packed: Packed = json(&machine, &[&also[..], &["--sign-key", &key.secret]].concat());
        let mut all = query(&machine, &["--requisites", &derivation, &top, &fod]);
        all.dedup();
        let sizes = [&["--size"], &*all.iter().map(String::as_str).collect::<Vec<_>>()].concat();
        let nar_size = number(&machine, &sizes);
        let bundle_size = machine.read(BUNDLE).len() as u64;
        let roots = [&derivation, &top, &fod].map(String::as_str);
        assert_eq!(packed.version, 1);
        assert_eq!((packed.bundle.as_str(), packed.bundle_size), (BUNDLE, bundle_size));
        assert_eq!(packed.volumes, None);
        assert_eq!((packed.set.as_str(), packed.paths), ("recipe", all.len() as u64));
        assert_eq!(packed.nar_size, nar_size);
        assert_eq!(packed.roots, roots);
        assert_eq!((packed.left_out, packed.prerequisites.len()), (0, 0));
        assert_eq!(packed.evaluations, [""; 0]);

        let told: Told = json(&machine, &["info", BUNDLE]);
        assert_eq!((told.version, told.format_version), (1, 1));
        assert_eq!((told.bundle.as_str(), told.bundle_size), (BUNDLE, Some(bundle_size)));
        assert_eq!(told.volumes, None);
        assert_eq!((told.store_dir.as_str(), told.set.as_str()), ("/nix/store", "recipe"));
        assert_eq!((told.paths, told.derivations), (all.len() as u64, 5));
        assert_eq!((told.nar_size, told.roots), (nar_size, roots.map(str::to_owned).to_vec()));
        assert_eq!(told.signed_by, ["harbour-1"]);
        assert_eq!(told.evaluations, [""; 0]);
        assert_eq!(told.prerequisites, [""; 0]);
        assert!(told.head_digest.starts_with("sha256:"), "{}", told.head_digest);

        assert_listing_agrees(&machine, &all);

        let verified: Verified = json(&machine, &["verify", BUNDLE]);
        assert_eq!((verified.version, verified.bundle.as_str()), (1, BUNDLE));
        assert!(verified.valid);
        assert_eq!((verified.paths, verified.nar_size), (all.len() as u64, nar_size));
        // Everything but the four outputs that have nothing but a signature.
        let content_addressed = all.len() as u64 - 4;
        assert_eq!(verified.content_addressed, content_addressed);
        assert_eq!((verified.signed_by_trusted, verified.untrusted.len()), (0, 4));
        assert_eq!(verified.signed_by, ["harbour-1"]);
        assert_eq!((verified.prerequisites, verified.against), (0, None));
        assert_eq!((verified.volumes, verified.volumes_not_whole), (None, None));
        let trusting = ["verify", BUNDLE, "--trusted-public-key", &key.public];
        let trusting: Verified = json(&machine, &trusting);
        assert_eq!((trusting.signed_by_trusted, trusting.untrusted.len()), (trusting.paths, 0));

        let load = ["load", BUNDLE, "--no-check-sigs", "--to", "/data/island", "--root", "x"];
        let first: Loaded = json(&machine, &load);
        assert_eq!(first.version, 1);
        assert_eq!((first.added, first.present), (all.len() as u64, 0));
        assert_eq!((first.nar_size, &first.roots[..]), (nar_size, &roots.map(str::to_owned)[..]));
        let directory = "/data/island/nix/var/nix/gcroots/ferry/x";
        let links = roots.map(|root| root.replace("/nix/store", directory));
        assert_eq!(first.gc_roots, links);
        assert_eq!(first.evaluations, []);
        assert!(first.next.is_some_and(|next| next.contains(&derivation)));
        let again: Loaded = json(&machine, &[&load[..5], &["--no-root"]].concat());
        assert_eq!((again.added, again.present, again.nar_size), (0, all.len() as u64, 0));
        assert_eq!((again.gc_roots, again.kept), (Vec::new(), Vec::new()));
    }
}

/// What `ferry ls` tells of each path is what Nix tells.
fn assert_listing_agrees(machine: &Machine, all: &[String]) {
    let listed: Paths = json(machine, &["ls", BUNDLE]);
    assert_eq!(listed.version, 1);
    let mut before: Vec<&str> = Vec::new();
    for info in &listed.paths {
        let path = info.path.as_str();
        let own = |reference: &&String| *reference != path;
        let behind = info.references.iter().filter(own).find(|path| !before.contains(&&***path));
        assert_eq!(behind, None, "{path} stands before what it refers to");
        before.push(path);
        let hash = ["hash", "to-base32", "--type", "sha256", &info.nar_hash];
        let hash = machine.command("nix").args(hash).ok();
        assert_eq!([format!("sha256:{hash}")], query(machine, &["--hash", path])[..]);
        assert_eq!(info.nar_size, number(machine, &["--size", path]));
        assert_eq!(info.references, query(machine, &["--references", path]));
        let deriver = info.deriver.as_deref().unwrap_or("unknown-deriver");
        assert_eq!([deriver], query(machine, &["--deriver", path])[..]);
        assert_eq!(info.signatures.len(), 1, "{path}");
        assert!(info.signatures[0].starts_with("harbour-1:"), "{:?}", info.signatures);
        let built_here = path.contains("-crossing-") && !path.ends_with(".drv");
        assert_eq!(info.ca.is_none(), built_here && !path.ends_with(".txt"), "{path}");
    }
    let paths = sorted(listed.paths.iter().map(|info| info.path.as_str()));
    assert_eq!(paths, all);
    let listed = ferry(machine, ["ls", BUNDLE]).ok();
    assert_eq!(listed.lines().collect::<Vec<_>>(), before);
}
