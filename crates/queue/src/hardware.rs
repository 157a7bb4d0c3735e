//! What a node has that replicas can be given, and what the `compute` names of configs mean.
//!
//! Configs say `AMPERE_A10`, drivers say `NVIDIA A10G`: one table knows which is which. A GPU that has no
//! name in it can be asked for by its driver's name, `NVIDIA_GEFORCE_RTX_4090`, and every one as `GPU`.

use std::fmt::Write as _;

use crate::app::AppConfig;
use crate::id::AppId;

/// Stands before the name that a driver gives to a GPU.
pub const OWN_NAME: &str = "NVIDIA_";

const CPU: &str = "CPU";
const GIB: f64 = (1_u64 << 30) as f64;
/// Between the two sizes of an A100.
const A100_DIVIDE: u64 = 60_000_000_000;

/// A `compute` name of a config, and which GPUs it means.
struct Kind {
    compute: &'static str,
    /// One of these stands in the driver's name, each with all its words.
    models: &'static [&'static [&'static str]],
    memory_min: u64,
    memory_max: u64,
}

const fn kind(compute: &'static str, models: &'static [&'static [&'static str]]) -> Kind {
    Kind { compute, models, memory_min: 0, memory_max: u64::MAX }
}

/// The more exact of two names that mean one GPU comes first.
const KINDS: &[Kind] = &[
    kind("TURING_T4", &[&["T4"]]),
    kind("TURING_4000", &[&["QUADRO", "RTX", "4000"]]),
    kind("TURING_5000", &[&["QUADRO", "RTX", "5000"]]),
    kind("AMPERE_A4000", &[&["A4000"]]),
    kind("AMPERE_A5000", &[&["A5000"]]),
    kind("AMPERE_A6000", &[&["A6000"]]),
    Kind { memory_max: A100_DIVIDE, ..kind("AMPERE_A100_40GB", &[&["A100"]]) },
    Kind { memory_min: A100_DIVIDE, ..kind("AMPERE_A100_80GB", &[&["A100"]]) },
    kind("AMPERE_A100", &[&["A100"]]),
    kind("AMPERE_A10", &[&["A10"], &["A10G"]]),
    kind("A10", &[&["A10"], &["A10G"]]),
    kind("ADA_L4", &[&["L4"]]),
    kind("ADA_L40", &[&["L40"], &["L40S"]]),
    kind("HOPPER_H100", &[&["H100"]]),
    kind("HOPPER_H200", &[&["H200"]]),
    kind("BLACKWELL_B200", &[&["B200"]]),
    kind("BLACKWELL_RTX6000", &[&["RTX", "PRO", "6000", "BLACKWELL"]]),
    // Accelerators of another maker, which no driver here knows.
    kind("INF2", &[]),
    kind("TRN1", &[]),
];

/// Every name that `compute` can have, whatever a node has, but for the drivers' own.
pub fn compute_names() -> impl Iterator<Item = &'static str> {
    [CPU, "GPU"].into_iter().chain(KINDS.iter().map(|kind| kind.compute))
}

/// A GPU of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// `GPU-…`, the same after a restart.
    pub uuid: String,
    /// As its driver calls it: `NVIDIA A10`.
    pub name: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

impl Gpu {
    /// Whether `compute` means such a one.
    pub fn is(&self, compute: &str) -> bool {
        let asked = compute.trim().to_uppercase();
        asked == "GPU"
            || asked == self.own_name()
            || KINDS.iter().any(|kind| kind.compute == asked && self.is_kind(kind))
    }

    fn is_kind(&self, kind: &Kind) -> bool {
        let name = self.name.to_uppercase();
        let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        // A slice of one is another thing.
        !words.contains(&"MIG")
            && (kind.memory_min..kind.memory_max).contains(&self.memory_bytes)
            && kind.models.iter().any(|model| model.iter().all(|word| words.contains(word)))
    }

    /// The name it is best asked for by.
    pub fn compute(&self) -> String {
        let known = KINDS.iter().find(|kind| self.is_kind(kind));
        known.map_or_else(|| self.own_name(), |kind| kind.compute.to_owned())
    }

    fn own_name(&self) -> String {
        let name = self.name.trim().to_uppercase();
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        if name.starts_with(OWN_NAME) { name } else { format!("{OWN_NAME}{name}") }
    }
}

/// A GPU, and whose replica has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedGpu {
    /// The GPU.
    pub gpu: Gpu,
    /// The app with a replica on it; `None` while it is free.
    pub app: Option<AppId>,
}

/// What a node has that replicas can be given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// Its GPUs, in the order of its driver.
    pub gpus: Vec<PlacedGpu>,
    /// Replicas whose GPUs are not there run on CPUs instead.
    pub cpu_fallback: bool,
}

