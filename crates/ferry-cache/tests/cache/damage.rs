//! Caches that are not what they should be: every one an error that says so, and nothing that is
//! wrong becomes valid.

use std::fs;
use std::path::{Path, PathBuf};

use ferry_formats::keys::parse_public_key;
use ferry_formats::narinfo;
use ferry_store::Store;
use ferry_store::closure::closure;
use ferry_store::local::{Layout, LocalStore};
use ferry_store::progress::Silent;
use ferry_store::trust::{DEFAULT_TRUSTED_PUBLIC_KEY, TrustPolicy};
use ferry_store::{Result, copy};
use ferry_test_world::Answer;
use tempfile::TempDir;

use crate::support::{
    address, all, copy_all, files, new_store, open, path, serve, some_objects, text,
};

/// A cache, and what to change in it.
struct Cache {
    directory: TempDir,
}

impl Cache {
    fn new(parameters: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        copy_all(&some_objects().store(), &open(&address(directory.path(), parameters))).unwrap();
        Self { directory }
    }

    fn narinfo(&self, name: &str) -> PathBuf {
        self.directory.path().join(narinfo::file_name(&path(name)))
    }

    fn field(&self, name: &str, field: &str) -> String {
        let text = fs::read_to_string(self.narinfo(name)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}: ")));
        line.unwrap().to_owned()
    }

    fn set(&self, name: &str, field: &str, value: &str) {
        let old = format!("{field}: {}\n", self.field(name, field));
        let text = fs::read_to_string(self.narinfo(name)).unwrap();
        fs::write(self.narinfo(name), text.replace(&old, &format!("{field}: {value}\n"))).unwrap();
    }

    fn nar(&self, name: &str) -> PathBuf {
        self.directory.path().join(self.field(name, "URL"))
    }

    /// Takes everything out of it, from the disk and from the web. Both have to say this, and
    /// `bad` must not become valid.
    fn is_refused(&self, bad: &str, said: &[&str]) {
        let origin = serve(self.directory.path());
        for place in [address(self.directory.path(), ""), origin.url()] {
            let root = tempfile::tempdir().unwrap();
            let error = take(&place, root.path()).unwrap_err().to_string();
            for part in said {
                assert!(error.contains(part), "{place}: no `{part}` in: {error}");
            }
            assert!(!error.contains('\x1b') && error.len() < 2000, "{error}");
            let store = new_store(root.path());
            let there = ferry_store::Destination::present(&store, &[path(bad)]).unwrap();
            assert_eq!(there, [None], "{place}: {bad} became valid");
        }
    }
}

fn take(place: &str, root: &Path) -> Result<()> {
    let cache = open(place);
    let infos = closure(&cache, &[path("top")])?;
    copy(&cache, &new_store(root), infos, &[], &Silent).map(drop)
}

const OTHER_HASH: &str = "sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s";

#[test]
fn a_wrong_file_hash_or_file_size_is_noticed() {
    for name in ["top", "large"] {
        let cache = Cache::new("compression=zstd");
        cache.set(name, "FileHash", OTHER_HASH);
        let nar = cache.field(name, "URL");
        cache.is_refused(name, &[&text(name), &nar, "it has hash sha256:", OTHER_HASH]);

        let cache = Cache::new("compression=zstd");
        let longer = fs::metadata(cache.nar(name)).unwrap().len() + 1;
        cache.set(name, "FileSize", &longer.to_string());
        cache.is_refused(name, &[&text(name), &longer.to_string()]);
    }
}

#[test]
fn a_wrong_nar_hash_or_nar_size_is_noticed() {
    for name in ["top", "large"] {
        let cache = Cache::new("compression=zstd");
        cache.set(name, "NarHash", OTHER_HASH);
        cache.is_refused(name, &[&text(name), "its NAR has hash", OTHER_HASH]);

        let size: u64 = cache.field(name, "NarSize").parse().unwrap();
        let cache = Cache::new("compression=zstd");
        cache.set(name, "NarSize", &(size + 1).to_string());
        cache.is_refused(name, &[&text(name), &format!("ends after {size} bytes")]);

        let cache = Cache::new("compression=zstd");
        cache.set(name, "NarSize", &(size - 1).to_string());
        cache
            .is_refused(name, &[&text(name), "decompresses to more than", &(size - 1).to_string()]);
    }
}

#[test]
fn a_nar_that_was_cut_short_is_noticed_wherever_it_was_cut() {
    for method in ["none", "xz", "zstd", "gzip", "bzip2"] {
        let cache = Cache::new(&format!("compression={method}"));
        let nar = cache.nar("bottom");
        let whole = fs::read(&nar).unwrap();
        for end in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(&nar, &whole[..end]).unwrap();
            let said = format!("it ends after {end} of {} bytes", whole.len());
            cache.is_refused("bottom", &[&text("bottom"), &said]);
        }
    }
}

#[test]
fn a_changed_byte_is_noticed_wherever_it_is() {
    let cache = Cache::new("compression=xz");
    let nar = cache.nar("top");
    let whole = fs::read(&nar).unwrap();
    for place in (0..whole.len()).step_by(5) {
        let mut changed = whole.clone();
        changed[place] ^= 0x10;
        fs::write(&nar, changed).unwrap();
        let root = tempfile::tempdir().unwrap();
        let error = take(&address(cache.directory.path(), ""), root.path()).unwrap_err();
        assert!(error.to_string().contains(&text("top")), "byte {place}: {error}");
    }
}

#[test]
fn a_file_that_grows_beyond_measure_is_not_read_to_its_end() {
    let cache = Cache::new("compression=zstd");
    // A gigabyte of nothing, in some kilobytes.
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 1 << 30), &mut encoder).unwrap();
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 200_000, "{}", bomb.len());
    fs::write(cache.nar("top"), &bomb).unwrap();
    cache.set("top", "FileSize", &bomb.len().to_string());
    cache.is_refused("top", &[&text("top"), "decompresses to more than"]);
}

