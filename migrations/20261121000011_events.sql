-- What happened, for those who watch, and what came of it, for statistics. Both are written by triggers, so that no way
-- of changing a row can forget them.

create table events (
    xid xid8 not null default pg_current_xact_id(),
    id bigint generated always as identity,
    at timestamptz not null default now(),
    kind text not null check (kind in ('rollout.created', 'rollout.changed', 'rollout.deleted', 'update.offered',
        'update.changed', 'update.ended', 'update.withdrawn', 'firmware.created', 'firmware.changed', 'firmware.deleted')),
    rollout_id uuid,
    rollout_number bigint,
    data jsonb not null check (jsonb_typeof(data) = 'object'),
    primary key (xid, id)
);

comment on table events is 'What changed, in the order in which it may be read: only rows whose xid is below every running transaction are complete. Old ones are removed.';
comment on column events.xid is 'The transaction that wrote it. Numbers of a transaction that commits late are low, so readers wait for it.';
comment on column events.id is 'Order within the transaction.';
comment on column events.at is 'When that transaction began, by the database''s clock.';
comment on column events.kind is 'What happened: noun.verb.';
comment on column events.rollout_id is 'The rollout that it is about; null when it is about none.';
comment on column events.rollout_number is 'That rollout''s number.';
comment on column events.data is 'What a view needs to follow, without what a GET tells better.';

create table events_horizon (
    only_one boolean primary key default true check (only_one),
    xid xid8 not null,
    id bigint not null
);

insert into events_horizon (xid, id) values ('0', 0);

comment on table events_horizon is 'One row: the last event that was removed. Whoever has read less has missed something.';
comment on column events_horizon.only_one is 'Keeps the table at one row.';
comment on column events_horizon.xid is 'That event''s xid; 0 while none was removed.';
comment on column events_horizon.id is 'That event''s id.';

create table outcomes (
    hour timestamptz not null,
    version text not null,
    platform text not null,
    channel text not null,
    outcome text not null check (outcome in ('completed', 'failed', 'declined', 'cancelled')),
    reason text not null,
    duration smallint not null,
    count bigint not null,
    primary key (hour, version, platform, channel, outcome, reason, duration)
);

create table outcomes_log (like outcomes);

comment on table outcomes is 'How many attempts ended how, summed up. Everything that ended is here or in outcomes_log, once.';
comment on column outcomes.hour is 'Begin of the hour in which they ended; of the day (UTC) once that is two days ago.';
comment on column outcomes.version is 'The version that was offered.';
comment on column outcomes.platform is 'The platform of the release; unknown when that was deleted before its attempt ended.';
comment on column outcomes.channel is 'The channel of the release; unknown likewise.';
comment on column outcomes.outcome is 'How they ended, as in update_history.status.';
comment on column outcomes.reason is 'As in update_history.reason; empty where that is null.';
comment on column outcomes.duration is 'Time from offer to proof as floor(log(milliseconds) / log(1.1)); -1 for attempts that were not proved.';
comment on column outcomes.count is 'How many. Below zero where a late proof took a failure back whose release is gone.';
comment on table outcomes_log is 'What is not in outcomes yet: rows are only added, so that nobody waits for anybody, and a job moves them.';
comment on column outcomes_log.hour is 'As in outcomes.';
comment on column outcomes_log.version is 'As in outcomes.';
comment on column outcomes_log.platform is 'As in outcomes.';
comment on column outcomes_log.channel is 'As in outcomes.';
comment on column outcomes_log.outcome is 'As in outcomes.';
comment on column outcomes_log.reason is 'As in outcomes.';
comment on column outcomes_log.duration is 'As in outcomes.';
comment on column outcomes_log.count is 'One for each attempt; minus one takes it back.';

create function duration_class(seconds double precision) returns smallint
language sql immutable strict as $$
    select floor(ln(greatest(seconds * 1000, 1)) / ln(1.1))::smallint
