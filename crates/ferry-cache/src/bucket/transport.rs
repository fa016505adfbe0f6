//! How the requests of `object_store` reach the network: through the HTTP client that everything
//! else goes through, with its proxies, certificates, limits on time, and attempts.
//!
//! That client blocks, and so do the futures here. Each is waited for by a thread of its own, which
//! has nothing else to do: see [`wait`](super::wait).

use std::future::poll_fn;
use std::io::Read;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::{error, fmt};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use ferry_store::http::{Exchange, HttpClient, HttpError, Method, Response};
use http_body::{Body, Frame};
use object_store::client::{
    HttpClient as Client, HttpConnector, HttpError as ClientError, HttpErrorKind, HttpRequest,
    HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{ClientOptions, HeaderValue};

use super::problem;

/// Marks a request whose answer may be of any length, and take any time.
#[derive(Clone, Copy)]
pub(super) struct Long;

/// No other answer is longer, in bytes: a page of a list is the longest.
const MAX_ANSWER: u64 = 16 << 20;

/// How much of an answer is read at a time.
const CHUNK: u64 = 128 << 10;

/// Sends requests.
#[derive(Clone)]
pub(super) struct Transport(pub(super) Arc<HttpClient>);

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
        let response = self.0.exchange(exchange).map_err(carry)?;
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

/// The failure that an error carries, if it is one of ours.
pub(super) fn carried(error: &(dyn error::Error + 'static)) -> Option<HttpError> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(Carried(carried)) = error.downcast_ref() {
            return carried.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
        cause = error.source();
    }
    None
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
