//! A small HTTP client: blocking, with connections that are kept, time limits and retries.
//!
//! A request that meets a server in trouble (5xx, 408, 429, a time limit, a connection that
//! breaks) is made again after a wait that doubles each time; `Retry-After` in seconds makes the
//! wait longer, up to [`HttpOptions::longest_wait`]. Any other answer is final. Redirects are
//! followed, ten at most. What is read as it comes goes on where it was when a connection breaks.

mod addresses;
mod download;
mod error;
mod exchange;
mod metered;
mod options;
mod s3;

use std::fmt;
use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ureq::http::header::{ACCEPT_ENCODING, IF_RANGE, RANGE};
use ureq::http::{HeaderValue, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, Proxy};

use crate::message::{beginning, harmless};
use addresses::{Addresses, Remembering};
use download::{Download, Opened, Rest};
use metered::Metered;

pub use error::{HttpError, Tries};
pub use exchange::Exchange;
pub use options::{HttpOptions, HttpProxy, HttpTimeouts};
pub use s3::{ContainerToken, S3Credentials, S3Options, Secret};
// What `Exchange` consists of.
pub use ureq::http::{HeaderMap, Method, Response, Uri};

/// How much of an answer that is an error is read: what is read to its end leaves the connection
/// usable.
const ERROR_BODY_LIMIT: u64 = 64 << 10;

/// How many bytes are read at a time, which the headers of an answer have to fit into, and how many
/// are written. Every connection has both buffers, and there may be very many connections.
const READ_BUFFER: usize = 64 << 10;
const WRITE_BUFFER: usize = 16 << 10;

/// Makes requests. Several threads may use one at the same time, and share its connections, as its
/// clones do.
#[derive(Clone)]
pub struct HttpClient {
    agent: Agent,
    addresses: Addresses,
    options: Arc<HttpOptions>,
}

impl HttpClient {
    /// A client with these settings. Nothing is connected to yet.
    ///
    /// # Errors
    /// [`HttpError::Setting`].
    pub fn new(options: &HttpOptions) -> Result<Self, HttpError> {
        let setting = |setting, reason: &dyn fmt::Display| HttpError::Setting {
            setting,
            reason: reason.to_string(),
        };
        HeaderValue::from_str(&options.user_agent)
            .map_err(|source| setting("user_agent", &source))?;
        let proxy = options
            .proxy
            .as_ref()
            .map(proxy)
            .transpose()
            .map_err(|source| setting("proxy", &source))?;
        let certificates = match &options.certificates {
            None => RootCerts::WebPki,
            Some(pem) => certificates(pem).map_err(|reason| setting("certificates", &reason))?,
        };
        let HttpTimeouts { connect, read, total } = options.timeouts;
        let connections = options.connections.max(1);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(&options.user_agent)
            .proxy(proxy)
            .tls_config(TlsConfig::builder().root_certs(certificates).build())
            .timeout_resolve(Some(connect))
            .timeout_connect(Some(connect))
            .timeout_recv_response(Some(read))
            .timeout_per_read(Some(read))
            .timeout_per_write(Some(read))
            .timeout_global(Some(total))
            .max_idle_connections(connections)
            .max_idle_connections_per_host(connections)
            .input_buffer_size(READ_BUFFER)
            .output_buffer_size(WRITE_BUFFER)
            .build();
        let addresses = Addresses::default();
        let resolver = DefaultResolver::default();
        let resolver = Remembering { resolver, addresses: addresses.clone() };
        let agent = Agent::with_parts(config, DefaultConnector::default(), resolver);
        Ok(Self { agent, addresses, options: Arc::new(options.clone()) })
    }

