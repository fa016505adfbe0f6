//! Input that is not as it should be: a plain message, the right exit code, and nothing harmed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::slice::from_ref;

use ferry_test_world::{Machine, MachineCommand, NixVersion, Outcome, World, trees};

use crate::support::{
    NOBODY, Object, all_valid, assert_store_is_whole, carry, ferry, generate_key, invalid, machine,
    objects, on_each, pack_runtime, shell,
};

const BUNDLE: &str = "/tmp/bundle.ferry";

/// Runs a command that has to fail with this code, and these words on stderr; stdout stays empty.
#[track_caller]
pub(crate) fn assert_fails(command: MachineCommand, code: i32, words: &[&str]) -> Outcome {
    let told = format!("{command:?}");
    let failed = command.fails();
    assert_eq!(failed.code(), code, "{told}: {}", failed.stderr);
    assert_eq!(failed.text(), "", "{told}");
    for word in words {
        assert!(failed.stderr.contains(word), "{told}: `{word}` is not in\n{}", failed.stderr);
    }
    assert!(!failed.stderr.contains("panicked"), "{told}: {}", failed.stderr);
    failed
}

/// What is valid and whole on a machine must be so afterwards too, and nothing more.
pub(crate) struct Unharmed<'a> {
    machine: &'a Machine,
    before: Vec<Object>,
    names: Vec<String>,
}

impl<'a> Unharmed<'a> {
    pub(crate) fn watch(machine: &'a Machine) -> Self {
        let before = all_valid(machine);
        Self { machine, before, names: store_names(machine) }
    }

    #[track_caller]
    pub(crate) fn check(&self, after: &str) {
        assert_eq!(all_valid(self.machine), self.before, "after {after}");
        assert_eq!(store_names(self.machine), self.names, "after {after}");
        assert_store_is_whole(self.machine);
    }
}

/// Everything in the store directory, valid or not; lock files aside.
pub(crate) fn store_names(machine: &Machine) -> Vec<String> {
    names(&machine.path("/nix/store")).into_iter().filter(|name| !name.ends_with(".lock")).collect()
}

/// What is in a directory.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name != ".links")
        .collect();
    names.sort();
    names
}

fn load<'a>(machine: &Machine, to: &'a str, bundle: &'a str) -> MachineCommand {
    ferry(machine, ["load", bundle, "--to", to, "--no-root"])
}

#[test]
fn a_damaged_bundle_is_refused_with_the_place_and_what_to_do() {
    on_each(|world, sender| {
        let path = trees::add_many_files(&sender, 100, 10_000);
        pack_runtime(&sender, &path, BUNDLE).ok();
        let whole = sender.read(BUNDLE);
        let receiver = machine(world, sender.version());
        trees::add_large_file(&receiver, 5000);
        let unharmed = Unharmed::watch(&receiver);
        // A daemon registers what comes whole before the damage.
        let other = machine(world, sender.version());
        let _daemon = other.daemon();

        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x20;
            bytes
        };
        let again = "hint: copy the bundle again and compare checksums";
        let cut = "hint: the transfer stopped early or the disk was full; copy the bundle again";
        let end = whole.len();
        for (bytes, words) in [
            (flipped(30), ["/tmp/bundle.ferry is damaged at offset ", again]),
            (flipped(end / 2), ["/tmp/bundle.ferry is damaged at offset ", again]),
            (flipped(end - 1), ["/tmp/bundle.ferry is damaged at offset ", again]),
            ([&whole[..], b"\n"].concat(), ["something follows the end of the bundle", again]),
            (whole[..40].to_vec(), ["is truncated: it ends at offset 40", cut]),
            (
                whole[..end / 2].to_vec(),
                [&*format!("is truncated: it ends at offset {}", end / 2), cut],
            ),
            (Vec::new(), ["is truncated: it ends at offset 0", cut]),
            (b"what is this?\n".to_vec(), ["is not a ferry bundle", "hint: a bundle is what"]),
            (
                String::from_utf8_lossy(&whole).into_owned().into_bytes(),
                ["is not a ferry bundle", "hint: a bundle is what"],
            ),
            ([&whole[..6], &whole[7..]].concat(), ["its line ends were changed", "binary file"]),
            (
                [&whole[..8], &[9, 0, 0, 0], &whole[12..]].concat(),
                ["has format version 9", "hint: use a newer ferry here"],
            ),
        ] {
            receiver.write(BUNDLE, &bytes);
            assert_fails(ferry(&receiver, ["verify", BUNDLE]), 1, &words);
            assert_fails(load(&receiver, "local", BUNDLE), 1, &words);
            other.write(BUNDLE, &bytes);
            assert_fails(load(&other, "daemon", BUNDLE), 1, &words);
            let words = words.map(|word| word.trim_start_matches(BUNDLE));
            let piped = load(&receiver, "local", "-").stdin(bytes);
            assert_fails(piped, 1, &[words[0], words[1], "<standard input>"]);
        }
        unharmed.check("damaged bundles");
        assert_store_is_whole(&other);
        other.write(BUNDLE, &whole);
        load(&other, "daemon", BUNDLE).ok();
    });
}

