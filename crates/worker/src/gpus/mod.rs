//! Who has which GPU: each is one replica's alone, from before its start until its process is gone.
//!
//! An app that gets none waits in turn. Whoever waited longest is served first, unless what it needs is
//! not free at that moment: no GPU lies idle for an app that cannot use it yet, so one that needs several
//! gets them when so many are free at once. Nothing here decides who leaves: pools see that others wait
//! ([`Desk::is_waited_for`]) and let replicas go that have nothing to do.

mod nvml;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use queue::AppId;
use queue::app::AppConfig;
use queue::hardware::{Gpu, Hardware, PlacedGpu};
use tokio::sync::watch;

pub use nvml::Nvml;

/// Where GPUs are found.
pub trait Probe {
    /// The GPUs of this node.
    ///
    /// # Errors
    /// When there is no driver to ask, or it does not answer.
    fn gpus(&self) -> Result<Vec<Gpu>, NoGpus>;
}

/// Why no GPUs were found.
#[derive(Debug, thiserror::Error)]
pub enum NoGpus {
    /// The usual case on machines without any.
    #[error("no NVIDIA driver is installed")]
    NoDriver,
    /// There is a driver, and something is wrong with it.
    #[error("the NVIDIA driver does not answer: {0}; `nvidia-smi` may say more")]
    Driver(String),
}

/// The GPUs that `probe` finds, but for those that a `CUDA_VISIBLE_DEVICES` of the server hides from it.
///
/// # Errors
/// When there is no driver to ask, or it does not answer.
pub fn look_up(probe: &dyn Probe, visible_devices: Option<&str>) -> Result<Vec<Gpu>, NoGpus> {
    let gpus = probe.gpus()?;
    Ok(visible_devices.map_or_else(|| gpus.clone(), |devices| visible(&gpus, devices)))
}

/// The GPUs that a `CUDA_VISIBLE_DEVICES` of the server leaves to it, in its order: numbers, or beginnings of
/// UUIDs. As for CUDA, what follows an entry that names none is not seen.
fn visible(gpus: &[Gpu], devices: &str) -> Vec<Gpu> {
    let mut seen: Vec<Gpu> = Vec::new();
    for entry in devices.split(',').map(str::trim) {
        let found = match entry.parse::<usize>() {
            Ok(index) => gpus.get(index),
            Err(_) if entry.is_empty() => None,
            Err(_) => gpus.iter().find(|gpu| gpu.uuid.starts_with(entry)),
        };
        match found {
            Some(gpu) if !seen.contains(gpu) => seen.push(gpu.clone()),
            _ => break,
        }
    }
    seen
}

/// The GPUs of the node.
#[derive(Debug)]
pub(crate) struct Gpus {
    held: Mutex<Held>,
    /// Somebody began to wait, or something became free.
    news: watch::Sender<()>,
}

#[derive(Debug)]
struct Held {
    hardware: Hardware,
    /// In the order in which they came.
    waiting: Vec<Waiter>,
    desks: u64,
}

#[derive(Debug)]
struct Waiter {
    desk: u64,
    compute: Vec<String>,
    gpu_count: u32,
}

impl Gpus {
    pub(crate) fn new(gpus: Vec<Gpu>, cpu_fallback: bool) -> Arc<Self> {
        let gpus = gpus.into_iter().map(|gpu| PlacedGpu { gpu, app: None }).collect();
        let held = Held { hardware: Hardware { gpus, cpu_fallback }, waiting: Vec::new(), desks: 0 };
        Arc::new(Self { held: Mutex::new(held), news: watch::Sender::new(()) })
    }

    /// A place at which an app's pool asks.
    pub(crate) fn desk(self: &Arc<Self>, app: AppId) -> Desk {
        let mut held = self.held();
        held.desks += 1;
        Desk { number: held.desks, app, news: self.news.subscribe(), gpus: Arc::clone(self), had: Vec::new() }
    }

    pub(crate) fn hardware(&self) -> Hardware {
        self.held().hardware.clone()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// What the waiter at this place of the queue would get now, after those before it.
    fn share_of(&self, place: usize) -> Option<Vec<usize>> {
        let mut free: Vec<bool> = self.hardware.gpus.iter().map(|placed| placed.app.is_none()).collect();
        let mut share = None;
        for waiter in &self.waiting[..=place] {
            share = self.hardware.pick(&waiter.compute, waiter.gpu_count, |index| free[index]);
            share.iter().flatten().for_each(|&index| free[index] = false);
        }
        share
    }

    fn place_of(&self, desk: u64) -> Option<usize> {
        self.waiting.iter().position(|waiter| waiter.desk == desk)
    }
}

/// Why a replica cannot have its GPUs now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// They are others'.
    InUse(String),
    /// There are none such, or not enough.
    NotHere(String),
}

