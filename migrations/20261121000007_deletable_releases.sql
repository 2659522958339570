-- A release may be deleted once nothing active needs it; what was done with it stays readable by its version.
alter table update_rollouts
    alter column firmware_version_id drop not null,
    drop constraint update_rollouts_firmware_version_id_fkey,
    add constraint update_rollouts_firmware_version_id_fkey
        foreign key (firmware_version_id) references firmware_versions (id) on delete set null;

alter table update_history
    alter column firmware_version_id drop not null,
    drop constraint update_history_firmware_version_id_fkey,
    add constraint update_history_firmware_version_id_fkey
        foreign key (firmware_version_id) references firmware_versions (id) on delete set null,
    add constraint update_history_open_has_release check (not open or firmware_version_id is not null);

create index update_rollouts_release on update_rollouts (firmware_version_id);

comment on column update_rollouts.firmware_version_id is 'The release that the rollout names: on its channel, else the most stable one; null once that was deleted. A printer gets the one for its own channel and platform.';
comment on column update_history.firmware_version_id is 'The release that was offered; null once it was deleted.';
comment on column update_history.reason is 'Why it failed or was cancelled, as a word: reported, rolled_back, timeout, no_space, superseded, withdrawn.';
comment on column printers.last_connected is 'Its last subscribe.';
