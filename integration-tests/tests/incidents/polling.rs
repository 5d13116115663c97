//! Incident 22: several applications that poll the same shard.

use std::time::Duration;

use aws_sdk_dynamodb::config::SharedHttpClient;
use integration_tests::aws::{Aws, STREAM};
use kcl_core::source::kinesis::KinesisStream;
use kcl_core::testing::{Action, Recorder, Rule as Told};
use kcl_core::{Callback, Entropy, Event, Health, LeaseRuntime, Scheduler};
use kcl_lease_dynamo::DynamoLeaseStore;
use kcl_local::faults::{Fault, Faults, Rule, Seen, errors};
use kcl_local::kinesis::{Limits, NewRecord};
use kcl_local::wire::Service;
use tokio::time::sleep;

use crate::drain;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const FIRST: &str = "shardId-000000000000";

/// An application of its own, with clients of its own.
struct Application {
    recorder: Recorder,
    faults: Faults,
    handle: kcl_core::SchedulerHandle,
    events: tokio::sync::broadcast::Receiver<Event>,
}

fn start(aws: &Aws, name: &'static str, seed: u64) -> Application {
    let faults = Faults::seeded(seed);
    let client: SharedHttpClient = faults.wrap(aws.local.http_client());
    let config = aws.local.sdk_config().to_builder().http_client(client).build();
    let recorder = Recorder::new().with(Told::on(Callback::ProcessRecords, Action::Checkpoint));
    let stream = KinesisStream::new(aws_sdk_kinesis::Client::new(&config), STREAM);
    let scheduler = Scheduler::builder(name)
        .worker_id(name)
        .stream(stream.with_entropy(Entropy::seeded(seed)))
        .lease_store(DynamoLeaseStore::new(aws_sdk_dynamodb::Client::new(&config), name))
        .processor(recorder.clone())
        .lease_runtime(LeaseRuntime::Shared)
        .entropy(Entropy::seeded(seed))
        .build()
        .expect("the settings are sound");
    let handle = scheduler.handle();
    let events = handle.events();
    #[allow(clippy::disallowed_methods, reason = "the runtime of the test ends it")]
    drop(tokio::spawn(scheduler.run()));
    Application { recorder, faults, handle, events }
}

#[tokio::test(start_paused = true)]
async fn incident_22_three_applications_get_a_quarter_of_a_shard_each_and_see_none_of_its_errors() {
    let aws = Aws::in_process().with_stream(1);
    aws.local.kinesis().configure(|options| options.limits = Limits::aws());
    let mut applications = [("one", 1), ("two", 2), ("three", 3)].map(|(name, seed)| start(&aws, name, seed));
    for application in &applications {
        application.handle.ready().await;
    }
    let mut put = 0;
    for minute in 0..4 {
        if minute == 2 {
            for application in &applications {
                for error in [
                    errors::expired_iterator(),
                    errors::provisioned_throughput_exceeded(),
                    errors::internal_server_error(),
                ] {
                    let fault = Fault::Fail(Seen::Error(error));
                    let rule = Rule::on(Service::Kinesis, "GetRecords", fault).with_probability(0.03);
                    application.faults.add(rule);
                }
            }
        }
        for _ in 0..120 {
            aws.local
                .kinesis()
                .put_record(STREAM, NewRecord::new("key", "record"))
                .expect("within the limits");
            put += 1;
            sleep(SECOND / 2).await;
        }
    }
    sleep(MINUTE).await;
    let answers = applications.each_ref().map(|application| {
        // Each answer brings what was put since the last one.
        application.recorder.count(Callback::ProcessRecords)
    });
    let all: usize = answers.iter().sum();
    assert!(answers.iter().all(|answers| answers * 4 >= all), "{answers:?}");
    for application in &mut applications {
        assert_eq!(application.recorder.acknowledged(FIRST).len(), put, "everything, once");
        assert_eq!(application.handle.health(), Health::Ready);
        let events = drain(&mut application.events);
        let seen = |event: &&Event| {
            matches!(event, Event::LeaseLost { .. } | Event::CallbackFailed { .. } | Event::Stalled { .. })
        };
        assert_eq!(events.iter().filter(seen).count(), 0, "{events:?}");
    }
}
