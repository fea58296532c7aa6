//! What is checked when all is over, row by row by request id: SQL against the simulator's billing ledger.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    fate::{Fate, Fates},
    fleet::{Fleet, Noted},
    record,
};

/// A row of the ledger.
#[derive(Debug, sqlx::FromRow)]
struct Attempt {
    cell: String,
    ordinal: i32,
    round: i32,
    state: String,
    upstream_id: Option<String>,
    /// Its worker was found dead, or found itself so; with the process's number.
    was_found_dead: bool,
    pid: i32,
}

/// A cell.
#[derive(Debug, sqlx::FromRow)]
struct Cell {
    id: String,
    task: String,
    ordinal: i32,
    status: String,
    error_kind: Option<String>,
}

/// What the judge counted.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) cells: BTreeMap<String, usize>,
    pub(super) attempts: BTreeMap<String, usize>,
    /// Accepted submits, by the simulator.
    pub(super) billed: usize,
    /// Unknown attempts that their worker's end explains, those that a cut does, and those that the upstream does.
    pub(super) unknown_by_end: usize,
    pub(super) unknown_by_cut: usize,
    pub(super) unknown_by_upstream: usize,
    /// Workers that were found dead while nothing had been done to them.
    pub(super) found_dead_alive: usize,
}

impl Fleet {
    /// Everything that must hold at the end; fails with what does not.
    pub(super) async fn judge(&self, fates: &Fates) -> Counted {
        let pool = self.world.pool();
        self.assert_paid_by_row().await;
        self.world.assert_settled().await;
        assert_eq!(record::forbidden_steps(pool).await, [""; 0], "steps that no state diagram has");
        assert_eq!(record::rounds_not_ended_once(pool).await, [""; 0], "rounds that did not end once");
        let attempts: Vec<Attempt> = sqlx::query_as(
            "select a.subtask_id::text as cell, a.ordinal, a.round, a.state, a.upstream_id, i.pid,
                    coalesce(i.how in ('rescued', 'lost_lease'), false) as was_found_dead
             from imagemill.attempts a join imagemill.incarnations i on i.name = a.worker order by 1, 2",
        )
        .fetch_all(pool)
        .await
        .expect("read the ledger");
        let cells: Vec<Cell> = sqlx::query_as(
            "select id::text, task_id::text as task, cell as ordinal, status, error_kind from imagemill.subtasks order by id",
        )
        .fetch_all(pool)
        .await
        .expect("read the cells");
        let mut by_cell: BTreeMap<&str, Vec<&Attempt>> = BTreeMap::new();
        for attempt in &attempts {
            by_cell.entry(&attempt.cell).or_default().push(attempt);
        }
        let billed = self.world.billed();
        let mut wrong = Vec::new();
        for cell in &cells {
            let rows = by_cell.get(cell.id.as_str()).map_or(&[][..], Vec::as_slice);
            let billed = billed.get(&cell.id).copied().unwrap_or(0);
            wrong.extend(
                faults_of(cell, rows, billed, fates).map(|fault| format!("cell {}: {fault}; {cell:?} {rows:?}", cell.id)),
            );
        }
        let mut counted = Counted { billed: billed.values().sum(), ..Counted::default() };
        wrong.extend(self.unexplained(&attempts, &cells, fates, &mut counted).await);
        assert_eq!(wrong, [""; 0], "{} faults", wrong.len());
        for cell in &cells {
            let kind = cell.error_kind.as_ref().map_or(String::new(), |kind| format!("/{kind}"));
            *counted.cells.entry(format!("{}{kind}", cell.status)).or_default() += 1;
        }
        for attempt in &attempts {
            *counted.attempts.entry(attempt.state.clone()).or_default() += 1;
        }
        let struck = self.noted().struck.clone();
        let pids: Vec<i32> = sqlx::query_scalar("select pid from imagemill.incarnations where how in ('rescued', 'lost_lease')")
            .fetch_all(pool)
            .await
            .expect("read the incarnations");
        counted.found_dead_alive = pids.iter().filter(|pid| !struck.contains(&pid.unsigned_abs())).count();
        counted
    }

    /// Every POST that the simulator took has its row, whatever became of its worker.
    pub(super) async fn assert_paid_by_row(&self) {
        let rows: Vec<String> = sqlx::query_scalar("select subtask_id || '/' || ordinal from imagemill.attempts")
            .fetch_all(self.world.pool())
            .await
            .expect("read the ledger");
        let rows: BTreeSet<String> = rows.into_iter().collect();
        let paid = self.world.simulator.ledger().into_iter().map(|entry| entry.request_id.unwrap_or_default());
        let without: Vec<String> = paid.filter(|id| !rows.contains(id)).collect();
        assert_eq!(without, [""; 0], "POSTs that were taken, without a row of the ledger");
    }