#[test]
fn a_url_that_leads_out_of_the_cache_is_not_followed() {
    for url in ["../secret", "/etc/passwd", "nar/../../secret", "file:///etc/passwd", "a//b"] {
        let cache = Cache::new("compression=zstd");
        fs::write(cache.directory.path().join("secret"), "not for you").unwrap();
        cache.set("top", "URL", url);
        cache.is_refused("top", &[&text("top"), url]);
    }
}

#[test]
fn what_is_named_and_not_there_is_noticed() {
    let cache = Cache::new("compression=zstd");
    fs::remove_file(cache.nar("bottom")).unwrap();
    cache.is_refused("bottom", &[&text("bottom"), "there is a narinfo, but no NAR at", "nar/"]);

    let cache = Cache::new("compression=zstd");
    fs::remove_file(cache.narinfo("bottom")).unwrap();
    cache.is_refused("top", &[&text("bottom"), "refers to"]);
}

#[test]
fn another_kind_of_file_or_of_compression_is_noticed() {
    let cache = Cache::new("compression=zstd");
    cache.set("top", "Compression", "lzop");
    cache.is_refused("top", &[&text("top"), "`lzop`"]);

    let cache = Cache::new("compression=xz");
    cache.set("top", "Compression", "zstd");
    cache.is_refused("top", &[&text("top"), &cache.field("top", "URL")]);

    let cache = Cache::new("compression=zstd");
    fs::write(cache.narinfo("top"), "<html>\x1b[31mPlease log in</html>\n").unwrap();
    let name = narinfo::file_name(&path("top"));
    cache.is_refused("top", &[&name, r"<html>\u{1b}[31mPlease log in"]);
}

#[test]
fn what_nobody_trusted_has_signed_does_not_become_valid() {
    let cache = Cache::new("compression=zstd");
    let trust = TrustPolicy {
        require_signatures: true,
        trusted_public_keys: vec![parse_public_key(DEFAULT_TRUSTED_PUBLIC_KEY).unwrap()],
    };
    let root = tempfile::tempdir().unwrap();
    let store = LocalStore::new(Layout::chroot(root.path()), trust);
    let error = copy_all(&open(&address(cache.directory.path(), "")), &store).unwrap_err();
    assert!(error.to_string().contains("lacks a signature by a trusted key"), "{error}");
    assert!(files(root.path()).is_empty());
}

#[test]
fn a_server_in_trouble_is_asked_again_and_one_that_stays_so_is_named() {
    let cache = Cache::new("compression=zstd");
    let origin = serve(cache.directory.path());
    let trouble = Answer::Status("503 Service Unavailable", Vec::new(), b"busy".to_vec());
    let url = |name: &str| format!("/{}", cache.field(name, "URL"));
    // What is small comes again when the connection breaks in the middle of it, too.
    for name in ["top", "large", "bottom"] {
        origin.answer_next(&url(name), trouble.clone());
    }
    origin.answer_next(&url("bottom"), Answer::Cut);
    let root = tempfile::tempdir().unwrap();
    take(&origin.url(), root.path()).unwrap();
    assert_eq!(all(&new_store(root.path())).len(), 5);
    assert_eq!(origin.requests_for(&url("bottom")), 3);

    (0..5).for_each(|_| origin.answer_next(&url("large"), trouble.clone()));
    let root = tempfile::tempdir().unwrap();
    let error = take(&origin.url(), root.path()).unwrap_err().to_string();
    for part in ["503", "`busy`", &url("large"), "5 attempts"] {
        assert!(error.contains(part), "no {part} in {error}");
    }
    // A second try goes on from there.
    take(&origin.url(), root.path()).unwrap();
    assert_eq!(all(&new_store(root.path())).len(), 5);
}

#[test]
fn redirects_lead_to_the_nar_and_circles_end() {
    let cache = Cache::new("compression=zstd");
    let (origin, elsewhere) = (serve(cache.directory.path()), serve(cache.directory.path()));
    let to = |url: String| Answer::Status("302 Found", vec![("Location", url)], Vec::new());
    let url = format!("/{}", cache.field("top", "URL"));
    origin.answer_next(&url, to(format!("{}{url}", elsewhere.url())));
    let root = tempfile::tempdir().unwrap();
    take(&origin.url(), root.path()).unwrap();
    assert_eq!(elsewhere.requests_for(&url), 1);

    (0..50).for_each(|_| origin.answer_next(&url, to(url.clone())));
    let root = tempfile::tempdir().unwrap();
    let error = take(&origin.url(), root.path()).unwrap_err().to_string();
    assert!(error.contains(&url), "{error}");
}

#[test]
fn a_cache_that_is_damaged_where_it_is_written_says_so() {
    let cache = Cache::new("compression=zstd");
    fs::write(cache.narinfo("top"), "").unwrap();
    let again = open(&address(cache.directory.path(), "compression=zstd"));
    let error = copy_all(&some_objects().store(), &again).unwrap_err().to_string();
    assert!(error.contains(&narinfo::file_name(&path("top"))), "{error}");
    // A NAR of another size than it should have is no reason not to write it.
    let nar = cache.nar("bottom");
    let whole = fs::read(&nar).unwrap();
    fs::remove_file(cache.narinfo("top")).unwrap();
    fs::remove_file(cache.narinfo("bottom")).unwrap();
    fs::write(&nar, &whole[1..]).unwrap();
    copy_all(&some_objects().store(), &again).unwrap();
    assert_eq!(fs::read(&nar).unwrap(), whole);
    assert_eq!(again.all_paths().unwrap().unwrap().len(), 5);
}
