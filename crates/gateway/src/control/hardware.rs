//! What the node has that replicas can be given.

use axum::Json;
use axum::extract::State;
use queue::AppId;
use serde::Serialize;

use crate::Gateway;
use crate::auth::Control;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HardwareView {
    gpus: Vec<GpuView>,
    /// What the node lacks is replaced by CPUs.
    cpu_fallback: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GpuView {
    id: String,
    name: String,
    /// What a config asks for it by.
    compute: String,
    memory_bytes: u64,
    in_use: bool,
    /// Whose replica has it, if it is an app of the project.
    app_id: Option<AppId>,
}

/// The GPUs, and who has them.
pub(super) async fn list(Control(project): Control, State(gateway): State<Gateway>) -> Json<HardwareView> {
    let hardware = gateway.replicas.hardware();
    let gpus = hardware.gpus.into_iter().map(|placed| GpuView {
        compute: placed.gpu.compute(),
        id: placed.gpu.uuid,
        name: placed.gpu.name,
        memory_bytes: placed.gpu.memory_bytes,
        in_use: placed.app.is_some(),
        app_id: placed.app.filter(|app| app.project() == project),
    });
    Json(HardwareView { gpus: gpus.collect(), cpu_fallback: hardware.cpu_fallback })
}
