//! Caches in buckets of a real server that speaks S3.

use std::fs;

use ferry_cache::{BinaryCache, CacheAddress};
use ferry_formats::StoreDir;
use ferry_store::http::{HttpOptions, S3Credentials, S3Options};
use ferry_store::progress::Silent;
use ferry_store::{Error, Store, copy};
use ferry_test_world::{Answer, Fault, Origin, Relay, S3Server};

use crate::support::{
    Objects, address, all, copy_all, count_whole, files, impatient, named, new_store, noise, open,
    some_objects,
};

const KEY: (&str, &str) = ("AKIATEST", "a secret / with + signs =");

/// The cache in a bucket, asked with a secret.
fn open_with(secret: &str, address: &str) -> BinaryCache {
    let credentials = S3Credentials::Keys {
        access_key_id: KEY.0.to_owned(),
        secret_access_key: secret.to_owned(),
        session_token: None,
    };
    let options = HttpOptions { s3: S3Options { region: None, credentials }, ..impatient() };
    BinaryCache::new(&CacheAddress::parse(address).unwrap(), &StoreDir::default(), &options)
        .unwrap()
}

/// What came of it, as it would be shown.
fn message<T>(outcome: Result<T, Error>) -> String {
    outcome.err().unwrap().to_string()
}

#[test]
fn a_bucket_holds_the_bytes_that_a_directory_holds_and_is_read_as_one() {
    let Some(server) = S3Server::with_keys(KEY.0, KEY.1) else { return };
    let objects = some_objects();
    let store = objects.store();
    let directory = tempfile::tempdir().unwrap();
    let parameters = "compression=zstd&write-nar-listing=1&priority=7";
    copy_all(&store, &open(&address(directory.path(), parameters))).unwrap();
    for prefix in ["", "/some/where"] {
        let bucket = server.bucket("cache");
        let text = format!("s3://cache{prefix}?endpoint={}&{parameters}", server.url());
        let cache = open_with(KEY.1, &text);
        let report = copy_all(&store, &cache).unwrap();
        assert_eq!((report.added, report.present), (5, 0));
        let below = bucket.join(prefix.trim_start_matches('/'));
        assert!(files(&below) == files(directory.path()), "{prefix}");

        let again = copy_all(&store, &open_with(KEY.1, &text)).unwrap();
        assert_eq!((again.added, again.present), (0, 5));
        let root = tempfile::tempdir().unwrap();
        copy_all(&open_with(KEY.1, &text), &new_store(root.path())).unwrap();
        assert_eq!(all(&new_store(root.path())), all(&store), "{prefix}");
        fs::remove_dir_all(bucket).unwrap();
    }
}

