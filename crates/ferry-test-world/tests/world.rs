//! The test world is what the tests that stand on it take it for.

use std::time::{Duration, Instant};

use ferry_test_world::{Machine, NixVersion, Signal, World, big_graph, crossing, trees};

/// Runs a test on a machine with each Nix version.
fn on_each(test: impl Fn(Machine)) {
    let Some(world) = World::open() else { return };
    for version in NixVersion::ALL {
        test(Machine::new(&world, version));
    }
}

fn query(machine: &Machine, args: &[&str]) -> String {
    machine.command("nix-store").arg("--query").args(args).ok()
}

#[test]
fn each_machine_runs_its_own_nix() {
    on_each(|machine| {
        let told = machine.command("nix-store").arg("--version").ok();
        let wanted = format!("nix-store (Nix) {}.", machine.version());
        assert!(told.starts_with(&wanted), "{told} is not {wanted}");
    });
}

#[test]
fn crossing_is_the_same_graph_and_the_same_bytes_on_every_version() {
    let Some(world) = World::open() else { return };
    let mut seen = Vec::new();
    for version in NixVersion::ALL {
        let machine = Machine::new(&world, version);
        // Of a fixed origin, so that the .drv paths can be compared.
        let mut found = Vec::new();
        for attribute in ["fod", "multi", "a", "b", "c"] {
            let nowhere = "http://127.0.0.1:1";
            found.push(crossing::command(&machine, "nix-instantiate", attribute, nowhere).ok());
        }
        let mut origin = crossing::origin();
        let top = crossing::command(&machine, "nix-build", "c", &origin.url()).online().ok();
        assert_eq!(origin.requests_for(crossing::DOWNLOAD_PATH), 1, "Nix {version}");
        assert_eq!(origin.requests(), 1, "Nix {version}");
        origin.stop();

        let said = machine.command(format!("{top}/bin/hello")).ok();
        assert!(said.starts_with("hello from the far side\nabove /nix/store/"), "{said}");

        // c, b, a and multi's out; not the download, and not multi's dev.
        let mut closure: Vec<_> =
            query(&machine, &["--requisites", &top]).lines().map(str::to_owned).collect();
        closure.sort();
        assert_eq!(closure.len(), 4, "Nix {version}: {closure:?}");

        let derivation = query(&machine, &["--deriver", &top]);
        let outputs = query(&machine, &["--requisites", "--include-outputs", &derivation]);
        for path in outputs.lines().filter(|path| !path.ends_with(".drv")) {
            found.push(format!("{path} {}", query(&machine, &["--hash", path])));
        }
        found[5..].sort();
        seen.push((version, found));
    }
    let (_, first) = &seen[0];
    // Five .drvs; then four sources and six outputs.
    assert_eq!(first.len(), 5 + 4 + 6, "{first:#?}");
    for (version, found) in &seen {
        assert_eq!(found, first, "Nix {version} differs from Nix {}", NixVersion::ALL[0]);
    }
}

#[test]
fn an_offline_command_cannot_fetch() {
    on_each(|machine| {
        machine.configure("download-attempts = 1");
        let origin = crossing::origin();
        let outcome = crossing::command(&machine, "nix-build", "fod", &origin.url()).fails();
        assert!(outcome.stderr.contains("unable to download"), "{}", outcome.stderr);
        assert_eq!(origin.requests(), 0);
    });
}

#[test]
fn a_stopped_origin_refuses_connections() {
    on_each(|machine| {
        machine.configure("download-attempts = 1");
        let mut origin = crossing::origin();
        origin.stop();
        let outcome =
            crossing::command(&machine, "nix-build", "fod", &origin.url()).online().fails();
        assert!(outcome.stderr.contains("unable to download"), "{}", outcome.stderr);
        assert_eq!(origin.requests(), 0);
    });
}

#[test]
fn requests_are_counted_also_when_there_is_no_answer() {
    on_each(|machine| {
        let origin = ferry_test_world::Origin::start();
        crossing::command(&machine, "nix-build", "fod", &origin.url()).online().fails();
        assert_eq!(origin.requests_for(crossing::DOWNLOAD_PATH), 1);
        assert_eq!(origin.requests_for("/elsewhere"), 0);
    });
}