#[test]
fn what_is_no_file_is_named() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_26);
    machine.write("/tmp/secret.ferry", "x");
    fs::set_permissions(machine.path("/tmp/secret.ferry"), fs::Permissions::from_mode(0o600))
        .unwrap();
    for command in ["verify", "load", "ls", "info"] {
        let run = |file: &str| ferry(&machine, [command, file]).user(NOBODY);
        assert_fails(run("/tmp/absent.ferry"), 1, &["open /tmp/absent.ferry: No such file"]);
        assert_fails(run("/tmp/secret.ferry"), 1, &["open /tmp/secret.ferry: Permission denied"]);
        assert_fails(run("/tmp"), 1, &["/tmp", "directory"]);
        assert_fails(run("/tmp/absent/x.ferry"), 1, &["/tmp/absent/x.ferry"]);
        assert_fails(ferry(&machine, [command]), 2, &["Usage: ferry "]);
    }
}

#[test]
fn a_key_the_daemon_does_not_know_is_named_and_nothing_is_loaded() {
    on_each(|world, sender| {
        sender.write("/data/impure", "content");
        let path = impure(&sender);
        let key = generate_key(&sender, "unknown-1");
        pack_runtime(&sender, &path, BUNDLE).args(["--sign-key", &key.secret]).ok();
        let receiver = machine(world, sender.version());
        let other = generate_key(&receiver, "unknown-1").public;
        receiver.configure(&format!("trusted-public-keys = {other}"));
        carry(&sender, &receiver, BUNDLE);
        let _daemon = receiver.daemon();
        let unharmed = Unharmed::watch(&receiver);
        let refused = load(&receiver, "daemon", BUNDLE).user(NOBODY);
        assert_fails(
            refused,
            1,
            &[&path, "hint: sign when packing (--sign-key) and list that key"],
        );
        let refused = load(&receiver, "local", BUNDLE);
        assert_fails(refused, 1, &[&path, "(it is signed by: unknown-1)", "hint: sign when"]);
        unharmed.check("a bundle signed by a stranger");
    });
}

/// Builds an output from what is in `/data/impure`, which its derivation does not tell.
fn impure(machine: &Machine) -> String {
    machine.write(
        "/data/impure.nix",
        r#"derivation {
             name = "impure"; system = "x86_64-linux"; builder = "/bin/bash-static";
             args = [ "-euc" "read line </data/impure || :; echo \"$line\" >$out" ];
           }"#,
    );
    machine.command("nix-build").args(["/data/impure.nix", "--no-out-link"]).ok()
}

#[test]
fn what_was_built_differently_here_stays_as_it_is() {
    on_each(|world, sender| {
        sender.write("/data/impure", "built over there");
        let path = impure(&sender);
        let extra = trees::add_large_file(&sender, 1000);
        let receiver = machine(world, sender.version());
        receiver.write("/data/impure", "built here");
        assert_eq!(impure(&receiver), path, "one derivation has one output");
        let hash = |machine: &Machine| objects(machine, vec![path.clone()]).remove(0).hash;
        let (here, there) = (hash(&receiver), hash(&sender));
        assert_ne!(here, there);

        ferry(&sender, ["pack", &path, &extra, "--set", "runtime", "-o", BUNDLE]).ok();
        carry(&sender, &receiver, BUNDLE);
        let daemon = receiver.daemon();
        for to in ["local", "daemon"] {
            let told = load(&receiver, to, BUNDLE).arg("--no-check-sigs").succeed().stderr;
            let warning = told.split_once("warning: already in").map(|(_, rest)| rest);
            assert!(warning.is_some_and(|warning| warning.contains(&path)), "{told}");
            assert_eq!(hash(&receiver), here);
            // The rest has come.
            assert!(invalid(&receiver, from_ref(&extra)).is_empty());
        }
        drop(daemon);
        assert_store_is_whole(&receiver);

        // As the warning says.
        receiver.command("nix-store").args(["--delete", &path]).ok();
        load(&receiver, "local", BUNDLE).arg("--no-check-sigs").ok();
        assert_eq!(hash(&receiver), there);
        assert_store_is_whole(&receiver);
    });
}

/// Changes a file of a store behind its back.
fn spoil(machine: &Machine, path: &str, change: impl FnOnce(&Path)) {
    let real = machine.path(path);
    if let Ok(metadata) = fs::metadata(&real) {
        let mode = if metadata.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(&real, fs::Permissions::from_mode(mode)).unwrap();
    }
    change(&real);
}

/// Something done to the files of a store path.
type Change = fn(&Path);

