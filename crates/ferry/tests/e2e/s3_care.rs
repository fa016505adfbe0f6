//! Looking after a binary cache in a bucket: what is asked of it, and what real Nix reads then.

use std::collections::BTreeSet;
use std::fs;

use ferry_test_world::{MachineCommand, NixVersion, Relay, S3Server, World, trees};
use serde_json::Value;

use crate::support::{
    Built, all_valid, assert_store_is_whole, closure, ferry, files, generate_key, machine, query,
};

/// A bucket with the closure of something in it, and a line to it on which requests are counted.
struct Bucket {
    world: World,
    built: Built,
    server: S3Server,
    relay: Relay,
    /// How many paths are in it, and the listing of each.
    count: usize,
}

const BUCKET: &str = "cache";

impl Bucket {
    fn new() -> Option<Self> {
        let world = World::open()?;
        let server = S3Server::start()?;
        let built = Built::new(&world, NixVersion::V2_34);
        server.bucket(BUCKET);
        let relay = Relay::start(server.address());
        let mut bucket = Self { world, built, server, relay, count: 0 };
        let machine = &bucket.built.machine;
        let files = (1..=8).map(|number| trees::add_large_file(machine, 1000 * number));
        let to = format!("{}&write-nar-listing=1", bucket.address());
        let copy = ferry(machine, ["copy", &bucket.built.top, "--to", &to]).args(files);
        copy.online().ok();
        bucket.count = closure(machine, &bucket.built.top).len() + 8;
        bucket.relay.take_requests();
        Some(bucket)
    }

    fn address(&self) -> String {
        format!("s3://{BUCKET}/a/b?endpoint={}&region=eu-west-1&compression=zstd", self.relay.url())
    }

    /// `ferry cache …` of the bucket.
    fn care(&self, what: &str, args: &[&str]) -> MachineCommand {
        ferry(&self.built.machine, ["cache", what, &self.address()]).args(args).online()
    }

    /// How often these methods were asked for since this was asked last: `GET` without those that
    /// list, `LIST`, `HEAD`, `PUT`, `DELETE`.
    fn asked<const N: usize>(&self, methods: [&str; N]) -> [usize; N] {
        let requests = self.relay.take_requests();
        let method = |request: &String| match request.contains("list-type=2") {
            true => "LIST".to_owned(),
            false => request.split(' ').next().unwrap().to_owned(),
        };
        let asked: Vec<String> = requests.iter().map(method).collect();
        let known = asked.iter().filter(|method| methods.contains(&method.as_str())).count();
        assert_eq!(known, asked.len(), "{requests:#?}");
        methods.map(|method| asked.iter().filter(|asked| *asked == method).count())
    }

    /// Has a new machine's Nix substitute something, with keys that it trusts.
    fn substitute(&self, path: &str, key: Option<&str>) -> bool {
        let receiver = machine(&self.world, NixVersion::V2_34);
        receiver.configure(&format!("require-sigs = {}", key.is_some()));
        receiver.configure(&format!("trusted-public-keys = {}", key.unwrap_or_default()));
        receiver.configure(&format!("substituters = {}", self.address()));
        let done = receiver.command("nix-store").args(["--realise", path]).online().run();
        if !done.status.success() {
            return false;
        }
        assert_eq!(all_valid(&receiver), closure(&self.built.machine, path));
        assert_store_is_whole(&receiver);
        true
    }
}

fn json(command: MachineCommand) -> Value {
    serde_json::from_slice(&command.arg("--json").run().stdout).expect("it is JSON")
}

#[test]
fn a_bucket_is_verified_by_a_list_and_its_small_files_and_no_nar_is_read_twice() {
    let Some(bucket) = Bucket::new() else { return };
    let count = bucket.count;
    let verify =
        |args: &[&str]| json(bucket.care("verify", &[&["--no-check-sigs"], args].concat()));
    let number = |told: &Value, name: &str| told[name].as_u64().unwrap() as usize;
    let told = verify(&[]);
    assert_eq!((&told["sound"], number(&told, "paths")), (&true.into(), count));
    // Its nix-cache-info, and a narinfo and a listing of each path. Sizes are in the lists: of all
    // files, and of narinfos that wait. Of each NAR that is read, these are read once more.
    let structure = 1 + 2 * count;
    assert_eq!(bucket.asked(["GET", "LIST"]), [structure, 2]);

    let state = ["--state", "/data/state"];
    let sample = verify(&[&["--sample", "50%", "--seed", "1"], &state[..]].concat());
    let sampled = number(&sample, "narsRead");
    assert!(sample["sound"] == true && sampled > 0 && sampled < count, "{sample}");
    assert_eq!(bucket.asked(["GET", "LIST"]), [structure + 3 * sampled, 2]);
    let rest = verify(&[&["--read-data"], &state[..]].concat());
    assert_eq!(number(&rest, "narsReadBefore"), sampled);
    assert_eq!(number(&rest, "narsRead"), count - sampled);
    assert_eq!(bucket.asked(["GET", "LIST"]), [structure + 3 * (count - sampled), 2]);
}

