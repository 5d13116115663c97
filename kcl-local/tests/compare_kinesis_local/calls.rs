//! The calls, and what of their answers is compared.

use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::primitives::{Blob, DateTime};
use aws_sdk_kinesis::types::{
    ChildShard, PutRecordsRequestEntry, ScalingType, Shard, ShardFilter, ShardFilterType, ShardIteratorType,
    StreamMode, StreamModeDetails,
};
use kcl_local::clock::{Clock, SystemClock};

const STREAM: &str = "orders";
const FIRST: &str = "shardId-000000000000";
const SECOND: &str = "shardId-000000000001";
/// The middle of the lower half of the hash-key space.
const LOWER_QUARTER: &str = "85070591730234615865843651857942052864";

/// Makes all calls and returns the steps with their comparable answers.
pub(crate) async fn observe(client: Client) -> Vec<(String, String)> {
    let mut observer = Observer { client, seen: Vec::new() };
    observer.streams().await;
    observer.listings("two shards").await;
    observer.filters("two shards").await;
    observer.puts().await;
    observer.iterators().await;
    observer.reads().await;
    observer.splits_and_merges().await;
    observer.listings("after a split and a merge").await;
    observer.filters("after a split and a merge").await;
    observer.merge_from_above().await;
    observer.shard_counts().await;
    observer.settings().await;
    observer.end().await;
    observer.seen
}

struct Observer {
    client: Client,
    seen: Vec<(String, String)>,
}

/// The error code as the SDK reads it.
fn code<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> String {
    match error {
        SdkError::ServiceError(service) => service.err().code().unwrap_or("error without a code").to_owned(),
        SdkError::ResponseError(_) => "an answer that the SDK cannot read".to_owned(),
        _ => "no answer".to_owned(),
    }
}

fn present<T>(value: Option<T>) -> &'static str {
    if value.is_some() { "present" } else { "absent" }
}

fn shard(shard: &Shard) -> String {
    let end = shard.sequence_number_range().and_then(|range| range.ending_sequence_number());
    format!(
        "[{} parent={:?} adjacent={:?} end={}]",
        shard.shard_id(),
        shard.parent_shard_id(),
        shard.adjacent_parent_shard_id(),
        present(end),
    )
}

/// Which part of the hash-key space each shard has.
fn ranges(list: &[Shard]) -> String {
    let range = |shard: &Shard| {
        let hash = shard.hash_key_range().unwrap();
        format!("{} {}..={}", shard.shard_id(), hash.starting_hash_key(), hash.ending_hash_key())
    };
    list.iter().map(range).collect::<Vec<_>>().join(", ")
}

fn shards(list: &[Shard]) -> String {
    list.iter().map(shard).collect::<Vec<_>>().join(" ")
}

fn page(output: &GetRecordsOutput) -> String {
    let records: Vec<_> = output
        .records()
        .iter()
        .map(|record| {
            let data = String::from_utf8_lossy(record.data().as_ref());
            let arrival = present(record.approximate_arrival_timestamp());
            format!("{:?}={data} arrival {arrival}", record.partition_key())
        })
        .collect();
    let children = children(output);
    format!(
        "{records:?} next {} children {children} behind {}",
        present(output.next_shard_iterator()),
        match output.millis_behind_latest() {
            None => "absent",
            Some(0) => "zero",
            Some(_) => "positive",
        }
    )
}

fn children(output: &GetRecordsOutput) -> String {
    let child = |child: &ChildShard| {
        // The order of the parents is not documented.
        let mut parents = child.parent_shards().to_vec();
        parents.sort();
        format!("[{} parents={parents:?}]", child.shard_id())
    };
    output.child_shards().iter().map(child).collect::<Vec<_>>().join(" ")
}

impl Observer {
    fn note<T, E, R>(&mut self, step: &str, answer: Result<T, SdkError<E, R>>, show: impl Fn(&T) -> String)
    where
        E: ProvideErrorMetadata,
    {
        let shown = match &answer {
            Ok(answer) => show(answer),
            Err(error) => code(error),
        };
        self.seen.push((step.to_owned(), shown));
    }

