//! Those who mean harm: bundles made for it, and somebody else at the daemon's socket.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use ferry_test_world::Machine;
use tempfile::TempDir;

use self::builder::Draft;
use self::objects::{Object, any_path, sample};
use self::wire::Wire;
use crate::bad_input::{Unharmed, assert_fails};
use crate::support::{ferry, on_each, shell};

#[path = "../../../ferry-bundle/tests/bundle/builder.rs"]
#[allow(dead_code, reason = "shared with the tests of the bundle")]
mod builder;
#[path = "../../../ferry-bundle/tests/bundle/objects.rs"]
#[allow(dead_code, reason = "shared with the tests of the bundle")]
mod objects;
#[path = "../../../ferry-bundle/tests/bundle/wire.rs"]
#[allow(dead_code, reason = "shared with the tests of the bundle")]
mod wire;

/// NARs that break a rule, and what is wrong with each.
fn malformed() -> Vec<(&'static str, Wire)> {
    let file = |wire: Wire| wire.file(b"x");
    let named = |name: &[u8]| Wire::new().directory(|inside| inside.entry(name, file));
    let through_link = Wire::new().directory(|inside| {
        inside
            .entry(b"a", |node| node.symlink(b"../../../data"))
            .entry(b"a", |node| node.directory(|inside| inside.entry(b"canary", file)))
    });
    let below_link = Wire::new().directory(|inside| {
        inside.entry(b"a", |node| node.symlink(b"/data")).entry(b"a/canary", file)
    });
    let unsorted = Wire::new().directory(|inside| inside.entry(b"b", file).entry(b"a", file));
    let twice = Wire::new().directory(|inside| inside.entry(b"a", file).entry(b"a", file));
    let mut deep = Wire::new();
    for _ in 0..5000 {
        deep = deep.words(&["(", "type", "directory", "entry", "(", "name", "d", "node"]);
    }
    deep = (0..5000).fold(deep.file(b""), |wire, _| wire.words(&[")", ")"]));
    let mut padded = Wire::new().file(b"padded");
    let at = padded.0.windows(6).position(|bytes| bytes == b"padded").unwrap();
    padded.0[at + 6] = 1;
    let mut endless = Wire::new().words(&["(", "type", "regular", "contents"]);
    endless.0.extend(u64::MAX.to_le_bytes());
    let mut trailing = Wire::new().file(b"x");
    trailing.0.extend([0; 8]);
    let mut cut = Wire::new().file(b"a file that is cut");
    cut.0.truncate(cut.0.len() - 16);
    vec![
        ("parent", named(b"..")),
        ("itself", named(b".")),
        ("nameless", named(b"")),
        ("absolute", named(b"/data/canary")),
        ("below", named(b"../../../data/canary")),
        ("nul", named(b"a\0b")),
        ("through-link", through_link),
        ("below-link", below_link),
        ("unsorted", unsorted),
        ("twice", twice),
        ("deep", deep),
        ("padding", padded),
        ("endless", endless),
        ("trailing", trailing),
        ("cut", cut),
        ("target-nul", Wire::new().symlink(b"a\0b")),
        ("no-target", Wire::new().symlink(b"")),
        ("device", Wire::new().words(&["(", "type", "device", ")"])),
        (
            "executable-twice",
            Wire::new()
                .words(&["(", "type", "regular", "executable", "", "executable", ""])
                .words(&["contents", "x", ")"]),
        ),
        ("no-nar", Wire(b"nothing of the kind".to_vec())),
    ]
}

/// Every file of the machine's own outside its store.
fn surroundings(machine: &Machine) -> String {
    let places = "/data /root /tmp /etc/nix /opt /nix/var/nix/profiles /nix/var/nix/gcroots";
    shell(machine, &format!("ls -d /nix/* /*; find {places} -printf '%p %y %m %s\\n' | sort")).ok()
}

#[test]
fn a_nar_made_to_do_harm_gets_into_no_store_whoever_would_unpack_it() {
    on_each(|_, machine| {
        machine.write("/data/canary", "alive");
        for (name, nar) in malformed() {
            let object = Object::output(&any_path(name, name), nar.0, &[]);
            machine.write(format!("/data/{name}.ferry"), Draft::of(&[object]).build());
        }
        let _daemon = machine.daemon();
        let unharmed = Unharmed::watch(&machine);
        let before = surroundings(&machine);
        for (name, _) in malformed() {
            let bundle = format!("/data/{name}.ferry");
            let words = [&*format!("-{name}: malformed NAR: ")];
            assert_fails(ferry(&machine, ["verify", &bundle]), 1, &words);
            for to in ["local", "daemon"] {
                let load = ["load", &bundle, "--to", to, "--no-root", "--no-check-sigs"];
                assert_fails(ferry(&machine, load), 1, &words);
                unharmed.check(&format!("{name}, {to}"));
                assert_eq!(surroundings(&machine), before, "{name}, {to}");
            }
        }
    });
}

