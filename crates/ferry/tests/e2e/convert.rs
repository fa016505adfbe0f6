//! Bundles and export streams, made of each other, between ferry and each version of Nix.

use ferry_test_world::{Machine, NixVersion, World};

use crate::support::{
    Built, assert_store_is_whole, carry, closure, ferry, files, generate_key, machine, objects,
    on_each_built, pack_runtime, query, shell, sorted,
};

/// Has Nix export the closure of a path.
fn nix_export(machine: &Machine, path: &str, file: &str) {
    shell(machine, &format!("nix-store --export $(nix-store -qR {path}) >{file}")).ok();
}

fn convert(machine: &Machine, from: &str, to: &str) {
    ferry(machine, ["convert", from, "-o", to]).succeed();
}

#[test]
fn a_recipe_and_a_download_that_nix_exported_load_without_a_key() {
    on_each_built(|world, built| {
        let both = format!("{} {}", built.fod, built.derivation);
        nix_export(&built.machine, &both, "/data/x.export");
        convert(&built.machine, "x.export", "x.ferry");
        let island = machine(world, built.machine.version());
        carry(&built.machine, &island, "/data/x.ferry");
        let loaded = ferry(&island, ["load", "x.ferry"]).ok();
        let roots = sorted([built.fod.as_str(), &built.derivation]);
        assert_eq!(sorted(loaded.lines()), roots);
        let infos = island.command("nix").args(["path-info", "--json", &built.fod]).ok();
        assert!(infos.contains("fixed:"), "{infos}");
        assert_eq!(closure(&island, &built.fod), closure(&built.machine, &built.fod));
        assert_eq!(closure(&island, &built.derivation), closure(&built.machine, &built.derivation));
        assert_store_is_whole(&island);
    });
}

#[test]
fn a_program_that_nix_exported_loads_with_its_derivers() {
    on_each_built(|world, built| {
        nix_export(&built.machine, &built.top, "/data/x.export");
        let key = generate_key(&built.machine, "ship-1");
        ferry(&built.machine, ["convert", "x.export", "-o", "x.ferry"])
            .args(["--sign-key", &key.secret])
            .succeed();
        let island = machine(world, built.machine.version());
        carry(&built.machine, &island, "/data/x.ferry");
        ferry(&island, ["load", "x.ferry"]).fails();
        ferry(&island, ["load", "x.ferry", "--trusted-public-key", &key.public]).succeed();
        assert_eq!(closure(&island, &built.top), closure(&built.machine, &built.top));
        assert_eq!(query(&island, &["--deriver", &built.top]), [built.derivation.as_str()]);
        assert_store_is_whole(&island);
    });
}

#[test]
fn every_nix_imports_what_was_converted_and_builds_from_it() {
    on_each_built(|world, built| {
        let Built { machine: ship, derivation, top, .. } = built;
        ferry(ship, ["pack", derivation, "--set", "sources", "-o", "x.ferry"]).succeed();
        convert(ship, "x.ferry", "x.export");
        for version in NixVersion::ALL {
            let island = machine(world, version);
            carry(ship, &island, "/data/x.export");
            let imported = shell(&island, "nix-store --import <x.export").ok();
            let told = ferry(ship, ["ls", "x.ferry"]).ok();
            assert_eq!(sorted(imported.lines()), sorted(told.lines()));
            island.command("nix-store").args(["--realise", derivation]).succeed();
            let here = |machine| objects(machine, vec![top.clone()]);
            assert_eq!(here(&island), here(ship));
            assert_store_is_whole(&island);
        }
    });
}

#[test]
fn a_bundle_is_the_same_bytes_when_it_comes_back() {
    on_each_built(|_, built| {
        let Built { machine, derivation, top, .. } = built;
        ferry(machine, ["pack", derivation, "-o", "recipe.ferry"]).succeed();
        pack_runtime(machine, top, "runtime.ferry").succeed();
        for name in ["recipe", "runtime"] {
            convert(machine, &format!("{name}.ferry"), &format!("{name}.export"));
            convert(machine, &format!("{name}.export"), "again.ferry");
            let bytes = |file: &str| machine.read(format!("/data/{file}.ferry"));
            assert!(bytes(name) == bytes("again"), "{name}");
        }
    });
}

