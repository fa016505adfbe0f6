//! Everything that can be wrong with a cache is found, under its name, and nothing else is.

use std::collections::BTreeSet;
use std::fs::{self, File};

use ferry_cache::{FaultKind, ReadData, VerifyOptions};
use ferry_formats::{ContentAddress, NarHash, NixHash, StoreDir, narinfo};
use ferry_store::progress::Silent;
use ferry_test_world::{NixVersion, World};

use crate::support::{open, serve};
use crate::verify::{Cache, kinds, nowhere};

/// A hash of something else.
fn other_hash() -> NarHash {
    NarHash::of(b"something else")
}

/// A way to damage a cache; what is found of it by its structure, and what by its data.
struct Damage {
    what: &'static str,
    does: fn(&Cache),
    structure: &'static [&'static str],
    data: &'static [&'static str],
}

/// All kinds of damage. Where the structure shows it, reading the data finds it too.
const DAMAGE: &[Damage] = &[
    Damage {
        what: "another description",
        does: |cache| cache.write("nix-cache-info", "StoreDir: /nix/store\n<html>\n"),
        structure: &["bad-cache-info"],
        data: &[],
    },
    Damage {
        what: "no narinfo",
        does: |cache| cache.write(&narinfo::file_name(&cache.top), "<html>\x1b[31m</html>\n"),
        structure: &["bad-narinfo", "orphan-nar"],
        data: &[],
    },
    Damage {
        what: "an empty narinfo",
        does: |cache| cache.write(&narinfo::file_name(&cache.top), ""),
        structure: &["bad-narinfo", "orphan-nar"],
        data: &[],
    },
    Damage {
        what: "a narinfo without end",
        does: |cache| cache.write(&narinfo::file_name(&cache.top), vec![b'x'; 3 << 20]),
        structure: &["bad-narinfo", "orphan-nar"],
        data: &[],
    },
    Damage {
        what: "a narinfo under another name",
        does: |cache| cache.write(&narinfo::file_name(&nowhere()), cache.text(&cache.top)),
        structure: &["other-path"],
        data: &[],
    },
    Damage {
        what: "a reference gone",
        does: |cache| cache.remove(&narinfo::file_name(&cache.bottom)),
        structure: &["missing-reference", "orphan-nar", "orphan-listing"],
        data: &[],
    },
    Damage {
        what: "a URL that leads out",
        does: |cache| cache.set(&cache.top, "URL", "../secret"),
        structure: &["bad-url", "orphan-nar"],
        data: &[],
    },
    Damage {
        what: "a compression that nobody knows",
        does: |cache| cache.set(&cache.top, "Compression", "lzop"),
        structure: &["unknown-compression"],
        data: &[],
    },
    Damage {
        what: "a NAR gone",
        does: |cache| fs::remove_file(cache.nar(&cache.top)).unwrap(),
        structure: &["no-nar"],
        data: &[],
    },
    Damage {
        what: "a NAR cut short",
        does: |cache| {
            let nar = File::options().write(true).open(cache.nar(&cache.top)).unwrap();
            nar.set_len(cache.number(&cache.top, "FileSize") - 1).unwrap();
        },
        structure: &["wrong-file-size"],
        data: &["bad-compression"],
    },
    Damage {
        what: "a FileSize too large",
        does: |cache| {
            cache.set(&cache.top, "FileSize", cache.number(&cache.top, "FileSize") + 1);
        },
        structure: &["wrong-file-size"],
        data: &[],
    },
    Damage {
        what: "a FileSize too small",
        does: |cache| {
            cache.set(&cache.top, "FileSize", cache.number(&cache.top, "FileSize") / 2);
        },
        structure: &["wrong-file-size"],
        data: &["bad-compression"],
    },
    Damage {
        what: "another FileHash",
        does: |cache| cache.set(&cache.top, "FileHash", other_hash()),
        structure: &[],
        data: &["wrong-file-hash"],
    },
    Damage {
        what: "a NAR that is a directory",
        does: |cache| {
            let nar = cache.nar(&cache.top);
            fs::remove_file(&nar).unwrap();
            fs::create_dir(nar).unwrap();
        },
        structure: &[],
        data: &["unreadable"],
    },
    Damage {
        what: "another compression",
        does: |cache| cache.set(&cache.top, "Compression", "bzip2"),
        structure: &[],
        data: &["bad-compression"],
    },
    Damage {
        what: "a NAR of something else",
        does: |cache| {
            cache.set(&cache.top, "URL", cache.field(&cache.bottom, "URL"));
            cache.set(&cache.top, "FileHash", cache.field(&cache.bottom, "FileHash"));
            cache.set(&cache.top, "FileSize", cache.field(&cache.bottom, "FileSize"));
            cache.set(&cache.top, "NarSize", cache.field(&cache.bottom, "NarSize"));
        },
        structure: &["bad-signature", "orphan-nar"],
        data: &["wrong-nar-hash"],
    },
    Damage {
        what: "a NarSize too large",
        does: |cache| cache.set(&cache.top, "NarSize", cache.number(&cache.top, "NarSize") + 1),
        structure: &["bad-signature"],
        data: &["wrong-nar-size"],
    },
    Damage {
        what: "a NarSize too small",
        does: |cache| cache.set(&cache.top, "NarSize", cache.number(&cache.top, "NarSize") - 1),
        structure: &["bad-signature"],
        data: &["wrong-nar-size"],
    },
    Damage {
        what: "another NarHash",
        does: |cache| cache.set(&cache.top, "NarHash", other_hash()),
        structure: &["bad-signature"],
        data: &["wrong-nar-hash"],
    },
    Damage {
        what: "a gigabyte of nothing",
        does: |cache| {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 1 << 30), &mut encoder)
                .unwrap();
            cache.replace_nar(&cache.top, &encoder.finish().unwrap());
            cache.set(&cache.top, "Compression", "zstd");
        },
        structure: &[],
        data: &["wrong-nar-size"],
    },
    Damage {
        what: "no NAR, with all hashes right",
        does: |cache| {
            let contents = b"no NAR at all";
            cache.replace_nar(&cache.top, contents);
            cache.set(&cache.top, "Compression", "none");
            cache.set(&cache.top, "NarHash", NarHash::of(contents));
            cache.set(&cache.top, "NarSize", contents.len());
        },
        structure: &["bad-signature"],
        data: &["malformed-nar"],
    },
    Damage {
        what: "a deriver that is none",
        does: |cache| {
            let text = cache.text(&cache.top);
            let lines: Vec<&str> =
                text.lines().filter(|line| !line.starts_with("Deriver: ")).collect();
            cache.write(&narinfo::file_name(&cache.top), lines.join("\n") + "\n");
            cache.add(&cache.top, &format!("Deriver: {}", cache.bottom.to_basename()));
        },
        structure: &["bad-deriver"],
        data: &[],
    },
    Damage {
        what: "a content address of something else",
        does: |cache| cache.add(&cache.top, &format!("CA: fixed:r:{}", other_hash())),
        structure: &["wrong-content-address"],
        data: &["wrong-content"],
    },
    Damage {
        what: "something else at a content address",
        does: |cache| {
            let ca = ContentAddress::Nar(NixHash::Sha256(other_hash().0));
            let store_dir = StoreDir::default();
            let path = store_dir.build_ca_path("x", &ca, &[], false).unwrap();
            let mut narinfo =
                narinfo::parse(&store_dir, cache.text(&cache.bottom).as_bytes()).unwrap();
            narinfo.info.path = path.clone();
            narinfo.info.ca = Some(ca);
            narinfo.info.references = [].into();
            narinfo.info.signatures.clear();
            cache.write(&narinfo::file_name(&path), narinfo.render(&store_dir).unwrap());
        },
        structure: &[],
        data: &["wrong-content"],
    },
    Damage {
        what: "a signature that is none",
        does: |cache| cache.add(&cache.top, "Sig: harbour-1:nonsense"),
        structure: &["malformed-signature"],
        data: &[],
    },
    Damage {
        what: "the signature of another path",
        does: |cache| cache.set(&cache.top, "Sig", cache.field(&cache.bottom, "Sig")),
        structure: &["bad-signature"],
        data: &[],
    },
    Damage {
        what: "no signature",
        does: |cache| {
            let signature = format!("Sig: {}\n", cache.field(&cache.top, "Sig"));
            let text = cache.text(&cache.top).replace(&signature, "");
            cache.write(&narinfo::file_name(&cache.top), text);
        },
        structure: &["unsigned"],
        data: &[],
    },
    Damage {
        what: "a signature by somebody else",
        does: |cache| {
            let signature = cache.field(&cache.top, "Sig").replace("harbour-1:", "other-1:");
            cache.set(&cache.top, "Sig", signature);
        },
        structure: &["untrusted"],
        data: &[],
    },
    Damage {
        what: "half a listing",
        does: |cache| {
            let name = Cache::listing(&cache.top);
            let whole = fs::read(cache.file(&name)).unwrap();
            cache.write(&name, &whole[..whole.len() / 2]);
        },
        structure: &["bad-listing"],
        data: &["wrong-listing"],
    },
    Damage {
        what: "a listing of a version to come",
        does: |cache| cache.write(&Cache::listing(&cache.top), r#"{"version":2,"root":{}}"#),
        structure: &["bad-listing"],
        data: &["wrong-listing"],
    },
    Damage {
        what: "the listing of something else",
        does: |cache| {
            let other = fs::read(cache.file(&Cache::listing(&cache.bottom))).unwrap();
            cache.write(&Cache::listing(&cache.top), other);
        },
        structure: &[],
        data: &["wrong-listing"],
    },
    Damage {
        what: "no realisation",
        does: |cache| cache.write("realisations/sha256:00!out.doi", "<html>"),
        structure: &["bad-realisation"],
        data: &[],
    },
    Damage {
        what: "a realisation of what is nowhere, in the new place",
        does: |cache| {
            let path = nowhere().to_basename();
            let file = format!("build-trace-v2/{path}.drv/out.doi");
            cache.write(&file, format!(r#"{{"outPath":"{path}"}}"#));
        },
        structure: &["dangling-realisation"],
        data: &[],
    },
    Damage {
        what: "a NAR that nothing names",
        does: |cache| cache.write("nar/0000.nar.xz", "x"),
        structure: &["orphan-nar"],
        data: &[],
    },
    Damage {
        what: "a listing that nothing belongs to",
        does: |cache| cache.write(&Cache::listing(&nowhere()), r#"{"version":1,"root":{}}"#),
        structure: &["orphan-listing"],
        data: &[],
    },
    Damage {
        what: "a writer that was killed",
        does: |cache| cache.write(".ferry-dead/0", "x"),
        structure: &["stale-staging"],
        data: &[],
    },
];

/// Does every damage to a cache that is sound, and looks for it.
fn find_all_damage(cache: &Cache, what: &str) {
    for report in [cache.verify(&cache.options()), cache.verify_data()] {
        assert_eq!(report.faults, [], "{what}");
        assert!(report.paths >= 3 && report.signed_by_trusted == report.paths, "{what}");
    }
    for damage in DAMAGE {
        let cache = cache.clone();
        (damage.does)(&cache);
        let structure = cache.verify(&cache.options());
        let expected: BTreeSet<&str> = damage.structure.iter().copied().collect();
        assert_eq!(kinds(&structure), expected, "{what}: {}", damage.what);
        let data = cache.verify_data();
        let expected: BTreeSet<&str> =
            damage.structure.iter().chain(damage.data).copied().collect();
        assert_eq!(kinds(&data), expected, "{what}: {}", damage.what);
        for fault in &data.faults {
            assert!(!format!("{fault:?}").contains('\x1b'), "{fault:?}");
        }
        let is_harmless = |kind: &&str| kind.starts_with("orphan-") || kind.starts_with("stale-");
        assert_eq!(data.is_sound(), expected.iter().all(is_harmless), "{}", damage.what);
    }
}

#[test]
fn every_fault_is_found_under_its_name_and_none_in_a_cache_that_is_sound() {
    for parameters in ["compression=zstd", "compression=xz"] {
        find_all_damage(&Cache::new(parameters), parameters);
    }
}

#[test]
fn every_fault_is_found_in_what_every_nix_wrote() {
    let Some(world) = World::open() else { return };
    for (version, method) in NixVersion::ALL.into_iter().zip(["xz", "zstd", "gzip"]) {
        find_all_damage(&Cache::of_nix(&world, version, method), &format!("Nix {version}"));
    }
}

#[test]
fn every_kind_of_fault_there_is_has_its_damage() {
    let found: BTreeSet<&str> = DAMAGE
        .iter()
        .flat_map(|damage| damage.structure.iter().chain(damage.data))
        .copied()
        .collect();
    let all = FaultKind::ALL.iter().map(|kind| kind.name());
    // That needs a path to be asked for.
    let all: BTreeSet<&str> = all.filter(|name| *name != "missing-path").collect();
    assert_eq!(found, all);
}

#[test]
fn over_the_web_a_nar_that_is_too_long_is_one_fault_among_others() {
    let cache = Cache::new("compression=none");
    let (long, bad) = (cache.nar(&cache.bottom), cache.nar(&cache.top));
    let mut bytes = fs::read(&long).unwrap();
    bytes.extend([0; 100]);
    fs::write(&long, &bytes).unwrap();
    let mut bytes = fs::read(&bad).unwrap();
    bytes[100] ^= 1;
    fs::write(&bad, &bytes).unwrap();
    let roots = vec![cache.top.clone()];
    let options = VerifyOptions { roots, data: ReadData::Everything, ..cache.options() };
    let origin = serve(cache.directory.path());
    let report = open(&origin.url()).verify(&options, None, &Silent).unwrap();
    let expected = ["wrong-file-hash", "wrong-file-size", "wrong-nar-hash", "wrong-nar-size"];
    assert_eq!(kinds(&report), BTreeSet::from(expected), "{:?}", report.faults);
    assert_eq!(kinds(&report), kinds(&cache.verify_data()));
}
