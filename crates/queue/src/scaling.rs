//! What an app says about its replicas: what their number follows, and which of them gets a run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::app::AppConfig;
use crate::limits;

/// What the number of replicas follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Calls that wait or run, in percent of what the replicas may work on at once.
    #[default]
    ConcurrencyUtilization,
    /// Calls that begin, per second and replica.
    RequestsPerSecond,
    /// CPU time, in percent of the `cpu` cores of a replica.
    CpuUtilization,
    /// Memory, in percent of the `memory` of a replica.
    MemoryUtilization,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 4] = [
        Self::ConcurrencyUtilization,
        Self::RequestsPerSecond,
        Self::CpuUtilization,
        Self::MemoryUtilization,
    ];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConcurrencyUtilization => "concurrency_utilization",
            Self::RequestsPerSecond => "requests_per_second",
            Self::CpuUtilization => "cpu_utilization",
            Self::MemoryUtilization => "memory_utilization",
        }
    }

    /// The metric of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.as_str() == name)
    }

    /// Only a replica that runs has any.
    const fn is_of_processes(self) -> bool {
        matches!(self, Self::CpuUtilization | Self::MemoryUtilization)
    }
}

/// Which of several replicas with a free place gets a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balancing {
    /// Each in its turn.
    RoundRobin,
    /// The oldest: the others become idle, and may go.
    FirstAvailable,
    /// The one with the fewest calls.
    MinConnections,
    /// The one with fewer calls of two that are drawn.
    #[serde(rename = "random-choice-2")]
    RandomChoice2,
}

impl Balancing {
    /// Every way.
    pub const ALL: [Self; 4] =
        [Self::RoundRobin, Self::FirstAvailable, Self::MinConnections, Self::RandomChoice2];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round-robin",
            Self::FirstAvailable => "first-available",
            Self::MinConnections => "min-connections",
            Self::RandomChoice2 => "random-choice-2",
        }
    }

    /// The way of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|way| way.as_str() == name)
    }
}

/// Why a scaling cannot be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ScalingError {
    /// The key of the config file whose value is wrong.
    pub key: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

impl AppConfig {
    /// What the number of replicas follows.
    pub fn metric(&self) -> Metric {
        self.scaling_metric.unwrap_or_default()
    }

    /// What a replica is kept at: percent, or requests a second.
    pub fn target(&self) -> u32 {
        self.scaling_target.unwrap_or(100).max(1)
    }

    /// Over how long the metric is averaged.
    pub fn evaluation_interval(&self) -> Duration {
        let seconds = self.evaluation_interval_seconds.unwrap_or(30);
        Duration::from_secs(seconds.clamp(1, limits::EVALUATION_INTERVAL_MAX.as_secs()))
    }

    /// How long the replicas of a build stay when another one has become live.
    pub fn roll_out_duration(&self) -> Duration {
        Duration::from_secs(self.roll_out_duration_seconds.unwrap_or(0)).min(limits::ROLL_OUT_MAX)
    }

    /// What of the scaling contradicts itself.
    ///
    /// # Errors
    /// When the values cannot be meant together; which of them, and what to write instead.
    pub fn check_scaling(&self) -> Result<(), ScalingError> {
        let refused = |key, message: String| Err(ScalingError { key, message });
        let metric = self.metric();
        if let Some(max) = self.max_replicas.filter(|max| *max < self.min_replicas) {
            let min = self.min_replicas;
            return refused(
                "max_replicas",
                format!("is {max}, below `min_replicas` ({min}); raise it or lower `min_replicas`"),
            );
        }
        if metric.is_of_processes() && self.min_replicas == 0 {
            return refused(
                "scaling_metric",
                format!(
                    "is `{}`, which only a replica that runs has: set `min_replicas` to 1 or more, or follow \
                     `concurrency_utilization`",
                    metric.as_str()
                ),
            );
        }
        if metric.is_of_processes() && self.scaling_buffer.unwrap_or(0) > 0 {
            return refused(
                "scaling_buffer",
                format!(
                    "cannot stand beside `scaling_metric = \"{}\"`: spare replicas change what they are counted by; \
                     remove it or raise `min_replicas`",
                    metric.as_str()
                ),
            );
        }
        if metric != Metric::RequestsPerSecond && self.target() > 100 {
            return refused(
                "scaling_target",
                format!(
                    "is {}, but `{}` is counted in percent: write a whole number from 1 to 100",
                    self.target(),
                    metric.as_str()
                ),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scaling_that_cannot_be_meant_is_named() {
        let metric = |metric| AppConfig { scaling_metric: Some(metric), ..AppConfig::default() };
        for (config, key) in [
            (AppConfig { min_replicas: 2, max_replicas: Some(1), ..AppConfig::default() }, "max_replicas"),
            (metric(Metric::CpuUtilization), "scaling_metric"),
            (metric(Metric::MemoryUtilization), "scaling_metric"),
            (
                AppConfig { min_replicas: 1, scaling_buffer: Some(1), ..metric(Metric::CpuUtilization) },
                "scaling_buffer",
            ),
            (AppConfig { scaling_target: Some(101), ..AppConfig::default() }, "scaling_target"),
        ] {
            assert_eq!(config.check_scaling().unwrap_err().key, key, "{config:?}");
        }
        for config in [
            AppConfig::default(),
            AppConfig { scaling_target: Some(500), ..metric(Metric::RequestsPerSecond) },
            AppConfig { min_replicas: 1, scaling_target: Some(80), ..metric(Metric::MemoryUtilization) },
            AppConfig { scaling_buffer: Some(3), ..metric(Metric::RequestsPerSecond) },
        ] {
            assert_eq!(config.check_scaling(), Ok(()), "{config:?}");
        }
    }

    #[test]
    fn words_are_those_of_the_files() {
        for metric in Metric::ALL {
            assert_eq!(serde_json::to_value(metric).unwrap(), metric.as_str());
            assert_eq!(Metric::named(metric.as_str()), Some(metric));
        }
        for way in Balancing::ALL {
            assert_eq!(serde_json::to_value(way).unwrap(), way.as_str());
            assert_eq!(Balancing::named(way.as_str()), Some(way));
        }
        assert_eq!(Balancing::named("fewest"), None);
    }
}
