//! `turns`: how a full lane is shared: by a small task behind a large one, by two tasks of one owner, by owners with many.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use uuid::Uuid;

use super::{
    Bench,
    fleet::{self, Fleet, TICK},
    rows::{Must, Row, median, number},
    tasks::{self, DRAINED, LARGE, cells, definition, prior, scaled},
};
use crate::{
    commands::{output, report::Failure},
    db::bench::{lanes, rows},
    models::TaskDefinition,
    services::actor::Actor,
};

const NAME: &str = "turns";

/// What a job lasts, in seconds: about three, so that those that began at once do not all end at once.
const DURATION: (f64, f64) = (2.5, 3.5);

/// Places of the lane where a small task waits behind a large one; how long that has had it to itself, and how often one comes.
const PLACES: i32 = 40;
const ALONE: f64 = 60.0;
const RUNS: f64 = 5.0;

/// The small task: 10 cells.
const SMALL: tasks::Grid = [10, 1, 1];

/// Places for two tasks of one owner, of priorities 1 and 8: 5 and 40. How long they are counted, in seconds.
const SHARED: i32 = 45;
const COUNTED: f64 = 20.0;

/// The tasks of the owner who has many.
const MANY: usize = 20;

pub(super) async fn measure(bench: &Bench) -> Result<Vec<Row>, Failure> {
    Ok(vec![small_behind_large(bench).await?, by_priority(bench).await?, nothing_starves(bench).await?])
}

/// So many seconds, and the least of them.
fn time(bench: &Bench, whole: f64, least: f64) -> Duration {
    Duration::from_secs_f64((whole * bench.options.scale()).max(fleet::seconds(bench, least)))
}

fn jobs(bench: &Bench) -> (f64, f64) {
    (fleet::seconds(bench, DURATION.0), fleet::seconds(bench, DURATION.1))
}

/// A task of 10 cells behind one of 50,000 of another owner.
async fn small_behind_large(bench: &Bench) -> Result<Row, Failure> {
    let runs = (RUNS * bench.options.scale()).max(2.0) as usize;
    let mut fleet = Fleet::prepare(bench, NAME, jobs(bench)).await?;
    let another = tasks::another_owner(&bench.ground, &fleet.database, "another").await?;
    let small = definition("small", SMALL)?;
    fleet.start(bench)?;
    fleet.limit(PLACES / 2, None).await?;
    // The first goes before: until it is done the workers are starting.
    run_one(&mut fleet, &another, &small).await?;
    let mut alone = Vec::new();
    for _ in 0..runs {
        alone.push(run_one(&mut fleet, &another, &small).await?);
    }
    fleet.limit(PLACES, None).await?;
    tasks::create(&bench.ground, &fleet.database, 1, scaled(LARGE, bench.options.scale())).await?;
    fleet.until_full(PLACES.into()).await?;
    output::note(&format!("{NAME}: the large task has the lane"));
    tokio::time::sleep(time(bench, ALONE, 6.0)).await;
    let mut behind = Vec::new();
    for _ in 0..runs {
        // Not in step with the jobs of the large one.
        let pause: f64 = rand::rng().random_range(0.0..fleet::seconds(bench, DURATION.1));
        tokio::time::sleep(Duration::from_secs_f64(pause)).await;
        behind.push(run_one(&mut fleet, &another, &small).await?);
    }
    fleet.stop(bench).await?;
    let alone = median(&alone).ok_or_else(|| Failure::failed("nothing was taken"))?;
    let worst = behind.iter().copied().fold(0.0, f64::max);
    let large = number(cells(scaled(LARGE, bench.options.scale())) as f64);
    let what = format!("task of 10 cells behind one of {large} of another owner, against alone at half the lane");
    let each: Vec<String> = behind.iter().map(|took| number(*took)).collect();
    let note = format!("the longest of {runs} runs: {} s; alone {} s", each.join(", "), number(alone));
    Ok(Row::new(NAME, what, worst / alone, "x", Must::AtMost(1.4)).note(note))
}

