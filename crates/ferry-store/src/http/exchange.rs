//! Requests that somebody else has put together, and signed.

use std::io::Read;

use ureq::http::{HeaderMap, Method, Request, Response, Uri};
use ureq::{AsSendBody as _, Body, SendBody};

use super::{HttpClient, HttpError, Outcome, refused, without_password};

/// A request that is sent as it is, and once more as it is where that may help.
#[derive(Clone, Copy)]
pub struct Exchange<'a> {
    /// `GET`, `HEAD`, `PUT`, `POST` or `DELETE`.
    pub method: &'a Method,
    /// Where it goes. In messages it is shown without its query.
    pub uri: &'a Uri,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// What is sent; only `PUT` and `POST` send something.
    pub body: &'a [u8],
    /// Whether the whole of it has to be over in the time that
    /// [`HttpTimeouts::total`](super::HttpTimeouts::total) says.
    pub is_short: bool,
    /// How to tell what is in an answer that is an error.
    pub explain: fn(&[u8]) -> String,
}

impl HttpClient {
    /// Sends a request, and hands its answer back. Redirects are not followed: whoever signed the
    /// request signed the host too.
    ///
    /// # Errors
    /// When the answer is not one of success.
    pub fn exchange(
        &self,
        exchange: Exchange<'_>,
    ) -> Result<Response<Box<dyn Read + Send>>, HttpError> {
        let url = exchange.uri.to_string();
        let shown = without_password(url.split('?').next().unwrap_or_default());
        let method = match exchange.method.as_str() {
            "GET" => "GET",
            "HEAD" => "HEAD",
            "PUT" => "PUT",
            "POST" => "POST",
            _ => "DELETE",
        };
        self.persist(&shown, method, || match self.send_once(exchange) {
            Ok(response) if response.status().is_success() => {
                let (parts, body) = response.into_parts();
                let body = body.into_with_config().limit(u64::MAX).reader();
                Outcome::Done(Response::from_parts(parts, Box::new(body) as Box<dyn Read + Send>))
            }
            Ok(response) => refused(response, exchange.explain),
            Err(error) => Outcome::Failed(error),
        })
    }

    fn send_once(&self, exchange: Exchange<'_>) -> Result<Response<Body>, ureq::Error> {
        let mut request = Request::builder().method(exchange.method).uri(exchange.uri).body(())?;
        request.headers_mut().clone_from(exchange.headers);
        let timeout = exchange.is_short.then_some(self.options.timeouts.total);
        let (mut bytes, mut nothing) = (exchange.body, ());
        // A request with a body of no bytes is another one than a request without a body.
        let body: SendBody<'_> = match exchange.method.as_str() {
            "PUT" | "POST" => bytes.as_body(),
            _ => nothing.as_body(),
        };
        let config = self.agent.configure_request(request.map(|()| body));
        self.agent.run(config.max_redirects(0).timeout_global(timeout).build())
    }
}
