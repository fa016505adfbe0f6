//! Servers that are slow, break off, send people elsewhere, or send far too much: every one an
//! error that says so, and nothing that is wrong becomes valid.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ferry_cache::{BinaryCache, CacheAddress};
use ferry_formats::keys::{SecretKey, parse_public_key};
use ferry_formats::{StoreDir, narinfo};
use ferry_store::closure::closure;
use ferry_store::http::HttpOptions;
use ferry_store::local::{Layout, LocalStore};
use ferry_store::progress::Silent;
use ferry_store::trust::TrustPolicy;
use ferry_store::{CopyReport, Destination, Result, Store, copy};
use ferry_test_world::{Answer, Machine, NixVersion, Origin, World};
use tempfile::TempDir;

use crate::support::{
    address, all, copy_all, files, hasty, impatient, new_store, open, parse, path, serve,
    some_objects, store_of, text,
};

/// A cache behind a server, and where the parts of it are there.
struct Served {
    directory: TempDir,
    origin: Origin,
}

impl Served {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let cache = open(&address(directory.path(), "compression=none"));
        copy_all(&some_objects().store(), &cache).unwrap();
        let origin = serve(directory.path());
        Self { directory, origin }
    }

    fn narinfo(name: &str) -> String {
        format!("/{}", narinfo::file_name(&path(name)))
    }

    fn nar(&self, name: &str) -> String {
        let narinfo = self.directory.path().join(narinfo::file_name(&path(name)));
        let text = fs::read_to_string(narinfo).unwrap();
        format!("/{}", text.lines().find_map(|line| line.strip_prefix("URL: ")).unwrap())
    }

    fn take(&self, options: &HttpOptions, root: &Path) -> Result<CopyReport> {
        let address = CacheAddress::parse(&self.origin.url()).unwrap();
        let cache = BinaryCache::new(&address, &StoreDir::default(), options).unwrap();
        let infos = closure(&cache, &[path("top")])?;
        copy(&cache, &new_store(root), infos, &[], &Silent)
    }

    /// Takes everything, which has to fail with these words, and without `bad`.
    fn fails(&self, options: &HttpOptions, bad: &str, said: &[&str]) {
        let root = tempfile::tempdir().unwrap();
        let error = self.take(options, root.path()).unwrap_err().to_string();
        for part in said {
            assert!(error.contains(part), "no `{part}` in: {error}");
        }
        let store = new_store(root.path());
        assert_eq!(Destination::present(&store, &[path(bad)]).unwrap(), [None], "{error}");
    }
}

#[test]
fn a_server_that_sends_next_to_nothing_is_given_up_wherever_it_begins() {
    let served = Served::new();
    let options = HttpOptions { retries: 1, ..hasty() };
    for drip in [Answer::Drip, Answer::DripAll] {
        for (name, url) in [
            ("top", Served::narinfo("top")),
            ("bottom", served.nar("bottom")),
            ("large", served.nar("large")),
        ] {
            // A file of few bytes comes in time, were they not this slow.
            let drip = drip(Duration::from_millis(150));
            (0..2).for_each(|_| served.origin.answer_next(&url, drip.clone()));
            served.fails(&options, name, &[&url, "2 attempts"]);
        }
    }
}

#[test]
fn a_large_nar_comes_whole_however_often_the_connection_breaks() {
    for ranges in [true, false] {
        let served = Served::new();
        if ranges {
            served.origin.serve_ranges();
        }
        let url = served.nar("large");
        let breaks = [0, 1, 200_000, 500_000, 700_000];
        breaks.iter().for_each(|end| served.origin.answer_next(&url, Answer::CutAfter(*end)));
        let root = tempfile::tempdir().unwrap();
        served.take(&impatient(), root.path()).unwrap();
        assert_eq!(all(&new_store(root.path())).len(), 5);
        assert_eq!(served.origin.requests_for(&url), breaks.len() + 1);
        assert!(!served.origin.ranges().is_empty());
    }
}

#[test]
fn a_nar_that_becomes_another_one_in_the_middle_is_not_taken() {
    let served = Served::new();
    let url = served.nar("large");
    let mut other = served.origin.files()[&url].to_vec();
    // Same length, nothing by which to tell the two apart but what is in them.
    other[2_000_000] ^= 1;
    served.origin.answer_next(&url, Answer::CutAfter(1_000_000));
    served.origin.answer_next(&url, Answer::Status("200 OK", Vec::new(), other));
    served.fails(&impatient(), "large", &[&url, "it has hash sha256:"]);
}