impl Hardware {
    /// How many GPUs of a kind there are.
    pub fn count(&self, compute: &str) -> usize {
        self.gpus.iter().filter(|placed| placed.gpu.is(compute)).count()
    }

    /// Of what is asked for, in order of preference, what there is enough of. `CPU` is for nodes that have
    /// nothing of what stands before it. Empty when there is nothing, and when nothing is asked for.
    pub fn choose(&self, compute: &[String], gpu_count: u32) -> Vec<String> {
        let needed = usize::try_from(gpu_count.max(1)).unwrap_or(usize::MAX);
        let mut chosen = Vec::new();
        for asked in compute.iter().map(|asked| asked.trim().to_uppercase()) {
            if asked == CPU {
                if chosen.is_empty() {
                    chosen.push(asked);
                }
                break;
            }
            if self.count(&asked) >= needed {
                chosen.push(asked);
            }
        }
        chosen
    }

    /// How many replicas of an app there is hardware for, whoever has it now; `None` for any number.
    pub fn room(&self, config: &AppConfig) -> Option<u32> {
        if config.gpus() == 0 {
            return None;
        }
        let mut left: Vec<bool> = vec![true; self.gpus.len()];
        let mut replicas = 0;
        while let Some(picked) = self.pick(&config.compute, config.gpus(), |index| left[index]) {
            picked.into_iter().for_each(|index| left[index] = false);
            replicas += 1;
        }
        if replicas == 0 && self.cpu_fallback { None } else { Some(replicas) }
    }

    /// The GPUs for one replica, all of the first kind of which enough are `free`.
    pub fn pick(
        &self,
        compute: &[String],
        gpu_count: u32,
        free: impl Fn(usize) -> bool,
    ) -> Option<Vec<usize>> {
        let needed = usize::try_from(gpu_count.max(1)).unwrap_or(usize::MAX);
        let kinds = compute.iter().filter(|asked| !asked.eq_ignore_ascii_case(CPU));
        kinds.into_iter().find_map(|asked| {
            let fits = |index: &usize| free(*index) && self.gpus[*index].gpu.is(asked);
            let picked: Vec<usize> = (0..self.gpus.len()).filter(fits).take(needed).collect();
            (picked.len() == needed).then_some(picked)
        })
    }

    /// Everything that can be asked for, for people: `CPU, AMPERE_A10 (2 × NVIDIA A10, 22.5 GiB each)`.
    pub fn described(&self) -> String {
        let mut said = CPU.to_owned();
        let mut seen: Vec<&Gpu> = Vec::new();
        for Gpu { name, memory_bytes, .. } in self.gpus.iter().map(|placed| &placed.gpu) {
            let same = |gpu: &&Gpu| gpu.name == *name && gpu.memory_bytes == *memory_bytes;
            if seen.iter().any(same) {
                continue;
            }
            let mut alike = self.gpus.iter().map(|placed| &placed.gpu).filter(same);
            let Some(first) = alike.next() else { continue };
            let count = 1 + alike.count();
            let each = if count > 1 { " each" } else { "" };
            let memory = format!("{:.1}", gib(*memory_bytes));
            let memory = memory.strip_suffix(".0").unwrap_or(&memory);
            let _ = write!(said, ", {} ({count} × {name}, {memory} GiB{each})", first.compute());
            seen.push(first);
        }
        said
    }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / GIB
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn gpu(name: &str, mib: u64) -> Gpu {
        Gpu { uuid: format!("GPU-{name}"), name: name.into(), memory_bytes: mib * MIB }
    }

