//! Real evaluators and daemons, with the recorder between them.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ferry_test_world::{BigGraph, Machine, NixVersion, World, big_graph, crossing};
use ferry_trace::protocol::{Event, Outcome};
use ferry_trace::proxy::{Proxy, Upstream};

/// Commands that between them ask a daemon for most of what it can do.
const SCRIPT: &str = r#"
set -eu
cd /data
drv=$(nix-instantiate "$EXPRESSION" --argstr origin "$ORIGIN" --argstr fodHash "$HASH" -A c)
echo "$drv"
out=$(nix-store --realise "$drv" 2>/dev/null)
echo "$out"
nix-store --query --requisites "$out" | sort
nix-store --query --referrers "$out"
nix-store --query --deriver "$out"
nix-store --query --outputs "$drv"
echo text > file
added=$(nix-store --add file)
echo "$added"
nix-store --dump "$added" | sha256sum
nix-store --export "$added" > exported
nix-store --import < exported
nix eval --impure --raw --expr "builtins.readFile (builtins.storePath $added)"
nix eval --impure --raw --expr "(import ./ifd.nix).text"
nix path-info --json --all | tr ',' '\n' | grep -c '"narHash"\|narSize' || true
nix-store --verify-path "$out"
nix-store --realise /nix/store/00000000000000000000000000000000-none 2>/dev/null || echo "refused: $?"
nix-store --gc --print-dead >/dev/null
nix-store --delete "$added" 2>/dev/null | tail -1
nix-store --verify --check-contents 2>/dev/null
"#;

/// What is built while it is evaluated.
const IFD: &str = r#"
let
  made = derivation {
    name = "made.nix"; system = builtins.currentSystem; builder = "/bin/sh";
    args = [ "-c" "echo '{ text = \"from a build\"; }' > $out" ];
  };
in import made
"#;

fn prepared(world: &World, version: NixVersion) -> Machine {
    let machine = Machine::new(world, version);
    machine.write("/data/ifd.nix", IFD);
    machine
}

fn run(machine: &Machine, remote: &str, origin: &str) -> String {
    let command = machine.command("bash").args(["-c", SCRIPT]).online();
    let expression = machine.expression("crossing.nix");
    let command = command.env("NIX_REMOTE", remote).env("ORIGIN", origin);
    let command = command.env("EXPRESSION", expression).env("HASH", crossing::DOWNLOAD_HASH);
    command.succeed().text()
}

/// What was heard on all connections.
type Heard = Arc<Mutex<Vec<Event>>>;

fn recorder(machine: &Machine) -> (Proxy, Heard, String) {
    let heard = Heard::default();
    let hear = Arc::clone(&heard);
    let upstream = Upstream::Socket(machine.path("/nix/var/nix/daemon-socket/socket"));
    let observer = Box::new(move |_, event| hear.lock().unwrap().push(event));
    let proxy = Proxy::start(&machine.path("/tmp"), upstream, observer).unwrap();
    let inside = proxy.socket().strip_prefix(machine.path("/tmp")).unwrap();
    let address = format!("unix:///tmp/{}", inside.display());
    (proxy, heard, address)
}

/// How often each operation was done.
fn counts(heard: &Heard) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for event in heard.lock().unwrap().iter() {
        match event {
            Event::Answered { operation, .. } => *counts.entry(operation.name).or_default() += 1,
            Event::LostTrack(lost) => panic!("{lost}"),
            _ => {}
        }
    }
    counts
}

#[test]
fn commands_say_the_same_with_the_recorder_between_and_all_of_it_is_understood() {
    let Some(world) = World::open() else { return };
    let origin = crossing::origin();
    for version in NixVersion::ALL {
        let plain = prepared(&world, version);
        let _daemon = plain.daemon_online();
        let expected = run(&plain, "daemon", &origin.url());

        let machine = prepared(&world, version);
        let _daemon = machine.daemon_online();
        let (proxy, heard, address) = recorder(&machine);
        assert_eq!(run(&machine, &address, &origin.url()), expected, "Nix {version}");
        assert_eq!(proxy.finish(Duration::from_secs(30)), 0, "Nix {version}");

        let counts = counts(&heard);
        for done in ["AddToStore", "BuildPaths", "QueryPathInfo", "EnsurePath", "VerifyStore"] {
            assert!(counts.contains_key(done), "Nix {version}: no {done} in {counts:?}");
        }
        let failed = heard.lock().unwrap().iter().any(|event| {
            matches!(event, Event::Answered { outcome: Outcome::Error(text), .. } if !text.is_empty())
        });
        assert!(failed, "Nix {version}: no refusal");
    }
}

#[test]
fn a_graph_of_many_derivations_is_instantiated_through_the_recorder() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let plain = Machine::new(&world, version);
        let expected = big_graph(&plain, 300);
        let machine = Machine::new(&world, version);
        let _daemon = machine.daemon();
        let (proxy, heard, address) = recorder(&machine);
        let graph = BigGraph::new(300);
        let root = graph.command(&machine).env("NIX_REMOTE", &address).ok();
        assert_eq!(root.trim(), expected);
        assert_eq!(proxy.finish(Duration::from_secs(30)), 0);
        let added = counts(&heard)["AddToStore"];
        assert!(added > 300, "Nix {version}: {added}");
    }
}

#[test]
fn a_daemon_that_is_not_there_is_an_evaluator_that_fails() {
    let Some(world) = World::open() else { return };
    let machine = Machine::new(&world, NixVersion::V2_26);
    let (proxy, heard, address) = recorder(&machine);
    let command = machine.command("nix-store").args(["--verify"]);
    command.env("NIX_REMOTE", &address).fails();
    assert_eq!(proxy.finish(Duration::from_secs(30)), 0);
    assert!(heard.lock().unwrap().is_empty());
}

#[test]
fn clients_that_die_are_no_trouble_for_others() {
    let Some(world) = World::open() else { return };
    let machine = Machine::new(&world, NixVersion::V2_34);
    let _daemon = machine.daemon();
    let (proxy, heard, address) = recorder(&machine);
    let socket = proxy.socket().to_owned();
    for said in
        [&b""[..], b"cxin", b"cxin\0\0\0\0", b"cxin\0\0\0\0\x26\x01\0\0\0\0\0\0\xff\xff\xff"]
    {
        // The path on the host may be too long for a socket.
        let directory = std::fs::File::open(socket.parent().unwrap()).unwrap();
        let short = format!("/proc/self/fd/{}/socket", directory.as_raw_fd());
        let mut client = UnixStream::connect(short).unwrap();
        client.write_all(said).unwrap();
    }
    // In the middle of what it adds.
    machine.write("/data/add.sh", "head -c 30000000 /dev/zero | tr '\\0' x > large; nix-store --add large & sleep 0.01; kill -9 $!; wait");
    for _ in 0..3 {
        machine.command("bash").arg("/data/add.sh").env("NIX_REMOTE", &address).run();
    }
    let evaluate = machine.command("nix-instantiate").args(["--eval", "-E", "builtins.storeDir"]);
    assert_eq!(evaluate.env("NIX_REMOTE", &address).ok(), "\"/nix/store\"");
    assert_eq!(proxy.finish(Duration::from_secs(30)), 0);
    // Nobody said anything that is not understood.
    counts(&heard);
}