    /// How many requests may be under way at a time.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.options.connections.max(1)
    }

    /// Gets what is at `url`, at most `limit` bytes of it.
    ///
    /// # Errors
    /// When the answer is anything but 200 with at most `limit` bytes.
    pub fn get(&self, url: &str, limit: u64) -> Result<Vec<u8>, HttpError> {
        match self.request(url, Wanted::Bytes(limit))? {
            Got::Bytes(bytes) => Ok(bytes),
            Got::Stream(_) => Ok(Vec::new()),
        }
    }

    /// Opens what is at `url`, to be read as it comes, however long that takes. Where the
    /// connection breaks, the reader asks for what is missing, as often as other requests are made
    /// again; connections that brought something do not count. It fails with an [`HttpError`]
    /// inside its [`io::Error`].
    ///
    /// # Errors
    /// When the answer is anything but 200.
    pub fn open(&self, url: &str) -> Result<Box<dyn Read + Send>, HttpError> {
        let uri = parse(url)?;
        match self.request_uri(&without_password(url), &uri, Wanted::Stream(None))? {
            Got::Stream(opened) => Ok(Box::new(Download::new(self, url, &uri, opened))),
            Got::Bytes(bytes) => Ok(Box::new(io::Cursor::new(bytes))),
        }
    }

    /// Whether there is something at `url`: asks with `HEAD`. "Forbidden" counts as nothing, as in
    /// Nix: a bucket of S3 that nobody may list says so of what it does not have.
    ///
    /// # Errors
    /// When the answer is neither 200 nor that there is nothing (403, 404, 410).
    pub fn exists(&self, url: &str) -> Result<bool, HttpError> {
        match self.request(url, Wanted::Existence) {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.status(), Some(403 | 404 | 410)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts a file to `url`, from its beginning again where something goes wrong in the middle of
    /// it.
    ///
    /// # Errors
    /// When the file cannot be read, or the answer is not one of success.
    pub fn put(&self, url: &str, file: &Path, content_type: &str) -> Result<(), HttpError> {
        self.request(url, Wanted::Stored { file, content_type }).map(drop)
    }

    fn request(&self, url: &str, wanted: Wanted<'_>) -> Result<Got, HttpError> {
        self.request_uri(&without_password(url), &parse(url)?, wanted)
    }

    fn request_uri(&self, shown: &str, uri: &Uri, wanted: Wanted<'_>) -> Result<Got, HttpError> {
        let method = wanted.method();
        self.persist(shown, method, || self.attempt(uri, wanted))
    }

    /// Makes attempts until one is final, or there were enough of them.
    fn persist<T>(
        &self,
        shown: &str,
        method: &'static str,
        attempt: impl Fn() -> Outcome<T>,
    ) -> Result<T, HttpError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let outcome = attempt();
            let may_retry = attempts <= self.options.retries;
            let url = || shown.to_owned();
            let asked_to_wait = match outcome {
                Outcome::Done(got) => return Ok(got),
                Outcome::TooLong { limit, beginning } => {
                    return Err(HttpError::TooLong { url: url(), method, limit, beginning });
                }
                Outcome::Status { status, wait, .. } if may_retry && is_trouble(status) => wait,
                Outcome::Status { status, beginning, .. } => {
                    return Err(HttpError::Status {
                        url: url(),
                        method,
                        status,
                        attempts,
                        beginning,
                    });
                }
                Outcome::Failed(error) if may_retry && is_passing(&error) => None,
                Outcome::Failed(error) => {
                    return Err(HttpError::NoAnswer {
                        url: url(),
                        method,
                        reason: reason(&error),
                        attempts,
                    });
                }
            };
            let wait = self.wait(attempts, asked_to_wait);
            tracing::debug!(url = shown, attempts, ?wait, "trying again");
            // It may be somewhere else by now.
            self.addresses.forget();
            thread::sleep(wait);
        }
    }

    fn attempt(&self, uri: &Uri, wanted: Wanted<'_>) -> Outcome<Got> {
        let called = match wanted {
            Wanted::Bytes(_) => self.agent.get(uri).call(),
            Wanted::Stream(rest) => {
                // Positions count in what is there, not in a compressed form of it.
                let mut request = self.agent.get(uri).header(ACCEPT_ENCODING, "identity");
                if let Some(rest) = rest {
                    request = request.header(RANGE, format!("bytes={}-", rest.position));
                    if let Some(validator) = rest.validator {
                        request = request.header(IF_RANGE, validator);
                    }
                }
                request.config().timeout_global(None).build().call()
            }
            Wanted::Existence => self.agent.head(uri).call(),
            Wanted::Stored { file, content_type } => File::open(file)
                .map_err(ureq::Error::Io)
                .and_then(|file| self.send(uri, file, content_type)),
        };
        let mut response = match called {
            Ok(response) => response,
            Err(error) => return Outcome::Failed(error),
        };
        let status = response.status();
        if matches!(wanted, Wanted::Stored { .. }) && status.is_success() {
            // What is read to its end leaves the connection usable.
            let _ = self.read(response.body_mut(), ERROR_BODY_LIMIT);
            return Outcome::Done(Got::Bytes(Vec::new()));
        }
        if let Wanted::Stream(rest) = wanted
            && (status == StatusCode::OK || status == StatusCode::PARTIAL_CONTENT)
        {
            return match Opened::new(response, rest, self.options.timeouts.read) {
                Some(opened) => Outcome::Done(Got::Stream(opened)),
                None => {
                    let other = "the server sends another part than the one asked for";
                    Outcome::Failed(ureq::Error::Other(other.into()))
                }
            };
        }
        if status == StatusCode::OK {
            let limit = match wanted {
                Wanted::Bytes(limit) => limit,
                _ => return Outcome::Done(Got::Bytes(Vec::new())),
            };
            return match self.read(response.body_mut(), limit) {
                Ok(bytes) if bytes.len() as u64 > limit => {
                    Outcome::TooLong { limit, beginning: beginning(&bytes) }
                }
                Ok(bytes) => Outcome::Done(Got::Bytes(bytes)),
                Err(error) => Outcome::Failed(error.into()),
            };
        }
        refused(response, beginning)
    }

    fn send(
        &self,
        uri: &Uri,
        file: File,
        content_type: &str,
    ) -> Result<ureq::http::Response<Body>, ureq::Error> {
        let request = self.agent.put(uri).content_type(content_type);
        request.config().timeout_global(None).build().send(file)
    }

    /// Reads a body, and one byte more than `limit` of one that is longer.
    fn read(&self, body: &mut Body, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // The limit of ureq's own counts compressed bytes.
        let body = body.with_config().limit(u64::MAX).reader();
        Metered::new(body, self.options.timeouts.read)
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// How long to wait after this many attempts. Up to half of it is left to chance, so that
    /// many threads do not come back all at once.
    fn wait(&self, attempts: u32, asked_to_wait: Option<Duration>) -> Duration {
        let doubled = 2_u32.saturating_pow(attempts.saturating_sub(1));
        let backoff = self.options.first_wait.saturating_mul(doubled);
        let chance = std::hash::RandomState::new().build_hasher().finish() % 1024;
        let chance = u32::try_from(chance).unwrap_or_default();
        let backoff = backoff / 2 + backoff / 2 * chance / 1024;
        backoff.max(asked_to_wait.unwrap_or_default()).min(self.options.longest_wait)
    }
}

