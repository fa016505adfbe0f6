//! Caches that are not what they should be, as the command line tells of them; and caches on disks
//! that are full.

use ferry_test_world::{Machine, NixVersion, World, trees};

use crate::bad_input::{Unharmed, assert_fails};
use crate::support::{Built, all_valid, closure, ferry, generate_key, machine, shell};

const CACHE: &str = "file:///data/cache";

/// A machine with a signed cache of its own, and one that knows the key and has nothing.
fn two(world: &World) -> (Built, Machine) {
    let sender = Built::new(world, NixVersion::V2_34);
    let key = generate_key(&sender.machine, "harbour-1");
    let create = ["cache", "create", &sender.top, "--to", "/data/cache", "--sign-key", &key.secret];
    ferry(&sender.machine, create).arg("--compression=zstd").ok();
    let receiver = machine(world, NixVersion::V2_26);
    receiver.configure(&format!("trusted-public-keys = {}", key.public));
    receiver.copy_in(sender.machine.path("/data/cache"), "/data/whole");
    (sender, receiver)
}

#[test]
fn whatever_is_wrong_with_a_cache_nothing_comes_of_it_and_the_exit_code_is_1() {
    let Some(world) = World::open() else { return };
    let (sender, receiver) = two(&world);
    // Something to be harmed.
    trees::add_large_file(&receiver, 1000);
    let hash = &sender.top["/nix/store/".len()..][..32];
    let nar = format!("/data/cache/$(sed -n 's/^URL: //p' /data/cache/{hash}.narinfo)");
    let narinfo = format!("/data/cache/{hash}.narinfo");
    let other = "1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s";
    for (what, damage, said) in [
        (
            "a wrong FileHash",
            format!("sed -i 's/^FileHash: .*/FileHash: sha256:{other}/' {narinfo}"),
            "it has hash sha256:",
        ),
        (
            "a wrong NarHash",
            format!("sed -i 's/^NarHash: .*/NarHash: sha256:{other}/' {narinfo}"),
            "lacks a signature",
        ),
        (
            "a reference that is absent",
            format!("rm $(ls /data/cache/*.narinfo | grep -v {hash})"),
            "crossing-b-1.0 is not valid in binary cache",
        ),
        ("a truncated NAR", format!("truncate -s -1 {nar}"), "it ends after"),
        ("no NAR", format!("rm {nar}"), "there is a narinfo, but no NAR"),
        ("HTML", format!("echo '<html>log in</html>' >{narinfo}"), "<html>log in"),
        (
            "a URL that leads out",
            format!("sed -i 's|^URL: .*|URL: ../whole/nix-cache-info|' {narinfo}"),
            "leads out of the cache",
        ),
        ("a signature by nobody", format!("sed -i '/^Sig: /d' {narinfo}"), "signed by: nobody"),
        (
            "a signature by an unknown key",
            format!("sed -i 's/^Sig: harbour-1/Sig: stranger-1/' {narinfo}"),
            "signed by: stranger-1",
        ),
        (
            "another store",
            "echo 'StoreDir: /gnu/store' >/data/cache/nix-cache-info".to_owned(),
            "/gnu/store",
        ),
        ("no cache", "rm /data/cache/nix-cache-info".to_owned(), "it has no `nix-cache-info`"),
    ] {
        shell(&receiver, "rm -rf /data/cache; cp -a /data/whole /data/cache").ok();
        shell(&receiver, &damage).ok();
        let unharmed = all_valid(&receiver);
        let copy = ferry(&receiver, ["copy", &sender.top, "--from", CACHE]);
        assert_fails(copy, 1, &[said]);
        // What was whole may have come; what is damaged has not, and the store is whole.
        let now = all_valid(&receiver);
        assert!(unharmed.iter().all(|object| now.contains(object)), "{what}");
        assert!(!receiver.path(&sender.top).exists(), "{what}");
        Unharmed::watch(&receiver).check(what);
    }
    shell(&receiver, "rm -rf /data/cache; cp -a /data/whole /data/cache").ok();
    ferry(&receiver, ["copy", &sender.top, "--from", CACHE]).ok();
}

#[test]
fn on_a_full_disk_what_is_there_is_whole_and_the_rest_follows_when_there_is_room() {
    let Some(world) = World::open() else { return };
    let (sender, _) = two(&world);
    let machine = &sender.machine;
    // Many paths that fit, and one that does not.
    let large = trees::add_large_file(machine, 3 << 20);
    let top = &sender.top;
    // A cache on the small disk; then more room; then a store on another small disk.
    let script = format!(
        r#"
        mkdir -p /data/small && mount -t tmpfs -o size=1500k tmpfs /data/small
        for to in 'file:///data/small/cache?compression=none' /data/small/root; do
            rm -rf /data/small/*
            mount -o remount,size=1500k /data/small
            if ferry copy {top} {large} --to "$to" --no-check-sigs 2>/data/said; then exit 9; fi
            [ "$(grep -c 'No space left on device' /data/said)" = 1 ]
            grep -q 'hint: make room' /data/said
            # What has a narinfo has its NAR, whole.
            for narinfo in /data/small/cache/*.narinfo; do
                [ -e "$narinfo" ] || continue
                nar=/data/small/cache/$(sed -n 's/^URL: //p' "$narinfo")
                [ "$(stat -c %s "$nar")" = "$(sed -n 's/^FileSize: //p' "$narinfo")" ]
            done
            mount -o remount,size=64m /data/small
            ferry copy {top} {large} --to "$to" --no-check-sigs
            rm -rf /data/copied
            ferry copy --all --from "${{to%\?*}}" --to /data/copied --no-check-sigs
            nix-store --store /data/copied --query --requisites {top} {large} | wc -l
        done"#
    );
    let counts = shell(machine, &script).ok();
    let wanted = (closure(machine, top).len() + 1).to_string();
    assert_eq!(counts.lines().collect::<Vec<_>>(), [&*wanted, &*wanted]);
}
