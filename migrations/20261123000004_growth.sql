-- How the tables that a fleet works on keep their size: room for the next version of a row beside it, and a vacuum in time.
-- Figures are of drains of 20,000 cells and more, by workers that write groups of cells together. Nobody who reads or writes
-- waits for these statements: they keep away vacuums and changes of a schema alone.

-- A cell's first change (pending to processing) names no column of an index: it is a HOT update where its page has room, which
-- spares three index entries and makes the old version's place usable at once. A worker begins neighbours together, so that all
-- the rows of a page want a second version at the same time; and a begun row is longer, by the hash of its request. With 70 half
-- of these updates found room, with 50 five of six, with 40 all of them: with that and the next, a tenth less WAL and processor
-- time a cell, for a third more disk.
alter table imagemill.subtasks set (fillfactor = 40);
-- The same of an attempt that is accepted, whose row gets the upstream's id: 73 of 100 with 70, 92 with 50.
alter table imagemill.attempts set (fillfactor = 50);
-- A purge adds to the same few rows once in 500 cells.
alter table imagemill.spend_sums set (fillfactor = 80);

-- These two keep every row until a purge, and only their newest rows change. By PostgreSQL's default a vacuum comes when a fifth
-- of a table is dead: of ten million cells that is two million, all of them among the open cells, through which the partial
-- indexes lead. A vacuum skips the pages in which nothing has changed, so that it may come often; and it comes once in
-- autovacuum_naptime at most. Statistics follow, since a task of 50,000 cells changes what a plan should be.
alter table imagemill.subtasks set (
    autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 10000);
alter table imagemill.attempts set (
    autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 10000,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 10000);
-- task_counts stays as it is: a change of it is always a HOT update, and PostgreSQL's default vacuums a table this small each
-- time that it looks (48 kB after 40,000 changes). The jobs' table is apalis's: src/db/apalis_tables.sql.
