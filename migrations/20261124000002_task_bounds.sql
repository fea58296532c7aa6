-- A task's budget and times: who sets them is audited, and what its last moment finds pending ends.

create function imagemill.audit_task_bounds() returns trigger
language plpgsql
as $$
declare
    before_row jsonb := jsonb_build_object('max_submits', old.max_submits, 'not_before', old.not_before, 'not_after', old.not_after);
    after_row  jsonb := jsonb_build_object('max_submits', new.max_submits, 'not_before', new.not_before, 'not_after', new.not_after);
    changed    text[];
begin
    select array_agg(key) into changed from jsonb_each(after_row) where before_row -> key is distinct from value;
    if changed is not null then
        -- What changed, and nothing else.
        insert into imagemill.audit (who, what, subject, old_value, new_value)
        values (imagemill.acting(), 'limit_task', 'task/' || new.id,
                (select jsonb_object_agg(key, value) from jsonb_each(before_row) where key = any (changed)),
                (select jsonb_object_agg(key, value) from jsonb_each(after_row) where key = any (changed)));
    end if;
    return null;
end
$$;
comment on function imagemill.audit_task_bounds is 'Writes what people change of a task''s budget and times into the audit.';

-- Who ends what: `imagemill.end_cells` ends whatever is open, as people ask for it. This ends what is pending and nothing else: an
-- attempt that is open was paid for, and comes to its own end. The same locks in the same order: jobs, subtasks, task_counts.
create function imagemill.end_overdue_cells(for_task uuid, out ended integer)
language plpgsql set search_path from current
as $$
declare
    the_task imagemill.tasks;
    words    text;
    chosen   uuid[];
    gone     uuid[];
    total    integer;
begin
    ended := 0;
    -- Whoever steers it is not waited for: all workers come here at the same moment, and one is enough.
    if not pg_try_advisory_xact_lock(hashtextextended('imagemill.steering/' || for_task, 0)) then
        return;
    end if;
    -- Looked at under the lock: another worker may have been first, or the time may have been shifted.
    select * into the_task from imagemill.tasks t
    where t.id = for_task and t.not_after <= clock_timestamp() and t.status in ('pending', 'processing');
    if not found then
        return;
    end if;
    words := format('cancelled: its task submits nothing after %s', to_char(the_task.not_after at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'));
    select coalesce(array_agg(s.id), '{}') into chosen from imagemill.subtasks s
    where s.task_id = for_task and s.completed_at is null and s.status = 'pending';
    perform 1 from apalis.jobs j
    where j.job_type = 'imagemill.generate_image' and j.idempotency_key = any (chosen::text[]) order by j.id for update;
    perform 1 from imagemill.subtasks s where s.id = any (chosen) order by s.id for update;
    -- What was begun meanwhile is in flight now.
    with moved as (
        update imagemill.subtasks s
        set status = 'cancelled', error_kind = null, error = words, cancel_requested_at = coalesce(s.cancel_requested_at, now()),
            completed_at = now(), updated_at = now()
        where s.id = any (chosen) and s.completed_at is null and s.status = 'pending'
        returning s.id
    )
    select coalesce(array_agg(moved.id), '{}') into gone from moved;
    ended := cardinality(gone);
    if ended = 0 then
        return;
    end if;
    update apalis.jobs j
    set status = 'Killed', done_at = now(), lock_by = null, lock_at = null, metadata = delete(j.metadata, 'resume'),
        last_result = jsonb_build_object('Err', words)
    where j.job_type = 'imagemill.generate_image' and j.idempotency_key = any (gone::text[]) and j.status = 'Pending';
    update apalis.jobs j set metadata = j.metadata || hstore('cancel', 'true')
    where j.job_type = 'imagemill.generate_image' and j.idempotency_key = any (gone::text[]) and j.status = 'Running';
    if found then
        perform pg_notify('imagemill_cancel', '');
    end if;
    update imagemill.task_counts c set cancelled_subtasks = c.cancelled_subtasks + ended where c.task_id = for_task
    returning c.completed_subtasks + c.failed_subtasks + c.cancelled_subtasks into total;
    if total >= the_task.total_images then
        perform imagemill.enqueue_completion(for_task, the_task.round, the_task.user_id);
    end if;
    insert into imagemill.audit (who, what, subject, old_value, new_value)
    values (imagemill.acting(), 'end_overdue_cells', 'task/' || for_task,
            jsonb_build_object('status', the_task.status, 'round', the_task.round),
            jsonb_build_object('ended', ended, 'not_after', the_task.not_after, 'why', words));
end
$$;
comment on function imagemill.end_overdue_cells is 'Cancels the pending cells of a task whose not_after has come, and writes it into the audit; nothing where it has not, or nothing is pending.';

create trigger audit_task_bounds after update of max_submits, not_before, not_after on imagemill.tasks
    for each row execute function imagemill.audit_task_bounds();
