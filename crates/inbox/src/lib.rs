//! Receive: records what arrives at a temporary endpoint and shows it live.
