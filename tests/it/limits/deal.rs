//! The deal of one claim is that of one place after another, whichever way it is found: against a reference, by a seed.

use imagemill::{
    crud::users,
    models::payload::GenerateImage,
    queue::{Job, steps::Steps},
    services::{actor::Actor, processing, task_service::create_task},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use uuid::Uuid;

use super::{change_lane, definition};
use crate::support::World;

/// Owners, tasks and rounds. Each task has more cells than one round takes.
const OWNERS: usize = 4;
const TASKS: usize = 14;
const CELLS: usize = 100;
const ROUNDS: usize = 25;

/// A task as the turns see it.
#[derive(Debug, Clone)]
struct Load {
    task: String,
    owner: usize,
    weight: u32,
    in_flight: usize,
}

/// One place after another: to the owner with the fewest in flight, and to the one of his tasks that has the fewest for its priority;
/// where that is equal to a task that has got none before one that has, and then to the oldest.
fn reference(loads: &[Load], places: usize) -> Vec<usize> {
    let mut given = vec![0; loads.len()];
    for _ in 0..places {
        let of_owner = |owner: usize| -> usize {
            (0..loads.len()).filter(|task| loads[*task].owner == owner).map(|task| loads[task].in_flight + given[task]).sum()
        };
        let next_of_owner = |owner: usize| {
            let load = |task: usize| (loads[task].in_flight + given[task]) as f64 / f64::from(loads[task].weight);
            let tasks = (0..loads.len()).filter(|task| loads[*task].owner == owner);
            tasks.min_by(|left, right| load(*left).total_cmp(&load(*right)).then(given[*left].cmp(&given[*right])))
        };
        let nexts = (0..OWNERS).filter_map(|owner| next_of_owner(owner).map(|task| (of_owner(owner), given[task], task)));
        let (_, _, task) = nexts.min().expect("a task");
        given[task] += 1;
    }
    given
}

/// What a claim took, by task.
fn taken(loads: &[Load], jobs: &[Job]) -> Vec<usize> {
    loads.iter().map(|load| jobs.iter().filter(|job| *job.group == *load.task).count()).collect()
}

async fn prepare(world: &World, random: &mut StdRng) -> Vec<Load> {
    let mut connection = world.pool().acquire().await.expect("a connection");
    let mut owners = Vec::new();
    for number in 0..OWNERS {
        let name = format!("owner {number}");
        assert!(users::insert(&mut connection, Uuid::now_v7(), &name, None, &["admin".to_owned()]).await.expect("insert"));
        owners.push(Actor::from(users::get_by_username(&mut connection, &name).await.expect("read").expect("the user")));
    }
    let mut loads = Vec::new();
    for number in 0..TASKS {
        let owner = random.random_range(0..OWNERS);
        let weight = if random.random_bool(0.5) { 1 } else { random.random_range(1..=8) };
        let definition = definition(world, &format!("task {number}"), CELLS, weight);
        let task = create_task(&world.context, &owners[owner], &definition).await.expect("create the task").id.to_string();
        loads.push(Load { task, owner, weight: weight.unsigned_abs(), in_flight: 0 });
    }
    loads
}

#[tokio::test]
async fn the_deal_of_a_claim_is_that_of_one_place_after_another() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let world = World::new().await;
    let mut loads = prepare(&world, &mut random).await;
    let settings = &world.context.settings;
    let queues = processing::queues(settings, 10_000, ["ops", "prod"].map(str::to_owned).to_vec());
    let options = processing::engine_options(settings, None);
    let steps = Steps::register(world.pool().clone(), options, queues).await.expect("register a worker");
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
            let wanted = random.random_range(1..=24);
            // At times the lane has fewer places.
            let places = if random.random_bool(0.3) { random.random_range(1..=wanted) } else { wanted };
            change_lane(&world, &format!("max_in_flight = {}", held.len() + places)).await;
            let jobs = steps.claim(GenerateImage::QUEUE, wanted).await.expect("claim");
            let expected = reference(&loads, places);
            assert_eq!(taken(&loads, &jobs), expected, "seed {seed}, round {round}: {places} of {wanted} places, {loads:?}");
            for (load, given) in loads.iter_mut().zip(expected) {
                load.in_flight += given;
            }
            held.extend(jobs);
        }
        change_lane(&world, "max_in_flight = 10000").await;
        steps.put_back(&held).await.expect("put back");
    }
}
