//! A binary cache behind nginx, as people serve them.

use std::fs;

use ferry_test_world::{Machine, Nginx, NixVersion, World};

use ferry_test_world::files;

use crate::support::{Built, Key, Object, all_valid, closure, ferry, generate_key, machine};

/// Every Nix gets everything from the server, and only with the right key.
fn assert_all_substitute(world: &World, server: &Nginx, top: &str, key: &Key, wanted: &[Object]) {
    for version in NixVersion::ALL {
        let receiver = machine(world, version);
        receiver.configure("require-sigs = true");
        receiver.configure(&format!("substituters = {}", server.url()));
        let realise = || receiver.command("nix-store").args(["--realise", top]).online();
        let refused = realise().fails().stderr;
        let said = ["signed by any of the keys", "lacks a signature", "no good signature"];
        assert!(said.iter().any(|said| refused.contains(said)), "Nix {version}: {refused}");
        receiver.configure(&format!("trusted-public-keys = {}", key.public));
        realise().ok();
        assert_eq!(all_valid(&receiver), wanted, "Nix {version}");
    }
}

fn sender(world: &World) -> (Built, Machine, Key) {
    let sender = Built::new(world, NixVersion::V2_34);
    let machine = sender.machine.clone();
    let key = generate_key(&machine, "harbour-1");
    (sender, machine, key)
}

#[test]
fn every_nix_substitutes_through_nginx_what_ferry_wrote_to_a_disk() {
    let Some(world) = World::open() else { return };
    let (sender, machine, key) = sender(&world);
    let create = ["cache", "create", &sender.top, "--to", "/data/cache"];
    ferry(&machine, create).args(["--sign-key", &key.secret]).ok();
    let Some(server) = Nginx::start(&machine.path("/data/cache")) else { return };
    let wanted = closure(&machine, &sender.top);
    assert_all_substitute(&world, &server, &sender.top, &key, &wanted);
    // And so does ferry, by the same keys.
    let receiver = crate::support::machine(&world, NixVersion::V2_26);
    let url = server.url();
    let copy = || ferry(&receiver, ["copy", &sender.top, "--from", &url]).online();
    let refused = copy().fails();
    assert!(refused.stderr.contains("lacks a signature by a trusted key"), "{}", refused.stderr);
    copy().args(["--trusted-public-key", &key.public]).ok();
    assert_eq!(all_valid(&receiver), wanted);
}

#[test]
fn ferry_writes_through_nginx_what_every_nix_reads() {
    let Some(world) = World::open() else { return };
    let (sender, machine, key) = sender(&world);
    fs::create_dir(machine.path("/data/served")).unwrap();
    let Some(server) = Nginx::start(&machine.path("/data/served")) else { return };
    let url = server.url();
    let copy = |to: &str| {
        let copy = ["copy", &sender.top, "--to", to, "--sign-key", &key.secret];
        ferry(&machine, copy).args(["--with-logs"]).online().ok();
    };
    copy(&url);
    copy("file:///data/beside");
    assert!(files(&machine.path("/data/served")) == files(&machine.path("/data/beside")));
    let puts = || server.requests().iter().filter(|line| line.starts_with("PUT ")).count();
    let first = puts();
    assert_eq!(first, files(&machine.path("/data/served")).len());
    // What is there is not sent again.
    copy(&url);
    assert_eq!(puts(), first);
    let wanted = closure(&machine, &sender.top);
    assert_all_substitute(&world, &server, &sender.top, &key, &wanted);
}
