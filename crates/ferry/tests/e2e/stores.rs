//! Stores on disk, whatever state they are in and wherever they are.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;

use ferry_test_world::{Machine, MachineCommand, crossing, trees};

use crate::support::{
    NOBODY, all_valid, assert_store_is_whole, carry, ferry, machine, make_motley, on_each,
    pack_runtime, shell,
};

const DATABASE: &str = "/nix/var/nix/db/db.sqlite";
const LOG: &str = "/nix/var/nix/db/db.sqlite-wal";
const SHARED_MEMORY: &str = "/nix/var/nix/db/db.sqlite-shm";

/// Adds a small file to the store.
fn add_text(machine: &Machine, text: &str) -> String {
    trees::add(machine, text, |path| fs::write(path, text))
}

/// The same command, where `/nix` can only be read.
fn read_only(machine: &Machine, command: &str) -> MachineCommand {
    let first = "mount -o remount,ro,bind /nix; touch /nix/mark 2>/dev/null && exit 99;";
    shell(machine, &format!("{first} {command}"))
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_store_is_read_while_nix_writes_to_it() {
    on_each(|_, machine| {
        let still = trees::add_many_files(&machine, 100, 1000);
        pack_runtime(&machine, &still, "/tmp/before.ferry").ok();
        let before = machine.read("/tmp/before.ferry");
        let script = "for ((n = 0;; n++)); do
                echo $n >/data/number
                nix-store --add /data/number
            done";
        let mut writer = shell(&machine, script).spawn();
        for round in 0..10 {
            let newest = writer.next_line();
            let newest = newest.unwrap_or_else(|| panic!("{}", writer.stderr_so_far()));
            for user in [0, NOBODY] {
                let file = format!("/tmp/during-{user}.ferry");
                pack_runtime(&machine, &still, &file).args(["--store", "local"]).user(user).ok();
                assert_eq!(machine.read(&file), before, "user {user}, round {round}");
                let pack = pack_runtime(&machine, &newest, &format!("/tmp/new-{user}.ferry"));
                pack.args(["--store", "local"]).user(user).ok();
            }
        }
        assert!(writer.is_running(), "{}", writer.stderr_so_far());
        let told = writer.kill().stderr;
        assert!(!told.contains("error") && !told.contains("busy"), "it was disturbed: {told}");
    });
}

#[test]
fn a_store_on_a_read_only_mount_is_read_as_it_is() {
    on_each(|_, machine| {
        let path = trees::add_many_files(&machine, 20, 100);
        pack_runtime(&machine, &path, "/tmp/writable.ferry").ok();
        let before = files_beside_the_database(&machine);
        let pack = format!("ferry pack {path} --set runtime -o /tmp/read-only.ferry");
        read_only(&machine, &pack).ok();
        assert_eq!(machine.read("/tmp/read-only.ferry"), machine.read("/tmp/writable.ferry"));
        assert_eq!(files_beside_the_database(&machine), before);
    });
}

fn files_beside_the_database(machine: &Machine) -> Vec<(String, Vec<u8>)> {
    let directory = machine.path("/nix/var/nix/db");
    let entries = fs::read_dir(&directory).expect("the database has a directory");
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.expect("it can be listed").file_name().to_string_lossy().into_owned()
    };
    let mut files: Vec<_> = entries
        .map(name)
        .filter(|name| name != "reserved")
        .map(|name| (name.clone(), fs::read(directory.join(name)).expect("it can be read")))
        .collect();
    files.sort();
    files
}

