//! What must hold after each commit, and at the end.

use imagemill::models::payload::CompleteTask;

use super::{rows::Tables, system::World};

impl Tables {
    /// What must hold whenever something is committed.
    pub(super) fn check(&self) {
        for (cell, attempts) in &self.attempts {
            let open = attempts.iter().filter(|row| row.is_open()).count();
            assert!(open <= 1, "cell {cell}: {open} open attempts");
            let is_pending = self.cells[cell].status == "pending";
            assert!(open == 0 || !is_pending, "cell {cell}: pending, with an open attempt");
            let counted = attempts.iter().filter(|row| !["not_sent", "turned_away"].contains(&row.state.as_str())).count();
            // One that was not sent by a worker that lost its claim is taken out when its cell goes back.
            assert!(self.cells[cell].attempt_count >= counted as i32, "cell {cell}: attempts that are not counted");
        }
        let of = |status: &str| self.cells.values().filter(|row| row.status == status).count() as i32;
        let counts = (self.task.completed, self.task.failed, self.task.cancelled);
        assert_eq!(counts, (of("completed"), of("failed"), of("cancelled")), "the counts are not the rows");
        for (id, row) in &self.jobs {
            assert_eq!(row.worker.is_some(), row.status == "Running", "job {id}: {row:?}");
        }
    }

    /// What must hold when nothing is under way any more.
    pub(super) fn check_at_rest(&self) {
        let is_open = |status: &str| ["pending", "processing", "Pending", "Running"].contains(&status);
        for row in self.jobs.values() {
            assert_eq!((is_open(&row.status), &row.worker), (false, &None), "at rest: {row:?}");
        }
        for (cell, row) in &self.cells {
            assert!(!is_open(&row.status), "at rest: cell {cell}: {row:?}");
            let open = self.attempts.get(cell).map_or(0, |rows| rows.iter().filter(|row| row.is_open()).count());
            assert_eq!(open, 0, "at rest: cell {cell}: an open attempt");
        }
        assert!(!is_open(&self.task.status), "at rest: {:?}", self.task);
        let completions = self.jobs.values().filter(|row| row.queue == CompleteTask::QUEUE).count();
        assert_eq!(completions, 1, "the round is completed once");
    }
}

impl World {
    /// The tables say what the reference says, and neither says what must not be.
    pub(super) async fn compare(&mut self) {
        if !std::mem::take(&mut self.has_committed) {
            return;
        }
        let seen = self.rig.read().await;
        assert_eq!(seen, self.tables, "the tables (left) are not what the reference says (right)");
        seen.check();
        for (cell, ordinal) in &self.upstream.billed {
            let state = seen.attempts[cell][*ordinal as usize - 1].state.as_str();
            let is_denied = ["not_sent", "turned_away", "rejected"].contains(&state);
            assert!(!is_denied, "cell {cell}: attempt {ordinal} is {state}, and was paid for");
        }
    }
}
