-- Steering: cancel, force-complete and retry, and an audit of what people change by hand.

-- Looked up before the table is locked.
create temporary table alone on commit drop as
select distinct (metadata -> 'group')::uuid as task_id from apalis.jobs
where job_type = 'imagemill.generate_image' and metadata ? 'alone';
alter table imagemill.tasks add column is_alone boolean not null default false;
comment on column imagemill.tasks.is_alone is 'A try against the simulator: only workers that were started for it take its cells.';
update imagemill.tasks set is_alone = true where id in (select task_id from alone);

alter table imagemill.subtasks
    add column retry_mode  text,
    add column retry_round integer;
-- New columns hold nothing yet: the rows that are there need no look.
alter table imagemill.subtasks
    add constraint subtasks_retry_mode_known check (retry_mode in ('poll_first', 'now', 'evidence')) not valid,
    add constraint subtasks_retry_whole check ((retry_mode is null) = (retry_round is null)) not valid;
comment on column imagemill.subtasks.retry_mode is 'Of its last retry. poll_first: an earlier upstream_id is asked, and an earlier POST waited for, before anything is paid. now: neither; an operator took the risk of paying twice. evidence: its id came late; it is polled, and nothing is paid.';
comment on column imagemill.subtasks.retry_round is 'The round that its last retry began.';

create function imagemill.acting() returns text
language sql stable
as $$ select coalesce(nullif(current_setting('imagemill.actor', true), ''), session_user::text) $$;
comment on function imagemill.acting is 'Who acts: the user whom a command names for its transaction, else the session''s role.';

create function imagemill.enqueue_completion(for_task uuid, for_round integer, for_owner uuid) returns void
language plpgsql set search_path from current
as $$
declare
    -- Ids of jobs begin with their time (UUIDv7): that is how old ones are found.
    millis text := lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0');
    new_id text := overlay(overlay(gen_random_uuid()::text placing substr(millis, 1, 8) || '-' || substr(millis, 9) from 1 for 13)
                           placing '7' from 15 for 1);
begin
    insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, priority, metadata, idempotency_key)
    values (new_id, 'imagemill.complete_task',
            convert_to(json_build_object('version', 1, 'task_id', for_task, 'round', for_round)::text, 'UTF8'),
            'Pending', 0, 1, now(), 0,
            hstore(array['lane', 'group', 'owner'], array['', for_task::text, for_owner::text]), for_task || ':' || for_round)
    on conflict (job_type, idempotency_key) do nothing;
    if found then
        perform pg_notify('imagemill_jobs', 'imagemill.complete_task');
    end if;
end
$$;
comment on function imagemill.enqueue_completion is 'The completion job of a round; nothing where it is there already.';

-- No submit leaves after a cancel has returned. How that is kept, exactly:
--
-- 1. A submit's row is written only for a cell that is `pending`, under the locks of its job and of its row. This function holds
--    both locks of every open cell. What was pending is ended; what is in flight is marked, and a marked cell never becomes pending
--    again (a settle that would put it back ends it instead). So no row is written after the commit of this transaction.
-- 2. A row that was committed just before may have a POST that has not left. A worker lets a POST leave only within two seconds of
--    when it asked for its row, by a clock that runs through suspension, and that is no later than two seconds after
--    `submitted_at`. `submits_until` is three: one for the connection and the first byte. Who cancels waits until then.
--
-- Locks: jobs, subtasks, attempts, task_counts, tasks, each by id, as everybody takes them.
create function imagemill.end_cells(
    for_task uuid, for_cells integer[], new_status text, by_whom text, action text,
    out ended integer, out in_flight integer, out submits_until timestamptz)
language plpgsql set search_path from current
as $$
declare
    the_task  imagemill.tasks;
    words     text := case new_status when 'failed' then 'ended by ' || by_whom else 'cancelled by ' || by_whom end;
    chosen    uuid[];
    held      uuid[];
    ended_now uuid[];
    given_up_now uuid[];
    total     integer;
