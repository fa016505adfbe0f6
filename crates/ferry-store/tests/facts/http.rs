//! The client: what it retries, what it does not, and what it says.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use ferry_store::http::{HttpClient, HttpError, HttpOptions, HttpProxy};
use ferry_test_world::{Answer, Origin};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::{hasty, impatient};

const LIMIT: u64 = 1000;

fn get(options: &HttpOptions, url: &str) -> Result<Vec<u8>, HttpError> {
    HttpClient::new(options).unwrap().get(url, LIMIT)
}

fn status(line: &'static str) -> Answer {
    Answer::Status(line, Vec::new(), format!("about {line}\n").into())
}

#[test]
fn one_connection_serves_request_after_request_those_without_an_answer_included() {
    let origin = Origin::start();
    origin.serve("/file", "contents");
    let client = HttpClient::new(&impatient()).unwrap();
    for _ in 0..5 {
        assert_eq!(client.get(&format!("{}/file", origin.url()), LIMIT).unwrap(), b"contents");
        let error = client.get(&format!("{}/absent", origin.url()), LIMIT).unwrap_err();
        assert_eq!(error.status(), Some(404));
    }
    assert_eq!((origin.requests(), origin.connections()), (10, 1));
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    for answer in [
        status("500 Internal Server Error"),
        status("503 Service Unavailable"),
        status("429 Too Many Requests"),
        status("408 Request Timeout"),
        Answer::Cut,
    ] {
        let origin = Origin::start();
        origin.serve("/file", "contents");
        origin.answer_next("/file", answer.clone());
        origin.answer_next("/file", answer.clone());
        let found = get(&impatient(), &format!("{}/file", origin.url()));
        assert_eq!(found.unwrap(), b"contents", "{answer:?}");
        assert_eq!(origin.requests_for("/file"), 3, "{answer:?}");
    }
}

#[test]
fn a_server_that_says_nothing_is_asked_again() {
    let origin = Origin::start();
    origin.serve("/file", "contents");
    (0..2).for_each(|_| origin.answer_next("/file", Answer::Silence));
    assert_eq!(get(&hasty(), &format!("{}/file", origin.url())).unwrap(), b"contents");
    assert!(origin.requests_for("/file") >= 3);
}

#[test]
fn a_server_that_stays_in_trouble_is_named_with_what_it_says() {
    let origin = Origin::start();
    let url = format!("{}/file", origin.url().replace("://", "://name:secret@"));
    for _ in 0..5 {
        let answer = b"\x1b[31mout of order".to_vec();
        origin.answer_next("/file", Answer::Status("502 Bad Gateway", Vec::new(), answer));
    }
    let message = get(&impatient(), &url).unwrap_err().to_string();
    assert_eq!(origin.requests_for("/file"), 5);
    for part in [
        &format!("{}/file", origin.url()),
        "502 Bad Gateway",
        "5 attempts",
        r"`\u{1b}[31mout of order`",
    ] {
        assert!(message.contains(part), "no {part} in {message}");
    }
    assert!(!message.contains("secret"), "{message}");
}

#[test]
fn a_server_that_goes_on_saying_nothing_is_given_up() {
    let origin = Origin::start();
    let options = HttpOptions { retries: 1, ..hasty() };
    (0..2).for_each(|_| origin.answer_next("/file", Answer::Silence));
    let error = get(&options, &format!("{}/file", origin.url())).unwrap_err();
    assert!(matches!(error, HttpError::NoAnswer { attempts: 2, .. }), "{error}");
    assert!(error.to_string().contains("no answer in time"), "{error}");
}

#[test]
fn how_long_the_server_asks_to_wait_has_a_limit() {
    let origin = Origin::start();
    origin.serve("/file", "contents");
    let later = vec![("Retry-After", "1000000".to_owned())];
    let answer = Answer::Status("503 Service Unavailable", later, Vec::new());
    origin.answer_next("/file", answer);
    // This ends.
    assert_eq!(get(&impatient(), &format!("{}/file", origin.url())).unwrap(), b"contents");
}

#[test]
fn what_no_wait_can_mend_is_asked_for_once() {
    let origin = Origin::start();
    for line in [
        "400 Bad Request",
        "401 Unauthorized",
        "403 Forbidden",
        "404 Not Found",
        "410 Gone",
        "501 Not Implemented",
        "511 Network Authentication Required",
        "204 No Content",
    ] {
        let path = format!("/{}", &line[..3]);
        origin.answer_next(&path, status(line));
        let error = get(&impatient(), &format!("{}{path}", origin.url())).unwrap_err();
        assert_eq!(error.status(), line[..3].parse().ok(), "{error}");
        assert_eq!(origin.requests_for(&path), 1, "{line}");
    }
    // Nor can it mend what is no HTTP.
    origin.answer_next("/odd", Answer::Status("banana", Vec::new(), Vec::new()));
    let error = get(&impatient(), &format!("{}/odd", origin.url())).unwrap_err();
    assert!(matches!(error, HttpError::NoAnswer { attempts: 1, .. }), "{error}");
}

