-- The views, for people: readable in psql without a join. Each statement that begins with `create or replace` at the beginning of a
-- line is run by itself; where columns have changed the view is dropped first. src/db/views.rs runs this file.
--
-- Functions in a view run with the rights of who looks, and the tables below it with those of its owner: so the functions here
-- read no table.

create or replace function imagemill.as_uuid(text text) returns uuid
language sql immutable parallel safe
as $$ select case when $1 ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then $1::uuid end $$;
comment on function imagemill.as_uuid is 'The id that a text is; null where it is none.';

create or replace function imagemill.value_label(value jsonb) returns text
language sql immutable parallel safe
as $$
    -- As src/models/axis.rs says it.
    select case jsonb_typeof(value)
               when 'object' then
                   case when coalesce(btrim(value ->> 'value'), '') = '' then '(without)'
                        else coalesce(nullif(btrim(value ->> 'name'), ''), btrim(value ->> 'value'))
                             || case when (value -> 'weight')::numeric <> 1 then ' × ' || trim_scale((value -> 'weight')::numeric) else '' end
                   end
               when 'null' then 'none'
               when 'boolean' then case when value::boolean then 'on' else 'off' end
               else value #>> '{}'
           end
$$;
comment on function imagemill.value_label is 'An axis''s value as people call it: of a prompt its name, else its words, and its weight where that is not 1.';

create or replace function imagemill.axis_values(axes jsonb, variable_indices integer[]) returns jsonb
language sql immutable parallel safe
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
               'axis', number, 'name', axis ->> 'name', 'index', variable_indices[number + 1],
               'value', imagemill.value_label(axis -> 'values' -> variable_indices[number + 1])) order by number), '[]')
    from (select axis, place::integer - 1 as number from jsonb_array_elements(axes) with ordinality as given (axis, place)) as axes
$$;
comment on function imagemill.axis_values is 'Where a cell stands: number, name, index and value of each axis.';

create or replace function imagemill.position_text(axis_values jsonb) returns text
language sql immutable parallel safe
as $$
    select coalesce(string_agg(format('%s=%s', value ->> 'name', left(value ->> 'value', 60)), ', ' order by place), '')
    from jsonb_array_elements(axis_values) with ordinality as given (value, place)
$$;
comment on function imagemill.position_text is 'The same as one line.';

create or replace function imagemill.readable_payload(payload bytea) returns text
language sql immutable parallel safe
as $$
    -- Without an exception, which no parallel query could catch: what is not plain text shows by its escapes.
    select case when encode(payload, 'escape') ~ '\\' then encode(payload, 'hex') else encode(payload, 'escape') end
$$;
comment on function imagemill.readable_payload is 'A job''s payload as text; hex when it is not plain text.';

create or replace view imagemill.jobs as
with full_lanes as materialized (
    -- Once a look, by the indexes of what is in flight, and not for each job.
    select l.lane, format('a place: all %s of its lane are taken', l.max_in_flight) as waits_for
    from imagemill.lanes l
    where (select count(*) from imagemill.attempts a where a.lane = l.lane and a.finished_at is null)
          + (select count(*) from imagemill.attempts a
             where a.lane = l.lane and a.may_be_alive and a.finished_at > now() - l.max_job_time) >= l.max_in_flight
)
select j.id, j.job_type as queue, j.status, j.attempts as claim, j.run_at, j.lock_by as worker, j.lock_at as claimed_at, j.done_at,
       j.idempotency_key as key, j.metadata -> 'lane' as lane, j.metadata -> 'group' as "group", u.username as owner,
       j.metadata ? 'resume' as resume, imagemill.readable_payload(j.job) as payload, j.last_result,
       coalesce((j.metadata -> 'crashes')::integer, 0) as crashes, t.id as task_id, t.name as task, s.cell,
       case when j.status <> 'Pending' then null
            when j.metadata ? 'alone' then 'only workers that were started for its task may take it'
            when j.run_at > now() then coalesce(s.error, 'not due yet')
            when full_lanes.lane is not null and not j.metadata ? 'resume' then full_lanes.waits_for
            else concat_ws(', after: ', 'its turn', s.error)
       end as waits_for,
       j.metadata -> 'owner' as owner_id
