//! Thin bundles: what the other side has is left out, and it has to have it.

use ferry_test_world::{Machine, NixVersion, World, crossing};
use serde_json::Value;

use crate::support::{
    NOBODY, Object, all_valid, assert_store_is_whole, carry, ferry, invalid, machine, next_command,
    objects, outputs, query, shell, sorted,
};

const FIRST: &str = "/tmp/first.ferry";
const SECOND: &str = "/tmp/second.ferry";
/// What the island has, a line each.
const LIST: &str = "/tmp/island.txt";

/// A machine on which a recipe has changed.
struct Changed {
    machine: Machine,
    first: String,
    second: String,
    /// The output of the download, which both use.
    fod: String,
    /// Everything that both recipes are made of.
    before: Vec<String>,
    after: Vec<String>,
}

impl Changed {
    fn new(world: &World, version: NixVersion) -> Self {
        let machine = machine(world, version);
        let mut origin = crossing::origin();
        let url = origin.url();
        let run = |program: &str, attribute: &str| {
            crossing::command(&machine, program, attribute, &url).online()
        };
        let fod = run("nix-build", "fod").arg("--no-out-link").ok();
        let top = |program: &str| run(program, "c").ok();
        let built = run("nix-build", "c").arg("--no-out-link").ok();
        let first = query(&machine, &["--deriver", &built]).concat();
        machine.write("/data/nix/crossing/notes.txt", "other notes\n");
        let second = top("nix-instantiate");
        run("nix-build", "c").arg("--no-out-link").ok();
        origin.stop();
        assert_ne!(first, second);
        let requisites = |path: &str| query(&machine, &["--requisites", path]);
        let (before, after) = (requisites(&first), requisites(&second));
        Self { first, second, fod, before, after, machine }
    }

    /// What the second recipe has and the first has not: three derivations, and a source.
    fn new_paths(&self) -> Vec<String> {
        let new = self.after.iter().filter(|path| !self.before.contains(path));
        let new: Vec<String> = new.cloned().collect();
        assert_eq!(new.iter().filter(|path| path.ends_with(".drv")).count(), 3, "{new:?}");
        assert_eq!(new.len(), 4, "{new:?}");
        new
    }

    fn pack_first(&self) {
        let pack = ["pack", &self.first, "--also", &self.fod, "-o", FIRST];
        ferry(&self.machine, pack).ok();
    }

    /// Packs the second recipe without what `have` has.
    fn pack_second(&self, have: &[&str]) -> Vec<u8> {
        let pack = ["pack", &self.second, "--also", &self.fod, "-o", SECOND];
        let have = have.iter().flat_map(|place| ["--have", place]);
        ferry(&self.machine, pack).args(have).ok();
        self.machine.read(SECOND)
    }

    fn pack_thin(&self) {
        self.machine.write(LIST, format!("{}\n{}\n", self.before.join("\n"), self.fod));
        self.pack_second(&[LIST]);
    }

    /// A machine that has the first recipe.
    fn island(&self, world: &World, version: NixVersion) -> Machine {
        let island = machine(world, version);
        carry(&self.machine, &island, FIRST);
        ferry(&island, ["load", FIRST, "--to", "local"]).ok();
        island
    }
}

/// What `ferry info` calls prerequisites.
fn prerequisites(machine: &Machine) -> Vec<String> {
    let told = ferry(machine, ["info", SECOND]).ok();
    sorted(told.lines().filter_map(|line| line.strip_prefix("prerequisite:    ")))
}

fn json(text: &[u8]) -> Value {
    serde_json::from_slice(text).expect("ferry prints JSON")
}

#[test]
fn only_what_changed_crosses_and_is_built_there() {
    let Some(world) = World::open() else { return };
    for from in NixVersion::ALL {
        let sender = Changed::new(&world, from);
        sender.pack_first();
        let second = outputs(&sender.machine, &sender.second);
        for to in NixVersion::ALL {
            let pair = format!("{from} to {to}");
            let island = sender.island(&world, to);
            // What the island says that it has.
            let listed = island.command("nix").args(["path-info", "--all"]).ok();
            assert_eq!(listed.lines().count(), sender.before.len() + 1, "{pair}");
            sender.machine.write(LIST, &listed);
            let pack = ["pack", &sender.second, "--also", &sender.fod, "--have", LIST];
            let packed = ferry(&sender.machine, pack).args(["-o", SECOND]).succeed();
            let left = sender.after.len() + 1 - 4;
            let told = format!("ferry: left out {left} paths, ");
            assert!(packed.stderr.contains(&told), "{pair}: {}", packed.stderr);

            carry(&sender.machine, &island, SECOND);
            let carried = ferry(&island, ["ls", SECOND]).ok();
            assert_eq!(sorted(carried.lines()), sender.new_paths(), "{pair}");
            let missing = ferry(&island, ["verify", SECOND]).succeed().stderr;
            assert!(missing.contains("--against STORE looks for them"), "{pair}: {missing}");
            ferry(&island, ["verify", SECOND, "--against", "local"]).ok();

            let build =
                next_command(&ferry(&island, ["load", SECOND, "--to", "local"]).succeed().stderr);
            assert_store_is_whole(&island);
            shell(&island, &build).ok();
            assert_eq!(outputs(&island, &sender.second), second, "{pair}");
            // Everything is kept, what was left out too.
            island.command("nix-store").arg("--gc").ok();
            let kept = [&sender.after[..], std::slice::from_ref(&sender.fod)].concat();
            assert_eq!(invalid(&island, &kept), [""; 0], "{pair}");
        }
    }
}

