-- The claim: limits, turns and budgets of the lanes. Functions, since a claim must count after it has the lane's lock, and each
-- statement of a plpgsql function sees what was committed before it began; a client would need a round trip for each.
--
-- Here and not in a migration, since they lean on apalis's columns. Replacing them locks nothing that a live fleet uses; one
-- whose arguments change needs a new name, since workers of the version before call the old one.

-- Groups with pending jobs in these lanes, each with the time of its first. One look by index a group.
create or replace function imagemill.waiting_groups(p_queue text, p_lanes text[])
returns table (lane text, "group" text, owner text, run_at timestamptz, id text)
language sql stable
as $$
    with recursive found as (
        select wanted.lane, first.*
        from unnest(p_lanes) as wanted (lane)
        cross join lateral (
            select metadata -> 'group' as "group", metadata -> 'owner' as owner, run_at, id from apalis.jobs
            where job_type = p_queue and status = 'Pending' and job_type like 'imagemill.%' and not metadata ? 'alone'
              and metadata -> 'lane' = wanted.lane
            order by metadata -> 'group', run_at, id limit 1) as first
        union all
        select found.lane, next.*
        from found
        cross join lateral (
            select metadata -> 'group' as "group", metadata -> 'owner' as owner, run_at, id from apalis.jobs
            where job_type = p_queue and status = 'Pending' and job_type like 'imagemill.%' and not metadata ? 'alone'
              and metadata -> 'lane' = found.lane and metadata -> 'group' > found."group"
            order by metadata -> 'group', run_at, id limit 1) as next
    )
    select * from found
$$;

-- What the queue asks of the tasks that its groups are; submits_left leaves the cells in flight out. Null: nothing bounds it. A
-- task that has a last moment is bounded, so that a claim looks at it under its locks, and nothing is left of it from then on.
create or replace function imagemill.group_limits(groups text[])
returns table ("group" text, weight integer, not_before timestamptz, submits_left bigint)
-- Not in plain SQL: what asks the clock is not put into the query that calls it, and is planned anew by each.
language plpgsql stable
as $$
#variable_conflict use_column
begin
    return query
    select tasks.id::text, tasks.priority::integer, tasks.not_before,
           case when tasks.not_after <= clock_timestamp() then 0
                when tasks.not_after is not null then coalesce(tasks.max_submits - counts.submits, 2147483647)
                else tasks.max_submits - counts.submits end::bigint
    from imagemill.tasks tasks join imagemill.task_counts counts on counts.task_id = tasks.id
    where tasks.id = any (array(select imagemill.as_uuid(given) from unnest(groups) as given));
end
$$;

comment on function imagemill.group_limits is 'What the queue asks of the tasks that its groups are. submits_left leaves the cells in flight out; null: nothing bounds it.';

-- The same with what the turns go by, where the times of the groups have come. What is in no lane submits nothing: neither times
-- nor budgets hold it up.
create or replace function imagemill.groups_to_claim(p_queue text, p_lanes text[])
returns table (lane text, "group" text, owner text, run_at timestamptz, id text, weight integer, has_budget boolean, jobs bigint, owner_jobs bigint)
-- Planned once, and as the claim's own looks are.
language plpgsql stable
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
begin
    return query
    with found as materialized (
        select * from imagemill.waiting_groups(p_queue, p_lanes)
    ), held as materialized (
        select held.metadata -> 'lane' as lane, held.metadata -> 'owner' as owner, held.metadata -> 'group' as "group", count(*) as jobs
        from apalis.workers as workers
        cross join lateral (select jobs.metadata from apalis.jobs as jobs
                            where jobs.lock_by = workers.id and jobs.job_type = p_queue offset 0) as held
        group by 1, 2, 3
    ), owners as (
        select held.lane, held.owner, sum(held.jobs)::bigint as jobs from held group by 1, 2
    )
    select found.lane, found."group", found.owner, found.run_at, found.id, coalesce(limits.weight, 1),
           limits.submits_left is not null and found.lane <> '',
           coalesce(held.jobs, 0), coalesce(owners.jobs, 0)
    from found
    left join imagemill.group_limits(array(select found."group" from found)) as limits on limits."group" = found."group"
    left join held on held.lane = found.lane and held."group" = found."group"
    left join owners on owners.lane = found.lane and owners.owner = found.owner
    where found.run_at <= now() and (limits.not_before is null or limits.not_before <= now() or found.lane = '');
end
$$;

-- How a lane's submits follow one another: step seconds apart, and up to slack seconds before their time.
--
-- A submit arrives up to 0.1 s later than it was granted for (src/queue/grant.rs keeps to 0.04 s before it leaves, and the rest is
-- the way). So in a second arrive at most burst + 1.1 * rate of those granted here; what that is too much is taken from the
-- burst, and where the burst is too small from the rate.
create or replace function imagemill.submit_pace(p_rate double precision, p_burst integer)
returns table (step double precision, slack double precision)
language sql immutable
as $$
    select 1 / paced.rate, (paced.burst - 1) / paced.rate
    from (select case when p_burst - 0.1 * p_rate > 1 then p_rate
                      else least(p_rate, (floor(p_rate + p_burst) - 0.001) / 1.1) end as rate,
                 greatest(1, p_burst - 0.1 * p_rate) as burst) as paced
$$;

