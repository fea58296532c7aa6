//! All of it at once: workers that are killed, stopped and told to leave, answers that are lost, a PostgreSQL that is stopped, an
//! upstream that fails; in the order of a seed.

use std::{
    collections::{BTreeMap, VecDeque},
    os::unix::process::ExitStatusExt as _,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use imagemill::simulator::{SimulatorOptions, Span};
use rand::{RngExt as _, rngs::StdRng};
use rustix::process::Signal;
use tokio::{sync, task::JoinSet};

use super::{
    fleet::{Fleet, Worker},
    script::{self, Deed, Plan},
};
use crate::support::{OwnServer, seed};

/// A deed that could not be done, since its worker never came to that point, is tried again; so often a deed, all in all.
const TRIES: usize = 4;

/// A worker that does not come to its point is let go after so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

pub(super) struct Chaos {
    pub(super) plan: Plan,
    pub(super) fleet: Fleet,
    pub(super) server: sync::Mutex<OwnServer>,
    /// Read by what must not meet a restart of PostgreSQL, which writes it.
    pub(super) calm: sync::RwLock<()>,
    deeds: std::sync::Mutex<VecDeque<Deed>>,
    done: std::sync::Mutex<BTreeMap<String, usize>>,
    /// Tries that came to nothing.
    vain: std::sync::atomic::AtomicUsize,
}

impl Chaos {
    async fn new(plan: Plan, seed: u64) -> Arc<Self> {
        let options = SimulatorOptions {
            seed,
            submit_latency: Span::range(0, 80),
            duration: Span::range(0, 400),
            ..SimulatorOptions::default()
        };
        let (mut fleet, server) = Fleet::with_own_server(options).await;
        let world = &mut fleet.world;
        world.set("queue.lease", format!("{}ms", plan.lease.as_millis()));
        world.set("queue.beat", format!("{}ms", plan.lease.as_millis() / 6));
        world.set("queue.sweep_interval", "2s").set("lanes.prod.submit_timeout", "3s");
        // Nothing here is polled for ever, and what is resumed again and again on a busy machine is polled for long.
        world.set("lanes.prod.max_polls", "10000");
        let deeds = plan.deeds(&mut script::part(seed, 0)).into();
        Arc::new(Self {
            plan,
            fleet,
            server: sync::Mutex::new(server),
            calm: sync::RwLock::default(),
            deeds,
            done: std::sync::Mutex::default(),
            vain: std::sync::atomic::AtomicUsize::default(),
        })
    }

    pub(super) fn did(&self, what: String) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }

    fn done(&self) -> BTreeMap<String, usize> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The share of the deeds that are done.
    pub(super) fn share(&self) -> f64 {
        let all = self.plan.deeds(&mut script::part(0, 0)).len();
        let left = self.deeds.lock().unwrap_or_else(PoisonError::into_inner).len();
        1.0 - left as f64 / all as f64
    }

    pub(super) fn in_vain(&self, what: &str) {
        let all: usize = self.plan.wanted().values().sum();
        let vain = self.vain.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        assert!(vain < TRIES * all + 20, "{what} cannot be done; so far: {:?}", self.done());
    }

    /// A worker that has registered; none: it met a fault before it could.
    pub(super) async fn start(&self, order: Option<&str>, arguments: &[&str]) -> Option<Worker> {
        let _calm = self.calm.read().await;
        let mut worker = match order {
            Some(order) => self.fleet.doomed(order, arguments).await,
            None => self.fleet.worker(arguments).await,
        };
        worker.started().await;
        let ended = worker.process.ended();
        if ended.is_some_and(|status| status.signal().is_none()) {
            self.in_vain("the start of a worker");
            return None;
        }
        Some(worker)
    }

    /// Does deeds until none are left.
    async fn doom(self: Arc<Self>, mut random: StdRng) {
        loop {
            let deed = self.deeds.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(deed) = deed else { return };
            if self.carry_out(deed, &mut random).await {
                self.did(deed.name());
            } else {
                self.in_vain(&deed.name());
                self.deeds.lock().unwrap_or_else(PoisonError::into_inner).push_back(deed);
            }
        }
    }

    async fn carry_out(&self, deed: Deed, random: &mut StdRng) -> bool {
        let passing = random.random_range(1..=3);
        let moment = Duration::from_millis(random.random_range(50..1500));
        let order = if let Deed::Point(point) = deed { Some(format!("{point}:{passing}")) } else { None };
        let Some(mut worker) = self.start(order.as_deref(), &["--lanes", "prod", "--concurrency", "6"]).await else {
            return false;
        };
        // Moments are the subject: what is slept here is when a deed comes, and waits for nothing.
        match deed {
            Deed::Point(_) => {
                let deadline = Instant::now() + PATIENCE;
                loop {
                    if let Some(status) = worker.process.ended() {
                        assert_eq!(
                            status.signal(),
                            Some(9),
                            "it ended by itself with {status}:\n{}",
                            worker.process.last_words()
                        );
                        self.fleet.bury(&worker).await;
                        return true;
                    }
                    if Instant::now() > deadline {
                        self.leave(worker).await;
                        return false;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            Deed::Kill => {
                tokio::time::sleep(moment).await;
                worker.assert_runs();
                worker.process.kill();
                self.fleet.bury(&worker).await;
            }
            Deed::Leave => {
                tokio::time::sleep(moment).await;
                self.leave(worker).await;
            }
            Deed::Stop => {
                tokio::time::sleep(moment).await;
                worker.assert_runs();
                self.fleet.halt(&worker).await;
                tokio::time::sleep(self.plan.lease.mul_f64(random.random_range(1.5..3.0))).await;
                worker.process.signal(Signal::CONT);
                // One that stood still in the middle of a transaction commits it now: what that wrote was not to be seen before.
                self.fleet.note_halted(&worker).await;
                tokio::time::sleep(moment).await;
                self.leave(worker).await;
            }
        }
        true
    }

    async fn leave(&self, mut worker: Worker) {
        let _calm = self.calm.read().await;
        // Ordered to be killed at a point, it may come to it on its way out.
        worker.process.signal(Signal::TERM);
        let status = worker.process.wait().await;
        if status.signal() == Some(9) {
            self.fleet.bury(&worker).await;
        } else {
            assert_eq!(status.code(), Some(0), "a worker left with {status}:\n{}", worker.process.last_words());
        }
    }
}

async fn run(plan: Plan) {
    let seed = seed();
    let begun = Instant::now();
    let chaos = Chaos::new(plan, seed).await;
    let mut sturdy = Vec::new();
    while sturdy.len() < chaos.plan.sturdy {
        sturdy.extend(chaos.start(None, &["--lanes", "prod", "--concurrency", "12"]).await);
    }
    let mut others = JoinSet::new();
    for number in 0..chaos.plan.doomed {
        others.spawn(Arc::clone(&chaos).doom(script::part(seed, 10 + number as u64)));
    }
    others.spawn(Arc::clone(&chaos).lose_answers(script::part(seed, 1)));
    others.spawn(Arc::clone(&chaos).overtake(script::part(seed, 5)));
    others.spawn(Arc::clone(&chaos).restart(script::part(seed, 2)));
    others.spawn(Arc::clone(&chaos).terminate(script::part(seed, 3)));
    let bound = chaos.plan.bound;
    let fed = tokio::time::timeout(bound, chaos.feed(script::part(seed, 4), &mut others)).await;
    let fates = fed.unwrap_or_else(|_| panic!("not over after {bound:?}; so far: {:?}", chaos.done()));
    chaos.fleet.until_ended().await;
    for worker in sturdy {
        worker.leave().await;
    }
    let counted = chaos.fleet.judge(&fates).await;
    let done = chaos.done();
    println!("seed {seed}, {:?}: {} accepted submits", begun.elapsed(), counted.billed);
    println!("cells: {:?}", counted.cells);
    println!("attempts: {:?}", counted.attempts);
    println!(
        "unknown by the end of a worker: {}, by a cut: {}, by the upstream: {}",
        counted.unknown_by_end, counted.unknown_by_cut, counted.unknown_by_upstream
    );
    println!("workers found dead to which nothing was done: {}", counted.found_dead_alive);
    for (what, count) in &done {
        println!("{count:5} {what}");
    }
    for (what, wanted) in chaos.plan.wanted() {
        let count = done.get(&what).copied().unwrap_or(0);
        assert!(count >= wanted, "{what}: {count} of {wanted}");
    }
}

#[tokio::test]
async fn a_little_of_everything() {
    let plan = Plan {
        cells: 150,
        kills_a_point: 1,
        kills: 2,
        leaves: 2,
        stops: 1,
        answers: 2,
        overtaken: 2,
        restarts: 2,
        terminations: 3,
        sturdy: 2,
        doomed: 2,
        lease: Duration::from_secs(2),
        bound: Duration::from_mins(15),
    };
    run(plan).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: 3,000 cells, 450 kills, 400 lost answers, 10 restarts"]
async fn a_great_deal_of_everything() {
    let plan = Plan {
        cells: 3000,
        kills_a_point: 50,
        kills: 100,
        leaves: 20,
        stops: 10,
        answers: 100,
        overtaken: 20,
        restarts: 10,
        terminations: 20,
        sturdy: 2,
        doomed: 6,
        lease: Duration::from_millis(1500),
        bound: Duration::from_hours(2),
    };
    run(plan).await;
}
