use std::fmt;
use std::time::Duration;

use crate::error::{BoxError, Error};

/// What is wrong with what was asked of a world.
///
/// `Debug` shows what `Display` does, and the causes: it is what a test that returns the error prints.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// There cannot be a stream without shards.
    #[error("a world needs a stream of at least one shard")]
    NoShards,
    /// No worker of this name runs.
    #[error("no worker {name:?} runs; running: {running:?}")]
    NoSuchWorker {
        /// The name asked for.
        name: String,
        /// Those that run.
        running: Vec<String>,
    },
    /// A worker of this name runs already.
    #[error("worker {0:?} runs already; stop or crash it first, or choose another name")]
    AlreadyRuns(String),
    /// The application's builder was refused.
    #[error("the application cannot be built")]
    Application(#[source] Error),
    /// The stream refused a call.
    #[error("the stream refused the call")]
    Stream(#[source] BoxError),
    /// What was asked for needs more than a source of one's own.
    #[error("{what} needs {needed}, and the world was made over a stream of one's own")]
    NotOurStream {
        /// What was asked for.
        what: String,
        /// What would make it possible.
        needed: &'static str,
    },
    /// A worker did not stop in time, and was killed.
    #[error("worker {name} did not stop within {deadline:?} and was killed (held by the test: {held})")]
    DidNotStop {
        /// The worker.
        name: String,
        /// When it should have stopped.
        deadline: Duration,
        /// Whether it was stalled, or a task of it frozen.
        held: bool,
    },
    /// A worker ended by itself.
    #[error("worker {name} ended by itself")]
    WorkerEnded {
        /// The worker.
        name: String,
        /// Why.
        #[source]
        error: Error,
    },
    /// What was waited for did not come.
    #[error("not within {limit:?}: {what}\n{state}")]
    Late {
        /// How long it was waited for.
        limit: Duration,
        /// What was waited for.
        what: String,
        /// Leases, workers and their shards.
        state: String,
    },
}

impl fmt::Debug for WorldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
