//! The reference: what the tables should say, as plain data, and what each committed step of the engine makes of it. It knows no SQL
//! and no locks: it is moved on by one step whenever PostgreSQL has committed one.

use std::collections::BTreeSet;

use imagemill::{
    models::payload::CompleteTask,
    queue::{
        Job, Outcome, Settled, Verdict,
        ledger::{Acceptance, AttemptState, Evidence},
    },
};
use uuid::Uuid;

use super::rows::{AttemptRow, JobRow, Tables, TaskData, is_open, status_after};

impl Tables {
    fn holds(&self, job: &Job) -> bool {
        self.jobs
            .get(&job.id)
            .is_some_and(|row| row.status == "Running" && row.claim == job.claim && row.worker.as_deref() == Some(&*job.worker))
    }

    fn put_back(&mut self, id: &str) {
        if let Some(row) = self.jobs.get_mut(id) {
            (row.status, row.worker) = ("Pending".to_owned(), None);
        }
    }

    fn attempts(&mut self, cell: Uuid) -> &mut Vec<AttemptRow> {
        self.attempts.entry(cell).or_default()
    }

    /// Which jobs a claim took is PostgreSQL's choice; each was free, and is the claimer's under the next number.
    pub(super) fn claimed(&mut self, worker: &str, seen: &Self) -> BTreeSet<(String, i32)> {
        let mut taken = BTreeSet::new();
        for (id, after) in &seen.jobs {
            let Some(before) = self.jobs.get_mut(id) else { continue };
            if after.worker.as_deref() == Some(worker) && before.status == "Pending" {
                (before.status, before.worker) = ("Running".to_owned(), Some(worker.to_owned()));
                before.claim += 1;
                taken.insert((id.clone(), before.claim));
            }
        }
        taken
    }

    /// A ledger row is written by whoever holds the job of a pending cell whose end nobody asked for.
    pub(super) fn begun(&mut self, job: &Job) -> Option<i32> {
        let cell = job.cell()?;
        let holds = self.holds(job);
        let row = self.cells.get_mut(&cell).filter(|row| holds && row.status == "pending" && !row.is_cancel_requested)?;
        "processing".clone_into(&mut row.status);
        row.attempt_count += 1;
        if self.task.status == "pending" {
            "processing".clone_into(&mut self.task.status);
        }
        let attempts = self.attempts(cell);
        attempts.push(AttemptRow {
            state: "submitting".to_owned(),
            claim: job.claim,
            worker: job.worker.to_string(),
            upstream_id: None,
        });
        i32::try_from(attempts.len()).ok()
    }

    /// An id goes to its own attempt alone: as `accepted` under a claim that holds, else as evidence.
    pub(super) fn accepted(&mut self, job: &Job, acceptance: &Acceptance) -> Evidence {
        let holds = self.holds(job);
        let own = |row: &&mut AttemptRow| row.claim == job.claim && row.worker == *job.worker;
        let attempt = self.attempts(acceptance.cell).get_mut(acceptance.ordinal as usize - 1).filter(own);
        let id = Some(acceptance.upstream_id.clone());
        match (holds, attempt) {
            (true, Some(row)) if row.state == "submitting" || (row.state == "accepted" && row.upstream_id == id) => {
                (row.state, row.upstream_id) = ("accepted".to_owned(), id);
                Evidence::Accepted
            }
            (true, _) => Evidence::NoSuchAttempt,
            (false, Some(row)) if ["submitting", "unknown"].contains(&row.state.as_str()) => {
                (row.state, row.upstream_id) = ("abandoned".to_owned(), id);
                Evidence::LeaseLost
            }
            (false, Some(row)) if row.upstream_id == id => Evidence::LeaseLost,
            (false, _) => Evidence::Untaken,
        }
    }

