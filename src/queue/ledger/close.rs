//! The ends of attempts.

use std::collections::HashMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{AttemptState, by_cell};
use crate::queue::outcome::AttemptEnd;

/// How a cell's open attempt ends.
#[derive(Debug, Clone, Copy)]
pub(in crate::queue) enum Close<'a> {
    /// As its handler says, with the kind of the cell's error.
    As(&'a AttemptEnd, Option<&'static str>),
    /// A fault of ours left it open: `submitting` ends as `unknown`, `accepted` as `abandoned`.
    Leftover(Option<&'a str>),
}

/// Closes the open attempts of cells; under the fences of their jobs these can only be the jobs' own. Returns the cells of
/// which one was open, each with the state that it ended in.
pub(in crate::queue) async fn close(
    connection: &mut PgConnection,
    closes: Vec<(Uuid, Close<'_>)>,
) -> Result<HashMap<Uuid, AttemptState>, sqlx::Error> {
    if closes.is_empty() {
        return Ok(HashMap::new());
    }
    let closes = by_cell(closes);
    macro_rules! column {
        ($end:ident, $kind:ident => $value:expr, $error:ident => $leftover:expr) => {
            closes
                .iter()
                .map(|(_, close)| match close {
                    Close::As($end, $kind) => $value,
                    Close::Leftover($error) => $leftover,
                })
                .collect::<Vec<_>>()
        };
    }
    let ended: Vec<(Uuid, AttemptState)> = sqlx::query_as(
        // No join: the plan that is made once would walk over all that are open, and over the dead entries of those that were.
        "update imagemill.attempts as attempt
         set (state, http_status, error, polls, error_kind, finished_at) = (
             select coalesce(($2::text[])[place], case attempt.state when 'submitting' then 'unknown' else 'abandoned' end),
                    coalesce(($3::integer[])[place], attempt.http_status), ($4::text[])[place],
                    attempt.polls + ($5::integer[])[place], ($7::text[])[place], now()
             from array_position($1, attempt.subtask_id) as place)
         where attempt.subtask_id = any ($1::uuid[]) and attempt.finished_at is null
           and coalesce(($6::integer[])[array_position($1, attempt.subtask_id)], attempt.ordinal) = attempt.ordinal
         returning attempt.subtask_id, attempt.state",
    )
    .bind(closes.iter().map(|(cell, _)| *cell).collect::<Vec<_>>())
    .bind(column!(end, _kind => Some(end.state.as_str()), _error => None))
    .bind(column!(end, _kind => end.http_status.map(i32::from), _error => None))
    .bind(column!(end, _kind => end.error.clone(), error => error.map(str::to_owned)))
    .bind(column!(end, _kind => end.polls, _error => 0))
    .bind(column!(end, _kind => end.ordinal, _error => None))
    .bind(column!(_end, kind => *kind, _error => None))
    .fetch_all(connection)
    .await?;
    Ok(ended.into_iter().collect())
}

/// Closes what ended cells have left open, where nobody holds their jobs: a worker that died had no time to. To be called under the
/// locks of the jobs and the cells.
///
/// # Errors
/// What PostgreSQL says.
pub async fn close_leftovers(connection: &mut PgConnection, cells: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "with ended as (
             update imagemill.attempts
             set state = case state when 'submitting' then 'unknown' else 'abandoned' end, finished_at = now()
             where subtask_id = any ($1) and finished_at is null
             returning subtask_id
         )
         select imagemill.move_submits(array_agg(subtask_id), 1) from ended having count(*) > 0",
    )
    .bind(cells)
    .execute(connection)
    .await?;
    Ok(())
}

/// State of one attempt, to tell a settle that was written from one that was not.
pub(in crate::queue) async fn state_of(
    connection: &mut PgConnection,
    cell: Uuid,
    ordinal: i32,
) -> Result<Option<AttemptState>, sqlx::Error> {
    sqlx::query_scalar("select state from imagemill.attempts where subtask_id = $1 and ordinal = $2")
        .bind(cell)
        .bind(ordinal)
        .fetch_optional(connection)
        .await
}
