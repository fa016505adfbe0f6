//! What is read as it comes, and goes on where it was when a connection breaks.

use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use ureq::Body;
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, LAST_MODIFIED};
use ureq::http::{HeaderMap, Response, StatusCode, Uri};

use super::metered::Metered;
use super::{Got, HttpClient, HttpError, Wanted, is_passing_io, without_password};
use crate::message::harmless;

/// A connection that brought at least so many bytes does not count as a failed attempt.
const PROGRESS: u64 = 64 << 10;

/// From where on something is wanted.
#[derive(Clone, Copy)]
pub(super) struct Rest<'a> {
    /// How many bytes are there already.
    pub(super) position: u64,
    /// What has to be the same still: an `ETag` or a date, for `If-Range`.
    pub(super) validator: Option<&'a str>,
}

/// An answer whose body is being read.
pub(super) struct Opened {
    body: Box<dyn Read + Send>,
    /// Where in the whole the body begins.
    start: u64,
    /// How long the whole is, where the server says so, and the body is it and not a compressed
    /// form of it.
    total: Option<u64>,
    validator: Option<String>,
}

impl Opened {
    /// Takes an answer of success to a request for all of it or the rest of it. Nothing where the
    /// part sent is not the part asked for.
    pub(super) fn new(
        response: Response<Body>,
        rest: Option<Rest<'_>>,
        patience: Duration,
    ) -> Option<Self> {
        let headers = response.headers();
        let number = |name| text(headers, name)?.trim().parse::<u64>().ok();
        let (start, total) = if response.status() == StatusCode::PARTIAL_CONTENT {
            let (start, total) = content_range(text(headers, CONTENT_RANGE)?)?;
            if rest.is_none_or(|rest| rest.position != start) {
                return None;
            }
            (start, Some(total))
        } else {
            (0, number(CONTENT_LENGTH))
        };
        // A weak tag says that the meaning is the same, and not the bytes.
        let tag = text(headers, ETAG).filter(|tag| !tag.starts_with("W/"));
        let validator = tag.or_else(|| text(headers, LAST_MODIFIED)).map(str::to_owned);
        let body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let body = Box::new(Metered::new(body, patience));
        Some(Self { body, start, total, validator })
    }
}

fn text(headers: &HeaderMap, name: ureq::http::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Where a part begins, and how long the whole is: `bytes 10-19/20`.
fn content_range(value: &str) -> Option<(u64, u64)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()?))
}

/// Reads the body of an answer. Where the connection breaks, it asks for the rest (or for all of
/// it, where the server has no ranges, and passes over what was read), as often as other requests
/// are tried again. Whether the parts belong together is for the caller's hash to tell, too.
pub(super) struct Download {
    client: HttpClient,
    url: String,
    uri: Uri,
    opened: Opened,
    /// How many bytes were handed on.
    position: u64,
    /// The same when the connection was made.
    since: u64,
    /// How often it broke, and brought next to nothing before.
    failures: u32,
}

impl Download {
    pub(super) fn new(client: &HttpClient, url: &str, uri: &Uri, opened: Opened) -> Self {
        Self {
            client: client.clone(),
            url: without_password(url),
            uri: uri.clone(),
            opened,
            position: 0,
            since: 0,
            failures: 0,
        }
    }

    /// Reads from the connection that there is.
    fn read_on(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.opened.body.read(buffer)?;
        if count == 0 && self.opened.total.is_some_and(|total| self.position < total) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"));
        }
        Ok(count)
    }

    /// Makes a new connection to read on from.
    fn resume(&mut self, broken: &io::Error) -> Result<(), HttpError> {
        let failed = |reason: String, attempts| HttpError::Broken {
            url: self.url.clone(),
            position: self.position,
            reason,
            attempts,
        };
        if self.position - self.since >= PROGRESS {
            self.failures = 0;
        }
        self.failures += 1;
        if self.failures > self.client.options.retries || !is_passing_io(broken) {
            return Err(failed(harmless(&broken.to_string()), self.failures));
        }
        let wait = self.client.wait(self.failures, None);
        tracing::debug!(url = self.url, position = self.position, %broken, ?wait, "going on");
        thread::sleep(wait);
        let validator = self.opened.validator.clone();
        // Of a compressed answer nobody knows where in it the position is.
        let rest = Rest { position: self.position, validator: validator.as_deref() };
        let rest = (self.opened.total.is_some() && self.position > 0).then_some(rest);
        let Got::Stream(opened) =
            self.client.request_uri(&self.url, &self.uri, Wanted::Stream(rest))?
        else {
            return Ok(());
        };
        let changed = match (self.opened.total, opened.total) {
            (Some(before), Some(now)) => before != now,
            _ => false,
        };
        // A part of the answer need not say again what it is a part of (RFC 9110, 15.3.7).
        let differs = |before| opened.validator.as_ref().is_some_and(|now| now != before);
        if changed || validator.as_ref().is_some_and(differs) {
            return Err(failed("it has changed while it was read".to_owned(), 1));
        }
        let total = self.opened.total.or(opened.total);
        self.opened = Opened { total, validator, ..opened };
        self.since = self.position;
        Ok(())
    }

    /// Passes over what was read before.
    fn skip(&mut self) -> io::Result<()> {
        let left = self.position - self.opened.start;
        if left == 0 {
            return Ok(());
        }
        let skipped = io::copy(&mut self.opened.body.by_ref().take(left), &mut io::sink());
        // Where it breaks here, the next connection begins anew as well.
        self.opened.start += skipped?;
        if self.opened.start == self.position {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is shorter than before"))
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match self.skip().and_then(|()| self.read_on(buffer)) {
                Ok(count) => {
                    self.position += count as u64;
                    self.opened.start = self.position;
                    return Ok(count);
                }
                Err(error) => self.resume(&error).map_err(io::Error::other)?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::content_range;

    #[test]
    fn only_a_range_with_its_beginning_and_the_whole_length_is_used() {
        assert_eq!(content_range("bytes 10-19/20"), Some((10, 20)));
        for odd in ["bytes 10-19/*", "bytes */20", "10-19/20", "bytes -19/20", "lines 1-2/3", ""] {
            assert_eq!(content_range(odd), None, "{odd}");
        }
    }
}