impl Missing {
    pub(crate) fn why(&self) -> &str {
        match self {
            Self::InUse(why) | Self::NotHere(why) => why,
        }
    }
}

/// Where an app's pool asks for GPUs, and waits.
#[derive(Debug)]
pub(crate) struct Desk {
    number: u64,
    app: AppId,
    news: watch::Receiver<()>,
    gpus: Arc<Gpus>,
    /// The places of what was given here and may still be held.
    had: Vec<usize>,
}

impl Desk {
    /// The GPUs for one replica, or a place in the queue for them.
    pub(crate) fn take(&mut self, config: &AppConfig) -> Result<Given, Missing> {
        let mut held = self.gpus.held();
        let room = held.hardware.room(config);
        if room.is_none() || room == Some(0) {
            let waited = withdraw(&mut held, self.number);
            let hides = !held.hardware.gpus.is_empty();
            let said = held.hardware.described();
            drop(held);
            self.tell(waited);
            return match room {
                None => Ok(Given { indices: Vec::new(), uuids: Vec::new(), hides, gpus: None }),
                Some(_) => Err(Missing::NotHere(format!(
                    "it needs {}, which this server does not have; it has: {said}",
                    asked(config)
                ))),
            };
        }
        let (place, is_new) = match held.place_of(self.number) {
            Some(place) => (place, false),
            None => {
                held.waiting.push(Waiter { desk: self.number, compute: Vec::new(), gpu_count: 0 });
                (held.waiting.len() - 1, true)
            }
        };
        held.waiting[place].compute.clone_from(&config.compute);
        held.waiting[place].gpu_count = config.gpus();
        let Some(indices) = held.share_of(place) else {
            let fits = |placed: &&PlacedGpu| config.compute.iter().any(|asked| placed.gpu.is(asked));
            let there = held.hardware.gpus.iter().filter(fits).count();
            drop(held);
            self.tell(is_new);
            let all = if there == 1 { "the only one is".to_owned() } else { format!("all {there} are") };
            let all = if config.gpus() > 1 {
                "not so many are free at once".to_owned()
            } else {
                format!("{all} in use")
            };
            return Err(Missing::InUse(format!("it waits for {}; {all}", asked(config))));
        };
        held.waiting.remove(place);
        let mut uuids = Vec::with_capacity(indices.len());
        for &index in &indices {
            let placed = &mut held.hardware.gpus[index];
            placed.app = Some(self.app.clone());
            uuids.push(placed.gpu.uuid.clone());
        }
        drop(held);
        self.had.retain(|index| !indices.contains(index));
        self.had.extend(&indices);
        Ok(Given { indices, uuids, hides: true, gpus: Some(Arc::clone(&self.gpus)) })
    }

    /// Nothing is needed any more.
    pub(crate) fn rest(&mut self) {
        let waited = withdraw(&mut self.gpus.held(), self.number);
        self.tell(waited);
    }

    /// Whether GPUs were ever given here.
    pub(crate) fn has_had_some(&self) -> bool {
        !self.had.is_empty()
    }

    /// Another app waits for what was given here.
    pub(crate) fn is_waited_for(&self) -> bool {
        if self.had.is_empty() {
            return false;
        }
        let held = self.gpus.held();
        let mine = |index: &&usize| held.hardware.gpus[**index].app.as_ref() == Some(&self.app);
        self.had.iter().filter(mine).any(|&index| {
            let gpu = &held.hardware.gpus[index].gpu;
            let others = held.waiting.iter().filter(|waiter| waiter.desk != self.number);
            others.flat_map(|waiter| &waiter.compute).any(|compute| gpu.is(compute))
        })
    }

    /// Replicas of the app that there is hardware for, whoever has it now; `None` for any number.
    pub(crate) fn room(&self, config: &AppConfig) -> Option<u32> {
        // Most apps need none, and this is asked at each decision.
        if config.wants_gpu() { self.gpus.held().hardware.room(config) } else { None }
    }

