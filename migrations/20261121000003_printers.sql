-- Printers, as their last subscribe message described them.
create sequence printer_connections as bigint;

create table printers (
    id uuid primary key,
    number bigint generated always as identity unique,
    printer_id text not null unique check (length(printer_id) between 1 and 64),
    user_id text not null check (length(user_id) between 1 and 64),
    printer_name text check (length(printer_name) between 1 and 64),
    bucket smallint not null check (bucket between 0 and 99),
    platform text not null default 'esp8266' check (platform in ('esp8266', 'esp32', 'esp32-s2', 'esp32-s3', 'esp32-c3')),
    firmware_version text not null default '0.0.0' check (length(firmware_version) between 5 and 64),
    version_key text collate "C" not null,
    auto_update boolean not null default true,
    update_channel text not null default 'stable' check (update_channel in ('stable', 'beta', 'canary')),
    last_connected timestamptz,
    last_disconnected timestamptz,
    last_ip text check (length(last_ip) <= 45),
    replica uuid,
    connection bigint not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create index printers_user_id on printers (user_id, number);
create index printers_channel on printers (update_channel, number);
create index printers_version on printers (firmware_version, number);
create index printers_replica on printers (replica) where replica is not null;

comment on sequence printer_connections is 'Numbers the sockets: of two connections of one printer, the higher number is the newer.';
comment on table printers is 'Every printer that ever subscribed, as it last described itself.';
comment on column printers.id is 'UUID v7 of the row.';
comment on column printers.number is 'The small sequential number that people type.';
comment on column printers.printer_id is 'The printer''s own opaque name; a UUID v5 of user_id and printer_name when it sends none.';
comment on column printers.user_id is 'The owner, from the socket''s path.';
comment on column printers.printer_name is 'What its owner calls it.';
comment on column printers.bucket is 'MD5(printer_id) as a big-endian integer mod 100: its place in gradual rollouts.';
comment on column printers.platform is 'Chip family; decides which images it may be offered.';
comment on column printers.firmware_version is 'The version that it said it runs at its last subscribe.';
comment on column printers.version_key is 'firmware_version in byte-ordered form (see src/version.rs).';
comment on column printers.auto_update is 'Whether it accepts updates that are not mandatory.';
comment on column printers.update_channel is 'stable, beta or canary.';
comment on column printers.last_connected is 'Its last subscribe, by the database''s clock.';
comment on column printers.last_disconnected is 'When its last socket was seen to end.';
comment on column printers.last_ip is 'The address that its last socket came from.';
comment on column printers.replica is 'The replica that holds its socket; null when the socket was seen to end.';
comment on column printers.connection is 'Number of its newest socket: an older one can no longer mark it offline.';
comment on column printers.created_at is 'Its first subscribe.';
comment on column printers.updated_at is 'Last change of the row.';
