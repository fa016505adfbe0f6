//! Through a Nix daemon: its socket, and the streams of a command.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::slice::from_ref;

use ferry_test_world::{Machine, MachineCommand, NixVersion, World, trees};

use crate::support::{
    Built, NOBODY, all_valid, assert_store_is_whole, carry, closure, ferry, generate_key, invalid,
    machine, next_command, objects, on_each, outputs, pack_runtime, shell,
};

const BUNDLE: &str = "/tmp/c.ferry";
const COMMAND: &str = "exec:nix-daemon --stdio";

fn collect(machine: &Machine) {
    machine.command("nix-store").arg("--gc").ok();
}

#[test]
fn files_socket_and_command_give_the_same_bundle() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let sender = Built::new(&world, version);
        // So that there is something of everything: derivers, references, content addresses and
        // signatures, two on the same path.
        for name in ["b-1", "a-1"] {
            let key = generate_key(&sender.machine, name);
            let sign = ["store", "sign", "-r", "-k", &key.secret, &sender.top];
            sender.machine.command("nix").args(sign).ok();
        }
        let pack = |store: &str, user: u32| {
            let file = format!("/tmp/{user}.ferry");
            let pack = ["pack", &sender.derivation, "--also", &sender.top, "--also", &sender.fod];
            let pack = ferry(&sender.machine, pack).args(["--store", store, "-o", &file]);
            pack.user(user).ok();
            sender.machine.read(file)
        };
        let directly = pack("local", 0);
        assert!(pack(COMMAND, 0) == directly, "{COMMAND} of Nix {version} tells something else");
        let _daemon = sender.machine.daemon();
        for store in ["daemon", "unix://", "unix:///nix/var/nix/daemon-socket/socket"] {
            for user in [0, NOBODY] {
                let through = pack(store, user);
                assert!(through == directly, "{store} of Nix {version} tells something else");
            }
        }
    }
}

#[test]
fn a_command_that_speaks_the_protocol_is_loaded_into() {
    let Some(world) = World::open() else { return };
    let sender = Built::new(&world, NixVersion::V2_26);
    let args = ["pack", &sender.derivation, "--also", &sender.fod, "-o", BUNDLE];
    ferry(&sender.machine, args).ok();
    for version in NixVersion::ALL {
        let receiver = machine(&world, version);
        carry(&sender.machine, &receiver, BUNDLE);
        let load = ferry(&receiver, ["load", BUNDLE, "--to", COMMAND]).succeed();
        assert_eq!(load.text(), format!("{}\n{}", sender.derivation, sender.fod));
        shell(&receiver, &next_command(&load.stderr)).ok();
        assert_eq!(outputs(&receiver, &sender.derivation), sender.outputs(), "Nix {version}");
        assert_store_is_whole(&receiver);
    }
}

#[test]
fn what_was_loaded_through_the_daemon_stays_until_its_root_is_removed() {
    let Some(world) = World::open() else { return };
    let sender = Built::new(&world, NixVersion::V2_26);
    let recipe = ["pack", &sender.derivation, "--also", &sender.fod, "-o", "/tmp/recipe.ferry"];
    ferry(&sender.machine, recipe).ok();
    pack_runtime(&sender.machine, &sender.top, "/tmp/runtime.ferry").ok();
    let mut recipe = closure(&sender.machine, &sender.derivation);
    recipe.extend(objects(&sender.machine, vec![sender.fod.clone()]));
    recipe.sort();
    let runtime = closure(&sender.machine, &sender.top);

    for version in NixVersion::ALL {
        let recipe_roots = vec![&sender.derivation, &sender.fod];
        let home = "/tmp/home-65534/.local/state/ferry/roots/kept";
        for (bundle, roots, trusted, wanted) in [
            // All of it is content-addressed: anybody may add that.
            ("/tmp/recipe.ferry", recipe_roots, false, &recipe),
            ("/tmp/runtime.ferry", vec![&sender.top], true, &runtime),
        ] {
            let receiver = machine(&world, version);
            carry(&sender.machine, &receiver, bundle);
            if trusted {
                receiver.configure("trusted-users = root nobody");
            }
            let _daemon = receiver.daemon();
            let load = |args: &[&str]| {
                let load = ferry(&receiver, ["load", bundle, "--to", "daemon"]).args(args);
                let load = if trusted { load.arg("--no-check-sigs") } else { load };
                load.user(NOBODY).ok();
                assert_eq!(all_valid(&receiver), *wanted, "Nix {version}");
            };
            load(&["--no-root"]);
            collect(&receiver);
            assert_eq!(all_valid(&receiver), [], "Nix {version}");
            load(&["--root", "kept"]);
            collect(&receiver);
            assert_eq!(all_valid(&receiver), *wanted, "Nix {version}: not kept");

            assert_roots_are_listed(&receiver, home, &roots);
            fs::remove_dir_all(receiver.path(home)).expect("the roots are there");
            collect(&receiver);
            assert_eq!(all_valid(&receiver), [], "Nix {version}: kept without a root");
        }
    }
}