-- The same time of a lane by the pace of now: next_submit_at was written by the pace of then, which somebody may have changed. What
-- was granted counts as much as before, however long it would have taken to be gone at the old pace. Where some of it has still to
-- leave, the others follow behind it one by one: it leaves by the old pace, and beside it there is room for nothing.
create or replace function imagemill.next_submit(
    p_at timestamptz, p_step_then double precision, p_slack_then double precision, p_step double precision, p_slack double precision,
    p_moment timestamptz)
returns timestamptz
language sql stable
as $$
    select case
        when p_step_then is null or (p_step_then = p_step and p_slack_then = p_slack) or p_at <= p_moment then p_at
        when p_at - make_interval(secs => p_step_then + p_slack_then) > p_moment
            then p_at - make_interval(secs => p_step_then + p_slack_then) + make_interval(secs => p_step + p_slack)
        else p_moment + make_interval(secs => least(extract(epoch from p_at - p_moment)::double precision / p_step_then * p_step, p_step + p_slack))
        end
$$;

-- The next submit of this lane, for one that came too late for its own: in how many seconds it may leave, and how long the lane's
-- lock was waited for. Null: the lane has no rate any more. One that would be further ahead than p_within is not granted: it is
-- asked for again, since the rate may be another by then.
create or replace function imagemill.ask_submit(
    p_lane text, p_within double precision, out wait double precision, out waited double precision, out is_granted boolean)
language plpgsql
as $$
declare
    began timestamptz := clock_timestamp();
    moment timestamptz;
    due double precision;
    pace record;
begin
    perform set_config('synchronous_commit', 'off', true);
    perform from imagemill.lane_states as state where state.lane = p_lane for no key update;
    moment := clock_timestamp();
    waited := extract(epoch from moment - began);
    is_granted := true;
    select imagemill.next_submit(states.next_submit_at, states.submit_step, states.submit_slack, submit_pace.step, submit_pace.slack,
                                 moment) as next_submit_at,
           submit_pace.step, submit_pace.slack into pace
    from imagemill.lane_states as states
    join imagemill.lanes as lanes on lanes.lane = states.lane
    cross join imagemill.submit_pace(least(lanes.current_rate, lanes.submits_per_second), lanes.burst)
    where states.lane = p_lane and least(lanes.current_rate, lanes.submits_per_second) is not null;
    if not found then
        return;
    end if;
    due := greatest(0, coalesce(extract(epoch from pace.next_submit_at - moment), 0));
    wait := greatest(0, due - pace.slack);
    is_granted := p_within is null or wait <= p_within;
    if is_granted then
        update imagemill.lane_states as states
        set next_submit_at = moment + make_interval(secs => due + pace.step), submit_step = pace.step, submit_slack = pace.slack
        where states.lane = p_lane;
    end if;
end
$$;

-- The same as workers of the version before ask for it.
create or replace function imagemill.grant_submit(p_lane text, out wait double precision, out waited double precision)
language sql
as $$
    select asked.wait, asked.waited from imagemill.ask_submit(p_lane, null) as asked
$$;

-- Whether what is to be polled in this lane is for others than the holders of this token: it is refused there, and a living worker
-- of the lane has one that is not.
create or replace function imagemill.is_for_others(p_lane text, p_token_hash text) returns boolean
language sql stable
as $$
    select p_token_hash <> ''
       and exists (select from imagemill.pauses as pauses
                   where pauses.lane = p_lane and pauses.token_hash = p_token_hash and pauses.reason in ('auth', 'payment'))
       and exists (select from apalis.workers as workers
                   join imagemill.incarnations as others on others.name = workers.id
                   where workers.worker_type = 'imagemill' and others.ended_at is null and others.only_group is null
                     and workers.last_seen + coalesce(others.lease, interval '15 s') > clock_timestamp()
                     and (others.lanes is null or p_lane = any (others.lanes))
                     and others.token_hash not in ('', p_token_hash)
                     and not exists (select from imagemill.pauses as pauses
                                     where pauses.lane = p_lane and pauses.token_hash = others.token_hash
                                       and pauses.reason in ('auth', 'payment')))
$$;

-- Claims up to p_wanted jobs of these lanes.
--
-- p_lane_of, p_group_of, ...: the groups that may have jobs, oldest first, each with its owner, its weight, whether it has a
-- budget, and from where on it waits. A hint: what is missing waits until it is known. Null: they are looked for.
-- p_group: jobs of this group alone, those that only it may take included. p_key: the one job of this key. p_solitary: one job
-- that is to be alone. p_oldest: none of the lanes' running jobs was claimed before.
--
-- Rows with an id are claimed jobs; wait is how many seconds after the claim its submit may leave, null: at once. Rows without
-- one say why less was taken: of a lane (key is the word, wait: look again after so many seconds), of a group that has no due
-- job, and, without both, run_at is the p_oldest of the next claim and wait how long the lanes' locks were waited for.
create or replace function imagemill.claim(
    p_queue text, p_worker text, p_wanted integer, p_lanes text[], p_token_hash text, p_oldest timestamptz, p_group text,
    p_key text, p_solitary boolean,
    p_lane_of text[], p_group_of text[], p_owner_of text[], p_weight_of integer[], p_budget_of boolean[],
    p_after_of timestamptz[], p_after_id_of text[])
returns table (id text, job bytea, claim integer, key text, is_resumed boolean, crashes integer, lane text, "group" text,
               run_at timestamptz, wait double precision)
