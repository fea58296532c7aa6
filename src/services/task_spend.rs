//! What tasks cost, summed up beside the ledger, so that a month of it is read at once.

use std::time::Instant;

use super::{context::Context, error::ServiceError};
use crate::crud::task_spend;

/// Tasks of one transaction: of 50,000 cells each, about a second.
const TASKS: i64 = 5;
/// Transactions of one call; the next one goes on.
const TRANSACTIONS: usize = 1_000;

/// Sums up what tasks cost that have ended and are not summed up yet, and those that run of which a tenth more has ended. After each
/// transaction it rests so many times as long as that took: of a thousand tasks all may have come so far at one moment. Returns how
/// many were summed up. Many may call it at once, of which one does it; and it may be cut short at any point.
///
/// # Errors
/// See [`ServiceError`]; what is summed up by then stays.
pub async fn sum_up_spend(context: &Context, rests: u32) -> Result<u64, ServiceError> {
    let mut summed_up = 0;
    for _ in 0..TRANSACTIONS {
        let began = Instant::now();
        let mut transaction = context.begin().await?;
        if !task_spend::is_ours(&mut transaction).await? {
            break;
        }
        let tasks = task_spend::get_missing(&mut transaction, TASKS).await?;
        if tasks.is_empty() {
            break;
        }
        let done = task_spend::sum_up(&mut transaction, &tasks).await?;
        transaction.commit().await?;
        if done == 0 {
            // Somebody is changing them.
            break;
        }
        summed_up += done;
        tokio::time::sleep(began.elapsed() * rests).await;
    }
    Ok(summed_up)
}
