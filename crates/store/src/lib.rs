//! Keep: SQLite fulfils the ports of queue, with group commit.