#[test]
fn a_bundle_becomes_a_cache_that_every_nix_substitutes_from_and_a_bundle_again() {
    on_each_built(|world, built| {
        let Built { machine: ship, top, .. } = built;
        let key = generate_key(ship, "ship-1");
        pack_runtime(ship, top, "x.ferry").args(["--sign-key", &key.secret]).succeed();
        let convert = ["convert", "x.ferry", "--to", "cache", "-o", "cache"];
        ferry(ship, convert).succeed();
        // What `ferry copy` makes, as it is the same operation.
        ferry(ship, ["copy", "--all", "--from", "x.ferry", "--to", "file:///data/copied"])
            .succeed();
        let in_cache = files(&ship.path("/data/cache"));
        assert!(in_cache == files(&ship.path("/data/copied")));
        // A second time there is nothing to do, and what there is to become shows.
        let again = ferry(ship, ["convert", "x.ferry", "-o", "cache", "--json"]).succeed();
        let told: serde_json::Value = serde_json::from_str(&again.text()).unwrap();
        assert_eq!((&told["toFormat"], &told["paths"]), (&"cache".into(), &0.into()));

        ferry(ship, ["convert", "cache", "-o", "again.ferry"])
            .args(["--sign-key", &key.secret])
            .succeed();
        assert!(ship.read("/data/x.ferry") == ship.read("/data/again.ferry"));

        let island = machine(world, ship.version());
        island.copy_in(ship.path("/data/cache"), "/data/cache");
        island.configure("substituters = file:///data/cache");
        island.configure(&format!("trusted-public-keys = {}", key.public));
        island.command("nix-store").args(["--realise", top]).ok();
        assert_eq!(closure(&island, top), closure(ship, top));
    });
}

#[test]
fn an_address_says_how_a_cache_is_written_and_a_cache_has_no_place_for_a_set() {
    let Some(world) = World::open() else { return };
    let built = Built::new(&world, NixVersion::V2_34);
    let Built { machine, top, .. } = &built;
    pack_runtime(machine, top, "x.ferry").succeed();
    let to = "file:///data/cache?compression=none";
    ferry(machine, ["convert", "x.ferry", "-o", to]).succeed();
    let plain = files(&machine.path("/data/cache"));
    assert!(plain.keys().any(|name| name.ends_with(".nar")), "{:?}", plain.keys());
    ferry(machine, ["convert", "file:///data/cache", "-o", "x.export"]).succeed();

    let set = ferry(machine, ["convert", "x.ferry", "-o", to, "--set", "runtime"]).fails();
    assert_eq!(set.code(), 2);
    assert!(set.stderr.contains("a binary cache has no place for --root and --set"));
    let stream = ferry(machine, ["convert", "x.ferry", "--to", "cache", "-o", "-"]).fails();
    assert_eq!(stream.code(), 2);
}

#[test]
fn a_stream_is_converted_through_pipes() {
    on_each_built(|_, built| {
        let Built { machine, derivation, .. } = built;
        let script = format!(
            "nix-store --export $(nix-store -qR {derivation}) |
             ferry convert - --to bundle -o - | ferry convert - --to export -o - |
             ferry convert - -o x.ferry
             ferry pack {derivation} -o y.ferry
             cmp x.ferry y.ferry"
        );
        shell(machine, &script).succeed();
    });
}

#[test]
fn what_is_lost_is_said() {
    let Some(world) = World::open() else { return };
    let built = Built::new(&world, NixVersion::V2_26);
    let Built { machine, top, .. } = &built;
    let key = generate_key(machine, "ship-1");
    pack_runtime(machine, top, "x.ferry").args(["--sign-key", &key.secret]).succeed();
    let outcome = ferry(machine, ["convert", "x.ferry", "-o", "x.export", "--json"]).succeed();
    assert!(outcome.stderr.contains("left out the signatures of"), "{}", outcome.stderr);
    let told: serde_json::Value = serde_json::from_str(&outcome.text()).unwrap();
    assert_eq!(told["lost"]["signaturesOfPaths"], told["paths"]);
    assert_eq!(told["toFormat"], "export");
}

