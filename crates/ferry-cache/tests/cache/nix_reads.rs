//! Caches that ferry wrote, substituted from by a real Nix.

use std::collections::BTreeMap;

use ferry_formats::keys::SecretKey;
use ferry_formats::{PathInfo, StoreDir, StorePath};
use ferry_store::closure::closure;
use ferry_store::copy;
use ferry_store::progress::Silent;
use ferry_test_world::{Machine, NixVersion, World, trees};

use crate::support::{address, all, built, open, parse, serve, store_of};

/// A key that Nix has made on this machine, and its public half.
fn generate_key(machine: &Machine) -> (SecretKey, String) {
    let args = ["--generate-binary-cache-key", "test-1", "/data/secret", "/data/public"];
    machine.command("nix-store").args(args).ok();
    let text = |file| String::from_utf8(machine.read(file)).unwrap();
    (SecretKey::parse(&text("/data/secret")).unwrap(), text("/data/public").trim().to_owned())
}

#[test]
fn every_nix_substitutes_from_what_ferry_wrote_and_insists_on_signatures() {
    let Some(world) = World::open() else { return };
    for from in NixVersion::ALL {
        let (sender, top) = built(&world, from);
        let large = trees::add_large_file(&sender, 5 << 20);
        let (key, public) = generate_key(&sender);
        let store = store_of(&sender);
        let infos = closure(&store, &[parse(&top), parse(&large)]).unwrap();
        for (to, method) in NixVersion::ALL.into_iter().zip(["xz", "zstd", "bzip2"]) {
            let pair = format!("{from} to {to}, {method}");
            let directory = tempfile::tempdir().unwrap();
            let parameters = format!("compression={method}&write-nar-listing=1");
            let cache = open(&address(directory.path(), &parameters));
            copy(&store, &cache, infos.clone(), std::slice::from_ref(&key), &Silent).unwrap();

            let disk = Machine::new(&world, to);
            disk.copy_in(directory.path(), "/data/cache");
            let origin = serve(directory.path());
            let web = Machine::new(&world, to);
            for (machine, url) in [(&disk, "file:///data/cache".to_owned()), (&web, origin.url())] {
                machine.configure("require-sigs = true");
                machine.configure(&format!("substituters = {url}"));
                let realise = || {
                    let realise = machine.command("nix-store").args(["--realise", &top, &large]);
                    if machine.path("/nix").parent() == web.path("/nix").parent() {
                        realise.online()
                    } else {
                        realise
                    }
                };
                let refused = realise().fails();
                let said = ["signed by any of the keys", "lacks a signature", "no good signature"];
                let is_said = said.iter().any(|said| refused.stderr.contains(said));
                assert!(is_said, "{pair}: {}", refused.stderr);
                machine.configure(&format!("trusted-public-keys = {public}"));
                realise().ok();
                assert_eq!(all(&store_of(machine)), signed(&infos, &key), "{pair}, {url}");
                machine.command("nix-store").args(["--verify", "--check-contents"]).ok();
            }
        }
    }
}

/// The same path infos with a signature each, which is how they are found in a store of Nix's.
fn signed(infos: &BTreeMap<StorePath, PathInfo>, key: &SecretKey) -> BTreeMap<StorePath, PathInfo> {
    let mut infos = infos.clone();
    for info in infos.values_mut() {
        info.sign(&StoreDir::default(), key);
    }
    infos
}