    /// Attempts that ended as `unknown` and that nothing explains.
    async fn unexplained(&self, attempts: &[Attempt], cells: &[Cell], fates: &Fates, counted: &mut Counted) -> Vec<String> {
        let cells: BTreeMap<&str, &Cell> = cells.iter().map(|cell| (cell.id.as_str(), cell)).collect();
        let rows: BTreeMap<String, &Attempt> =
            attempts.iter().map(|row| (format!("{}/{}", row.cell, row.ordinal), row)).collect();
        let steps = record::unknown(self.world.pool()).await;
        let noted = self.noted();
        let Noted { excused, cut, leaving, struck, .. } = &*noted;
        let mut by_upstream: BTreeMap<&str, usize> = BTreeMap::new();
        let mut wrong = Vec::new();
        for (id, own) in &steps {
            let Some(row) = rows.get(id) else {
                wrong.push(format!("{id} is unknown and has no row"));
                continue;
            };
            // Its worker was too slow for its lease, with nothing done to it: the same as a stop, as far as the row goes.
            let was_too_slow = row.was_found_dead && !struck.contains(&row.pid.unsigned_abs());
            let cell = cells.get(row.cell.as_str());
            let uncertain = cell.and_then(|cell| fates.of(&cell.task, cell.ordinal)).map_or(0, |fate| fate.uncertain);
            if *own && by_upstream.get(row.cell.as_str()).copied().unwrap_or(0) < uncertain {
                *by_upstream.entry(&row.cell).or_default() += 1;
                counted.unknown_by_upstream += 1;
            } else if excused.contains(id) || (*own && leaving.contains(id)) || (!own && was_too_slow) {
                counted.unknown_by_end += 1;
            } else if !own && cut.contains(id) {
                counted.unknown_by_cut += 1;
            } else {
                let who = if *own { "its own claim" } else { "a later claim" };
                wrong.push(format!("{id} was called unknown by {who}, and nothing explains it; {row:?} {cell:?}"));
            }
        }
        wrong
    }
}

/// What is wrong with a cell, its rows and the number of its accepted submits.
fn faults_of(cell: &Cell, rows: &[&Attempt], billed: usize, fates: &Fates) -> impl Iterator<Item = String> {
    let mut faults = Vec::new();
    for pair in rows.windows(2) {
        let (row, next) = (pair[0], pair[1]);
        let may_follow = ["not_sent", "turned_away", "failed", "timed_out"].contains(&row.state.as_str());
        if !may_follow && next.round == row.round {
            faults.push(format!("attempt {} followed {}, which is {}", next.ordinal, row.ordinal, row.state));
        }
    }
    let count = |states: &[&str]| rows.iter().filter(|row| states.contains(&row.state.as_str())).count();
    // A policy allowed another attempt after each of these.
    let by_policy = count(&["failed", "timed_out"]);
    let fate = fates.of(&cell.task, cell.ordinal).and_then(|fate| fate.fails_as);
    let last = rows.last().map_or("none", |row| row.state.as_str());
    match (cell.status.as_str(), cell.error_kind.as_deref()) {
        ("completed", None) => {
            if (count(&["succeeded"]), last) != (1, "succeeded") {
                faults.push(format!("completed, and its last attempt is {last}"));
            }
            if billed != 1 + by_policy {
                faults.push(format!("completed with {billed} accepted submits, of which {by_policy} by policy"));
            }
        }
        ("failed", Some("unknown_submit")) => {
            if !["unknown", "abandoned"].contains(&last) {
                faults.push(format!("unknown, and its last attempt is {last}"));
            }
        }
        // A cell with an upstream id never fails for the crashes of its workers.
        ("failed", Some("crash_loop")) => {
            if rows.iter().any(|row| row.upstream_id.is_some()) {
                faults.push("a crash loop, and the upstream has it".to_owned());
            }
        }
        ("failed", Some(kind)) if Some(kind) == fate => {}
        // Taken up again by an id that came late: such a round pays for nothing, so what fails once fails.
        ("failed", Some(kind))
            if rows.last().is_some_and(|row| row.round > 1)
                && fates.of(&cell.task, cell.ordinal).and_then(Fate::fails_once_as) == Some(kind) => {}
        (status, kind) => faults.push(format!("ended as {status} {kind:?}, which its fate {fate:?} does not explain")),
    }
    // One, and one more for each that was followed by another because a policy allowed it.
    let followed = rows
        .split_last()
        .map_or(0, |(_, earlier)| earlier.iter().filter(|row| ["failed", "timed_out"].contains(&row.state.as_str())).count());
    if cell.status != "completed" && billed > 1 + followed {
        faults.push(format!("{billed} accepted submits, and a policy allowed {followed} more than one"));
    }
    faults.into_iter()
}
