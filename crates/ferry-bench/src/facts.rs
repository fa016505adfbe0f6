//! What has to be known about the machine to make sense of the figures.

use std::fs;
use std::process::Command;

use ferry_test_world::Machine;

use crate::sections::Bench;

/// Names and values, in the order in which they are printed.
pub(crate) type Facts = Vec<(String, String)>;

/// What is known before anything is measured.
pub(crate) fn before(bench: &Bench) -> Facts {
    let machine = bench.machine();
    let version = |program: &str| first_line(&machine, program);
    let options = &bench.options;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field("/proc/meminfo", "MemTotal").replace(" kB", "");
    let memory = memory.parse::<u64>().unwrap_or(0) * 1024;
    let facts = [
        ("date", host("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        ("processor", format!("{}, {cores} cores", field("/proc/cpuinfo", "model name"))),
        ("memory", format!("{:.0} GB", memory as f64 / 1e9)),
        ("kernel", read("/proc/sys/kernel/osrelease")),
        ("load average before", load_average()),
        ("ferry", version("ferry")),
        ("Nix", version("nix")),
        ("zstd", version("zstd")),
        ("derivations", options.drvs.to_string()),
        ("large files", crate::report::size(options.large_file)),
        ("mixed trees", format!("about {}", crate::report::size(options.mixed))),
        ("runs", options.runs.to_string()),
    ];
    facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What is known afterwards.
pub(crate) fn after() -> Facts {
    vec![("load average after".to_owned(), load_average())]
}

fn first_line(machine: &Machine, program: &str) -> String {
    let text = machine.command(program).arg("--version").ok();
    text.lines().next().unwrap_or_default().trim_matches(['*', ' ']).to_owned()
}

fn load_average() -> String {
    let text = read("/proc/loadavg");
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn host(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default().trim().to_owned()
}

/// The value of the first line `NAME : VALUE`.
fn field(file: &str, name: &str) -> String {
    read(file)
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}
