//! Scaling changed from the dashboard: by the rules of the API, and told as an event.

use serde_json::json as object;

use super::{Visitor, location};
use crate::support::{Stage, json};

#[tokio::test]
async fn the_scaling_is_changed_on_its_page_and_what_is_wrong_stands_beside_its_field() {
    let stage = Stage::basic();
    let mut visitor = Visitor::of(&stage);
    visitor.sign_in(&stage.keys.private_key.clone()).await;
    let path = "/dashboard/apps/basic/scaling";
    assert!(visitor.page("/dashboard/apps/basic").await.contains(path));
    let form = visitor.page(path).await;
    assert!(form.contains("name=\"maxReplicaCount\" value=\"2\""), "{form}");

    // The very sentence that a program gets, beside the field, and what was written is still there.
    let address = stage.control("apps/basic");
    let asked = stage.request(reqwest::Method::PATCH, &address).json(&object!({"maxReplicaCount": 1000}));
    let told = json(asked.send().await.unwrap()).await;
    let refused = visitor.press(path, &[("maxReplicaCount", "1000"), ("cooldownPeriodSeconds", "7")]).await;
    assert_eq!(refused.status(), 422);
    let page = refused.text().await.unwrap();
    let field = page.split("id=\"maxReplicaCount\"").nth(1).unwrap().split("</div>").next().unwrap();
    assert!(field.contains("value=\"1000\"") && field.contains(told["message"].as_str().unwrap()), "{field}");
    assert!(page.contains("name=\"cooldownPeriodSeconds\" value=\"7\""), "{page}");
    for (key, value) in
        [("minReplicaCount", "some"), ("scalingMetric", "cpu_utilization"), ("scalingTarget", "")]
    {
        let refused = visitor.press(path, &[(key, value)]).await;
        assert_eq!(refused.status(), 422, "{key}");
        let page = refused.text().await.unwrap();
        assert_eq!(page.matches("aria-invalid").count(), 1, "{key}: {page}");
    }

    let wanted =
        [("maxReplicaCount", "3"), ("cooldownPeriodSeconds", "7"), ("loadBalancingAlgorithm", "round-robin")];
    let changed = visitor.press(path, &wanted).await;
    assert_eq!((changed.status().as_u16(), location(&changed)), (303, "/dashboard/apps/basic"));
    let view = json(stage.request(reqwest::Method::GET, &address).send().await.unwrap()).await;
    assert_eq!((&view["maxReplicaCount"], &view["cooldownPeriodSeconds"]), (&"3".into(), &"7".into()));
    visitor.until("/dashboard/apps/basic", &["reconfigured", "0 to 3 replicas", "7 s of cooldown"]).await;
    assert!(visitor.page(path).await.contains("<option value=\"round-robin\" selected>"));
    // What stands already is no change, and no event.
    let again = visitor.press(path, &wanted).await;
    assert_eq!(again.status(), 303);
    assert_eq!(visitor.page("/dashboard/apps/basic").await.matches("<strong>reconfigured").count(), 1);
    let foreign = visitor.request(reqwest::Method::POST, path).header("origin", "http://evil.example");
    assert_eq!(foreign.send().await.unwrap().status(), 403);
}