#[test]
fn a_name_of_a_root_leads_nowhere_else() {
    on_each(|_, machine| {
        // The root of a bundle decides what the link is called, unless the user does.
        let object = Object::text("..x", b"text", &[]);
        machine.write("/data/x.ferry", Draft::of(std::slice::from_ref(&object)).build());
        let load = |args: &[&str]| {
            ferry(&machine, ["load", "/data/x.ferry", "--to", "/data/island"]).args(args)
        };
        for name in ["..", ".", "", "../../../../../data/out", "/data/out", ".hidden"] {
            assert_fails(load(&["--root", name]), 2, &["cannot be the name of a root"]);
        }
        assert!(!machine.path("/data/island").exists());
        assert!(!machine.path("/data/out").exists());
    });
}

/// Somebody at a socket who says what they are told to, one script for each connection, and then
/// nothing more.
struct Impostor {
    directory: TempDir,
}

impl Impostor {
    fn saying(scripts: Vec<Vec<u8>>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let talk = |mut stream: UnixStream, script: Vec<u8>| {
            // Who is spoken to may hang up at any word.
            let _ = stream.write_all(&script);
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        };
        thread::spawn(move || {
            for (stream, script) in listener.incoming().zip(scripts) {
                let stream = stream.unwrap();
                thread::spawn(move || talk(stream, script));
            }
        });
        fs::write(directory.path().join("x.ferry"), Draft::of(&sample()).build()).unwrap();
        Self { directory }
    }

    fn ferry(&self, args: &[&str]) -> Output {
        let home = self.directory.path();
        // Waiting for what does not come would end with code 124.
        let mut command = Command::new("timeout");
        command.arg("60").arg(env!("CARGO_BIN_EXE_ferry")).args(args);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home).current_dir(home);
        command.output().unwrap()
    }

    fn address(&self) -> String {
        format!("unix://{}", self.directory.path().join("socket").display())
    }

    /// Packing from there, and what is said about it.
    #[track_caller]
    fn packing_fails(&self, words: &str) {
        let path = sample()[0].rendered();
        let address = self.address();
        let args = ["pack", &path, "--set", "runtime", "-o", "out.ferry", "--store", &address];
        self.says(&self.ferry(&args), words);
        assert!(!self.directory.path().join("out.ferry").exists());
    }

    /// Loading there, likewise.
    #[track_caller]
    fn loading_fails(&self, words: &str) {
        let args = ["load", "x.ferry", "--no-root", "--to", &self.address()];
        self.says(&self.ferry(&args), words);
    }

    #[track_caller]
    fn says(&self, output: &Output, words: &str) {
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(words), "`{words}` is not in: {stderr}");
        assert!(stderr.contains("the Nix daemon at "), "{stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains('\u{1b}'), "{stderr:?}");
        assert!(stderr.len() < 4096, "{} bytes of message", stderr.len());
        let names = crate::bad_input::names(Path::new(self.directory.path()));
        assert_eq!(names, ["socket", "x.ferry"]);
    }
}

const MAGIC: u64 = 0x6478_696f;
const LAST: u64 = 0x616c_7473;
const NEXT: u64 = 0x6f6c_6d67;
const ERROR: u64 = 0x6378_7470;
const RESULT: u64 = 0x5253_4c54;

/// Words of the protocol.
#[derive(Clone, Default)]
struct Words(Vec<u8>);

impl Words {
    /// The greeting of protocol `1.minor`, and consent to the options.
    fn greeting(minor: u64) -> Self {
        let greeting = Self::default().numbers(&[MAGIC, (1 << 8) | minor]).string(b"2.99");
        greeting.numbers(&[1, LAST, LAST])
    }

    fn numbers(mut self, numbers: &[u64]) -> Self {
        self.0.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        self
    }

    fn string(mut self, bytes: &[u8]) -> Self {
        self = self.numbers(&[bytes.len() as u64]);
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        self
    }

    /// An error: type, level, name, message, no position, these traces.
    fn error(self, message: &[u8], traces: &[&[u8]]) -> Self {
        let error = self.numbers(&[ERROR]).string(b"Error").numbers(&[0]).string(b"Error");
        let error = error.string(message).numbers(&[0, traces.len() as u64]);
        traces.iter().fold(error, |error, trace| error.numbers(&[0]).string(trace))
    }
}

