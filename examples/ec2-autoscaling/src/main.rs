//! A worker for an EC2 Auto Scaling group. `README.md` says how to run it there.
//!
//! It is configured by the variables in [`settings`], serves systemd (`Type=notify`, watchdog), and ends by SIGTERM, by
//! Ctrl-C, or when EC2 or Auto Scaling takes its instance away. Exit codes:
//!
//! | code | it ended | start it again? |
//! |---|---|---|
//! | 0 | as it was asked to | no |
//! | 1 | by an error, which is in the log | yes |
//! | 2 | because its configuration makes no sense | no |
//! | 75 | because its instance goes out of service and may come back | yes: it stands by until then |
//!
//! Off EC2 it runs the same, without lifecycle action: its worker id is random then.

mod processor;
mod settings;
#[cfg(unix)]
mod systemd;

use std::process::ExitCode;

use aws_config::SdkConfig;
use kcl_core::ec2::{
    ActivateWhen, AutoScalingHook, Imds, Instance, InstanceReport, InstanceSettings, InstanceWatch,
    MetadataErrorKind,
};
use kcl_core::metrics::cloudwatch::CloudWatchSink;
use kcl_core::source::kinesis::{FanOutConfig, FanOutConsumer, KinesisStream, Retrieval};
use kcl_core::{BoxError, Endpoint, Scheduler, ShutdownReport, StartMode};
use kcl_lease_dynamo::DynamoLeaseStore;
use tracing::{error, info, warn};

use processor::Tally;
use settings::Settings;

/// "Try again later", of `sysexits.h`.
const COMES_BACK: u8 = 75;
const MISCONFIGURED: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    // The journal keeps the time of each line.
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .init();
    let settings = match Settings::from_variables(|name| std::env::var(name).ok()) {
        Ok(settings) => settings,
        Err(problems) => {
            error!("{problems}");
            return ExitCode::from(MISCONFIGURED);
        }
    };
    match work(settings).await {
        Ok((_, instance)) if instance.reason.as_ref().is_some_and(|reason| reason.may_come_back()) => {
            ExitCode::from(COMES_BACK)
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => {
            error!(error = %chain(&*failure), "ended by an error");
            let kind = failure.downcast_ref::<kcl_core::Error>().map(kcl_core::Error::kind);
            let is_misconfigured = kind == Some(kcl_core::ErrorKind::Config);
            if is_misconfigured { ExitCode::from(MISCONFIGURED) } else { ExitCode::FAILURE }
        }
    }
}

async fn work(settings: Settings) -> Result<(ShutdownReport, InstanceReport), BoxError> {
    let imds = Imds::from_env()?;
    let instance = match imds.instance().await {
        Ok(instance) => Some(instance),
        Err(error) if matches!(error.kind(), MetadataErrorKind::Absent | MetadataErrorKind::Disabled) => None,
        Err(error) => {
            warn!(%error, "this instance is not known: its worker id is random");
            None
        }
    };
    let config = aws_config::load_from_env().await;
    let scheduler = scheduler(&settings, &config, instance.as_ref())?;
    let handle = scheduler.handle();
    info!(worker = %handle.worker(), stream = %settings.stream, application = %settings.application, "starts");

    let mut instance_settings = InstanceSettings::default();
    instance_settings.drain_deadline = settings.drain_deadline;
    instance_settings.activate = ActivateWhen::InService;
    let mut watch = InstanceWatch::new(imds).settings(instance_settings)?;
    if let (Some(instance), Some((group, hook))) = (&instance, &settings.lifecycle) {
        let client = aws_sdk_autoscaling::Client::new(&config);
        watch = watch.lifecycle_hook(AutoScalingHook::new(&client, group, hook, instance));
    }

    let work = watch.run_scheduler(scheduler, asked_to_stop());
    #[cfg(unix)]
    let (report, instance_report) = tokio::select! {
        // The work goes first: systemd is told of it.
        biased;
        reports = Box::pin(work) => reports,
        never = systemd::attend(handle) => match never {},
    };
    #[cfg(not(unix))]
    let (report, instance_report) = Box::pin(work).await;
    let report = report?;
    info!(%report, "ended");
    Ok((report, instance_report))
}

fn scheduler(
    settings: &Settings,
    config: &SdkConfig,
    instance: Option<&Instance>,
) -> Result<Scheduler, kcl_core::Error> {
    let kinesis = aws_sdk_kinesis::Client::new(config);
    // A client of its own: the lease side runs on a thread of its own and must not share connections.
    let dynamodb = aws_sdk_dynamodb::Client::new(config);
    let mut stream = KinesisStream::new(kinesis, &settings.stream);
    if settings.is_fan_out {
        let consumer = FanOutConsumer::Named(settings.application.clone());
        stream = stream.with_retrieval(Retrieval::FanOut(FanOutConfig::new(consumer)));
    }
    let mut numbers = kcl_core::Settings::default();
    numbers.shutdown_deadline = settings.drain_deadline;
    let mut builder = Scheduler::builder(&settings.application)
        .stream(stream)
        .lease_store(DynamoLeaseStore::new(dynamodb, &settings.application))
        .coordination(settings.coordination)
        // Until the instance is, or goes, into service: see `ActivateWhen::InService`.
        .start_mode(StartMode::Standby)
        .settings(numbers)
        .processor(Tally::for_shard);
    if settings.is_measured {
        // The template's scaling policy and alarms, switched on by its parameter `Metrics`, read what this puts.
        let cloudwatch = aws_sdk_cloudwatch::Client::new(config);
        builder = builder.metrics(CloudWatchSink::builder(cloudwatch, &settings.application).build()?);
    }
    if let Some(port) = settings.http_port {
        builder = builder.endpoint(Endpoint::on_port(port));
    }
    if let Some(instance) = instance {
        builder = builder.worker_id(instance.worker_id());
    }
    builder.build()
}

/// Waits for Ctrl-C or, where there is such a thing, SIGTERM.
async fn asked_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                biased;
                _ = terminate.recv() => info!("SIGTERM"),
                _ = tokio::signal::ctrl_c() => info!("SIGINT"),
            }
            return;
        }
    }
    // Without a handler the signal itself ends the process.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// An error with all its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
