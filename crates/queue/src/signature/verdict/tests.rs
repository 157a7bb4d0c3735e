//! One row per mistake: made on purpose, and told apart from all the others.

use std::time::Duration;

use super::super::{WebhookSecret, ed25519::PrivateKey};
use super::*;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const FORMER: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
const ENDED: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const PRIVATE: &str =
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
/// Published for this id and time, and for `SECRET`.
const BODY: &str = r#"{"test": 2432232314}"#;
const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
const AT: Timestamp = Timestamp::from_millis(1_614_265_330_000);
const SECS: &str = "1614265330";

fn keys() -> SigningKeys {
    let hour = Duration::from_secs(3_600);
    let secret = |text: &str, expires_at| WebhookSecret { secret: text.into(), created_at: AT, expires_at };
    let ended = Timestamp::from_millis(AT.as_millis() - 1);
    SigningKeys::parse(
        &[secret(SECRET, None), secret(FORMER, Some(AT.plus(hour))), secret(ENDED, Some(ended))],
        &[],
    )
    .unwrap()
}

fn judge(headers: &[(&str, &str)], body: &str, now: Timestamp) -> SignatureVerdict {
    keys().check(&headers.iter().copied().collect(), body.as_bytes(), now)
}

/// Signed as it should be, but for these bytes and this key.
fn signed(key: &[u8], parts: &[&str]) -> String {
    let parts: Vec<_> = parts.iter().map(|part| part.as_bytes()).collect();
    format!("v1,{}", STANDARD.encode(mac_over(key, &parts)))
}

fn key(secret: &str) -> Vec<u8> {
    SigningKey::parse(secret).unwrap().0
}

#[test]
fn a_good_signature_is_good_in_whatever_company() {
    let former = SigningKey::parse(FORMER).unwrap().sign(ID, AT, BODY.as_bytes());
    for (signature, said) in [
        (SIGNATURE.to_owned(), "signed by this project's webhook secret"),
        (format!("v1,AAAA {SIGNATURE} v1a,BBBB"), "signed by this project's webhook secret"),
        (former, "signed by a former webhook secret of this project, good until 2021-02-25T16:02:10"),
    ] {
        let headers = [("Webhook-Id", ID), ("webhook-timestamp", SECS), ("WEBHOOK-SIGNATURE", &*signature)];
        let verdict = judge(&headers, BODY, AT);
        assert_eq!((verdict.verdict, verdict.mistake), (SignatureState::Verified, None), "{signature}");
        assert!(verdict.detail.starts_with(said), "{}", verdict.detail);
    }
}

#[test]
fn each_mistake_in_the_headers_is_told_by_name() {
    let (id, at, signature) =
        (("webhook-id", ID), ("webhook-timestamp", SECS), ("webhook-signature", SIGNATURE));
    for (headers, mistake, said) in [
        (vec![at, signature], Mistake::MissingHeaders, "no webhook-id header"),
        (vec![id], Mistake::MissingHeaders, "no webhook-timestamp, no webhook-signature header"),
        (vec![id, at, signature, signature], Mistake::RepeatedHeader, "2 webhook-signature headers"),
        (vec![id, id, at, signature], Mistake::RepeatedHeader, "2 webhook-id headers"),
        (
            vec![id, ("webhook-timestamp", "1614265330000"), signature],
            Mistake::BadTimestamp,
            "webhook-timestamp is in milliseconds",
        ),
        (
            vec![id, ("webhook-timestamp", "2021-02-25T15:02:10Z"), signature],
            Mistake::BadTimestamp,
            "webhook-timestamp is a date",
        ),
        (
            vec![id, ("webhook-timestamp", "1614265330.5"), signature],
            Mistake::BadTimestamp,
            "webhook-timestamp has a fraction",
        ),
        (
            vec![id, ("webhook-timestamp", "soon"), signature],
            Mistake::BadTimestamp,
            "webhook-timestamp is no number",
        ),
    ] {
        let verdict = judge(&headers, BODY, AT);
        assert_eq!(
            (verdict.verdict, verdict.mistake),
            (SignatureState::Invalid, Some(mistake)),
            "{headers:?}"
        );
        assert!(verdict.detail.starts_with(said), "{}", verdict.detail);
    }
    let none = judge(&[("content-type", "text/plain")], BODY, AT);
    assert_eq!((none.verdict, none.mistake), (SignatureState::Missing, None));
    assert_eq!(none.detail, "no webhook-id, no webhook-timestamp, no webhook-signature header");
}