#[test]
fn who_does_not_greet_like_a_daemon_is_not_taken_for_one() {
    let greeting = |numbers: &[u64]| Words::default().numbers(numbers);
    for (said, words) in [
        (Words::default(), "it closed the connection"),
        (Words(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), "it greets with 0x312e312f50545448"),
        (greeting(&[MAGIC]), "it closed the connection"),
        (greeting(&[0, 0x126]), "it greets with 0x0"),
        (greeting(&[MAGIC, 0x114]), "it speaks protocol 1.20; Nix 2.8"),
        (greeting(&[MAGIC, 0x121]), "it speaks protocol 1.33; Nix 2.8"),
        (greeting(&[MAGIC, 0x226]), "it speaks protocol 2.38"),
        (greeting(&[MAGIC, u64::MAX]), "it speaks protocol"),
        (greeting(&[MAGIC, 0x123, u64::MAX]), "a string of 18446744073709551615 bytes"),
        (greeting(&[MAGIC, 0x123, 1 << 32]), "a string of 4294967296 bytes"),
        (greeting(&[MAGIC, 0x126, u64::MAX]), "a list of 18446744073709551615 strings"),
        (greeting(&[MAGIC, 0x123, 1, u64::MAX]), "padding that is not zero"),
        (greeting(&[MAGIC, 0x123]).string(b"2.99"), "it closed the connection"),
    ] {
        Impostor::saying(vec![said.0.clone()]).packing_fails(words);
        Impostor::saying(vec![said.0]).loading_fails(words);
    }
}

#[test]
fn what_no_daemon_would_answer_is_an_error() {
    let greeting = || Words::greeting(35);
    let red = &b"\x1b[31;1mno\x1b[0m such luck"[..];
    let long = vec![b'x'; 1 << 20];
    for (said, words) in [
        (greeting().numbers(&[0xdead_beef]), "a message of the unknown type 0xdeadbeef"),
        (greeting().error(red, &[b"while trying"]), "says: no such luck\n  while trying"),
        (greeting().numbers(&[ERROR, u64::MAX]), "a string of 18446744073709551615 bytes"),
        (greeting().error(b"", &[]).numbers(&[7]), "says: "),
        (greeting().numbers(&[NEXT]).string(b"log"), "it closed the connection"),
        (greeting().numbers(&[RESULT, 1, 100, 1, 9]), "a log field of the unknown type 9"),
        (greeting().numbers(&[RESULT, 1, 100, u64::MAX, 0, 0]), "it closed the connection"),
        (greeting().numbers(&[LAST]), "it closed the connection"),
        (greeting().numbers(&[LAST, 1]).string(&long), "it closed the connection"),
        (greeting().numbers(&[LAST, 1, 0]).string(b"crc32:x").numbers(&[u64::MAX]), "a list of"),
        (
            greeting().numbers(&[LAST, 1, 0]).string(b"md5:x").numbers(&[0, 0, 0, 0, 0, 0]),
            "NAR hash of /nix/store/",
        ),
        (
            greeting().numbers(&[LAST, 1]).string(b"/etc/passwd").numbers(&[0; 8]),
            "NAR hash of /nix/store/",
        ),
    ] {
        Impostor::saying(vec![said.0.clone()]).packing_fails(words);
        Impostor::saying(vec![said.0]).loading_fails(words);
    }
}

#[test]
fn a_daemon_that_ends_while_it_is_given_paths_is_an_error() {
    // Nothing of the sample is there; then there is a second conversation, for the paths.
    let nothing = Words::greeting(35).numbers(&[LAST, 0].repeat(sample().len()));
    for (said, words) in [
        (Words::greeting(35), "it closed the connection"),
        (Words::greeting(35).error(b"the disk is full", &[]), "says: the disk is full"),
        (Words::greeting(35).numbers(&[1]), "a message of the unknown type 0x1"),
        (Words::greeting(35).numbers(&[NEXT, 1 << 40]), "a string of 1099511627776 bytes"),
        (Words::greeting(20), "it speaks protocol 1.20"),
    ] {
        Impostor::saying(vec![nothing.0.clone(), said.0]).loading_fails(words);
    }
}

#[test]
fn a_nar_that_is_not_the_one_on_record_is_not_packed() {
    let object = &sample()[0];
    let told = |nar_size: u64| {
        Words::greeting(35)
            .numbers(&[LAST, 1])
            .string(b"")
            .string(object.info.nar_hash.to_base16().as_bytes())
            .numbers(&[0, 0, nar_size, 0, 0])
            .string(b"")
    };
    // One conversation for questions, one that keeps the collector away.
    let kept = Words::greeting(35).numbers(&[LAST, 1]);
    let path = object.rendered();
    let size = object.nar.len() as u64;
    for (told, nar) in [
        (told(size), &object.nar[..40]),
        (told(size), &[&object.nar[..], b"more"].concat()[8..]),
        (told(size + 800), &object.nar),
        (told(size - 8), &object.nar),
        (told(u64::MAX), &object.nar),
    ] {
        let again = Words(told.0[Words::greeting(35).0.len()..].to_vec());
        let mut talk = [&told.0[..], &again.0, &LAST.to_le_bytes()].concat();
        talk.extend(nar);
        let impostor = Impostor::saying(vec![talk, kept.0.clone()]);
        let address = impostor.address();
        let args = ["pack", &path, "--set", "runtime", "-o", "out.ferry", "--store", &address];
        let output = impostor.ferry(&args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("ferry: error: "), "{stderr}");
        assert!(!impostor.directory.path().join("out.ferry").exists());
    }
}
