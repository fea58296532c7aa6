-- The submit ledger, and what every worker was.

create table imagemill.attempts (
    subtask_id   uuid        not null,
    ordinal      integer     not null,
    round        integer     not null,
    claim        integer     not null,
    lane         text        not null,
    worker       text        not null,
    state        text        not null,
    upstream_id  text,
    http_status  integer,
    error_kind   text,
    error        text,
    polls        integer     not null default 0,
    submitted_at timestamptz not null default now(),
    answer_until timestamptz not null,
    accepted_at  timestamptz,
    reopened_at  timestamptz,
    finished_at  timestamptz,
    may_be_alive boolean     generated always as (state in ('abandoned', 'unknown')) stored,
    constraint attempts_pkey primary key (subtask_id, ordinal),
    constraint attempts_subtask_id_fkey foreign key (subtask_id) references imagemill.subtasks (id) on delete cascade,
    constraint attempts_ordinal_positive check (ordinal >= 1),
    constraint attempts_state_known check (state in ('submitting', 'accepted', 'not_sent', 'turned_away', 'rejected',
        'succeeded', 'failed', 'refused', 'timed_out', 'abandoned', 'unknown')),
    constraint attempts_accepted_has_id check (state <> 'accepted' or (upstream_id is not null and accepted_at is not null)),
    constraint attempts_finished_at_with_end check ((finished_at is null) = (state in ('submitting', 'accepted'))),
    constraint attempts_polls_not_negative check (polls >= 0)
) with (fillfactor = 70);
-- None of these names a column that changes before an attempt ends, so that what comes before can be a HOT update.
-- The database itself refuses a second open attempt of a cell.
create unique index attempts_one_open_per_cell on imagemill.attempts (subtask_id) where finished_at is null;
-- In flight of a lane: open attempts, and those given up lately, on which the upstream may still be working.
create index attempts_open_by_lane on imagemill.attempts (lane) where finished_at is null;
create index attempts_may_be_alive on imagemill.attempts (lane, finished_at) where may_be_alive;
comment on table  imagemill.attempts              is 'The submit ledger: one paid try each. The row is committed before the POST leaves.';
comment on column imagemill.attempts.ordinal      is '1, 2, ... for its cell; subtask_id/ordinal is the request id on the wire.';
comment on column imagemill.attempts.round        is 'The task''s round when it was submitted.';
comment on column imagemill.attempts.claim        is 'Number of the claim that submitted it.';
comment on column imagemill.attempts.worker       is 'Incarnation that submitted it.';
comment on column imagemill.attempts.state        is 'Open: submitting, accepted. Surely not billed: not_sent, turned_away, rejected. Billed or perhaps: succeeded, failed, refused, timed_out, abandoned, unknown.';
comment on column imagemill.attempts.upstream_id  is 'Having it means: poll, never submit.';
comment on column imagemill.attempts.http_status  is 'Status of the submit''s answer.';
comment on column imagemill.attempts.error        is 'The upstream''s own message, or what went wrong on the way.';
comment on column imagemill.attempts.polls        is 'Polls that were answered.';
comment on column imagemill.attempts.answer_until is 'An answer to the POST may come until then: submitted_at + submit time-out + lease.';
comment on column imagemill.attempts.may_be_alive is 'It ended for us, and perhaps not for the upstream: it counts as in flight for the lane''s max_job_time.';
comment on column imagemill.attempts.reopened_at  is 'When a retry took it up again; poll limit and deadline count from here.';

create table imagemill.pauses (
    lane       text        not null,
    reason     text        not null,
    token_hash text        not null default '',
    why        text        not null,
    since      timestamptz not null default now(),
    until      timestamptz,
    probe_at   timestamptz,
    constraint pauses_pkey primary key (lane, reason, token_hash),
    constraint pauses_lane_fkey foreign key (lane) references imagemill.lanes (lane),
    constraint pauses_reason_known check (reason in ('auth', 'payment', 'throttled', 'breaker', 'operator'))
);
comment on table  imagemill.pauses            is 'Why a lane does not submit; it does when no row holds.';
comment on column imagemill.pauses.token_hash is '8 hex digits of the token''s SHA-256, or empty: for everybody.';
comment on column imagemill.pauses.until      is 'When it ends by itself; null: when it is lifted.';
comment on column imagemill.pauses.probe_at   is 'When one worker may try again.';

create table imagemill.incarnations (
    name         text        not null,
    host         text        not null,
    pid          integer     not null,
    version      text        not null,
    token_hash   text,
    started_at   timestamptz not null default now(),
    ended_at     timestamptz,
    how          text,
    rescued_by   text,
    stale_writes bigint      not null default 0,
    constraint incarnations_pkey primary key (name),
    constraint incarnations_how_known check (how in ('stopped', 'rescued', 'lost_lease', 'failed')),
    constraint incarnations_ended_at_with_how check ((ended_at is null) = (how is null))
);
comment on table  imagemill.incarnations              is 'What every worker was, after apalis''s row of it is gone.';
comment on column imagemill.incarnations.how          is 'stopped: it left; rescued: another found it dead; lost_lease: it found its row gone; failed: it ended on an error.';
comment on column imagemill.incarnations.stale_writes is 'Writes that its fence turned away.';

create table imagemill.spend_sums (
    day       date   not null,
    user_id   uuid   not null,
    task_id   uuid   not null,
    lane      text   not null,
    accepted  bigint not null default 0,
    "unknown" bigint not null default 0,
    constraint spend_sums_pkey primary key (day, user_id, task_id, lane)
);
comment on table imagemill.spend_sums is 'Submits by day, owner, task and lane: sums that survive the ledger''s rows.';

create table imagemill.audit (
    id        bigint      generated always as identity,
    at        timestamptz not null default now(),
    who       text        not null,
    what      text        not null,
    subject   text        not null,
    old_value jsonb,
    new_value jsonb,
    constraint audit_pkey primary key (id)
);
create index audit_subject on imagemill.audit (subject, at);
comment on table  imagemill.audit         is 'Every operator action.';
comment on column imagemill.audit.who     is 'User, or the session''s role for plain SQL.';
comment on column imagemill.audit.subject is 'lane/NAME, task/ID, subtask/ID, user/NAME.';
