//! `nix/`: binary caches and bundles made inside real Nix builds, the flake, and the overlay.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ferry_test_world::{Machine, MachineCommand, NixVersion, World, crossing};

use crate::support::{
    Built, NOBODY, all_valid, carry, closure, ferry, files, generate_key, machine, on_each,
    on_each_built, query, shell,
};

/// Makes caches; `nix/` is in /data/ferry, the program in /opt.
const CACHES: &str = r#"
{ top, ... }@arguments:
let
  ferry = import /data/ferry/nix { ferry = "/opt"; };
  path = builtins.storePath top;
  alone = builtins.toFile "alone" "refers to nothing\n";
in
ferry.mkBinaryCache ({ rootPaths = [ path alone ]; } // removeAttrs arguments [ "top" ])
"#;

/// Makes bundles of the small graph.
const BUNDLES: &str = r#"
{ set, origin, fodHash }:
let
  ferry = import /data/ferry/nix { ferry = "/opt"; };
  graph = import /data/nix/crossing.nix { inherit origin fodHash; };
in
ferry.mkBundle { name = "crossing"; rootPaths = [ graph.c ]; inherit set; }
"#;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Puts what Nix reads of this repository onto a machine.
fn copy_expressions(machine: &Machine) {
    fs::create_dir_all(machine.path("/data/ferry")).unwrap();
    for name in ["nix", "flake.nix", "Cargo.toml", "Cargo.lock"] {
        machine.copy_in(repository().join(name), format!("/data/ferry/{name}"));
    }
}

/// The build of a cache with these arguments, given as Nix has them.
fn build_cache(machine: &Machine, top: &str, arguments: &str) -> MachineCommand {
    machine.write("/data/build/caches.nix", CACHES);
    let expression = format!("import /data/build/caches.nix {{ top = \"{top}\"; {arguments} }}");
    machine.command("nix-build").args(["--no-out-link", "-E", &expression])
}

/// What is in a cache, but for who built what, which no build is told.
fn without_derivers(machine: &Machine, directory: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = files(&machine.path(directory));
    for (name, bytes) in &mut files {
        if name.ends_with(".narinfo") {
            let text = String::from_utf8_lossy(bytes);
            let lines = text.lines().filter(|line| !line.starts_with("Deriver: "));
            *bytes = lines.map(|line| format!("{line}\n")).collect::<String>().into_bytes();
        }
    }
    files
}

/// The narinfo of the path with this name.
fn narinfo(machine: &Machine, cache: &str, name: &str) -> String {
    let found = files(&machine.path(cache));
    let infos = found.iter().filter(|(file, _)| file.ends_with(".narinfo"));
    let mut texts = infos.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned());
    let end = format!("-{name}");
    let text = texts.find(|text| text.lines().next().unwrap().ends_with(&end));
    text.unwrap_or_else(|| panic!("there is no narinfo of {name}"))
}

#[test]
fn a_cache_from_inside_a_build_is_the_one_from_outside() {
    on_each_built(|world, sender| {
        let machine = &sender.machine;
        let version = machine.version();
        copy_expressions(machine);
        for (compression, more) in [
            ("none", ""),
            ("xz", "compressionLevel = 1;"),
            ("zstd", "writeNarListing = true; priority = 30; wantMassQuery = true;"),
            ("gzip", ""),
            ("bzip2", ""),
        ] {
            let arguments = format!("compression = \"{compression}\"; {more}");
            let made = build_cache(machine, &sender.top, &arguments).ok();
            // Nix builds it again and compares.
            build_cache(machine, &sender.top, &arguments).arg("--check").ok();

            let single = narinfo(machine, &made, "alone");
            assert!(single.contains("\nReferences: \n"), "{single}");
            assert!(single.contains("\nCA: text:sha256:"), "{single}");
            let single = single.lines().next().unwrap().trim_start_matches("StorePath: ");

            let outside = format!("/data/{compression}");
            let create = ["cache", "create", &sender.top, single, "--to", &outside];
            let create = ferry(machine, create).args(["--compression", compression]);
            match compression {
                "xz" => create.args(["--compression-level", "1"]).ok(),
                "zstd" => {
                    let options = ["--write-nar-listing", "--priority", "30", "--want-mass-query"];
                    create.args(options).ok()
                }
                _ => create.ok(),
            };
            assert!(
                without_derivers(machine, &made) == without_derivers(machine, &outside),
                "Nix {version}, {compression}"
            );
            // Before 2.18, Nix cannot be told that what a file names is not needed.
            if version != NixVersion::V2_8 {
                assert_eq!(query(machine, &["--requisites", &made]), [made], "Nix {version}");
            }
        }

        let made = build_cache(machine, &sender.top, "").ok();
        let receiver = crate::support::machine(world, version);
        receiver.copy_in(machine.path(&made), "/data/cache");
        receiver.configure("substituters = file:///data/cache");
        receiver.configure("require-sigs = false");
        receiver.command("nix-store").args(["--realise", &sender.top]).ok();
        assert_eq!(all_valid(&receiver), closure(machine, &sender.top), "Nix {version}");
    });
}