#[test]
fn a_store_without_the_prerequisites_is_told_all_of_them_and_gets_nothing() {
    let Some(world) = World::open() else { return };
    let sender = Changed::new(&world, NixVersion::V2_26);
    sender.pack_thin();
    let wanted = prerequisites(&sender.machine);
    // What the new derivations refer to; the download's output and nothing below it.
    assert!(wanted.contains(&sender.fod) && wanted.len() > 3, "{wanted:?}");
    for version in NixVersion::ALL {
        let reef = machine(&world, version);
        // A store that Nix has made, with something else in it.
        reef.write("/data/else", "something else\n");
        reef.command("nix-store").args(["--add", "/data/else"]).ok();
        let before = all_valid(&reef);
        // Nix's own daemon makes a directory for each user who asks it something.
        let find = "find /nix/store /nix/var/nix/gcroots -not -path '*/per-user/*' | sort";
        let listing = || shell(&reef, find).ok();
        let seen = listing();
        carry(&sender.machine, &reef, SECOND);
        let daemon = reef.daemon();
        let attempts: [(&[&str], u32); 4] = [
            (&["verify", SECOND, "--against", "local"], 0),
            (&["load", SECOND, "--to", "local"], 0),
            (&["verify", SECOND, "--against", "daemon"], NOBODY),
            (&["load", SECOND, "--to", "daemon"], NOBODY),
        ];
        for (args, user) in attempts {
            let failed = ferry(&reef, args).user(user).fails();
            let named = failed.stderr.lines().filter_map(|line| line.strip_prefix("  "));
            assert_eq!(sorted(named), wanted, "Nix {version}: {args:?}: {}", failed.stderr);
            assert!(failed.stderr.contains("load the bundle that holds them first"));
            assert_eq!(failed.status.code(), Some(1));
            let failed = ferry(&reef, args).arg("--json").user(user).fails();
            let named = json(&failed.stdout)["missingPrerequisites"].clone();
            assert_eq!(named, Value::from(wanted.clone()), "Nix {version}: {args:?}");
        }
        drop(daemon);
        assert_eq!(all_valid(&reef), before, "Nix {version}");
        assert_eq!(listing(), seen, "Nix {version}");
        // Nor where no store is yet.
        let failed = ferry(&reef, ["load", SECOND, "--to", "/data/atoll"]).fails();
        assert!(wanted.iter().all(|path| failed.stderr.contains(path)), "{}", failed.stderr);
        assert!(!reef.path("/data/atoll").exists());
    }
}

#[test]
fn what_was_claimed_and_is_not_there_is_named() {
    let Some(world) = World::open() else { return };
    let sender = Changed::new(&world, NixVersion::V2_34);
    sender.pack_first();
    let notes = sender.new_paths().into_iter().find(|path| path.ends_with("-notes.txt"));
    let notes = notes.expect("the source that has changed");
    let claimed = format!("{}\n{}\n{notes}\n", sender.before.join("\n"), sender.fod);
    for version in NixVersion::ALL {
        sender.machine.write(LIST, &claimed);
        sender.pack_second(&[LIST]);
        let island = sender.island(&world, version);
        let before = all_valid(&island);
        carry(&sender.machine, &island, SECOND);
        for args in [["verify", SECOND, "--against", "local"], ["load", SECOND, "--to", "local"]] {
            let failed = ferry(&island, args).fails();
            let named: Vec<&str> =
                failed.stderr.lines().filter_map(|line| line.strip_prefix("  ")).collect();
            assert_eq!(named, [notes.as_str()], "Nix {version}: {}", failed.stderr);
        }
        assert_eq!(all_valid(&island), before, "Nix {version}");
        // With it, all is well.
        sender.pack_thin();
        carry(&sender.machine, &island, SECOND);
        ferry(&island, ["load", SECOND, "--to", "local"]).ok();
        assert_eq!(invalid(&island, &sender.after), [""; 0], "Nix {version}");
    }
}

