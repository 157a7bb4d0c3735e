//! The words for why an attempt of a delivery failed, and for what became of a delivery or its endpoint then.
//! Each has a page in `docs/errors`.

/// The server stopped while the attempt was under way: nobody knows whether the receiver got it.
pub const OUTCOME_UNKNOWN: &str = "outcome_unknown";
/// What was to be sent could not be read, so nothing was.
pub const BODY_UNREADABLE: &str = "body_unreadable";
/// What was to sign it could not be read, so nothing was sent.
pub const NO_SIGNING_KEY: &str = "no_signing_key";
/// The server had no file descriptors or memory left, so nothing was sent.
pub const SERVER_EXHAUSTED: &str = "server_exhausted";
/// The endpoint is disabled: its deliveries wait.
pub const ENDPOINT_DISABLED: &str = "endpoint_disabled";

/// Every word; `timeout` and `tls` are followed by a colon and where or how.
pub const ALL: [&str; 15] = [
    "http_status",
    "redirect",
    "timeout",
    "refused",
    "reset",
    "dns",
    "tls",
    "address_not_allowed",
    "bad_response",
    "exhausted",
    ENDPOINT_DISABLED,
    OUTCOME_UNKNOWN,
    SERVER_EXHAUSTED,
    NO_SIGNING_KEY,
    BODY_UNREADABLE,
];
