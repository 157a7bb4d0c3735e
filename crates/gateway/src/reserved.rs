//! Names an app must not have, since their legacy path `/{name}/predict` would read as something else.

/// First path segments that the server itself owns, now or soon.
pub const RESERVED_APP_NAMES: &[&str] = &[
    "api",
    "assets",
    "dashboard",
    "docs",
    "favicon.ico",
    "health",
    "healthz",
    "inbox",
    "inboxes",
    "login",
    "logout",
    "metrics",
    "openapi.json",
    "prebuilt",
    "projects",
    "readyz",
    "robots.txt",
    "static",
    "uploads",
    "v1",
    "v2",
    "v3",
    "v4",
    "webhook-test",
];
