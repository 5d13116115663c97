//! Looking: at the table, at the stream, and at the table again for as long as it takes to judge its owners.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use kcl_core::fleet::row_of;
use kcl_core::lease::LeaseStore;
use kcl_core::model::{InitialPosition, ShardId};
use tokio::time::{Instant, sleep};

use crate::access::{Access, patiently};
use crate::console::Console;
use crate::error::{CliError, CliErrorKind, usage};
use crate::liveness::Watcher;
use crate::status::Seen;
use crate::stream::{self, Position, StreamView};
use crate::table::{self, TableView};
use crate::text::{Target, duration_text};

/// What was seen of an application.
#[derive(Clone, Debug)]
pub(crate) struct Observation {
    pub(crate) application: Option<String>,
    pub(crate) view: TableView,
    pub(crate) watcher: Watcher,
    pub(crate) stream: Option<StreamView>,
    pub(crate) positions: BTreeMap<ShardId, Position>,
    pub(crate) leadership: Option<String>,
    pub(crate) notes: Vec<String>,
    pub(crate) now: SystemTime,
}

impl Observation {
    /// Looks at the table; twice if the first look may be proof of nothing.
    pub(crate) async fn of_table(access: &Access) -> Result<Self, CliError> {
        let view = table::observe(access).await?;
        let mut watcher = Watcher::new(access.lease_duration());
        watcher.view(&view);
        let mut observation = Self {
            application: access.application().map(str::to_owned),
            view,
            watcher,
            stream: None,
            positions: BTreeMap::new(),
            leadership: None,
            notes: Vec::new(),
            now: access.now(),
        };
        let leases = observation.view.leases();
        let present: BTreeSet<String> =
            observation.watcher.members().into_iter().map(|member| member.worker).collect();
        let absent = leases
            .values()
            .filter_map(|lease| lease.owner.as_ref())
            .any(|owner| row_of(owner).is_some() && !present.contains(owner.as_str()));
        if absent {
            observation.look_again(access).await?;
        }
        Ok(observation)
    }

    /// Looks at the table, for a Java leader, and at the stream, if it is known which one it is.
    pub(crate) async fn of_application(access: &Access) -> Result<Self, CliError> {
        let mut observation = Self::of_table(access).await?;
        match leadership(access).await? {
            Leadership::Denied(note) => observation.notes.push(note),
            Leadership::Looked(found) => observation.leadership = found,
        }
        if observation.view.has_several_streams() {
            observation
                .notes
                .push("leases of several streams: shards are not compared with a stream".to_owned());
        } else {
            observation.stream = stream::observe(access, &observation.view).await?;
        }
        Ok(observation)
    }

    /// Lists the rows again.
    pub(crate) async fn look_again(&mut self, access: &Access) -> Result<(), CliError> {
        let shape = self.view.shape.take();
        self.view = table::look(access).await?;
        self.view.shape = shape;
        self.watcher.view(&self.view);
        self.now = access.now();
        Ok(())
    }

    /// Looks at the records at the checkpoints.
    pub(crate) async fn look_at_records(&mut self, access: &Access) -> Result<(), CliError> {
        let Some(stream) = &self.stream else {
            return Err(usage("lag is told by the stream").with_hint("give --stream NAME_OR_ARN"));
        };
        self.positions = stream::positions(access, stream, &self.view.leases(), self.now).await;
        Ok(())
    }

    /// Looks until the owners of these leases are judged, or as long as that can take.
    pub(crate) async fn watch(
        &mut self,
        access: &Access,
        shards: &BTreeSet<ShardId>,
        console: &mut Console<'_>,
    ) -> Result<(), CliError> {
        let begun = Instant::now();
        let mut told = false;
        loop {
            let leases = self.view.leases();
            let undecided = shards
                .iter()
                .filter_map(|shard| leases.get(shard))
                .any(|lease| self.watcher.standing(lease).word() == "unproven");
            let patience = self.watcher.patience();
            if !undecided || begun.elapsed() >= patience {
                return Ok(());
            }
            if !told {
                console.note(format!("watching the owners, for at most {}", duration_text(patience)))?;
                told = true;
            }
            sleep(self.watcher.interval()).await;
            self.look_again(access).await?;
        }
    }

    /// What a report is made of.
    pub(crate) fn seen(&self, initial: Option<InitialPosition>) -> Seen<'_> {
        Seen {
            application: self.application.as_deref(),
            view: &self.view,
            stream: self.stream.as_ref(),
            watcher: &self.watcher,
            positions: &self.positions,
            leadership: self.leadership.as_deref(),
            initial,
            notes: &self.notes,
            now: self.now,
        }
    }
}

/// What the look for a Java leader came to.
pub(crate) enum Leadership {
    /// What was found, if anything.
    Looked(Option<String>),
    /// It is not allowed; says so.
    Denied(String),
}

/// Looks for a leader of a Java KCL 3.x. Reads only: the store never creates the table.
pub(crate) async fn leadership(access: &Access) -> Result<Leadership, CliError> {
    let store = access.store()?;
    match patiently(|| store.prepare()).await {
        Ok(prepared) => Ok(Leadership::Looked(prepared.java_leadership)),
        Err(error) if error.kind() == CliErrorKind::Denied => Ok(Leadership::Denied(format!(
            "whether a Java KCL 3.0 to 3.4 leads here cannot be told: {error}"
        ))),
        Err(error) => Err(error),
    }
}

/// The start position of an application as it was given.
pub(crate) fn initial(target: Option<Target>) -> Result<Option<InitialPosition>, CliError> {
    target.map(Target::as_initial_position).transpose().map_err(usage)
}