#[test]
fn registrations_that_are_only_in_the_log_are_read_on_a_read_only_mount() {
    on_each(|_, machine| {
        let old = add_text(&machine, "old");
        // While one process has the database open, nobody moves the log into it.
        let daemon = machine.daemon();
        let open = hold_open(&machine);
        let new = add_text(&machine, "new");
        drop((daemon, open));
        assert!(contains(&machine.read(LOG), &new), "the log has no registration");
        assert!(!contains(&machine.read(DATABASE), &new), "the log has been moved already");

        // Indeed the path is nowhere else.
        let alone = "mkdir -p /data/alone/db; cp /nix/var/nix/db/{db.sqlite,schema} /data/alone/db";
        shell(&machine, alone).ok();
        let pack = pack_runtime(&machine, &new, "/tmp/none.ferry");
        let failed = pack.args(["--store", "local?state=/data/alone"]).fails();
        assert!(failed.stderr.contains("is not valid"), "{}", failed.stderr);

        let pack = |path: &str, file: &str| {
            format!("ferry pack {path} --set runtime --store local -o /tmp/{file}.ferry")
        };
        let before = files_beside_the_database(&machine);
        let script = format!("{}; {}", pack(&old, "old"), pack(&new, "new"));
        read_only(&machine, &script).ok();
        assert_eq!(files_beside_the_database(&machine), before);
        // A log without the shared memory beside it, as in a copy of a disk.
        fs::remove_file(machine.path(SHARED_MEMORY)).expect("it is there");
        read_only(&machine, &pack(&new, "alone")).ok();
        shell(&machine, &pack(&new, "nobody")).user(NOBODY).ok();
        // Where it can be written, SQLite puts all in its place.
        shell(&machine, &pack(&new, "root")).ok();
        for file in ["alone", "nobody", "root"] {
            let bundle = machine.read(format!("/tmp/{file}.ferry"));
            assert_eq!(bundle, machine.read("/tmp/new.ferry"), "{file}");
        }
    });
}

/// Makes the machine's daemon open its database for as long as the answer is held.
fn hold_open(machine: &Machine) -> UnixStream {
    const CLIENT: u64 = 0x6e69_7863;
    let directory = File::open(machine.path("/nix/var/nix/daemon-socket")).expect("a daemon runs");
    // By way of a descriptor: the path on the host may be too long for a socket.
    let socket = format!("/proc/self/fd/{}/socket", directory.as_raw_fd());
    let mut stream = UnixStream::connect(socket).expect("the daemon listens");
    stream.write_all(&CLIENT.to_le_bytes()).expect("the daemon reads");
    stream.read_exact(&mut [0; 8]).expect("the daemon answers once the store is open");
    stream
}

#[test]
fn somebody_without_rights_reads_the_files_or_asks_the_daemon() {
    on_each(|_, machine| {
        let path = trees::add_many_files(&machine, 20, 100);
        pack_runtime(&machine, &path, "/tmp/root.ferry").ok();
        let expected = machine.read("/tmp/root.ferry");
        let pack = |file: &str| pack_runtime(&machine, &path, file).user(NOBODY);
        pack("/tmp/files.ferry").ok();
        assert_eq!(machine.read("/tmp/files.ferry"), expected);

        let database = machine.path("/nix/var/nix/db");
        fs::set_permissions(&database, Permissions::from_mode(0o700)).expect("it is ours");
        let failed = pack("/tmp/none.ferry").fails();
        assert_eq!(failed.code(), 1);
        assert!(failed.stderr.contains("Permission denied"), "{}", failed.stderr);
        assert!(failed.stderr.contains("hint: run this as root"), "{}", failed.stderr);
        assert!(!machine.path("/tmp/none.ferry").exists());

        // Without being told to.
        let _daemon = machine.daemon();
        pack("/tmp/daemon.ferry").ok();
        assert_eq!(machine.read("/tmp/daemon.ferry"), expected);
    });
}

#[test]
fn somebody_without_rights_loads_into_a_store_of_their_own() {
    on_each(|_, machine| {
        let path = trees::add(&machine, "motley", make_motley);
        pack_runtime(&machine, &path, "/tmp/m.ferry").ok();
        let own = ["--to", "/tmp/home-65534/island"];
        ferry(&machine, ["load", "/tmp/m.ferry"]).args(own).user(NOBODY).ok();
        let verify = ["--store", own[1], "--verify", "--check-contents"];
        machine.command("nix-store").args(verify).user(NOBODY).ok();
        let hash = |store: &str, user| {
            let hash = machine.command("nix-store").args(["--store", store, "--query", "--hash"]);
            hash.arg(&path).user(user).ok()
        };
        assert_eq!(hash(own[1], NOBODY), hash("local", 0));

        // And not into everybody's.
        let failed = ferry(&machine, ["load", "/tmp/m.ferry", "--to", "local"]);
        let failed = failed.user(NOBODY).fails();
        assert!(failed.stderr.contains("hint: run this as root"), "{}", failed.stderr);
    });
}