#[test]
fn whoever_may_only_read_a_cache_substitutes_from_it() {
    on_each_built(|_, sender| {
        let machine = &sender.machine;
        copy_expressions(machine);
        let made = build_cache(machine, &sender.top, "").ok();
        let closure_in = |cache: &str| {
            let store = format!("file://{cache}");
            machine
                .command("nix")
                .args(["path-info", "--store", &store, "--recursive", &sender.top])
                .user(NOBODY)
        };
        let found = closure_in(&made).ok();
        assert_eq!(found.lines().count(), closure(machine, &sender.top).len());
        // Nix makes the directories that it misses, and gives up where it may not.
        shell(
            machine,
            &format!("cp -r {made} /data/bare; chmod u+w /data/bare; rmdir /data/bare/log"),
        )
        .ok();
        assert!(closure_in("/data/bare").fails().stderr.contains("/data/bare/log"));
    });
}

#[test]
fn a_cache_is_signed_with_a_key_that_is_outside_of_the_store() {
    on_each_built(|_, sender| {
        let machine = &sender.machine;
        copy_expressions(machine);
        let key = generate_key(machine, "harbour-1");
        let signing = format!("signing = [ \"{}\" ];", key.secret);
        let made = build_cache(machine, &sender.top, &signing).ok();
        let from = format!("file://{made}");
        let out = ["copy", "--all", "--from", &from, "--to", "/data/chroot"];
        ferry(machine, out).args(["--trusted-public-key", &key.public]).ok();

        // As a path it would be copied to where everybody can read it.
        for key in [key.secret.clone(), format!("\"{made}/key\""), "\"key\"".to_owned()] {
            let refused =
                build_cache(machine, &sender.top, &format!("signing = [ {key} ];")).fails();
            assert!(refused.stderr.contains("signing: name a file by"), "{}", refused.stderr);
        }
        let refused = build_cache(machine, &sender.top, "compression = \"zip\";").fails();
        assert!(refused.stderr.contains("compression: `zip` is none of none, xz"));
    });
}

#[test]
fn a_cache_of_a_store_with_another_directory_is_made_inside_a_build() {
    on_each(|_, machine| {
        copy_expressions(&machine);
        machine.write("/data/file", "somewhere else\n");
        let set = |command: MachineCommand| {
            command.env("NIX_STORE_DIR", "/data/store").env("NIX_STATE_DIR", "/data/state")
        };
        let top = set(machine.command("nix-store")).args(["--add", "/data/file"]).ok();
        let made = set(build_cache(&machine, &top, "")).ok();
        let info = String::from_utf8(machine.read(format!("{made}/nix-cache-info"))).unwrap();
        assert!(info.contains("StoreDir: /data/store\n"), "{info}");
    });
}

