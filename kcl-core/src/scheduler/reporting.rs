//! The tasks of the sinks of metrics.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, warn};

use crate::metrics::Metrics;

/// How long sinks get to publish what they have if the scheduler ends without a deadline.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs the sinks. Dropping it drops what they have not published.
pub(super) struct Reporting {
    tasks: JoinSet<()>,
    ending: CancellationToken,
}

impl Reporting {
    pub(super) fn begin(metrics: &Metrics) -> Self {
        let (mut tasks, ending) = (JoinSet::new(), CancellationToken::new());
        for sink in metrics.sinks() {
            let (sink, ending) = (Arc::clone(sink), ending.clone());
            let run = async move { sink.run(Box::pin(ending.cancelled_owned())).await };
            tasks.spawn(run.in_current_span());
        }
        Self { tasks, ending }
    }

    /// Has the sinks publish what they have, until this time.
    pub(super) async fn end(mut self, deadline: Instant) {
        self.ending.cancel();
        let published = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    warn!(%error, "a sink of metrics panicked; what it had is lost");
                }
            }
        };
        if timeout_at(deadline, published).await.is_err() {
            warn!("the deadline came before all metrics were published; the rest is lost");
        }
    }

    /// The same, for a scheduler that ends by itself.
    pub(super) async fn end_soon(self) {
        self.end(Instant::now() + LAST_WORDS).await;
    }
}