    /// Waits until it is worth asking again, or looking who waits.
    pub(crate) async fn news(&mut self) {
        if self.news.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn tell(&self, changed: bool) {
        if changed {
            self.gpus.news.send_replace(());
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.rest();
    }
}

fn withdraw(held: &mut Held, desk: u64) -> bool {
    let place = held.place_of(desk);
    place.map(|place| held.waiting.remove(place)).is_some()
}

/// `2 GPUs of AMPERE_A10 or TURING_T4`
fn asked(config: &AppConfig) -> String {
    let kinds = config.compute.join(" or ");
    match config.gpus() {
        1 => format!("a GPU of {kinds}"),
        count => format!("{count} GPUs of {kinds}"),
    }
}

/// What one replica was given. Dropping it gives the GPUs back.
#[derive(Debug)]
pub(crate) struct Given {
    indices: Vec<usize>,
    uuids: Vec<String>,
    hides: bool,
    gpus: Option<Arc<Gpus>>,
}

impl Given {
    /// `CUDA_VISIBLE_DEVICES` of the replica; `None` leaves it as the server has it.
    pub(crate) fn visible_devices(&self) -> Option<String> {
        // Empty for replicas that were given none: they must not take memory on the GPUs of others.
        self.hides.then(|| self.uuids.join(","))
    }

    /// Which they are.
    pub(crate) fn uuids(&self) -> &[String] {
        &self.uuids
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let Some(gpus) = &self.gpus else { return };
        let mut held = gpus.held();
        for &index in &self.indices {
            held.hardware.gpus[index].app = None;
        }
        drop(held);
        gpus.news.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(number: usize, name: &str) -> Gpu {
        Gpu { uuid: format!("GPU-{number}"), name: name.into(), memory_bytes: 24 << 30 }
    }

    fn node(names: &[&str]) -> Arc<Gpus> {
        Gpus::new(names.iter().enumerate().map(|(number, name)| gpu(number, name)).collect(), false)
    }

    fn app(name: &str) -> AppId {
        format!("p-1234abcd-{name}").parse().unwrap()
    }

    fn config(compute: &[&str], gpu_count: u32) -> AppConfig {
        let compute = compute.iter().map(|&compute| compute.to_owned()).collect();
        AppConfig { compute, gpu_count, ..AppConfig::default() }
    }

    fn devices(given: &Given) -> String {
        given.visible_devices().unwrap()
    }

    #[test]
    fn each_gpu_is_one_replicas_alone_and_comes_back_when_that_is_gone() {
        let gpus = node(&["NVIDIA A10", "NVIDIA A10"]);
        let (mut one, mut two) = (gpus.desk(app("one")), gpus.desk(app("two")));
        let a10 = config(&["AMPERE_A10"], 1);
        let first = one.take(&a10).unwrap();
        let second = two.take(&a10).unwrap();
        assert_eq!((devices(&first), devices(&second)), ("GPU-0".into(), "GPU-1".into()));
        let holders: Vec<_> = gpus.hardware().gpus.into_iter().map(|placed| placed.app).collect();
        assert_eq!(holders, [Some(app("one")), Some(app("two"))]);
        let missing = one.take(&a10).unwrap_err();
        assert_eq!(missing, Missing::InUse("it waits for a GPU of AMPERE_A10; all 2 are in use".into()));
        drop(second);
        assert_eq!(devices(&one.take(&a10).unwrap()), "GPU-1");
    }

    #[test]
    fn who_waits_first_is_served_first_but_nothing_lies_idle_for_who_cannot_use_it() {
        let gpus = node(&["NVIDIA A10", "NVIDIA A10"]);
        let mut desks: Vec<_> = ["a", "b", "c", "d"].map(|name| gpus.desk(app(name))).into();
        let (one, both) = (config(&["GPU"], 1), config(&["GPU"], 2));
        let first = desks[0].take(&one).unwrap();
        let second = desks[1].take(&one).unwrap();
        let missing = desks[2].take(&both).unwrap_err();
        assert_eq!(missing.why(), "it waits for 2 GPUs of GPU; not so many are free at once");
        desks[3].take(&one).unwrap_err();
        drop(first);
        // The one before it needs two.
        let third = desks[3].take(&one).unwrap();
        drop((second, third));
        // Now it can be served, and nobody else is before it was.
        desks[0].take(&one).unwrap_err();
        let pair = desks[2].take(&both).unwrap();
        assert_eq!((devices(&pair), pair.uuids().len()), ("GPU-0,GPU-1".into(), 2));
        drop(pair);
        desks[0].take(&one).unwrap();
    }

    #[test]
    fn who_no_longer_waits_keeps_nobody_waiting() {
        let gpus = node(&["NVIDIA A10"]);
        let (mut one, mut two, mut three) =
            (gpus.desk(app("one")), gpus.desk(app("two")), gpus.desk(app("three")));
        let a10 = config(&["AMPERE_A10"], 1);
        let given = one.take(&a10).unwrap();
        two.take(&a10).unwrap_err();
        three.take(&a10).unwrap_err();
        drop(given);
        three.take(&a10).unwrap_err();
        two.rest();
        drop(three.take(&a10).unwrap());
        two.take(&a10).unwrap();
        drop(two);
        one.take(&a10).unwrap();
    }

    #[test]
    fn the_first_kind_that_is_free_is_given() {
        let gpus = node(&["Tesla T4", "NVIDIA A10"]);
        let mut desk = gpus.desk(app("one"));
        let either = config(&["AMPERE_A10", "TURING_T4"], 1);
        let first = desk.take(&either).unwrap();
        let second = desk.take(&either).unwrap();
        assert_eq!((devices(&first), devices(&second)), ("GPU-1".into(), "GPU-0".into()));
        assert_eq!(desk.room(&either), Some(2));
    }

    #[test]
    fn replicas_without_a_gpu_see_none_where_there_are_some() {
        let gpus = node(&["NVIDIA A10"]);
        assert_eq!(devices(&gpus.desk(app("cpu")).take(&config(&["CPU"], 0)).unwrap()), "");
        let none = Gpus::new(Vec::new(), false);
        let given = none.desk(app("cpu")).take(&config(&[], 0)).unwrap();
        assert_eq!((given.visible_devices(), given.uuids().len()), (None, 0));
    }

    #[test]
    fn what_is_not_here_is_said_or_replaced_by_cpus() {
        let gpus = node(&["NVIDIA A10"]);
        let missing = gpus.desk(app("big")).take(&config(&["HOPPER_H100"], 1)).unwrap_err();
        let said = "it needs a GPU of HOPPER_H100, which this server does not have; it has: CPU, \
                    AMPERE_A10 (1 × NVIDIA A10, 24 GiB)";
        assert_eq!(missing, Missing::NotHere(said.into()));
        let fallback = Gpus::new(vec![gpu(0, "NVIDIA A10")], true);
        assert_eq!(devices(&fallback.desk(app("big")).take(&config(&["HOPPER_H100"], 1)).unwrap()), "");
    }

    #[test]
    fn a_pool_sees_whether_others_wait_for_what_it_has() {
        let gpus = node(&["NVIDIA A10", "Tesla T4"]);
        let (mut one, mut two) = (gpus.desk(app("one")), gpus.desk(app("two")));
        let a10 = config(&["AMPERE_A10"], 1);
        let given = one.take(&a10).unwrap();
        one.take(&a10).unwrap_err();
        assert!(!one.is_waited_for(), "its own waiting is not another's");
        let on_t4 = two.take(&config(&["TURING_T4"], 1)).unwrap();
        two.take(&config(&["TURING_T4"], 1)).unwrap_err();
        assert!(!one.is_waited_for());
        two.take(&a10).unwrap_err();
        assert!(one.is_waited_for() && !two.is_waited_for());
        drop((given, on_t4));
        assert!(!one.is_waited_for());
    }

    #[tokio::test]
    async fn news_come_of_what_became_free_and_of_who_waits() {
        let gpus = node(&["NVIDIA A10"]);
        let (mut one, mut two) = (gpus.desk(app("one")), gpus.desk(app("two")));
        let a10 = config(&["AMPERE_A10"], 1);
        let given = one.take(&a10).unwrap();
        two.take(&a10).unwrap_err();
        one.news().await;
        two.news().await;
        // To ask again is no news.
        two.take(&a10).unwrap_err();
        assert!(!two.news.has_changed().unwrap());
        drop(given);
        two.news().await;
        two.take(&a10).unwrap();
    }

    #[test]
    fn the_servers_own_view_of_the_gpus_holds_for_its_replicas() {
        let gpus: Vec<_> = (0..3).map(|number| gpu(number, "NVIDIA A10")).collect();
        let seen = |devices: &str| -> Vec<String> {
            visible(&gpus, devices).into_iter().map(|gpu| gpu.uuid).collect()
        };
        assert_eq!(seen("2,0"), ["GPU-2", "GPU-0"]);
        assert_eq!(seen(" GPU-1 "), ["GPU-1"]);
        assert_eq!(seen("1,7,2"), ["GPU-1"]);
        assert_eq!(seen("1,1,2"), ["GPU-1"]);
        assert_eq!(seen(""), [""; 0]);
        assert_eq!(seen("-1"), [""; 0]);
    }
}
