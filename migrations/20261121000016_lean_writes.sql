-- What a claim, a report and a subscribe cost. An attempt is written with every claim and every outcome, and each index,
-- each foreign key and each event is written or looked up with it.

-- What the others answer as well: (printer, number) the few attempts of one printer, (rollout_id, number) those of one
-- rollout, (started_at, number) those of the last minute.
drop index update_history_rollout, update_history_release, update_history_silent, update_history_last, update_history_targets,
    update_history_offered, update_history_in_flight, update_history_unhappy;
drop index printers_version;
-- By its beginning, which never changes, so that a sign of life writes no index.
create index update_history_open on update_history (started_at) where open;
create index update_history_refused on update_history (status, number) where status in ('declined', 'cancelled');

-- Printers and rollouts are never deleted, and a claim holds both. It holds the release as well, whose deletion forgets it:
alter table update_history
    drop constraint update_history_rollout_id_fkey,
    drop constraint update_history_printer_fkey,
    drop constraint update_history_firmware_version_id_fkey;

create function forget_release() returns trigger language plpgsql as $$
begin
    update update_history set firmware_version_id = null
    where firmware_version = old.version and firmware_version_id = old.id;
    return old;
end $$;
comment on function forget_release is 'What a foreign key with "on delete set null" would do, without a look-up for every attempt.';
create trigger forget_release before delete on firmware_versions for each row execute function forget_release();

-- What one statement did to many attempts is one event, which is told apart when somebody reads it.
create type update_change as (update_id uuid, status text, open boolean, reason text, error_message text);
comment on type update_change is 'How an attempt stood when something changed.';
alter table events add column changes update_change[];
alter table events alter column data drop not null;
alter table events add check ((data is null) <> (changes is null));
comment on column events.data is 'What a view needs to follow, without what a GET tells better; null where changes say it.';
comment on column events.changes is 'The attempts that it is about, each an event for whoever reads; null where data says it.';

create or replace function tell_offers() returns trigger
language plpgsql as $$
begin
    insert into events (kind, rollout_id, rollout_number, changes)
    select 'update.offered', n.rollout_id, r.number,
        array_agg((n.id, n.status, n.open, n.reason, left(n.error_message, 200))::update_change order by n.number)
    from (select *, (row_number() over (order by number) - 1) / 1000 as part from new_rows) n
        left join update_rollouts r on r.id = n.rollout_id
    group by n.rollout_id, r.number, n.part;
    perform note_outcome(u, 1) from (select h.* from new_rows n join update_history h on h.id = n.id where not n.open) u;
    return null;
end $$;

-- Neither of these joins the rows before with those after: PostgreSQL plans a trigger's statement when a session runs it
-- first, maybe for one row, and would compare each of hundreds with each ever after.
create or replace function tell_changes() returns trigger
language plpgsql as $$
begin
    insert into events (kind, rollout_id, rollout_number, changes)
    select case when n.open then 'update.changed' else 'update.ended' end, n.rollout_id, r.number,
        array_agg((n.id, n.status, n.open, n.reason, left(n.error_message, 200))::update_change order by n.number)
    from (
        select *, (row_number() over (order by number) - 1) / 1000 as part
        from (
            select id, number, rollout_id, status, open, reason, error_message, completed_at, confirmed_at, started_at from new_rows
            except all
            select id, number, rollout_id, status, open, reason, error_message, completed_at, confirmed_at, started_at from old_rows
        ) changed
    ) n left join update_rollouts r on r.id = n.rollout_id
    group by 1, n.rollout_id, r.number, n.part;
    insert into outcomes_log (hour, version, platform, channel, outcome, reason, duration, count, release)
    select date_trunc('hour', coalesce(u.completed_at, now()), 'UTC'), u.firmware_version, coalesce(f.platform, 'unknown'),
        coalesce(f.channel, 'unknown'), u.status, coalesce(u.reason, ''),
        coalesce(duration_class(extract(epoch from u.confirmed_at - u.started_at)), -1), sum(u.sign),
        coalesce(f.id, '00000000-0000-0000-0000-000000000000')
    from (
        select -1 as sign, * from old_rows where not open
        union all
        select 1, * from new_rows where not open
    ) u left join firmware_versions f on f.id = u.firmware_version_id
    group by 1, 2, 3, 4, 5, 6, 7, 9 having sum(u.sign) <> 0;
    return null;
end $$;

create or replace function census_of_changed_printers() returns trigger language plpgsql as $$
begin
    insert into census (rollout_id, named, platform, firmware_version, version_key, auto_update, update_channel, installed_release,
        installed_rollout, stage, state, n)
    with sides as materialized (
        select sum(n) as n, id, user_id, printer_id, platform, firmware_version, version_key, auto_update, update_channel,
            installed_release, installed_rollout, previous_version
        from (
            select -1 as n, id, user_id, printer_id, platform, firmware_version, version_key, auto_update, update_channel,
                installed_release, installed_rollout, previous_version from old_rows
            union all
            select 1, id, user_id, printer_id, platform, firmware_version, version_key, auto_update, update_channel,
                installed_release, installed_rollout, previous_version from new_rows
        ) either
        group by 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 having sum(n) <> 0
    )
    select null, true, platform, firmware_version, version_key, auto_update, update_channel, installed_release, installed_rollout,
        0, null, sum(n)
    from sides group by 3, 4, 5, 6, 7, 8, 9 having sum(n) <> 0
    union all
    select r.id, rollout_names(r, s.user_id, s.printer_id, s.installed_rollout, s.previous_version), s.platform, s.firmware_version,
        s.version_key, s.auto_update, s.update_channel, s.installed_release, s.installed_rollout, u.stage,
        update_state(u.status, u.open, u.tries, r.max_attempts), sum(s.n)
    from sides s join update_history u on u.printer = s.id and u.last join update_rollouts r on r.id = u.rollout_id
    group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 having sum(s.n) <> 0;
    return null;
end $$;
