//! L-1, L-2 and L-3: who may deliver, whose writes may land, and who may renew.

use std::collections::BTreeMap;
use std::time::Duration;

use kcl_core::lease::{Change, Expectation, Lease, OwnerExpectation, Patch};
use kcl_core::{ShardId, WorkerId};

use super::{Finding, Landing, Life, Promise};

#[derive(Debug, Default)]
pub(super) struct Leases {
    holds: BTreeMap<(ShardId, Life), Hold>,
    /// The life that wrote each row last.
    writers: BTreeMap<ShardId, Life>,
    /// For each shard the life whose callbacks began there last, and when its first did.
    last_begun: BTreeMap<ShardId, (Life, Duration)>,
    frozen: BTreeMap<(ShardId, Life), Frozen>,
    /// For how long a holder may deliver after a write of its own, by its clock, in true time.
    validity: BTreeMap<Life, Duration>,
    /// The members of fleets: whose each id is.
    members: BTreeMap<WorkerId, Life>,
    /// When the last heartbeat of each member landed.
    beats: BTreeMap<WorkerId, Duration>,
}

#[derive(Debug)]
struct Hold {
    /// When it took, created or adopted the lease.
    since: Duration,
    /// When its last write landed.
    written: Duration,
    /// Whether somebody else has written it since; the holder may not know.
    taken: bool,
    /// The owner that the row names.
    owner: Option<WorkerId>,
}

#[derive(Debug)]
struct Frozen {
    since: Duration,
    patience: Duration,
}

impl Leases {
    /// L-1: a callback that delivers starts. By the clock of its worker the lease must not have run out since its
    /// last write landed, which is later than any moment it may count from; and no other worker has begun.
    pub(super) fn starts(&mut self, life: &Life, shard: &ShardId, now: Duration, lease: Duration) -> Finding {
        let broken = |seen: String| Some((Promise::L1, format!("{life} starts on {shard}, {seen}")));
        if let Some((other, since)) = self.last_begun.get(shard)
            && other != life
            && let Some(hold) = self.holds.get(&(shard.clone(), life.clone()))
            && hold.since <= *since
        {
            return broken(format!("where {other} started {:?} ago", now.saturating_sub(*since)));
        }
        let earlier = self.holds.iter().find(|((held, other), hold)| {
            held == shard
                && other != life
                && hold.taken
                && self.validity.get(other).is_some_and(|validity| now < self.proven(hold) + *validity)
        });
        if let Some(((_, other), hold)) = earlier {
            let written = now.saturating_sub(self.proven(hold));
            return broken(format!("which {other} may still deliver: it wrote the lease {written:?} ago"));
        }
        let proof = match self.holds.get(&(shard.clone(), life.clone())) {
            None => return broken("which it never wrote".to_owned()),
            Some(hold) => self.proven(hold),
        };
        if now >= proof + lease {
            return broken(format!(
                "whose lease lasts {lease:?} and was written last {:?} ago",
                now.saturating_sub(proof)
            ));
        }
        if self.last_begun.get(shard).is_none_or(|(other, _)| other != life) {
            self.last_begun.insert(shard.clone(), (life.clone(), now));
        }
        None
    }

    /// When what proves a hold landed last: the lease's own write or, for a member of a fleet, its heartbeat.
    fn proven(&self, hold: &Hold) -> Duration {
        hold.owner.as_ref().and_then(|owner| self.beats.get(owner)).copied().unwrap_or(hold.written)
    }

    /// Whether a row's owner is this life.
    pub(super) fn is(&self, owner: Option<&WorkerId>, life: &Life) -> bool {
        owner.is_some_and(|owner| match self.members.get(owner) {
            Some(member) => member == life,
            None => owner.as_str() == life.worker,
        })
    }

    /// Whether a row names this life, and was written by it: what others give to it after it has left is not its doing.
    pub(super) fn kept(&self, row: &Lease, life: &Life) -> bool {
        self.is(row.owner.as_ref(), life) && self.writers.get(&row.shard).is_none_or(|writer| writer == life)
    }

    /// The name of the worker that an owner is or, if its life is over, its id.
    pub(super) fn name_of(&self, owner: &WorkerId) -> String {
        match self.members.get(owner) {
            Some(life) if self.validity.contains_key(life) || self.validity.is_empty() => life.worker.clone(),
            _ => owner.as_str().to_owned(),
        }
    }

    /// An attempt of a life to become a member under this id landed.
    pub(super) fn joins(&mut self, life: &Life, id: &WorkerId) {
        self.members.insert(id.clone(), life.clone());
    }

    /// A heartbeat landed. L-3: it renews every lease, so none whose consumer is dead may be among them.
    pub(super) fn beats(&mut self, life: &Life, id: &WorkerId, now: Duration) -> Finding {
        self.beats.insert(id.clone(), now);
        let frozen: Vec<_> = self.frozen.keys().filter(|(_, frozen)| frozen == life).cloned().collect();
        frozen.iter().find_map(|key| self.renews_dead(key, now))
    }

