use std::collections::BTreeMap;

use super::create::full_lease;
use super::draw::Draw;
use super::{Store, any, at, create, delete, read, set_up, shard, token, update};
use crate::lease::verb::{Verb, Verdict};
use crate::lease::{Lease, Patch, PendingCheckpoint, Write};
use crate::model::{Checkpoint, Position, ShardId};

/// What a store must hold, by [`Expectation::holds_for`](crate::lease::Expectation::holds_for) and
/// [`Patch::apply_to`](crate::lease::Patch::apply_to).
#[derive(Default)]
struct Model(BTreeMap<ShardId, Lease>);

impl Model {
    fn create(&mut self, lease: &Lease) -> Write {
        if let Some(current) = self.0.get(&lease.shard) {
            return Write::Conflict(Some(current.clone()));
        }
        self.0.insert(lease.shard.clone(), lease.clone());
        Write::Applied(lease.clone())
    }

    fn update(&mut self, shard: &ShardId, expect: &crate::lease::Expectation, patch: &Patch) -> Write {
        match self.0.get_mut(shard) {
            Some(lease) if expect.holds_for(lease) => {
                *lease = patch.apply_to(lease);
                Write::Applied(lease.clone())
            }
            other => Write::Conflict(other.cloned()),
        }
    }

    fn delete(&mut self, shard: &ShardId, expect: &crate::lease::Expectation) -> Write {
        if self.0.get(shard).is_some_and(|lease| expect.holds_for(lease))
            && let Some(lease) = self.0.remove(shard)
        {
            return Write::Applied(lease);
        }
        Write::Conflict(self.0.get(shard).cloned())
    }
}

/// Random creates, updates, deletes and reads are answered as the model answers them.
pub async fn expectations_and_patches_agree_with_the_model(store: Store) {
    set_up(&store, &[]).await;
    let mut model = Model::default();
    let draw = Draw::seeded(1);
    let mut conflicts = 0;
    let mut applied = 0;
    for step in 0..300 {
        let key = draw.shard();
        let known = model.0.get(&key).cloned();
        let (answer, expected) = match draw.below(10) {
            0 | 1 => {
                let lease = draw.lease(key.clone());
                (create(&store, &lease).await, model.create(&lease))
            }
            2 => {
                let expect = draw.expectation(known.as_ref());
                (delete(&store, &key, &expect).await, model.delete(&key, &expect))
            }
            _ => {
                let (expect, patch) = (draw.expectation(known.as_ref()), draw.patch());
                (update(&store, &key, &expect, &patch).await, model.update(&key, &expect, &patch))
            }
        };
        assert_eq!(answer, expected, "step {step}");
        match answer {
            Write::Applied(_) => applied += 1,
            Write::Conflict(_) => conflicts += 1,
        }
        assert_eq!(read(&store, &key).await.as_ref(), model.0.get(&key), "step {step}");
    }
    assert!(applied > 50 && conflicts > 50, "applied {applied}, conflicts {conflicts}: too one-sided");
}

/// A verb of every kind on `lease`.
fn verbs(lease: &Lease) -> Vec<Verb> {
    let me = "worker-m".into();
    let pending =
        PendingCheckpoint { position: Position::new(11.into(), 2), state: Some(b"state".as_slice().into()) };
    vec![
        Verb::renew(lease, token(1)),
        Verb::take(lease, &me, token(2)),
        Verb::request(lease, &me),
        Verb::checkpoint(lease, at(12, 1), token(3)),
        Verb::prepare_checkpoint(lease, pending, token(4)),
        Verb::end(lease, [shard(20), shard(21)].into(), token(5)),
        Verb::release(lease, None, None, token(6)),
        Verb::release(lease, Some(at(13, 0)), None, token(7)),
        Verb::release(lease, Some(Checkpoint::ShardEnd), Some("worker-n".into()), token(8)),
        Verb::give(lease, Some(at(14, 0)), "worker-n".into(), 3, token(9)),
        Verb::give(lease, None, "worker-n".into(), 1, token(10)),
    ]
}