begin
    if new_status is null or new_status not in ('cancelled', 'failed') then
        raise exception 'cells are cancelled or failed, not %', new_status using errcode = 'invalid_parameter_value';
    end if;
    -- Who steers one task does so one after another.
    perform pg_advisory_xact_lock(hashtextextended('imagemill.steering/' || for_task, 0));
    select * into the_task from imagemill.tasks t where t.id = for_task and not t.is_deleted;
    if not found then
        raise exception 'there is no task %', for_task using errcode = 'no_data_found';
    end if;
    select coalesce(array_agg(s.id), '{}') into chosen from imagemill.subtasks s
    where s.task_id = for_task and s.completed_at is null and (for_cells is null or s.cell = any (for_cells));
    perform 1 from apalis.jobs j
    where j.job_type = 'imagemill.generate_image' and j.idempotency_key = any (chosen::text[]) order by j.id for update;
    perform 1 from imagemill.subtasks s where s.id = any (chosen) order by s.id for update;

    select coalesce(array_agg(j.idempotency_key::uuid), '{}') into held from apalis.jobs j
    where j.job_type = 'imagemill.generate_image' and j.idempotency_key = any (chosen::text[]) and j.status = 'Running';
    select max(a.submitted_at) + interval '3 seconds' into submits_until from imagemill.attempts a
    where a.subtask_id = any (chosen) and a.finished_at is null and a.state = 'submitting';
    select count(*) into in_flight from imagemill.attempts a where a.subtask_id = any (held) and a.finished_at is null;

    -- In flight under a worker that holds it: a cancel leaves its end to that worker, whose POST is awaited and whose picture may
    -- have come first. Whoever force-completes wants no end but this one.
    with moved as (
        update imagemill.subtasks s
        set status = new_status, error_kind = case new_status when 'failed' then 'operator' end, error = words,
            cancel_requested_at = case new_status when 'cancelled' then coalesce(s.cancel_requested_at, now())
                                                  else s.cancel_requested_at end,
            completed_at = now(), updated_at = now()
        where s.id = any (chosen) and s.completed_at is null
          and (new_status = 'failed' or s.status = 'pending'
               or not exists (select from unnest(held) as running (id) where running.id = s.id))
        returning s.id
    )
    select coalesce(array_agg(moved.id), '{}') into ended_now from moved;
    ended := cardinality(ended_now);
    update imagemill.subtasks s set cancel_requested_at = now(), updated_at = now()
    where s.id = any (held) and s.completed_at is null and s.cancel_requested_at is null;

    with given_up as (
        update imagemill.attempts a
        set state = case a.state when 'submitting' then 'unknown' else 'abandoned' end, error = words, finished_at = now(),
            error_kind = case new_status when 'failed' then 'operator' end
        where a.subtask_id = any (ended_now) and a.finished_at is null
          and not exists (select from unnest(held) as running (id) where running.id = a.subtask_id)
        returning a.subtask_id
    )
    select array_agg(subtask_id) into given_up_now from given_up;
    if given_up_now is not null then
        perform imagemill.move_submits(given_up_now, 1);
    end if;

    update apalis.jobs j
    set status = 'Killed', done_at = now(), lock_by = null, lock_at = null, metadata = delete(j.metadata, 'resume'),
        last_result = jsonb_build_object('Err', words)
    where j.job_type = 'imagemill.generate_image' and j.idempotency_key = any (ended_now::text[]) and j.status = 'Pending';
    update apalis.jobs j set metadata = j.metadata || hstore('cancel', 'true')
    where j.job_type = 'imagemill.generate_image' and j.idempotency_key = any (held::text[]) and j.status = 'Running';
    if found then
        perform pg_notify('imagemill_cancel', '');
    end if;

    if ended > 0 then
        update imagemill.task_counts c
        set failed_subtasks = c.failed_subtasks + case new_status when 'failed' then ended else 0 end,
            cancelled_subtasks = c.cancelled_subtasks + case new_status when 'cancelled' then ended else 0 end
        where c.task_id = for_task
        returning c.completed_subtasks + c.failed_subtasks + c.cancelled_subtasks into total;
        if total >= the_task.total_images then
            perform imagemill.enqueue_completion(for_task, the_task.round, the_task.user_id);
        end if;
    end if;
    if new_status = 'cancelled' and for_cells is null then
        update imagemill.tasks t set cancel_requested_at = now(), updated_at = now()
        where t.id = for_task and t.cancel_requested_at is null and t.status in ('pending', 'processing');
    end if;
    insert into imagemill.audit (who, what, subject, old_value, new_value)
    values (by_whom, action, 'task/' || for_task,
            jsonb_build_object('status', the_task.status, 'round', the_task.round, 'open', cardinality(chosen)),
            jsonb_strip_nulls(jsonb_build_object('cells', to_jsonb(for_cells), 'ended', ended, 'in_flight', in_flight)));
    if submits_until <= clock_timestamp() then
        submits_until := null;
    end if;