    /// Waits for the stream to be active; real services take their time for every change.
    async fn settle(&self, stream: &str) {
        for _ in 0..500 {
            let summary = self.client.describe_stream_summary().stream_name(stream).send().await.unwrap();
            let summary = summary.stream_description_summary().unwrap();
            if summary.stream_status().as_str() == "ACTIVE" {
                return;
            }
            // Another process can only be asked again and again whether it is ready.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the stream does not become active");
    }

    async fn create(&self, stream: &str, shards: i32) {
        self.client.create_stream().stream_name(stream).shard_count(shards).send().await.unwrap();
        self.settle(stream).await;
    }

    async fn arn(&self) -> String {
        let summary = self.client.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
        summary.stream_description_summary().unwrap().stream_arn().to_owned()
    }

    async fn streams(&mut self) {
        let client = self.client.clone();
        let ok = |_: &_| "ok".to_owned();
        self.note(
            "describe a missing stream",
            client.describe_stream_summary().stream_name(STREAM).send().await,
            |_| "ok".into(),
        );
        self.note(
            "list shards of a missing stream",
            client.list_shards().stream_name(STREAM).send().await,
            |_| "ok".into(),
        );
        let create = |count: i32| client.create_stream().stream_name(STREAM).shard_count(count).send();
        self.note("create a stream of no shards", create(0).await, ok);
        self.note("create a stream", create(2).await, ok);
        self.settle(STREAM).await;
        self.note("create it again", create(2).await, ok);
        self.note(
            "create a stream with a bad name",
            client.create_stream().stream_name("or ders").shard_count(1).send().await,
            ok,
        );
        let on_demand = StreamModeDetails::builder().stream_mode(StreamMode::OnDemand).build().unwrap();
        self.note(
            "create an on-demand stream",
            client.create_stream().stream_name("on-demand").stream_mode_details(on_demand).send().await,
            ok,
        );
        self.note("describe the summary", client.describe_stream_summary().stream_name(STREAM).send().await, |answer| {
            let summary = answer.stream_description_summary().unwrap();
            format!(
                "{} {} {} open {} retention {} consumers {:?} mode {:?} encryption {:?} key {:?} monitoring {:?} created {}",
                summary.stream_name(),
                summary.stream_arn(),
                summary.stream_status(),
                summary.open_shard_count(),
                summary.retention_period_hours(),
                summary.consumer_count(),
                summary.stream_mode_details().map(StreamModeDetails::stream_mode),
                summary.encryption_type(),
                summary.key_id(),
                summary.enhanced_monitoring(),
                summary.stream_creation_timestamp().secs() > 1_700_000_000,
            )
        });
        let arn = self.arn().await;
        self.note(
            "describe by ARN",
            client.describe_stream_summary().stream_arn(arn).send().await,
            |answer| answer.stream_description_summary().unwrap().stream_name().to_owned(),
        );
        self.note("describe without name or ARN", client.describe_stream_summary().send().await, |_| {
            "ok".into()
        });
        let streams = client.list_streams().send().await;
        self.note("list the streams", streams, |answer| {
            format!(
                "{:?} more {} token {}",
                answer.stream_names(),
                answer.has_more_streams(),
                present(answer.next_token())
            )
        });
        let streams = client.list_streams().limit(1).send().await;
        self.note("list one stream", streams, |answer| {
            format!(
                "{:?} more {} token {}",
                answer.stream_names(),
                answer.has_more_streams(),
                present(answer.next_token())
            )
        });
    }

    async fn listings(&mut self, when: &str) {
        let client = self.client.clone();
        let describe = || client.describe_stream().stream_name(STREAM);
        self.note(&format!("{when}: describe the stream"), describe().send().await, |answer| {
            let stream = answer.stream_description().unwrap();
            format!("{} more {}", shards(stream.shards()), stream.has_more_shards())
        });
        self.note(&format!("{when}: describe one shard"), describe().limit(1).send().await, |answer| {
            let stream = answer.stream_description().unwrap();
            format!("{} more {}", shards(stream.shards()), stream.has_more_shards())
        });
        self.note(
            &format!("{when}: describe after the first shard"),
            describe().exclusive_start_shard_id(FIRST).send().await,
            |answer| shards(answer.stream_description().unwrap().shards()),
        );
        let list = || client.list_shards().stream_name(STREAM);
        self.note(&format!("{when}: list shards"), list().send().await, |answer| {
            format!("{} token {}", shards(answer.shards()), present(answer.next_token()))
        });
        self.note(&format!("{when}: hash ranges"), list().send().await, |answer| ranges(answer.shards()));
        let first_page = list().max_results(1).send().await.unwrap();
        self.seen.push((format!("{when}: list one shard"), shards(first_page.shards())));
        let token = || client.list_shards().set_next_token(first_page.next_token().map(str::to_owned));
        self.note(&format!("{when}: list the next shard"), token().max_results(1).send().await, |answer| {
            shards(answer.shards())
        });
        self.note(
            &format!("{when}: list by token and name"),
            token().stream_name(STREAM).send().await,
            |answer| shards(answer.shards()),
        );
        self.note(
            &format!("{when}: list by a junk token"),
            client.list_shards().next_token("junk").send().await,
            |answer| shards(answer.shards()),
        );
        self.note(
            &format!("{when}: list after the first shard"),
            list().exclusive_start_shard_id(FIRST).send().await,
            |answer| shards(answer.shards()),
        );
        let arn = self.arn().await;
        self.note(
            &format!("{when}: list by ARN"),
            client.list_shards().stream_arn(arn).send().await,
            |answer| answer.shards().len().to_string(),
        );
        self.note(&format!("{when}: list no shards"), list().max_results(0).send().await, |answer| {
            shards(answer.shards())
        });
    }

    async fn filters(&mut self, when: &str) {
        let client = self.client.clone();
        let list = |filter: ShardFilter| client.list_shards().stream_name(STREAM).shard_filter(filter).send();
        let of = |kind: ShardFilterType| ShardFilter::builder().r#type(kind);
        // kinesis-local cuts the time of a filter to whole seconds: let one pass, on its real clock.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let (now, past) = (DateTime::from(SystemClock.now()), DateTime::from_secs(1_000_000_000));
        for (name, filter) in [
            ("after the first", of(ShardFilterType::AfterShardId).shard_id(FIRST)),
            ("after no shard", of(ShardFilterType::AfterShardId)),
            ("at trim horizon", of(ShardFilterType::AtTrimHorizon)),
            ("from trim horizon", of(ShardFilterType::FromTrimHorizon)),
            ("at latest", of(ShardFilterType::AtLatest)),
            ("at a timestamp of now", of(ShardFilterType::AtTimestamp).timestamp(now)),
            ("from a timestamp of now", of(ShardFilterType::FromTimestamp).timestamp(now)),
            ("from a timestamp long ago", of(ShardFilterType::FromTimestamp).timestamp(past)),
            ("at no timestamp", of(ShardFilterType::AtTimestamp)),
        ] {
            let answer = list(filter.build().unwrap()).await;
            self.note(&format!("{when}: filter {name}"), answer, |answer| {
                answer.shards().iter().map(Shard::shard_id).collect::<Vec<_>>().join(" ")
            });
        }
    }

    async fn puts(&mut self) {
        let client = self.client.clone();
        let put_to = |stream: &str, key: &str, data: Vec<u8>| {
            client.put_record().stream_name(stream).partition_key(key).data(Blob::new(data))
        };
        let put = |key: &str, data: Vec<u8>| put_to(STREAM, key, data);
        // What one server refuses and the other takes must not move what is compared later.
        self.create("limits", 1).await;
        let try_put = |key: &str, data: Vec<u8>| put_to("limits", key, data);
        macro_rules! record {
            ($step:expr, $request:expr) => {
                let answer = $request.send().await;
                self.note($step, answer, |answer| {
                    format!("{} encryption {:?}", answer.shard_id(), answer.encryption_type())
                });
            };
        }
        record!("put a record", put("customer-1", b"one".to_vec()));
        record!("put to the lower end", put("customer-2", b"two".to_vec()).explicit_hash_key("0"));
        record!(
            "put to the upper end",
            put("customer-3", b"three".to_vec()).explicit_hash_key(u128::MAX.to_string())
        );
        record!(
            "put beyond the upper end",
            try_put("customer-3", b"x".to_vec()).explicit_hash_key("340282366920938463463374607431768211456")
        );
        record!(
            "put to a hash key that is none",
            try_put("customer-3", b"x".to_vec()).explicit_hash_key("abc")
        );
        record!("put no data", put("customer-4", Vec::new()));
        record!("put with an empty key", try_put("", b"x".to_vec()));
        record!("put with a key of 256 letters", try_put(&"k".repeat(256), b"x".to_vec()));
        record!("put with a key of 257 letters", try_put(&"k".repeat(257), b"x".to_vec()));
        record!("put 1 MiB with its key", try_put("k", vec![b'x'; (1 << 20) - 1]));
        record!("put 1 MiB without its key", try_put("k", vec![b'x'; 1 << 20]));
        record!("put beyond 1 MiB", try_put("k", vec![b'x'; (1 << 20) + 1]));
        record!("put to a missing stream", put("k", b"x".to_vec()).stream_name("nowhere"));
        let arn = self.arn().await;
        record!("put by ARN", client.put_record().stream_arn(arn).partition_key("k").data(Blob::new("x")));
        record!(
            "put after an alien number",
            try_put("k", b"x".to_vec()).sequence_number_for_ordering("junk")
        );

        let entry = |key: String| {
            PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new("batch")).build().unwrap()
        };
        for count in [3, 0, 501] {
            let entries: Vec<_> = (0..count).map(|number| entry(format!("customer-{number}"))).collect();
            let stream = if count == 3 { STREAM } else { "limits" };
            let answer = client.put_records().stream_name(stream).set_records(Some(entries)).send().await;
            self.note(&format!("put {count} records"), answer, |answer| {
                let placed: Vec<_> = answer
                    .records()
                    .iter()
                    .map(|record| {
                        format!(
                            "{:?} {:?} {}",
                            record.shard_id(),
                            record.error_code(),
                            present(record.sequence_number())
                        )
                    })
                    .collect();
                format!(
                    "failed {:?} encryption {:?} {}",
                    answer.failed_record_count(),
                    answer.encryption_type(),
                    if placed.len() > 3 { "many".to_owned() } else { format!("{placed:?}") },
                )
            });
        }
    }

