//! Small store objects of every kind, and a store in memory that holds them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use ferry_formats::keys::{PublicKey, SecretKey, parse_public_key};
use ferry_formats::{ContentAddress, NarHash, NixHash, PathInfo, StoreDir, StorePath, nar};
use ferry_store::{NarVisitor, Result, Store};

use super::wire::Wire;

/// A path info and its NAR.
#[derive(Clone)]
pub(crate) struct Object {
    pub(crate) info: PathInfo,
    pub(crate) nar: Vec<u8>,
}

impl Object {
    fn new(path: StorePath, nar: Vec<u8>, references: &[&StorePath]) -> Self {
        let mut references: Vec<StorePath> = references.iter().copied().cloned().collect();
        references.sort();
        let info = PathInfo {
            path,
            nar_hash: NarHash::of(&nar),
            nar_size: nar.len() as u64,
            references: references.into(),
            deriver: None,
            ca: None,
            signatures: Vec::new(),
        };
        Self { info, nar }
    }

    fn addressed(name: &str, nar: Vec<u8>, ca: ContentAddress, references: &[&StorePath]) -> Self {
        Self::addressed_in(&StoreDir::default(), name, nar, ca, references)
    }

    fn addressed_in(
        store_dir: &StoreDir,
        name: &str,
        nar: Vec<u8>,
        ca: ContentAddress,
        references: &[&StorePath],
    ) -> Self {
        let path = store_dir.build_ca_path(name, &ca, references.iter().copied(), false).unwrap();
        let mut object = Self::new(path, nar, references);
        object.info.ca = Some(ca);
        object
    }

    /// What `builtins.toFile` makes.
    pub(crate) fn text(name: &str, text: &[u8], references: &[&StorePath]) -> Self {
        Self::addressed(name, nar::of_file(text), ContentAddress::Text(sha256(text)), references)
    }

    /// The same in a store with another directory.
    pub(crate) fn text_in(
        store_dir: &StoreDir,
        name: &str,
        text: &[u8],
        references: &[&StorePath],
    ) -> Self {
        let ca = ContentAddress::Text(sha256(text));
        Self::addressed_in(store_dir, name, nar::of_file(text), ca, references)
    }

    pub(crate) fn source_in(store_dir: &StoreDir, name: &str, nar: Vec<u8>) -> Self {
        let ca = ContentAddress::Nar(NixHash::Sha256(sha256(&nar)));
        Self::addressed_in(store_dir, name, nar, ca, &[])
    }

    /// What `nix-store --add` makes.
    pub(crate) fn source(name: &str, nar: Vec<u8>, references: &[&StorePath]) -> Self {
        let ca = ContentAddress::Nar(NixHash::Sha256(sha256(&nar)));
        Self::addressed(name, nar, ca, references)
    }

    /// What a flat fixed-output derivation makes.
    pub(crate) fn flat(name: &str, contents: &[u8]) -> Self {
        let ca = ContentAddress::Flat(NixHash::Sha256(sha256(contents)));
        Self::addressed(name, nar::of_file(contents), ca, &[])
    }

    /// An output whose path says nothing about its content.
    pub(crate) fn output(path: &StorePath, nar: Vec<u8>, references: &[&StorePath]) -> Self {
        Self::new(path.clone(), nar, references)
    }

    pub(crate) fn signed_by(mut self, key: &SecretKey) -> Self {
        self.info.sign(&StoreDir::default(), key);
        self
    }

    pub(crate) fn path(&self) -> &StorePath {
        &self.info.path
    }

