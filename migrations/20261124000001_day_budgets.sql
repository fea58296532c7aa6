-- Budgets of a lane's day: what was submitted today, kept beside the ledger, so that a claim never counts a day's attempts.

-- Several rows a lane: a transaction takes one that nobody holds and makes one where all are held, so that it waits for none. There
-- are never more than there were transactions at once.
create table imagemill.lane_days (
    id      bigint generated always as identity,
    lane    text   not null,
    day     date   not null,
    submits bigint not null,
    constraint lane_days_pkey primary key (lane, id),
    constraint lane_days_lane_fkey foreign key (lane) references imagemill.lanes (lane) on delete cascade
) with (fillfactor = 20);
comment on table  imagemill.lane_days         is 'Submits of the day by lane: the sum over the rows of a day, moved by the ledger itself. With the cells in flight what counts against max_submits_per_day.';
comment on column imagemill.lane_days.day     is 'The UTC day that this row counts; a row of an earlier day counts nothing.';
comment on column imagemill.lane_days.submits is 'Attempts submitted on that day that have ended and were billed, or perhaps. A part of the sum: it may be negative.';

create function imagemill.count_lane_days() returns trigger
language plpgsql security definer set search_path = pg_catalog
as $$
declare
    -- The clock's, and not the transaction's: one that began yesterday may end what was submitted today.
    today date := (clock_timestamp() at time zone 'UTC')::date;
    moved record;
    part  bigint;
begin
    for moved in
        select changed.lane, sum(changed.change) as change
        from (select a.lane, a.submitted_at, 1 as change from after_rows a
              where a.state in ('succeeded', 'failed', 'refused', 'timed_out', 'abandoned', 'unknown')
              union all
              select b.lane, b.submitted_at, -1 from before_rows b
              where b.state in ('succeeded', 'failed', 'refused', 'timed_out', 'abandoned', 'unknown')) as changed
        join imagemill.lanes l on l.lane = changed.lane
        where (changed.submitted_at at time zone 'UTC')::date = today
        group by changed.lane having sum(changed.change) <> 0
    loop
        select d.id into part from imagemill.lane_days d where d.lane = moved.lane order by d.id limit 1 for update skip locked;
        if found then
            update imagemill.lane_days d
            set day = today, submits = moved.change + case when d.day = today then d.submits else 0 end
            where d.lane = moved.lane and d.id = part;
        else
            insert into imagemill.lane_days (lane, day, submits) values (moved.lane, today, moved.change);
        end if;
    end loop;
    return null;
end
$$;
comment on function imagemill.count_lane_days is 'Moves the day''s submits of the lanes by what an UPDATE of attempts changed, whoever made it.';

create trigger attempts_count_lane_days after update on imagemill.attempts
    referencing old table as before_rows new table as after_rows
    for each statement execute function imagemill.count_lane_days();

-- What was submitted today, where it already matters. The trigger has locked the table: nothing ends between it and this.
insert into imagemill.lane_days (lane, day, submits)
select l.lane, (now() at time zone 'UTC')::date, count(*)
from imagemill.lanes l
join imagemill.attempts a on a.lane = l.lane and a.submitted_at >= date_trunc('day', now() at time zone 'UTC') at time zone 'UTC'
where l.max_submits_per_day is not null
  and a.state in ('succeeded', 'failed', 'refused', 'timed_out', 'abandoned', 'unknown')
group by l.lane;
