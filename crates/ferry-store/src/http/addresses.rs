//! Which addresses hosts have, remembered for a while.
//!
//! ureq looks a host up for every request, also where a connection to it is kept, and begins a
//! thread to do it, so as not to wait for longer than it may. A cache is asked tens of thousands of
//! times.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// For so long a host is taken to be where it was found, as curl does.
const LIFETIME: Duration = Duration::from_secs(60);

/// Which addresses were found.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses(Arc<Mutex<HashMap<String, Known>>>);

#[derive(Debug)]
struct Known {
    since: Instant,
    addresses: Vec<SocketAddr>,
}

impl Addresses {
    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks everything up again from now on.
    pub(super) fn forget(&self) {
        self.known().clear();
    }
}

/// Looks up what is not known, or not any more.
#[derive(Debug)]
pub(super) struct Remembering<R> {
    pub(super) resolver: R,
    pub(super) addresses: Addresses,
}

impl<R: Resolver> Resolver for Remembering<R> {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return self.resolver.resolve(uri, config, timeout);
        };
        let host = DefaultResolver::host_and_port(scheme, authority).unwrap_or_default();
        if let Some(known) = self.addresses.known().get(&host)
            && known.since.elapsed() < LIFETIME
        {
            let mut addresses = self.empty();
            known.addresses.iter().for_each(|address| addresses.push(*address));
            return Ok(addresses);
        }
        let found = self.resolver.resolve(uri, config, timeout)?;
        let known = Known { since: Instant::now(), addresses: found.to_vec() };
        self.addresses.known().insert(host, known);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering};

    use ureq::unversioned::transport::time;

    use super::*;

    /// Every look-up finds the next port.
    #[derive(Debug, Default)]
    struct Counting(AtomicU16);

    impl Resolver for Counting {
        fn resolve(
            &self,
            _: &Uri,
            _: &Config,
            _: NextTimeout,
        ) -> Result<ResolvedSocketAddrs, Error> {
            let mut found = self.empty();
            let port = self.0.fetch_add(1, Ordering::Relaxed);
            found.push(SocketAddr::from(([127, 0, 0, 1], port)));
            Ok(found)
        }
    }

    #[test]
    fn a_host_is_looked_up_once_and_again_where_that_was_of_no_use() {
        let addresses = Addresses::default();
        let resolver = Remembering { resolver: Counting::default(), addresses: addresses.clone() };
        let find = |uri: &'static str| {
            let after = time::Duration::NotHappening;
            let timeout =
                NextTimeout { after, reason: ureq::Timeout::Resolve, ..NextTimeout::default() };
            let found = resolver.resolve(&Uri::from_static(uri), &Config::default(), timeout);
            found.unwrap()[0].port()
        };
        assert_eq!(
            (find("http://host/a"), find("http://host/b"), find("http://host:80/")),
            (0, 0, 0)
        );
        // Other ports and other hosts are others.
        assert_eq!((find("https://host/a"), find("http://other/a")), (1, 2));
        assert_eq!(
            (find("http://host/a"), find("https://host/a"), find("http://other/")),
            (0, 1, 2)
        );
        addresses.forget();
        assert_eq!((find("http://host/a"), find("http://host/a")), (3, 3));
    }
}
