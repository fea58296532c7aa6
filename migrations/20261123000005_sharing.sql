-- Sharing the upstream: what the claim keeps of a lane, and what it asks of a task.

-- Apart from lanes: who reads or changes a limit never waits for a claim, nor a claim for a session that has changed one and not
-- committed. Its row is what claims of a lane queue up on.
create table imagemill.lane_states (
    lane           text        not null,
    next_submit_at timestamptz,
    ramp_since     timestamptz,
    active_at      timestamptz,
    constraint lane_states_pkey primary key (lane),
    constraint lane_states_lane_fkey foreign key (lane) references imagemill.lanes (lane) on delete cascade
) with (fillfactor = 20);
comment on table  imagemill.lane_states                is 'What the claims of a lane keep and queue up on; written where the lane has a rate or a ramp.';
comment on column imagemill.lane_states.next_submit_at is 'When the submit after the last one that was granted is due at the lane''s rate; later by no more than burst.';
comment on column imagemill.lane_states.ramp_since     is 'Since when the lane warms up.';
comment on column imagemill.lane_states.active_at      is 'When a claim last saw a cell in flight, to the second: what idle is counted from.';
insert into imagemill.lane_states (lane) select lane from imagemill.lanes;

create function imagemill.begin_lane() returns trigger
language plpgsql
as $$
begin
    insert into imagemill.lane_states (lane) values (new.lane) on conflict do nothing;
    return null;
end
$$;
create trigger lanes_begin after insert on imagemill.lanes for each row execute function imagemill.begin_lane();

-- Workers that wait for a place or for the next submit look again at once. A hint, like every notification: they look every
-- second as well.
create function imagemill.wake_workers() returns trigger
language plpgsql
as $$
begin
    perform pg_notify('imagemill_jobs', '');
    return null;
end
$$;
comment on function imagemill.wake_workers is 'Workers that wait for a limit, a budget or a pause look again.';
create trigger lanes_wake after insert or update on imagemill.lanes for each statement execute function imagemill.wake_workers();
create trigger pauses_wake after update or delete on imagemill.pauses for each statement execute function imagemill.wake_workers();
create trigger tasks_wake after update of priority, max_submits, not_before on imagemill.tasks
    for each statement execute function imagemill.wake_workers();

alter table imagemill.task_counts add column submits bigint not null default 0;
comment on column imagemill.task_counts.submits is 'Attempts that have ended and were billed, or perhaps: with the cells in flight what counts against max_submits.';
-- Only an open task's budget can matter before its next round.
update imagemill.task_counts counts set submits = counted.submits
from (select cells.task_id, count(*) as submits
      from imagemill.tasks tasks
      join imagemill.subtasks cells on cells.task_id = tasks.id
      join imagemill.attempts attempts on attempts.subtask_id = cells.id
      where tasks.status in ('pending', 'processing')
        and attempts.state in ('succeeded', 'failed', 'refused', 'timed_out', 'abandoned', 'unknown')
      group by cells.task_id) as counted
where counted.task_id = counts.task_id;

create function imagemill.move_submits(cells uuid[], change integer) returns void
language sql
as $$
    -- Locked in the order of their ids, as everybody does.
    with changes as (
        select task_id, count(*) * change as by from imagemill.subtasks where id = any (cells) group by task_id
    ), locked as materialized (
        select counts.task_id from imagemill.task_counts counts join changes using (task_id) order by counts.task_id for update of counts
    )
    update imagemill.task_counts counts set submits = greatest(counts.submits + changes.by, 0)
    from changes where counts.task_id = changes.task_id and counts.task_id in (select task_id from locked)
$$;
comment on function imagemill.move_submits is 'For whatever ends an attempt outside of a settle (change 1), or opens it again or finds that it was not billed (-1).';

create function imagemill.group_limits(groups text[])
returns table ("group" text, weight integer, not_before timestamptz, submits_left bigint)
language sql stable
as $$
    select tasks.id::text, tasks.priority::integer, tasks.not_before, tasks.max_submits - counts.submits
    from imagemill.tasks tasks join imagemill.task_counts counts on counts.task_id = tasks.id
    where tasks.id = any (array(select given::uuid from unnest(groups) as given where given ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'))
$$;
comment on function imagemill.group_limits is 'What the queue asks of the tasks that its groups are. submits_left leaves the cells in flight out; null: no budget.';
