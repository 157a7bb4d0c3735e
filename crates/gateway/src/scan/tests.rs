//! Held to `serde_json`, and to positions that people can use.

use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;

fn keys(body: &str) -> Vec<String> {
    let mut keys = Vec::new();
    scan(body.as_bytes(), |key| keys.push(key.to_owned())).unwrap();
    keys
}

fn webhook(body: &str) -> WebhookField<'_> {
    scan(body.as_bytes(), |_| ()).unwrap().endpoint
}

fn error(body: impl AsRef<[u8]>) -> String {
    scan(body.as_ref(), |_| ()).unwrap_err().to_string()
}

#[test]
fn the_keys_of_the_top_level_are_told_and_only_those() {
    assert_eq!(keys(r#"{"a":{"b":1},"c":[{"d":2}],"e":null}"#), ["a", "c", "e"]);
    assert_eq!(keys(r#" { "k\u00e9y\n" : 0 , "" : {} } "#), ["kéy\n", ""]);
    assert!(keys("{}").is_empty());
}

#[test]
fn the_webhook_is_found_at_the_top_level_only() {
    assert_eq!(
        webhook(r#"{"x":{"webhook_endpoint":"no"},"webhook_endpoint":"https://a/\u00e9","y":1}"#),
        WebhookField::Address("https://a/é".into())
    );
    assert_eq!(webhook(r#"{"webhook\u005fendpoint":"s"}"#), WebhookField::Address("s".into()));
    assert_eq!(webhook(r#"{"webhook_endpoint":null}"#), WebhookField::Absent);
    assert_eq!(webhook(r#"{"x":[{"webhook_endpoint":1}]}"#), WebhookField::Absent);
    assert_eq!(webhook(r#"{"webhook_endpoint":{"a":[]},"b":"c"}"#), WebhookField::NotText("an object"));
    assert_eq!(webhook(r#"{"webhook_endpoint":-7}"#), WebhookField::NotText("a number"));
}

#[test]
fn what_webhooks_are_told_is_found_as_its_json() {
    let body = r#"{"webhook_metadata": {"a": [1, {"b": null}]} ,"x":{"webhook_events_filter":1},
        "webhook_endpoint":["https://a/", "https://b/"],"webhook_events_filter":["start"]}"#;
    assert_eq!(
        scan(body.as_bytes(), |_| ()).unwrap(),
        Said {
            endpoint: WebhookField::List(r#"["https://a/", "https://b/"]"#),
            events: Some(r#"["start"]"#),
            metadata: Some(r#"{"a": [1, {"b": null}]}"#),
        }
    );
    let nothing = scan(br#"{"webhook_metadata":null,"webhook_events_filter": null }"#, |_| ()).unwrap();
    assert_eq!((nothing.events, nothing.metadata), (None, None));
    assert!(error(r#"{"webhook_metadata":1,"webhook_metadata":2}"#).contains("`webhook_metadata` twice"));
}

#[test]
fn platform_keys_may_stand_there_once() {
    assert!(error(r#"{"run_id":1,"run_id":2}"#).contains("`run_id` twice"));
    assert!(
        error(r#"{"webhook_endpoint":null,"webhook_endpoin\u0074":"x"}"#)
            .contains("`webhook_endpoint` twice")
    );
    assert_eq!(keys(r#"{"a":1,"a":2,"b":{"run_id":1,"run_id":2}}"#), ["a", "a", "b"]);
}

#[test]
fn an_error_says_where() {
    assert_eq!(
        error("{\n  \"é\": tru\n}"),
        "the body is not valid JSON: a value was expected (`true`, `false` and `null` are the only words) \
         at line 2, column 8 (byte 10)"
    );
    assert!(error("{\"a\": 1,}").contains("a key in double quotes was expected at line 1, column 9"));
    assert!(error("{\"a\": 1").contains("it ends inside an object"));
    assert!(error(b"{\"a\": \"\xff\"}").contains("not UTF-8 at line 1, column 8"));
    assert!(error("{\"a\": \"\n\"}").contains("control character"));
}

#[test]
fn only_an_object_is_a_call() {
    for (body, found) in [
        ("[1]", "an array"),
        ("\"x\"", "a string"),
        ("17", "a number"),
        ("null", "null"),
        ("true", "a boolean"),
    ] {
        assert_eq!(scan(body.as_bytes(), |_| ()), Err(ScanError::NotAnObject { found }));
    }
}

#[test]
fn the_128th_level_is_the_last() {
    let nested = |levels: usize| {
        let inner = levels - 1;
        format!("{{\"a\":{}{}}}", "[".repeat(inner), "]".repeat(inner))
    };
    assert!(scan(nested(128).as_bytes(), |_| ()).is_ok());
    assert!(matches!(scan(nested(129).as_bytes(), |_| ()), Err(ScanError::TooDeep { .. })));
    let number = |digits| format!("{{\"n\":-{}}}", "7".repeat(digits));
    assert!(scan(number(JSON_DIGITS_MAX).as_bytes(), |_| ()).is_ok());
    let refused = scan(number(JSON_DIGITS_MAX + 1).as_bytes(), |_| ()).unwrap_err();
    assert_eq!(refused.code(), "number_too_long");
    assert!(refused.to_string().contains("100000 digits"), "{refused}");
    assert!(error("[".repeat(100_000)).contains("deeper than 128 levels"));
}

#[test]
fn blank_is_white_space_only() {
    assert!(is_blank(b"") && is_blank(b" \r\n\t"));
    assert!(!is_blank(b"{}") && !is_blank("\u{a0}".as_bytes()));
}

/// `serde_json` as the judge of syntax: skipping, it knows no depth.
fn serde_accepts(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok() && serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

fn accepts(body: &[u8]) -> bool {
    match scan(body, |_| ()) {
        Ok(_) | Err(ScanError::NotAnObject { .. } | ScanError::Duplicate { .. }) => true,
        Err(ScanError::TooDeep { .. }) => serde_accepts(body),
        Err(_) => false,
    }
}

/// Text that is nearly JSON: its pieces, in any order.
fn nearly_json() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"a\"",
        "\"a\":",
        "\\",
        "\\u12",
        "\\ud83d",
        "\"\\ud83d\\ude00\"",
        "0",
        "-",
        "1",
        ".5",
        "e",
        "E+3",
        "true",
        "false",
        "null",
        "nul",
        " ",
        "\n",
        "\u{1}",
        "é",
        "\u{feff}",
        "{\"k\":",
        "]}",
        "\"x\\n\"",
        "01",
        "webhook_endpoint",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::hash_map(any::<String>(), inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn any_bytes_get_an_answer(body in prop::collection::vec(any::<u8>(), 0..128)) {
        prop_assert_eq!(accepts(&body), serde_accepts(&body));
    }

    #[test]
    fn what_is_nearly_json_is_judged_as_serde_json_does(body in nearly_json()) {
        prop_assert_eq!(accepts(body.as_bytes()), serde_accepts(body.as_bytes()), "{}", body);
    }

    #[test]
    fn keys_and_webhook_are_those_that_serde_json_sees(value in any_json(), url in any::<String>()) {
        let body = serde_json::json!({"x": value.clone(), "webhook_endpoint": url.clone(), "z": value});
        let text = serde_json::to_string_pretty(&body).unwrap();
        let mut seen = Vec::new();
        let found = scan(text.as_bytes(), |key| seen.push(key.to_owned())).unwrap();
        prop_assert_eq!(found.endpoint, WebhookField::Address(url.into()));
        seen.sort();
        prop_assert_eq!(seen, ["webhook_endpoint", "x", "z"]);
    }

    #[test]
    fn a_document_cut_short_is_refused(value in any_json(), cut in any::<prop::sample::Index>()) {
        let text = serde_json::json!({"a": value}).to_string();
        let cut = cut.index(text.len());
        prop_assert!(scan(&text.as_bytes()[..cut], |_| ()).is_err());
    }
}
