//! Bundles in volumes, as bundles; and what they take of memory.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::Command;

use ferry_bundle::{Bundle, VolumeWriter, Volumes};
use ferry_store::Store as _;
use ferry_store::progress::Silent;
use ferry_store::trust::TrustPolicy;

use crate::objects::sample;
use crate::packed::packed;

fn write(bundle: &[u8], directory: &Path, limit: u64, parity: u32) {
    let file = directory.join("b.ferry");
    let mut writer = VolumeWriter::new(&file, limit, parity, Box::new(|_| {})).unwrap();
    writer.write_all(bundle).unwrap();
    writer.finish().unwrap();
}

#[test]
fn a_bundle_in_volumes_is_read_and_verified_as_often_as_one_likes() {
    let directory = tempfile::tempdir().unwrap();
    let bundle = packed(&sample());
    write(&bundle, directory.path(), 128 << 10, 1);
    let opened = Bundle::open(&directory.path().join("b.001.ferry")).unwrap();
    for _ in 0..2 {
        let report = ferry_bundle::verify(&opened, &TrustPolicy::accept_all(), &Silent).unwrap();
        assert_eq!(report.copied.added, sample().len());
    }
    assert!(opened.describe().contains("b.*.ferry"), "{}", opened.describe());
    assert_eq!(opened.volumes().unwrap().bundle_size(), bundle.len() as u64);
}

#[test]
fn what_comes_out_of_a_wrong_repair_is_still_checked_as_a_bundle() {
    // Volumes of bytes that are no bundle are whole volumes and no bundle.
    let directory = tempfile::tempdir().unwrap();
    let mut bundle = packed(&sample());
    let middle = bundle.len() / 2;
    bundle[middle] ^= 1;
    write(&bundle, directory.path(), 128 << 10, 0);
    let opened = Bundle::open(&directory.path().join("b.001.ferry"));
    let verified = opened.map_err(Into::into).and_then(|opened| {
        ferry_bundle::verify(&opened, &TrustPolicy::accept_all(), &Silent).map(drop)
    });
    let error: ferry_store::Error = verified.unwrap_err();
    assert!(error.to_string().contains("damaged at offset"), "{error}");
}

/// Kilobytes of address space for [`child`].
const LIMIT: u32 = 48 << 10;
/// The size of its bundle, which that has no room for.
const SIZE: u64 = 52 << 20;
const DIRECTORY: &str = "FERRY_TEST_VOLUMES";

/// The child: makes volumes, reads them with one lost, and writes that one again.
#[test]
#[ignore = "is run by the other tests, under a limit"]
fn child() {
    let directory = std::path::PathBuf::from(std::env::var_os(DIRECTORY).expect("no directory"));
    let file = directory.join("b.ferry");
    let mut writer = VolumeWriter::new(&file, 20 << 20, 1, Box::new(|_| {})).unwrap();
    io::copy(&mut io::repeat(7).take(SIZE), &mut writer).unwrap();
    let report = writer.finish().unwrap();
    fs::remove_file(&report.files[1]).unwrap();
    let volumes = Volumes::find(&report.files[..1]).unwrap().unwrap();
    assert_eq!(volumes.repair(Box::new(|_| {})).unwrap().len(), 1);
    println!("\nrepaired {} volumes", report.files.len());
}

#[test]
fn volumes_are_made_read_and_repaired_in_a_small_memory() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("/bin/sh")
        .args(["-c", r#"ulimit -v "$1"; shift; exec "$@""#, "sh", &LIMIT.to_string()])
        .arg(std::env::current_exe().unwrap())
        .args(["volumes::child", "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory.path())
        .env("MALLOC_ARENA_MAX", "1")
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("repaired 4 volumes"), "{said}\n{output:?}");
}
