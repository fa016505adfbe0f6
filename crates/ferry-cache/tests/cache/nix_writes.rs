//! Caches that a real Nix wrote, read by ferry.

use std::collections::BTreeSet;

use ferry_formats::PathInfo;
use ferry_store::closure::closure;
use ferry_store::progress::Silent;
use ferry_store::{Store as _, copy};
use ferry_test_world::{NixVersion, World, trees};

use crate::support::{
    address, all, built, copy_all, files, new_store, open, parse, serve, store_of,
};

const METHODS: [&str; 9] = ["none", "xz", "zstd", "gzip", "bzip2", "br", "lz4", "lzip", "lzma"];

#[test]
fn every_compression_of_every_nix_is_read() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let (machine, top) = built(&world, version);
        // Several blocks of whatever compresses in blocks.
        let large = trees::add_large_file(&machine, 10 << 20);
        let store = store_of(&machine);
        let expected = closure(&store, &[parse(&top), parse(&large)]).unwrap();
        for method in METHODS {
            let to = format!("file:///data/{method}?compression={method}");
            machine.command("nix").args(["copy", "--to", &to, &top, &large]).ok();
            let directory = machine.path(format!("/data/{method}"));
            let root = tempfile::tempdir().unwrap();
            let found = new_store(root.path());
            copy_all(&open(&address(&directory, "")), &found)
                .unwrap_or_else(|error| panic!("Nix {version}, {method}: {error}"));
            assert_eq!(all(&found), expected, "Nix {version}, {method}");
        }
        let origin = serve(&machine.path("/data/xz"));
        let root = tempfile::tempdir().unwrap();
        let found = new_store(root.path());
        copy(&open(&origin.url()), &found, expected.clone(), &[], &Silent).unwrap();
        assert_eq!(all(&found), expected, "Nix {version}, on the web");
    }
}

#[test]
fn a_cache_of_ferrys_and_one_of_nixs_are_the_same() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let (machine, top) = built(&world, version);
        let large = trees::add_large_file(&machine, 3 << 20);
        let store = store_of(&machine);
        let infos = closure(&store, &[parse(&top), parse(&large)]).unwrap();
        for method in ["none", "xz", "bzip2", "zstd"] {
            let parameters = format!("compression={method}&write-nar-listing=1");
            let to = format!("file:///data/{method}?{parameters}");
            machine.command("nix").args(["copy", "--to", &to, &top, &large]).ok();
            let nixs = files(&machine.path(format!("/data/{method}")));
            let directory = tempfile::tempdir().unwrap();
            let cache = open(&address(directory.path(), &parameters));
            copy(&store, &cache, infos.clone(), &[], &Silent).unwrap();
            let ours = files(directory.path());
            if method == "zstd" {
                // The bytes that come out of zstd depend on its version, and on how it is asked.
                let names = |files: &std::collections::BTreeMap<String, Vec<u8>>| {
                    let names = files.keys().filter(|name| !name.starts_with("nar/"));
                    names.cloned().collect::<BTreeSet<String>>()
                };
                assert_eq!(names(&ours), names(&nixs), "Nix {version}");
                let infos_of = |place: &std::path::Path| -> Vec<PathInfo> {
                    all(&open(&address(place, ""))).into_values().collect()
                };
                let nixs = infos_of(&machine.path("/data/zstd"));
                assert_eq!(infos_of(directory.path()), nixs, "Nix {version}");
                continue;
            }
            assert_eq!(
                ours.keys().collect::<Vec<_>>(),
                nixs.keys().collect::<Vec<_>>(),
                "Nix {version}, {method}"
            );
            for (name, bytes) in &ours {
                let theirs = &nixs[name];
                if name.ends_with(".ls") && version == NixVersion::V2_8 {
                    // It has the same members in another order.
                    let parse = |bytes| serde_json::from_slice::<serde_json::Value>(bytes).unwrap();
                    assert_eq!(parse(bytes), parse(theirs), "Nix {version}: {name}");
                } else {
                    let text = String::from_utf8_lossy(bytes);
                    let nixs = String::from_utf8_lossy(theirs);
                    assert!(bytes == theirs, "Nix {version}, {method}: {name}\n{text}\n{nixs}");
                }
            }
        }
        assert!(store.all_paths().unwrap().is_some());
    }
}
