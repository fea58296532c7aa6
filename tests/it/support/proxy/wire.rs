//! Messages of PostgreSQL's protocol, as far as a proxy must know them, and what a statement is told by.

use std::collections::BTreeSet;

/// A commit whose answer can be lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Commit {
    /// Jobs were claimed.
    Claim,
    /// Rows of the ledger were written, before their POSTs.
    Ledger,
    /// Upstream ids were written.
    Accepted,
    /// Outcomes were written.
    Settle,
    /// A worker's row was taken away: it left, or another found it dead.
    End,
}

impl Commit {
    /// Those of the way of a cell.
    pub(crate) const OF_CELLS: [Self; 4] = [Self::Claim, Self::Ledger, Self::Accepted, Self::Settle];
}

/// What a statement writes, by its text.
pub(super) fn kinds(sql: &str) -> BTreeSet<Commit> {
    let text = sql.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let mut kinds = BTreeSet::new();
    for set in updates(&text, "update apalis.jobs") {
        if set.contains("'running'") {
            kinds.insert(Commit::Claim);
        } else if set.contains("done_at") {
            kinds.insert(Commit::Settle);
        }
    }
    if text.contains("from imagemill.claim(") {
        kinds.insert(Commit::Claim);
    }
    if text.contains("delete from apalis.workers") {
        kinds.insert(Commit::End);
    }
    if text.contains("insert into imagemill.attempts") {
        kinds.insert(Commit::Ledger);
    }
    if updates(&text, "update imagemill.attempts").any(|set| set.contains("accepted_at =")) {
        kinds.insert(Commit::Accepted);
    }
    kinds
}

/// Of each UPDATE of a table its assignments.
fn updates<'a>(text: &'a str, update: &'static str) -> impl Iterator<Item = &'a str> {
    text.split(update).skip(1).map(|rest| {
        let assignments = rest.split_once(" set ").map_or("", |(_, after)| after);
        assignments.split(" where ").next().unwrap_or_default()
    })
}

/// How many rows a statement touched, by the tag of its completion: `UPDATE 3`, `INSERT 0 3`, `SELECT 3`, `COMMIT`.
pub(crate) fn rows(tag: &str) -> u64 {
    tag.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Messages out of a stream of bytes.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    /// The first message of a client has no type.
    typed: bool,
}

/// One message: its type (0 for the first of a client) and all of its bytes.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    pub(crate) bytes: Vec<u8>,
}

impl Messages {
    /// What a client sends.
    pub(crate) fn of_client() -> Self {
        Self::default()
    }

    /// What a server sends.
    pub(crate) fn of_server() -> Self {
        Self { typed: true, ..Self::default() }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// What is left of a message that never became whole.
    pub(crate) fn rest(self) -> Vec<u8> {
        self.bytes
    }
}

impl Iterator for Messages {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let head = usize::from(self.typed);
        let length: [u8; 4] = self.bytes.get(head..head + 4)?.try_into().ok()?;
        let whole = head + u32::from_be_bytes(length) as usize;
        if self.bytes.len() < whole {
            return None;
        }
        let rest = self.bytes.split_off(whole);
        let bytes = std::mem::replace(&mut self.bytes, rest);
        let kind = if self.typed { bytes[0] } else { 0 };
        self.typed = true;
        Some(Message { kind, bytes })
    }
}

impl Message {
    /// The texts that end with a zero byte, in order, from the beginning of its content.
    pub(crate) fn texts(&self) -> impl Iterator<Item = String> {
        let content = self.bytes.get(5..).unwrap_or_default();
        content.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned())
    }

    /// The number of PostgreSQL's process, where this says it.
    pub(crate) fn backend(&self) -> Option<i32> {
        let number = self.bytes.get(5..9).filter(|_| self.kind == b'K')?;
        Some(i32::from_be_bytes(number.try_into().ok()?))
    }

    /// The first of them.
    pub(crate) fn text(&self) -> String {
        self.texts().next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_told_by_what_they_write() {
        let one = |sql: &str| kinds(sql).into_iter().collect::<Vec<_>>();
        assert_eq!(
            one("with x as (select 1) UPDATE apalis.jobs as job\n set status = 'Running' from x where 1 = 1"),
            [Commit::Claim]
        );
        assert_eq!(one("select id from imagemill.claim($1)"), [Commit::Claim]);
        assert_eq!(one("update apalis.jobs set status = $1, done_at = now() where status = 'Running'"), [Commit::Settle]);
        assert_eq!(one("update apalis.jobs set status = 'Pending', lock_by = null where status = 'Running'"), []);
        assert_eq!(one("insert into imagemill.attempts (subtask_id) values ($1)"), [Commit::Ledger]);
        assert_eq!(one("update imagemill.attempts set state = 'accepted', accepted_at = now() where true"), [Commit::Accepted]);
        assert_eq!(one("update imagemill.attempts set state = $1 where accepted_at is null"), []);
    }

    #[test]
    fn messages_are_cut_where_they_end() {
        let mut messages = Messages::of_client();
        messages.push(&[0, 0, 0, 8, 0, 3, 0, 0, b'Q', 0, 0]);
        assert_eq!(messages.next().map(|message| (message.kind, message.bytes.len())), Some((0, 8)));
        assert!(messages.next().is_none());
        messages.push(&[0, 7, b'x', b'y', 0, b'S']);
        let query = messages.next().expect("a message");
        assert_eq!((query.kind, query.text().as_str()), (b'Q', "xy"));
        assert_eq!(messages.rest(), [b'S']);
    }

    #[test]
    fn a_tag_says_how_many_rows() {
        assert_eq!(["UPDATE 3", "INSERT 0 2", "COMMIT"].map(rows), [3, 2, 0]);
    }
}