#[test]
fn a_large_file_goes_in_parts_and_none_of_them_is_left() {
    let Some(server) = S3Server::with_keys(KEY.0, KEY.1) else { return };
    let mut objects = Objects::new();
    objects.add("large", &noise(40 << 20), &[]);
    objects.add("top", b"on top", &["large"]);
    let store = objects.store();
    let bucket = server.bucket("cache");
    let text = format!("s3://cache?endpoint={}&compression=none", server.url());
    copy_all(&store, &open_with(KEY.1, &text)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    copy_all(&store, &open(&address(directory.path(), "compression=none"))).unwrap();
    assert!(files(&bucket) == files(directory.path()));
    let root = tempfile::tempdir().unwrap();
    copy_all(&open_with(KEY.1, &text), &new_store(root.path())).unwrap();
    assert_eq!(all(&new_store(root.path())), all(&store));
}

#[test]
fn an_address_says_how_large_parts_are_and_what_goes_in_some() {
    let Some(server) = S3Server::start() else { return };
    server.bucket("cache");
    let mut objects = Objects::new();
    objects.add("large", &noise(11 << 20), &[]);
    let relay = Relay::start(server.address());
    for (parameters, parts) in [
        ("multipart-upload=true", 2),
        ("multipart-chunk-size=5242880", 3),
        ("buffer-size=5242880&multipart-threshold=5242880", 3),
        ("multipart-threshold=20971520", 0),
    ] {
        fs::remove_dir_all(server.bucket("cache")).unwrap();
        server.bucket("cache");
        let text = format!("s3://cache?endpoint={}&compression=none&{parameters}", relay.url());
        copy_all(&objects.store(), &open(&text)).unwrap();
        let requests = relay.take_requests();
        let put = requests.iter().filter(|request| request.contains("partNumber="));
        assert_eq!(put.count(), parts, "{parameters}: {requests:#?}");
    }
}

#[test]
fn who_asks_with_a_wrong_secret_or_none_is_told_so_and_no_secret_is_shown() {
    let Some(server) = S3Server::with_keys(KEY.0, KEY.1) else { return };
    let bucket = server.bucket("cache");
    let objects = some_objects();
    let store = objects.store();
    let text = format!("s3://cache?endpoint={}", server.url());
    let wrong = message(copy_all(&store, &open_with("another secret", &text)));
    assert!(wrong.contains("S3 answers 403 SignatureDoesNotMatch"), "{wrong}");
    assert!(wrong.contains(&format!("GET {}/cache/nix-cache-info", server.url())), "{wrong}");
    let nobody = message(copy_all(&store, &open(&text)));
    assert!(nobody.contains("S3 answers 403 AccessDenied"), "{nobody}");
    for said in [wrong, nobody] {
        assert!(!said.contains("secret /") && !said.contains("another"), "{said}");
    }
    assert!(files(&bucket).is_empty());
    let empty = message(all_paths(&open_with(KEY.1, &text)));
    assert!(empty.contains("it has no `nix-cache-info`"), "{empty}");
}

/// A server that answers as Amazon's does; the real one of these tests makes the bucket instead.
#[test]
fn a_bucket_that_is_not_there_or_elsewhere_is_no_empty_bucket() {
    let objects = some_objects();
    let origin = Origin::start();
    let answers = [
        ("404 Not Found", "<Code>NoSuchBucket</Code><Message>It does not exist</Message>"),
        ("301 Moved Permanently", "<Code>PermanentRedirect</Code><Endpoint>eu.host</Endpoint>"),
        ("403 Forbidden", "<Code>AccessDenied</Code><Message>Access Denied</Message>"),
        ("400 Bad Request", "<Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region>"),
        ("200 OK", ""),
    ];
    let said = [
        "S3 answers 404 NoSuchBucket: It does not exist",
        "S3 answers 301 PermanentRedirect: (Endpoint: eu.host)",
        "S3 answers 403 AccessDenied: Access Denied",
        "S3 answers 400 AuthorizationHeaderMalformed: (Region: eu-west-1)",
    ];
    for (status, body) in answers {
        let body = format!("<?xml version=\"1.0\"?><Error>{body}</Error>").into_bytes();
        origin.answer_next("/b/nix-cache-info", Answer::Status(status, Vec::new(), body));
    }
    let cache = open(&format!("s3://b?endpoint={}", origin.url()));
    for said in said {
        let error = message(copy_all(&objects.store(), &cache));
        assert!(error.contains(said), "{error}");
    }
    // Of all else, "access denied" is what it is told who may not list the bucket.
    let name = ferry_formats::narinfo::file_name(&crate::support::path("top"));
    let denied = b"<Error><Code>AccessDenied</Code></Error>".to_vec();
    origin.answer_next(&format!("/b/{name}"), Answer::Status("403 Forbidden", Vec::new(), denied));
    assert!(cache.path_info(&crate::support::path("top")).unwrap().is_none());
}

fn all_paths(cache: &BinaryCache) -> Result<usize, Error> {
    Ok(cache.all_paths()?.unwrap().len())
}

#[test]
fn a_bucket_with_more_files_than_a_page_is_listed_to_its_end() {
    let Some(server) = S3Server::start() else { return };
    let mut objects = Objects::new();
    for number in 0..1100 {
        objects.add(&format!("{number}-p"), number.to_string().as_bytes(), &[]);
    }
    let directory = tempfile::tempdir().unwrap();
    let place = address(directory.path(), "compression=none");
    copy_all(&objects.store(), &open(&place)).unwrap();
    // Below a prefix, beside others that are none of it.
    let bucket = server.bucket("cache");
    fs::create_dir_all(bucket.join("a")).unwrap();
    let moved = std::process::Command::new("cp")
        .args(["-rT".as_ref(), directory.path().as_os_str(), bucket.join("a/b").as_os_str()])
        .status();
    assert!(moved.unwrap().success());
    fs::write(bucket.join("a/bc"), "something else").unwrap();
    let cache = open(&format!("s3://cache/a/b?endpoint={}", server.url()));
    assert_eq!(cache.all_paths().unwrap(), open(&place).all_paths().unwrap());
}

#[test]
fn a_server_that_is_too_busy_is_asked_again_and_not_for_ever() {
    let Some(server) = S3Server::start() else { return };
    server.bucket("cache");
    let relay = Relay::start(server.address());
    let objects = some_objects();
    let store = objects.store();
    let text = format!("s3://cache?endpoint={}&compression=none", relay.url());
    for _ in 0..4 {
        relay.next(Fault::SlowDown);
    }
    copy_all(&store, &open(&text)).unwrap();
    for _ in 0..4 {
        relay.next(Fault::SlowDown);
    }
    let root = tempfile::tempdir().unwrap();
    copy_all(&open(&text), &new_store(root.path())).unwrap();
    assert_eq!(all(&new_store(root.path())), all(&store));

    let before = relay.connections();
    relay.always(Some(Fault::SlowDown));
    let said = message(all_paths(&open(&text)));
    let expected = "/cache/nix-cache-info: S3 answers 503 SlowDown: Please reduce your request \
                    rate. (5 attempts)";
    assert!(said.contains(expected), "{said}");
    assert_eq!(relay.connections() - before, 5);
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_was() {
    let Some(server) = S3Server::start() else { return };
    server.bucket("cache");
    let mut objects = Objects::new();
    objects.add("large", &noise(20 << 20), &[]);
    let store = objects.store();
    let direct = format!("s3://cache?endpoint={}&compression=none", server.url());
    copy_all(&store, &open(&direct)).unwrap();
    let relay = Relay::start(server.address());
    let infos = named(&store, "large");
    let bad = open(&direct.replace(&server.url(), &relay.url()));
    // The small files are fetched over whole connections.
    bad.path_infos(&[crate::support::path("large")]).unwrap();
    relay.always(Some(Fault::CutAfter(7 << 20)));
    let before = relay.connections();
    let root = tempfile::tempdir().unwrap();
    copy(&bad, &new_store(root.path()), infos.clone(), &[], &Silent).unwrap();
    assert_eq!(all(&new_store(root.path())), infos);
    assert!(relay.connections() - before <= 4, "it began anew each time");
}

#[test]
fn a_copy_over_a_line_that_breaks_in_the_middle_of_everything_arrives_whole() {
    let Some(server) = S3Server::start() else { return };
    let bucket = server.bucket("cache");
    let relay = Relay::start(server.address());
    let mut objects = some_objects();
    objects.add("huge", &noise(20 << 20), &["top"]);
    let store = objects.store();
    let text = format!("s3://cache?endpoint={}&compression=none", relay.url());
    // Breaks inside of the heads of answers, after whatever was asked has been done.
    for bytes in [1, 40, 100, 1, 300, 17, 1, 90, 200, 1] {
        relay.next(Fault::CutAfter(bytes));
    }
    let options = HttpOptions { retries: 20, ..impatient() };
    let place = CacheAddress::parse(&text).unwrap();
    let cache = BinaryCache::new(&place, &StoreDir::default(), &options).unwrap();
    copy_all(&store, &cache).unwrap();
    let directory = tempfile::tempdir().unwrap();
    copy_all(&store, &open(&address(directory.path(), "compression=none"))).unwrap();
    assert!(files(&bucket) == files(directory.path()));
}

#[test]
fn a_server_that_goes_away_leaves_what_is_whole_and_the_next_copy_goes_on() {
    let Some(server) = S3Server::start() else { return };
    let bucket = server.bucket("cache");
    let relay = Relay::start(server.address());
    let mut objects = Objects::new();
    for number in 0..120_u32 {
        let below = format!("p{}", number.saturating_sub(1));
        let references: &[&str] = if number == 0 { &[] } else { &[&below] };
        objects.add(&format!("p{number}"), &number.to_le_bytes(), references);
    }
    let store = objects.store();
    let text = format!("s3://cache?endpoint={}&compression=none", relay.url());
    // Every connection ends after some answers, and at some point there are no others.
    relay.always(Some(Fault::CutAfter(4000)));
    let options = HttpOptions { retries: 0, ..impatient() };
    let place = CacheAddress::parse(&text).unwrap();
    let cache = BinaryCache::new(&place, &StoreDir::default(), &options).unwrap();
    let failed = copy_all(&store, &cache);
    assert!(failed.is_err());
    count_whole(&bucket);
    relay.always(None);
    let report = copy_all(&store, &open(&text)).unwrap();
    assert_eq!(report.added + report.present, 120);
    assert_eq!(count_whole(&bucket), 120);
}