from apalis.jobs j
left join full_lanes on full_lanes.lane = j.metadata -> 'lane'
left join imagemill.tasks t on t.id = imagemill.as_uuid(j.metadata -> 'group')
left join imagemill.users u on u.id = t.user_id
left join imagemill.subtasks s
       on s.id = imagemill.as_uuid(case when j.job_type = 'imagemill.generate_image' then j.idempotency_key end)
where j.job_type like 'imagemill.%';
comment on view imagemill.jobs is 'imagemill''s rows of apalis.jobs in readable form, each with its task and cell.';
comment on column imagemill.jobs.claim is 'Number of its latest claim; 0: never claimed.';
comment on column imagemill.jobs.worker is 'Who runs it. What is running is found by an index where worker is not null; no index has the status.';
comment on column imagemill.jobs.key is 'The cell''s id, or task_id:round.';
comment on column imagemill.jobs."group" is 'Id of its task.';
comment on column imagemill.jobs.owner is 'Name of its owner; owner_id is the id.';
comment on column imagemill.jobs.resume is 'An attempt is open: it is taken before any other.';
comment on column imagemill.jobs.crashes is 'Times that its worker died of nothing else; 5 fail it.';
comment on column imagemill.jobs.waits_for is 'Why a pending job is not running, and what its last attempt said; a pause of its lane is told by lane_overview, and the one reason that ends last by why_not_running.';

create or replace view imagemill.workers as
select i.name as worker, i.host, i.pid, i.version,
       case when w.id is null then coalesce(i.how, 'gone')
            when w.last_seen + coalesce(i.lease, interval '15 s') > clock_timestamp() then 'alive'
            else 'silent'
       end as state,
       w.id is not null and w.last_seen + coalesce(i.lease, interval '15 s') > clock_timestamp() as alive,
       w.last_seen + coalesce(i.lease, interval '15 s') - clock_timestamp() as lease_left,
       case when w.id is null then 0 else
           (select count(*) from apalis.jobs j where j.lock_by = w.id and j.status = 'Running' and j.job_type = 'imagemill.generate_image')
       end as cells_held,
       w.last_seen, i.started_at, i.ended_at, i.how, i.rescued_by, i.stale_writes
from imagemill.incarnations i
left join apalis.workers w on w.id = i.name and w.worker_type = 'imagemill';
comment on view imagemill.workers is 'Every worker there was: the living ones, and how the others ended.';
comment on column imagemill.workers.state is 'alive; silent: no beat for its lease, and not rescued yet; else how it ended.';
comment on column imagemill.workers.lease_left is 'Until it is taken for dead; below zero: it is overdue. Null: it has ended.';
comment on column imagemill.workers.cells_held is 'Cells that it is working on.';
comment on column imagemill.workers.stale_writes is 'Writes that its fence turned away.';

