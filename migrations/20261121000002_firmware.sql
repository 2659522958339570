-- Releases: one immutable object in S3 each, under (version, channel, platform).
create table firmware_versions (
    id uuid primary key,
    number bigint generated always as identity unique,
    version text not null check (length(version) between 5 and 64),
    version_key text collate "C" not null,
    channel text not null check (channel in ('stable', 'beta', 'canary')),
    platform text not null check (platform in ('esp8266', 'esp32', 'esp32-s2', 'esp32-s3', 'esp32-c3')),
    object_key text not null unique,
    file_size bigint not null check (file_size > 0),
    md5_checksum text not null check (md5_checksum ~ '^[0-9a-f]{32}$'),
    sha256_checksum text not null check (sha256_checksum ~ '^[0-9a-f]{64}$'),
    release_notes text,
    changelog text,
    mandatory boolean not null default false,
    min_upgrade_version text check (length(min_upgrade_version) between 5 and 64),
    min_upgrade_version_key text collate "C",
    released_at timestamptz not null,
    deprecated_at timestamptz,
    download_count bigint not null default 0 check (download_count >= 0),
    created_at timestamptz not null default now(),
    constraint firmware_versions_release_key unique (version, channel, platform),
    check ((min_upgrade_version is null) = (min_upgrade_version_key is null))
);

create index firmware_versions_latest on firmware_versions (channel, platform, version_key desc) where deprecated_at is null;

comment on table firmware_versions is 'Releases. The bytes are in S3 and never change; a release is unique by version, channel and platform.';
comment on column firmware_versions.id is 'UUID v7; part of the object key, so that no two releases share a key.';
comment on column firmware_versions.number is 'The small sequential number that people type.';
comment on column firmware_versions.version is 'Semantic version 2.0 as uploaded.';
comment on column firmware_versions.version_key is 'The version in a form whose byte order is semver precedence (see src/version.rs).';
comment on column firmware_versions.channel is 'stable, beta or canary.';
comment on column firmware_versions.platform is 'The chip family that the image runs on.';
comment on column firmware_versions.object_key is 'Where the bytes are in the bucket.';
comment on column firmware_versions.file_size is 'Bytes of the image.';
comment on column firmware_versions.md5_checksum is 'MD5 of the image, lower-case hex: what printers check.';
comment on column firmware_versions.sha256_checksum is 'SHA-256 of the image, lower-case hex.';
comment on column firmware_versions.release_notes is 'Short notes for people.';
comment on column firmware_versions.changelog is 'Long notes for people.';
comment on column firmware_versions.mandatory is 'Offered even to printers whose automatic updates are off.';
comment on column firmware_versions.min_upgrade_version is 'Printers below it cannot take this release directly.';
comment on column firmware_versions.min_upgrade_version_key is 'min_upgrade_version in byte-ordered form.';
comment on column firmware_versions.released_at is 'When the release became available.';
comment on column firmware_versions.deprecated_at is 'When the release was withdrawn; null while it stands.';
comment on column firmware_versions.download_count is 'Complete downloads through this server''s own endpoints.';
comment on column firmware_versions.created_at is 'When the row was written.';
