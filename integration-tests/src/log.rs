//! The log of a run, stamped with virtual time.

use std::fmt;
use std::sync::OnceLock;

use tokio::time::Instant;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

struct VirtualTime;

impl FormatTime for VirtualTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        static BEGUN: OnceLock<Instant> = OnceLock::new();
        let now = Instant::now();
        write!(writer, "{:9.3}s", (now - *BEGUN.get_or_init(|| now)).as_secs_f64())
    }
}

/// Shows the log if the environment variable `KCL_LOG` asks for it, in the syntax of `RUST_LOG`.
pub fn init() {
    if let Ok(filter) = std::env::var("KCL_LOG") {
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(filter))
            .with_timer(VirtualTime)
            .with_ansi(false)
            .with_test_writer();
        // A second fleet in the same process finds the log set up.
        let _ = subscriber.try_init();
    }
}

/// The same for a process whose standard output is taken, by the wall clock.
pub fn init_on_stderr() {
    if let Ok(filter) = std::env::var("KCL_LOG") {
        let subscriber = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter)).with_ansi(false);
        // Nothing else sets a log up in a process of its own.
        let _ = subscriber.with_writer(std::io::stderr).try_init();
    }
}