language plpgsql
-- Plans are made once: each of these statements is an index's look whatever the arguments are, and whether or not anybody has
-- counted the tables yet: nothing that an index has in order is sorted.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
#variable_conflict use_column
declare
    -- A submit is granted for a moment so far ahead, so that a lane's places come in groups and nobody asks for each.
    ahead constant double precision := 0.25;
    -- The row of an attempt is written meanwhile.
    lead constant double precision := 0.025;
    -- After a pause that ended by itself one submit is tried so often until one is taken.
    trial constant interval := '5 seconds';
    began timestamptz := clock_timestamp();
    moment timestamptz;
    got integer := 0;
    -- Cells in flight, by lane, owner and group.
    flying_lane text[]; flying_owner text[]; flying_group text[]; flying integer[];
    oldest timestamptz;
    -- The lanes, by place in lane_of.
    -- is_last: it is its places alone that are fewer than what is wanted.
    lane_of text[] := '{}'; is_last boolean[] := '{}'; room integer[] := '{}'; base double precision[] := '{}'; step double precision[] := '{}';
    slack double precision[] := '{}'; given integer[] := '{}'; is_trial boolean[] := '{}';
    -- Something is in flight; and of one with a ramp since when, where that or the time of the last activity is to be written.
    is_active boolean[] := '{}'; ramped timestamptz[] := '{}';
    -- The candidates.
    taken integer[]; is_done boolean[];
    -- Of those with a budget.
    left_of bigint[];
    -- Taken by key or alone: the groups that may submit.
    open_groups text[];
    missing integer[];
    is_short boolean;
    dealt integer[];
    free_lanes text[];
    places_of integer[];
    numbers integer[];
    ids text[];
    tuples tid[];
    one record;
    place integer;
    free integer;
    in_flight bigint;
    ceiling integer;
    due double precision;
    pace record;
    cold boolean;
    cut integer;
    open_lanes integer;
