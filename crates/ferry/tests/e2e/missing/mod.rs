//! What caches lack of what something needs.

mod as_nix;
mod told;

use std::collections::{BTreeMap, BTreeSet};

use ferry_test_world::{Answer, NixVersion, Origin, World};

use self::told::{CACHE_INFO, Told, missing, narinfo_name};
use crate::support::{Built, all_valid, carry, closure, ferry, generate_key, outputs, shell};

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
    let [url] = &download.urls.as_deref().unwrap() else { panic!("there is one URL") };
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
fn parts_of_a_set_are_asked_for_apart_and_together_they_are_all_of_it() {
    let Some(world) = World::open() else { return };
    let built = Built::new(&world, NixVersion::V2_26);
    let machine = &built.machine;
    ferry(machine, ["cache", "create", &built.top, "--to", "/data/cache"]).ok();
    let set = "closure(run, outputs(x))";
    let ask = [&*built.derivation, "--set", set, "--in", "/data/cache", "--no-check-sigs"];
    let parts = || {
        ["0/3", "1/3", "2/3"].map(|part| missing(machine, &[&ask[..], &["--shard", part]].concat()))
    };
    let states = |told: &Told| -> BTreeSet<(String, String)> {
        told.paths.iter().map(|path| (path.path.clone(), path.state.clone())).collect()
    };
    let together = |parts: &[Told]| parts.iter().flat_map(states).collect::<BTreeSet<_>>();

    // Nobody asks for what is another's.
    let (whole, apart) = (missing(machine, &[&ask[..], &["--all"]].concat()), parts());
    assert_eq!((whole.missing, apart.iter().map(|told| told.missing).sum()), (0, 0));
    assert!(apart.iter().filter(|told| told.there > 0).count() > 1);
    let requests = |told: &Told| told.caches[0].requests;
    assert_eq!(apart.iter().map(requests).sum::<u64>(), requests(&whole));
    // The inputs of what is to be built are asked for as well, wherever they belong.
    let multi = built.output("crossing-multi-1.0");
    std::fs::remove_file(machine.path(format!("/data/cache/{}", narinfo_name(&multi)))).unwrap();
    let whole = missing(machine, &ask);
    assert!(!whole.names("build").is_empty() && !whole.names("source").is_empty());
    assert_eq!(together(&parts()), states(&whole));
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

    // Nor is it on the other side, where derivations are all that there is.
    let island = crate::support::machine(&world, NixVersion::V2_26);
    carry(machine, &island, "/data/recipe.ferry");
    ferry(&island, ["load", "/data/recipe.ferry"]).ok();
    let ask = [&*built.derivation, "--in", "/data/recipe.ferry", "--no-check-sigs"];
    for set in ["sources", "runtime", "build"] {
        let told = missing(&island, &[&ask[..], &["--set", set]].concat());
        assert_eq!(told.names("fetch"), ["crossing-source-1.0.txt"], "{set}");
        assert_eq!(told.names("build").is_empty(), set == "sources", "{set}");
        assert!(told.names("source").is_empty() && told.missing_facts.is_empty(), "{set}");
    }

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
