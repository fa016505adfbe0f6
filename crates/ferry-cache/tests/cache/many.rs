//! Many small paths, which are handed from thread to thread in groups.

use std::fs;

use ferry_formats::StoreDir;
use ferry_formats::narinfo::{self, Narinfo};
use ferry_store::closure::closure;
use ferry_store::progress::Silent;
use ferry_store::{Destination as _, copy};
use tempfile::TempDir;

use crate::support::{Objects, address, all, copy_all, files, new_store, open, path, text};

const COUNT: usize = 150;

/// Objects in a chain, each of its own size, some of them too large for a group.
fn chain() -> Objects {
    let mut objects = Objects::new();
    for number in 0..COUNT {
        let below = format!("p{}", number.saturating_sub(1));
        let references: &[&str] = if number == 0 { &[] } else { &[&below] };
        let size = if number % 40 == 39 { 200_000 + number } else { 10 * number + 1 };
        objects.add(&format!("p{number}"), &vec![b'x'; size], references);
    }
    objects
}

fn cache(compression: &str) -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let place = address(directory.path(), &format!("compression={compression}"));
    copy_all(&chain().store(), &open(&place)).unwrap();
    (directory, place)
}

fn narinfo(directory: &TempDir, name: &str) -> Narinfo {
    let text = fs::read(directory.path().join(narinfo::file_name(&path(name)))).unwrap();
    narinfo::parse(&StoreDir::default(), &text).unwrap()
}

#[test]
fn many_small_paths_go_in_and_out() {
    for compression in ["none", "xz", "zstd"] {
        let (directory, place) = cache(compression);
        assert_eq!(files(directory.path()).len(), 2 * COUNT + 1);
        let root = tempfile::tempdir().unwrap();
        copy_all(&open(&place), &new_store(root.path())).unwrap();
        assert_eq!(all(&new_store(root.path())), all(&chain().store()), "{compression}");
    }
}

#[test]
fn one_that_is_damaged_among_many_is_named_and_nothing_that_refers_to_it_becomes_valid() {
    for compression in ["none", "zstd"] {
        let (directory, place) = cache(compression);
        for bad in [0, 57, COUNT - 1] {
            let bad_name = format!("p{bad}");
            let nar = directory.path().join(narinfo(&directory, &bad_name).url);
            let whole = fs::read(&nar).unwrap();
            let mut changed = whole.clone();
            changed[whole.len() / 2] ^= 1;
            for damaged in [&changed[..], &whole[..whole.len() - 1], &[&whole[..], b"x"].concat()] {
                fs::write(&nar, damaged).unwrap();
                let root = tempfile::tempdir().unwrap();
                let cache = open(&place);
                let last = path(&format!("p{}", COUNT - 1));
                let infos = closure(&cache, std::slice::from_ref(&last)).unwrap();
                let store = new_store(root.path());
                let error = copy(&cache, &store, infos, &[], &Silent).unwrap_err().to_string();
                assert!(error.contains(&text(&bad_name)), "{error}");
                let there = store.present(&[path(&bad_name), last]).unwrap();
                assert_eq!(there, [None, None], "{error}");
            }
            fs::write(&nar, &whole).unwrap();
        }
    }
}

#[test]
fn a_nar_that_is_not_what_its_name_says_is_written_again() {
    let (directory, place) = cache("zstd");
    let expected = files(directory.path());
    for name in ["p3", "p57"] {
        let narinfo = narinfo(&directory, name);
        let nar = directory.path().join(&narinfo.url);
        let whole = fs::read(&nar).unwrap();
        for left in [&[][..], &whole[..whole.len() / 2], &vec![0; whole.len()]] {
            // Somebody has died before the narinfo was there.
            fs::write(&nar, left).unwrap();
            for number in 0..COUNT {
                let number = path(&format!("p{number}"));
                fs::remove_file(directory.path().join(narinfo::file_name(&number))).unwrap();
            }
            copy_all(&chain().store(), &open(&place)).unwrap();
            assert!(files(directory.path()) == expected, "{name}, {} bytes", left.len());
        }
    }
}