    async fn iterators(&mut self) {
        let client = self.client.clone();
        let get = |kind: ShardIteratorType| {
            client.get_shard_iterator().stream_name(STREAM).shard_id(FIRST).shard_iterator_type(kind)
        };
        let number = self.first_number(FIRST).await;
        let alien = self.first_number(SECOND).await;
        let (at, after) = (ShardIteratorType::AtSequenceNumber, ShardIteratorType::AfterSequenceNumber);
        let future = DateTime::from(SystemClock.now() + Duration::from_secs(3_600));
        for (step, request) in [
            ("trim horizon", get(ShardIteratorType::TrimHorizon)),
            ("latest", get(ShardIteratorType::Latest)),
            ("at a number", get(at.clone()).starting_sequence_number(&number)),
            ("after a number", get(after).starting_sequence_number(&number)),
            ("at no number", get(at.clone())),
            ("at a number of another shard", get(at.clone()).starting_sequence_number(&alien)),
            ("at a junk number", get(at.clone()).starting_sequence_number("junk")),
            ("at number zero", get(at).starting_sequence_number("0")),
            ("at a time", get(ShardIteratorType::AtTimestamp).timestamp(DateTime::from_secs(1_000_000_000))),
            ("at no time", get(ShardIteratorType::AtTimestamp)),
            ("at a future time", get(ShardIteratorType::AtTimestamp).timestamp(future)),
            ("of a missing shard", get(ShardIteratorType::Latest).shard_id("shardId-000000000099")),
            ("of a shard that is none", get(ShardIteratorType::Latest).shard_id("one shard")),
            ("of a missing stream", get(ShardIteratorType::Latest).stream_name("nowhere")),
        ] {
            let answer = request.send().await;
            self.note(&format!("iterator {step}"), answer, |answer| {
                present(answer.shard_iterator()).to_owned()
            });
        }
    }

