//! What the ledger says of cells.

use std::{collections::HashMap, time::Duration};

use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::{AttemptState, seconds};

/// The open attempt of a cell.
#[derive(Debug, Clone)]
pub struct OpenAttempt {
    /// Its number.
    pub ordinal: i32,
    /// The claim that submitted it.
    pub claim: i32,
    /// `submitting` or `accepted`.
    pub state: AttemptState,
    /// The upstream's id.
    pub upstream_id: Option<String>,
    /// Since it was accepted, or opened again.
    pub age: Duration,
}

/// What became of earlier attempts, as far as the next step depends on it.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Attempts of this round that the upstream failed or gave up.
    pub failures_in_round: i64,
    /// Attempts of this round that were given up, or of which it is not known whether they were taken.
    pub uncertain_in_round: i64,
    /// Attempts since the last one that counts: turned away or not sent, one after another.
    pub turned_away_in_a_row: i64,
    /// Longest time until which the answer to an earlier, unknown POST may still come; zero when it cannot any more.
    pub answer_in: Duration,
    /// The same of POSTs of this round alone.
    pub answer_in_of_round: Duration,
}

/// The last attempt of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastAttempt {
    /// Its state.
    pub state: AttemptState,
    /// Whether its upstream's id is known.
    pub has_id: bool,
}

/// The last attempt that counts, where it was given up and its upstream's id is known: it can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// Its number.
    pub ordinal: i32,
    /// The upstream's id.
    pub upstream_id: String,
}

/// What the ledger says of a cell's past, in this round and before.
#[derive(Debug, Clone, Default)]
pub struct Past {
    /// Its open attempt.
    pub open: Option<OpenAttempt>,
    /// Its last attempt, open or not.
    pub last: Option<LastAttempt>,
    /// Its last attempt that counts, where it was given up under an id.
    pub given_up: Option<GivenUp>,
    /// Round of its last attempt.
    pub last_round: i32,
    /// The earlier ones.
    pub history: History,
}

#[derive(FromRow)]
struct PastRow {
    cell: Uuid,
    ordinal: i32,
    claim: i32,
    state: AttemptState,
    upstream_id: Option<String>,
    is_open: bool,
    age: f64,
    failures_in_round: i64,
    uncertain_in_round: i64,
    turned_away_in_a_row: i64,
    answer_in: f64,
    answer_in_of_round: f64,
    last_round: i32,
    given_up_ordinal: Option<i32>,
    given_up_id: Option<String>,
}

/// The pasts of cells, each with its group's round; a cell without attempts has none.
///
/// # Errors
/// What PostgreSQL says.
pub async fn pasts(connection: &mut PgConnection, cells: &[(Uuid, i32)]) -> Result<HashMap<Uuid, Past>, sqlx::Error> {
    // One look by the primary key a cell; its last attempt is the open one, where one is open.
    let rows: Vec<PastRow> = sqlx::query_as(
        "select given.cell, last.ordinal, last.claim, last.state, last.upstream_id, last.finished_at is null as is_open,
                extract(epoch from now() - coalesce(last.reopened_at, last.accepted_at, last.submitted_at))::float8 as age,
                counted.failures_in_round, counted.uncertain_in_round, counted.turned_away_in_a_row, counted.answer_in,
                counted.answer_in_of_round, counted.last_round,
                given_up.ordinal as given_up_ordinal, given_up.upstream_id as given_up_id
         from unnest($1::uuid[], $2::integer[]) as given (cell, round)
         cross join lateral (
             select ordinal, claim, state, upstream_id, finished_at, reopened_at, accepted_at, submitted_at
             from imagemill.attempts where subtask_id = given.cell
             order by finished_at is null desc, ordinal desc limit 1) as last
         cross join lateral (
             select count(*) filter (where round = given.round and state in ('failed', 'timed_out')) as failures_in_round,
                    count(*) filter (where round = given.round and may_be_alive) as uncertain_in_round,
                    count(*) filter (where state in ('not_sent', 'turned_away')
                                       and ordinal > coalesce((select max(ordinal) from imagemill.attempts
                                                               where subtask_id = given.cell
                                                                 and state not in ('not_sent', 'turned_away')), 0))
                        as turned_away_in_a_row,
                    coalesce(extract(epoch from max(answer_until) filter (where is_unanswered) - now()), 0)::float8 as answer_in,
                    coalesce(extract(epoch from max(answer_until) filter (where is_unanswered and round = given.round)
                                                - now()), 0)::float8 as answer_in_of_round,
                    max(round) as last_round
             from (select *, state = 'unknown' or (state = 'not_sent' and resolved_at is not null) as is_unanswered
                   from imagemill.attempts where subtask_id = given.cell) as earlier) as counted
         left join lateral (
             select ordinal, case when state = 'abandoned' then upstream_id end as upstream_id
             from imagemill.attempts where subtask_id = given.cell and state not in ('not_sent', 'turned_away')
             order by ordinal desc limit 1) as given_up on given_up.upstream_id is not null",
    )
    .bind(cells.iter().map(|(cell, _)| *cell).collect::<Vec<_>>())
    .bind(cells.iter().map(|(_, round)| *round).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.cell, Past::from(row))).collect())
}

impl From<PastRow> for Past {
    fn from(row: PastRow) -> Self {
        let last = Some(LastAttempt { state: row.state, has_id: row.upstream_id.is_some() });
        let open = row.is_open.then(|| OpenAttempt {
            ordinal: row.ordinal,
            claim: row.claim,
            state: row.state,
            upstream_id: row.upstream_id,
            age: seconds(row.age),
        });
        let history = History {
            failures_in_round: row.failures_in_round,
            uncertain_in_round: row.uncertain_in_round,
            turned_away_in_a_row: row.turned_away_in_a_row,
            answer_in: seconds(row.answer_in),
            answer_in_of_round: seconds(row.answer_in_of_round),
        };
        let given_up = row.given_up_ordinal.zip(row.given_up_id).map(|(ordinal, upstream_id)| GivenUp { ordinal, upstream_id });
        Self { open, last, given_up, last_round: row.last_round, history }
    }
}

/// The last attempts of cells.
///
/// # Errors
/// What PostgreSQL says.
pub async fn last_attempts(connection: &mut PgConnection, cells: &[Uuid]) -> Result<HashMap<Uuid, LastAttempt>, sqlx::Error> {
    let rows: Vec<(Uuid, AttemptState, bool)> = sqlx::query_as(
        "select given.cell, last.state, last.upstream_id is not null
         from unnest($1::uuid[]) as given (cell)
         cross join lateral (select state, upstream_id from imagemill.attempts
                             where subtask_id = given.cell order by ordinal desc limit 1) as last",
    )
    .bind(cells)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(cell, state, has_id)| (cell, LastAttempt { state, has_id })).collect())
}

/// A row of the ledger as people compare it with the upstream's bill.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct AttemptRow {
    /// The cell.
    pub cell: Uuid,
    /// From 1; with the cell it is the request id of the submit.
    pub ordinal: i32,
    /// Its state.
    pub state: AttemptState,
    /// The id that the upstream answered with.
    pub upstream_id: Option<String>,
}

/// The attempts of these cells.
///
/// # Errors
/// What PostgreSQL says.
pub async fn get_by_cells(connection: &mut PgConnection, cells: &[Uuid]) -> Result<Vec<AttemptRow>, sqlx::Error> {
    sqlx::query_as(
        "select subtask_id as cell, ordinal, state, upstream_id from imagemill.attempts
         where subtask_id = any ($1) order by subtask_id, ordinal",
    )
    .bind(cells)
    .fetch_all(connection)
    .await
}