    /// A worker was suspended for longer than its leases last: what it proved before counts no more.
    pub(super) fn suspend(&mut self, life: &Life) {
        for (id, _) in self.members.iter().filter(|(_, member)| *member == life) {
            self.beats.insert(id.clone(), Duration::ZERO);
        }
    }

    /// A worker starts that may deliver for so long after each write.
    pub(super) fn live(&mut self, life: &Life, validity: Duration) {
        self.validity.insert(life.clone(), validity);
    }

    /// A worker's run is over: it delivers nothing more.
    pub(super) fn over(&mut self, life: &Life) {
        self.validity.remove(life);
        self.holds.retain(|(_, holder), _| holder != life);
    }

    /// L-2: a write is conditional, recognisable, and the holder's; L-3: not a renewal for a consumer that is dead.
    pub(super) fn lands(
        &mut self,
        life: &Life,
        landing: Landing<'_>,
        before: Option<&Lease>,
        row: &Lease,
        now: Duration,
    ) -> Finding {
        let broken = |seen: &str| Some((Promise::L2, format!("{life} writes {}: {seen}", row.shard)));
        let key = (row.shard.clone(), life.clone());
        let mine = self.is(row.owner.as_ref(), life);
        match landing {
            Landing::Create => {
                if before.is_some() {
                    return broken("a row that is there is created");
                }
                if mine && row.token.is_none() {
                    return broken("a creation without a token");
                }
            }
            Landing::Delete(expect) => {
                if expect.counter.is_none() || expect.owner == OwnerExpectation::Any {
                    return broken("a deletion without counter and owner in its condition");
                }
            }
            Landing::Update(expect, patch) => {
                if let Some(seen) = self.wrong_update(life, expect, patch, before) {
                    return broken(&seen);
                }
                // A request changes nothing of the hold.
                patch.counter?;
            }
        }
        self.write(&key, mine.then_some(row), now);
        self.renews_dead(&key, now)
    }

    /// A write landed that says whether its author holds the lease; nobody else does.
    fn write(&mut self, key: &(ShardId, Life), mine: Option<&Lease>, now: Duration) {
        self.writers.insert(key.0.clone(), key.1.clone());
        for ((shard, life), hold) in &mut self.holds {
            hold.taken |= *shard == key.0 && *life != key.1;
        }
        match (self.holds.get_mut(key), mine) {
            (Some(hold), Some(row)) if !hold.taken && hold.owner == row.owner => hold.written = now,
            (_, Some(row)) => {
                let hold = Hold { since: now, written: now, taken: false, owner: row.owner.clone() };
                self.holds.insert(key.clone(), hold);
            }
            (_, None) => {
                self.holds.remove(key);
            }
        }
    }

    /// The answer to a write, where its landing is not seen: the lease was written no later than this.
    pub(super) fn answered(&mut self, life: &Life, row: &Lease, now: Duration) {
        let key = (row.shard.clone(), life.clone());
        let mine = self.is(row.owner.as_ref(), life);
        self.write(&key, mine.then_some(row), now);
    }

    fn renews_dead(&self, key: &(ShardId, Life), now: Duration) -> Finding {
        let (frozen, hold) = (self.frozen.get(key)?, self.holds.get(key)?);
        let silent = now.saturating_sub(frozen.since);
        // A later hold has a consumer of its own.
        (hold.since <= frozen.since && silent > frozen.patience).then(|| {
            let (shard, life) = key;
            (Promise::L3, format!("{life} still renews {shard}, whose consumer is silent since {silent:?}"))
        })
    }

    pub(super) fn freeze(&mut self, life: &Life, shard: &ShardId, now: Duration, patience: Duration) {
        self.frozen.insert((shard.clone(), life.clone()), Frozen { since: now, patience });
    }

    pub(super) fn thaw(&mut self, life: &Life) {
        self.frozen.retain(|(_, frozen), _| frozen != life);
    }

    fn wrong_update(
        &self,
        life: &Life,
        expect: &Expectation,
        patch: &Patch,
        before: Option<&Lease>,
    ) -> Option<String> {
        let before = before?;
        let owner = before.owner.as_ref();
        if expect.owner == OwnerExpectation::Any {
            return Some("the condition names no owner".to_owned());
        }
        if patch.counter.is_none() {
            // A request, or taking one back: it must change nothing else.
            let bare = Patch { requested_by: patch.requested_by.clone(), ..Patch::default() };
            return (*patch != bare).then(|| "a request changes more than the request".to_owned());
        }
        if expect.counter.is_none() {
            return Some("the condition names no counter".to_owned());
        }
        if patch.token.is_none() {
            return Some("no token".to_owned());
        }
        if patch.counter.is_some_and(|counter| counter <= before.counter) {
            return Some(format!("the counter goes from {} to {:?}", before.counter, patch.counter));
        }
        let takes = matches!(&patch.owner, Change::Set(owner) if self.is(Some(owner), life));
        if !self.is(owner, life) && (!takes || patch.checkpoint.is_some()) {
            return Some(format!("{owner:?} holds it, and this is more than taking it"));
        }
        None
    }
}