    async fn open(&self, shard: &str, kind: ShardIteratorType) -> String {
        let open =
            self.client.get_shard_iterator().stream_name(STREAM).shard_id(shard).shard_iterator_type(kind);
        open.send().await.unwrap().shard_iterator().unwrap().to_owned()
    }

    async fn first_number(&self, shard: &str) -> String {
        let iterator = self.open(shard, ShardIteratorType::TrimHorizon).await;
        let page = self.client.get_records().shard_iterator(iterator).send().await.unwrap();
        page.records()[0].sequence_number().to_owned()
    }

    async fn reads(&mut self) {
        let client = self.client.clone();
        for shard in [FIRST, SECOND] {
            let iterator = self.open(shard, ShardIteratorType::TrimHorizon).await;
            let one = client.get_records().shard_iterator(&iterator).limit(1).send().await;
            let next =
                one.as_ref().ok().and_then(|page| page.next_shard_iterator()).unwrap_or_default().to_owned();
            self.note(&format!("read one record of {shard}"), one, page);
            let rest = client.get_records().shard_iterator(next).send().await;
            self.note(&format!("read the rest of {shard}"), rest, |answer| {
                let sizes: Vec<_> =
                    answer.records().iter().map(|record| record.data().as_ref().len()).collect();
                format!("sizes {sizes:?} behind {:?}", answer.millis_behind_latest())
            });
        }
        let iterator = self.open(FIRST, ShardIteratorType::TrimHorizon).await;
        let records = client.get_records().shard_iterator(iterator).limit(1).send().await;
        self.note("encryption of a record read", records, |answer| {
            format!("{:?}", answer.records()[0].encryption_type())
        });
        let latest = self.open(FIRST, ShardIteratorType::Latest).await;
        self.note("read at the tip", client.get_records().shard_iterator(&latest).send().await, page);
        for limit in [0, 10_000, 10_001] {
            let answer = client.get_records().shard_iterator(&latest).limit(limit).send().await;
            self.note(&format!("read up to {limit} records"), answer, |_| "ok".into());
        }
        self.note("read by a junk iterator", client.get_records().shard_iterator("junk").send().await, page);
    }