/// What is wanted.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    /// What is there, in memory, and no more than so many bytes.
    Bytes(u64),
    /// What is there, or the rest of it, as it comes.
    Stream(Option<Rest<'a>>),
    /// Whether there is anything.
    Existence,
    /// That this is there.
    Stored { file: &'a Path, content_type: &'a str },
}

impl Wanted<'_> {
    fn method(self) -> &'static str {
        match self {
            Self::Bytes(_) | Self::Stream(_) => "GET",
            Self::Existence => "HEAD",
            Self::Stored { .. } => "PUT",
        }
    }
}

/// An answer.
enum Got {
    Bytes(Vec<u8>),
    Stream(Opened),
}

/// How one attempt ended.
enum Outcome<T> {
    Done(T),
    TooLong { limit: u64, beginning: String },
    Status { status: u16, wait: Option<Duration>, beginning: String },
    Failed(ureq::Error),
}

/// An answer that is an error; `explain` tells what is in its body.
fn refused<T>(
    mut response: ureq::http::Response<Body>,
    explain: impl Fn(&[u8]) -> String,
) -> Outcome<T> {
    let wait = response
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs));
    // What an error looks like does not matter if it cannot be read.
    let body = read(response.body_mut(), ERROR_BODY_LIMIT).unwrap_or_default();
    Outcome::Status { status: response.status().as_u16(), wait, beginning: explain(&body) }
}