$$;

create function note_outcome(u update_history, sign integer) returns void
language plpgsql as $$
begin
    insert into outcomes_log
    select date_trunc('hour', coalesce(u.completed_at, now()), 'UTC'), u.firmware_version, coalesce(f.platform, 'unknown'),
        coalesce(f.channel, 'unknown'), u.status, coalesce(u.reason, ''),
        coalesce(duration_class(extract(epoch from u.confirmed_at - u.started_at)), -1), sign
    from (select) one left join firmware_versions f on f.id = u.firmware_version_id;
end $$;

create function tell_offers() returns trigger
language plpgsql as $$
begin
    insert into events (kind, rollout_id, rollout_number, data)
    select 'update.offered', u.rollout_id, r.number, jsonb_build_object('id', u.id, 'number', u.number, 'rollout_id', u.rollout_id,
        'rollout_number', r.number, 'printer_id', p.printer_id, 'firmware_version', u.firmware_version,
        'from_version', u.from_version, 'attempt', u.attempt, 'status', u.status, 'open', u.open)
    from new_rows u join printers p on p.id = u.printer left join update_rollouts r on r.id = u.rollout_id;
    perform note_outcome(u, 1) from (select h.* from new_rows n join update_history h on h.id = n.id where not n.open) u;
    return null;
end $$;

create function tell_withdrawn() returns trigger
language plpgsql as $$
begin
    insert into events (kind, rollout_id, rollout_number, data)
    select 'update.withdrawn', u.rollout_id, r.number, jsonb_build_object('id', u.id, 'number', u.number, 'rollout_id', u.rollout_id,
        'rollout_number', r.number, 'printer_id', p.printer_id, 'firmware_version', u.firmware_version)
    from old_rows u join printers p on p.id = u.printer left join update_rollouts r on r.id = u.rollout_id
    where u.open;
    return null;
end $$;

-- For each row, unlike the others: its condition costs a report of progress nothing, and those are most of all writes.
create function tell_change() returns trigger
language plpgsql as $$
begin
    insert into events (kind, rollout_id, rollout_number, data)
    select case when new.open then 'update.changed' else 'update.ended' end, new.rollout_id, r.number,
        jsonb_build_object('id', new.id, 'number', new.number, 'rollout_id', new.rollout_id, 'rollout_number', r.number,
            'printer_id', p.printer_id, 'firmware_version', new.firmware_version, 'from_version', new.from_version,
            'attempt', new.attempt, 'status', new.status, 'open', new.open, 'reason', new.reason,
            'error_message', left(new.error_message, 200))
    from printers p left join update_rollouts r on r.id = new.rollout_id where p.id = new.printer;
    if not old.open then
        perform note_outcome(old, -1);
    end if;
    if not new.open then
        perform note_outcome(new, 1);
    end if;
    return null;
end $$;

create trigger tell_inserted after insert on update_history referencing new table as new_rows
    for each statement execute function tell_offers();
create trigger tell_deleted after delete on update_history referencing old table as old_rows
    for each statement execute function tell_withdrawn();
create trigger tell_updated after update on update_history for each row
    when ((old.status, old.open, old.reason, old.error_message, old.completed_at, old.confirmed_at, old.started_at)
        is distinct from (new.status, new.open, new.reason, new.error_message, new.completed_at, new.confirmed_at, new.started_at))
    execute function tell_change();

