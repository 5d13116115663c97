//! Who descends from whom, with the state of each lease. Pure.

use std::collections::BTreeSet;
use std::fmt;

use kcl_core::lease::LeaseTable;
use kcl_core::model::{Shard, ShardId};
use kcl_core::plan::ShardGraph;
use serde::Serialize;

use crate::status::shortened;

/// A shard in its lineage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Node {
    /// The shard.
    pub shard: String,
    /// Its parents: none, one after a split, two after a merge.
    pub parents: Vec<String>,
    /// The shards that name it as a parent.
    pub children: Vec<String>,
    /// Whether it still takes records.
    pub open: bool,
    /// Its first hash key, in decimal digits.
    pub first_hash_key: String,
    /// Its last hash key, in decimal digits.
    pub last_hash_key: String,
    /// The smallest sequence number it can have.
    pub starting_sequence_number: String,
    /// The largest, once it is closed.
    pub ending_sequence_number: Option<String>,
    /// The checkpoint of its lease, if it has one.
    pub checkpoint: Option<String>,
    /// The owner of its lease.
    pub owner: Option<String>,
}

/// The shards of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Tree {
    /// The stream's ARN.
    pub stream: String,
    /// How many shards are open.
    pub open: usize,
    /// The shards, in the order of ids.
    pub shards: Vec<Node>,
}

impl Tree {
    /// Arranges a listing and the leases that go with it.
    #[must_use]
    pub fn of(stream: &str, shards: &[Shard], leases: &LeaseTable) -> Self {
        let graph = ShardGraph::new(shards);
        let texts = |ids: &mut dyn Iterator<Item = &ShardId>| ids.map(ToString::to_string).collect();
        let nodes = graph.shards().map(|shard| {
            let lease = leases.get(&shard.id);
            Node {
                shard: shard.id.to_string(),
                parents: texts(&mut shard.parents()),
                children: texts(&mut graph.children(&shard.id)),
                open: shard.is_open(),
                first_hash_key: shard.hash_key_range.start().to_string(),
                last_hash_key: shard.hash_key_range.end().to_string(),
                starting_sequence_number: shard.starting_sequence_number.to_string(),
                ending_sequence_number: shard.ending_sequence_number.map(|number| number.to_string()),
                checkpoint: lease.map(|lease| lease.checkpoint.sequence_text()),
                owner: lease.and_then(|lease| lease.owner.as_ref()).map(ToString::to_string),
            }
        });
        Self { stream: stream.to_owned(), open: graph.open().count(), shards: nodes.collect() }
    }

    fn branch(
        &self,
        f: &mut fmt::Formatter<'_>,
        (id, under, depth): (&str, Option<&str>, usize),
        shown: &mut BTreeSet<String>,
    ) -> fmt::Result {
        let Some(node) = self.shards.iter().find(|node| node.shard == id) else { return Ok(()) };
        let others: Vec<&str> =
            node.parents.iter().map(String::as_str).filter(|parent| Some(*parent) != under).collect();
        write!(f, "{}{id}", "  ".repeat(depth))?;
        if !shown.insert(id.to_owned()) {
            return writeln!(f, " (see above)");
        }
        write!(f, "  {}", if node.open { "open" } else { "closed" })?;
        match &node.checkpoint {
            Some(checkpoint) => write!(f, "  {}", shortened(checkpoint))?,
            None => write!(f, "  no lease")?,
        }
        if let Some(owner) = &node.owner {
            write!(f, "  {owner}")?;
        }
        if !others.is_empty() {
            write!(f, "  ({} {})", if under.is_some() { "and from" } else { "from" }, others.join(", "))?;
        }
        writeln!(f)?;
        node.children.iter().try_for_each(|child| self.branch(f, (child, Some(id), depth + 1), shown))
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} shards, {} open\n", self.stream, self.shards.len(), self.open)?;
        let listed: BTreeSet<&str> = self.shards.iter().map(|node| node.shard.as_str()).collect();
        let mut shown = BTreeSet::new();
        for node in &self.shards {
            if !node.parents.iter().any(|parent| listed.contains(parent.as_str())) {
                self.branch(f, (&node.shard, None, 0), &mut shown)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kcl_core::lease::Lease;
    use kcl_core::model::{Checkpoint, HashKeyRange};

    use super::*;

    fn shard(id: &str, parents: [Option<&str>; 2], open: bool) -> Shard {
        Shard {
            id: id.into(),
            parent: parents[0].map(Into::into),
            adjacent_parent: parents[1].map(Into::into),
            hash_key_range: HashKeyRange::FULL,
            starting_sequence_number: 1.into(),
            ending_sequence_number: (!open).then(|| 9.into()),
        }
    }

    #[test]
    fn a_merged_shard_stands_under_one_parent_and_names_the_other() {
        let shards = [
            shard("a", [Some("gone"), None], false),
            shard("b", [None, None], false),
            shard("c", [Some("a"), Some("b")], false),
            shard("d", [Some("c"), None], true),
        ];
        let mut lease = Lease::new("c".into(), Checkpoint::TrimHorizon);
        lease.owner = Some("w".into());
        let leases = [(lease.shard.clone(), Arc::new(lease))].into();
        let text = Tree::of("arn", &shards, &leases).to_string();
        let expected = "arn: 4 shards, 1 open\n\n\
                        a  closed  no lease  (from gone)\n  \
                          c  closed  TRIM_HORIZON  w  (and from b)\n    \
                            d  open  no lease\n\
                        b  closed  no lease\n  \
                          c (see above)\n";
        assert_eq!(text, expected);
    }
}
