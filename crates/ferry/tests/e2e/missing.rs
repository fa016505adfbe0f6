//! What caches lack of what something needs, and that Nix says the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ferry_test_world::{Answer, Machine, NixVersion, Origin, World};
use serde::Deserialize;

use crate::support::{Built, all_valid, closure, ferry, generate_key, machine, outputs, shell};

/// What `--json` promises.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Told {
    version: u32,
    caches: Vec<Cache>,
    needed: u64,
    there: u64,
    missing: u64,
    coverage: Coverage,
    nar_size: u64,
    download_size: u64,
    requests_per_second: f64,
    built: Vec<String>,
    incomplete: Vec<Incomplete>,
    missing_facts: Vec<String>,
    added_to_list: Option<u64>,
    fetched: Option<Fetched>,
    paths: Vec<Path>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Cache {
    address: String,
    paths: u64,
    nar_size: u64,
    requests: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Coverage {
    paths: f64,
    bytes: f64,
    unknown_sizes: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Incomplete {
    path: String,
    reference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Fetched {
    added: u64,
    present: u64,
    nar_size: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Path {
    path: String,
    state: String,
    substituted: bool,
    cache: Option<String>,
    nar_size: Option<u64>,
    download_size: Option<u64>,
    derivation: Option<String>,
    urls: Option<Vec<String>>,
    unusable: Vec<Unusable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Unusable {
    cache: String,
    untrusted: bool,
    reason: String,
}

impl Told {
    /// The paths in a state, by their names.
    fn names(&self, state: &str) -> Vec<String> {
        let paths = self.paths.iter().filter(|path| path.state == state);
        let names: BTreeSet<&str> = paths.map(|path| name(&path.path)).collect();
        names.into_iter().map(str::to_owned).collect()
    }
}

fn name(path: &str) -> &str {
    path.strip_prefix("/nix/store/").unwrap_or(path).split_once('-').expect("a store path").1
}

/// Runs it with `--json`, and looks at the exit code.
fn missing(machine: &Machine, args: &[&str]) -> Told {
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

/// Numbers that look random, and are the same every time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// Some derivations in a chain of needs, as a Nix expression: with several outputs, downloads,
/// sources, and some that say that they are never substituted.
fn expression(chance: &mut Chance, count: usize) -> String {
    let mut text = String::from("let\n");
    let mut outputs: Vec<Vec<&str>> = Vec::new();
    for number in 0..count {
        let of_this = if chance.below(3) == 0 { vec!["out", "dev"] } else { vec!["out"] };
        let mut inputs = String::new();
        for _ in 0..chance.below(5).min(number) {
            let input = number - 1 - chance.below(number.min(12));
            for output in &outputs[input] {
                if *output == "out" || chance.below(2) == 0 {
                    let _ = write!(inputs, " \"${{d{input}.{output}}}\"");
                }
            }
        }
        let kind = chance.below(8);
        let of_this = if kind == 0 { vec!["out"] } else { of_this };
        let extra = match kind {
            0 => format!(
                "outputHash = builtins.hashString \"sha256\" \"{number}\"; outputHashAlgo = \"sha256\"; \
                 outputHashMode = \"flat\"; url = \"http://host.invalid/{number}\"; "
            ),
            1 => "allowSubstitutes = false; ".to_owned(),
            _ => format!("src = builtins.toFile \"source-{number}\" \"{number}\"; "),
        };
        let names: Vec<String> = of_this.iter().map(|name| format!("\"{name}\"")).collect();
        let _ = writeln!(
            text,
            "d{number} = derivation {{ name = \"d{number}\"; system = \"x86_64-linux\"; \
             builder = \"/bin/sh\"; outputs = [ {} ]; inputs = [{inputs} ]; {extra}}};",
            names.join(" ")
        );
        outputs.push(of_this);
    }
    let all: Vec<String> = (count - 6..count).map(|number| format!("d{number}")).collect();
    let _ = write!(
        text,
        "in derivation {{ name = \"top\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; \
         inputs = [ {} ]; }}",
        all.join(" ")
    );
    text
}

/// A narinfo of something that is not there. No client gets as far as that.
fn narinfo(path: &str, references: &[String], size: usize) -> String {
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

fn narinfo_name(path: &str) -> String {
    let base = path.strip_prefix("/nix/store/").unwrap();
    format!("{}.narinfo", base.split_once('-').unwrap().0)
}

const CACHE_INFO: &str = "StoreDir: /nix/store\n";

/// What Nix says that it would do: what it builds, and what it fetches.
fn dry_run(machine: &Machine, derivation: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let dry = ["--realise", "--dry-run", derivation];
    let said = machine.command("nix-store").args(dry).succeed().stderr;
    let (mut built, mut fetched) = (BTreeSet::new(), BTreeSet::new());
    let mut list = None;
    for line in said.lines() {
        match line.trim() {
            path if path.starts_with("/nix/store/") => {
                let list: &mut BTreeSet<String> =
                    list.as_deref_mut().expect("it says what it lists");
                list.insert(path.to_owned());
            }
            words if words.contains("will be built") => list = Some(&mut built),
            words if words.contains("will be fetched") => list = Some(&mut fetched),
            words => panic!("nix-store says `{words}`"),
        }
    }
    (built, fetched)
}

#[test]
fn nix_would_build_and_fetch_the_same() {
    let Some(world) = World::open() else { return };
    let mut chance = Chance(7);
    let (mut builds, mut fetches) = (0, 0);
    for version in NixVersion::ALL {
        let machine = machine(&world, version);
        machine.configure("require-sigs = false");
        for round in 0..5 {
            let file = format!("/data/graph-{round}.nix");
            machine.write(&file, expression(&mut chance, 40));
            let top = machine.command("nix-instantiate").arg(&file).ok();
            let derivations =
                machine.command("nix-store").args(["--query", "--requisites", &top]).ok();
            let (derivations, sources): (Vec<&str>, Vec<&str>) =
                derivations.lines().partition(|path| path.ends_with(".drv"));
            let all =
                machine.command("nix-store").args(["--query", "--outputs"]).args(&derivations).ok();
            for share in [0, 40, 75, 95] {
                let cache = format!("/data/cache-{round}-{share}");
                machine.write(format!("{cache}/nix-cache-info"), CACHE_INFO);
                let mut present: Vec<String> = Vec::new();
                for path in all.lines() {
                    if chance.below(100) >= share {
                        continue;
                    }
                    let references: Vec<String> = (0..chance.below(4).min(present.len()))
                        .map(|_| present[chance.below(present.len())].clone())
                        .collect();
                    let text = narinfo(path, &references, 1000 + chance.below(100_000));
                    machine.write(format!("{cache}/{}", narinfo_name(path)), text);
                    present.push(path.to_owned());
                }
                let address = format!("file://{cache}");
                machine.configure(&format!("substituters = {address}"));
                let (built, fetched) = dry_run(&machine, &top);
                let told = missing(&machine, &[&top, "--in", &address]);
                let what = format!("Nix {version}, graph {round}, {share} %");
                assert_eq!(told.built.iter().cloned().collect::<BTreeSet<_>>(), built, "{what}");
                let substituted = told.paths.iter().filter(|path| path.substituted);
                let substituted: BTreeSet<String> =
                    substituted.map(|path| path.path.clone()).collect();
                assert_eq!(substituted, fetched, "{what}");
                // Sources are there for whoever has the derivations; no cache has them here.
                let lacking = told.paths.iter().filter(|path| path.state == "source");
                assert!(lacking.clone().all(|path| sources.contains(&path.path.as_str())));
                assert_eq!(told.nar_size, 2 * told.download_size);
                assert!(told.missing_facts.is_empty());
                builds += built.len();
                fetches += fetched.len();
            }
        }
    }
    assert!(builds > 100 && fetches > 100, "{builds} built, {fetches} fetched");
}

#[test]
fn what_the_store_here_has_counts_for_nothing() {
    let Some(world) = World::open() else { return };
    let built = Built::new(&world, NixVersion::V2_26);
    let machine = &built.machine;
    machine.write("/data/empty/nix-cache-info", CACHE_INFO);
    let told = missing(machine, &[&built.derivation, "--in", "/data/empty"]);
    let all = ["crossing-a-1.0", "crossing-b-1.0", "crossing-c-1.0", "crossing-multi-1.0"];
    assert_eq!(told.names("build"), [&all[..], &["crossing-multi-1.0-dev"]].concat());
    assert_eq!(told.names("fetch"), ["crossing-source-1.0.txt"]);
    let sources = ["builder.sh", "greeting.patch", "notes.txt", "src"];
    assert_eq!(told.names("source"), sources);
    assert_eq!((told.there, told.needed, told.coverage.paths), (0, 10, 0.0));
    assert_eq!((told.coverage.bytes, told.coverage.unknown_sizes), (0.0, 0));
    assert_eq!(told.built.len(), 5);
    let download = told.paths.iter().find(|path| path.state == "fetch").unwrap();
    let [url] = &download.urls.as_deref().unwrap()[..] else { panic!("there is one URL") };
    assert!(url.ends_with("/dist/crossing-source-1.0.txt"), "{url}");
    assert!(download.derivation.as_ref().unwrap().ends_with("-crossing-source-1.0.txt.drv"));

    // For people: a line for each path, and what it amounts to.
    let outcome = ferry(machine, ["missing", &built.derivation, "--in", "/data/empty"]).fails();
    assert_eq!((outcome.code(), outcome.text().lines().count()), (1, 10));
    assert!(outcome.text().contains(&format!("fetch      {} {url}", built.fod)));
    let nowhere = "10 paths nowhere: 5 to build, 1 to fetch, 4 sources";
    assert!(outcome.stderr.contains(nowhere), "{}", outcome.stderr);
}

#[test]
fn a_signature_counts_that_a_client_would_accept() {
    let Some(world) = World::open() else { return };
    let built = Built::new(&world, NixVersion::V2_34);
    let machine = &built.machine;
    let key = generate_key(machine, "harbour-1");
    ferry(machine, ["cache", "create", &built.top, "--to", "/data/cache"])
        .args(["--sign-key", &key.secret])
        .ok();
    let ask = [built.derivation.as_str(), "--in", "file:///data/cache"];
    let told = missing(machine, &ask);
    assert_eq!(told.there, 0);
    let top = told.paths.iter().find(|path| path.path == built.top).unwrap();
    let [unusable] = &top.unusable[..] else { panic!("it is in one cache") };
    assert!(unusable.untrusted && unusable.cache == ask[2], "{}", unusable.reason);
    assert!(unusable.reason.contains("harbour-1"), "{}", unusable.reason);
    let said = ferry(machine, ["missing"]).args(ask).fails().stderr;
    assert!(said.contains("without a signature that counts"), "{said}");

    let runtime = closure(machine, &built.top).len() as u64;
    for accepted in [vec!["--trusted-public-key", &key.public], vec!["--no-check-sigs"]] {
        let told = missing(machine, &[&ask[..], &accepted].concat());
        assert_eq!((told.missing, told.there, told.coverage.paths), (0, runtime, 100.0));
        assert!(told.built.is_empty() && told.nar_size > 0 && told.download_size > 0);
    }
    machine.configure(&format!("extra-trusted-public-keys = {}", key.public));
    let told = missing(machine, &ask);
    assert_eq!((told.missing, told.caches[0].requests), (0, runtime));
    let outcome = ferry(machine, ["missing"]).args(ask).succeed();
    assert_eq!(outcome.text(), "");
    assert!(outcome.stderr.contains("are there (100 %)"), "{}", outcome.stderr);
}

#[test]
fn what_is_elsewhere_is_fetched_and_what_is_lacking_listed() {
    let Some(world) = World::open() else { return };
    let built = Built::new(&world, NixVersion::V2_26);
    let machine = &built.machine;
    let (a, multi) = (built.output("crossing-a-1.0"), built.output("crossing-multi-1.0"));
    ferry(machine, ["cache", "create", &multi, "--to", "/data/ship"]).ok();
    ferry(machine, ["cache", "create", &a, "--to", "/data/harbour"]).ok();
    let ask = [
        built.derivation.as_str(),
        "--in",
        "file:///data/ship",
        "--in",
        "file:///data/harbour",
        "--no-check-sigs",
    ];
    let list = "/data/store-paths.xz";
    let told = missing(
        machine,
        &[&ask[..], &["--fetch-into", "file:///data/ship", "--add-to", list]].concat(),
    );
    assert_eq!(told.names("there"), ["crossing-multi-1.0"]);
    assert_eq!(told.names("elsewhere"), ["crossing-a-1.0"]);
    let lacking = ["crossing-b-1.0", "crossing-c-1.0", "crossing-multi-1.0-dev"];
    assert_eq!(told.names("build"), lacking);
    let fetched = told.fetched.unwrap();
    assert_eq!((fetched.added, fetched.present), (1, 1));
    assert!(fetched.nar_size > 0);
    // What is elsewhere, and what is nowhere: all that the ship lacks.
    assert_eq!(told.added_to_list, Some(told.missing + 1));
    assert_eq!(machine.read(list)[..6], *b"\xfd7zXZ\0");
    let caches = told.caches.iter().map(|cache| (cache.address.as_str(), cache.paths));
    assert_eq!(caches.collect::<Vec<_>>(), [(ask[2], 1), (ask[4], 1)]);
    assert!(told.caches.iter().all(|cache| cache.nar_size > 0));

    // Once it is there, there is nothing to add.
    let plain = ["--fetch-into", "/data/island", "--add-to", list];
    let again = missing(machine, &[&ask[..], &plain].concat());
    assert_eq!(again.names("there"), ["crossing-a-1.0", "crossing-multi-1.0"]);
    assert_eq!((again.added_to_list, again.fetched.unwrap().added), (Some(0), 2));
    let island =
        machine.command("nix").args(["path-info", "--store", "/data/island", "--all"]).ok();
    assert_eq!(island.lines().count(), 2);
}

#[test]
fn a_path_without_what_it_refers_to_is_there_and_no_use_alone() {
    let Some(world) = World::open() else { return };
    let built = Built::new(&world, NixVersion::V2_34);
    let machine = &built.machine;
    let (a, multi) = (built.output("crossing-a-1.0"), built.output("crossing-multi-1.0"));
    ferry(machine, ["cache", "create", &built.top, "--to", "/data/cache"]).ok();
    std::fs::remove_file(machine.path(format!("/data/cache/{}", narinfo_name(&multi)))).unwrap();
    let ask = [&*built.derivation, "--in", "/data/cache", "--no-check-sigs"];
    let told = missing(machine, &[&ask[..], &["--fetch-into", "/data/island"]].concat());
    let there = ["crossing-a-1.0", "crossing-b-1.0", "crossing-c-1.0"];
    assert_eq!(told.names("there"), there);
    assert_eq!(told.names("build"), ["crossing-multi-1.0"]);
    let [incomplete] = &told.incomplete[..] else { panic!("one path refers to what is gone") };
    assert_eq!((&incomplete.path, &incomplete.reference), (&a, &multi));
    // Everything else refers to that one.
    assert_eq!(told.fetched.unwrap().added, 0);

    // What is no narinfo is not there, and is told.
    machine.write(format!("/data/cache/{}", narinfo_name(&multi)), "<html>not here</html>\n");
    let told = missing(machine, &ask);
    let damaged = told.paths.iter().find(|path| path.path == multi).unwrap();
    assert_eq!((damaged.state.as_str(), damaged.unusable.len()), ("build", 1));
    assert!(!damaged.unusable[0].untrusted);
    let said = ferry(machine, ["missing"]).args(ask).fails().stderr;
    assert!(said.contains("not usable: ") && said.contains("<html>"), "{said}");
}

#[test]
fn sets_stores_and_bundles_are_asked_for_too() {
    let Some(world) = World::open() else { return };
    let built = Built::new(&world, NixVersion::V2_26);
    let machine = &built.machine;
    let recipe = ["pack", &built.derivation, "-o", "/data/recipe.ferry"];
    ferry(machine, recipe).ok();
    let of = |set: &str, place: &str| {
        missing(machine, &[&built.derivation, "--set", set, "--in", place, "--no-check-sigs"])
    };
    let told = of("recipe", "/data/recipe.ferry");
    assert_eq!((told.missing, told.coverage.bytes), (0, 100.0));
    // The download is in no recipe.
    let told = of("sources", "/data/recipe.ferry");
    assert_eq!(
        (told.missing, told.names("fetch")),
        (1, vec!["crossing-source-1.0.txt".to_owned()])
    );
    let told = of("build", "auto");
    assert_eq!(told.missing, 0);
    assert_eq!(told.there, all_valid(machine).len() as u64);

    // Of a derivation that is not there, nothing is known but its name.
    machine.write("/data/empty/nix-cache-info", CACHE_INFO);
    let told = of("recipe", "/data/empty");
    assert_eq!(told.names("derivation").len(), 5);
    let absent = "/nix/store/00000000000000000000000000000000-absent";
    let told = missing(machine, &[absent, "--in", "/data/empty"]);
    assert_eq!((told.names("unknown"), told.missing), (vec!["absent".to_owned()], 1));
}

/// Serves the narinfos of everything that was built, and says which those are.
fn serve(built: &Built, origin: &Origin) -> BTreeMap<String, String> {
    let machine = &built.machine;
    let all: Vec<String> =
        outputs(machine, &built.derivation).into_iter().map(|object| object.path).collect();
    ferry(machine, ["cache", "create", "--to", "/data/served"]).args(&all).ok();
    let names = all.into_iter().map(|path| (narinfo_name(&path), path));
    let names: BTreeMap<String, String> = names.collect();
    for name in names.keys().map(String::as_str).chain(["nix-cache-info"]) {
        origin.serve(&format!("/{name}"), machine.read(format!("/data/served/{name}")));
    }
    names
}

#[test]
fn no_path_is_asked_about_twice_and_trouble_is_waited_out() {
    let Some(world) = World::open() else { return };
    let built = Built::new(&world, NixVersion::V2_26);
    let machine = &built.machine;
    let origin = Origin::start();
    let served = serve(&built, &origin);
    let url = origin.url();
    let runtime: BTreeSet<String> =
        closure(machine, &built.top).into_iter().map(|object| object.path).collect();
    let ask = [&*built.derivation, "--in", &url, "--no-check-sigs"];
    let told = missing(machine, &ask);
    assert_eq!((told.missing, told.there), (0, runtime.len() as u64));
    assert!(told.requests_per_second > 0.0);
    // What is there is enough: nothing is asked that it is built from.
    let asked = || -> BTreeMap<&str, usize> {
        let count = |name: &String| origin.requests_for(&format!("/{name}"));
        served.iter().map(|(name, path)| (path.as_str(), count(name))).collect()
    };
    for (path, count) in asked() {
        assert_eq!(count, usize::from(runtime.contains(path)), "{path}");
    }

    // Servers in trouble get another chance; what is not there is asked about once.
    let top = format!("/{}", narinfo_name(&built.top));
    let wait = vec![("Retry-After", "0".to_owned())];
    origin.answer_next(&top, Answer::Status("503 Service Unavailable", wait.clone(), Vec::new()));
    origin.answer_next(&top, Answer::Status("429 Too Many Requests", wait, Vec::new()));
    let before = asked();
    let told = missing(machine, &ask);
    assert_eq!(told.missing, 0);
    assert_eq!(asked()[&*built.top], before[&*built.top] + 3);

    let empty = Origin::start();
    empty.serve("/nix-cache-info", CACHE_INFO);
    let told = missing(machine, &[&built.derivation, "--in", &empty.url()]);
    assert_eq!(told.there, 0);
    for path in &told.paths {
        assert_eq!(
            empty.requests_for(&format!("/{}", narinfo_name(&path.path))),
            1,
            "{}",
            path.path
        );
    }
    assert_eq!(empty.requests(), told.paths.len() + 1);
}

#[test]
fn answers_are_waited_for_together_in_every_cache() {
    let Some(world) = World::open() else { return };
    let built = Built::new(&world, NixVersion::V2_34);
    let machine = &built.machine;
    let origin = Origin::start();
    origin.serve("/nix-cache-info", CACHE_INFO);
    let url = origin.url();
    // What the set holds is known before anything is asked.
    let set = "let all = closure(build, x) in all - drvs(all)";
    let ask = [&*built.derivation, "--set", set, "--in", &url, "--no-check-sigs"];
    // The first request is for the cache's own file.
    origin.let_by(1);
    origin.hold_until(8);
    let told = missing(machine, &ask);
    assert!(told.missing >= 8 && origin.most_under_way() >= 8, "{}", origin.most_under_way());
    let one = [&ask[..], &["--option", "http-connections", "1"]].concat();
    let narrow = missing(machine, &one);
    assert_eq!(narrow.missing, told.missing);
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_asked() {
    let Some(world) = World::open() else { return };
    let built = Built::new(&world, NixVersion::V2_26);
    let machine = &built.machine;
    let top = &*built.derivation;
    machine.write("/data/empty/nix-cache-info", CACHE_INFO);
    machine.write("/data/bad.xz", "no list");
    for (args, code, said) in [
        (vec![top], 2, "--in"),
        (vec!["--in", "/data/empty"], 2, "nothing is named"),
        (vec![top, "--in", "file:///data"], 1, "it has no `nix-cache-info`"),
        (vec![top, "--in", "/data/empty", "--add-to", "/data/bad.xz"], 1, "/data/bad.xz"),
        (vec![top, "--in", "http://127.0.0.1:1"], 1, "127.0.0.1:1"),
    ] {
        let ask = ferry(machine, ["missing", "--option", "download-attempts", "1"]);
        let failed = ask.args(&args).online().fails();
        assert_eq!((failed.code(), failed.text()), (code, String::new()), "{args:?}");
        assert!(failed.stderr.contains(said), "{args:?}: {}", failed.stderr);
    }
    shell(machine, "test \"$(cat /data/bad.xz)\" = 'no list'").ok();
}
