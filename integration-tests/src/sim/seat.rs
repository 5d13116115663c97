//! The services of a run, and the place of a worker between them and the judge.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use kcl_core::lease::{LeaseStore, StoreErrorKind};
use kcl_core::source::kinesis::{
    FanOutConfig, FanOutConsumer, HttpClientFactory, KinesisStream, PollingConfig, Retrieval,
};
use kcl_core::testing::{
    Fault as StoreFault, FaultRule, FaultyStore, MemoryStream, Mishap, STREAM, StoreOperation,
};
use kcl_core::{Entropy, SchedulerBuilder, TokioClock};
use kcl_lease_dynamo::DynamoLeaseStore;
use kcl_lease_memory::MemoryLeaseStore;
use kcl_local::LocalAws;
use kcl_local::clock::SharedClock;
use kcl_local::faults::{Fault, Faults, Rule, Seen, errors};
use kcl_local::kinesis::Kinesis;
use kcl_local::wire::Service;

use super::judge::{Judge, Life};
use super::plan::{Plan, Reading};
use super::witness::{Asked, Clocks, Landed, Strikes, Struck, WatchedSource};

/// The lease table of runs over the SDK.
const TABLE: &str = "app";
/// The consumer that all workers subscribe with, if they do.
const CONSUMER: &str = "app";

/// The services of a run.
#[derive(Debug)]
pub(super) enum Cloud {
    Model { kinesis: Kinesis, rows: MemoryLeaseStore },
    Sdk { aws: Box<LocalAws> },
}

/// The place of a worker: what can be made to go wrong for it.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) life: Life,
    pub(super) clocks: Clocks,
    wires: Wires,
}

#[derive(Debug)]
enum Wires {
    Model { store: FaultyStore<Landed<MemoryLeaseStore>>, stream: MemoryStream, base: Vec<FaultRule> },
    Sdk { faults: Faults },
}

impl Cloud {
    pub(super) const fn model(kinesis: Kinesis, rows: MemoryLeaseStore) -> Self {
        Self::Model { kinesis, rows }
    }

    pub(super) fn sdk(clock: SharedClock) -> Self {
        let aws = LocalAws::builder().clock(clock).in_process().expect("services in process start");
        Self::Sdk { aws: Box::new(aws) }
    }

    pub(super) fn kinesis(&self) -> &Kinesis {
        match self {
            Self::Model { kinesis, .. } => kinesis,
            Self::Sdk { aws } => aws.kinesis(),
        }
    }

    /// The lease table, without anything in between.
    pub(super) fn rows(&self) -> Arc<dyn LeaseStore> {
        match self {
            Self::Model { rows, .. } => Arc::new(rows.clone()),
            Self::Sdk { aws } => {
                let client = aws_sdk_dynamodb::Client::new(&aws.sdk_config());
                Arc::new(DynamoLeaseStore::new(client, TABLE).with_consistent_lists(true))
            }
        }
    }

    /// Puts a worker between services and judge.
    pub(super) fn seat(
        &self,
        plan: &Plan,
        (life, rate): (Life, f64),
        (judge, strikes): (&Judge, &Strikes),
        entropy: &Entropy,
        builder: SchedulerBuilder,
    ) -> (Seat, SchedulerBuilder) {
        let clocks = Clocks::new(self.kinesis().clock().now());
        let builder = builder.clock(clocks.clone());
        match self {
            Self::Model { kinesis, rows } => {
                let landed = Landed::new(rows.clone(), life.clone(), judge.clone());
                let store = FaultyStore::new(landed, entropy.fork());
                let stream = MemoryStream::new(kinesis.clone(), STREAM).with_entropy(entropy.fork());
                let stream = match plan.reading {
                    Reading::Polling => stream
                        .skipping_idle_polls()
                        .with_poll_interval(plan.poll_interval)
                        .with_fetch_records(plan.fetch_records),
                    Reading::FanOut => stream.with_consumer(CONSUMER),
                };
                stream.set_latency(plan.stream_latency);
                let struck = Struck::new(store.clone(), life.clone(), judge.clone(), strikes.clone());
                let builder = builder
                    .lease_store(Asked::new(struck, life.clone(), judge.clone(), rate))
                    .stream(WatchedSource::new(stream.clone(), life.clone(), judge.clone()));
                (Seat { life, clocks, wires: Wires::Model { store, stream, base: Vec::new() } }, builder)
            }
            Self::Sdk { aws } => {
                let faults = Faults::seeded(entropy.next_u64());
                let client = faults.wrap(aws.http_client());
                let config = aws.sdk_config().to_builder().http_client(client.clone()).build();
                let mut store = DynamoLeaseStore::new(aws_sdk_dynamodb::Client::new(&config), TABLE);
                if plan.page_size < NonZeroU32::MAX {
                    store = store.with_page_size(plan.page_size);
                }
                let landed = Landed::answered(store, life.clone(), judge.clone());
                let stream = KinesisStream::new(aws_sdk_kinesis::Client::new(&config), STREAM)
                    .with_retrieval(retrieval(plan))
                    .with_subscription_clients(HttpClientFactory::new(move || client.clone()))
                    .with_clock(Arc::new(TokioClock::new(self.kinesis().clock().now())))
                    .with_entropy(entropy.fork());
                let seat = Seat { life: life.clone(), clocks, wires: Wires::Sdk { faults } };
                seat.delay(plan);
                let builder = builder
                    .lease_store(Asked::new(landed, life.clone(), judge.clone(), rate))
                    .stream(WatchedSource::new(stream, life, judge.clone()));
                (seat, builder)
            }
        }
    }
}