#[test]
fn redirects_are_followed_and_circles_end() {
    let (origin, other) = (Origin::start(), Origin::start());
    other.serve("/there", "contents");
    let to = |url: String| Answer::Status("302 Found", vec![("Location", url)], Vec::new());
    origin.answer_next("/here", to(format!("{}/there", other.url())));
    assert_eq!(get(&impatient(), &format!("{}/here", origin.url())).unwrap(), b"contents");

    (0..100).for_each(|_| origin.answer_next("/round", to("/round".to_owned())));
    let error = get(&impatient(), &format!("{}/round", origin.url())).unwrap_err();
    assert!(matches!(error, HttpError::NoAnswer { attempts: 1, .. }), "{error}");
}

#[test]
fn an_answer_may_be_as_long_as_the_limit_and_not_longer() {
    let origin = Origin::start();
    origin.serve("/just", vec![b'x'; 1000]);
    origin.serve("/longer", vec![b'x'; 1001]);
    assert_eq!(get(&impatient(), &format!("{}/just", origin.url())).unwrap().len(), 1000);
    let error = get(&impatient(), &format!("{}/longer", origin.url())).unwrap_err();
    assert!(matches!(error, HttpError::TooLong { limit: 1000, .. }), "{error}");
    assert_eq!(origin.requests_for("/longer"), 1);
}

#[test]
fn a_compressed_answer_is_decompressed_and_its_limit_counts_what_comes_out() {
    // A thousand times the letter a.
    let compressed: [u8; 29] = [
        0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0x4b, 0x4c, 0x1c, 0x05, 0xa3,
        0x60, 0x14, 0x0c, 0x77, 0x00, 0x00, 0x03, 0xda, 0x38, 0x9a, 0xe8, 0x03, 0x00, 0x00,
    ];
    let origin = Origin::start();
    for _ in 0..2 {
        let encoding = vec![("Content-Encoding", "gzip".to_owned())];
        origin.answer_next("/file", Answer::Status("200 OK", encoding, compressed.to_vec()));
    }
    let client = HttpClient::new(&impatient()).unwrap();
    let url = format!("{}/file", origin.url());
    assert_eq!(client.get(&url, 1000).unwrap(), vec![b'a'; 1000]);
    assert!(matches!(client.get(&url, 999), Err(HttpError::TooLong { .. })));
}

#[test]
fn nobody_at_the_other_end_is_an_error_that_names_the_url() {
    let mut origin = Origin::start();
    let url = format!("{}/file", origin.url());
    origin.stop();
    let error = get(&impatient(), &url).unwrap_err();
    assert!(matches!(error, HttpError::NoAnswer { attempts: 5, .. }), "{error}");
    assert!(error.to_string().contains(&url), "{error}");
    let error = get(&impatient(), "ftp://name:secret@host/x").unwrap_err();
    assert!(matches!(&error, HttpError::BadUrl { url } if url == "ftp://host/x"), "{error}");
}

#[test]
fn a_proxy_is_asked_in_place_of_all_hosts_but_those_excepted() {
    let (origin, proxy) = (Origin::start(), Origin::start());
    origin.serve("/file", "contents");
    let url = format!("{}/file", origin.url());
    let through = |except: &[&str]| {
        let except = except.iter().map(|host| (*host).to_owned()).collect();
        let proxy = Some(HttpProxy { url: proxy.url(), except });
        get(&HttpOptions { proxy, ..impatient() }, &url)
    };
    // It is no proxy, and says so.
    let error = through(&[]).unwrap_err();
    assert!(error.to_string().contains("405"), "{error}");
    assert_eq!((origin.requests(), proxy.requests()), (0, 1));
    assert_eq!(through(&["127.0.0.1"]).unwrap(), b"contents");
    assert_eq!((origin.requests(), proxy.requests()), (1, 1));
}

