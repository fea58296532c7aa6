-- Polls a second of a lane, shared out among the workers that poll in it.

create table imagemill.poll_shares (
    lane   text             not null,
    worker text             not null,
    cells  integer          not null,
    rate   double precision not null,
    at     timestamptz      not null default now(),
    constraint poll_shares_pkey primary key (lane, worker),
    constraint poll_shares_lane_fkey foreign key (lane) references imagemill.lanes (lane) on delete cascade,
    constraint poll_shares_worker_fkey foreign key (worker) references imagemill.incarnations (name) on delete cascade,
    constraint poll_shares_cells_not_negative check (cells >= 0),
    constraint poll_shares_rate_not_negative check (rate >= 0)
) with (fillfactor = 20);
comment on table  imagemill.poll_shares        is 'Who polls how fast in a lane that has polls_per_second; the rates of a lane are never more than that together.';
comment on column imagemill.poll_shares.worker is 'Incarnation.';
comment on column imagemill.poll_shares.cells  is 'Cells that it polled for when it last asked.';
comment on column imagemill.poll_shares.rate   is 'Polls a second that nobody else may make: its share, or what it had before until it says that it has slowed down.';
comment on column imagemill.poll_shares.at     is 'When it last asked.';
comment on column imagemill.lanes.polls_per_second is 'Polls a second over all workers, and one more of each worker; null: no limit.';

create function imagemill.share_polls(p_worker text, p_lanes text[], p_cells integer[], p_used double precision[])
returns table (lane text, rate double precision)
language plpgsql
as $$
#variable_conflict use_column
declare
    one record;
    is_alive boolean;
    everybody bigint;
    others double precision;
begin
    -- Who loses it asks again, and a share that was handed out is less than one that was taken back: no disk is waited for.
    perform set_config('synchronous_commit', 'off', true);
    -- One after another: each statement from here on sees what those before it have committed.
    perform pg_advisory_xact_lock(hashtextextended('imagemill.poll_shares', 0));
    delete from imagemill.poll_shares as shares using imagemill.incarnations as workers
    where workers.name = shares.worker and workers.ended_at is not null;
    is_alive := exists (select from imagemill.incarnations as workers where workers.name = p_worker and workers.ended_at is null);
    for one in
        -- A poll arrives up to a tenth of a second after it has left: so many more may arrive in a second than leave in one.
        select given.lane, given.cells, given.used, lanes.polls_per_second / 1.1 as allowed
        from unnest(p_lanes, p_cells, p_used) as given (lane, cells, used)
        left join imagemill.lanes as lanes on lanes.lane = given.lane
    loop
        lane := one.lane;
        if one.allowed is null then
            delete from imagemill.poll_shares as shares where shares.lane = one.lane and shares.worker = p_worker;
            rate := null;
        elsif not is_alive then
            rate := 0;
        else
            select coalesce(sum(shares.cells), 0), coalesce(sum(shares.rate), 0) into everybody, others
            from imagemill.poll_shares as shares where shares.lane = one.lane and shares.worker <> p_worker;
            -- By cells, so that each is asked for as often as any other; and never what another worker has not given back.
            rate := greatest(0, least(one.allowed * one.cells / greatest(everybody + one.cells, 1), one.allowed - others));
            if one.cells = 0 and one.used = 0 then
                delete from imagemill.poll_shares as shares where shares.lane = one.lane and shares.worker = p_worker;
            else
                insert into imagemill.poll_shares as shares (lane, worker, cells, rate)
                values (one.lane, p_worker, one.cells, greatest(rate, one.used))
                on conflict on constraint poll_shares_pkey
                do update set cells = excluded.cells, rate = excluded.rate, at = now();
            end if;
        end if;
        return next;
    end loop;
end
$$;
comment on function imagemill.share_polls is 'A worker says for how many cells it polls in each lane and how fast it does, and is told how fast it may from now on; null: no limit.';
