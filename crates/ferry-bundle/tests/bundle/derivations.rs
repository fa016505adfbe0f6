//! Derivations of every kind, into a bundle and back, byte for byte.

use std::collections::BTreeMap;

use ferry_formats::{StoreDir, StorePath, nar};
use nix_derivation::{
    CAHash, ContentAddressMethod, DerivationBuilder, HashAlgorithm, InputDerivation,
    InputDerivationHash, NixHash, Output, StructuredAttrs,
};
use proptest::prelude::*;

use crate::objects::{Memory, Object, sha256};
use crate::packed::{coded, packed, packed_from};
use crate::receiver::{count_same_nars, open, verify};
use crate::wire::Wire;

/// Makes derivations as Nix does, with what is needed of those made before.
pub(crate) struct World {
    store_dir: StoreDir,
    pub(crate) objects: Vec<Object>,
    hashes: BTreeMap<StorePath, InputDerivationHash>,
    /// Makes what is at the bottom different.
    pub(crate) seed: &'static str,
}

impl World {
    pub(crate) fn new(store_dir: &str) -> Self {
        let store_dir = StoreDir::new(store_dir).unwrap();
        Self { store_dir, objects: Vec::new(), hashes: BTreeMap::new(), seed: "" }
    }

    pub(crate) fn builder(&self, name: &str) -> DerivationBuilder {
        DerivationBuilder::new_in_store(self.store_dir.clone(), name, "x86_64-linux", "/bin/sh")
            .environment("name", name)
            .environment("system", "x86_64-linux")
    }

    pub(crate) fn source(&mut self, name: &str, contents: &[u8]) -> StorePath {
        let object = Object::source_in(&self.store_dir, name, Wire::new().file(contents).0);
        self.objects.push(object);
        self.objects.last().unwrap().path().clone()
    }

    /// Adds a derivation; returns its path.
    pub(crate) fn add(&mut self, builder: DerivationBuilder) -> StorePath {
        let hashes = &self.hashes;
        let built = builder.build_with_input_hashes(|path| hashes[path]).unwrap();
        let derivation = built.as_derivation();
        let text = derivation.to_aterm_bytes();
        let hash = derivation.hash_input_derivation_modulo(|path| hashes[path]).unwrap();
        let inputs = derivation.input_derivations().keys().chain(derivation.input_sources());
        let references: Vec<&StorePath> = inputs.collect();
        let name = format!("{}.drv", derivation.name());
        let object = Object::text_in(&self.store_dir, &name, &text, &references);
        let path = object.path().clone();
        assert_eq!(path, built.drv_path());
        self.hashes.insert(path.clone(), hash);
        self.objects.push(object);
        path
    }

    pub(crate) fn render(&self, path: &StorePath) -> String {
        self.store_dir.render_path(path)
    }

    /// The path of an output of a derivation.
    pub(crate) fn output(&self, derivation: &StorePath, output: &str) -> String {
        let object = self.objects.iter().find(|object| object.path() == derivation).unwrap();
        let text = nar::file_contents(&object.nar).unwrap();
        let name = derivation.name().trim_end_matches(".drv");
        let parsed =
            nix_derivation::Derivation::from_aterm_bytes_in(text, name, self.store_dir.clone());
        match &parsed.unwrap().resolved_outputs().unwrap()[output].path {
            Some(path) => self.render(path),
            None => {
                ferry_formats::derivation::downstream_placeholder(derivation, [output]).unwrap()
            }
        }
    }
}

fn fixed(method: ContentAddressMethod, algorithm: HashAlgorithm, seed: &[u8]) -> Output {
    let digest = nix_derivation::hash_bytes(algorithm, seed);
    Output::Fixed { ca: CAHash::from_parts(method, algorithm, digest.digest_as_bytes()).unwrap() }
}

fn floating(method: ContentAddressMethod, hash_algorithm: HashAlgorithm) -> Output {
    Output::Floating { method, hash_algorithm }
}

fn placeholder(output: &str) -> String {
    ferry_formats::derivation::hash_placeholder(output)
}

/// Derivations of every kind that can be coded.
pub(crate) fn graph_in(store_dir: &str) -> World {
    fill(World::new(store_dir))
}

