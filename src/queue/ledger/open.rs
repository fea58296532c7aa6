//! The row of a POST that has not left: committed before it does.

use std::{collections::HashMap, time::Duration};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Acceptance, by_cell};
use crate::queue::{
    connections::Connections,
    error::QueueError,
    fault,
    job::{self, Job},
    pauses::{Hold, Holds},
    settle::Settle,
};

/// What is about to be submitted.
#[derive(Debug, Clone)]
pub struct Submit {
    /// The cell.
    pub cell: Uuid,
    /// The group's round.
    pub round: i32,
    /// The lane.
    pub lane: String,
    /// Hash of the body.
    pub request_sha256: String,
    /// An answer may come within so long: the submit's time-out and the lease.
    pub answer_within: Duration,
    /// 8 hex digits of the SHA-256 of the token that it goes with.
    pub token_hash: String,
    /// Whether it is to try whether a paused lane works again.
    pub is_probe: bool,
}

/// What became of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// It stands.
    Written {
        /// Its number.
        ordinal: i32,
        /// Whether a success of its POST has something to tell of the lane: a pause to end, a rate to raise.
        is_troubled: bool,
    },
    /// The lane is paused, for this reason; nothing is written.
    Held(String),
    /// The cell does not want a submit any more, or the claim is lost; nothing is written.
    Unwanted,
}

/// Commits the rows of POSTs that have not left: fences, the cells' side, the rows, in one transaction. Returns, in the
/// order of the submits, what became of each row.
///
/// # Errors
/// See [`QueueError`]. Whether the rows stand is then not known: the settle of each job closes its own as `not_sent`.
pub async fn begin(connections: &Connections, hook: &dyn Settle, submits: &[(Job, Submit)]) -> Result<Vec<Begun>, QueueError> {
    let (holds, mut ordinals) = connections.transaction(async |connection| write(connection, hook, submits).await).await?;
    fault::point(fault::LEDGER_COMMITTED);
    let begun = |(job, submit): &(Job, Submit)| {
        let Hold { why, is_troubled } = holds.of(submit);
        match (why, ordinals.remove(&(submit.cell, job.claim))) {
            (Some(why), _) => Begun::Held(why),
            (None, Some(ordinal)) => Begun::Written { ordinal, is_troubled },
            (None, None) => Begun::Unwanted,
        }
    };
    Ok(submits.iter().map(begun).collect())
}

/// By cell and number of the claim: an earlier claim of the same cell may ask as well, and gets none.
type Ordinals = HashMap<(Uuid, i32), i32>;

async fn write(
    connection: &mut PgConnection,
    hook: &dyn Settle,
    submits: &[(Job, Submit)],
) -> Result<(Holds, Ordinals), QueueError> {
    // Here and nowhere else a pause holds back what was claimed before it: whoever wrote it, and whether or not anybody heard.
    let holds = Holds::ask(connection, &submits.iter().map(|(_, submit)| submit).collect::<Vec<_>>()).await?;
    // A resumed claim passed by the lane's limits: nothing is submitted for it.
    let may_leave = |(job, submit): &&(Job, Submit)| !job.is_resumed && holds.of(submit).why.is_none();
    let free: Vec<&(Job, Submit)> = submits.iter().filter(may_leave).collect();
    if free.is_empty() {
        return Ok((holds, HashMap::new()));
    }
    let held = job::fence(connection, free.iter().map(|(job, _)| job)).await?;
    let submits: Vec<&(Job, Submit)> = free.into_iter().filter(|(job, _)| held.has(job)).collect();
    let open = hook.open_cells(connection, &submits).await?;
    let opened: Vec<(Uuid, (&Job, &Submit))> = submits
        .iter()
        .filter(|(_, submit)| open.cells.contains(&submit.cell))
        .map(|(job, submit)| (submit.cell, (job, submit)))
        .collect();
    let ordinals = insert(connection, by_cell(opened)).await?;
    if !open.new_groups.is_empty() {
        hook.open_groups(connection, &open.new_groups.into_iter().collect::<Vec<_>>()).await?;
    }
    Ok((holds, ordinals))
}

async fn insert(connection: &mut PgConnection, submits: Vec<(Uuid, (&Job, &Submit))>) -> Result<Ordinals, QueueError> {
    if submits.is_empty() {
        return Ok(HashMap::new());
    }
    macro_rules! column {
        ($job:ident, $submit:ident => $value:expr) => {
            submits.iter().map(|(_, ($job, $submit))| $value).collect::<Vec<_>>()
        };
    }
    let rows: Vec<(Uuid, i32, i32)> = sqlx::query_as(
        "insert into imagemill.attempts (subtask_id, ordinal, round, claim, lane, worker, state, answer_until)
         select given.cell, coalesce(before.ordinal, 0) + 1, given.round, given.claim, given.lane, given.worker, 'submitting',
                now() + make_interval(secs => given.answer_within)
         from unnest($1::uuid[], $2::integer[], $3::integer[], $4::text[], $5::text[], $6::double precision[])
              as given (cell, round, claim, lane, worker, answer_within)
         left join lateral (select ordinal from imagemill.attempts
                            where subtask_id = given.cell order by ordinal desc limit 1) as before on true
         returning subtask_id, claim, ordinal",
    )
    .bind(submits.iter().map(|(cell, _)| *cell).collect::<Vec<_>>())
    .bind(column!(_job, submit => submit.round))
    .bind(column!(job, _submit => job.claim))
    .bind(column!(_job, submit => submit.lane.clone()))
    .bind(column!(job, _submit => job.worker.to_string()))
    .bind(column!(_job, submit => submit.answer_within.as_secs_f64()))
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(cell, claim, ordinal)| ((cell, claim), ordinal)).collect())
}

/// The row once more, with what is known of it, in a database that has forgotten it.
pub(in crate::queue) async fn insert_again(
    connection: &mut PgConnection,
    job: &Job,
    submit: &Submit,
    ordinal: i32,
    acceptance: Option<&Acceptance>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into imagemill.attempts (subtask_id, ordinal, round, claim, lane, worker, state, upstream_id, http_status,
                                         accepted_at, answer_until)
         values ($1, $2, $3, $4, $5, $6, case when $7::text is null then 'submitting' else 'accepted' end, $7, $8,
                 case when $7::text is not null then now() end, now() + make_interval(secs => $9))",
    )
    .bind(submit.cell)
    .bind(ordinal)
    .bind(submit.round)
    .bind(job.claim)
    .bind(&submit.lane)
    .bind(&*job.worker)
    .bind(acceptance.map(|acceptance| acceptance.upstream_id.clone()))
    .bind(acceptance.map(|acceptance| i32::from(acceptance.http_status)))
    .bind(submit.answer_within.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(())
}