    /// Reads a shard to its end, page by page.
    async fn drain(&mut self, shard: &str) {
        let mut iterator = Some(self.open(shard, ShardIteratorType::TrimHorizon).await);
        let mut pages = Vec::new();
        while let Some(open) = iterator.take()
            && pages.len() < 5
        {
            let answer = self.client.get_records().shard_iterator(open).send().await.unwrap();
            iterator = answer.next_shard_iterator().map(str::to_owned);
            let children = children(&answer);
            pages.push(format!("{} records, children {children}", answer.records().len()));
        }
        self.seen.push((format!("read {shard} to its end"), format!("{pages:?}")));
    }

    async fn splits_and_merges(&mut self) {
        let client = self.client.clone();
        let ok = |_: &_| "ok".to_owned();
        for (name, at) in [("lower end", 0), ("upper end", u128::MAX)] {
            // A server that takes the request has another lineage from then on.
            let stream = if at == 0 { "lower" } else { "upper" };
            self.create(stream, 1).await;
            let split = client.split_shard().stream_name(stream).shard_to_split(FIRST);
            let answer = split.new_starting_hash_key(at.to_string()).send().await;
            self.note(&format!("split at the {name}"), answer, ok);
        }
        let ok = |_: &_| "ok".to_owned();
        let split = |shard: &str, at: &str| {
            client.split_shard().stream_name(STREAM).shard_to_split(shard).new_starting_hash_key(at).send()
        };
        self.note("split outside", split(FIRST, &u128::MAX.to_string()).await, ok);
        self.settle(STREAM).await;
        self.note("split a missing shard", split("shardId-000000000099", LOWER_QUARTER).await, ok);
        self.note("split", split(FIRST, LOWER_QUARTER).await, ok);
        self.settle(STREAM).await;
        self.note("split it again", split(FIRST, LOWER_QUARTER).await, ok);
        self.settle(STREAM).await;

        let ok = |_: &_| "ok".to_owned();
        let merge = |shard: &str, adjacent: &str| {
            client
                .merge_shards()
                .stream_name(STREAM)
                .shard_to_merge(shard)
                .adjacent_shard_to_merge(adjacent)
                .send()
        };
        self.note("merge what is not adjacent", merge("shardId-000000000002", SECOND).await, ok);
        self.note("merge a shard with itself", merge(SECOND, SECOND).await, ok);
        self.note("merge with a closed shard", merge(FIRST, SECOND).await, ok);
        self.note("merge", merge("shardId-000000000003", SECOND).await, ok);
        self.settle(STREAM).await;
        for shard in [FIRST, SECOND] {
            self.drain(shard).await;
        }
        let put = client.put_record().stream_name(STREAM).partition_key("k").data(Blob::new("child"));
        let put = put.explicit_hash_key(u128::MAX.to_string()).send().await;
        self.note("put to the merged shard", put, |answer| answer.shard_id().to_owned());
        let at_end = self.open(FIRST, ShardIteratorType::Latest).await;
        self.note(
            "read a closed shard at latest",
            client.get_records().shard_iterator(at_end).send().await,
            page,
        );
        let latest = self.open("shardId-000000000004", ShardIteratorType::TrimHorizon).await;
        self.note("read the merged shard", client.get_records().shard_iterator(latest).send().await, page);
    }