/// Adds them to a world with nothing in it.
pub(crate) fn fill(mut world: World) -> World {
    let script = world.source("builder.sh", format!("echo build{}", world.seed).as_bytes());
    let unused = world.source("unused.sh", b"echo nothing");
    let algorithms =
        [HashAlgorithm::Sha256, HashAlgorithm::Sha512, HashAlgorithm::Sha1, HashAlgorithm::Md5];
    let mut downloads = Vec::new();
    for (place, algorithm) in algorithms.into_iter().enumerate() {
        for method in [ContentAddressMethod::Flat, ContentAddressMethod::Nar] {
            let name = format!("package{place}-1.{place}.tar.gz");
            let builder = world
                .builder(&name)
                .output("out", fixed(method, algorithm, name.as_bytes()))
                .environment("urls", format!("https://example.org/{name} mirror://x/{name}"));
            downloads.push(world.add(builder));
        }
    }
    let src = world.output(&downloads[0], "out");
    let several = world
        .builder("library-2.0.1")
        .input_addressed_output("out")
        .input_addressed_output("dev")
        .input_addressed_output("man")
        .input_derivation(downloads[0].clone(), InputDerivation::new(["out"]))
        .input_source(script.clone())
        .argument("-e")
        .argument(world.render(&script))
        .argument("")
        .environment("src", src.clone())
        .environment("pname", format!("library{}", world.seed))
        .environment("version", "2.0.1")
        .environment(
            "flags",
            format!("--prefix={} --dev={}", placeholder("out"), placeholder("dev")),
        )
        .environment(
            "odd",
            b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\n\r\t\"\\\x7f\xff\xfe".to_vec(),
        )
        .environment("odd key \"\\", "value")
        .environment("empty", "")
        .environment("foreign", "/nix/store/00000000000000000000000000000000-nobody");
    let several = world.add(several);
    let dev = world.output(&several, "dev");
    let attributes = format!(
        r#"{{"buildInputs":["{dev}"],"name":"structured","nested":{{"a":[1,2.5,null,true,"ü\n"]}}}}"#
    );
    let structured = DerivationBuilder::new_in_store(
        world.store_dir.clone(),
        "structured",
        "x86_64-linux",
        world.output(&several, "out"),
    )
    .input_addressed_output("out")
    .input_derivation(several.clone(), InputDerivation::new(["dev", "out"]))
    .structured_attrs(StructuredAttrs::from_json_bytes(attributes.into_bytes()).unwrap());
    let structured = world.add(structured);
    // A path that is mentioned and no input, inputs that nobody mentions, and a `.drv` as a source.
    let context = world
        .builder("context")
        .input_addressed_output("out")
        .input_derivation(structured.clone(), InputDerivation::new(["out"]))
        .input_derivation(downloads[1].clone(), InputDerivation::new(["out"]))
        .input_source(unused)
        .input_source(several.clone())
        .environment("discarded", format!("{src} and {}", world.render(&script)))
        .environment("exportReferencesGraph", format!("graph {}", world.render(&several)));
    world.add(context);
    let floating = world
        .builder("floating-1")
        .output("out", floating(ContentAddressMethod::Nar, HashAlgorithm::Sha256))
        .output("lib", floating(ContentAddressMethod::Nar, HashAlgorithm::Sha256))
        .input_derivation(several.clone(), InputDerivation::new(["out"]))
        .environment("out", placeholder("out"))
        .environment("lib", placeholder("lib"))
        .environment("library", world.output(&several, "out"));
    let floating = world.add(floating);
    let impure = world
        .builder("impure")
        .output(
            "out",
            Output::Impure {
                method: ContentAddressMethod::Nar,
                hash_algorithm: HashAlgorithm::Sha256,
            },
        )
        .environment("out", placeholder("out"))
        .environment("__impure", "1");
    let impure = world.add(impure);
    let deferred = world
        .builder("deferred")
        .output("out", Output::Deferred)
        .input_derivation(floating.clone(), InputDerivation::new(["lib"]))
        .input_derivation(impure.clone(), InputDerivation::new(["out"]))
        .environment("out", "")
        .environment("lib", world.output(&floating, "lib"))
        .environment("impure", world.output(&impure, "out"));
    let deferred = world.add(deferred);
    let last = world
        .builder("last")
        .output("out", Output::Deferred)
        .input_derivation(deferred.clone(), InputDerivation::new(["out"]))
        .environment("deferred", world.output(&deferred, "out"));
    world.add(last);
    world
}

pub(crate) fn graph() -> Vec<Object> {
    graph_in("/nix/store").objects
}

