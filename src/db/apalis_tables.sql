-- The repeatable step after apalis's migrations, in one transaction. It may run at any time beside live workers: what is
-- already as it should be is not touched, so that nothing is locked. Indexes stand in indexes.sql.

do $$
begin
    -- Our queues notify once a statement from the statement itself; apalis's trigger would do it once a row.
    if not exists (select from pg_trigger
                   where tgrelid = 'apalis.jobs'::regclass and tgname = 'notify_workers'
                     and pg_get_triggerdef(oid) like '%imagemill.%') then
        drop trigger if exists notify_workers on apalis.jobs;
        create trigger notify_workers after insert on apalis.jobs
            for each row when (new.job_type not like 'imagemill.%')
            execute function apalis.notify_new_jobs();
    end if;
end
$$;

-- A vacuum of the jobs in time. Each claim and each settle leaves a dead row and dead entries in the indexes that the next claim
-- walks, and pruning leaves the rest: with a day's million finished jobs in the table PostgreSQL's default would wait for 200,000.
-- No fillfactor: a change of a job's state is in an index, so none can be a HOT update, and room would only be wasted (35.8 MB
-- for 28.6 after 60,000 cells). What somebody has set by hand stays; where all is set nothing is locked.
do $$
declare
    missing text;
begin
    select string_agg(format('%s = %s', name, value), ', ') into missing
    from (values ('autovacuum_vacuum_scale_factor', '0.02'), ('autovacuum_vacuum_threshold', '5000'),
                 ('autovacuum_analyze_scale_factor', '0.02'), ('autovacuum_analyze_threshold', '5000')) as wanted (name, value)
    where not exists (select from pg_class, unnest(reloptions) as option
                      where pg_class.oid = 'apalis.jobs'::regclass and split_part(option, '=', 1) = wanted.name);
    if missing is not null then
        execute format('alter table apalis.jobs set (%s)', missing);
    end if;
end
$$;

-- Room in the indexes that each new version of a job's row goes into: a claim and a settle add an entry of the same key each, and
-- full pages, as an insert in order leaves them, would all be split for that (a third of what these two cost). It counts for new pages.
do $$
declare
    index_name text;
begin
    for index_name in
        select pg_class.relname from pg_class
        where pg_class.oid in ('apalis.jobs_pkey'::regclass, 'apalis.idx_jobs_idempotency_key'::regclass)
          and not exists (select from unnest(pg_class.reloptions) as option where option like 'fillfactor=%')
    loop
        execute format('alter index apalis.%I set (fillfactor = 50)', index_name);
    end loop;
end
$$;
