//! The end of a sequence: everything comes to rest, by a worker that held nothing before.

use std::time::{Duration, Instant};

use imagemill::models::payload::{CompleteTask, GenerateImage};

use super::{
    rig::{DRAINER, WORKERS},
    session::{Phase, Step},
    system::World,
};

impl World {
    /// Brings everything to rest, and looks at it.
    pub(super) async fn drain(&mut self) {
        self.end_all().await;
        // Nobody is told: what was held is taken away from live workers.
        self.start(DRAINER, Step::Beat).await;
        self.end_all().await;
        for (dead, last_seen, beats) in self.rig.sessions[DRAINER].seen.clone() {
            self.end_all().await;
            self.start(DRAINER, Step::Rescue { dead, last_seen, beats }).await;
        }
        self.run_to_rest().await;
        self.tables.check_at_rest();
        // What the others still have to say comes late, and is evidence at most.
        let before = (self.tables.cells.clone(), self.tables.jobs.clone(), self.tables.task.clone());
        for index in 0..WORKERS {
            self.say_the_rest(index).await;
        }
        assert_eq!(before, (self.tables.cells.clone(), self.tables.jobs.clone(), self.tables.task.clone()), "a late write");
        self.tables.check_at_rest();
    }

    /// Every step that is under way comes to its end.
    async fn end_all(&mut self) {
        let began = Instant::now();
        loop {
            let mut waiting = Vec::new();
            for index in 0..self.rig.sessions.len() {
                if !self.finish(index).await {
                    waiting.extend(self.rig.sessions[index].gate.running());
                }
            }
            if waiting.is_empty() && self.rig.sessions.iter().all(|session| session.flight.is_none()) {
                return;
            }
            // What no session of ours holds is let go soon.
            let holders = self.rig.holders(&waiting).await;
            assert!(began.elapsed() < Duration::from_mins(1), "steps wait for a minute for {holders:?}");
        }
    }

    async fn run_to_rest(&mut self) {
        for _ in 0..200 {
            self.end_all().await;
            if !self.rig.sessions[DRAINER].claims.is_empty() {
                // The upstream takes everything and makes a picture.
                self.work(DRAINER, 0).await;
                continue;
            }
            self.repeat(DRAINER).await;
            let open = self.tables.jobs.values().find(|row| row.status == "Pending");
            let Some(open) = open else { return };
            let queue = if open.queue == CompleteTask::QUEUE { CompleteTask::QUEUE } else { GenerateImage::QUEUE };
            let key = Some(open.key.clone());
            self.start(DRAINER, Step::Claim { queue, key }).await;
        }
        panic!("it does not come to rest: {:?}", self.tables);
    }

    async fn say_the_rest(&mut self, index: usize) {
        let mut left: Vec<Step> = Vec::new();
        for claimed in &self.rig.sessions[index].claims {
            let job = claimed.job.clone();
            match &claimed.phase {
                Phase::Accepting(acceptance) => left.push(Step::Accept { job, acceptance: acceptance.clone() }),
                Phase::Ended(outcome) => left.push(Step::Settle { settles: vec![(job, outcome.clone())], is_repeat: false }),
                _ => left.push(Step::Begin { job }),
            }
        }
        for step in left {
            // A completion begins nothing.
            if matches!(&step, Step::Begin { job } if job.cell().is_none()) {
                continue;
            }
            self.start(index, step).await;
            self.end_all().await;
        }
        self.repeat(index).await;
        self.end_all().await;
    }

    /// The last settle of a worker once more, as it is.
    pub(super) async fn repeat(&mut self, index: usize) {
        let settles = self.rig.sessions[index].settled.clone();
        if !settles.is_empty() {
            self.start(index, Step::Settle { settles, is_repeat: true }).await;
        }
    }
}