#[test]
fn a_connection_that_always_breaks_is_told_with_the_place() {
    let served = Served::new();
    let url = served.nar("large");
    (0..10).for_each(|_| served.origin.answer_next(&url, Answer::CutAfter(1000)));
    served.fails(&impatient(), "large", &[&text("large"), &url, "it broke off after 1000 bytes"]);
}

#[test]
fn whoever_has_to_log_in_first_is_told_what_the_page_says() {
    let served = Served::new();
    let page = "<html><title>Please log in</title></html>";
    let login = || Answer::Status("200 OK", Vec::new(), page.as_bytes().to_vec());
    // As a page in place of everything.
    for url in ["/nix-cache-info".to_owned(), Served::narinfo("top")] {
        served.origin.answer_next(&url, login());
    }
    served.fails(&impatient(), "top", &[&Served::narinfo("top"), "Please log in"]);
    // By a redirect elsewhere.
    let portal = Origin::start();
    portal.serve("/login", page);
    let to = vec![("Location", format!("{}/login", portal.url()))];
    let redirect = Answer::Status("302 Found", to, Vec::new());
    served.origin.answer_next(&Served::narinfo("top"), redirect.clone());
    served.fails(&impatient(), "top", &[&Served::narinfo("top"), "Please log in"]);
    // In place of a NAR, small or large.
    for name in ["bottom", "large"] {
        let url = served.nar(name);
        served.origin.answer_next(&url, redirect.clone());
        served.fails(&impatient(), name, &[&text(name), &url, "it ends after 41 of"]);
    }
    let root = tempfile::tempdir().unwrap();
    served.take(&impatient(), root.path()).unwrap();
}

#[test]
fn too_many_requests_are_made_again_later() {
    let served = Served::new();
    let later = || {
        let headers = vec![("Retry-After", "0".to_owned())];
        Answer::Status("429 Too Many Requests", headers, b"slow down".to_vec())
    };
    let urls = [Served::narinfo("top"), served.nar("bottom"), served.nar("large")];
    for url in &urls {
        (0..3).for_each(|_| served.origin.answer_next(url, later()));
    }
    let root = tempfile::tempdir().unwrap();
    served.take(&impatient(), root.path()).unwrap();
    assert!(urls.iter().all(|url| served.origin.requests_for(url) == 4));
    (0..5).for_each(|_| served.origin.answer_next(&urls[0], later()));
    served.fails(&impatient(), "top", &[&urls[0], "429", "slow down", "5 attempts"]);
}

/// A key that Nix has made on a machine.
fn key(machine: &Machine, name: &str) -> (SecretKey, String) {
    let files = [format!("/data/{name}"), format!("/data/{name}.pub")];
    let args = ["--generate-binary-cache-key", name, &files[0], &files[1]];
    machine.command("nix-store").args(args).ok();
    let text = |file: &str| String::from_utf8(machine.read(file)).unwrap().trim().to_owned();
    (SecretKey::parse(&text(&files[0])).unwrap(), text(&files[1]))
}

#[test]
fn a_signature_by_a_key_that_nobody_knows_is_none() {
    let Some(world) = World::open() else { return };
    let machine = Machine::new(&world, NixVersion::V2_34);
    let (secret, _) = key(&machine, "stranger-1");
    let (_, trusted) = key(&machine, "harbour-1");
    // Under the name of the one that is known, too.
    let (_, known) = trusted.split_once(':').unwrap();
    let namesake = format!("stranger-1:{known}");
    let directory = tempfile::tempdir().unwrap();
    let cache = open(&address(directory.path(), "compression=none"));
    let objects = some_objects();
    let store = objects.store();
    copy(&store, &cache, all(&store), &[secret], &Silent).unwrap();
    let origin = serve(directory.path());
    for place in [address(directory.path(), ""), origin.url()] {
        for trusted in [&trusted, &namesake] {
            let root = tempfile::tempdir().unwrap();
            let trust = TrustPolicy {
                require_signatures: true,
                trusted_public_keys: vec![parse_public_key(trusted).unwrap()],
            };
            let store = LocalStore::new(Layout::chroot(root.path()), trust);
            let error = copy_all_named(&place, &store).unwrap_err().to_string();
            let said = "lacks a signature by a trusted key (it is signed by: stranger-1)";
            assert!(error.contains(said), "{error}");
            assert!(files(root.path()).is_empty());
        }
    }
}

