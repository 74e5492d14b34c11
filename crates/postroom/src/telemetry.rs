//! The recorder behind `/metrics`. It listens nowhere: the web part renders it.

use std::sync::{Arc, OnceLock};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Seconds, from a quick answer on the same machine to the longest attempt.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 30.0];
/// Events of one transaction.
const EVENTS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// One recorder for the process: what is counted belongs to it and not to one server inside it.
static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder, once. Handles of metrics that were made before count into nothing, so this comes first.
pub fn install() {
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new();
        let builder = builder
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .expect("there is at least one bucket");
        let builder = builder
            .set_buckets_for_metric(Matcher::Suffix("_events".to_owned()), &EVENTS)
            .expect("there is at least one bucket");
        let handle = builder.install_recorder().expect("no other recorder is installed in this program");
        metrics::describe_gauge!("postroom_build_info", "Always 1; the version is its label");
        metrics::gauge!("postroom_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        handle
    });
}

/// Renders everything counted so far in the Prometheus text format.
#[must_use]
pub fn renderer() -> Arc<dyn Fn() -> String + Send + Sync> {
    install();
    Arc::new(|| HANDLE.get().map(PrometheusHandle::render).unwrap_or_default())
}

/// Folds recorded samples into their buckets; without this they would pile up while nobody asks for metrics.
pub fn upkeep() {
    if let Some(handle) = HANDLE.get() {
        handle.run_upkeep();
    }
}