    fn hardware(gpus: &[(&str, u64)]) -> Hardware {
        let gpus = gpus.iter().map(|(name, mib)| PlacedGpu { gpu: gpu(name, *mib), app: None }).collect();
        Hardware { gpus, cpu_fallback: false }
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn the_names_of_drivers_are_those_of_configs() {
        for (name, mib, compute) in [
            ("Tesla T4", 15_360, "TURING_T4"),
            ("Quadro RTX 4000", 8_192, "TURING_4000"),
            ("Quadro RTX 5000", 16_384, "TURING_5000"),
            ("NVIDIA RTX A4000", 16_376, "AMPERE_A4000"),
            ("NVIDIA RTX A5000", 24_564, "AMPERE_A5000"),
            ("NVIDIA RTX A6000", 49_140, "AMPERE_A6000"),
            ("NVIDIA A10", 23_028, "AMPERE_A10"),
            ("NVIDIA A10G", 23_028, "AMPERE_A10"),
            ("NVIDIA A100-SXM4-40GB", 40_960, "AMPERE_A100_40GB"),
            ("NVIDIA A100-PCIE-40GB", 40_960, "AMPERE_A100_40GB"),
            ("NVIDIA A100-SXM4-80GB", 81_920, "AMPERE_A100_80GB"),
            ("NVIDIA A100 80GB PCIe", 81_920, "AMPERE_A100_80GB"),
            ("NVIDIA L4", 23_034, "ADA_L4"),
            ("NVIDIA L40", 46_068, "ADA_L40"),
            ("NVIDIA L40S", 46_068, "ADA_L40"),
            ("NVIDIA H100 80GB HBM3", 81_559, "HOPPER_H100"),
            ("NVIDIA H100 PCIe", 81_559, "HOPPER_H100"),
            ("NVIDIA H200", 143_771, "HOPPER_H200"),
            ("NVIDIA B200", 183_359, "BLACKWELL_B200"),
            ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97_887, "BLACKWELL_RTX6000"),
            ("NVIDIA GeForce RTX 4090", 24_564, "NVIDIA_GEFORCE_RTX_4090"),
            ("NVIDIA RTX 4000 Ada Generation", 20_475, "NVIDIA_RTX_4000_ADA_GENERATION"),
            ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 4_864, "NVIDIA_A100_SXM4_40GB_MIG_1G_5GB"),
        ] {
            let gpu = gpu(name, mib);
            assert_eq!(gpu.compute(), compute, "{name}");
            assert!(gpu.is(compute) && gpu.is("gpu") && gpu.is(&compute.to_lowercase()), "{name}");
            // No other name means it, but for the wider ones.
            let others =
                compute_names().filter(|other| gpu.is(other) && *other != compute && *other != "GPU");
            let others: Vec<_> = others.filter(|other| !matches!(*other, "AMPERE_A100" | "A10")).collect();
            assert_eq!(others, [""; 0], "{name}");
        }
        assert!(gpu("NVIDIA A100-SXM4-40GB", 40_960).is("AMPERE_A100"));
        assert!(gpu("NVIDIA A10G", 23_028).is("A10"));
    }

    #[test]
    fn of_what_is_asked_for_that_is_chosen_of_which_there_is_enough() {
        let node = hardware(&[("NVIDIA A10", 23_028), ("NVIDIA A10", 23_028), ("Tesla T4", 15_360)]);
        let choose = |compute: &[&str], count| node.choose(&texts(compute), count);
        assert_eq!(choose(&["hopper_h100", "turing_t4", "AMPERE_A10"], 1), ["TURING_T4", "AMPERE_A10"]);
        assert_eq!(choose(&["TURING_T4", "AMPERE_A10"], 2), ["AMPERE_A10"]);
        assert_eq!(choose(&["GPU"], 3), ["GPU"]);
        assert_eq!(choose(&["GPU"], 4), [""; 0]);
        assert_eq!(choose(&["HOPPER_H100"], 1), [""; 0]);
        assert_eq!(choose(&["AMPERE_A10", "CPU", "TURING_T4"], 1), ["AMPERE_A10"]);
        assert_eq!(choose(&["HOPPER_H100", "cpu"], 1), ["CPU"]);
        assert_eq!(choose(&[], 1), [""; 0]);
        assert_eq!(Hardware::default().choose(&texts(&["CPU"]), 0), ["CPU"]);
    }

    #[test]
    fn replicas_are_bounded_by_the_gpus_there_are() {
        let mut node = hardware(&[("NVIDIA A10", 23_028), ("NVIDIA A10", 23_028), ("Tesla T4", 15_360)]);
        let config = |compute: &[&str], gpu_count| AppConfig {
            compute: texts(compute),
            gpu_count,
            ..AppConfig::default()
        };
        assert_eq!(node.room(&config(&["AMPERE_A10"], 1)), Some(2));
        assert_eq!(node.room(&config(&["AMPERE_A10"], 2)), Some(1));
        assert_eq!(node.room(&config(&["TURING_T4", "AMPERE_A10"], 2)), Some(1), "never one of each");
        assert_eq!(node.room(&config(&["AMPERE_A10", "TURING_T4"], 0)), Some(3));
        assert_eq!(node.room(&config(&["HOPPER_H100"], 1)), Some(0));
        assert_eq!(node.room(&config(&["CPU"], 0)), None);
        assert_eq!(node.room(&config(&[], 5)), None);
        node.cpu_fallback = true;
        assert_eq!(node.room(&config(&["HOPPER_H100"], 1)), None);
        assert_eq!(node.room(&config(&["AMPERE_A10"], 1)), Some(2));
    }

    #[test]
    fn what_there_is_is_said_with_its_number_and_memory() {
        assert_eq!(Hardware::default().described(), "CPU");
        let node = hardware(&[("NVIDIA A10", 23_028), ("Tesla T4", 15_360), ("NVIDIA A10", 23_028)]);
        let said = "CPU, AMPERE_A10 (2 × NVIDIA A10, 22.5 GiB each), TURING_T4 (1 × Tesla T4, 15 GiB)";
        assert_eq!(node.described(), said);
    }
}
