//! The pauses of one's own token: when to probe, and which nobody needs any more.

use std::time::Duration;

use sqlx::{FromRow, PgConnection};

use super::{Call, write::act_as_engine};
use crate::queue::connections::Connections;
use crate::queue::error::QueueError;

/// Pauses that ended by themselves, or whose token nobody holds, are taken away after so long.
const STALE: &str = "1 hour";

/// A pause that names one's own token.
#[derive(Debug, Clone, FromRow)]
pub struct OwnPause {
    /// The lane.
    pub lane: String,
    /// What was refused.
    pub call: Call,
    #[sqlx(rename = "probe_in")]
    seconds: f64,
}

impl OwnPause {
    /// How long until one worker of the fleet may try again.
    pub fn probe_in(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds.max(0.0)).unwrap_or_default()
    }
}

/// The pauses of this token, by lane.
pub(super) async fn of_token(connections: &Connections, token_hash: &str) -> Result<Vec<OwnPause>, QueueError> {
    connections
        .statement(async |connection| {
            let query = sqlx::query_as(
                "select lane, call, coalesce(extract(epoch from probe_at - now()), 0)::float8 as probe_in
                 from imagemill.pauses where token_hash = $1 and reason in ('auth', 'payment') order by lane, reason",
            );
            Ok(query.bind(token_hash).fetch_all(connection).await?)
        })
        .await
}

/// The condition of a pause whose token no living worker holds.
macro_rules! unheld {
    () => {
        "p.token_hash <> '' and not exists (select from imagemill.incarnations i
                                            where i.token_hash = p.token_hash and i.ended_at is null)"
    };
}

/// Takes away the pauses of a token that was replaced, unless somebody else holds it still.
pub(super) async fn forget_token(connection: &mut PgConnection, token_hash: &str) -> Result<(), sqlx::Error> {
    act_as_engine(connection).await?;
    let statement = concat!(
        "with gone as (
             delete from imagemill.pauses p where p.token_hash = $1 and ",
        unheld!(),
        " returning p.*
         )
         insert into imagemill.audit (who, what, subject, old_value)
         select 'system', 'resume_lane', 'lane/' || lane, to_jsonb(gone) || '{\"ended_by\": \"its token was replaced\"}' from gone"
    );
    sqlx::query(statement).bind(token_hash).execute(connection).await?;
    Ok(())
}

/// One after another, whoever replaces this token or says that it is refused: of two at once neither would see what the other
/// does, and the pause of a token that nobody holds would stay.
pub(super) async fn lock_token(connection: &mut PgConnection, token_hash: &str) -> Result<(), sqlx::Error> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('imagemill.pauses ' || $1, 0))")
        .bind(token_hash)
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes away what is stale of all lanes, and what operators have set an end that is over.
pub(super) async fn forget_stale(connections: &Connections) -> Result<(), QueueError> {
    let statement = concat!(
        "with engine as materialized (
             select set_config('imagemill.engine', 'on', true)
         ), gone as (
             delete from imagemill.pauses p
             where p.until < now() - $1::interval and p.reason in ('throttled', 'breaker')
                or p.until < now() and p.reason = 'operator'
                or p.since < now() - $1::interval and ",
        unheld!(),
        " returning p.*
         )
         insert into imagemill.audit (who, what, subject, old_value)
         select 'system', 'resume_lane', 'lane/' || lane, to_jsonb(gone)
                || jsonb_build_object('ended_by', case reason when 'operator' then 'its end' else 'its age' end)
         from gone cross join engine"
    );
    connections
        .statement(async |connection| {
            sqlx::query(statement).bind(STALE).execute(connection).await?;
            Ok(())
        })
        .await
}
