//! Binary caches in buckets: a real Nix and a real server that speaks S3 on the other side.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ferry_test_world::{MachineCommand, NixVersion, S3Server, World, big_graph};

use crate::kills::Moments;
use crate::support::{
    Built, all_valid, assert_store_is_whole, closure, ferry, files, generate_key, machine,
};

/// A machine with something on it, whose Nix speaks S3: of Debian's, only this one does.
pub(crate) fn sender(world: &World) -> Built {
    Built::new(world, NixVersion::V2_34)
}

/// The address of a bucket.
pub(crate) fn address(server: &S3Server, bucket: &str, parameters: &str) -> String {
    format!("s3://{bucket}?endpoint={}&region=eu-west-1{parameters}", server.url())
}

/// Nix, with a network, and with nobody to ask for keys.
fn nix(built: &Built, args: &[&str]) -> MachineCommand {
    let experimental = ["--extra-experimental-features", "nix-command"];
    built.machine.command("nix").args(experimental).args(args).online()
}

#[test]
fn nix_substitutes_from_a_bucket_that_ferry_wrote_and_insists_on_signatures() {
    let (Some(world), Some(server)) = (World::open(), S3Server::start()) else { return };
    let sender = sender(&world);
    let key = generate_key(&sender.machine, "harbour-1");
    server.bucket("cache");
    for (prefix, method) in [("", "xz"), ("/a/b", "zstd")] {
        // Nix takes a prefix for a part of the key, as we do.
        let bucket = format!("cache{prefix}");
        let parameters = format!("&compression={method}&secret-key={}", key.secret);
        let to = address(&server, &bucket, &parameters);
        ferry(&sender.machine, ["copy", &sender.top, "--to", &to]).online().ok();

        let receiver = machine(&world, NixVersion::V2_34);
        receiver.configure("require-sigs = true");
        receiver.configure(&format!("substituters = {}", address(&server, &bucket, "")));
        let realise = || receiver.command("nix-store").args(["--realise", &sender.top]).online();
        let refused = realise().fails();
        assert!(refused.stderr.contains("signed by any of the keys"), "{}", refused.stderr);
        receiver.configure(&format!("trusted-public-keys = {}", key.public));
        realise().ok();
        assert_eq!(all_valid(&receiver), closure(&sender.machine, &sender.top), "{bucket}");
        assert_store_is_whole(&receiver);
    }
}

#[test]
fn ferry_reads_a_bucket_that_nix_wrote_and_writes_the_same_bytes() {
    let (Some(world), Some(server)) = (World::open(), S3Server::start()) else { return };
    let sender = sender(&world);
    let parameters = "&compression=xz&write-nar-listing=1";
    let by_nix = address(&server, "by-nix", parameters);
    let by_ferry = address(&server, "by-ferry", parameters);
    let directories = [server.bucket("by-nix"), server.bucket("by-ferry")];
    nix(&sender, &["copy", &sender.top, "--to", &by_nix]).ok();
    ferry(&sender.machine, ["copy", &sender.top, "--to", &by_ferry]).online().ok();
    let [nix_files, ferry_files] = directories.map(|directory| files(&directory));
    assert!(nix_files == ferry_files, "{:?} {:?}", nix_files.keys(), ferry_files.keys());

    // Narinfos may be stored compressed.
    let compressed =
        address(&server, "compressed", &format!("{parameters}&narinfo-compression=br"));
    let directory = server.bucket("compressed");
    nix(&sender, &["copy", &sender.top, "--to", &compressed]).ok();
    assert!(files(&directory) != nix_files);
    // For writing they are not, and the parameter is refused.
    let compressed = address(&server, "compressed", "");
    for from in [by_nix, compressed] {
        let receiver = machine(&world, NixVersion::V2_34);
        let copy = ["copy", "--all", "--from", &from, "--to", "local", "--no-check-sigs"];
        ferry(&receiver, copy).online().ok();
        assert_eq!(all_valid(&receiver), closure(&sender.machine, &sender.top), "{from}");
        assert_store_is_whole(&receiver);
    }
}

