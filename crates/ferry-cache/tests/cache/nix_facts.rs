//! Binary caches that a real Nix wrote: their narinfos say what its database says.

use std::collections::BTreeSet;
use std::fs;

use ferry_formats::{StoreDir, StorePath};
use ferry_test_world::{Machine, NixVersion, Origin, World, crossing};

use crate::support::{explorer, open, parse, run_closure};

/// A machine on which everything of `crossing.nix` was built and put into a cache in
/// `/data/cache`, signed; the path that refers to all others, and the cache on the web.
fn with_cache(world: &World, version: NixVersion) -> (Machine, String, Origin) {
    let machine = Machine::new(world, version);
    let origin = crossing::origin();
    let top = crossing::command(&machine, "nix-build", "c", &origin.url()).online().ok();
    let keys = ["--generate-binary-cache-key", "test-1", "/data/secret", "/data/public"];
    machine.command("nix-store").args(keys).ok();
    let target = "file:///data/cache?secret-key=/data/secret";
    machine.command("nix").args(["copy", "--to", target, &top]).ok();

    let served = Origin::start();
    served.serve_files(&machine.path("/data/cache"));
    (machine, top, served)
}

fn query(machine: &Machine, args: &[&str]) -> BTreeSet<String> {
    let said = machine.command("nix-store").arg("--query").args(args).ok();
    said.lines().map(str::to_owned).collect()
}

#[test]
fn the_closure_out_of_narinfos_is_that_of_the_database() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let (machine, top, origin) = with_cache(&world, version);
        let expected = query(&machine, &["--requisites", &top]);
        assert_eq!(expected.len(), 4, "Nix {version}");
        let directory = machine.path("/data/cache");
        for address in [origin.url(), format!("file://{}", directory.display())] {
            let cache = open(&address);
            let mut explorer = explorer(cache.facts(None));
            let found = run_closure(&mut explorer, &[parse(&top)]);
            assert_eq!(found, (expected.clone(), Vec::new()), "Nix {version}, {address}");
            for path in &expected {
                let node = explorer.node(&parse(path));
                let size = explorer.graph().nar_size(node).map(|size| size.to_string());
                assert_eq!(
                    size.into_iter().collect::<BTreeSet<_>>(),
                    query(&machine, &["--size", path])
                );
            }
        }
        // Every narinfo, and that it is a cache.
        assert_eq!(origin.requests(), expected.len() + 1, "Nix {version}");
    }
}

#[test]
fn a_narinfo_says_all_that_the_database_says() {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        let (machine, top, origin) = with_cache(&world, version);
        let store_dir = StoreDir::default();
        let cache = open(&origin.url());
        let paths: Vec<StorePath> =
            query(&machine, &["--requisites", &top]).iter().map(|path| parse(path)).collect();
        for (path, narinfo) in paths.iter().zip(cache.narinfos(&paths).unwrap()) {
            let narinfo = narinfo.unwrap();
            let rendered = store_dir.render_path(path);
            let references: BTreeSet<String> =
                narinfo.info.references.iter().map(|path| store_dir.render_path(path)).collect();
            assert_eq!(references, query(&machine, &["--references", &rendered]));
            let deriver = narinfo.info.deriver.map(|path| store_dir.render_path(&path));
            assert_eq!(
                deriver.into_iter().collect::<BTreeSet<_>>(),
                query(&machine, &["--deriver", &rendered])
            );
            assert_eq!(
                BTreeSet::from([narinfo.info.nar_hash.to_string()]),
                query(&machine, &["--hash", &rendered])
            );
            let names: Vec<&str> = narinfo
                .info
                .signatures
                .iter()
                .map(|signature| signature.key_name.as_str())
                .collect();
            assert_eq!(names, ["test-1"], "Nix {version}");
            let compressed = machine.path(format!("/data/cache/{}", narinfo.url));
            assert_eq!(narinfo.file_size, Some(fs::metadata(compressed).unwrap().len()));
        }
    }
}