    /// Merges from the upper shard to the lower one, on a stream of its own.
    async fn merge_from_above(&mut self) {
        let client = self.client.clone();
        self.create("above", 2).await;
        let merge = client.merge_shards().stream_name("above").shard_to_merge(SECOND);
        self.note("merge from above", merge.adjacent_shard_to_merge(FIRST).send().await, |_| "ok".into());
        self.settle("above").await;
        let list = client.list_shards().stream_name("above").send().await;
        self.note("shards after the merge from above", list, |answer| shards(answer.shards()));
    }

    async fn shard_counts(&mut self) {
        let client = self.client.clone();
        for target in [0, 5, 4, 3] {
            let update = client.update_shard_count().stream_name(STREAM).target_shard_count(target);
            let answer = update.scaling_type(ScalingType::UniformScaling).send().await;
            self.note(&format!("update to {target} shards"), answer, |answer| {
                let (from, to) = (answer.current_shard_count(), answer.target_shard_count());
                format!("{:?} from {from:?} to {to:?}", answer.stream_name())
            });
            self.settle(STREAM).await;
            let list = client.list_shards().stream_name(STREAM).send().await;
            self.note(&format!("shards after the update to {target}"), list, |answer| {
                shards(answer.shards())
            });
        }
    }

    async fn settings(&mut self) {
        let client = self.client.clone();
        let ok = |_: &_| "ok".to_owned();
        for hours in [12, 48, 24, 8_761] {
            let increase = client.increase_stream_retention_period().stream_name(STREAM);
            self.note(
                &format!("increase retention to {hours}"),
                increase.retention_period_hours(hours).send().await,
                ok,
            );
        }
        let ok = |_: &_| "ok".to_owned();
        for hours in [72, 24, 23] {
            let decrease = client.decrease_stream_retention_period().stream_name(STREAM);
            self.note(
                &format!("decrease retention to {hours}"),
                decrease.retention_period_hours(hours).send().await,
                ok,
            );
        }
        let tagged =
            client.add_tags_to_stream().stream_name(STREAM).tags("team", "orders").tags("stage", "test");
        self.note("tag", tagged.send().await, |_| "ok".into());
        let untagged = client.remove_tags_from_stream().stream_name(STREAM).tag_keys("stage").send().await;
        self.note("untag", untagged, |_| "ok".into());
        let tags = client.list_tags_for_stream().stream_name(STREAM).send().await;
        self.note("list tags", tags, |answer| format!("{:?} more {}", answer.tags(), answer.has_more_tags()));
    }

    async fn end(&mut self) {
        let client = self.client.clone();
        self.note("delete", client.delete_stream().stream_name(STREAM).send().await, |_| "ok".into());
        self.note(
            "delete a missing stream",
            client.delete_stream().stream_name("nowhere").send().await,
            |_| "ok".into(),
        );
        for _ in 0..500 {
            let gone = client.describe_stream_summary().stream_name(STREAM).send().await;
            if gone.is_err() {
                self.note("describe the deleted stream", gone, |_| "ok".into());
                return;
            }
            // Another process can only be asked again and again whether it is ready.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the stream does not disappear");
    }
}
