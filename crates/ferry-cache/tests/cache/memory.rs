//! Memory does not depend on how large a NAR is.
//!
//! Measured in a process of its own with a limit on its address space. The process is this test
//! binary again.

use std::process::Command;

use ferry_test_world::S3Server;

use crate::support::{Objects, address, copy_all, files, named, open, serve};

/// Kilobytes of address space, threads and their stacks included.
const LIMIT: u32 = 176 << 10;
/// Bytes of a NAR that does not fit into it.
const LARGE: usize = 256 << 20;
const DIRECTORY: &str = "FERRY_TEST_CACHE";

/// The child: takes everything out of a cache at one address, and puts it into another cache.
#[test]
#[ignore = "is run by the other test, under a limit"]
fn child() {
    let text = std::env::var(DIRECTORY).expect("no caches given");
    let (from, to) = text.split_once(' ').unwrap();
    let report = ferry_store::copy(
        &open(from),
        &open(to),
        named(&open(from), "large"),
        &[],
        &ferry_store::progress::Silent,
    );
    println!("\ncopied {} paths", report.unwrap().added);
}

fn run(from: &str, to: &str) -> String {
    let output = Command::new("/bin/sh")
        .args(["-c", r#"ulimit -v "$1"; shift; exec "$@""#, "sh", &LIMIT.to_string()])
        .arg(std::env::current_exe().unwrap())
        .args(["memory::child", "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, format!("{from} {to}"))
        // Otherwise every thread reserves 64 MB that it does not use.
        .env("MALLOC_ARENA_MAX", "1")
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}\n{errors}", output.status);
    text
}

#[test]
fn a_nar_larger_than_the_memory_goes_in_and_out_of_caches() {
    let mut objects = Objects::new();
    objects.add("large", &vec![0; LARGE], &[]);
    let first = tempfile::tempdir().unwrap();
    copy_all(&objects.store(), &open(&address(first.path(), "compression=zstd"))).unwrap();
    let origin = serve(first.path());
    let expected = files(first.path());
    for from in [address(first.path(), ""), origin.url()] {
        let to = tempfile::tempdir().unwrap();
        let said = run(&from, &address(to.path(), "compression=zstd"));
        assert!(said.contains("copied 1 paths"), "{said}");
        assert!(files(to.path()) == expected, "{from}");
    }
}

#[test]
fn a_nar_larger_than_the_memory_goes_in_and_out_of_buckets_in_parts() {
    let Some(server) = S3Server::start() else { return };
    let mut objects = Objects::new();
    objects.add("large", &vec![0; LARGE], &[]);
    let first = tempfile::tempdir().unwrap();
    copy_all(&objects.store(), &open(&address(first.path(), "compression=zstd"))).unwrap();
    server.bucket("cache");
    let bucket = format!("s3://cache?endpoint={}&compression=none", server.url());
    let last = tempfile::tempdir().unwrap();
    let steps = [
        (address(first.path(), ""), bucket.clone()),
        (bucket, address(last.path(), "compression=zstd")),
    ];
    for (from, to) in steps {
        let said = run(&from, &to);
        assert!(said.contains("copied 1 paths"), "{said}");
    }
    assert!(files(last.path()) == files(first.path()));
}
