//! Deliberate bugs, for tests that must find them: `cargo xtask mutants` builds all of them in and has one at a time show.
//! No build without the feature `mutants` has any.

/// Whether the bug of this name shows.
#[cfg(feature = "mutants")]
pub(crate) fn shows(name: &str) -> bool {
    std::env::var_os("POSTBACK_MUTANT").is_some_and(|chosen| chosen == name)
}

/// Whether the bug of this name shows: it is not there.
#[cfg(not(feature = "mutants"))]
#[inline]
pub(crate) const fn shows(_name: &str) -> bool {
    false
}