#[test]
fn offline_commands_of_a_machine_share_a_loopback() {
    let Some(world) = World::open() else { return };
    let machine = Machine::new(&world, NixVersion::V2_26);
    let listener = "use IO::Socket; my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => \
         '127.0.0.1') or die; $| = 1; print $s->sockport, \"\\n\"; my $c = $s->accept; print <$c>;";
    let mut server = machine.command("perl").args(["-e", listener]).spawn();
    let port = server.next_line().expect("the server says where it listens");
    let hello = format!("echo hello >/dev/tcp/127.0.0.1/{port}");
    machine.command("bash").args(["-c", &hello]).online().fails();
    Machine::new(&world, NixVersion::V2_26).command("bash").args(["-c", &hello]).fails();
    machine.command("bash").args(["-c", &hello]).ok();
    assert_eq!(server.wait().text(), "hello");
}

#[test]
fn a_daemon_serves_root_and_others() {
    on_each(|machine| {
        machine.write("/data/file", "a file\n");
        let daemon = machine.daemon();
        for user in [0, 65534] {
            let command = machine.command("nix-store").args(["--add", "/data/file"]);
            let path = command.env("NIX_REMOTE", "daemon").user(user).ok();
            assert!(path.ends_with("-file"), "{path}");
        }
        // Without being told: who cannot write to the store goes to the daemon.
        let path = machine.command("nix-store").args(["--add", "/data/file"]).user(65534).ok();
        assert!(machine.path(&path).exists());

        // The daemon does not believe a user that it does not trust: no unsigned path.
        let export = machine.command("nix-store").args(["--export", &path]).succeed().stdout;
        machine.command("nix-store").args(["--delete", &path]).ok();
        let import = |user| {
            let command = machine.command("nix-store").arg("--import").stdin(export.clone());
            command.env("NIX_REMOTE", "daemon").user(user).run()
        };
        let refused = import(65534);
        let there = machine.path(&path).exists();
        assert!(!refused.status.success() && !there, "{}", refused.stderr);
        let taken = import(0);
        assert!(taken.status.success(), "{}\n{}", taken.stderr, daemon.log());

        drop(daemon);
        let alone = machine.command("nix-store").args(["--add", "/data/file"]);
        alone.env("NIX_REMOTE", "daemon").fails();
    });
}

#[test]
fn only_an_online_daemon_fetches() {
    on_each(|machine| {
        machine.configure("download-attempts = 1");
        let origin = crossing::origin();
        let build = || {
            crossing::command(&machine, "nix-build", "fod", &origin.url())
                .env("NIX_REMOTE", "daemon")
                .user(65534)
                .current_dir("/tmp")
                .arg("--no-out-link")
        };
        let offline = machine.daemon();
        // Where the client is does not matter.
        build().online().fails();
        assert_eq!(origin.requests(), 0);
        drop(offline);
        let _online = machine.daemon_online();
        let path = build().ok();
        assert_eq!(origin.requests(), 1);
        assert_eq!(machine.read(path), crossing::download());
    });
}

#[test]
fn machines_are_apart_and_the_root_is_read_only() {
    let Some(world) = World::open() else { return };
    let (one, other) =
        (Machine::new(&world, NixVersion::V2_8), Machine::new(&world, NixVersion::V2_8));
    let path = trees::add_large_file(&one, 100_000);
    assert_eq!(one.read(&path).len(), 100_000);
    assert!(!other.path(&path).exists());
    for directory in ["/nix", "/root", "/data", "/tmp", "/etc/nix", "/var/tmp", "/run"] {
        one.command("touch").arg(format!("{directory}/mark")).ok();
        other.command("test").args(["!", "-e", &format!("{directory}/mark")]).ok();
    }
    let outcome = one.command("touch").arg("/etc/mark").fails();
    assert!(outcome.stderr.contains("Read-only file system"), "{}", outcome.stderr);
    let seen = one.command("ls").arg("/proc").ok();
    // The shell that is process 1, and ls.
    assert_eq!(seen.lines().filter(|name| name.parse::<u32>().is_ok()).count(), 2, "{seen}");
}

#[test]
fn a_machine_takes_its_files_and_mounts_along() {
    let Some(world) = World::open() else { return };
    let machine = Machine::new(&world, NixVersion::V2_34);
    trees::add_many_files(&machine, 250, 100);
    let home = machine.path("/nix").parent().map(std::path::Path::to_owned).expect("a parent");
    let daemon = machine.daemon();
    drop(machine);
    assert!(home.exists(), "the daemon keeps its machine");
    drop(daemon);
    assert!(!home.exists());
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("Linux tells its mounts");
    assert!(!mounts.contains(&*home.to_string_lossy()), "{mounts}");
}

