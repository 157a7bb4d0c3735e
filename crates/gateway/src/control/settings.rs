//! Settings changed by other rooms, by the rules of the control plane.

use async_trait::async_trait;
use queue::AppId;
use queue::port::{SettingRefused, Settings};
use serde_json::Value;

use super::apps;
use super::request::Fields;
use crate::Gateway;
use crate::problem::{Answer, Problem};

#[async_trait]
impl Settings for Gateway {
    async fn rescale(&self, app: &AppId, wanted: &[(&str, &str)]) -> Result<(), SettingRefused> {
        let value = |text: &str| serde_json::from_str::<Value>(text).ok().filter(Value::is_number);
        let fields = wanted
            .iter()
            .map(|(key, text)| ((*key).to_owned(), value(text).unwrap_or_else(|| Value::from(*text))));
        change(self, app, &Fields::of(fields.collect())).await.map_err(|problem| SettingRefused {
            key: named(&problem.message).map(str::to_owned),
            message: problem.message.into_owned(),
        })
    }
}

async fn change(gateway: &Gateway, id: &AppId, fields: &Fields) -> Answer<()> {
    let app = gateway.registry.app(id).await?;
    let app = app.ok_or_else(|| Problem::not_found("unknown_app", "the app is not there any more"))?;
    apps::rescale(gateway, &app, fields).await.map(drop)
}

/// The key that a refusal is about: it begins with it.
fn named(message: &str) -> Option<&str> {
    message.strip_prefix('`')?.split_once('`').map(|(key, _)| key)
}

#[cfg(test)]
mod tests {
    use queue::app::AppConfig;
    use serde_json::json;

    use super::super::config;
    use super::*;

    #[test]
    fn every_refusal_of_a_scaling_begins_with_its_key() {
        for (wanted, key) in [
            (json!({"minReplicaCount": "many"}), "minReplicaCount"),
            (json!({"maxReplicaCount": 0}), "maxReplicaCount"),
            (json!({"minReplicaCount": 3, "maxReplicaCount": 2}), "maxReplicaCount"),
            (json!({"scalingMetric": "queue_length"}), "scalingMetric"),
            (json!({"scalingMetric": "cpu_utilization"}), "scaling_metric"),
            (json!({"scalingTarget": 120}), "scaling_target"),
            (json!({"loadBalancingAlgorithm": "fewest"}), "loadBalancingAlgorithm"),
            (json!({"evaluationIntervalSeconds": 1.5}), "evaluationIntervalSeconds"),
        ] {
            let problem = config::scale(&Fields::from(wanted), &mut AppConfig::default()).unwrap_err();
            assert_eq!(named(&problem.message), Some(key), "{}", problem.message);
        }
        assert_eq!(named("the body names nothing"), None);
    }
}