/// Reads a body, and one byte more than `limit` of one that is longer.
fn read(body: &mut Body, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // The limit of ureq's own counts compressed bytes.
    body.with_config()
        .limit(u64::MAX)
        .reader()
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether a status means that it may be better later: what Nix retries.
fn is_trouble(status: u16) -> bool {
    match status {
        408 | 429 => true,
        // Not implemented, HTTP version not supported, network authentication required.
        501 | 505 | 511 => false,
        code => (500..600).contains(&code),
    }
}

/// Whether a failure may be gone when it is tried again.
fn is_passing(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Timeout(_) | ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        ureq::Error::Io(error) => is_passing_io(error),
        _ => false,
    }
}

fn is_passing_io(error: &io::Error) -> bool {
    // A certificate that is not trusted, or data that is not what it claims to be.
    !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
}

fn parse(url: &str) -> Result<Uri, HttpError> {
    url.parse()
        .ok()
        .filter(|uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")))
        .ok_or_else(|| HttpError::BadUrl { url: harmless(&without_password(url)) })
}

/// A failure in words.
fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => harmless(&error.to_string()),
        ureq::Error::Timeout(what) => format!("no answer in time ({what})"),
        ureq::Error::HostNotFound => "there is no such host".to_owned(),
        other => harmless(&other.to_string()),
    }
}

fn proxy(proxy: &HttpProxy) -> Result<Proxy, ureq::Error> {
    let plain = Proxy::new(&proxy.url)?;
    let mut builder = Proxy::builder(plain.protocol()).host(plain.host()).port(plain.port());
    if let Some(name) = plain.username() {
        builder = builder.username(name);
    }
    if let Some(password) = plain.password() {
        builder = builder.password(password);
    }
    for host in &proxy.except {
        builder = builder.no_proxy(host);
    }
    builder.build()
}

fn certificates(pem: &[u8]) -> Result<RootCerts, String> {
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    if found.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    Ok(RootCerts::Specific(Arc::new(found)))
}

/// A URL as it may be shown: without the name and password that may stand before its host.
#[must_use]
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords_are_not_shown() {
        for (url, shown) in [
            ("http://host/a@b", "http://host/a@b"),
            ("https://name:p@ss@host:80/a?b", "https://host:80/a?b"),
            ("https://name@host?x@y", "https://host?x@y"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }

    #[test]
    fn waits_double_and_never_pass_the_longest() {
        let options = HttpOptions {
            first_wait: Duration::from_millis(100),
            longest_wait: Duration::from_secs(5),
            ..HttpOptions::default()
        };
        let client = HttpClient::new(&options).expect("the options can be used");
        for (attempts, between) in [(1, 50..=100), (2, 100..=200), (3, 200..=400)] {
            let wait = client.wait(attempts, None).as_millis();
            assert!(between.contains(&wait), "{wait} ms after {attempts} attempts");
        }
        assert_eq!(client.wait(1, Some(Duration::from_secs(2))), Duration::from_secs(2));
        assert_eq!(client.wait(1, Some(Duration::from_secs(3600))), options.longest_wait);
        assert_eq!(client.wait(u32::MAX, None), options.longest_wait);
    }

    #[test]
    fn settings_that_cannot_be_used_are_refused_by_name() {
        let refused = |options: HttpOptions| match HttpClient::new(&options) {
            Err(HttpError::Setting { setting, .. }) => setting,
            _ => "nothing",
        };
        let plain = HttpOptions::default;
        assert_eq!(refused(HttpOptions { user_agent: "a\nb".to_owned(), ..plain() }), "user_agent");
        let pem = b"no certificate".to_vec();
        assert_eq!(refused(HttpOptions { certificates: Some(pem), ..plain() }), "certificates");
        let proxy = HttpProxy { url: "gopher://x".to_owned(), except: Vec::new() };
        assert_eq!(refused(HttpOptions { proxy: Some(proxy), ..plain() }), "proxy");
    }
}
