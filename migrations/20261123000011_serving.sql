-- What each worker takes, so that a cell that waits can be told whether anybody would take it.

alter table imagemill.incarnations
    add column lanes      text[],
    add column only_group text;
comment on column imagemill.incarnations.lanes      is 'Lanes that it claims cells from; empty: it takes cells by their ids alone. Null: an older worker, all.';
comment on column imagemill.incarnations.only_group is 'It takes cells of this task alone; null: of any.';
