//! Run: keeps replicas alive, gives them runs, records outcomes.