/// Packs, reads, and compares everything.
#[track_caller]
fn comes_back(store_dir: &str, objects: &[Object]) -> usize {
    let store = Memory::in_directory(StoreDir::new(store_dir).unwrap(), objects);
    let bundle = packed_from(&store, objects, 3, Vec::new());
    let read = open(&bundle).unwrap();
    let infos: Vec<_> = read.path_infos().to_vec();
    assert_eq!(infos.len(), objects.len());
    for (place, info) in infos.iter().enumerate() {
        assert_eq!(info, &store.objects[&info.path].info);
        let before = &infos[..=place];
        let behind = |path: &&StorePath| before.iter().all(|info| info.path != **path);
        assert_eq!(info.references.iter().find(behind), None, "{}", info.path);
    }
    assert_eq!(count_same_nars(&read, &store), objects.len());
    coded(&bundle)
}

fn derivations(objects: &[Object]) -> usize {
    objects.iter().filter(|object| object.path().is_derivation()).count()
}

#[test]
fn derivations_of_every_kind_are_coded_and_come_back() {
    assert_eq!(comes_back("/nix/store", &graph()), derivations(&graph()));
    assert_eq!(verify(&packed(&graph())).unwrap().copied.added, graph().len());
}

#[test]
fn derivations_without_their_content_addresses_on_record_are_coded_and_get_them() {
    let objects = graph();
    let mut without = objects.clone();
    for object in without.iter_mut().filter(|object| object.path().is_derivation()) {
        object.info.ca = None;
    }
    assert!(packed(&without) == packed(&objects));
}

#[test]
fn other_store_directories_do() {
    for directory in ["/gnu/store", "/", "/home/me/a b/store", "/opt/ünï/store"] {
        let objects = graph_in(directory).objects;
        assert_eq!(comes_back(directory, &objects), derivations(&objects), "{directory}");
    }
    // Its quotes would have to be escaped in every path.
    let directory = "/odd\"store\\";
    let mut world = World::new(directory);
    let first = world.add(world.builder("first").input_addressed_output("out"));
    let second = world
        .builder("second")
        .input_addressed_output("out")
        .input_derivation(first.clone(), InputDerivation::new(["out"]))
        .environment("first", world.output(&first, "out"));
    world.add(second);
    assert_eq!(comes_back(directory, &world.objects), 0);
}

#[test]
fn what_cannot_be_coded_is_carried_as_it_is_with_its_dependents() {
    let mut world = graph_in("/nix/store");
    let coded = derivations(&world.objects);
    let producer = world
        .builder("producer.drv")
        .output("out", floating(ContentAddressMethod::Text, HashAlgorithm::Sha256))
        .environment("out", placeholder("out"));
    let producer = world.add(producer);
    let dynamic = InputDerivation::new::<[&str; 0], &str>([])
        .with_dynamic_output("out", InputDerivation::new(["out"]))
        .unwrap();
    let consumer = world
        .builder("consumer")
        .output("out", Output::Deferred)
        .input_derivation(producer, dynamic)
        .environment("out", "");
    let consumer = world.add(consumer);
    let dependent = world
        .builder("dependent")
        .output("out", Output::Deferred)
        .input_derivation(consumer.clone(), InputDerivation::new(["out"]))
        .environment("out", "")
        .environment("consumer", world.output(&consumer, "out"));
    world.add(dependent);
    assert_eq!(comes_back("/nix/store", &world.objects), coded + 1);
    assert_eq!(verify(&packed(&world.objects)).unwrap().copied.added, world.objects.len());
}

#[test]
fn forms_that_nix_does_not_write_are_carried_as_they_are() {
    for (key, value) in [("\u{1}", "x"), ("x", "\\q"), ("x", "a\nb"), ("x", "a\tb")] {
        let text = format!(
            "Derive([(\"out\",\"\",\"r:sha256\",\"\")],[],[],\"s\",\"b\",[],[(\"{key}\",\"{value}\")])"
        );
        let object = Object::text("odd.drv", text.as_bytes(), &[]);
        let coded = comes_back("/nix/store", std::slice::from_ref(&object));
        assert_eq!(coded, 0, "{text:?}");
    }
}

#[test]
fn paths_that_refer_to_derivations_stand_behind_them() {
    let mut world = graph_in("/nix/store");
    let last = world.objects.last().unwrap().path().clone();
    let text = world.render(&last);
    let note = Object::text("note", text.as_bytes(), &[&last]);
    let by_note = world
        .builder("by-note")
        .input_addressed_output("out")
        .input_source(note.path().clone())
        .environment("note", note.rendered());
    world.objects.push(note);
    world.add(by_note);
    let objects = &world.objects;
    assert_eq!(comes_back("/nix/store", objects), derivations(objects));
}

#[test]
fn the_same_paths_give_the_same_bytes() {
    assert_eq!(packed(&graph()), packed(&graph()));
}