#[test]
fn bundles_from_inside_builds_load_and_rebuild_on_the_other_side() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let sender = machine(&world, version);
        copy_expressions(&sender);
        sender.write("/data/build/bundles.nix", BUNDLES);
        let mut origin = crossing::origin();
        let url = origin.url();
        let derivation = crossing::command(&sender, "nix-instantiate", "c", &url).ok();
        let build = |set: &str| {
            sender
                .command("nix-build")
                .args(["--no-out-link", "/data/build/bundles.nix", "--argstr", "set", set])
                .args(["--argstr", "origin", &url])
                .args(["--argstr", "fodHash", crossing::DOWNLOAD_HASH])
        };
        // Nix builds first what is in the bundle.
        let recipe = build("recipe").online().ok();
        origin.stop();
        build("recipe").arg("--check").ok();
        let top = query(&sender, &["--outputs", &derivation]).concat();

        // Nothing that this carries has a deriver.
        ferry(&sender, ["pack", &derivation, "--set", "recipe", "-o", "/data/outside.ferry"]).ok();
        assert!(sender.read(&recipe) == sender.read("/data/outside.ferry"), "Nix {version}");

        for set in ["runtime", "sources", "build"] {
            let made = build(set).ok();
            let receiver = machine(&world, version);
            carry(&sender, &receiver, &made);
            ferry(&receiver, ["verify", &made]).ok();
            let loaded = match set {
                // Sources and derivations are content-addressed: they need no signature.
                "sources" => ferry(&receiver, ["load", &made]).ok(),
                _ => ferry(&receiver, ["load", &made, "--no-check-sigs"]).ok(),
            };
            let all = all_valid(&receiver);
            if set == "runtime" {
                assert_eq!((&*loaded, all), (&*top, closure(&sender, &top)), "Nix {version}");
                continue;
            }
            assert!(loaded.contains(&derivation), "{loaded}");
            let built = receiver.command("nix-store").args(["--realise", &derivation]).ok();
            assert_eq!(built, top, "Nix {version}, {set}");
            if set == "build" {
                assert_eq!(all, all_valid(&receiver), "Nix {version}: something was built");
            }
            assert_eq!(closure(&receiver, &top), closure(&sender, &top));
        }
        if version != NixVersion::V2_8 {
            assert_eq!(query(&sender, &["--references", &recipe]), Vec::<String>::new());
        }
    }
}

#[test]
fn a_bundle_is_packed_from_what_closure_info_wrote() {
    let Some(world) = World::open() else { return };
    let sender = Built::new(&world, NixVersion::V2_26);
    let machine = &sender.machine;
    // What `nix-store --dump-db` prints has the form of `closureInfo`, and derivers besides.
    shell(
        machine,
        &format!("nix-store --dump-db $(nix-store -qR {}) >/data/registration", sender.top),
    )
    .ok();
    let pack = |file: &str, more: &[&str]| {
        let pack = ["pack", &*sender.top, "--set", "runtime", "-o", file];
        ferry(machine, pack).args(more).ok()
    };
    pack("/data/listed.ferry", &["--references-graph", "/data/registration"]);
    pack("/data/asked.ferry", &[]);
    assert!(machine.read("/data/listed.ferry") == machine.read("/data/asked.ferry"));

    let listed = ["--references-graph", "/data/registration", "--base", "/data/asked.ferry"];
    let refused = ferry(machine, ["pack", &sender.top, "-o", "/data/x.ferry"]).args(listed).fails();
    assert_eq!(refused.code(), 2, "{}", refused.stderr);
}

/// As much of nixpkgs as the flake wants. The package is the program that is there.
const NIXPKGS: &str = r#"
{
  outputs = _: {
    legacyPackages = builtins.listToAttrs (map (system: {
      name = system;
      value = import ./packages.nix system;
    }) [ "x86_64-linux" "aarch64-linux" ]);
  };
}
"#;
const PACKAGES: &str = r#"
system:
let
  run = name: script: derivation {
    inherit name system;
    builder = "/bin/bash-static";
    # Nix kills what has closed its output, as `cp` does before it ends: let the shell end last.
    args = [ "-euc" "${script}\n:" ];
    PATH = "/usr/bin:/bin:/opt/bin";
  };
  pkgs = {
    callPackage = file: _:
      let package = import file; in
      package (builtins.intersectAttrs (builtins.functionArgs package) pkgs);
    lib = {
      fileset = { toSource = { root, fileset }: root; unions = files: files; };
      optionalString = wanted: text: if wanted then text else "";
      licenses = { asl20 = "Apache-2.0"; mit = "MIT"; };
      platforms.linux = [ "x86_64-linux" "aarch64-linux" ];
    };
    stdenv.buildPlatform.canExecute = _: true;
    stdenv.hostPlatform = { inherit system; };
    installShellFiles = run "install-shell-files" "mkdir $out";
    rustPlatform.buildRustPackage = arguments:
      assert builtins.pathExists arguments.cargoLock.lockFile;
      run "${arguments.pname}-${arguments.version}" "mkdir -p $out/bin; cp /opt/bin/ferry $out/bin/"
      // { inherit (arguments) meta passthru; } // arguments.passthru;
    hello = run "hello-1.0" "mkdir -p $out/bin; echo hello >$out/bin/hello";
    runCommand = name: _: run name;
  };
