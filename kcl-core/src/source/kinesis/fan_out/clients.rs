//! The HTTP clients of subscriptions.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::SharedHttpClient;

use super::http2::SubscriptionHttpClient;
use crate::source::kinesis::service::Service;

/// How much longer than the reader's own time-out the SDK's may be, so that the reader's is the one that strikes.
const LATER: Duration = Duration::from_secs(1);

/// Makes HTTP clients for subscriptions. See
/// [`KinesisStream::with_subscription_clients`](super::super::KinesisStream::with_subscription_clients).
#[derive(Clone)]
pub struct HttpClientFactory(Arc<dyn Fn() -> SharedHttpClient + Send + Sync>);

impl HttpClientFactory {
    /// Creates a factory from a function that makes a client.
    pub fn new(make: impl Fn() -> SharedHttpClient + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }
}

impl fmt::Debug for HttpClientFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClientFactory").finish_non_exhaustive()
    }
}

/// Lends clients to subscriptions: the one of our own to all, since it spreads them over connections itself, or as
/// many of the user's as it takes.
#[derive(Debug)]
pub(super) struct Clients {
    service: Arc<Service>,
    factory: Option<HttpClientFactory>,
    per_connection: usize,
    open: Duration,
    lent: Mutex<Vec<Share>>,
}

/// A client and how many use it.
#[derive(Debug)]
struct Share {
    client: Client,
    users: Arc<()>,
}

/// A client, lent.
#[derive(Debug)]
pub(super) struct Lent {
    client: Client,
    /// Counted.
    _user: Arc<()>,
}

impl Lent {
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }
}

impl Clients {
    pub(super) fn new(
        service: Arc<Service>,
        factory: Option<HttpClientFactory>,
        per_connection: usize,
        open: Duration,
    ) -> Self {
        let per_connection = per_connection.clamp(1, 100);
        Self { service, factory, per_connection, open: open.saturating_add(LATER), lent: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Share>> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lend(&self) -> Lent {
        let most = if self.factory.is_some() { self.per_connection } else { usize::MAX };
        let mut lent = self.lock();
        let free = lent.iter().position(|share| Arc::strong_count(&share.users) <= most);
        let share = match free {
            Some(at) => &lent[at],
            None => {
                let http = match &self.factory {
                    Some(factory) => (factory.0)(),
                    None => SharedHttpClient::new(SubscriptionHttpClient::new(self.per_connection)),
                };
                let client = self.service.over(http, self.open);
                lent.push(Share { client, users: Arc::default() });
                &lent[lent.len() - 1]
            }
        };
        Lent { client: share.client.clone(), _user: Arc::clone(&share.users) }
    }
}
