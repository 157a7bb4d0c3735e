//! What is on a disk, what is only in its cache, and what a power cut leaves of that.

use std::collections::BTreeSet;
use std::fmt;

use crate::chance::Chance;

/// A disk writes its sectors whole or not at all.
const SECTOR: usize = 512;
/// The first block has the superblock, which ext4 writes in place and takes to be whole.
const FIRST_BLOCK: usize = 4096;

/// A disk with a cache.
pub(super) struct Platter {
    /// What a reader gets.
    seen: Vec<u8>,
    /// What no power cut takes.
    safe: Vec<u8>,
    /// What was written since the last flush, in that order.
    cached: Vec<Write>,
    /// Sectors in which the two may differ.
    touched: BTreeSet<usize>,
    has_power: bool,
}

struct Write {
    offset: usize,
    bytes: Vec<u8>,
}

/// What a power cut did.
pub(in super::super) struct Cut {
    way: Way,
    kept: usize,
    cached: usize,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {} of {} cached sectors are kept", self.way, self.kept, self.cached)
    }
}

/// How the cache of a disk may end.
#[derive(Clone, Copy, Debug)]
enum Way {
    Nothing,
    Everything,
    /// The disk wrote in the order in which it was told to.
    FirstWrites,
    /// In an order of its own.
    AnySectors,
}

impl Platter {
    pub(super) fn new(bytes: usize) -> Self {
        let (seen, safe) = (vec![0; bytes], vec![0; bytes]);
        Self { seen, safe, cached: Vec::new(), touched: BTreeSet::new(), has_power: true }
    }

    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    pub(super) fn read(&self, offset: usize, bytes: usize) -> &[u8] {
        let end = (offset + bytes).min(self.seen.len());
        &self.seen[offset.min(end)..end]
    }

    /// Writes into the cache. Without power it is a cache that nothing comes of.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.seen[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.touched.extend(offset / SECTOR..(offset + bytes.len()).div_ceil(SECTOR));
        if self.has_power {
            self.cached.push(Write { offset, bytes: bytes.to_owned() });
        }
    }

    pub(super) fn flush(&mut self) {
        for Write { offset, bytes } in self.cached.drain(..) {
            self.safe[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
    }

    /// Ends the cache.
    pub(super) fn cut(&mut self, chance: &mut Chance) -> Cut {
        self.has_power = false;
        let way = [Way::Nothing, Way::Everything, Way::FirstWrites, Way::AnySectors, Way::AnySectors];
        let way = way[usize::try_from(chance.below(way.len() as u64)).unwrap()];
        let mut cut = Cut { way, kept: 0, cached: 0 };
        let first = chance.below(self.cached.len() as u64 + 1);
        for (number, write) in (0..).zip(self.cached.drain(..)) {
            for (at, sector) in write.sectors() {
                let kept = match way {
                    Way::Nothing => false,
                    Way::Everything => true,
                    Way::FirstWrites => number < first,
                    Way::AnySectors => chance.below(2) == 0,
                };
                cut.cached += 1;
                if kept {
                    cut.kept += 1;
                    self.safe[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        cut
    }

    /// From here on a reader gets what is safe.
    pub(super) fn power_on(&mut self) {
        for sector in std::mem::take(&mut self.touched) {
            let bytes = sector * SECTOR..((sector + 1) * SECTOR).min(self.seen.len());
            self.seen[bytes.clone()].copy_from_slice(&self.safe[bytes]);
        }
        self.has_power = true;
    }
}

impl Write {
    /// The pieces that a disk writes at once, with their places.
    fn sectors(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let end = self.offset + self.bytes.len();
        let mut at = self.offset;
        std::iter::from_fn(move || {
            let from = at;
            let next = if from < FIRST_BLOCK { FIRST_BLOCK } else { (from / SECTOR + 1) * SECTOR };
            at = next.min(end);
            (from < end).then(|| (from, &self.bytes[from - self.offset..at - self.offset]))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_flushed_is_kept_and_of_the_rest_what_chance_says() {
        let mut chance = Chance::new();
        let (mut kept, mut lost) = (0, 0);
        for _ in 0..64 {
            let mut disk = Platter::new(64 * SECTOR);
            let place = 16 * SECTOR;
            disk.write(place, &[1; 4 * SECTOR]);
            disk.flush();
            disk.write(place + SECTOR, &[2; 2 * SECTOR]);
            assert_eq!(disk.read(place + SECTOR, 1), [2], "a reader gets what is in the cache");
            let cut = disk.cut(&mut chance);
            disk.write(place, &[3; 4 * SECTOR]);
            disk.flush();
            disk.power_on();
            let sectors: Vec<u8> = disk.read(place, 4 * SECTOR).iter().step_by(SECTOR).copied().collect();
            assert_eq!((sectors[0], sectors[3]), (1, 1), "it was flushed");
            let now = sectors.iter().filter(|byte| **byte == 2).count();
            assert_eq!((now, 2), (cut.kept, cut.cached));
            (kept, lost) = (kept + now, lost + 2 - now);
        }
        assert!(kept > 16 && lost > 16, "{kept} kept, {lost} lost");
    }
}
