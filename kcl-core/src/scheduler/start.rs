//! From nothing to running: the stream is known, the table prepared and checked, every shard has its lease.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, warn};

use super::builder::{ForeignLeases, LeaseRuntime};
use super::coordination::{Control, Coordination, CoordinationConfig, CoordinationView, StartView};
use super::lineage::Listing;
use super::run::Worker;
use super::trouble::Trouble;
use crate::error::{BoxError, Chain, Error, ErrorKind};
use crate::gate::Part;
use crate::lease::{Lease, LeaseTable, StoreError};
use crate::model::{Shard, StreamIdentity};
use crate::plan::{self, Refusal};
use crate::retry::Backoff;
use crate::source::SourceError;

/// What a start left running.
pub(super) struct Started {
    pub(super) stream: StreamIdentity,
    pub(super) control: mpsc::Sender<Control>,
    pub(super) view: CoordinationView,
    pub(super) ended: LeaseSide,
    pub(super) listing: Listing,
}

/// The running lease side.
pub(super) struct LeaseSide {
    pub(super) ended: oneshot::Receiver<Result<(), Error>>,
    /// Owns the task where it is one.
    _task: Option<tokio::task::JoinSet<()>>,
}

impl Worker {
    /// The error of a start in which no call was answered, not even by an error.
    pub(super) fn silent_start(&self) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            format!(
                "stream {} or lease table {} does not answer; check region, endpoint and network",
                self.source.name(),
                self.store
            ),
        )
    }

    pub(super) async fn start(&self, stop: &CancellationToken, trouble: &Trouble) -> Result<Started, Error> {
        let stream =
            self.retry("the stream cannot be described yet", trouble, || self.source.identity()).await?;
        let (coordination, control, view) = Coordination::new(CoordinationConfig {
            store: Arc::clone(&self.store),
            me: self.id.clone(),
            settings: Arc::clone(&self.settings),
            stream: stream.clone(),
            initial: self.initial,
            clock: Arc::clone(&self.clock),
            entropy: self.entropy.fork(),
            events: self.events.clone(),
            trouble: trouble.clone(),
            stop: stop.clone(),
            way: self.way.clone(),
            metrics: self.metrics.clone(),
        });
        let (start_answer, start_view) = oneshot::channel();
        let ended = self.drive(coordination, start_answer)?;
        let lost = || Error::new(ErrorKind::Bug, "the lease side ended while starting");
        let StartView { prepared, leases } = start_view.await.map_err(|_| lost())??;
        if let Some(found) = prepared.java_leadership {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "lease table {} is led by Java KCL 3.x workers, which assign leases themselves ({found}): stop \
                     them first, or use another application name",
                    self.store
                ),
            ));
        }
        let begun = Instant::now();
        let shards =
            self.retry("the shards cannot be listed yet", trouble, || self.source.list_shards()).await?;
        let shards = Arc::new(shards);
        self.check_table(&shards, &leases, &stream, &control, trouble).await?;
        self.settle("leases cannot be created yet", &control, trouble, |answer| Control::Shards {
            shards: Arc::clone(&shards),
            answer: Some(answer),
        })
        .await?;
        Ok(Started { stream, control, view, ended, listing: Listing { begun, shards } })
    }

    /// Calls until it succeeds or fails for good; the caller bounds the time.
    async fn retry<T, F>(
        &self,
        waiting: &str,
        trouble: &Trouble,
        mut call: impl FnMut() -> F,
    ) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        let mut backoff =
            Backoff::new(Duration::from_millis(100), Duration::from_secs(2), self.entropy.fork());
        loop {
            match call().await {
                Ok(value) => return Ok(value),
                Err(error) if error.is_retryable() => {
                    warn!(waiting, error = %Chain(&error), "the start has to wait, trying again");
                    trouble.note(error);
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Has the lease side do something until it succeeds or fails for good; the caller bounds the time.
    async fn settle(
        &self,
        waiting: &str,
        control: &mpsc::Sender<Control>,
        trouble: &Trouble,
        request: impl Fn(oneshot::Sender<Result<(), StoreError>>) -> Control,
    ) -> Result<(), Error> {
        let lost = || Error::new(ErrorKind::Bug, "the lease side ended while starting");
        let mut backoff =
            Backoff::new(Duration::from_millis(100), Duration::from_secs(2), self.entropy.fork());
        loop {
            let (answer, answered) = oneshot::channel();
            control.send(request(answer)).await.map_err(|_| lost())?;
            match answered.await.map_err(|_| lost())? {
                Ok(()) => return Ok(()),
                Err(error) if error.is_retryable() => {
                    warn!(waiting, error = %Chain(&error), "the start has to wait, trying again");
                    trouble.note(error);
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Starts the lease side where the builder said; the returned future completes when it has ended.
    fn drive(
        &self,
        coordination: Coordination,
        started: oneshot::Sender<Result<StartView, Error>>,
    ) -> Result<LeaseSide, Error> {
        let (ended_sender, ended) = oneshot::channel();
        let span = tracing::Span::current();
        let drive = self.gate.guard(Part::LeaseSide, async move {
            let outcome = coordination.run(started).instrument(span).await;
            // Whoever waited has gone if this fails.
            let _ = ended_sender.send(outcome);
        });
        let task = match self.runtime {
            LeaseRuntime::Shared => {
                let mut task = tokio::task::JoinSet::new();
                task.spawn(drive);
                Some(task)
            }
            LeaseRuntime::OwnThread => {
                let cannot = |error| {
                    Error::new(ErrorKind::Unavailable, "the thread for leases could not be started")
                        .with_source(BoxError::from(error))
                };
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
                let run = move || {
                    runtime.block_on(drive);
                    // Connections the store's client keeps open must not hold up the end.
                    runtime.shutdown_background();
                };
                #[allow(clippy::disallowed_methods, reason = "this is the thread of the lease side")]
                std::thread::Builder::new().name("kcl-leases".to_owned()).spawn(run).map_err(cannot)?;
                None
            }
        };
        Ok(LeaseSide { ended, _task: task })
    }

    async fn check_table(
        &self,
        shards: &[Shard],
        leases: &LeaseTable,
        stream: &StreamIdentity,
        control: &mpsc::Sender<Control>,
        trouble: &Trouble,
    ) -> Result<(), Error> {
        let refusals = plan::check_table(shards, leases, stream);
        if refusals.is_empty() {
            return Ok(());
        }
        match self.foreign {
            ForeignLeases::Adopt if refusals.iter().all(Refusal::yields_to_adopt) => {
                for refusal in &refusals {
                    warn!(%refusal, "adopted on request");
                }
                Ok(())
            }
            ForeignLeases::Reset => {
                let leases: Vec<Lease> = refusals
                    .iter()
                    .filter_map(|refusal| leases.get(&refusal.shard).map(|lease| Lease::clone(lease)))
                    .collect();
                warn!(leases = leases.len(), "deleting leases that do not belong to the stream, on request");
                self.settle("leases cannot be deleted yet", control, trouble, |answer| Control::Delete {
                    leases: leases.clone(),
                    answer,
                })
                .await
            }
            ForeignLeases::Refuse | ForeignLeases::Adopt => {
                const SHOWN: usize = 5;
                let mut lines: Vec<String> = refusals.iter().take(SHOWN).map(ToString::to_string).collect();
                if refusals.len() > SHOWN {
                    lines.push(format!("and {} more", refusals.len() - SHOWN));
                }
                Err(Error::new(
                    ErrorKind::Refused,
                    format!(
                        "lease table {} does not fit stream {stream}:\n- {}\nchoose {}",
                        self.store,
                        lines.join("\n- "),
                        plan::choices(&refusals)
                    ),
                ))
            }
        }
    }
}