/// Seconds from a task's commit to its end.
async fn run_one(fleet: &mut Fleet, owner: &Actor, definition: &TaskDefinition) -> Result<f64, Failure> {
    let task = tasks::create_for(&fleet.database, owner, definition).await?;
    let began = Instant::now();
    while !rows::is_rolled_up(&mut fleet.connection, task).await.map_err(Failure::failed)? {
        fleet.go_on(began)?;
        tokio::time::sleep(TICK).await;
    }
    Ok(began.elapsed().as_secs_f64())
}

/// Two tasks of one owner, of priorities 1 and 8.
async fn by_priority(bench: &Bench) -> Result<Row, Failure> {
    output::note(&format!("{NAME}: by priority"));
    let mut fleet = Fleet::prepare(bench, NAME, jobs(bench)).await?;
    fleet.limit(SHARED, None).await?;
    let mut both = Vec::new();
    for priority in [1, 8] {
        let definition = prior(&format!("priority {priority}"), DRAINED, priority)?;
        both.push(tasks::create_for(&fleet.database, &bench.ground.actor, &definition).await?);
    }
    fleet.start(bench)?;
    fleet.until_full(SHARED.into()).await?;
    let counted = time(bench, COUNTED, 3.0);
    let (began, mut looks, mut low, mut high) = (Instant::now(), 0.0, 0.0, 0.0);
    while began.elapsed() < counted {
        let places = lanes::places(&mut fleet.connection, &both).await.map_err(Failure::failed)?;
        low += places.first().map_or(0.0, |places| *places as f64);
        high += places.get(1).map_or(0.0, |places| *places as f64);
        looks += 1.0;
        fleet.go_on(began)?;
        tokio::time::sleep(TICK).await;
    }
    fleet.stop(bench).await?;
    let ratio = high / low / 8.0;
    let note = format!(
        "{} and {} of {SHARED} places on average in {} s",
        number(low / looks),
        number(high / looks),
        number(counted.as_secs_f64())
    );
    let what = "how near to 1:8 two tasks of one owner share, of priorities 1 and 8";
    Ok(Row::new(NAME, what, ratio.min(1.0 / ratio) * 100.0, "%", Must::AtLeast(90.0)).note(note))
}

/// An owner with many tasks, one with a task of the highest priority, one with a task of the lowest.
async fn nothing_starves(bench: &Bench) -> Result<Row, Failure> {
    output::note(&format!("{NAME}: what the least gets"));
    let mut fleet = Fleet::prepare(bench, NAME, jobs(bench)).await?;
    fleet.limit(PLACES, None).await?;
    let mut all: Vec<Uuid> = Vec::new();
    for (owner, count, priority) in [("many", MANY, 1), ("high", 1, 8), ("low", 1, 1)] {
        let actor = tasks::another_owner(&bench.ground, &fleet.database, owner).await?;
        for number in 0..count {
            let definition = prior(&format!("{owner} {number}"), DRAINED, priority)?;
            all.push(tasks::create_for(&fleet.database, &actor, &definition).await?);
        }
    }
    fleet.start(bench)?;
    fleet.until_full(PLACES.into()).await?;
    // Each of the many has a place every five seconds.
    let counted = time(bench, 2.0 * ALONE, 40.0);
    tokio::time::sleep(counted).await;
    let submitted = lanes::submitted(&mut fleet.connection, &all).await.map_err(Failure::failed)?;
    fleet.stop(bench).await?;
    let (many, others) = submitted.split_at(MANY.min(submitted.len()));
    let sum = submitted.iter().sum::<i64>() as f64;
    // A third for each owner; the many share theirs.
    let fair = |tasks: usize| sum / 3.0 / tasks as f64;
    let least = many.iter().map(|submitted| *submitted as f64 / fair(MANY));
    let least = least.chain(others.iter().map(|submitted| *submitted as f64 / fair(1))).fold(f64::INFINITY, f64::min);
    let each: Vec<String> = others.iter().map(|submitted| number(*submitted as f64)).collect();
    let note = format!(
        "{} s; submits: {} to {} of each of the {MANY}, {} of the single ones",
        number(counted.as_secs_f64()),
        many.iter().min().copied().unwrap_or_default(),
        many.iter().max().copied().unwrap_or_default(),
        each.join(" and ")
    );
    let what = format!("of what is fair, what the least of {} tasks of 3 owners got", MANY + 2);
    Ok(Row::new(NAME, what, least * 100.0, "%", Must::AtLeast(70.0)).note(note))
}
