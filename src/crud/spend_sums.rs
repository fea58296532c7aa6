//! `imagemill.spend_sums`: what was paid for, or perhaps, by rows of the ledger that are gone.

use chrono::NaiveDate;
use sqlx::PgConnection;
use uuid::Uuid;

/// Submits of one task, day and lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    /// Day of the submits, in UTC.
    pub day: NaiveDate,
    /// The lane.
    pub lane: String,
    /// Submits that the upstream had accepted.
    pub accepted: i64,
    /// Submits of which that is not known.
    pub unknown: i64,
}

/// Adds to the sums of a task: in the transaction that deletes what was summed up.
///
/// # Errors
/// What PostgreSQL says.
pub async fn add(connection: &mut PgConnection, user_id: Uuid, task_id: Uuid, spent: &[Spent]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into imagemill.spend_sums as sums (day, user_id, task_id, lane, accepted, \"unknown\")
         select day, $1, $2, lane, accepted, \"unknown\"
         from unnest($3::date[], $4::text[], $5::bigint[], $6::bigint[]) as given (day, lane, accepted, \"unknown\")
         where accepted > 0 or \"unknown\" > 0
         order by day, lane
         on conflict on constraint spend_sums_pkey
         do update set accepted = sums.accepted + excluded.accepted, \"unknown\" = sums.\"unknown\" + excluded.\"unknown\"",
    )
    .bind(user_id)
    .bind(task_id)
    .bind(spent.iter().map(|spent| spent.day).collect::<Vec<_>>())
    .bind(spent.iter().map(|spent| spent.lane.clone()).collect::<Vec<_>>())
    .bind(spent.iter().map(|spent| spent.accepted).collect::<Vec<_>>())
    .bind(spent.iter().map(|spent| spent.unknown).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