/// One derivation that is made up.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    name: String,
    kind: u8,
    outputs: usize,
    /// Which earlier derivations are inputs, and whether they are mentioned.
    inputs: Vec<(usize, bool)>,
    values: Vec<(String, Vec<u8>)>,
    arguments: Vec<String>,
}

impl Random {
    /// With one more variable, or another value of it.
    pub(crate) fn with(mut self, key: &str, value: Vec<u8>) -> Self {
        self.values.push((key.to_owned(), value));
        self
    }
}

pub(crate) fn random() -> impl Strategy<Value = Random> {
    let name = prop_oneof!["[a-z]{1,6}(-[0-9][0-9.]{0,4})?", "[A-Za-z0-9+_?=-]{1,12}"];
    let value = prop_oneof![
        "[ -~\n\t]{0,40}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..24),
    ];
    let key = prop_oneof!["[a-z]{1,3}", "[ -~\n]{1,4}"];
    (
        name,
        0u8..6,
        1usize..4,
        prop::collection::vec((any::<usize>(), any::<bool>()), 0..5),
        prop::collection::vec((key, value), 0..6),
        prop::collection::vec("[ -~\n]{0,9}", 0..4),
    )
        .prop_map(|(name, kind, outputs, inputs, values, arguments)| Random {
            name,
            kind,
            outputs,
            inputs,
            values,
            arguments,
        })
}

/// Paths made before, with their outputs and whether those float.
type Earlier = Vec<(StorePath, Vec<String>, bool)>;

pub(crate) fn made(world: &mut World, one: &Random, earlier: &mut Earlier) {
    let names = ["out", "dev", "lib"];
    let mut outputs: Vec<String> = names[..one.outputs].iter().map(ToString::to_string).collect();
    let mut builder = world.builder(&one.name);
    for (key, value) in &one.values {
        builder = builder.environment(key.clone(), value.clone());
    }
    for argument in &one.arguments {
        builder = builder.argument(argument.clone());
    }
    let mut inputs: BTreeMap<StorePath, InputDerivation> = BTreeMap::new();
    let mut unresolved = false;
    for (place, (number, mentioned)) in one.inputs.iter().enumerate() {
        let Some((path, outputs, floats)) = earlier.get(number % earlier.len().max(1)) else {
            continue;
        };
        let output = outputs[number % outputs.len()].clone();
        unresolved |= floats;
        inputs.entry(path.clone()).or_default().insert_output(output.clone());
        if *mentioned {
            let text = format!("<{}> {}", world.output(path, &output), one.name);
            builder = builder.environment(format!("input{place}"), text);
        }
    }
    let floats = match one.kind {
        0 => {
            outputs = vec!["out".to_owned()];
            let by = fixed(ContentAddressMethod::Nar, HashAlgorithm::Sha256, one.name.as_bytes());
            builder = builder.output("out", by);
            false
        }
        1 => {
            for output in &outputs {
                let by = floating(ContentAddressMethod::Nar, HashAlgorithm::Sha256);
                builder = builder.output(output, by).environment(output, placeholder(output));
            }
            true
        }
        _ => {
            for output in &outputs {
                builder = match unresolved {
                    true => builder.output(output, Output::Deferred).environment(output, ""),
                    false => builder.input_addressed_output(output),
                };
            }
            unresolved
        }
    };
    for (path, input) in inputs {
        builder = builder.input_derivation(path, input);
    }
    let path = world.add(builder);
    earlier.push((path, outputs, floats));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn derivations_that_were_made_up_come_back(all in prop::collection::vec(random(), 1..12)) {
        let mut world = World::new("/nix/store");
        let mut earlier = Vec::new();
        for one in &all {
            made(&mut world, one, &mut earlier);
        }
        let mut seen = std::collections::BTreeSet::new();
        world.objects.retain(|object| seen.insert(object.path().clone()));
        comes_back("/nix/store", &world.objects);
    }
}

#[test]
fn a_digest_of_a_wrong_length_has_no_derivation() {
    // The algorithms' digests have the lengths that the format counts on.
    for (hash, length) in [
        (NixHash::Sha256(sha256(b"")), 32),
        (nix_derivation::hash_bytes(HashAlgorithm::Sha512, b""), 64),
        (nix_derivation::hash_bytes(HashAlgorithm::Sha1, b""), 20),
        (nix_derivation::hash_bytes(HashAlgorithm::Md5, b""), 16),
    ] {
        assert_eq!(hash.digest_as_bytes().len(), length);
    }
}
