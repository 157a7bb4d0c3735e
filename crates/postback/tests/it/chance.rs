//! What chance decides in a test, and numbers that `cargo xtask prove` asks for.

/// A small generator whose seed is printed, so that a failure can be repeated.
pub(crate) struct Chance(u64);

impl Chance {
    /// Seeded by `POSTBACK_TEST_SEED`, or by the moment.
    pub(crate) fn new() -> Self {
        let seed = number("POSTBACK_TEST_SEED").unwrap_or_else(|| {
            u64::from(std::process::id()) << 20
                | u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos())
        });
        println!("seed: POSTBACK_TEST_SEED={seed}");
        Self(seed | 1)
    }

    /// Another one, which this one seeds.
    #[cfg(target_os = "linux")]
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.below(u64::MAX) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// The variable of this name, when it is set.
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
