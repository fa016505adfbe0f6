//! How to talk HTTP.

use std::time::Duration;

use super::S3Options;

/// How to talk HTTP.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// How many requests may be under way at a time, at least one. 25 unless set, as in Nix
    /// (`http-connections`).
    pub connections: usize,
    /// Limits on how long things take.
    pub timeouts: HttpTimeouts,
    /// How often a request that failed is made again. 4 unless set, as in Nix
    /// (`download-attempts` counts the first one too).
    pub retries: u32,
    /// How long to wait before the first retry; each further wait is twice as long.
    pub first_wait: Duration,
    /// No wait is longer, whatever the server asks for.
    pub longest_wait: Duration,
    /// What to call ourselves.
    pub user_agent: String,
    /// A proxy to go through.
    pub proxy: Option<HttpProxy>,
    /// Certificates to trust instead of Mozilla's, in PEM.
    pub certificates: Option<Vec<u8>>,
    /// Who asks, where what is asked is a bucket of S3.
    pub s3: S3Options,
}

/// Limits on how long a request takes, each attempt by itself.
#[derive(Clone, Copy, Debug)]
pub struct HttpTimeouts {
    /// Finding the host, and then connecting to it.
    pub connect: Duration,
    /// Waiting for the next bytes.
    pub read: Duration,
    /// The whole of it.
    pub total: Duration,
}

/// A proxy.
#[derive(Clone, Debug)]
pub struct HttpProxy {
    /// Its address: `http://HOST:PORT`.
    pub url: String,
    /// Hosts to reach without it, as in `NO_PROXY`.
    pub except: Vec<String>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connections: 25,
            timeouts: HttpTimeouts {
                connect: Duration::from_secs(15),
                read: Duration::from_secs(60),
                total: Duration::from_secs(300),
            },
            retries: 4,
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(60),
            user_agent: concat!("ferry/", env!("CARGO_PKG_VERSION")).to_owned(),
            proxy: None,
            certificates: None,
            s3: S3Options::default(),
        }
    }
}
