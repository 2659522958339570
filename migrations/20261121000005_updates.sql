-- Updates: one row for every attempt to bring one printer to one release.
create table update_history (
    id uuid primary key,
    number bigint generated always as identity unique,
    rollout_id uuid references update_rollouts (id),
    printer uuid not null references printers (id),
    firmware_version_id uuid not null references firmware_versions (id),
    firmware_version text not null,
    from_version text not null,
    attempt integer not null check (attempt >= 1),
    status text not null default 'pending'
        check (status in ('pending', 'downloading', 'completed', 'failed', 'declined', 'cancelled')),
    open boolean not null default true,
    reason text,
    error_message text,
    started_at timestamptz not null default now(),
    completed_at timestamptz,
    confirmed_at timestamptz,
    socket_lost_at timestamptz,
    sends integer not null default 1 check (sends >= 1),
    last_activity_at timestamptz not null default now(),
    last_percent integer not null default 0 check (last_percent between -1 and 100),
    last_status_message text,
    check (open or status not in ('pending', 'downloading')),
    check (not open or status in ('pending', 'downloading', 'completed')),
    check ((status = 'completed' and not open) = (confirmed_at is not null))
);

-- A printer is offered at most one update at a time.
create unique index update_history_one_open on update_history (printer) where open;
create index update_history_printer on update_history (printer, number desc);
create index update_history_rollout on update_history (rollout_id, printer, attempt desc);
create index update_history_release on update_history (firmware_version_id, status);
create index update_history_silent on update_history (last_activity_at) where open;

comment on table update_history is 'Attempts. The proof of an update is the printer''s next subscribe, not its word.';
comment on column update_history.id is 'UUID v7.';
comment on column update_history.number is 'The small sequential number that people type.';
comment on column update_history.rollout_id is 'The rollout that made the offer.';
comment on column update_history.printer is 'The printer that was offered the release.';
comment on column update_history.firmware_version_id is 'The release that was offered.';
comment on column update_history.firmware_version is 'Its version.';
comment on column update_history.from_version is 'What the printer ran when the offer was made.';
comment on column update_history.attempt is 'Counts the tries of one rollout with one printer, from 1.';
comment on column update_history.status is 'pending, downloading, completed, failed, declined or cancelled.';
comment on column update_history.open is 'True until the outcome is settled: a completed update stays open until the printer proved it by reconnecting.';
comment on column update_history.reason is 'Why it failed or was cancelled, as a word: reported, rolled_back, timeout, superseded, rollout_cancelled.';
comment on column update_history.error_message is 'What the printer said, or a sentence of ours.';
comment on column update_history.started_at is 'When the offer was claimed.';
comment on column update_history.completed_at is 'When the outcome was known.';
comment on column update_history.confirmed_at is 'When the printer came back on the new version.';
comment on column update_history.socket_lost_at is 'When the printer''s socket went away after the offer: the normal course of a download.';
comment on column update_history.sends is 'How often the offer went out; more than once when the process that sent it died.';
comment on column update_history.last_activity_at is 'The last sign of life of this update.';
comment on column update_history.last_percent is 'The last progress that the printer told; -1 for an error.';
comment on column update_history.last_status_message is 'The last status text that the printer told.';
