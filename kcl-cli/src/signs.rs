//! Which kind of fleet a lease table belongs to, by the signs its rows show. Pure.
//!
//! The signs are those of the Java KCL's sources: rows of its coordinator (3.5 keeps them in the lease table, 3.0 to
//! 3.4 in a table of its own), the index by owner and the attributes `throughputKBps` and `checkpointOwner` (3.x),
//! `entityType` on leases (rows created since 3.5, or by ours), `streamName` (several streams in one table).

use std::collections::BTreeSet;
use std::fmt;

use kcl_core::fleet::row_of;
use kcl_lease_dynamo::StoredRow;
use serde::Serialize;

use crate::liveness::Watcher;
use crate::table::TableView;

/// The index that the Java KCL 3.x adds to its lease table.
const JAVA_INDEX: &str = "LeaseOwnerToLeaseKeyIndex";

/// Whether rows of this `entityType` are written by the Java KCL's coordinator.
pub(crate) fn is_entity_of_java(entity_type: &str) -> bool {
    matches!(
        entity_type,
        "LEADER" | "CLIENT_VERSION_MIGRATION" | "TABLE_MIGRATION" | "WORKER_METRIC_STATS" | "STREAM"
    )
}

/// Whose table it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FleetKind {
    /// It holds no lease and no row of a fleet.
    Empty,
    /// Workers of kcl-core with `Coordination::Fleet`.
    Fleet,
    /// Workers of kcl-core with `Coordination::PerLease`, or a fleet of theirs that stopped in order, which takes its rows
    /// along; or Java's, which leave the attributes of ours alone.
    PerLease,
    /// The Java KCL 1.x or 2.x: nothing shows another one.
    Java2,
    /// The Java KCL 3.x.
    Java3,
    /// Signs of a fleet of kcl-core and of Java workers. They must not work together.
    Mixed,
}

impl fmt::Display for FleetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty",
            Self::Fleet => "fleet of kcl-core (Fleet)",
            Self::PerLease => "kcl-core (PerLease, or a fleet that has stopped)",
            Self::Java2 => "Java KCL 1.x or 2.x",
            Self::Java3 => "Java KCL 3.x",
            Self::Mixed => "mixed: a fleet of kcl-core and Java workers",
        })
    }
}

/// Whose table it is, and what shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Signs {
    /// The kind of fleet.
    pub kind: FleetKind,
    /// What shows it.
    pub evidence: Vec<String>,
}

impl Signs {
    /// Reads the signs. `leadership` is what the look for a Java leader found.
    #[must_use]
    pub fn read(view: &TableView, watcher: Option<&Watcher>, leadership: Option<&str>) -> Self {
        let mut evidence = Vec::new();
        let mut attributes: BTreeSet<&str> = BTreeSet::new();
        let mut owners_in_fleet = 0_usize;
        let (mut leases, mut created_late) = (0_usize, 0_usize);
        for row in view.rows.values() {
            let StoredRow::Lease(lease) = &row.row else { continue };
            leases += 1;
            attributes.extend(row.item.keys().map(String::as_str));
            created_late += usize::from(row.item.contains_key("entityType"));
            owners_in_fleet += usize::from(lease.owner.as_ref().is_some_and(|owner| row_of(owner).is_some()));
        }
        let members: usize = view.fleet_rows().map(|(_, row)| row.live().count()).sum();
        let fleet_rows = view.fleet_rows().count();
        if fleet_rows > 0 {
            evidence.push(format!("{fleet_rows} fleet rows with {members} members"));
        }
        if owners_in_fleet > 0 {
            evidence.push(format!("{owners_in_fleet} leases are owned by members of a fleet"));
        }
        let is_fleet = members > 0 || owners_in_fleet > 0;

        let java_rows: BTreeSet<&str> = view
            .foreign()
            .map(|row| row.entity_type.as_str())
            .filter(|entity_type| is_entity_of_java(entity_type))
            .collect();
        let mut java3 = false;
        if !java_rows.is_empty() {
            let kinds: Vec<_> = java_rows.into_iter().collect();
            evidence.push(format!("rows of the coordinator of Java KCL 3.5 or later: {}", kinds.join(", ")));
            java3 = true;
        }
        if let Some(found) = leadership {
            evidence.push(found.to_owned());
            java3 = true;
        }
        if view.shape.as_ref().is_some_and(|shape| shape.indexes.contains(JAVA_INDEX)) {
            evidence.push(format!("the index {JAVA_INDEX}, which Java KCL 3.x adds"));
            java3 = true;
        }
        for attribute in ["throughputKBps", "checkpointOwner"] {
            if attributes.contains(attribute) {
                evidence.push(format!("the attribute {attribute}, which Java KCL 3.x writes"));
                java3 = true;
            }
        }
        let mut ours = false;
        for attribute in ["attemptToken", "streamIdentity"] {
            if attributes.contains(attribute) {
                evidence.push(format!("the attribute {attribute}, which workers of kcl-core write"));
                ours = true;
            }
        }
        if attributes.contains("streamName") {
            evidence.push(
                "the attribute streamName: leases of several streams, which kcl-core does not take"
                    .to_owned(),
            );
        }
        if leases > 0 && created_late == leases && !ours {
            evidence.push("entityType on every lease: created by Java KCL 3.5 or later".to_owned());
        }
        let java_moves = watcher.is_some_and(Watcher::sees_java_move);
        if java_moves {
            evidence.push("counters that move without an attemptToken: Java workers are at work".to_owned());
        }
        let kind = match (is_fleet, java3, ours) {
            (true, true, _) => FleetKind::Mixed,
            (true, false, _) if java_moves => FleetKind::Mixed,
            (true, ..) => FleetKind::Fleet,
            (false, true, _) => FleetKind::Java3,
            (false, false, true) => FleetKind::PerLease,
            (false, false, false) if leases == 0 => FleetKind::Empty,
            (false, false, false) if created_late == leases => FleetKind::Java3,
            (false, false, false) => {
                evidence.push("leases of the KCL and no sign of a younger one".to_owned());
                FleetKind::Java2
            }
        };
        Self { kind, evidence }
    }

    /// Whether Java workers may read the table, who take the time of `AT_TIMESTAMP` from their settings.
    #[must_use]
    pub const fn may_be_java(&self) -> bool {
        matches!(self.kind, FleetKind::Java2 | FleetKind::Java3 | FleetKind::Mixed)
    }
}