#[test]
fn behind_a_command_the_daemon_itself_keeps_what_was_loaded_or_ferry_says_that_it_does_not() {
    on_each(|_, machine| {
        let path = trees::add(&machine, "one", |path| fs::write(path, "one"));
        pack_runtime(&machine, &path, BUNDLE).ok();
        collect(&machine);
        let told = ferry(&machine, ["load", BUNDLE, "--to", COMMAND]).succeed().stderr;
        // Where it may be another machine, no link of this one is of use.
        assert!(!machine.path("/root/.local/state/ferry").exists());
        collect(&machine);
        if machine.version() == NixVersion::V2_8 {
            assert!(told.contains("nothing keeps it from the garbage collector"), "{told}");
            assert_eq!(invalid(&machine, from_ref(&path)), *from_ref(&path));
            return;
        }
        assert!(told.contains("kept from the garbage collector by"), "{told}");
        assert_eq!(invalid(&machine, from_ref(&path)), [""; 0]);
        let directory = "/nix/var/nix/gcroots/ferry/one";
        assert_roots_are_listed(&machine, directory, &[&path]);
        fs::remove_dir_all(machine.path(directory)).expect("the root is there");
        collect(&machine);
        assert_eq!(invalid(&machine, from_ref(&path)), *from_ref(&path));
    });
}

/// Nix tells of a link in `directory` for each of `roots`.
fn assert_roots_are_listed(machine: &Machine, directory: &str, roots: &[&String]) {
    let listed = machine.command("nix-store").args(["--gc", "--print-roots"]).ok();
    // From some version on in quotes.
    let listed = listed.replace('"', "");
    for root in roots {
        let base = root.trim_start_matches("/nix/store/");
        let line = format!("{directory}/{base} -> {root}");
        assert!(listed.lines().any(|listed| listed == line), "{line}\nis not in\n{listed}");
    }
}

#[test]
fn what_was_loaded_directly_stays_until_its_root_is_removed() {
    on_each(|world, sender| {
        let [one, other] =
            ["one", "other"].map(|name| trees::add(&sender, name, |path| fs::write(path, name)));
        for args in [vec!["pack", &one], vec!["pack", &one, &other]] {
            let file = format!("/tmp/{}.ferry", args.len() - 1);
            ferry(&sender, args).args(["--set", "runtime", "-o", &file]).ok();
        }
        let receiver = machine(world, sender.version());
        carry(&sender, &receiver, "/tmp/1.ferry");
        carry(&sender, &receiver, "/tmp/2.ferry");
        let load = |bundle: &str, args: &[&str]| {
            ferry(&receiver, ["load", bundle]).args(args).ok();
        };
        let both = [one.clone(), other.clone()];
        load("/tmp/2.ferry", &["--no-root"]);
        assert_eq!(invalid(&receiver, &both), [""; 0]);
        collect(&receiver);
        assert_eq!(invalid(&receiver, &both).len(), 2);

        // Called what it is called, and what the user wants.
        load("/tmp/1.ferry", &[]);
        assert_roots_are_listed(&receiver, "/nix/var/nix/gcroots/ferry/one", &[&one]);
        load("/tmp/2.ferry", &["--root", "cargo"]);
        assert_roots_are_listed(&receiver, "/nix/var/nix/gcroots/ferry/cargo", &[&one, &other]);
        collect(&receiver);
        assert_eq!(invalid(&receiver, &both), [""; 0]);
        let remove = |name: &str| {
            let directory = receiver.path(format!("/nix/var/nix/gcroots/ferry/{name}"));
            fs::remove_dir_all(directory).expect("the root is there");
            collect(&receiver);
        };
        remove("cargo");
        assert_eq!(invalid(&receiver, &both), [other]);
        remove("one");
        assert_eq!(invalid(&receiver, &both).len(), 2);
    });
}

#[test]
fn a_load_that_fails_leaves_the_roots_as_they_were() {
    on_each(|_, machine| {
        let path = trees::add_large_file(&machine, 100_000);
        pack_runtime(&machine, &path, "/tmp/whole.ferry").ok();
        let mut damaged = machine.read("/tmp/whole.ferry");
        damaged.truncate(50_000);
        machine.write("/tmp/damaged.ferry", damaged);
        let roots = machine.path("/nix/var/nix/gcroots/ferry");
        let _daemon = machine.daemon();
        for to in ["local", "daemon"] {
            let home = machine.path("/root/.local/state/ferry/roots");
            let roots = if to == "local" { &roots } else { &home };
            let load = |bundle: &str| ferry(&machine, ["load", bundle, "--to", to]);
            load("/tmp/whole.ferry").ok();
            collect(&machine);
            assert_eq!(invalid(&machine, from_ref(&path)), [""; 0], "{to}");

            load("/tmp/damaged.ferry").fails();
            collect(&machine);
            assert_eq!(invalid(&machine, from_ref(&path)), [""; 0], "{to}: the root went");

            fs::remove_dir_all(roots).expect("the root is there");
            collect(&machine);
            assert_eq!(invalid(&machine, from_ref(&path)), *from_ref(&path), "{to}");
            load("/tmp/damaged.ferry").fails();
            let left = fs::read_dir(roots).map(Iterator::count).unwrap_or_default();
            assert_eq!(left, 0, "{to}: a root to nothing");
            load("/tmp/whole.ferry").arg("--no-root").ok();
        }
    });
}