impl Seat {
    /// Adds a rule that stays when it is calm.
    pub(super) fn rule(&mut self, rule: FaultRule) {
        if let Wires::Model { store, base, .. } = &mut self.wires {
            store.add(rule.clone());
            base.push(rule);
        }
    }

    fn delay(&self, plan: &Plan) {
        if let Wires::Sdk { faults } = &self.wires {
            for (service, delay) in
                [(Service::Kinesis, plan.stream_latency), (Service::DynamoDb, plan.store_latency)]
            {
                faults.add(Rule::on_every_operation(service, Fault::DelayRequest(delay / 2)));
                faults.add(Rule::on_every_operation(service, Fault::DelayAnswer(delay / 2)));
            }
        }
    }

    /// Lets the answers to the worker's fleet writes come this much late. Only over the model.
    pub(super) fn answer_late(&self, late: Duration) {
        if let Wires::Model { store, .. } = &self.wires {
            let ms = Duration::from_millis(1);
            let fault = StoreFault::Delay { before: Duration::ZERO..ms, after: late..late + ms };
            store.add(FaultRule::new(fault).on([StoreOperation::ChangeFleet]));
        }
    }

    /// Lets a mishap befall a share of the worker's calls.
    pub(super) fn befall(&self, mishap: Mishap, share: f64) {
        match &self.wires {
            Wires::Model { store, stream, .. } => mishap.befall(store, stream, share),
            Wires::Sdk { faults } => {
                for rule in over_the_sdk(mishap) {
                    faults.add(rule.with_probability(share));
                }
            }
        }
    }

    /// Has the fleet rows throttle writes, and reads as well if asked for. Over the SDK nothing happens.
    pub(super) fn throttle_fleet_rows(&self, reads: bool) {
        if let Wires::Model { store, .. } = &self.wires {
            let throttled = StoreFault::Refuse(StoreErrorKind::Throttled);
            store.add(FaultRule::new(throttled.clone()).on([StoreOperation::ChangeFleet]));
            if reads {
                store.add(FaultRule::new(throttled).on([StoreOperation::FleetRow]));
            }
        }
    }

    /// Holds deletions of leases up on their way. Over the SDK nothing happens.
    pub(super) fn hold_deletions(&self, time: Duration) {
        if let Wires::Model { store, .. } = &self.wires {
            let held = StoreFault::Delay { before: time..time, after: Duration::ZERO..Duration::ZERO };
            store.add(FaultRule::new(held).on([StoreOperation::Delete]));
        }
    }

    /// Ends every mishap.
    pub(super) fn calm(&self) {
        match &self.wires {
            Wires::Model { store, stream, base } => {
                store.clear();
                for rule in base {
                    store.add(rule.clone());
                }
                stream.calm();
            }
            Wires::Sdk { faults } => faults.clear(),
        }
    }
}

fn retrieval(plan: &Plan) -> Retrieval {
    if plan.reading == Reading::FanOut {
        return Retrieval::FanOut(FanOutConfig::new(FanOutConsumer::Named(CONSUMER.to_owned())));
    }
    let mut polling = PollingConfig::default();
    polling.min_interval = plan.poll_interval;
    polling.max_interval = polling.max_interval.max(plan.poll_interval);
    polling.fetch_records = plan.fetch_records;
    Retrieval::Polling(polling)
}

/// A mishap as the fault layer under the SDK makes it. What only the model can do wrong is left out.
fn over_the_sdk(mishap: Mishap) -> Vec<Rule> {
    const WRITES: [&str; 3] = ["PutItem", "UpdateItem", "DeleteItem"];
    const SECOND: Duration = Duration::from_secs(1);
    let leases = |fault: Fault| vec![Rule::on_every_operation(Service::DynamoDb, fault)];
    let writes = |fault: Fault| {
        WRITES.iter().map(|operation| Rule::on(Service::DynamoDb, operation, fault.clone())).collect()
    };
    let reads = |fault: Fault| {
        ["GetRecords", "SubscribeToShard"]
            .map(|operation| Rule::on(Service::Kinesis, operation, fault.clone()))
    };
    match mishap {
        Mishap::ThrottledLeases => {
            leases(Fault::Fail(Seen::Error(errors::provisioned_throughput_exceeded())))
        }
        Mishap::FailingLeases => leases(Fault::Fail(Seen::Error(errors::internal_server_error()))),
        Mishap::NoLeases => leases(Fault::Fail(Seen::Reset)),
        Mishap::LostAnswers => writes(Fault::DropAnswer(Seen::Reset)),
        Mishap::LateWrites => writes(Fault::LandLate { after: SECOND * 3, seen: Seen::Reset }),
        Mishap::HangingLeases => leases(Fault::Fail(Seen::Hang)),
        Mishap::SlowLeases => leases(Fault::DelayAnswer(SECOND)),
        Mishap::DisturbedReads => [
            Seen::Error(errors::provisioned_throughput_exceeded()),
            Seen::Error(errors::expired_iterator()),
            Seen::Error(errors::service_unavailable()),
        ]
        .into_iter()
        .flat_map(|seen| reads(Fault::Fail(seen)))
        .collect(),
        Mishap::DeniedShards => reads(Fault::Fail(Seen::Error(errors::resource_not_found()))).into(),
        Mishap::HangingReads => reads(Fault::Fail(Seen::Hang)).into(),
        // Listings of the local DynamoDB are never stale, and its streams tell the truth.
        _ => Vec::new(),
    }
}
