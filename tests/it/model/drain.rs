//! The end of a sequence: everything comes to rest, by a worker that held nothing before.

use imagemill::models::payload::{CompleteTask, GenerateImage};

use super::{
    reference::Tables,
    rig::{DRAINER, WORKERS},
    session::{Phase, Step},
    system::World,
};

impl Tables {
    /// What must hold whenever something is committed.
    pub(super) fn check(&self) {
        for (cell, attempts) in &self.attempts {
            let open = attempts.iter().filter(|row| row.is_open()).count();
            assert_eq!(open.min(2), open, "cell {cell}: open attempts");
            assert_eq!(
                (open, self.cells[cell].status.as_str() == "pending") == (1, true),
                false,
                "cell {cell}: pending, and open"
            );
            let counted = attempts.iter().filter(|row| !["not_sent", "turned_away"].contains(&row.state.as_str())).count();
            // One that was not sent by a worker that lost its claim is taken out when its cell goes back.
            assert_eq!(self.cells[cell].attempt_count >= counted as i32, true, "cell {cell}: attempts that are not counted");
        }
        let of = |status: &str| self.cells.values().filter(|row| row.status == status).count() as i32;
        let counts = (self.task.completed, self.task.failed, self.task.cancelled);
        assert_eq!(counts, (of("completed"), of("failed"), of("cancelled")), "the counts are not the rows");
        for (id, row) in &self.jobs {
            assert_eq!(row.worker.is_some(), row.status == "Running", "job {id}: {row:?}");
        }
    }

    fn check_at_rest(&self) {
        let is_open = |status: &str| ["pending", "processing", "Pending", "Running"].contains(&status);
        for row in self.jobs.values() {
            assert_eq!((is_open(&row.status), &row.worker), (false, &None), "at rest: {row:?}");
        }
        for (cell, row) in &self.cells {
            assert_eq!(is_open(&row.status), false, "at rest: cell {cell}: {row:?}");
            let open = self.attempts.get(cell).map_or(0, |rows| rows.iter().filter(|row| row.is_open()).count());
            assert_eq!(open, 0, "at rest: cell {cell}: an open attempt");
        }
        assert_eq!(is_open(&self.task.status), false, "at rest: {:?}", self.task);
        let completions = self.jobs.values().filter(|row| row.queue == CompleteTask::QUEUE).count();
        assert_eq!(completions, 1, "the round is completed once");
    }
}

impl World {
    /// Brings everything to rest, and looks at it.
    pub(super) async fn drain(&mut self) {
        self.end_all().await;
        // Nobody is told: what was held is taken away from live workers.
        self.start(DRAINER, Step::Beat).await;
        for (dead, last_seen, beats) in self.rig.sessions[DRAINER].seen.clone() {
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
        for _ in 0..100 {
            let mut is_done = true;
            for index in 0..self.rig.sessions.len() {
                is_done &= self.finish(index).await;
            }
            if is_done {
                return;
            }
        }
        panic!("steps that wait for one another");
    }

    async fn run_to_rest(&mut self) {
        for _ in 0..200 {
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
            assert_eq!(self.finish(index).await, true, "nothing is left to wait for");
        }
        self.repeat(index).await;
        assert_eq!(self.finish(index).await, true, "nothing is left to wait for");
    }

    /// The last settle of a worker once more, as it is.
    pub(super) async fn repeat(&mut self, index: usize) {
        let settles = self.rig.sessions[index].settled.clone();
        if !settles.is_empty() {
            self.start(index, Step::Settle { settles, is_repeat: true }).await;
        }
    }
}
