-- Why a cell is not running: part of the views, by the same rules (see views.sql).

create or replace function imagemill.why_not_running(subtask uuid) returns table (code text, why text, until timestamptz)
language sql stable security definer set search_path = pg_catalog set jit = off rows 1
begin atomic
-- Counted as a claim counts (src/db/claim.sql), at this moment.
with cell as materialized (
    select s.id, s.status, s.error_kind, s.error, s.lane, s.cancel_requested_at, t.id as task_id, t.not_before, t.not_after, t.max_submits,
           c.submits, j.status as job, j.run_at, j.lock_by as worker, j.metadata ? 'resume' as is_resumed,
           j.metadata ? 'alone' as is_alone, w.last_seen, w.last_seen + coalesce(i.lease, interval '15 s') as leased_until
    from imagemill.subtasks s
    join imagemill.tasks t on t.id = s.task_id
    join imagemill.task_counts c on c.task_id = t.id
    left join apalis.jobs j on j.job_type = 'imagemill.generate_image' and j.idempotency_key = s.id::text
    left join apalis.workers w on w.id = j.lock_by
    left join imagemill.incarnations i on i.name = j.lock_by
    where s.id = why_not_running.subtask
), waiting as materialized (
    -- What the rest is asked of: nothing of a cell that has ended, or that somebody holds.
    select * from cell where status in ('pending', 'processing') and job = 'Pending'
), fleet as materialized (
    select distinct coalesce(i.token_hash, '') as token_hash
    from waiting c
    join apalis.workers w on w.worker_type = 'imagemill'
    join imagemill.incarnations i on i.name = w.id
    where w.last_seen + coalesce(i.lease, interval '15 s') > clock_timestamp()
      and (i.lanes is null or c.lane = any (i.lanes))
      and case when c.is_alone then i.only_group is not distinct from c.task_id::text else coalesce(i.only_group = c.task_id::text, true) end
), pause as (
    -- Of the worker that may go on first, what holds it longest.
    select p.reason, p.why, p.until, p.probe_at
    from (select token_hash from fleet union all select '' where not exists (select from fleet)) as holder
    cross join waiting c
    left join lateral (
        select q.* from imagemill.pauses q
        where q.lane = c.lane and q.token_hash in ('', holder.token_hash) and (q.until is null or q.until > now())
        order by q.until desc nulls first limit 1) as p on true
    order by case when p.reason is null then '-infinity' else coalesce(p.until, 'infinity') end limit 1
), held as materialized (
    select h.metadata -> 'lane' as lane, h.metadata -> 'group' as "group"
    from (select j.metadata from apalis.workers w
          join apalis.jobs j on j.lock_by = w.id and j.job_type = 'imagemill.generate_image'
          where exists (select from waiting)
          union all
          select j.metadata from imagemill.lanes l
          join apalis.jobs j on j.job_type = 'imagemill.generate_image' and j.status = 'Pending' and j.job_type like 'imagemill.%'
               and j.metadata ? 'resume' and not j.metadata ? 'alone' and j.metadata -> 'lane' = l.lane
          where exists (select from waiting)) as h
), lane as (
    select l.lane, l.max_in_flight, n.submitting + n.alive as in_flight, n.submitting, n.alive, l.max_job_time, l.max_submits_per_day, d.today + 1 as tomorrow,
           (select coalesce(sum(x.submits), 0) from imagemill.lane_days x where x.lane = l.lane and x.day = d.today) as made_today,
           l.ramp_start, p.slack,
           imagemill.next_submit(s.next_submit_at, s.submit_step, s.submit_slack, p.step, p.slack, clock_timestamp()) as next_submit_at,
           least(l.current_rate, l.submits_per_second) as rate,
           case when l.ramp_start is null then l.max_in_flight
                when s.ramp_since is null or (n.submitting + n.alive = 0 and s.active_at < now() - l.ramp_idle_reset) then least(l.max_in_flight, l.ramp_start)
                else least(l.max_in_flight, l.ramp_start + l.ramp_step * least(floor(
                         extract(epoch from now() - s.ramp_since) / greatest(extract(epoch from l.ramp_interval), 0.001)), 100000)::integer)
           end as places
    from waiting c
    join imagemill.lanes l on l.lane = c.lane
    left join imagemill.lane_states s on s.lane = l.lane
    cross join (select (clock_timestamp() at time zone 'UTC')::date as today) as d
    cross join lateral (
        select (select count(*) from held h where h.lane = l.lane) as submitting,
               (select count(*) from imagemill.attempts a
                where a.lane = l.lane and a.may_be_alive and a.finished_at > now() - l.max_job_time) as alive) as n
    left join lateral imagemill.submit_pace(least(l.current_rate, l.submits_per_second), l.burst) as p on true
), reason as (
    -- ends: what they are compared by. Where nobody knows the end, never; where a cell that ends is enough, soon.
    select 'no_worker' as code,
           case when c.is_alone then 'its task was a try against the simulator, and the worker that was started for it is gone: cancel it'
                else format('no worker is alive that takes cells of lane %s: start one', c.lane) end as why,
           null::timestamptz as until, 'infinity'::timestamptz as ends, 1 as place
    from waiting c where not exists (select from fleet)
    union all
    select 'not_after', format('its task submits nothing after %s: a worker is about to cancel it', to_char(c.not_after at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')),
           null, 'infinity', 2
    from waiting c where c.not_after <= now() and not c.is_resumed
    union all
    select 'not_due', coalesce(nullif(c.error, '') || '; it ', 'it ') || 'waits for the time of its next try', c.run_at, c.run_at, 6
    from waiting c where c.run_at > now()
    union all
    select 'not_before', 'nothing of its task is submitted before that time', c.not_before, c.not_before, 5
    from waiting c where c.not_before > now() and not c.is_resumed
    union all
    select 'pause', format('lane %s is paused: %s (%s)', c.lane, p.reason, p.why)
                    || coalesce('; the next probe is due ' || to_char(p.probe_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), ''),
           p.until, coalesce(p.until, 'infinity'), 3
    from waiting c cross join pause p where p.reason is not null and not c.is_resumed
    union all
    select 'pause', format('lane %s was paused (%s: %s): one submit is tried before the others leave', c.lane, t.reason, t.why), t.probe_at, t.probe_at, 2
    from waiting c
    cross join lateral (
        select q.* from imagemill.pauses q
        where q.lane = c.lane and q.token_hash = '' and q.reason in ('throttled', 'breaker') and q.until <= now() and q.probe_at > now()
        order by q.probe_at desc limit 1) as t
    where not c.is_resumed
    union all
    select 'budget', format('its task may submit %s times; %s were made and %s cells are in flight: raise tasks.max_submits', c.max_submits, c.submits, n.in_flight),
           null, case when c.submits >= c.max_submits then 'infinity' else now() end, 4
    from waiting c
    cross join lateral (select count(*) as in_flight from held h where h."group" = c.task_id::text) as n
    where c.max_submits - c.submits - n.in_flight <= 0 and not c.is_resumed
    union all
    select 'limit', case when l.max_in_flight = 0 then format('lane %s may have nothing in flight: raise its max_in_flight', l.lane)
                         when l.places < l.max_in_flight then format('lane %s warms up: all its %s places of now are taken, by %s cells', l.lane, l.places, l.in_flight)
                         else format('all %s places of lane %s are taken, by %s cells in flight', l.places, l.lane, l.in_flight) end
                    || case when l.alive = 0 or l.places = 0 then ''
                            else format(' (%s of them were given up, and the upstream may work on them for %s after that)', l.alive, l.max_job_time) end,
           given_up.until, case when l.places = 0 then 'infinity' else coalesce(given_up.until, now()) end, 7
    from waiting c
    cross join lane l
    -- Where no worker holds a cell that could end, the end is known.
    left join lateral (
        select a.finished_at + l.max_job_time as until from imagemill.attempts a
        where l.submitting = 0 and l.places > 0 and a.lane = l.lane and a.may_be_alive and a.finished_at > now() - l.max_job_time
        order by a.finished_at offset greatest(l.in_flight - l.places, 0) limit 1) as given_up on true
    where l.in_flight >= l.places and not c.is_resumed
    union all
    select 'day_budget', format('lane %s may submit %s times a day (UTC); %s were made today and %s cells are in flight: raise its max_submits_per_day',
                                l.lane, l.max_submits_per_day, l.made_today, l.submitting),
           d.until, case when l.max_submits_per_day = 0 then 'infinity' else coalesce(d.until, now()) end, 8
    from waiting c
    cross join lane l
    -- The day is what it waits for only where no cell that ends can give it a place.
    cross join lateral (select case when l.made_today >= l.max_submits_per_day and l.max_submits_per_day > 0
                                    then l.tomorrow::timestamp at time zone 'UTC' end as until) as d
    where l.max_submits_per_day - l.made_today - l.submitting <= 0 and not c.is_resumed
    union all
    select 'rate', format('lane %s submits %s times a second: the next submits have been granted', l.lane, round(l.rate::numeric, 3)), d.due, d.due, 9
    from waiting c
    cross join lane l
    -- A claim grants submits a quarter of a second ahead.
    cross join lateral (select l.next_submit_at - make_interval(secs => 0.25 + l.slack) as due) as d
    where l.rate is not null and d.due > now() and not c.is_resumed
    union all
    select case when c.is_resumed then 'resume' else 'turn' end,
           case when c.cancel_requested_at is not null then 'it was asked to end: the next worker with a free slot ends it, and submits nothing'
                when c.is_resumed and c.status = 'pending' then 'an earlier attempt is asked for before anything is paid, as soon as a worker has a free slot'
                when c.is_resumed then 'an attempt is open: it is polled on before anything else, as soon as a worker has a free slot'
                else 'it is due; others are served before it, or no worker has a free slot' end, null, '-infinity', 10
    from waiting c
)
select answer.code, answer.why, answer.until
from (select case c.status when 'cancelled' then 'cancelled' else 'finished' end as code,
             case c.status when 'completed' then 'it is completed: it has its picture'
                           when 'cancelled' then coalesce(nullif(c.error, ''), 'it was cancelled')
                           else format('it has failed, %s', concat_ws(': ', c.error_kind, nullif(c.error, ''))) end as why,
             null::timestamptz as until, null::timestamptz as ends, 0 as place
      from cell c where c.status in ('completed', 'failed', 'cancelled')
      union all
      select 'no_job', 'it is open and has no open job: nobody will run it; cancel it, then retry it', null, null, 0
      from cell c where c.status in ('pending', 'processing') and (c.job is null or c.job not in ('Pending', 'Running', 'Queued'))
      union all
      select case when coalesce(c.leased_until <= clock_timestamp(), true) then 'dead_worker' else 'running' end,
             case when coalesce(c.leased_until <= clock_timestamp(), true)
                  then format('worker %s holds it and has given no beat since %s: another takes its cells back when it has watched it for a whole lease%s',
                              c.worker, coalesce(to_char(c.last_seen at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'), 'long ago'),
                              case when c.cancel_requested_at is not null then ', and ends this one, as it was asked to' else '' end)
                  else format('it is running: worker %s holds it', c.worker)
                       || case when c.cancel_requested_at is not null then ' and was asked to end it' else '' end end,
             null, null, 0
      from cell c where c.status in ('pending', 'processing') and c.job in ('Running', 'Queued')
      union all
      select * from reason) as answer
order by answer.ends desc nulls first, answer.place limit 1;
end;
comment on function imagemill.why_not_running is 'Why a cell is not running: one row with a code, the same in words, and until when, where that is known; of several reasons the one that ends last. No row: there is no such cell. The codes stand in the README.';
