//! Writes that come within a few milliseconds of one another share one transaction. One that comes alone waits for nobody. The
//! same for reads, which share a statement.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{aside::Aside, connections::LockWait, error::QueueError};

/// A group begins at the earliest so long after the one before it began: company is waited for only in the wake of others.
pub(crate) const COMPANY: Duration = Duration::from_millis(5);

/// And so long after that one ended as it took, but no longer than this: a group of few costs about as much as one of many, so where
/// writes are slow, as on a busy machine, fewer and larger ones are less work for all (a sixth of PostgreSQL's time a cell).
const LONGEST_REST: Duration = Duration::from_millis(20);

/// Most members of a group: what one refused member costs the others, and what a crash between two commits leaves.
pub(crate) const LARGEST: usize = 100;

/// So often is a group tried again that another transaction was in the way of.
const CONFLICTS: usize = 5;

/// What is done for a group at once.
#[async_trait]
pub(crate) trait GroupWork: Send + Sync + 'static {
    /// One member.
    type Member: Send + Sync + 'static;
    /// What becomes of it.
    type Answer: Send + 'static;

    /// What could not be done, for the log.
    const WHAT: &'static str;

    /// What a member's rows hang together by: where somebody's lock is in the way of one, those of another part go on. None: all do.
    fn part(_: &Self::Member) -> Option<&str> {
        None
    }

    /// Does it for all, or for none, waiting so long for the locks of others. Returns one answer a member, in their order.
    async fn work(&self, members: &[Self::Member], lock_wait: LockWait) -> Result<Vec<Self::Answer>, QueueError>;
}

/// What one member is told.
pub(super) type Told<W> = Result<<W as GroupWork>::Answer, QueueError>;

/// A member that waits for its answer.
pub(super) struct Waiting<W: GroupWork> {
    pub(super) member: W::Member,
    reply: oneshot::Sender<Told<W>>,
}

impl<W: GroupWork> Waiting<W> {
    /// Gives it its answer.
    pub(super) fn tell(self, answer: Told<W>) {
        // Who does not wait any more does not need it.
        let _ = self.reply.send(answer);
    }
}

/// A door to a writer that takes what waits as one group.
pub(crate) struct Group<W: GroupWork> {
    door: mpsc::UnboundedSender<Waiting<W>>,
}

impl<W: GroupWork> Group<W> {
    /// Starts the writer; it ends when this is dropped.
    pub(crate) fn start(writer: W) -> Self {
        let (door, waiting) = mpsc::unbounded_channel();
        tokio::spawn(run(waiting, Arc::new(writer)));
        Self { door }
    }

    /// Joins the next group and waits for its answer.
    ///
    /// # Errors
    /// What the writer says of this member, or of all of its group; [`QueueError::Ended`] when there is no writer any more.
    pub(crate) async fn join(&self, member: W::Member) -> Told<W> {
        let (reply, answer) = oneshot::channel();
        if self.door.send(Waiting { member, reply }).is_err() {
            return Err(QueueError::Ended);
        }
        answer.await.unwrap_or(Err(QueueError::Ended))
    }
}

async fn run<W: GroupWork>(mut waiting: mpsc::UnboundedReceiver<Waiting<W>>, writer: Arc<W>) {
    let mut group: Vec<Waiting<W>> = Vec::new();
    let aside = Aside::start(&writer);
    let mut earliest = Instant::now();
    while waiting.recv_many(&mut group, LARGEST).await > 0 {
        while group.len() < LARGEST && Instant::now() < earliest {
            let room = LARGEST - group.len();
            tokio::select! {
                () = tokio::time::sleep_until(earliest) => {}
                came = waiting.recv_many(&mut group, room) => if came == 0 { break },
            }
        }
        let began = Instant::now();
        earliest = began + COMPANY;
        aside.take_blocked(&mut group);
        if group.is_empty() {
            continue;
        }
        for (waiting, answer) in write_all(&*writer, std::mem::take(&mut group), LockWait::Short).await {
            match answer {
                // Which of them is in the way is found out beside the next groups.
                Err(error) if error.is_blocked() => aside.take(waiting),
                answer => waiting.tell(answer),
            }
        }
        let ended = Instant::now();
        earliest = earliest.max(ended + (ended - began).min(LONGEST_REST));
    }
}

