-- A rollout may be told to believe printers with keys of their own only, so the census tells the others apart.
alter table census add column shared boolean not null default false;
comment on column census.shared is 'Whether the printers showed a key that speaks for others as well; false in the count of the fleet.';
alter table update_rollouts add column own_keys_only boolean not null default false;
comment on column update_rollouts.own_keys_only is 'Whether its thresholds count only printers with a key of their own.';

create or replace function census_of_changed_printers() returns trigger language plpgsql as $$
begin
    insert into census (rollout_id, named, platform, firmware_version, version_key, auto_update, update_channel, installed_release,
        installed_rollout, stage, state, shared, n)
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
        0, null, false, sum(n)
    from sides group by 3, 4, 5, 6, 7, 8, 9 having sum(n) <> 0
    union all
    select r.id, rollout_names(r, s.user_id, s.printer_id, s.installed_rollout, s.previous_version), s.platform, s.firmware_version,
        s.version_key, s.auto_update, s.update_channel, s.installed_release, s.installed_rollout, u.stage,
        update_state(u.status, u.open, u.tries, r.max_attempts), u.shared_key, sum(s.n)
    from sides s join update_history u on u.printer = s.id and u.last join update_rollouts r on r.id = u.rollout_id
    group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 having sum(s.n) <> 0;
    return null;
end $$;

create or replace function census_of_updates() returns trigger language plpgsql as $$
begin
    -- Whoever changes an update's state holds its printer's row, so what is joined here is what counts.
    if tg_op = 'INSERT' then
        insert into census (rollout_id, named, platform, firmware_version, version_key, auto_update, update_channel, installed_release,
            installed_rollout, stage, state, shared, n)
        select r.id, rollout_names(r, p.user_id, p.printer_id, p.installed_rollout, p.previous_version), p.platform, p.firmware_version,
            p.version_key, p.auto_update, p.update_channel, p.installed_release, p.installed_rollout, s.stage,
            update_state(s.status, s.open, s.tries, r.max_attempts), s.shared_key, count(*)
        from new_rows s join update_rollouts r on r.id = s.rollout_id join printers p on p.id = s.printer
        where s.last group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12;
    elsif tg_op = 'DELETE' then
        insert into census (rollout_id, named, platform, firmware_version, version_key, auto_update, update_channel, installed_release,
            installed_rollout, stage, state, shared, n)
        select r.id, rollout_names(r, p.user_id, p.printer_id, p.installed_rollout, p.previous_version), p.platform, p.firmware_version,
            p.version_key, p.auto_update, p.update_channel, p.installed_release, p.installed_rollout, s.stage,
            update_state(s.status, s.open, s.tries, r.max_attempts), s.shared_key, -count(*)
        from old_rows s join update_rollouts r on r.id = s.rollout_id join printers p on p.id = s.printer
        where s.last group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12;
    else
        insert into census (rollout_id, named, platform, firmware_version, version_key, auto_update, update_channel, installed_release,
            installed_rollout, stage, state, shared, n)
        with sides as (
            select -1 as n, o.rollout_id, o.printer, o.status, o.open, o.tries, o.stage, o.shared_key
            from old_rows o where o.last and o.rollout_id is not null
            union all
            select 1, n.rollout_id, n.printer, n.status, n.open, n.tries, n.stage, n.shared_key
            from new_rows n where n.last and n.rollout_id is not null
        ),
        moved as (
            select rollout_id, printer, stage, status, open, tries, shared_key, sum(n) as n from sides
            group by 1, 2, 3, 4, 5, 6, 7 having sum(n) <> 0
        )
        select r.id, rollout_names(r, p.user_id, p.printer_id, p.installed_rollout, p.previous_version), p.platform, p.firmware_version,
            p.version_key, p.auto_update, p.update_channel, p.installed_release, p.installed_rollout, s.stage,
            update_state(s.status, s.open, s.tries, r.max_attempts), s.shared_key, sum(s.n)
        from moved s join update_rollouts r on r.id = s.rollout_id join printers p on p.id = s.printer
        group by 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 having sum(s.n) <> 0;
    end if;
    return null;
end $$;