#[test]
fn what_the_daemon_says_is_passed_on() {
    let Some(world) = World::open() else { return };
    let sender = Built::new(&world, NixVersion::V2_26);
    pack_runtime(&sender.machine, &sender.top, BUNDLE).ok();
    for version in NixVersion::ALL {
        let receiver = machine(&world, version);
        carry(&sender.machine, &receiver, BUNDLE);
        let daemon = receiver.daemon();
        for to in ["daemon", COMMAND] {
            let load = |args: &[&str]| {
                let load = ferry(&receiver, ["load", BUNDLE, "--to", to]);
                load.args(args).env("NIX_CONFIG", "require-sigs = true")
            };
            // Everybody is trusted by a command that they start, and still has to say so.
            let load_as_nobody = |args: &[&str]| match to {
                "daemon" => load(args).user(NOBODY),
                _ => load(args),
            };
            let refused = load_as_nobody(&[]).fails();
            assert_eq!(refused.code(), 1);
            let own_words = match version {
                NixVersion::V2_8 => "because it lacks a valid signature",
                _ => "because it lacks a signature by a trusted key",
            };
            assert!(refused.stderr.contains(own_words), "{version}: {}", refused.stderr);
            assert!(refused.stderr.contains("hint: sign when packing"), "{}", refused.stderr);
            assert!(!refused.stderr.contains('\u{1b}'), "colours: {:?}", refused.stderr);
            assert_eq!(all_valid(&receiver), []);

            let wordy = load(&["-vvvvvvv", "--no-check-sigs", "--no-root"]).succeed().stderr;
            assert!(wordy.contains("lock acquired on"), "Nix {version}: {wordy}");
            collect(&receiver);
            let terse = load(&["--no-check-sigs", "--quiet", "--no-root"]).succeed().stderr;
            assert_eq!(ferry_alone(&terse), "", "Nix {version}");
            collect(&receiver);
        }
        drop(daemon);
        for (store, words) in [
            ("daemon", "connect to the Nix daemon at /nix/var/nix/daemon-socket/socket"),
            ("exec:no-such-daemon --stdio", "run `no-such-daemon --stdio`"),
            ("exec:false", "the Nix daemon behind `false`: it closed the connection"),
            ("exec:cat", "the Nix daemon behind `cat`: it greets with"),
        ] {
            let pack = ["pack", &sender.top, "-o", "/tmp/none.ferry"];
            for (told, failed) in [
                ferry(&receiver, ["load", BUNDLE, "--to", store]),
                ferry(&receiver, pack).args(["--store", store]),
                ferry(&receiver, ["load", BUNDLE]).env("NIX_REMOTE", store),
                ferry(&receiver, pack).env("NIX_REMOTE", store),
            ]
            .map(|command| (format!("{command:?}"), command.fails()))
            {
                assert_eq!(failed.code(), 1);
                assert!(failed.stderr.contains(words), "{told}: {}", failed.stderr);
            }
        }
    }
}

/// Stderr without what `nix-daemon --stdio` itself writes there.
fn ferry_alone(stderr: &str) -> String {
    stderr.lines().filter(|line| line.starts_with("ferry:")).collect()
}

#[test]
fn a_collection_while_packing_leaves_what_is_packed() {
    on_each(|_, machine| {
        let _daemon = machine.daemon();
        for store in ["local", "daemon", COMMAND] {
            // More than goes into the pipe: packing does not end before somebody reads.
            let paths = [2_000_000, 2_000_001].map(|size| trees::add_large_file(&machine, size));
            let unrelated = trees::add_large_file(&machine, 1000);
            let pack = ferry(&machine, ["pack", "--set", "runtime", "-o", "-", "--level", "fast"]);
            let (mut bundle, running) =
                into_unread_pipe(pack.args(["--store", store]).args(&paths));
            let mut read = vec![0; 8];
            bundle.read_exact(&mut read).expect("packing has begun");

            collect(&machine);
            let all: Vec<String> = paths.iter().chain([&unrelated]).cloned().collect();
            assert_eq!(invalid(&machine, &all), [unrelated], "{store}");
            bundle.read_to_end(&mut read).expect("packing goes on");
            let outcome = running.wait();
            assert!(outcome.status.success(), "{store}: {}", outcome.stderr);
            machine.write("/tmp/read.ferry", read);
            ferry(&machine, ["verify", "/tmp/read.ferry"]).ok();

            // Nothing else has kept it.
            collect(&machine);
            assert_eq!(invalid(&machine, &all).len(), 3, "{store}");
        }
    });
}

/// Starts a command whose output waits for somebody to read it.
fn into_unread_pipe(command: MachineCommand) -> (std::io::PipeReader, ferry_test_world::Running) {
    let (reader, writer) = std::io::pipe().expect("a pipe can be made");
    (reader, command.stdout_to(File::from(OwnedFd::from(writer))).spawn())
}
