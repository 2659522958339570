-- What an upload's image was found to be, and a revision for those who change a release's notes.
alter table firmware_versions
    add column image jsonb,
    add column validated boolean not null default false,
    add column revision bigint not null default 1;

comment on column firmware_versions.image is 'What the image says about itself, with warnings, as JSON (see src/firmware/image); null when it was not checked.';
comment on column firmware_versions.validated is 'Whether the image was checked when it was uploaded; false when the upload said validate=off.';
comment on column firmware_versions.revision is 'Raised by every change that an operator makes; the entity tag of If-Match.';