#[test]
fn what_is_there_is_told_by_a_list_a_bundle_a_pipe_or_a_store() {
    let Some(world) = World::open() else { return };
    let sender = Changed::new(&world, NixVersion::V2_26);
    let Changed { machine: from, second, fod, .. } = &sender;
    sender.pack_first();
    ferry(from, ["load", FIRST, "--to", "/data/island"]).ok();
    sender.pack_thin();
    let thin = from.read(SECOND);
    assert!(sender.pack_second(&[FIRST]) == thin, "by a bundle");
    assert!(sender.pack_second(&["/data/island"]) == thin, "by a store");
    let pack = ["pack", second, "--also", fod, "--have", "-", "-o", SECOND];
    ferry(from, pack).stdin(from.read(LIST)).ok();
    assert!(from.read(SECOND) == thin, "by standard input");
    let pack = format!("ferry pack {second} --also {fod} --have <(cat {LIST}) -o {SECOND}");
    shell(from, &pack).ok();
    assert!(from.read(SECOND) == thin, "by a pipe");
    // Each of several adds to what is there.
    let half = sender.before.len() / 2;
    from.write("/tmp/one.txt", sender.before[..half].join("\n"));
    from.write("/tmp/two.txt", format!("{}\n{fod}\n", sender.before[half..].join("\n")));
    assert!(sender.pack_second(&["/tmp/one.txt", "/tmp/two.txt"]) == thin, "by two lists");
    // What has loaded the thin one has all of it, and gets nothing more.
    from.write("/tmp/there.ferry", &thin);
    assert!(sender.pack_second(&["/tmp/there.ferry"]) != thin);
    ferry(from, ["load", SECOND, "--to", "/data/island"]).fails();
    from.write(SECOND, &thin);
    ferry(from, ["load", SECOND, "--to", "/data/island"]).ok();
    sender.pack_second(&["/data/island"]);
    assert_eq!(ferry(from, ["ls", SECOND]).ok(), "");
    ferry(from, ["load", SECOND, "--to", "/data/island"]).ok();
    // What a cache has, the other side has not.
    let cache = ["pack", second, "--have", "file:///data/cache", "-o", SECOND];
    let failed = ferry(from, cache).fails();
    assert_eq!(failed.status.code(), Some(2), "{}", failed.stderr);
}

#[test]
fn a_thin_runtime_crosses_through_daemons() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let sender = Changed::new(&world, version);
        let from = &sender.machine;
        let top = |derivation: &str| query(from, &["--outputs", derivation]).concat();
        let (first, second) = (top(&sender.first), top(&sender.second));
        let island = machine(&world, version);
        island.configure("require-sigs = false");
        ferry(from, ["pack", &first, "--set", "runtime", "-o", FIRST]).ok();
        let thin = ["pack", &second, "--set", "runtime", "--have", FIRST, "-o", SECOND];
        ferry(from, thin).ok();
        carry(from, &island, FIRST);
        carry(from, &island, SECOND);
        let _daemon = island.daemon();
        ferry(&island, ["load", FIRST, "--to", "daemon"]).ok();
        let before = all_valid(&island);
        ferry(&island, ["load", SECOND, "--to", "daemon"]).ok();
        let run = format!("{second}/bin/hello");
        assert_eq!(island.command(&run).ok(), from.command(&run).ok());
        let loaded = query(&island, &["--requisites", &second]);
        assert_eq!(
            objects(&island, loaded),
            objects(from, query(from, &["--requisites", &second]))
        );
        let after = all_valid(&island);
        assert!(before.iter().all(|object: &Object| after.contains(object)), "Nix {version}");
    }
}

#[test]
fn the_questions_about_a_thin_bundle_are_answered_or_say_what_is_missing() {
    let Some(world) = World::open() else { return };
    let sender = Changed::new(&world, NixVersion::V2_34);
    let from = &sender.machine;
    sender.pack_thin();
    let told = ferry(from, ["info", SECOND, "--json"]).succeed().stdout;
    let told = json(&told);
    let named: Vec<String> = prerequisites(from);
    let mut in_json: Vec<&str> =
        told["prerequisites"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    in_json.sort_unstable();
    assert_eq!(in_json, named);
    assert_eq!(told["paths"], 4);
    // The file of a path that was left out is looked for where it is.
    let failed = ferry(from, ["ls", SECOND, &named[0]]).fails();
    assert!(failed.stderr.contains("it was left to the store"), "{}", failed.stderr);
    // What the bundle does not know is named, and the store behind it knows it.
    let all = format!("closure(build, {})", sender.second);
    let alone = ferry(from, ["query", &all, "--store", SECOND]).fails();
    let absent = sender.before.iter().any(|path| alone.stderr.contains(path));
    assert!(absent, "{}", alone.stderr);
    let both = ferry(from, ["query", &all, "--store", SECOND, "--store", "local"]).ok();
    let of_store = ferry(from, ["query", &all, "--store", "local"]).ok();
    assert_eq!(sorted(both.lines()), sorted(of_store.lines()));
    let new = format!("have({SECOND}) & {all}");
    ferry(from, ["query", &new, "--store", "local"]).ok();
}
