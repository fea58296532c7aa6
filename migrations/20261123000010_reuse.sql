-- Pictures that a task takes over from an earlier one.

alter table imagemill.subtasks add column reused_from uuid;
comment on column imagemill.subtasks.reused_from is 'The cell for which its picture was paid, and which may be purged by now: it was taken over at creation, without a job or an attempt. Null: it is this cell''s own.';
