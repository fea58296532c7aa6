//! A model of the queue engine: sequences of steps, drawn by proptest, taken by the engine's own SQL in two workers' sessions, and
//! compared with a reference that is plain data.
//!
//! The steps of the sessions are interleaved at the borders of their statements, and answers are lost there. Which of two transactions
//! comes first is decided by PostgreSQL's locks; so the reference is moved on by one step when PostgreSQL has committed it, and then
//! says what the tables hold and what the engine answers.
//!
//! `IMAGEMILL_MODEL_SEED` plays a run again.

mod connection;
mod drain;
mod gate;
mod handler;
mod invariants;
mod reference;
mod rig;
mod rows;
mod session;
mod system;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};

use gate::Passing;
use handler::Policy;
use rig::{OPERATOR, Rig, WORKERS};
use session::Step;
use system::World;

/// What a sequence begins with.
#[derive(Debug, Clone)]
struct Plan {
    cells: usize,
    resubmits: bool,
}

/// One step of a sequence, by one of the sessions. What a session has begun is brought to its end before it begins another; where it
/// waits for a lock, the step is left out.
#[derive(Debug, Clone)]
enum Transition {
    /// A worker goes on: it claims where it holds nothing; else one of its claims looks, submits, accepts, polls, or settles. The
    /// number says which, and what the upstream says.
    Work { worker: usize, pick: u8 },
    /// It claims, whatever it holds.
    Claim { worker: usize },
    /// It gives a beat, and sees the others.
    Beat { worker: usize },
    /// It finds another one dead that it has seen.
    Rescue { worker: usize },
    /// It compares what it holds with what PostgreSQL says.
    Reconcile { worker: usize },
    /// Its last settle once more, as it is.
    Repeat { worker: usize },
    /// Somebody cancels a cell, or ends it by force.
    Steer { cell: usize, is_forced: bool },
    /// Somebody puts the job of a cell back to work.
    Retry { cell: usize },
    /// The next statement of a session passes, or its answer is lost, or its connection before it.
    Pass { session: usize, passing: Passing },
}

impl ReferenceStateMachine for Plan {
    type State = Self;
    type Transition = Transition;

