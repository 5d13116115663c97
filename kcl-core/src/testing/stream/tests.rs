use kcl_local::clock::ManualClock;
use kcl_local::kinesis::NewRecord;

use super::*;

const SHARD: &str = "shardId-000000000000";

fn stream(shards: u32) -> MemoryStream {
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let kinesis = Kinesis::new(Arc::new(clock));
    kinesis.create_stream("orders", shards).unwrap();
    MemoryStream::new(kinesis, "orders").with_fetch_records(3)
}

fn put(stream: &MemoryStream, count: u32) -> Vec<SequenceNumber> {
    let one = |at: u32| stream.kinesis().put_record("orders", NewRecord::new("key", at.to_string())).unwrap();
    (0..count).map(|at| number(one(at).sequence_number)).collect()
}

async fn read(reader: &mut dyn ShardReader, count: usize) -> Vec<SequenceNumber> {
    let (start, mut read) = (Instant::now(), Vec::new());
    while read.len() < count {
        assert!(start.elapsed() < Duration::from_secs(600), "{count} records do not come: {read:?}");
        read.extend(reader.next().await.unwrap().records.iter().map(|record| record.sequence_number));
    }
    read
}

#[tokio::test(start_paused = true)]
async fn disturbed_and_cancelled_reads_lose_and_repeat_nothing() {
    for seed in 0..20 {
        let stream = stream(1).with_entropy(Entropy::seeded(seed));
        stream.disturb(0.3);
        stream.set_latency(Duration::from_millis(50));
        let expected = put(&stream, 60);
        let mut reader = stream.open(&SHARD.into(), StartFrom::TrimHorizon).await.unwrap();
        let (entropy, start, mut read) = (Entropy::seeded(seed), Instant::now(), Vec::new());
        while read.len() < expected.len() {
            assert!(start.elapsed() < Duration::from_secs(600), "seed {seed}: the records do not come");
            let patience = Duration::from_millis(entropy.below(400));
            if entropy.below(5) == 0 {
                stream.kinesis().expire_iterators("orders").unwrap();
            }
            if let Ok(batch) = timeout(patience, reader.next()).await {
                read.extend(batch.unwrap().records.iter().map(|record| record.sequence_number));
            }
        }
        assert_eq!(read, expected, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_shard_is_read_once_per_interval() {
    let stream = stream(1);
    let mut reader = stream.open(&SHARD.into(), StartFrom::Latest).await.unwrap();
    let start = Instant::now();
    for _ in 0..10 {
        assert_eq!(reader.next().await.unwrap().records, []);
    }
    assert_eq!(start.elapsed(), Duration::from_millis(200) * 9);
    assert_eq!(stream.calls(StreamCall::Read), 10);
}

#[tokio::test(start_paused = true)]
async fn the_end_names_the_children_unless_they_are_hidden() {
    let stream = stream(1);
    let expected = put(&stream, 2);
    stream.kinesis().split_shard("orders", SHARD, 1 << 127).unwrap();
    for hidden in [false, true] {
        stream.hide_children(hidden);
        let mut reader = stream.open(&SHARD.into(), StartFrom::TrimHorizon).await.unwrap();
        let batch = reader.next().await.unwrap();
        assert_eq!(batch.records.len(), expected.len());
        let end = batch.end.unwrap();
        assert_eq!(end.children.len(), if hidden { 0 } else { 2 });
        assert_eq!(reader.next().await.unwrap().end, Some(end));
    }
    let shards = stream.list_shards().await.unwrap();
    assert_eq!(shards.iter().filter(|shard| shard.is_open()).count(), 2);
    assert!(shards[1..].iter().all(|shard| shard.parents().all(|parent| parent.as_str() == SHARD)));
}

#[tokio::test(start_paused = true)]
async fn planned_failures_come_in_their_number_and_on_their_shard() {
    let stream = stream(2);
    let (one, other) = (ShardId::from(SHARD), ShardId::from("shardId-000000000001"));
    stream.fail_shard(StreamCall::Read, &one, SourceErrorKind::ShardMissing, 1);
    stream.fail(StreamCall::List, SourceErrorKind::Denied, 2);
    let mut well = stream.open(&other, StartFrom::TrimHorizon).await.unwrap();
    well.next().await.unwrap();
    let mut ill = stream.open(&one, StartFrom::TrimHorizon).await.unwrap();
    assert_eq!(ill.next().await.unwrap_err().kind(), SourceErrorKind::ShardMissing);
    ill.next().await.unwrap();
    for _ in 0..2 {
        assert_eq!(stream.list_shards().await.unwrap_err().kind(), SourceErrorKind::Denied);
    }
    assert_eq!(stream.list_shards().await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn absorbed_failures_are_counted_until_the_next_success() {
    let stream = stream(1);
    stream.claim_behind(Some(Duration::from_secs(77)));
    stream.fail(StreamCall::Read, SourceErrorKind::Throttled, 2);
    let mut reader = stream.open(&SHARD.into(), StartFrom::TrimHorizon).await.unwrap();
    for count in 1..=2 {
        reader.next().await.unwrap();
        let (absorbed, latest) = reader.absorbed_failures().unwrap();
        assert_eq!((absorbed, latest.kind()), (count, SourceErrorKind::Throttled));
    }
    assert_eq!(reader.next().await.unwrap().behind, Some(Duration::from_secs(77)));
    assert!(reader.absorbed_failures().is_none());
}

#[tokio::test(start_paused = true)]
async fn latest_does_not_jump_when_its_iterator_expires() {
    let stream = stream(1);
    let mut reader = stream.open(&SHARD.into(), StartFrom::Latest).await.unwrap();
    let expected = put(&stream, 2);
    stream.kinesis().expire_iterators("orders").unwrap();
    assert_eq!(read(reader.as_mut(), 2).await, expected);
}

#[tokio::test]
async fn what_does_not_exist_is_told_apart() {
    let stream = stream(1);
    let kind = async |shard: &str, from| stream.open(&shard.into(), from).await.unwrap_err().kind();
    let start = StartFrom::TrimHorizon;
    assert_eq!(kind("shardId-000000000009", start).await, SourceErrorKind::ShardMissing);
    let foreign = StartFrom::AfterSequence(7.into());
    assert_eq!(kind(SHARD, foreign).await, SourceErrorKind::PositionUnknown);
    stream.kinesis().delete_stream("orders").unwrap();
    assert_eq!(kind(SHARD, start).await, SourceErrorKind::StreamMissing);
    assert_eq!(stream.identity().await.unwrap_err().kind(), SourceErrorKind::StreamMissing);
}