/// Copies everything that `top` needs.
fn copy_all_named(place: &str, to: &dyn Destination) -> Result<CopyReport> {
    let cache = open(place);
    copy(&cache, to, closure(&cache, &[path("top")])?, &[], &Silent)
}

#[test]
fn a_bomb_is_not_read_to_its_end_whatever_it_is_packed_with() {
    let Some(world) = World::open() else { return };
    let machine = Machine::new(&world, NixVersion::V2_26);
    let script = "truncate -s 64M /data/zeros; nix-store --add /data/zeros; \
                  echo little >/data/little; nix-store --add /data/little";
    let added = machine.command("bash").args(["-euc", script]).ok();
    let [zeros, little] = added.lines().collect::<Vec<_>>()[..] else { panic!("{added}") };
    let little_info = store_of(&machine).require(&parse(little)).unwrap();
    for method in ["none", "xz", "zstd", "gzip", "bzip2", "br", "lz4", "lzip", "lzma"] {
        let to = format!("file:///data/{method}?compression={method}&compression-level=1");
        machine.command("nix").args(["copy", "--to", &to, zeros, little]).ok();
        let directory = machine.path(format!("/data/{method}"));
        let file = |path| directory.join(narinfo::file_name(&parse(path)));
        let text = |path| fs::read_to_string(file(path)).unwrap();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.unwrap_or_else(|| panic!("{method}: no {name} in {text}")).to_owned()
        };
        let (bomb, mut narinfo) = (text(zeros), text(little));
        for name in ["URL: ", "FileHash: ", "FileSize: "] {
            narinfo = narinfo.replace(&field(&narinfo, name), &field(&bomb, name));
        }
        fs::write(file(little), narinfo).unwrap();
        let origin = serve(&directory);
        for place in [address(&directory, ""), origin.url()] {
            let root = tempfile::tempdir().unwrap();
            let infos = BTreeMap::from([(little_info.path.clone(), little_info.clone())]);
            let error = copy(&open(&place), &new_store(root.path()), infos, &[], &Silent);
            let error = error.unwrap_err().to_string();
            let size = little_info.nar_size;
            let said = format!("decompresses to more than the {size} bytes promised");
            assert!(error.contains(&said), "{method}: {error}");
            let there = Destination::present(&new_store(root.path()), &[parse(little)]).unwrap();
            assert_eq!(there, [None], "{method}");
        }
    }
}

#[test]
fn a_file_that_goes_on_behind_its_nar_is_not_read_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(&address(directory.path(), "compression=zstd"));
    copy_all(&some_objects().store(), &cache).unwrap();
    let file = directory.path().join(narinfo::file_name(&path("top")));
    let narinfo = fs::read_to_string(&file).unwrap();
    let nar = narinfo.lines().find_map(|line| line.strip_prefix("URL: ")).unwrap();
    let nar = directory.path().join(nar);
    let mut longer = fs::read(&nar).unwrap();
    // Frames that a decoder passes over.
    let skipped = [&0x184d_2a50_u32.to_le_bytes()[..], &(1_u32 << 20).to_le_bytes()].concat();
    for _ in 0..4 {
        longer.extend([&skipped[..], &vec![0; 1 << 20]].concat());
    }
    fs::write(&nar, &longer).unwrap();
    // Where it is known how long the file is, and where it is not.
    let unknown: String = narinfo
        .lines()
        .filter(|line| !line.starts_with("File"))
        .flat_map(|line| [line, "\n"])
        .collect();
    for narinfo in [narinfo, unknown] {
        fs::write(&file, narinfo).unwrap();
        let root = tempfile::tempdir().unwrap();
        let error = copy_all_named(&address(directory.path(), ""), &new_store(root.path()));
        let error = error.unwrap_err().to_string();
        assert!(error.contains(&text("top")) && error.contains("it is longer than"), "{error}");
    }
}