#[test]
fn answers_of_one_bucket_are_not_taken_for_those_of_another_with_its_name() {
    let servers = (S3Server::start(), S3Server::start());
    let (Some(world), (Some(first), Some(second))) = (World::open(), servers) else { return };
    let sender = sender(&world);
    let machine = &sender.machine;
    fs::write(second.bucket("cache").join("nix-cache-info"), "StoreDir: /nix/store\n").unwrap();
    first.bucket("cache");
    ferry(machine, ["copy", &sender.top, "--to", &address(&first, "cache", "")]).online().ok();
    let query = format!("closure(run, {})", sender.top);
    let ask = |server| {
        ferry(machine, ["query", &query, "--store", &address(server, "cache", "")]).online()
    };
    assert_eq!(ask(&first).ok().lines().count(), closure(machine, &sender.top).len());
    ask(&second).fails();
}

#[test]
fn fifty_copies_that_are_killed_leave_what_is_whole_and_what_nix_reads() {
    const KILLS: usize = 50;
    let (Some(world), Some(server)) = (World::open(), S3Server::start()) else { return };
    let sender = machine(&world, NixVersion::V2_34);
    let derivation = big_graph(&sender, 100);
    let to = address(&server, "cache", "&compression=none");
    let copy = || ferry(&sender, ["copy", &derivation, "--set", "recipe", "--to", &to]).online();
    let directory = server.bucket("cache");
    let took = copy().measure().wall;
    let whole = assert_whole(&directory);

    let mut moments = Moments::within(took);
    let (mut kills, mut begun) = (0, 0);
    for attempt in 0..5 * KILLS {
        // Every fifth begins with nothing, the others with what the one before has left.
        if attempt % 5 == 0 {
            fs::remove_dir_all(&directory).unwrap();
            server.bucket("cache");
        }
        let killed = moments.kill(copy()).is_some();
        let narinfos = assert_whole(&directory);
        kills += usize::from(killed);
        begun += usize::from(killed && (1..whole.len()).contains(&narinfos.len()));
        if killed && kills % 10 == 0 {
            let reader = machine(&world, NixVersion::V2_34);
            let from = address(&server, "cache", "");
            let fetch = ["copy", "--no-check-sigs", "--from", &from];
            if !narinfos.is_empty() {
                let nix = ["--extra-experimental-features", "nix-command"];
                reader.command("nix").args(nix).args(fetch).args(&narinfos).online().ok();
            }
            let valid = all_valid(&reader).into_iter().map(|object| object.path);
            assert_eq!(valid.collect::<BTreeSet<_>>(), narinfos);
            assert_store_is_whole(&reader);
        }
        if kills == KILLS {
            break;
        }
    }
    assert_eq!(kills, KILLS, "copies that were killed before they ended");
    assert!(begun >= KILLS / 2, "only {begun} kills left a part of the whole behind");
    copy().ok();
    assert_eq!(assert_whole(&directory), whole);
}

/// Every narinfo has its NAR, and the narinfos of all that it refers to. Returns their paths.
fn assert_whole(directory: &Path) -> BTreeSet<String> {
    let files = files(directory);
    let mut paths = BTreeSet::new();
    for (name, text) in files.iter().filter(|(name, _)| name.ends_with(".narinfo")) {
        let text = String::from_utf8_lossy(text);
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let size: usize = field("FileSize: ").parse().unwrap();
        assert_eq!(files.get(field("URL: ")).map(Vec::len), Some(size), "{name}");
        for reference in field("References: ").split_whitespace() {
            assert!(files.contains_key(&format!("{}.narinfo", &reference[..32])), "{reference}");
        }
        paths.insert(field("StorePath: ").to_owned());
    }
    paths
}

#[test]
fn an_address_that_makes_no_sense_is_refused_as_such() {
    let Some(world) = World::open() else { return };
    let machine = machine(&world, NixVersion::V2_34);
    for (from, said) in [
        ("s3://", "behind `s3://` stands the name of a bucket"),
        ("s3://b?scheme=ftp", "`scheme=ftp`"),
        ("s3://b?addressing-style=odd", "`addressing-style=odd`"),
        ("s3://b?endpoint=ftp://host", "`endpoint` is not the URL of a server"),
        ("s3://b?narinfo-compression=br", "`narinfo-compression`"),
        ("s3://b?multipart-upload=false", "raise `multipart-threshold`"),
        ("file:///data/x?region=eu-west-1", "`region` is not known"),
    ] {
        let failed = ferry(&machine, ["copy", "--all", "--from", from, "--to", "/data/y"]).fails();
        assert_eq!(failed.code(), 2, "{from}: {}", failed.stderr);
        assert!(failed.stderr.contains(said), "{from}: {}", failed.stderr);
    }
}
