//! GPUs as the NVIDIA driver tells of them. Its library is looked for when the server starts, so the same
//! binary runs on machines without one.

use nvml_wrapper::error::NvmlError;
use queue::hardware::Gpu;

use super::{NoGpus, Probe};

/// More than any machine has.
const GPUS_MAX: u32 = 64;

/// The library of the driver, where the system's loader finds it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nvml;

impl Probe for Nvml {
    fn gpus(&self) -> Result<Vec<Gpu>, NoGpus> {
        let nvml = nvml_wrapper::Nvml::init().map_err(|error| match error {
            NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound | NvmlError::DriverNotLoaded => {
                NoGpus::NoDriver
            }
            error => NoGpus::Driver(error.to_string()),
        })?;
        let found = || {
            let count = nvml.device_count()?.min(GPUS_MAX);
            (0..count)
                .map(|index| {
                    let device = nvml.device_by_index(index)?;
                    Ok(Gpu {
                        uuid: device.uuid()?,
                        name: device.name()?,
                        memory_bytes: device.memory_info()?.total,
                    })
                })
                .collect::<Result<Vec<_>, NvmlError>>()
        };
        found().map_err(|error| NoGpus::Driver(error.to_string()))
    }
}