/// Every verb of the lease protocol, on a free lease, on an owned one, and on one that changed since.
pub async fn every_verb_does_to_the_row_what_its_patch_says(store: Store) {
    let mut owned = full_lease(shard(0));
    owned.requested_by = None;
    let free = Lease::new(shard(0), Checkpoint::TrimHorizon);
    for lease in [owned, free] {
        for verb in verbs(&lease) {
            set_up(&store, std::slice::from_ref(&lease)).await;
            let expected = verb.patch.apply_to(&lease);
            let answer = update(&store, &verb.shard, &verb.expect, &verb.patch).await;
            assert_eq!(answer, Write::Applied(expected.clone()), "{verb:?}");
            assert_eq!(read(&store, &verb.shard).await.as_ref(), Some(&expected));

            let theft = Verb::take(&expected, &"thief".into(), token(99));
            let stolen = theft.patch.apply_to(&expected);
            let answer = update(&store, &theft.shard, &theft.expect, &theft.patch).await;
            assert_eq!(answer, Write::Applied(stolen.clone()));
            let answer = update(&store, &verb.shard, &verb.expect, &verb.patch).await;
            assert_eq!(answer, Write::Conflict(Some(stolen.clone())), "{verb:?}");
            assert_eq!(delete(&store, &verb.shard, &any()).await, Write::Applied(stolen));
        }
    }
}

/// Workers that act on rows they read earlier, in a random order.
pub async fn verbs_in_any_order_agree_with_the_model(store: Store) {
    set_up(&store, &[]).await;
    let mut model = Model::default();
    let draw = Draw::seeded(2);
    let mut remembered: Vec<Lease> = Vec::new();
    for index in 0..4 {
        let lease = Lease::new(shard(index), Checkpoint::TrimHorizon);
        assert_eq!(create(&store, &lease).await, model.create(&lease));
        remembered.push(lease);
    }
    let mut applied = 0;
    for step in 0..250 {
        let slot = draw.index(remembered.len());
        let lease = &remembered[slot];
        let verb = match draw.below(8) {
            0 | 1 => Verb::renew(lease, draw.token()),
            2 => Verb::take(lease, &draw.worker(), draw.token()),
            3 => Verb::request(lease, &draw.worker()),
            4 => Verb::checkpoint(lease, draw.checkpoint(), draw.token()),
            5 => Verb::prepare_checkpoint(lease, draw.pending(), draw.token()),
            6 => Verb::end(lease, [shard(8)].into(), draw.token()),
            _ => Verb::release(lease, Some(draw.checkpoint()), Some(draw.worker()), draw.token()),
        };
        let answer = update(&store, &verb.shard, &verb.expect, &verb.patch).await;
        assert_eq!(answer, model.update(&verb.shard, &verb.expect, &verb.patch), "step {step}: {verb:?}");
        let (Write::Applied(row) | Write::Conflict(Some(row))) = &answer else { panic!("the row is gone") };
        if matches!(answer, Write::Applied(_)) {
            applied += 1;
        }
        // Some workers learn what the row is now; the others go on with what they knew.
        if draw.once_in(2) || matches!(answer, Write::Conflict(_)) {
            remembered[slot] = row.clone();
        }
    }
    assert!(applied > 60, "applied {applied}");
    for (key, lease) in &model.0 {
        assert_eq!(read(&store, key).await.as_ref(), Some(lease));
    }
}

/// A write that landed is recognised when it is repeated for want of an answer; one that lost is not.
pub async fn repeated_verbs_are_recognised(store: Store) {
    let mut lease = full_lease(shard(0));
    lease.requested_by = None;
    for verb in verbs(&lease) {
        set_up(&store, std::slice::from_ref(&lease)).await;
        let landed = verb.patch.apply_to(&lease);
        for sent_before in [false, true, true] {
            let answer = update(&store, &verb.shard, &verb.expect, &verb.patch).await;
            assert_eq!(verb.judge(answer, sent_before), Verdict::InForce(landed.clone()), "{verb:?}");
        }
        assert!(matches!(delete(&store, &verb.shard, &any()).await, Write::Applied(_)));
    }

    set_up(&store, std::slice::from_ref(&lease)).await;
    let winner = Verb::take(&lease, &"worker-w".into(), token(50));
    let loser = Verb::take(&lease, &"worker-l".into(), token(51));
    let _ = update(&store, &winner.shard, &winner.expect, &winner.patch).await;
    let answer = update(&store, &loser.shard, &loser.expect, &loser.patch).await;
    assert_eq!(loser.judge(answer, true), Verdict::Refused(Some(winner.patch.apply_to(&lease))));
}