    /// Outcomes of some claims, written together.
    pub(super) fn settled(&mut self, settles: &[(Job, Outcome)]) -> Vec<Settled> {
        let held: Vec<bool> = settles.iter().map(|(job, _)| self.holds(job)).collect();
        for ((job, outcome), _) in settles.iter().zip(&held).filter(|(_, held)| **held) {
            self.put_back(&job.id);
            if let Some(row) = self.jobs.get_mut(&job.id) {
                status_after(outcome.verdict).clone_into(&mut row.status);
            }
        }
        let mut settled = Vec::new();
        for ((job, outcome), held) in settles.iter().zip(&held) {
            settled.push(if *held {
                Settled::Written
            } else if self.lost(job, outcome) {
                Settled::WrittenBefore
            } else {
                self.stale_writes += 1;
                Settled::LeaseLost
            });
        }
        let fenced: Vec<&(Job, Outcome)> =
            settles.iter().zip(&held).filter(|(_, held)| **held).map(|(settle, _)| settle).collect();
        let mut back = Vec::new();
        for (job, outcome) in fenced {
            match job.cell() {
                Some(cell) => back.extend(self.ended(cell, outcome).map(|is_cancelled| (job, cell, is_cancelled))),
                None => self.rolled_up(),
            }
        }
        // What was to go back and was cancelled instead does not come back; nor do those of its group that were cancelled before.
        let is_asked_for = back.iter().any(|(_, _, is_cancelled)| *is_cancelled);
        for (job, cell, _) in back {
            if is_asked_for
                && self.cells[&cell].status == "cancelled"
                && let Some(row) = self.jobs.get_mut(&job.id)
            {
                "Killed".clone_into(&mut row.status);
            }
        }
        self.enqueue_completion();
        settled
    }

    /// Nothing is written of an outcome whose claim is lost, but that its own POST never left. Returns whether it stood already.
    fn lost(&mut self, job: &Job, outcome: &Outcome) -> bool {
        let end = outcome.attempt.as_ref();
        let before = match (job.cell(), end.and_then(|end| end.ordinal)) {
            (Some(cell), Some(ordinal)) => {
                let state = self.attempts(cell).get(ordinal as usize - 1).map(|row| row.state.clone());
                state.as_deref() == end.map(|end| end.state.as_str())
            }
            _ => self.jobs.get(&job.id).is_some_and(|row| row.claim == job.claim && row.status == status_after(outcome.verdict)),
        };
        if let (Some(cell), Some(AttemptState::NotSent)) = (job.cell(), end.map(|end| end.state)) {
            for row in self.attempts(cell) {
                if row.claim == job.claim && row.worker == *job.worker && row.state == "submitting" {
                    "not_sent".clone_into(&mut row.state);
                }
            }
        }
        before
    }

    /// The cell's side of an outcome whose claim holds. Returns, of one that was to go back, whether it was cancelled instead.
    fn ended(&mut self, cell: Uuid, outcome: &Outcome) -> Option<bool> {
        let end = outcome.attempt.as_ref();
        let last = self.attempts(cell).last().map(|row| row.state.clone());
        let end_state = end.map(|end| end.state.as_str().to_owned());
        let uncounted = |state: &String| ["not_sent", "turned_away"].contains(&state.as_str());
        let row = self.cells.get_mut(&cell)?;
        let back = end_state.clone().or(last.filter(uncounted));
        let back = back.filter(|_| matches!(outcome.verdict, Verdict::RetryAfter(_) | Verdict::TurnedAway(_)));
        let moved = match outcome.verdict {
            Verdict::Done if outcome.result.is_some() && row.status == "processing" => Some("completed"),
            // Its end was asked for: that is how it ends, whatever became of its attempt.
            Verdict::Failed if is_open(&row.status) && row.is_cancel_requested => Some("cancelled"),
            Verdict::Failed if is_open(&row.status) => Some("failed"),
            Verdict::Cancelled if is_open(&row.status) => Some("cancelled"),
            _ if row.status == "processing" && back.is_some() => {
                row.attempt_count -= i32::from(back.as_ref().is_some_and(uncounted));
                Some(if row.is_cancel_requested { "cancelled" } else { "pending" })
            }
            _ => None,
        };
        if let Some(status) = moved {
            status.clone_into(&mut row.status);
            if status == "failed" {
                row.error_kind = outcome.error_kind.map(str::to_owned);
            }
            match status {
                "completed" => self.task.completed += 1,
                "failed" => self.task.failed += 1,
                "cancelled" => self.task.cancelled += 1,
                _ => {}
            }
        }
        let is_last = !outcome.verdict.is_to_run_again();
        for (index, row) in self.attempts(cell).iter_mut().enumerate().filter(|(_, row)| row.is_open()) {
            let is_meant = end.is_some_and(|end| end.ordinal.is_none_or(|ordinal| ordinal as usize == index + 1));
            let leftover = if row.state == "submitting" { "unknown" } else { "abandoned" };
            if let Some(state) = end_state.clone().filter(|_| is_meant) {
                row.state = state;
            } else if end.is_none() && is_last {
                leftover.clone_into(&mut row.state);
            }
        }
        back.map(|_| moved == Some("cancelled"))
    }

