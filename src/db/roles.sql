-- What the two roles may do. A grant that is there already is left out: to give it again would write to the catalog.

do $$
declare
    wanted record;
begin
    for wanted in
        -- A reader sees the views of this schema and nothing else: no table, and so no password's hash. Users of a database give it
        -- to whom they like: grant imagemill_reader to somebody.
        select 'imagemill_reader' as role, 'relation' as kind, c.oid, format('imagemill.%I', c.relname) as name, 'select' as right, null::text as columns
        from pg_class c where c.relnamespace = 'imagemill'::regnamespace and c.relkind = 'v'
        union all
        select 'imagemill_reader', 'function', p.oid, p.oid::regprocedure::text, 'execute', null
        from pg_proc p where p.pronamespace = 'imagemill'::regnamespace and p.prosecdef and p.proname in ('count_submits', 'find_stuck', 'why_not_running')
        union all
        select role, 'schema', n.oid, n.nspname::text, 'usage', null
        from pg_namespace n, (values ('imagemill_reader', 'imagemill'), ('imagemill_producer', 'imagemill'), ('imagemill_producer', 'apalis'))
             as given (role, schema) where n.nspname = schema
        union all
        -- A producer does what create_task does: looks whether the schema fits and who acts, and inserts.
        select 'imagemill_producer', 'relation', given.name::regclass, given.name, given.right, given.columns
        from (values
            ('imagemill._sqlx_migrations', 'select', 'version, success'),
            ('imagemill.users', 'select', 'id, username, roles, is_active, created_at'),
            ('imagemill.tasks', 'select', 'id, user_id, idempotency_key, input_sha256, total_images'),
            ('imagemill.tasks', 'insert', 'id, user_id, name, priority, lane, idempotency_key, input_sha256, prompts, settings, axes, total_images, is_alone, max_submits, not_before, not_after'),
            ('imagemill.task_counts', 'insert', 'task_id'),
            ('imagemill.subtasks', 'insert', 'id, task_id, cell, variable_indices, copy, lane, seed, ratio, width, height, use_polish, is_lumina, lumina_model_name, lumina_cfg, lumina_step'),
            ('apalis.jobs', 'select', 'job_type, idempotency_key'),
            ('apalis.jobs', 'insert', 'id, job_type, job, status, attempts, max_attempts, run_at, priority, metadata, idempotency_key')
        ) as given (name, "right", columns)
    loop
        continue when not exists (select from pg_roles where rolname = wanted.role);
        case wanted.kind
            when 'schema' then
                if not has_schema_privilege(wanted.role, wanted.oid, wanted.right) then
                    execute format('grant %s on schema %I to %I', wanted.right, wanted.name, wanted.role);
                end if;
            when 'function' then
                if has_function_privilege('public', wanted.oid, wanted.right) then
                    execute format('revoke %s on function %s from public', wanted.right, wanted.name);
                end if;
                if not has_function_privilege(wanted.role, wanted.oid, wanted.right) then
                    execute format('grant %s on function %s to %I', wanted.right, wanted.name, wanted.role);
                end if;
            else
                if wanted.columns is null then
                    if not has_table_privilege(wanted.role, wanted.oid, wanted.right) then
                        execute format('grant %s on %s to %I', wanted.right, wanted.name, wanted.role);
                    end if;
                elsif exists (select from unnest(string_to_array(wanted.columns, ', ')) as given (name)
                              where not has_column_privilege(wanted.role, wanted.oid, given.name, wanted.right)) then
                    execute format('grant %s (%s) on %s to %I', wanted.right, wanted.columns, wanted.name, wanted.role);
                end if;
        end case;
    end loop;
end
$$;