in
pkgs
"#;

/// A flake that takes the functions from ours, by both ways.
const USER: &str = r#"
{
  inputs.nixpkgs.url = "path:/data/nixpkgs";
  inputs.ferry.url = "path:/data/ferry";
  inputs.ferry.inputs.nixpkgs.follows = "nixpkgs";
  outputs = { self, nixpkgs, ferry }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
      overlaid = pkgs // ferry.overlays.default overlaid pkgs;
      rootPaths = [ pkgs.hello ];
    in {
      packages.${system} = {
        cache = ferry.lib.mkBinaryCache { inherit system rootPaths; };
        default = overlaid.nix-ferry.mkBinaryCache { inherit rootPaths; };
        bundle = ferry.lib.mkBundle { inherit system rootPaths; };
      };
      reads = map (functions: map toString (functions.getBuildClosure pkgs.hello)) [
        ferry.lib overlaid.nix-ferry
      ];
    };
}
"#;

fn nix(machine: &Machine, args: &[&str]) -> MachineCommand {
    let flakes = ["--extra-experimental-features", "nix-command flakes", "--no-write-lock-file"];
    machine.command("nix").args(args).args(flakes)
}

fn with_nixpkgs(machine: &Machine) {
    copy_expressions(machine);
    machine.write("/data/nixpkgs/flake.nix", NIXPKGS);
    machine.write("/data/nixpkgs/packages.nix", PACKAGES);
    machine.write("/data/nixpkgs/default.nix", "{ system }: import ./packages.nix system");
}

#[test]
fn the_flake_shows_what_it_has_and_its_checks_pass() {
    on_each(|_, machine| {
        let version = machine.version();
        with_nixpkgs(&machine);
        let flake = |args: &[&str]| {
            let stub = ["path:/data/ferry", "--override-input", "nixpkgs", "path:/data/nixpkgs"];
            nix(&machine, args).args(stub)
        };
        let shown = flake(&["flake", "show"]).ok();
        for part in ["nix-ferry-0.1.0", "overlays", "lib", "crossing"] {
            assert!(shown.contains(part), "Nix {version}: {part} is not in {shown}");
        }
        // Evaluates everything, and builds the checks of this system.
        flake(&["flake", "check"]).ok();
    });
}

#[test]
fn a_flake_gets_the_functions_from_the_flake_and_from_the_overlay() {
    on_each(|_, machine| {
        with_nixpkgs(&machine);
        machine.write("/data/user/flake.nix", USER);
        let path = |name: &str| {
            let attribute = format!("path:/data/user#packages.x86_64-linux.{name}.outPath");
            nix(&machine, &["eval", "--raw", &attribute]).ok()
        };
        assert_eq!(path("cache"), path("default"));
        let reads = nix(&machine, &["eval", "--json", "path:/data/user#reads"]).ok();
        assert_eq!(reads.matches("-hello-1.0\"").count(), 2, "{reads}");
        // And without flakes, from the nixpkgs that is there.
        let plain = "let pkgs = import <nixpkgs> { system = builtins.currentSystem; }; in \
                     (import /data/ferry/nix { }).mkBinaryCache { rootPaths = [ pkgs.hello ]; }";
        let build = ["--no-out-link", "-I", "nixpkgs=/data/nixpkgs", "-E", plain];
        let made = machine.command("nix-build").args(build).ok();
        assert!(!narinfo(&machine, &made, "hello-1.0").is_empty());
        nix(&machine, &["build", "--no-link", "path:/data/user", "path:/data/user#bundle"]).ok();
        ferry(&machine, ["verify", &path("bundle")]).ok();
        assert!(!narinfo(&machine, &path("cache"), "hello-1.0").is_empty());
    });
}

#[test]
fn every_version_of_nix_parses_every_file() {
    on_each(|_, machine| {
        copy_expressions(&machine);
        let found = shell(&machine, "ls /data/ferry/nix/*.nix /data/ferry/flake.nix").ok();
        let found: Vec<&str> = found.lines().collect();
        assert!(found.len() >= 6, "{found:?}");
        machine.command("nix-instantiate").arg("--parse").args(&found).ok();
    });
}
