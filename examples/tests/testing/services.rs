//! The same test through the SDK: on local services in virtual time or, with `KCL_TEST_ACCOUNT=1`, in an account.
//!
//! ```text
//! KCL_TEST_ACCOUNT=1 cargo test -p examples --features aws --test testing services
//! ```
//!
//! takes region and credentials from the environment and the usual files, makes a stream and a lease table with a
//! random name, takes some minutes, and deletes both, whether the test succeeds, fails or panics.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{ScalingType, StreamStatus};
use bytes::Bytes;
use kcl_core::source::kinesis::KinesisStream;
use kcl_core::testing::{Upstream, World};
use kcl_core::{BoxError, Entropy, SchedulerBuilder, SystemClock};
use kcl_lease_dynamo::DynamoLeaseStore;
use kcl_local::LocalAws;
use kcl_local::clock::TokioClock;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};

use super::totals::Totals;
use super::{LIMIT, application, every_order_counts};

/// Says that the test is to run in an account.
pub(crate) const VARIABLE: &str = "KCL_TEST_ACCOUNT";

/// Where the test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On local services in this process, in virtual time. Nothing touches the network.
    Local,
    /// In the account of the environment's credentials, in real time.
    Account,
}

impl Place {
    fn chosen(variable: Option<&str>) -> Result<Self, BoxError> {
        match variable {
            None | Some("") => Ok(Self::Local),
            Some("1") if cfg!(feature = "aws") => Ok(Self::Account),
            Some("1") => Err(format!("{VARIABLE}=1 needs an HTTPS client: add `--features aws`").into()),
            Some(other) => Err(format!("{VARIABLE} is 1 or not set, and not {other:?}").into()),
        }
    }

    fn runtime(self) -> std::io::Result<Runtime> {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(self == Self::Local).build()
    }

    async fn stage(self) -> Result<Stage, BoxError> {
        let config = match self {
            Self::Local => {
                let clock = TokioClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
                LocalAws::builder().clock(Arc::new(clock)).in_process()?.sdk_config()
            }
            #[cfg(feature = "aws")]
            Self::Account => aws_config::load_from_env().await,
            #[cfg(not(feature = "aws"))]
            Self::Account => return Err("no HTTPS client was built".into()),
        };
        let kinesis = aws_sdk_kinesis::Client::new(&config);
        let dynamodb = aws_sdk_dynamodb::Client::new(&config);
        Ok(Stage { kinesis, dynamodb, name: self.name(), place: self })
    }

    fn name(self) -> String {
        match self {
            Self::Local => "kcl-test".into(),
            Self::Account => format!("kcl-test-{:016x}", Entropy::default().next_u64()),
        }
    }
}

/// A stream and a lease table of one name, for one test.
#[derive(Clone, Debug)]
struct Stage {
    kinesis: aws_sdk_kinesis::Client,
    dynamodb: aws_sdk_dynamodb::Client,
    name: String,
    place: Place,
}