#[test]
fn a_stream_that_is_cut_or_is_something_else_is_refused_and_leaves_nothing() {
    let Some(world) = World::open() else { return };
    let built = Built::new(&world, NixVersion::V2_34);
    let Built { machine, top, .. } = &built;
    nix_export(machine, top, "/data/x.export");
    let whole = machine.read("/data/x.export");
    let refused = |bytes: &[u8], reason: &str| {
        machine.write("/data/bad.export", bytes);
        let outcome = ferry(machine, ["convert", "bad.export", "-o", "bad.ferry"]).fails();
        assert_eq!(outcome.code(), 1, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(reason), "{}", outcome.stderr);
        assert!(!machine.path("/data/bad.ferry").exists());
    };
    refused(&whole[..whole.len() - 8], "it ends too early");
    refused(&whole[..whole.len() / 2], "unexpected end of archive");
    refused(&[&whole[..], &whole].concat(), "something follows its end");
    refused(b"no stream at all", "neither a bundle nor an export stream");
    let outcome = ferry(machine, ["convert", "x.export", "-o", "x.tar"]).fails();
    assert_eq!(outcome.code(), 2, "{}", outcome.stderr);
}

#[test]
fn derivations_become_files_and_a_bundle_again() {
    crate::support::on_each(|_, machine| {
        let file = machine.expression("mentions.nix");
        let above = machine.command("nix-instantiate").args([&file, "-A", "above"]).ok();
        ferry(&machine, ["pack", &above, "-o", "x.ferry"]).succeed();
        convert(&machine, "x.ferry", "drvs/");
        for path in query(&machine, &["--requisites", &above]) {
            let base = path.rsplit('/').next().unwrap();
            let [there, here] = [path.clone(), format!("/data/drvs/{base}")];
            assert!(machine.read(there) == machine.read(here), "{path}");
        }
        convert(&machine, "drvs", "y.ferry");
        shell(&machine, "cmp x.ferry y.ferry").succeed();
        // What is there already stays.
        convert(&machine, "x.ferry", "drvs/");

        let base = above.rsplit('/').next().unwrap();
        let text = machine.read(format!("/data/drvs/{base}"));
        machine.write(format!("/data/drvs/{base}"), [&text[..], b" "].concat());
        let outcome = ferry(&machine, ["convert", "drvs", "-o", "z.ferry"]).fails();
        assert_eq!(outcome.code(), 1, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(base), "{}", outcome.stderr);
        let outcome = ferry(&machine, ["convert", "x.ferry", "-o", "drvs/"]).fails();
        assert!(outcome.stderr.contains("another file of this name"), "{}", outcome.stderr);
    });
}

#[test]
fn sources_are_no_derivations_and_are_missed() {
    let Some(world) = World::open() else { return };
    let built = Built::new(&world, NixVersion::V2_34);
    let Built { machine, derivation, .. } = &built;
    ferry(machine, ["pack", derivation, "-o", "x.ferry"]).succeed();
    let outcome = ferry(machine, ["convert", "x.ferry", "-o", "drvs/"]).succeed();
    assert!(outcome.stderr.contains("that are no derivation"), "{}", outcome.stderr);
    let outcome = ferry(machine, ["convert", "drvs", "-o", "y.ferry"]).fails();
    assert!(outcome.stderr.contains("of the paths needed are not in"), "{}", outcome.stderr);
    let outcome = ferry(machine, ["convert", "drvs", "--to", "export", "-o", "y"]).fails();
    assert!(outcome.stderr.contains("crossing-src") || outcome.stderr.contains("-src"));
    let all = ferry(machine, ["convert", "/nix/store", "-o", "all/"]).succeed();
    assert!(all.stderr.contains("converted 5 paths"), "{}", all.stderr);
}
