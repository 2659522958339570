-- Who changed what. Triggers write it in the transaction of the change, so that no way of changing a row can forget it,
-- and at its very end, because the entries form a chain and are written one after the other.
create table audit (
    number bigint primary key,
    at timestamptz not null,
    actor text not null,
    address text,
    operation text,
    trace_id text,
    action text not null,
    subject_id text not null,
    subject text not null,
    before jsonb,
    after jsonb,
    reach_users text[],
    reach_channels text[],
    reach_platforms text[],
    hash bytea not null check (length(hash) = 32)
);
create index audit_actor on audit (actor, number);
create index audit_subject on audit (subject_id, number);
create index audit_at on audit (at);

comment on table audit is 'Who changed what. Rows are only added; each holds the SHA-256 of itself and the row before it.';
comment on column audit.number is 'Without gaps, from 1.';
comment on column audit.at is 'When, by the database''s clock.';
comment on column audit.actor is 'Who, as in api_keys.created_by; `server` for what it did by itself.';
comment on column audit.address is 'Where the request came from; null without one.';
comment on column audit.operation is 'The operation of the OpenAPI document, or the command; null for what the server did by itself.';
comment on column audit.trace_id is 'The trace of the request; null without one.';
comment on column audit.action is 'What happened: noun.verb.';
comment on column audit.subject_id is 'The row that it is about.';
comment on column audit.subject is 'The same as people call it.';
comment on column audit.before is 'What was there: of a change only what changed, never a secret; null for what was made.';
comment on column audit.after is 'What is there now, likewise; null for what was deleted.';
comment on column audit.reach_users is 'Whose printers it is about at most, as in update_rollouts; null: anybody''s.';
comment on column audit.reach_channels is 'The same for channels.';
comment on column audit.reach_platforms is 'The same for platforms.';
comment on column audit.hash is 'SHA-256 of the hash before it in hex, empty for the first, and audit_text of the row.';

-- The text that is hashed. `paperminder-ota audit verify` builds it likewise, and hashes it outside of the database.
create function audit_text(a audit) returns text language sql stable as $$
    select jsonb_build_array(a.number, to_char(a.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), a.actor, a.address, a.operation,
        a.trace_id, a.action, a.subject_id, a.subject, a.before, a.after, a.reach_users, a.reach_channels, a.reach_platforms)::text
$$;
comment on function audit_text is 'What an entry says, for its hash.';

create function audit_append(action text, subject_id text, subject text, before jsonb, after jsonb, users text[], channels text[], platforms text[])
returns void language plpgsql security definer set search_path from current as $$
declare
    entry audit;
    last audit;
begin
    -- One after the other until the end of the transaction, which is near: this comes last in it.
    perform pg_advisory_xact_lock(hashtextextended('paperminder audit', 0));
    select * into last from audit a order by a.number desc limit 1;
    entry.number := coalesce(last.number, 0) + 1;
    entry.at := clock_timestamp();
    entry.actor := coalesce(nullif(current_setting('paperminder.actor', true), ''), 'server');
    entry.address := nullif(current_setting('paperminder.address', true), '');
    entry.operation := nullif(current_setting('paperminder.operation', true), '');
    entry.trace_id := nullif(current_setting('paperminder.trace_id', true), '');
    entry.action := action;
    entry.subject_id := subject_id;
    entry.subject := subject;
    entry.before := before;
    entry.after := after;
    entry.reach_users := users;
    entry.reach_channels := channels;
    entry.reach_platforms := platforms;
    entry.hash := sha256(convert_to(coalesce(encode(last.hash, 'hex'), '') || audit_text(entry), 'UTF8'));
    insert into audit select entry.*;
end $$;
comment on function audit_append is 'Adds an entry. Call it last in a transaction.';

create function audit_is_append_only() returns trigger language plpgsql as $$
begin
    raise exception 'the audit trail is only ever added to' using errcode = 'insufficient_privilege';
end $$;
comment on function audit_is_append_only is 'Refuses every change of the trail, whoever asks.';
create trigger audit_is_append_only before update or delete or truncate on audit
    for each statement execute function audit_is_append_only();

-- What changed of a row, of both sides.
create function audit_change() returns trigger language plpgsql as $$
declare
    noun text := tg_argv[0];
    old_row jsonb := case when tg_op = 'INSERT' then null else to_jsonb(old) - '{secret_sha256,previous_sha256}'::text[] end;
    new_row jsonb := case when tg_op = 'DELETE' then null else to_jsonb(new) - '{secret_sha256,previous_sha256}'::text[] end;
    it jsonb := coalesce(new_row, old_row);
    verb text := case tg_op when 'INSERT' then 'created' when 'DELETE' then 'deleted' else 'changed' end;
    subject text;
    users text[];
    channels text[];
    platforms text[];
