-- The rate of a task is that of its present round: a retry days later says nothing of how fast its cells end. No row is written
-- anew: constants are kept beside the table.
alter table imagemill.tasks
    add column round_started_at   timestamptz,
    add column ended_before_round integer not null default 0;
comment on column imagemill.tasks.round_started_at   is 'When a retry began the present round; null: it is the first, which began with started_at, or an older program began it.';
comment on column imagemill.tasks.ended_before_round is 'Cells that had ended when the present round began; of the first those that were taken over from earlier tasks.';