#[test]
fn each_mistake_in_the_signature_is_told_apart() {
    let public = PrivateKey::parse(PRIVATE).unwrap().sign(ID, AT, BODY.as_bytes());
    let bare = SIGNATURE.strip_prefix("v1,").unwrap();
    let hex = hex::encode(STANDARD.decode(bare).unwrap());
    let whole = |body: &str| signed(&key(SECRET), &[ID, ".", SECS, ".", body]);
    let by = |key: &[u8]| signed(key, &[ID, ".", SECS, ".", BODY]);
    let in_node = misread(SECRET).unwrap();
    for (signature, mistake, said) in [
        (SIGNATURE.replace('/', "_").replace('+', "-"), Mistake::UrlSafeBase64, "in URL-safe base64"),
        (SIGNATURE.replace('=', ""), Mistake::UnpaddedBase64, "lacks the `=`"),
        (format!("v1,{hex}"), Mistake::HexSignature, "in hex"),
        (bare.to_owned(), Mistake::NoVersion, "`v1,` is missing"),
        (
            format!("v1,{}, {SIGNATURE}", STANDARD.encode([7; 32])),
            Mistake::JoinedHeader,
            "joins several lines by commas",
        ),
        (
            format!("v1,{},{SIGNATURE}", STANDARD.encode([7; 32])),
            Mistake::JoinedHeader,
            "joins several lines by commas",
        ),
        (format!("{SIGNATURE}  v1,AAAA"), Mistake::JoinedHeader, "separated by single spaces"),
        (by(SECRET.as_bytes()), Mistake::PrefixInKey, "`whsec_` included"),
        (by(&in_node), Mistake::PrefixInKey, "`whsec_` included"),
        (by(SECRET.strip_prefix("whsec_").unwrap().as_bytes()), Mistake::UndecodedKey, "that text is base64"),
        (by(&key(ENDED)), Mistake::ReplacedSecret, "ended at 2021-02-25T15:02:09.999Z"),
        (by(&key("whsec_ISEhISEhISEhISEhISEhISEhISEhISEh")), Mistake::WrongSecret, "another secret was used"),
        (signed(&key(SECRET), &[BODY]), Mistake::OtherContent, "signed is the body alone"),
        (signed(&key(SECRET), &[SECS, ".", BODY]), Mistake::OtherContent, "signed is `{timestamp}.{body}`"),
        (whole(r#"{"test":2432232314}"#), Mistake::ReserialisedBody, "compact, as `JSON.stringify`"),
        (whole("{\n  \"test\": 2432232314\n}"), Mistake::ReserialisedBody, "indented by 2"),
        (whole(&format!("{BODY}\n")), Mistake::ReserialisedBody, "with a line feed at its end"),
        (whole(r#"{"test": 1}"#), Mistake::WrongSecret, "nor over another form of this JSON"),
        (public, Mistake::PublicKeyOnly, "only `v1a` signatures"),
        ("v1,".to_owned(), Mistake::NoSignature, "holds no signature"),
        ("v1,nonsense".to_owned(), Mistake::NoSignature, "may have been cut"),
    ] {
        let headers =
            [("webhook-id", ID), ("webhook-timestamp", SECS), ("webhook-signature", signature.as_str())];
        let verdict = judge(&headers, BODY, AT);
        assert_eq!(
            (verdict.verdict, verdict.mistake),
            (SignatureState::Invalid, Some(mistake)),
            "{signature}: {}",
            verdict.detail
        );
        assert!(verdict.detail.contains(said), "{signature}: {}", verdict.detail);
    }
}

#[test]
fn a_body_written_anew_is_known_whichever_way_it_was_signed() {
    let sent = r#"{"b":1.0,"a":{"text":"é"}}"#;
    for (form, said) in [
        (r#"{"b": 1.0, "a": {"text": "\u00e9"}}"#, "as Python's `json.dumps` writes it"),
        (r#"{"a": {"text": "é"}, "b": 1.0}"#, "with spaces, sorted keys and no"),
        (r#"{"a":{"text":"é"},"b":1.0}"#, "compact with sorted keys"),
        (r#"{"b":1,"a":{"text":"é"}}"#, "short numbers"),
    ] {
        let signature = signed(&key(SECRET), &[ID, ".", SECS, ".", form]);
        let headers =
            [("webhook-id", ID), ("webhook-timestamp", SECS), ("webhook-signature", signature.as_str())];
        let verdict = judge(&headers, sent, AT);
        assert_eq!(verdict.mistake, Some(Mistake::ReserialisedBody), "{form}");
        assert!(verdict.detail.contains(said), "{form}: {}", verdict.detail);
    }
}

#[test]
fn a_clock_that_is_off_is_told_to_the_second_and_in_which_direction() {
    let headers = [("webhook-id", ID), ("webhook-timestamp", SECS), ("webhook-signature", SIGNATURE)];
    let at = |millis: i64| Timestamp::from_millis(AT.as_millis() + millis);
    assert_eq!(judge(&headers, BODY, at(300_000)).verdict, SignatureState::Verified);
    assert_eq!(judge(&headers, BODY, at(-300_000)).verdict, SignatureState::Verified);
    let late = judge(&headers, BODY, at(301_000));
    assert_eq!(late.mistake, Some(Mistake::ClockOff));
    assert!(late.detail.starts_with("the signature is right, but webhook-timestamp is 301 s behind"));
    let early = judge(&headers, BODY, at(-7_200_000));
    assert_eq!(early.mistake, Some(Mistake::ClockOff));
    assert!(early.detail.contains("7200 s ahead of this clock"), "{}", early.detail);
    let both = judge(&headers, "{}", at(301_000));
    assert_eq!(both.mistake, Some(Mistake::WrongSecret));
    assert!(both.detail.contains("; besides, webhook-timestamp is 301 s behind"), "{}", both.detail);
}

#[test]
fn a_large_body_is_checked_and_not_tried_in_other_forms() {
    let large = format!("[{}1]", "1, ".repeat(TRIED_BYTES_MAX / 3));
    let compact = large.replace(' ', "");
    let signature = signed(&key(SECRET), &[ID, ".", SECS, ".", &compact]);
    let headers =
        [("webhook-id", ID), ("webhook-timestamp", SECS), ("webhook-signature", signature.as_str())];
    assert_eq!(judge(&headers, &compact, AT).verdict, SignatureState::Verified);
    assert_eq!(judge(&headers, &large, AT).mistake, Some(Mistake::WrongSecret));
}