#[test]
fn a_store_that_was_changed_behind_its_back_is_not_packed() {
    on_each(|_, machine| {
        let _daemon = machine.daemon();
        let contents: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let changes: [(&str, Change); 5] = [
            ("changed", |file| {
                let mut bytes = fs::read(file).unwrap();
                bytes[5000] ^= 1;
                fs::write(file, bytes).unwrap();
            }),
            ("longer", |file| fs::write(file, vec![1; 500_000]).unwrap()),
            ("shorter", |file| fs::write(file, vec![1; 300_000]).unwrap()),
            ("executable", |file| {
                fs::set_permissions(file, fs::Permissions::from_mode(0o555)).unwrap();
            }),
            ("gone", |file| fs::remove_file(file).unwrap()),
        ];
        machine.write("/data/out/old.ferry", "an old bundle");
        for (name, change) in changes {
            let path = trees::add(&machine, name, |file| fs::write(file, &contents));
            spoil(&machine, &path, change);
            for store in ["local", "daemon"] {
                for file in ["/data/out/new.ferry", "/data/out/old.ferry"] {
                    // Waiting for what does not come would end with another code.
                    let pack = ["60", "ferry", "pack", &path, "--set", "runtime", "-o", file];
                    let pack = machine.command("timeout").args(pack).args(["--store", store]);
                    assert_fails(pack, 1, &[&path]);
                }
            }
            assert_eq!(names(&machine.path("/data/out")), ["old.ferry"], "{name}");
            assert_eq!(machine.read("/data/out/old.ferry"), b"an old bundle", "{name}");
        }
    });
}

/// A script in which `/nix` or another place is a small disk that belongs to it alone.
fn on_a_small_disk(machine: &Machine, place: &str, size: &str, script: &str) -> Outcome {
    shell(
        machine,
        &format!("mkdir -p {place}; mount -t tmpfs -o size={size} tmpfs {place}\n{script}"),
    )
    .succeed()
}

/// Loads until it fits, with half a megabyte more each time; `$load` is the command. Prints how
/// often it did not, and every message.
const GROW: &str = r#"
    failures=0
    for size in $(seq 1 200); do
        # Nothing that is there may be broken; Nix wants some room to look.
        mount -o remount,size=100m /nix
        if [ -e /nix/var/nix/db/schema ] && ! nix-store --verify --check-contents 2>/tmp/verify; then
            cat /tmp/verify >&2
            echo "broken at $size"
            exit
        fi
        mount -o remount,size=$((size * 512))k /nix
        code=0
        timeout 100 $load >/tmp/out 2>/tmp/err || code=$?
        if [ $code = 0 ]; then
            echo "$failures failures"
            nix-store --verify --check-contents 2>/dev/null
            nix path-info --all | wc -l
            ls /nix/store | grep -cv '\.lock$'
            exit
        fi
        failures=$((failures + 1))
        { echo "code $code"; cat /tmp/err; } >&2
    done
    echo never"#;

#[test]
fn a_disk_that_is_full_at_any_moment_harms_nothing_and_more_room_mends_it() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let sender = machine(&world, version);
        let derivation = ferry_test_world::big_graph(&sender, 400);
        let large = trees::add_large_file(&sender, 3_000_000);
        ferry(&sender, ["pack", &derivation, "--also", &large, "-o", BUNDLE]).ok();
        let paths = all_valid(&sender).len();
        let receiver = machine(&world, version);
        receiver.configure("gc-reserved-space = 0");
        carry(&sender, &receiver, BUNDLE);
        for (prelude, load) in [
            ("", "ferry load /tmp/bundle.ferry --to local --no-root"),
            (
                "mount -o remount,size=100m /nix; nix-daemon 2>/dev/null & sleep 1",
                "ferry load /tmp/bundle.ferry --to daemon --no-root",
            ),
        ] {
            let script = format!("load='{load}'\n{prelude}\n{GROW}");
            let outcome = on_a_small_disk(&receiver, "/nix", "512k", &script);
            let told = format!("{load}: {}\n{}", outcome.text(), outcome.stderr);
            let lines: Vec<String> = outcome.text().lines().map(str::to_owned).collect();
            let [failures, valid, there] = lines.as_slice() else {
                panic!("Nix {version}: {told}")
            };
            let failures: usize = failures.trim_end_matches(" failures").parse().expect(&told);
            assert!(failures >= 5, "Nix {version}: {told}");
            assert_eq!(valid.parse(), Ok(paths), "Nix {version}: {told}");
            assert_eq!(there, valid, "Nix {version}: something is left over; {told}");
            let count = |words: &str| outcome.stderr.matches(words).count();
            assert_eq!(count("code 1"), failures, "Nix {version}: {told}");
            assert_eq!(count("ferry: error: "), failures, "Nix {version}: {told}");
            assert_eq!(count("ferry: hint: make room"), failures, "Nix {version}: {told}");
        }
    }
}

#[test]
fn packing_onto_a_full_disk_leaves_nothing_behind() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_34);
    let path = trees::add_large_file(&machine, 3_000_000);
    let script = format!(
        r#"cd /data/small; echo old >old.ferry
           for file in new.ferry old.ferry; do
               code=0; ferry pack {path} --set runtime -o $file || code=$?; echo $code
           done
           ls -A; cat old.ferry"#
    );
    for size in ["4k", "64k", "1m", "2900k"] {
        let outcome = on_a_small_disk(&machine, "/data/small", size, &script);
        assert_eq!(outcome.text(), "1\n1\nold.ferry\nold", "{size}: {}", outcome.stderr);
        let hints = outcome.stderr.matches("ferry: hint: make room").count();
        assert_eq!(hints, 2, "{size}: {}", outcome.stderr);
    }
}