begin
    if p_key is not null then
        select array[jobs.metadata -> 'lane'], array[jobs.metadata -> 'group'], array[true] into p_lane_of, p_group_of, p_budget_of
        from apalis.jobs as jobs where jobs.job_type = p_queue and jobs.idempotency_key = p_key;
    elsif p_solitary then
        select array_agg(listed.lane), array_agg(listed."group"), array_agg(true) into p_lane_of, p_group_of, p_budget_of
        from (select distinct waiting.lane, waiting."group"
              from (select jobs.metadata -> 'lane' as lane, jobs.metadata -> 'group' as "group" from apalis.jobs as jobs
                    where jobs.job_type = p_queue and jobs.status = 'Pending' and jobs.job_type like 'imagemill.%'
                      and jobs.metadata ? 'solitary' and jobs.run_at <= now()
                      and case when p_group is null then not jobs.metadata ? 'alone' else jobs.metadata -> 'group' = p_group end
                    order by jobs.run_at, jobs.id limit 300) as waiting
              where waiting.lane = any (p_lanes)) as listed;
    elsif p_group_of is null then
        with found as materialized (
            select waiting.* from imagemill.waiting_groups(p_queue, p_lanes) as waiting
            where waiting.run_at <= now() order by waiting."group" limit 300
        )
        select array_agg(found.lane), array_agg(found."group"), array_agg(found.owner), array_agg(coalesce(limits.weight, 1)),
               array_agg(limits.submits_left is not null and found.lane <> ''), array_agg(null::timestamptz), array_agg(null::text)
        into p_lane_of, p_group_of, p_owner_of, p_weight_of, p_budget_of, p_after_of, p_after_id_of
        from found
        left join imagemill.group_limits(array(select found."group" from found)) as limits on limits."group" = found."group"
        where limits.not_before is null or limits.not_before <= now() or found.lane = '';
        if p_group_of is null then
            -- The first whose time will come, if that is what is waited for.
            select 'not_before', extract(epoch from min(limits.not_before) - now())::double precision into key, wait
            from imagemill.group_limits(array(select waiting."group" from imagemill.waiting_groups(p_queue, p_lanes) as waiting
                                              where waiting.run_at <= now() limit 300)) as limits
            where limits.not_before > now();
            if wait is not null then
                id := null; lane := null; "group" := ''; wait := least(wait, 3600); return next;
            end if;
        end if;
    end if;
    -- Every write for a claim carries its fence, and the row of a POST is on the disk, and with it the claim before it, when the
    -- POST leaves. So nobody waits for the disk while others wait for the lane.
    perform set_config('synchronous_commit', 'off', true);
    -- First of all, and by all in this order: from here on nobody else claims in these lanes.
    perform from imagemill.lane_states as state where state.lane = any (p_lanes) order by state.lane for no key update;
    moment := clock_timestamp();

    -- An attempt is open: it must be polled on, whatever else waits, and takes no place that it has not already.
    if p_key is not null or p_solitary then
        null;
    elsif p_group is null then
        select array_agg(waiting.id) into ids
        from unnest(p_lanes) as wanted (lane)
        cross join lateral (
            select jobs.id from apalis.jobs as jobs
            where jobs.job_type = p_queue and jobs.status = 'Pending' and jobs.job_type like 'imagemill.%'
              and jobs.metadata ? 'resume' and jobs.metadata -> 'lane' = wanted.lane and not jobs.metadata ? 'alone'
              and not jobs.metadata ? 'solitary' and jobs.run_at <= now()
            order by jobs.run_at, jobs.id limit p_wanted
            for update skip locked) as waiting
        -- Whoever may not poll it would only hand it over again. The function only where its token is refused at all: each call of it
        -- would cost an idle worker's claim a tenth.
        where not (exists (select from imagemill.pauses as pauses
                           where pauses.lane = wanted.lane and pauses.token_hash = p_token_hash and pauses.reason in ('auth', 'payment'))
                   and imagemill.is_for_others(wanted.lane, p_token_hash));
    else
        select array_agg(waiting.id) into ids
        from (select jobs.id from apalis.jobs as jobs
              where jobs.job_type = p_queue and jobs.status = 'Pending' and jobs.job_type like 'imagemill.%'
                and jobs.metadata ? 'resume' and jobs.metadata -> 'group' = p_group and jobs.metadata -> 'lane' = any (p_lanes)
                and not jobs.metadata ? 'solitary' and jobs.run_at <= now()
              order by jobs.run_at, jobs.id limit p_wanted
              for update skip locked) as waiting;
    end if;
    if ids is not null then
        return query
        update apalis.jobs as jobs
        set status = 'Running', lock_by = p_worker, lock_at = moment, attempts = jobs.attempts + 1
        where jobs.id = any (ids[1:p_wanted])
        returning jobs.id, jobs.job, jobs.attempts, jobs.idempotency_key, true, coalesce((jobs.metadata -> 'crashes')::integer, 0),
                  jobs.metadata -> 'lane', jobs.metadata -> 'group', jobs.run_at, null::double precision;
        get diagnostics got = row_count;
    end if;

    -- In flight, in one statement, so that what moves from one kind to another is seen once: jobs that run, with an open attempt
    -- or before it; open attempts whose job waits for a worker; attempts on which the upstream may still be working.
    select array_agg(found.lane), array_agg(found.owner), array_agg(found."group"), array_agg(found.jobs), min(found.oldest)
    into flying_lane, flying_owner, flying_group, flying, oldest
    from (
        select counted.metadata -> 'lane' as lane, counted.metadata -> 'owner' as owner, counted.metadata -> 'group' as "group",
               sum(counted.jobs)::integer as jobs, min(counted.oldest) as oldest
        -- By all that a job's metadata hold, and only then by what is wanted of them: the jobs of a group have the same.
        -- With an offset, so that each worker's are looked up by themselves whatever is known of the tables.
        from (select held.metadata, count(*) as jobs, min(held.lock_at) as oldest
              from apalis.workers as workers
              cross join lateral (select jobs.metadata, jobs.lock_at from apalis.jobs as jobs
                                  where jobs.lock_by = workers.id and jobs.lock_at >= coalesce(p_oldest, '-infinity')
                                    and jobs.job_type like 'imagemill.%' offset 0) as held
              group by 1) as counted
        where counted.metadata -> 'lane' = any (p_lanes)
        group by 1, 2, 3
        union all
        select waiting.metadata -> 'lane', waiting.metadata -> 'owner', waiting.metadata -> 'group', count(*)::integer, null
        from unnest(p_lanes) as wanted (lane)
        cross join lateral (select jobs.metadata from apalis.jobs as jobs
                            where jobs.job_type = p_queue and jobs.status = 'Pending' and jobs.job_type like 'imagemill.%'
                              and jobs.metadata ? 'resume' and jobs.metadata -> 'lane' = wanted.lane
                              and not jobs.metadata ? 'alone') as waiting
        group by 1, 2, 3
        union all
        select lanes.lane, null, null, alive.attempts::integer, null
        from imagemill.lanes as lanes
        cross join lateral (select count(*) as attempts from imagemill.attempts as attempts
                            where attempts.lane = lanes.lane and attempts.may_be_alive
                              and attempts.finished_at > moment - lanes.max_job_time) as alive
        where lanes.lane = any (p_lanes) and alive.attempts > 0
    ) as found;
    oldest := coalesce(oldest, moment);

    for one in
        select wanted.lane, lanes.lane is not null as is_limited, lanes.max_in_flight,
               least(lanes.current_rate, lanes.submits_per_second) as rate, lanes.burst, lanes.ramp_start, lanes.ramp_step,
               extract(epoch from lanes.ramp_interval)::double precision as ramp_interval, lanes.ramp_idle_reset,
               states.next_submit_at, states.submit_step, states.submit_slack, states.ramp_since, states.active_at,
               pause.reason as pause, extract(epoch from pause.until - moment)::double precision as pause_left,
               tried.reason as tried, coalesce(extract(epoch from tried.probe_at - moment), 0)::double precision as trial_in,
               coalesce(counted.jobs, 0) as in_flight,
               -- Each cell in flight may submit once more, or has an open attempt. They were counted first: what ends meanwhile
               -- counts twice here, and never not at all.
               case when lanes.max_submits_per_day is not null
                    then lanes.max_submits_per_day - coalesce(counted.submits, 0)
                         - (select coalesce(sum(days.submits), 0) from imagemill.lane_days as days
                            where days.lane = lanes.lane and days.day = (moment at time zone 'UTC')::date) end as day_left
        from unnest(p_lanes) as wanted (lane)
        left join imagemill.lanes as lanes on lanes.lane = wanted.lane
        left join imagemill.lane_states as states on states.lane = wanted.lane
        left join lateral (select pauses.reason, pauses.until from imagemill.pauses as pauses
                           where p_token_hash is not null and pauses.lane = wanted.lane and pauses.token_hash in ('', p_token_hash)
                             and (pauses.until is null or pauses.until > moment)
                           order by pauses.until desc nulls first limit 1) as pause on true
        -- Its time is over, and nobody knows yet whether the lane works again: what waited must not leave in one volley.
        left join lateral (select pauses.reason, pauses.probe_at from imagemill.pauses as pauses
                           where pauses.lane = wanted.lane and pauses.token_hash = ''
                             and pauses.reason in ('throttled', 'breaker') and pauses.until <= moment
                           order by pauses.probe_at desc nulls last limit 1) as tried on true
        left join (select found.lane, sum(found.jobs) as jobs, sum(found.jobs) filter (where found."group" is not null) as submits
                   from unnest(flying_lane, flying_group, flying) as found (lane, "group", jobs) group by found.lane) as counted
               on counted.lane = wanted.lane
    loop
        lane_of := lane_of || one.lane;
        given := given || 0;
        is_trial := is_trial || (one.tried is not null);
        if not one.is_limited then
            room := room || p_wanted - got; base := base || null::double precision; step := step || 0::double precision;
            slack := slack || 0::double precision; is_last := is_last || false;
            is_active := is_active || false; ramped := ramped || null::timestamptz;
            continue;
        end if;
        ceiling := one.max_in_flight;
        if one.ramp_start is not null then
            cold := one.ramp_since is null or (one.in_flight = 0 and one.active_at < moment - one.ramp_idle_reset);
            if cold then
                one.ramp_since := moment;
            end if;
            ceiling := least(ceiling, one.ramp_start + one.ramp_step
                                      * least(floor(extract(epoch from moment - one.ramp_since) / greatest(one.ramp_interval, 0.001)), 100000)::integer);
        end if;
        is_active := is_active || (one.in_flight > 0);
        -- What idle is counted from is written once a second: each version of this row is walked over while a transaction is open.
        ramped := ramped || case when one.ramp_start is not null
                                      and (cold or one.active_at is null or one.active_at < moment - interval '1 second')
                                 then one.ramp_since end;
        free := greatest(ceiling - one.in_flight, 0);
        if one.pause is not null then
            free := 0;
            id := null; lane := one.lane; "group" := null; key := one.pause; wait := least(one.pause_left, 1); return next;
        elsif free = 0 then
            id := null; lane := one.lane; "group" := null; key := 'limit'; wait := 1; return next;
        elsif one.tried is not null then
            free := case when one.trial_in > 0 then 0 else 1 end;
            id := null; lane := one.lane; "group" := null; key := one.tried;
            wait := case when one.trial_in > 0 then least(one.trial_in, 1) else 1 end; return next;
        end if;
        free := least(free, p_wanted - got);
        if one.day_left < free then
            -- Until the day is over, the budget is raised, or something that was counted turns out not to be billed.
            free := greatest(one.day_left, 0);
            id := null; lane := one.lane; "group" := null; key := 'day_budget'; wait := 1; return next;
        end if;
        if one.rate is null then
            base := base || null::double precision; step := step || 0::double precision; slack := slack || 0::double precision;
        else
            select submit_pace.step, submit_pace.slack into pace from imagemill.submit_pace(one.rate, one.burst);
            step := step || pace.step;
            slack := slack || pace.slack;
            base := base || greatest(lead, coalesce(extract(epoch from imagemill.next_submit(
                one.next_submit_at, one.submit_step, one.submit_slack, pace.step, pace.slack, moment) - moment), 0)::double precision);
            due := base[cardinality(base)];
            cut := greatest(0, floor(least((ahead + pace.slack - due) / pace.step, 100000))::integer + 1);
            if cut < free then
                free := cut;
                -- The moment from which on a group of submits is to be had again, unless the rate is raised before.
                id := null; lane := one.lane; "group" := null; key := 'rate';
                wait := least(1, greatest(0.05, due + cut * pace.step - pace.slack - ahead / 2)); return next;
            end if;
        end if;
        is_last := is_last || (one.tried is null and free = ceiling - one.in_flight and free < p_wanted - got);
        room := room || free;
    end loop;

    -- What is in no lane submits nothing.
    if p_budget_of is not null and true = any (p_budget_of) and '' <> all (p_lane_of) then
        -- A task may stand in several lanes, whose locks are not the same.
        perform pg_advisory_xact_lock(hashtextextended(budgets."group", 0))
        from (select distinct listed."group", hashtextextended(listed."group", 0) as hash
              from unnest(p_group_of, p_budget_of) as listed ("group", has_budget) where listed.has_budget
              order by hash) as budgets;
        left_of := array(
            select case when limits.not_before > moment then 0 else limits.submits_left - coalesce(busy.jobs, 0) end
            from unnest(p_group_of, p_budget_of) with ordinality as listed ("group", has_budget, number)
            left join imagemill.group_limits(array(select distinct budgets."group"
                                                   from unnest(p_group_of, p_budget_of) as budgets ("group", has_budget)
                                                   where budgets.has_budget)) as limits
                   on limits."group" = listed."group" and listed.has_budget
            left join (
                -- Whatever the lane: each of them may submit once more, or has an open attempt.
                select held.metadata -> 'group' as "group", count(*) as jobs
                from (select jobs.metadata from apalis.workers as workers
                      join apalis.jobs as jobs on jobs.lock_by = workers.id and jobs.job_type = p_queue
                      union all
                      select jobs.metadata from imagemill.lanes as lanes
                      join apalis.jobs as jobs on jobs.job_type = p_queue and jobs.status = 'Pending'
                           and jobs.job_type like 'imagemill.%' and jobs.metadata ? 'resume' and not jobs.metadata ? 'alone'
                           and jobs.metadata -> 'lane' = lanes.lane) as held
                group by 1) as busy on busy."group" = listed."group"
            order by listed.number);
        for place in 1..cardinality(left_of) loop
            if left_of[place] > 0 and left_of[place] < p_wanted * cardinality(lane_of)
               and p_group_of[place] = any (p_group_of[:place - 1]) then
                -- What is left is not enough for each of its lanes: this time it is the first one's.
                left_of[place] := case when exists (
                    select from unnest(p_group_of[:place - 1], p_lane_of[:place - 1]) as before ("group", lane)
                    where before."group" = p_group_of[place] and room[array_position(lane_of, before.lane)] > 0) then 0 else left_of[place] end;
            elsif left_of[place] <= 0 then
                id := null; lane := p_lane_of[place]; "group" := p_group_of[place]; key := 'budget'; wait := 1; return next;
            end if;
        end loop;
    end if;
    free_lanes := array(select free.lane from unnest(lane_of, room) as free (lane, places) where free.places > 0);
    if p_key is not null or p_solitary then
        open_groups := array(
            select listed."group" from unnest(p_lane_of, p_group_of, left_of) as listed (lane, "group", submits_left)
            left join imagemill.group_limits(p_group_of) as limits on limits."group" = listed."group"
            where listed.lane = '' or ((listed.submits_left is null or listed.submits_left > 0)
                                       and (limits.not_before is null or limits.not_before <= moment)));
    end if;
    if p_key is not null or p_solitary then
        taken := '{}';
    elsif p_group_of is not null then
        taken := array_fill(0, array[cardinality(p_group_of)]);
        is_done := array_fill(false, array[cardinality(p_group_of)]);
    end if;
    -- What a group does not have goes to others at the next turn; what is left after the last one, at the next claim.
    for turn in 1..8 loop
        exit when taken is null or got >= p_wanted
                  or (p_key is null and not p_solitary and not exists (select from unnest(room) as free (places) where free.places > 0));
        missing := array_fill(0, array[coalesce(cardinality(p_group_of), 0)]);
        if p_key is not null or p_solitary then
            dealt := '{}';
        elsif cardinality(p_group_of) = 1 then
            -- All that is free is its own: the most common case where little waits, and somebody waits for it.
            place := array_position(lane_of, p_lane_of[1]);
            free := case when is_done[1] then 0
                         else least(room[place], p_wanted - got, coalesce(left_of[1] - taken[1], p_wanted)) end;
            dealt := case when free > 0 then array[1] end;
            places_of := case when free > 0 then array[free] end;
        else
            dealt := null;
            -- Places of the lanes that anything waits for, and how many these are.
            select least(p_wanted - got, sum(open.places)), count(*) into free, open_lanes
            from unnest(lane_of, room) as open (lane, places) where open.places > 0 and open.lane = any (p_lane_of);
            exit when open_lanes = 0;
            if turn = 1 and open_lanes = 1 and left_of is null and cardinality(p_group_of) >= free then
                -- One place a group, which is what the turns come to in a lane where more groups wait than there are places and their
                -- loads are alike; and the check whether it is. It takes a third of what the whole takes.
                with candidate as (
                    select listed.number::integer, listed.lane, listed.owner, coalesce(counted.jobs, 0)::double precision / listed.weight as load,
                           (coalesce(counted.jobs, 0) + 1)::double precision / listed.weight as next_load,
                           coalesce(theirs.jobs, 0) as owner_jobs, free.places
                    from unnest(p_lane_of, p_group_of, p_owner_of, p_weight_of) with ordinality
                         as listed (lane, "group", owner, weight, number)
                    join unnest(lane_of, room) as free (lane, places) on free.lane = listed.lane and free.places > 0
                    left join unnest(flying_lane, flying_group, flying) as counted (lane, "group", jobs)
                           on counted.lane = listed.lane and counted."group" = listed."group"
                    left join (select held.lane, held.owner, sum(held.jobs) as jobs
                               from unnest(flying_lane, flying_owner, flying) as held (lane, owner, jobs) group by 1, 2) as theirs
                           on theirs.lane = listed.lane and theirs.owner = listed.owner
                ), ranked as (
                    select candidate.*, count(*) over mine as of_owner_all,
                           candidate.owner_jobs + row_number() over (mine order by candidate.load, candidate.number) as load_of_owner
                    from candidate window mine as (partition by candidate.lane, candidate.owner)
                ), turns as (
                    select ranked.*, row_number() over (partition by ranked.lane order by ranked.load_of_owner, ranked.number) as turn from ranked
                ), chosen as materialized (
                    select turns.* from turns where turns.turn <= turns.places order by turns.turn limit p_wanted - got
                )
                select array_agg(chosen.number), array_fill(1, array[count(*)::integer]) into dealt, places_of from chosen
                having count(*) = free
                   -- No second place of a group comes before the first of another one, of the same owner or, where he has no more, of others.
                   and not exists (select from chosen as mine group by mine.lane, mine.owner
                                   having max(mine.load) > min(mine.next_load)
                                       or (count(*) = max(mine.of_owner_all)
                                           and max(mine.load_of_owner) + 1 < (select max(others.load_of_owner) from chosen as others)));
            end if;
            if dealt is null then
                with candidate as (
                    select listed.number::integer, listed.lane, listed.owner, listed.weight,
                           taken[listed.number] as taken_now, taken[listed.number] + coalesce(counted.jobs, 0) as jobs,
                           coalesce(theirs.jobs, 0) as owner_flying, free.places
                    from unnest(p_lane_of, p_group_of, p_owner_of, p_weight_of) with ordinality
                         as listed (lane, "group", owner, weight, number)
                    join unnest(lane_of, room) as free (lane, places) on free.lane = listed.lane and free.places > 0
                    left join unnest(flying_lane, flying_group, flying) as counted (lane, "group", jobs)
                           on counted.lane = listed.lane and counted."group" = listed."group"
                    -- All that its owner has in flight: of tasks that have no more, too.
                    left join (select held.lane, held.owner, sum(held.jobs) as jobs
                               from unnest(flying_lane, flying_owner, flying) as held (lane, owner, jobs) group by 1, 2) as theirs
                           on theirs.lane = listed.lane and theirs.owner = listed.owner
                    where not is_done[listed.number]
                ), owners as (
                    select candidate.*, candidate.owner_flying + sum(candidate.taken_now) over mine as owner_jobs,
                           min(candidate.number) over mine as owner_number
                    from candidate window mine as (partition by candidate.lane, candidate.owner)
                ), shared as (
                    select owners.*,
                           ceil(owners.places::double precision / dense_rank() over (partition by owners.lane
                                                                                     order by owners.owner_jobs, owners.owner_number)) as share
                    from owners
                ), filled as (
                    -- To which load the owner's share fills its groups up, if only those with no more than this one's get any. Where one of
                    -- them has a budget others may get what it does not: then no more than could come to it, were it alone behind those before.
                    select shared.*,
                           case when count(left_of[shared.number]) over mine > 0 then null
                                else (shared.share + sum(shared.jobs) over before) / sum(shared.weight) over before end as level,
                           row_number() over before as rank
                    from shared
                    window mine as (partition by shared.lane, shared.owner),
                           before as (partition by shared.lane, shared.owner
                                      order by shared.jobs::double precision / shared.weight, shared.number rows unbounded preceding)
                ), ranked as (
                    select filled.*, min(filled.level) over (partition by filled.lane, filled.owner) as lowest from filled
                ), places as (
                    select ranked.*, nth, row_number() over (partition by ranked.lane, ranked.owner
                                                        order by (ranked.jobs + nth)::double precision / ranked.weight, nth, ranked.number) as of_owner
                    from ranked
                    cross join lateral generate_series(0, least(
                        -- A little more, since its last digits are rounded.
                        floor(coalesce(ranked.lowest * ranked.weight - ranked.jobs + 0.001,
                                       (ranked.share - 1) / (1 + (ranked.rank - 1)::double precision / ranked.weight)))::integer,
                        left_of[ranked.number] - 1 - taken[ranked.number])) as nth
                ), turns as (
                    select places.*, row_number() over (partition by places.lane
                                                        order by places.owner_jobs + places.of_owner, places.nth, places.number) as turn
                    from places
                ), chosen as (
                    select turns.number from turns where turns.turn <= turns.places order by turns.turn limit p_wanted - got
                ), shares as (
                    select chosen.number, count(*) as places from chosen group by 1
                )
                select array_agg(shares.number), array_agg(shares.places::integer) into dealt, places_of from shares;
            end if;
        end if;
        ids := null; tuples := null; numbers := null;
        if p_key is not null then
            select array_agg(waiting.id), array_agg(0) into ids, numbers
            from (select jobs.id from apalis.jobs as jobs
                  where jobs.job_type = p_queue and jobs.idempotency_key = p_key and jobs.status = 'Pending' and jobs.run_at <= now()
                    and (jobs.metadata ? 'resume' or jobs.metadata -> 'lane' <> all (lane_of)
                         or jobs.metadata -> 'lane' = any (free_lanes))
                    and (jobs.metadata ? 'resume' or jobs.metadata -> 'group' = any (open_groups))
                  for update skip locked) as waiting;
        elsif p_solitary then
            select array_agg(waiting.id), array_agg(0) into ids, numbers
            from (select jobs.id from apalis.jobs as jobs
                  where jobs.job_type = p_queue and jobs.status = 'Pending' and jobs.job_type like 'imagemill.%'
                    and jobs.metadata ? 'solitary' and jobs.run_at <= now()
                    and jobs.metadata -> 'lane' = any (case when jobs.metadata ? 'resume' then lane_of else free_lanes end)
                    and (jobs.metadata ? 'resume' or jobs.metadata -> 'group' = any (open_groups))
                    and case when p_group is null then not jobs.metadata ? 'alone' else jobs.metadata -> 'group' = p_group end
                  order by jobs.run_at, jobs.id limit 1
                  for update skip locked) as waiting;
        elsif p_group is null then
            select array_agg(waiting.ctid), array_agg(shares.number) into tuples, numbers
            from unnest(dealt, places_of) as shares (number, places)
            cross join lateral (
                select jobs.ctid from apalis.jobs as jobs
                where jobs.job_type = p_queue and jobs.status = 'Pending' and jobs.job_type like 'imagemill.%'
                  and not jobs.metadata ? 'alone' and not jobs.metadata ? 'resume' and not jobs.metadata ? 'solitary'
                  and jobs.metadata -> 'lane' = p_lane_of[shares.number]
                  and jobs.metadata -> 'group' = p_group_of[shares.number]
                  and jobs.run_at <= now()
                  and (jobs.run_at, jobs.id) >= (coalesce(p_after_of[shares.number], '-infinity'),
                                                coalesce(p_after_id_of[shares.number], ''))
                order by jobs.run_at, jobs.id limit shares.places
                for update skip locked) as waiting;
        else
            select array_agg(waiting.ctid), array_agg(shares.number) into tuples, numbers
            from unnest(dealt, places_of) as shares (number, places)
            cross join lateral (
                select jobs.ctid from apalis.jobs as jobs
                where jobs.job_type = p_queue and jobs.status = 'Pending' and jobs.job_type like 'imagemill.%'
                  and not jobs.metadata ? 'resume' and not jobs.metadata ? 'solitary'
                  and jobs.metadata -> 'group' = p_group and jobs.metadata -> 'lane' = p_lane_of[shares.number]
                  and jobs.run_at <= now()
                order by jobs.run_at, jobs.id limit shares.places
                for update skip locked) as waiting;
        end if;
        if p_key is not null or p_solitary then
            for one in
                update apalis.jobs as jobs
                set status = 'Running', lock_by = p_worker, lock_at = moment, attempts = jobs.attempts + 1
                where jobs.id = any (ids)
                returning jobs.id, jobs.job, jobs.attempts, jobs.idempotency_key, jobs.metadata ? 'resume' as is_resumed,
                          coalesce((jobs.metadata -> 'crashes')::integer, 0) as crashes, jobs.metadata -> 'lane' as lane,
                          jobs.metadata -> 'group' as "group", jobs.run_at
            loop
                id := one.id; job := one.job; claim := one.attempts; key := one.idempotency_key; is_resumed := one.is_resumed;
                crashes := one.crashes; lane := one.lane; "group" := one."group"; run_at := one.run_at; wait := null;
                place := array_position(lane_of, one.lane);
                if place is not null and not one.is_resumed then
                    -- Null where the lane has no rate.
                    wait := case when base[place] is not null then greatest(lead, base[place] - slack[place]) end;
                    given[place] := given[place] + 1;
                end if;
                return next;
            end loop;
            exit;
        end if;
        -- These are locked, so they stay where they are, and the UPDATE takes each of them. In one statement: what is done for each
        -- row by itself is done under the lane's lock.
        return query
        update apalis.jobs as jobs
        set status = 'Running', lock_by = p_worker, lock_at = moment, attempts = jobs.attempts + 1
        from (select listed.found_at, array_position(lane_of, p_lane_of[listed.number]) as place,
                     row_number() over (partition by p_lane_of[listed.number]) - 1 as nth
              from unnest(tuples, numbers) as listed (found_at, number)) as picked
        where jobs.ctid = picked.found_at
        returning jobs.id, jobs.job, jobs.attempts, jobs.idempotency_key, false, coalesce((jobs.metadata -> 'crashes')::integer, 0),
                  jobs.metadata -> 'lane', jobs.metadata -> 'group', jobs.run_at,
                  -- Null where the lane has no rate.
                  case when base[picked.place] is not null
                       then greatest(lead, base[picked.place] + (given[picked.place] + picked.nth) * step[picked.place]
                                           - slack[picked.place]) end;
        for place in 1..coalesce(cardinality(dealt), 0) loop
            missing[dealt[place]] := missing[dealt[place]] + places_of[place];
        end loop;
        for one in
            select listed.number, array_position(lane_of, p_lane_of[listed.number]) as place, count(*)::integer as jobs
            from unnest(numbers) as listed (number) group by 1, 2
        loop
            got := got + one.jobs;
            missing[one.number] := missing[one.number] - one.jobs;
            taken[one.number] := taken[one.number] + one.jobs;
            room[one.place] := room[one.place] - one.jobs;
            given[one.place] := given[one.place] + one.jobs;
        end loop;
        is_short := false;
        for place in 1..cardinality(missing) loop
            if missing[place] > 0 then
                is_short := true;
                is_done[place] := true;
                id := null; lane := p_lane_of[place]; "group" := p_group_of[place]; key := 'empty'; wait := null; return next;
            end if;
        end loop;
        exit when not is_short or not false = any (is_done);
    end loop;
    for place in 1..cardinality(lane_of) loop
        if is_last[place] and given[place] > 0 and room[place] <= 0 then
            -- It took the last place: there may be more, which waits for the next.
            id := null; lane := lane_of[place]; "group" := null; key := 'limit'; wait := 1; return next;
        end if;
        if given[place] > 0 and is_trial[place] then
            update imagemill.pauses as pauses set probe_at = moment + trial
            where pauses.lane = lane_of[place] and pauses.token_hash = '' and pauses.reason in ('throttled', 'breaker')
              and pauses.until <= moment;
        end if;
        if ramped[place] is not null and (is_active[place] or given[place] > 0) then
            update imagemill.lane_states as states set ramp_since = ramped[place], active_at = moment where states.lane = lane_of[place];
        end if;
        if given[place] > 0 and base[place] is not null then
            update imagemill.lane_states as states
            set next_submit_at = moment + make_interval(secs => base[place] + given[place] * step[place]),
                submit_step = step[place], submit_slack = slack[place]
            where states.lane = lane_of[place];
        end if;
    end loop;
    id := null; lane := null; "group" := null; key := null; run_at := oldest;
    wait := extract(epoch from moment - began)::double precision; return next;
end
$$;
