-- Who says that a submit was not billed may say it before its answer can have come.
alter table imagemill.attempts add column resolved_at timestamptz;
comment on column imagemill.attempts.resolved_at is 'When a person said what became of it, who had seen the bill. One that was not billed is not submitted anew before its answer_until.';
