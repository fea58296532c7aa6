-- A cell whose polls are refused for a worker's token goes over to a worker whose token is not, and the time does not count.
comment on column imagemill.attempts.reopened_at is 'When a retry took it up again, and later by as long as its polls were refused for the token of a worker that handed it over; poll limit and deadline count from here.';
