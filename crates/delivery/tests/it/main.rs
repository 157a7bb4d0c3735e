//! Delivery as its neighbours see it: through its ports, and on the wire.

#![expect(clippy::unwrap_used, reason = "a test that cannot build its world stops here")]

mod engine;
mod fakes;
mod guard;
mod replay;
mod rows;
mod tls;
mod wire;