impl Stage {
    /// Makes the stream; the lease table is made by the first worker.
    async fn create(&self, shards: i32) -> Result<(), BoxError> {
        self.kinesis.create_stream().stream_name(&self.name).shard_count(shards).send().await?;
        let begun = Instant::now();
        loop {
            let summary = self.kinesis.describe_stream_summary().stream_name(&self.name).send().await?;
            let status = summary.stream_description_summary.ok_or("a summary without content")?.stream_status;
            if status == StreamStatus::Active {
                return Ok(());
            }
            if begun.elapsed() > LIMIT {
                return Err(format!("stream {} stays {status}", self.name).into());
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Deletes whatever there is of the two.
    async fn delete(&self) -> Result<(), BoxError> {
        // The table is deleted even if the stream cannot be.
        let stream = once_free(async || self.delete_stream().await).await;
        let table = once_free(async || self.delete_table().await).await;
        let both = stream.and(table);
        both.map_err(|error| format!("delete stream and table {} yourself: {error:?}", self.name).into())
    }

    async fn delete_stream(&self) -> Result<Deletion, BoxError> {
        let answer = self.kinesis.delete_stream().stream_name(&self.name).send().await;
        match answer.map_err(|error| error.into_service_error()) {
            Ok(_) => Ok(Deletion::Done),
            Err(error) if error.is_resource_not_found_exception() => Ok(Deletion::Done),
            Err(error) if error.is_resource_in_use_exception() || error.is_limit_exceeded_exception() => {
                Ok(Deletion::Busy)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn delete_table(&self) -> Result<Deletion, BoxError> {
        let answer = self.dynamodb.delete_table().table_name(&self.name).send().await;
        match answer.map_err(|error| error.into_service_error()) {
            Ok(_) => Ok(Deletion::Done),
            Err(error) if error.is_resource_not_found_exception() => Ok(Deletion::Done),
            Err(error) if error.is_resource_in_use_exception() || error.is_limit_exceeded_exception() => {
                Ok(Deletion::Busy)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn world(
        &self,
        seed: u64,
        application: impl Fn(&str, SchedulerBuilder) -> SchedulerBuilder + 'static,
    ) -> World {
        let (stage, entropy, place) = (self.clone(), Entropy::seeded(seed), self.place);
        let source =
            move || KinesisStream::new(stage.kinesis.clone(), &stage.name).with_entropy(entropy.fork());
        let store = DynamoLeaseStore::new(self.dynamodb.clone(), &self.name);
        let application = move |name: &str, worker| match place {
            Place::Local => application(name, worker),
            Place::Account => application(name, worker).clock(SystemClock),
        };
        World::over(seed, source, store, application).with_upstream(self.clone())
    }
}

enum Deletion {
    Done,
    /// It is being created or changed; AWS wants to be asked again later.
    Busy,
}

/// Deletes something, waiting while it is being changed.
async fn once_free(delete: impl AsyncFn() -> Result<Deletion, BoxError>) -> Result<(), BoxError> {
    let begun = Instant::now();
    while let Deletion::Busy = delete().await? {
        if begun.elapsed() > LIMIT {
            return Err(format!("it is still being changed after {LIMIT:?}").into());
        }
        sleep(Duration::from_secs(5)).await;
    }
    Ok(())
}

#[async_trait]
impl Upstream for Stage {
    async fn put(&self, key: &str, data: Bytes) -> Result<(), BoxError> {
        let put = self.kinesis.put_record().stream_name(&self.name).partition_key(key);
        put.data(Blob::new(data)).send().await?;
        Ok(())
    }

    async fn reshard(&self, shards: u32) -> Result<(), BoxError> {
        let update = self.kinesis.update_shard_count().stream_name(&self.name);
        let update = update.target_shard_count(shards.try_into()?);
        update.scaling_type(ScalingType::UniformScaling).send().await?;
        Ok(())
    }
}

/// Runs a test on a stage that is deleted afterwards, whatever comes of the test.
fn on_stage<T>(
    runtime: &Runtime,
    stage: &Stage,
    test: impl AsyncFnOnce(&Stage) -> Result<T, BoxError>,
) -> Result<T, BoxError> {
    let run = async {
        stage.create(2).await?;
        test(stage).await
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(run)));
    let deleted = runtime.block_on(stage.delete());
    match (outcome, deleted) {
        (Ok(outcome), Ok(())) => outcome,
        (Ok(Ok(_)), Err(error)) => Err(error),
        (Ok(Err(error)), Err(second)) => Err(format!("{error:?}; then: {second}").into()),
        (Err(panic), Ok(())) => resume_unwind(panic),
        (Err(panic), Err(error)) => {
            #[allow(clippy::print_stderr, reason = "somebody has to delete what is left in the account")]
            {
                eprintln!("{error}");
            }
            resume_unwind(panic)
        }
    }
}

async fn totals_survive(stage: &Stage) -> Result<Vec<String>, BoxError> {
    let totals = Totals::default();
    let mut world = stage.world(7, application(&totals));
    every_order_counts(&mut world, &totals).await?;
    Ok(world.trace().lines())
}

fn run(place: Place) -> Result<Vec<String>, BoxError> {
    let runtime = place.runtime()?;
    let stage = runtime.block_on(place.stage())?;
    on_stage(&runtime, &stage, totals_survive)
}

#[test]
fn totals_survive_on_the_services() -> Result<(), BoxError> {
    let place = Place::chosen(std::env::var(VARIABLE).ok().as_deref())?;
    run(place)?;
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_trace_through_the_sdk() -> Result<(), BoxError> {
    assert_eq!(run(Place::Local)?, run(Place::Local)?);
    Ok(())
}

#[test]
fn an_account_is_touched_only_on_request_and_with_a_client_for_it() {
    assert_eq!(Place::chosen(None).unwrap(), Place::Local);
    assert_eq!(Place::chosen(Some("")).unwrap(), Place::Local);
    match Place::chosen(Some("1")) {
        Ok(place) => assert!(cfg!(feature = "aws") && place == Place::Account),
        Err(error) => {
            assert!(cfg!(not(feature = "aws")) && error.to_string().contains("--features aws"), "{error}");
        }
    }
    let error = Place::chosen(Some("yes")).unwrap_err().to_string();
    assert!(error.contains("KCL_TEST_ACCOUNT is 1 or not set"), "{error}");
}

#[test]
fn names_in_an_account_are_never_used_twice() {
    assert_ne!(Place::Account.name(), Place::Account.name());
}

async fn read_a_little(stage: &Stage) -> Result<(), BoxError> {
    let mut world = stage.world(7, application(&Totals::default()));
    world.start("alpha")?;
    world.run_until(LIMIT, "alpha reads", |world| world.owned("alpha") == 2).await?;
    Ok(())
}

#[test]
fn stream_and_table_are_deleted_whether_the_test_succeeds_fails_or_panics() {
    let runtime = Place::Local.runtime().unwrap();
    let stage = runtime.block_on(Place::Local.stage()).unwrap();
    let assert_gone = || {
        let streams = runtime.block_on(stage.kinesis.list_streams().send()).unwrap();
        let tables = runtime.block_on(stage.dynamodb.list_tables().send()).unwrap();
        assert!(streams.stream_names().is_empty() && tables.table_names().is_empty());
    };
    on_stage(&runtime, &stage, read_a_little).unwrap();
    assert_gone();

    let failing = async |stage: &Stage| {
        read_a_little(stage).await?;
        Err::<(), BoxError>("the test fails".into())
    };
    assert_eq!(on_stage(&runtime, &stage, failing).unwrap_err().to_string(), "the test fails");
    assert_gone();

    // A panic like any other, but for the hook, which would print it.
    let panicking = async |stage: &Stage| {
        read_a_little(stage).await?;
        resume_unwind(Box::new("the test panics"));
        #[allow(unreachable_code, reason = "says what would be returned")]
        Ok(())
    };
    let panic = catch_unwind(AssertUnwindSafe(|| on_stage(&runtime, &stage, panicking))).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"the test panics"));
    assert_gone();
}
