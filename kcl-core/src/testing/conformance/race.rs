use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Store, any, counter_is, create, delete, read, set_up, shard, token, update};
use crate::lease::verb::Verb;
use crate::lease::{Lease, Patch, Write};
use crate::model::{Checkpoint, WorkerId};

const RACERS: usize = 64;
const ROUNDS: usize = 4;

/// Runs one task for each racer at once; they are truly parallel where the runtime has several threads.
async fn race<F>(store: &Store, racer: impl Fn(Store, usize) -> F) -> Vec<Write>
where
    F: Future<Output = Write> + Send + 'static,
{
    let mut racers = JoinSet::new();
    for index in 0..RACERS {
        racers.spawn(racer(Arc::clone(store), index));
    }
    racers.join_all().await
}

/// The row the one winner wrote; all others must have been shown it.
fn winner(answers: Vec<Write>) -> Lease {
    let (won, lost): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| matches!(answer, Write::Applied(_)));
    let [Write::Applied(row)] = won.as_slice() else { panic!("not one winner: {won:?}") };
    for answer in lost {
        assert_eq!(answer, Write::Conflict(Some(row.clone())));
    }
    row.clone()
}

/// Of 64 workers that create the same lease at once, one succeeds.
pub async fn concurrent_creates_have_one_winner(store: Store) {
    set_up(&store, &[]).await;
    for round in 0..ROUNDS {
        let answers = race(&store, |store, racer| async move {
            let mut lease = Lease::new(shard(round), Checkpoint::TrimHorizon);
            lease.owner = Some(WorkerId::from(format!("worker-{racer}")));
            create(&store, &lease).await
        })
        .await;
        assert_eq!(read(&store, &shard(round)).await, Some(winner(answers)));
    }
}

/// Of 64 workers that delete the same lease at once, one succeeds; the others find nothing.
pub async fn concurrent_deletes_have_one_winner(store: Store) {
    let lease = Lease::new(shard(0), Checkpoint::ShardEnd);
    set_up(&store, std::slice::from_ref(&lease)).await;
    let answers =
        race(&store, |store, _| async move { delete(&store, &shard(0), &counter_is(0)).await }).await;
    let won = answers.iter().filter(|answer| **answer == Write::Applied(lease.clone())).count();
    let lost = answers.iter().filter(|answer| **answer == Write::Conflict(None)).count();
    assert_eq!((won, lost), (1, RACERS - 1));
}

/// Of 64 workers that take the same lease at once, one succeeds, round after round.
pub async fn one_of_64_takers_wins_each_round(store: Store) {
    let mut lease = Lease::new(shard(0), Checkpoint::TrimHorizon);
    set_up(&store, std::slice::from_ref(&lease)).await;
    for round in 0..ROUNDS {
        let answers = race(&store, |store, racer| {
            let me = WorkerId::from(format!("worker-{racer}"));
            let verb = Verb::take(&lease, &me, token((round * RACERS + racer) as u128));
            async move { update(&store, &verb.shard, &verb.expect, &verb.patch).await }
        })
        .await;
        let taken = winner(answers);
        assert_eq!(taken.counter, lease.counter + 1);
        assert_eq!(read(&store, &shard(0)).await.as_ref(), Some(&taken));
        lease = taken;
    }
}

/// Concurrent compare-and-swap loops lose no increment.
pub async fn every_increment_that_won_counts(store: Store) {
    set_up(&store, &[Lease::new(shard(0), Checkpoint::TrimHorizon)]).await;
    let mut racers = JoinSet::new();
    for _ in 0..16 {
        let store = Arc::clone(&store);
        racers.spawn(async move {
            let mut won = 0;
            let mut counter = 0;
            for _ in 0..10 {
                let patch = Patch { counter: Some(counter + 1), ..Patch::default() };
                counter = match update(&store, &shard(0), &counter_is(counter), &patch).await {
                    Write::Applied(lease) => {
                        won += 1;
                        lease.counter
                    }
                    Write::Conflict(Some(lease)) => lease.counter,
                    Write::Conflict(None) => panic!("the row is gone"),
                };
                tokio::task::yield_now().await;
            }
            won
        });
    }
    let won: u64 = racers.join_all().await.into_iter().sum();
    assert!(won >= 10, "somebody wins each time: {won}");
    let Write::Applied(last) = delete(&store, &shard(0), &any()).await else { panic!("the row is gone") };
    assert_eq!(last.counter, won);
}
