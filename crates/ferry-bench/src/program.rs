//! The programs that are measured.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds ferry as it is released, in the target directory that this program is in.
pub(crate) fn build_ferry() -> PathBuf {
    let own = env::current_exe().unwrap_or_else(|error| panic!("cannot find myself: {error}"));
    let target = own
        .ancestors()
        .nth(2)
        .unwrap_or_else(|| panic!("{} is not in a target directory", own.display()));
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--package", "ferry", "--bin", "ferry", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .status()
        .unwrap_or_else(|error| panic!("cannot run cargo: {error}"));
    assert!(status.success(), "ferry does not build; --ferry names one that is built already");
    target.join("release/ferry")
}

/// Finds a program of the host's.
pub(crate) fn on_host(name: &str) -> PathBuf {
    env::var_os("PATH")
        .iter()
        .flat_map(env::split_paths)
        .map(|directory| directory.join(name))
        .find(|file| Path::is_file(file))
        .unwrap_or_else(|| panic!("{name} is not installed; the benchmark needs it"))
}
