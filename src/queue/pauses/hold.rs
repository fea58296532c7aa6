//! Whether a lane may submit now: asked by the transaction that writes the ledger rows of its POSTs.

use std::collections::HashMap;

use sqlx::PgConnection;

use crate::queue::ledger::Submit;

/// What the rows say of each lane and token.
#[derive(Debug, Default)]
pub(in crate::queue) struct Holds(HashMap<(String, String, bool), Hold>);

/// See [`Holds`].
#[derive(Debug, Clone, Default)]
pub(in crate::queue) struct Hold {
    /// What holds it, in words.
    pub(in crate::queue) why: Option<String>,
    /// Whether a success has something to tell: a pause to end, errors to forget, a rate to raise.
    pub(in crate::queue) is_troubled: bool,
}

impl Holds {
    /// Asks for all that are about to be submitted, in one statement.
    pub(in crate::queue) async fn ask(connection: &mut PgConnection, submits: &[&Submit]) -> Result<Self, sqlx::Error> {
        let mut asked: Vec<(&str, &str, bool)> =
            submits.iter().map(|submit| (submit.lane.as_str(), submit.token_hash.as_str(), submit.is_probe)).collect();
        asked.sort_unstable();
        asked.dedup();
        // A probe is what ends a pause of its own token, and of no other kind.
        let rows: Vec<(String, String, bool, Option<String>, bool)> = sqlx::query_as(
            "select given.lane, given.token, given.probes,
                    string_agg(p.reason || ': ' || p.why, '; ' order by p.reason)
                        filter (where (p.until is null or p.until > now())
                                      and not (given.probes and p.reason in ('auth', 'payment'))),
                    coalesce(bool_or(p.reason <> 'operator'), false)
                        or exists (select from imagemill.lane_health h where h.lane = given.lane and h.errors_in_a_row > 0)
                        or exists (select from imagemill.lanes l
                                   where l.lane = given.lane and l.current_rate is not null and l.rate_adapts)
             from unnest($1::text[], $2::text[], $3::boolean[]) as given (lane, token, probes)
             left join imagemill.pauses p on p.lane = given.lane and p.token_hash in ('', given.token)
             group by given.lane, given.token, given.probes",
        )
        .bind(asked.iter().map(|(lane, ..)| (*lane).to_owned()).collect::<Vec<_>>())
        .bind(asked.iter().map(|(_, token, _)| (*token).to_owned()).collect::<Vec<_>>())
        .bind(asked.iter().map(|(.., probes)| *probes).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
        let holds =
            rows.into_iter().map(|(lane, token, probes, why, is_troubled)| ((lane, token, probes), Hold { why, is_troubled }));
        Ok(Self(holds.collect()))
    }

    /// What holds this one.
    pub(in crate::queue) fn of(&self, submit: &Submit) -> Hold {
        self.0.get(&(submit.lane.clone(), submit.token_hash.clone(), submit.is_probe)).cloned().unwrap_or_default()
    }
}
