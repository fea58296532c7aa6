//! What the upstream does to a cell, decided by the script and told to the simulator as a rule of that cell's prompt.

use std::collections::BTreeMap;

use imagemill::{
    models::{Prompt, TaskInput},
    services::task_service::{self, CreatedTask},
    simulator::{Behaviour, Rule},
};
use rand::{RngExt as _, rngs::StdRng};

use crate::support::World;

/// A cell's fate: what happens to its first POSTs; all later ones get a picture.
#[derive(Debug, Clone)]
pub(super) struct Fate {
    behaviour: Behaviour,
    posts: u64,
    /// POSTs of which a worker cannot know whether they were taken.
    pub(super) uncertain: usize,
    /// Kind of the error with which its cell fails, however well all else goes.
    pub(super) fails_as: Option<&'static str>,
}

impl Fate {
    fn new(behaviour: Behaviour) -> Self {
        Self { behaviour, posts: 1, uncertain: 0, fails_as: None }
    }

    fn uncertain(behaviour: Behaviour) -> Self {
        Self { uncertain: 1, fails_as: Some("unknown_submit"), ..Self::new(behaviour) }
    }

    fn failing(behaviour: Behaviour, posts: u64, kind: &'static str) -> Self {
        Self { posts, fails_as: Some(kind), ..Self::new(behaviour) }
    }

    /// Kind of the error with which its first POST ends, if another one is not allowed.
    pub(super) fn fails_once_as(&self) -> Option<&'static str> {
        match self.behaviour {
            Behaviour::Failure { .. } => Some("upstream_failure"),
            Behaviour::Timeout => Some("upstream_timeout"),
            _ => None,
        }
    }

    /// A fate by chance; most cells have none.
    fn draw(random: &mut StdRng) -> Option<Self> {
        let accepted_502 = Behaviour::Status { status: 502, retry_after: None, accepted: true };
        Some(match random.random_range(0..100) {
            0..3 => Self::uncertain(Behaviour::ResetBefore),
            3..6 => Self::uncertain(Behaviour::ResetAfter),
            6..8 => Self::uncertain(Behaviour::HangBefore),
            8..10 => Self::uncertain(Behaviour::HangAfter),
            10..12 => Self::uncertain(Behaviour::status(500)),
            12..14 => Self::uncertain(accepted_502),
            14..18 => Self::new(Behaviour::status(429)),
            18..20 => Self::new(Behaviour::status(503)),
            20..24 => Self::new(failure()),
            24..26 => Self::new(Behaviour::Timeout),
            26..27 => Self::failing(failure(), 3, "upstream_failure"),
            27..28 => Self::failing(Behaviour::status(400), 1, "rejected"),
            28..29 => Self::failing(Behaviour::status(451), 1, "refused"),
            29..31 => Self::new(Behaviour::PollReset { polls: 2 }),
            31..33 => Self::new(Behaviour::PollError { polls: 2, status: 502, retry_after: None }),
            33..35 => Self::new(Behaviour::ModerationFirst { polls: 3 }),
            _ => return None,
        })
    }
}

fn failure() -> Behaviour {
    Behaviour::Failure { message: "no GPU".to_owned() }
}

/// The fates of cells, by task and ordinal.
#[derive(Debug, Default)]
pub(super) struct Fates {
    by_cell: BTreeMap<(String, i32), Fate>,
    tasks: usize,
}

impl Fates {
    /// The fate of a cell.
    pub(super) fn of(&self, task: &str, cell: i32) -> Option<&Fate> {
        self.by_cell.get(&(task.to_owned(), cell))
    }

    /// Creates a task of at most 100 cells whose fates are drawn.
    pub(super) async fn create(&mut self, world: &World, random: &mut StdRng, cells: usize) {
        self.tasks += 1;
        let task = self.tasks;
        // Told to the simulator before any worker can see the task. The dot ends the number.
        let prompt = |cell: usize| format!("cell {task}/{cell}.");
        let drawn: Vec<(usize, Fate)> = (0..cells).filter_map(|cell| Some((cell, Fate::draw(random)?))).collect();
        let rules = drawn.iter().map(|(cell, fate)| Rule {
            prompt: Some(prompt(*cell)),
            times: Some(fate.posts),
            ..Rule::new(fate.behaviour.clone())
        });
        let rules: Vec<Rule> = rules.collect();
        world.simulator.control(|options| options.rules.extend(rules)).expect("tell the simulator");
        let task = create(world, TaskInput::new(format!("chaos {task}")), (0..cells).map(prompt)).await;
        for (cell, fate) in drawn {
            let cell = i32::try_from(cell).expect("a small number");
            self.by_cell.insert((task.id.to_string(), cell), fate);
        }
    }
}

/// Creates a task of a lane whose cells fail once each, and get a picture from their second attempt.
pub(super) async fn create_failing_once(world: &World, lane: &str, number: usize, cells: usize) {
    let prompt = |cell: usize| format!("{lane} {number}/{cell}.");
    let rule = |cell| Rule { prompt: Some(prompt(cell)), times: Some(1), ..Rule::new(failure()) };
    world.simulator.control(|options| options.rules.extend((0..cells).map(rule))).expect("tell the simulator");
    create(world, TaskInput::new(format!("{lane} {number}")).lane(lane), (0..cells).map(prompt)).await;
}

async fn create(world: &World, input: TaskInput, prompts: impl Iterator<Item = String>) -> CreatedTask {
    let input = input.seed(7).variable_prompt("cell", prompts.map(Prompt::freetext).collect::<Vec<_>>());
    let definition = input.validate(&(&world.context.settings.limits).into()).expect("a sound definition");
    task_service::create_task(&world.context, &world.actor, &definition).await.expect("create the task")
}
