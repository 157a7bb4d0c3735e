//! Deliver: signs, guards, sends and retries webhooks.