create or replace view imagemill.lane_overview as
select l.lane, coalesce(p.pending, 0) as pending, n.in_flight, l.max_in_flight,
       coalesce(r.submits, 0) as submits, coalesce(r.completed, 0) as completed, coalesce(r.turned_away, 0) as turned_away,
       round(coalesce(r.submits, 0) / 5.0, 1) as submits_per_minute, round(coalesce(r.completed, 0) / 5.0, 1) as completed_per_minute,
       r.median_time,
       now() - (select min(oldest) from (
           select (select j.run_at from apalis.jobs j
                   where j.job_type = 'imagemill.generate_image' and j.status = 'Pending' and j.job_type like 'imagemill.%'
                     and not j.metadata ? 'alone' and j.metadata -> 'lane' = l.lane and j.run_at <= now()
                   order by j.run_at limit 1) as oldest) as due) as oldest_waiting,
       (select string_agg(concat_ws(' ', q.reason, nullif(q.token_hash, ''), '(' || q.why || ')', 'until ' || to_char(q.until at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')), '; ' order by q.since)
        from imagemill.pauses q where q.lane = l.lane and (q.until is null or q.until > now())) as paused_why,
       l.max_submits_per_day, today.submits as submits_today,
       case when l.max_in_flight = 0 then 'a place: it has none'
            when n.in_flight >= l.max_in_flight then format('a place: all %s are taken', l.max_in_flight)
                 || case when n.given_up > 0 then format(', %s by cells that were given up within %s', n.given_up, l.max_job_time) else '' end
            when today.submits >= l.max_submits_per_day then format('tomorrow (UTC): its %s submits of today are made', l.max_submits_per_day)
       end as waits_for
from imagemill.lanes l
-- `offset 0` keeps it from being counted once for each time that it is named.
cross join lateral (select o.open + g.given_up as in_flight, g.given_up
                    from (select count(*) as open from imagemill.attempts a where a.lane = l.lane and a.finished_at is null) o
                    cross join (select count(*) as given_up from imagemill.attempts a
                                where a.lane = l.lane and a.may_be_alive and a.finished_at > now() - l.max_job_time) g
                    offset 0) n
cross join lateral (select (select coalesce(sum(d.submits), 0) from imagemill.lane_days d
                            where d.lane = l.lane and d.day = (now() at time zone 'UTC')::date)::bigint
                           + (select count(*) from imagemill.attempts a
                              where a.lane = l.lane and a.finished_at is null
                                and a.submitted_at >= date_trunc('day', now() at time zone 'UTC') at time zone 'UTC') as submits offset 0) today
left join (select j.metadata -> 'lane' as lane, count(*) as pending from apalis.jobs j
           where j.status = 'Pending' and j.job_type like 'imagemill.%' and j.job_type = 'imagemill.generate_image'
             and not j.metadata ? 'alone'
           group by 1) p using (lane)
left join (select a.lane,
                  count(*) filter (where (a.state <> 'not_sent' or a.resolved_at is not null) and a.submitted_at > now() - interval '5 minutes') as submits,
                  count(*) filter (where a.state = 'succeeded' and a.finished_at > now() - interval '5 minutes') as completed,
                  count(*) filter (where a.state = 'turned_away' and a.finished_at > now() - interval '5 minutes') as turned_away,
                  percentile_cont(0.5) within group (order by a.finished_at - a.submitted_at)
                      filter (where a.state = 'succeeded' and a.finished_at > now() - interval '5 minutes') as median_time
           from imagemill.attempts a where a.submitted_at > now() - interval '40 minutes' group by 1) r using (lane);
comment on view imagemill.lane_overview is 'Each way into the upstream: what waits, what is in flight, how fast it goes, and why it stands still.';
comment on column imagemill.lane_overview.pending is 'Cells that wait for a worker, those that are not due yet included; not those of tries against the simulator.';
comment on column imagemill.lane_overview.in_flight is 'Open attempts, and those given up on which the upstream may still be working.';
comment on column imagemill.lane_overview.submits is 'POSTs of the last 5 minutes; completed and turned_away ended in them, and were submitted in the last 40.';
comment on column imagemill.lane_overview.median_time is 'From submit to picture, of the cells completed in the last 5 minutes.';
comment on column imagemill.lane_overview.oldest_waiting is 'How long the cell that is due longest has been due.';
comment on column imagemill.lane_overview.paused_why is 'Every pause that holds: reason, token, why, until when. Null: none does.';
comment on column imagemill.lane_overview.waits_for is 'A place, where all are taken: no cell of it is begun until another ends, or its max_in_flight is raised; else tomorrow, where its submits of today are made. Null: neither.';
comment on column imagemill.lane_overview.submits_today is 'Attempts of today (UTC), without those that were surely not billed: what counts against max_submits_per_day.';

create or replace function imagemill.count_submits(task uuid, cells int4multirange)
returns table (day date, lane text, accepted bigint, "unknown" bigint)
language plpgsql stable strict security definer set search_path = pg_catalog set jit = off cost 1000 rows 2
as $$
begin
    return query
    select (a.submitted_at at time zone 'UTC')::date, a.lane, count(*) filter (where a.state <> 'unknown'), count(*) filter (where a.state = 'unknown')
    from unnest(cells) as given (range)
    -- Each range by the index: PostgreSQL cannot know how few cells they hold, and would read the whole task, or the whole table.
    -- A cell that was never begun has no attempt: of a task that waits, most.
    cross join lateral (select s.id from imagemill.subtasks s
                        where s.task_id = task and s.cell >= lower(range) and s.cell < upper(range) and s.started_at is not null offset 0) s
    cross join lateral (select t.submitted_at, t.lane, t.state from imagemill.attempts t
                        where t.subtask_id = s.id and t.state not in ('submitting', 'not_sent', 'turned_away', 'rejected') offset 0) a
    group by 1, 2;
end
$$;
comment on function imagemill.count_submits is 'Submits of some cells of a task that were billed, or of which nobody knows, counted from their attempts.';

create or replace function imagemill.cells_to_count(started_at timestamptz, total_images integer, open_cells int4multirange)
returns int4multirange language sql immutable parallel safe
as $$
    select case when started_at is null or open_cells = '{}' then null
                else coalesce(open_cells, int4multirange(int4range(0, total_images))) end
$$;
comment on function imagemill.cells_to_count is 'Cells of a task that no sum holds (open_cells: of the sum; null: there is none); null: none was begun, or all are summed up.';

create or replace view imagemill.task_overview as
select t.id, t.name, u.username as owner, t.status, t.round, t.priority, t.lane, t.total_images,
       c.completed_subtasks, c.failed_subtasks, c.cancelled_subtasks,
       c.completed_subtasks + c.failed_subtasks + c.cancelled_subtasks as processed_images,
       (100 * (c.completed_subtasks + c.failed_subtasks + c.cancelled_subtasks)::bigint / t.total_images)::integer as progress,
       t.created_at, t.started_at, t.completed_at,
       round((60 * r.ended / nullif(extract(epoch from coalesce(t.completed_at, now()) - r.started_at), 0))::numeric, 1) as cells_per_minute,
       case when t.completed_at is null then
           (t.total_images - c.completed_subtasks - c.failed_subtasks - c.cancelled_subtasks) * (now() - r.started_at) / nullif(r.ended, 0)
       end as time_left,
       coalesce(p.accepted, 0) + live.accepted as paid_submits, coalesce(p."unknown", 0) + live."unknown" as unknown_submits,
       t.max_submits, t.not_before, t.not_after, r.started_at as round_started_at
from imagemill.tasks t
join imagemill.task_counts c on c.task_id = t.id
join imagemill.users u on u.id = t.user_id
cross join lateral (select coalesce(t.round_started_at, t.started_at) as started_at,
                           c.completed_subtasks + c.failed_subtasks + c.cancelled_subtasks - t.ended_before_round as ended) r
left join imagemill.task_spend p on p.task_id = t.id and p.round = t.round
left join lateral (select coalesce(sum(c.accepted), 0)::bigint as accepted, coalesce(sum(c."unknown"), 0)::bigint as "unknown"
                   from imagemill.count_submits(t.id, imagemill.cells_to_count(t.started_at, t.total_images, p.open_cells)) c) live on true
where not t.is_deleted;
comment on view imagemill.task_overview is 'Each task that is not deleted, with its counts; progress is the floor of percent.';
comment on column imagemill.task_overview.cells_per_minute is 'Cells that ended in its present round, since that began.';
comment on column imagemill.task_overview.time_left is 'At that rate; null: it has ended, or no cell has in this round.';
comment on column imagemill.task_overview.round_started_at is 'When its present round began: with a retry, or, the first, with its first attempt.';
comment on column imagemill.task_overview.paid_submits is 'Submits that the upstream accepted, of all rounds.';
comment on column imagemill.task_overview.unknown_submits is 'Submits of which nobody knows whether they were accepted.';

create or replace view imagemill.subtask_details as
select s.task_id, t.name as task, u.username as owner, s.cell, s.status, imagemill.position_text(imagemill.axis_values(t.axes, s.variable_indices)) as position,
       s.error_kind, s.error, s.variable_indices, s.copy, imagemill.axis_values(t.axes, s.variable_indices) as axis_values,
       imagemill.expanded_prompts(t.prompts, s.variable_indices) as prompts, s.seed, s.ratio, s.width, s.height, s.lane,
       s.use_polish, s.is_lumina, s.lumina_model_name, s.lumina_cfg, s.lumina_step,
       s.attempt_count, a.ordinal as last_attempt, a.state as last_state, a.upstream_id, a.http_status, a.polls, a.error as last_error,
       a.worker, a.submitted_at, a.finished_at, s.rating, s.result, s.result_file, s.result_sha256,
       s.created_at, s.started_at, s.completed_at, s.id,
       (select string_agg(format('%s: %s', author.username, r.text), '; ' order by r.created_at)
        from imagemill.remarks r join imagemill.users author on author.id = r.user_id where r.subtask_id = s.id) as remarks,
       s.reused_from
from imagemill.subtasks s
join imagemill.tasks t on t.id = s.task_id
join imagemill.users u on u.id = t.user_id
left join lateral (select * from imagemill.attempts a where a.subtask_id = s.id order by a.ordinal desc limit 1) a on true
where not t.is_deleted;
comment on view imagemill.subtask_details is 'Each cell with all there is to know of it. Ask for one task, or for one cell by task_id and cell, or by id.';
comment on column imagemill.subtask_details.position is 'Where it stands in the grid: name=value of each axis.';
comment on column imagemill.subtask_details.axis_values is 'The same as data: axis, name, index, value.';
comment on column imagemill.subtask_details.prompts is 'Its own prompts, as they are sent: an empty value is left out.';
comment on column imagemill.subtask_details.upstream_id is 'Of its last attempt.';
comment on column imagemill.subtask_details.reused_from is 'The cell for which its picture was paid; null: itself.';

create or replace view imagemill.failures as
select g.task_id, t.name as task, u.username as owner, g.error_kind, g.cells, g.latest_at,
       (select s.error from imagemill.subtasks s
        where s.task_id = g.task_id and s.error_kind = g.error_kind order by s.completed_at desc limit 1) as latest_error,
       array(select s.cell from imagemill.subtasks s
             where s.task_id = g.task_id and s.error_kind = g.error_kind order by s.completed_at desc limit 3) as examples
from (select s.task_id, s.error_kind, count(*) as cells, max(s.completed_at) as latest_at
      from imagemill.subtasks s where s.error_kind is not null group by s.task_id, s.error_kind) g
join imagemill.tasks t on t.id = g.task_id
join imagemill.users u on u.id = t.user_id
where not t.is_deleted;
comment on view imagemill.failures is 'Why cells failed: one row a task and kind of error.';
comment on column imagemill.failures.latest_error is 'What the upstream said, or what went wrong, of the cell that failed last.';
comment on column imagemill.failures.examples is 'Up to three cells, the latest first: look at them in subtask_details.';

create or replace view imagemill.attempts_timeline as
select s.task_id, t.name as task, s.cell, a.subtask_id, a.ordinal, e.at, e.event, e.at - a.submitted_at as after, a.upstream_id, a.lane,
       a.worker, a.round, a.claim, case when e.is_end then a.http_status end as http_status, case when e.is_end then a.polls end as polls,
       case when e.is_end then a.error end as error
from imagemill.attempts a
join imagemill.subtasks s on s.id = a.subtask_id
join imagemill.tasks t on t.id = s.task_id
cross join lateral (values (a.submitted_at, 'submitted', false), (a.accepted_at, 'accepted', false), (a.reopened_at, 'reopened', false),
                           (a.finished_at, a.state, true), (a.resolved_at, 'resolved', false)) as e (at, event, is_end)
where e.at is not null;
comment on view imagemill.attempts_timeline is 'What each attempt did when, one row an event, those of deleted tasks included. Ask for one cell by subtask_id and order by ordinal, at.';
comment on column imagemill.attempts_timeline.event is 'submitted: its row was written, just before the POST left; accepted; reopened; the state that it ended in; or resolved, when a person said what became of it.';
comment on column imagemill.attempts_timeline.after is 'Since its submit.';

create or replace view imagemill.spend as
select spent.day, u.username as owner, spent.task_id, t.name as task, spent.lane, spent.accepted, spent."unknown", spent.user_id
from (select day, user_id, task_id, lane, sum(accepted)::bigint as accepted, sum("unknown")::bigint as "unknown" from (
      select given.day, t.user_id, p.task_id, given.lane, given.accepted, given."unknown"
      from imagemill.task_spend p
      join imagemill.tasks t on t.id = p.task_id and t.round = p.round
      cross join lateral unnest(p.days, p.lanes, p.accepted_by_day, p.unknown_by_day) as given (day, lane, accepted, "unknown")
      union all
      select c.day, t.user_id, t.id, c.lane, c.accepted, c."unknown"
      from imagemill.task_spend p
      join imagemill.tasks t on t.id = p.task_id and t.round = p.round
      cross join lateral imagemill.count_submits(t.id, p.open_cells) c
      where p.open_cells <> '{}'
      union all
      select (a.submitted_at at time zone 'UTC')::date, t.user_id, t.id, a.lane,
             count(*) filter (where a.state <> 'unknown'), count(*) filter (where a.state = 'unknown')
      from imagemill.tasks t
      join imagemill.subtasks s on s.task_id = t.id
      join imagemill.attempts a on a.subtask_id = s.id
      where t.started_at is not null and not exists (select from imagemill.task_spend p where p.task_id = t.id and p.round = t.round)
        and a.state not in ('submitting', 'not_sent', 'turned_away', 'rejected')
      group by 1, 2, 3, 4
      union all
      select day, user_id, task_id, lane, accepted, "unknown" from imagemill.spend_sums) as each group by day, user_id, task_id, lane) as spent
left join imagemill.users u on u.id = spent.user_id
left join imagemill.tasks t on t.id = spent.task_id;
comment on view imagemill.spend is 'What was paid for, or perhaps: submits by day, owner, task and lane, those of purged tasks included.';
comment on column imagemill.spend.day is 'Day of the submits, in UTC.';
comment on column imagemill.spend.task is 'Null: the task was purged.';
comment on column imagemill.spend.accepted is 'Submits that the upstream accepted: each is billed.';
comment on column imagemill.spend."unknown" is 'Submits of which nobody knows whether they were accepted: perhaps billed.';

create or replace view imagemill.double_paid as
select s.task_id, t.name as task, u.username as owner, s.cell, s.status, g.accepted, g."unknown", g.states, g.upstream_ids, s.id
from imagemill.subtasks s
join imagemill.tasks t on t.id = s.task_id
join imagemill.users u on u.id = t.user_id
-- Only cells of more than one attempt, each by its own: whoever asks for one task reads no other's.
cross join lateral (select count(*) filter (where a.state <> 'unknown') as accepted, count(*) filter (where a.state = 'unknown') as "unknown",
                           array_agg(a.state order by a.ordinal) as states,
                           array_agg(a.upstream_id order by a.ordinal) as upstream_ids
                    from imagemill.attempts a
                    where a.subtask_id = s.id and a.state not in ('submitting', 'not_sent', 'turned_away', 'rejected')
                    having count(*) > 1) g
where s.attempt_count > 1;
comment on view imagemill.double_paid is 'Cells of which more than one submit was accepted, or may have been: new attempts that a policy allowed, and nothing else. Those of deleted tasks included.';
comment on column imagemill.double_paid.states is 'Their attempts that were billed or may have been, in order: failed and timed_out allow another; unknown and abandoned only if on_unknown_submit or on_poll_limit says resubmit, or a person did.';

create or replace view imagemill.axis_overview as
select t.id as task_id, c.number - 1 as axis, t.axes -> (c.number - 1)::integer ->> 'name' as name, c.index as value_index,
       imagemill.value_label(t.axes -> (c.number - 1)::integer -> 'values' -> c.index) as value,
       c.cells, c.completed, c.failed, round(100.0 * c.failed / c.cells, 1) as failed_percent, c.rated, c.average_rating,
       t.name as task, u.username as owner
from imagemill.tasks t
join imagemill.users u on u.id = t.user_id
-- Counted before anything of the task is looked at: its axes are large, and would be compared for each cell and axis. And of each task
-- by itself, so that whoever asks by name reads no other's cells.
cross join lateral (select given.number, given.index, count(*) as cells, count(*) filter (where s.status = 'completed') as completed,
                           count(*) filter (where s.status = 'failed') as failed, count(s.rating) as rated,
                           round(avg(s.rating), 2) as average_rating
                    from imagemill.subtasks s
                    cross join lateral unnest(s.variable_indices) with ordinality as given (index, number)
                    where s.task_id = t.id
                    group by given.number, given.index) as c
where not t.is_deleted;
comment on view imagemill.axis_overview is 'Each value of each axis: its cells, how many failed, and how they are rated. Ask for one task.';
comment on column imagemill.axis_overview.axis is 'Its number, from 0.';
comment on column imagemill.axis_overview.value_index is 'Its place on the axis, from 0: equal values stay apart.';
comment on column imagemill.axis_overview.average_rating is 'Of the cells that are rated; null: none is.';

create or replace function imagemill.find_stuck() returns table (reason text, task_id uuid, cell integer, subtask_id uuid, lane text,
                                                               worker text, since timestamptz)
language sql stable security definer set search_path = pg_catalog set jit = off set max_parallel_workers_per_gather = 0 rows 10
begin atomic
-- In one process: to start another takes longer than all of these looks.
with recursive open_tasks (task_id) as (
    -- Tasks with open cells, each by one look into the index of those.
    (select s.task_id from imagemill.subtasks s where s.completed_at is null order by s.task_id limit 1)
    union all
    select next.task_id
    from open_tasks o
    cross join lateral (select s.task_id from imagemill.subtasks s where s.completed_at is null and s.task_id > o.task_id
                        order by s.task_id limit 1) next
), open_cells as (
    select o.task_id, t.completed_at is not null as has_ended, t.updated_at,
           greatest(t.total_images - c.completed_subtasks - c.failed_subtasks - c.cancelled_subtasks, 0) as cells
    from open_tasks o
    join imagemill.tasks t on t.id = o.task_id
    join imagemill.task_counts c on c.task_id = o.task_id
), few as (
    -- Each cell of these is looked at. To do so with a million that wait takes a second: of a task with many, a cell without a job
    -- shows when few are left, and all of them when no job is left.
    select summed.task_id
    from (select o.task_id, sum(o.cells) over (order by o.cells, o.task_id) as cells from open_cells o) summed
    where summed.cells <= 2000
), running as (
    select distinct metadata -> 'group' as "group" from apalis.jobs
    where lock_by is not null and status = 'Running' and job_type = 'imagemill.generate_image'
), found as (
    select 'an open cell has no open job: nobody will run it' as reason, s.task_id, s.cell, s.id as subtask_id, null::text as worker,
           s.lane, s.updated_at as since
    from few f
    join imagemill.subtasks s on s.task_id = f.task_id and s.completed_at is null
    where not exists (select from apalis.jobs k where k.job_type = 'imagemill.generate_image' and k.idempotency_key = s.id::text
                                                  and k.status in ('Pending', 'Running'))
    union all
    select format('none of its %s open cells has an open job: nobody will run them', o.cells), o.task_id, null, null, null, null,
           o.updated_at
    from open_cells o
    where o.task_id not in (select f.task_id from few f) and o.task_id::text not in (select r."group" from running r where r."group" is not null)
      and not exists (select from apalis.jobs k where k.job_type = 'imagemill.generate_image' and k.status = 'Pending'
                                                  and k.job_type like 'imagemill.%' and k.metadata -> 'group' = o.task_id::text)
    union all
    select 'an open cell belongs to a task that has ended', s.task_id, s.cell, s.id, null, s.lane, s.updated_at
    from open_cells o
    join imagemill.subtasks s on s.task_id = o.task_id and s.completed_at is null
    where o.has_ended
    union all
    select 'an attempt is open, and no job will go on with it', s.task_id, s.cell, s.id, a.worker, a.lane, a.submitted_at
    from imagemill.attempts a
    join imagemill.subtasks s on s.id = a.subtask_id
    where a.finished_at is null
      and not exists (select from apalis.jobs k where k.job_type = 'imagemill.generate_image' and k.idempotency_key = a.subtask_id::text
                                                  and k.status in ('Pending', 'Running'))
    union all
    select 'the answer to a submit is overdue, and its attempt is still open', s.task_id, s.cell, s.id, a.worker, a.lane, a.answer_until
    from imagemill.attempts a
    join imagemill.subtasks s on s.id = a.subtask_id
    where a.finished_at is null and a.state = 'submitting' and a.answer_until < now()
    union all
    select 'all its cells have ended, and nothing will complete the task', t.id, null, null, null, null, t.updated_at
    from imagemill.tasks t
    where t.status in ('pending', 'processing')
      and not exists (select from imagemill.subtasks s where s.task_id = t.id and s.completed_at is null)
      and not exists (select from apalis.jobs k where k.job_type = 'imagemill.complete_task'
                                                  and k.idempotency_key = t.id || ':' || t.round and k.status in ('Pending', 'Running'))
    union all
    select format('its job has ended %s workers: at 5 it fails as crash_loop', k.metadata -> 'crashes'),
           imagemill.as_uuid(k.metadata -> 'group'), s.cell, s.id, k.lock_by, s.lane, k.run_at
    from apalis.jobs k
    left join imagemill.subtasks s on s.id = imagemill.as_uuid(k.idempotency_key)
    where k.status = 'Pending' and k.job_type like 'imagemill.%' and k.metadata ? 'solitary'
    union all
    select 'a worker has given no beat for two leases, and none has rescued it', null, null, null, w.id, null, w.last_seen
    from apalis.workers w
    join imagemill.incarnations i on i.name = w.id
    where w.worker_type = 'imagemill' and w.last_seen + 2 * coalesce(i.lease, interval '15 s') < clock_timestamp()
    union all
    select 'cells wait, and no worker is alive', null, null, null, null, l.lane, due.run_at
    from imagemill.lanes l
    cross join lateral (select j.run_at from apalis.jobs j
                        where j.job_type = 'imagemill.generate_image' and j.status = 'Pending' and j.job_type like 'imagemill.%'
                          and not j.metadata ? 'alone' and j.metadata -> 'lane' = l.lane and j.run_at <= now()
                        order by j.run_at limit 1) as due
    where not exists (select from apalis.workers w join imagemill.incarnations i on i.name = w.id
                      where w.worker_type = 'imagemill' and w.last_seen + coalesce(i.lease, interval '15 s') > clock_timestamp())
)
select f.reason, f.task_id, f.cell, f.subtask_id, f.lane, f.worker, f.since from found f;
end;
comment on function imagemill.find_stuck is 'What the view stuck shows. A function, since to compile so many looks would take longer than they do.';

create or replace view imagemill.stuck as
select f.reason, now() - f.since as age, t.name as task, f.cell, f.lane, f.worker, f.task_id, f.subtask_id, f.since
from imagemill.find_stuck() f
left join imagemill.tasks t on t.id = f.task_id;
comment on view imagemill.stuck is 'What should not be, each with the reason. Empty: all is well. For a moment, between two commits, something may show that is gone at the next look.';
