//! Prepare: a folder and a config file become a runnable build.
