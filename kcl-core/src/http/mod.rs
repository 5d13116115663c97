//! An HTTP endpoint for probes, scrapers and people (feature `http`).
//!
//! [`listener`] accepts connections, [`answer`] decides what each request gets, from one look at the scheduler;
//! [`document`] and [`page`] are the two forms of the status.

mod answer;
mod document;
mod listener;
mod page;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

pub(crate) use listener::{Open, Site};

/// Renders metrics in the text format of Prometheus.
type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

/// An HTTP endpoint of a scheduler, for probes, scrapers and people. Given to
/// [`SchedulerBuilder::endpoint`](crate::SchedulerBuilder::endpoint).
///
/// | path | answer |
/// |---|---|
/// | `/health/live` | 200 while the scheduler runs, starts or stops |
/// | `/health/ready` | 200 if its [`Health`](crate::Health) is ready, else 503; as JSON, with problems and notes |
/// | `/status` | what it does, as a page for people; with `Accept: application/json`, or as `/status.json`, as JSON |
/// | `/metrics` | what [`Endpoint::metrics`] renders; 404 without |
///
/// `/` leads to `/status`. `/status` lists the shards this worker holds and counts the others; `/status?all=1` lists every
/// lease of the application, from the table as this worker last saw it. No request calls AWS. Neither records nor
/// partition keys are shown; ids of shards and workers, checkpoints and the texts of errors are. There is no
/// authentication, so by default only this machine can ask.
///
/// It listens from the start of `run()` to its end, while shards drain, too. If it cannot, because the port is taken for example,
/// the scheduler goes on; the log, an [`Event`](crate::Event) and the health say so once, and it keeps trying. It needs a
/// runtime with I/O enabled, and shares it with the processors: where those block every thread, it does not answer.
///
/// ```
/// use kcl_core::Endpoint;
///
/// let endpoint = Endpoint::on_port(8080).metrics(|| "records_total 17\n".to_owned());
/// # let _ = endpoint;
/// ```
#[derive(Clone)]
pub struct Endpoint {
    pub(crate) address: SocketAddr,
    beyond_this_machine: bool,
    degraded_is_ready: bool,
    metrics: Option<Metrics>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address)
            .field("beyond_this_machine", &self.beyond_this_machine)
            .field("metrics", &self.metrics.is_some())
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Listens on this port of 127.0.0.1. 0 takes a free one, which
    /// [`Snapshot::endpoint`](crate::Snapshot::endpoint) tells.
    #[must_use]
    pub const fn on_port(port: u16) -> Self {
        Self::at(SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }

    /// Listens on this address. Unless it is a loopback address, [`Endpoint::beyond_this_machine`] must be called, too.
    #[must_use]
    pub const fn at(address: SocketAddr) -> Self {
        Self { address, beyond_this_machine: false, degraded_is_ready: false, metrics: None }
    }

    /// Allows an address that other machines can reach. Whoever can reach it can read it.
    #[must_use]
    pub const fn beyond_this_machine(mut self) -> Self {
        self.beyond_this_machine = true;
        self
    }

    /// Answers 200 on `/health/ready` while degraded, too. Default: 503, which holds a rolling deployment up if the new
    /// version cannot process.
    #[must_use]
    pub const fn degraded_is_ready(mut self) -> Self {
        self.degraded_is_ready = true;
        self
    }

    /// What renders `/metrics`, in the text format of Prometheus. It is called once per request and must not block.
    #[must_use]
    pub fn metrics(mut self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.metrics = Some(Arc::new(render));
        self
    }

    /// What makes no sense.
    pub(crate) fn problem(&self) -> Option<String> {
        (!self.address.ip().is_loopback() && !self.beyond_this_machine).then(|| {
            format!(
                "the endpoint's address {} can be reached from other machines, and it has no authentication: choose a \
                 loopback address, or call beyond_this_machine()",
                self.address
            )
        })
    }
}