end
$$;
comment on function imagemill.end_cells is 'Ends open cells of a task, all or these, as cancelled or failed, and writes it into the audit. Who calls it waits until submits_until: until then a POST of theirs may still leave.';

create function imagemill.cancel_task(task uuid) returns jsonb
language plpgsql
as $$
declare
    done record;
begin
    select * into done from imagemill.end_cells(task, null, 'cancelled', imagemill.acting(), 'cancel_task');
    -- Under the locks, so that nothing is begun meanwhile: this transaction is not committed yet.
    perform pg_sleep(greatest(0, extract(epoch from done.submits_until - clock_timestamp()))) where done.submits_until is not null;
    return jsonb_build_object('ended', done.ended, 'in_flight', done.in_flight);
end
$$;
comment on function imagemill.cancel_task is 'Cancels the open cells of a task: pending ones at once, those in flight as soon as their worker hears of it. No submit of theirs leaves after the commit.';

create function imagemill.cancel_subtask(subtask uuid) returns jsonb
language plpgsql
as $$
declare
    found_cell record;
    done       record;
begin
    select s.task_id, s.cell into found_cell from imagemill.subtasks s where s.id = subtask;
    if not found then
        raise exception 'there is no cell %', subtask using errcode = 'no_data_found';
    end if;
    select * into done
    from imagemill.end_cells(found_cell.task_id, array[found_cell.cell], 'cancelled', imagemill.acting(), 'cancel_subtask');
    perform pg_sleep(greatest(0, extract(epoch from done.submits_until - clock_timestamp()))) where done.submits_until is not null;
    return jsonb_build_object('ended', done.ended, 'in_flight', done.in_flight);
end
$$;
comment on function imagemill.cancel_subtask is 'Cancels one cell; see cancel_task.';

-- What people set of a lane, by a command or by hand. What the engine writes of it is none of it.
create function imagemill.audit_lane() returns trigger
language plpgsql
as $$
declare
    before_row jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) - array['updated_at', 'current_rate'] end;
    after_row  jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) - array['updated_at', 'current_rate'] end;
    changed    text[];
begin
    if tg_op = 'UPDATE' then
        select array_agg(key) into changed from jsonb_each(after_row) where before_row -> key is distinct from value;
        if changed is null then
            return null;
        end if;
        -- What changed, and nothing else.
        select jsonb_object_agg(key, value) into before_row from jsonb_each(before_row) where key = any (changed);
        select jsonb_object_agg(key, value) into after_row from jsonb_each(after_row) where key = any (changed);
    end if;
    insert into imagemill.audit (who, what, subject, old_value, new_value)
    values (imagemill.acting(), lower(tg_op) || '_lane', 'lane/' || coalesce(new.lane, old.lane), before_row, after_row);
    return null;
end
$$;
comment on function imagemill.audit_lane is 'Writes what people change of a lane into the audit.';
create trigger audit_lane
    after update of lane, max_in_flight, submits_per_second, burst, ramp_start, ramp_step, ramp_interval, ramp_idle_reset,
                    polls_per_second, max_job_time, max_submits_per_day, rate_adapts, rate_floor, rate_step, rate_interval
    on imagemill.lanes
    for each row execute function imagemill.audit_lane();
create trigger audit_lane_rows after insert or delete on imagemill.lanes
    for each row execute function imagemill.audit_lane();

create function imagemill.audit_pause() returns trigger
language plpgsql
as $$
begin
    insert into imagemill.audit (who, what, subject, old_value, new_value)
    values (imagemill.acting(), case tg_op when 'DELETE' then 'resume_lane' else 'pause_lane' end,
            'lane/' || coalesce(new.lane, old.lane),
            case when tg_op <> 'INSERT' then to_jsonb(old) end, case when tg_op <> 'DELETE' then to_jsonb(new) end);
    return null;
end
$$;
comment on function imagemill.audit_pause is 'Writes an operator''s pause, and its end, into the audit.';
create trigger audit_pause_begun after insert or update on imagemill.pauses
    for each row when (new.reason = 'operator') execute function imagemill.audit_pause();
create trigger audit_pause_ended after delete on imagemill.pauses
    for each row when (old.reason = 'operator') execute function imagemill.audit_pause();