#[test]
fn a_chroot_store_of_nix_is_packed_and_one_of_ferry_is_opened_by_nix() {
    on_each(|_, machine| {
        machine.write("/data/file", "in a chroot\n");
        for (number, chroot) in [
            "/data/island",
            "./island-2",
            "local?root=/data/island-3",
            "/data/island-4?store=/elsewhere/store",
            "local?root=/data/island-5&real=/data/real&state=/data/state",
        ]
        .into_iter()
        .enumerate()
        {
            let nix = |store: &str, args: &[&str]| {
                machine.command("nix-store").args(["--store", store]).args(args).succeed()
            };
            let path = nix(chroot, &["--add", "/data/file"]).text();
            let bundle = format!("/data/{number}.ferry");
            pack_runtime(&machine, &path, &bundle).args(["--store", chroot]).ok();
            // Into a store of the same form that is not there yet.
            let fresh = chroot.replace("island", "other").replace("/data/real", "/data/other-real");
            let fresh = fresh.replace("/data/state", "/data/other-state");
            ferry(&machine, ["load", &bundle, "--to", &fresh]).ok();
            let cat = |store: &str| {
                let cat = ["store", "cat", "--store", store, &path];
                machine.command("nix").args(cat).succeed().stdout
            };
            let hash = ["--query", "--hash", &path];
            assert_eq!(nix(&fresh, &hash).text(), nix(chroot, &hash).text(), "{chroot}");
            assert_eq!(cat(&fresh), b"in a chroot\n", "{chroot}");
            nix(&fresh, &["--verify", "--check-contents"]);
        }
    });
}

#[test]
fn a_store_with_another_directory_crosses_and_builds() {
    on_each(|world, sender| {
        let receiver = machine(world, sender.version());
        let set = |command: MachineCommand| {
            command.env("NIX_STORE_DIR", "/data/store").env("NIX_STATE_DIR", "/data/state")
        };
        let mut origin = crossing::origin();
        let url = origin.url();
        let build = |attribute| {
            set(crossing::command(&sender, "nix-build", attribute, &url)).arg("--no-out-link")
        };
        let top = build("c").online().ok();
        let fod = build("fod").ok();
        origin.stop();
        let derivation = set(sender.command("nix-store")).args(["--query", "--deriver", &top]).ok();
        assert!(derivation.starts_with("/data/store/"), "{derivation}");
        set(ferry(&sender, ["pack", &top, "--also", &fod, "-o", "/tmp/c.ferry"])).ok();

        carry(&sender, &receiver, "/tmp/c.ferry");
        // Paths of one directory do not belong in another.
        let failed = ferry(&receiver, ["load", "/tmp/c.ferry"]).fails();
        assert_eq!(failed.code(), 1);
        for directory in ["in /data/store", "in /nix/store"] {
            assert!(failed.stderr.contains(directory), "{}", failed.stderr);
        }
        let written = fs::read_dir(receiver.path("/nix")).map(Iterator::count).unwrap_or_default();
        assert_eq!(written, 0, "something was written all the same");

        // By its address here, by the environment there.
        let to = "local?store=/data/store&state=/data/state";
        let loaded = ferry(&receiver, ["load", "/tmp/c.ferry", "--to", to]).ok();
        assert_eq!(loaded, format!("{derivation}\n{fod}"));
        set(receiver.command("nix-store")).args(["--realise", &derivation]).ok();
        let hash = |machine: &Machine| {
            set(machine.command("nix-store")).args(["--query", "--hash", &top]).ok()
        };
        assert_eq!(hash(&receiver), hash(&sender));
        set(receiver.command("nix-store")).args(["--verify", "--check-contents"]).ok();
    });
}