create function tell_rollouts() returns trigger
language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        insert into events (kind, rollout_id, rollout_number, data)
        select 'rollout.created', r.id, r.number, jsonb_build_object('id', r.id, 'number', r.number,
            'firmware_version', r.firmware_version, 'rollout_type', r.rollout_type, 'status', r.status,
            'rollout_percentage', r.rollout_percentage, 'scheduled_for', to_char(r.scheduled_for at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
        from new_rows r;
        return null;
    end if;
    insert into events (kind, rollout_id, rollout_number, data)
    select case when r.deleted_at is null then 'rollout.changed' else 'rollout.deleted' end, r.id, r.number,
        jsonb_build_object('id', r.id, 'number', r.number, 'firmware_version', r.firmware_version, 'rollout_type', r.rollout_type,
            'status', r.status, 'rollout_percentage', r.rollout_percentage, 'scheduled_for', to_char(r.scheduled_for at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
    from (select id, number, firmware_version, rollout_type, status, rollout_percentage, scheduled_for, revision, deleted_at from new_rows
          except all select id, number, firmware_version, rollout_type, status, rollout_percentage, scheduled_for, revision, deleted_at
          from old_rows) r;
    return null;
end $$;

create trigger tell_inserted after insert on update_rollouts referencing new table as new_rows
    for each statement execute function tell_rollouts();
create trigger tell_updated after update on update_rollouts referencing old table as old_rows new table as new_rows
    for each statement execute function tell_rollouts();

create function tell_firmware() returns trigger
language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        insert into events (kind, data)
        select 'firmware.created', jsonb_build_object('id', f.id, 'number', f.number, 'version', f.version, 'channel', f.channel,
            'platform', f.platform, 'mandatory', f.mandatory, 'deprecated', f.deprecated_at is not null)
        from new_rows f;
    elsif tg_op = 'DELETE' then
        insert into events (kind, data)
        select 'firmware.deleted', jsonb_build_object('id', f.id, 'number', f.number, 'version', f.version, 'channel', f.channel,
            'platform', f.platform, 'mandatory', f.mandatory, 'deprecated', f.deprecated_at is not null)
        from old_rows f;
    else
        insert into events (kind, data)
        select 'firmware.changed', jsonb_build_object('id', f.id, 'number', f.number, 'version', f.version, 'channel', f.channel,
            'platform', f.platform, 'mandatory', f.mandatory, 'deprecated', f.deprecated_at is not null)
        from (select id, number, version, channel, platform, mandatory, deprecated_at, revision from new_rows
              except all select id, number, version, channel, platform, mandatory, deprecated_at, revision from old_rows) f;
    end if;
    return null;
end $$;

create trigger tell_inserted after insert on firmware_versions referencing new table as new_rows
    for each statement execute function tell_firmware();
create trigger tell_updated after update on firmware_versions referencing old table as old_rows new table as new_rows
    for each statement execute function tell_firmware();
create trigger tell_deleted after delete on firmware_versions referencing old table as old_rows
    for each statement execute function tell_firmware();

-- What ended before, summed up as `src/stats` would have done by now.
insert into outcomes
select date_trunc(case when ended < date_trunc('day', now() - interval '48 hours', 'UTC') then 'day' else 'hour' end, ended, 'UTC'),
    u.firmware_version, coalesce(f.platform, 'unknown'), coalesce(f.channel, 'unknown'), u.status, coalesce(u.reason, ''),
    coalesce(duration_class(extract(epoch from u.confirmed_at - u.started_at)), -1), count(*)
from (select *, coalesce(completed_at, started_at) as ended from update_history where not open) u
left join firmware_versions f on f.id = u.firmware_version_id
group by 1, 2, 3, 4, 5, 6, 7;

alter table replicas add column printers integer not null default 0 check (printers >= 0);

comment on column replicas.printers is 'How many printers'' sockets it held at its last heartbeat.';

-- The list of all attempts, by what it can be filtered with.
create index update_history_rollout_number on update_history (rollout_id, number);
create index update_history_version on update_history (firmware_version, number);
create index update_history_started on update_history (started_at, number);
create index update_history_unhappy on update_history (status, number) where status in ('failed', 'declined', 'cancelled');
create index update_history_unhappy_of on update_history (rollout_id, status, number) where status in ('failed', 'declined', 'cancelled');
create index update_history_reason on update_history (reason, number) where reason is not null;
create index update_history_error on update_history (number) where error_message is not null;
