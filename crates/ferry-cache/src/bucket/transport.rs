//! How the requests of `object_store` reach the network: through the HTTP client that everything
//! else goes through, with its proxies, certificates, limits on time, and attempts.
//!
//! That client blocks, and so do the futures here. Each is waited for by a thread that has nothing
//! else to do.

use std::future::poll_fn;
use std::io::Read;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{error, fmt, iter};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use ferry_store::http::{Exchange, HttpClient, HttpError, HttpOptions, Method, Response, Uri};
use http_body::{Body, Frame};
use object_store::client::{
    HttpClient as Client, HttpConnector, HttpError as ClientError, HttpErrorKind, HttpRequest,
    HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{ClientOptions, HeaderValue};

use super::credentials::NoCredentials;
use super::problem;

/// Marks a request whose answer may be of any length, and take any time.
#[derive(Clone, Copy)]
pub(super) struct Long;

/// No other answer is longer, in bytes: a page of a list is the longest.
const MAX_ANSWER: u64 = 16 << 20;

/// How much of an answer is read at a time.
const CHUNK: u64 = 128 << 10;

/// How long the host of a virtual machine or of a container may take: it is near, or not there.
const NEAR: Duration = Duration::from_secs(5);

/// Sends requests.
#[derive(Clone)]
pub(super) struct Transport {
    client: HttpClient,
    /// Asks the host of a virtual machine or of a container, through no proxy.
    pub(super) near: HttpClient,
    /// Where the bucket is. Whoever else is asked, it is for keys.
    server: Server,
}

impl Transport {
    pub(super) fn new(options: &HttpOptions, bucket: &Uri) -> Result<Self, HttpError> {
        let mut near = options.clone();
        near.proxy = None;
        near.retries = near.retries.min(2);
        near.timeouts.connect = near.timeouts.connect.min(NEAR);
        near.timeouts.read = near.timeouts.read.min(NEAR);
        Ok(Self {
            client: HttpClient::new(options)?,
            near: HttpClient::new(&near)?,
            server: Server::of(bucket),
        })
    }
}

/// A server: the port written out, and the host in one way.
#[derive(Clone, PartialEq, Eq)]
struct Server {
    host: String,
    port: u16,
}

impl Server {
    fn of(uri: &Uri) -> Self {
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        let address = host.trim_matches(['[', ']']).parse().map(|ip: IpAddr| ip.to_string());
        let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        Self { host: address.unwrap_or(host), port: uri.port_u16().unwrap_or(usual) }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Transport")
    }
}

impl HttpConnector for Transport {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<Client> {
        Ok(Client::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Transport {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, ClientError> {
        let (mut parts, body) = request.into_parts();
        let body = collect(body).await?;
        // What is compressed on the way has lost its length when it arrives.
        parts.headers.insert("accept-encoding", HeaderValue::from_static("identity"));
        let is_long = parts.extensions.get::<Long>().is_some();
        let exchange = Exchange {
            method: &parts.method,
            uri: &parts.uri,
            headers: &parts.headers,
            body: &body,
            is_short: !is_long && parts.method != Method::PUT,
            explain: problem::explain,
        };
        let response = match self.server == Server::of(&parts.uri) {
            true => self.client.exchange(exchange).map_err(carry)?,
            // What is not there, or denied, is the keys, and no file of the bucket.
            false => {
                let is_near = parts.uri.scheme_str() == Some("http");
                let client = if is_near { &self.near } else { &self.client };
                client.exchange(exchange).map_err(|error| {
                    let (reason, status) = (error.to_string(), error.status());
                    ClientError::new(HttpErrorKind::Unknown, NoCredentials { reason, status })
                })?
            }
        };
        let (mut head, reader) = response.into_parts();
        let has_length = head.headers.contains_key("content-length");
        let reader = Answer {
            reader: Mutex::new(reader),
            left: if is_long && has_length { u64::MAX } else { MAX_ANSWER },
            url: parts.uri.to_string().split('?').next().unwrap_or_default().to_owned(),
        };
        let body = if parts.method == Method::GET && has_length {
            HttpResponseBody::new(reader)
        } else {
            // What is read to its end leaves the connection usable. A file that is stored
            // compressed, and says so, was decompressed on the way; its length is asked for.
            let bytes = reader.read_all()?;
            if parts.method == Method::GET {
                head.headers.insert("content-length", bytes.len().into());
            }
            HttpResponseBody::from(bytes)
        };
        Ok(Response::from_parts(head, body))
    }
}

/// The body of a request in one piece; it seldom has more than one.
async fn collect(mut body: HttpRequestBody) -> Result<Bytes, ClientError> {
    let mut whole = Bytes::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(piece) = frame?.into_data() else { continue };
        if whole.is_empty() {
            whole = piece;
        } else {
            let mut longer = BytesMut::from(whole);
            longer.extend_from_slice(&piece);
            whole = longer.freeze();
        }
    }
    Ok(whole)
}

/// An answer that is being read.
struct Answer {
    // Only to be shareable, which nobody makes use of.
    reader: Mutex<Box<dyn Read + Send>>,
    left: u64,
    url: String,
}

impl Answer {
    /// The next piece; none at the end.
    fn next(&mut self) -> Result<Bytes, ClientError> {
        let mut piece = Vec::new();
        let reader = self.reader.get_mut().unwrap_or_else(PoisonError::into_inner);
        let limit = CHUNK.min(self.left.saturating_add(1));
        if let Err(error) = reader.take(limit).read_to_end(&mut piece) {
            return Err(carry(HttpError::NoAnswer {
                url: self.url.clone(),
                method: "GET",
                reason: error.to_string(),
                attempts: 1,
            }));
        }
        let length = piece.len() as u64;
        self.left = self.left.checked_sub(length).ok_or_else(|| {
            carry(HttpError::TooLong {
                url: self.url.clone(),
                method: "GET",
                limit: MAX_ANSWER,
                beginning: String::new(),
            })
        })?;
        Ok(piece.into())
    }

    fn read_all(mut self) -> Result<Bytes, ClientError> {
        let mut whole = BytesMut::new();
        loop {
            match self.next()? {
                piece if piece.is_empty() => return Ok(whole.freeze()),
                piece => whole.extend_from_slice(&piece),
            }
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = ClientError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientError>>> {
        let piece = self.get_mut().next();
        Poll::Ready(match piece {
            Ok(piece) if piece.is_empty() => None,
            piece => Some(piece.map(Frame::data)),
        })
    }
}

/// A failure on its way through `object_store`, which neither tries again (that was done) nor
/// understands it.
struct Carried(Mutex<Option<HttpError>>);

fn carry(error: HttpError) -> ClientError {
    ClientError::new(HttpErrorKind::Unknown, Carried(Mutex::new(Some(error))))
}

/// Why there are no keys, if that is what an error is about.
pub(super) fn credentials(error: &(dyn error::Error + 'static)) -> Option<NoCredentials> {
    causes(error).find_map(|error| error.downcast_ref().cloned())
}

fn causes<'a>(
    error: &'a (dyn error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn error::Error + 'static)> {
    iter::successors(Some(error), |error| error.source())
}

/// The failure that an error carries, if it is one of ours.
pub(super) fn carried(error: &(dyn error::Error + 'static)) -> Option<HttpError> {
    let Carried(carried) = causes(error).find_map(|error| error.downcast_ref())?;
    carried.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl fmt::Debug for Carried {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Display for Carried {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => error.fmt(formatter),
            None => formatter.write_str("a request failed"),
        }
    }
}

impl error::Error for Carried {}