/// The mode, time and number of links of everything at and below `path`.
fn attributes(path: &Path, found: &mut BTreeSet<(u32, i64, u64)>) {
    let metadata = path.symlink_metadata().expect("it is there");
    let links = if metadata.is_dir() { 0 } else { metadata.nlink() };
    found.insert((metadata.mode(), metadata.mtime(), links));
    assert_eq!((metadata.uid(), metadata.gid()), (0, 0), "{}", path.display());
    if metadata.is_dir() {
        for entry in path.read_dir().expect("it can be listed") {
            attributes(&entry.expect("it can be listed").path(), found);
        }
    }
}

#[test]
fn loaded_files_are_canonical_and_their_contents_are_exact() {
    on_each(|world, sender| {
        let motley = trees::add(&sender, "motley", make_motley);
        let program = trees::add(&sender, "program", |path| {
            fs::write(path, "#!/bin/sh\n")?;
            fs::set_permissions(path, Permissions::from_mode(0o755))
        });
        let link = trees::add(&sender, "a-link", |path| symlink("/somewhere", path));
        // What somebody has done to the sender's files: a NAR knows nothing of it.
        let spoil = format!(
            "chmod 6755 {motley}/script {program}; chmod 1777 {motley}/deep; chmod 600 {motley}/a
             touch {motley}/empty; touch -h {motley}/link; chown 7:7 {motley}/large"
        );
        shell(&sender, &spoil).ok();
        let args = ["pack", &motley, &program, &link, "--set", "runtime", "-o", "/tmp/m.ferry"];
        ferry(&sender, args).ok();

        let receiver = machine(world, sender.version());
        carry(&sender, &receiver, "/tmp/m.ferry");
        let load = "umask 0; ferry load /tmp/m.ferry";
        shell(&receiver, load).ok();
        let mut found = BTreeSet::new();
        for path in [&motley, &program, &link] {
            attributes(&receiver.path(path), &mut found);
            let dump = |machine: &Machine| {
                machine.command("nix-store").args(["--dump", path]).succeed().stdout
            };
            assert!(dump(&sender) == dump(&receiver), "{path} differs");
        }
        let (plain, executable) = (0o100_444, 0o100_555);
        let (directory, symlink) = (0o040_555, 0o120_777);
        let canonical = [(directory, 1, 0), (plain, 1, 1), (executable, 1, 1), (symlink, 1, 1)];
        assert_eq!(found, canonical.into_iter().collect());
        assert_store_is_whole(&receiver);
    });
}

#[test]
fn hard_links_of_an_optimised_store_are_files_of_their_own_when_loaded() {
    on_each(|world, sender| {
        let tree = |path: &Path| {
            fs::create_dir(path)?;
            let shared = vec![b's'; 5000];
            fs::write(path.join("one"), &shared)?;
            fs::write(path.join("two"), &shared)
        };
        let [first, second] = ["first", "second"].map(|name| trees::add(&sender, name, tree));
        sender.command("nix-store").arg("--optimise").ok();
        let links = |machine: &Machine, path: &str| {
            machine.path(format!("{path}/one")).metadata().expect("it is there").nlink()
        };
        // Two in each, and the one in .links.
        assert_eq!(links(&sender, &first), 5);
        let args = ["pack", &first, &second, "--set", "runtime", "-o", "/tmp/l.ferry"];
        ferry(&sender, args).ok();

        let receiver = machine(world, sender.version());
        carry(&sender, &receiver, "/tmp/l.ferry");
        ferry(&receiver, ["load", "/tmp/l.ferry"]).ok();
        assert_eq!([links(&receiver, &first), links(&receiver, &second)], [1, 1]);
        assert_eq!(all_valid(&receiver), all_valid(&sender));
        assert_store_is_whole(&receiver);
        // And Nix may make them one again.
        receiver.command("nix-store").arg("--optimise").ok();
        assert_eq!(links(&receiver, &first), 5);
        assert_store_is_whole(&receiver);
    });
}
