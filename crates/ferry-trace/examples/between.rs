//! Stands between evaluators and a daemon, and tells what it heard: `between UPSTREAM LINK LOG`.
//!
//! `LINK` is made a link to where evaluators are to connect to. For trying commands and whole
//! test suites with the recorder between them; ends when it is killed.

// A program of its own.
#![allow(clippy::print_stderr, clippy::expect_used, clippy::disallowed_methods)]

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Mutex;

use ferry_trace::protocol::Event;
use ferry_trace::proxy::{Proxy, Upstream};

fn main() {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(upstream), Some(link), Some(log)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        eprintln!("usage: between UPSTREAM LINK LOG");
        std::process::exit(2);
    };
    let log = OpenOptions::new().create(true).append(true).open(log).expect("the log can be kept");
    let log = Mutex::new(log);
    let observer = Box::new(move |number, event| {
        let line = match event {
            Event::Agreed(version) => format!("{number} agreed 1.{}\n", version.minor),
            Event::Answered { operation, .. } => format!("{number} {}\n", operation.name),
            Event::LostTrack(lost) => format!("{number} LOST {lost}\n"),
            _ => format!("{number} something\n"),
        };
        let mut log = log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        log.write_all(line.as_bytes()).expect("the log can be written");
    });
    let directory = std::env::temp_dir();
    let proxy = Proxy::start(&directory, Upstream::Socket(upstream), observer);
    let proxy = proxy.expect("the recorder starts");
    let _ = fs::remove_file(&link);
    symlink(proxy.socket(), &link).expect("the link can be made");
    loop {
        std::thread::park();
    }
}