/// Does a group's work, and says what of it failed. Returns the members with their answers.
pub(super) async fn write_all<W: GroupWork>(
    writer: &W,
    group: Vec<Waiting<W>>,
    lock_wait: LockWait,
) -> impl Iterator<Item = (Waiting<W>, Told<W>)> {
    let (members, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|waiting| (waiting.member, waiting.reply)).unzip();
    let answers = write(writer, &members, lock_wait).await;
    // Once a group, and not once a member.
    if let Some(Err(error)) = answers.iter().find(|answer| answer.is_err()) {
        let failed = answers.iter().filter(|answer| answer.is_err()).count();
        tracing::warn!(%error, failed, of = answers.len(), "{}", W::WHAT);
    }
    members.into_iter().zip(replies).map(|(member, reply)| Waiting { member, reply }).zip(answers)
}

/// Does a group's work. One that another transaction was in the way of is written again. Where it is refused for its content, each
/// half is done by itself, until only what is refused is left: that fails alone. So does what somebody's lock is in the way of, where
/// the shortest is waited for it.
fn write<'a, W: GroupWork>(writer: &'a W, members: &'a [W::Member], lock_wait: LockWait) -> BoxFuture<'a, Vec<Told<W>>> {
    Box::pin(async move {
        let mut conflicts = 0;
        let error = loop {
            match writer.work(members, lock_wait).await {
                Ok(answers) => return answers.into_iter().map(Ok).collect(),
                Err(error) if error.is_conflict() && conflicts < CONFLICTS => conflicts += 1,
                Err(error) => break error,
            }
        };
        let is_to_part = error.is_refused() || (error.is_blocked() && lock_wait == LockWait::Shortest);
        if is_to_part && members.len() > 1 {
            let (left, right) = members.split_at(members.len() / 2);
            let mut answers = write(writer, left, lock_wait).await;
            answers.extend(write(writer, right, lock_wait).await);
            answers
        } else {
            members.iter().map(|_| Err(error.clone())).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;

    use super::*;

    /// Answers each member with the size of its group, once it may; refuses groups with a 13 in them.
    struct Sizes(Arc<Semaphore>);

    #[async_trait]
    impl GroupWork for Sizes {
        type Member = u32;
        type Answer = (u32, usize);
        const WHAT: &'static str = "numbers were refused";

        async fn work(&self, members: &[u32], _: LockWait) -> Result<Vec<(u32, usize)>, QueueError> {
            self.0.acquire().await.unwrap().forget();
            if members.contains(&13) {
                return Err(QueueError::UnknownQueue("13".to_owned()));
            }
            Ok(members.iter().map(|member| (*member, members.len())).collect())
        }
    }

    #[tokio::test]
    async fn who_comes_while_a_group_is_written_shares_the_next_one() {
        let may = Arc::new(Semaphore::new(0));
        let group = Group::start(Sizes(Arc::clone(&may)));
        // The first one is polled to its door, and its writer to the permit, before the others come.
        let mut first = std::pin::pin!(group.join(0));
        assert!(futures::poll!(&mut first).is_pending());
        tokio::task::yield_now().await;
        let mut others = std::pin::pin!(futures::future::join_all((1..=10).map(|member| group.join(member))));
        assert!(futures::poll!(&mut others).is_pending());
        may.add_permits(100);
        assert_eq!(first.await.unwrap(), (0, 1));
        for (index, other) in others.await.into_iter().enumerate() {
            assert_eq!(other.unwrap(), (index as u32 + 1, 10));
        }
    }

    #[tokio::test]
    async fn no_group_is_larger_than_the_largest() {
        let group = Group::start(Sizes(Arc::new(Semaphore::new(10_000))));
        let joined = futures::future::join_all((100..1100).map(|member| group.join(member))).await;
        assert!(joined.iter().all(|answer| answer.as_ref().unwrap().1 <= LARGEST));
        assert!(joined.iter().any(|answer| answer.as_ref().unwrap().1 > 1));
    }

    #[tokio::test]
    async fn what_is_refused_fails_alone() {
        let group = Group::start(Sizes(Arc::new(Semaphore::new(10_000))));
        let joined = futures::future::join_all((0..50).map(|member| group.join(member))).await;
        for (member, answer) in joined.into_iter().enumerate() {
            assert_eq!(answer.is_err(), member == 13, "{member}");
        }
    }
}