    fn init_state() -> BoxedStrategy<Self> {
        (1..=2_usize, any::<bool>()).prop_map(|(cells, resubmits)| Self { cells, resubmits }).boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Transition> {
        let (worker, cell) = (0..WORKERS, 0..state.cells);
        let passing = prop_oneof![
            6 => Just(Passing::Through),
            2 => Just(Passing::AnswerLost),
            1 => Just(Passing::Cut),
        ];
        let session = prop_oneof![9 => 0..WORKERS, 1 => Just(OPERATOR)];
        prop_oneof![
            24 => (worker.clone(), any::<u8>()).prop_map(|(worker, pick)| Transition::Work { worker, pick }),
            3 => worker.clone().prop_map(|worker| Transition::Claim { worker }),
            3 => worker.clone().prop_map(|worker| Transition::Beat { worker }),
            3 => worker.clone().prop_map(|worker| Transition::Rescue { worker }),
            2 => worker.clone().prop_map(|worker| Transition::Reconcile { worker }),
            2 => worker.prop_map(|worker| Transition::Repeat { worker }),
            1 => (cell.clone(), prop::bool::weighted(0.3)).prop_map(|(cell, is_forced)| Transition::Steer { cell, is_forced }),
            1 => cell.prop_map(|cell| Transition::Retry { cell }),
            28 => (session, passing).prop_map(|(session, passing)| Transition::Pass { session, passing }),
        ]
        .boxed()
    }

    fn apply(state: Self, _: &Transition) -> Self {
        state
    }
}

thread_local! {
    /// The database of this thread and its gates, for one sequence after another.
    static RIG: RefCell<Option<Rig>> = const { RefCell::new(None) };
    /// What was seen in this thread's sequences, and how often.
    static SEEN: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// A world whose rig is given back when it goes, also by a failure.
struct Machine(Option<World>);

impl Machine {
    fn block_on(&mut self, work: impl AsyncFnOnce(&mut World)) {
        let world = self.0.as_mut().expect("a world");
        let runtime = Arc::clone(&world.rig.runtime);
        runtime.block_on(work(world));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(world) = self.0.take() {
            SEEN.with_borrow_mut(|seen| world.seen.iter().for_each(|(what, times)| *seen.entry(what).or_default() += times));
            RIG.set(Some(world.rig));
        }
    }
}

impl StateMachineTest for Machine {
    type SystemUnderTest = Self;
    type Reference = Plan;

    fn init_test(plan: &Plan) -> Self {
        let rig = RIG.take().unwrap_or_else(Rig::new);
        let runtime = Arc::clone(&rig.runtime);
        let policy = Policy { resubmits: plan.resubmits };
        Self(Some(runtime.block_on(World::new(rig, plan.cells, policy))))
    }

    fn apply(mut machine: Self, _: &Plan, transition: Transition) -> Self {
        machine.block_on(async |world| match transition {
            Transition::Work { worker, pick } => world.work(worker, pick).await,
            Transition::Claim { worker } => world.claim(worker).await,
            Transition::Beat { worker } => world.start(worker, Step::Beat).await,
            Transition::Rescue { worker } => {
                if world.finish(worker).await {
                    let step = world.watched(worker).unwrap_or(Step::Beat);
                    world.start(worker, step).await;
                }
            }
            Transition::Reconcile { worker } => world.start(worker, Step::Reconcile).await,
            Transition::Repeat { worker } => world.repeat(worker).await,
            Transition::Steer { cell, is_forced } => {
                // A shorter sequence may have fewer cells.
                let cell = cell % world.cells.len();
                let step = Step::Steer { task: world.task, number: cell as i32, cell: world.cells[cell], is_forced };
                world.start(OPERATOR, step).await;
            }
            Transition::Retry { cell } => {
                let step = Step::Reopen { task: world.task, cell: world.cells[cell % world.cells.len()] };
                world.start(OPERATOR, step).await;
            }
            Transition::Pass { session, passing } => {
                world.pass(session, passing).await;
            }
        });
        machine
    }

    fn teardown(mut machine: Self, _: Plan) {
        machine.block_on(World::drain);
    }
}

/// No sequence has more steps.
const LENGTH: usize = 70;

/// Runs so many sequences drawn from this seed. Returns what was seen, and how often.
fn run(seed: u64, sequences: u32) -> BTreeMap<&'static str, u64> {
    let config = Config { cases: sequences, failure_persistence: None, max_shrink_iters: 500, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config.clone(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let began = Instant::now();
    let ended = runner.run(&Plan::sequential_strategy(1..LENGTH), |(plan, transitions, seen)| {
        Machine::test_sequential(config.clone(), plan, transitions, seen);
        Ok(())
    });
    let happened = SEEN.take();
    println!("model: {sequences} sequences from seed {seed} in {:.1?}: {happened:?}", began.elapsed());
    match ended {
        Ok(()) => happened,
        Err(TestError::Fail(why, (plan, transitions, _))) => {
            panic!("assertion of the model: seed {seed}: {why}\nthe shortest sequence found, of {plan:?}:\n{transitions:#?}")
        }
        Err(TestError::Abort(why)) => panic!("seed {seed}: {why}"),
    }
}

/// The seed that was asked for, or another one each time.
fn seed() -> u64 {
    let asked = std::env::var("IMAGEMILL_MODEL_SEED").ok();
    let seed = asked.map_or_else(rand::random, |seed| seed.parse().expect("IMAGEMILL_MODEL_SEED: a number"));
    println!("IMAGEMILL_MODEL_SEED={seed}");
    seed
}

#[test]
fn the_engine_does_what_the_model_says() {
    run(seed(), 100);
}

#[test]
#[ignore = "takes minutes: cargo test --test it model -- --ignored --nocapture"]
fn the_engine_does_what_the_model_says_for_long() {
    let seed = seed();
    let threads: Vec<_> = (0..4).map(|thread| std::thread::spawn(move || run(seed.wrapping_add(thread), 2_500))).collect();
    let ended: Vec<_> = threads.into_iter().map(std::thread::JoinHandle::join).collect();
    assert_eq!(ended.iter().filter(|ended| ended.is_err()).count(), 0, "threads that found a fault");
    // So many sequences come to all of it, or something keeps them from it.
    let happened: BTreeSet<&str> = ended.into_iter().flatten().flat_map(BTreeMap::into_keys).collect();
    for what in ["claimed", "settled by a lost claim", "rescued", "answer lost", "waited for a lock"] {
        assert!(happened.contains(what), "never {what}: {happened:?}");
    }
}