#[test]
fn killing_a_command_kills_what_it_started() {
    let Some(world) = World::open() else { return };
    let machine = Machine::new(&world, NixVersion::V2_26);
    let script = "setsid sh -c 'while :; do echo beat >>/data/heart; sleep 0.02; done' & \
                  echo started; wait";
    let mut running = machine.command("sh").args(["-c", script]).spawn();
    assert_eq!(running.next_line().as_deref(), Some("started"));
    let heart = machine.path("/data/heart");
    let size = || std::fs::metadata(&heart).map_or(0, |found| found.len());
    wait_until(|| size() > 0);
    running.kill();
    let then = size();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(size(), then, "what the command started still runs");
}

#[test]
fn a_signal_reaches_the_command_itself() {
    let Some(world) = World::open() else { return };
    let machine = Machine::new(&world, NixVersion::V2_26);
    let mut plain = machine.command("sleep").arg("60").spawn();
    plain.signal(Signal::TERM);
    assert_eq!(plain.wait().code(), 128 + 15);
    let script = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done";
    let mut trapping = machine.command("sh").args(["-c", script]).spawn();
    assert_eq!(trapping.next_line().as_deref(), Some("ready"));
    trapping.signal(Signal::INT);
    let outcome = trapping.wait();
    assert_eq!((outcome.code(), outcome.text().as_str()), (3, "caught"));
}

#[test]
fn commands_get_what_they_are_given() {
    let Some(world) = World::open() else { return };
    let machine = Machine::new(&world, NixVersion::V2_26);
    let env = machine.command("env").env("NAME", "a value").ok();
    let mut names: Vec<_> = env.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort();
    assert_eq!(names, ["HOME", "LC_ALL", "NAME", "PATH", "USER"]);
    let bytes = vec![7; 3_000_000];
    assert_eq!(machine.command("cat").stdin(bytes.clone()).succeed().stdout, bytes);
    machine.command("true").stdin(bytes.clone()).ok();
    machine.write("/data/in", "from a file");
    let open = |inside| std::fs::File::open(machine.path(inside)).expect("the file is there");
    assert_eq!(machine.command("cat").stdin_file(open("/data/in")).ok(), "from a file");
    let out = std::fs::File::create(machine.path("/data/out")).expect("the file can be made");
    assert_eq!(machine.command("pwd").stdout_to(out).ok(), "");
    assert_eq!(machine.read("/data/out"), b"/data\n");
    let ids = machine.command("id").arg("-G").user(65534).ok();
    assert_eq!(ids, "65534");
    let failed = machine.command("sh").args(["-c", "echo why >&2; exit 7"]).fails();
    assert_eq!((failed.code(), failed.stderr.as_str()), (7, "why\n"));
    machine.install("/bin/true", "a-program-of-the-host");
    machine.command("a-program-of-the-host").ok();
}

#[test]
fn a_measure_counts_the_whole_tree_of_processes() {
    let Some(world) = World::open() else { return };
    let machine = Machine::new(&world, NixVersion::V2_26);
    let small = machine.command("true").measure();
    let hungry = "sh -c 'perl -e \"\\$x = q(x) x 300_000_000\"'; sleep 0.2";
    let large = machine.command("sh").args(["-c", hungry]).measure();
    assert!(large.peak_rss > 300_000_000, "{large:?}");
    assert!(small.peak_rss < 100_000_000, "{small:?}");
    assert!(large.wall > Duration::from_millis(200), "{large:?}");
    assert!(small.wall < Duration::from_secs(2), "{small:?}");
}

#[test]
fn a_big_graph_is_the_same_on_every_version() {
    let Some(world) = World::open() else { return };
    let mut seen = Vec::new();
    for version in NixVersion::ALL {
        let machine = Machine::new(&world, version);
        let top = big_graph(&machine, 400);
        let closure = query(&machine, &["--requisites", &top]);
        let count = closure.lines().filter(|path| path.ends_with(".drv")).count();
        assert_eq!(count, 400, "Nix {version}");
        seen.push((version, top));
    }
    for (version, top) in &seen {
        assert_eq!(*top, seen[0].1, "Nix {version}");
    }
}

fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited for ten seconds");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn whoever_tries_to_reach_a_network_offline_is_counted() {
    let Some(world) = World::open() else { return };
    let machine = Machine::new(&world, NixVersion::V2_26);
    let before = machine.network_attempts();
    machine.command("nix-store").arg("--verify").ok();
    assert_eq!(machine.network_attempts(), before);
    for place in ["tcp/127.0.0.1/1", "tcp/192.0.2.1/80", "udp/192.0.2.1/53", "tcp/2001:db8::1/80"] {
        let before = machine.network_attempts();
        machine.command("bash").args(["-c", &format!("exec 3<>/dev/{place}")]).fails();
        assert!(machine.network_attempts() > before, "{place}");
    }
}