begin
    -- Made by two statements; this comes after both.
    if tg_op = 'INSERT' and tg_table_name = 'update_rollouts' then
        select to_jsonb(r) into it from update_rollouts r where r.id = new.id;
        new_row := it;
    end if;
    if tg_op = 'UPDATE' then
        if to_jsonb(old) ->> 'secret_sha256' <> to_jsonb(new) ->> 'secret_sha256' then
            verb := 'rotated';
        elsif tg_table_name = 'update_rollouts' and old_row ->> 'deleted_at' is null and new_row ->> 'deleted_at' is not null then
            verb := 'deleted';
        elsif tg_table_name = 'api_keys' and old_row ->> 'revoked_at' is null and new_row ->> 'revoked_at' is not null then
            verb := 'revoked';
        elsif tg_table_name = 'printers' then
            verb := case when new_row ->> 'blocked_at' is null then 'unblocked' else 'blocked' end;
        end if;
        select jsonb_object_agg(o.key, o.value), jsonb_object_agg(o.key, n.value) into old_row, new_row
        from jsonb_each(to_jsonb(old) - '{secret_sha256,previous_sha256}'::text[]) o
            join jsonb_each(to_jsonb(new) - '{secret_sha256,previous_sha256}'::text[]) n using (key)
        where o.value is distinct from n.value;
    elsif tg_table_name = 'update_history' then
        verb := 'forced';
    end if;
    case tg_table_name
        when 'update_rollouts' then
            subject := it ->> 'number';
            users := case when it -> 'reach_users' <> 'null' then array(select jsonb_array_elements_text(it -> 'reach_users')) end;
            channels := case when it -> 'reach_channels' <> 'null' then array(select jsonb_array_elements_text(it -> 'reach_channels')) end;
            platforms := case when it -> 'reach_platforms' <> 'null' then array(select jsonb_array_elements_text(it -> 'reach_platforms')) end;
        when 'firmware_versions' then
            subject := concat_ws(' ', it ->> 'version', it ->> 'channel', it ->> 'platform');
            channels := array[it ->> 'channel'];
            platforms := array[it ->> 'platform'];
        when 'api_keys' then
            subject := it ->> 'name';
            users := case when it -> 'user_ids' <> 'null' then array(select jsonb_array_elements_text(it -> 'user_ids')) end;
            channels := case when it -> 'channels' <> 'null' then array(select jsonb_array_elements_text(it -> 'channels')) end;
            platforms := case when it -> 'platforms' <> 'null' then array(select jsonb_array_elements_text(it -> 'platforms')) end;
        when 'owners' then
            subject := it ->> 'user_id';
            users := array[it ->> 'user_id'];
        when 'printer_keys' then
            subject := concat_ws(' ', it ->> 'user_id', it ->> 'printer_id');
            users := array[it ->> 'user_id'];
        when 'printers' then
            subject := it ->> 'printer_id';
            users := array[it ->> 'user_id'];
            channels := array[it ->> 'update_channel'];
            platforms := array[it ->> 'platform'];
        when 'update_history' then
            select p.printer_id, array[p.user_id], array[p.update_channel], array[p.platform] into subject, users, channels, platforms
            from printers p where p.id = (it ->> 'printer')::uuid;
    end case;
    perform audit_append(noun || '.' || verb, coalesce(it ->> 'id', it ->> 'user_id'), subject, old_row, new_row, users, channels, platforms);
    return null;
end $$;
comment on function audit_change is 'Adds an entry for a row that changed. Its argument is the noun of the action.';

-- Constraint triggers, because these can wait for the end of the transaction.
create constraint trigger audit_change after insert or delete on firmware_versions deferrable initially deferred
    for each row execute function audit_change('firmware');
create constraint trigger audit_amended after update on firmware_versions deferrable initially deferred
    for each row when (old.revision is distinct from new.revision) execute function audit_change('firmware');
create constraint trigger audit_change after insert on update_rollouts deferrable initially deferred
    for each row execute function audit_change('rollout');
-- Resting and waking are no decisions.
create constraint trigger audit_changed after update on update_rollouts deferrable initially deferred
    for each row when (old.revision is distinct from new.revision or old.deleted_at is distinct from new.deleted_at
        or (old.status = 'pending' and new.status <> 'pending')
        or (old.firmware_version, old.channel, old.target_all, old.target_user_ids, old.target_printer_ids, old.target_channels)
            is distinct from (new.firmware_version, new.channel, new.target_all, new.target_user_ids, new.target_printer_ids, new.target_channels))
    execute function audit_change('rollout');
create constraint trigger audit_change after insert or delete on api_keys deferrable initially deferred
    for each row execute function audit_change('key');
create constraint trigger audit_changed after update on api_keys deferrable initially deferred
    for each row when (to_jsonb(old) - 'last_used_at' is distinct from to_jsonb(new) - 'last_used_at') execute function audit_change('key');
create constraint trigger audit_change after insert or update or delete on owners deferrable initially deferred
    for each row execute function audit_change('user');
-- What printers bring themselves is in their table, and would come a thousand at once.
create constraint trigger audit_change after insert on printer_keys deferrable initially deferred
    for each row when (not new.enrolled) execute function audit_change('printer_key');
create constraint trigger audit_changed after update or delete on printer_keys deferrable initially deferred
    for each row execute function audit_change('printer_key');
create constraint trigger audit_blocked after update on printers deferrable initially deferred
    for each row when (old.blocked_at is distinct from new.blocked_at) execute function audit_change('printer');
create constraint trigger audit_forced after insert on update_history deferrable initially deferred
    for each row when (new.rollout_id is null) execute function audit_change('update');

-- A role that may make temporary tables must not put one in the place of the trail.
do $$
begin
    execute format('alter function audit_append(text, text, text, jsonb, jsonb, text[], text[], text[]) set search_path = %I, pg_temp', current_schema());
end $$;