    pub(crate) fn rendered(&self) -> String {
        StoreDir::default().render_path(&self.info.path)
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    NarHash::of(bytes).0
}

/// A path that follows from nothing.
pub(crate) fn any_path(seed: &str, name: &str) -> StorePath {
    StorePath::from_parts(sha256(seed.as_bytes())[..20].try_into().unwrap(), name).unwrap()
}

fn hex(digest: [u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The derivation of a flat download that has `contents`.
pub(crate) fn download(name: &str, contents: &[u8]) -> Object {
    let output = Object::flat(name, contents).rendered();
    let hash = hex(sha256(contents));
    let text = format!(
        r#"Derive([("out","{output}","sha256","{hash}")],[],[],"builtin","builtin:fetchurl",[],[("name","{name}"),("out","{output}")])"#
    );
    Object::text(&format!("{name}.drv"), text.as_bytes(), &[])
}

/// A derivation that builds `name` from a download and a source, and the path of its output.
pub(crate) fn derivation(
    name: &str,
    download: (&Object, &str, &[u8]),
    source: &Object,
) -> (Object, StorePath) {
    let (input, input_name, contents) = download;
    // A fixed output stands for its derivation, whatever that is made of.
    let fixed = Object::flat(input_name, contents).rendered();
    let input_hash =
        hex(sha256(format!("fixed:out:sha256:{}:{fixed}", hex(sha256(contents))).as_bytes()));
    let masked = derivation_text(name, "", &input_hash, &source.rendered());
    let output = output_path(name, sha256(masked.as_bytes()));
    let rendered = StoreDir::default().render_path(&output);
    let text = derivation_text(name, &rendered, &input.rendered(), &source.rendered());
    let references = [input.path(), source.path()];
    (Object::text(&format!("{name}.drv"), text.as_bytes(), &references), output)
}

pub(crate) fn derivation_text(name: &str, output: &str, input: &str, source: &str) -> String {
    format!(
        r#"Derive([("out","{output}","","")],[("{input}",["out"])],["{source}"],"x86_64-linux","/bin/sh",["-c","true"],[("name","{name}"),("out","{output}")])"#
    )
}

/// The path of the output `out` of an input-addressed derivation.
fn output_path(name: &str, modulo: [u8; 32]) -> StorePath {
    let fingerprint = format!("output:out:sha256:{}:/nix/store:{name}", hex(modulo));
    let mut folded = [0; 20];
    for (place, byte) in sha256(fingerprint.as_bytes()).into_iter().enumerate() {
        folded[place % 20] ^= byte;
    }
    StorePath::from_parts(folded, name).unwrap()
}

/// One of every kind, references first: text, download and its derivation, a directory tree from
/// disk, an executable, a link, a derivation with inputs, and its output, which is signed by
/// [`key`].
pub(crate) fn sample() -> Vec<Object> {
    let note = Object::text("note", b"read me first\n", &[]);
    let contents = b"what was downloaded\n";
    let fetched = Object::flat("source.txt", contents);
    let fetch = download("source.txt", contents);
    let tree = Object::source("tree", tree_from_disk(), &[]);
    let program = Object::source("program", Wire::new().executable(b"#!/bin/sh\n").0, &[]);
    let link = Object::source("link", Wire::new().symlink(b"program").0, &[]);
    let (recipe, out) = derivation("result", (&fetch, "source.txt", contents), &tree);
    let nar = nar::of_file(format!("uses {}\n", note.rendered()).as_bytes());
    let mut result = Object::output(&out, nar, &[note.path(), tree.path(), &out]);
    result.info.deriver = Some(recipe.path().clone());
    let result = result.signed_by(&key());
    vec![note, fetched, fetch, tree, program, link, recipe, result]
}

fn tree_from_disk() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::write(tree.join("bin/run"), "#!/bin/sh\necho run\n").unwrap();
    fs::set_permissions(tree.join("bin/run"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(tree.join("data"), "data\n").unwrap();
    symlink("bin/run", tree.join("run")).unwrap();
    let mut nar = Vec::new();
    nar::dump(Path::new(&tree), &mut nar).unwrap();
    nar
}

/// A key pair; the secret half is test vector 1 of RFC 8032.
pub(crate) fn key() -> SecretKey {
    named_key("test-1")
}

/// The same pair under another name.
pub(crate) fn named_key(name: &str) -> SecretKey {
    const PAIR: &str =
        "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2DXWpgBgrEKt9VL/tPJZAc6DuFy89qmIyWvAhpo9wdRGg==";
    SecretKey::parse(&format!("{name}:{PAIR}")).unwrap()
}

/// Another pair under the name of the first; test vector 2.
pub(crate) fn impostor() -> SecretKey {
    const PAIR: &str =
        "TM0Imyj/ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U+4pvs9QBfD6EOJWpK3CqdNG368nJgszy7ElozAzVXxKvRmDA==";
    SecretKey::parse(&format!("test-1:{PAIR}")).unwrap()
}

pub(crate) fn public(key: &SecretKey) -> PublicKey {
    parse_public_key(&key.public_key_text()).unwrap()
}

/// A store in memory.
pub(crate) struct Memory {
    store_dir: StoreDir,
    pub(crate) objects: BTreeMap<StorePath, Object>,
}

impl Memory {
    pub(crate) fn of(objects: &[Object]) -> Self {
        let objects = objects.iter().map(|object| (object.path().clone(), object.clone()));
        Self { store_dir: StoreDir::default(), objects: objects.collect() }
    }

    /// Objects whose paths begin with another directory.
    pub(crate) fn in_directory(store_dir: StoreDir, objects: &[Object]) -> Self {
        Self { store_dir, ..Self::of(objects) }
    }

    pub(crate) fn infos(&self) -> BTreeMap<StorePath, PathInfo> {
        self.objects.values().map(|object| (object.path().clone(), object.info.clone())).collect()
    }
}

impl Store for Memory {
    fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    fn describe(&self) -> String {
        "the store in memory".to_owned()
    }

    fn path_info(&self, path: &StorePath) -> Result<Option<PathInfo>> {
        Ok(self.objects.get(path).map(|object| object.info.clone()))
    }

    fn derivers(&self, _path: &StorePath) -> Result<Vec<StorePath>> {
        Ok(Vec::new())
    }

    fn read_nars(&self, wanted: &[PathInfo], visit: &mut NarVisitor<'_>) -> Result<()> {
        wanted.iter().try_for_each(|info| visit(info, &mut self.objects[&info.path].nar.as_slice()))
    }
}
