-- What the views lean on; they themselves stand in src/db/views.sql, since they change with the product.

-- What a task cost, summed up once it has ended: the sums of a month would else be read from every row of the ledger each time
-- (a second for a million of them). A worker's sweep fills it in, and nothing on a cell's way writes to it. Who reads it sees to
-- it that the round is still the task's.
create table imagemill.task_spend (
    task_id           uuid     not null,
    round             integer  not null,
    accepted          bigint   not null,
    "unknown"         bigint   not null,
    days              date[]   not null,
    lanes             text[]   not null,
    accepted_by_day   bigint[] not null,
    unknown_by_day    bigint[] not null,
    constraint task_spend_pkey primary key (task_id),
    constraint task_spend_task_id_fkey foreign key (task_id) references imagemill.tasks (id) on delete cascade
);
comment on table  imagemill.task_spend                 is 'Submits of a task that has ended, summed up from its attempts; all its rounds.';
comment on column imagemill.task_spend.round           is 'The round at whose end it was summed up; of another round it counts for nothing.';
comment on column imagemill.task_spend.accepted        is 'Submits that the upstream had accepted.';
comment on column imagemill.task_spend."unknown"       is 'Submits of which that is not known.';
comment on column imagemill.task_spend.days            is 'Days of the submits (UTC), one with each of lanes, accepted_by_day and unknown_by_day.';

-- An answer that comes late makes the sum wrong, and so does a purge: then it is summed up again, or never. An attempt that is
-- settled as usual has no finished_at before, so that this costs it one comparison.
create function imagemill.forget_task_spend() returns trigger
language plpgsql
as $$
begin
    delete from imagemill.task_spend where task_id in (
        select s.task_id from imagemill.subtasks s where s.id in (select subtask_id from changed));
    return null;
end
$$;
create function imagemill.forget_task_spend_of_row() returns trigger
language plpgsql
as $$
begin
    delete from imagemill.task_spend where task_id = (select s.task_id from imagemill.subtasks s where s.id = new.subtask_id);
    return null;
end
$$;
comment on function imagemill.forget_task_spend is 'Attempts are gone: the sums of their tasks are not right any more.';
comment on function imagemill.forget_task_spend_of_row is 'An ended attempt has changed: the sum of its task is not right any more.';
create trigger attempts_gone after delete on imagemill.attempts
    referencing old table as changed for each statement execute function imagemill.forget_task_spend();
create trigger attempts_changed_late after update of state on imagemill.attempts
    for each row when (old.finished_at is not null and old.state is distinct from new.state)
    execute function imagemill.forget_task_spend_of_row();

-- That a million attempts are of a few days: without it PostgreSQL takes each for a day of its own, and sums them up by one process.
create statistics imagemill.attempts_day on ((submitted_at at time zone 'UTC')::date) from imagemill.attempts;

-- The lease that a worker keeps, to say how much of it is left.
alter table imagemill.incarnations add column lease interval;
comment on column imagemill.incarnations.lease is 'Without a beat for so long it is taken for dead; null: an older worker, 15 s.';