    fn rolled_up(&mut self) {
        if self.open_cells() == 0 && is_open(&self.task.status) {
            let TaskData { completed, cancelled, .. } = self.task;
            let all = self.cells.len() as i32;
            let end = if completed > 0 {
                "completed"
            } else if cancelled == all {
                "cancelled"
            } else {
                "failed"
            };
            end.clone_into(&mut self.task.status);
        }
    }

    fn open_cells(&self) -> usize {
        self.cells.values().filter(|row| is_open(&row.status)).count()
    }

    /// When the last cell has ended. Its id is drawn there; here it is known by none until it is seen.
    fn enqueue_completion(&mut self) {
        let queue = CompleteTask::QUEUE;
        if self.open_cells() == 0 && !self.jobs.values().any(|row| row.queue == queue) {
            let row =
                JobRow { key: String::new(), queue: queue.to_owned(), status: "Pending".to_owned(), worker: None, claim: 0 };
            self.jobs.insert(String::new(), row);
        }
    }

    /// The completion job has the id and the key that were drawn there.
    pub(super) fn name_completion(&mut self, seen: &Self) {
        let drawn = seen.jobs.iter().find(|(id, row)| row.queue == CompleteTask::QUEUE && !self.jobs.contains_key(*id));
        if let Some((id, drawn)) = drawn
            && let Some(row) = self.jobs.remove("")
        {
            self.jobs.insert(id.clone(), JobRow { key: drawn.key.clone(), ..row });
        }
    }

    /// All that a dead worker held is free.
    pub(super) fn rescued(&mut self, dead: &str) {
        self.orphaned(dead, |_, _| false);
    }

    /// What PostgreSQL says is a worker's and it does not know is free.
    pub(super) fn orphaned(&mut self, worker: &str, knows: impl Fn(&str, i32) -> bool) {
        let running = self.jobs.iter().filter(|(id, row)| row.worker.as_deref() == Some(worker) && !knows(id, row.claim));
        let ids: Vec<String> = running.map(|(id, _)| id.clone()).collect();
        for id in &ids {
            self.put_back(id);
        }
    }

    /// Somebody ends a cell: what no worker holds at once, by force what one holds as well; the rest is asked for.
    pub(super) fn steered(&mut self, cell: Uuid, is_forced: bool) {
        let Some((id, job)) = self.jobs.iter().find(|(_, job)| job.key == cell.to_string()) else { return };
        let (id, is_held, waits) = (id.clone(), job.status == "Running", job.status == "Pending");
        let Some(row) = self.cells.get_mut(&cell).filter(|row| is_open(&row.status)) else { return };
        row.is_cancel_requested |= !is_forced;
        if row.status == "processing" && is_held && !is_forced {
            return;
        }
        if is_forced {
            (row.status, row.error_kind) = ("failed".to_owned(), Some("operator".to_owned()));
            self.task.failed += 1;
        } else {
            "cancelled".clone_into(&mut row.status);
            self.task.cancelled += 1;
        }
        if !is_held {
            self.close_leftovers(cell);
        }
        if waits && let Some(job) = self.jobs.get_mut(&id) {
            "Killed".clone_into(&mut job.status);
        }
        self.enqueue_completion();
    }

    fn close_leftovers(&mut self, cell: Uuid) {
        for row in self.attempts(cell).iter_mut().filter(|row| row.is_open()) {
            let leftover = if row.state == "submitting" { "unknown" } else { "abandoned" };
            leftover.clone_into(&mut row.state);
        }
    }

    /// A job that had ended when this looked is put back to work; one that ended since stays as it is.
    pub(super) fn reopened(&mut self, key: &str, seen: &Self) {
        for (id, row) in self.jobs.iter_mut().filter(|(_, row)| row.key == key) {
            if !["Pending", "Running"].contains(&row.status.as_str()) && seen.jobs[id].status == "Pending" {
                (row.status, row.worker) = ("Pending".to_owned(), None);
            }
        }
    }
}