#[test]
fn damage_in_a_bucket_is_found() {
    let Some(bucket) = Bucket::new() else { return };
    let directory = bucket.server.bucket(BUCKET).join("a/b");
    let named = |kind: &str| {
        let files = files(&directory).into_keys().filter(|name| name.contains(kind));
        files.map(|name| directory.join(name)).collect::<Vec<_>>()
    };
    let nars = named("nar/");
    let longest = nars.iter().max_by_key(|nar| fs::metadata(nar).unwrap().len()).unwrap();
    let mut bytes = fs::read(longest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(longest, bytes).unwrap();
    let gone = nars.iter().find(|nar| *nar != longest).unwrap();
    fs::remove_file(gone).unwrap();
    fs::write(directory.join("nar/left.nar.xz"), "left").unwrap();
    let told = json(bucket.care("verify", &["--no-check-sigs", "--read-data"]));
    let kinds = told["faults"].as_array().unwrap().iter().map(|fault| &fault["kind"]);
    let kinds: BTreeSet<&str> = kinds.map(|kind| kind.as_str().unwrap()).collect();
    let expected = ["no-nar", "orphan-nar", "wrong-file-hash"];
    assert!(expected.iter().all(|kind| kinds.contains(kind)), "{told}");
}

#[test]
fn what_is_signed_in_a_bucket_nix_takes_and_nothing_is_put_again() {
    let Some(bucket) = Bucket::new() else { return };
    let count = bucket.count;
    let key = generate_key(&bucket.built.machine, "harbour-1");
    let top = &bucket.built.top;
    assert!(!bucket.substitute(top, Some(&key.public)));
    bucket.relay.take_requests();
    let done = json(bucket.care("sign", &["--all", "-k", &key.secret]));
    assert_eq!(done["changed"].as_u64(), Some(count as u64));
    // Its nix-cache-info, and each narinfo once.
    assert_eq!(bucket.asked(["GET", "LIST", "PUT"]), [1 + count, 1, count]);
    assert!(bucket.substitute(top, Some(&key.public)));
    bucket.relay.take_requests();
    let again = json(bucket.care("sign", &["--all", "-k", &key.secret]));
    assert_eq!(again["changed"].as_u64(), Some(0));
    assert_eq!(bucket.asked(["GET", "LIST"]), [1 + count, 1]);
    bucket.care("verify", &["--trusted-public-key", &key.public]).ok();
    bucket.care("verify", &[]).fails();
}

#[test]
fn what_is_pruned_from_a_bucket_goes_in_two_phases_and_nix_reads_what_stays() {
    let Some(bucket) = Bucket::new() else { return };
    let Built { machine, top, .. } = &bucket.built;
    let below = query(machine, &["--requisites", top]);
    let below = below.iter().find(|path| *path != top).unwrap();
    let stays = closure(machine, below).len();
    let directory = bucket.server.bucket(BUCKET).join("a/b");
    let nars = || files(&directory).keys().filter(|name| name.starts_with("nar/")).count();
    let before = nars();
    let now = ["--keep", below, "--older-than", "0"];
    let first = json(bucket.care("prune", &now));
    assert_eq!(first["removed"]["paths"].as_array().unwrap().len(), bucket.count - stays);
    // Each narinfo once, though it looks twice. Those that go, their listings, its own mark.
    let [got, _, _, deleted] = bucket.asked(["GET", "LIST", "PUT", "DELETE"]);
    assert_eq!((got, deleted), (1 + bucket.count, 2 * (bucket.count - stays) + 1));
    // The narinfos are gone, and the NARs wait for those who have read them.
    assert_eq!(nars(), before);
    assert!(!bucket.substitute(top, None) && bucket.substitute(below, None));
    bucket.relay.take_requests();
    let second = json(bucket.care("prune", &[&now[..], &["--grace", "0"]].concat()));
    let gone = second["removed"]["nars"]["files"].as_u64().unwrap();
    assert_eq!(nars() as u64, before as u64 - gone);
    assert!(gone > 0 && second["removed"]["paths"] == Value::Array(Vec::new()), "{second}");
    // And what it had noted about them.
    let [got, _, _, deleted] = bucket.asked(["GET", "LIST", "PUT", "DELETE"]);
    assert_eq!((got, deleted as u64), (1 + stays + 1, gone + 2));
    assert!(bucket.substitute(below, None));
    bucket.care("verify", &["--no-check-sigs", "--read-data"]).ok();
}

#[test]
fn a_bucket_is_listed_and_asked_for_what_is_missing() {
    let Some(bucket) = Bucket::new() else { return };
    let Built { machine, derivation, top, .. } = &bucket.built;
    let listed = |args: &[&str]| -> BTreeSet<String> {
        let told = json(bucket.care("index", args));
        let entries = told["paths"].as_array().unwrap().iter();
        entries.map(|entry| entry["path"].as_str().unwrap().to_owned()).collect()
    };
    let all = listed(&["--write"]);
    assert!(all.len() == bucket.count && all.contains(top), "{all:?}");
    // Besides the narinfos, its nix-cache-info, and the index that is not there yet.
    assert_eq!(bucket.asked(["GET", "LIST", "PUT"]), [2 + bucket.count, 1, 1]);
    assert_eq!(listed(&[]), all);
    // What came in the second in which it was made is read again.
    let [got, listings] = bucket.asked(["GET", "LIST"]);
    assert!(got < 2 + bucket.count && listings == 1, "{got}");
    assert_eq!(listed(&["crossing-c"]), BTreeSet::from([top.clone()]));
    bucket.relay.take_requests();

    let address = bucket.address();
    let missing = ["missing", derivation, "--in", &address, "--no-check-sigs"];
    let told = json(ferry(machine, missing).online());
    let there = closure(machine, top).len();
    assert_eq!((told["there"].as_u64(), told["missing"].as_u64()), (Some(there as u64), Some(0)));
    assert_eq!(bucket.asked(["GET"]), [1 + there]);
    let nowhere = ["missing", &bucket.built.fod, "--in", &address, "--no-check-sigs"];
    ferry(machine, nowhere).online().fails();
}
