-- What a task cost is summed up while it runs, too: of the cells that have ended by then. The others are counted beside.
alter table imagemill.task_spend add column open_cells int4multirange not null default '{}';
comment on table  imagemill.task_spend            is 'Submits of a task that were summed up from its attempts; all its rounds.';
comment on column imagemill.task_spend.round      is 'The round in which it was summed up; of another round it counts for nothing.';
comment on column imagemill.task_spend.open_cells is 'Cells that are not in the sum, since they had not ended; empty: all are in it.';

-- The views count by another function from here on; they are made again after the migrations.
drop view if exists imagemill.task_overview;
drop function if exists imagemill.count_submits(uuid, boolean);
