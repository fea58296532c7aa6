-- A cancel of a task with tens of thousands of cells in flight looked through all of them for each: 57 s for 50,000. Now they are looked
-- up by a hash, which `not in` is sure to make of an array. All else is as it was; what it keeps, and in which order it locks, is said
-- where it was made (20261123000007).
create or replace function imagemill.end_cells(
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
               or s.id not in (select unnest(held)))
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
          and a.subtask_id not in (select unnest(held))
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
