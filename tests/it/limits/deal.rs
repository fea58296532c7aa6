//! The deal of one claim is that of one place after another, whichever way it is found: against a reference, by a seed.

use imagemill::{
    models::{Prompt, TaskInput, payload::GenerateImage},
    queue::{Job, steps::Steps},
    services::{processing, task_service::create_task},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::owner;
use crate::support::{World, seed};

/// Owners, tasks and rounds. Each task has more cells than one round takes.
const OWNERS: usize = 4;
const TASKS: usize = 14;
const CELLS: usize = 100;
const ROUNDS: usize = 60;

const LANES: [&str; 2] = ["ops", "prod"];

/// A task as the turns see it.
#[derive(Debug, Clone)]
struct Load {
    task: String,
    lane: &'static str,
    owner: usize,
    weight: u32,
    in_flight: usize,
}

/// One place of a lane after another: to the owner with the fewest in flight, and to the one of his tasks that has the fewest for its priority;
/// where that is equal to a task that has got none before one that has, and then to the oldest.
fn reference(loads: &[Load], places: [usize; 2]) -> Vec<usize> {
    let mut given = vec![0; loads.len()];
    for (lane, places) in LANES.into_iter().zip(places) {
        for _ in 0..places {
            let of = |owner: usize| (0..loads.len()).filter(move |task| loads[*task].owner == owner && loads[*task].lane == lane);
            let of_owner = |owner: usize| -> usize { of(owner).map(|task| loads[task].in_flight + given[task]).sum() };
            let next_of_owner = |owner: usize| {
                let load = |task: usize| (loads[task].in_flight + given[task]) as f64 / f64::from(loads[task].weight);
                of(owner).min_by(|left, right| load(*left).total_cmp(&load(*right)).then(given[*left].cmp(&given[*right])))
            };
            let nexts = (0..OWNERS).filter_map(|owner| next_of_owner(owner).map(|task| (of_owner(owner), given[task], task)));
            let (_, _, task) = nexts.min().expect("a task");
            given[task] += 1;
        }
    }
    given
}

/// What a claim took, by task.
fn taken(loads: &[Load], jobs: &[Job]) -> Vec<usize> {
    loads.iter().map(|load| jobs.iter().filter(|job| *job.group == *load.task).count()).collect()
}

async fn prepare(world: &World, random: &mut StdRng) -> Vec<Load> {
    let mut owners = Vec::new();
    for number in 0..OWNERS {
        owners.push(owner(world, &format!("owner {number}")).await);
    }
    let mut loads = Vec::new();
    for number in 0..TASKS {
        let owner = random.random_range(0..OWNERS);
        let weight = if random.random_bool(0.5) { 1 } else { random.random_range(1..=8) };
        // Fewer in the first lane, and one at the least in each.
        let lane = LANES[if number < 2 { number } else { usize::from(random.random_bool(0.7)) }];
        let values = (0..CELLS).map(|value| Prompt::freetext(format!("{number} {value}"))).collect::<Vec<_>>();
        let input = TaskInput::new(format!("task {number}")).seed(7).lane(lane).priority(weight).variable_prompt("value", values);
        let definition = input.validate(&(&world.context.settings.limits).into()).expect("a sound definition");
        let task = create_task(&world.context, &owners[owner], &definition).await.expect("create the task").id.to_string();
        loads.push(Load { task, lane, owner, weight: weight.unsigned_abs(), in_flight: 0 });
    }
    loads
}

/// Sets the places of each lane, and nothing else that would hold it.
async fn set_places(world: &World, places: [usize; 2]) {
    for (lane, places) in LANES.into_iter().zip(places) {
        let statement =
            "update imagemill.lanes set max_in_flight = $2, ramp_start = null, ramp_step = null, ramp_interval = null,
                                ramp_idle_reset = null where lane = $1";
        let set = sqlx::query(statement).bind(lane).bind(places as i32).execute(world.pool()).await.expect("set the places");
        assert_eq!(set.rows_affected(), 1);
    }
}

#[tokio::test]
async fn the_deal_of_a_claim_is_that_of_one_place_after_another() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let world = World::new().await;
    let mut loads = prepare(&world, &mut random).await;
    let settings = &world.context.settings;
    let queues = processing::queues(settings, 10_000, LANES.map(str::to_owned).to_vec());
    let options = processing::engine_options(settings, None);
    let steps = Steps::register(world.pool().clone(), options, queues).await.expect("register a worker");
    set_places(&world, [10_000; 2]).await;
    for round in 0..ROUNDS {
        let mut held: Vec<Job> = Vec::new();
        // What is in flight before, by chance.
        for load in &mut loads {
            load.in_flight = if random.random_bool(0.4) { random.random_range(0..6) } else { 0 };
            let keys: Vec<String> =
                sqlx::query_scalar("select id::text from imagemill.subtasks where task_id = $1::uuid limit $2")
                    .bind(&load.task)
                    .bind(load.in_flight as i64)
                    .fetch_all(world.pool())
                    .await
                    .expect("cells");
            for key in keys {
                let jobs = steps.claim_key(GenerateImage::QUEUE, &key).await.expect("claim a cell");
                assert_eq!(jobs.len(), 1, "seed {seed}, round {round}");
                held.extend(jobs);
            }
        }
        for _ in 0..3 {
            // At times one of the lanes is full; and at times both have more places than are wanted, which are half of each then.
            let is_cut = random.random_bool(0.4);
            let places = if is_cut {
                [random.random_range(1..=12); 2]
            } else {
                LANES.map(|_| if random.random_bool(0.4) { 0 } else { random.random_range(1..=16) })
            };
            if places == [0, 0] {
                continue;
            }
            let more = if is_cut { random.random_range(1..=16) } else { 0 };
            let held_in =
                |lane: &str| -> usize { loads.iter().filter(|load| load.lane == lane).map(|load| load.in_flight).sum() };
            set_places(&world, [held_in(LANES[0]) + places[0] + more, held_in(LANES[1]) + places[1] + more]).await;
            let jobs = steps.claim(GenerateImage::QUEUE, places.iter().sum()).await.expect("claim");
            let expected = reference(&loads, places);
            assert_eq!(taken(&loads, &jobs), expected, "seed {seed}, round {round}: {places:?} places, {loads:?}");
            for (load, given) in loads.iter_mut().zip(expected) {
                load.in_flight += given;
            }
            held.extend(jobs);
        }
        set_places(&world, [10_000; 2]).await;
        steps.put_back(&held).await.expect("put back");
    }
}