#[test]
fn a_certificate_is_trusted_when_it_was_handed_in_and_not_otherwise() {
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/file", listener.local_addr().unwrap());
    // Answers two connections, one of which does not get that far.
    let server = thread::spawn(move || {
        let config = Arc::new(config);
        for _ in 0..2 {
            let (stream, _) = listener.accept().unwrap();
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            if stream.read(&mut [0; 4096]).is_ok() {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ncontents";
                stream.write_all(answer).unwrap();
                stream.flush().unwrap();
            }
        }
    });

    let error = get(&impatient(), &url).unwrap_err();
    assert!(matches!(error, HttpError::NoAnswer { attempts: 1, .. }), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");

    let certificates = Some(key.cert.pem().into_bytes());
    let trusting = HttpOptions { certificates, ..impatient() };
    assert_eq!(get(&trusting, &url).unwrap(), b"contents");
    server.join().unwrap();
}

/// A file of which every part is different.
fn long() -> Vec<u8> {
    (0..200_000_u32).flat_map(u32::to_le_bytes).collect()
}

/// Reads a file as it comes.
fn stream(options: &HttpOptions, url: &str) -> Result<Vec<u8>, std::io::Error> {
    let mut bytes = Vec::new();
    let mut reader = HttpClient::new(options).unwrap().open(url).unwrap();
    reader.read_to_end(&mut bytes).map(|_| bytes)
}

#[test]
fn where_a_connection_breaks_only_the_rest_is_asked_for() {
    let origin = Origin::start();
    origin.serve("/file", long());
    origin.serve_ranges();
    // Often enough that the attempts would be used up, if those that bring something counted.
    for count in [0, 1, 100_000, 70_000, 65_536, 80_000, 90_000, 100_000] {
        origin.answer_next("/file", Answer::CutAfter(count));
    }
    assert!(stream(&impatient(), &format!("{}/file", origin.url())).unwrap() == long());
    let ranges = origin.ranges();
    // Before the first byte there is nothing to go on from.
    assert_eq!((origin.requests_for("/file"), ranges.len()), (9, 7));
    let starts: Vec<&str> = ranges.iter().filter_map(|range| range.split(' ').next()).collect();
    assert_eq!(starts[..3], ["bytes=1-", "bytes=100001-", "bytes=170001-"]);
    assert!(ranges.iter().all(|range| range.ends_with('"')), "no If-Range: {ranges:?}");
}

#[test]
fn a_server_without_ranges_sends_all_of_it_again_and_nothing_comes_twice() {
    let origin = Origin::start();
    origin.serve("/file", long());
    for count in [100, 400_000, 300_000, 500_000] {
        origin.answer_next("/file", Answer::CutAfter(count));
    }
    assert!(stream(&impatient(), &format!("{}/file", origin.url())).unwrap() == long());
    assert_eq!(origin.requests_for("/file"), 5);
}

#[test]
fn a_server_in_trouble_in_the_middle_of_a_file_is_asked_again() {
    let origin = Origin::start();
    origin.serve("/file", long());
    origin.serve_ranges();
    origin.answer_next("/file", Answer::CutAfter(200_000));
    (0..4).for_each(|_| origin.answer_next("/file", status("503 Service Unavailable")));
    assert!(stream(&impatient(), &format!("{}/file", origin.url())).unwrap() == long());
    assert_eq!(origin.requests_for("/file"), 6);
}

#[test]
fn a_connection_that_always_breaks_is_given_up_with_the_place() {
    let origin = Origin::start();
    origin.serve("/file", long());
    origin.serve_ranges();
    (0..20).for_each(|_| origin.answer_next("/file", Answer::CutAfter(1000)));
    let error = stream(&impatient(), &format!("{}/file", origin.url())).unwrap_err();
    let error = error.get_ref().and_then(|error| error.downcast_ref::<HttpError>()).unwrap();
    assert!(matches!(error, HttpError::Broken { position: 5000, attempts: 5, .. }), "{error}");
    assert!(error.to_string().contains("broke off after 5000 bytes"), "{error}");
    assert_eq!(origin.requests_for("/file"), 5);
}

#[test]
fn a_part_that_does_not_say_what_it_is_a_part_of_is_taken() {
    let origin = Origin::start();
    origin.serve("/file", long());
    origin.serve_ranges();
    origin.answer_next("/file", Answer::CutAfter(200_000));
    let rest = long().split_off(200_000);
    let range = format!("bytes 200000-{}/{}", long().len() - 1, long().len());
    let headers = vec![("Content-Range", range)];
    origin.answer_next("/file", Answer::Status("206 Partial Content", headers, rest));
    assert!(stream(&impatient(), &format!("{}/file", origin.url())).unwrap() == long());
    assert_eq!(origin.requests_for("/file"), 2);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_an_error() {
    for ranges in [true, false] {
        let origin = Origin::start();
        origin.serve("/file", long());
        if ranges {
            origin.serve_ranges();
        }
        origin.answer_next("/file", Answer::CutAfter(200_000));
        let mut reader =
            HttpClient::new(&impatient()).unwrap().open(&format!("{}/file", origin.url())).unwrap();
        reader.read_exact(&mut [0; 1000]).unwrap();
        origin.serve("/file", vec![b'x'; 300_000]);
        let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("it has changed"), "{ranges}: {error}");
    }
}

#[test]
fn a_server_that_sends_next_to_nothing_is_given_up() {
    let pause = std::time::Duration::from_millis(20);
    let options = HttpOptions { retries: 2, ..hasty() };
    for drip in [Answer::Drip(pause), Answer::DripAll(pause)] {
        let origin = Origin::start();
        origin.serve("/file", long());
        origin.serve_ranges();
        (0..20).for_each(|_| origin.answer_next("/file", drip.clone()));
        let url = format!("{}/file", origin.url());
        let mut bytes = Vec::new();
        let client = HttpClient::new(&options).unwrap();
        let read = client.open(&url).map_err(std::io::Error::other);
        let error = read.and_then(|mut reader| reader.read_to_end(&mut bytes)).unwrap_err();
        let said = ["next to nothing", "no answer in time"];
        assert!(said.iter().any(|said| error.to_string().contains(said)), "{drip:?}: {error}");
        assert!(error.to_string().contains("3 attempts"), "{drip:?}: {error}");
        let error = client.get(&url, 1 << 20).unwrap_err().to_string();
        assert!(said.iter().any(|said| error.contains(said)), "{drip:?}: {error}");
    }
}
