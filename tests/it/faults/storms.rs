//! The parts of [`super::chaos`] that come over all workers alike: lost answers, a PostgreSQL that is away, sessions that end, and
//! the cells that keep them at work.

use std::{sync::Arc, time::Duration};

use rand::{RngExt as _, rngs::StdRng};
use tokio::task::JoinSet;

use super::{
    chaos::{Chaos, PATIENCE},
    fate::{self, Fates},
    script,
};
use crate::support::{Commit, Stop};

impl Chaos {
    /// Loses the answers to commits, one after another.
    pub(super) async fn lose_answers(self: Arc<Self>, mut random: StdRng) {
        for kind in self.plan.commits(&mut random) {
            loop {
                let reached = self.fleet.orders.lose_answer(kind, random.random_range(1..=3));
                if let Ok(reached) = tokio::time::timeout(PATIENCE, reached).await {
                    if kind == Commit::Ledger {
                        self.fleet.excuse_cut(reached.proxy).await;
                    }
                    break;
                }
                self.in_vain(&script::lost(kind));
            }
            self.did(script::lost(kind));
            // The moment of the next is the subject.
            tokio::time::sleep(Duration::from_millis(random.random_range(0..150))).await;
        }
    }

    /// Loses the answers to settles that put a cell back, and lets them be repeated only when the same worker has that cell under way
    /// anew: the number of the claim alone tells the two apart.
    pub(super) async fn overtake(self: Arc<Self>, mut random: StdRng) {
        // It has a lane to itself, and so slots for what it puts back.
        let worker = loop {
            if let Some(worker) = self.start(None, &["--lanes", "dev"]).await {
                break worker;
            }
        };
        let mut overtaken = 0;
        for number in 0.. {
            if overtaken == self.plan.overtaken {
                break;
            }
            // The moment is the subject.
            tokio::time::sleep(Duration::from_millis(random.random_range(0..1000))).await;
            let _calm = self.calm.read().await;
            let reached = self.fleet.orders.lose_next_answer(Commit::Settle, &worker.proxy);
            fate::create_failing_once(&self.fleet.world, "dev", number, 2).await;
            match tokio::time::timeout(PATIENCE, reached).await {
                Ok(reached) if self.fleet.begins_anew(&reached).await => {
                    overtaken += 1;
                    self.did(script::OVERTAKEN.to_owned());
                }
                _ => self.in_vain(script::OVERTAKEN),
            }
        }
        // Nobody else has this lane.
        self.fleet
            .until("select count(*) = 0 from imagemill.subtasks where lane = 'dev' and status in ('pending', 'processing')")
            .await;
        worker.leave().await;
    }

    /// Stops PostgreSQL, now fast and now at once, spread over the deeds.
    pub(super) async fn restart(self: Arc<Self>, mut random: StdRng) {
        for number in 0..self.plan.restarts {
            while self.share() < (number + 1) as f64 / (self.plan.restarts + 1) as f64 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let storm = self.calm.write().await;
            let mut server = self.server.lock().await;
            let (how, what) = match number % 2 {
                0 => (Stop::Fast, "PostgreSQL stopped fast"),
                _ => (Stop::Immediate, "PostgreSQL stopped at once"),
            };
            server.stop(how).await;
            // For how long it is away is the subject.
            tokio::time::sleep(Duration::from_millis(random.random_range(0..1500))).await;
            server.start_again_alone().await;
            let cut =
                server.texts("select subtask_id || '/' || ordinal from imagemill.attempts where state = 'submitting'").await;
            self.fleet.noted().cut.extend(cut);
            server.let_in();
            drop(storm);
            self.did(what.to_owned());
        }
    }

    /// Terminates sessions of workers, one now and then.
    pub(super) async fn terminate(self: Arc<Self>, mut random: StdRng) {
        let mut terminated = 0;
        while terminated < self.plan.terminations {
            // The moment is the subject.
            tokio::time::sleep(Duration::from_millis(random.random_range(200..1500))).await;
            let _calm = self.calm.read().await;
            let gone: Vec<bool> = sqlx::query_scalar(
                "select pg_terminate_backend(pid) from (
                     select pid from pg_stat_activity where datname = current_database() and application_name = 'imagemill'
                     order by random() limit 1) as chosen",
            )
            .fetch_all(self.fleet.world.pool())
            .await
            .expect("terminate a session");
            if gone.contains(&true) {
                terminated += 1;
                self.did("session terminated".to_owned());
            } else {
                self.in_vain("the end of a session");
            }
        }
    }

    /// Keeps the workers in cells until all deeds are done. The bound of the plan is around it, and so around all of them.
    pub(super) async fn feed(&self, mut random: StdRng, others: &mut JoinSet<()>) -> Fates {
        let mut fates = Fates::default();
        let mut cells = 0;
        while cells < self.plan.cells || !others.is_empty() {
            while let Some(ended) = others.try_join_next() {
                ended.expect("a part of the script failed");
            }
            let calm = self.calm.read().await;
            let open = "select count(*) from imagemill.subtasks where status in ('pending', 'processing')";
            if self.fleet.world.number(open).await < 100 {
                let size = random.random_range(10..40);
                fates.create(&self.fleet.world, &mut random, size).await;
                cells += size;
            }
            drop(calm);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        fates
    }
}
